-- measure.lua - takes one sample: one program in one part, for a fraction of a second. Used by the runner.
--
-- A sample is {value =, rate =, second =, note =, flaw =}: ns an operation or resident bytes, operations per second of
-- wall time where that says something, the figure of the part's `second`, what else is worth saying, what is wrong.
--
-- SPDX-License-Identifier: MIT
local certs = require "lib.certs"
local shell = require "lib.shell"

---@class Setup
---@field tools string directory of drive, loadgen, spawn
---@field tls string directory of the certificate
---@field cycles integer of the kind cycles
---@field certified? string|false why there is no certificate; nil: not tried yet
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

-- Returns what it wrote to stdout and to stderr.
local function run(argv)
  local output, ok, errors = shell.run(argv)
  if not ok then fail(output, errors) end
  return output, errors
end

-- The end of drive's command line: the load generator.
local function loadgen(setup, load, more, tool)
  local argv = extend({ "--", setup.tools .. "/" .. (tool or "loadgen"), "-P", "@PID@" }, load)
  return extend(extend(argv, more), { "@ADDR@" })
end

local function tls_load(setup, load, more)
  return loadgen(setup, load, extend({ "-x", certs.paths(setup.tls).certificate }, more), "loadtls")
end

local function part_load(setup, part, more)
  return (part.tls and tls_load or loadgen)(setup, part.load, more)
end

--- The command line that starts a program for a part, or nil if it doesn't take part.
---@param program Program
---@param part Part
---@return string[]|nil
function measure.command(program, part)
  local start = program[part.starts or part.kind]
  return start and start(part.where or part.bench or "tcp")
end

local command = measure.command

---@param setup Setup
---@param program Program
---@param part Part
function measure.echo(setup, program, part)
  local argv = extend(cores(setup, setup.seconds + setup.warmup + 20), command(program, part))
  local times = { "-w", tostring(setup.warmup), "-t", tostring(setup.seconds) }
  local found = shell.pairs(run(extend(argv, part_load(setup, part, times))))
  return { value = found.cpu_ns / found.requests, rate = found.rps }
end

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

-- Of those that have just been opened, or with `spoken` of those that were spoken with if that is more.
---@param setup Setup
---@param program Program
---@param part Part
function measure.idle(setup, program, part)
  local argv = extend(cores(setup, 60), command(program, part))
  local found = shell.pairs(run(extend(argv, part_load(setup, part, {}))))
  local note = ("%.0f before, %.0f after an echo each, %.0f left after all closed"):format(found.idle, found.spoken,
    found.left)
  return { value = part.spoken and math.max(found.idle, found.spoken) or found.idle, note = note }
end

local function lines(text)
  return select(2, text:gsub("[^\n]+", ""))
end

-- Resident bytes that came over many connections.
---@param setup Setup
---@param program Program
---@param part Part
function measure.cycles(setup, program, part)
  local argv = extend(cores(setup, 300), command(program, part))
  local load = { "-m", "cycles", "-s", "64", "-n", tostring(setup.cycles) }
  local output, errors = run(extend(argv, tls_load(setup, load, {})))
  local found, logged = shell.pairs(output), lines(errors)
  local note = ("%d + %d connections, descriptors %d -> %d, %d lines logged"):format(setup.cycles, setup.cycles,
    found.fds_before, found.fds_after, logged)
  local flaw = (found.fds_after > found.fds_before and "descriptors left") or (logged > 0 and "lines logged") or nil
  return { value = found.rss_after - found.rss_before, note = note, flaw = flaw }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.drain(setup, program, part)
  local argv = extend(cores(setup, 60), command(program, part))
  local found = shell.pairs(run(extend(argv, loadgen(setup, {}, { "-t", tostring(setup.seconds) }, "stall"))))
  if found.bytes ~= 1 << 30 then error(("%.0f bytes came"):format(found.bytes), 0) end
  return { value = found.most - found.before, note = ("%.0f before"):format(found.before) }
end

local REDIS = 'redis-benchmark -h "${1%:*}" -p "${1##*:}" -t set,get -P 16 -n "$2" --csv'

---@param setup Setup
---@param program Program
---@param part Part
function measure.redis(setup, program, part)
  local argv = extend(cores(setup, 60), command(program, part))
  local count = math.ceil(setup.seconds * 500000)
  local output = run(extend(argv, { "--", "sh", "-c", REDIS, "sh", "@ADDR@", tostring(count) }))
  local sets, gets = output:match '"SET","([%d.]+)"', output:match '"GET","([%d.]+)"'
  if not gets then error(output, 0) end
  sets, gets = tonumber(sets), tonumber(gets)
  local rate = 2 / (1 / sets + 1 / gets)
  local cpu = shell.pairs(output).drive_cpu_ns / (2 * count)
  return { value = 1e9 / rate, rate = rate, second = cpu, note = ("%.0f SET/s, %.0f GET/s"):format(sets, gets) }
end

local function own(limit)
  return { "nice", "-n", "-20", "timeout", "-s", "KILL", limit }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.inproc(setup, program, part)
  local argv = extend(own "120", { "taskset", "-c", tostring(setup.server_core) })
  return { value = shell.pairs(run(extend(argv, command(program, part)))).ns }
end

-- Work in other threads and processes: on all cores.
---@param program Program
---@param part Part
function measure.work(_, program, part)
  local found = shell.pairs(run(extend(own "120", command(program, part))))
  return { value = found.wall_ns, second = found.cpu_ns }
end

---@param program Program
---@param part Part
function measure.flood(_, program, part)
  return { value = shell.pairs(run(extend(own "120", command(program, part)))).growth }
end

---@param setup Setup
---@param program Program
---@param part Part
function measure.startup(setup, program, part)
  local argv = { "timeout", "-s", "KILL", "60", setup.tools .. "/spawn", "-c", tostring(setup.server_core), "40" }
  return { value = shell.pairs(run(extend(argv, command(program, part)))).wall_ns }
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
