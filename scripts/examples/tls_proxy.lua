-- Shows a proxy that takes TLS from clients and hands plain bytes on to a server that knows none, with backpressure
-- both ways: who doesn't read makes the other one wait, through the proxy. tcp_proxy.lua is the same without TLS.
-- Run: aloop tls_proxy.lua PORT TARGET_HOST TARGET_PORT CERT [KEY]   (PEM files; PORT 0: any free one)
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local ssl = aloop.ssl

local BLOCK = 65536

local target_host, target_port = arg[2], tonumber(arg[3])
assert(arg[4], "usage: aloop tls_proxy.lua PORT TARGET_HOST TARGET_PORT CERT [KEY]; a pair for trying out is made by\n"
  .. "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout pair.pem -out pair.pem")

local context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context:load_cert_chain(arg[4], arg[5])

-- Carries all from one side to the other. drain() waits until the other side takes more; meanwhile nothing is read, the
-- reader fills up to its limit, and then the sender is made to wait. TLS knows no half-closed connections: the end of
-- one side closes the other, when all is delivered, and so the way back ends, too.
local function carry(reader, writer)
  while true do
    local data = reader:read(BLOCK)
    if not data then break end
    writer:write(data)
    writer:drain()
  end
  writer:close()
end

local function proxy(reader, writer)
  local _ <close> = writer
  local ok, err = aloop.try(function()
    local far_reader, far_writer = aloop.open_connection(target_host, target_port)
    local _ <close> = aloop.defer(far_writer.close, far_writer)
    local group <close> = aloop.TaskGroup() -- if one direction fails, the other one is cancelled
    group:create_task(function() carry(reader, far_writer) end)
    group:create_task(function() carry(far_reader, writer) end)
  end)
  if not ok then print(("%s: %s"):format(writer:get_extra_info("peername"), err)) end
end

io.stdout:setvbuf("line")
local server <close> = aloop.start_server(proxy, "127.0.0.1", tonumber(arg[1]), { ssl = context })
print("listening on " .. tostring(server.sockets[1]:getsockname()))
server:serve_forever()
