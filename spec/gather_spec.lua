-- gather: several awaitables at once, their values in order, and what becomes of errors and cancellations. Each
-- scenario of cancelling was run under CPython 3.13, too.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises, type_error, after = helper.as_task, helper.raises, helper.type_error, helper.after

local function failing(err, seconds)
  return function()
    aloop.sleep(seconds or 0)
    error(err, 0)
  end
end

-- A child that notes the cancellation which ends it.
local function noting(notes, seconds)
  return function()
    local ok, e = pcall(aloop.sleep, 1000)
    if not ok then notes[#notes + 1] = e.message or "cancelled" end
    if seconds then aloop.sleep(seconds) end
    error(e, 0)
  end
end

describe("gather", function()
  it("returns one value for each awaitable, in the order given", function() -- row: gather
    as_task(function(loop)
      local future = loop:create_future()
      loop:call_later(0.001, future.set_result, future, "f", "more")
      local thread = coroutine.create(after(0, "t"))
      assert.same({ "a", nil, "f", "t", n = 4 },
        table.pack(aloop.gather(after(0.003, "a", "A"), after(0.002), future, thread)))
      assert.same({ 1, 2, n = 2 }, table.pack(aloop.gather { after(0.002, 1), after(0, 2) }))
    end)
  end)

  it("of nothing returns nothing", function()
    as_task(function()
      assert.equal(0, select("#", aloop.gather()))
      assert.equal(0, select("#", aloop.gather {}))
    end)
  end)

  it("waits once for a future that is given twice, and runs a function as often as it is given", function()
    as_task(function(loop)
      local runs = 0
      local function count()
        runs = runs + 1
        return runs
      end
      local task = loop:create_task(count)
      assert.same({ 1, 1, 1 }, { aloop.gather(task, task, task) })
      local thread = coroutine.create(count)
      assert.same({ 2, 2 }, { aloop.gather(thread, thread) })
      assert.same({ 3, 4 }, { aloop.gather(count, count) })
    end)
  end)

  it("runs its awaitables at the same time", function()
    as_task(function()
      local order = {}
      local function step(name)
        return function()
          for i = 1, 2 do
            order[#order + 1] = name .. i
            aloop.sleep(0)
          end
        end
      end
      aloop.gather(step "a", step "b")
      assert.same({ "a1", "b1", "a2", "b2" }, order)
    end)
  end)

  it("of what is done already returns or raises without a turn of the loop", function()
    as_task(function(loop)
      local done, failed, pending = loop:create_future(), loop:create_future(), loop:create_future()
      local turned = false
      done:set_result("done")
      failed:set_exception("failed")
      loop:call_soon(function() turned = true end)
      assert.same({ "done", "done", n = 2 }, table.pack(aloop.gather(done, done)))
      assert.equal("failed", aloop.gather({ failed, done }, { return_exceptions = true }).value)
      assert.same({ false, "failed" }, { pcall(aloop.gather, pending, failed) })
      assert.is_false(turned)
    end)
  end)

  it("raises the first error at once and lets the others run on", function() -- row: gather
    as_task(function(loop)
      local other = loop:create_task(after(0.002, "later"))
      raises(aloop.ValueError, "first", aloop.gather, failing(aloop.ValueError("first")), other)
      assert.is_false(other:done())
      assert.equal("later", other:await())
    end)
  end)

  it("raises errors of any type unchanged", function()
    as_task(function()
      for _, err in ipairs { "text", 42, { code = 7 }, false } do
        local ok, e = pcall(aloop.gather, failing(err))
        assert.is_false(ok)
        assert.equal(err, e)
      end
      local ok, e = pcall(aloop.gather, failing(nil))
      assert.is_false(ok)
      assert.is_nil(e)
    end)
  end)

  it("doesn't lose the error of another one, if nobody takes it", function()
    helper.drive(helper.new_loop, function(loop, trial)
      trial:run_task(function()
        raises(aloop.ValueError, "first", aloop.gather, failing(aloop.ValueError("first")),
          failing(aloop.ValueError("second"), 0.001))
        aloop.sleep(0.003)
      end)
      collectgarbage()
      collectgarbage()
      helper.turn(loop, 2)
      assert.equal("second", trial:take_error().exception.message)
    end)
  end)

  it("with return_exceptions gives errors as values", function() -- row: gather
    as_task(function()
      local a, b, c, d = aloop.gather({
        after(0, 1), failing(aloop.ValueError("v")), failing("text"), failing(nil),
      }, { return_exceptions = true })
      assert.equal(1, a)
      assert.is_true(aloop.isinstance(b, aloop.ValueError))
      assert.is_true(aloop.isinstance(c, aloop.Error))
      assert.equal("text", c.value)
      assert.equal("text", c.message)
      assert.is_true(aloop.isinstance(d, aloop.Error))
      assert.is_nil(d.value)
      local e, f = aloop.gather(after(0, 5), failing { 1 }, { return_exceptions = true })
      assert.equal(5, e)
      assert.same({ 1 }, f.value)
      assert.matches("gather_spec", c.traceback)
    end)
  end)

  it("with return_exceptions gives the cancellation of a child as a value", function()
    as_task(function(loop)
      local child = loop:create_task(after(1000))
      loop:call_soon(child.cancel, child, "why")
      local e, v = aloop.gather({ child, after(0.001, 2) }, { return_exceptions = true })
      assert.is_true(aloop.isinstance(e, aloop.CancelledError))
      assert.equal("why", e.message)
      assert.equal(2, v)
    end)
  end)

  it("of a child that was cancelled raises CancelledError; the others run on", function()
    as_task(function(loop)
      local child, other = loop:create_task(after(1000)), loop:create_task(after(0.002, "other"))
      local parent = loop:create_task(function() return aloop.gather(child, other) end)
      aloop.sleep(0)
      aloop.sleep(0)
      child:cancel()
      raises(aloop.CancelledError, nil, parent.await, parent)
      assert.is_true(parent:cancelled())
      assert.equal(0, parent:cancelling())
      assert.equal("other", other:await())
    end)
  end)

  it("cancelled cancels all its children, with the message", function() -- row: gather
    as_task(function(loop)
      local notes = {}
      local parent = loop:create_task(function() return aloop.gather(noting(notes), noting(notes)) end)
      aloop.sleep(0)
      aloop.sleep(0)
      assert.is_true(parent:cancel("stop"))
      raises(aloop.CancelledError, "stop", parent.await, parent)
      assert.is_true(parent:cancelled())
      assert.same({ "stop", "stop" }, notes)
    end)
  end)

  it("cancelled with return_exceptions raises, too, when all have ended", function()
    as_task(function(loop)
      local notes = {}
      local parent = loop:create_task(function()
        return aloop.gather({ noting(notes), noting(notes, 0.002) }, { return_exceptions = true })
      end)
      aloop.sleep(0)
      aloop.sleep(0)
      parent:cancel("stop")
      raises(aloop.CancelledError, "stop", parent.await, parent)
      assert.equal(2, #notes)
    end)
  end)

  it("cancelled whose children end by a result is cancelled all the same, after them", function()
    as_task(function(loop)
      local ended = 0
      local function stubborn()
        pcall(aloop.sleep, 1000)
        aloop.sleep(0.001)
        ended = ended + 1
      end
      local parent = loop:create_task(function() return aloop.gather(stubborn, stubborn) end)
      aloop.sleep(0)
      aloop.sleep(0)
      parent:cancel()
      raises(aloop.CancelledError, nil, parent.await, parent)
      assert.equal(2, ended)
    end)
  end)

  it("cancelled in the turn in which the last child ended is cancelled", function()
    as_task(function(loop)
      local future = loop:create_future()
      local parent = loop:create_task(function() return aloop.gather(future) end)
      aloop.sleep(0)
      aloop.sleep(0)
      future:set_result(1)
      assert.is_true(parent:cancel())
      raises(aloop.CancelledError, nil, parent.await, parent)
    end)
  end)

  it("passes a cancellation down through a gather inside it", function()
    as_task(function(loop)
      local notes = {}
      local parent = loop:create_task(function()
        return aloop.gather(function() return aloop.gather(noting(notes), noting(notes)) end, noting(notes))
      end)
      for _ = 1, 3 do aloop.sleep(0) end
      parent:cancel("all")
      raises(aloop.CancelledError, "all", parent.await, parent)
      assert.same({ "all", "all", "all" }, notes)
    end)
  end)

  it("shows the traceback of the child and of who waited", function()
    as_task(function(loop)
      local task = loop:create_task(function()
        aloop.gather(function()
          aloop.sleep(0)
          error(aloop.ValueError("deep"))
        end)
      end)
      local e = raises(aloop.ValueError, "deep", task.await, task)
      assert.matches("awaited in", e.traceback)
    end)
  end)

  it("refuses what is no awaitable, before it starts anything", function()
    as_task(function()
      local ran = false
      local function run() ran = true end
      type_error("bad argument #2 to 'gather' (awaitable expected, got string; pass the function, don't call it)",
        aloop.gather, run, "x")
      type_error("bad argument #1 to 'gather' (awaitable expected, got nil", aloop.gather, nil)
      type_error("bad argument #2 to 'gather' (awaitable expected, got number", aloop.gather, { run, 5 })
      type_error("unknown option 'limit' to 'gather'", aloop.gather, run, { limit = 2 })
      type_error("bad option 'return_exceptions' to 'gather' (boolean expected, got number)", aloop.gather, { run },
        { return_exceptions = 1 })
      type_error("bad argument #3 to 'gather' (option 'return_exceptions' is out of place", aloop.gather, { run }, nil,
        { return_exceptions = true })
      local other = helper.new_loop()
      raises(aloop.ValueError, "different loop", aloop.gather, run, other:create_future())
      other:close()
      aloop.sleep(0)
      assert.is_false(ran)
    end)
  end)

  it("can't be waited for outside a task", function()
    helper.drive(helper.new_loop, function(loop)
      local ok, e
      loop:call_soon(function() ok, e = pcall(aloop.gather, after(0)) end)
      helper.turn(loop)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
      assert.matches("'gather'", e.message)
    end)
  end)

  it("of thousands keeps every value", function()
    as_task(function()
      local list = {}
      for i = 1, 5000 do list[i] = after(0, i) end
      local values = table.pack(aloop.gather(list))
      assert.equal(5000, values.n)
      for i = 1, 5000 do assert(values[i] == i) end
    end)
  end)
end)
