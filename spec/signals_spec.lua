-- Signal handlers of a loop. What a signal does once they are gone is seen in child processes.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function nop() end
local PID = io.open("/proc/self/stat"):read("n")

describe("aloop.signal", function()
  it("has the signals' numbers, and kill", function() -- row: signal_module
    assert.equal(15, aloop.signal.SIGTERM)
    assert.equal(2, aloop.signal.SIGINT)
    assert.equal(9, aloop.signal.SIGKILL)
    assert.equal(10, aloop.signal.SIGUSR1)
    aloop.signal.kill(PID, 0)
    raises(aloop.ProcessLookupError, nil, aloop.signal.kill, 4194304, "SIGTERM")
  end)
end)

helper.each_loop(function(_, new_loop)
  describe("add_signal_handler", function()
    it("calls with its arguments inside the loop, by number or name", function() -- row: add_signal_handler
      helper.drive(new_loop, function(loop)
        local got = {}
        local function note(...)
          got[#got + 1] = table.pack(...)
          assert.equal(loop, aloop.get_running_loop())
          loop:stop()
        end
        loop:add_signal_handler("SIGUSR1", note, 1, nil)
        loop:add_signal_handler(aloop.signal.SIGUSR2, note, "two")
        loop:call_soon(aloop.signal.kill, PID, "SIGUSR1")
        loop:run_forever()
        loop:call_soon(aloop.signal.kill, PID, "SIGUSR2")
        loop:run_forever()
        assert.same({ { 1, nil, n = 2 }, { "two", n = 1 } }, got)
        assert.is_true(loop:remove_signal_handler("SIGUSR1"))
        assert.is_true(loop:remove_signal_handler("SIGUSR2"))
      end)
    end)

    it("calls as often as the signal came", function()
      helper.drive(new_loop, function(loop)
        local got = {}
        loop:add_signal_handler("SIGUSR1", function() got[#got + 1] = 1 end)
        loop:add_signal_handler("SIGUSR2", function() got[#got + 1] = 2 end)
        for _ = 1, 3 do aloop.signal.kill(PID, "SIGUSR1") end
        aloop.signal.kill(PID, "SIGUSR2")
        helper.turn(loop, 10)
        assert.same({ 1, 2, 1, 1 }, got)
        loop:remove_signal_handler("SIGUSR1")
        loop:remove_signal_handler("SIGUSR2")
      end)
    end)

    -- row: add_signal_handler.invalid, add_signal_handler.type
    it("refuses signals that don't exist or can't be caught, and wrong types", function()
      helper.drive(new_loop, function(loop)
        for _, sig in ipairs { 0, -1, 32, 1000, "SIGKILL", "SIGSTOP", "SIGNONE" } do
          raises(aloop.ValueError, nil, loop.add_signal_handler, loop, sig, nop)
        end
        for _, sig in ipairs { 0, 32, 1000, "SIGKILL", "SIGSTOP", "SIGNONE" } do
          raises(aloop.ValueError, nil, loop.remove_signal_handler, loop, sig)
        end
        type_error("bad argument #1 to 'add_signal_handler'", loop.add_signal_handler, loop, {}, nop)
        type_error("bad argument #2 to 'add_signal_handler'", loop.add_signal_handler, loop, "SIGUSR1", 42)
        local co = coroutine.create(nop)
        type_error("bad argument #2 to 'add_signal_handler'", loop.add_signal_handler, loop, "SIGUSR1", co)
      end)
    end)

    it("takes the names of the real-time signals' ends, too", function()
      helper.drive(new_loop, function(loop)
        for _, name in ipairs { "SIGRTMIN", "SIGRTMAX" } do
          loop:add_signal_handler(name, nop)
          assert.is_true(loop:remove_signal_handler(aloop.signal[name]))
        end
      end)
    end)

    it("replaces the handler of a former call", function() -- row: add_signal_handler.replace
      helper.drive(new_loop, function(loop)
        local called = {}
        loop:add_signal_handler("SIGUSR1", function() called.first = true end)
        loop:add_signal_handler("SIGUSR1", function()
          called.second = true
          loop:stop()
        end)
        aloop.signal.kill(PID, "SIGUSR1")
        loop:run_forever()
        assert.same({ second = true }, called)
        assert.is_true(loop:remove_signal_handler("SIGUSR1"))
        assert.is_false(loop:remove_signal_handler("SIGUSR1"))
      end)
    end)

    it("wakes a loop that waits, and delivers several signals", function() -- row: add_signal_handler.while_polling
      helper.drive(new_loop, function(loop)
        local got = {}
        for _, name in ipairs { "SIGUSR1", "SIGUSR2", "SIGWINCH" } do
          loop:add_signal_handler(name, function()
            got[name] = true
            if got.SIGUSR1 and got.SIGUSR2 and got.SIGWINCH then loop:stop() end
          end)
        end
        local late = loop:call_later(30, loop.stop, loop)
        os.execute(("(sleep 0.05; kill -s USR1 %d; kill -s USR2 %d; kill -s WINCH %d) &"):format(PID, PID, PID))
        local began = loop:time()
        loop:run_forever()
        assert.is_true(loop:time() - began < 10)
        late:cancel()
        for name in pairs(got) do loop:remove_signal_handler(name) end
      end)
    end)

    it("keeps the context of the call", function()
      helper.drive(new_loop, function(loop)
        local var = aloop.ContextVar("v", { default = 0 })
        local seen
        aloop.copy_context():run(function()
          var:set(1)
          loop:add_signal_handler("SIGUSR1", function()
            seen = var:get()
            loop:stop()
          end)
        end)
        aloop.signal.kill(PID, "SIGUSR1")
        loop:run_forever()
        loop:remove_signal_handler("SIGUSR1")
        assert.equal(1, seen)
      end)
    end)

    it("reports an error of the handler and stays", function()
      helper.drive(new_loop, function(loop, trial)
        local n = 0
        loop:add_signal_handler("SIGUSR1", function()
          n = n + 1
          loop:stop()
          error("handler fails")
        end)
        for _ = 1, 2 do
          aloop.signal.kill(PID, "SIGUSR1")
          loop:run_forever()
          assert.matches("handler fails", trial:take_error().exception)
        end
        assert.equal(2, n)
        loop:remove_signal_handler("SIGUSR1")
      end)
    end)
  end)

  describe("remove_signal_handler", function()
    it("tells whether there was one", function() -- row: remove_signal_handler
      helper.drive(new_loop, function(loop)
        assert.is_false(loop:remove_signal_handler("SIGUSR1"))
        loop:add_signal_handler("SIGUSR1", nop)
        assert.is_true(loop:remove_signal_handler("SIGUSR1"))
        assert.is_false(loop:remove_signal_handler("SIGUSR1"))
      end)
    end)

    it("inside the handler is fine", function()
      helper.drive(new_loop, function(loop)
        local n = 0
        loop:add_signal_handler("SIGUSR1", function()
          n = n + 1
          assert.is_true(loop:remove_signal_handler("SIGUSR1"))
          loop:stop()
        end)
        aloop.signal.kill(PID, "SIGUSR1")
        loop:run_forever()
        assert.equal(1, n)
      end)
    end)
  end)
end)

describe("a removed handler", function()
  it("leaves the default disposition: SIGTERM kills", function() -- row: remove_signal_handler.restore
    local result = helper.run [[
      local aloop = require "aloop"
      local loop = aloop.new_event_loop()
      loop:add_signal_handler("SIGTERM", print, "handled")
      loop:remove_signal_handler("SIGTERM")
      aloop.signal.kill(io.open("/proc/self/stat"):read("n"), "SIGTERM")
      print("alive")
    ]]
    assert.equal(15, result.signal)
    assert.equal("", result.stdout)
  end)

  it("leaves SIGINT to the interpreter: it interrupts", function() -- row: remove_signal_handler.restore
    local child = helper.start [[
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      loop:add_signal_handler("SIGINT", print, "handled")
      loop:remove_signal_handler("SIGINT")
      print("ready")
      io.stdout:flush()
      aloop.sleep(30)
      print("slept")
    ]]
    child:read_until("ready")
    child:kill("INT")
    local result = child:wait()
    assert.equal(130, result.code)
    assert.equal("", result.stdout)
  end)
end)
