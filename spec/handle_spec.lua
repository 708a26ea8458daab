-- Handle, what it holds and what it shows. Timers have a spec of their own.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local function nop() end

describe("Handle", function()
  it("is what call_soon returns", function() -- row: Handle
    helper.drive(helper.new_loop, function(loop)
      local handle = loop:call_soon(nop)
      assert.is_true(aloop.isinstance(handle, aloop.Handle))
      assert.is_false(aloop.isinstance(handle, aloop.TimerHandle))
      assert.matches("Handle", tostring(handle))
      handle:cancel()
    end)
  end)

  it("get_context gives the context of the callback", function() -- row: Handle.get_context
    helper.drive(helper.new_loop, function(loop)
      local var = aloop.ContextVar("v")
      local ctx = aloop.copy_context()
      assert.equal(ctx, loop:call_soon(ctx:bind(nop)):get_context())
      assert.equal(ctx, loop:call_later(0, ctx:bind(nop)):get_context())
      ctx:run(function()
        var:set("there")
        local taken = loop:call_soon(nop):get_context()
        assert.equal("there", taken:run(var.get, var))
        assert.are_not.equal(ctx, taken)
      end)
      helper.turn(loop)
    end)
  end)

  it("cancel may be called twice, and after the callback ran", function() -- row: Handle.cancel
    helper.drive(helper.new_loop, function(loop)
      local n = 0
      local ran = loop:call_soon(function() n = n + 1 end)
      helper.turn(loop)
      ran:cancel()
      ran:cancel()
      local never = loop:call_soon(function() n = n + 1 end)
      never:cancel()
      never:cancel()
      helper.turn(loop, 2)
      assert.equal(1, n)
    end)
  end)

  it("cancelled is false for one that ran", function() -- row: Handle.cancelled
    helper.drive(helper.new_loop, function(loop)
      local handle = loop:call_soon(nop)
      assert.is_false(handle:cancelled())
      helper.turn(loop)
      assert.is_false(handle:cancelled())
      local other = loop:call_soon(nop)
      other:cancel()
      assert.is_true(other:cancelled())
    end)
  end)

  it("may be cancelled by its own callback", function()
    helper.drive(helper.new_loop, function(loop)
      local handle
      handle = loop:call_soon(function() handle:cancel() end)
      local timer
      timer = loop:call_later(0, function() timer:cancel() end)
      helper.turn(loop, 2)
    end)
  end)

  it("lets go of callback and arguments when cancelled", function() -- row: Handle.cancel_releases
    helper.drive(helper.new_loop, function(loop)
      local weak = setmetatable({}, { __mode = "v" })
      local handles = {}
      do
        local argument = {}
        local callback = function() return argument end
        weak[1], weak[2] = argument, callback
        handles[1] = loop:call_soon(callback, argument)
        handles[2] = loop:call_later(1000, callback, argument)
      end
      for _, handle in ipairs(handles) do handle:cancel() end
      collectgarbage()
      collectgarbage()
      assert.is_nil(weak[1])
      assert.is_nil(weak[2])
    end)
  end)

  it("keeps callback and arguments while it is queued, held by nobody else", function()
    helper.drive(helper.new_loop, function(loop)
      local got
      do
        local argument = { "kept" }
        loop:call_soon(function(x) got = x[1] end, argument)
        loop:call_later(0, function(x) got = got .. x[1] end, argument)
      end
      collectgarbage()
      collectgarbage()
      helper.turn(loop, 2)
      assert.equal("keptkept", got)
    end)
  end)

  -- row: Handle.repr, debug.partial_display
  it("tostring shows callback and arguments, cancelled, time, and in debug mode the place of its making", function()
    helper.drive(helper.new_loop, function(loop)
      local handle = loop:call_soon(nop, "arg", 7)
      local text = tostring(handle)
      assert.matches("^<Handle .*handle_spec%.lua:7.*>$", text)
      assert.matches("arg", text)
      assert.matches("7", text)
      handle:cancel()
      assert.matches("cancelled", tostring(handle))
      local timer = loop:call_later(100, nop)
      assert.matches("^<TimerHandle .*when=%d", tostring(timer))
      timer:cancel()
      loop:set_debug(true)
      local made = loop:call_soon(nop)
      assert.matches("created at .*handle_spec%.lua:%d+", tostring(made))
      made:cancel()
      for _, cancelled in ipairs { loop:call_soon(nop, "kept", 1), loop:call_later(100, nop, "kept", 1) } do
        cancelled:cancel()
        assert.matches("^<%w+ cancelled .*handle_spec%.lua:7>%('kept', 1%) created at", tostring(cancelled))
      end
    end)
  end)
end)
