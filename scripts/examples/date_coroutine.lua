-- Shows sleep in a task: prints the date each second for five seconds. Run: aloop date_coroutine.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function display_date()
  local loop = aloop.get_running_loop()
  local end_time = loop:time() + 5.0
  while true do
    print(os.date("%Y-%m-%d %H:%M:%S"))
    if loop:time() + 1.0 >= end_time then break end
    aloop.sleep(1)
  end
end

aloop.run(display_date)
