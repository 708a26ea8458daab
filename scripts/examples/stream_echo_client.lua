-- Shows a client on streams: sends its arguments as lines and prints what comes back.
-- Run: aloop stream_echo_client.lua PORT [line...], with stream_echo_server.lua running
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local port = assert(tonumber(arg[1]), "usage: aloop stream_echo_client.lua PORT [line...]")
local lines = { table.unpack(arg, 2) }
if #lines == 0 then lines = { "Hello World!" } end

local reader, writer <close> = aloop.open_connection("127.0.0.1", port)
for _, line in ipairs(lines) do
  print(("Send: %q"):format(line))
  writer:write(line .. "\n")
  writer:drain()
  print(("Received: %q"):format(assert(reader:readline(), "the server has gone"):gsub("\n$", "")))
end
print("Close the connection")
