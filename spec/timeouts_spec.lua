-- timeout and timeout_at: scopes that end by TimeoutError when their time is up. Each scenario in which cancellations
-- meet was run under CPython 3.13, too.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

local NAN = 0 / 0

-- Runs the body in a timeout scope and gives the scope back, and the error of the block.
local function within(delay, body)
  local scope
  local ok, e = pcall(function()
    local t <close> = aloop.timeout(delay)
    scope = t
    body(t)
  end)
  return scope, not ok and e or nil
end

local function cancelling() return aloop.current_task():cancelling() end

helper.each_loop(function(_, new_loop)
  it("timeout raises TimeoutError out of its block when the time is up", function() -- row: timeout
    helper.with_loop(new_loop, function(loop)
      local start = loop:time()
      local scope, e = within(0.005, function() aloop.sleep(1000) end)
      assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
      assert.is_true(aloop.isinstance(e.cause, aloop.CancelledError))
      assert.is_true(loop:time() - start >= 0.005)
      assert.is_true(scope:expired())
      assert.equal(0, cancelling())
      local at
      raises(aloop.TimeoutError, nil, function()
        at = loop:time() + 0.002
        local t <close> = aloop.timeout_at(at)
        assert.equal(at, t:when())
        aloop.sleep(1000)
      end)
      assert.is_true(loop:time() >= at)
    end)
  end)

  it("timeout that isn't used up leaves nothing", function() -- row: timeout
    helper.with_loop(new_loop, function(loop)
      local before = core.stats(loop).timers
      local scope = within(1000, function(t)
        assert.is_false(t:expired())
        assert.is_true(t:when() > loop:time() + 900)
        assert.equal(before + 1, core.stats(loop).timers)
        aloop.sleep(0)
      end)
      assert.is_false(scope:expired())
      assert.equal(before, core.stats(loop).timers)
    end)
  end)
end)

