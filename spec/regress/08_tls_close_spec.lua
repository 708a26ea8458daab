-- 8: close over TLS never came to its end with a peer that sends no close_notify, and its socket leaked (bpo-29406,
-- gh-74883); uvloop went on receiving for 30 s after close (uvloop#471).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local tls = require "spec.support.tls"

helper.each_loop(function(_, new_loop)
  describe("8: close over TLS", function()
    it("ends with a peer that closes its socket without a word", function()
      helper.with_loop(new_loop, function(loop)
        local transport, client, server_transport, server = tls.pair(loop, { connect = { ssl_shutdown_timeout = 60 } })
        server_transport:pause_reading()
        transport:close()
        helper.turns(5)
        server_transport:abort()
        client:wait_lost()
        server:wait_lost()
      end)
    end)

    it("ends with a peer that says nothing at all", function()
      helper.with_loop(new_loop, function(loop)
        local transport, client, server_transport, server = tls.pair(loop,
          { connect = { ssl_shutdown_timeout = 0.05 } })
        server_transport:pause_reading()
        transport:close()
        assert.is_true(aloop.isinstance(client:wait_lost(), aloop.TimeoutError))
        server_transport:abort()
        server:wait_lost()
      end)
    end)

    it("delivers nothing any more, though the peer goes on sending", function()
      helper.with_loop(new_loop, function(loop)
        local transport, client, server_transport, server = tls.pair(loop)
        server_transport:write(("x"):rep(1000))
        client:wait_data(1000)
        transport:close()
        server_transport:write(("y"):rep(500000))
        server:wait_lost()
        client:wait_lost()
        assert.equal(1000, client.received)
      end)
    end)
  end)
end)
