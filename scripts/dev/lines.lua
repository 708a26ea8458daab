-- lines.lua FILE...: complains of what no formatter sees to, comments included: a line wider than 120 columns, blanks
-- at the end of one, a section's ruler of another width, and a file of more lines than one idea takes. `make lint` runs
-- it over all sources at the top of the tree, with a plain Lua 5.4. Knows no language.
-- SPDX-License-Identifier: MIT

local WIDTH = 120
-- The first pattern that fits a file's name tells how long it may be. Specs are as long as what they test; aloop.h is
-- one file for whoever uses it.
local LIMITS = { { "^spec/.*%.lua$" }, { "^core/aloop%.h$" }, { "%.[ch]$", 650 }, { "%.lua$", 450 } }

local complaints = 0

local function complain(file, line, format, ...)
  complaints = complaints + 1
  io.stderr:write(("%s:%d: %s\n"):format(file, line, format:format(...)))
end

local function limit_of(file)
  for _, limit in ipairs(LIMITS) do
    if file:find(limit[1]) then return limit[2] end
  end
  return nil
end

local function check_line(file, n, line)
  local width = utf8.len(line)
  if not width then
    complain(file, n, "not UTF-8")
  elseif width > WIDTH then
    complain(file, n, "%d columns, %d are the limit", width, WIDTH)
  elseif line:find "^%S+ %-%-%-%- " and width ~= WIDTH then
    complain(file, n, "a ruler of %d columns, %d are the house's", width, WIDTH)
  elseif line:find "%s$" then
    complain(file, n, "blanks at its end")
  end
end

for _, file in ipairs(arg) do
  local n, limit = 0, limit_of(file)
  for line in io.lines(file) do
    n = n + 1
    check_line(file, n, line)
  end
  if limit and n > limit then complain(file, n, "%d lines, %d are the limit", n, limit) end
end
if complaints > 0 then os.exit(1) end
