-- Shows a client: sends each line of its standard input to an echo server and prints what comes back.
-- Run: aloop echo_client.lua PORT [host] < FILE
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local Client = aloop.Protocol:extend("Client")

function Client:init(done)
  self.done, self.answer, self.missing = done, "", 0
end

-- Sends a line and waits until as many bytes have come back.
function Client:ask(transport, line)
  self.arrived, self.missing = aloop.get_running_loop():create_future(), #line
  transport:write(line)
  self.arrived:await()
  local answer = self.answer
  self.answer = ""
  return answer
end

function Client:data_received(data)
  self.answer, self.missing = self.answer .. data, self.missing - #data
  if self.missing <= 0 then self.arrived:set_result() end
end

function Client:connection_lost(err)
  if self.arrived and not self.arrived:done() then self.arrived:cancel("connection lost") end
  self.done:set_result(err)
end

local port = assert(tonumber(arg[1]), "the first argument is the server's port")
local loop = aloop.get_event_loop()
local done = loop:create_future()
local transport, client = loop:create_connection(function() return Client(done) end, arg[2] or "127.0.0.1", port)
for line in io.lines() do
  io.write(client:ask(transport, line .. "\n"))
end
transport:close()
done:await()
