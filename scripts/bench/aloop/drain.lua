-- drain.lua - writes a GiB to each connection, 64 KiB at a time, each followed by drain, for the benchmarks: the peer
-- reads when it likes. The loop is the interpreter's choice (-X).
--
--   aloop drain.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local CHUNK, TIMES = 64 * 1024, 16384

local function send(_, writer)
  local data = ("x"):rep(CHUNK)
  for _ = 1, TIMES do
    writer:write(data)
    writer:drain()
  end
  writer:close()
end

local server = aloop.start_server(send, "127.0.0.1", 0)
print(server.sockets[1]:getsockname())
io.stdout:flush()
server:serve_forever()
