-- measure.lua - takes one sample: one program in one part, for a fraction of a second. Used by the runner.
--
-- A sample is {value =, rate =}: ns of CPU an operation (idle: resident bytes a connection), and operations per second
-- of wall time where that says something.
--
-- SPDX-License-Identifier: MIT
local shell = require "lib.shell"

---@class Setup
---@field tools string directory of drive, loadgen, spawn
---@field server_core integer
---@field load_core integer
---@field seconds number
---@field warmup number

local measure = {}

local function extend(list, more)
  for _, item in ipairs(more) do list[#list + 1] = item end
  return list
end

local function cores(setup, limit)
  return { setup.tools .. "/drive", "-S", tostring(setup.server_core), "-L", tostring(setup.load_core), "-T",
    tostring(math.ceil(limit)), "--" }
end

local function fail(output, errors)
  local text = (errors ~= "" and errors or output):gsub("%s+$", "")
  error(text ~= "" and text or "failed without a word", 0)
end

local function run(argv)
  local output, ok, errors = shell.run(argv)
  if not ok then fail(output, errors) end
  return output
end

-- The end of drive's command line: the load generator.
local function loadgen(setup, load, more, tool)
  local argv = extend({ "--", setup.tools .. "/" .. (tool or "loadgen"), "-P", "@PID@" }, load)
  return extend(extend(argv, more), { "@ADDR@" })
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.echo(setup, program, part)
  local argv = extend(cores(setup, setup.seconds + setup.warmup + 20), program[part.kind](part.where))
  local times = { "-w", tostring(setup.warmup), "-t", tostring(setup.seconds) }
  local found = shell.pairs(run(extend(argv, loadgen(setup, part.load, times))))
  return { value = found.cpu_ns / found.requests, rate = found.rps }
end

measure.streams = measure.echo
measure.lines = measure.echo
measure.sock = measure.echo

-- Wall time a MiB; the rate is MiB a second.
---@param setup Setup
---@param program Program
function measure.sendfile(setup, program)
  local argv = extend(cores(setup, setup.seconds + 60), program.sendfile())
  local found = shell.pairs(run(extend(argv, loadgen(setup, {}, { "-t", tostring(setup.seconds) }, "sink"))))
  local mib = found.bytes / 1048576
  return { value = found.seconds * 1e9 / mib, rate = mib / found.seconds }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.udp(setup, program, part)
  local argv = extend(cores(setup, setup.seconds + setup.warmup + 20), program.udp())
  local times = { "-w", tostring(setup.warmup), "-t", tostring(setup.seconds) }
  local found = shell.pairs(run(extend(argv, loadgen(setup, part.load, times, "loadudp"))))
  return { value = found.cpu_ns / found.requests, rate = found.rps }
end

---@param setup Setup
---@param program Program
function measure.http(setup, program)
  local seconds = math.max(1, math.ceil(setup.seconds)) -- wrk counts whole ones
  local argv = extend(cores(setup, seconds + 20), program.http())
  local output = run(extend(argv, { "--", "wrk", "-t1", "-c50", ("-d%ds"):format(seconds), "http://@ADDR@/" }))
  local trouble = output:match "Socket errors[^\n]*" or output:match "Non%-2xx[^\n]*"
  if trouble then error(trouble, 0) end
  local requests = tonumber(output:match "(%d+) requests in")
  local rate = tonumber(output:match "Requests/sec:%s*([%d.]+)")
  return { value = shell.pairs(output).drive_cpu_ns / requests, rate = rate }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.idle(setup, program, part)
  local argv = extend(cores(setup, 60), program[part.server or "echo"] "tcp")
  local found = shell.pairs(run(extend(argv, loadgen(setup, part.load, {}))))
  local note = ("%.0f after an echo each, %.0f left after all closed"):format(found.spoken, found.left)
  return { value = found.idle, note = note }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.inproc(setup, program, part)
  local argv = { "nice", "-n", "-20", "timeout", "-s", "KILL", "120", "taskset", "-c", tostring(setup.server_core) }
  return { value = shell.pairs(run(extend(argv, program.inproc(part.bench)))).ns }
end

---@param setup Setup
---@param program Program
function measure.startup(setup, program)
  local argv = { "timeout", "-s", "KILL", "60", setup.tools .. "/spawn", "-c", tostring(setup.server_core), "40" }
  return { value = shell.pairs(run(extend(argv, program.startup))).wall_ns }
end

--- The first answer of an HTTP server, head and body, or nil where curl is missing.
---@param setup Setup
---@param program Program
---@return string|nil
function measure.first_answer(setup, program)
  local argv = extend(cores(setup, 20), program.http())
  local output, ok = shell.run(extend(argv, { "--", "curl", "-si", "http://@ADDR@/" }))
  return ok and output:gsub("drive_cpu_ns=.*", "") or nil
end

return measure
