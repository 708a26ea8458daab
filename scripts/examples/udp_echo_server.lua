-- Shows create_datagram_endpoint: sends back each datagram, for an hour. udp_echo_client.lua talks to it.
-- Run: aloop udp_echo_server.lua [port]   (9999 if none is given; 0: any free one)
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local EchoServerProtocol = aloop.DatagramProtocol:extend("EchoServerProtocol")

function EchoServerProtocol:connection_made(transport)
  self.transport = transport
end

function EchoServerProtocol:datagram_received(data, addr)
  print(("Received %q from %s"):format(data, addr))
  print(("Send %q to %s"):format(data, addr))
  self.transport:sendto(data, addr)
end

local function main()
  local loop = aloop.get_running_loop()
  local transport <close> = loop:create_datagram_endpoint(EchoServerProtocol, { "127.0.0.1", tonumber(arg[1]) or 9999 })
  print("Starting UDP server on " .. tostring(transport:get_extra_info("sockname")))
  aloop.sleep(3600)
end

io.stdout:setvbuf("line")
aloop.run(main)
