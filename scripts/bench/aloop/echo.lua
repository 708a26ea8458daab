-- echo.lua - the echo server on aloop that the benchmarks load. The loop is the interpreter's choice (-X).
--
--   aloop echo.lua protocol|buffered [tcp | unix:PATH]       prints its address
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local BUFFER_SIZE = 256 * 1024

local Echo = aloop.Protocol:extend("Echo")

function Echo:connection_made(transport)
  self.transport = transport
end

function Echo:data_received(data)
  self.transport:write(data)
end

-- What write can't send at once it copies, so one buffer serves all connections.
local shared = aloop.buffer(BUFFER_SIZE)
local BufferedEcho = aloop.BufferedProtocol:extend("BufferedEcho")

function BufferedEcho:connection_made(transport)
  self.transport = transport
end

function BufferedEcho:get_buffer()
  return shared
end

function BufferedEcho:buffer_updated(n)
  self.transport:write(shared, 1, n)
end

local kind, where = arg[1] or "protocol", arg[2] or "tcp"
local factory = kind == "buffered" and BufferedEcho or Echo
local loop = aloop.get_event_loop()
local path = where:match "^unix:(.+)$"

local server, address
if path then
  server = loop:create_unix_server(factory, path)
  address = where
else
  server = loop:create_server(factory, "127.0.0.1", 0, { backlog = 1024 })
  address = tostring(server.sockets[1]:getsockname())
end
print(address)
io.stdout:flush()
server:serve_forever()
