-- StreamWriter: what it hands to its transport, and its waiting.
-- row: StreamWriter, StreamWriter.drain
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  local function over(loop, a)
    local reader = aloop.StreamReader()
    local protocol = aloop.StreamReaderProtocol(reader)
    local transport = loop:create_connection(function() return protocol end, nil, nil, { sock = a })
    return reader, aloop.StreamWriter(transport, protocol, reader)
  end

  -- Runs body(reader, writer, sock, loop, trial); sock is the bare other end of a Unix socket pair.
  local function with_stream(body)
    helper.with_loop(new_loop, function(loop, trial)
      local a, b = aloop.socket.socketpair()
      local reader, writer = over(loop, a)
      body(reader, writer, b, loop, trial)
      writer:close()
      pcall(writer.wait_closed, writer)
      b:close()
    end)
  end

  -- Over TCP, where the other end can reset.
  local function with_tcp_stream(body)
    helper.with_loop(new_loop, function(loop, trial)
      local reader, writer, sock = helper.streams_over_tcp(loop)
      body(reader, writer, sock, loop, trial)
      writer:close()
    end)
  end

  local function start(loop, f, ...)
    local args = table.pack(...)
    local task = loop:create_task(function() return pcall(f, table.unpack(args, 1, args.n)) end)
    aloop.sleep(0)
    return task
  end

  -- Writes until writing is paused; returns how many bytes.
  local function stuff(writer)
    local n = helper.fill(writer.transport)
    writer:write(("x"):rep(131072))
    return n + 131072
  end

  describe("StreamWriter", function()
    it("writes strings, buffers and parts of them", function()
      with_stream(function(_, writer, sock, loop)
        writer:write("hello ")
        local buffer = aloop.buffer(5)
        buffer:set(1, "world")
        writer:write(buffer)
        writer:write("x!y", 2, 2)
        writer:writelines { "\n", "two", buffer }
        writer:drain()
        assert.equal("hello world!\ntwoworld", helper.recv_exactly(loop, sock, 21))
      end)
    end)

    it("refuses what is no data", function()
      with_stream(function(_, writer)
        helper.type_error("bad argument #1 to 'write' (string or buffer expected, got table)", writer.write, writer, {})
        helper.type_error("table expected, got string", writer.writelines, writer, "x")
        for _, method in ipairs { "write", "drain", "close", "wait_closed", "is_closing", "start_tls" } do
          helper.type_error("StreamWriter expected", writer[method], {}, "x")
          helper.type_error("StreamWriter expected", writer[method], "writer", "x")
        end
      end)
    end)

    it("has its transport and what that knows", function()
      with_stream(function(reader, writer, _, loop)
        assert.equal(reader, aloop.isinstance(writer, aloop.StreamWriter) and reader)
        local transport = writer.transport
        assert.is_true(aloop.isinstance(transport, aloop.Transport))
        assert.equal(transport:get_extra_info("socket"), writer:get_extra_info("socket"))
        assert.equal("none", writer:get_extra_info("no such thing", "none"))
        assert.is_nil(writer:get_extra_info("no such thing"))
        assert.is_true(aloop.isinstance(transport:get_protocol(), aloop.StreamReaderProtocol))
        assert.is_true(aloop.isinstance(transport:get_protocol(), aloop.Protocol))
        assert.truthy(tostring(writer):find("^<StreamWriter transport=<Transport fd=%d+.*reader=<StreamReader "))
        local other = aloop.StreamWriter(transport, transport:get_protocol())
        assert.falsy(tostring(other):find("reader", 1, true))
        other:drain()
        assert.equal(loop, aloop.get_running_loop())
      end)
    end)

    it("closes its half", function()
      with_stream(function(reader, writer, sock, loop)
        assert.is_true(writer:can_write_eof())
        writer:write("last")
        writer:write_eof()
        assert.equal("last", helper.recv_all(loop, sock))
        helper.raises(aloop.RuntimeError, "Cannot call write() after write_eof()", writer.write, writer, "more")
        sock:send("answer")
        sock:shutdown(aloop.socket.SHUT_WR)
        assert.equal("answer", reader:read())
        assert.is_false(writer:is_closing())
      end)
    end)

    it("stays open for writing when the other end has ended", function()
      with_stream(function(reader, writer, sock, loop)
        sock:shutdown(aloop.socket.SHUT_WR)
        assert.is_nil(reader:read(10))
        assert.is_true(reader:at_eof())
        writer:write("still here")
        writer:drain()
        assert.equal("still here", helper.recv_exactly(loop, sock, 10))
      end)
    end)

    it("closes, and waits until it is closed", function()
      with_stream(function(reader, writer, sock, loop)
        assert.is_false(writer:is_closing())
        writer:write("bye")
        local waiting = start(loop, writer.wait_closed, writer)
        writer:close()
        writer:close()
        assert.is_true(writer:is_closing())
        writer:wait_closed()
        writer:wait_closed()
        assert.same({ true }, { waiting:await() })
        assert.equal("bye", helper.recv_all(loop, sock))
        assert.is_nil(reader:read(1))
        assert.truthy(tostring(writer):find("transport=<Transport closed", 1, true))
      end)
    end)

    it("closes at the end of a scope", function()
      with_stream(function(_, writer, sock, loop)
        do
          local scoped <close> = writer
          scoped:write(("x"):rep(100000))
          start(loop, helper.recv_exactly, loop, sock, 100000)
        end
        assert.equal(-1, writer:get_extra_info("socket"):fileno())
      end)
    end)

    it("closes at the end of a scope where nobody can wait", function()
      with_stream(function(_, writer)
        local co = coroutine.create(function()
          local scoped <close> = writer -- luacheck: ignore 211
          coroutine.yield()
        end)
        coroutine.resume(co)
        assert.is_true(coroutine.close(co))
        assert.is_true(writer:is_closing())
      end)
    end)

    it("leaves an error that leaves the scope as it is", function()
      with_tcp_stream(function(_, writer, sock)
        local e = aloop.ValueError("mine")
        local ok, raised = pcall(function()
          local scoped <close> = writer -- luacheck: ignore 211
          helper.reset(sock)
          writer.transport:pause_reading()
          error(e)
        end)
        assert.is_false(ok)
        assert.equal(e, raised)
      end)
    end)

    it("is made of a transport, a protocol and a reader", function()
      helper.type_error("transport expected, got nil", aloop.StreamWriter)
      helper.type_error("StreamReaderProtocol expected, got table", aloop.StreamWriter, {}, {})
      helper.type_error("StreamReader expected", aloop.StreamReaderProtocol, {})
      helper.type_error("function expected", aloop.StreamReaderProtocol, nil, "callback")
      with_stream(function(_, writer)
        helper.type_error("StreamReader expected, got table", aloop.StreamWriter, writer.transport,
          writer.transport:get_protocol(), {})
      end)
    end)

    it("may have a transport written in Lua", function()
      helper.with_loop(new_loop, function(loop)
        local log, closing = {}, false
        local transport = {
          write = function(_, data) log[#log + 1] = data end,
          close = function() closing = true end,
          is_closing = function() return closing end,
          get_extra_info = function(_, name, default) return name == "mine" and 1 or default end,
        }
        local protocol = aloop.StreamReaderProtocol(nil)
        local writer = aloop.StreamWriter(transport, protocol)
        writer:write("a")
        writer:drain()
        protocol:pause_writing()
        local draining = start(loop, writer.drain, writer)
        assert.is_false(draining:done())
        protocol:resume_writing()
        assert.same({ true }, { draining:await() })
        writer:close()
        assert.is_true(writer:is_closing())
        assert.same({ 1, 2 }, { writer:get_extra_info("mine", 2), writer:get_extra_info("other", 2) })
        local lost = aloop.OSError(5, "I/O error")
        protocol:connection_lost(lost)
        helper.raises(aloop.ConnectionResetError, "Connection lost", writer.drain, writer)
        assert.equal(lost, select(2, pcall(writer.wait_closed, writer)))
        assert.same({ "a" }, log)
      end)
    end)

    it("asks the loop for TLS", function()
      with_stream(function(_, writer, _, loop)
        helper.type_error("bad argument #1 to 'start_tls' (SSLContext expected, got string)", writer.start_tls, writer,
          "context")
        local asked
        local context = aloop.ssl.SSLContext()
        loop.start_tls = function(_, ...)
          asked = table.pack(...)
          aloop.sleep(0)
          return asked[1]
        end
        writer:start_tls(context, { server_hostname = "name" })
        assert.equal(writer.transport, asked[1])
        assert.equal(writer.transport:get_protocol(), asked[2])
        assert.equal(context, asked[3])
        assert.same({ server_hostname = "name", server_side = false }, asked[4])
        helper.type_error("unknown option 'hostname' to 'start_tls'", writer.start_tls, writer, context,
          { hostname = "x" })
        writer:write("after")
        writer:drain()
      end)
    end)
  end)

  describe("StreamWriter:drain", function()
    it("waits until the buffer has run low", function()
      with_stream(function(_, writer, sock, loop)
        writer:drain()
        local n = stuff(writer)
        local tasks = {}
        for i = 1, 3 do tasks[i] = start(loop, writer.drain, writer) end
        for i = 1, 3 do assert.is_false(tasks[i]:done()) end
        helper.recv_exactly(loop, sock, n)
        for i = 1, 3 do assert.same({ true }, { tasks[i]:await() }) end
        writer:drain()
      end)
    end)

    it("keeps what is unsent within bounds, though the other end never reads", function()
      with_stream(function(_, writer, _, loop)
        local block, written = ("x"):rep(65536), 0
        local task = loop:create_task(function()
          while written < 1 << 30 do
            writer:write(block)
            written = written + #block
            writer:drain()
          end
        end)
        for _ = 1, 50 do aloop.sleep(0) end
        local before = written
        aloop.sleep(0.01)
        assert.equal(before, written)
        assert.is_true(writer.transport:get_write_buffer_size() <= 65536 + #block)
        task:cancel()
        pcall(task.await, task)
        writer.transport:abort()
      end)
    end)

    it("may be cancelled, alone among others", function()
      with_stream(function(_, writer, sock, loop)
        local n = stuff(writer)
        local tasks = {}
        for i = 1, 3 do
          tasks[i] = loop:create_task(function() writer:drain() return i end)
        end
        aloop.sleep(0)
        tasks[2]:cancel()
        helper.raises(aloop.CancelledError, nil, tasks[2].await, tasks[2])
        helper.recv_exactly(loop, sock, n)
        assert.same({ 1, 3 }, { tasks[1]:await(), (tasks[3]:await()) })
      end)
    end)

    it("raises the error of the connection, while it waits and later", function()
      with_tcp_stream(function(reader, writer, sock, loop)
        stuff(writer)
        local draining = start(loop, writer.drain, writer)
        local closed = start(loop, writer.wait_closed, writer)
        assert.is_false(draining:done())
        helper.reset(sock)
        for _, task in ipairs { draining, closed } do
          local ok, e = task:await()
          assert.is_false(ok)
          assert.is_true(aloop.isinstance(e, aloop.ConnectionError))
        end
        local e = helper.raises(aloop.ConnectionError, nil, writer.drain, writer)
        assert.equal(reader:exception(), e)
        helper.raises(aloop.ConnectionError, nil, reader.read, reader)
        helper.raises(aloop.ConnectionError, nil, writer.wait_closed, writer)
      end)
    end)

    it("returns from waiting when the connection is aborted, and raises from then on", function()
      with_stream(function(_, writer, _, loop)
        stuff(writer)
        local draining = start(loop, writer.drain, writer)
        writer.transport:abort()
        assert.same({ true }, { draining:await() })
        helper.raises(aloop.ConnectionResetError, "Connection lost", writer.drain, writer)
      end)
    end)

    it("raises the reader's exception", function()
      with_stream(function(reader, writer)
        local e = aloop.ValueError("set")
        reader:set_exception(e)
        assert.equal(e, select(2, pcall(writer.drain, writer)))
      end)
    end)

    it("takes a turn while the transport is closing", function()
      with_stream(function(_, writer, _, loop)
        writer:close()
        local turned = false
        loop:call_soon(function() turned = true end)
        local ok, e = pcall(writer.drain, writer)
        assert.is_true(turned)
        assert.is_false(ok)
        assert.is_true(aloop.isinstance(e, aloop.ConnectionResetError))
      end)
    end)

    it("takes a turn while the transport is closing, and returns if it isn't lost by then", function()
      with_stream(function(_, writer, sock, loop)
        local n = stuff(writer)
        writer:close() -- it flushes first
        writer.transport:set_write_buffer_limits({ high = 1 << 30 })
        local task = start(loop, writer.drain, writer)
        aloop.sleep(0)
        task:cancel()
        pcall(task.await, task)
        helper.recv_exactly(loop, sock, n)
      end)
    end)

    it("needs a task", function()
      helper.drive(new_loop, function(loop)
        local err
        local a, b = aloop.socket.socketpair()
        local _, writer = loop:run_until_complete(function() return over(loop, a) end)
        loop:call_soon(function() err = select(2, pcall(writer.drain, writer)) end)
        helper.turn(loop, 2)
        assert.truthy(tostring(err):find("'drain' waits, and there is no task", 1, true))
        writer:close()
        b:close()
      end)
    end)
  end)

  describe("a StreamWriter that is forgotten", function()
    local function forget(debug, body)
      helper.with_loop(new_loop, function(loop, trial)
        loop:set_debug(debug)
        local a, b = aloop.socket.socketpair()
        over(loop, a)
        aloop.sleep(0)
        collectgarbage()
        collectgarbage()
        body(loop, trial)
        assert.is_nil(helper.recv(loop, b))
        b:close()
      end)
    end

    it("closes its connection", function()
      forget(false, function() end)
    end)

    it("is warned about in debug mode", function()
      forget(true, function(_, trial)
        local message, level, category = trial:take_log("^unclosed stream over <Transport")
        assert.same({ "warning", "ResourceWarning" }, { level, category })
        assert.truthy(message:find("created at .*stream_writer_spec.lua:%d+"))
      end)
    end)
  end)
end)
