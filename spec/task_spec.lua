-- Tasks: making, names, contexts, introspection, errors of use. Cancellation is in task_cancel_spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

local function nop() end
local function drive(body) helper.drive(helper.new_loop, body) end

describe("create_task", function()
  it("starts in a later turn, not at once", function() -- row: create_task
    drive(function(loop)
      local ran = false
      local task = loop:create_task(function()
        ran = true
        return "result"
      end)
      assert.is_false(ran)
      assert.is_true(aloop.isinstance(task, aloop.Task))
      assert.equal("result", loop:run_until_complete(task))
      assert.is_true(ran)
    end)
  end)

  it("takes a name and makes unique ones", function() -- row: create_task.name, create_task.name_default
    drive(function(loop)
      local named = loop:create_task(nop, { name = "mine" })
      local a, b = loop:create_task(nop), loop:create_task(nop)
      local numbered = loop:create_task(nop, { name = 17 })
      assert.equal("mine", named:get_name())
      assert.matches("^Task%-%d+$", a:get_name())
      assert.are_not.equal(a:get_name(), b:get_name())
      assert.equal("17", numbered:get_name())
      named:set_name("other")
      assert.equal("other", named:get_name())
      assert.matches("other", tostring(named))
      helper.turn(loop, 2)
    end)
  end)

  it("runs in a copy of the current context, or in the given one", function() -- row: create_task.context
    drive(function(loop)
      local var = aloop.ContextVar("v", { default = 0 })
      local ctx = aloop.copy_context()
      loop:run_until_complete(function()
        var:set(1)
        local seen
        local task = loop:create_task(function()
          seen = var:get()
          var:set(2)
        end)
        var:set(3)
        task:await()
        assert.equal(1, seen)
        assert.equal(3, var:get())
        local inside = loop:create_task(function()
          var:set(4)
          aloop.sleep(0)
          var:set(var:get() + 1)
        end, { context = ctx })
        assert.equal(ctx, inside:get_context())
        inside:await()
        assert.equal(5, ctx:run(var.get, var))
        assert.equal(3, var:get())
      end)
    end)
  end)

  it("raises RuntimeError on a closed loop", function() -- row: create_task.closed
    local loop = helper.new_loop()
    loop:close()
    raises(aloop.RuntimeError, "Event loop is closed", loop.create_task, loop, nop)
  end)

  it("refuses what is no coroutine, and unknown options", function() -- row: create_task.type
    drive(function(loop)
      type_error("bad argument #1 to 'create_task'", loop.create_task, loop, 42)
      type_error("bad argument #1 to 'create_task'", loop.create_task, loop, loop:create_future())
      type_error("bad argument #1 to 'create_task'", loop.create_task, loop)
      type_error("unknown option 'nam' to 'create_task'", loop.create_task, loop, nop, { nam = "x" })
      type_error("bad option 'context' to 'create_task'", loop.create_task, loop, nop, { context = 42 })
      type_error("bad option 'context' to 'Task' (Context expected", aloop.Task, nop, { loop = loop, context = 42 })
      local eager = { eager_start = 5 }
      type_error("bad option 'eager_start' to 'create_task' (boolean expected, got number)", loop.create_task, loop,
        nop, eager)
      type_error("bad option 'eager_start' to 'Task' (boolean expected, got number)", aloop.Task, nop, eager)
      local dead = coroutine.create(nop)
      coroutine.resume(dead)
      local text = "(function or coroutine expected, got a coroutine that runs or is finished)"
      type_error("bad argument #1 to 'create_task' " .. text, loop.create_task, loop, dead)
      type_error("bad argument #1 to 'Task' " .. text, aloop.Task, dead)
    end)
  end)

  it("takes a suspended coroutine, also one that has run already", function()
    drive(function(loop)
      local co = coroutine.create(function(...)
        local again = coroutine.yield(...)
        aloop.sleep(0)
        return again, "end"
      end)
      coroutine.resume(co, "first")
      assert.equal("end", select(2, loop:run_until_complete(co)))
    end)
  end)

  it("module function uses the running loop", function()
    as_task(function(loop)
      local task = aloop.create_task(function() return 1 end, { name = "m" })
      assert.equal(loop, task:get_loop())
      assert.equal(1, task:await())
    end)
  end)

  it("eager_start runs the body at once up to its first wait", function() -- row: eager_task_factory; bug: 29
    as_task(function(loop)
      local steps = {}
      local outer = aloop.current_task()
      local task = loop:create_task(function()
        steps[#steps + 1] = "begun"
        assert.are_not.equal(outer, aloop.current_task())
        aloop.sleep(0)
        steps[#steps + 1] = "ended"
      end, { eager_start = true })
      assert.same({ "begun" }, steps)
      assert.equal(outer, aloop.current_task())
      task:await()
      assert.same({ "begun", "ended" }, steps)
      local quick = loop:create_task(function() return "now" end, { eager_start = true })
      assert.is_true(quick:done())
      assert.equal("now", quick:result())
    end)
  end)
end)

describe("set_task_factory", function()
  -- row: set_task_factory, set_task_factory.signature, set_task_factory.nil, get_task_factory, set_task_factory.result
  it("makes create_task call it with loop, coroutine and options, and returns what it returns", function()
    drive(function(loop)
      assert.is_nil(loop:get_task_factory())
      local calls = {}
      local made
      local function factory(...)
        calls[#calls + 1] = table.pack(...)
        local l, coro, options = ...
        made = aloop.Task(coro, { loop = l, name = options.name, context = options.context })
        return made
      end
      local ok = pcall(factory, loop, nop, {})
      if not ok then
        factory = function(...) -- a Task can't be made by hand: any future will do
          calls[#calls + 1] = table.pack(...)
          made = loop:create_future()
          made:set_result("r")
          return made
        end
      end
      calls = {}
      loop:set_task_factory(factory)
      assert.equal(factory, loop:get_task_factory())
      local body = function() return "r" end
      local context = aloop.copy_context()
      local task = loop:create_task(body, { name = "n", context = context })
      assert.equal(made, task)
      assert.equal(loop, calls[1][1])
      assert.equal(body, calls[1][2])
      assert.equal(context, calls[1][3].context)
      assert.equal("r", loop:run_until_complete(task))
      loop:run_until_complete(loop:create_task(body))
      assert.equal("table", type(calls[2][3]))
      loop:set_task_factory(nil)
      assert.is_nil(loop:get_task_factory())
      local n = #calls
      loop:run_until_complete(loop:create_task(body))
      assert.equal(n, #calls)
      helper.turn(loop, 2)
    end)
  end)

  it("may give a Future, which has no name", function() -- row: set_task_factory.result
    drive(function(loop)
      local made = loop:create_future()
      made:set_result(9)
      loop:set_task_factory(function() return made end)
      assert.equal(made, loop:create_task(nop, { name = "n" }))
      loop:set_task_factory(nil)
    end)
  end)

  it("refuses what can't be called", function() -- row: set_task_factory.type
    drive(function(loop)
      type_error("bad argument #1 to 'set_task_factory'", loop.set_task_factory, loop, 1)
      type_error("bad argument #1 to 'set_task_factory'", loop.set_task_factory, loop, {})
    end)
  end)
end)

describe("a task", function()
  it("is a future wherever one is taken", function() -- row: Task.is_future
    as_task(function(loop)
      local task = loop:create_task(function() return 1, nil, 3 end)
      assert.is_true(aloop.isinstance(task, aloop.Future))
      local got
      task:add_done_callback(function(t) got = t end)
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.await(task)))
      aloop.sleep(0)
      assert.equal(task, got)
      assert.equal(task, aloop.ensure_future(task))
      assert.equal(2, aloop.ensure_future(function() return 2 end):await())
    end)
  end)

  it("can't be given a result or an error", function() -- row: Task.no_set
    drive(function(loop)
      local task = loop:create_task(nop)
      raises(aloop.RuntimeError, nil, task.set_result, task, 1)
      raises(aloop.RuntimeError, nil, task.set_exception, task, "e")
      helper.turn(loop, 2)
    end)
  end)

  it("fails with whatever its body raises", function()
    as_task(function(loop)
      for _, value in ipairs { aloop.ValueError("v"), "text", { 1 }, false } do
        local task = loop:create_task(function() error(value, 0) end)
        local ok, e = pcall(task.await, task)
        assert.is_false(ok)
        assert.is_true(rawequal(value, e))
        assert.is_true(rawequal(value, (task:exception())))
      end
    end)
  end)

  it("raises RuntimeError in itself when it awaits itself", function() -- row: Task.self_await
    as_task(function(loop)
      local task
      task = loop:create_task(function()
        raises(aloop.RuntimeError, nil, task.await, task)
        return "survived"
      end)
      assert.equal("survived", task:await())
    end)
  end)

  it("raises RuntimeError in itself when it awaits another loop's future", function() -- row: Task.foreign_future
    as_task(function()
      local other = helper.new_loop()
      local foreign = other:create_future()
      local e = raises(aloop.RuntimeError, "different loop", foreign.await, foreign)
      assert.is_not_nil(e)
      other:close()
    end)
  end)

  it("gives up one turn by a bare yield, and refuses to yield a value", function() -- row: Task.bad_yield
    as_task(function(loop)
      local turned = 0
      loop:call_soon(function() turned = turned + 1 end)
      coroutine.yield()
      assert.equal(1, turned)
      raises(aloop.RuntimeError, nil, coroutine.yield, "x")
      raises(aloop.RuntimeError, nil, coroutine.yield, nil)
      coroutine.yield()
    end)
  end)

  -- row: Task.introspection
  it("tells its coroutine, name, context and stack", function()
    as_task(function(loop)
      local future = loop:create_future()
      local function inner_wait() future:await() end
      local function body()
        inner_wait()
        return 1
      end
      local task = loop:create_task(body, { name = "looked at" })
      aloop.sleep(0)
      aloop.sleep(0)
      assert.equal("looked at", task:get_name())
      assert.is_not_nil(task:get_coro())
      assert.is_true(aloop.isinstance(task:get_context(), aloop.Context))
      local frames = task:get_stack()
      assert.is_true(#frames >= 2)
      local seen = {}
      for _, frame in ipairs(frames) do
        assert.is_string(frame.source)
        assert.is_number(frame.currentline)
        if frame.name then seen[frame.name] = true end
      end
      assert.is_true(seen.inner_wait)
      future:set_result()
      assert.equal(1, task:await())
      assert.same({}, task:get_stack())
    end)
  end)

  it("print_stack writes its stack to stderr", function() -- row: Task.introspection
    local out, err = helper.output_of [[
      local aloop = require "aloop"
      local function deep() aloop.sleep(5) end
      local task = aloop.create_task(function() deep() end, { name = "printed" })
      aloop.sleep(0.001)
      task:print_stack()
      task:cancel()
      print("done")
    ]]
    assert.equal("done\n", out)
    assert.matches("printed", err)
    assert.matches("deep", err)
  end)

  it("current_task is the task that runs, nil inside plain callbacks", function() -- row: current_task
    drive(function(loop)
      local inside, in_callback = nil, "unset"
      local task = loop:create_task(function() inside = aloop.current_task() end)
      loop:call_soon(function() in_callback = aloop.current_task() end)
      loop:run_until_complete(task)
      assert.equal(task, inside)
      assert.is_nil(in_callback)
      assert.is_nil(aloop.current_task(loop))
    end)
  end)

  it("current_task is restored when tasks interleave and fail", function() -- bug: 29
    as_task(function(loop)
      local me = aloop.current_task()
      local failing = loop:create_task(function() error("x") end)
      pcall(failing.await, failing)
      assert.equal(me, aloop.current_task())
      aloop.sleep(0)
      assert.equal(me, aloop.current_task())
    end)
  end)

  it("all_tasks gives the unfinished ones, held by nobody else", function() -- row: all_tasks
    as_task(function(loop)
      local future = loop:create_future()
      loop:create_task(function() future:await() end, { name = "waits" })
      local done = loop:create_task(nop, { name = "done" })
      done:await()
      collectgarbage()
      local names = {}
      for _, task in ipairs(aloop.all_tasks()) do names[task:get_name()] = true end
      assert.same({ waits = true, test = true }, names)
      assert.equal(2, #aloop.all_tasks(loop))
      future:set_result()
      aloop.sleep(0)
      aloop.sleep(0)
      assert.equal(1, #aloop.all_tasks())
    end)
  end)

  it("that is pending when its loop closes is reported", function() -- row: Task.destroyed_pending, context.task
    local got
    local loop = helper.new_loop()
    loop:set_exception_handler(function(_, context) got = context end)
    do
      local task = loop:create_task(function() aloop.sleep(1000) end, { name = "forgotten" })
      helper.turn(loop, 2)
      assert.is_false(task:done())
    end
    loop:close()
    loop = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_not_nil(got)
    assert.matches("Task was destroyed but it is pending!", got.message)
    assert.is_not_nil(got.task)
  end)

  it("tostring shows name, state, body, and what it waits for", function() -- row: Future.repr
    as_task(function(loop)
      local future = loop:create_future()
      local task = loop:create_task(function() future:await() end, { name = "shown" })
      aloop.sleep(0)
      aloop.sleep(0)
      assert.matches("^<Task .*pending.*task_spec%.lua:%d+", tostring(task))
      assert.matches("name='shown'", tostring(task))
      assert.matches(" wait_for=<Future pending ...>>$", tostring(task))
      local other = loop:create_task(function() task:await() end)
      aloop.sleep(0)
      assert.matches(" wait_for=<Task pending name='shown' ...>>$", tostring(other))
      future:set_result()
      other:await()
      assert.matches("^<Task .*finished", tostring(task))
      assert.is_nil(tostring(other):find("wait_for", 1, true))
    end)
  end)

  it("runs <close> variables when its body fails, and these may wait", function()
    as_task(function(loop)
      local closed = false
      local task = loop:create_task(function()
        local _ <close> = setmetatable({}, { __close = function()
          aloop.sleep(0.001)
          closed = true
        end })
        error("body fails")
      end)
      local ok, e = pcall(task.await, task)
      assert.is_false(ok)
      assert.matches("body fails", e)
      assert.is_true(closed)
    end)
  end)

  it("that has caught an error of another keeps nothing of it", function()
    as_task(function(loop)
      local function kib()
        collectgarbage()
        collectgarbage()
        return collectgarbage "count"
      end
      local before = kib()
      for i = 1, 100 do
        local task = loop:create_task(function() error((" "):rep(50000) .. i) end)
        loop:create_task(function() pcall(task.await, task) end)
      end
      for _ = 1, 10 do aloop.sleep(0) end
      assert.is_true(kib() - before < 1000)
    end)
  end)

  it("an error awaited through three tasks shows each of them in its traceback", function()
    as_task(function(loop)
      local function level_three() error(aloop.ValueError("deep")) end
      local function level_two() loop:create_task(level_three, { name = "three" }):await() end
      local function level_one() loop:create_task(level_two, { name = "two" }):await() end
      local e = raises(aloop.ValueError, "deep", function() loop:create_task(level_one, { name = "one" }):await() end)
      local at = 1
      for _, level in ipairs { level_three, level_two, level_one } do
        at = e.traceback:find("task_spec.lua:" .. debug.getinfo(level, "S").linedefined, at, true)
        assert.is_not_nil(at, e.traceback)
      end
      assert.matches("three was created at .*task_spec%.lua:%d+", e.traceback)
      assert.matches("awaited in two:.*awaited in one:", e.traceback)
    end)
  end)
end)

describe("sleep", function()
  it("waits its time and returns its extra values", function() -- row: sleep
    as_task(function(loop)
      local began = loop:time()
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.sleep(0.01, 1, nil, 3)))
      assert.is_true(loop:time() - began >= 0.01)
      assert.equal(0, select("#", aloop.sleep(0)))
      assert.equal("x", aloop.sleep(0, "x"))
    end)
  end)

  it("of zero or less gives up one turn", function() -- row: sleep
    as_task(function(loop)
      for _, delay in ipairs { 0, -1 } do
        local turned = false
        loop:call_soon(function() turned = true end)
        aloop.sleep(delay)
        assert.is_true(turned)
      end
    end)
  end)

  it("refuses what is no number, and a plain callback", function()
    drive(function(loop, trial)
      loop:run_until_complete(function()
        type_error("bad argument #1 to 'sleep'", aloop.sleep, "x")
        type_error("bad argument #1 to 'sleep'", aloop.sleep)
      end)
      loop:call_soon(aloop.sleep, 0)
      helper.turn(loop)
      assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.RuntimeError))
    end)
  end)
end)
