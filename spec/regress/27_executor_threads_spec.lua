-- 27: threads of executors were left behind when a run ended (gh-78218, pyasyncio#258), and their results met loops
-- that were being closed (gh-96827, anyio#1265).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local threads = require "spec.support.threads"

local function fail() error("nobody takes this", 0) end

helper.each_loop(function(_, new_loop)
  it("27: no worker is left when a run ends, however it ends", function()
    helper.as_task(threads.until_alone)
    for _, main in ipairs {
      function() aloop.get_running_loop():run_in_executor(nil, math.abs, -1) end,
      function()
        local future = aloop.get_running_loop():run_in_executor(nil, math.abs, -1)
        aloop.current_task():cancel()
        future:await()
      end,
      fail,
      function() for i = 1, 50 do aloop.create_task(function() aloop.to_thread(math.abs, i) end) end end,
    } do
      pcall(aloop.run, main, { loop_factory = new_loop })
      assert.is_true(threads.count() <= 1) -- one that was joined just now may still be shown
    end
    helper.as_task(threads.until_alone)
  end)

  it("27: results that come when the loop is closed are dropped", function()
    for i = 1, 30 do
      local loop = new_loop()
      local pool = threads.pool(2)
      for _ = 1, 10 do
        loop:run_in_executor(pool, math.abs, -1)
        loop:run_in_executor(nil, tostring, i)
      end
      pool:submit(fail)
      helper.turn(loop, i % 3)
      loop:close()
      threads.blocking(function() pool:shutdown() end)
    end
    collectgarbage()
  end)
end)
