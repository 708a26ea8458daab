-- report.lua - the table of the runner: figures, ratios, what was to be reached.
--
-- SPDX-License-Identifier: MIT
local report = {}

local ROW = "%-10s %-17s %s %s %9s %9s  %s"

---@class Sample
---@field value number
---@field second? number
---@field rate? number
---@field note? string
---@field flaw? string

---@class Figure
---@field program string
---@field lowest number
---@field median number
---@field note? string
---@field flaw? string

--- Lowest and median of the samples of a program.
---@param program string
---@param samples Sample[]
---@param key "value"|"second"
---@return Figure
function report.figure(program, samples, key)
  table.sort(samples, function(a, b) return a[key] < b[key] end)
  local n, best = #samples, samples[1]
  local middle = samples[(n + 1) // 2][key]
  if n % 2 == 0 then middle = (middle + samples[n // 2 + 1][key]) / 2 end
  local figure = { program = program, lowest = best[key], median = middle }
  if key == "value" then figure.note, figure.flaw = best.note, best.flaw end
  return figure
end

---@param unit "ns"|"B"|nil
local function amount(unit, value)
  if unit == "B" then return ("%.0f B"):format(value) end
  if value >= 1e6 then return ("%.2f ms"):format(value / 1e6) end
  return value >= 1000 and ("%.3f µs"):format(value / 1000) or ("%.1f ns"):format(value)
end

-- As %11s, for text with a µ in it.
local function cell(text)
  return (" "):rep(11 - utf8.len(text)) .. text
end

local function ratio(value, base)
  return base and ("%.2f"):format(value / base) or "-"
end

-- What a part asks of aloop, as { text, reached } for each demand.
local function demands(part, figure, base, rival)
  local list = {}
  if part.limit and base then
    list[1] = { ("<= %.2f x %s"):format(part.limit, base.program), figure.lowest <= part.limit * base.lowest }
  end
  if part.most then list[#list + 1] = { "<= " .. amount(part.unit, part.most), figure.lowest <= part.most } end
  if figure.flaw then list[#list + 1] = { "no " .. figure.flaw, false } end
  if part.rival and rival then
    local times = rival.lowest / figure.lowest
    list[#list + 1] = { (">= %g x %s: %.2f"):format(part.rival[2], rival.program, times), times >= part.rival[2] }
  end
  return list
end

--- Prints the heading of the table.
function report.heading()
  print(ROW:format("part", "program", cell "lowest", cell "median", "x lowest", "x median", "must reach"))
end

local function judge(part, figure, base, rival, missed)
  local texts = {}
  for i, demand in ipairs(demands(part, figure, base, rival)) do
    texts[i] = demand[1] .. (demand[2] and ", yes" or ", NO")
    if not demand[2] then missed[#missed + 1] = ("%s %s: %s"):format(part.name, figure.program, demand[1]) end
  end
  if figure.note then texts[#texts + 1] = figure.note end
  return table.concat(texts, "; ")
end

--- Prints the rows of a part; adds what aloop missed to `missed`.
---@param part Part or the second of one
---@param figures Figure[] in the order of the programs
---@param missed string[]
function report.part(part, figures, missed)
  local base, rival
  for _, figure in ipairs(figures) do
    if part.baseline ~= false and figure.program == (part.baseline or "c") then base = figure end
    if part.rival and figure.program == part.rival[1] then rival = figure end
  end
  print("-- " .. part.title)
  for _, figure in ipairs(figures) do
    local must = figure.program:find "^aloop" and judge(part, figure, base, rival, missed) or figure.note or ""
    local lowest, median = cell(amount(part.unit, figure.lowest)), cell(amount(part.unit, figure.median))
    print((ROW:format(part.name, figure.program, lowest, median, ratio(figure.lowest, base and base.lowest),
      ratio(figure.median, base and base.median), must):gsub("%s+$", "")))
  end
  io.stdout:flush()
end

return report
