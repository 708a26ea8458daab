-- odd_moments_spec.lua - finalizers in the middle of something, descriptors that others have, too.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

describe("a finalizer", function()
  -- Tasks that begin inside each other take a Lua thread for each depth; finalizers come while it is made, too.
  it("may cancel a handle while callbacks nest deeper than ever", function()
    local output = helper.output_of [[
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      aloop.sleep(0)
      collectgarbage("incremental", 1, 100, 1) -- a little at each allocation
      local n = 0
      local function litter()
        for _ = 1, 100 do
          local handle = loop:call_later(100, print)
          setmetatable({}, { __gc = function() handle:cancel() n = n + 1 end })
        end
      end
      local function nest(depth)
        if depth == 0 then return end
        litter()
        loop:create_task(function() nest(depth - 1) end, { eager_start = true })
      end
      nest(60)
      collectgarbage()
      print(n)
    ]]
    assert.equal("6000\n", output)
  end)
end)

helper.each_loop(function(_, new_loop)
  it("a server's socket may be watched when it is closed", function()
    helper.with_loop(new_loop, function(loop, trial)
      local server = loop:create_server(aloop.Protocol, "127.0.0.1", 0)
      local socket = server.sockets[1]
      loop:add_writer(socket, function() end)
      local fd = socket:fileno()
      server:close()
      server:wait_closed()
      assert.is_true(loop:remove_writer(fd))
      trial:turn(2)
      trial:take_log "can't be watched any more"
    end)
  end)
end)
