-- TaskGroup: tasks that end together. Each scenario was run under CPython 3.13, too.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error, group_error = helper.as_task, helper.raises, helper.type_error, helper.group_error

-- The messages of a group's errors, sorted.
local function messages(e)
  assert(aloop.isinstance(e, aloop.ExceptionGroup), "no ExceptionGroup: " .. tostring(e))
  local list = {}
  for i, one in ipairs(e.exceptions) do
    list[i] = aloop.isinstance(one, aloop.ExceptionGroup) and messages(one) or one.message
  end
  table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
  return list
end

local function failing(message, seconds)
  return function()
    if seconds then aloop.sleep(seconds) end
    error(aloop.ValueError(message))
  end
end

-- A task that waits until it is cancelled, and notes that.
local function waiting(notes, message)
  return function()
    local ok, e = pcall(aloop.sleep, 1000)
    if not ok then notes[#notes + 1] = "cancelled" end
    error(message and aloop.ValueError(message) or e)
  end
end

local function cancelling() return aloop.current_task():cancelling() end

describe("TaskGroup", function()
  it("waits for its tasks, whose results stay with them", function() -- row: TaskGroup
    as_task(function()
      local a, b
      local order = {}
      do
        local group <close> = aloop.TaskGroup()
        a = group:create_task(function()
          aloop.sleep(0.002)
          order[#order + 1] = "a"
          return 1, 2
        end, { name = "first" })
        b = group:create_task(coroutine.create(function() return "b" end))
        assert.equal("first", a:get_name())
        order[#order + 1] = "body"
      end
      assert.same({ "body", "a" }, order)
      assert.same({ 1, 2 }, { a:result() })
      assert.equal("b", b:result())
    end)
  end)

  it("of nothing waits for nothing", function()
    as_task(function(loop)
      local turned = false
      loop:call_soon(function() turned = true end)
      assert.is_nil(group_error(function() end))
      assert.is_false(turned)
    end)
  end)

  it("takes tasks made by its tasks while it waits", function()
    as_task(function()
      local notes = {}
      assert.is_nil(group_error(function(group)
        group:create_task(function()
          aloop.sleep(0.001)
          group:create_task(function()
            aloop.sleep(0)
            notes[1] = "grandchild"
          end)
        end)
      end))
      assert.same({ "grandchild" }, notes)
    end)
  end)

  it("cancels the others and its block when a task fails", function() -- row: TaskGroup
    as_task(function()
      local notes, went_on = {}, false
      local e = group_error(function(group)
        group:create_task(waiting(notes))
        group:create_task(failing("bad", 0.001))
        aloop.sleep(1000)
        went_on = true
      end)
      assert.same({ "bad" }, messages(e))
      assert.equal("unhandled errors in a TaskGroup", e.message)
      assert.same({ "cancelled" }, notes)
      assert.is_false(went_on)
      assert.equal(0, cancelling())
      aloop.sleep(0)
    end)
  end)

  it("collects all errors: of tasks that fail when they are cancelled, and of the block", function() -- row: TaskGroup
    as_task(function()
      local notes = {}
      assert.same({ "first", "second" }, messages(group_error(function(group)
        group:create_task(failing("first", 0.001))
        group:create_task(waiting(notes, "second"))
      end)))
      assert.same({ "body", "late" }, messages(group_error(function(group)
        group:create_task(waiting(notes, "late"))
        aloop.sleep(0)
        error(aloop.ValueError("body"))
      end)))
      assert.equal(0, cancelling())
    end)
  end)

  it("keeps errors of any type: those that are no objects come as the value of one", function()
    as_task(function()
      for _, err in ipairs { "text", 42, { 7 } } do
        local e = group_error(function(group) group:create_task(function() error(err, 0) end) end)
        assert.equal(err, e.exceptions[1].value)
        e = group_error(function(group)
          group:create_task(function() end)
          error(err, 0)
        end)
        assert.equal(err, e.exceptions[1].value)
      end
      local e = group_error(function(group) group:create_task(function() error(nil) end) end)
      assert.equal(1, #e.exceptions)
      assert.is_nil(e.exceptions[1].value)
      assert.matches("taskgroup_spec", e.exceptions[1].traceback)
    end)
  end)

  it("cancels its tasks for a nil error of the block, too", function()
    as_task(function()
      local notes = {}
      local e = group_error(function(group)
        group:create_task(waiting(notes))
        aloop.sleep(0)
        error(nil)
      end)
      assert.same({ "cancelled" }, notes)
      assert.equal(1, #e.exceptions)
      assert.is_nil(e.exceptions[1].value)
    end)
  end)

  it("returns the values of a block that returns", function()
    as_task(function()
      local done = false
      local function block()
        local group <close> = aloop.TaskGroup()
        group:create_task(function()
          aloop.sleep(0)
          done = true
        end)
        return 1, nil, 3
      end
      assert.same({ 1, nil, 3, n = 3 }, table.pack(block()))
      assert.is_true(done)
    end)
  end)

  it("doesn't mind a task that is cancelled alone", function()
    as_task(function()
      local task
      assert.is_nil(group_error(function(group)
        task = group:create_task(waiting {})
        aloop.sleep(0)
        task:cancel()
      end))
      assert.is_true(task:cancelled())
      assert.equal(0, cancelling())
    end)
  end)

  it("passes a cancellation from outside to its tasks, in the block or while it waits", function() -- row: TaskGroup
    as_task(function(loop)
      for _, in_block in ipairs { true, false } do
        local notes = {}
        local parent = loop:create_task(function()
          local group <close> = aloop.TaskGroup()
          group:create_task(waiting(notes))
          if in_block then aloop.sleep(1000) end
        end)
        aloop.sleep(0)
        aloop.sleep(0)
        parent:cancel("outside")
        raises(aloop.CancelledError, "outside", parent.await, parent)
        assert.is_true(parent:cancelled())
        assert.equal(1, parent:cancelling())
        assert.same({ "cancelled" }, notes)
      end
    end)
  end)

  it("cancels its tasks in the order in which they were made", function()
    as_task(function()
      local made, cancelled = {}, {}
      group_error(function(group)
        for i = 1, 50 do
          made[i] = i
          group:create_task(function()
            local ok, e = pcall(aloop.sleep, 1000)
            if not ok then cancelled[#cancelled + 1] = i end
            error(e)
          end)
        end
        aloop.sleep(0)
        error("out")
      end)
      assert.same(made, cancelled)
    end)
  end)

  it("cancelled again while its tasks end goes on waiting for them", function()
    as_task(function(loop)
      local ended = false
      local parent = loop:create_task(function()
        local group <close> = aloop.TaskGroup()
        group:create_task(function()
          local _, e = pcall(aloop.sleep, 1000)
          aloop.sleep(0.003)
          ended = true
          error(e, 0)
        end)
      end)
      aloop.sleep(0)
      aloop.sleep(0)
      for i = 1, 3 do
        parent:cancel("m" .. i)
        aloop.sleep(0)
        aloop.sleep(0)
      end
      raises(aloop.CancelledError, "m1", parent.await, parent)
      assert.is_true(ended)
      assert.equal(3, parent:cancelling())
    end)
  end)

  it("that fails while it is cancelled from outside raises its errors, and is told again", function() -- row: TaskGroup
    as_task(function(loop)
      local notes = {}
      local parent = loop:create_task(function()
        local e = group_error(function(group) group:create_task(waiting(notes, "late")) end)
        assert.same({ "late" }, messages(e))
        assert.equal(1, cancelling())
        aloop.sleep(0)
        notes[#notes + 1] = "went on"
      end)
      aloop.sleep(0)
      aloop.sleep(0)
      parent:cancel()
      raises(aloop.CancelledError, nil, parent.await, parent)
      assert.same({ "cancelled" }, notes)
    end)
  end)

  it("cancelled from outside while it fails raises its errors, and is told again", function()
    as_task(function(loop)
      local went_on = false
      local parent = loop:create_task(function()
        local e = group_error(function(group)
          group:create_task(function()
            local _, e = pcall(aloop.sleep, 1000)
            aloop.sleep(0.003)
            error(e, 0)
          end)
          group:create_task(failing("bad"))
        end)
        assert.same({ "bad" }, messages(e))
        assert.equal(1, cancelling())
        aloop.sleep(0)
        went_on = true
      end)
      for _ = 1, 3 do aloop.sleep(0) end
      assert.equal(1, parent:cancelling())
      parent:cancel()
      raises(aloop.CancelledError, nil, parent.await, parent)
      assert.is_false(went_on)
      assert.equal(1, parent:cancelling())
    end)
  end)

  it("waits also in a task that has caught a cancellation before", function()
    as_task(function(loop)
      local ran, e = false, nil
      local parent = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        do
          local group <close> = aloop.TaskGroup()
          group:create_task(function()
            aloop.sleep(0)
            ran = true
          end)
        end
        e = group_error(function(group) group:create_task(failing("bad")) end)
        assert.equal(1, cancelling())
        aloop.sleep(0)
      end)
      aloop.sleep(0)
      parent:cancel()
      raises(aloop.CancelledError, nil, parent.await, parent)
      assert.is_true(ran)
      assert.same({ "bad" }, messages(e))
    end)
  end)

  it("of a block that cancels itself and ends is cancelled at the end of the task", function()
    as_task(function(loop)
      local parent = loop:create_task(function()
        local _ <close> = aloop.TaskGroup()
        aloop.current_task():cancel("me")
      end)
      raises(aloop.CancelledError, "me", parent.await, parent)
    end)
  end)

  it("whose block catches the cancellation waits for it to end", function()
    as_task(function()
      local notes = {}
      local e = group_error(function(group)
        group:create_task(failing("bad"))
        pcall(aloop.sleep, 1000)
        notes[1] = cancelling()
        aloop.sleep(0.001)
        notes[2] = "went on"
      end)
      assert.same({ 1, "went on" }, notes)
      assert.same({ "bad" }, messages(e))
      assert.equal(0, cancelling())
    end)
  end)

  it("nests: an inner failure is one error of the outer block", function() -- row: TaskGroup
    as_task(function()
      assert.same({ { "in" } }, messages(group_error(function()
        local inner <close> = aloop.TaskGroup()
        inner:create_task(failing("in"))
        aloop.sleep(1000)
      end)))
      assert.equal(0, cancelling())
    end)
  end)

  it("nests: an outer failure cancels the inner one", function() -- row: TaskGroup
    as_task(function()
      local notes = {}
      assert.same({ "out" }, messages(group_error(function(outer)
        outer:create_task(failing("out", 0.001))
        local inner <close> = aloop.TaskGroup()
        inner:create_task(waiting(notes))
        aloop.sleep(1000)
      end)))
      assert.same({ "cancelled" }, notes)
      assert.equal(0, cancelling())
    end)
  end)

  it("nests: both fail in the same turn, and no error is lost", function()
    as_task(function()
      local e = group_error(function(outer)
        local inner <close> = aloop.TaskGroup()
        outer:create_task(failing("out"))
        inner:create_task(failing("in"))
        aloop.sleep(1000)
      end)
      assert.equal(2, #e.exceptions)
      assert.equal(0, cancelling())
      aloop.sleep(0)
    end)
  end)

  it("in a timeout ends by it; its own errors go before", function() -- row: TaskGroup, timeout
    as_task(function()
      local notes = {}
      raises(aloop.TimeoutError, nil, function()
        local _ <close> = aloop.timeout(0.001)
        local group <close> = aloop.TaskGroup()
        group:create_task(waiting(notes))
      end)
      assert.same({ "cancelled" }, notes)
      assert.equal(0, cancelling())
      local scope
      local e = raises(aloop.ExceptionGroup, nil, function()
        local t <close> = aloop.timeout(0.001)
        scope = t
        local group <close> = aloop.TaskGroup()
        group:create_task(waiting(notes, "late"))
      end)
      assert.same({ "late" }, messages(e))
      assert.is_true(scope:expired())
      assert.equal(0, cancelling())
      aloop.sleep(0)
    end)
  end)

  it("whose failure cancels a timeout inside doesn't make it expire", function()
    as_task(function()
      local scope
      local e = group_error(function(group)
        group:create_task(failing("bad"))
        local t <close> = aloop.timeout(1000)
        scope = t
        aloop.sleep(1000)
      end)
      assert.same({ "bad" }, messages(e))
      assert.is_false(scope:expired())
    end)
  end)

  it("raises SystemExit and KeyboardInterrupt of its block as they are, after its tasks", function()
    as_task(function()
      local notes = {}
      local ok, e = pcall(function()
        local group <close> = aloop.TaskGroup()
        group:create_task(waiting(notes, "lost in the exit"))
        aloop.sleep(0)
        error(aloop.SystemExit(3))
      end)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.SystemExit))
      assert.equal(3, e.code)
      assert.same({ "cancelled" }, notes)
    end)
  end)

  it("of whose tasks one raises KeyboardInterrupt leaves the loop by it, and raises it in the block", function()
    helper.drive(helper.new_loop, function(loop)
      local e
      local task = loop:create_task(function()
        e = group_error(function(group)
          group:create_task(function() error(aloop.KeyboardInterrupt("now")) end)
          aloop.sleep(1000)
        end)
      end)
      raises(aloop.KeyboardInterrupt, "now", loop.run_until_complete, loop, task)
      loop:run_until_complete(task)
      assert.is_true(aloop.isinstance(e, aloop.KeyboardInterrupt))
    end)
  end)

  it("raises what the block raised as a cancellation of its own", function()
    as_task(function()
      local notes = {}
      local e = group_error(function(group)
        group:create_task(waiting(notes))
        aloop.sleep(0)
        error(aloop.CancelledError("mine"))
      end)
      assert.is_true(aloop.isinstance(e, aloop.CancelledError))
      assert.equal("mine", e.message)
      assert.same({ "cancelled" }, notes)
      assert.equal(0, cancelling())
    end)
  end)

  it("that has ended, or is about to, refuses new tasks, which never run", function() -- row: TaskGroup
    as_task(function()
      local ran = false
      local function run() ran = true end
      local ended
      group_error(function(group) ended = group end)
      raises(aloop.RuntimeError, "is finished", ended.create_task, ended, run)
      local refused
      group_error(function(group)
        group:create_task(failing("bad"))
        local ok, e = pcall(aloop.sleep, 1000)
        assert.is_false(ok)
        refused = raises(aloop.RuntimeError, "is shutting down", group.create_task, group, run)
        error(e, 0)
      end)
      assert.is_true(aloop.isinstance(refused, aloop.RuntimeError))
      aloop.sleep(0)
      assert.is_false(ran)
    end)
  end)

  it("takes eager tasks, which may end, fail or wait at once", function()
    as_task(function(loop)
      local eager = { eager_start = true }
      local e = group_error(function(group)
        assert.is_true(group:create_task(function() return 1 end, eager):done())
        assert.is_true(group:create_task(failing("at once"), eager):done())
        local went_on = pcall(aloop.sleep, 1000)
        assert.is_false(went_on)
        error(aloop.CancelledError())
      end)
      assert.same({ "at once" }, messages(e))
      assert.equal(0, cancelling())
      loop:set_task_factory(aloop.eager_task_factory)
      local notes = {}
      assert.is_nil(group_error(function(group)
        group:create_task(function()
          aloop.sleep(0)
          notes[1] = "ended"
        end)
      end))
      assert.same({ "ended" }, notes)
    end)
  end)

  it("reports the error of a task whose parent has ended meanwhile", function()
    helper.with_loop(helper.new_loop, function(loop, trial)
      local group
      local parent = loop:create_task(function()
        group = aloop.TaskGroup()
        group:create_task(failing("orphan", 0.002))
      end)
      raises(aloop.RuntimeError, "was not closed", parent.await, parent)
      trial:wait_until(function() return #trial.errors > 0 end)
      local context = trial:take_error()
      assert.matches("is already completed", context.message)
      assert.equal("orphan", context.exception.message)
    end)
  end)

  it("closed where nothing can wait cancels its tasks, whose errors are reported", function() -- row: TaskGroup
    helper.with_loop(helper.new_loop, function(loop, trial)
      local notes, children = {}, {}
      local co = coroutine.create(function()
        local group <close> = aloop.TaskGroup()
        children[1] = group:create_task(waiting(notes))
        coroutine.yield()
      end)
      assert(coroutine.resume(co))
      aloop.sleep(0)
      assert.is_true(coroutine.close(co))
      local group = aloop.TaskGroup()
      children[2] = group:create_task(function()
        pcall(aloop.sleep, 1000)
        error("told of")
      end)
      aloop.sleep(0)
      loop:call_soon(function() local _ <close> = group end)
      trial:wait_until(function() return children[2]:done() end)
      assert.is_true(children[1]:done())
      assert.equal(1, #notes)
      assert.equal(0, aloop.current_task():cancelling())
      children = nil
      trial:wait_until(function()
        collectgarbage()
        return #trial.errors > 0
      end)
      assert.matches("told of", trial:take_error().exception)
    end)
  end)

  it("makes tasks whose errors tell the script's line that made them", function()
    as_task(function()
      local e = group_error(function(group) group:create_task(failing("boom")) end)
      assert.matches("was created at .*taskgroup_spec%.lua:%d+", e.exceptions[1].traceback)
    end)
  end)

  it("refuses what is no coroutine, and unknown options", function()
    as_task(function(loop)
      local group <close> = aloop.TaskGroup()
      type_error("bad argument #1 to 'create_task' (function or coroutine expected, got nil)", group.create_task, group)
      type_error("bad argument #1 to 'create_task' (function or coroutine expected, got Future)", group.create_task,
        group, loop:create_future())
      type_error("(function or coroutine expected, got a coroutine that runs or is finished)", group.create_task, group,
        (coroutine.running()))
      type_error("unknown option 'nam' to 'create_task'", group.create_task, group, function() end, { nam = "x" })
    end)
  end)

  it("shows its state", function()
    as_task(function()
      local group
      do
        local scope <close> = aloop.TaskGroup()
        group = scope
        assert.equal("<TaskGroup entered>", tostring(group))
        group:create_task(function() end)
        assert.equal("<TaskGroup tasks=1 entered>", tostring(group))
      end
      assert.equal("<TaskGroup finished>", tostring(group))
    end)
  end)

  it("keeps up with many tasks", function()
    as_task(function()
      local n = 0
      do
        local group <close> = aloop.TaskGroup()
        for _ = 1, 5000 do
          group:create_task(function()
            aloop.sleep(0)
            n = n + 1
          end)
        end
      end
      assert.equal(5000, n)
    end)
  end)
end)

describe("ExceptionGroup", function()
  local function example()
    return aloop.ExceptionGroup("all", {
      aloop.ValueError("a"),
      aloop.OSError(2),
      aloop.ExceptionGroup("inner", { aloop.ValueError("b"), aloop.RuntimeError("c") }),
    })
  end

  it("has its errors, and shows each of them with its traceback", function() -- row: ExceptionGroup, errors.kinds
    as_task(function(loop)
      local group = example()
      assert.equal("all", group.message)
      assert.equal(3, #group.exceptions)
      assert.matches("ValueError: a", tostring(group), 1, true)
      assert.matches("RuntimeError: c", tostring(group), 1, true)
      local task = loop:create_task(function()
        local tasks <close> = aloop.TaskGroup()
        tasks:create_task(failing("deep"))
      end)
      local e = raises(aloop.ExceptionGroup, nil, task.await, task)
      local text = require("aloop.core").errortext(e)
      local _, tracebacks = text:gsub("stack traceback:", "")
      assert.equal(2, tracebacks)
      assert.matches("deep", text)
      assert.matches("was created at", text)
    end)
  end)

  it("splits into what is of a class and the rest, nested as it was", function() -- row: ExceptionGroup
    local group = example()
    local values, rest = group:split(aloop.ValueError)
    assert.same({ "a", { "b" } }, messages(values))
    assert.equal("No such file or directory", rest.exceptions[1].message)
    assert.equal("c", rest.exceptions[2].exceptions[1].message)
    assert.equal("inner", rest.exceptions[2].message)
    assert.equal(3, #group.exceptions)
    local all, none = group:split(aloop.Error)
    assert.equal(group, all)
    assert.is_nil(none)
    none, all = group:split(aloop.TimeoutError)
    assert.is_nil(none)
    assert.equal(3, #all.exceptions)
  end)

  it("gives the part that is of several classes, or for which a function holds", function()
    local group = example()
    local part = group:subgroup { aloop.OSError, aloop.RuntimeError }
    assert.equal(2, #part.exceptions)
    assert.is_true(aloop.isinstance(part.exceptions[1], aloop.FileNotFoundError))
    assert.equal(1, select("#", group:subgroup(aloop.OSError)))
    part = group:subgroup(function(e) return e.message == "b" end)
    assert.same({ { "b" } }, messages(part))
    assert.is_nil(group:subgroup(function() return false end))
    local Mine = aloop.ExceptionGroup:extend("Mine")
    local mine = Mine("m", { aloop.ValueError("x"), "raw" })
    assert.is_true(aloop.isinstance(mine:subgroup(aloop.ValueError), Mine))
    assert.same({ "raw" }, select(2, mine:split(aloop.ValueError)).exceptions)
  end)

  it("refuses wrong arguments", function()
    local group = example()
    type_error("bad argument #1 to 'split' (class, array of classes or function expected, got no value)", group.split,
      group)
    raises(aloop.ValueError, "at least one", aloop.ExceptionGroup, "none", {})
    type_error("bad argument #2 to 'ExceptionGroup' (table expected, got", aloop.ExceptionGroup, "none")
  end)
end)
