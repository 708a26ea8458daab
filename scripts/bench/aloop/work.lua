-- work.lua - work outside the loop's thread: children and executors, measured inside one process.
--
--   aloop work.lua true       2,000 runs of /bin/true by create_subprocess_exec, 8 in flight
--   aloop work.lua true.p     the same by subprocess_exec and a SubprocessProtocol
--   aloop work.lua cat        100 runs of cat, one after another, each with a MiB in and out at once (communicate)
--   aloop work.lua cat.p      the same by subprocess_exec and a SubprocessProtocol
--   aloop work.lua jobs       200,000 jobs that do nothing by run_in_executor, 100 in flight
--
-- Prints wall_ns=N cpu_ns=N a run or job; the CPU is that of this process alone.
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local RUNS, CATS, SIZE, JOBS = 2000, 100, 1024 * 1024, 200000
local loop = aloop.get_event_loop()

-- Runs body(i) for 1 to n in so many tasks.
local function in_flight(tasks, n, body)
  local group <close> = aloop.TaskGroup()
  for first = 1, tasks do
    group:create_task(function()
      for i = first, n, tasks do body(i) end
    end)
  end
end

local function pattern()
  local bytes = {}
  for i = 1, 65521 do bytes[i] = string.char(i * 31 >> 3 & 255) end
  return table.concat(bytes):rep(SIZE // #bytes + 1):sub(1, SIZE)
end

local bench = {}

bench["true"] = function()
  in_flight(8, RUNS, function()
    local process = aloop.create_subprocess_exec "/bin/true"
    if process:wait() ~= 0 then error "true failed" end
  end)
  return RUNS
end

local Exit = aloop.SubprocessProtocol:extend("Exit")

function Exit:init(ended)
  self.ended = ended
end

function Exit:connection_lost()
  self.ended:set_result(true)
end

bench["true.p"] = function()
  local inherit = aloop.subprocess.INHERIT
  local options = { stdin = inherit, stdout = inherit, stderr = inherit }
  in_flight(8, RUNS, function()
    local ended = loop:create_future()
    local transport = loop:subprocess_exec(function() return Exit(ended) end, "/bin/true", options)
    ended:await()
    if transport:get_returncode() ~= 0 then error "true failed" end
  end)
  return RUNS
end

function bench.cat()
  local PIPE, data = aloop.subprocess.PIPE, pattern()
  for _ = 1, CATS do
    local process = aloop.create_subprocess_exec("/bin/cat", { stdin = PIPE, stdout = PIPE })
    if process:communicate(data) ~= data then error "other bytes came back" end
    if process.returncode ~= 0 then error "cat failed" end
  end
  return CATS
end

local Cat = Exit:extend("Cat")

function Cat:pipe_data_received(_, data)
  self[#self + 1] = data
end

bench["cat.p"] = function()
  local data = pattern()
  local options = { stderr = aloop.subprocess.INHERIT }
  for _ = 1, CATS do
    local ended = loop:create_future()
    local transport, cat = loop:subprocess_exec(function() return Cat(ended) end, "/bin/cat", options)
    local stdin = transport:get_pipe_transport(0)
    stdin:write(data)
    stdin:close()
    ended:await()
    if table.concat(cat) ~= data or transport:get_returncode() ~= 0 then error "cat failed" end
  end
  return CATS
end

function bench.jobs()
  local function nothing() end
  in_flight(100, JOBS, function()
    loop:run_in_executor(nil, nothing):await()
  end)
  return JOBS
end

local run = bench[arg[1]]
if not run then error("no such benchmark: " .. tostring(arg[1])) end
local start, cpu = loop:time(), os.clock()
local n = run()
local wall, used = loop:time() - start, os.clock() - cpu
print(("wall_ns=%.0f cpu_ns=%.0f"):format(wall * 1e9 / n, used * 1e9 / n))
