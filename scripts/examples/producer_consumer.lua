-- Shows a queue between producers and consumers: while it is full the producers wait, while it is empty the consumers
-- do; when all is made and dealt with, shutting it down ends the consumers' loops.
-- Run: aloop producer_consumer.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local queue = aloop.Queue(4)
local done = 0

local function produce(shop, count)
  for number = 1, count do
    aloop.sleep(0.001) -- making it takes its time
    queue:put(("%s %d"):format(shop, number))
  end
end

local function consume()
  for _ in queue:items() do
    aloop.sleep(0.002) -- and so does dealing with it
    done = done + 1
    queue:task_done()
  end
end

do
  local consumers <close> = aloop.TaskGroup()
  for _ = 1, 3 do consumers:create_task(consume) end
  do
    local producers <close> = aloop.TaskGroup()
    producers:create_task(function() produce("cheese", 12) end)
    producers:create_task(function() produce("bread", 8) end)
  end -- here all is made,
  queue:join() -- here all is dealt with,
  print(done .. " items are done")
  queue:shutdown()
end -- and here the consumers have ended
print "the consumers went home"
