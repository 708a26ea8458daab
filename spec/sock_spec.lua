-- loop:sock_recv and its kin: sockets without a transport.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local core = require "aloop.core"
local S = aloop.socket
local base = 0 -- watches of the loop's own

local function with_loop(new_loop, body)
  helper.with_loop(new_loop, function(loop, trial)
    base = core.stats(loop).watchers
    body(loop, trial)
  end)
end

-- body(loop, a, b, trial) as a task, with a socket pair that is closed at the end.
local function with_pair(new_loop, body, ...)
  local kind = { ... }
  with_loop(new_loop, function(loop, trial)
    local a, b = S.socketpair(table.unpack(kind))
    local _ <close> = a
    local _ <close> = b
    body(loop, a, b, trial)
  end)
end

local function udp()
  local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
  sock:bind { "127.0.0.1", 0 }
  return sock
end

local function listener(family, host)
  local sock = S.socket(family or S.AF_INET, S.SOCK_STREAM)
  sock:bind { host or "127.0.0.1", 0 }
  sock:listen()
  return sock
end

-- Starts f as a task and lets it come to its wait.
local function waiting(loop, f)
  local task = loop:create_task(f)
  aloop.sleep(0)
  aloop.sleep(0)
  assert.is_false(task:done())
  return task
end

local function watchers(loop)
  return core.stats(loop).watchers - base
end

