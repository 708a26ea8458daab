-- sendfile.lua - sends a GiB to each connection by loop:sendfile, for the benchmarks: a file of 64 MiB, again and
-- again. The loop is the interpreter's choice (-X).
--
--   aloop sendfile.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local SIZE, TIMES = 64 * 1024 * 1024, 16

local path = os.tmpname()
local file = assert(io.open(path, "w+b"))
os.remove(path)
file:write(("x"):rep(SIZE))
file:flush()

local loop = aloop.get_event_loop()

local function send(transport)
  for _ = 1, TIMES do loop:sendfile(transport, file) end
  transport:close()
end

local function serve(transport)
  local ok, err = pcall(send, transport)
  if not ok and not aloop.isinstance(err, aloop.ConnectionError) then error(err, 0) end
end

local Sender = aloop.Protocol:extend("Sender")

function Sender:connection_made(transport) -- luacheck: ignore 212
  aloop.create_task(function() serve(transport) end)
end

local server = loop:create_server(Sender, "127.0.0.1", 0)
print(server.sockets[1]:getsockname())
io.stdout:flush()
server:serve_forever()
