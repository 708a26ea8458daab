-- completion.lua: the names that may stand at the prompt (repl.lua): `aloop.crea` becomes `aloop.create_`. Looks at
-- tables and at the classes of objects, and calls nothing but __index and __pairs.
-- SPDX-License-Identifier: MIT

local completion = {}

local MAX_CLASSES = 10

local KEYWORDS = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not",
  "or", "repeat", "return", "then", "true", "until", "while",
}

-- The value of `a.b` or `a:b` in the globals, or nil.
local function value_of(path)
  local value = _G
  for name in path:gmatch("[%a_][%w_]*") do
    if value == nil then return nil end
    value = value[name]
  end
  return value
end

-- Adds the names of a value that begin so, and those of its class.
local function add_names(found, value, beginning, only_functions)
  for _ = 1, MAX_CLASSES do
    if type(value) == "table" then
      for name, field in pairs(value) do
        local fits = type(name) == "string" and name:find("^[%a_][%w_]*$") and name:sub(1, #beginning) == beginning
        if fits and (not only_functions or type(field) == "function") then found[name] = true end
      end
    end
    local metatable = debug.getmetatable(value)
    local class = type(metatable) == "table" and metatable.__index
    if type(class) ~= "table" or class == value then return end
    value = class
  end
end

--- All that a word at the prompt may become, in order.
---@param word string
---@return string[]
function completion.complete(word)
  local path, separator, beginning = word:match("^([%a_][%w_.:]*)([.:])([%w_]*)$")
  if not path then path, separator, beginning = "", "", word:match("^[%a_][%w_]*$") or "" end
  local found, words = {}, {}
  if separator ~= "" then
    local ok, value = pcall(value_of, path)
    if ok then add_names(found, value, beginning, separator == ":") end
  elseif beginning ~= "" then
    add_names(found, _G, beginning)
    for _, keyword in ipairs(KEYWORDS) do
      if keyword:sub(1, #beginning) == beginning then found[keyword] = true end
    end
  end
  for name in pairs(found) do
    words[#words + 1] = path .. separator .. name
  end
  table.sort(words)
  return words
end

return completion
