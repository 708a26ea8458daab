-- Protocols written in C: a module supplies them to servers and connections, and no Lua runs for them.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local programs = require "spec.support.programs"

local c_protocol = programs.module "c_protocol"

helper.each_loop(function(_, new_loop)
  describe("a protocol in C", function()
    local function serve(kind, body)
      helper.with_loop(new_loop, function(loop)
        local protocols = {}
        local server = loop:create_server(function()
          protocols[#protocols + 1] = c_protocol[kind]()
          return protocols[#protocols]
        end, "127.0.0.1", 0)
        local sock = helper.connect(loop, helper.address_of(server))
        body(loop, sock, protocols)
        sock:close()
        server:close()
        server:wait_closed()
        assert.equal(1, protocols[1]:counts().lost)
      end)
    end

    for _, kind in ipairs { "stream", "buffered" } do
      it("serves connections: " .. kind, function()
        serve(kind, function(loop, sock, protocols)
          for n = 1, 50 do
            local text = ("%d,"):format(n):rep(n)
            helper.send_all(loop, sock, text)
            assert.equal(text, helper.recv_exactly(loop, sock, #text))
          end
          sock:shutdown(aloop.socket.SHUT_WR)
          assert.is_nil(helper.recv(loop, sock))
          local counts = protocols[1]:counts()
          assert.same({ 1, 1, 0 }, { counts.made, counts.eof, counts.error })
          assert.is_true(counts.bytes > 1000)
        end)
      end)
    end

    it("is told of flow control and of errors", function()
      serve("stream", function(loop, sock, protocols)
        local block = ("x"):rep(65536)
        local sent = 0
        while protocols[1] == nil or protocols[1]:counts().pauses == 0 do
          local ok, n = pcall(sock.send, sock, block)
          sent = sent + (ok and n or 0)
          aloop.sleep(0)
        end
        helper.recv_exactly(loop, sock, sent)
        while protocols[1]:counts().resumes == 0 do aloop.sleep(0) end
        helper.reset(sock)
        while protocols[1]:counts().lost == 0 do aloop.sleep(0.001) end
        assert.not_equal(0, protocols[1]:counts().error)
      end)
    end)

    it("makes connections, and is kept as long as they need it", function()
      helper.with_loop(new_loop, function(loop)
        local server_side = helper.Recorder(loop)
        local server = loop:create_server(helper.always(server_side), "127.0.0.1", 0)
        local transport, protocol = loop:create_connection(c_protocol.stream, "127.0.0.1",
          helper.address_of(server).port)
        assert.equal(protocol, transport:get_protocol())
        assert.equal(1, protocol:counts().made)
        transport, protocol = nil, nil -- luacheck: ignore 311
        collectgarbage()
        collectgarbage()
        server_side:wait_for("made")
        server_side.transport:write("hello")
        assert.equal("hello", server_side:wait_data(5))
        server_side.transport:close()
        server_side:wait_lost()
        server:close()
        server:wait_closed()
      end)
    end)

    it("and one in Lua take each other's place", function()
      helper.with_loop(new_loop, function(loop)
        local transport, recorder, sock = helper.over_socketpair(loop)
        local echo = c_protocol.buffered()
        transport:set_protocol(echo)
        assert.equal(echo, transport:get_protocol())
        sock:send("to C")
        while echo:counts().bytes < 4 do aloop.sleep(0) end
        assert.equal(0, echo:counts().made) -- and so it can't echo
        transport:set_protocol(recorder)
        sock:send("to Lua")
        assert.equal("to Lua", recorder:wait_data(6))
        transport:close()
        recorder:wait_lost()
        assert.equal(0, echo:counts().lost)
        sock:close()
      end)
    end)

    it("whose __al_protocol gives none is refused", function()
      helper.with_loop(new_loop, function(loop)
        local a, b = aloop.socket.socketpair()
        helper.type_error("__al_protocol returned none", loop.create_connection, loop, c_protocol.broken, nil, nil,
          { sock = a })
        a:close()
        b:close()
      end)
    end)
  end)
end)
