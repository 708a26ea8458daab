-- report.lua - the output handler of `make test` (busted -o scripts/dev/report.lua): a line for each file, failures in
-- full as they happen, and at the end what summary.lua makes of it, or with SPEC_RESULT=FILE the result in that file.
-- With SPEC_LOG=FILE the name of the spec that runs stands in that file, so that a crash can be laid to its cause.
-- SPDX-License-Identifier: MIT

local busted = require "busted"
local pretty = require "pl.pretty"
local summary = require "scripts.dev.summary"

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

local function reason_of(pending)
  if pending.message == nil then return pending.name end
  return (text_of(pending.message):gsub("^[^:%s]+:%d+: ", ""))
end

return function(options)
  local handler = require "busted.outputHandlers.base"()
  local log = os.getenv("SPEC_LOG") and io.open(os.getenv("SPEC_LOG"), "w")
  local file = { passed = 0, failed = 0, skipped = 0 }
  local result = summary.new()

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
      table.insert(result.slow, { took = element.duration, name = handler.getFullName(element) })
    end
    return nil, true
  end

  -- Failed specs, and errors of what surrounds them (files that don't load, setup, teardown).
  local function failed(element, _, message, trace)
    local place = element.trace or trace or {}
    local where = place.short_src and ("%s:%d: "):format(place.short_src, place.currentline or 0) or ""
    local name = where .. handler.getFullName(element)
    table.insert(result.broken, name)
    io.write(("FAILED %s\n%s\n"):format(name, indent(text_of(message))))
    if trace and trace.traceback then io.write(indent(trace.traceback:gsub("^\n", "")), "\n") end
    io.flush()
    return nil, true
  end

  local function suite_end()
    if log then log:close() end
    result.passed, result.skipped = handler.successesCount, handler.pendingsCount
    result.failed = handler.failuresCount + handler.errorsCount
    for _, pending in ipairs(handler.pendings) do table.insert(result.reasons, reason_of(pending)) end
    local path = os.getenv("SPEC_RESULT")
    if path then summary.save(result, path) else summary.write(result) end
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
