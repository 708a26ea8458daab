-- Shows how a program that drives a loop itself ends its asynchronous generators: shutdown_asyncgens() closes those
-- that are still open and waits for it, whatever ended the run. aloop.run and a main chunk do this by themselves.
-- Run: aloop shutdown_asyncgens.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local readings = aloop.async_generator(function()
  local _ <close> = aloop.defer(function()
    aloop.sleep(0.01)
    print("sensor released")
  end)
  for i = 1, math.huge do
    aloop.sleep(0.01)
    coroutine.yield(20 + i)
  end
end)

local loop = aloop.new_event_loop()
local sensor = readings()

local function main()
  print("reading: " .. sensor())
  loop:stop() -- the generator is still open, with what it holds
end

local task = loop:create_task(main)
do
  local _ <close> = aloop.defer(function()
    loop:run_until_complete(function() loop:shutdown_asyncgens() end)
    loop:close()
  end)
  loop:run_forever()
end
print(task:done() and "main is done", loop:is_closed() and "loop closed")
