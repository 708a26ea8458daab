-- wait, wait_for and as_completed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error, after = helper.as_task, helper.raises, helper.type_error, helper.after

local NAN = 0 / 0

-- A wait at whose call several turns pass: a future that is never done.
local function forever(loop) return loop:create_future() end

describe("wait", function()
  it("waits for all, and gives them as they stand in the list", function() -- row: wait
    as_task(function(loop)
      local a, b = loop:create_task(after(0.002)), loop:create_task(after(0))
      local done, pending = aloop.wait { a, b, a }
      assert.same({ a, b }, done)
      assert.same({}, pending)
      done = aloop.wait({ b }, { return_when = aloop.ALL_COMPLETED })
      assert.same({ b }, done)
    end)
  end)

  it("for the first one returns when one is done", function() -- row: wait
    as_task(function(loop)
      local slow, quick = loop:create_task(after(1000)), loop:create_task(after(0))
      local done, pending = aloop.wait({ slow, quick }, { return_when = aloop.FIRST_COMPLETED })
      assert.same({ quick }, done)
      assert.same({ slow }, pending)
      slow:cancel()
    end)
  end)

  it("for the first exception returns at an error, not at a cancellation", function() -- row: wait
    as_task(function(loop)
      local slow, cancelled = loop:create_task(after(1000)), loop:create_task(after(1000))
      local failing = loop:create_task(function()
        aloop.sleep(0.002)
        error(aloop.ValueError("x"))
      end)
      loop:call_soon(cancelled.cancel, cancelled)
      local done, pending = aloop.wait({ slow, cancelled, failing }, { return_when = aloop.FIRST_EXCEPTION })
      assert.same({ cancelled, failing }, done)
      assert.same({ slow }, pending)
      assert.equal("x", failing:exception().message)
      slow:cancel()
      done = aloop.wait({ slow }, { return_when = aloop.FIRST_EXCEPTION })
      assert.equal(1, #done)
    end)
  end)

  it("with a timeout returns what is done; it cancels nothing and raises nothing", function() -- row: wait
    as_task(function(loop)
      local slow, quick = loop:create_task(after(1000)), loop:create_task(after(0))
      for _, timeout in ipairs { 0.005, 0, -1 } do
        local done, pending = aloop.wait({ slow, quick }, { timeout = timeout })
        assert.same({ slow }, pending)
        assert.same({ quick }, done)
      end
      assert.equal(0, slow:cancelling())
      slow:cancel()
    end)
  end)

  it("cancelled leaves the futures and no callback of its own", function()
    as_task(function(loop)
      local child = loop:create_task(after(0.002, "still"))
      local waiter = loop:create_task(function() aloop.wait({ child }, { timeout = 1000 }) end)
      aloop.sleep(0)
      waiter:cancel()
      raises(aloop.CancelledError, nil, waiter.await, waiter)
      assert.no.matches("wait", tostring(child):match("cb=.*") or "")
      assert.equal("still", child:await())
    end)
  end)

  it("refuses coroutines, no futures, other loops and unknown conditions", function()
    as_task(function(loop)
      local future = forever(loop)
      raises(aloop.ValueError, "empty", aloop.wait, {})
      raises(aloop.ValueError, "Invalid return_when value: 5", aloop.wait, { future }, { return_when = 5 })
      raises(aloop.ValueError, "NaN", aloop.wait, { future }, { timeout = NAN })
      type_error("bad argument #1 to 'wait' (Future expected at #2, got function", aloop.wait,
        { future, after(0) })
      type_error("bad argument #1 to 'wait' (array of awaitables expected, got Future)", aloop.wait, future)
      type_error("bad argument #1 to 'wait' (array of awaitables expected, got nil)", aloop.wait)
      local _, e = pcall(function()
        aloop.wait()
        return nil
      end)
      assert.matches("^spec/wait_spec.lua:", e)
      type_error("unknown option 'time' to 'wait'", aloop.wait, { future }, { time = 1 })
      type_error("bad option 'timeout' to 'wait' (number expected, got string)", aloop.wait, { future },
        { timeout = "soon" })
      local other = helper.new_loop()
      raises(aloop.ValueError, "different loop", aloop.wait, { other:create_future() })
      other:close()
    end)
  end)
end)

describe("wait_for", function()
  it("returns all values of what ends in time", function() -- row: wait_for
    as_task(function(loop)
      local future = loop:create_future()
      loop:call_soon(future.set_result, future, 1, nil, 3)
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.wait_for(future, 1000)))
      assert.same({ "a", "b", n = 2 }, table.pack(aloop.wait_for(after(0, "a", "b"), nil)))
      assert.equal("t", (aloop.wait_for(coroutine.create(after(0, "t")), 1000)))
      raises(aloop.ValueError, "v", aloop.wait_for, function() error(aloop.ValueError("v")) end, 1000)
    end)
  end)

  it("runs a coroutine in the task that waits", function() -- row: wait_for
    as_task(function()
      local var = aloop.ContextVar("var")
      assert.equal(aloop.current_task(), (aloop.wait_for(function()
        var:set("inside")
        return aloop.current_task()
      end, 1000)))
      assert.equal("inside", var:get())
    end)
  end)

  it("cancels what takes too long, and raises TimeoutError when it has ended", function() -- row: wait_for
    as_task(function(loop)
      local ended = false
      local task = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        aloop.sleep(0.002)
        ended = true
        error(aloop.CancelledError())
      end)
      local e = raises(aloop.TimeoutError, nil, aloop.wait_for, task, 0.001)
      assert.is_true(ended)
      assert.is_true(aloop.isinstance(e.cause, aloop.CancelledError))
      assert.equal(0, aloop.current_task():cancelling())
    end)
  end)

  it("gives the value or the error of what ends otherwise when it is cancelled", function() -- row: wait_for
    as_task(function()
      assert.equal("kept", (aloop.wait_for(function()
        pcall(aloop.sleep, 1000)
        return "kept"
      end, 0.001)))
      raises(aloop.ValueError, "instead", aloop.wait_for, function()
        pcall(aloop.sleep, 1000)
        error(aloop.ValueError("instead"))
      end, 0.001)
      assert.equal(0, aloop.current_task():cancelling())
    end)
  end)

  it("with no time left takes what is done, and else cancels", function()
    as_task(function(loop)
      local ran = false
      for _, timeout in ipairs { 0, -1, -math.huge } do
        raises(aloop.TimeoutError, nil, aloop.wait_for, function() ran = true end, timeout)
      end
      assert.is_false(ran)
      local done = loop:create_future()
      done:set_result("there")
      assert.equal("there", (aloop.wait_for(done, 0)))
      local stubborn = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        return "kept"
      end)
      aloop.sleep(0)
      assert.equal("kept", (aloop.wait_for(stubborn, 0)))
    end)
  end)

  it("cancelled cancels what it waits for, and is no timeout", function()
    as_task(function(loop)
      local inner = loop:create_task(after(1000))
      local waiter = loop:create_task(function() aloop.wait_for(inner, 1000) end)
      aloop.sleep(0)
      waiter:cancel("why")
      raises(aloop.CancelledError, "why", waiter.await, waiter)
      assert.is_true(inner:cancelled())
    end)
  end)

  it("cancelled while it waits for the end of what it cancelled at once leaves no callback", function()
    as_task(function(loop)
      local inner = loop:create_task(function()
        pcall(aloop.sleep, 1000)
        aloop.sleep(0.002)
        return "ended"
      end)
      local waiter = loop:create_task(function() aloop.wait_for(inner, 0) end)
      aloop.sleep(0)
      aloop.sleep(0)
      waiter:cancel()
      raises(aloop.CancelledError, nil, waiter.await, waiter)
      assert.equal("ended", inner:await())
    end)
  end)

  it("refuses wrong arguments", function()
    as_task(function(loop)
      type_error("bad argument #1 to 'wait_for' (awaitable expected, got string; pass the function, don't call it)",
        aloop.wait_for, "x", 1)
      type_error("bad argument #2 to 'wait_for' (number expected, got string)", aloop.wait_for, after(0), "1")
      raises(aloop.ValueError, "'wait_for'", aloop.wait_for, after(0), NAN)
      local finished = coroutine.create(function() end)
      coroutine.resume(finished)
      type_error("bad argument #1 to 'wait_for' (awaitable expected, got ", aloop.wait_for, finished, 1)
      local me = aloop.current_task()
      raises(aloop.RuntimeError, "await on itself", aloop.wait_for, me, 1000)
      local other = helper.new_loop()
      raises(aloop.RuntimeError, "different loop", aloop.wait_for, other:create_future(), 1000)
      other:close()
      assert.equal(loop, aloop.get_running_loop())
    end)
  end)
