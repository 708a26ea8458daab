-- options.lua - what the runner was asked to do: arguments, and the same by variables of the environment.
--
-- SPDX-License-Identifier: MIT
local USAGE = [[
usage: run.sh [option...]          (make bench [VARIABLE=value...])

  --only PARTS       ONLY=PARTS      parts or groups, with commas: tcp1k,http   groups: net echo streams
                                     tls processes executors loop targets (--list shows all)
  --servers NAMES    SERVERS=NAMES   programs, with commas: c,aloop-epoll,uvloop (the baseline is always measured)
  --rounds N         ROUNDS=N        how often each is measured (8)
  --seconds S        SECS=S          how long each network measurement takes (0.4)
  --cycles N         CYCLES=N        connections of tlscycles, and as many given up half-way (5000; quick: 2500)
  --quick            QUICK=1         fewer rounds, short runs, aloop and the best of the peers: about 5 minutes
  --build DIR        BUILD=DIR       where the programs were built (build)
  --cores S,L        CORES=S,L       cores of server and load generator (0,1)
  --list                             parts and programs, and what keeps a program from being measured
  --help

Each part measures all programs in turn, round by round, and quotes of each the lowest and the median CPU per operation,
and both as a ratio to the baseline in C of the same rounds. The samples go to DIR/bench/samples.tsv.
]]

---@class Options
---@field only table<string, boolean>|nil
---@field servers table<string, boolean>|nil
---@field rounds integer
---@field seconds number
---@field warmup number
---@field cycles integer
---@field quick boolean
---@field list boolean
---@field build string
---@field server_core integer
---@field load_core integer

local VARIABLES = { only = "ONLY", servers = "SERVERS", rounds = "ROUNDS", seconds = "SECS", quick = "QUICK",
  cycles = "CYCLES", build = "BUILD", cores = "CORES" }
local FLAGS = { quick = true, list = true, help = true }

local function set(text)
  if not text or text == "" then return nil end
  local result = {}
  for name in text:gmatch "[^,%s]+" do result[name] = true end
  return result
end

local function raw_options(args)
  local raw = {}
  for name, variable in pairs(VARIABLES) do
    local value = os.getenv(variable)
    if value ~= "" then raw[name] = value end
  end
  local i = 1
  while args[i] do
    local name = args[i]:match "^%-%-(%l+)$"
    if not name or not (FLAGS[name] or VARIABLES[name]) then
      error("run.sh: unknown option " .. args[i] .. "\n" .. USAGE, 0)
    end
    if FLAGS[name] then
      raw[name] = "1"
    else
      i = i + 1
      raw[name] = args[i] or error("run.sh: --" .. name .. " needs a value", 0)
    end
    i = i + 1
  end
  return raw
end

local function number(raw, name, default)
  if not raw[name] then return default end
  local value = tonumber(raw[name])
  if not value or value <= 0 then error(("run.sh: %s must be a number above 0, not %q"):format(name, raw[name]), 0) end
  return value
end

--- Reads arguments and environment; nil after --help.
---@param args string[]
---@return Options|nil
return function(args)
  local raw = raw_options(args)
  if raw.help then
    io.write(USAGE)
    return nil
  end
  local quick = raw.quick ~= nil and raw.quick ~= "0"
  local server_core, load_core = (raw.cores or "0,1"):match "^(%d+),(%d+)$"
  if not server_core then error("run.sh: cores must be two numbers, as 0,1", 0) end
  return {
    only = set(raw.only),
    servers = set(raw.servers),
    rounds = math.ceil(number(raw, "rounds", quick and 3 or 8)),
    seconds = number(raw, "seconds", quick and 0.25 or 0.4),
    warmup = quick and 0.1 or 0.2,
    cycles = math.ceil(number(raw, "cycles", quick and 2500 or 5000)),
    quick = quick,
    list = raw.list ~= nil,
    build = raw.build or "build",
    server_core = tonumber(server_core),
    load_core = tonumber(load_core),
  }
end
