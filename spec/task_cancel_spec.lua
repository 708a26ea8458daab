-- Cancelling tasks: when it is delivered, what it does to what they wait for, and its counts.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"

local as_task, raises = helper.as_task, helper.raises

describe("Task:cancel", function()
  it("raises CancelledError where the task waits, in a later turn", function() -- row: Task.cancel; point: 7
    as_task(function(loop)
      local caught
      local task = loop:create_task(function()
        local ok, e = pcall(aloop.sleep, 1000)
        caught = not ok and e
        error(e, 0)
      end)
      aloop.sleep(0)
      assert.is_true(task:cancel())
      assert.is_false(task:cancelled())
      assert.is_false(task:done())
      assert.is_nil(caught)
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_true(task:cancelled())
      assert.is_true(aloop.isinstance(caught, aloop.CancelledError))
      assert.is_false(task:cancel())
    end)
  end)

  it("before the first step never runs the body", function() -- row: Task.cancel_before_start; point: 8
    as_task(function(loop)
      local ran = false
      local task = loop:create_task(function() ran = true end)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_false(ran)
      assert.is_true(task:cancelled())
    end)
  end)

  it("takes the place of the error of a yielded value", function()
    as_task(function(loop)
      local caught
      local task = loop:create_task(function()
        local ok, e = pcall(coroutine.yield, "value")
        caught = not ok and e
        aloop.current_task():uncancel()
        return aloop.sleep(0.001, "slept")
      end)
      aloop.sleep(0)
      task:cancel()
      assert.equal("slept", task:await())
      assert.is_true(aloop.isinstance(caught, aloop.CancelledError))
    end)
  end)

  it("before the first step of a coroutine that has run raises inside it", function()
    as_task(function(loop)
      local caught
      local co = coroutine.create(function()
        local ok, e = pcall(coroutine.yield)
        caught = not ok and e
      end)
      coroutine.resume(co)
      local task = loop:create_task(co)
      task:cancel()
      pcall(task.await, task)
      assert.is_true(task:done())
      assert.is_true(caught == nil or aloop.isinstance(caught, aloop.CancelledError))
    end)
  end)

  it("that is caught and not raised again lets the task end with its result", function() -- row: Task.cancel_suppressed
    as_task(function(loop)
      local task = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        return "went on"
      end)
      aloop.sleep(0)
      task:cancel()
      assert.equal("went on", task:await())
      assert.is_false(task:cancelled())
    end)
  end)

  it("cancels the future that the task waits for", function() -- row: Task.cancel_inner; point: 7
    as_task(function(loop)
      local future = loop:create_future()
      local task = loop:create_task(function() future:await() end)
      aloop.sleep(0)
      task:cancel()
      assert.is_true(future:cancelled())
      raises(aloop.CancelledError, nil, task.await, task)
    end)
  end)

  it("goes down to the innermost of tasks that wait for each other", function() -- row: Task.cancel_inner
    as_task(function(loop)
      local inner = loop:create_task(function() aloop.sleep(1000) end)
      local middle = loop:create_task(function() inner:await() end)
      local outer = loop:create_task(function() middle:await() end)
      aloop.sleep(0)
      aloop.sleep(0)
      outer:cancel("from above")
      assert.is_false(outer:cancelled())
      raises(aloop.CancelledError, "from above", outer.await, outer)
      assert.is_true(inner:cancelled())
      assert.is_true(middle:cancelled())
      assert.is_true(outer:cancelled())
    end)
  end)

  it("of a task that is woken already is remembered for its next step", function() -- point: 7
    as_task(function(loop)
      local future = loop:create_future()
      local got
      local task = loop:create_task(function() got = future:await() end)
      aloop.sleep(0)
      future:set_result("value")
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_nil(got)
      assert.is_true(task:cancelled())
    end)
  end)

  it("carries its message", function() -- row: Task.cancel_msg
    as_task(function(loop)
      local task = loop:create_task(function() aloop.sleep(1000) end)
      aloop.sleep(0)
      task:cancel("the reason")
      local e = raises(aloop.CancelledError, "CancelledError: the reason", task.await, task)
      assert.equal("the reason", e.message)
    end)
  end)

  it("of a task that waits for a done future acts at its next wait", function()
    as_task(function(loop)
      local steps = {}
      local task
      task = loop:create_task(function()
        task:cancel()
        steps[#steps + 1] = "after cancel"
        local future = loop:create_future()
        future:set_result()
        pcall(future.await, future)
        aloop.sleep(0)
        steps[#steps + 1] = "not reached"
      end)
      raises(aloop.CancelledError, nil, task.await, task)
      assert.equal("after cancel", steps[1])
    end)
  end)

  it("of itself right before returning ends it cancelled", function() -- row: Task.cancel_at_end; point: 9
    as_task(function(loop)
      local task
      task = loop:create_task(function()
        task:cancel()
        return "value"
      end)
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("takes a sleeping task's timer away", function() -- row: sleep.cancel
    as_task(function(loop)
      local before = core.stats(loop).timers
      local task = loop:create_task(function() aloop.sleep(1000) end)
      aloop.sleep(0)
      aloop.sleep(0)
      assert.equal(before + 1, core.stats(loop).timers)
      task:cancel()
      pcall(task.await, task)
      assert.equal(before, core.stats(loop).timers)
    end)
  end)

  it("runs <close> variables, which may wait, and a pcall inside them may catch", function()
    as_task(function(loop)
      local order = {}
      local task = loop:create_task(function()
        local _ <close> = setmetatable({}, { __close = function(_, e)
          order[#order + 1] = tostring(e)
          aloop.sleep(0.001)
          order[#order + 1] = "waited"
        end })
        aloop.sleep(1000)
      end)
      aloop.sleep(0)
      task:cancel("bye")
      raises(aloop.CancelledError, "bye", task.await, task)
      assert.same({ "CancelledError: bye", "waited" }, order)
    end)
  end)

  it("twice raises twice, if the task waits again", function()
    as_task(function(loop)
      local n = 0
      local task = loop:create_task(function()
        for _ = 1, 2 do
          local ok = pcall(aloop.sleep, 1000)
          if not ok then n = n + 1 end
        end
        return n
      end)
      aloop.sleep(0)
      task:cancel()
      aloop.sleep(0)
      aloop.sleep(0)
      task:cancel()
      assert.equal(2, task:await())
    end)
  end)

  it("a CancelledError that the body raises by itself ends the task cancelled", function()
    as_task(function(loop)
      local task = loop:create_task(function() error(aloop.CancelledError("own")) end)
      raises(aloop.CancelledError, "own", task.await, task)
      assert.is_true(task:cancelled())
    end)
  end)

  it("of a task inside a user coroutine passes through it", function()
    as_task(function(loop)
      local caught
      local task = loop:create_task(function()
        local generator = coroutine.wrap(function()
          coroutine.yield(1)
          local ok, e = pcall(aloop.sleep, 1000)
          caught = not ok and e
          error(e, 0)
        end)
        generator()
        generator()
      end)
      aloop.sleep(0)
      task:cancel("through")
      raises(aloop.CancelledError, "through", task.await, task)
      assert.equal("CancelledError: through", tostring(caught))
    end)
  end)
end)

describe("cancellation counts", function()
  it("cancelling counts requests, uncancel takes one back", function() -- row: Task.uncancel
    as_task(function(loop)
      local task = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        local me = aloop.current_task()
        assert.equal(2, me:cancelling())
        assert.equal(1, me:uncancel())
        assert.equal(0, me:uncancel())
        assert.equal(0, me:uncancel())
        assert.equal(0, me:cancelling())
        return "ended"
      end)
      assert.equal(0, task:cancelling())
      aloop.sleep(0)
      task:cancel()
      assert.equal(1, task:cancelling())
      task:cancel()
      assert.equal(2, task:cancelling())
      assert.equal("ended", task:await())
    end)
  end)

  it("uncancel that reaches zero drops a cancellation not yet delivered", function() -- row: Task.uncancel; point: 10
    as_task(function(loop)
      local task = loop:create_task(function()
        local me = aloop.current_task()
        me:cancel()
        assert.equal(0, me:uncancel())
        aloop.sleep(0)
        return "not cancelled"
      end)
      assert.equal("not cancelled", task:await())
      local early = loop:create_task(function() return "started" end)
      early:cancel()
      assert.equal(0, early:uncancel())
      assert.equal("started", early:await())
    end)
  end)

  it("of two messages the first is raised, while it is on its way", function()
    as_task(function(loop)
      local pending = loop:create_future()
      for _, wait in ipairs { function() aloop.sleep(1000) end, function() pending:await() end } do
        local task = loop:create_task(wait)
        aloop.sleep(0)
        task:cancel("first")
        task:cancel("second")
        assert.equal("first", raises(aloop.CancelledError, nil, task.await, task).message)
      end
    end)
  end)

  it("shows in the task's text until it is over", function() -- row: Future.repr
    as_task(function(loop)
      local task = loop:create_task(function() aloop.sleep(1000) end)
      aloop.sleep(0)
      assert.truthy(tostring(task):find("^<Task pending "))
      task:cancel()
      assert.truthy(tostring(task):find("^<Task cancelling "))
      raises(aloop.CancelledError, nil, task.await, task)
      assert.truthy(tostring(task):find("^<Task cancelled "))
    end)
  end)

  it("uncancel that doesn't reach zero drops nothing", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        local me = aloop.current_task()
        me:cancel()
        me:cancel()
        assert.equal(1, me:uncancel())
        aloop.sleep(0)
      end)
      raises(aloop.CancelledError, nil, task.await, task)
    end)
  end)
end)

describe("aloop.try", function()
  it("is a pcall that lets cancellation through", function() -- point: 11
    as_task(function(loop)
      assert.same({ true, 1, nil, 3, n = 4 }, table.pack(aloop.try(function(...) return ... end, 1, nil, 3)))
      local ok, e = aloop.try(error, "text")
      assert.is_false(ok)
      assert.equal("text", e)
      ok, e = aloop.try(function() error(aloop.ValueError("v")) end)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.ValueError))
      local after = false
      local task = loop:create_task(function()
        aloop.try(aloop.sleep, 1000)
        after = true
      end)
      aloop.sleep(0)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_false(after)
      raises(aloop.KeyboardInterrupt, nil, aloop.try, error, aloop.KeyboardInterrupt())
    end)
  end)
end)
