-- Shows create_server with a protocol that sends back what it receives, then closes. tcp_echo_client.lua talks to it.
-- Run: aloop tcp_echo_server.lua [port]   (8888 if none is given; 0: any free one)
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local EchoServerProtocol = aloop.Protocol:extend("EchoServerProtocol")

function EchoServerProtocol:connection_made(transport)
  print("Connection from " .. tostring(transport:get_extra_info("peername")))
  self.transport = transport
end

function EchoServerProtocol:data_received(data)
  print(("Data received: %q"):format(data))
  print(("Send: %q"):format(data))
  self.transport:write(data)
  print("Close the client socket")
  self.transport:close()
end

local function main()
  local loop = aloop.get_running_loop()
  local server <close> = loop:create_server(EchoServerProtocol, "127.0.0.1", tonumber(arg[1]) or 8888)
  print("Serving on " .. tostring(server.sockets[1]:getsockname()))
  server:serve_forever()
end

io.stdout:setvbuf("line")
aloop.run(main)
