-- Shows blocking code and long computations beside a running loop: in the default thread pool, in one of one's own, in
-- worker processes, and in interpreters, as Python calls Lua states of their own. Run: aloop run_in_executor.lua
--
-- No guard is needed against workers that run this file again: they are sent functions, by value.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function blocking_io()
  -- File operations (such as logging) can block the event loop: run them in a thread pool.
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  return file:read(100)
end

local function cpu_bound()
  -- CPU-bound operations will block the event loop: in general it is preferable to run them in worker processes, or in
  -- threads, each of which has a Lua state of its own here.
  local sum = 0
  for i = 0, 999999 do sum = sum + i * i end
  return sum
end

local function main()
  local loop = aloop.get_running_loop()

  -- 1. Run in the default loop's executor:
  local result = loop:run_in_executor(nil, blocking_io):await()
  print("default thread pool", #result)

  -- 2. Run in a custom thread pool:
  do
    local pool <close> = aloop.ThreadPoolExecutor()
    result = loop:run_in_executor(pool, blocking_io):await()
    print("custom thread pool", #result)
  end

  -- 3. Run in a custom process pool:
  do
    local pool <close> = aloop.ProcessPoolExecutor()
    result = loop:run_in_executor(pool, cpu_bound):await()
    print("custom process pool", result)
  end

  -- 4. Run in a custom interpreter pool:
  do
    local pool <close> = aloop.InterpreterPoolExecutor()
    result = loop:run_in_executor(pool, cpu_bound):await()
    print("custom interpreter pool", result)
  end
end

aloop.run(main)
