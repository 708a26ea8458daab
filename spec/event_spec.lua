-- Event: a flag that tasks wait for.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, turns = helper.as_task, helper.raises, helper.turns

describe("Event", function()
  it("that is set keeps nobody waiting", function() -- row: locks_queues
    as_task(function()
      local event = aloop.Event()
      assert.is_false(event:is_set())
      event:set()
      assert.is_true(event:is_set())
      local turned = false
      aloop.create_task(function() turned = true end)
      assert.is_true(event:wait())
      assert.is_false(turned)
      event:clear()
      assert.is_false(event:is_set())
    end)
  end)

  it("wakes all that wait, in the order in which they came", function() -- row: locks_queues
    as_task(function()
      local event, notes, tasks = aloop.Event(), {}, {}
      for i = 1, 4 do
        tasks[i] = aloop.create_task(function()
          assert.is_true(event:wait())
          notes[#notes + 1] = i
        end)
      end
      turns(2)
      assert.same({}, notes)
      assert.is_nil(event:set())
      assert.same({}, notes)
      turns()
      assert.same({ 1, 2, 3, 4 }, notes)
      event:set()
      for _, task in ipairs(tasks) do task:await() end
    end)
  end)

  it("that is cleared before those it woke go on has woken them all the same", function()
    as_task(function()
      local event = aloop.Event()
      local task = aloop.create_task(function() return event:wait() end)
      turns()
      event:set()
      event:clear()
      local late = aloop.create_task(function() return event:wait() end)
      assert.is_true(task:await())
      turns()
      assert.is_false(late:done())
      event:set()
      assert.is_true(late:await())
    end)
  end)

  it("loses those that are cancelled, before it is set and after", function()
    as_task(function()
      local event, tasks = aloop.Event(), {}
      for i = 1, 3 do tasks[i] = aloop.create_task(function() return event:wait() end) end
      turns()
      tasks[1]:cancel()
      raises(aloop.CancelledError, nil, tasks[1].await, tasks[1])
      assert.matches("waiters:2", tostring(event))
      event:set()
      tasks[2]:cancel()
      raises(aloop.CancelledError, nil, tasks[2].await, tasks[2])
      assert.is_true(tasks[3]:await())
      assert.matches("%[set%]", tostring(event))
    end)
  end)

  it("can be set by a callback", function()
    as_task(function(loop)
      local event = aloop.Event()
      loop:call_soon(event.set, event)
      assert.is_true(event:wait())
    end)
  end)

  it("shows its state", function()
    as_task(function()
      local event = aloop.Event()
      assert.matches("^<Event at 0x%x+ %[unset%]>$", tostring(event))
      local task = aloop.create_task(function() event:wait() end)
      turns()
      assert.matches("%[unset, waiters:1%]>$", tostring(event))
      event:set()
      assert.matches("%[set, waiters:1%]>$", tostring(event))
      task:await()
      assert.matches("^<Event at 0x%x+ %[set%]>$", tostring(event))
    end)
  end)
end)
