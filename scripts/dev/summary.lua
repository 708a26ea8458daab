-- summary.lua - what a run of specs came to: skipped specs grouped by their reason, the slow ones, the failed ones, and
-- the count. report.lua saves the result of one file with it; as a program (summary.lua FILE...: such results) it tells
-- the sum of all, its last line "tests: 512 passed, 0 failed, 3 skipped". Knows nothing of busted.
-- SPDX-License-Identifier: MIT

local summary = {}

local SLOW_SHOWN = 10

---@class Result
---@field passed integer
---@field failed integer
---@field skipped integer
---@field reasons string[] of what was skipped, one for each spec
---@field slow {took: number, name: string}[]
---@field broken string[] the names of what failed

---@return Result
function summary.new()
  return { passed = 0, failed = 0, skipped = 0, reasons = {}, slow = {}, broken = {} }
end

-- One line for each thing: its kind, a number, a text that has no ends of lines.
function summary.save(result, path)
  local file <close> = assert(io.open(path, "w"))
  local function line(kind, number, text)
    file:write(kind, "\t", number, "\t", (text:gsub("%s*\n%s*", " ")), "\n")
  end
  for _, kind in ipairs { "passed", "failed", "skipped" } do line(kind, result[kind], "") end
  for _, reason in ipairs(result.reasons) do line("reason", 0, reason) end
  for _, slow in ipairs(result.slow) do line("slow", slow.took, slow.name) end
  for _, name in ipairs(result.broken) do line("broken", 0, name) end
end

-- Adds what save has written to a result.
function summary.add(result, path)
  for line in io.lines(path) do
    local kind, number, text = line:match("^(%l+)\t([^\t]*)\t(.*)$")
    if kind == "reason" then
      table.insert(result.reasons, text)
    elseif kind == "slow" then
      table.insert(result.slow, { took = tonumber(number), name = text })
    elseif kind == "broken" then
      table.insert(result.broken, text)
    else
      result[kind] = result[kind] + math.tointeger(number)
    end
  end
end

-- A hundred specs that are skipped for one reason give one line.
local function write_skipped(reasons)
  local count, order = {}, {}
  for _, reason in ipairs(reasons) do
    if not count[reason] then order[#order + 1] = reason end
    count[reason] = (count[reason] or 0) + 1
  end
  if #order > 0 then io.write("\nskipped:\n") end
  for _, reason in ipairs(order) do io.write(("  %4d  %s\n"):format(count[reason], reason)) end
end

local function write_slow(slow)
  table.sort(slow, function(a, b) return a.took > b.took end)
  if #slow > 0 then io.write("\nslow:\n") end
  for i = 1, math.min(#slow, SLOW_SHOWN) do io.write(("  %5.1f s  %s\n"):format(slow[i].took, slow[i].name)) end
end

function summary.write(result)
  write_skipped(result.reasons)
  write_slow(result.slow)
  if #result.broken > 0 then io.write("\nfailed:\n  ", table.concat(result.broken, "\n  "), "\n") end
  io.write(("\ntests: %d passed, %d failed, %d skipped\n"):format(result.passed, result.failed, result.skipped))
  io.flush()
end

if ... ~= "scripts.dev.summary" then
  local total = summary.new()
  for _, path in ipairs(arg) do summary.add(total, path) end
  summary.write(total)
end

return summary
