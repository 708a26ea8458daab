-- Shows create_connection: sends a message, prints the answer, and ends when the server closes the connection.
-- Run: aloop tcp_echo_client.lua [port]   (8888 if none is given), with tcp_echo_server.lua running
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local EchoClientProtocol = aloop.Protocol:extend("EchoClientProtocol")

function EchoClientProtocol:init(message, on_con_lost)
  self.message, self.on_con_lost = message, on_con_lost
end

function EchoClientProtocol:connection_made(transport)
  transport:write(self.message)
  print(("Data sent: %q"):format(self.message))
end

function EchoClientProtocol:data_received(data)
  print(("Data received: %q"):format(data))
end

function EchoClientProtocol:connection_lost()
  print("The server closed the connection")
  self.on_con_lost:set_result(true)
end

local function main()
  local loop = aloop.get_running_loop()
  local on_con_lost = loop:create_future()
  local transport <close> = loop:create_connection(function()
    return EchoClientProtocol("Hello World!", on_con_lost)
  end, "127.0.0.1", tonumber(arg[1]) or 8888)
  on_con_lost:await()
  assert(transport:is_closing())
end

aloop.run(main)
