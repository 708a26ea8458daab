-- stack_spec.lua: task:get_stack and task:print_stack.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

local function names(frames)
  local list = {}
  for i, frame in ipairs(frames) do list[i] = frame.name end
  return list
end

local function has_all(list, wanted)
  local at = 1
  for _, name in ipairs(wanted) do
    while list[at] and list[at] ~= name do at = at + 1 end
    if not list[at] then return false end
  end
  return true
end

-- Something to write to.
local function sink()
  local file = { text = "" }
  function file:write(text) self.text = self.text .. text end
  return file
end

describe("get_stack", function()
  it("gives the frames of a suspended task, the oldest first", function() -- row: Task.introspection
    as_task(function(loop)
      local future = loop:create_future()
      local function inner() future:await() return 1 end
      local function outer() local x = inner() return x end
      local task = loop:create_task(function() local x = outer() return x end)
      aloop.sleep(0)
      local frames = task:get_stack()
      assert.equal(3, #frames)
      assert.is_true(has_all(names(frames), { "outer", "inner" }))
      for _, frame in ipairs(frames) do
        assert.matches("stack_spec%.lua$", frame.source)
        assert.is_true(math.type(frame.currentline) == "integer" and frame.currentline > 0)
      end
      assert.equal(debug.getinfo(inner, "S").linedefined, frames[3].currentline)
      future:set_result()
      task:await()
    end)
  end)

  it("goes through coroutines of the user's, resumed and wrapped", function() -- row: Task.introspection
    as_task(function(loop)
      local future = loop:create_future()
      local function leaf() future:await() return 1 end
      local function in_wrap() local x = leaf() return x end
      local function in_resume() local x = coroutine.wrap(in_wrap)() return x end
      local function body() local ok = coroutine.resume(coroutine.create(in_resume)) return ok end
      local task = loop:create_task(body)
      local of_coroutine = loop:create_task(coroutine.create(in_wrap))
      aloop.sleep(0)
      assert.equal(4, #task:get_stack())
      assert.equal("leaf", task:get_stack()[4].name)
      assert.equal(2, #of_coroutine:get_stack())
      future:set_result()
      assert.is_true(task:await())
      of_coroutine:await()
    end)
  end)

  it("gives that of the current task, also from inside a coroutine of its own", function() -- row: Task.introspection
    as_task(function()
      local function here() local frames = aloop.current_task():get_stack() return frames end
      assert.equal("here", here()[#here()].name)
      local frames = coroutine.wrap(function() local f = here() return f end)()
      assert.equal("here", frames[#frames].name)
      assert.is_true(#frames > #here())
    end)
  end)

  it("is that of a task before its first step, and empty after a result or a cancellation", function()
    as_task(function(loop) -- row: Task.introspection
      local fresh = loop:create_task(function() return 1 end)
      assert.same({}, fresh:get_stack())
      fresh:await()
      assert.same({}, fresh:get_stack())
      local cancelled = loop:create_task(function() aloop.sleep(1000) end)
      aloop.sleep(0)
      cancelled:cancel()
      raises(aloop.CancelledError, nil, cancelled.await, cancelled)
      assert.same({}, cancelled:get_stack())
    end)
  end)

  for what, err in pairs { string = "oops", ["error object"] = aloop.ValueError("oops") } do
    it("of a task that died of an " .. what .. " gives the frames of the traceback", function()
      as_task(function(loop) -- row: Task.introspection
        local function deep() error(err) end
        local function body() deep() end
        local task = loop:create_task(body)
        pcall(task.await, task)
        local frames = task:get_stack()
        assert.equal(debug.getinfo(body, "S").linedefined, frames[1].currentline)
        assert.equal(debug.getinfo(deep, "S").linedefined, frames[2].currentline)
        assert.equal("deep", frames[2].name)
        assert.matches("stack_spec%.lua$", frames[1].source)
        assert.equal(2, #frames)
      end)
    end)
  end

  it("has a limit: the newest frames of a stack, the oldest of a traceback", function() -- row: Task.introspection
    as_task(function(loop)
      local future = loop:create_future()
      local function inner() future:await() return 1 end
      local function body() local x = inner() return x end
      local task = loop:create_task(body)
      aloop.sleep(0)
      assert.same({ "inner" }, names(task:get_stack { limit = 1 }))
      assert.same({ "inner" }, names(task:get_stack(1)))
      assert.same({}, task:get_stack(0))
      assert.same({}, task:get_stack(-1))
      assert.equal(2, #task:get_stack(100))
      assert.equal(2, #task:get_stack {})
      future:set_exception(aloop.ValueError("x"))
      pcall(task.await, task)
      assert.equal(1, #task:get_stack(1))
      assert.equal(debug.getinfo(body, "S").linedefined, task:get_stack(1)[1].currentline)
      type_error("bad argument #1 to 'get_stack' (number expected, got string)", task.get_stack, task, "x")
      type_error("bad option 'limit' to 'get_stack' (integer expected, got string)", task.get_stack, task,
        { limit = "x" })
      type_error("unknown option 'file' to 'get_stack'", task.get_stack, task, { file = io.stderr })
      type_error("Task expected", aloop.Task.get_stack, future)
    end)
  end)

  it("of a deep recursion can be cut short", function()
    as_task(function(loop)
      local future = loop:create_future()
      local function recurse(n)
        if n == 0 then return future:await() end
        local x = recurse(n - 1)
        return x
      end
      local task = loop:create_task(function() local x = recurse(2000) return x end)
      aloop.sleep(0)
      assert.equal(5, #task:get_stack(5))
      assert.equal(2002, #task:get_stack())
      future:set_result()
      task:await()
    end)
  end)
end)

describe("print_stack", function()
  it("writes the stack, the oldest first", function() -- row: Task.introspection
    as_task(function(loop)
      local future = loop:create_future()
      local function inner() future:await() return 1 end
      local task = loop:create_task(function() local x = inner() return x end, { name = "shown" })
      aloop.sleep(0)
      local file = sink()
      task:print_stack(nil, file)
      assert.matches("^Stack for <Task pending name='shown' .*%(most recent call last%):\n", file.text)
      assert.matches("\n  spec/stack_spec%.lua:%d+: in function.*\n  spec/stack_spec%.lua:%d+: in inner\n$", file.text)
      for _, arguments in ipairs { { 1, sink() }, { { limit = 1, file = sink() } } } do
        task:print_stack(table.unpack(arguments))
        assert.not_matches("in function <", (arguments[2] or arguments[1].file).text)
      end
      future:set_result()
      task:await()
      file = sink()
      task:print_stack(nil, file)
      assert.matches("^No stack for <Task finished", file.text)
    end)
  end)

  it("writes the traceback of a task that failed, and its error", function() -- row: Task.introspection
    as_task(function(loop)
      local task = loop:create_task(function() error(aloop.ValueError("oops")) end)
      pcall(task.await, task)
      local file = sink()
      task:print_stack(nil, file)
      assert.matches("^Traceback for <Task finished .*%(most recent call last%):\n", file.text)
      assert.matches("\n  spec/stack_spec%.lua:%d+: in .*\nValueError: oops\n$", file.text)
      type_error("bad argument #2 to 'print_stack' (file expected, got boolean)", task.print_stack, task, nil, true)
      type_error("bad argument #2 to 'print_stack' (file expected, got table)", task.print_stack, task, nil, {})
      type_error("bad option 'file' to 'print_stack' (file expected, got number)", task.print_stack, task, { file = 1 })
    end)
  end)
end)
