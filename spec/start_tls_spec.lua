-- start_tls: a connection that goes on over TLS; of transports and of streams, on either side, and TLS in TLS.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local raises, type_error = helper.raises, helper.type_error
local ssl = aloop.ssl

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(client transport, client, server transport, server, loop, trial): joined, without TLS.
  local function with_plain(body)
    with_loop(function(loop, trial)
      local transport, client, server_transport, server = helper.joined(loop)
      body(transport, client, server_transport, server, loop, trial)
      transport:abort()
      server_transport:abort()
      client:wait_lost()
      server:wait_lost()
    end)
  end

  -- Upgrades both ends at once; the new transports.
  local function upgrade(loop, transport, client, server_transport, server, options)
    options = options or {}
    local server_context, client_context = tls.contexts(options)
    local upgrading = loop:create_task(function()
      return loop:start_tls(server_transport, server, server_context, tls.with(options.accept, { server_side = true }))
    end)
    local new = loop:start_tls(transport, client, client_context,
      tls.with({ server_hostname = "localhost" }, options.connect or {}))
    return new, upgrading:await()
  end

  describe("start_tls", function()
    it("goes on over TLS", function()
      -- row: start_tls, start_tls.layering, start_tls.use_new_only, start_tls.no_second_connection_made
      -- row: start_tls.server_side, start_tls.server_hostname
      with_plain(function(transport, client, server_transport, server, loop)
        transport:write "plain"
        server:wait_data(5)
        local new, server_new = upgrade(loop, transport, client, server_transport, server)
        assert.not_equal(transport, new)
        assert.equal("TLSv1.3", new:get_extra_info "ssl_object":version())
        assert.equal("localhost", new:get_extra_info "ssl_object".server_hostname)
        assert.is_true(server_new:get_extra_info "ssl_object".server_side)
        assert.is_nil(transport:get_extra_info "ssl_object")
        assert.equal(new, transport:get_protocol())
        assert.equal(client, new:get_protocol())
        assert.equal(transport:get_extra_info "socket":fileno(), new:get_extra_info "socket":fileno())
        assert.equal(tostring(transport:get_extra_info "peername"), tostring(new:get_extra_info "peername"))
        new:write " and encrypted"
        assert.equal("plain and encrypted", server:wait_data(19))
        server_new:write "back"
        assert.equal("back", client:wait_data(4))
        assert.equal(1, client:count "made")
        new:close()
        assert.is_nil(client:wait_lost())
        assert.is_nil(server:wait_lost())
        assert.equal(1, server:count "eof")
        assert.is_true(transport:is_closing())
      end)
    end)

    it("works over Unix sockets", function()
      -- row: start_tls.transport_protocol
      with_loop(function(loop)
        local a, b = aloop.socket.socketpair()
        local client, server = helper.Recorder(loop), helper.Recorder(loop)
        local transport = loop:create_unix_connection(helper.always(client), nil, { sock = a })
        local server_transport = loop:connect_accepted_socket(helper.always(server), b)
        local new = upgrade(loop, transport, client, server_transport, server)
        new:write "x"
        server:wait_data(1)
        new:close()
        client:wait_lost()
        server:wait_lost()
      end)
    end)

    it("works over TLS", function()
      with_loop(function(loop)
        local transport, client, server_transport, server = tls.pair(loop)
        local new, server_new = upgrade(loop, transport, client, server_transport, server)
        assert.matches("^<Transport TLS", tostring(new))
        new:write "inside"
        assert.equal("inside", server:wait_data(6))
        local block = ("x"):rep(2000000)
        server_new:write(block)
        client:wait_data(#block)
        local third, server_third = upgrade(loop, new, client, server_new, server)
        third:write "deeper"
        assert.equal("insidedeeper", server:wait_data(12))
        server_third:close()
        assert.is_nil(client:wait_lost())
        assert.is_nil(server:wait_lost())
      end)
    end)

    it("over TLS is cut off by the end of the one below, even if that one ended well", function()
      with_loop(function(loop)
        local transport, client, server_transport, server = tls.pair(loop)
        upgrade(loop, transport, client, server_transport, server)
        transport:close()
        assert.is_nil(client:wait_lost())
        assert.is_true(aloop.isinstance(server:wait_lost(), aloop.ssl.SSLEOFError))
        assert.equal(0, server:count "eof")
      end)
    end)

    it("takes what has come already for the handshake", function()
      -- row: start_tls.pause_first, tls.write_before_handshake
      with_plain(function(transport, client, server_transport, server, loop)
        local client_context = certs.client_context()
        local upgrading = loop:create_task(function()
          return loop:start_tls(transport, client, client_context, { server_hostname = "localhost" })
        end)
        server_transport:pause_reading()
        helper.turns(20)
        local new_server = loop:start_tls(server_transport, server, certs.server_context(), { server_side = true })
        local new = upgrading:await()
        new:write "x"
        assert.equal("x", server:wait_data(1))
        new_server:write "y"
        assert.equal("y", client:wait_data(1))
      end)
    end)

    it("is nil for a transport that is closed", function()
      -- row: start_tls.none_result
      with_loop(function(loop)
        local transport, client, server_transport, server = helper.joined(loop)
        transport:close()
        assert.is_nil(loop:start_tls(transport, client, certs.client_context(), { server_hostname = "localhost" }))
        client:wait_lost()
        assert.is_nil(loop:start_tls(transport, client, certs.client_context(), { server_hostname = "localhost" }))
        server_transport:abort()
        server:wait_lost()
      end)
    end)

    it("closes the transport when the handshake fails", function()
      -- row: start_tls.failure_closes
      with_loop(function(loop)
        local transport, client, server_transport, server = helper.joined(loop)
        server_transport:write "no TLS here, I am afraid\r\n"
        local e = raises(ssl.SSLError, "WRONG_VERSION_NUMBER", loop.start_tls, loop, transport, client,
          certs.client_context(), { server_hostname = "localhost" })
        assert.is_true(transport:is_closing())
        local reason = client:wait_lost()
        assert.is_true(aloop.isinstance(reason, ssl.SSLError), tostring(reason))
        assert.equal(e.reason, reason.reason)
        server:wait_lost()
      end)
    end)

    it("refuses a certificate for another name", function()
      with_loop(function(loop)
        local transport, client, server_transport, server = helper.joined(loop)
        local upgrading = loop:create_task(function()
          return pcall(loop.start_tls, loop, server_transport, server, certs.server_context(), { server_side = true })
        end)
        raises(ssl.SSLCertVerificationError, "certificate is not valid for 'other.example'", loop.start_tls, loop,
          transport, client, certs.client_context(), { server_hostname = "other.example" })
        client:wait_lost()
        server:wait_lost()
        upgrading:await()
      end)
    end)

    it("closes the transport when it is cancelled", function()
      with_loop(function(loop)
        local transport, client, server_transport, server = helper.joined(loop)
        local task = loop:create_task(function()
          return loop:start_tls(transport, client, certs.client_context(), { server_hostname = "localhost" })
        end)
        server:wait_data(5)
        task:cancel()
        helper.cancelled(task)
        assert.is_true(transport:is_closing())
        client:wait_lost()
        server_transport:abort()
        server:wait_lost()
      end)
    end)

    it("has time limits", function()
      -- row: start_tls.ssl_handshake_timeout, start_tls.ssl_shutdown_timeout
      with_loop(function(loop)
        local transport, client, _, server = helper.joined(loop)
        raises(aloop.ConnectionAbortedError, "SSL handshake is taking longer than 0.05 seconds", loop.start_tls, loop,
          transport, client, certs.client_context(), { server_hostname = "localhost", ssl_handshake_timeout = 0.05 })
        client:wait_lost()
        server:wait_lost()
        local server_transport
        transport, client, server_transport, server = helper.joined(loop)
        local new, server_new = upgrade(loop, transport, client, server_transport, server,
          { connect = { ssl_shutdown_timeout = 0.05 } })
        server_new:pause_reading()
        new:close()
        assert.is_true(aloop.isinstance(client:wait_lost(), aloop.TimeoutError))
        server_new:abort()
        server:wait_lost()
      end)
    end)

    it("takes a session", function()
      with_loop(function(loop)
        local server_context, client_context = tls.contexts()
        local session
        for i = 1, 2 do
          local transport, client, server_transport, server = helper.joined(loop)
          local new, server_new = upgrade(loop, transport, client, server_transport, server,
            { server = server_context, client = client_context, connect = { session = session } })
          server_new:write "x"
          client:wait_data(1)
          session = new:get_extra_info "ssl_object".session
          assert.equal(i == 2, new:get_extra_info "ssl_object".session_reused)
          new:close()
          client:wait_lost()
          server:wait_lost()
        end
      end)
    end)

    it("checks its arguments", function()
      -- row: start_tls.sslcontext
      with_plain(function(transport, client, _, server, loop)
        local context = ssl.SSLContext()
        local function start(...) return loop:start_tls(...) end
        type_error("bad argument #3 to 'start_tls' (SSLContext expected, got nil)", start, transport, client, nil)
        type_error("bad argument #3 to 'start_tls' (SSLContext expected, got boolean)", start, transport, client, true)
        type_error("bad argument #1 to 'start_tls' (Transport expected, got nil)", start, nil, client, context)
        type_error("bad argument #2 to 'start_tls' (protocol expected, got number)", start, transport, 5, context)
        type_error("unknown option 'hostname' to 'start_tls'", start, transport, client, context, { hostname = "x" })
        type_error("bad option 'server_side' to 'start_tls' (boolean expected, got number)", start, transport, client,
          context, { server_side = 1 })
        raises(aloop.ValueError, "check_hostname requires server_hostname", start, transport, client, context)
        raises(aloop.ValueError, "ssl_handshake_timeout should be a positive number, got 0", start, transport, client,
          context, { server_hostname = "x", ssl_handshake_timeout = 0 })
        raises(ssl.SSLError, "Cannot create a server socket with a PROTOCOL_TLS_CLIENT context", start, transport,
          client, context, { server_side = true })
        assert.is_false(transport:is_closing())
        transport:write "still plain"
        assert.equal("still plain", server:wait_data(11))
      end)
    end)

    it("refuses what has no two ways", function()
      with_loop(function(loop)
        local read_end, write_end = aloop.pipe()
        local writer, protocol = loop:connect_write_pipe(aloop.Protocol, write_end)
        type_error("is not supported by start_tls()", loop.start_tls, loop, writer, protocol, ssl.SSLContext(),
          { server_hostname = "x" })
        writer:abort()
        read_end:close()
        local datagram = loop:create_datagram_endpoint(aloop.DatagramProtocol, { "127.0.0.1", 0 })
        type_error("is not supported by start_tls()", loop.start_tls, loop, datagram, protocol, ssl.SSLContext(),
          { server_hostname = "x" })
        datagram:close()
      end)
    end)

    it("refuses a transport on which it was called before", function()
      with_plain(function(transport, client, server_transport, server, loop)
        local context, options = certs.client_context(), { server_hostname = "localhost" }
        local first = loop:create_task(function() return loop:start_tls(transport, client, context, options) end)
        helper.turns(1)
        local function again() return loop:start_tls(transport, client, context, options) end
        raises(aloop.RuntimeError, "unable to start_tls; it was called already", again)
        loop:start_tls(server_transport, server, certs.server_context(), { server_side = true })
        local new = first:await()
        raises(aloop.RuntimeError, "unable to start_tls; it was called already", again)
        new:write "unharmed"
        assert.equal("unharmed", server:wait_data(8))
      end)
    end)

    it("lets nothing more past it that is not encrypted", function()
      -- row: start_tls.use_new_only
      with_plain(function(transport, client, server_transport, server, loop)
        local function refused()
          raises(aloop.RuntimeError, "Cannot call write() after start_tls()", transport.write, transport, "x")
          raises(aloop.RuntimeError, "Cannot call writelines() after start_tls()",
            transport.writelines, transport, { "x" })
          raises(aloop.RuntimeError, "Cannot call write_eof() after start_tls()", transport.write_eof, transport)
          local file <close> = assert(io.open(certs.write("small", "x"), "rb"))
          raises(aloop.RuntimeError, "unable to sendfile after start_tls()", loop.sendfile, loop, transport, file)
        end
        local upgrading = loop:create_task(function()
          return loop:start_tls(transport, client, certs.client_context(), { server_hostname = "localhost" })
        end)
        helper.turns(1)
        refused()
        loop:start_tls(server_transport, server, certs.server_context(), { server_side = true })
        local new = upgrading:await()
        refused()
        new:write "unharmed"
        assert.equal("unharmed", server:wait_data(8))
      end)
    end)

    it("refuses a transport that sends a file", function()
      with_loop(function(loop)
        local transport, client, server_transport, server = helper.joined(loop)
        server_transport:pause_reading()
        local file = assert(io.open(certs.write("big", ("x"):rep(20000000)), "rb"))
        local sending = loop:create_task(function() return loop:sendfile(transport, file) end)
        helper.turns(3)
        raises(aloop.RuntimeError, "sendfile is in progress", loop.start_tls, loop, transport, client,
          certs.client_context(), { server_hostname = "localhost" })
        server_transport:resume_reading()
        assert.equal(20000000, sending:await())
        file:close()
        transport:close()
        client:wait_lost()
        server:wait_lost()
      end)
    end)

    it("keeps the transport below as long as the one above", function()
      with_loop(function(loop)
        local new, server_new
        local client, server
        do
          local transport, server_transport
          transport, client, server_transport, server = helper.joined(loop)
          new, server_new = upgrade(loop, transport, client, server_transport, server)
          client.transport, server.transport = nil, nil
        end
        client.transport, server.transport = new, server_new
        new:pause_reading()
        helper.turns(3)
        collectgarbage()
        collectgarbage()
        server_new:write "x"
        new:resume_reading()
        assert.equal("x", client:wait_data(1))
        new:close()
        client:wait_lost()
        server:wait_lost()
      end)
    end)
  end)

  describe("StreamWriter:start_tls", function()
    -- A server of streams whose callback may do what it likes, and a client of it.
    local function with_streams(callback, body)
      with_loop(function(loop)
        local done = loop:create_future()
        local server = aloop.start_server(function(reader, writer)
          callback(reader, writer)
          writer:close()
          if not done:done() then done:set_result() end
        end, "127.0.0.1", 0)
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2])
        body(reader, writer, loop)
        done:await()
        writer:close()
        pcall(writer.wait_closed, writer)
        server:close()
        server:wait_closed()
      end)
    end

    it("upgrades both sides", function()
      local server_context = certs.server_context()
      with_streams(function(reader, writer)
        assert(reader:readline() == "STARTTLS\n")
        writer:write "go ahead\n"
        writer:start_tls(server_context)
        writer:write(reader:readline():upper())
        writer:drain()
      end, function(reader, writer)
        writer:write "STARTTLS\n"
        assert.equal("go ahead\n", reader:readline())
        local before = writer.transport
        writer:start_tls(certs.client_context(), { server_hostname = "localhost" })
        assert.not_equal(before, writer.transport)
        assert.equal("TLSv1.3", writer:get_extra_info "ssl_object":version())
        writer:write "encrypted\n"
        assert.equal("ENCRYPTED\n", reader:readline())
        assert.is_nil(reader:readline())
      end)
    end)

    it("encrypts what is written meanwhile", function()
      -- row: tls.write_before_handshake
      local got
      with_streams(function(reader, writer)
        writer:start_tls(certs.server_context())
        got = reader:readline() .. reader:readline()
      end, function(_, writer, loop)
        local starting = loop:create_task(function()
          writer:start_tls(certs.client_context(), { server_hostname = "localhost" })
        end)
        helper.turns(1)
        writer:write "one\n"
        writer:writelines { "two\n" }
        starting:await()
      end)
      assert.equal("one\ntwo\n", got)
    end)

    it("pauses the new transport when too much is unread", function()
      local server_context = certs.server_context()
      local text = ("x"):rep(3000000)
      with_streams(function(reader, writer)
        writer:start_tls(server_context)
        assert(reader:readexactly(2) == "go")
        writer:write(text)
        writer:drain()
      end, function(reader, writer)
        writer:start_tls(certs.client_context(), { server_hostname = "localhost" })
        writer:write "go"
        for _ = 1, 100 do aloop.sleep(0.001) end
        assert.is_false(writer.transport:is_reading())
        assert.equal(text, reader:read())
      end)
    end)

    it("raises what goes wrong, and the reader and the writer know, too", function()
      with_streams(function(reader, writer)
        writer:write "not TLS at all, but long enough\n"
        reader:read()
      end, function(reader, writer)
        raises(ssl.SSLError, "WRONG_VERSION_NUMBER", writer.start_tls, writer, certs.client_context(),
          { server_hostname = "localhost" })
        assert.is_true(writer:is_closing())
        raises(ssl.SSLError, "WRONG_VERSION_NUMBER", reader.read, reader)
        raises(ssl.SSLError, nil, writer.wait_closed, writer)
      end)
    end)
  end)
end)
