-- 06: gather with return_exceptions swallowed its own cancellation (gh-76865); shield lost the inner error, or told it
-- twice (gh-86802, gh-156321); who waited and was cancelled left something behind in what it waited for (gh-155854).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

it("06: gather with return_exceptions that is cancelled is cancelled", function()
  helper.with_loop(helper.new_loop, function(loop)
    local parent = loop:create_task(function()
      return aloop.gather({ function() aloop.sleep(1000) end, function()
        pcall(aloop.sleep, 1000)
        return "stubborn"
      end }, { return_exceptions = true })
    end)
    aloop.sleep(0)
    aloop.sleep(0)
    parent:cancel()
    raises(aloop.CancelledError, nil, parent.await, parent)
    assert.is_true(parent:cancelled())
  end)
end)

it("06: the error of a shielded future is told once, whoever waited", function()
  helper.drive(helper.new_loop, function(loop, trial)
    trial:run_task(function()
      local inner = loop:create_task(function()
        aloop.sleep(0.002)
        error(aloop.ValueError("once"))
      end)
      local waiters = {}
      for i = 1, 3 do waiters[i] = loop:create_task(function() aloop.shield(inner) end) end
      aloop.sleep(0)
      for _, waiter in ipairs(waiters) do waiter:cancel() end
      aloop.wait { inner, table.unpack(waiters) }
      aloop.sleep(0)
      aloop.sleep(0)
    end)
    collectgarbage()
    collectgarbage()
    helper.turn(loop, 2)
    assert.equal("once", trial:take_error().exception.message)
    assert.equal(0, #trial.errors)
  end)
end)

it("06: waiters that were cancelled leave nothing in the future", function()
  helper.with_loop(helper.new_loop, function(loop)
    local inner = loop:create_future()
    local function cancelled(body)
      local task = loop:create_task(body)
      aloop.sleep(0)
      aloop.sleep(0)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
    end
    local function callbacks()
      local _, n = tostring(inner):gsub("function <", "")
      return n
    end
    for _ = 1, 50 do cancelled(function() aloop.shield(inner) end) end
    local left = callbacks()
    assert.is_true(left <= 1)
    for _ = 1, 50 do
      cancelled(function() aloop.wait { inner } end)
      cancelled(function()
        for _ in aloop.as_completed { inner } do error("never") end -- luacheck: ignore 512
      end)
      pcall(aloop.gather, inner, function() error("at once", 0) end)
    end
    assert.equal(left, callbacks())
    assert.is_false(inner:done())
    inner:set_result()
    aloop.sleep(0)
  end)
end)
