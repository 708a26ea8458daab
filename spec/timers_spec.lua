-- call_later, call_at, the loop's clock, TimerHandle.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function nop() end

-- Lets the clock go on without the loop.
local function block(loop, seconds)
  local stop_at = loop:time() + seconds
  while loop:time() < stop_at do nop() end
end

describe("the clock", function()
  -- row: clock.monotonic, loop.time
  it("is a float of seconds that never goes back and is not the wall clock", function()
    helper.drive(helper.new_loop, function(loop)
      local last = loop:time()
      assert.equal("float", math.type(last))
      for _ = 1, 1000 do
        local now = loop:time()
        assert.is_true(now >= last)
        last = now
      end
      assert.is_true(math.abs(os.time() - last) > 1000)
      local began = loop:time()
      loop:run_until_complete(function() aloop.sleep(0.1) end)
      local took = loop:time() - began
      assert.is_true(took >= 0.1 and took < 5)
    end)
  end)
end)

-- What holds for call_later holds for call_at; row: call_at.same_behaviour
for _, name in ipairs { "call_later", "call_at" } do
  local function schedule(loop, delay, ...)
    return loop[name](loop, name == "call_at" and loop:time() + delay or delay, ...)
  end

  describe(name, function()
    it("calls once, not before its time", function() -- row: call_later, call_later.once, call_at
      helper.drive(helper.new_loop, function(loop)
        local n, fired_at = 0, nil
        local began = loop:time()
        local handle = schedule(loop, 0.02, function()
          n = n + 1
          fired_at = loop:time()
          loop:call_later(0.005, loop.stop, loop)
        end)
        loop:run_forever()
        assert.equal(1, n)
        assert.is_true(fired_at >= handle:when())
        assert.is_true(fired_at - began >= 0.02 and fired_at - began < 5)
      end)
    end)

    it("takes integers and floats, and passes all arguments", function() -- row: call_later.number, call_later.args
      helper.drive(helper.new_loop, function(loop)
        local got = {}
        local function note(...) got[#got + 1] = table.pack(...) end
        loop[name](loop, 0, note, nil, 1, nil)
        loop[name](loop, 0.0, note)
        helper.turn(loop, 2)
        assert.same({ { nil, 1, nil, n = 3 }, { n = 0 } }, got)
        local far = loop[name](loop, 1000000000, nop)
        assert.equal("float", math.type(far:when()))
        far:cancel()
      end)
    end)

    -- row: call_later.handle, call_at.handle, TimerHandle, TimerHandle.subclass, TimerHandle.when
    it("returns a TimerHandle with its time", function()
      helper.drive(helper.new_loop, function(loop)
        local when = loop:time() + 60
        local handle = loop[name](loop, name == "call_at" and when or 60, nop)
        assert.is_true(aloop.isinstance(handle, aloop.TimerHandle))
        assert.is_true(aloop.isinstance(handle, aloop.Handle))
        if name == "call_at" then
          assert.equal(when, handle:when())
        else
          assert.is_true(math.abs(handle:when() - when) < 1)
        end
        assert.is_false(handle:cancelled())
        local before = handle:when()
        handle:cancel()
        assert.is_true(handle:cancelled())
        assert.equal(before, handle:when())
      end)
    end)

    it("keeps the context of the call", function() -- row: call_later.context
      helper.drive(helper.new_loop, function(loop)
        local var = aloop.ContextVar("v", { default = 0 })
        local ctx = aloop.copy_context()
        local seen, bound
        ctx:run(function()
          var:set(1)
          schedule(loop, 0, function() seen = var:get() end)
          var:set(2)
        end)
        local handle = schedule(loop, 0, ctx:bind(function() bound = var:get() end))
        assert.equal(ctx, handle:get_context())
        helper.turn(loop, 2)
        assert.equal(1, seen)
        assert.equal(2, bound)
      end)
    end)

    it("runs both of two with the same deadline", function() -- row: call_later.same_time
      helper.drive(helper.new_loop, function(loop)
        local got = {}
        local when = loop:time() + 0.002
        for i = 1, 2 do loop:call_at(when, function() got[i] = true end) end
        loop:call_at(when + 0.002, loop.stop, loop)
        loop:run_forever()
        assert.same({ true, true }, got)
      end)
    end)

    it("takes times of days and years, and doesn't spin until then", function() -- row: call_later.long
      helper.drive(helper.new_loop, function(loop)
        local fired = false
        local handles = {}
        for i, delay in ipairs { 2 * 86400, 1e9, 1e15, math.huge } do
          handles[i] = schedule(loop, delay, function() fired = true end)
        end
        local turns = core.stats(loop).turns
        loop:call_later(0.05, loop.stop, loop)
        loop:run_forever()
        assert.is_false(fired)
        assert.is_true(core.stats(loop).turns - turns < 10)
        for _, handle in ipairs(handles) do handle:cancel() end
      end)
    end)

    -- row: call_later.zero_negative, call_at.same_clock; point: 2
    it("calls in the next turn when its time is past, behind what was queued by call_soon", function()
      helper.drive(helper.new_loop, function(loop)
        local order = {}
        schedule(loop, -5, function() order[#order + 1] = "past" end)
        loop:call_soon(function() order[#order + 1] = "soon" end)
        helper.turn(loop)
        assert.same({ "soon", "past" }, order)
      end)
    end)

    it("refuses a time that is no number, and what can't be called", function() -- row: call_later.nil, call_at.nil
      helper.drive(helper.new_loop, function(loop)
        local f = loop[name]
        type_error(("bad argument #1 to '%s' (number expected, got nil)"):format(name), f, loop, nil, nop)
        type_error(("bad argument #1 to '%s' (number expected, got "):format(name), f, loop, {}, nop)
        type_error(("bad argument #2 to '%s'"):format(name), f, loop, 1)
        type_error("coroutine", f, loop, 1, coroutine.create(nop))
      end)
    end)

    it("raises RuntimeError on a closed loop", function() -- row: call_later.closed
      local loop = helper.new_loop()
      loop:close()
      raises(aloop.RuntimeError, "Event loop is closed", loop[name], loop, 1, nop)
    end)
  end)
end

helper.each_loop(function(_, new_loop)
  describe("timers", function()
    it("fire in the order of their deadlines, also when all are overdue", function() -- row: call_later.order
      helper.drive(new_loop, function(loop)
        local order, now = {}, loop:time() -- call_later would count from when it is called
        for _, ms in ipairs { 30, 10, 20 } do
          loop:call_at(now + ms / 1000, function() order[#order + 1] = ms end)
        end
        block(loop, 0.035)
        helper.turn(loop)
        assert.same({ 10, 20, 30 }, order) -- row: timers.same_iteration_due
      end)
    end)

    -- row: call_later.not_early, timers.rounding; point: 15
    it("never fire early, and short ones don't make the loop spin", function()
      helper.drive(new_loop, function(loop)
        local early = 0
        local turns = core.stats(loop).turns
        for _, delay in ipairs { 0.0001, 0.0005, 0.001, 0.0015, 0.01, 0.05, 0.1 } do
          local when = loop:time() + delay
          loop:call_at(when, function()
            if loop:time() < when then early = early + 1 end
          end)
        end
        loop:call_later(0.12, loop.stop, loop)
        loop:run_forever()
        assert.equal(0, early)
        local n = core.stats(loop).turns - turns
        assert.is_true(n < 30, n .. " turns")
      end)
    end)

    it("that came due while a callback blocked the loop fire right after it", function() -- row: call_later.blocked
      helper.drive(new_loop, function(loop)
        local order = {}
        loop:call_later(0.005, function() order[#order + 1] = "timer" end)
        loop:call_soon(function()
          block(loop, 0.02)
          order[#order + 1] = "blocked"
          loop:stop()
        end)
        loop:run_forever()
        if #order == 1 then helper.turn(loop) end
        assert.same({ "blocked", "timer" }, order)
      end)
    end)

    it("don't fire once cancelled, also by another timer of the same batch", function()
      -- row: timers.cancel_prevents, timers.cancel_other_due
      helper.drive(new_loop, function(loop)
        local called = false
        local never = loop:call_later(0.001, function() called = true end)
        never:cancel()
        local second
        loop:call_later(0.002, function() second:cancel() end)
        second = loop:call_later(0.0021, function() called = true end)
        block(loop, 0.01)
        helper.turn(loop, 2)
        assert.is_false(called)
      end)
    end)

    it("that were cancelled don't wake the loop", function() -- row: timers.cancel_head
      helper.drive(new_loop, function(loop)
        for i = 1, 20 do loop:call_later(i / 1000, nop):cancel() end
        local turns = core.stats(loop).turns
        loop:call_later(0.05, loop.stop, loop)
        loop:run_forever()
        assert.is_true(core.stats(loop).turns - turns <= 3)
      end)
    end)
  end)
end)

describe("cancelled timers", function()
  it("leave no memory behind, however many and far they were", function() -- row: timers.cancel_compaction; point: 14
    helper.drive(helper.new_loop, function(loop)
      for _ = 1, 1000 do loop:call_later(1e6, nop):cancel() end
      collectgarbage()
      local before = collectgarbage("count")
      for _ = 1, 100000 do loop:call_later(1e6, nop):cancel() end
      collectgarbage()
      assert.is_true(collectgarbage("count") - before < 256)
      assert.equal(0, core.stats(loop).timers)
    end)
  end)
end)

describe("TimerHandle", function()
  it("compares by its time", function() -- row: TimerHandle.compare
    helper.drive(helper.new_loop, function(loop)
      local a, b = loop:call_later(50, nop), loop:call_later(100, nop)
      assert.is_true(a < b)
      assert.is_false(b < a)
      a:cancel()
      b:cancel()
    end)
  end)

  it("reschedule moves a timer that waits", function()
    helper.drive(helper.new_loop, function(loop)
      local n = 0
      local handle = loop:call_later(3600, function(x)
        n = n + x
        loop:stop()
      end, 2)
      local when = loop:time() + 0.001
      handle:reschedule(when)
      assert.equal(when, handle:when())
      loop:run_forever()
      assert.equal(2, n)
    end)
  end)

  it("reschedule arms one that fired again, with its callback and arguments, also from its own callback", function()
    helper.drive(helper.new_loop, function(loop)
      local n, handle = 0, nil
      handle = loop:call_later(0, function(x)
        n = n + x
        if n < 30 then handle:reschedule(loop:time()) else loop:stop() end
      end, 10)
      loop:run_forever()
      assert.equal(30, n)
      handle:reschedule(loop:time() + 0.001)
      loop:run_forever()
      assert.equal(40, n)
    end)
  end)

  it("reschedule of a cancelled one raises RuntimeError", function()
    helper.drive(helper.new_loop, function(loop)
      local handle = loop:call_later(1, nop)
      handle:cancel()
      raises(aloop.RuntimeError, nil, handle.reschedule, handle, loop:time())
    end)
  end)
end)
