-- create_connection, connect_accepted_socket and name resolution, over TCP.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local S = aloop.socket

local function nop() end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(loop, address, accept): a bare listener, and a way to take the next connection.
  local function with_listener(body)
    with_loop(function(loop, trial)
      local listener, address = helper.listen()
      body(loop, address, function() return helper.accept(loop, listener) end, trial)
      listener:close()
    end)
  end

  local function recorder_factory(loop)
    return function() return helper.Recorder(loop) end
  end

  local function finish(transport, protocol, sock)
    transport:close()
    protocol:wait_lost()
    if sock then sock:close() end
  end

  describe("create_connection", function()
    it("gives a transport for both directions and the protocol", function()
      -- row: create_connection, create_connection.transport_bidi
      with_listener(function(loop, address, accept)
        local transport, protocol = loop:create_connection(recorder_factory(loop), address[1], address[2])
        local sock = accept()
        assert.is_true(aloop.isinstance(transport, aloop.Transport))
        transport:write("out")
        assert.equal("out", helper.recv_exactly(loop, sock, 3))
        sock:send("in")
        assert.equal("in", protocol:wait_data(2))
        finish(transport, protocol, sock)
      end)
    end)

    -- row: create_connection.sequence; point: 20
    it("calls the factory without arguments, then connection_made, then returns", function()
      with_listener(function(loop, address, accept)
        local order = {}
        local protocol = helper.Recorder(loop)
        protocol.connection_made = function(self, transport)
          order[#order + 1] = "made"
          helper.Recorder.connection_made(self, transport)
        end
        local transport, returned = loop:create_connection(function(...)
          order[#order + 1] = "factory " .. select("#", ...)
          return protocol
        end, address[1], address[2])
        order[#order + 1] = "returned"
        assert.same({ "factory 0", "made", "returned" }, order)
        assert.equal(protocol, returned) -- row: create_connection.protocol_factory
        assert.equal(transport, protocol.transport)
        finish(transport, protocol, accept())
      end)
    end)

    -- row: create_connection.sequence
    it("gives its caller the transport before anything is read", function()
      with_loop(function(loop)
        local function made_with(make, sock)
          local read = false
          local transport = make(function() return { data_received = function() read = true end } end, sock)
          local too_soon = read
          while not read do aloop.sleep(0) end
          transport:close()
          return too_soon
        end
        local function pair()
          local sock, other = S.socketpair()
          other:send("x")
          return sock
        end
        local makers = {
          function(factory) return (loop:create_connection(factory, nil, nil, { sock = pair() })) end,
          function(factory) return (loop:create_unix_connection(factory, nil, { sock = pair() })) end,
          function(factory) return (loop:connect_accepted_socket(factory, pair())) end,
          function(factory) return (loop:connect_read_pipe(factory, pair())) end,
        }
        for i, make in ipairs(makers) do assert.is_false(made_with(make), i) end
      end)
    end)

    -- row: create_connection.host, create_connection.ip_skips_dns
    it("resolves names, IPv4 and IPv6 literals", function()
      with_loop(function(loop)
        local server = loop:create_server(function() return {} end, { "127.0.0.1", "::1" }, 0)
        for _, listening in ipairs(server.sockets) do
          local address = listening:getsockname()
          local transport, protocol = loop:create_connection(recorder_factory(loop), address[1], address[2])
          assert.equal(address[1], transport:get_extra_info("peername").host)
          finish(transport, protocol)
        end
        local v4 = server.sockets[1]:getsockname()
        local transport, protocol = loop:create_connection(recorder_factory(loop), "localhost", v4[2], {
          family = S.AF_INET,
        })
        finish(transport, protocol)
        server:close()
        server:wait_closed()
      end)
    end)

    it("takes a port as number or string", function() -- row: create_connection.port
      with_listener(function(loop, address, accept)
        for _, port in ipairs { address[2], tostring(address[2]) } do
          local transport, protocol = loop:create_connection(recorder_factory(loop), "127.0.0.1", port)
          finish(transport, protocol, accept())
        end
      end)
    end)

    -- row: create_connection.family, create_connection.proto, create_connection.flags
    it("hands family, proto and flags to the resolver", function()
      with_listener(function(loop, address, accept)
        local transport, protocol = loop:create_connection(recorder_factory(loop), "localhost", address[2], {
          family = S.AF_INET, proto = S.IPPROTO_TCP,
        })
        finish(transport, protocol, accept())
        raises(aloop.gaierror, nil, loop.create_connection, loop, nop, "localhost", address[2], {
          flags = S.AI_NUMERICHOST,
        })
        local ok, e = pcall(loop.create_connection, loop, nop, "127.0.0.1", address[2], { family = S.AF_INET6 })
        assert.is_false(ok)
        assert.is_true(aloop.isinstance(e, aloop.OSError), tostring(e))
      end)
    end)

    it("raises gaierror for a name that isn't there", function() -- row: getaddrinfo.errors
      with_loop(function(loop)
        local e = raises(aloop.gaierror, nil, loop.create_connection, loop, nop, "no-such-host.invalid", 80)
        assert.matches("^EAI_", e.code)
        assert.is_true(aloop.isinstance(e, aloop.OSError))
      end)
    end)

    -- row: create_connection.sock, create_connection.sock_ownership, create_connection.sock_nonblocking
    it("takes a connected socket, which it then owns", function()
      with_listener(function(loop, address, accept)
        local sock = helper.connect(loop, address)
        sock:setblocking(true)
        local fd = sock:fileno()
        local transport, protocol = loop:create_connection(recorder_factory(loop), nil, nil, { sock = sock })
        assert.equal(fd, transport:get_extra_info("socket"):fileno())
        local peer = accept()
        peer:send("x")
        protocol:wait_data(1)
        finish(transport, protocol, peer)
        aloop.sleep(0)
        assert.equal(-1, sock:fileno())
      end)
    end)

    it("refuses a socket along with a target, and one that is no stream", function()
      -- row: create_connection.sock, create_connection.sock_type, create_connection.no_target
      with_loop(function(loop)
        local a, b = S.socketpair()
        local try = loop.create_connection
        raises(aloop.ValueError, nil, try, loop, nop, "127.0.0.1", 80, { sock = a })
        raises(aloop.ValueError, nil, try, loop, nop, "127.0.0.1", nil, { sock = a })
        raises(aloop.ValueError, nil, try, loop, nop, nil, 80, { sock = a })
        assert.is_true(a:fileno() >= 0)
        a:close()
        b:close()
        local udp = S.socket(S.AF_INET, S.SOCK_DGRAM)
        raises(aloop.ValueError, nil, try, loop, nop, nil, nil, { sock = udp })
        udp:close()
        raises(aloop.ValueError, nil, try, loop, nop)
      end)
    end)

    -- row: create_connection.local_addr, create_connection.local_addr_family, create_connection.local_addr_bind_error
    it("binds a local address first", function()
      with_listener(function(loop, address, accept)
        local free = helper.vacant_address()
        local transport, protocol = loop:create_connection(recorder_factory(loop), address[1], address[2], {
          local_addr = { "127.0.0.1", free[2] },
        })
        local sock = accept()
        assert.equal(free[2], sock:getpeername().port)
        finish(transport, protocol, sock)
        raises(aloop.OSError, nil, loop.create_connection, loop, nop, address[1], address[2], {
          local_addr = { "::1", 0 },
        })
        local e = raises(aloop.OSError, "203.0.113.77", loop.create_connection, loop, nop, address[1], address[2], {
          local_addr = { "203.0.113.77", 0 },
        })
        assert.equal("EADDRNOTAVAIL", e.code)
        for _, port in pairs { {}, 1.5, true, none = false } do
          type_error("bad option 'local_addr' to 'create_connection' (address {host, port} expected, got table)",
            loop.create_connection, loop, nop, address[1], address[2], { local_addr = { "127.0.0.1", port or nil } })
        end
      end)
    end)

    -- row: create_connection.refused
    it("raises ConnectionRefusedError with errno and address", function()
      with_loop(function(loop)
        local address = helper.vacant_address()
        local fds = helper.count_fds()
        local e = raises(aloop.ConnectionRefusedError, nil, loop.create_connection, loop, nop, address[1], address[2])
        assert.equal("ECONNREFUSED", e.code)
        assert.equal(111, e.errno)
        assert.matches(tostring(address[2]), e.message)
        assert.equal(fds, helper.count_fds())
      end)
    end)

    -- row: create_connection.all_errors_false, create_connection.all_errors_true, create_connection.fallback; point: 35
    it("tries the addresses in order, and joins or groups their errors", function()
      with_loop(function(loop)
        local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
        local port = helper.address_of(server).port
        local both = #loop:getaddrinfo("localhost", port, { type = S.SOCK_STREAM })
        local transport, protocol = loop:create_connection(recorder_factory(loop), "localhost", port)
        assert.equal("127.0.0.1", transport:get_extra_info("peername").host)
        finish(transport, protocol)
        server:close()
        server:wait_closed()
        local e = raises(aloop.OSError, nil, loop.create_connection, loop, nop, "localhost", port)
        if both > 1 then assert.matches("Multiple exceptions", e.message) end
        local group = raises(aloop.ExceptionGroup, nil, loop.create_connection, loop, nop, "localhost", port, {
          all_errors = true,
        })
        assert.equal(both, #group.exceptions)
        group = raises(aloop.ExceptionGroup, nil, loop.create_connection, loop, nop, "127.0.0.1", port, {
          all_errors = true,
        })
        assert.equal(1, #group.exceptions)
        assert.is_true(aloop.isinstance(group.exceptions[1], aloop.ConnectionRefusedError))
      end)
    end)

    it("sets TCP_NODELAY on TCP", function() -- row: create_connection.nodelay
      with_listener(function(loop, address, accept)
        local transport, protocol = loop:create_connection(recorder_factory(loop), address[1], address[2])
        local socket = transport:get_extra_info("socket")
        assert.is_true(socket:getsockopt(S.IPPROTO_TCP, S.TCP_NODELAY) ~= 0)
        finish(transport, protocol, accept())
      end)
    end)

    it("cancelled closes its socket and calls no protocol method", function() -- row: create_connection.cancel
      with_loop(function(loop)
        local address, fill_in = helper.black_hole()
        local fds = helper.count_fds()
        local called = false
        local task = loop:create_task(function()
          loop:create_connection(function() called = true end, address[1], address[2])
        end)
        for _ = 1, 5 do aloop.sleep(0) end
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        for _ = 1, 3 do aloop.sleep(0) end
        assert.equal(fds, helper.count_fds())
        assert.is_false(called)
        fill_in()
      end)
    end)

    it("cancelled while it resolves leaves nothing behind", function() -- row: create_connection.cancel
      with_loop(function(loop)
        local task = loop:create_task(function() loop:create_connection(nop, "localhost", 1) end)
        aloop.sleep(0)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
      end)
    end)

    -- row: create_connection.factory_error; bug: 15
    it("passes on an error of the factory, and closes the socket", function()
      with_listener(function(loop, address, accept)
        local fds = helper.count_fds()
        local raised = aloop.ValueError("factory fails")
        local e = raises(aloop.ValueError, "factory fails", loop.create_connection, loop, function() error(raised) end,
          address[1], address[2])
        assert.equal(raised, e)
        local sock = accept()
        assert.is_nil(helper.recv(loop, sock, 1))
        sock:close()
        for _, nonsense in ipairs { 42, "text", true } do
          assert.is_false((pcall(loop.create_connection, loop, function() return nonsense end, address[1], address[2])))
          accept():close()
        end
        assert.is_false((pcall(loop.create_connection, loop, function() end, address[1], address[2])))
        accept():close()
        for _ = 1, 3 do aloop.sleep(0) end
        assert.equal(fds, helper.count_fds())
      end)
    end)

    it("refuses wrong arguments, unknown options, and TLS options without ssl", function()
      -- row: create_connection.server_hostname_nossl, create_connection.ssl_timeouts_nossl
      with_loop(function(loop)
        local function try(...) return loop.create_connection, loop, ... end
        type_error("bad argument #1 to 'create_connection'", try(42, "127.0.0.1", 1))
        type_error("bad argument #2 to 'create_connection'", try(nop, {}, 1))
        type_error("bad argument #3 to 'create_connection'", try(nop, "127.0.0.1", {}))
        type_error("unknown option 'sll' to 'create_connection'", try(nop, "127.0.0.1", 1, { sll = true }))
        type_error("bad option 'family' to 'create_connection'", try(nop, "127.0.0.1", 1, { family = "x" }))
        assert.is_false((pcall(try(nop, nil, nil, { sock = {} }))))
        for _, options in ipairs {
          { server_hostname = "x" }, { ssl_handshake_timeout = 1 }, { ssl_shutdown_timeout = 1 },
        } do
          raises(aloop.ValueError, nil, try(nop, "127.0.0.1", 1, options))
        end
      end)
    end)

    it("outside of a task raises RuntimeError, and begins nothing", function()
      helper.drive(new_loop, function(loop, trial)
        loop:call_soon(loop.create_connection, loop, nop, "127.0.0.1", 1)
        helper.turn(loop)
        assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.RuntimeError))
      end)
    end)
  end)

  describe("connect_accepted_socket", function()
    -- row: connect_accepted_socket, connect_accepted_socket.protocol_factory, connect_accepted_socket.sock
    it("makes a transport of a socket accepted elsewhere", function()
      with_listener(function(loop, address, accept)
        local client = helper.connect(loop, address)
        local transport, protocol = loop:connect_accepted_socket(recorder_factory(loop), (accept()))
        client:send("hello")
        assert.equal("hello", protocol:wait_data(5))
        transport:write("back")
        assert.equal("back", helper.recv_exactly(loop, client, 4))
        assert.equal(tostring(client:getsockname()), tostring(transport:get_extra_info("peername")))
        finish(transport, protocol, client)
        local udp = S.socket(S.AF_INET, S.SOCK_DGRAM)
        raises(aloop.ValueError, nil, loop.connect_accepted_socket, loop, nop, udp)
        udp:close()
      end)
    end)
  end)

  describe("getaddrinfo", function()
    it("gives what the system knows, with numeric hosts at once", function() -- row: getaddrinfo; point: 36
      with_loop(function(loop)
        local list = loop:getaddrinfo("127.0.0.1", 80, { type = S.SOCK_STREAM })
        assert.equal(1, #list)
        assert.equal(S.AF_INET, list[1].family)
        assert.equal(S.SOCK_STREAM, list[1].type)
        assert.equal("127.0.0.1", list[1].sockaddr[1])
        assert.equal(80, list[1].sockaddr.port)
        local six = loop:getaddrinfo("::1", "443")
        assert.equal(S.AF_INET6, six[1].family)
        assert.equal("[::1]:443", tostring(six[1].sockaddr))
        assert.is_true(#loop:getaddrinfo("localhost", 80) >= 1)
        local e = raises(aloop.gaierror, nil, loop.getaddrinfo, loop, "no-such-host.invalid", 80)
        assert.matches("^EAI_", e.code)
        assert.is_number(e.errno)
      end)
    end)

    it("many at once are all answered, and some may be cancelled", function()
      with_loop(function(loop)
        local tasks = {}
        for i = 1, 40 do
          tasks[i] = loop:create_task(function() return #loop:getaddrinfo("localhost", i) end)
        end
        aloop.sleep(0)
        for i = 1, 40, 3 do tasks[i]:cancel() end
        for i, task in ipairs(tasks) do
          local ok, n = pcall(task.await, task)
          assert.equal(i % 3 ~= 1, ok)
          if ok then assert.is_true(n >= 1) end
        end
      end)
    end)

    it("getnameinfo names an address", function() -- row: getnameinfo
      with_loop(function(loop)
        local host, service = loop:getnameinfo({ "127.0.0.1", 80 }, S.NI_NUMERICHOST | S.NI_NUMERICSERV)
        assert.equal("127.0.0.1", host)
        assert.equal("80", service)
      end)
    end)
  end)
end)

it("a foreign socket whose setfd fails: the error is raised, and what was made is left to the peer to end", function()
  helper.with_loop(helper.new_loop, function(loop)
    local a, b = aloop.socket.socketpair()
    local fd = a:detach()
    local foreign = { getfd = function() return fd end, setfd = function() error("it stays mine", 0) end }
    local protocol = helper.Recorder(loop)
    local options = { sock = foreign }
    local ok, e = pcall(loop.create_connection, loop, function() return protocol end, nil, nil, options)
    assert.is_false(ok)
    assert.equal("it stays mine", e)
    collectgarbage()
    collectgarbage()
    b:close()
    protocol:wait_lost()
  end)
end)
