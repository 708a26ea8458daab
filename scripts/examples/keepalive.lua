-- Shows a protocol that notices when its peer has gone: after a minute in which nothing was heard it sends a ping, and
-- it ends the connection when that isn't answered. Its tests are in keepalive_spec.lua.
-- Run: aloop keepalive.lua HOST PORT
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

---@class KeepAlive
local KeepAlive = aloop.Protocol:extend("KeepAlive")

KeepAlive.INTERVAL_S = 60 -- of silence before a ping
KeepAlive.PATIENCE_S = 10 -- for the answer

-- on_line(line) is called for each line but the answers to pings; on_end(reason) once.
function KeepAlive:init(on_line, on_end)
  self.on_line, self.on_end = on_line, on_end
  self.rest = ""
end

function KeepAlive:connection_made(transport)
  self.transport = transport
  self.loop = aloop.get_running_loop()
  self.timer = self.loop:call_later(self.INTERVAL_S, self.silence, self)
end

function KeepAlive:silence()
  if self.pinged then
    self.reason = "no answer"
    return self.transport:abort()
  end
  self.pinged = true
  self.transport:write("ping\n")
  self.timer:reschedule(self.loop:time() + self.PATIENCE_S)
end

function KeepAlive:data_received(data)
  self.pinged = false
  self.timer:reschedule(self.loop:time() + self.INTERVAL_S)
  self.rest = self.rest .. data
  for line, behind in self.rest:gmatch("([^\n]*)\n()") do
    self.parsed = behind
    if line ~= "pong" then self.on_line(line) end
  end
  self.rest, self.parsed = self.rest:sub(self.parsed or 1), nil
end

function KeepAlive:connection_lost(err)
  self.timer:cancel()
  self.on_end(self.reason or err and tostring(err) or "closed")
end

-- Run as a program it shows what it hears; required, it is the protocol.
if ... == "keepalive" then return KeepAlive end

local loop = aloop.get_event_loop()
local over = loop:create_future()
loop:create_connection(function()
  return KeepAlive(print, function(reason) over:set_result(reason) end)
end, arg[1], arg[2])
print("The connection has ended: " .. over:await())
