-- report.lua - the output handler of `make test` (busted -o scripts/dev/report.lua): a line for each file, failures in
-- full as they happen, skipped specs grouped by their reason, and at the end "tests: 512 passed, 0 failed, 3 skipped".
-- With SPEC_LOG=FILE the name of the spec that runs stands in that file, so that a crash can be laid to its cause.
-- SPDX-License-Identifier: MIT

local busted = require "busted"
local pretty = require "pl.pretty"

local SLOW_S = 1.0
local LOG_WIDTH = 300 -- names in the log are padded to this, so that each overwrites the one before

local function text_of(message)
  if message == nil then return "error without a value" end
  if type(message) == "table" and not (getmetatable(message) or {}).__tostring then return pretty.write(message) end
  return tostring(message)
end

local function indent(text)
  return "    " .. text:gsub("\n", "\n    ")
end

-- A hundred specs that are skipped for one reason give one line.
local function write_skipped(pendings)
  local count, order = {}, {}
  for _, pending in ipairs(pendings) do
    local reason = pending.message ~= nil and text_of(pending.message):gsub("^[^:%s]+:%d+: ", "") or pending.name
    if not count[reason] then order[#order + 1] = reason end
    count[reason] = (count[reason] or 0) + 1
  end
  if #order > 0 then io.write("\nskipped:\n") end
  for _, reason in ipairs(order) do io.write(("  %4d  %s\n"):format(count[reason], reason)) end
end

local function write_slow(slow)
  table.sort(slow, function(a, b) return a.took > b.took end)
  if #slow > 0 then io.write("\nslow:\n") end
  for i = 1, math.min(#slow, 10) do io.write(("  %5.1f s  %s\n"):format(slow[i].took, slow[i].name)) end
end

return function(options)
  local handler = require "busted.outputHandlers.base"()
  local log = os.getenv("SPEC_LOG") and io.open(os.getenv("SPEC_LOG"), "w")
  local file = { passed = 0, failed = 0, skipped = 0 }
  local slow, broken = {}, {}

  local function file_start(element)
    file = { name = element.name, passed = 0, failed = 0, skipped = 0 }
    return nil, true
  end

  local function file_end(element)
    local line = ("%-40s %4d passed"):format(file.name, file.passed)
    if file.failed > 0 then line = line .. (", %d failed"):format(file.failed) end
    if file.skipped > 0 then line = line .. (", %d skipped"):format(file.skipped) end
    io.write(("%s  (%.2f s)\n"):format(line, element.duration or 0))
    io.flush()
    return nil, true
  end

  local function test_start(element)
    if log then
      log:seek("set")
      local name = file.name .. ": " .. handler.getFullName(element)
      log:write(name, (" "):rep(LOG_WIDTH - #name), "\n")
      log:flush()
    end
    return nil, true
  end

  local function test_end(element, _, status)
    local kind = status == "success" and "passed" or status == "pending" and "skipped" or "failed"
    file[kind] = file[kind] + 1
    if (element.duration or 0) >= SLOW_S then
      slow[#slow + 1] = { took = element.duration, name = handler.getFullName(element) }
    end
    return nil, true
  end

  -- Failed specs, and errors of what surrounds them (files that don't load, setup, teardown).
  local function failed(element, _, message, trace)
    local place = element.trace or trace or {}
    local where = place.short_src and ("%s:%d: "):format(place.short_src, place.currentline or 0) or ""
    local name = where .. handler.getFullName(element)
    broken[#broken + 1] = name
    io.write(("FAILED %s\n%s\n"):format(name, indent(text_of(message))))
    if trace and trace.traceback then io.write(indent(trace.traceback:gsub("^\n", "")), "\n") end
    io.flush()
    return nil, true
  end

  local function suite_end()
    write_skipped(handler.pendings)
    write_slow(slow)
    if #broken > 0 then io.write("\nfailed:\n  ", table.concat(broken, "\n  "), "\n") end
    if log then log:close() end
    io.write(("\ntests: %d passed, %d failed, %d skipped\n"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount))
    io.flush()
    return nil, true
  end

  busted.subscribe({ "file", "start" }, file_start)
  busted.subscribe({ "file", "end" }, file_end)
  busted.subscribe({ "test", "start" }, test_start, { predicate = handler.cancelOnPending })
  busted.subscribe({ "test", "end" }, test_end, { predicate = handler.cancelOnPending })
  busted.subscribe({ "failure" }, failed)
  busted.subscribe({ "error" }, failed)
  busted.subscribe({ "suite", "end" }, suite_end)
  return handler
end
