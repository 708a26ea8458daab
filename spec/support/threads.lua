-- threads.lua - what the specs of executors and remotes share: jobs that wait for a word, and how many threads there
-- are. Required by name.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local helper = require "spec.helper"

local threads = {}

local function name_of(tid)
  local file <close> = io.open("/proc/self/task/" .. tid .. "/comm")
  return file and file:read("l") or ""
end

-- The workers among the threads of this process: they have numbers. Those that were joined just now may still be among
-- them.
function threads.count()
  local n = 0
  for tid in lfs.dir("/proc/self/task") do
    if name_of(tid):find("_%d+$") then n = n + 1 end
  end
  return n
end

-- A gate for jobs, which blocks their threads until it is opened, for one of them at a time. They get `gate.path` and
-- call `threads.pass(path, ...)`, which returns the rest.
function threads.gate()
  local reader, writer = aloop.pipe()
  local gate = { path = "/proc/self/fd/" .. reader:fileno() }
  function gate.open(n) writer:write(("x"):rep(n or 1)) end
  return setmetatable(gate, {
    __close = function()
      reader:close()
      writer:close()
    end,
  })
end

function threads.pass(path, ...)
  local file <close> = assert(io.open(path, "rb"))
  file:setvbuf("no")
  file:read(1)
  return ...
end

-- A pool of one worker, or of n.
function threads.pool(n)
  return aloop.ThreadPoolExecutor { max_workers = n or 1 }
end

-- In a task: waits until f() is true.
function threads.until_true(f)
  while not f() do aloop.sleep(0.001) end
end

-- The same: there are no workers, those of earlier specs are gone.
function threads.until_alone()
  threads.until_true(function() return threads.count() == 0 end)
end

-- The same for a job that is to run.
function threads.until_running(future)
  threads.until_true(function() return future:running() end)
end

-- Runs body(loop) in a callback of a fresh loop, where nothing can be suspended.
function threads.blocking(body)
  helper.as_task(function(loop)
    local outcome = loop:create_future()
    loop:call_soon(function() outcome:set_result(xpcall(body, debug.traceback, loop)) end)
    local ok, err = outcome:await()
    if not ok then error(err, 0) end
  end)
end

-- Runs f(...), which may have no upvalues, in a state without a loop, and returns its results.
function threads.elsewhere(f, ...)
  local args, results = table.pack(...), nil
  helper.as_task(function()
    local pool <close> = threads.pool()
    results = table.pack(pool:submit(f, table.unpack(args, 1, args.n)):await())
  end)
  return table.unpack(results, 1, results.n)
end

-- The ConcurrentFutures' own descriptor of this state is there from now on, so that it counts as no leak later.
aloop.ConcurrentFuture():add_done_callback(function() end)

return threads
