-- Shows a task: prints "Hello", waits a second, prints "World". The main chunk is a task by itself, so the calls could
-- stand outside of main as well. Run: aloop hello_coroutine.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function main()
  print("Hello ...")
  aloop.sleep(1)
  print("... World!")
end

aloop.run(main)
