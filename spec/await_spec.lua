-- aloop.await and ensure_future: everything that can be waited for, and what can't.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

local function object(body)
  return setmetatable({}, { __await = function(self) return body(self) end })
end

describe("await", function()
  it("of a function calls it in this task, in this context", function()
    as_task(function()
      local var = aloop.ContextVar("var")
      local me = aloop.current_task()
      assert.same({ me, nil, 3, n = 3 }, table.pack(aloop.await(function()
        aloop.sleep(0)
        var:set("seen")
        return aloop.current_task(), nil, 3
      end)))
      assert.equal("seen", var:get())
      raises(aloop.ValueError, "out", aloop.await, function()
        aloop.sleep(0)
        error(aloop.ValueError("out"))
      end)
    end)
  end)

  it("of a coroutine runs it in this task, from where it stands", function()
    as_task(function()
      local me = aloop.current_task()
      local co = coroutine.create(function(first)
        coroutine.yield(first)
        aloop.sleep(0)
        coroutine.yield() -- gives up a turn
        return aloop.current_task() == me, "end"
      end)
      assert.same({ true, 1 }, { coroutine.resume(co, 1) })
      assert.same({ true, "end" }, { aloop.await(co) })
      assert.equal("dead", coroutine.status(co))
      local ok, e = pcall(aloop.await, coroutine.create(function() error("raw", 0) end))
      assert.is_false(ok)
      assert.equal("raw", e)
    end)
  end)

  it("of a coroutine that yields a value tells it so", function()
    as_task(function()
      local e
      aloop.await(coroutine.create(function()
        local _
        _, e = pcall(coroutine.yield, 5)
      end))
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
    end)
  end)

  it("of an object calls its __await, which may wait", function()
    as_task(function(loop)
      local seen
      local one = object(function(self)
        seen = self
        aloop.sleep(0)
        return 1, 2
      end)
      assert.same({ 1, 2 }, { aloop.await(one) })
      assert.equal(one, seen)
      assert.same({ 1, 2 }, { aloop.ensure_future(one):await() })
      assert.equal(1, (aloop.gather(one)))
      assert.equal(1, (aloop.wait_for(one, 1000)))
      assert.equal(1, (aloop.shield(one)))
      assert.equal(loop, aloop.ensure_future(one):get_loop())
    end)
  end)

  it("of a future gives all its values, or its error, of any type", function()
    as_task(function(loop)
      local future = loop:create_future()
      loop:call_soon(future.set_result, future, 1, nil, 3)
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.await(future)))
      assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.await(future)))
      for _, err in ipairs { "text", 5, { 1 }, false } do
        local failed = loop:create_task(function() error(err, 0) end)
        assert.same({ false, err }, { pcall(aloop.await, failed) })
      end
      local failed = loop:create_task(function() error(nil) end)
      assert.same({ false, n = 2 }, table.pack(pcall(aloop.await, failed)))
      assert.same({ nil, true, n = 2 }, table.pack(failed:exception()))
    end)
  end)

  it("cancelled reaches what the coroutine waits for", function()
    as_task(function(loop)
      local inner = loop:create_future()
      local task = loop:create_task(function() aloop.await(function() aloop.await(inner) end) end)
      aloop.sleep(0)
      task:cancel("down")
      raises(aloop.CancelledError, "down", task.await, task)
      assert.is_true(inner:cancelled())
    end)
  end)

  it("refuses oneself, another loop's future, and coroutines that run or are finished", function()
    as_task(function()
      raises(aloop.RuntimeError, "Task cannot await on itself", aloop.await, aloop.current_task())
      local me = aloop.current_task()
      raises(aloop.RuntimeError, "'gather': Task cannot await on itself (#2)", aloop.gather, function() end, me)
      raises(aloop.RuntimeError, "'wait': Task cannot await on itself (#1)", aloop.wait, { me })
      raises(aloop.RuntimeError, "'shield': Task cannot await on itself", aloop.shield, me)
      raises(aloop.RuntimeError, "Task cannot await on itself", aloop.wait_for, me, 0)
      raises(aloop.RuntimeError, "'as_completed': Task cannot await on itself", aloop.as_completed, { me })
      local other = helper.new_loop()
      raises(aloop.RuntimeError, "different loop", aloop.await, other:create_future())
      other:close()
      local finished = coroutine.create(function() end)
      coroutine.resume(finished)
      type_error("a coroutine that runs or is finished", aloop.await, finished)
      type_error("a coroutine that runs or is finished", aloop.await, (coroutine.running()))
      type_error("a coroutine that runs or is finished", aloop.ensure_future, finished)
      type_error("bad argument #1 to 'gather' (awaitable expected", aloop.gather, finished)
    end)
  end)

  it("refuses what is no awaitable, with a hint", function()
    as_task(function()
      local hint = "awaitable expected, got %s; pass the function, don't call it"
      for _, value in ipairs { 5, "text", true } do
        type_error(hint:format(type(value)), aloop.await, value)
        type_error(hint:format(type(value)), aloop.ensure_future, value)
      end
      type_error(hint:format("table"), aloop.await, {})
      type_error("bad argument #1 to 'await'", aloop.await)
    end)
  end)
end)

describe("ensure_future", function()
  it("gives a future back as it is, and a task for anything else", function()
    as_task(function(loop)
      local future = loop:create_future()
      assert.equal(future, aloop.ensure_future(future))
      assert.equal(future, aloop.ensure_future(future, { loop = loop }))
      local task = aloop.ensure_future(function() return 7 end)
      assert.is_true(aloop.isinstance(task, aloop.Task))
      assert.equal(7, task:await())
      local other = helper.new_loop()
      raises(aloop.ValueError, "different loop", aloop.ensure_future, future, { loop = other })
      other:close()
      type_error("unknown option 'lop' to 'ensure_future'", aloop.ensure_future, future, { lop = loop })
    end)
  end)
end)

describe("sleep", function()
  it("refuses NaN and what is no number; less than nothing is a turn", function() -- row: sleep
    as_task(function()
      raises(aloop.ValueError, "NaN", aloop.sleep, 0 / 0)
      type_error("bad argument #1 to 'sleep' (number expected, got nil)", aloop.sleep, nil)
      assert.equal("v", (aloop.sleep(-1, "v")))
      assert.equal("v", (aloop.sleep(-math.huge, "v")))
    end)
  end)
end)

describe("a cancellation", function()
  it("goes down a long chain of tasks", function()
    as_task(function(loop)
      local future = loop:create_future()
      local last = future
      for _ = 1, 1000 do
        local previous = last
        last = loop:create_task(function() return previous:await() end)
      end
      aloop.sleep(0)
      aloop.sleep(0)
      assert.is_true(last:cancel("down"))
      assert.is_true(future:cancelled())
      raises(aloop.CancelledError, "down", last.await, last)
    end)
  end)

  it("ends tasks that wait for each other", function()
    as_task(function(loop)
      for _, wait in ipairs { aloop.await, aloop.gather } do
        local tasks = {}
        for i = 1, 3 do tasks[i] = loop:create_task(function() wait(tasks[i % 3 + 1]) end) end
        local outside = loop:create_task(function() wait(tasks[1]) end)
        for _ = 1, 4 do aloop.sleep(0) end
        outside:cancel()
        for _ = 1, 30 do aloop.sleep(0) end
        assert.is_true(outside:cancelled())
        for _, task in ipairs(tasks) do assert.is_true(task:cancelled()) end
      end
    end)
  end)
end)
