-- stream_reader_random_spec.lua - StreamReader at random against a model that is asyncio's algorithm over one string:
-- what it returns or raises, and after which piece, must be the same. The seed is fixed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

-- ---- the model ------------------------------------------------------------------------------------------------------

-- A call in progress is a function of the model that returns nothing while it would wait, else what comes of it:
-- a name and values.
local Model = {}
Model.__index = Model

local function new_model(limit)
  return setmetatable({ data = "", eof = false, limit = limit }, Model)
end

function Model:take(n)
  local piece = self.data:sub(1, n)
  self.data = self.data:sub(n + 1)
  return piece
end

function Model:read(n)
  if n == nil then
    return function() if self.eof then return "value", self:take(#self.data) end end
  end
  return function()
    if n == 0 then return "value", "" end
    if self.data ~= "" then return "value", self:take(n) end
    if self.eof then return "value", nil end
  end
end

function Model:readexactly(n)
  return function()
    if #self.data >= n then return "value", self:take(n) end
    if self.eof then return "incomplete", self:take(#self.data), n end
  end
end

-- The separator that ends first, the shortest of those that end together: where it begins, and where it ends.
local function first_match(data, separators, offset)
  local from, to
  for _, separator in ipairs(separators) do
    local start, stop = data:find(separator, offset + 1, true)
    if start and (not to or stop < to) then from, to = start, stop end
  end
  return from, to
end

function Model:readuntil(separators)
  separators = type(separators) == "table" and table.move(separators, 1, #separators, 1, {}) or { separators }
  table.sort(separators, function(a, b) return #a < #b end)
  local shortest, longest, offset = #separators[1], #separators[#separators], 0
  return function()
    if #self.data - offset >= shortest then
      local from, to = first_match(self.data, separators, offset)
      if to then
        if from - 1 > self.limit then return "overrun", from - 1 end
        return "value", self:take(to)
      end
      offset = math.max(0, #self.data + 1 - longest)
      if offset > self.limit then return "overrun", offset end
    end
    if self.eof then return "incomplete", self:take(#self.data), nil end
  end
end

function Model:readline()
  local try = self:readuntil "\n"
  return function()
    local outcome, value = try()
    if not outcome then return end
    if outcome == "incomplete" then return "value", value ~= "" and value or nil end
    if outcome ~= "overrun" then return outcome, value end
    self:take(self.data:sub(value + 1, value + 1) == "\n" and value + 1 or #self.data)
    return "too long"
  end
end

-- ---- the trial ------------------------------------------------------------------------------------------------------

local random

local ALPHABET = { "a", "b", "\r", "\n", "\r\n", "ab", "--", "-" }
local SEPARATORS = { "\n", "\r\n", "ab", "--", "aab", { "\n", "\r\n" }, { "ab", "b" }, { "---", "-", "a-" } }

local function text(n)
  local parts = {}
  for i = 1, random(0, n) do parts[i] = ALPHABET[random(#ALPHABET)] end
  return table.concat(parts)
end

local calls = {
  function() return "read", random(0, 6) end,
  function() return "read", random(1, 40) end,
  function() return "readexactly", random(0, 30) end,
  function() return "readline" end,
  function() return "readuntil", SEPARATORS[random(#SEPARATORS)] end,
  function() return "readuntil", SEPARATORS[random(#SEPARATORS)] end,
}

local function call_of(eof)
  if eof and random(10) == 1 then return "read" end
  return calls[random(#calls)]()
end

-- What came of a call, as the model says it.
local function outcome_of(ok, value)
  if ok then return "value", value end
  if aloop.isinstance(value, aloop.IncompleteReadError) then return "incomplete", value.partial, value.expected end
  if aloop.isinstance(value, aloop.LimitOverrunError) then return "overrun", value.consumed end
  if aloop.isinstance(value, aloop.ValueError) then return "too long" end
  error(value, 0)
end

-- Feeds both with the same pieces until the call has ended in both, which must be after the same piece.
local function compare(reader, model, method, arg)
  local told = ("%s(%s) of %q"):format(method, arg and require("aloop.core").repr(arg) or "", model.data)
  local task = aloop.create_task(function() return outcome_of(pcall(reader[method], reader, arg)) end)
  local try = model[method](model, arg)
  aloop.sleep(0)
  local expected = table.pack(try())
  while expected.n == 0 do
    assert.is_false(task:done(), told)
    if random(30) == 1 then
      model.eof = true
      reader:feed_eof()
    else
      local piece = text(4)
      model.data = model.data .. piece
      reader:feed_data(piece)
      told = told .. (" + %q"):format(piece)
    end
    aloop.sleep(0)
    aloop.sleep(0)
    expected = table.pack(try())
  end
  assert.is_true(task:done(), told)
  assert.same({ expected[1], expected[2], expected[3] }, { task:await() }, told)
end

it("StreamReader does what its model does", function()
  helper.as_task(function()
    math.randomseed(20, 24)
    random = math.random
    for _ = 1, 150 do
      local limit = random(1, 12)
      local reader, model = aloop.StreamReader { limit = limit }, new_model(limit)
      for _ = 1, random(1, 30) do
        if not model.eof and random(3) == 1 then -- ahead of the call
          local piece = text(12)
          model.data = model.data .. piece
          reader:feed_data(piece)
        end
        compare(reader, model, call_of(model.eof))
        assert.equal(model.eof and model.data == "", reader:at_eof())
      end
    end
  end)
end)
