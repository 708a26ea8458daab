-- 19: happy eyeballs had two winners, whose second leaked (gh-124309, gh-128479), crashed on tasks that end at once
-- (gh-135836), and raised IndexError when no attempt left an error (aiohappyeyeballs#101).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local S = aloop.socket

local function infos(addresses)
  local list = {}
  for i, address in ipairs(addresses) do
    list[i] = { family = S.AF_INET, type = S.SOCK_STREAM, proto = S.IPPROTO_TCP, sockaddr = address }
  end
  return list
end

helper.each_loop(function(_, new_loop)
  it("19: of attempts that succeed in one turn one wins, the others are closed", function()
    helper.with_loop(new_loop, function(loop)
      local listeners, addresses = {}, {}
      for i = 1, 4 do listeners[i], addresses[i] = helper.listen() end
      local fds = helper.count_fds()
      datagrams.with_resolver(loop, function() return infos(addresses) end, function()
        for _ = 1, 5 do
          local transport = loop:create_connection(function() return {} end, "name", 1, { happy_eyeballs_delay = 0 })
          assert.is_true(transport:get_extra_info("peername").port > 0)
          transport:close()
          for _ = 1, 3 do aloop.sleep(0) end
          assert.equal(fds, helper.count_fds())
        end
      end)
      -- What was accepted beyond the winners was closed by us.
      for _, listener in ipairs(listeners) do
        while true do
          local ok, sock = pcall(listener.accept, listener)
          if not ok then break end
          assert.is_nil(helper.recv(loop, sock, 1))
          sock:close()
        end
        listener:close()
      end
    end)
  end)

  it("19: without addresses, and with none that can be bound, there is an error", function()
    helper.with_loop(new_loop, function(loop)
      local addresses = {}
      datagrams.with_resolver(loop, function(_, host) return infos(host == "none" and {} or addresses) end, function()
        local create, options = loop.create_connection, { happy_eyeballs_delay = 0.01 }
        local function nop() end
        helper.raises(aloop.OSError, "getaddrinfo() returned empty list", create, loop, nop, "name", 1, options)
        addresses = { { "127.0.0.1", 1 }, { "127.0.0.2", 1 } }
        options.local_addr = { "::1", 0 }
        helper.raises(aloop.OSError, "no matching local address", create, loop, nop, "name", 1, options)
      end)
    end)
  end)
end)
