-- 26: timers fired early (gh-75720, gh-127859), huge delays overflowed (uvloop#259), cancelled ones leaked (uvloop
-- 2b6620b). The rule is: never early.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  it("26: none of many timers fires early", function()
    helper.drive(new_loop, function(loop)
      local early, fired = 0, 0
      local n = 500
      local random = 7
      for _ = 1, n do
        random = (random * 1103515245 + 12345) % 2147483648
        local when = loop:time() + (random // 65536 % 1000) * 0.00005
        loop:call_at(when, function()
          if loop:time() < when then early = early + 1 end
          fired = fired + 1
          if fired == n then loop:stop() end
        end)
      end
      loop:run_forever()
      assert.equal(0, early)
    end)
  end)

  it("26: huge, infinite and negative delays are what they say", function()
    helper.drive(new_loop, function(loop)
      local fired = {}
      local handles = {}
      for _, delay in ipairs { 1e10, 2 ^ 53, 1e18, 1e19, 1e300, math.huge, math.maxinteger } do
        handles[#handles + 1] = loop:call_later(delay, function() fired[#fired + 1] = delay end)
        handles[#handles + 1] = loop:call_at(delay, function() fired[#fired + 1] = delay end)
      end
      for _, delay in ipairs { -1e10, -1e300, -math.huge, math.mininteger } do
        loop:call_later(delay, function() fired[#fired + 1] = "past" end)
      end
      helper.turn(loop, 3)
      assert.same({ "past", "past", "past", "past" }, fired)
      for _, handle in ipairs(handles) do handle:cancel() end
    end)
  end)
end)

it("26: timeouts that are set and cancelled again and again leave nothing", function()
  helper.with_loop(helper.new_loop, function(loop)
    local base = core.stats(loop).timers
    for _ = 1, 20000 do loop:call_later(100, print):cancel() end
    for _ = 1, 200 do
      local task = loop:create_task(function() aloop.sleep(100) end)
      aloop.sleep(0)
      task:cancel()
      pcall(task.await, task)
    end
    assert.equal(base, core.stats(loop).timers)
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 20000 do loop:call_later(100, print):cancel() end
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 200)
  end)
end)
