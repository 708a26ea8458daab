-- Shows an asynchronous generator: a coroutine that hands items to a `for` loop and may wait in between. Leaving the
-- loop early closes it, and what it cleans up with may wait too.
-- Run: aloop async_generator.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

-- Counts, an item each `delay` seconds.
local ticker = aloop.async_generator(function(delay, limit)
  local _ <close> = aloop.defer(function()
    aloop.sleep(delay)
    print("ticker closed")
  end)
  for i = 1, limit do
    aloop.sleep(delay)
    coroutine.yield(i, i * i)
  end
end)

-- Generators may be made of generators.
local even = aloop.async_generator(function(...)
  for i, square in ticker(...) do
    if i % 2 == 0 then coroutine.yield(i, square) end
  end
end)

for i, square in ticker(0.01, 3) do
  print(i, square)
end
for i, square in even(0.01, 100) do
  print(i, square)
  if i == 4 then break end
end
