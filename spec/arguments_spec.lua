-- What is said of wrong arguments and of options: API.md, rules 2 and 11. What each function takes is in its own spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

-- The error string of f(...), called by pcall itself.
local function message_of(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(message))
  return message
end

describe("a wrong argument", function()
  local loop

  before_each(function() loop = helper.new_loop() end)
  after_each(function() loop:close() end)

  it("is numbered as Lua numbers those of methods", function()
    local message = message_of(function() loop:call_later(nil, print) end)
    assert.truthy(message:find("bad argument #1 to 'call_later' (number expected, got nil)", 1, true))
    message = message_of(function() loop:call_later(1) end)
    assert.truthy(message:find("bad argument #2 to 'call_later' (function expected, got no value)", 1, true))
  end)

  it("is told with the line of the script, also by what is written in Lua", function()
    local finished = coroutine.create(function() end)
    coroutine.resume(finished)
    local messages = {}
    loop:run_until_complete(function()
      local group <close> = aloop.TaskGroup()
      for i, call in ipairs {
        { aloop.Queue, "x" }, { aloop.BoundedSemaphore, {} }, { aloop.Runner, { x = 1 } }, { aloop.wait },
        { aloop.gather, 5 }, { aloop.as_completed, { 5 } }, { aloop.async_generator, 5 },
        { group.create_task, group, finished }, { group.create_task, group, print, { x = 1 } },
      } do
        messages[i] = message_of(function()
          call[1](table.unpack(call, 2))
          return nil
        end)
      end
    end)
    assert.equal(9, #messages)
    for _, message in ipairs(messages) do assert.matches("^spec/arguments_spec.lua:%d+: ", message) end
  end)

  it("that is NaN is told with function and argument", function()
    local nan = 0 / 0
    helper.raises(aloop.ValueError, "'call_later': delay must not be NaN", loop.call_later, loop, nan, print)
    helper.raises(aloop.ValueError, "'call_at': when must not be NaN", loop.call_at, loop, nan, print)
    local handle = loop:call_later(1, print)
    helper.raises(aloop.ValueError, "'reschedule': when must not be NaN", handle.reschedule, handle, nan)
  end)

  it("is told with the method's name when pcall calls it", function()
    for _, call in ipairs {
      { "bad argument #1 to 'call_later' (number expected, got nil)", loop.call_later, loop, nil, print },
      { "bad argument #1 to 'call_soon' (function expected, got nil)", loop.call_soon, loop, nil },
      { "bad argument #1 to 'create_task' (function or coroutine expected, got number)", loop.create_task, loop, 42 },
      { "bad argument #1 to 'set_task_factory' (function expected, got number)", loop.set_task_factory, loop, 42 },
      { "bad argument #1 to 'sleep' (number expected, got string)", aloop.sleep, "x" },
    } do
      local message = message_of(table.unpack(call, 2, 5))
      assert.truthy(message:find(call[1], 1, true), message)
    end
  end)

  it("is told with the name of what hands it on, or stands in a table of the module", function()
    loop:run_until_complete(function()
      local server <close> = aloop.start_unix_server(function(_, writer) writer:close() end, "\0" .. tostring({}))
      local _, writer = aloop.open_unix_connection(server.sockets[1]:getsockname())
      local closed <close> = writer -- luacheck: ignore
      for _, call in ipairs {
        { "bad argument #1 to 'write' (string or buffer expected, got number)", writer.write, writer, 5 },
        { "bad argument #2 to 'write' (number expected, got table)", writer.write, writer, "x", {} },
        { "bad argument #1 to 'kill' (number expected, got no value)", aloop.signal.kill },
        { "bad argument #1 to 'set_name' (value expected)", aloop.current_task().set_name, aloop.current_task() },
      } do
        local message = message_of(table.unpack(call, 2))
        assert.truthy(message:find(call[1], 1, true), message)
      end
      local message = message_of(writer.writelines, writer, { "x", 5 })
      assert.matches("^spec/arguments_spec.lua:%d+: bad item #2 in the list for 'writelines'", message)
    end)
  end)

  it("is none if it is a float with the value of an integer", function()
    loop:run_until_complete(function()
      assert.equal("<StreamReader limit=1024>", tostring(aloop.StreamReader { limit = 2 ^ 10 }))
      local server <close> = aloop.start_unix_server(function(reader, writer)
        reader:read()
        writer:close()
      end, "\0" .. tostring({}), { limit = 2 ^ 16 })
      local _, writer = aloop.open_unix_connection(server.sockets[1]:getsockname(), { limit = 2 ^ 16 })
      local closed <close> = writer -- luacheck: ignore
      writer.transport:set_write_buffer_limits { high = 2 ^ 12, low = 2 ^ 12 / 2 }
      assert.same({ 2048, 4096 }, { writer.transport:get_write_buffer_limits() })
      local file <close> = assert(io.tmpfile())
      file:write(("x"):rep(100)):flush()
      assert.equal(50, loop:sendfile(writer.transport, file, 100 / 4, 100 / 2))
    end)
    assert.equal("integer", math.type(aloop.LimitOverrunError("m", 2 ^ 3).consumed))
    assert.equal(8, aloop.IncompleteReadError("x", 2 ^ 3).expected)
    helper.type_error("bad option 'limit' to 'StreamReader' (integer expected, got number)", aloop.StreamReader,
      { limit = 2.5 })
  end)

  it("of a class names the class", function()
    local message = message_of(function() aloop.Future(loop) end)
    assert.truthy(message:find("bad argument #1 to 'Future' (table expected, got SelectorEventLoop)", 1, true), message)
    message = message_of(function() aloop.ContextVar(42) end)
    assert.truthy(message:find("bad argument #1 to 'ContextVar' (string expected, got number)", 1, true), message)
  end)
end)

describe("options", function()
  local loop

  before_each(function() loop = helper.new_loop() end)
  after_each(function() loop:close() end)

  local function error_of(f)
    return message_of(function() loop:run_until_complete(f) end)
  end

  it("unknown ones are told with function and key", function()
    local message = error_of(function() loop:create_server(aloop.Protocol, "127.0.0.1", 0, { sll = true }) end)
    assert.truthy(message:find("unknown option 'sll' to 'create_server'", 1, true), message)
  end)

  it("of a wrong type are told with the option's name", function()
    local future = loop:create_future()
    local message = message_of(function() future:add_done_callback(print, { context = 1 }) end)
    assert.truthy(message:find("bad option 'context' to 'add_done_callback' (Context expected, got number)", 1, true))
  end)

  it("before their place are told with function and key", function()
    local message = error_of(function() loop:create_server(aloop.Protocol, "127.0.0.1", { backlog = 3 }) end)
    assert.truthy(message:find("#3 to 'create_server'", 1, true) and message:find("'backlog'", 1, true), message)
    for name, f in pairs {
      ["#3 to 'sock_sendfile'"] = function()
        local sock <close> = aloop.socket.socket()
        loop:sock_sendfile(sock, io.stdout, { fallback = true })
      end,
      ["#1 to 'open_connection'"] = function() aloop.open_connection { fallback = true } end,
      ["#2 to 'wait_for'"] = function() aloop.wait_for(print, { fallback = true }) end,
    } do
      message = error_of(f)
      assert.truthy(message:find(name, 1, true), message)
      assert.truthy(message:find("with 'fallback'; options stand behind the last argument", 1, true), message)
    end
  end)

  it("behind their place are told with function and key", function()
    local message = error_of(function() loop:create_server(aloop.Protocol, "127.0.0.1", 0, nil, { backlog = 3 }) end)
    assert.truthy(message:find("#5 to 'create_server'", 1, true) and message:find("'backlog'", 1, true), message)
  end)

  it("behind their place are told with function and key, also by what is written in Lua", function()
    local x, task = { x = 1 }, loop:create_task(print)
    local path = "\0arguments_spec"
    for name, f in pairs {
      ["#3 to 'gather'"] = function() aloop.gather({ print }, nil, x) end,
      ["#3 to 'wait'"] = function() aloop.wait({ task }, nil, x) end,
      ["#3 to 'as_completed'"] = function() aloop.as_completed({ task }, nil, x) end,
      ["#3 to 'run'"] = function() aloop.run(print, nil, x) end,
      ["#2 to 'Runner'"] = function() aloop.Runner(nil, x) end,
      ["#4 to 'open_connection'"] = function() aloop.open_connection("127.0.0.1", 1, nil, x) end,
      ["#3 to 'open_unix_connection'"] = function() aloop.open_unix_connection(path, nil, x) end,
      ["#5 to 'start_server'"] = function() aloop.start_server(print, "127.0.0.1", 0, nil, x) end,
      ["#4 to 'start_unix_server'"] = function() aloop.start_unix_server(print, path, nil, x) end,
      ["#6 to 'sendfile'"] = function() loop:sendfile(1, io.stdout, 0, nil, nil, x) end,
      ["#6 to 'sock_sendfile'"] = function() loop:sock_sendfile(1, io.stdout, 0, nil, nil, x) end,
      ["#3 to 'capture_call_graph'"] = function() aloop.capture_call_graph(task, nil, x) end,
      ["#2 to 'ThreadPoolExecutor'"] = function() aloop.ThreadPoolExecutor(nil, x) end,
      ["#3 to 'shutdown'"] = function()
        local pool <close> = aloop.ThreadPoolExecutor()
        pool:shutdown(true, nil, x)
      end,
    } do
      local message = error_of(f)
      assert.truthy(message:find("bad argument " .. name .. " (option 'x' is out of place", 1, true), message)
    end
  end)
end)
