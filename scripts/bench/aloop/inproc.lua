-- inproc.lua - the loop's own work, measured inside one process: callbacks, timers, tasks.
--
--   aloop inproc.lua chain|soon|timers|cancel|reset|reset.cancel|switch|switch100|tasks|alive|timeouts|queue
--
-- Prints ns=NANOSECONDS, CPU an operation.
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local MILLION, CHAIN, TIMEOUTS, RESETS, ALIVE = 1000000, 2000000, 100000, 2000000, 500000
local loop = aloop.get_event_loop()
local clock = os.clock

-- 1 to 1000 ms in no order, the same sequence in each language.
local seed = 1
local function next_delay()
  seed = (seed * 1103515245 + 12345) & 0x7fffffff
  return (1 + (seed >> 8) % 1000) / 1000
end

-- Calls start and waits until it calls the function that it is given.
local function until_done(start)
  local future = loop:create_future()
  start(function()
    future:set_result(true)
  end)
  future:await()
end

local bench = {}

function bench.chain()
  local left = CHAIN
  until_done(function(done)
    local function step()
      left = left - 1
      if left > 0 then loop:call_soon(step) else done() end
    end
    loop:call_soon(step)
  end)
  return CHAIN
end

-- Counts n calls, then calls done.
local function countdown(n, done)
  return function()
    n = n - 1
    if n == 0 then done() end
  end
end

function bench.soon()
  until_done(function(done)
    local count = countdown(MILLION, done)
    for _ = 1, MILLION do loop:call_soon(count) end
  end)
  return MILLION
end

function bench.timers()
  until_done(function(done)
    local count = countdown(MILLION, done)
    for _ = 1, MILLION do loop:call_later(next_delay(), count) end
  end)
  return MILLION
end

local function ignore() end

function bench.cancel()
  local set = {}
  for i = 1, MILLION do set[i] = loop:call_later(60 + next_delay(), ignore) end
  for i = 1, MILLION do set[i]:cancel() end
  return MILLION
end

function bench.reset()
  local set = {}
  for i = 1, TIMEOUTS do set[i] = loop:call_later(30, ignore) end
  local start = clock()
  for i = 0, RESETS - 1 do set[i % TIMEOUTS + 1]:reschedule(loop:time() + 30) end
  local took = clock() - start
  for i = 1, TIMEOUTS do set[i]:cancel() end
  return RESETS, took
end

bench["reset.cancel"] = function()
  local set = {}
  for i = 1, TIMEOUTS do set[i] = loop:call_later(30, ignore) end
  local start = clock()
  for i = 0, RESETS - 1 do
    local k = i % TIMEOUTS + 1
    set[k]:cancel()
    set[k] = loop:call_later(30, ignore)
  end
  local took = clock() - start
  for i = 1, TIMEOUTS do set[i]:cancel() end
  return RESETS, took
end

local function sleeper(n)
  local sleep = aloop.sleep
  return function()
    for _ = 1, n do sleep(0) end
  end
end

function bench.switch()
  loop:create_task(sleeper(MILLION)):await()
  return MILLION
end

function bench.switch100()
  local tasks = {}
  for i = 1, 100 do tasks[i] = loop:create_task(sleeper(MILLION // 100)) end
  for i = 1, 100 do tasks[i]:await() end
  return MILLION
end

function bench.tasks()
  local n = 300000
  until_done(function(done)
    local count = countdown(n, done)
    loop:create_task(function()
      for _ = 1, n // 1000 do
        for _ = 1, 1000 do loop:create_task(count) end
        aloop.sleep(0)
      end
    end)
  end)
  return n
end

-- Tasks that are alive at once, and wait once each.
function bench.alive()
  local n, sleep, set = ALIVE, aloop.sleep, {}
  local function body() sleep(0) end
  for i = 1, n do set[i] = loop:create_task(body) end
  for i = 1, n do set[i]:await() end
  return n
end

function bench.timeouts()
  for _ = 1, MILLION do
    local _ <close> = aloop.timeout(10)
  end
  return MILLION
end

-- Two tasks hand an item to and fro; a round is there and back.
function bench.queue()
  local there, back, n = aloop.Queue(), aloop.Queue(), 500000
  local echo = loop:create_task(function()
    for _ = 1, n do back:put(there:get()) end
  end)
  local asker = loop:create_task(function()
    for i = 1, n do
      there:put(i)
      back:get()
    end
  end)
  asker:await()
  echo:await()
  return n
end

aloop.sleep(0.001) -- the loop runs from here on
local run = bench[arg[1]]
if not run then error("no such benchmark: " .. tostring(arg[1])) end
local start = clock()
local n, took = run()
print(("ns=%.2f"):format((took or clock() - start) * 1e9 / n))
io.stdout:flush()
os.exit(0) -- what was measured is done; a million dead objects need no tidying
