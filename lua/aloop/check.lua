-- check.lua: arguments of functions written in Lua, refused in the words of Lua's own and of the bindings
-- (loptions.c). All modules of aloop may use it; it uses nothing but the core.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"

local check = {}

--- How Lua names a value's type in messages.
---@param value any
---@return string
function check.typename(value)
  local metatable = debug.getmetatable(value)
  local name = type(metatable) == "table" and rawget(metatable, "__name")
  return type(name) == "string" and name or type(value)
end

--- Raises a text as Lua's own errors are raised: with the place of the script's line that called aloop.
---@param text string
function check.fail(text)
  error(core.where() .. text, 0)
end

-- The name of an option in what may be a table of options; nil if it is none.
local function some_option(value)
  if type(value) ~= "table" or debug.getmetatable(value) then return nil end
  for key in pairs(value) do
    if type(key) == "string" then return key end
  end
end

--- Raises "bad argument #n to 'name' (...)".
---@param n integer
---@param name string
---@param expected string what is expected
---@param value any what was given
function check.bad_argument(n, name, expected, value)
  local option = some_option(value)
  local misplaced = option and (" with '%s'; options stand behind the last argument"):format(option) or ""
  local text = "bad argument #%d to '%s' (%s expected, got %s%s)"
  check.fail(text:format(n, name, expected, check.typename(value), misplaced))
end

---@param value any
---@return boolean
function check.is_callable(value)
  if type(value) == "function" then return true end
  local metatable = debug.getmetatable(value)
  return type(metatable) == "table" and metatable.__call ~= nil
end

--- Refuses what can't be called (nil is allowed if optional).
function check.callable(n, name, value, optional)
  if value == nil and optional or check.is_callable(value) then return end
  check.bad_argument(n, name, "function", value)
end

--- Whether the value is a Future, a coroutine, or anything else that can be awaited.
---@param value any
---@return boolean
function check.is_awaitable(value)
  if check.is_callable(value) then return true end
  if type(value) == "thread" then return coroutine.status(value) == "suspended" end
  if core.isinstance(value, core.Future) then return true end
  local metatable = debug.getmetatable(value)
  return type(metatable) == "table" and metatable.__await ~= nil
end

-- Of a thread that got so far it is no type that is wrong.
local function what_came(value)
  return type(value) == "thread" and "a coroutine that runs or is finished" or check.typename(value)
end

function check.awaitable(n, name, value)
  if check.is_awaitable(value) then return end
  local text = "bad argument #%d to '%s' (awaitable expected, got %s; pass the function, don't call it)"
  check.fail(text:format(n, name, what_came(value)))
end

--- Refuses what no task can run.
function check.coroutine(n, name, value)
  if check.is_callable(value) or type(value) == "thread" and check.is_awaitable(value) then return end
  check.fail(("bad argument #%d to '%s' (function or coroutine expected, got %s)"):format(n, name, what_came(value)))
end

--- Refuses an option table at argument n that is none, or that has a key which is not among the names.
---@param n integer
---@param name string
---@param options? table
---@param names table<string, string|true> option → its type, or true for any
---@param behind? any the argument after them, where options would be one place too far
---@return table options {} if there are none
function check.options(n, name, options, names, behind)
  local misplaced = some_option(behind)
  if misplaced then
    local text = "bad argument #%d to '%s' (option '%s' is out of place: options stand one before)"
    check.fail(text:format(n + 1, name, misplaced))
  end
  if options == nil then return {} end
  if type(options) ~= "table" then check.bad_argument(n, name, "table", options) end
  for key, value in pairs(options) do
    local expected = names[key]
    if not expected then check.fail(("unknown option '%s' to '%s'"):format(key, name)) end
    if expected ~= true and expected ~= type(value) and not (expected == "function" and check.is_callable(value)) then
      local text = "bad option '%s' to '%s' (%s expected, got %s)"
      check.fail(text:format(key, name, expected, check.typename(value)))
    end
  end
  return options
end

return check
