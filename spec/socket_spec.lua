-- aloop.socket: sockets for direct use, TransportSockets, addresses, aloop.pipe, and sockets of other modules.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local S = aloop.socket

local function pair(...)
  local a, b = S.socketpair(...)
  return a, b, function()
    a:close()
    b:close()
  end
end

local function nonblocking_connect(sock, address)
  local ok, err = pcall(sock.connect, sock, address)
  assert(ok or aloop.isinstance(err, aloop.BlockingIOError), err)
end

-- A connected TCP pair over the loopback interface.
local function tcp_pair(family, host)
  local listener = S.socket(family, S.SOCK_STREAM)
  listener:bind { host, 0 }
  listener:listen()
  local client = S.socket(family, S.SOCK_STREAM)
  nonblocking_connect(client, listener:getsockname())
  local server, address = listener:accept()
  listener:close()
  return client, server, address
end

describe("socket", function()
  it("has constants", function() -- row: socket_module
    assert.equal(2, S.AF_INET)
    assert.equal(10, S.AF_INET6)
    assert.equal(1, S.AF_UNIX)
    for _, name in ipairs {
      "SOCK_STREAM", "SOCK_DGRAM", "SOL_SOCKET", "SO_REUSEADDR", "SO_REUSEPORT", "SO_KEEPALIVE", "SO_ERROR",
      "SO_LINGER", "IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_IPV6", "TCP_NODELAY", "IP_TTL", "IPV6_V6ONLY", "MSG_PEEK",
      "AI_PASSIVE", "AI_NUMERICHOST", "NI_NUMERICHOST", "EAI_NONAME", "SHUT_RD", "SHUT_WR", "SHUT_RDWR", "SOMAXCONN",
    } do
      assert.equal("integer", math.type(S[name]), name)
    end
  end)

  it("are non-blocking and closed on exec, and know their kind", function()
    local sock = S.socket()
    assert.same({ S.AF_INET, S.SOCK_STREAM, S.IPPROTO_TCP }, { sock.family, sock.type, sock.proto })
    assert.is_false(sock:getblocking())
    assert.matches("<Socket fd=%d+, family=AF_INET, type=SOCK_STREAM, proto=6", tostring(sock))
    local flags = helper.read_file("/proc/self/fdinfo/" .. sock:fileno()):match("flags:%s*(%d+)")
    assert.is_true(tonumber(flags, 8) & tonumber("2000000", 8) ~= 0) -- O_CLOEXEC
    sock:close()
    local udp = S.socket(S.AF_INET6, S.SOCK_DGRAM)
    assert.same({ S.AF_INET6, S.SOCK_DGRAM, S.IPPROTO_UDP }, { udp.family, udp.type, udp.proto })
    udp:close()
    assert.is_nil(udp.nonesuch)
    raises(aloop.OSError, nil, S.socket, 9999)
    type_error("number expected", S.socket, "AF_INET")
  end)

  it("send and recv, nil at the end of the stream", function()
    local a, b, close = pair()
    assert.equal(5, a:send("hello"))
    assert.equal("he", b:recv(2))
    assert.equal("llo", b:recv(100, S.MSG_PEEK))
    assert.equal("llo", b:recv(100))
    raises(aloop.BlockingIOError, nil, b.recv, b, 100)
    a:shutdown(S.SHUT_WR)
    assert.is_nil(b:recv(100))
    assert.equal(0, b:recv_into(aloop.buffer(4)))
    b:send("back")
    assert.equal("back", a:recv(100))
    raises(aloop.BrokenPipeError, nil, a.send, a, "x")
    raises(aloop.ValueError, "negative", a.recv, a, -1)
    type_error("string or buffer expected, got nil", a.send, a, nil)
    close()
  end)

  it("take part of a large write, and no more", function()
    local a, b, close = pair()
    local n = a:send(("x"):rep(10000000))
    assert.is_true(n > 0 and n < 10000000)
    local e = raises(aloop.BlockingIOError, nil, a.send, a, "x")
    assert.equal("EAGAIN", e.code)
    close()
    assert.equal(-1, b:fileno())
  end)

  it("receive into buffers", function()
    local a, b, close = pair()
    local buffer = aloop.buffer(8)
    a:send("hello")
    assert.equal(5, b:recv_into(buffer))
    assert.equal("hello\0\0\0", tostring(buffer))
    a:send("world")
    assert.equal(2, b:recv_into(buffer, 2))
    assert.equal("wollo", buffer:sub(1, 5))
    assert.equal(3, b:recv_into(buffer, 0))
    raises(aloop.ValueError, "too small", b.recv_into, b, buffer, 9)
    type_error("buffer expected, got string", b.recv_into, b, "string")
    close()
  end)

  it("send and receive datagrams, empty ones too", function()
    local a, b = S.socket(S.AF_INET, S.SOCK_DGRAM), S.socket(S.AF_INET, S.SOCK_DGRAM)
    a:bind { "127.0.0.1", 0 }
    b:bind { "127.0.0.1", 0 }
    assert.equal(2, a:sendto("hi", b:getsockname()))
    assert.equal(0, a:sendto("", 0, b:getsockname()))
    assert.equal(3, a:sendto("yes", b:getsockname()))
    local data, from = b:recvfrom(100)
    assert.equal("hi", data)
    assert.same({ "127.0.0.1", a:getsockname().port }, { from[1], from[2] })
    assert.equal("", b:recvfrom(100))
    local buffer = aloop.buffer(2)
    local n
    n, from = b:recvfrom_into(buffer)
    assert.equal(2, n)
    assert.equal("ye", tostring(buffer))
    assert.equal(a:getsockname().port, from.port)
    a:close()
    b:close()
  end)

  it("listen, connect and accept", function()
    local client, server, address = tcp_pair(S.AF_INET, "127.0.0.1")
    assert.is_false(server:getblocking())
    assert.equal(tostring(client:getsockname()), tostring(address))
    assert.equal(tostring(client:getsockname()), tostring(server:getpeername()))
    client:send("x")
    assert.equal("x", server:recv(1))
    client:close()
    server:close()
    local listener = S.socket()
    listener:bind { "", 0 }
    listener:listen(1)
    assert.equal("0.0.0.0", listener:getsockname().host)
    raises(aloop.BlockingIOError, nil, listener.accept, listener)
    listener:close()
  end)

  it("IPv6 addresses have four fields", function()
    local ok, client, server, address = pcall(tcp_pair, S.AF_INET6, "::1")
    if not ok then return pending("no IPv6 here") end
    assert.same({ "::1", client:getsockname().port, 0, 0 }, { table.unpack(address) })
    assert.equal("[::1]:" .. address.port, tostring(address))
    assert.same({ 0, 0 }, { address.flowinfo, address.scope_id })
    client:close()
    server:close()
  end)

  it("Unix addresses are strings", function()
    local directory, remove = helper.temporary_directory()
    for _, path in ipairs { directory .. "/s", "\0aloop-" .. directory } do
      local listener = S.socket(S.AF_UNIX)
      listener:bind(path)
      listener:listen()
      assert.equal(path, listener:getsockname())
      local client = S.socket(S.AF_UNIX)
      client:connect(path)
      assert.equal(path, client:getpeername())
      assert.equal("", client:getsockname())
      local server, address = listener:accept()
      assert.equal("", address)
      server:close()
      client:close()
      listener:close()
    end
    local sock = S.socket(S.AF_UNIX)
    local e = raises(aloop.FileNotFoundError, nil, sock.connect, sock, directory .. "/none")
    assert.equal(directory .. "/none", e.filename)
    raises(aloop.OSError, "too long", sock.bind, sock, ("x"):rep(200))
    raises(aloop.ValueError, nil, sock.bind, sock, "")
    raises(aloop.ValueError, nil, sock.bind, sock, "a\0b")
    type_error("path expected, got table", sock.bind, sock, { "127.0.0.1", 0 })
    sock:close()
    remove()
  end)

  it("refuse addresses that are none", function()
    local sock = S.socket()
    type_error("address {host, port} expected, got string", sock.bind, sock, "127.0.0.1:80")
    type_error("address {host, port} expected", sock.bind, sock, { "127.0.0.1" })
    type_error("address {host, port} expected", sock.bind, sock, { 127, 80 })
    raises(aloop.ValueError, "port must be 0-65535", sock.bind, sock, { "127.0.0.1", 65536 })
    raises(aloop.ValueError, "port must be 0-65535", sock.bind, sock, { "127.0.0.1", -1 })
    raises(aloop.gaierror, nil, sock.bind, sock, { "::1", 0 })
    sock:close()
  end)

  it("options are integers, booleans or packed strings", function()
    local sock = S.socket()
    sock:setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, true)
    assert.equal(1, sock:getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR))
    sock:setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 0)
    assert.equal(0, sock:getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR))
    sock:setsockopt(S.SOL_SOCKET, S.SO_LINGER, string.pack("i4i4", 1, 7))
    assert.same({ 1, 7, 9 }, { string.unpack("i4i4", sock:getsockopt(S.SOL_SOCKET, S.SO_LINGER, 8)) })
    raises(aloop.OSError, nil, sock.setsockopt, sock, 9999, 1, 1)
    raises(aloop.OSError, nil, sock.getsockopt, sock, 9999, 1)
    raises(aloop.ValueError, nil, sock.getsockopt, sock, S.SOL_SOCKET, S.SO_LINGER, -1)
    type_error("integer, boolean or string expected, got nil", sock.setsockopt, sock, S.SOL_SOCKET, S.SO_REUSEADDR, nil)
    sock:close()
  end)

  it("setblocking changes the mode", function()
    local a, b, close = pair()
    a:setblocking(true)
    assert.is_true(a:getblocking())
    b:send("x")
    assert.equal("x", a:recv(10))
    a:setblocking(false)
    assert.is_false(a:getblocking())
    close()
  end)

  it("close, detach and dup", function()
    local before = helper.count_fds()
    local a, b = pair()
    local fd = a:fileno()
    local copy = a:dup()
    assert.not_equal(fd, copy:fileno())
    assert.equal(a.family, copy.family)
    assert.equal(fd, a:detach())
    assert.equal(-1, a:fileno())
    a:close()
    b:send("x")
    assert.equal("x", copy:recv(1))
    copy:close()
    copy:close()
    for _, method in ipairs { "recv", "listen", "getsockname", "getpeername", "dup", "getblocking" } do
      local e = raises(aloop.OSError, nil, copy[method], copy, 1)
      assert.equal("EBADF", e.code)
    end
    assert.matches("%[closed%] fd=%-1", tostring(copy))
    b:close()
    assert.equal(before + 1, helper.count_fds()) -- the detached one
    helper.with_loop(helper.new_loop, function(loop)
      raises(aloop.OSError, nil, loop.create_connection, loop, function() return {} end, nil, nil, { sock = copy })
      local sock = { getfd = function() return fd end }
      loop:create_connection(function() return {} end, nil, nil, { sock = sock }):close()
    end)
    assert.equal(before, helper.count_fds())
  end)

  it("close at the end of their scope", function()
    local before = helper.count_fds()
    do
      local sock <close> = S.socket() -- luacheck: ignore 211
      assert.equal(before + 1, helper.count_fds())
    end
    assert.equal(before, helper.count_fds())
  end)

  it("that are collected are closed", function()
    local before = helper.count_fds()
    for _ = 1, 3 do S.socketpair() end
    collectgarbage()
    collectgarbage()
    assert.equal(before, helper.count_fds())
  end)

  it("inet_pton and inet_ntop", function()
    assert.equal("\127\0\0\1", S.inet_pton(S.AF_INET, "127.0.0.1"))
    assert.equal("127.0.0.1", S.inet_ntop(S.AF_INET, "\127\0\0\1"))
    assert.equal(("\0"):rep(15) .. "\1", S.inet_pton(S.AF_INET6, "::1"))
    assert.equal("::1", S.inet_ntop(S.AF_INET6, ("\0"):rep(15) .. "\1"))
    raises(aloop.OSError, "illegal IP address", S.inet_pton, S.AF_INET, "localhost")
    raises(aloop.OSError, nil, S.inet_pton, S.AF_UNIX, "x")
    raises(aloop.ValueError, "invalid length", S.inet_ntop, S.AF_INET, "x")
    raises(aloop.OSError, nil, S.inet_ntop, S.AF_UNIX, "x")
  end)
