-- 7: start_tls lost what had been read ahead, as a PROXY line and a ClientHello in one segment (gh-142352, uvloop#707);
-- the reader kept the old transport (gh-114921, gh-152431); servers could not upgrade (gh-79156).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  describe("7: start_tls", function()
    -- The client sends its line and its ClientHello before the server reads; how it upgrades is up to it.
    local function greet(upgrade)
      helper.with_loop(new_loop, function(loop)
        local sent, done = aloop.Event(), loop:create_future()
        local server_context, client_context = certs.server_context(), certs.client_context()
        local server = aloop.start_server(function(reader, writer)
          sent:wait()
          helper.turns(10)
          assert(reader:readline() == "PROXY TCP4 192.0.2.1\r\n")
          upgrade(loop, reader, writer, server_context)
          writer:write(reader:readline():upper())
          writer:drain()
          writer:close()
          done:set_result(writer.transport)
        end, "127.0.0.1", 0)
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2])
        writer:write "PROXY TCP4 192.0.2.1\r\n"
        loop:call_later(0.01, function() sent:set() end)
        writer:start_tls(client_context, { server_hostname = "localhost" })
        writer:write "hello\n"
        assert.equal("HELLO\n", reader:readline())
        done:await()
        writer:close()
        writer:wait_closed()
        server:close()
        server:wait_closed()
      end)
    end

    it("takes what a stream has read ahead into the handshake", function()
      greet(function(_, _, writer, context) writer:start_tls(context) end)
    end)

    it("does so for who calls the loop's, too, and the reader belongs to the new transport", function()
      greet(function(loop, _, writer, context)
        local protocol = writer.transport:get_protocol()
        local new = loop:start_tls(writer.transport, protocol, context, { server_side = true })
        assert(new:get_protocol() == protocol)
        writer.transport = new
        rawset(writer, 1, new)
      end)
    end)

    it("refuses what a stranger has slipped in before the handshake", function()
      helper.with_loop(new_loop, function(loop)
        local ready, result = aloop.Event(), loop:create_future()
        local server = aloop.start_server(function(reader, writer)
          ready:wait()
          helper.turns(10)
          reader:readline()
          result:set_result(pcall(writer.start_tls, writer, certs.server_context()))
        end, "127.0.0.1", 0)
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2])
        writer:write "STARTTLS\r\nRCPT TO:<victim@example.org>\r\n"
        loop:call_later(0.01, function() ready:set() end)
        assert.is_false(pcall(writer.start_tls, writer, certs.client_context(), { server_hostname = "localhost" }))
        local ok, e = result:await()
        assert.is_false(ok)
        assert.is_true(aloop.isinstance(e, aloop.SSLError), tostring(e))
        pcall(reader.read, reader)
        server:close()
        server:wait_closed()
      end)
    end)
  end)
end)
