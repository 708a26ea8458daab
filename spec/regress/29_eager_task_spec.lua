-- 29: a task that was started eagerly and failed at once left itself behind as the current task, and the loop hung
-- (gh-157301). The current task is given back on every path.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

it("29: an eager task that fails, is cancelled or waits gives the current task back", function()
  helper.with_loop(helper.new_loop, function(loop)
    local me = aloop.current_task()
    local function eager(body)
      local task = loop:create_task(body, { eager_start = true })
      assert.equal(me, aloop.current_task())
      return task
    end
    local failed = eager(function() error("at once") end)
    assert.is_true(failed:done())
    assert.is_false((pcall(failed.await, failed)))
    local cancelled = eager(function() error(aloop.CancelledError()) end)
    assert.is_true(cancelled:cancelled())
    local waiting = eager(function()
      aloop.sleep(0)
      error("later")
    end)
    assert.is_false(waiting:done())
    assert.is_false((pcall(waiting.await, waiting)))
    assert.equal(me, aloop.current_task())
    local nested = eager(function()
      local inner = loop:create_task(function() error("inner") end, { eager_start = true })
      return pcall(inner.await, inner)
    end)
    assert.is_false((nested:await()))
    aloop.sleep(0)
    assert.equal(me, aloop.current_task())
  end)
end)

it("29: tasks that are started eagerly inside each other all run, at any depth, without a word of dropping", function()
  helper.with_loop(helper.new_loop, function(loop)
    local depth = 0
    local function nest()
      depth = depth + 1
      if depth < 150 then loop:create_task(nest, { eager_start = true }):await() end
    end
    nest()
    assert.equal(150, depth)
  end)
end)
