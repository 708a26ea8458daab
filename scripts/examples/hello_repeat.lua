-- Shows a callback that schedules itself: "Hello World" every two seconds, for ever. Run: aloop hello_repeat.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function print_and_repeat(loop)
  print("Hello World")
  io.stdout:flush()
  loop:call_later(2, print_and_repeat, loop)
end

local loop <close> = aloop.new_event_loop()
loop:call_soon(print_and_repeat, loop)
loop:run_forever()
