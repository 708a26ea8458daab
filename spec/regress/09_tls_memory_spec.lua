-- 9: TLS connections left memory behind, and transports and protocols that kept each other (gh-109534, gh-98539,
-- bpo-34745, uvloop#220, uvloop#565).
-- SPDX-License-Identifier: MIT

local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"

local CYCLES = 120

-- A sanitizer keeps what is freed for a while, and tells itself what was not.
local is_sanitized = helper.read_file "/proc/self/maps":find "lib[at]san" ~= nil

local function resident_kib()
  return tonumber(helper.read_file "/proc/self/status":match "VmRSS:%s+(%d+)")
end

helper.each_loop(function(_, new_loop)
  describe("9: TLS connections", function()
    -- Half of the clients leave before the handshake has ended.
    local function cycle(loop, connect, address, n)
      for i = 1, n do
        if i % 2 == 0 then
          local transport, client = connect()
          transport:write "x"
          transport:close()
          client:wait_lost()
        else
          local sock = helper.connect(loop, address)
          helper.send_all(loop, sock, "\22\3\1\0\5\1")
          sock:close()
        end
      end
      helper.turns(3)
      collectgarbage()
      collectgarbage()
    end

    it("leave no memory behind", function()
      if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer keeps what is freed for a while
      helper.with_loop(new_loop, function(loop)
        local server_context = certs.server_context()
        tls.serve(loop, function(connect, server, _, made)
          local address = server.sockets[1]:getsockname()
          local function run()
            cycle(loop, connect, address, CYCLES)
            for i = #made, 1, -1 do made[i] = nil end
          end
          run()
          run()
          local before = resident_kib()
          run()
          local more = resident_kib() - before
          assert.is_true(more < CYCLES * 10 or is_sanitized, ("%d KiB more"):format(more)) -- while one lives it has 30
        end, { server = server_context })
      end)
    end)

    it("don't keep what belongs to them", function()
      helper.with_loop(new_loop, function(loop)
        local seen = setmetatable({}, { __mode = "k" })
        do
          local transport, client, server_transport, server = tls.pair(loop)
          for _, one in ipairs {
            transport, client, server_transport, server, transport:get_extra_info "ssl_object",
            transport:get_extra_info "ssl_object".session, transport:get_extra_info "sslcontext",
          } do
            seen[one] = true
          end
          tls.finish(client, server)
        end
        helper.turns(5)
        collectgarbage()
        collectgarbage()
        assert.is_nil(next(seen))
      end)
    end)
  end)
end)
