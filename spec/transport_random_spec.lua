-- transport_random_spec.lua - two stream transports that talk to each other at random: writes, pauses, ends, in any
-- order. What must hold in any case is checked on the way, and at the end that nothing is lost. The seed is fixed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local random

-- Byte i of what an end sends, so that what comes tells whether it is in order.
local PATTERN = {}
for i = 0, 250 do PATTERN[i + 1] = string.char(i) end
PATTERN = table.concat(PATTERN):rep(2000)

local function bytes_at(sent, n)
  local from = sent % 251
  return PATTERN:sub(from + 1, from + n)
end

-- ---- one end --------------------------------------------------------------------------------------------------------

local End = aloop.Protocol:extend("End")

function End:init(name)
  self.name, self.sent, self.got = name, 0, 0
end

function End:check(condition, text)
  if not condition then self.wrong = self.wrong or ("%s: %s"):format(self.name, text) end
end

function End:connection_made(transport)
  self:check(not self.transport, "made twice")
  self.transport = transport
end

function End:data_received(data)
  self:check(not self.paused, "data while reading is paused")
  self:check(not self.lost and not self.ended and not self.closed, "data after the end")
  self:check(data ~= "" and data == bytes_at(self.got, #data), "wrong data after " .. self.got)
  self.got = self.got + #data
  if random(4) == 1 then self:act() end
end

function End:eof_received()
  self:check(not self.paused, "end while reading is paused")
  self:check(not self.ended and not self.lost and not self.closed, "end after the end")
  self.ended = true
  self:check(self.got == self.other.sent or self.other.aborted, "the end comes before all data")
  if random(4) == 1 then self:act() end
  self.keeps = random(2) == 1
  return self.keeps
end

function End:connection_lost(err)
  self:check(not self.lost, "lost twice")
  self.lost, self.err = true, err
end

function End:pause_writing()
  self:check(not self.full, "writing is paused twice")
  self.full = true
end

function End:resume_writing()
  self:check(self.full, "writing is resumed twice")
  self.full = false
end

local actions = {
  function(self, transport)
    local n = random(3) == 1 and random(200000) or random(2000)
    if self.wrote_eof or transport:is_closing() then return end
    transport:write(bytes_at(self.sent, n))
    self.sent = self.sent + n
  end,
  function(self, transport)
    local n, m = random(1000), random(1000)
    if self.wrote_eof or transport:is_closing() then return end
    transport:writelines { bytes_at(self.sent, n), bytes_at(self.sent + n, m) }
    self.sent = self.sent + n + m
  end,
  function(self, transport)
    transport:pause_reading()
    self.paused = not transport:is_reading()
  end,
  function(self, transport)
    transport:resume_reading()
    self.paused = false
  end,
  function(self, transport)
    transport:set_write_buffer_limits { high = random(0, 100000) }
    self:check(transport:get_write_buffer_size() >= 0, "size")
  end,
  function(self, transport)
    if random(8) > 1 then return end
    self.wrote_eof = true
    transport:write_eof()
  end,
  function(self, transport)
    if random(20) > 1 then return end
    self.closed = true
    transport:close()
  end,
  function(self, transport)
    if random(60) > 1 then return end
    self.closed, self.aborted = true, true
    transport:abort()
  end,
}

function End:act()
  if self.transport and not self.lost and not self.quiet then actions[random(#actions)](self, self.transport) end
end

-- ---- the trial ------------------------------------------------------------------------------------------------------

-- All that one has written has come, unless something stood in the way: the other one closed, or went at its own end
-- of data, or either was aborted.
local function check_all_came(from, to)
  local cut = from.aborted or to.closed or from.err or to.err
  if not cut then to:check(to.got == from.sent, ("%d bytes of %d"):format(to.got, from.sent)) end
end

local function converse(loop, trial, pair)
  local a, b = End("a"), End("b")
  a.other, b.other = b, a
  local sock_a, sock_b = pair()
  loop:connect_accepted_socket(function() return a end, sock_a)
  loop:connect_accepted_socket(function() return b end, sock_b)
  for _ = 1, random(60) do
    (random(2) == 1 and a or b):act()
    if random(3) == 1 then trial:turn() end
  end
  for _, one in ipairs { a, b } do
    one.quiet = true
    if not one.lost then
      one.transport:resume_reading()
      one.paused = false
      if not one.wrote_eof and not one.transport:is_closing() then
        one.wrote_eof = true
        one.transport:write_eof()
      end
    end
  end
  trial:wait_until(function() return (a.lost or a.ended) and (b.lost or b.ended) end)
  check_all_came(a, b)
  check_all_came(b, a)
  for _, one in ipairs { a, b } do one.transport:close() end
  trial:wait_until(function() return a.lost and b.lost end)
  assert.is_nil(a.wrong or b.wrong)
end

helper.each_loop(function(_, new_loop)
  it("two transports at random keep what they promise", function()
    helper.with_loop(new_loop, function(loop, trial)
      math.randomseed(11, 21)
      random = math.random
      for _ = 1, 60 do converse(loop, trial, aloop.socket.socketpair) end
    end)
  end)
end)
