-- 5: a Condition's wait() that was cancelled while it took its lock again raised another CancelledError than the one of
-- the cancellation, without its message (gh-111693). It raises the last one it got, itself.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local function check(where)
  helper.with_loop(helper.new_loop, function(loop)
    local condition, raised = aloop.Condition(), nil
    local task = loop:create_task(function()
      local _ <close> = condition:acquire()
      local ok, err = pcall(condition.wait, condition)
      assert.is_false(ok)
      assert.is_true(condition:locked())
      raised = err
      error(err, 0)
    end)
    aloop.sleep(0)
    if where == "waiting" then
      task:cancel("foo")
    else
      local guard = condition:acquire()
      condition:notify()
      aloop.sleep(0)
      task:cancel("foo")
      aloop.sleep(0)
      guard:release()
    end
    local err = helper.raises(aloop.CancelledError, "foo", task.await, task)
    assert.equal("foo", err.message)
    assert.equal(raised, err)
    assert.is_false(condition:locked())
  end)
end

it("5: wait() raises the cancellation it got while it waited", function() check "waiting" end) -- row: locks_queues

it("5: wait() raises the cancellation it got while it took its lock", function() check "locking" end)
