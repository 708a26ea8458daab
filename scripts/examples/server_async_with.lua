-- Shows a server that lives as long as a block of code.
-- Run: aloop server_async_with.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function greet(_, writer)
  writer:write("Hello from inside the block\n")
  writer:close()
end

local function main()
  local address
  do
    local srv <close> = aloop.start_server(greet, "127.0.0.1", 0)
    address = srv.sockets[1]:getsockname()
    local reader, writer = aloop.open_connection(address.host, address.port)
    io.write(reader:readline())
    writer:close()
  end

  -- Here srv is closed and takes no new connections.
  local ok, err = pcall(aloop.open_connection, address.host, address.port)
  assert(not ok and aloop.isinstance(err, aloop.ConnectionRefusedError))
  print("Closed behind it")
end

aloop.run(main)
