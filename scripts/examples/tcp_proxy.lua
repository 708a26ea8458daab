-- Shows two streams joined, with backpressure both ways: who doesn't read makes the other one wait, through the proxy.
-- Run: aloop tcp_proxy.lua PORT TARGET_HOST TARGET_PORT   (PORT 0: any free one); end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local BLOCK = 65536

local target_host, target_port = arg[2], tonumber(arg[3])
assert(target_port, "usage: aloop tcp_proxy.lua PORT TARGET_HOST TARGET_PORT")

-- Carries all from one side to the other. drain() waits until the other side takes more; meanwhile nothing is read, the
-- reader fills up to its limit, and then the sender is made to wait. The end is handed on, too: the other direction may
-- go on.
local function carry(reader, writer)
  while true do
    local data = reader:read(BLOCK)
    if not data then break end
    writer:write(data)
    writer:drain()
  end
  writer:write_eof()
end

local function proxy(reader, writer)
  local ok, err = aloop.try(function()
    local far_reader, far_writer = aloop.open_connection(target_host, target_port)
    local _ <close> = aloop.defer(far_writer.close, far_writer)
    local group <close> = aloop.TaskGroup() -- if one direction fails, the other one is cancelled
    group:create_task(function() carry(reader, far_writer) end)
    group:create_task(function() carry(far_reader, writer) end)
  end)
  if not ok then print(("%s: %s"):format(writer:get_extra_info("peername"), err)) end
  writer:close()
end

io.stdout:setvbuf("line")
local server <close> = aloop.start_server(proxy, "127.0.0.1", tonumber(arg[1]) or 0)
print("listening on " .. tostring(server.sockets[1]:getsockname()))
server:serve_forever()
