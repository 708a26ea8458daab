-- shell.lua - commands as arrays, run through the shell. Used by the runner; knows nothing of benchmarks.
--
-- SPDX-License-Identifier: MIT
local shell = {}

---@param arg string
local function quote(arg)
  if arg:find "^[%w%-_./:=,@+]+$" then return arg end
  return "'" .. arg:gsub("'", "'\\''") .. "'"
end

--- A command line of the shell for a command and its arguments.
---@param argv string[]
---@return string
function shell.line(argv)
  local quoted = {}
  for i, arg in ipairs(argv) do quoted[i] = quote(arg) end
  return table.concat(quoted, " ")
end

--- Runs a command. Returns what it wrote to stdout, whether it succeeded, and what it wrote to stderr.
---@param argv string[]
---@return string output, boolean ok, string errors
function shell.run(argv)
  local name = os.tmpname()
  local pipe <close> = assert(io.popen(shell.line(argv) .. " 2>" .. quote(name), "r"))
  local output = pipe:read "a"
  local ok = pipe:close()
  local file <close> = assert(io.open(name, "r"))
  local errors = file:read "a"
  os.remove(name)
  return output, ok == true, errors
end

--- The words of what a command writes, joined; "" if it fails.
---@param argv string[]
---@return string
function shell.text(argv)
  local output, ok = shell.run(argv)
  return ok and (output:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")) or ""
end

--- Whether a program can be run by this name.
---@param name string
function shell.has(name)
  return select(2, shell.run { "sh", "-c", 'command -v "$1"', "sh", name })
end

--- The pairs of a line of key=value; numbers as numbers.
---@param text string
---@return table<string, number|string>
function shell.pairs(text)
  local found = {}
  for key, value in text:gmatch "([%w_]+)=(%S+)" do found[key] = tonumber(value) or value end
  return found
end

return shell
