-- Shows create_connection over a socket that is open already: its data reaches a protocol.
-- Run: aloop socket_protocol.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local MyProtocol = aloop.Protocol:extend("MyProtocol")

function MyProtocol:init(on_con_lost)
  self.on_con_lost = on_con_lost
end

function MyProtocol:connection_made(transport)
  self.transport = transport
end

function MyProtocol:data_received(data)
  print("Received: " .. data)
  self.transport:close() -- we are done
end

function MyProtocol:connection_lost()
  self.on_con_lost:set_result(true)
end

local function main()
  local loop = aloop.get_running_loop()
  local on_con_lost = loop:create_future()
  local rsock, wsock = aloop.socket.socketpair()

  -- The transport owns rsock from here on.
  local transport <close> = loop:create_connection(function() return MyProtocol(on_con_lost) end, nil, nil, {
    sock = rsock,
  })
  local _ <close> = wsock

  loop:call_soon(wsock.send, wsock, "abc") -- as if it came over the network
  on_con_lost:await()
  assert(transport:is_closing())
end

aloop.run(main)
