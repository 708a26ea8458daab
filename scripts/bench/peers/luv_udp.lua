-- luv_udp.lua - the echo server for datagrams on luv.
--
--   lua5.4 luv_udp.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local uv = require "luv"

local udp = uv.new_udp()
assert(udp:bind("127.0.0.1", 0))
assert(udp:recv_start(function(err, data, addr)
  assert(not err, err)
  if addr then
    local sent, _, code = udp:try_send(data, addr.ip, addr.port)
    if not sent and code == "EAGAIN" then udp:send(data, addr.ip, addr.port) end
  end
end))
print("127.0.0.1:" .. udp:getsockname().port)
io.stdout:flush()
uv.run()
