-- shield: the cancellation of who waits doesn't reach what is waited for.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

-- A task that waits shielded for inner, and has begun to.
local function shielding(loop, inner)
  local outer = loop:create_task(function() return aloop.shield(inner) end)
  aloop.sleep(0)
  return outer
end

describe("shield", function()
  it("gives the values or the error of what it waits for", function() -- row: shield
    as_task(function(loop)
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.shield(function()
        aloop.sleep(0)
        return 1, nil, 3
      end)))
      raises(aloop.ValueError, "v", aloop.shield, function() error(aloop.ValueError("v")) end)
      local done = loop:create_future()
      done:set_result("done")
      assert.equal("done", (aloop.shield(done)))
    end)
  end)

  it("keeps a cancellation away from it", function() -- row: shield
    as_task(function(loop)
      local inner = loop:create_task(function()
        aloop.sleep(0.002)
        return "whole"
      end)
      local outer = shielding(loop, inner)
      outer:cancel("why")
      raises(aloop.CancelledError, "why", outer.await, outer)
      assert.equal(0, inner:cancelling())
      assert.equal("whole", inner:await())
    end)
  end)

  it("is cancelled by the cancellation of what it waits for", function()
    as_task(function(loop)
      local inner = loop:create_future()
      local outer = shielding(loop, inner)
      inner:cancel()
      raises(aloop.CancelledError, nil, outer.await, outer)
      assert.equal(0, outer:cancelling())
    end)
  end)

  it("reports the inner error when nobody is left to take it", function()
    helper.with_loop(helper.new_loop, function(loop, trial)
      local inner = loop:create_task(function()
        aloop.sleep(0.001)
        error(aloop.ValueError("left alone"))
      end)
      local outer = shielding(loop, inner)
      outer:cancel()
      pcall(outer.await, outer)
      aloop.wait { inner }
      aloop.sleep(0)
      aloop.sleep(0)
      local context = trial:take_error()
      assert.equal("ValueError exception in shielded future", context.message)
      assert.equal("left alone", context.exception.message)
      assert.equal(inner, context.future)
    end)
  end)

  it("doesn't report an error that another one takes", function()
    as_task(function(loop)
      local inner = loop:create_task(function()
        aloop.sleep(0.001)
        error("taken", 0)
      end)
      local outer = shielding(loop, inner)
      outer:cancel()
      local ok, e = pcall(inner.await, inner)
      assert.is_false(ok)
      assert.equal("taken", e)
      pcall(outer.await, outer)
      aloop.sleep(0.002)
    end)
  end)

  it("refuses wrong arguments", function()
    as_task(function()
      type_error("bad argument #1 to 'shield' (awaitable expected, got table; pass the function, don't call it)",
        aloop.shield, {})
      local other = helper.new_loop()
      raises(aloop.ValueError, "different loop", aloop.shield, other:create_future())
      other:close()
    end)
  end)
end)
