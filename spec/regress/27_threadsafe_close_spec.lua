-- 27: call_soon_threadsafe raced with close(): it wrote to a wake-up descriptor that was closed, or to its successor
-- (gh-96827, anyio#1265, uvloop 4b803b1). The race itself is run by spec/c/core_threads.c (see c_spec.lua); here is
-- what a script sees of it: success before the close, RuntimeError after it, nothing else.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  it("27: more wake-ups than any channel holds lose no call", function() -- point: 16
    helper.drive(new_loop, function(loop)
      local n = 0
      local function count() n = n + 1 end
      for _ = 1, 70000 do loop:call_soon_threadsafe(count) end
      helper.turn(loop, 3)
      assert.equal(70000, n)
    end)
  end)

  it("27: around close it succeeds or raises RuntimeError, and touches no other descriptor", function()
    for _ = 1, 20 do
      local loop = new_loop()
      local handle = loop:call_soon_threadsafe(print)
      loop:close()
      local a, b = aloop.socket.socketpair() -- these have the numbers of what was closed
      helper.raises(aloop.RuntimeError, "Event loop is closed", loop.call_soon_threadsafe, loop, print)
      assert.is_false((pcall(a.recv, a, 1)))
      assert.is_false((pcall(b.recv, b, 1)))
      handle:cancel()
      a:close()
      b:close()
    end
  end)
end)
