-- The child of a fork(2) that was called while a loop ran.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local programs = require "spec.support.programs"

local in_child = programs.module "fork"

local function refuses(f)
  local ok, err = pcall(f)
  return not ok and aloop.isinstance(err, aloop.RuntimeError)
end

helper.each_loop(function(_, new_loop)
  local function in_task(body)
    return function() helper.with_loop(new_loop, body) end
  end

  -- row: loop.fork_reset
  it("in the child the loop neither runs nor is current", in_task(function(loop)
    aloop.set_event_loop(loop)
    local status = in_child(function()
      if not refuses(aloop.get_running_loop) then return 1 end
      if not refuses(aloop.sleep, 0) then return 2 end
      if aloop.current_task(loop) then return 3 end
      local _, current = pcall(aloop.get_event_loop) -- the interpreter makes one when it is asked
      return current == loop and 4 or 7
    end)
    assert.equal(7, status)
    assert.equal(loop, aloop.get_running_loop())
    assert.equal(loop, aloop.get_event_loop())
    aloop.set_event_loop(nil)
  end))

  it("another one runs in the child, and the parent's goes on", in_task(function(loop)
    local status = in_child(function()
      return aloop.run(function()
        aloop.sleep(0.001)
        return aloop.get_running_loop() ~= loop and aloop.gather(function() return 7 end) or 1
      end, { loop_factory = new_loop })
    end)
    assert.equal(7, status)
    aloop.sleep(0.001)
    assert.equal(loop, aloop.get_running_loop())
  end))
end)
