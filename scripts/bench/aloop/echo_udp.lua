-- echo_udp.lua - the echo server for datagrams that the benchmarks load. The loop is the interpreter's choice (-X).
--
--   aloop echo_udp.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local Echo = aloop.DatagramProtocol:extend("Echo")

function Echo:connection_made(transport)
  self.transport = transport
end

function Echo:datagram_received(data, addr)
  self.transport:sendto(data, addr)
end

local loop = aloop.get_event_loop()
local transport = loop:create_datagram_endpoint(Echo, { "127.0.0.1", 0 })
print(tostring(transport:get_extra_info("sockname")))
io.stdout:flush()
loop:create_future():await()
