-- call_soon and call_soon_threadsafe, and the order of one turn.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function nop() end

for _, name in ipairs { "call_soon", "call_soon_threadsafe" } do
  describe(name, function()
    -- row: call_soon, call_soon_threadsafe.same_thread
    it("never calls at once, but in the next turn", function()
      helper.drive(helper.new_loop, function(loop)
        local called = false
        loop[name](loop, function() called = true end)
        assert.is_false(called)
        helper.turn(loop, 2)
        assert.is_true(called)
      end)
    end)

    it("calls in the order of registration", function() -- row: call_soon.fifo, call_soon_threadsafe.fifo
      helper.drive(helper.new_loop, function(loop)
        local order, expected = {}, {}
        for i = 1, 100 do
          expected[i] = i
          loop[name](loop, function() order[#order + 1] = i end)
        end
        helper.turn(loop, 2)
        assert.same(expected, order)
      end)
    end)

    it("calls once", function() -- row: call_soon.once
      helper.drive(helper.new_loop, function(loop)
        local n = 0
        loop[name](loop, function() n = n + 1 end)
        helper.turn(loop, 5)
        assert.equal(1, n)
      end)
    end)

    it("passes all arguments, nil and false at any place", function() -- row: call_soon.args
      helper.drive(helper.new_loop, function(loop)
        local got
        loop[name](loop, function(...) got = table.pack(...) end, nil, 1, false, "x", nil)
        local none
        loop[name](loop, function(...) none = select("#", ...) end)
        local many
        loop[name](loop, function(...) many = select("#", ...) end, table.unpack({}, 1, 100))
        helper.turn(loop, 2)
        assert.same({ nil, 1, false, "x", nil, n = 5 }, got)
        assert.equal(0, none)
        assert.equal(100, many)
      end)
    end)

    -- row: call_soon.returns_handle, call_soon_threadsafe.handle
    it("returns a Handle that can be cancelled", function()
      helper.drive(helper.new_loop, function(loop)
        local called = false
        local handle = loop[name](loop, function() called = true end)
        assert.is_true(aloop.isinstance(handle, aloop.Handle))
        assert.is_false(handle:cancelled())
        handle:cancel()
        assert.is_true(handle:cancelled())
        helper.turn(loop, 2)
        assert.is_false(called)
      end)
    end)

    it("runs a bound callback in its context", function() -- row: call_soon.context, call_soon_threadsafe.context
      helper.drive(helper.new_loop, function(loop)
        local var = aloop.ContextVar("v", { default = "default" })
        local ctx = aloop.copy_context()
        local seen
        local handle = loop[name](loop, ctx:bind(function(value) var:set(value) end), "inside")
        loop[name](loop, function() seen = var:get() end)
        assert.equal(ctx, handle:get_context())
        helper.turn(loop, 2)
        assert.equal("default", seen)
        assert.equal("default", var:get())
        assert.equal("inside", ctx:run(var.get, var))
      end)
    end)

    -- row: call_soon.context_default; point: 39
    it("shows the variables as they were at registration, and keeps changes to itself", function()
      helper.drive(helper.new_loop, function(loop)
        local var = aloop.ContextVar("v", { default = 0 })
        local ctx = aloop.copy_context()
        local seen
        ctx:run(function()
          var:set(1)
          loop[name](loop, function()
            seen = var:get()
            var:set(3)
          end)
          var:set(2)
        end)
        helper.turn(loop, 2)
        assert.equal(1, seen)
        assert.equal(2, ctx:run(var.get, var))
        assert.equal(0, var:get())
      end)
    end)

    it("raises RuntimeError on a closed loop", function() -- row: call_soon.closed, call_soon_threadsafe.closed
      local loop = helper.new_loop()
      loop:close()
      raises(aloop.RuntimeError, "Event loop is closed", loop[name], loop, nop)
    end)

    -- row: call_soon.noncallable, call_soon.coroutine_rejected
    it("refuses what can't be called, and coroutines", function()
      helper.drive(helper.new_loop, function(loop)
        loop:set_debug(true)
        type_error("bad argument #1 to '" .. name .. "'", loop[name], loop, 42)
        type_error("bad argument #1 to '" .. name .. "'", loop[name], loop, nil)
        type_error("bad argument #1 to '" .. name .. "'", loop[name], loop)
        type_error("bad argument #1 to '" .. name .. "'", loop[name], loop, {})
        type_error("coroutine", loop[name], loop, coroutine.create(nop))
        loop:set_debug(false)
        type_error("coroutine", loop[name], loop, coroutine.create(nop))
      end)
    end)

    it("takes anything with __call, and partials", function() -- row: scheduling.keywords, scheduling.partial
      helper.drive(helper.new_loop, function(loop)
        local got = {}
        local callable = setmetatable({}, { __call = function(_, a, b) got[#got + 1] = a .. b end })
        loop[name](loop, callable, "a", "b")
        loop[name](loop, aloop.partial(function(a, b, c) got[#got + 1] = a .. b .. c end, 1, 2), 3)
        helper.turn(loop, 2)
        assert.same({ "ab", "123" }, got)
      end)
    end)
  end)
end

it("a handle of a partial shows its function and bound arguments in debug mode", function() -- row: scheduling.partial
  helper.drive(helper.new_loop, function(loop)
    loop:set_debug(true)
    local handle = loop:call_soon(aloop.partial(print, "bound", 42), "given")
    local text = tostring(handle)
    assert.matches("bound", text)
    assert.matches("42", text)
    assert.matches("print", text)
    handle:cancel()
  end)
end)

helper.each_loop(function(_, new_loop)
  describe("a turn", function()
    -- row: iteration.snapshot; point: 1
    it("runs what was ready when it began; what that adds waits for another poll, so nobody starves", function()
      helper.drive(new_loop, function(loop)
        local a, b = aloop.socket.socketpair()
        b:send("x")
        local soon, read = 0, 0
        local function again()
          soon = soon + 1
          if soon < 50 then loop:call_soon(again) else loop:stop() end
        end
        loop:add_reader(a, function() read = read + 1 end)
        loop:call_soon(again)
        loop:run_forever()
        loop:remove_reader(a)
        assert.equal(50, soon)
        assert.is_true(read >= 48, "the reader came " .. read .. " times in 50 turns")
        a:close()
        b:close()
      end)
    end)

    -- row: iteration.order; point: 2
    it("runs queued callbacks, then I/O, then due timers; a negative delay comes after a later call_soon", function()
      helper.drive(new_loop, function(loop)
        local a, b = aloop.socket.socketpair()
        b:send("x")
        local order = {}
        local function note(what) order[#order + 1] = what end
        loop:add_reader(a, note, "io")
        helper.turn(loop) -- the registration has reached the kernel
        order = {}
        loop:call_later(-5, note, "negative")
        loop:call_later(0, note, "zero")
        loop:call_soon(note, "soon")
        helper.turn(loop)
        loop:remove_reader(a)
        assert.same({ "soon", "io", "negative", "zero" }, order)
        a:close()
        b:close()
      end)
    end)

    it("never waits while something is queued, and sleeps while nothing is", function() -- row: iteration.poll_timeout
      helper.drive(new_loop, function(loop)
        local late = loop:call_later(3600, nop)
        local began = loop:time()
        helper.turn(loop)
        assert.is_true(loop:time() - began < 1)
        local cpu, turns = os.clock(), core.stats(loop).turns
        loop:call_later(0.3, loop.stop, loop)
        loop:run_forever()
        assert.is_true(os.clock() - cpu < 0.15, "the loop is busy while it waits")
        assert.is_true(core.stats(loop).turns - turns < 10)
        late:cancel()
      end)
    end)

    it("goes on with the batch after an error, which the handler gets", function() -- row: callback.error_isolated
      helper.drive(new_loop, function(loop, trial)
        local second = false
        local handle = loop:call_soon(function() error(aloop.ValueError("broken")) end)
        loop:call_soon(function() second = true end)
        helper.turn(loop)
        assert.is_true(second)
        local context = trial:take_error()
        assert.is_string(context.message)
        assert.equal("ValueError: broken", tostring(context.exception))
        assert.equal(handle, context.handle)
      end)
    end)

    -- row: callback.cancelled_skip; point: 13
    it("skips a handle that an earlier callback of the same batch cancels, and a watch removed there", function()
      helper.drive(new_loop, function(loop)
        local called = {}
        local a, b = aloop.socket.socketpair()
        b:send("x")
        loop:add_reader(a, function() called[#called + 1] = "reader" end)
        local later, timer
        loop:call_soon(function()
          later:cancel()
          timer:cancel()
          loop:remove_reader(a)
        end)
        later = loop:call_soon(function() called[#called + 1] = "soon" end)
        timer = loop:call_later(0, function() called[#called + 1] = "timer" end)
        helper.turn(loop, 3)
        assert.same({}, called)
        a:close()
        b:close()
      end)
    end)
  end)

  it("call_soon_threadsafe between turns is seen by a loop that would sleep", function() -- row: call_soon_threadsafe
    helper.drive(new_loop, function(loop)
      local late = loop:call_later(3600, nop)
      helper.turn(loop)
      loop:call_soon_threadsafe(loop.stop, loop)
      local began = loop:time()
      loop:run_forever()
      assert.is_true(loop:time() - began < 10)
      late:cancel()
    end)
  end)

  it("a wait that a signal interrupts is no error", function() -- row: iteration.eintr
    helper.drive(new_loop, function(loop)
      local n = 0
      loop:add_signal_handler("SIGUSR2", function() n = n + 1 end)
      local pid = io.open("/proc/self/stat"):read("n")
      local sender = io.popen(("for i in 1 2 3 4 5 6 7 8 9 10; do kill -s USR2 %d; sleep 0.01; done"):format(pid))
      local stop_at = loop:time() + 0.3
      loop:call_at(stop_at, loop.stop, loop)
      loop:run_forever()
      assert.is_true(loop:time() >= stop_at)
      sender:close() -- none comes any more
      while n == 0 do helper.turn(loop) end
      loop:remove_signal_handler("SIGUSR2")
    end)
  end)
end)
