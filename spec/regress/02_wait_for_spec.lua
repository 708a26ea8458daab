-- 02: wait_for lost a cancellation that came in the turn of the result (gh-86296), lost a result made while it was
-- being cancelled (gh-84849), and hung if a handler of CancelledError waited (pyasyncio#288). It is a timeout scope.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task = helper.as_task

it("02: wait_for doesn't lose a cancellation that comes with the result", function()
  as_task(function(loop)
    local future = loop:create_future()
    local task = loop:create_task(function() return aloop.wait_for(future, 1000) end)
    aloop.sleep(0)
    aloop.sleep(0)
    future:set_result("there")
    assert.is_true(task:cancel())
    helper.raises(aloop.CancelledError, nil, task.await, task)
    assert.is_true(task:cancelled())
    assert.equal("there", future:result())
  end)
end)

it("02: wait_for doesn't lose a result that is made while it cancels", function()
  as_task(function(loop)
    local inner = loop:create_task(function()
      pcall(aloop.sleep, 1000)
      aloop.sleep(0.001)
      return "made meanwhile"
    end)
    assert.equal("made meanwhile", (aloop.wait_for(inner, 0.001)))
    assert.equal("made meanwhile", (aloop.wait_for(function()
      pcall(aloop.sleep, 1000)
      return "made meanwhile"
    end, 0.001)))
  end)
end)

it("02: wait_for goes on when what it cancelled waits before it ends", function()
  as_task(function(loop)
    local cleaned = false
    local inner = loop:create_task(function()
      local _, e = pcall(aloop.sleep, 1000)
      aloop.sleep(0.002)
      cleaned = true
      error(e, 0)
    end)
    for _, timeout in ipairs { 0.001, 0 } do
      helper.raises(aloop.TimeoutError, nil, aloop.wait_for, inner, timeout)
      assert.is_true(cleaned)
      inner = loop:create_task(function()
        local _, e = pcall(aloop.sleep, 1000)
        aloop.sleep(0.002)
        error(e, 0)
      end)
      aloop.sleep(0)
    end
    inner:cancel()
    helper.raises(aloop.CancelledError, nil, inner.await, inner)
  end)
end)
