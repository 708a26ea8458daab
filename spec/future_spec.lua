-- Futures: states, results, callbacks, waiting.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function nop() end
local function drive(body) helper.drive(helper.new_loop, body) end

describe("a future", function()
  it("made by create_future is pending and belongs to the loop", function() -- row: create_future
    drive(function(loop)
      local future = loop:create_future()
      assert.is_false(future:done())
      assert.is_false(future:cancelled())
      assert.equal(loop, future:get_loop())
      assert.is_true(aloop.isinstance(future, aloop.Future))
      assert.is_false(aloop.isinstance(future, aloop.Task))
    end)
  end)

  -- row: Future.result
  it("result gives the values, raises the error, CancelledError, or InvalidStateError while pending", function()
    drive(function(loop)
      local future = loop:create_future()
      raises(aloop.InvalidStateError, nil, future.result, future)
      future:set_result(1, nil, 3, nil)
      assert.same({ 1, nil, 3, nil, n = 4 }, table.pack(future:result()))
      local empty = loop:create_future()
      empty:set_result()
      assert.equal(0, select("#", empty:result()))
      local one = loop:create_future()
      one:set_result(nil)
      assert.equal(1, select("#", one:result()))
      for _, value in ipairs { aloop.ValueError("v"), "text", { 1 }, false } do
        local failed = loop:create_future()
        failed:set_exception(value)
        local ok, e = pcall(failed.result, failed)
        assert.is_false(ok)
        assert.is_true(rawequal(value, e))
      end
      local cancelled = loop:create_future()
      cancelled:cancel("why")
      raises(aloop.CancelledError, "why", cancelled.result, cancelled)
    end)
  end)

  -- row: Future.exception
  it("exception gives the error and whether there is one; raises while pending or when cancelled", function()
    drive(function(loop)
      local future = loop:create_future()
      raises(aloop.InvalidStateError, nil, future.exception, future)
      future:set_result(1)
      local e, failed = future:exception()
      assert.is_nil(e)
      assert.is_false(failed)
      for _, value in ipairs { "text", false } do
        local other = loop:create_future()
        other:set_exception(value)
        e, failed = other:exception()
        assert.is_true(rawequal(value, e))
        assert.is_true(failed)
      end
      local with_nil = loop:create_future()
      with_nil:set_exception(nil)
      e, failed = with_nil:exception()
      assert.is_nil(e)
      assert.is_true(failed)
      local cancelled = loop:create_future()
      cancelled:cancel()
      raises(aloop.CancelledError, nil, cancelled.exception, cancelled)
    end)
  end)

  it("can be ended once only", function() -- row: Future.set_twice
    drive(function(loop)
      for _, finish in ipairs {
        function(f) f:set_result(1) end,
        function(f)
          f:set_exception("e")
          f:exception()
        end,
        function(f) f:cancel() end,
      } do
        local future = loop:create_future()
        finish(future)
        raises(aloop.InvalidStateError, nil, future.set_result, future, 2)
        raises(aloop.InvalidStateError, nil, future.set_exception, future, "e")
        assert.is_true(future:done())
      end
    end)
  end)

  it("cancel tells whether it was pending", function() -- row: Future.cancel
    drive(function(loop)
      local future = loop:create_future()
      assert.is_true(future:cancel())
      assert.is_true(future:cancelled())
      assert.is_true(future:done())
      assert.is_false(future:cancel())
      local done = loop:create_future()
      done:set_result()
      assert.is_false(done:cancel())
      assert.is_false(done:cancelled())
    end)
  end)

  -- row: Future.done_callback; point: 6
  it("calls its callbacks from the loop, in order, with itself alone; also those added when it is done", function()
    drive(function(loop)
      local future = loop:create_future()
      local got = {}
      local function note(...) got[#got + 1] = table.pack(...) end
      local order = {}
      for i = 1, 3 do future:add_done_callback(function() order[#order + 1] = i end) end
      future:add_done_callback(note)
      future:set_result("r")
      assert.same({}, order)
      future:add_done_callback(note)
      assert.equal(0, #got)
      helper.turn(loop)
      assert.same({ 1, 2, 3 }, order)
      assert.equal(2, #got)
      for i = 1, 2 do
        assert.equal(1, got[i].n)
        assert.equal(future, got[i][1])
      end
    end)
  end)

  it("calls its callbacks in the context of their registration, or a given one", function() -- point: 6, 39
    drive(function(loop)
      local var = aloop.ContextVar("v", { default = 0 })
      local ctx = aloop.copy_context()
      local seen = {}
      local future = loop:create_future()
      aloop.copy_context():run(function()
        var:set(1)
        future:add_done_callback(function() seen[1] = var:get() end)
        var:set(2)
      end)
      ctx:run(var.set, var, 3)
      future:add_done_callback(function()
        seen[2] = var:get()
        var:set(4)
      end, { context = ctx })
      var:set(5)
      future:set_result()
      helper.turn(loop)
      assert.same({ 1, 3 }, seen)
      assert.equal(4, ctx:run(var.get, var))
    end)
  end)

  it("add_done_callback refuses what can't be called and unknown options", function()
    drive(function(loop)
      local future = loop:create_future()
      type_error("bad argument #1 to 'add_done_callback'", future.add_done_callback, future, 42)
      local options = { contxt = 1 }
      type_error("unknown option 'contxt' to 'add_done_callback'", future.add_done_callback, future, nop, options)
      future:set_result()
    end)
  end)

  it("remove_done_callback removes equal ones and counts them", function() -- row: Future.remove_done_callback
    drive(function(loop)
      local future = loop:create_future()
      local n, other = 0, 0
      local function callback() n = n + 1 end
      future:add_done_callback(callback)
      future:add_done_callback(function() other = other + 1 end)
      future:add_done_callback(callback)
      assert.equal(2, future:remove_done_callback(callback))
      assert.equal(0, future:remove_done_callback(callback))
      future:set_result()
      helper.turn(loop)
      assert.equal(0, n)
      assert.equal(1, other)
    end)
  end)

  it("goes on with its callbacks after one failed", function()
    drive(function(loop, trial)
      local future = loop:create_future()
      local after = false
      future:add_done_callback(function() error("first fails") end)
      future:add_done_callback(function() after = true end)
      future:set_result()
      helper.turn(loop)
      assert.is_true(after)
      assert.matches("first fails", trial:take_error().exception)
    end)
  end)

  it("await suspends until it is done, gives its results or raises its error", function() -- row: Future.await
    drive(function(loop)
      local future, failing, cancelled = loop:create_future(), loop:create_future(), loop:create_future()
      local order = {}
      loop:call_soon(function()
        order[#order + 1] = "callback"
        future:set_result(1, nil, 3)
        failing:set_exception("the error")
        cancelled:cancel("the message")
      end)
      loop:run_until_complete(function()
        assert.same({ 1, nil, 3, n = 3 }, table.pack(future:await()))
        order[#order + 1] = "awaited"
        local ok, e = pcall(failing.await, failing)
        assert.is_false(ok)
        assert.equal("the error", e)
        raises(aloop.CancelledError, "the message", cancelled.await, cancelled)
        assert.same({ 1, nil, 3, n = 3 }, table.pack(aloop.await(future)))
      end)
      assert.same({ "callback", "awaited" }, order)
    end)
  end)

  it("await of a done one doesn't suspend", function() -- row: Future.await
    drive(function(loop)
      loop:run_until_complete(function()
        local turned = false
        loop:call_soon(function() turned = true end)
        local future = loop:create_future()
        future:set_result("now")
        assert.equal("now", future:await())
        assert.is_false(turned)
      end)
    end)
  end)

  it("can be awaited by several tasks, which go on in order", function()
    drive(function(loop)
      local future = loop:create_future()
      local order = {}
      for i = 1, 5 do
        loop:create_task(function()
          future:await()
          order[#order + 1] = i
        end)
      end
      loop:call_later(0.001, future.set_result, future)
      loop:run_until_complete(future)
      helper.turn(loop, 2)
      assert.same({ 1, 2, 3, 4, 5 }, order)
    end)
  end)

  it("await outside of a task raises RuntimeError that says so", function()
    drive(function(loop, trial)
      local future = loop:create_future()
      loop:call_soon(function() future:await() end)
      helper.turn(loop)
      local e = trial:take_error().exception
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
      assert.matches("await", e.message)
      assert.matches("task", e.message)
    end)
  end)

  it("tostring shows state, result or error, and callbacks", function() -- row: Future.repr
    drive(function(loop)
      local future = loop:create_future()
      assert.matches("^<Future .*pending", tostring(future))
      future:add_done_callback(nop)
      assert.matches("cb=%[function <[^>]*future_spec.lua:%d+>%(%)%]>", tostring(future))
      future:add_done_callback(aloop.partial(nop, future))
      future:add_done_callback(string.format)
      assert.matches("<1 more>, string.format%(%)%]>$", tostring(future))
      future:remove_done_callback(string.format)
      future:set_result(42)
      assert.matches("^<Future .*finished.*42", tostring(future))
      local failed = loop:create_future()
      failed:set_exception(aloop.ValueError("bad"))
      assert.matches("^<Future .*finished.*ValueError.*bad", tostring(failed))
      failed:exception()
      local cancelled = loop:create_future()
      cancelled:cancel()
      assert.matches("^<Future .*cancelled", tostring(cancelled))
      helper.turn(loop)
    end)
  end)

  it("shows the place of its making in debug mode", function() -- row: debug.creation_traceback
    drive(function(loop)
      loop:set_debug(true)
      local future = loop:create_future()
      assert.matches("created at .*future_spec%.lua:%d+", tostring(future))
    end)
  end)

  it("that is cyclic or has a __tostring that fails can be shown", function() -- bug: 30
    drive(function(loop)
      local future = loop:create_future()
      future:set_result(future)
      assert.matches("^<Future", tostring(future))
      local nasty = loop:create_future()
      nasty:set_result(setmetatable({}, { __tostring = function() error("no text") end }))
      assert.matches("^<Future", tostring(nasty))
    end)
  end)
end)

describe("a callback with an __eq", function()
  local function callables(__eq, calls)
    local class = { __eq = __eq, __call = function() calls[#calls + 1] = true end }
    return function() return setmetatable({}, class) end
  end

  it("may remove callbacks while it is looked for", function()
    drive(function(loop)
      local future = loop:create_future()
      local compared, calls, new = 0, {}, nil
      new = callables(function()
        compared = compared + 1
        if compared == 1 then future:remove_done_callback(new()) end
        return true
      end, calls)
      for _ = 1, 3 do future:add_done_callback(new()) end
      assert.equal(0, future:remove_done_callback(new()))
      future:set_result()
      helper.turn(loop)
      assert.equal(0, #calls)
    end)
  end)

  it("may end the future while it is looked for: what was scheduled is called", function()
    drive(function(loop)
      local future = loop:create_future()
      local calls = {}
      local new = callables(function()
        if not future:done() then future:set_result() end
        return true
      end, calls)
      for _ = 1, 3 do future:add_done_callback(new()) end
      assert.equal(0, future:remove_done_callback(new()))
      helper.turn(loop)
      assert.equal(3, #calls)
    end)
  end)
end)

it("a class given to set_exception may set the future while it makes the error", function()
  drive(function(loop)
    local future = loop:create_future()
    local class = aloop.Error:extend("Setting")
    function class.init() if not future:done() then future:set_result(1) end end
    raises(aloop.InvalidStateError, nil, future.set_exception, future, class)
    assert.equal(1, future:result())
  end)
end)
