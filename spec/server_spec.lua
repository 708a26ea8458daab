-- create_server and Server over TCP.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local S = aloop.socket

local function nop() end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  local function serving(body, options) helper.serving(new_loop, body, options) end

  describe("create_server", function()
    it("listens when it returns, and makes a protocol for each connection", function()
      -- row: create_server, create_server.protocol_factory, Server, AbstractServer
      serving(function(server, wait_for, loop)
        assert.is_true(aloop.isinstance(server, aloop.Server))
        assert.is_true(aloop.isinstance(server, aloop.AbstractServer))
        local a = helper.connect(loop, helper.address_of(server))
        local b = helper.connect(loop, helper.address_of(server))
        a:send("from a")
        local first, second = wait_for(1), wait_for(2)
        assert.are_not.equal(first, second)
        assert.equal("from a", first:wait_data(6))
        second.transport:write("to b")
        assert.equal("to b", helper.recv(loop, b, 10))
        a:close()
        b:close()
        first:wait_lost()
        second:wait_lost()
      end)
    end)

    it("calls its factory without arguments", function() -- row: create_server.protocol_factory
      with_loop(function(loop)
        local called = loop:create_future()
        local server = loop:create_server(function(...)
          called:set_result(select("#", ...))
          return {}
        end, "127.0.0.1", 0)
        local sock = helper.connect(loop, helper.address_of(server))
        assert.equal(0, called:await())
        sock:close()
        server:close()
        server:wait_closed()
      end)
    end)

    it("binds one host, several, duplicates once", function()
      -- row: create_server.host_string, create_server.host_sequence, create_server.host_duplicates
      with_loop(function(loop)
        local function hosts_of(host)
          local server = loop:create_server(nop, host, 0)
          local hosts = {}
          for i, sock in ipairs(server.sockets) do hosts[i] = sock:getsockname()[1] end
          server:close()
          table.sort(hosts)
          return hosts
        end
        assert.same({ "127.0.0.1" }, hosts_of "127.0.0.1")
        assert.same({ "127.0.0.1", "::1" }, hosts_of { "127.0.0.1", "::1" })
        assert.same({ "127.0.0.1" }, hosts_of { "127.0.0.1", "127.0.0.1" })
      end)
    end)

    -- row: create_server.host_all, create_server.v6only, create_server.port, create_server.port_random; point: 34
    it("without a host binds all interfaces, IPv4 and IPv6 apart on one port", function()
      with_loop(function(loop)
        local address = helper.vacant_address()
        for _, case in ipairs { { nil, address[2] }, { "", 0 }, { nil, 0 } } do
          local server = loop:create_server(nop, case[1], case[2])
          local families = {}
          for _, sock in ipairs(server.sockets) do
            families[sock.family] = true
            local port = sock:getsockname().port
            assert.is_true(port > 0)
            if case[2] > 0 then assert.equal(case[2], port) end
            if sock.family == S.AF_INET6 then
              assert.is_true(sock:getsockopt(S.IPPROTO_IPV6, S.IPV6_V6ONLY) ~= 0)
            end
          end
          assert.is_true(families[S.AF_INET])
          assert.is_true(#server.sockets <= 2)
          server:close()
        end
      end)
    end)

    it("takes a family", function() -- row: create_server.family
      with_loop(function(loop)
        for _, family in ipairs { S.AF_INET, S.AF_INET6 } do
          local server = loop:create_server(nop, nil, 0, { family = family })
          assert.equal(1, #server.sockets)
          assert.equal(family, server.sockets[1].family)
          server:close()
        end
      end)
    end)

    it("takes a port that is a string, and flags", function() -- row: create_server.flags, create_server.port
      with_loop(function(loop)
        local server = loop:create_server(nop, "127.0.0.1", "0", { flags = S.AI_PASSIVE | S.AI_NUMERICHOST })
        assert.is_true(helper.address_of(server).port > 0)
        server:close()
        raises(aloop.gaierror, nil, loop.create_server, loop, nop, "localhost", 0, { flags = S.AI_NUMERICHOST })
      end)
    end)

    -- row: create_server.sock, create_server.sock_ownership, create_server.sock_type
    it("takes a bound socket, which it then owns", function()
      with_loop(function(loop)
        local sock = S.socket(S.AF_INET, S.SOCK_STREAM)
        sock:bind { "127.0.0.1", 0 }
        local address = sock:getsockname()
        for _, args in ipairs { { "127.0.0.1" }, { nil, 0 }, { "127.0.0.1", 0 } } do
          raises(aloop.ValueError, nil, loop.create_server, loop, nop, args[1], args[2], { sock = sock })
        end
        local server = loop:create_server(function() return {} end, nil, nil, { sock = sock })
        assert.equal(address[2], helper.address_of(server).port)
        helper.connect(loop, address):close()
        server:close()
        for _ = 1, 3 do aloop.sleep(0) end
        assert.equal(-1, sock:fileno())
        helper.refused(loop, address)
        local udp = S.socket(S.AF_INET, S.SOCK_DGRAM)
        raises(aloop.ValueError, nil, loop.create_server, loop, nop, nil, nil, { sock = udp })
        udp:close()
        raises(aloop.ValueError, nil, loop.create_server, loop, nop)
      end)
    end)

    it("with a backlog of 100 lets a hundred clients connect before it accepts", function()
      -- row: create_server.backlog, create_server.accept_batch; point: 33
      serving(function(server, wait_for, loop)
        local address = helper.address_of(server)
        local socks = {}
        for i = 1, 100 do
          local sock = S.socket(S.AF_INET, S.SOCK_STREAM)
          pcall(sock.connect, sock, address)
          socks[i] = sock
        end
        wait_for(100)
        for _, sock in ipairs(socks) do sock:close() end
        assert.is_not_nil(loop)
      end)
    end)

    it("sets SO_REUSEADDR unless told not to, and TCP_NODELAY on connections", function()
      -- row: create_server.reuse_address, create_server.nodelay
      serving(function(server, wait_for, loop)
        assert.is_true(server.sockets[1]:getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR) ~= 0)
        local sock = helper.connect(loop, helper.address_of(server))
        local socket = wait_for(1).transport:get_extra_info("socket")
        assert.is_true(socket:getsockopt(S.IPPROTO_TCP, S.TCP_NODELAY) ~= 0)
        -- The address can be bound again although a connection of it is in TIME_WAIT.
        local address = helper.address_of(server)
        wait_for(1).transport:close()
        wait_for(1):wait_lost()
        server:close()
        server:wait_closed()
        local again = loop:create_server(nop, address[1], address[2])
        again:close()
        sock:close()
        local off = loop:create_server(nop, "127.0.0.1", 0, { reuse_address = false })
        assert.equal(0, off.sockets[1]:getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR))
        off:close()
      end)
    end)

    it("with reuse_port shares a port; without it the second one fails", function()
      -- row: create_server.reuse_port, create_server.addr_in_use
      with_loop(function(loop)
        local first = loop:create_server(nop, "127.0.0.1", 0, { reuse_port = true })
        local port = helper.address_of(first).port
        local second = loop:create_server(nop, "127.0.0.1", port, { reuse_port = true })
        local fds = helper.count_fds()
        local e = raises(aloop.OSError, "127.0.0.1", loop.create_server, loop, nop, { "::1", "127.0.0.1" }, port)
        assert.equal("EADDRINUSE", e.code)
        assert.matches(tostring(port), e.message)
        assert.equal(fds, helper.count_fds())
        first:close()
        second:close()
      end)
    end)

    it("with keep_alive sets SO_KEEPALIVE", function() -- row: create_server.keep_alive
      serving(function(server, wait_for, loop)
        assert.is_true(server.sockets[1]:getsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE) ~= 0)
        local sock = helper.connect(loop, helper.address_of(server))
        local socket = wait_for(1).transport:get_extra_info("socket")
        assert.is_true(socket:getsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE) ~= 0)
        sock:close()
      end, { keep_alive = true })
    end)

    it("skips an address that isn't there if another binds", function() -- row: create_server.addr_not_avail; point: 34
      with_loop(function(loop)
        local server = loop:create_server(nop, { "203.0.113.77", "127.0.0.1" }, 0)
        assert.equal(1, #server.sockets)
        assert.equal("127.0.0.1", helper.address_of(server).host)
        server:close()
        local e = raises(aloop.OSError, nil, loop.create_server, loop, nop, "203.0.113.77", 0)
        assert.is_true(e.code == "EADDRNOTAVAIL" or e.message:find("could not bind") ~= nil)
      end)
    end)

    it("refuses wrong arguments and unknown options", function() -- row: create_server.ssl_bool
      with_loop(function(loop)
        local function try(...) return loop.create_server, loop, ... end
        type_error("bad argument #1 to 'create_server'", try(42, "127.0.0.1", 0))
        type_error("bad argument #2 to 'create_server'", try(nop, 42, 0))
        type_error("bad argument #3 to 'create_server'", try(nop, "127.0.0.1", {}))
        type_error("unknown option 'backlogg' to 'create_server'", try(nop, "127.0.0.1", 0, { backlogg = 1 }))
        type_error("bad option 'backlog' to 'create_server'", try(nop, "127.0.0.1", 0, { backlog = "x" }))
        type_error("bad option 'ssl' to 'create_server'", try(nop, "127.0.0.1", 0, { ssl = true }))
        assert.is_false((pcall(try(nop, nil, nil, { sock = true }))))
        raises(aloop.gaierror, nil, try(nop, "no such host.invalid", 0))
      end)
    end)

    it("outside of a task raises RuntimeError", function()
      helper.drive(new_loop, function(loop, trial)
        loop:call_soon(function() loop:create_server(nop, "127.0.0.1", 0) end)
        helper.turn(loop)
        local e = trial:take_error().exception
        assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
        assert.matches("create_server", e.message)
      end)
    end)

    -- row: create_server.accept_setup_error; bug: 15
    it("goes on when its factory fails or returns nonsense, closes that connection and tells of it", function()
      for _, debug in ipairs { false, true } do
        with_loop(function(loop, trial)
          loop:set_debug(debug)
          local n = 0
          local server = loop:create_server(function()
            n = n + 1
            if n == 1 then error("factory fails") end
            if n == 2 then return 42 end
            if n == 3 then return nil end
            return helper.Recorder(loop)
          end, "127.0.0.1", 0)
          for _ = 1, 3 do
            local sock = helper.connect(loop, helper.address_of(server))
            local ok, data = pcall(helper.recv, loop, sock, 1)
            assert.is_true(not ok or data == nil)
            sock:close()
          end
          local sock = helper.connect(loop, helper.address_of(server))
          trial:wait_until(function() return n == 4 end)
          sock:close()
          for _, text in ipairs { "factory fails", "protocol expected, got number", "protocol expected, got nil" } do
            local context = trial:take_error()
            assert.equal("Error on transport creation for incoming connection", context.message)
            assert.matches(text, context.exception)
          end
          server:close()
          server:wait_closed()
          loop:set_debug(false)
        end)
      end
    end)

    it("accepted transports know their peer", function() -- row: create_server.peername
      serving(function(server, wait_for, loop)
        local sock = helper.connect(loop, helper.address_of(server))
        local peername = wait_for(1).transport:get_extra_info("peername")
        assert.equal(tostring(sock:getsockname()), tostring(peername))
        sock:close()
      end)
    end)
  end)
end)
