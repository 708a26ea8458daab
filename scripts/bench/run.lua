-- run.lua - the benchmarks' runner (plain lua5.4; `make bench` calls it through run.sh). Measures each program in each
-- part, round by round so that the drift of the machine meets all alike, and prints one table.
--
-- SPDX-License-Identifier: MIT
local source = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = source .. "/?.lua;" .. package.path

local certs = require "lib.certs"
local measure = require "lib.measure"
local report = require "lib.report"
local shell = require "lib.shell"

-- Of the peers only those that a target names or that are the fastest are worth the time of a quick run.
local QUICK = { c = true, lua = true, ["aloop-epoll"] = true, ["aloop-ring"] = true, uvloop = true, luv = true }

local function fail(message)
  io.stderr:write(message, "\n")
  os.exit(2)
end

local function in_groups(part, only)
  if only[part.name] or (part.second and only[part.second.name]) then return true end
  for group in part.groups:gmatch "%S+" do
    if only[group] then return true end
  end
  return false
end

local function check_names(wanted, known, what)
  for name in pairs(wanted or {}) do
    if not known[name] then fail(("run.sh: there is no %s '%s' (--list shows them)"):format(what, name)) end
  end
end

local function choose_parts(options)
  local known, chosen = {}, {}
  for _, part in ipairs(require "lib.parts") do
    known[part.name] = true
    if part.second then known[part.second.name] = true end
    for group in part.groups:gmatch "%S+" do known[group] = true end
    if in_groups(part, options.only or (options.quick and { quick = true } or { [part.name] = true })) then
      chosen[#chosen + 1] = part
    end
  end
  check_names(options.only, known, "part")
  return chosen
end

local function is_wanted(program, options)
  if program.name == "c" or program.name == "lua" or program.name == "redis" then return true end
  if options.servers then return options.servers[program.name] end
  return not program.extra and (not options.quick or QUICK[program.name])
end

-- The programs that are measured; says of the others why not.
local function choose_programs(options)
  local paths = {
    build = options.build,
    source = source,
    aloop = options.build .. "/aloop",
    lua = os.getenv "LUA" or "lua5.4",
    python = os.getenv "PYTHON" or "/usr/bin/python3",
    tls = options.build .. "/bench/tls",
  }
  local known, chosen = {}, {}
  for _, program in ipairs(require "lib.programs"(paths)) do
    known[program.name] = true
    if is_wanted(program, options) then
      local reason = program.needs()
      if reason then
        print(("not measured: %s (%s)"):format(program.name, reason))
      else
        chosen[#chosen + 1] = program
      end
    end
  end
  check_names(options.servers, known, "program")
  return chosen
end

local function has_bench(list, bench)
  return not list or list[bench] == true
end

local function takes_part(program, part)
  if not program[part.starts or part.kind] then return false end
  if part.kind == "idle" then return not program.name:find "buf$" and not program.name:find "-p$" end
  if part.kind == "cycles" then return program.name == "c" or program.name:find "^aloop" ~= nil end
  if part.kind == "inproc" then return has_bench(program.benches, part.bench) end
  if part.kind == "work" then return has_bench(program.works, part.bench) end
  return true
end

-- Those that take part in it; says of the others that would why they can't.
local function part_programs(part, all)
  local programs = {}
  for _, program in ipairs(all) do
    if takes_part(program, part) then
      local check = program.lacks and program.lacks[part.starts or part.kind]
      local reason = check and check(part.bench)
      if reason then
        print(("not measured: %s %s (%s)"):format(part.name, program.name, reason))
      else
        programs[#programs + 1] = program
      end
    end
  end
  return programs
end

local function list(options)
  for _, part in ipairs(require "lib.parts") do
    print(("%-10s %s  [%s]"):format(part.name, part.title, part.groups))
    if part.second then print(("%-10s %s"):format(part.second.name, part.second.title)) end
  end
  options.quick, options.servers = false, nil
  for _, program in ipairs(choose_programs(options)) do print("measured: " .. program.name) end
end

local function header(options)
  print(("%s, %s cores, Linux %s, commit %s"):format(
    shell.text { "sed", "-n", "s/^model name.*: //p;T;q", "/proc/cpuinfo" }, shell.text { "nproc" },
    shell.text { "uname", "-r" }, shell.text { "git", "-C", source, "log", "-1", "--format=%h" }))
  print(("%d rounds, %g s each; server on core %d, load on core %d; CPU per operation"):format(
    options.rounds, options.seconds, options.server_core, options.load_core))
end

-- The HTTP servers must say the same, or it is no comparison. Those with headers of their own are named.
local function compare_answers(setup, programs)
  local expected
  for _, program in ipairs(programs) do
    local answer = measure.first_answer(setup, program)
    expected = expected or answer
    if answer and answer ~= expected then
      print(("note: the answer of %s is another one than the baseline's (%d and %d bytes)"):format(
        program.name, #answer, #expected))
    end
  end
end

-- Measures the programs in turn, each round beginning with another; returns their samples by name.
local function sample(setup, part, programs, rounds, log)
  local samples, broken = {}, {}
  for round = 1, rounds do
    for i = 1, #programs do
      local program = programs[(i + round - 2) % #programs + 1]
      local name = program.name
      local ok, result = true, nil
      if not broken[name] then ok, result = pcall(measure[part.kind], setup, program, part) end
      if not ok then
        broken[name] = true
        print(("FAILED: %s %s: %s"):format(part.name, name, result))
      elseif result then
        samples[name] = samples[name] or {}
        table.insert(samples[name], result)
        log:write(part.name, "\t", name, "\t", round, "\t", result.value, "\t", result.rate or "", "\n")
      end
    end
  end
  return samples, next(broken) ~= nil
end

local function show(part, programs, samples, key, missed)
  local figures = {}
  for _, program in ipairs(programs) do
    if samples[program.name] then
      figures[#figures + 1] = report.figure(program.name, samples[program.name], key)
    end
  end
  if #figures > 0 then report.part(part, figures, missed) end
end

local function run_part(setup, part, all, options, log, missed)
  local programs = part_programs(part, all)
  if part.kind == "http" then compare_answers(setup, programs) end
  local rounds = math.min(options.rounds, part.rounds or options.rounds)
  if options.quick and (part.kind == "inproc" or part.kind == "work") then rounds = math.min(rounds, 2) end
  local samples, broken = sample(setup, part, programs, rounds, log)
  show(part, programs, samples, "value", missed)
  if part.second then show(part.second, programs, samples, "second", missed) end
  return broken
end

-- Why a part can't be measured here, or nil.
local function lacking(setup, part)
  if part.needs and not shell.has(part.needs) then return part.needs .. " is not installed" end
  if not part.tls then return nil end
  if setup.certified == nil then setup.certified = certs.make(setup.tls) or false end
  return setup.certified or nil
end

local function main(options)
  local setup = {
    tools = options.build .. "/bench",
    tls = options.build .. "/bench/tls",
    server_core = options.server_core,
    load_core = options.load_core,
    seconds = options.seconds,
    warmup = options.warmup,
    cycles = options.cycles,
  }
  local parts, programs = choose_parts(options), choose_programs(options)
  shell.run { "mkdir", "-p", setup.tools }
  local log <close> = assert(io.open(setup.tools .. "/samples.tsv", "w"))
  local missed, broken = {}, false
  header(options)
  report.heading()
  for _, part in ipairs(parts) do
    local reason = lacking(setup, part)
    if reason then
      print(("not measured: %s (%s)"):format(part.name, reason))
    else
      broken = run_part(setup, part, programs, options, log, missed) or broken
    end
  end
  if #missed > 0 then print "not reached (by the lowest figures):" end
  for _, text in ipairs(missed) do print("  " .. text) end
  return broken
end

local ok, options = pcall(require "lib.options", arg)
if not ok then fail(options) end
if not options then os.exit(0) end
if options.list then
  list(options)
  os.exit(0)
end
local broken = main(options)
os.exit(broken and 1 or 0, true)
