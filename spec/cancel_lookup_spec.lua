-- What makes endpoints by name, cancelled at each of its waiting points: nothing stays open.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local S = aloop.socket

local function nop() return {} end

-- Each gets a loop and the port of a listener, and makes something by name.
local makers = {
  create_connection = function(loop, port)
    return loop:create_connection(nop, "localhost", port, { family = S.AF_INET, local_addr = { "localhost", 0 } })
  end,
  ["create_connection with happy eyeballs"] = function(loop, port)
    return loop:create_connection(nop, "localhost", port, { happy_eyeballs_delay = 0.001 })
  end,
  create_server = function(loop) return loop:create_server(nop, { "localhost", "127.0.0.1", "localhost" }, 0) end,
  create_datagram_endpoint = function(loop, port)
    return loop:create_datagram_endpoint(nop, { "localhost", 0 }, { "localhost", port }, { family = S.AF_INET })
  end,
  getaddrinfo = function(loop, port) return nil, loop:getaddrinfo("localhost", port) end,
  getnameinfo = function(loop, port) return nil, loop:getnameinfo { "127.0.0.1", port } end,
}

helper.each_loop(function(_, new_loop)
  for name, make in pairs(makers) do
    -- row: create_connection.cancel
    it(name .. " leaves nothing open, whenever it is cancelled", function()
      helper.with_loop(new_loop, function(loop)
        local listener, address = helper.listen()
        local fds = helper.count_fds()
        local finished
        for turns = 0, 30 do
          local made
          local task = loop:create_task(function() made = make(loop, address.port) end)
          for _ = 1, turns do aloop.sleep(turns % 3 == 0 and 0 or 0.0001) end
          task:cancel()
          local ok, e = pcall(task.await, task)
          assert.is_true(ok or aloop.isinstance(e, aloop.CancelledError), tostring(e))
          finished = finished or ok
          if made then made:close() end
          if made and made.wait_closed then made:wait_closed() end
          for _ = 1, 3 do aloop.sleep(0) end
        end
        while true do -- what came of the connections that were made
          local ok, sock = pcall(listener.accept, listener)
          if not ok then break end
          sock:close()
        end
        assert.equal(fds, helper.count_fds())
        assert.is_not_nil(finished)
        listener:close()
      end)
    end)
  end

  it("a script's getaddrinfo that waits is cancelled with what asked it", function()
    helper.with_loop(new_loop, function(loop)
      local fds = helper.count_fds()
      local asked, ended = 0, 0
      datagrams.with_resolver(loop, function()
        asked = asked + 1
        local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
        aloop.sleep(60)
      end, function()
        for _, make in ipairs { makers.create_connection, makers.create_server, makers.create_datagram_endpoint } do
          local task = loop:create_task(function() make(loop, 1) end)
          for _ = 1, 3 do aloop.sleep(0) end
          task:cancel()
          helper.raises(aloop.CancelledError, nil, task.await, task)
        end
      end)
      assert.same({ 3, 3 }, { asked, ended })
      assert.equal(fds, helper.count_fds())
    end)
  end)
end)
