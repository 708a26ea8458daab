-- datagrams.lua - both ends of datagrams, as specs need them: a protocol that records and can be waited for, endpoints
-- with it. What waits needs a task.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local peer = require "spec.support.peer"

local datagrams = {}

-- Datagrams that came, their senders, and the errors.
local Datagrams = peer.recording(aloop.DatagramProtocol, "Datagrams")
datagrams.Datagrams = Datagrams

function Datagrams:init(loop)
  self:begin(loop)
  self.got, self.senders, self.errors = {}, {}, {}
end

function Datagrams:datagram_received(data, addr)
  self.got[#self.got + 1] = data
  self.senders[#self.senders + 1] = addr or false
  self:note("datagram")
end

function Datagrams:error_received(e)
  self.errors[#self.errors + 1] = e
  self:note("error")
end

function Datagrams:wait_got(n)
  self:wait(function() return #self.got >= n end)
  return self.got
end

function Datagrams:close()
  self.transport:close()
  return self:wait_lost()
end

-- An endpoint: its protocol, and its transport.
function datagrams.endpoint(loop, local_addr, remote_addr, options)
  local protocol = Datagrams(loop)
  local function factory() return protocol end
  local transport, same = loop:create_datagram_endpoint(factory, local_addr, remote_addr, options)
  assert(protocol == same and protocol.transport == transport)
  return protocol, transport
end

function datagrams.sockname(transport) return transport:get_extra_info("sockname") end

-- Has the loop's names looked up by a script's function while body runs.
function datagrams.with_resolver(loop, getaddrinfo, body)
  local is_ring = aloop.isinstance(loop, aloop.ProactorEventLoop)
  local class = is_ring and aloop.ProactorEventLoop or aloop.SelectorEventLoop
  local Resolving = class:extend("Resolving")
  Resolving.getaddrinfo = getaddrinfo
  debug.setmetatable(loop, Resolving)
  body()
  debug.setmetatable(loop, class)
end

return datagrams
