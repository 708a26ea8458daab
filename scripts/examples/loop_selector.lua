-- Shows how to choose what a loop waits with: a SelectorEventLoop over select(2) becomes the current event loop.
-- Run: aloop loop_selector.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local selector = aloop.selectors.SelectSelector()
local loop <close> = aloop.SelectorEventLoop(selector)
aloop.set_event_loop(loop)

assert(aloop.get_event_loop() == loop)
print(loop:run_until_complete(function() return aloop.sleep(0, "running on select") end))
