-- Shows tests of a protocol under busted, on virtual time: hours pass in no time, and what the protocol leaves open (a
-- timer that it forgets, say) fails the test. See aloop.testing.
-- Run: aloop $(which busted) keepalive_spec.lua
-- SPDX-License-Identifier: MIT

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
package.path = directory .. "?.lua;" .. package.path

local aloop = require "aloop"
local testing = require "aloop.testing"
local KeepAlive = require "keepalive"

local it = testing.it(it, { seed = true })

-- A transport that keeps what is written to it, and when.
local function fake_transport(loop, protocol)
  local transport = { written = {} }
  function transport:write(data) table.insert(self.written, ("%s@%d"):format(data:gsub("\n", ""), loop:time())) end
  function transport:abort() loop:call_soon(protocol.connection_lost, protocol, nil) end
  protocol:connection_made(transport)
  return transport
end

-- A connected protocol, its transport, and what it tells.
local function connect(loop)
  local told = {}
  local protocol = KeepAlive(function(line) table.insert(told, line) end,
    function(reason) table.insert(told, ("end: %s@%d"):format(reason, loop:time())) end)
  return protocol, fake_transport(loop, protocol), told
end

describe("KeepAlive", function()
  it("pings after a minute of silence", function(loop)
    local protocol, transport = connect(loop)
    aloop.sleep(59)
    assert.same({}, transport.written)
    aloop.sleep(2)
    assert.same({ "ping@60" }, transport.written)
    protocol:connection_lost()
  end)

  it("puts the ping off whenever it hears something", function(loop)
    local protocol, transport = connect(loop)
    for _ = 1, 100 do
      aloop.sleep(50)
      protocol:data_received("news\n")
    end
    assert.same({}, transport.written)
    protocol:connection_lost()
  end)

  it("gives up ten seconds after a ping", function(loop)
    local _, _, told = connect(loop)
    aloop.sleep(3600)
    assert.same({ "end: no answer@70" }, told)
  end)

  it("stays connected for a month to a peer that answers", function(loop)
    local protocol, transport, told = connect(loop)
    for day = 1, 30 do
      while loop:time() < day * 86400 do
        aloop.sleep(61)
        protocol:data_received("pong\n")
      end
    end
    assert.is_true(#transport.written > 30 * 86400 / 62)
    assert.same({}, told)
    protocol:connection_lost()
  end)

  it("puts lines together that come in pieces", function(loop)
    local protocol, _, told = connect(loop)
    for _, piece in ipairs { "on", "e\ntwo\npo", "ng\nthr", "ee\n" } do protocol:data_received(piece) end
    assert.same({ "one", "two", "three" }, told)
    protocol:connection_lost()
  end)

  it("works over a socket, too", function(loop, trial)
    local ended
    local mute = aloop.Protocol:extend("Mute")
    local server <close> = loop:create_server(mute, "127.0.0.1", 0)
    local address = server.sockets[1]:getsockname()
    loop:create_connection(function()
      return KeepAlive(print, function(reason) ended = reason end)
    end, address.host, address.port)
    aloop.sleep(71)
    trial:wait_until(function() return ended end)
    assert.equal("no answer", ended)
  end)
end)
