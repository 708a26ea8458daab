-- luv_work.lua - children and the thread pool on luv.
--
--   lua5.4 luv_work.lua true|cat|jobs       as scripts/bench/aloop/work.lua
--
-- Prints wall_ns=N cpu_ns=N a run or job; the CPU is that of this process alone.
--
-- SPDX-License-Identifier: MIT
local uv = require "luv"

local RUNS, CATS, SIZE, JOBS = 2000, 100, 1024 * 1024, 200000

-- Keeps so many runs of start(done) in flight until n are done.
local function in_flight(most, n, start)
  local left = n
  local function again()
    if left == 0 then return end
    left = left - 1
    start(again)
  end
  for _ = 1, most do again() end
  uv.run()
  return n
end

local function spawn(path, stdio, ended)
  local process
  process = assert(uv.spawn(path, { stdio = stdio }, function(code)
    assert(code == 0, "a child failed")
    process:close(ended)
  end))
end

local bench = {}

bench["true"] = function()
  local stdio = { 0, 1, 2 }
  return in_flight(8, RUNS, function(done) spawn("/bin/true", stdio, done) end)
end

local function pattern()
  local bytes = {}
  for i = 1, 65521 do bytes[i] = string.char(i * 31 >> 3 & 255) end
  return table.concat(bytes):rep(SIZE // #bytes + 1):sub(1, SIZE)
end

function bench.cat()
  local data = pattern()
  return in_flight(1, CATS, function(done)
    local input, output, parts, open = uv.new_pipe(false), uv.new_pipe(false), {}, 2
    local function ended()
      open = open - 1
      if open > 0 then return end
      assert(table.concat(parts) == data, "other bytes came back")
      done()
    end
    spawn("/bin/cat", { input, output, 2 }, ended)
    output:read_start(function(err, chunk)
      assert(not err, err)
      if chunk then parts[#parts + 1] = chunk else output:close(ended) end
    end)
    input:write(data, function() input:close() end)
  end)
end

function bench.jobs()
  local queue
  local work = uv.new_work(function() end, function() queue() end)
  return in_flight(100, JOBS, function(done)
    queue = done
    work:queue()
  end)
end

local start, cpu = uv.hrtime(), os.clock()
local n = bench[arg[1]]()
print(("wall_ns=%.0f cpu_ns=%.0f"):format((uv.hrtime() - start) / n, (os.clock() - cpu) * 1e9 / n))
