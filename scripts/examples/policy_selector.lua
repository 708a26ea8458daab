-- Shows how to choose what all loops of a program wait with: an event loop policy whose new_event_loop makes loops over
-- select(2). The main chunk's own loop and those of aloop.run come from it.
-- Run: aloop policy_selector.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local MyPolicy = aloop.DefaultEventLoopPolicy:extend("MyPolicy")

function MyPolicy:new_event_loop()
  local selector = aloop.selectors.SelectSelector()
  return aloop.SelectorEventLoop(selector)
end

aloop.set_event_loop_policy(MyPolicy())

local loop <close> = aloop.new_event_loop()
print(loop)
print(aloop.run(function() return aloop.sleep(0.01, "slept on select") end))
