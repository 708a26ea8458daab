-- Closing a loop, and what is said of one that was not closed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

helper.each_loop(function(_, new_loop)
  describe("close", function()
    it("gives back every descriptor of the loop", function() -- row: close
      local before = helper.count_fds()
      local loop = new_loop()
      loop:run_until_complete(function() aloop.sleep(0) end)
      loop:close()
      assert.is_true(loop:is_closed())
      assert.equal(before, helper.count_fds())
    end)

    it("is refused while the loop runs, and the loop goes on", function() -- row: close.running
      helper.drive(new_loop, function(loop)
        loop:run_until_complete(function()
          raises(aloop.RuntimeError, "Cannot close a running event loop", loop.close, loop)
          aloop.sleep(0)
          assert.is_false(loop:is_closed())
        end)
      end)
    end)

    it("discards what is pending", function() -- row: close.pending_lost
      local loop = new_loop()
      local called = false
      loop:call_soon(function() called = true end)
      loop:call_later(0, function() called = true end)
      loop:close()
      collectgarbage()
      assert.is_false(called)
    end)

    it("may be called twice", function() -- row: close.idempotent
      local loop = new_loop()
      loop:close()
      loop:close()
      assert.is_true(loop:is_closed())
    end)

    it("leaves nothing to do but to ask: all else raises RuntimeError", function() -- row: close.irreversible
      local loop = new_loop()
      loop:close()
      local function nop() end
      local calls = {
        call_soon = { nop }, call_later = { 1, nop }, call_at = { 1, nop }, call_soon_threadsafe = { nop },
        run_forever = {}, run_until_complete = { nop }, create_task = { nop }, add_reader = { 0, nop },
        add_writer = { 0, nop }, add_signal_handler = { "SIGUSR1", nop },
      }
      for name, args in pairs(calls) do
        raises(aloop.RuntimeError, "Event loop is closed", loop[name], loop, table.unpack(args))
      end
    end)

    it("leaves the harmless questions answered", function() -- row: close.benign_after
      local loop = new_loop()
      loop:close()
      assert.is_true(loop:is_closed())
      assert.is_false(loop:is_running())
      assert.is_false(loop:get_debug())
      assert.equal("float", math.type(loop:time()))
      loop:stop()
      assert.is_string(tostring(loop))
      assert.is_false(loop:remove_reader(0))
      assert.is_false(loop:remove_writer(0))
    end)

    it("with a transport and a server open closes their descriptors", function()
      local before = helper.count_fds()
      local loop = new_loop()
      aloop.set_log_handler(function() end)
      loop:run_until_complete(function() helper.joined(loop) end)
      loop:run_until_complete(function() loop:create_server(function() return {} end, "127.0.0.1", 0) end)
      loop:close()
      collectgarbage()
      collectgarbage()
      aloop.set_log_handler(nil)
      assert.equal(before, helper.count_fds())
    end)

    it("gives signals their default disposition back", function() -- row: close.signals
      local result = helper.run [[
        local aloop = require "aloop"
        local loop = aloop.new_event_loop()
        loop:add_signal_handler("SIGUSR1", print, "handled")
        loop:close()
        local pid = io.open("/proc/self/stat"):read("n")
        aloop.signal.kill(pid, "SIGUSR1")
        print("alive")
      ]]
      assert.equal(10, result.signal)
    end)
  end)

  -- row: loop.unclosed_warning; point: 40
  it("a loop that is collected unclosed is reported as ResourceWarning and closed", function()
    collectgarbage()
    local before = helper.count_fds()
    local seen
    aloop.set_log_handler(function(level, message, category) seen = { level, message, category } end)
    do
      local loop = new_loop()
      helper.turn(loop)
      loop = nil -- luacheck: ignore 311
    end
    collectgarbage()
    collectgarbage()
    aloop.set_log_handler(nil)
    assert.is_not_nil(seen)
    assert.equal("warning", seen[1])
    assert.matches("unclosed event loop", seen[2])
    assert.equal("ResourceWarning", seen[3])
    assert.equal(before, helper.count_fds())
  end)

  it("tostring shows class, running, closed and debug", function() -- row: loop.repr
    helper.drive(new_loop, function(loop)
      assert.matches("EventLoop", tostring(loop))
      assert.matches("running=false closed=false debug=false", tostring(loop))
      loop:set_debug(true)
      loop:run_until_complete(function()
        assert.matches("running=true closed=false debug=true", tostring(loop))
      end)
      loop:set_debug(false)
      loop:close()
      assert.matches("running=false closed=true", tostring(loop))
    end)
  end)

  it("is <close>d at the end of a block", function()
    local kept
    do
      local loop <close> = new_loop()
      kept = loop
    end
    assert.is_true(kept:is_closed())
  end)
end)
