-- 23: Ctrl-C left the loop in a state of its own, or stuck (bpo-39622). The first one cancels the main task, which
-- cleans up; afterwards everything can be used again.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"

it("23: after an interrupted aloop.run another one works", function()
  local child = helper.start [[
    local aloop = require "aloop"
    io.stdout:setvbuf("no")
    local ok, e = pcall(aloop.run, function()
      local loop = aloop.get_running_loop()
      loop:call_later(0, print, "ready")
      aloop.create_task(function()
        local _ <close> = aloop.defer(function() aloop.sleep(0.001) print("other cleaned") end)
        aloop.sleep(100)
      end)
      local _ <close> = aloop.defer(function() aloop.sleep(0.001) print("main cleaned") end)
      aloop.sleep(100)
    end)
    print(ok, aloop.isinstance(e, aloop.KeyboardInterrupt), pcall(aloop.get_running_loop) == false)
    print(aloop.run(function() return aloop.sleep(0.001, "again") end))
  ]]
  child:read_until("ready")
  child:kill("INT")
  local result = child:wait()
  assert.equal("main cleaned\nother cleaned\nfalse\ttrue\ttrue\nagain\n", result.stdout)
  assert.equal(0, result.code)
end)

it("23: in the middle of busy callbacks it ends the program in order", function()
  local child = helper.start [[
    local aloop = require "aloop"
    io.stdout:setvbuf("no")
    local loop = aloop.get_event_loop()
    local n = 0
    local function busy()
      n = n + 1
      if n == 1000 then print("ready") end
      loop:call_soon(busy)
    end
    loop:call_soon(busy)
    local _ <close> = aloop.defer(print, "cleaned")
    aloop.sleep(100)
  ]]
  child:read_until("ready")
  child:kill("INT")
  local result = child:wait()
  assert.equal("cleaned\n", result.stdout)
  assert.equal(130, result.code)
end)

it("23: just before the loop begins to wait it is not forgotten", function()
  for _ = 1, 20 do
    local child = helper.start [[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      print("ready")
      aloop.sleep(20)
      print("slept")
    ]]
    child:read_until("ready")
    child:kill("INT")
    local result = child:wait()
    assert.equal("", result.stdout)
    assert.equal(130, result.code)
  end
end)
