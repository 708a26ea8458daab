-- 13: Server.wait_closed returned at once, or never, depending on the order of close() and the last client's end, and
-- a connection accepted while the server closed was forgotten (gh-79033, gh-104344, gh-113538, gh-109564).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  it("13: wait_closed ends though connections were on their way when the server closed", function()
    for turns = 0, 6 do
      helper.with_loop(new_loop, function(loop)
        local protocols = {}
        local server = loop:create_server(function()
          protocols[#protocols + 1] = helper.Recorder(loop)
          return protocols[#protocols]
        end, "127.0.0.1", 0)
        local address = helper.address_of(server)
        local socks = {}
        for i = 1, 5 do
          socks[i] = aloop.socket.socket(aloop.socket.AF_INET, aloop.socket.SOCK_STREAM)
          pcall(socks[i].connect, socks[i], address)
        end
        for _ = 1, turns do aloop.sleep(0) end
        server:close()
        for _, sock in ipairs(socks) do sock:close() end
        server:wait_closed()
        for _, protocol in ipairs(protocols) do
          if protocol.transport then assert.is_true(protocol.is_lost) end
        end
      end)
    end
  end)

  it("13: many may wait for the same server, before and after it closed", function()
    helper.with_loop(new_loop, function(loop)
      local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
      local waiters = {}
      for i = 1, 5 do waiters[i] = loop:create_task(function() server:wait_closed() end) end
      aloop.sleep(0)
      waiters[2]:cancel()
      server:close()
      waiters[6] = loop:create_task(function() server:wait_closed() end)
      for i, waiter in ipairs(waiters) do assert.equal(i ~= 2, (pcall(waiter.await, waiter))) end
    end)
  end)

  it("13: a client that never leaves is ended by abort_clients, and wait_closed with it", function()
    helper.with_loop(new_loop, function(loop)
      local protocol = helper.Recorder(loop)
      local server = loop:create_server(helper.always(protocol), "127.0.0.1", 0)
      local sock = helper.connect(loop, helper.address_of(server))
      protocol:wait_for("made")
      helper.fill(protocol.transport)
      server:close()
      server:close_clients()
      local waiter = loop:create_task(function() server:wait_closed() end)
      for _ = 1, 5 do aloop.sleep(0) end
      assert.is_false(waiter:done())
      server:abort_clients()
      waiter:await()
      sock:close()
    end)
  end)
end)
