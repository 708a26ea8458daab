-- echo.lua - the echo server on aloop that the benchmarks load. The loop is the interpreter's choice (-X).
--
--   aloop echo.lua protocol|buffered|streams|lines [tcp | unix:PATH] [CERTIFICATE KEY]       prints its address
--
-- With a certificate it speaks TLS (tcp).
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

-- A reader and a writer a connection: what is there, or line by line.
local function echo_stream(reader, writer)
  while true do
    local data = reader:read(BUFFER_SIZE)
    if not data then break end
    writer:write(data)
    writer:drain()
  end
  writer:close()
end

local function echo_lines(reader, writer)
  for line in reader:lines() do
    writer:write(line)
    writer:drain()
  end
  writer:close()
end

local function make_context(certificate, key)
  local context = aloop.ssl.SSLContext(aloop.ssl.PROTOCOL_TLS_SERVER)
  context:load_cert_chain(certificate, key)
  return context
end

local kind, where = arg[1] or "protocol", arg[2] or "tcp"
local options = { backlog = 1024, ssl = arg[3] and make_context(arg[3], arg[4]) or nil }
local factory = kind == "buffered" and BufferedEcho or Echo
local callback = kind == "streams" and echo_stream or kind == "lines" and echo_lines or nil
local loop = aloop.get_event_loop()
loop:set_exception_handler(function(_, context) -- a connection that the load resets is no error
  if not aloop.isinstance(context.exception, aloop.ConnectionError) then loop:default_exception_handler(context) end
end)
local path = where:match "^unix:(.+)$"

local server
if path and callback then
  server = aloop.start_unix_server(callback, path)
elseif path then
  server = loop:create_unix_server(factory, path)
elseif callback then
  server = aloop.start_server(callback, "127.0.0.1", 0, options)
else
  server = loop:create_server(factory, "127.0.0.1", 0, options)
end
print(path and where or tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
