-- luv_inproc.lua - the loop's own work on luv. It has no queue of callbacks, so only the rest is measured.
--
--   lua5.4 luv_inproc.lua timers|cancel|reset|switch|switch100       prints ns=NANOSECONDS, CPU an operation
--
-- SPDX-License-Identifier: MIT
local uv = require "luv"

local MILLION, TIMEOUTS, RESETS = 1000000, 100000, 2000000
local clock = os.clock

-- 1 to 1000 ms in no order, the same sequence in each language.
local seed = 1
local function next_delay()
  seed = (seed * 1103515245 + 12345) & 0x7fffffff
  return 1 + (seed >> 8) % 1000
end

local bench = {}
local function ignore() end

function bench.timers()
  for _ = 1, MILLION do
    local timer = uv.new_timer()
    timer:start(next_delay(), 0, function() timer:close() end)
  end
  uv.run()
  return MILLION
end

function bench.cancel()
  local set = {}
  for i = 1, MILLION do
    set[i] = uv.new_timer()
    set[i]:start(60000 + next_delay(), 0, ignore)
  end
  for i = 1, MILLION do set[i]:close() end
  uv.run()
  return MILLION
end

function bench.reset()
  local set = {}
  for i = 1, TIMEOUTS do
    set[i] = uv.new_timer()
    set[i]:start(30000, 0, ignore)
  end
  local start = clock()
  for i = 0, RESETS - 1 do set[i % TIMEOUTS + 1]:start(30000, 0, ignore) end
  return RESETS, clock() - start
end

-- Coroutines that are resumed once a turn of the loop, each by an idle handle of its own.
local function switch(tasks)
  local turns = MILLION // tasks
  for _ = 1, tasks do
    local idle = uv.new_idle()
    local step = coroutine.wrap(function()
      for _ = 1, turns do coroutine.yield() end
      idle:close()
    end)
    idle:start(step)
  end
  uv.run()
  return MILLION
end

function bench.switch() return switch(1) end
function bench.switch100() return switch(100) end

local run = bench[arg[1]]
if not run then error("no such benchmark: " .. tostring(arg[1])) end
local start = clock()
local n, took = run()
print(("ns=%.2f"):format((took or clock() - start) * 1e9 / n))
io.stdout:flush()
os.exit(0)
