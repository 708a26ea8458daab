-- 22: signals went through a pipe as bytes; when it was full, they were lost (gh-74224). The byte may only mean
-- "look": what is pending is kept elsewhere, signal by signal.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local PID = io.open("/proc/self/stat"):read("n")

helper.each_loop(function(_, new_loop)
  it("22: a flood of one signal doesn't drown another", function()
    helper.drive(new_loop, function(loop)
      local flood, single = 0, 0
      loop:add_signal_handler("SIGUSR1", function() flood = flood + 1 end)
      loop:add_signal_handler("SIGUSR2", function() single = single + 1 end)
      -- More than the bytes that a pipe holds.
      for _ = 1, 70000 do aloop.signal.kill(PID, "SIGUSR1") end
      aloop.signal.kill(PID, "SIGUSR2")
      for _ = 1, 10 do helper.turn(loop) end
      assert.equal(1, single)
      assert.is_true(flood >= 1)
      aloop.signal.kill(PID, "SIGUSR1")
      local before = flood
      for _ = 1, 3 do helper.turn(loop) end
      assert.is_true(flood > before)
      loop:remove_signal_handler("SIGUSR1")
      loop:remove_signal_handler("SIGUSR2")
    end)
  end)
end)