end)

describe("as_completed", function()
  it("gives the futures as they end", function() -- row: as_completed
    as_task(function(loop)
      local first = loop:create_task(after(0.002, "first"))
      local order = {}
      for future in aloop.as_completed { after(0.02, "third"), first, after(0.01, "second"), first } do
        assert.is_true(future:done())
        if #order == 0 then assert.equal(first, future) end
        order[#order + 1] = future:await()
      end
      assert.same({ "first", "second", "third" }, order)
      assert.is_nil((aloop.as_completed {})())
    end)
  end)

  it("raises each error where its future is awaited", function()
    as_task(function()
      local ok, failed = 0, 0
      for future in aloop.as_completed { after(0.002), function() error("x", 0) end } do
        if pcall(future.await, future) then ok = ok + 1 else failed = failed + 1 end
      end
      assert.same({ 1, 1 }, { ok, failed })
    end)
  end)

  it("raises TimeoutError when the time is up, after what was done by then", function() -- row: as_completed
    as_task(function(loop)
      local slow = loop:create_task(after(1000))
      local got = {}
      raises(aloop.TimeoutError, nil, function()
        for future in aloop.as_completed({ slow, after(0, "quick") }, { timeout = 0.005 }) do
          got[#got + 1] = future:await()
        end
      end)
      assert.same({ "quick" }, got)
      assert.is_false(slow:done())
      slow:cancel()
    end)
  end)

  it("left early lets the others run on, without a timer or callback of its own", function()
    as_task(function(loop)
      local slow = loop:create_task(after(0.004, "slow"))
      for future in aloop.as_completed({ slow, after(0, "quick") }, { timeout = 1000 }) do -- luacheck: ignore 512
        assert.equal("quick", future:await())
        break
      end
      assert.equal("slow", slow:await())
    end)
  end)

  it("serves several tasks, each future once", function()
    as_task(function()
      local list, seen, n = {}, {}, 0
      for i = 1, 20 do list[i] = after(0.001 * (i % 4), i) end
      local next_one = aloop.as_completed(list)
      local function take()
        for future in next_one do
          seen[future:await()] = true
          n = n + 1
        end
      end
      aloop.gather(take, take, take)
      assert.equal(20, n)
      assert.equal(20, #seen)
    end)
  end)

  it("goes on for others when one that waits is cancelled", function()
    as_task(function(loop)
      local future = loop:create_future()
      local next_one = aloop.as_completed { future }
      local a, b = loop:create_task(next_one), loop:create_task(next_one)
      aloop.sleep(0)
      a:cancel()
      aloop.sleep(0)
      future:set_result(1)
      assert.equal(future, b:await())
    end)
  end)

  it("refuses wrong arguments", function()
    as_task(function(loop)
      type_error("bad argument #1 to 'as_completed' (array of awaitables expected, got function)", aloop.as_completed,
        after(0))
      type_error("bad argument #1 to 'as_completed' (awaitable expected, got number", aloop.as_completed, { 5 })
      type_error("bad option 'timeout' to 'as_completed' (number expected, got boolean)", aloop.as_completed,
        { forever(loop) }, { timeout = true })
      raises(aloop.ValueError, "NaN", aloop.as_completed, { forever(loop) }, { timeout = NAN })
    end)
  end)
end)
