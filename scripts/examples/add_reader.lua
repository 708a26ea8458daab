-- Shows add_reader: waits until a descriptor has data, reads it, and stops the loop. Run: aloop add_reader.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local rsock <close>, wsock = aloop.socket.socketpair()
local _ <close> = wsock
local loop <close> = aloop.new_event_loop()

loop:add_reader(rsock, function()
  print("Received: " .. rsock:recv(100))
  loop:remove_reader(rsock)
  loop:stop()
end)

-- As if it came over the network.
loop:call_soon(wsock.send, wsock, "abc")
loop:run_forever()
