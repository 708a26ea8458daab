-- Shows call_soon: a callback prints "Hello World" and stops the loop. Run: aloop hello_call_soon.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function hello_world(loop)
  print("Hello World")
  loop:stop()
end

local loop <close> = aloop.new_event_loop() -- closed at the end, whatever happens
loop:call_soon(hello_world, loop)
loop:run_forever() -- until stop()
