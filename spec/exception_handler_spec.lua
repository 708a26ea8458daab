-- Errors that nobody takes: the exception handler, its context, the default handler.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local type_error = helper.type_error

describe("the exception handler", function()
  -- row: set_exception_handler, context.message, context.exception, context.handle
  it("gets the loop and a context with message, exception and handle", function()
    helper.drive(helper.new_loop, function(loop)
      local got
      loop:set_exception_handler(function(l, context) got = { l, context } end)
      local raised = aloop.ValueError("broken")
      local handle = loop:call_soon(function() error(raised) end)
      helper.turn(loop)
      assert.equal(loop, got[1])
      assert.is_string(got[2].message)
      assert.equal(raised, got[2].exception)
      assert.equal(handle, got[2].handle)
      assert.matches("exception_handler_spec", raised.traceback)
    end)
  end)

  it("gets values of any type as they were raised", function()
    helper.drive(helper.new_loop, function(loop, trial)
      for _, value in ipairs { "text", { code = 1 }, 42, true, print } do
        loop:call_soon(function() error(value, 0) end)
        helper.turn(loop)
        assert.is_true(rawequal(value, trial:take_error().exception))
      end
      loop:call_soon(function() error(nil) end)
      loop:call_soon(function() error(false, 0) end)
      helper.turn(loop)
      assert.is_nil(trial:take_error().exception)
      assert.is_false(trial:take_error().exception)
    end)
  end)

  it("nil brings the default handler back; get_exception_handler tells which is set", function()
    -- row: set_exception_handler.nil, get_exception_handler
    helper.drive(helper.new_loop, function(loop, trial)
      local called = false
      local function handler() called = true end
      loop:set_exception_handler(handler)
      assert.equal(handler, loop:get_exception_handler())
      loop:set_exception_handler(nil)
      assert.is_nil(loop:get_exception_handler())
      loop:call_soon(error, "to the log")
      helper.turn(loop)
      assert.is_false(called)
      local message, level = trial:take_log("to the log")
      assert.equal("error", level)
      assert.is_string(message)
    end)
  end)

  it("must be callable", function() -- row: set_exception_handler.type
    helper.drive(helper.new_loop, function(loop)
      type_error("bad argument #1 to 'set_exception_handler'", loop.set_exception_handler, loop, 42)
      type_error("bad argument #1 to 'set_exception_handler'", loop.set_exception_handler, loop, {})
      loop:set_exception_handler(setmetatable({}, { __call = function() end }))
    end)
  end)

  -- row: set_exception_handler.context; point: 39
  it("runs in the context of the failing handle or task", function()
    helper.drive(helper.new_loop, function(loop)
      local var = aloop.ContextVar("v", { default = "outside" })
      local seen = {}
      loop:set_exception_handler(function() seen[#seen + 1] = var:get() end)
      local ctx = aloop.copy_context()
      loop:call_soon(ctx:bind(function()
        var:set("handle")
        error("x")
      end))
      helper.turn(loop)
      do
        local task = loop:create_task(function()
          var:set("task")
          error("y")
        end)
        helper.turn(loop, 2)
        assert.is_true(task:done())
      end
      collectgarbage()
      collectgarbage()
      helper.turn(loop, 2)
      assert.same({ "handle", "task" }, seen)
    end)
  end)

  it("that fails is reported by the default handler, and the loop goes on", function() -- row: errors.handler_failure
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_exception_handler(function() error("the handler fails") end)
      local after = false
      loop:call_soon(function() error("the callback fails") end)
      loop:call_soon(function() after = true end)
      helper.turn(loop)
      assert.is_true(after)
      local message = trial:take_log("Unhandled error in exception handler")
      assert.matches("the handler fails.*exception_handler_spec.lua:95: in function", message)
      assert.matches("the callback fails.*exception_handler_spec.lua:97: in function", message) -- and what it was for
    end)
  end)

  it("that fails over a context without an error or a message tells of none", function()
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_exception_handler(function() error("the handler fails") end)
      for _, context in ipairs { { message = "a message" }, {} } do
        loop:call_exception_handler(context)
        local text = context.message or "Unhandled exception in event loop"
        assert.matches("\ncontext: " .. text .. "\n[^\t][^\n]*the handler fails", trial:take_log("Unhandled error"))
      end
    end)
  end)

  it("that fails leaves what else it was told of to the default handler, too", function()
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_exception_handler(function() error("the handler fails") end)
      local circle = { message = "a message", reason = "a reason", exception = "an error" }
      circle.context = circle
      loop:call_exception_handler(circle)
      local inner = "\ncontext: a message\n\tcontext: table: [^\n]+\n\treason: 'a reason'\n\tan error\n"
      assert.matches(inner .. "[^\t][^\n]*the handler fails", trial:take_log("Unhandled error"))
    end)
  end)

  it("of nil is shown too", function()
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_exception_handler(nil)
      loop:call_soon(error)
      helper.turn(loop)
      assert.matches("callback error%(%).*error object is a nil value", trial:take_log("Exception in callback"))
    end)
  end)

  it("of an error whose __tostring fails is shown with all the rest that there is to say", function()
    helper.as_task(function(loop, trial)
      loop:set_exception_handler(nil)
      local evil = setmetatable({}, { __tostring = function() error("in __tostring") end })
      local group = aloop.ExceptionGroup("several", { evil, aloop.ValueError(evil), aloop.ValueError("a fine one") })
      group.cause = evil
      for _, case in ipairs {
        { evil, "<table whose __tostring failed: .*in __tostring>" },
        { aloop.ValueError(evil), "<ValueError whose __tostring failed: " },
        { group, "ExceptionGroup: several.*%[1%] <table whose.*%[2%] <ValueError whose.*%[3%] ValueError: a fine one.*"
          .. "caused by: <table whose" },
      } do
        loop:call_soon(function() error(case[1]) end)
        trial:turn()
        local text = trial:take_log("Exception in callback")
        assert.matches(case[2], text)
        assert.matches("stack traceback:.*exception_handler_spec", text)
      end
      loop:default_exception_handler { message = evil }
      assert.matches("^<table whose", trial:take_log("__tostring failed"))
      local task = loop:create_task(function() error(evil) end)
      pcall(task.await, task)
      local file = { write = function(self, text) self.text = text end }
      task:print_stack { file = file }
      assert.matches("<table whose __tostring failed.*>\n$", file.text)
    end)
  end)

  it("may call anything, call_exception_handler and default_exception_handler included", function()
    -- row: default_exception_handler, call_exception_handler
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_exception_handler(function(l, context) l:default_exception_handler(context) end)
      loop:call_exception_handler { message = "from the outside", exception = aloop.ValueError("a value") }
      local message, level = trial:take_log("from the outside")
      assert.equal("error", level)
      assert.matches("ValueError: a value", message)
    end)
  end)

  it("gets further keys as they are, and the default one shows them sorted", function() -- row: context.extensible
    helper.drive(helper.new_loop, function(loop, trial)
      local context = { message = "m", zebra = "striped", apple = "red" }
      loop:call_exception_handler(context)
      assert.equal(context, trial:take_error())
      loop:set_exception_handler(nil)
      loop:call_exception_handler(context)
      local text = trial:take_log("striped")
      assert.matches("apple.*red.*zebra.*striped", text)
    end)
  end)

  it("gets KeyboardInterrupt and SystemExit never: they leave run_forever", function() -- row: errors.interrupts_pass
    helper.drive(helper.new_loop, function(loop)
      for _, class in ipairs { aloop.KeyboardInterrupt, aloop.SystemExit } do
        local err = class()
        loop:call_soon(function() error(err) end)
        local ok, e = pcall(loop.run_forever, loop)
        assert.is_false(ok)
        assert.equal(err, e)
        loop:create_task(function() error(err) end)
        ok, e = pcall(loop.run_forever, loop)
        assert.is_false(ok)
        assert.equal(err, e)
      end
    end)
  end)

  it("doesn't get them either from a task that has set a context variable", function() -- row: errors.interrupts_pass
    helper.drive(helper.new_loop, function(loop)
      local var = aloop.ContextVar("var")
      local err = aloop.SystemExit(3)
      loop:create_task(function()
        var:set(1)
        aloop.sleep(0)
        error(err)
      end)
      local guard = loop:call_later(5, loop.stop, loop)
      local ok, e = pcall(loop.run_forever, loop)
      guard:cancel()
      assert.is_false(ok)
      assert.equal(err, e)
    end)
  end)

  it("gets a CancelledError of a plain callback like any error, and the batch goes on", function() -- point: 12
    helper.drive(helper.new_loop, function(loop, trial)
      local after = false
      loop:call_soon(function() error(aloop.CancelledError("x")) end)
      loop:call_soon(function() after = true end)
      helper.turn(loop)
      assert.is_true(after)
      assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.CancelledError))
    end)
  end)

  it("gets an error that no one looked at when its future is collected", function()
    -- row: Future.never_retrieved, context.future; point: 40
    helper.drive(helper.new_loop, function(loop, trial)
      do
        local future = loop:create_future()
        future:set_exception(aloop.ValueError("nobody looks"))
      end
      collectgarbage()
      collectgarbage()
      helper.turn(loop, 2)
      local context = trial:take_error()
      assert.matches("exception was never retrieved", context.message)
      assert.equal("ValueError: nobody looks", tostring(context.exception))
      assert.is_not_nil(context.future)
    end)
  end)

  it("gets no error that was looked at, nor a cancellation", function() -- row: Future.never_retrieved; point: 40
    helper.drive(helper.new_loop, function(loop)
      for _, look in ipairs {
        function(f) return pcall(f.result, f) end,
        function(f) return f:exception() end,
      } do
        local future = loop:create_future()
        future:set_exception("seen")
        look(future)
      end
      loop:create_future():cancel()
      loop:create_future():set_result(1)
      collectgarbage()
      collectgarbage()
      helper.turn(loop, 2)
    end)
  end)

  it("gets errors that nobody took at the latest when the loop closes", function()
    local got
    local kept
    local loop = helper.new_loop()
    loop:set_exception_handler(function(_, context) got = context end)
    kept = loop:create_future()
    kept:set_exception("unseen")
    loop:close()
    assert.is_not_nil(got)
    assert.equal("unseen", got.exception)
    assert.equal(kept, got.future)
  end)

  it("gets source_traceback in debug mode only", function() -- row: context.source_traceback
    helper.drive(helper.new_loop, function(loop, trial)
      loop:call_soon(error, "one")
      helper.turn(loop)
      assert.is_nil(trial:take_error().source_traceback)
      loop:set_debug(true)
      loop:call_soon(error, "two")
      helper.turn(loop)
      local trace = trial:take_error().source_traceback
      local text = type(trace) == "table" and table.concat(trace, "\n") or tostring(trace)
      assert.matches("exception_handler_spec", text)
    end)
  end)

  it("context keys that don't belong to the case are absent", function()
    helper.drive(helper.new_loop, function(loop, trial)
      loop:call_soon(error, "x")
      helper.turn(loop)
      local context = trial:take_error()
      for _, key in ipairs { "future", "task", "protocol", "transport", "socket", "asyncgen" } do
        assert.is_nil(context[key])
      end
    end)
  end)
end)

describe("the default exception handler", function()
  -- row: default_exception_handler
  it("writes message and traceback to stderr, whatever the type of the error", function()
    local result = helper.run [[
      local aloop = require "aloop"
      local loop = aloop.new_event_loop()
      loop:call_soon(function() error("first text") end)
      loop:call_soon(function() error({ code = "E_TABLE" }) end)
      loop:call_soon(function() error(aloop.OSError(2, "third")) end)
      loop:call_later(0.001, loop.stop, loop)
      loop:run_forever()
      loop:close()
      print("done")
    ]]
    assert.equal(0, result.code)
    assert.equal("done\n", result.stdout)
    assert.matches("first text", result.stderr)
    assert.matches("traceback", result.stderr)
    assert.matches("table", result.stderr)
    assert.matches("FileNotFoundError: ", result.stderr)
  end)
end)
