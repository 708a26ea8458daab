-- 30: an exception handler that raised, and representations that went round in circles or grew without bound, killed
-- what they were to report on (gh-90381, gh-156860). Debug printing changes nothing and is at most linear.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

it("30: a handler that always fails doesn't stop the loop", function()
  helper.drive(helper.new_loop, function(loop, trial)
    loop:set_exception_handler(function() error(setmetatable({}, { __tostring = function() error("no text") end })) end)
    local ran = 0
    for _ = 1, 3 do
      loop:call_soon(function()
        ran = ran + 1
        error("callback fails")
      end)
    end
    helper.turn(loop)
    assert.equal(3, ran)
    assert.is_true(#trial.logs >= 3)
    trial.logs = {}
  end)
end)

it("30: errors whose text can't be made are reported all the same", function()
  helper.drive(helper.new_loop, function(loop, trial)
    loop:set_exception_handler(nil)
    loop:call_soon(function() error(setmetatable({}, { __tostring = function() error("no text") end })) end)
    loop:call_soon(function() error(setmetatable({}, { __tostring = function() return 42 end })) end)
    loop:call_soon(function() error(setmetatable({}, { __name = "Odd" })) end)
    helper.turn(loop)
    assert.is_true(#trial.logs >= 3)
    trial.logs = {}
  end)
end)

it("30: tasks that wait for each other in a long chain, and futures that hold themselves, have short texts", function()
  helper.with_loop(helper.new_loop, function(loop)
    loop:set_debug(true)
    local future = loop:create_future()
    local tasks = { loop:create_task(function() return future:await() end) }
    for i = 2, 100 do
      local before = tasks[i - 1]
      tasks[i] = loop:create_task(function() return before:await() end)
    end
    for _ = 1, 3 do aloop.sleep(0) end
    assert.is_true(#tostring(tasks[100]) < 4000)
    local nested = {}
    for i = 1, 30 do nested = { nested, nested, i } end
    local holder = loop:create_future()
    holder:set_result(nested, holder)
    assert.is_true(#tostring(holder) < 4000)
    local long = loop:call_soon(print, ("x"):rep(1000000))
    assert.is_true(#tostring(long) < 4000)
    long:cancel()
    future:set_result(1)
    assert.equal(1, tasks[100]:await())
    loop:set_debug(false)
  end)
end)