describe("timeout", function()
  it("with no time left raises at the first wait, and not without one", function() -- row: timeout
    as_task(function()
      for _, delay in ipairs { 0, -1, -math.huge } do
        local scope, e = within(delay, function() aloop.sleep(1000) end)
        assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
        assert.is_true(scope:expired())
        scope, e = within(delay, function() end)
        assert.is_nil(e)
        assert.is_false(scope:expired())
      end
      aloop.sleep(0)
      assert.equal(0, cancelling())
    end)
  end)

  it("with no time left expires in the next turn, at whatever fraction of a nanosecond", function()
    as_task(function(loop)
      for i = 1, 400 do
        local _, e = pcall(function()
          local _ <close> = i % 2 == 0 and aloop.timeout(0) or aloop.timeout_at(loop:time())
          aloop.sleep(0)
        end)
        assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
      end
      assert.equal(0, cancelling())
    end)
  end)

  it("without a limit, or with an endless one, never expires", function()
    as_task(function()
      local scope = within(nil, function(t)
        assert.is_nil(t:when())
        aloop.sleep(0)
      end)
      assert.is_false(scope:expired())
      local _, e = within(math.huge, function() aloop.sleep(0.001) end)
      assert.is_nil(e)
    end)
  end)

  it("returns the values of a block that returns", function()
    as_task(function()
      local function block()
        local _ <close> = aloop.timeout(1000)
        return 1, nil, 3
      end
      assert.same({ 1, nil, 3, n = 3 }, table.pack(block()))
    end)
  end)

  it("can be moved", function() -- row: timeout
    as_task(function(loop)
      local scope, e = within(0.002, function(t)
        t:reschedule(nil)
        assert.is_nil(t:when())
        aloop.sleep(0.005)
        t:reschedule(loop:time() + 1000)
        aloop.sleep(0)
        assert.is_false(t:expired())
        t:reschedule(loop:time() - 1)
        assert.is_false(t:expired())
        aloop.sleep(1000)
      end)
      assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
      raises(aloop.RuntimeError, "Cannot change state of expired Timeout", scope.reschedule, scope, 1)
      scope = within(1000, function(t)
        t:reschedule(loop:time() - 1)
        t:reschedule(loop:time() + 1000) -- takes back what was to come in the next turn
        aloop.sleep(0)
        aloop.sleep(0)
        assert.is_false(t:expired())
      end)
      raises(aloop.RuntimeError, "Cannot change state of finished Timeout", scope.reschedule, scope, nil)
    end)
  end)

  it("shows its state", function()
    as_task(function(loop)
      local scope = within(nil, function(t) assert.equal("<Timeout [active] when=nil>", tostring(t)) end)
      assert.equal("<Timeout [finished]>", tostring(scope))
      scope = within(0, function(t)
        assert.matches("^<Timeout %[active%] when=%d+%.%d%d?%d?>$", tostring(t))
        pcall(aloop.sleep, 1000)
        assert.equal("<Timeout [expiring]>", tostring(t))
        assert.is_true(t:expired())
        error("out", 0)
      end)
      assert.equal("<Timeout [expired]>", tostring(scope))
      assert.is_true(aloop.isinstance(scope, aloop.Timeout))
      assert.equal(loop, aloop.get_running_loop())
    end)
  end)

  it("inside another: the inner one is the inner one's matter", function() -- row: timeout
    as_task(function()
      local inner, e
      local outer, outer_error = within(1000, function()
        inner, e = within(0.002, function() aloop.sleep(1000) end)
        assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
        aloop.sleep(0)
      end)
      assert.is_nil(outer_error)
      assert.same({ true, false }, { inner:expired(), outer:expired() })
      assert.equal(0, cancelling())
    end)
  end)

  it("inside another: the outer one passes the inner as a cancellation", function() -- row: timeout
    as_task(function()
      local inner, e
      local outer, outer_error = within(0.002, function()
        inner, e = within(1000, function() aloop.sleep(1000) end)
        assert.is_true(aloop.isinstance(e, aloop.CancelledError))
        assert.equal(1, cancelling())
        error(e, 0)
      end)
      assert.is_true(aloop.isinstance(outer_error, aloop.TimeoutError))
      assert.same({ false, true }, { inner:expired(), outer:expired() })
      assert.equal(0, cancelling())
    end)
  end)

  it("inside another that is up at the same time: both expire, the outer one raises", function() -- row: timeout
    as_task(function()
      local inner, e
      local outer, outer_error = within(0, function()
        inner, e = within(0, function() aloop.sleep(1000) end)
        assert.is_true(aloop.isinstance(e, aloop.CancelledError))
        assert.equal(1, cancelling())
        error(e, 0)
      end)
      assert.is_true(aloop.isinstance(outer_error, aloop.TimeoutError))
      assert.same({ true, true }, { inner:expired(), outer:expired() })
      assert.equal(0, cancelling())
    end)
  end)

  it("leaves a cancellation from outside what it is", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        local _ <close> = aloop.timeout(1000)
        aloop.sleep(1000)
      end)
      aloop.sleep(0)
      task:cancel("outside")
      raises(aloop.CancelledError, "outside", task.await, task)
      assert.is_true(task:cancelled())
      assert.equal(1, task:cancelling())
    end)
  end)

  it("that expires together with a cancellation from outside leaves that one", function()
    as_task(function(loop)
      local expired
      local task = loop:create_task(function()
        local scope, e = within(0, function() aloop.sleep(1000) end)
        expired = scope:expired()
        error(e, 0)
      end)
      aloop.sleep(0)
      task:cancel("outside")
      raises(aloop.CancelledError, nil, task.await, task)
      assert.is_true(expired)
      assert.equal(1, task:cancelling())
    end)
  end)

  it("counts from what the task had been asked before", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        assert.equal(1, cancelling())
        local _, e = within(0.001, function() aloop.sleep(1000) end)
        assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
        assert.equal(1, cancelling())
        return "ended"
      end)
      aloop.sleep(0)
      task:cancel()
      assert.equal("ended", task:await())
    end)
  end)

  it("lets an error of the block through that its cancellation led to, and stands in its causes", function()
    as_task(function()
      local scope, e = within(0.001, function()
        local _, cancelled = pcall(aloop.sleep, 1000)
        error(aloop.ValueError("other", { cause = aloop.RuntimeError("between", { cause = cancelled }) }))
      end)
      assert.is_true(scope:expired())
      assert.equal("other", e.message)
      local timeout = e.cause.cause
      assert.is_true(aloop.isinstance(timeout, aloop.TimeoutError))
      assert.is_true(aloop.isinstance(timeout.cause, aloop.CancelledError))
      assert.equal(0, cancelling())
    end)
  end)

  it("whose cancellation was caught lets the block end as it will", function()
    as_task(function()
      local scope, e = within(0.001, function(t)
        pcall(aloop.sleep, 1000)
        assert.is_true(t:expired())
        assert.equal(1, cancelling())
        aloop.sleep(0)
      end)
      assert.is_nil(e)
      assert.is_true(scope:expired())
      assert.equal(0, cancelling())
    end)
  end)

  it("expires while C code keeps the loop: at the first wait after", function()
    as_task(function()
      local _, e = within(0.001, function()
        local till = os.clock() + 0.005
        repeat until os.clock() > till
        aloop.sleep(0)
        aloop.sleep(0)
      end)
      assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
    end)
  end)

  it("cancels what its task waits for: a future, a task, an operation", function()
    as_task(function(loop)
      local future = loop:create_future()
      within(0.001, function() future:await() end)
      assert.is_true(future:cancelled())
      local task = loop:create_task(function() aloop.sleep(1000) end)
      local _, e = within(0.001, function() task:await() end)
      assert.is_true(aloop.isinstance(e, aloop.TimeoutError))
      assert.is_true(task:cancelled())
    end)
  end)

  it("closed twice, or out of turn, does it once", function()
    as_task(function()
      local a, b = aloop.timeout(1000), aloop.timeout(1000)
      local close = getmetatable(a).__close
      close(a)
      close(a)
      close(b)
      assert.is_false(b:expired())
      aloop.sleep(0)
    end)
  end)

  it("refuses wrong arguments, and is of no use outside a task", function()
    helper.drive(helper.new_loop, function(loop)
      loop:run_until_complete(function()
        type_error("bad argument #1 to 'timeout' (number expected, got string)", aloop.timeout, "soon")
        type_error("bad argument #1 to 'timeout_at' (number expected, got table)", aloop.timeout_at, {})
        raises(aloop.ValueError, "'timeout': delay must not be NaN", aloop.timeout, NAN)
        raises(aloop.ValueError, "'timeout_at': when must not be NaN", aloop.timeout_at, NAN)
        local t <close> = aloop.timeout(5)
        raises(aloop.ValueError, "NaN", t.reschedule, t, NAN)
        type_error("bad argument #1 to 'reschedule' (number expected, got boolean)", t.reschedule, t, true)
        type_error("(Timeout expected, got no value)", t.expired)
        raises(aloop.RuntimeError, nil, aloop.Timeout)
      end)
      local errors = {}
      loop:call_soon(function()
        for i, f in ipairs { aloop.timeout, aloop.timeout_at, aloop.TaskGroup } do
          local _, e = pcall(f, 5)
          errors[i] = e
        end
      end)
      helper.turn(loop)
      for i, name in ipairs { "'timeout'", "'timeout_at'", "'TaskGroup'" } do
        assert.is_true(aloop.isinstance(errors[i], aloop.RuntimeError))
        assert.matches(name, errors[i].message)
      end
    end)
  end)
