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

-- At the end of the state the reader would be finalized before the task that waits for it goes on.
it("a finalizer runs no loop but one of its own", function()
  local output = helper.output_of [[
    local aloop = require "aloop"
    aloop.set_log_handler(function() end)
    local loop = aloop.new_event_loop()
    setmetatable({}, { __gc = function()
      local ok, e = pcall(loop.run_forever, loop)
      print(ok, e)
      print(pcall(loop.run_until_complete, loop, print))
      aloop.run(function() print(aloop.sleep(0, "slept")) end)
    end })
    local reader = aloop.StreamReader {}
    local task = loop:create_task(function() reader:readline() end)
    loop:call_soon(loop.stop, loop)
    loop:run_forever()
    reader:feed_data("a line\n")
  ]]
  local refusal = "false\tRuntimeError: Cannot run the event loop in a finalizer (__gc) that has not made it\n"
  assert.equal(refusal:rep(2) .. "slept\n", output)
end)

helper.each_loop(function(_, new_loop)
  it("a server's socket may be watched when it is closed", function()
    helper.with_loop(new_loop, function(loop, trial)
      local socket = helper.listen()
      local fd = socket:fileno()
      loop:add_writer(socket, function() end)
      local server = loop:create_server(aloop.Protocol, nil, nil, { sock = socket })
      server:close()
      server:wait_closed()
      assert.is_true(loop:remove_writer(fd))
      trial:turn(2)
      trial:take_log "can't be watched any more"
    end)
  end)
end)
