-- Shows aloop.partial: a callback with arguments bound beforehand, which debug output can show. Run: aloop partial.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local loop <close> = aloop.new_event_loop()
loop:call_soon(aloop.partial(print, "Hello"))
loop:call_soon(loop.stop, loop)
loop:run_forever()
