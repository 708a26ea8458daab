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

describe("what a script does at the end", function()
  it("an exception handler that raises at close() doesn't keep the loop open", function()
    local loop = helper.new_loop()
    loop:set_exception_handler(function() error(aloop.SystemExit(3)) end)
    loop:create_future():set_exception("nobody takes it")
    local ok, e = pcall(loop.close, loop)
    assert.is_false(ok)
    assert.is_true(aloop.isinstance(e, aloop.SystemExit))
    assert.is_true(loop:is_closed())
  end)

  it("a forgotten loop is closed whatever its class makes of __tostring and __gc", function()
    local before = helper.count_fds()
    local class = aloop.SelectorEventLoop:extend("Nameless")
    class.__tostring = function() error("no name") end
    class.__gc = function() error("not this one") end
    local lines = {}
    aloop.set_log_handler(function(_, text) lines[#lines + 1] = text end)
    class()
    for _ = 1, 3 do collectgarbage() end
    helper.new_loop():close()
    for _ = 1, 3 do collectgarbage() end
    aloop.set_log_handler(nil)
    assert.matches("unclosed event loop", lines[1])
    assert.equal(before, helper.count_fds())
  end)

  -- Objects that are older than the loop are finalized after it, those older than the module after all of aloop.
  local script = [[
    local actions = {}
    local _ <const> = setmetatable({}, { __gc = function()
      table.sort(actions)
      for _, name in ipairs(actions) do print(name, pcall(actions[name])) end
    end })
    KEPT = _
    %s
    local aloop = require "aloop"
    aloop.set_log_handler(function() end)
    local loop = aloop.new_event_loop()
    local future = loop:create_future()
    future:add_done_callback(print)
    local timer, handle = loop:call_later(9, print), loop:call_soon(print)
    local task = loop:create_task(function() end)
    local function act(name, f)
      actions[#actions + 1] = name
      actions[name] = f
    end
    act("add", function() future:add_done_callback(print) end)
    act("cancel", function() future:cancel() end)
    act("handles", function() handle:cancel() timer:cancel() end)
    act("arm", function() timer:reschedule(1) end)
    act("new", function() aloop.new_event_loop():call_soon(print):cancel() end)
    act("run", function() aloop.run(function() aloop.sleep(0) end) end)
    act("set", function() future:set_result(1) end)
    act("task", function() task:cancel() end)
  ]]

  it("finalizers that come after the loop's find it closed", function()
    local out = helper.output_of(script:format(""))
    for _, name in ipairs { "add", "arm", "cancel", "set" } do
      assert.matches(name .. "\tfalse\tRuntimeError: Event loop is closed\n", out)
    end
    for _, name in ipairs { "handles", "new", "run", "task" } do assert.matches(name .. "\ttrue\n", out) end
  end)
end)

it("a finalizer leaves alone what isn't a loop or a future", function()
  setmetatable({}, aloop.SelectorEventLoop)
  collectgarbage()
  helper.drive(helper.new_loop, function(loop)
    local future = loop:create_future()
    future:set_exception("text")
    future:exception()
    local gc = getmetatable(future).__gc
    gc({})
    gc(loop)
  end)
  assert.is_false((pcall(aloop.SelectorEventLoop.__new, 1)))
end)
