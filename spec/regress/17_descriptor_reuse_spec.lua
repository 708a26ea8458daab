-- 17: descriptors are numbers, and numbers are used again. A transport that closed late unregistered a newer owner of
-- its number (gh-130141, gh-88968), and add_reader on a transport's descriptor broke both (pyasyncio#372).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

helper.each_loop(function(_, new_loop)
  it("17: a watch on the number of a closed transport lives", function()
    helper.with_loop(new_loop, function(loop)
      for _ = 1, 20 do
        local transport, protocol, sock = helper.over_socketpair(loop)
        local fd = transport:get_extra_info("socket"):fileno()
        transport:abort()
        protocol:wait_lost()
        aloop.sleep(0)
        local a, b = aloop.socket.socketpair()
        local same = a:fileno() == fd and a or b
        local other = same == a and b or a
        other:send("x")
        helper.wait_readable(loop, same)
        for _ = 1, 3 do aloop.sleep(0) end
        assert.equal("x", same:recv(10))
        -- What the old transport still does must not touch the new owner.
        transport:close()
        transport:abort()
        transport = nil -- luacheck: ignore 311
        collectgarbage()
        other:send("y")
        helper.wait_readable(loop, same)
        a:close()
        b:close()
        sock:close()
      end
    end)
  end)

  it("17: a new transport on the number of a closed one gets its own events only", function()
    helper.with_loop(new_loop, function(loop)
      local seen = {}
      for i = 1, 20 do
        local transport, protocol, sock = helper.over_socketpair(loop)
        local fd = transport:get_extra_info("socket"):fileno()
        seen[fd] = (seen[fd] or 0) + 1
        sock:send("round " .. i)
        assert.equal("round " .. i, protocol:wait_data(#("round " .. i)))
        sock:send("not read any more")
        transport:close()
        protocol:wait_lost()
        sock:close()
      end
      local most = 0
      for _, n in pairs(seen) do most = math.max(most, n) end
      assert.is_true(most > 1)
    end)
  end)

  it("17: a watch that is removed after its descriptor was closed doesn't break the successor", function()
    helper.drive(new_loop, function(loop, trial)
      for turns = 0, 3 do
        local a, b = aloop.socket.socketpair()
        local fd = a:fileno()
        loop:add_reader(fd, function() end)
        helper.turn(loop, turns)
        a:close()
        b:close()
        if turns > 1 then helper.turn(loop) end
        local c, d = aloop.socket.socketpair()
        local same = c:fileno() == fd and c or d
        local other = same == c and d or c
        loop:remove_reader(fd)
        local got = false
        other:send("x")
        loop:add_reader(same, function() got = true end)
        for _ = 1, 50 do
          if not got then helper.turn(loop) end
        end
        assert.is_true(got, "after " .. turns .. " turns")
        loop:remove_reader(same)
        helper.turn(loop)
        c:close()
        d:close()
      end
      trial.logs = {} -- some machines notice the closed descriptor, and say so
    end)
  end)

  it("17: a live transport's descriptor is refused, and the transport goes on", function()
    helper.with_loop(new_loop, function(loop)
      local transport, protocol, sock = helper.over_socketpair(loop)
      local socket = transport:get_extra_info("socket")
      raises(aloop.RuntimeError, nil, loop.add_reader, loop, socket, print)
      raises(aloop.RuntimeError, nil, loop.remove_reader, loop, socket)
      sock:send("still read")
      assert.equal("still read", protocol:wait_data(10))
      transport:close()
      protocol:wait_lost()
      sock:close()
    end)
  end)
end)
