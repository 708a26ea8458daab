-- add_reader, add_writer and their removal.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function nop() end

helper.each_loop(function(_, new_loop)
  -- A socket pair that is closed at the end, after all watches of it are gone.
  local function with_pair(body)
    helper.drive(new_loop, function(loop, trial)
      local a, b = aloop.socket.socketpair()
      body(loop, a, b, trial)
      loop:remove_reader(a)
      loop:remove_writer(a)
      a:close()
      b:close()
    end)
  end

  describe("add_reader", function()
    it("calls with its arguments when the descriptor is readable", function() -- row: add_reader, add_reader.args
      with_pair(function(loop, a, b)
        local got
        loop:add_reader(a, function(...)
          got = table.pack(...)
          loop:stop()
        end, 1, nil, "x", nil)
        loop:call_soon(b.send, b, "abc")
        loop:run_forever()
        assert.same({ 1, nil, "x", nil, n = 4 }, got)
        assert.equal("abc", a:recv(100))
      end)
    end)

    it("calls in each turn as long as there is something to read", function() -- row: add_reader.level
      with_pair(function(loop, a, b)
        local n = 0
        b:send("xyz")
        loop:add_reader(a, function()
          n = n + 1
          if n < 5 then return end
          a:recv(100)
          loop:call_later(0.02, loop.stop, loop) -- in which it is called no more
        end)
        loop:run_forever()
        assert.equal(5, n)
      end)
    end)

    it("replaces and cancels the callback of a former call", function() -- row: add_reader.replace; point: 17
      with_pair(function(loop, a, b)
        local called = {}
        b:send("x")
        loop:add_reader(a, function() called.first = true end)
        helper.turn(loop)
        called.first = nil
        loop:add_reader(a, function() called.second = true end)
        helper.turn(loop, 2)
        assert.same({ second = true }, called)
      end)
    end)

    it("takes an integer, an object with fileno, and an open file", function() -- row: add_reader.fd_forms
      with_pair(function(loop, a, b)
        local n = 0
        local function note() n = n + 1 end
        b:send("x")
        for i, fd in ipairs {
          a:fileno(), a, { fileno = function() return a:fileno() end },
          setmetatable({}, { __index = { getfd = function() return a:fileno() end } }),
        } do
          n = 0
          loop:add_reader(fd, note)
          helper.turn(loop, 3)
          assert.is_true(n > 0, "form " .. i)
          assert.is_true(loop:remove_reader(fd))
        end
        local pipe = io.popen("echo text", "r")
        local line
        loop:add_reader(pipe, function()
          line = pipe:read("l")
          loop:remove_reader(pipe)
          loop:stop()
        end)
        loop:run_forever()
        pipe:close()
        assert.equal("text", line)
      end)
    end)

    it("refuses what is no descriptor, negative ones, and closed ones", function() -- row: add_reader.invalid
      helper.drive(new_loop, function(loop)
        for _, name in ipairs { "add_reader", "add_writer" } do
          local ok, e = pcall(loop[name], loop, {}, nop)
          assert.is_false(ok)
          assert.is_true(type(e) == "string" or aloop.isinstance(e, aloop.ValueError))
          raises(aloop.ValueError, nil, loop[name], loop, -1, nop)
          local a, b = aloop.socket.socketpair()
          local fd = a:fileno()
          a:close()
          b:close()
          local err = raises(aloop.OSError, nil, loop[name], loop, fd, nop)
          assert.equal("EBADF", err.code)
          type_error("bad argument #2 to '" .. name .. "'", loop[name], loop, 0, 42)
          type_error("bad argument #2 to '" .. name .. "'", loop[name], loop, 0, coroutine.create(nop))
        end
        assert.is_false(loop:remove_reader(0))
      end)
    end)

    -- row: add_reader.transport_fd; point: 19
    it("and its kin refuse the descriptor of a live transport, until that is closing", function()
      helper.with_loop(new_loop, function(loop)
        local transport, protocol, sock = helper.over_socketpair(loop)
        local fd = transport:get_extra_info("socket"):fileno()
        for _, name in ipairs { "add_reader", "add_writer", "remove_reader", "remove_writer" } do
          raises(aloop.RuntimeError, "is used by transport", loop[name], loop, fd, nop)
        end
        transport:close()
        assert.is_false(loop:remove_reader(fd))
        protocol:wait_lost()
        sock:close()
      end)
    end)

    it("and its kin refuse the descriptor of a server, whether it serves or not, until it is closed", function()
      helper.with_loop(new_loop, function(loop)
        local server = loop:create_server(aloop.Protocol, "127.0.0.1", 0, { start_serving = false })
        local fd = server.sockets[1]:fileno()
        for _ = 1, 2 do
          for _, name in ipairs { "add_reader", "add_writer", "remove_reader", "remove_writer" } do
            raises(aloop.RuntimeError, "File descriptor " .. fd .. " is used by a server", loop[name], loop, fd, nop)
          end
          server:start_serving()
        end
        server:close()
        assert.is_false(loop:remove_reader(fd))
        server:wait_closed()
      end)
    end)

    it("returns nothing", function() -- row: add_reader.returns_nil
      with_pair(function(loop, a)
        assert.equal(0, select("#", loop:add_reader(a, nop)))
        assert.equal(0, select("#", loop:add_writer(a, nop)))
      end)
    end)

    it("keeps the context of the call", function()
      with_pair(function(loop, a, b)
        local var = aloop.ContextVar("v", { default = 0 })
        local seen
        aloop.copy_context():run(function()
          var:set(1)
          loop:add_reader(a, function()
            seen = var:get()
            loop:stop()
          end)
        end)
        b:send("x")
        loop:run_forever()
        assert.equal(1, seen)
      end)
    end)

    it("goes on after its callback failed", function()
      with_pair(function(loop, a, b, trial)
        local n = 0
        b:send("x")
        loop:add_reader(a, function()
          n = n + 1
          error("reader fails")
        end)
        helper.turn(loop, 3)
        assert.is_true(n >= 2)
        for _ = 1, n do assert.matches("reader fails", trial:take_error().exception) end
      end)
    end)
  end)

  describe("remove_reader", function()
    it("ends the calls, also one that is queued already", function() -- row: remove_reader; point: 13
      with_pair(function(loop, a, b)
        local c, d = aloop.socket.socketpair()
        local n = 0
        local function once()
          n = n + 1
          loop:remove_reader(a)
          loop:remove_reader(c)
        end
        b:send("x")
        d:send("x")
        loop:add_reader(a, once)
        loop:add_reader(c, once)
        helper.turn(loop, 3)
        assert.equal(1, n)
        c:close()
        d:close()
      end)
    end)

    it("tells whether there was one", function() -- row: remove_reader.result, remove_writer.result
      with_pair(function(loop, a)
        assert.is_false(loop:remove_reader(a))
        loop:add_reader(a, nop)
        assert.is_true(loop:remove_reader(a))
        assert.is_false(loop:remove_reader(a))
        assert.is_false(loop:remove_writer(a))
        loop:add_writer(a, nop)
        assert.is_true(loop:remove_writer(a))
        assert.is_false(loop:remove_writer(a))
      end)
    end)

    it("finds what was closed while it was watched", function()
      helper.drive(new_loop, function(loop)
        local a, b = aloop.socket.socketpair()
        local r, w = aloop.pipe()
        local file = io.popen("true")
        for _, object in ipairs { a, r, file } do
          loop:add_reader(object, nop)
          if object == a then loop:add_writer(object, nop) end
          object:close()
          assert.is_true(loop:remove_reader(object))
          raises(aloop.ValueError, nil, object == a and loop.remove_reader or loop.remove_writer, loop, object)
        end
        assert.is_true(loop:remove_writer(a))
        raises(aloop.ValueError, nil, loop.remove_writer, loop, a)
        b:close()
        w:close()
      end)
    end)

    it("may remove and add again within a turn", function()
      with_pair(function(loop, a, b)
        local n = 0
        b:send("x")
        local function reader()
          n = n + 1
          loop:remove_reader(a)
          loop:add_reader(a, reader)
        end
        loop:add_reader(a, reader)
        helper.turn(loop, 10)
        assert.is_true(n >= 9) -- in each turn; the first one may come too early
      end)
    end)
  end)

  describe("add_writer", function()
    it("calls with its arguments while the descriptor is writable", function() -- row: add_writer, remove_writer
      with_pair(function(loop, a)
        local got = {}
        loop:add_writer(a, function(x) got[#got + 1] = x end, "arg")
        helper.turn(loop, 3)
        assert.is_true(#got >= 2)
        assert.equal("arg", got[1])
        loop:remove_writer(a)
        local n = #got
        helper.turn(loop, 2)
        assert.equal(n, #got)
      end)
    end)

    it("takes a partial", function() -- row: add_writer.partial
      with_pair(function(loop, a)
        local got
        loop:add_writer(a, aloop.partial(function(x, y)
          got = x + y
          loop:stop()
        end, 40), 2)
        loop:run_forever()
        assert.equal(42, got)
      end)
    end)

    it("does not call while the buffers are full", function()
      with_pair(function(loop, a)
        while pcall(a.send, a, ("x"):rep(65536)) do nop() end
        local called = false
        loop:add_writer(a, function() called = true end)
        helper.turn(loop, 3)
        assert.is_false(called)
      end)
    end)
  end)

  it("what is watched isn't collected, and no longer kept than that", function()
    helper.drive(new_loop, function(loop)
      local a, b = aloop.socket.socketpair()
      local fd, kept, called = a:fileno(), setmetatable({ a }, { __mode = "v" }), 0
      loop:add_reader(a, function() called = called + 1 end)
      a = nil -- luacheck: ignore 311
      collectgarbage()
      collectgarbage()
      b:send("x")
      helper.turn(loop, 2)
      assert.is_true(called > 0)
      assert.is_true(loop:remove_reader(fd))
      collectgarbage()
      collectgarbage()
      assert.is_nil(kept[1])
      b:close()
    end)
  end)

  it("reader and writer of one descriptor are independent", function() -- row: fd_watch.both; point: 17
    with_pair(function(loop, a, b)
      local reads, writes = 0, 0
      b:send("x")
      loop:add_reader(a, function() reads = reads + 1 end)
      loop:add_writer(a, function() writes = writes + 1 end)
      helper.turn(loop, 3)
      assert.is_true(reads >= 2 and writes >= 2)
      loop:remove_reader(a)
      reads, writes = 0, 0
      helper.turn(loop, 3)
      assert.is_true(reads == 0 and writes >= 2)
      loop:add_reader(a, function() reads = reads + 1 end)
      loop:remove_writer(a)
      reads, writes = 0, 0
      helper.turn(loop, 3)
      assert.is_true(reads >= 2 and writes == 0)
    end)
  end)

  it("a pipe's ends can be watched, and its end of file is seen", function()
    helper.drive(new_loop, function(loop)
      local r, w = aloop.pipe()
      local got = {}
      loop:add_reader(r, function()
        local data = r:read(10)
        if data then
          got[#got + 1] = data
        else
          loop:remove_reader(r)
          loop:stop()
        end
      end)
      loop:call_soon(function()
        w:write("data")
        w:close()
      end)
      loop:run_forever()
      r:close()
      assert.same({ "data" }, got)
    end)
  end)

  it("a terminal can be watched", function() -- row: fd_watch.pty_select
    helper.drive(new_loop, function(loop)
      local tty = io.open("/dev/ptmx", "r+")
      if not tty then return end
      local called = false
      loop:add_reader(tty, function() called = true end)
      helper.turn(loop, 2)
      assert.is_true(loop:remove_reader(tty))
      tty:close()
      assert.is_false(called)
    end)
  end)
end)

it("a regular file can't be watched by epoll: PermissionError", function()
  helper.drive(helper.loop_maker("epoll"), function(loop)
    local path = helper.write_file("text")
    local file = io.open(path)
    local err = raises(aloop.PermissionError, nil, loop.add_reader, loop, file, nop)
    assert.equal("EPERM", err.code)
    file:close()
    os.remove(path)
  end)
end)

-- As in asyncio: the handle that an exception handler gets may be cancelled, which removes the watch.
it("cancelling the handle of a watch, which the exception handler gets, removes it", function()
  helper.with_loop(helper.new_loop, function(loop)
    local a, b = aloop.socket.socketpair()
    local reported
    local former = loop:get_exception_handler()
    loop:set_exception_handler(function(_, context)
      reported[#reported + 1] = context.exception
      context.handle:cancel()
    end)
    for _, direction in ipairs { "reader", "writer" } do
      reported = {}
      loop["add_" .. direction](loop, a, function() error("in the callback", 0) end)
      b:send("x")
      for _ = 1, 5 do aloop.sleep(0) end
      assert.same({ "in the callback" }, reported)
      assert.is_false(loop["remove_" .. direction](loop, a))
    end
    loop:set_exception_handler(former)
    a:close()
    b:close()
  end)
end)
