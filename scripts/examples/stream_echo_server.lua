-- Shows an echo server on streams: one task a client, which reads, writes and waits as if it were alone.
-- stream_echo_client.lua talks to it.
-- Run: aloop stream_echo_server.lua [port]   (8888 if none is given; 0: any free one)
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function handle_echo(reader, writer)
  local peer = tostring(writer:get_extra_info("peername"))
  print("Connection from " .. peer)
  for line in reader:lines() do
    writer:write(line)
    writer:drain() -- waits while the client doesn't read
  end
  print("Close the connection of " .. peer)
  writer:close()
  writer:wait_closed()
end

local function main()
  local server <close> = aloop.start_server(handle_echo, "127.0.0.1", tonumber(arg[1]) or 8888)
  print("Serving on " .. tostring(server.sockets[1]:getsockname()))
  server:serve_forever()
end

io.stdout:setvbuf("line")
aloop.run(main)
