-- Shows open_connection over a socket that is open already: its data is read from a stream.
-- Run: aloop socket_streams.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function wait_for_data()
  local loop = aloop.get_running_loop()
  local rsock, wsock = aloop.socket.socketpair()

  -- The stream owns rsock from here on.
  local reader, writer = aloop.open_connection(nil, nil, { sock = rsock })

  loop:call_soon(wsock.send, wsock, "abc") -- as if it came over the network

  print("Received: " .. reader:read(100))
  writer:close()
  writer:wait_closed()
  wsock:close()
end

aloop.run(wait_for_data)
