-- open_connection, start_server and the Unix pair; what becomes of the callback's task.
-- row: open_connection, start_server, open_unix_connection, start_unix_server
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local function echo(reader, writer)
  for line in reader:lines() do
    writer:write(line)
    writer:drain()
  end
  writer:close()
end

helper.each_loop(function(_, new_loop)
  local function port_of(server) return helper.address_of(server).port end

  -- Runs body(reader, writer, loop, trial) as a client of a server with this callback.
  local function with_server(callback, body, options)
    helper.with_loop(new_loop, function(loop, trial)
      local server = aloop.start_server(callback, "127.0.0.1", 0, options)
      local reader, writer = aloop.open_connection("127.0.0.1", port_of(server))
      body(reader, writer, loop, trial)
      writer:close()
      pcall(writer.wait_closed, writer)
      server:close()
      server:wait_closed()
    end)
  end

  describe("open_connection and start_server", function()
    it("make readers and writers", function()
      with_server(echo, function(reader, writer, loop)
        assert.is_true(aloop.isinstance(reader, aloop.StreamReader))
        assert.is_true(aloop.isinstance(writer, aloop.StreamWriter))
        assert.equal(loop, aloop.get_running_loop())
        for i = 1, 20 do
          local line = ("line %d "):format(i):rep(i) .. "\n"
          writer:write(line)
          writer:drain()
          assert.equal(line, reader:readline())
        end
        writer:write("unfinished")
        writer:write_eof()
        assert.equal("unfinished", reader:read())
      end)
    end)

    it("give large pieces that stay what they are while others come", function()
      local parts = {}
      for i = 1, 80 do parts[i] = string.pack("<I4", i):rep(i % 7 == 0 and 30 or 7000 + i * 1000) end
      local data = table.concat(parts)
      local function send(_, writer)
        writer:write(data)
        writer:drain()
        writer:close()
      end
      with_server(send, function(reader)
        local pieces, others = {}, {}
        for piece in function() return reader:read(#pieces % 5 == 0 and 1000 or 500000) end do
          pieces[#pieces + 1] = piece
          others[#pieces] = ("-"):rep(#piece) -- as large as what may be reused
        end
        assert.is_true(table.concat(pieces) == data)
        assert.is_nil(table.concat(others):find "[^-]")
      end)
    end)

    it("work over Unix sockets", function()
      local path, remove = helper.temporary_directory()
      path = path .. "/s"
      helper.with_loop(new_loop, function()
        local server = aloop.start_unix_server(echo, path)
        local reader, writer = aloop.open_unix_connection(path)
        writer:write("over Unix\n")
        assert.equal("over Unix\n", reader:readline())
        writer:close()
        writer:wait_closed()
        server:close()
        server:wait_closed()
      end)
      remove()
    end)

    it("take sockets instead of names", function()
      helper.with_loop(new_loop, function()
        local a, b = aloop.socket.socketpair()
        local reader, writer = aloop.open_connection(nil, nil, { sock = a })
        local other_reader, other_writer = aloop.open_unix_connection(nil, { sock = b })
        writer:write("to b\n")
        other_writer:write("to a\n")
        assert.equal("to a\n", reader:readline())
        assert.equal("to b\n", other_reader:readline())
        writer:close()
        assert.is_nil(other_reader:readline())
        other_writer:close()
      end)
    end)

    it("hand the limit to the reader", function()
      with_server(function(reader, writer)
        helper.raises(aloop.ValueError, "chunk exceed the limit", reader.readline, reader)
        writer:write("refused\n")
        writer:close()
      end, function(reader, writer)
        writer:write(("x"):rep(11))
        assert.equal("refused\n", reader:readline())
        assert.falsy(tostring(reader):find("limit", 1, true))
      end, { limit = 10 })
      helper.with_loop(new_loop, function()
        local a, b = aloop.socket.socketpair()
        local reader, writer = aloop.open_connection(nil, nil, { sock = a, limit = 7 })
        assert.truthy(tostring(reader):find("limit=7", 1, true))
        writer:close()
        b:close()
      end)
    end)

    it("carry much through pauses on both sides", function()
      with_server(function(reader, writer)
        while true do
          local data = reader:read(10000)
          if not data then break end
          writer:write(data)
          writer:drain()
        end
        writer:close()
      end, function(reader, writer, loop)
        local block = ("0123456789"):rep(10000)
        local sending = loop:create_task(function()
          for _ = 1, 50 do
            writer:write(block)
            writer:drain()
          end
          writer:write_eof()
        end)
        for _ = 1, 25 do aloop.sleep(0) end
        local n = 0
        while true do
          local data = reader:read(65536)
          if not data then break end
          for i = 1, #data, 997 do assert.equal((n + i - 1) % 10, data:byte(i) - 48) end
          n = n + #data
        end
        assert.equal(50 * #block, n)
        sending:await()
      end, { limit = 1000 })
    end)

    it("serve many at once", function()
      helper.with_loop(new_loop, function(loop)
        local server = aloop.start_server(echo, "127.0.0.1", 0)
        local tasks = {}
        for i = 1, 50 do
          tasks[i] = loop:create_task(function()
            local reader, writer <close> = aloop.open_connection("127.0.0.1", port_of(server))
            for j = 1, 5 do
              local line = i .. " " .. j .. "\n"
              writer:write(line)
              assert.equal(line, reader:readline())
            end
            return i
          end)
        end
        for i = 1, 50 do assert.equal(i, tasks[i]:await()) end
        server:close()
        server:wait_closed()
      end)
    end)

    it("raise what connecting raises", function()
      helper.with_loop(new_loop, function(loop)
        local address = helper.vacant_address()
        helper.raises(aloop.ConnectionRefusedError, nil, aloop.open_connection, address[1], address[2])
        helper.raises(aloop.FileNotFoundError, nil, aloop.open_unix_connection, "/no/such/socket")
        local task = loop:create_task(function() aloop.open_connection("127.0.0.1", 9) end)
        task:cancel()
        helper.raises(aloop.CancelledError, nil, task.await, task)
      end)
    end)

    it("refuse bad arguments", function()
      helper.with_loop(new_loop, function()
        helper.type_error("bad argument #1 to 'open_connection' (string expected, got table)",
          aloop.open_connection, {})
        helper.type_error("bad argument #1 to 'open_unix_connection' (string expected, got number)",
          aloop.open_unix_connection, 7)
        helper.type_error("bad argument #1 to 'start_server' (function expected, got nil)", aloop.start_server)
        helper.type_error("bad argument #1 to 'start_unix_server' (function expected, got string)",
          aloop.start_unix_server, "x")
        helper.type_error("unknown option 'path' to 'open_connection'", aloop.open_connection, "x", 1, { path = 1 })
        helper.type_error("unknown option 'limt' to 'start_server'", aloop.start_server, print, nil, 0, { limt = 1 })
        helper.type_error("bad option 'limit' to 'open_connection' (number expected, got string)",
          aloop.open_connection, "127.0.0.1", 1, { limit = "1" })
        helper.type_error("bad option 'limit' to 'start_unix_server' (integer expected, got float)",
          aloop.start_unix_server, print, "p", { limit = 1.5 })
        helper.type_error("bad argument #2 to 'open_connection' (integer or string expected, got table)",
          aloop.open_connection, "127.0.0.1", {})
        helper.type_error("bad option 'sock' to 'open_unix_connection' (socket expected, got string)",
          aloop.open_unix_connection, nil, { sock = "x" })
        helper.type_error("bad argument #3 to 'start_server' (integer or string expected, got table)",
          aloop.start_server, print, nil, {})
        helper.type_error("bad option 'backlog' to 'start_unix_server' (integer expected, got string)",
          aloop.start_unix_server, print, "p", { backlog = "x" })
        helper.raises(aloop.ValueError, "Limit cannot be <= 0", aloop.start_server, print, "127.0.0.1", 0,
          { limit = 0 })
        helper.raises(aloop.ValueError, "Limit cannot be <= 0", aloop.open_connection, "127.0.0.1", 1, { limit = -5 })
        local a, b = aloop.socket.socketpair()
        helper.raises(aloop.ValueError, "host/port and sock can not be specified", aloop.open_connection, "x", 1,
          { sock = a })
        a:close()
        b:close()
      end)
    end)
  end)

  describe("a server's callback", function()
    it("runs as a task of its own, in the context of the server", function()
      local var = aloop.ContextVar("var", { default = "none" })
      local seen
      helper.with_loop(new_loop, function()
        local token <close> = var:set("server's") -- luacheck: ignore 211
        local server = aloop.start_server(function(_, writer)
          seen = { aloop.current_task(), var:get() }
          var:set("callback's")
          writer:close()
        end, "127.0.0.1", 0)
        var:set("later")
        for _ = 1, 2 do
          local reader, writer = aloop.open_connection("127.0.0.1", port_of(server))
          assert.is_nil(reader:read(1))
          writer:close()
          assert.equal("server's", seen[2])
          assert.not_equal(aloop.current_task(), seen[1])
          assert.is_true(aloop.isinstance(seen[1], aloop.Task))
        end
        server:close()
        server:wait_closed()
      end)
    end)

    for name, value in pairs { ["a string"] = "boom", ["an object"] = aloop.ValueError("boom"), ["a table"] = {} } do
      it("has its error reported and its connection closed: " .. name, function()
        with_server(function()
          aloop.sleep(0)
          error(value, 0)
        end, function(reader, _, _, trial)
          assert.is_nil(reader:read(1))
          local context = trial:take_error()
          assert.equal("Unhandled exception in client_connected_cb", context.message)
          assert.equal(value, context.exception)
          assert.is_true(aloop.isinstance(context.transport, aloop.Transport))
          local trace = aloop.isinstance(value, aloop.Error) and value.traceback or context.traceback
          assert.truthy(trace:find("streams_spec.lua", 1, true))
        end)
      end)
    end

    it("closes its connection when it is cancelled", function()
      local task
      with_server(function(reader)
        task = aloop.current_task()
        reader:read()
      end, function(reader, _, _, trial)
        trial:wait_until(function() return task end)
        task:cancel("enough")
        helper.raises(aloop.CancelledError, "enough", task.await, task)
        assert.is_true(task:cancelled())
        assert.is_nil(reader:read(1))
      end)
    end)

    it("closes its connection when it is cancelled before it began", function()
      helper.with_loop(new_loop, function(loop)
        local began = false
        local transport, _, sock = helper.over_socketpair(loop)
        local protocol = aloop.StreamReaderProtocol(aloop.StreamReader(), function() began = true end)
        transport:set_protocol(protocol)
        protocol:connection_made(transport)
        local task
        for _, each in ipairs(aloop.all_tasks()) do
          if each ~= aloop.current_task() then task = each end
        end
        task:cancel()
        helper.raises(aloop.CancelledError, nil, task.await, task)
        assert.is_false(began)
        assert.is_nil(helper.recv(loop, sock))
        sock:close()
      end)
    end)

    it("may return before the connection ends, which others use", function()
      local streams = {}
      with_server(function(reader, writer)
        streams[1], streams[2] = reader, writer
      end, function(reader, writer, _, trial)
        trial:wait_until(function() return streams[2] end)
        aloop.sleep(0)
        collectgarbage()
        writer:write("ping\n")
        assert.equal("ping\n", streams[1]:readline())
        streams[2]:write("pong\n")
        assert.equal("pong\n", reader:readline())
        streams[2]:close()
      end)
    end)

    it("ends the connection when it forgets it", function()
      with_server(function() end, function(reader, writer)
        writer:write("anybody?")
        aloop.sleep(0.005)
        collectgarbage()
        collectgarbage()
        assert.is_nil(reader:read(1))
      end)
    end)

    it("may be an object that can be called", function()
      local object = setmetatable({}, { __call = function(_, _, writer)
        writer:write("called")
        writer:close()
      end })
      with_server(object, function(reader) assert.equal("called", reader:read()) end)
    end)

    it("runs as a task of the loop's factory", function()
      helper.with_loop(new_loop, function(loop, trial)
        local made = {}
        loop:set_task_factory(function(of, coro, options)
          options.loop = of
          made[#made + 1] = aloop.Task(coro, options)
          return made[#made]
        end)
        local server = aloop.start_server(function(reader, writer)
          writer:write(reader:readline())
          error("after the line")
        end, "127.0.0.1", 0)
        local reader, writer = aloop.open_connection("127.0.0.1", port_of(server))
        writer:write("line\n")
        assert.equal("line\n", reader:read())
        assert.equal(1, #made)
        assert.truthy(tostring(trial:take_error().exception):find("after the line", 1, true))
        writer:close()
        server:close()
        server:wait_closed()
      end)
    end)

    it("is reported when its task can't be made", function()
      helper.with_loop(new_loop, function(loop, trial)
        local server = aloop.start_server(echo, "127.0.0.1", 0)
        loop:set_task_factory(function() error("no task") end)
        local reader, writer = aloop.open_connection("127.0.0.1", port_of(server))
        assert.is_nil(reader:read(1))
        assert.truthy(tostring(trial:take_error().exception):find("no task", 1, true))
        writer:close()
        server:close()
        server:wait_closed()
      end)
    end)

    it("ends the loop with an interrupt", function()
      helper.drive(new_loop, function(loop)
        local server, port = nil, nil
        loop:run_until_complete(function()
          server = aloop.start_server(function() error(aloop.SystemExit(3)) end, "127.0.0.1", 0)
          port = port_of(server)
        end)
        local e = helper.raises(aloop.SystemExit, nil, loop.run_until_complete, loop, function()
          local _, writer <close> = aloop.open_connection("127.0.0.1", port) -- luacheck: ignore 211
          aloop.sleep(10)
        end)
        assert.equal(3, e.code)
        for _, task in ipairs(aloop.all_tasks(loop)) do task:cancel() end
        loop:run_until_complete(function() server:close() end)
      end)
    end)

    it("sees the end of the connection as an error", function()
      local result
      helper.with_loop(new_loop, function(loop, trial)
        local server = aloop.start_server(function(reader, writer)
          result = table.pack(pcall(reader.readexactly, reader, 100))
          result.closed = table.pack(pcall(writer.wait_closed, writer))
        end, "127.0.0.1", 0)
        local sock = helper.connect(loop, helper.address_of(server))
        helper.send_all(loop, sock, "some")
        aloop.sleep(0.002)
        helper.reset(sock)
        trial:wait_until(function() return result and result.closed end)
        assert.is_true(aloop.isinstance(result[2], aloop.ConnectionResetError))
        assert.is_true(aloop.isinstance(result.closed[2], aloop.ConnectionResetError))
        server:close()
        server:wait_closed()
      end)
    end)
  end)

  describe("StreamReaderProtocol", function()
    it("makes streams of any transport", function()
      helper.with_loop(new_loop, function(loop)
        local reader = aloop.StreamReader()
        local a, b = aloop.socket.socketpair()
        local transport, protocol = loop:create_connection(function() return aloop.StreamReaderProtocol(reader) end,
          nil, nil, { sock = a })
        assert.equal("<StreamReaderProtocol connected>", tostring(protocol))
        b:send("a line\nand more")
        assert.equal("a line\n", reader:readline())
        b:close()
        assert.equal("and more", reader:read())
        transport:close()
        aloop.sleep(0)
        aloop.sleep(0)
        assert.equal("<StreamReaderProtocol lost>", tostring(protocol))
      end)
    end)

    it("makes streams of pipes", function()
      helper.with_loop(new_loop, function(loop)
        local reader = aloop.StreamReader()
        local r, w = aloop.pipe()
        local transport = loop:connect_read_pipe(function() return aloop.StreamReaderProtocol(reader) end, r)
        local out, protocol = loop:connect_write_pipe(function() return aloop.StreamReaderProtocol(nil) end, w)
        local writer = aloop.StreamWriter(out, protocol)
        local sending = loop:create_task(function()
          for i = 1, 5000 do
            writer:write(("line %d\n"):format(i):rep(10))
            writer:drain()
          end
          writer:close()
          writer:wait_closed()
        end)
        local n = 0
        for _ in reader:lines() do n = n + 1 end
        assert.equal(50000, n)
        sending:await()
        transport:close()
      end)
    end)

    it("calls a callback as start_server does", function()
      helper.with_loop(new_loop, function(loop)
        local _, _, b = helper.over_socketpair(loop, aloop.StreamReaderProtocol(aloop.StreamReader(), echo))
        b:send("hello\n")
        assert.equal("hello\n", helper.recv_exactly(loop, b, 6))
        b:shutdown(aloop.socket.SHUT_WR)
        assert.is_nil(helper.recv(loop, b))
        b:close()
      end)
    end)

    it("serves one connection only", function()
      helper.with_loop(new_loop, function(loop, trial)
        local protocol = aloop.StreamReaderProtocol(aloop.StreamReader())
        local first, _, b = helper.over_socketpair(loop, protocol)
        local second, _, d = helper.over_socketpair(loop, protocol)
        trial:take_log("serves one connection only")
        assert.is_true(second:is_closing())
        assert.is_false(first:is_closing())
        assert.is_nil(helper.recv(loop, d))
        first:close()
        b:close()
        d:close()
      end)
    end)

    it("takes the place of a protocol in Lua", function()
      helper.with_loop(new_loop, function(loop)
        local transport, recorder, sock = helper.over_socketpair(loop)
        sock:send("to Lua")
        assert.equal("to Lua", recorder:wait_data(6))
        local reader = aloop.StreamReader()
        transport:set_protocol(aloop.StreamReaderProtocol(reader))
        sock:send("to the reader")
        assert.equal("to the reader", reader:readexactly(13))
        transport:close()
        assert.is_nil(reader:read(1))
        sock:close()
      end)
    end)

    it("may be told by a transport in Lua", function()
      helper.with_loop(new_loop, function(loop)
        local reader = aloop.StreamReader()
        local protocol = aloop.StreamReaderProtocol(reader)
        protocol:data_received("some")
        assert.is_true(protocol:eof_received())
        assert.equal("some", reader:read())
        local transport, _, sock = helper.over_socketpair(loop)
        protocol = aloop.StreamReaderProtocol(reader)
        protocol:connection_made(transport)
        protocol:connection_lost(nil)
        assert.is_nil(reader:exception())
        helper.type_error("Transport expected", protocol.connection_made, protocol, {})
        helper.type_error("StreamReaderProtocol expected", protocol.data_received, {}, "x")
        transport:close()
        sock:close()
      end)
    end)
  end)

  it("streams leave nothing when the loop is closed in the middle", function()
    helper.drive(new_loop, function(loop)
      local reader, writer
      loop:run_until_complete(function()
        local server = aloop.start_server(function(r) r:read() end, "127.0.0.1", 0)
        reader, writer = aloop.open_connection("127.0.0.1", port_of(server))
        loop:create_task(function() reader:readline() end)
        loop:create_task(function() writer:wait_closed() end)
        aloop.sleep(0.001)
      end)
      loop:set_exception_handler(function() end)
      loop:close()
      reader:feed_data("late\n")
      reader:feed_eof()
      assert.truthy(tostring(reader):find("5 bytes eof", 1, true))
      writer:close()
    end, { open = true })
  end)
end)
