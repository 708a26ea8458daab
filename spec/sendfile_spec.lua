-- loop:sendfile and loop:sock_sendfile.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local S = aloop.socket
local SIZE = 8 * 1024 * 1024 -- more than the kernel's buffers take

local DATA = {}
for i = 1, SIZE / 64 do DATA[i] = ("%08d"):format(i):rep(8) end
DATA = table.concat(DATA)

local paths = {}
local function big_file()
  paths.big = paths.big or helper.write_file(DATA)
  return assert(io.open(paths.big, "rb"))
end

local function small_file(text)
  local path = helper.write_file(text)
  local file = assert(io.open(path, "rb"))
  os.remove(path)
  return file
end

lazy_teardown(function() -- luacheck: ignore 113
  if paths.big then os.remove(paths.big) end
end)

local function reading(loop, sock, n)
  return loop:create_task(function() return helper.recv_exactly(loop, sock, n or math.huge) end)
end

-- A transport over TCP, its protocol, and the socket at the other end. The transport is closed at the end.
local function with_transport(new_loop, body)
  helper.with_loop(new_loop, function(loop, trial)
    local listener = S.socket()
    listener:bind { "127.0.0.1", 0 }
    listener:listen()
    local peer = S.socket()
    loop:sock_connect(peer, listener:getsockname())
    local conn = loop:sock_accept(listener)
    listener:close()
    local transport, protocol = loop:create_connection(function() return helper.Recorder(loop) end, nil, nil,
      { sock = conn })
    body(loop, transport, protocol, peer, trial)
    transport:abort()
    protocol:wait_lost()
    peer:close()
  end)
end

local function position_of(fd)
  return tonumber(helper.read_file("/proc/self/fdinfo/" .. fd):match("pos:%s*(%d+)"))
end

-- The descriptor of a Lua file, found by its position.
local function find_fd(file)
  file:seek("set", 7)
  for fd = 3, 1000 do
    if position_of(fd) == 7 then return fd end
  end
end

local function with_pair(new_loop, body)
  helper.with_loop(new_loop, function(loop, trial)
    local a, b = S.socketpair()
    local _ <close> = a
    local _ <close> = b
    body(loop, a, b, trial)
  end)
end

-- A task that hangs in a sendfile of the big file.
local function hanging(loop, f)
  local task = loop:create_task(f)
  for _ = 1, 20 do aloop.sleep(0) end
  assert.is_false(task:done())
  return task
end

