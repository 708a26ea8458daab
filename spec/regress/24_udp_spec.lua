-- 24: empty datagrams were dropped (gh-113812), the count of what waits drifted (gh-135444), an error of sending closed
-- the endpoint instead of going to error_received (uvloop 3fba9fa, #601), a remote address was connected to twice
-- (uvloop bed926c); a full queue is backpressure, not an error.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local S = aloop.socket
local endpoint, sockname = datagrams.endpoint, datagrams.sockname

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  it("24: an empty datagram arrives, also one that had to wait", function()
    with_loop(function(loop)
      local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
      local sender, transport = endpoint(loop, nil, nil, { sock = a })
      local sent = 0
      repeat
        transport:sendto("")
        sent = sent + 1
      until transport:get_write_buffer_size() > 0
      assert.equal(8, transport:get_write_buffer_size())
      local receiver = endpoint(loop, nil, nil, { sock = b })
      receiver:wait_got(sent)
      for i = 1, sent do assert.equal("", receiver.got[i]) end
      sender:close()
      receiver:close()
    end)
  end)

  it("24: when all is sent nothing is counted", function()
    with_loop(function(loop)
      local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
      local sender, transport = endpoint(loop, nil, nil, { sock = a })
      transport:set_write_buffer_limits { high = 500, low = 0 }
      for round = 1, 5 do
        local n, counted = 0, 0
        while sender:count("pause") < round do
          transport:sendto(("x"):rep(round))
          n = n + 1
          if transport:get_write_buffer_size() > 0 then counted = counted + round + 8 end
          assert.equal(counted, transport:get_write_buffer_size())
        end
        for _ = 1, n do assert.equal(round, #helper.recv(loop, b)) end
        sender:wait(function() return sender:count("resume") == round end)
        assert.equal(0, transport:get_write_buffer_size())
      end
      sender:close()
      b:close()
    end)
  end)

  it("24: errors of what had to wait go to error_received, and the rest is sent", function()
    with_loop(function(loop)
      local directory, remove = helper.temporary_directory()
      local there, other = directory .. "/there", directory .. "/other"
      local full = S.socket(S.AF_UNIX, S.SOCK_DGRAM)
      full:bind(there)
      local last = S.socket(S.AF_UNIX, S.SOCK_DGRAM)
      last:bind(other)
      local sender, transport = endpoint(loop, nil, nil, { family = S.AF_UNIX })
      local sent = 0
      repeat
        transport:sendto("x", there)
        sent = sent + 1
      until transport:get_write_buffer_size() > 0
      transport:sendto("to nobody", directory .. "/nobody")
      transport:sendto("to another", other)
      for _ = 1, sent do helper.recv(loop, full) end
      assert.equal("to another", helper.recv(loop, last))
      assert.equal("ENOENT", sender.errors[1].code)
      assert.equal(1, #sender.errors)
      assert.is_false(transport:is_closing())
      sender:wait(function() return transport:get_write_buffer_size() == 0 end)
      assert.is_nil(sender:close())
      full:close()
      last:close()
      remove()
    end)
  end)

  it("24: an endpoint that nobody listens to stays open through many errors", function()
    with_loop(function(loop)
      local address = helper.vacant_address(S.SOCK_DGRAM)
      local sender, transport = endpoint(loop, nil, address)
      assert.equal(tostring(address), tostring(transport:get_extra_info("peername")))
      for i = 1, 5 do
        transport:sendto("x")
        sender:wait(function() return #sender.errors >= i end)
      end
      for _, e in ipairs(sender.errors) do assert.equal("ECONNREFUSED", e.code) end
      local receiver = endpoint(loop, { address.host, address.port })
      while #receiver.got == 0 do
        transport:sendto("at last")
        aloop.sleep(0)
      end
      assert.equal(tostring(sockname(transport)), tostring(receiver.senders[1]))
      assert.is_nil(sender:close())
      receiver:close()
    end)
  end)
end)
