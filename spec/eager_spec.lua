-- Eager tasks: the first step is taken inside create_task.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function eagerly(body)
  helper.with_loop(helper.new_loop, function(loop, trial)
    loop:set_task_factory(aloop.eager_task_factory)
    body(loop, trial)
  end)
end

describe("eager_task_factory", function()
  it("runs a task up to its first wait", function() -- row: eager_task_factory
    eagerly(function(loop)
      local notes = {}
      local task = loop:create_task(function()
        notes[1] = aloop.current_task():get_name()
        aloop.sleep(0)
        notes[2] = "later"
        return "r"
      end, { name = "eager" })
      assert.same({ "eager" }, notes)
      assert.equal("r", task:await())
      assert.equal("later", notes[2])
      assert.equal(aloop.eager_task_factory, loop:get_task_factory())
    end)
  end)

  it("ends a task that waits for nothing without the loop", function() -- row: eager_task_factory
    eagerly(function(loop)
      local task = loop:create_task(function() return 1, 2 end)
      assert.is_true(task:done())
      assert.same({ 1, 2 }, { task:result() })
      local failed = loop:create_task(function() error("x", 0) end)
      assert.is_true(failed:done())
      assert.equal("x", failed:exception())
      assert.is_true(loop:create_task(function() error(aloop.CancelledError()) end):cancelled())
    end)
  end)

  it("leaves tasks lazy that ask for it, and those of a loop that doesn't run", function()
    eagerly(function(loop)
      local ran = false
      local task = loop:create_task(function() ran = true end, { eager_start = false })
      assert.is_false(ran)
      task:await()
      assert.is_true(ran)
    end)
    helper.drive(helper.new_loop, function(loop)
      loop:set_task_factory(aloop.eager_task_factory)
      local ran = false
      local task = loop:create_task(function() ran = true end)
      assert.is_false(ran)
      loop:run_until_complete(task)
      assert.is_true(ran)
    end)
  end)

  it("is a factory for other factories to call", function()
    helper.with_loop(helper.new_loop, function(loop)
      local made = 0
      loop:set_task_factory(function(of, coro, options)
        made = made + 1
        return aloop.eager_task_factory(of, coro, options)
      end)
      local ran = false
      local task = loop:create_task(function() ran = true end, { name = "n" })
      assert.is_true(ran)
      assert.equal(1, made)
      assert.equal("n", task:get_name())
      type_error("bad argument #2 to 'eager_task_factory' (function or coroutine expected, got no value)",
        aloop.eager_task_factory, loop)
    end)
  end)

  it("gives the current task back, whatever becomes of the new one", function()
    eagerly(function(loop)
      local me = aloop.current_task()
      loop:create_task(function() assert.not_equal(me, aloop.current_task()) end)
      assert.equal(me, aloop.current_task())
      local task = loop:create_task(function() aloop.sleep(0) end)
      assert.equal(me, aloop.current_task())
      task:await()
    end)
  end)

  it("delivers a cancellation of the task by itself in its first step at its first wait", function()
    eagerly(function(loop)
      local went_on = false
      local task = loop:create_task(function()
        aloop.current_task():cancel("me")
        aloop.sleep(0)
        went_on = true
      end)
      assert.is_false(task:done())
      raises(aloop.CancelledError, "me", task.await, task)
      assert.is_false(went_on)
      assert.is_true(loop:create_task(function() aloop.current_task():cancel() end):cancelled())
    end)
  end)

  it("steps tasks inside each other as deep as it can, and the rest in the next turn, without a word", function()
    eagerly(function(loop)
      local depth = 0
      local function nest(n)
        depth = depth + 1
        if n > 1 then loop:create_task(function() nest(n - 1) end):await() end
      end
      nest(200)
      assert.equal(200, depth)
    end)
  end)

  it("runs the child in a copy of the context; the parent's is there to be asked for meanwhile", function()
    eagerly(function(loop)
      local var = aloop.ContextVar("var")
      local seen, own
      local function parent()
        local me = aloop.current_task()
        var:set("parent")
        loop:create_task(function()
          seen = me:get_context()
          var:set("child")
          own = var:get()
        end)
        assert.equal("parent", var:get())
        assert.equal(seen, me:get_context())
        var:set("after")
      end
      loop:create_task(parent, { eager_start = false }):await()
      assert.equal("child", own)
      assert.equal("after", seen:run(function() return var:get() end))
      local context = aloop.copy_context()
      loop:create_task(function() var:set("given") end, { context = context })
      assert.equal("given", context:run(function() return var:get() end))
    end)
  end)

  it("works with gather, wait and TaskGroup", function()
    eagerly(function(loop)
      local function now(v) return function() return v end end
      assert.same({ 1, 2 }, { aloop.gather(now(1), now(2)) })
      local done = aloop.wait { loop:create_task(now(1)) }
      assert.equal(1, #done)
      do
        local group <close> = aloop.TaskGroup()
        assert.is_true(group:create_task(now(1)):done())
      end
    end)
  end)
end)