helper.each_loop(function(_, new_loop)
  describe("sock_sendfile", function()
    it("sends a file, and leaves its position behind what was sent", function() -- row: sock_sendfile
      with_pair(new_loop, function(loop, a, b)
        local file = big_file()
        local got = reading(loop, b, SIZE)
        assert.equal(SIZE, loop:sock_sendfile(a, file))
        assert.is_true(got:await() == DATA)
        assert.equal(SIZE, file:seek())
        file:close()
      end)
    end)

    it("sends a part, at once if it can", function() -- row: sock_sendfile
      with_pair(new_loop, function(loop, a, b)
        local file = small_file "0123456789"
        local turned = false
        loop:call_soon(function() turned = true end)
        assert.equal(3, loop:sock_sendfile(a, file, 2, 3))
        assert.equal(5, file:seek())
        assert.equal(2, loop:sock_sendfile(a, file, 8, 100))
        assert.equal(0, loop:sock_sendfile(a, file, 10))
        assert.equal(0, loop:sock_sendfile(a, file, 1000, 5))
        assert.equal(10, file:seek())
        assert.equal(7, loop:sock_sendfile(a, file, 3, nil, { fallback = false }))
        assert.is_false(turned)
        assert.equal("234" .. "89" .. "3456789", helper.recv_exactly(loop, b, 12))
        file:close()
        local empty = small_file ""
        assert.equal(0, loop:sock_sendfile(a, empty))
        empty:close()
      end)
    end)

    it("takes descriptors and objects that have one, whose position it sets, too", function() -- row: sendfile.file
      with_pair(new_loop, function(loop, a, b)
        local file = small_file "0123456789"
        local fd = find_fd(file)
        local object = { fileno = function() return fd end }
        assert.equal(4, loop:sock_sendfile(a, object, 1, 4))
        assert.equal(5, position_of(fd))
        assert.equal(10, loop:sock_sendfile(a, fd))
        assert.equal(10, position_of(fd))
        assert.equal("1234" .. "0123456789", helper.recv_exactly(loop, b, 14))
        file:close()
        raises(aloop.OSError, nil, loop.sock_sendfile, loop, a, 1000000)
        raises(aloop.ValueError, "closed file", loop.sock_sendfile, loop, a, file)
      end)
    end)

    it("sends what was written to the file but not flushed", function()
      with_pair(new_loop, function(loop, a, b)
        local file = io.tmpfile()
        file:write("in the buffer")
        assert.equal(13, loop:sock_sendfile(a, file))
        assert.equal("in the buffer", helper.recv_exactly(loop, b, 13))
        file:close()
      end)
    end)

    it("falls back to reading what the kernel can't send", function() -- row: sock_sendfile, sendfile.file
      with_pair(new_loop, function(loop, a, b)
        local pipe = io.popen("printf 'first\nsecond'")
        assert.equal("first", pipe:read("l"))
        assert.equal(6, loop:sock_sendfile(a, pipe))
        pipe:close()
        local r, w = aloop.pipe()
        local task = hanging(loop, function() return loop:sock_sendfile(a, r, 0, 5) end)
        w:write("thi")
        aloop.sleep(0.02)
        w:write("rd more")
        assert.equal(5, task:await()) -- bug: 28
        assert.equal("secondthird", helper.recv_exactly(loop, b, 11))
        r:close()
        w:close()
        local text, position = ("x"):rep(600000) .. "end", 1
        local object = {
          read = function(_, n)
            local piece = text:sub(position, position + n - 1)
            position = position + #piece
            return #piece > 0 and piece or nil
          end,
          seek = function(_, _, offset) position = offset + 1 return offset end,
        }
        local got = reading(loop, b, 600003 + 10)
        assert.equal(600003, loop:sock_sendfile(a, object))
        assert.equal(10, loop:sock_sendfile(a, object, 600003 - 50, 10))
        assert.equal(600003 - 39, position)
        assert.is_true(got:await() == text .. ("x"):rep(10))
      end)
    end)

    it("raises instead if it may not fall back", function() -- row: sock_sendfile.not_available
      with_pair(new_loop, function(loop, a)
        local object = { read = function() error("not to be read") end }
        local unavailable = aloop.SendfileNotAvailableError
        raises(unavailable, nil, loop.sock_sendfile, loop, a, object, 0, nil, { fallback = false })
        local pipe = io.popen("echo x")
        local e = raises(unavailable, nil, loop.sock_sendfile, loop, a, pipe, 0, nil, { fallback = false })
        assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
        pipe:close()
        raises(aloop.OSError, "positions", loop.sock_sendfile, loop, a, { read = function() end }, 5)
      end)
    end)

    it("checks what it is given", function() -- row: sock_sendfile.params
      with_pair(new_loop, function(loop, a)
        local file = small_file "0123456789"
        local function refuses(class, pattern, ...) raises(class, pattern, loop.sock_sendfile, loop, ...) end
        local datagrams = S.socket(S.AF_INET, S.SOCK_DGRAM)
        refuses(aloop.ValueError, "only SOCK_STREAM type sockets are supported", datagrams, file)
        datagrams:close()
        refuses(aloop.ValueError, "binary mode", a, { read = function() end, mode = "r" })
        refuses(aloop.ValueError, "count must be a positive integer (got 0)", a, file, 0, 0)
        refuses(aloop.ValueError, "count must be a positive integer (got -1)", a, file, 0, -1)
        refuses(aloop.ValueError, "offset must be a non-negative integer (got -1)", a, file, -1)
        type_error("bad argument #3 to 'sock_sendfile' (integer expected, got number)", loop.sock_sendfile, loop, a,
          file, 1.5)
        type_error("bad argument #4 to 'sock_sendfile' (integer expected, got string)", loop.sock_sendfile, loop, a,
          file, 0, "all")
        type_error("bad argument #4 to 'sock_sendfile' (integer expected, got boolean)", loop.sock_sendfile, loop, a,
          file, 0, false)
        type_error("bad argument #2 to 'sock_sendfile' (file expected, got nil)", loop.sock_sendfile, loop, a)
        type_error("bad argument #1 to 'sock_sendfile' (socket expected", loop.sock_sendfile, loop, nil, file)
        type_error("unknown option 'fall_back' to 'sock_sendfile'", loop.sock_sendfile, loop, a, file, 0, nil,
          { fall_back = true })
        a:setblocking(true)
        refuses(aloop.ValueError, "the socket must be non-blocking", a, file)
        a:setblocking(false)
        file:close()
      end)
      helper.drive(new_loop, function(loop)
        local a, b = S.socketpair()
        raises(aloop.RuntimeError, nil, loop.sock_sendfile, loop, a, small_file "x")
        a:close()
        b:close()
      end)
    end)

    it("may be cancelled: the position tells how far it came", function() -- row: sendfile.position
      with_pair(new_loop, function(loop, a, b)
        local file = big_file()
        local task = hanging(loop, function() return loop:sock_sendfile(a, file, 100) end)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        local sent = file:seek() - 100
        assert.is_true(sent > 0 and sent < SIZE - 100)
        a:shutdown(S.SHUT_WR)
        assert.is_true(helper.recv_all(loop, b) == DATA:sub(101, 100 + sent))
        file:close()
      end)
    end)

    it("fails when the peer goes, and the position tells how far it came", function() -- row: sendfile.position
      with_pair(new_loop, function(loop, a, b)
        local file = big_file()
        local task = hanging(loop, function() return loop:sock_sendfile(a, file) end)
        b:close()
        raises(aloop.ConnectionError, nil, task.await, task)
        assert.is_true(file:seek() > 0)
        raises(aloop.ConnectionError, nil, loop.sock_sendfile, loop, a, file)
        file:close()
      end)
    end)

    it("ends where the file ends, if that shrinks meanwhile", function()
      with_pair(new_loop, function(loop, a, b)
        local path = helper.write_file(DATA)
        local file = io.open(path, "rb")
        local task = hanging(loop, function() return loop:sock_sendfile(a, file) end)
        io.open(path, "wb"):close()
        os.remove(path)
        local got = reading(loop, b)
        local sent = task:await()
        assert.is_true(sent > 0 and sent < SIZE)
        assert.equal(sent, file:seek())
        a:close()
        assert.equal(sent, #got:await())
        file:close()
      end)
    end)

    it("isn't disturbed by a file that is closed meanwhile", function()
      with_pair(new_loop, function(loop, a, b)
        local file = big_file()
        local task = hanging(loop, function() return loop:sock_sendfile(a, file) end)
        file:close()
        local got = reading(loop, b, SIZE)
        assert.equal(SIZE, task:await())
        assert.is_true(got:await() == DATA)
      end)
    end)

    it("of a pipe may be cancelled while it waits for the pipe", function()
      with_pair(new_loop, function(loop, a)
        local r, w = aloop.pipe()
        local task = hanging(loop, function() return loop:sock_sendfile(a, r) end)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        w:close()
        r:close()
        aloop.sleep(0.15)
      end)
    end)
  end)

  describe("sendfile", function()
    it("sends a file over a transport", function() -- row: sendfile, sendfile.native, sendfile.file
      with_transport(new_loop, function(loop, transport, protocol, peer)
        local file = big_file()
        local got = reading(loop, peer, SIZE)
        assert.equal(SIZE, loop:sendfile(transport, file))
        assert.is_true(got:await() == DATA)
        assert.equal(SIZE, file:seek())
        assert.same({ "made" }, protocol.events)
        file:close()
      end)
    end)

    -- row: sendfile.offset, sendfile.count, sendfile.position
    it("from an offset, and as much as count says", function()
      with_transport(new_loop, function(loop, transport, _, peer)
        local file = small_file "0123456789"
        assert.equal(4, loop:sendfile(transport, file, 3, 4))
        assert.equal(7, file:seek())
        assert.equal(8, loop:sendfile(transport, file, 2))
        assert.equal("3456" .. "23456789", helper.recv_exactly(loop, peer, 12))
        assert.equal(0, loop:sendfile(transport, file, 20))
        file:close()
      end)
    end)

    it("comes after what was written before, and before what is written after", function() -- row: sendfile.order
      with_transport(new_loop, function(loop, transport, _, peer)
        local file, before = big_file(), ("before"):rep(1000000)
        transport:write(before)
        assert.is_true(transport:get_write_buffer_size() > 0)
        local got = reading(loop, peer, #before + SIZE + 5)
        assert.equal(SIZE, loop:sendfile(transport, file))
        transport:write("after")
        assert.is_true(got:await() == before .. DATA .. "after")
        file:close()
      end)
    end)

    -- row: sendfile.no_write_during, sendfile.restores_reading
    it("has the transport for itself: no writes, no reading, no other sendfile", function()
      with_transport(new_loop, function(loop, transport, protocol, peer)
        local file = big_file()
        local task = hanging(loop, function() return loop:sendfile(transport, file) end)
        local busy = "sendfile is in progress"
        raises(aloop.RuntimeError, busy, transport.write, transport, "x")
        raises(aloop.RuntimeError, busy, transport.writelines, transport, { "x" })
        raises(aloop.RuntimeError, busy, transport.write_eof, transport)
        raises(aloop.RuntimeError, busy, loop.sendfile, loop, transport, file)
        assert.is_false(transport:is_reading())
        peer:send("from the peer")
        aloop.sleep(0.01)
        assert.equal("", protocol:text())
        local got = reading(loop, peer, SIZE + 1)
        assert.equal(SIZE, task:await())
        assert.is_true(transport:is_reading())
        assert.equal("from the peer", protocol:wait_data(13))
        transport:write("x")
        assert.equal(SIZE + 1, #got:await())
        transport:pause_reading()
        assert.equal(10, loop:sendfile(transport, file, 0, 10))
        assert.is_false(transport:is_reading())
        file:close()
      end)
    end)

    it("is refused on a transport that is closing, or can't send files", function()
      -- row: sendfile.closing, sendfile.unsupported_transport
      with_transport(new_loop, function(loop, transport)
        local file = small_file "x"
        for _, name in ipairs { "connect_read_pipe", "connect_write_pipe" } do
          local r, w = aloop.pipe()
          local protocol = helper.Recorder(loop)
          local pipe = loop[name](loop, helper.always(protocol), name:find "read" and r or w)
          raises(aloop.RuntimeError, "sendfile is not supported for transport", loop.sendfile, loop, pipe, file)
          pipe:close()
          protocol:wait_lost()
          r:close()
          w:close()
        end
        type_error("bad argument #1 to 'sendfile' (Transport expected, got nil)", loop.sendfile, loop, nil, file)
        type_error("bad argument #2 to 'sendfile' (file expected, got table)", loop.sendfile, loop, transport, {})
        raises(aloop.ValueError, "count", loop.sendfile, loop, transport, file, 0, 0)
        raises(aloop.ValueError, "offset", loop.sendfile, loop, transport, file, -1)
        transport:close()
        raises(aloop.RuntimeError, "Transport is closing", loop.sendfile, loop, transport, file)
        file:close()
      end)
    end)

    it("fails when the peer goes", function() -- row: sendfile.peer_close, sendfile.position
      with_transport(new_loop, function(loop, transport, protocol, peer)
        local file = big_file()
        local task = hanging(loop, function() return loop:sendfile(transport, file) end)
        peer:setsockopt(S.SOL_SOCKET, S.SO_LINGER, string.pack("ii", 1, 0))
        peer:close()
        raises(aloop.ConnectionError, nil, task.await, task)
        assert.is_true(file:seek() > 0)
        protocol:wait_lost()
        file:close()
      end)
    end)

    it("fails when the transport is closed or aborted", function() -- row: sendfile.peer_close
      for _, how in ipairs { "close", "abort" } do
        for _, unsent in ipairs { 0, 10000000 } do
          with_transport(new_loop, function(loop, transport, protocol, peer)
            local file = big_file()
            if unsent > 0 then transport:write(("x"):rep(unsent)) end
            local task = hanging(loop, function() return loop:sendfile(transport, file) end)
            transport[how](transport)
            raises(aloop.ConnectionError, "Connection is closed by peer", task.await, task)
            assert.equal(unsent == 0, file:seek() > 0)
            if unsent > 0 and how == "close" then assert.equal(unsent, #helper.recv_all(loop, peer)) end
            assert.is_nil(protocol:wait_lost())
            file:close()
          end)
        end
      end
    end)

    it("may be cancelled, while it sends and while it waits for its turn", function() -- row: sendfile.position
      for _, unsent in ipairs { 0, 10000000 } do
        with_transport(new_loop, function(loop, transport, _, peer)
          local file = big_file()
          if unsent > 0 then transport:write(("x"):rep(unsent)) end
          local task = hanging(loop, function() return loop:sendfile(transport, file) end)
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
          local sent = file:seek()
          assert.equal(unsent == 0, sent > 0)
          assert.is_true(transport:is_reading())
          transport:write("after")
          transport:write_eof()
          assert.is_true(helper.recv_all(loop, peer) == ("x"):rep(unsent) .. DATA:sub(1, sent) .. "after")
          file:close()
        end)
      end
    end)

    it("falls back to reading what the kernel can't send", function() -- row: sendfile.fallback, sendfile.not_available
      with_transport(new_loop, function(loop, transport, protocol, peer)
        local function pipe() return io.popen("head -c 1000000 /dev/zero | tr '\\0' x") end
        local file <close> = pipe()
        raises(aloop.SendfileNotAvailableError, "fallback is disabled", loop.sendfile, loop, transport, file, 0, nil,
          { fallback = false })
        transport:write("before")
        local task = loop:create_task(function() return loop:sendfile(transport, file) end)
        aloop.sleep(0)
        raises(aloop.RuntimeError, "sendfile is in progress", transport.write, transport, "x")
        assert.is_false(transport:is_reading())
        local got = reading(loop, peer, 1000006 + 5)
        assert.equal(1000000, task:await())
        assert.is_true(transport:is_reading())
        transport:write("after")
        assert.is_true(got:await() == "before" .. ("x"):rep(1000000) .. "after")

        local text = ("y"):rep(20000)
        local object = { read = function(_, n) return text:sub(1, n) end }
        assert.equal(17000, loop:sendfile(transport, object, 0, 17000)) -- bug: 28
        assert.equal(17000, #helper.recv_exactly(loop, peer, 17000))

        -- cancelled, and closed, in the midst
        local endless <close> = io.popen("cat /dev/zero")
        task = hanging(loop, function() return loop:sendfile(transport, endless) end)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        task = hanging(loop, function() return loop:sendfile(transport, endless) end)
        transport:close()
        raises(aloop.ConnectionError, "Connection is closed by peer", task.await, task)
        helper.recv_all(loop, peer)
        protocol:wait_lost()
      end)
    end)

    it("counts what the transport has taken when the fallback is cancelled", function() -- row: sendfile.position
      with_transport(new_loop, function(loop, transport, _, peer)
        local position = 0
        local object = {
          read = function(_, n)
            position = position + n
            return DATA:sub(position - n + 1, position)
          end,
          seek = function(_, _, to)
            position = to
            return to
          end,
        }
        local task = hanging(loop, function() return loop:sendfile(transport, object) end)
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        transport:write_eof()
        assert.equal(position, #helper.recv_all(loop, peer))
      end)
    end)

    it("is ended by the end of the loop", function()
      helper.drive(new_loop, function(loop)
        loop:set_exception_handler(function() end)
        local file = big_file()
        local transport, _, sock
        loop:create_task(function()
          transport, _, sock = helper.over_socketpair(loop)
          loop:sendfile(transport, file)
        end)
        local a, b = S.socketpair()
        loop:create_task(function() loop:sock_sendfile(a, file) end)
        helper.turn(loop, 30)
        assert.is_truthy(sock)
        loop:close()
        sock:close()
        a:close()
        b:close()
        file:close()
      end)
    end)
  end)
end)
