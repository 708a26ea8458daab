-- 1: a task was collected while it was pending, and simply never went on (python/cpython gh-88831, gh-91887): the
-- loop held its tasks weakly, and a task that waits for a future that only it knows had no other owner. Here the loop
-- holds a task strongly until it is done.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

it("1: a pending task that nobody holds is not collected", function()
  helper.with_loop(helper.new_loop, function(loop)
    local done = 0
    for i = 1, 100 do
      loop:create_task(function()
        -- Known to the task alone, and to a timer.
        local future = loop:create_future()
        loop:call_later(i / 10000, future.set_result, future)
        future:await()
        done = done + 1
      end)
    end
    for _ = 1, 20 do
      collectgarbage()
      aloop.sleep(0.002)
    end
    while done < 100 do aloop.sleep(0.001) end
  end)
end)

it("1: a task that waits for what nobody else knows stays pending, and is among all_tasks", function()
  helper.with_loop(helper.new_loop, function(loop)
    do
      loop:create_task(function() loop:create_future():await() end, { name = "for ever" })
    end
    aloop.sleep(0)
    aloop.sleep(0)
    collectgarbage()
    collectgarbage()
    local found
    for _, task in ipairs(aloop.all_tasks()) do
      if task:get_name() == "for ever" then found = task end
    end
    assert.is_not_nil(found)
    found:cancel()
    pcall(found.await, found)
  end)
end)
