-- Shows a future that one task ends and another waits for: prints "hello ... world" with a second between.
-- Run: aloop future_get_running_loop.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function set_after(future, delay, value)
  aloop.sleep(delay)
  future:set_result(value)
end

local function main()
  local loop = aloop.get_running_loop()
  local future = loop:create_future()
  loop:create_task(function() set_after(future, 1, "... world") end)
  print("hello ...")
  print(future:await())
end

aloop.run(main)
