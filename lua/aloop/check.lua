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

--- Raises "bad argument #n to 'name' (...)" at the place that called the function that calls this one.
---@param n integer
---@param name string
---@param expected string what is expected
---@param value any what was given
---@param level? integer 1 (default): blame the caller of the caller
function check.bad_argument(n, name, expected, value, level)
  local text = "bad argument #%d to '%s' (%s expected, got %s)"
  error(text:format(n, name, expected, check.typename(value)), (level or 1) + 2)
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
  check.bad_argument(n, name, "function", value, 2)
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

function check.awaitable(n, name, value)
  if check.is_awaitable(value) then return end
  local text = "bad argument #%d to '%s' (awaitable expected, got %s; pass the function, don't call it)"
  error(text:format(n, name, check.typename(value)), 3)
end

--- Refuses an option table at argument n that is none, or that has a key which is not among the names.
---@param n integer
---@param name string
---@param options? table
---@param names table<string, string|true> option → its type, or true for any
---@return table options {} if there are none
function check.options(n, name, options, names)
  if options == nil then return {} end
  if type(options) ~= "table" then check.bad_argument(n, name, "table", options, 2) end
  for key, value in pairs(options) do
    local expected = names[key]
    if not expected then error(("unknown option '%s' to '%s'"):format(key, name), 3) end
    if expected ~= true and expected ~= type(value) and not (expected == "function" and check.is_callable(value)) then
      local text = "bad option '%s' to '%s' (%s expected, got %s)"
      error(text:format(key, name, expected, check.typename(value)), 3)
    end
  end
  return options
end

return check
