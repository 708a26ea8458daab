-- rows.lua TABLE [GROUP...]: which rows of a feature table no spec names. TABLE has tab-separated columns: the row's id
-- first, its group second, a heading line on top. Specs name rows in comments, "-- row: add_reader, add_reader.args".
-- Prints the rows of the groups (of all, if none is given) that are missing, then the counts; rows named in specs but
-- not in the table are errors.
-- SPDX-License-Identifier: MIT

local path = assert(arg[1], "usage: lua rows.lua TABLE [GROUP...]")

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local function named_rows()
  local named = {}
  for _, line in ipairs(lines_of "grep -rh 'row: ' spec --include=*.lua") do
    local text = line:match("%-%-.*row: ([^;]*)")
    for id in text:gmatch("[%w_.]+") do named[id] = (named[id] or 0) + 1 end
  end
  return named
end

local wanted = {}
for i = 2, #arg do wanted[arg[i]] = true end

local named, known = named_rows(), {}
local counts, order, missing = {}, {}, {}
local heading = true
for line in io.lines(path) do
  local id, group = line:match("^([^\t]+)\t([^\t]+)")
  if heading then
    heading = false
  elseif id then
    known[id] = true
    if next(wanted) == nil or wanted[group] then
      if not counts[group] then
        counts[group] = { all = 0, named = 0 }
        order[#order + 1] = group
      end
      counts[group].all = counts[group].all + 1
      if named[id] then
        counts[group].named = counts[group].named + 1
      else
        missing[#missing + 1] = group .. ": " .. id
      end
    end
  end
end

for _, row in ipairs(missing) do print("missing  " .. row) end
local unknown = 0
for id in pairs(named) do
  if not known[id] then
    print("unknown  " .. id)
    unknown = unknown + 1
  end
end
for _, group in ipairs(order) do print(("%-16s %3d of %3d"):format(group, counts[group].named, counts[group].all)) end
os.exit(unknown == 0)
