-- 03: groups in groups swallowed cancellations or left the counts wrong (gh-95289, gh-116720, gh-155433), lost a
-- child's own error (gh-95704), and lost eager children (gh-128588). A group takes back what it asked of its parent.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, group_error = helper.as_task, helper.raises, helper.group_error

local function failing(message)
  return function() error(aloop.ValueError(message)) end
end

local function forever() aloop.sleep(1000) end

it("03: a cancellation that comes while an inner group fails reaches the outer block", function()
  as_task(function(loop)
    local counts, went_on = {}, false
    local parent = loop:create_task(function()
      local _ <close> = aloop.TaskGroup()
      local e = group_error(function(inner)
        inner:create_task(function()
          pcall(forever)
          error(aloop.ValueError("own"))
        end)
        forever()
      end)
      counts[1] = aloop.current_task():cancelling()
      assert.equal("own", e.exceptions[1].message)
      aloop.sleep(0)
      went_on = true
    end)
    aloop.sleep(0)
    aloop.sleep(0)
    parent:cancel()
    raises(aloop.CancelledError, nil, parent.await, parent)
    assert.same({ 1 }, counts)
    assert.is_false(went_on)
    assert.equal(1, parent:cancelling())
  end)
end)

it("03: outer and inner group fail at once: nothing is lost, and nothing stays counted", function()
  as_task(function()
    local e = group_error(function(outer)
      outer:create_task(failing("outer"))
      local inner <close> = aloop.TaskGroup()
      inner:create_task(failing("inner"))
      forever()
    end)
    local texts = tostring(e)
    assert.matches("outer", texts)
    assert.matches("inner", texts)
    assert.equal(0, aloop.current_task():cancelling())
    aloop.sleep(0)
  end)
end)

it("03: a child that is cancelled and fails keeps its own error", function()
  as_task(function()
    local e = group_error(function(group)
      local child = group:create_task(function()
        pcall(forever)
        error(aloop.ValueError("its own"))
      end)
      aloop.sleep(0)
      child:cancel()
    end)
    assert.equal("its own", e.exceptions[1].message)
    assert.equal(1, #e.exceptions)
  end)
end)

it("03: a timeout around a group isn't dropped by what the group asks for", function()
  as_task(function()
    local scope
    raises(aloop.TimeoutError, nil, function()
      local t <close> = aloop.timeout(0.03)
      scope = t
      local e = group_error(function(group)
        group:create_task(failing("first"))
        forever()
      end)
      assert.is_true(aloop.isinstance(e, aloop.ExceptionGroup))
      assert.equal(0, aloop.current_task():cancelling())
      forever()
    end)
    assert.is_true(scope:expired())
    assert.equal(0, aloop.current_task():cancelling())
  end)
end)

it("03: eager children that end at once, well or badly, are the group's", function()
  as_task(function(loop)
    loop:set_task_factory(aloop.eager_task_factory)
    local done
    assert.is_nil(group_error(function(group) done = group:create_task(function() return 5 end) end))
    assert.equal(5, done:result())
    local e = group_error(function(group)
      group:create_task(failing("at once"))
      forever()
    end)
    assert.equal("at once", e.exceptions[1].message)
    assert.equal(0, aloop.current_task():cancelling())
    aloop.sleep(0)
  end)
end)