end)

describe("pipe", function()
  it("has two ends that don't block", function()
    local r, w = aloop.pipe()
    raises(aloop.BlockingIOError, nil, r.read, r, 10)
    assert.equal(5, w:write("hello"))
    assert.equal("he", r:read(2))
    assert.equal("llo", r:read(100))
    assert.equal("", r:read(0))
    local n = w:write(("x"):rep(1000000))
    assert.is_true(n < 1000000)
    raises(aloop.BlockingIOError, nil, w.write, w, "x")
    assert.equal(n, #r:read(1000000))
    w:close()
    assert.is_nil(r:read(10))
    raises(aloop.ValueError, "closed", w.write, w, "x")
    assert.equal(-1, w:fileno())
    w:close()
    r:close()
    assert.matches("<PipeEnd closed", tostring(r))
  end)

  it("closes at the end of a scope, or when it is collected", function()
    local before = helper.count_fds()
    do
      local r, w = aloop.pipe()
      local _ <close> = r
      local _ <close> = w
    end
    assert.equal(before, helper.count_fds())
    aloop.pipe()
    collectgarbage()
    collectgarbage()
    assert.equal(before, helper.count_fds())
  end)

  it("tells a writer that nobody reads", function()
    local r, w = aloop.pipe()
    r:close()
    raises(aloop.BrokenPipeError, nil, w.write, w, "x")
    w:close()
  end)
end)

helper.each_loop(function(_, new_loop)
  describe("a socket given to a transport", function()
    it("is the transport's from then on", function() -- row: create_connection.sock_ownership
      helper.with_loop(new_loop, function(loop)
        local a, b = S.socketpair()
        a:setblocking(true)
        local protocol = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(protocol), nil, nil, { sock = a })
        assert.is_false(a:getblocking())
        a:close() -- not its own to close any more
        transport:write("hello")
        assert.equal("hello", helper.recv(loop, b))
        raises(aloop.RuntimeError, "another owner", a.detach, a)
        raises(aloop.RuntimeError, "is used by transport", loop.create_connection, loop, helper.always(protocol), nil,
          nil, { sock = a })
        local fd = a:fileno()
        assert.is_true(fd >= 0)
        assert.equal(fd, transport:get_extra_info("socket"):fileno())
        transport:close()
        protocol:wait_lost()
        aloop.sleep(0)
        assert.equal(-1, a:fileno())
        b:close()
      end)
    end)

    it("of another module is not closed twice", function()
      helper.with_loop(new_loop, function(loop)
        -- As luasocket's objects: getfd, setfd.
        local a, b = S.socketpair()
        local fd = a:detach()
        local foreign = { getfd = function() return fd end, setfd = function(_, new) fd = new end }
        local protocol = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(protocol), nil, nil, { sock = foreign })
        assert.equal(-1, fd)
        b:send("x")
        protocol:wait_data(1)
        transport:close()
        protocol:wait_lost()
        b:close()
        -- An object with a close of its own, which is called.
        local c, d = S.socketpair()
        local closed
        foreign = {
          fileno = function() return c:fileno() end,
          close = function()
            closed = true
            c:close()
          end,
        }
        protocol = helper.Recorder(loop)
        transport = loop:create_connection(helper.always(protocol), nil, nil, { sock = foreign })
        assert.not_equal(c:fileno(), transport:get_extra_info("socket"):fileno())
        d:send("y")
        protocol:wait_data(1)
        transport:close()
        assert.is_nil(closed)
        assert.is_nil(helper.recv(loop, d))
        assert.is_true(closed)
        d:close()
      end)
    end)

    it("that is refused stays the caller's", function()
      helper.with_loop(new_loop, function(loop)
        local a, b = S.socketpair()
        local function nothing() end
        local function fails() error("factory fails", 0) end
        for factory, pattern in pairs { [nothing] = "protocol expected, got nil", [fails] = "factory fails" } do
          local ok, e = pcall(loop.create_connection, loop, factory, nil, nil, { sock = a })
          assert.is_false(ok)
          assert.matches(pattern, e)
        end
        a:send("x")
        assert.equal("x", b:recv(1))
        a:close()
        b:close()
      end)
    end)
  end)

  -- row: TransportSocket
  it("a TransportSocket shows a socket and can't spoil it", function()
    helper.with_loop(new_loop, function(loop)
      local transport, protocol, sock = helper.over_tcp(loop)
      local view = transport:get_extra_info("socket")
      assert.is_true(aloop.isinstance(view, aloop.TransportSocket))
      assert.equal(view, transport:get_extra_info("socket"))
      assert.same({ S.AF_INET, S.SOCK_STREAM, S.IPPROTO_TCP }, { view.family, view.type, view.proto })
      assert.equal(tostring(sock:getsockname()), tostring(view:getpeername()))
      assert.equal(tostring(sock:getpeername()), tostring(view:getsockname()))
      view:setsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE, 1)
      assert.equal(1, view:getsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE))
      for _, name in ipairs { "close", "recv", "send", "accept", "connect", "bind", "listen", "detach" } do
        assert.is_nil(view[name], name)
      end
      view:setblocking(false)
      raises(aloop.ValueError, "cannot be blocking", view.setblocking, view, true)
      local copy = view:dup()
      assert.is_true(aloop.isinstance(copy, aloop.Socket))
      copy:close()
      view:shutdown(S.SHUT_WR)
      assert.is_nil(helper.recv(loop, sock))
      transport:close()
      protocol:wait_lost()
      aloop.sleep(0)
      assert.equal(-1, view:fileno())
      raises(aloop.OSError, nil, view.getsockname, view)
      assert.matches("closed", tostring(view))
      sock:close()
    end)
  end)

  describe("getaddrinfo", function()
    it("lists addresses", function() -- row: getaddrinfo
      helper.with_loop(new_loop, function(loop)
        for _, port in ipairs { 80, "80", "http" } do
          local list = loop:getaddrinfo("127.0.0.1", port, { type = S.SOCK_STREAM })
          assert.equal(1, #list)
          local info = list[1]
          assert.same({ S.AF_INET, S.SOCK_STREAM, S.IPPROTO_TCP, "" },
            { info.family, info.type, info.proto, info.canonname })
          assert.equal("127.0.0.1:80", tostring(info.sockaddr))
        end
        assert.is_true(#loop:getaddrinfo("localhost", nil) > 0)
        assert.is_true(#loop:getaddrinfo(nil, 80, { flags = S.AI_PASSIVE }) > 0)
      end)
    end)

    it("raises gaierror, and refuses wrong arguments", function() -- row: getaddrinfo.errors
      helper.with_loop(new_loop, function(loop)
        local e = raises(aloop.gaierror, nil, loop.getaddrinfo, loop, "127.0.0.1", 80, { family = S.AF_INET6 })
        assert.matches("^EAI_", e.code)
        assert.equal(S[e.code], e.errno)
        assert.is_true(aloop.isinstance(e, aloop.OSError))
        raises(aloop.gaierror, nil, loop.getaddrinfo, loop, "name.invalid", 80, { flags = S.AI_NUMERICHOST })
        type_error("string expected, got number", loop.getaddrinfo, loop, 42, 80)
        type_error("integer or string expected, got table", loop.getaddrinfo, loop, "127.0.0.1", {})
        type_error("unknown option 'kind' to 'getaddrinfo'", loop.getaddrinfo, loop, "127.0.0.1", 80, { kind = 1 })
        type_error("bad option 'type' to 'getaddrinfo' (integer expected, got string)", loop.getaddrinfo, loop,
          "127.0.0.1", 80, { type = "x" })
        raises(aloop.ValueError, "port", loop.getaddrinfo, loop, "127.0.0.1", 65536)
      end)
    end)

    it("can be cancelled", function()
      helper.with_loop(new_loop, function(loop)
        local task = loop:create_task(function() loop:getaddrinfo("localhost", 80) end)
        aloop.sleep(0)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
      end)
    end)

    it("of a script is what create_connection asks for names", function() -- row: create_connection.dns_empty
      helper.with_loop(new_loop, function(loop)
        local asked
        local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
        local port = helper.address_of(server).port
        local list = { { family = S.AF_INET, type = S.SOCK_STREAM, proto = 0, sockaddr = { "127.0.0.1", port } } }
        function loop.getaddrinfo(_, host, service, options)
          aloop.sleep(0) -- it may wait
          asked = { host, service, options.type }
          return list
        end
        local protocol = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(protocol), "any.name", 1)
        assert.same({ "any.name", 1, S.SOCK_STREAM }, asked)
        assert.equal(port, transport:get_extra_info("peername").port)
        transport:close()
        protocol:wait_lost()
        list = {}
        raises(aloop.OSError, "empty list", loop.create_connection, loop, helper.always(protocol), "any.name", 1)
        loop.getaddrinfo = nil
        server:close()
        server:wait_closed()
      end)
    end)
  end)

  it("getnameinfo gives host and service", function() -- row: getnameinfo
    helper.with_loop(new_loop, function(loop)
      local flags = S.NI_NUMERICHOST | S.NI_NUMERICSERV
      assert.same({ "127.0.0.1", "80" }, { loop:getnameinfo({ "127.0.0.1", 80 }, flags) })
      assert.same({ "127.0.0.1", "http" }, { loop:getnameinfo({ "127.0.0.1", 80 }, S.NI_NUMERICHOST) })
      type_error("address {host, port} expected, got string", loop.getnameinfo, loop, "127.0.0.1")
    end)
  end)
end)
