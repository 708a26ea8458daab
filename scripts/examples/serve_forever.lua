-- Shows start_server and serve_forever: a callback gets a reader and a writer for each client, and runs as a task.
-- Run: aloop serve_forever.lua, then send lines to the port that it prints, say with netcat; end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function client_connected(reader, writer)
  local line <const> = reader:readline()
  if line then print("A client says: " .. line:gsub("%s+$", "")) end
  writer:close()
  writer:wait_closed()
end

local function main(host, port)
  local srv = aloop.start_server(client_connected, host, port)
  print("Serving on " .. tostring(srv.sockets[1]:getsockname()))
  srv:serve_forever()
end

io.stdout:setvbuf("line")
aloop.run(function() main("127.0.0.1", 0) end)