end)

describe("a scope that is not closed", function()
  local HERE = "timeouts_spec.lua:%d"

  it("when its task ends is an error of the task, which names the line", function() -- row: timeout
    as_task(function(loop)
      local line
      local task = loop:create_task(function()
        line = debug.getinfo(1, "l").currentline + 1
        aloop.timeout(1000)
        return "lost"
      end)
      local e = raises(aloop.RuntimeError, "was not closed", task.await, task)
      assert.matches(HERE:format(line), e.message, 1, true)
      assert.matches("<close>", e.message, 1, true)
      task = loop:create_task(function()
        line = debug.getinfo(1, "l").currentline + 1
        local _ = aloop.TaskGroup()
      end)
      e = raises(aloop.RuntimeError, "TaskGroup()", task.await, task)
      assert.matches(HERE:format(line), e.message, 1, true)
    end)
  end)

  it("has the task's own error as its cause", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        aloop.timeout(1000)
        error(aloop.ValueError("own"))
      end)
      local e = raises(aloop.RuntimeError, "was not closed", task.await, task)
      assert.equal("own", e.cause.message)
      task = loop:create_task(function()
        aloop.timeout(1000)
        error("text", 0)
      end)
      assert.equal("text", raises(aloop.RuntimeError, nil, task.await, task).cause)
    end)
  end)

  it("is warned of if its task was cancelled, which stays a cancellation", function()
    helper.with_loop(helper.new_loop, function(loop, trial)
      local task = loop:create_task(function()
        aloop.timeout(1000)
        aloop.sleep(1000)
      end)
      aloop.sleep(0)
      task:cancel()
      raises(aloop.CancelledError, nil, task.await, task)
      local _, level, category = trial:take_log("was not closed")
      assert.same({ "warning", "RuntimeWarning" }, { level, category })
    end)
  end)

  it("lives on in an abandoned coroutine, till its task ends", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        local step = coroutine.wrap(function()
          local _ <close> = aloop.timeout(1000)
          coroutine.yield()
        end)
        step()
        step = nil -- luacheck: ignore 311
        collectgarbage()
        collectgarbage()
        aloop.sleep(0)
      end)
      raises(aloop.RuntimeError, "was not closed", task.await, task)
    end)
  end)

  it("of a task that is pending when its loop closes is let go", function()
    helper.drive(helper.new_loop, function(loop, trial)
      local scope
      loop:create_task(function()
        local t <close> = aloop.timeout(1000)
        scope = t
        aloop.sleep(1000)
      end)
      helper.turn(loop)
      loop:close()
      assert.is_false(scope:expired())
      raises(aloop.RuntimeError, "closed", scope.reschedule, scope, 1)
      getmetatable(scope).__close(scope)
      collectgarbage()
      collectgarbage()
      assert.matches("destroyed but it is pending", trial:take_error().message)
    end)
  end)
end)

describe("in a main chunk, before the loop turns", function()
  it("a timeout and a group belong to it", function()
    assert.equal("false\tTimeoutError\ttrue\nfalse\tbad\n", helper.output_of [[
      local aloop = require "aloop"
      local t
      local ok, e = pcall(function()
        t = aloop.timeout(0.001)
        local _ <close> = t
        aloop.sleep(1000)
      end)
      print(ok, e, t:expired())
      ok, e = pcall(function()
        local group <close> = aloop.TaskGroup()
        group:create_task(function() error("bad", 0) end)
        aloop.sleep(1000)
      end)
      print(ok, e.exceptions[1].value)
    ]])
  end)
end)
