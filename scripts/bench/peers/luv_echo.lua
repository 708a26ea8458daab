-- luv_echo.lua - the echo server on luv.
--
--   lua5.4 luv_echo.lua try_write|write [tcp | unix:PATH]       prints its address
--
-- try_write sends at once and queues only what the kernel didn't take; write makes a request of each message.
--
-- SPDX-License-Identifier: MIT
local uv = require "luv"

local kind, where = arg[1] or "try_write", arg[2] or "tcp"
local path = where:match "^unix:(.+)$"

local function try_write(stream, data)
  local n = stream:try_write(data) or 0
  if n < #data then stream:write(data:sub(n + 1)) end
end

local function write(stream, data)
  stream:write(data)
end

local send = kind == "write" and write or try_write
local listener = path and uv.new_pipe(false) or uv.new_tcp()
if path then
  assert(listener:bind(path))
else
  assert(listener:bind("127.0.0.1", 0))
end
assert(listener:listen(1024, function(err)
  assert(not err, err)
  local stream = path and uv.new_pipe(false) or uv.new_tcp()
  listener:accept(stream)
  if not path then stream:nodelay(true) end
  stream:read_start(function(_, data)
    if data then send(stream, data) else stream:close() end
  end)
end))
print(path and where or "127.0.0.1:" .. listener:getsockname().port)
io.stdout:flush()
uv.run()