helper.each_loop(function(kind, new_loop)
  describe("sock_recv", function()
    it("gives what is there at once, at most n bytes", function() -- row: sock_recv, sock_recv.nbytes, sock.immediate
      with_pair(new_loop, function(loop, a, b)
        b:send("hello")
        local turned = false
        loop:call_soon(function() turned = true end)
        assert.equal("hel", loop:sock_recv(a, 3))
        assert.equal("lo", loop:sock_recv(a, 300000))
        assert.is_false(turned)
        assert.equal("", loop:sock_recv(a, 0))
      end)
    end)

    it("waits for data, and gives nil at the end", function() -- row: sock_recv
      with_pair(new_loop, function(loop, a, b)
        for _, n in ipairs { 1, 1000, 70000, 10000000 } do
          local task = waiting(loop, function() return loop:sock_recv(a, n) end)
          b:send("x")
          assert.equal("x", task:await())
        end
        local task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        b:shutdown(S.SHUT_WR)
        assert.is_nil(task:await())
        assert.is_nil(loop:sock_recv(a, 10))
        assert.equal(0, loop:sock_recv_into(a, aloop.buffer(3)))
      end)
    end)

    it("does nothing until it is called in a task", function() -- row: sock.coroutines
      helper.drive(new_loop, function(loop)
        local a, b = S.socketpair()
        local _ <close> = a
        local _ <close> = b
        raises(aloop.RuntimeError, "sock_recv", loop.sock_recv, loop, a, 1)
        local seen
        loop:call_soon(function() seen = select(2, pcall(loop.sock_recv, loop, a, 1)) end)
        helper.turn(loop, 2)
        assert.is_true(aloop.isinstance(seen, aloop.RuntimeError))
        b:send("x")
        assert.equal("x", loop:run_until_complete(function() return loop:sock_recv(a, 1) end))
      end)
    end)

    it("raises what the socket has to say", function()
      with_loop(new_loop, function(loop)
        local server = listener()
        local client <close> = S.socket()
        loop:sock_connect(client, server:getsockname())
        local conn = loop:sock_accept(server)
        server:close()
        local task = waiting(loop, function() return loop:sock_recv(client, 10) end)
        conn:setsockopt(S.SOL_SOCKET, S.SO_LINGER, string.pack("ii", 1, 0))
        conn:close()
        raises(aloop.ConnectionResetError, nil, task.await, task)
      end)
    end)

    it("checks its arguments", function()
      with_pair(new_loop, function(loop, a)
        raises(aloop.ValueError, "negative", loop.sock_recv, loop, a, -1)
        type_error("bad argument #2 to 'sock_recv' (number expected, got nil)", loop.sock_recv, loop, a)
        type_error("bad argument #1 to 'sock_recv' (socket expected, got nil)", loop.sock_recv, loop, nil, 1)
        type_error("bad argument #1 to 'sock_recv' (socket expected", loop.sock_recv, loop, {}, 1)
        type_error("buffer expected, got string", loop.sock_recv_into, loop, a, "x")
        type_error("string or buffer expected, got nil", loop.sock_sendall, loop, a)
        type_error("address {host, port} expected", loop.sock_connect, loop, S.socket(), "127.0.0.1")
        raises(aloop.ValueError, nil, loop.sock_recv, loop, -1, 1)
      end)
    end)

    it("takes a descriptor, and objects of other modules", function() -- row: socket_module
      with_pair(new_loop, function(loop, a, b)
        local object = setmetatable({}, { __index = { getfd = function() return a:fileno() end } })
        for _, sock in ipairs { a:fileno(), object } do
          local task = waiting(loop, function() return loop:sock_recv(sock, 10) end)
          loop:sock_sendall(b:fileno(), "abc")
          assert.equal("abc", task:await())
        end
        loop:sock_sendall(b, "")
        b:close()
        assert.is_nil(loop:sock_recv(object, 1))
      end)
    end)
  end)

  it("sock_recv_into fills a buffer from a position on", function() -- row: sock_recv_into
    with_pair(new_loop, function(loop, a, b)
      local buffer = aloop.buffer(8)
      b:send("hello")
      assert.equal(5, loop:sock_recv_into(a, buffer))
      assert.equal("hello\0\0\0", tostring(buffer))
      local task = waiting(loop, function() return loop:sock_recv_into(a, buffer, 7) end)
      b:send("abc")
      assert.equal(2, task:await())
      assert.equal("hello\0ab", tostring(buffer))
      assert.equal(1, loop:sock_recv_into(a, buffer, -3))
      assert.equal("hellocab", tostring(buffer))
      raises(aloop.ValueError, "position", loop.sock_recv_into, loop, a, buffer, 0)
      raises(aloop.ValueError, "position", loop.sock_recv_into, loop, a, buffer, 10)
    end)
  end)

  describe("datagrams", function()
    it("sock_sendto and sock_recvfrom carry them with addresses", function() -- row: sock_recvfrom, sock_sendto
      with_loop(new_loop, function(loop)
        local a <close> = udp()
        local b <close> = udp()
        local task = waiting(loop, function() return loop:sock_recvfrom(a, 100) end)
        assert.equal(5, loop:sock_sendto(b, "hello", a:getsockname()))
        local data, address = task:await()
        assert.equal("hello", data)
        assert.same({ "127.0.0.1", b:getsockname().port }, { address.host, address.port })
        assert.equal(0, loop:sock_sendto(b, "", a:getsockname()))
        assert.equal("", (loop:sock_recvfrom(a, 100)))
        assert.equal(3, loop:sock_sendto(b, aloop.buffer(3), a:getsockname()))
        assert.equal("\0\0", (loop:sock_recvfrom(a, 2)))
        raises(aloop.OSError, nil, loop.sock_sendto, loop, b, ("x"):rep(70000), a:getsockname())
        type_error("address {host, port} expected, got nil", loop.sock_sendto, loop, b, "x")
      end)
    end)

    it("sock_recvfrom_into fills a buffer", function() -- row: sock_recvfrom_into
      with_loop(new_loop, function(loop)
        local a <close> = udp()
        local b <close> = udp()
        local buffer = aloop.buffer(6)
        local task = waiting(loop, function() return loop:sock_recvfrom_into(a, buffer) end)
        loop:sock_sendto(b, "hello", a:getsockname())
        local n, address = task:await()
        assert.same({ 5, b:getsockname().port }, { n, address.port })
        loop:sock_sendto(b, "XYZ", a:getsockname())
        assert.equal(2, (loop:sock_recvfrom_into(a, buffer, 2)))
        loop:sock_sendto(b, "12", a:getsockname())
        assert.equal(2, (loop:sock_recvfrom_into(a, buffer, 0, 3)))
        assert.equal("XY12o\0", tostring(buffer))
        raises(aloop.ValueError, "nbytes", loop.sock_recvfrom_into, loop, a, buffer, 7)
        raises(aloop.ValueError, "nbytes", loop.sock_recvfrom_into, loop, a, buffer, 5, 3)
      end)
    end)

    it("between unnamed Unix sockets have no address", function()
      with_pair(new_loop, function(loop, a, b)
        b:send("")
        local data, address = loop:sock_recvfrom(a, 10)
        assert.equal("", data)
        assert.is_true(address == nil or address == "")
      end, S.AF_UNIX, S.SOCK_DGRAM)
    end)
  end)

  describe("sock_sendall", function()
    it("sends all, to a slow reader too", function() -- row: sock_sendall
      with_pair(new_loop, function(loop, a, b)
        local data = ("0123456789abcdef"):rep(10 * 65536)
        local task = waiting(loop, function() return "nothing", loop:sock_sendall(a, data) end)
        local parts, n = {}, 0
        while n < #data do
          parts[#parts + 1] = loop:sock_recv(b, 100000)
          n = n + #parts[#parts]
        end
        assert.same({ "nothing", n = 1 }, table.pack(task:await()))
        assert.is_true(table.concat(parts) == data)
      end)
    end)

    it("takes a buffer, and raises when nobody reads any more", function()
      with_pair(new_loop, function(loop, a, b)
        local buffer = aloop.buffer(4)
        buffer:set(1, "abcd")
        loop:sock_sendall(a, buffer)
        assert.equal("abcd", loop:sock_recv(b, 10))
        local task = waiting(loop, function() return loop:sock_sendall(a, ("x"):rep(10000000)) end)
        b:close()
        raises(aloop.ConnectionError, nil, task.await, task)
        raises(aloop.BrokenPipeError, nil, loop.sock_sendall, loop, a, "x")
      end)
    end)
  end)

  describe("sock_connect", function()
    -- row: sock_connect, sock_connect.resolve, sock_accept
    it("connects, to names too, and sock_accept takes the connection", function()
      with_loop(new_loop, function(loop)
        local server <close> = listener()
        local port = server:getsockname().port
        for _, host in ipairs { "127.0.0.1", "localhost" } do
          local client <close> = S.socket()
          local task = waiting(loop, function() return loop:sock_accept(server) end)
          assert.equal(0, select("#", loop:sock_connect(client, { host, port })))
          local conn, address = task:await()
          assert.is_false(conn:getblocking())
          assert.equal(client:getsockname().port, address.port)
          loop:sock_sendall(client, "hello")
          assert.equal("hello", loop:sock_recv(conn, 100))
          conn:close()
        end
        assert.is_true(server:fileno() >= 0)
      end)
    end)

    it("connects over IPv6 and to Unix sockets, waiting for a full backlog", function()
      with_loop(new_loop, function(loop)
        local server <close> = listener(S.AF_INET6, "::1")
        local client <close> = S.socket(S.AF_INET6)
        loop:sock_connect(client, server:getsockname())
        loop:sock_accept(server):close()
        local unix <close> = S.socket(S.AF_UNIX)
        unix:bind("\0aloop-sock-" .. client:fileno() .. tostring(unix):match("fd=(%d+)") .. os.time())
        unix:listen(0)
        local clients, task = {}
        repeat
          clients[#clients + 1] = S.socket(S.AF_UNIX)
          task = loop:create_task(function() return loop:sock_connect(clients[#clients], unix:getsockname()) end)
          aloop.sleep(0.005)
        until not task:done()
        clients[#clients + 1] = S.socket(S.AF_UNIX)
        local cancelled = waiting(loop, function()
          return loop:sock_connect(clients[#clients], unix:getsockname())
        end)
        cancelled:cancel()
        raises(aloop.CancelledError, nil, cancelled.await, cancelled)
        for _ = 1, #clients - 1 do loop:sock_accept(unix):close() end
        task:await()
        for _, sock in ipairs(clients) do sock:close() end
      end)
    end)

    it("raises what the kernel says, and names the address", function() -- row: sock_connect
      with_loop(new_loop, function(loop)
        local server = listener()
        local address = server:getsockname()
        server:close()
        local client = S.socket()
        local e = raises(aloop.ConnectionRefusedError, "Connect call failed", loop.sock_connect, loop, client, address)
        assert.equal("ECONNREFUSED", e.code)
        assert.is_truthy(e.message:find(tostring(address), 1, true))
        client:close()
        raises(aloop.OSError, nil, loop.sock_connect, loop, client, address)
        local unix <close> = S.socket(S.AF_UNIX)
        raises(aloop.FileNotFoundError, nil, loop.sock_connect, loop, unix, "/nonexistent/socket")
        local other <close> = S.socket()
        raises(aloop.gaierror, nil, loop.sock_connect, loop, other, { "no such host!", 1 })
      end)
    end)

    it("may be cancelled", function()
      with_loop(new_loop, function(loop)
        local server <close> = listener()
        server:listen(0)
        local socks, task = {}, nil
        for _ = 1, 10 do -- until the backlog is full, and one hangs
          local sock = S.socket()
          socks[#socks + 1] = sock
          task = loop:create_task(function() return loop:sock_connect(sock, server:getsockname()) end)
          aloop.sleep(0.01)
          if not task:done() then break end
        end
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        assert.equal(0, watchers(loop))
        for _, sock in ipairs(socks) do sock:close() end
      end)
    end)
  end)

  describe("a socket", function()
    it("that blocks is refused", function() -- row: sock.nonblocking_required
      with_pair(new_loop, function(loop, a, b)
        b:send("x")
        a:setblocking(true)
        for _, sock in ipairs { a, a:fileno(), a:dup() } do
          raises(aloop.ValueError, "the socket must be non-blocking", loop.sock_recv, loop, sock, 1)
        end
        local buffer, blocks = aloop.buffer(1), "the socket must be non-blocking"
        raises(aloop.ValueError, blocks, loop.sock_recv_into, loop, a, buffer)
        raises(aloop.ValueError, blocks, loop.sock_recvfrom, loop, a, 1)
        raises(aloop.ValueError, blocks, loop.sock_recvfrom_into, loop, a, buffer)
        raises(aloop.ValueError, blocks, loop.sock_sendall, loop, a, "x")
        raises(aloop.ValueError, blocks, loop.sock_sendto, loop, a, "x", "/x")
        raises(aloop.ValueError, blocks, loop.sock_connect, loop, a, "/x")
        raises(aloop.ValueError, blocks, loop.sock_accept, loop, a)
        a:setblocking(false)
        assert.equal("x", loop:sock_recv(a, 1))
      end)
      collectgarbage()
    end)

    it("of a live transport is refused, of a closing one isn't", function() -- row: sock.transport_fd; point: 19
      with_loop(new_loop, function(loop)
        local transport, protocol, sock = helper.over_socketpair(loop)
        local view = transport:get_extra_info("socket")
        for _, s in ipairs { view, view:fileno() } do
          raises(aloop.RuntimeError, "is used by transport", loop.sock_recv, loop, s, 1)
          raises(aloop.RuntimeError, "is used by transport", loop.sock_sendall, loop, s, "x")
          raises(aloop.RuntimeError, "is used by transport", loop.sock_accept, loop, s)
          raises(aloop.RuntimeError, "is used by transport", loop.sock_connect, loop, s, "/x")
        end
        transport:close()
        loop:sock_sendall(view, "bye")
        protocol:wait_lost()
        assert.equal("bye", loop:sock_recv(sock, 10))
        raises(aloop.ValueError, nil, loop.sock_recv, loop, view, 1)
        sock:close()
      end)
    end)

    it("of a server is refused", function()
      with_loop(new_loop, function(loop)
        local lis = helper.listen()
        local server <close> = loop:create_server(aloop.Protocol, nil, nil, { sock = lis })
        for _, s in ipairs { lis, lis:fileno(), server.sockets[1] } do
          raises(aloop.RuntimeError, "is used by a server", loop.sock_accept, loop, s)
          raises(aloop.RuntimeError, "is used by a server", loop.sock_recv, loop, s, 1)
        end
      end)
    end)

    it("that is closed raises, also in who waits for it", function()
      with_pair(new_loop, function(loop, a)
        local reader = waiting(loop, function() return loop:sock_recv(a, 1) end)
        local writer = waiting(loop, function() return loop:sock_sendall(a, ("x"):rep(10000000)) end)
        a:close()
        assert.equal("EBADF", raises(aloop.OSError, nil, reader.await, reader).code)
        assert.equal("EBADF", raises(aloop.OSError, nil, writer.await, writer).code)
        assert.equal("EBADF", raises(aloop.OSError, nil, loop.sock_recv, loop, a, 1).code)
        assert.equal(0, watchers(loop))
      end)
    end)

    it("that is no stream, or no socket at all", function()
      with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local _ <close> = r
        local _ <close> = w
        assert.equal("ENOTSOCK", raises(aloop.OSError, nil, loop.sock_recv, loop, r, 1).code)
        assert.equal("ENOTSOCK", raises(aloop.OSError, nil, loop.sock_sendall, loop, w, "x").code)
        local sock <close> = S.socket()
        assert.equal("ENOTCONN", raises(aloop.OSError, nil, loop.sock_recv, loop, sock, 1).code)
        assert.equal("EINVAL", raises(aloop.OSError, nil, loop.sock_accept, loop, sock).code)
      end)
    end)
  end)

  describe("a cancelled call", function()
    it("leaves the socket usable, and no watch", function() -- row: sock.cancel; point: 18
      with_pair(new_loop, function(loop, a, b)
        local task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        assert.equal(1, watchers(loop))
        task:cancel()
        assert.equal(0, watchers(loop))
        raises(aloop.CancelledError, nil, task.await, task)
        assert.is_false(loop:remove_reader(a))
        b:send("kept")
        assert.equal("kept", loop:sock_recv(a, 10))
      end)
    end)

    it("loses nothing when the data come at the same time", function() -- row: sock.cancel
      with_pair(new_loop, function(loop, a, b)
        local task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        b:send("both")
        loop:add_reader(b, function() end)
        aloop.sleep(0)
        loop:remove_reader(b)
        task:cancel()
        local ok, e = pcall(task.await, task)
        assert.is_true(ok and e == "both" or aloop.isinstance(e, aloop.CancelledError))
        if not ok then assert.equal("both", loop:sock_recv(a, 10)) end
      end)
    end)

    it("takes away its own watch only", function() -- row: sock.cancel; point: 18
      with_pair(new_loop, function(loop, a, b, trial)
        local got
        local task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        loop:add_reader(a, function() got = a:recv(100) end)
        trial:take_log("sock_recv: another reader took the place")
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        b:send("to the reader")
        trial:wait_until(function() return got end)
        assert.equal("to the reader", got)
        assert.is_true(loop:remove_reader(a))
      end)
    end)

    it("in each function", function()
      with_pair(new_loop, function(loop, a, b)
        local server <close> = listener()
        local buffer = aloop.buffer(10)
        local data = ("x"):rep(10000000)
        for _, f in ipairs {
          function() loop:sock_recv_into(a, buffer) end,
          function() loop:sock_recvfrom(a, 1) end,
          function() loop:sock_recvfrom_into(a, buffer) end,
          function() loop:sock_sendall(b, data) end,
          function() loop:sock_accept(server) end,
        } do
          local task = waiting(loop, f)
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
          assert.equal(0, watchers(loop))
        end
      end, S.AF_UNIX, S.SOCK_STREAM)
    end)
  end)

  describe("two at one socket", function()
    it("one reads and one writes", function()
      with_pair(new_loop, function(loop, a, b)
        local reader = waiting(loop, function() return loop:sock_recv(a, 10) end)
        local data = ("x"):rep(3000000)
        local writer = waiting(loop, function() return loop:sock_sendall(a, data) end)
        b:send("in")
        assert.equal("in", reader:await())
        local n = 0
        while n < #data do n = n + #loop:sock_recv(b, 1000000) end
        writer:await()
      end)
    end)

    it("the later reader takes the place of the former", function() -- as in asyncio, but it is told
      with_pair(new_loop, function(loop, a, b, trial)
        local first = waiting(loop, function() return loop:sock_recv(a, 10) end)
        local second = waiting(loop, function() return loop:sock_recv(a, 10) end)
        local _, _, category = trial:take_log("sock_recv: another reader took the place of this one")
        assert.equal("RuntimeWarning", category)
        b:send("x")
        assert.equal("x", second:await())
        assert.is_false(first:done())
        first:cancel()
        raises(aloop.CancelledError, nil, first.await, first)
      end)
    end)

    it("takes the place of add_reader's callback, and remove_reader ends it", function()
      with_pair(new_loop, function(loop, a, b, trial)
        local called = false
        loop:add_reader(a, function() called = true end)
        local task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        b:send("x")
        assert.equal("x", task:await())
        assert.is_false(called)
        assert.is_false(loop:remove_reader(a))
        task = waiting(loop, function() return loop:sock_recv(a, 10) end)
        assert.is_true(loop:remove_reader(a))
        trial:take_log("took the place")
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
      end)
    end)
  end)

  it("a descriptor closed and used again while one waits is the new one's", function() -- row: sock.cancel; bug: 17
    with_loop(new_loop, function(loop, trial)
      local a, b = S.socketpair()
      local fd = a:fileno()
      local stale = waiting(loop, function() return loop:sock_recv(fd, 10) end)
      a:close() -- the loop hears nothing of it: it was waited for by number
      b:close()
      local c, d = S.socketpair()
      local _ <close> = c
      local _ <close> = d
      assert.equal(fd, c:fileno())
      local fresh = waiting(loop, function() return loop:sock_recv(c, 10) end)
      trial:take_log("took the place")
      stale:cancel()
      raises(aloop.CancelledError, nil, stale.await, stale)
      loop:sock_sendall(d, "new")
      assert.equal("new", fresh:await())
    end)
  end)

  it("a loop may close while tasks wait for sockets", function()
    local a, b = S.socketpair()
    local _ <close> = a
    local _ <close> = b
    helper.drive(new_loop, function(loop)
      loop:set_exception_handler(function() end)
      loop:create_task(function() return loop:sock_recv(a, 10) end)
      loop:create_task(function() return loop:sock_sendall(b, ("x"):rep(10000000)) end)
      helper.turn(loop, 3)
      loop:close()
    end)
    assert.is_true(#a:recv(10) == 10)
  end)

  it("many sockets at once", function()
    with_loop(new_loop, function(loop)
      local N, tasks, pairs_ = kind == "select" and 100 or 200, {}, {}
      for i = 1, N do
        local a, b = S.socketpair()
        pairs_[i] = { a, b }
        tasks[i] = loop:create_task(function()
          for _ = 1, 20 do loop:sock_sendall(a, (assert(loop:sock_recv(a, 100)))) end
        end)
        tasks[N + i] = loop:create_task(function()
          for n = 1, 20 do
            local text = i .. ":" .. n
            loop:sock_sendall(b, text)
            assert.equal(text, loop:sock_recv(b, 100))
          end
        end)
      end
      for _, task in ipairs(tasks) do task:await() end
      for _, p in ipairs(pairs_) do
        p[1]:close()
        p[2]:close()
      end
      assert.equal(0, watchers(loop))
    end)
  end)

  it("waiting takes no memory of Lua's", function()
    with_pair(new_loop, function(loop, a, b)
      local function rounds(n)
        for _ = 1, n do loop:sock_recv(a, 1) end
      end
      local task = loop:create_task(function()
        rounds(10)
        collectgarbage()
        collectgarbage("stop")
        local before = collectgarbage("count")
        rounds(200)
        local grown = collectgarbage("count") - before
        collectgarbage("restart")
        return grown
      end)
      local sender = loop:create_task(function()
        for _ = 1, 210 do
          b:send("x")
          aloop.sleep(0)
          aloop.sleep(0)
          aloop.sleep(0)
        end
      end)
      assert.is_true(task:await() < 2)
      sender:await()
    end)
  end)
end)
