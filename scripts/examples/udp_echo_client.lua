-- Shows create_datagram_endpoint with a remote address: sends a datagram, prints the answer and ends.
-- Run: aloop udp_echo_client.lua [port]   (9999 if none is given), with udp_echo_server.lua running
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local EchoClientProtocol = aloop.DatagramProtocol:extend("EchoClientProtocol")

function EchoClientProtocol:init(message, on_con_lost)
  self.message, self.on_con_lost = message, on_con_lost
end

function EchoClientProtocol:connection_made(transport)
  self.transport = transport
  print("Send: " .. self.message)
  transport:sendto(self.message)
end

function EchoClientProtocol:datagram_received(data)
  print("Received: " .. data)
  print("Close the socket")
  self.transport:close()
end

function EchoClientProtocol:error_received(err)
  print("Error received: " .. tostring(err))
  self.transport:close()
end

function EchoClientProtocol:connection_lost()
  print("Connection closed")
  self.on_con_lost:set_result(true)
end

local function main()
  local loop = aloop.get_running_loop()
  local on_con_lost = loop:create_future()
  local transport <close> = loop:create_datagram_endpoint(function()
    return EchoClientProtocol("Hello World!", on_con_lost)
  end, nil, { "127.0.0.1", tonumber(arg[1]) or 9999 })
  on_con_lost:await()
  assert(transport:is_closing())
end

aloop.run(main)
