-- 14: out of descriptors, a server went on calling accept for each queued connection, planned a retry and wrote a
-- report for each of them (gh-151615), or span at 100 % (joyent/libuv#690, #1189). One report, one pause of a second,
-- then on.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"

helper.each_loop(function(kind)
  it("14: many queued connections without a free descriptor make one report and no spinning", function()
    local out = helper.output_of(helper.HOARD .. [[
      local aloop = require "aloop"
      local core = require "aloop.core"
      local S = aloop.socket
      local loop = require("aloop.testing").new_loop { kind = ... }
      local reports = 0
      loop:set_exception_handler(function(_, context)
        assert(context.exception.code == "EMFILE")
        reports = reports + 1
      end)
      loop:run_until_complete(function()
        local served = 0
        local server = loop:create_server(function()
          served = served + 1
          return {}
        end, "127.0.0.1", 0)
        local address = server.sockets[1]:getsockname()
        local clients = {}
        for i = 1, 20 do clients[i] = S.socket() end
        local hoarded = hoard()
        for _, client in ipairs(clients) do pcall(client.connect, client, address) end
        while reports == 0 do aloop.sleep(0.001) end
        local cpu, turns = os.clock(), core.stats(loop).turns
        aloop.sleep(0.5)
        print(reports, served, os.clock() - cpu < 0.2, core.stats(loop).turns - turns < 10)
        for _, file in ipairs(hoarded) do file:close() end
        while served < 20 do aloop.sleep(0.01) end
        print("served")
        for _, client in ipairs(clients) do client:close() end
        server:close()
        server:wait_closed()
      end)
      loop:close()
    ]], { before = "ulimit -n 100", args = { kind } })
    assert.equal("1\t0\ttrue\ttrue\nserved\n", out)
  end)
end)
