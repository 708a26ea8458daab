-- Datagram transports, over IPv4, IPv6 and Unix sockets.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local Datagrams, endpoint, sockname = datagrams.Datagrams, datagrams.endpoint, datagrams.sockname
local S = aloop.socket

helper.each_loop(function(kind, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  describe("a datagram endpoint", function()
    -- row: create_datagram_endpoint, create_datagram_endpoint.family_kinds, create_datagram_endpoint.protocol_factory
    -- row: create_datagram_endpoint.local_addr, create_datagram_endpoint.remote_addr
    -- row: create_datagram_endpoint.windows, DatagramTransport.sendto, DatagramProtocol.datagram_received
    for _, host in ipairs { "127.0.0.1", "::1" } do
      it("sends there and back over " .. host, function()
        with_loop(function(loop)
          local server, at = endpoint(loop, { host, 0 })
          local client, transport = endpoint(loop, nil, { host, sockname(at).port })
          assert.is_true(aloop.isinstance(transport, aloop.DatagramTransport))
          assert.is_true(aloop.isinstance(transport, aloop.BaseTransport))
          transport:sendto("ping")
          server:wait_got(1)
          assert.same({ "ping" }, server.got)
          assert.equal(tostring(sockname(transport)), tostring(server.senders[1]))
          at:sendto("pong", server.senders[1])
          assert.same({ "pong" }, client:wait_got(1))
          assert.equal(tostring(sockname(at)), tostring(transport:get_extra_info("peername")))
          assert.is_nil(at:get_extra_info("peername"))
          assert.equal(S.SOCK_DGRAM, at:get_extra_info("socket").type)
          assert.is_nil(client:close())
          assert.is_nil(server:close())
          assert.equal(0, sockname(transport).port % 1) -- also after close
        end)
      end)
    end

    it("keeps the boundaries of datagrams and their order", function() -- row: DatagramProtocol.datagram_received
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        local sent = {}
        for i = 1, 50 do
          sent[i] = ("%d"):format(i):rep(i)
          transport:sendto(sent[i])
        end
        assert.same(sent, server:wait_got(50))
        for i = 2, 50 do assert.equal(tostring(server.senders[1]), tostring(server.senders[i])) end
        client:close()
        server:close()
      end)
    end)

    it("sends and receives empty datagrams", function() -- row: datagram.sendto_empty
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        transport:sendto("")
        transport:sendto("x")
        transport:sendto("")
        assert.same({ "", "x", "" }, server:wait_got(3))
        client:close()
        server:close()
      end)
    end)

    it("takes the largest datagram whole", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        local data = ("abcdefg"):rep(9358):sub(1, 65507)
        transport:sendto(data)
        assert.equal(data, server:wait_got(1)[1])
        client:close()
        server:close()
      end)
    end)

    it("sends buffers, of which it keeps a copy", function() -- row: datagram.sendto_buffering
      with_loop(function(loop)
        local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
        local protocol, transport = endpoint(loop, nil, nil, { sock = a })
        local buffer = aloop.buffer(5)
        buffer:set(1, "first")
        while transport:get_write_buffer_size() == 0 do transport:sendto(buffer) end
        buffer:set(1, "other")
        local n = 0
        while transport:get_write_buffer_size() > 0 or n == 0 do
          assert.equal("first", helper.recv(loop, b))
          n = n + 1
        end
        protocol:close()
        b:close()
      end)
    end)

    -- row: example.udp_echo
    it("may answer from datagram_received, to many", function()
      with_loop(function(loop)
        local Echo = aloop.DatagramProtocol:extend("Echo")
        function Echo:connection_made(transport) self.transport = transport end
        function Echo:datagram_received(data, addr) self.transport:sendto(data, addr) end
        local at = loop:create_datagram_endpoint(Echo, { "127.0.0.1", 0 })
        local clients = {}
        for i = 1, 20 do clients[i] = endpoint(loop, nil, sockname(at)) end
        for round = 1, 5 do
          for i, client in ipairs(clients) do client.transport:sendto(i .. "/" .. round) end
          for i, client in ipairs(clients) do
            client:wait_got(round)
            assert.equal(i .. "/" .. round, client.got[round])
          end
        end
        for _, client in ipairs(clients) do client:close() end
        at:close()
      end)
    end)

    it("gives each sender an array of its own that may be changed", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        for i = 1, 3 do
          transport:sendto("x")
          server:wait_got(i)
          local sender = server.senders[i]
          assert.equal(tostring(sockname(transport)), tostring(sender))
          assert.equal("127.0.0.1", sender.host)
          assert.equal(sockname(transport).port, sender.port)
          at:sendto("a" .. i, { sender[1], sender[2] })
          if i == 1 then sender[1] = "127.0.0.99" else sender[2] = 1 end
        end
        assert.same({ "a1", "a2", "a3" }, client:wait_got(3))
        client:close()
        server:close()
      end)
    end)
  end)

  describe("errors", function()
    -- row: datagram.error_received, DatagramProtocol.error_received
    it("go to error_received, and end nothing", function()
      with_loop(function(loop)
        local address = helper.vacant_address(S.SOCK_DGRAM)
        local client, transport = endpoint(loop, nil, address)
        transport:sendto("anybody there?")
        client:wait(function() return #client.errors > 0 end)
        assert.is_true(aloop.isinstance(client.errors[1], aloop.ConnectionRefusedError))
        assert.is_false(transport:is_closing())
        local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
        sock:bind(address)
        while not pcall(sock.recv, sock, 100) do -- what is pending may be told to the next sendto, too
          transport:sendto("and now?")
          aloop.sleep(0)
        end
        assert.is_nil(client:close())
        sock:close()
      end)
    end)

    it("of sending too much come at once", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        transport:sendto(("x"):rep(70000))
        assert.equal("EMSGSIZE", client.errors[1].code)
        assert.equal(0, transport:get_write_buffer_size())
        transport:sendto("less")
        assert.same({ "less" }, server:wait_got(1))
        client:close()
        server:close()
      end)
    end)

    it("of an address that can't be found come at once, too", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, { "127.0.0.1", 0 })
        transport:sendto("x", { "::1", 9 })
        transport:sendto("x", { "::2", 9 })
        for i = 1, 2 do assert.is_true(aloop.isinstance(client.errors[i], aloop.gaierror)) end
        assert.is_false(transport:is_closing())
        transport:sendto("found", sockname(at))
        assert.same({ "found" }, server:wait_got(1))
        local other, connected = endpoint(loop, nil, sockname(at))
        raises(aloop.ValueError, "Invalid address: must be nil or", connected.sendto, connected, "x",
          { "::1", 9 })
        assert.same({}, other.errors)
        for _, protocol in ipairs { client, server, other } do protocol:close() end
        transport:sendto("x", { "::1", 9 })
        assert.equal(2, #client.errors)
      end)
    end)

    it("of callbacks are reported and end nothing", function()
      with_loop(function(loop, trial)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local fail = true
        server.datagram_received = function(self, ...)
          Datagrams.datagram_received(self, ...)
          if fail then error(aloop.Error("no such datagram")) end
        end
        at:set_protocol(server)
        local client, transport = endpoint(loop, nil, sockname(at))
        client.error_received = function() error(aloop.Error("no such error")) end
        transport:set_protocol(client)
        transport:sendto("one")
        server:wait_got(1)
        fail = false
        transport:sendto("two")
        server:wait_got(2)
        local context = trial:take_error()
        assert.equal("no such datagram", context.exception.message)
        assert.equal(at, context.transport)
        assert.equal(server, context.protocol)
        transport:sendto(("x"):rep(70000))
        assert.equal("no such error", trial:take_error().exception.message)
        assert.is_false(transport:is_closing())
        client:close()
        server:close()
      end)
    end)

    it("of arguments are raised", function() -- row: datagram.sendto_type
      with_loop(function(loop)
        local protocol, transport = endpoint(loop, { "127.0.0.1", 0 })
        type_error("bad argument #1 to 'sendto'", transport.sendto, transport, 42)
        type_error("bad argument #1 to 'sendto'", transport.sendto, transport)
        type_error("bad argument #2 to 'sendto'", transport.sendto, transport, "x", "path")
        raises(aloop.ValueError, "port must be 0-65535", transport.sendto, transport, "x", { "127.0.0.1", -1 })
        local stream, recorder, peer = helper.over_socketpair(loop)
        type_error("DatagramTransport expected", transport.sendto, stream, "x", { "127.0.0.1", 9 })
        stream:close()
        recorder:wait_lost()
        peer:close()
        protocol:close()
      end)
    end)
  end)

  describe("the life of a datagram transport", function()
    it("calls made, then returns; connection_lost once, from a later turn", function()
      with_loop(function(loop)
        local order = {}
        local protocol = Datagrams(loop)
        protocol.connection_made = function(self, transport)
          order[#order + 1] = "made"
          Datagrams.connection_made(self, transport)
        end
        local transport = loop:create_datagram_endpoint(function(...)
          order[#order + 1] = "factory " .. select("#", ...)
          return protocol
        end, { "127.0.0.1", 0 })
        order[#order + 1] = "returned"
        assert.same({ "factory 0", "made", "returned" }, order)
        transport:close()
        transport:close()
        transport:abort()
        assert.equal(0, protocol:count("lost"))
        protocol:wait(function() return protocol.is_lost end)
        aloop.sleep(0.002)
        assert.equal(1, protocol:count("lost"))
      end)
    end)

    it("delivers nothing after close, not even what had arrived", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        server.datagram_received = function(self, ...)
          Datagrams.datagram_received(self, ...)
          at:close()
        end
        at:set_protocol(server)
        for i = 1, 10 do transport:sendto(tostring(i)) end
        server:wait(function() return server.is_lost end)
        assert.same({ "1" }, server.got)
        client:close()
      end)
    end)

    it("drops what is sent after close, with a warning", function()
      with_loop(function(loop, trial)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, nil, sockname(at))
        client:close()
        for _ = 1, 7 do transport:sendto("x") end
        for _ = 1, 3 do trial:take_log("socket.send%(%) raised exception") end
        server:close()
        assert.same({}, server.got)
      end)
    end)

    it("goes on with what was received when an interrupt left the loop", function()
      helper.drive(new_loop, function(loop, trial)
        local server, at
        trial:run_task(function() server, at = endpoint(loop, { "127.0.0.1", 0 }) end)
        server.datagram_received = function(self, data, addr)
          Datagrams.datagram_received(self, data, addr)
          if data == "2" then error(aloop.KeyboardInterrupt()) end
        end
        at:set_protocol(server)
        local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
        for i = 1, 5 do sock:sendto(tostring(i), sockname(at)) end
        raises(aloop.KeyboardInterrupt, nil, loop.run_forever, loop)
        assert.same({ "1", "2" }, server.got)
        trial:run_task(function()
          server:wait_got(5)
          assert.same({ "1", "2", "3", "4", "5" }, server.got)
          server:close()
        end)
        sock:close()
      end)
    end)

    it("listens without an owner, and is closed with the loop", function()
      helper.drive(new_loop, function(loop, trial)
        local got = {}
        local address = trial:run_task(function()
          local at = loop:create_datagram_endpoint(function()
            return { datagram_received = function(_, data) got[#got + 1] = data end }
          end, { "127.0.0.1", 0 })
          return sockname(at)
        end)
        collectgarbage()
        collectgarbage()
        trial:run_task(function()
          local client, transport = endpoint(loop, nil, address)
          transport:sendto("x")
          trial:wait_until(function() return #got > 0 end)
          client:close()
        end)
      end, { open = true })
    end)

    it("cannot be asked for what only streams have", function()
      with_loop(function(loop)
        local protocol, transport = endpoint(loop, { "127.0.0.1", 0 })
        assert.is_nil(transport.write)
        assert.is_nil(transport.pause_reading)
        assert.matches("fd=%d+", tostring(transport))
        protocol:close()
        assert.matches("closed", tostring(transport))
      end)
    end)

    it("serves plain tables, with or without methods", function() -- row: protocols.optional_callbacks
      with_loop(function(loop)
        local got = loop:create_future()
        local at = loop:create_datagram_endpoint(function()
          return { datagram_received = function(_, data) got:set_result(data) end }
        end, { "127.0.0.1", 0 })
        local mute = loop:create_datagram_endpoint(function() return {} end, nil, sockname(at))
        mute:sendto("x")
        assert.equal("x", got:await())
        mute:sendto(("x"):rep(70000))
        mute:close()
        at:close()
        aloop.sleep(0)
        assert.is_string(kind)
      end)
    end)
  end)
end)
