-- helpers.lua: what Python has in its language or its library, and what asynchronous code wants at hand in Lua:
-- partial, defer, try, shlex_quote, and the log handler.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local helpers = {}

-- A value as debug output shows it.
local function show(value)
  return type(value) == "string" and ("%q"):format(value) or core.repr(value)
end

---@class aloop.partial
---@overload fun(...: any): any
local Partial = core.Object:extend("partial")
Partial.__by_value = true -- it may be sent to another Lua state, if what it is made of may
helpers.Partial = Partial

function Partial:__call(...)
  local bound = self.args
  if bound.n == 0 then return self.func(...) end
  local args = table.move(bound, 1, bound.n, 1, {})
  local n = select("#", ...)
  table.move({ ... }, 1, n, bound.n + 1, args)
  return self.func(table.unpack(args, 1, bound.n + n))
end

function Partial:__tostring()
  local parts = { show(self.func) }
  for i = 1, self.args.n do
    parts[i + 1] = show(self.args[i])
  end
  return "partial(" .. table.concat(parts, ", ") .. ")"
end

--- A callable that calls f with these arguments and then its own. Debug output shows f and the arguments.
---@param f function
---@param ... any
---@return aloop.partial
function helpers.partial(f, ...)
  check.callable(1, "partial", f)
  return setmetatable({ func = f, args = table.pack(...) }, Partial)
end

local Deferred = {
  __name = "deferred",
  __close = function(self) self.f(table.unpack(self.args, 1, self.args.n)) end,
}

--- A value that calls f(...) when it is closed: `local _ <close> = aloop.defer(f, ...)`. f may wait.
---@param f function
---@param ... any
function helpers.defer(f, ...)
  check.callable(1, "defer", f)
  return setmetatable({ f = f, args = table.pack(...) }, Deferred)
end

local function outcome(ok, err, ...)
  if not ok and core.isinstance(err, core.BaseError) and not core.isinstance(err, core.Error) then error(err, 0) end
  return ok, err, ...
end

--- pcall for asynchronous code: CancelledError, KeyboardInterrupt and every other BaseError that is no Error passes.
---@param f function
---@param ... any
---@return boolean ok
---@return any ... results, or the error
function helpers.try(f, ...)
  return outcome(pcall(f, ...))
end

--- The string as one word of a POSIX shell.
---@param s string
---@return string
function helpers.shlex_quote(s)
  if type(s) ~= "string" then check.bad_argument(1, "shlex_quote", "string", s) end
  if s ~= "" and not s:find("[^%w_@%%+=:,./-]") then return s end
  return "'" .. s:gsub("'", [['"'"']]) .. "'"
end

--- Sends all that aloop warns of, or logs, to a function (nil: to stderr again).
--- level is "debug", "info", "warning" or "error"; category nil, "ResourceWarning" or "RuntimeWarning".
---@param f? fun(level: string, message: string, category: string?)
function helpers.set_log_handler(f)
  check.callable(1, "set_log_handler", f, true)
  core.set_log(f)
end

return helpers
