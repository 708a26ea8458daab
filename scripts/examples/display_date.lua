-- Shows call_later: a callback prints the date each second for five seconds, then stops the loop.
-- Run: aloop display_date.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function display_date(end_time, loop)
  print(os.date("%Y-%m-%d %H:%M:%S"))
  if loop:time() + 1.0 < end_time then
    loop:call_later(1, display_date, end_time, loop)
  else
    loop:stop()
  end
end

local loop <close> = aloop.new_event_loop()
loop:call_soon(display_date, loop:time() + 5.0, loop)
loop:run_forever()
