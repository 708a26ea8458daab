-- create_datagram_endpoint and datagram transports, over IPv4, IPv6 and Unix sockets.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local S = aloop.socket

-- A protocol that records and can be waited for.
local Datagrams = aloop.DatagramProtocol:extend("Datagrams")

function Datagrams:init(loop)
  self.loop, self.events, self.got, self.senders, self.errors = loop, {}, {}, {}, {}
end

function Datagrams:note(event)
  if self.is_lost then error(event .. " after connection_lost") end
  self.events[#self.events + 1] = event
  if self.waiter and not self.waiter:done() then self.waiter:set_result() end
end

function Datagrams:connection_made(transport)
  self.transport = transport
  self:note("made")
end

function Datagrams:datagram_received(data, addr)
  self.got[#self.got + 1] = data
  self.senders[#self.senders + 1] = addr or false
  self:note("datagram")
end

function Datagrams:error_received(e)
  self.errors[#self.errors + 1] = e
  self:note("error")
end

function Datagrams:pause_writing() self:note("pause") end
function Datagrams:resume_writing() self:note("resume") end

function Datagrams:connection_lost(e)
  self:note("lost")
  self.is_lost, self.reason = true, e
end

function Datagrams:wait(cond)
  while not cond(self) do
    self.waiter = self.loop:create_future()
    self.waiter:await()
  end
end

function Datagrams:count(event)
  local n = 0
  for _, e in ipairs(self.events) do
    if e == event then n = n + 1 end
  end
  return n
end

function Datagrams:wait_got(n)
  self:wait(function() return #self.got >= n end)
  return self.got
end

function Datagrams:close()
  self.transport:close()
  self:wait(function() return self.is_lost end)
  return self.reason
end

-- An endpoint: its protocol, and its transport.
local function endpoint(loop, local_addr, remote_addr, options)
  local protocol = Datagrams(loop)
  local transport, same = loop:create_datagram_endpoint(helper.always(protocol), local_addr, remote_addr, options)
  assert.equal(protocol, same)
  assert.equal(protocol.transport, transport)
  return protocol, transport
end

local function sockname(transport) return transport:get_extra_info("sockname") end

local function nop() end

-- Has the loop's names looked up by a script's function while body runs.
local function with_resolver(loop, getaddrinfo, body)
  local class = aloop.isinstance(loop, aloop.ProactorEventLoop) and aloop.ProactorEventLoop or aloop.SelectorEventLoop
  local Resolving = class:extend("Resolving")
  Resolving.getaddrinfo = getaddrinfo
  debug.setmetatable(loop, Resolving)
  body()
  debug.setmetatable(loop, class)
end

helper.each_loop(function(kind, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(loop, directory)
  local function with_directory(body)
    local directory = os.tmpname()
    os.remove(directory)
    assert(require("lfs").mkdir(directory))
    local ok, e = pcall(with_loop, function(loop, trial) body(loop, directory, trial) end)
    os.execute("rm -rf " .. directory)
    if not ok then error(e, 0) end
  end

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
        for i = 2, 50 do assert.same({ server.senders[1][1], server.senders[1][2] }, { server.senders[i][1], server.senders[i][2] }) end
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

  describe("create_datagram_endpoint", function()
    it("refuses reuse_address", function() -- row: create_datagram_endpoint.reuse_address
      with_loop(function(loop)
        raises(aloop.ValueError, "reuse_address", loop.create_datagram_endpoint, loop, nop, { "127.0.0.1", 0 }, nil, {
          reuse_address = true,
        })
        local protocol, transport = endpoint(loop, { "127.0.0.1", 0 })
        assert.equal(0, transport:get_extra_info("socket"):getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR))
        protocol:close()
      end)
    end)

    it("shares a port with reuse_port only", function() -- row: create_datagram_endpoint.reuse_port
      with_loop(function(loop)
        local one, transport = endpoint(loop, { "127.0.0.1", 0 }, nil, { reuse_port = true })
        local address = sockname(transport)
        local other = endpoint(loop, { "127.0.0.1", address.port }, nil, { reuse_port = true })
        local e = raises(aloop.OSError, tostring(address), loop.create_datagram_endpoint, loop, nop,
          { "127.0.0.1", address.port })
        assert.equal("EADDRINUSE", e.code)
        one:close()
        other:close()
      end)
    end)

    -- row: create_datagram_endpoint.allow_broadcast, create_datagram_endpoint.broadcast_no_connect
    it("isn't connected if it may broadcast", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local other, elsewhere = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, { "127.0.0.1", 0 }, sockname(at), { allow_broadcast = true })
        assert.equal(1, transport:get_extra_info("socket"):getsockopt(S.SOL_SOCKET, S.SO_BROADCAST))
        assert.is_nil(transport:get_extra_info("peername"))
        transport:sendto("to the remote address")
        assert.same({ "to the remote address" }, server:wait_got(1))
        transport:sendto("again", sockname(at))
        server:wait_got(2)
        elsewhere:sendto("from another", sockname(transport))
        assert.same({ "from another" }, client:wait_got(1))
        raises(aloop.ValueError, "Invalid address: must be nil or " .. tostring(sockname(at)), transport.sendto, transport,
          "x", sockname(elsewhere)) -- row: datagram.sendto_addr_check
        for _, protocol in ipairs { server, other, client } do protocol:close() end
      end)
    end)

    it("needs a family without addresses", function() -- row: create_datagram_endpoint.family
      with_loop(function(loop)
        raises(aloop.ValueError, "unexpected address family", loop.create_datagram_endpoint, loop, nop)
        raises(aloop.ValueError, "unexpected address family", loop.create_datagram_endpoint, loop, nop, nil, nil, {})
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local bare, transport = endpoint(loop, nil, nil, { family = S.AF_INET })
        transport:sendto("x", { "127.0.0.1", sockname(at).port })
        assert.same({ "x" }, server:wait_got(1))
        raises(aloop.ValueError, "needs an address", transport.sendto, transport, "x")
        server:close()
        bare:close()
      end)
    end)

    it("looks names up by the loop's getaddrinfo", function() -- row: create_datagram_endpoint.proto_flags
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local asked = {}
        local function getaddrinfo(_, host, port, options)
          asked[#asked + 1] = { host = host, port = port, options = options }
          return { { family = S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP,
            sockaddr = { "127.0.0.1", host == "there" and sockname(at).port or 0 } } }
        end
        local client, transport
        with_resolver(loop, getaddrinfo, function()
          client, transport = endpoint(loop, { "here", 7 }, { "there", "service" }, {
            proto = S.IPPROTO_UDP, flags = S.AI_PASSIVE, family = S.AF_INET,
          })
        end)
        local options = { family = S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP, flags = S.AI_PASSIVE }
        assert.same({ { host = "here", port = 7, options = options },
          { host = "there", port = "service", options = options } }, asked)
        transport:sendto("x")
        assert.same({ "x" }, server:wait_got(1))
        client:close()
        server:close()
      end)
    end)

    it("resolves names", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "localhost", 0 }, nil, { family = S.AF_INET })
        local client, transport = endpoint(loop, nil, { "localhost", tostring(sockname(at).port) }, { family = S.AF_INET })
        transport:sendto("x")
        assert.same({ "x" }, server:wait_got(1))
        raises(aloop.gaierror, nil, loop.create_datagram_endpoint, loop, nop, nil, { "no-such-host.invalid", 9 })
        client:close()
        server:close()
      end)
    end)

    -- row: create_datagram_endpoint.family_match
    it("wants both addresses to be of one family", function()
      with_loop(function(loop)
        raises(aloop.ValueError, "can not get address information", loop.create_datagram_endpoint, loop, nop,
          { "127.0.0.1", 0 }, { "::1", 9 })
      end)
    end)

    it("tries one pair after the other", function() -- row: create_datagram_endpoint.try_next
      with_loop(function(loop)
        local answer
        local function info(host)
          return { family = host:find(":") and S.AF_INET6 or S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP,
            sockaddr = { host, 0 } }
        end
        local create = loop.create_datagram_endpoint
        with_resolver(loop, function() return answer end, function()
          answer = { info "192.0.2.77", info "::1", info "127.0.0.1" }
          local protocol, transport = endpoint(loop, { "name", 0 })
          assert.equal("::1", sockname(transport).host)
          protocol:close()
          answer = { info "192.0.2.77", info "2001:db8::77" }
          local fds = helper.count_fds()
          local e = raises(aloop.OSError, "192.0.2.77", create, loop, nop, { "name", 0 })
          assert.equal("EADDRNOTAVAIL", e.code)
          assert.equal(fds, helper.count_fds())
          answer = {}
          raises(aloop.OSError, "getaddrinfo() returned empty list", create, loop, nop, { "name", 0 })
        end)
      end)
    end)

    it("checks its arguments", function() -- row: create_datagram_endpoint.addr_type
      with_loop(function(loop)
        local create = loop.create_datagram_endpoint
        type_error("bad argument #2 to 'create_datagram_endpoint' (address {host, port} expected, got string)", create, loop,
          nop, "x")
        type_error("bad argument #3 to 'create_datagram_endpoint' (address {host, port} expected, got table)", create, loop,
          nop, nil, {})
        type_error("bad argument #2 to 'create_datagram_endpoint' (string expected, got table)", create, loop, nop,
          { "127.0.0.1", 0 }, nil, { family = S.AF_UNIX })
        type_error("bad option 'family' to 'create_datagram_endpoint'", create, loop, nop, nil, nil, { family = "x" })
        type_error("unknown option 'reuse' to 'create_datagram_endpoint'", create, loop, nop, nil, nil, { reuse = true })
        raises(aloop.ValueError, "port must be 0-65535", create, loop, nop, { "127.0.0.1", 65536 })
        type_error("bad option 'sock'", create, loop, nop, nil, nil, { sock = 3.5 })
      end)
    end)
  end)

  describe("create_datagram_endpoint with sock", function()
    -- row: create_datagram_endpoint.sock, create_datagram_endpoint.sock_ownership
    it("takes over a connected socket", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
        sock:connect(sockname(at))
        local client, transport = endpoint(loop, nil, nil, { sock = sock })
        assert.equal(tostring(sockname(at)), tostring(transport:get_extra_info("peername")))
        transport:sendto("x")
        transport:sendto("y", sockname(at))
        assert.same({ "x", "y" }, server:wait_got(2))
        raises(aloop.ValueError, "Invalid address", transport.sendto, transport, "z", { "127.0.0.1", 9 })
        client:close()
        aloop.sleep(0)
        assert.equal(-1, sock:fileno())
        server:close()
      end)
    end)

    it("refuses what would change it, and streams", function() -- row: create_datagram_endpoint.sock_type
      with_loop(function(loop)
        local create = loop.create_datagram_endpoint
        local sock, stream = S.socket(S.AF_INET, S.SOCK_DGRAM), S.socket(S.AF_INET, S.SOCK_STREAM)
        for name, value in pairs { family = S.AF_INET, proto = S.IPPROTO_UDP, flags = 1, reuse_port = true,
          allow_broadcast = true } do
          raises(aloop.ValueError, "(" .. name .. ")", create, loop, nop, nil, nil, { sock = sock, [name] = value })
        end
        raises(aloop.ValueError, "(local_addr)", create, loop, nop, { "127.0.0.1", 0 }, nil, { sock = sock })
        raises(aloop.ValueError, "(remote_addr)", create, loop, nop, nil, { "127.0.0.1", 9 }, { sock = sock })
        raises(aloop.ValueError, "A datagram socket was expected", create, loop, nop, nil, nil, { sock = stream })
        assert.is_true(sock:fileno() >= 0)
        sock:close()
        stream:close()
      end)
    end)

    it("leaves no descriptor behind when the factory fails", function()
      with_loop(function(loop)
        local fds = helper.count_fds()
        raises(aloop.Error, "no protocol", loop.create_datagram_endpoint, loop, function()
          error(aloop.Error("no protocol"))
        end, { "127.0.0.1", 0 })
        assert.equal(fds, helper.count_fds())
      end)
    end)

    it("is closed when cancelled before connection_made", function()
      with_loop(function(loop)
        local protocol = Datagrams(loop)
        local task = loop:create_task(function()
          loop:create_datagram_endpoint(helper.always(protocol), { "127.0.0.1", 0 })
        end)
        loop:call_soon(function() task:cancel() end)
        raises(aloop.CancelledError, nil, task.await, task)
        protocol:wait(function() return protocol.is_lost or #protocol.events == 0 end)
      end)
    end)
  end)

  describe("over Unix sockets", function()
    it("sends between paths", function() -- row: create_datagram_endpoint.unix_stale
      with_directory(function(loop, directory)
        local here, there = directory .. "/here", directory .. "/there"
        local server, at = endpoint(loop, there, nil, { family = S.AF_UNIX })
        local client, transport = endpoint(loop, here, there, { family = S.AF_UNIX })
        assert.equal(there, sockname(at))
        assert.equal(there, transport:get_extra_info("peername"))
        transport:sendto("ping")
        server:wait_got(1)
        assert.same({ here }, server.senders)
        at:sendto("pong", here)
        assert.same({ "pong" }, client:wait_got(1))
        client:close()
        server:close()
        local again = endpoint(loop, there, nil, { family = S.AF_UNIX }) -- the file is still there
        again:close()
        local e = raises(aloop.FileNotFoundError, directory .. "/nowhere", loop.create_datagram_endpoint, loop, nop, nil,
          directory .. "/nowhere", { family = S.AF_UNIX })
        assert.equal("ENOENT", e.code)
        assert(io.open(directory .. "/file", "w")):close()
        e = raises(aloop.OSError, directory .. "/file", loop.create_datagram_endpoint, loop, nop, directory .. "/file", nil,
          { family = S.AF_UNIX })
        assert.equal("EADDRINUSE", e.code)
      end)
    end)

    it("takes abstract names, and senders without a name", function()
      with_loop(function(loop)
        local name = "\0aloop-spec" .. os.tmpname()
        local server, at = endpoint(loop, name, nil, { family = S.AF_UNIX })
        assert.equal(name, sockname(at))
        local client, transport = endpoint(loop, nil, name, { family = S.AF_UNIX })
        transport:sendto("x")
        assert.same({ "x" }, server:wait_got(1))
        assert.same({ false }, server.senders)
        client:close()
        server:close()
      end)
    end)

    it("counts what waits as asyncio, and tells when to pause", function() -- row: DatagramTransport.abort
      with_loop(function(loop)
        local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
        local protocol, transport = endpoint(loop, nil, nil, { sock = a })
        local low, high = transport:get_write_buffer_limits()
        assert.same({ 16384, 65536 }, { low, high })
        transport:set_write_buffer_limits { high = 1000, low = 108 }
        local sent = 0
        repeat
          transport:sendto(("x"):rep(100))
          sent = sent + 1
        until transport:get_write_buffer_size() > 0
        assert.equal(108, transport:get_write_buffer_size())
        for i = 2, 9 do
          transport:sendto(("x"):rep(100))
          assert.equal(i * 108, transport:get_write_buffer_size())
          assert.equal(0, protocol:count("pause"))
        end
        transport:sendto(("x"):rep(20)) -- 972 + 28 = 1000: not above the mark
        assert.equal(0, protocol:count("pause"))
        transport:sendto("")
        assert.equal(1008, transport:get_write_buffer_size())
        assert.equal(1, protocol:count("pause"))
        transport:sendto("")
        assert.equal(1, protocol:count("pause"))
        local n = 0
        while n < sent + 8 + 3 do
          helper.recv(loop, b)
          n = n + 1
        end
        protocol:wait(function() return protocol:count("resume") == 1 end)
        assert.is_true(transport:get_write_buffer_size() <= 108)
        protocol:close()
        b:close()
      end)
    end)

    it("sends what waits before it closes, and drops it when aborted", function() -- row: datagram.close_flush
      with_loop(function(loop)
        for _, how in ipairs { "close", "abort" } do
          local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
          local protocol, transport = endpoint(loop, nil, nil, { sock = a })
          local sent = 0
          while transport:get_write_buffer_size() < 3000 do
            sent = sent + 1
            transport:sendto(tostring(sent))
          end
          local waiting = transport:get_write_buffer_size()
          transport[how](transport)
          assert.is_true(transport:is_closing())
          assert.is_false(protocol.is_lost or false)
          assert.equal(how == "close" and waiting or 0, transport:get_write_buffer_size())
          local n = 0
          if how == "close" then
            while n < sent do
              n = n + 1
              assert.equal(tostring(n), helper.recv(loop, b))
            end
          end
          protocol:wait(function() return protocol.is_lost end)
          assert.is_nil(protocol.reason)
          assert.equal(1, protocol:count("lost"))
          b:close()
        end
      end)
    end)

    it("waits without spinning for a full receiver that it isn't connected to", function()
      with_directory(function(loop, directory)
        local there = S.socket(S.AF_UNIX, S.SOCK_DGRAM)
        there:bind(directory .. "/there")
        local protocol, transport = endpoint(loop, nil, nil, { family = S.AF_UNIX })
        local sent = 0
        while transport:get_write_buffer_size() == 0 do
          sent = sent + 1
          transport:sendto(tostring(sent), directory .. "/there")
        end
        local turns = require("aloop.core").stats(loop).turns
        aloop.sleep(0.1)
        assert.is_true(require("aloop.core").stats(loop).turns - turns < 200)
        for i = 1, sent do assert.equal(tostring(i), helper.recv(loop, there)) end
        protocol:close()
        there:close()
      end)
    end)
  end)

  describe("errors", function()
    it("go to error_received, and end nothing", function() -- row: datagram.error_received, DatagramProtocol.error_received
      with_loop(function(loop)
        local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
        sock:bind { "127.0.0.1", 0 }
        local address = sock:getsockname()
        sock:close()
        local client, transport = endpoint(loop, nil, address)
        transport:sendto("anybody there?")
        client:wait(function() return #client.errors > 0 end)
        assert.is_true(aloop.isinstance(client.errors[1], aloop.ConnectionRefusedError))
        assert.is_false(transport:is_closing())
        sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
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
