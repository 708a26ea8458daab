-- connect_read_pipe and connect_write_pipe: transports over pipes, FIFOs, sockets and terminals.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local programs = require "spec.support.programs"
local raises, type_error = helper.raises, helper.type_error

local S = aloop.socket

local fds = programs.module "fds"

local function reader(loop, pipe, options)
  local transport, protocol = loop:connect_read_pipe(function() return helper.Recorder(loop, options) end, pipe)
  return transport, protocol
end

local function writer(loop, pipe)
  local transport, protocol = loop:connect_write_pipe(function() return helper.Recorder(loop) end, pipe)
  return transport, protocol
end

-- Reads n bytes of a non-blocking pipe end.
local function read_all(pipe, n)
  local parts = {}
  while n > 0 do
    local ok, data = pcall(pipe.read, pipe, n)
    if not ok then
      assert(aloop.isinstance(data, aloop.BlockingIOError), data)
      aloop.sleep(0.001)
    elseif not data then
      break
    else
      parts[#parts + 1] = data
      n = n - #data
    end
  end
  return table.concat(parts)
end

helper.each_loop(function(kind, new_loop)
  describe("connect_read_pipe", function()
    -- row: connect_read_pipe, connect_read_pipe.protocol_factory, connect_read_pipe.eof, pipes.owner
    it("gives a transport whose protocol gets what is written, then the end", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local fd = r:fileno()
        local transport, protocol = reader(loop, r, { keep_open = true })
        assert.is_true(aloop.isinstance(transport, aloop.ReadTransport))
        assert.is_false(aloop.isinstance(transport, aloop.WriteTransport))
        assert.same({ "made" }, protocol.events)
        assert.is_true(rawequal(r, transport:get_extra_info("pipe")))
        assert.equal(("<ReadTransport fd=%d polling>"):format(fd), tostring(transport))
        assert.is_nil(transport:get_extra_info("peername"))
        assert.equal("none", transport:get_extra_info("socket", "none"))
        assert.is_true(transport:is_reading())
        assert.equal(fd, r:fileno())
        raises(aloop.RuntimeError, "belongs to a transport", r.read, r, 1)
        w:write("hello")
        assert.equal("hello", protocol:wait_data(5))
        w:close()
        assert.is_nil(protocol:wait_lost())
        assert.same({ "made", "data", "eof", "lost" }, protocol.events)
        aloop.sleep(0)
        assert.equal(-1, r:fileno())
        assert.equal(("<ReadTransport closed fd=%d>"):format(fd), tostring(transport))
        assert.is_nil(fds.blocks(fd))
        r:close()
      end)
    end)

    it("outlives an error of data_received, and ends without one after eof_received's", function()
      helper.with_loop(new_loop, function(loop, trial)
        local r, w = aloop.pipe()
        local got, lost = {}, loop:create_future()
        local protocol = {
          data_received = function(_, data)
            got[#got + 1] = data
            error("taking " .. data .. " fails", 0)
          end,
          eof_received = function() error("the end fails", 0) end,
          connection_lost = function(_, e) lost:set_result(e) end,
        }
        local transport = loop:connect_read_pipe(function() return protocol end, r)
        local function reported(what, method)
          local context = trial:take_error()
          assert.equal(what, context.exception)
          assert.equal("Exception in callback protocol." .. method .. "()", context.message)
          assert.same({ transport, protocol }, { context.transport, context.protocol })
        end
        for i, data in ipairs { "a", "b" } do
          w:write(data)
          trial:wait_until(function() return #got == i end)
          reported(("taking %s fails"):format(data), "data_received")
          assert.is_false(transport:is_closing())
        end
        w:close()
        assert.is_nil(lost:await())
        reported("the end fails", "eof_received")
      end)
    end)

    it("pauses and resumes reading, and closes", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local transport, protocol = reader(loop, r)
        transport:pause_reading()
        assert.is_false(transport:is_reading())
        w:write("kept")
        aloop.sleep(0.01)
        assert.equal("", protocol:text())
        transport:resume_reading()
        assert.equal("kept", protocol:wait_data(4))
        transport:close()
        transport:close()
        assert.is_true(transport:is_closing())
        assert.is_nil(protocol:wait_lost())
        aloop.sleep(0)
        raises(aloop.BrokenPipeError, nil, w.write, w, "x")
        w:close()
      end)
    end)

    it("reads much, with a buffered protocol as well", function()
      helper.with_loop(new_loop, function(loop)
        for _, buffered in ipairs { false, true } do
          local r, w = aloop.pipe()
          local data = ("0123456789abcdef"):rep(40000)
          local got, lost = {}, loop:create_future()
          local buffer = aloop.buffer(1000)
          local protocol = { connection_lost = function(_, err) lost:set_result(err) end }
          if buffered then
            function protocol.get_buffer() return buffer end
            function protocol.buffer_updated(_, n) got[#got + 1] = buffer:sub(1, n) end
          else
            function protocol.data_received(_, piece) got[#got + 1] = piece end
          end
          loop:connect_read_pipe(function() return protocol end, r)
          local out = writer(loop, w)
          out:write(data)
          out:close()
          assert.is_nil(lost:await())
          assert.is_true(table.concat(got) == data)
        end
      end)
    end)

    -- row: connect_read_pipe.pipe, connect_read_pipe.nonblocking
    it("takes descriptors, Lua files and sockets, and makes them non-blocking", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = fds.pipe()
        local transport, protocol = reader(loop, r)
        assert.is_false(fds.blocks(r))
        assert.equal(r, transport:get_extra_info("pipe"))
        local out, sent = writer(loop, w)
        assert.is_false(fds.blocks(w))
        out:write("by number")
        out:close()
        sent:wait_lost()
        protocol:wait_lost()
        assert.equal("by number", protocol:text())

        local file = io.popen("echo from a file; exit 3", "r")
        protocol = select(2, reader(loop, file))
        protocol:wait_lost()
        assert.equal("from a file\n", protocol:text())
        assert.equal("closed file", io.type(file))

        local a, b = S.socketpair()
        transport, protocol = reader(loop, a)
        assert.is_true(rawequal(a, transport:get_extra_info("pipe")))
        b:send("from a socket")
        assert.equal("from a socket", protocol:wait_data(13))
        b:close()
        protocol:wait_lost()
        assert.equal(-1, a:fileno())
      end)
    end)

    it("takes FIFOs", function() -- row: connect_read_pipe.pipe
      helper.with_loop(new_loop, function(loop)
        local directory, remove = helper.temporary_directory()
        local path = directory .. "/fifo"
        assert(os.execute("mkfifo " .. helper.quote(path)))
        local file = io.open(path, "r+") -- so that opening doesn't wait
        local out = io.open(path, "w")
        local _, protocol = reader(loop, file)
        out:write("through a fifo")
        out:flush()
        assert.equal("through a fifo", protocol:wait_data(14))
        protocol.transport:close()
        protocol:wait_lost()
        out:close()
        remove()
      end)
    end)

    it("refuses files, what is no pipe, and pipes in use", function() -- row: connect_read_pipe.pipe
      helper.with_loop(new_loop, function(loop)
        local function nop() end
        for _, name in ipairs { "connect_read_pipe", "connect_write_pipe" } do
          local connect = loop[name]
          local file <close> = io.open("/etc/passwd", "r")
          raises(aloop.ValueError, "only for pipes, sockets and character devices", connect, loop, nop, file)
          assert.equal("file", io.type(file))
          type_error("bad argument #1 to '" .. name .. "'", connect, loop, 1, 0)
          type_error("bad argument #2 to '" .. name .. "' (pipe expected, got n", connect, loop, nop, nil)
          type_error("bad argument #2 to '" .. name .. "' (pipe expected", connect, loop, nop, {})
          raises(aloop.OSError, nil, connect, loop, nop, 1000000)
          local r, w = aloop.pipe()
          r:close()
          raises(aloop.OSError, nil, connect, loop, nop, r)
          w:close()
        end
        local r, w = aloop.pipe()
        local transport, protocol = reader(loop, r)
        raises(aloop.RuntimeError, "is used by", loop.connect_read_pipe, loop, nop, r)
        raises(aloop.RuntimeError, "is used by transport", loop.connect_read_pipe, loop, nop, r:fileno())
        raises(aloop.RuntimeError, "is used by transport", loop.add_reader, loop, r, nop)
        transport:close()
        protocol:wait_lost()
        w:close()
      end)
    end)

    -- As in asyncio, except that there the protocol is not told, and waits for ever.
    it("of a device that is always ready ends at once; epoll can't watch it", function()
      helper.with_loop(new_loop, function(loop)
        local _, protocol = reader(loop, io.open("/dev/null"))
        local e = protocol:wait_lost()
        if kind == "epoll" then
          assert.is_true(aloop.isinstance(e, aloop.PermissionError))
        else
          assert.is_nil(e)
          assert.same({ "made", "eof", "lost" }, protocol.events)
        end
      end)
    end)

    it("leaves the pipe alone when the factory fails", function() -- bug: 15
      helper.with_loop(new_loop, function(loop)
        local function fails() error("no protocol", 0) end
        local r, w = aloop.pipe()
        assert.has_error(function() loop:connect_read_pipe(fails, r) end, "no protocol")
        assert.has_error(function() loop:connect_write_pipe(fails, w) end, "no protocol")
        w:write("x")
        assert.equal("x", r:read(1))
        r:close()
        w:close()
        local file = io.popen("echo x")
        assert.has_error(function() loop:connect_read_pipe(fails, file) end, "no protocol")
        collectgarbage()
        assert.equal("file", io.type(file))
        assert.equal("x", file:read("l"))
        file:close()
      end)
    end)

    it("closes the pipe when it is cancelled", function()
      helper.with_loop(new_loop, function(loop)
        for _, connect in ipairs { reader, writer } do
          local r, w = aloop.pipe()
          local pipe = connect == reader and r or w
          local task = loop:create_task(function() connect(loop, pipe) end)
          aloop.sleep(0)
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
          aloop.sleep(0.01)
          assert.equal(-1, pipe:fileno())
          r:close()
          w:close()
        end
      end)
    end)
  end)

  describe("connect_write_pipe", function()
    -- row: connect_write_pipe, connect_write_pipe.protocol_factory, connect_write_pipe.pipe, pipes.owner
    it("gives a transport that writes", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local lost = loop:create_future()
        local transport = loop:connect_write_pipe(function()
          return {
            connection_made = function() end,
            connection_lost = function(_, err) lost:set_result(err) end,
          }
        end, w)
        assert.is_true(aloop.isinstance(transport, aloop.WriteTransport))
        assert.is_false(aloop.isinstance(transport, aloop.ReadTransport))
        assert.is_true(rawequal(w, transport:get_extra_info("pipe")))
        assert.matches("^<WriteTransport fd=%d+ idle, bufsize=0>$", tostring(transport))
        assert.is_true(transport:can_write_eof())
        transport:write("")
        transport:write("hello ")
        transport:writelines { "wor", "ld" }
        assert.equal("hello world", r:read(100))
        local buffer = aloop.buffer(3)
        buffer:set(1, "abc")
        transport:write(buffer, 2)
        assert.equal("bc", r:read(100))
        transport:close()
        transport:close()
        assert.is_nil(lost:await())
        aloop.sleep(0)
        assert.is_nil(r:read(1))
        assert.equal(-1, w:fileno())
        r:close()
      end)
    end)

    it("flushes what was written before it closes", function() -- bug: 12
      helper.with_loop(new_loop, function(loop)
        for _, how in ipairs { "close", "write_eof" } do
          local r, w = aloop.pipe()
          local transport, protocol = writer(loop, w)
          local data = ("0123456789abcdef"):rep(20000)
          transport:write(data)
          assert.is_true(transport:get_write_buffer_size() > 0)
          transport[how](transport)
          assert.is_true(transport:is_closing())
          transport:write("dropped")
          assert.is_true(read_all(r, #data + 100) == data)
          assert.is_nil(protocol:wait_lost())
          transport:write("dropped")
          r:close()
        end
      end)
    end)

    it("drops what is unsent when it is aborted", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local transport, protocol = writer(loop, w)
        transport:write(("x"):rep(200000))
        transport:abort()
        assert.equal(0, transport:get_write_buffer_size())
        assert.is_nil(protocol:wait_lost())
        assert.is_true(#read_all(r, 200000) < 200000)
        r:close()
      end)
    end)

    it("pauses and resumes the protocol", function()
      helper.with_loop(new_loop, function(loop)
        local r, w = aloop.pipe()
        local transport, protocol = writer(loop, w)
        transport:set_write_buffer_limits { high = 1000, low = 100 }
        assert.same({ 100, 1000 }, { transport:get_write_buffer_limits() })
        transport:write(("x"):rep(200000))
        assert.is_true(protocol.paused)
        read_all(r, 200000)
        protocol:wait_for("resume")
        assert.is_false(protocol.paused)
        transport:close()
        protocol:wait_lost()
        r:close()
      end)
    end)

    it("sees that the reader is gone", function() -- row: connect_write_pipe.peer_close; point: 27
      helper.with_loop(new_loop, function(loop)
        for _, make in ipairs { aloop.pipe, S.socketpair } do
          local r, w = make()
          local _, protocol = writer(loop, w)
          r:close()
          assert.is_nil(protocol:wait_lost())
          assert.same({ "made", "lost" }, protocol.events)

          local transport
          r, w = make()
          transport, protocol = writer(loop, w)
          transport:write(("x"):rep(3000000))
          assert.is_true(transport:get_write_buffer_size() > 0)
          r:close()
          assert.is_true(aloop.isinstance(protocol:wait_lost(), aloop.BrokenPipeError))
          assert.same({ "made", "pause", "lost" }, protocol.events)
        end
      end)
    end)

    it("says so when it is written to after that", function()
      helper.with_loop(new_loop, function(loop, trial)
        local r, w = aloop.pipe()
        local transport, protocol = writer(loop, w)
        r:close()
        transport:write("x") -- fails, for the loop didn't see it yet
        assert.is_true(transport:is_closing())
        assert.is_true(aloop.isinstance(protocol:wait_lost(), aloop.BrokenPipeError))
        for _ = 1, 5 do transport:write("x") end
        trial:take_log("pipe closed by peer or os.write%(pipe, data%) raised exception")
      end)
    end)

    it("writes to files of programs and closes them", function() -- row: connect_write_pipe.nonblocking
      helper.with_loop(new_loop, function(loop)
        local path = os.tmpname()
        local file = io.popen("cat > " .. helper.quote(path), "w")
        file:write("first, ")
        local transport, protocol = writer(loop, file)
        transport:write("then this")
        transport:close()
        assert.is_nil(protocol:wait_lost())
        aloop.sleep(0)
        assert.equal("closed file", io.type(file))
        assert.equal("first, then this", helper.read_file(path))
        os.remove(path)
        local null = io.open("/dev/null", "w")
        transport, protocol = writer(loop, null)
        transport:write(("x"):rep(100000))
        transport:close()
        protocol:wait_lost()
      end)
    end)

    it("takes a socket's place: what arrives there ends it", function()
      helper.with_loop(new_loop, function(loop)
        local a, b = S.socketpair()
        local _, protocol = writer(loop, a)
        b:send("nobody reads this")
        assert.is_nil(protocol:wait_lost())
        b:close()
      end)
    end)
  end)

  describe("a terminal", function()
    it("is read and written", function() -- row: pipes.pty
      helper.with_loop(new_loop, function(loop)
        local master, slave = fds.pty()
        local input, got = reader(loop, slave)
        local output, sent = writer(loop, master)
        output:write("typed\n")
        assert.equal("typed\n", got:wait_data(6))
        input:close()
        got:wait_lost()
        output:close()
        sent:wait_lost()
      end)
    end)

    it("ends with EIO, of which nobody is told but the protocol", function() -- row: pipes.pty; point: 28
      helper.with_loop(new_loop, function(loop)
        local master, slave = fds.pty()
        local _, protocol = reader(loop, master)
        local out, sent = writer(loop, slave)
        out:write("last words")
        assert.equal("last words", protocol:wait_data(10))
        out:close()
        sent:wait_lost()
        assert.equal("EIO", protocol:wait_lost().code)
        assert.same({ "made", "data", "lost" }, protocol.events)
      end)
    end)
  end)

  it("a descriptor that stays open is set back to blocking", function() -- row: connect_read_pipe.nonblocking
    local script = [[
      local aloop = require "aloop"
      local lost = aloop.get_event_loop():create_future()
      local transport = aloop.get_event_loop():connect_read_pipe(function()
        return {
          data_received = function(_, data) io.stdout:write(data) end,
          connection_lost = function() lost:set_result() end,
        }
      end, io.stdin)
      lost:await()
      aloop.sleep(0)
      print(io.type(io.stdin))
    ]]
    local path = helper.write_file(script)
    local option = kind == "ring" and "-X proactor" or "-X selector=" .. kind
    local pipe = io.popen(("(echo piped; sleep 0.05) | (%s %s %s; grep flags /proc/self/fdinfo/0) 2>&1"):format(
      helper.quote(helper.aloop), option, path))
    local text = pipe:read("a")
    pipe:close()
    os.remove(path)
    local flags = text:match("^piped\nfile\nflags:%s*(%d+)")
    assert.is_truthy(flags, text)
    assert.equal(0, tonumber(flags, 8) & tonumber("4000", 8), text) -- O_NONBLOCK
  end)

  it("a forgotten transport is collected, told of, and closed", function()
    helper.with_loop(new_loop, function(loop, trial)
      local w = loop:create_task(function()
        local r, w = aloop.pipe()
        reader(loop, r):pause_reading()
        return w
      end):await()
      aloop.sleep(0)
      collectgarbage()
      collectgarbage()
      trial:take_log("unclosed transport")
      aloop.sleep(0.01)
      raises(aloop.BrokenPipeError, nil, w.write, w, "x")
      w:close()
    end)
  end)
end)
