-- Shows a server for many clients at once: each gets back what it sends, and one that doesn't read isn't read from
-- either.
-- Run: aloop echo_server.lua [port] [host]   (any free port of 127.0.0.1 if none is given); end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local Echo = aloop.Protocol:extend("Echo")

function Echo:connection_made(transport)
  self.transport = transport
end

function Echo:data_received(data)
  self.transport:write(data)
end

function Echo:pause_writing()
  self.transport:pause_reading()
end

function Echo:resume_writing()
  self.transport:resume_reading()
end

local loop = aloop.get_event_loop()
local server <close> = loop:create_server(Echo, arg[2] or "127.0.0.1", tonumber(arg[1]) or 0)
print("listening on " .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
