-- The life of a loop: making, finding, running, stopping and closing it.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

describe("finding a loop", function()
  it("get_running_loop gives the running loop inside callbacks and tasks", function() -- row: get_running_loop
    helper.drive(helper.new_loop, function(loop)
      local in_callback, in_task
      loop:call_soon(function() in_callback = aloop.get_running_loop() end)
      loop:run_until_complete(function() in_task = aloop.get_running_loop() end)
      assert.equal(loop, in_callback)
      assert.equal(loop, in_task)
    end)
  end)

  it("get_running_loop raises RuntimeError where no loop runs", function() -- row: get_running_loop.none
    raises(aloop.RuntimeError, "no running event loop", aloop.get_running_loop)
  end)

  it("get_running_loop raises again after a run, and after a run that failed", function() -- row: get_running_loop.none
    helper.drive(helper.new_loop, function(loop)
      assert.is_false((pcall(loop.run_until_complete, loop, function() error("no") end)))
      raises(aloop.RuntimeError, "no running event loop", aloop.get_running_loop)
    end)
  end)

  -- row: get_event_loop.inside
  it("get_event_loop inside a callback gives the running loop, whatever was set", function()
    helper.drive(helper.new_loop, function(loop)
      local before, other = aloop.get_event_loop(), helper.new_loop()
      aloop.set_event_loop(other)
      local inside, in_task
      loop:call_soon(function() inside = aloop.get_event_loop() end)
      loop:run_until_complete(function() in_task = aloop.get_event_loop() end)
      aloop.set_event_loop(before)
      other:close()
      assert.equal(loop, inside)
      assert.equal(loop, in_task)
    end)
  end)

  -- row: get_event_loop.outside, set_event_loop
  it("get_event_loop outside of a run gives the loop that was set", function()
    helper.drive(helper.new_loop, function(loop)
      local before = aloop.get_event_loop()
      assert.is_nil(aloop.set_event_loop(loop))
      local found = aloop.get_event_loop()
      aloop.set_event_loop(before)
      assert.equal(loop, found)
    end)
  end)

  -- row: get_event_loop.unset, get_event_loop.never_nil, set_event_loop.nil, new_event_loop.not_current
  it("get_event_loop raises RuntimeError once no loop is set; a new loop does not become the current one", function()
    local out = helper.output_of [[
      local aloop = require "aloop"
      aloop.set_event_loop(nil)
      local loop = aloop.new_event_loop()
      local ok, e = pcall(aloop.get_event_loop)
      print(ok, aloop.isinstance(e, aloop.RuntimeError))
      aloop.set_event_loop(loop)
      print(aloop.get_event_loop() == loop)
      aloop.set_event_loop(nil)
      print((pcall(aloop.get_event_loop)))
      loop:close()
    ]]
    assert.equal("false\ttrue\ntrue\nfalse\n", out)
  end)

  it("set_event_loop refuses what is no loop", function() -- row: set_event_loop.type
    type_error("bad argument #1 to 'set_event_loop'", aloop.set_event_loop, 42)
    type_error("bad argument #1 to 'set_event_loop'", aloop.set_event_loop, {})
  end)

  -- row: new_event_loop, is_closed, is_running
  it("new_event_loop makes a fresh, open loop that does not run", function()
    local a, b = aloop.new_event_loop(), aloop.new_event_loop()
    assert.are_not.equal(a, b)
    for _, loop in ipairs { a, b } do
      assert.is_false(loop:is_running())
      assert.is_false(loop:is_closed())
      loop:close()
      assert.is_true(loop:is_closed())
    end
  end)
end)

helper.each_loop(function(_, new_loop)
  describe("run_until_complete", function()
    -- row: run_until_complete.future, run_until_complete.result
    it("runs until the future is done and returns its results", function()
      helper.drive(new_loop, function(loop)
        local future = loop:create_future()
        loop:call_later(0.005, future.set_result, future, 1, nil, "three", nil)
        local result = table.pack(loop:run_until_complete(future))
        assert.is_false(loop:is_running())
        assert.same({ 1, nil, "three", nil, n = 4 }, result)
      end)
    end)

    -- row: run_until_complete.coroutine, run_until_complete.awaitable
    it("wraps a function or a suspended coroutine in a task, and takes a task as it is", function()
      helper.drive(new_loop, function(loop)
        local function body() return aloop.current_task(), aloop.isinstance(aloop.current_task(), aloop.Task) end
        assert.is_true(select(2, loop:run_until_complete(body)))
        assert.is_true(select(2, loop:run_until_complete(coroutine.create(body))))
        local task = loop:create_task(body)
        assert.equal(task, (loop:run_until_complete(task)))
      end)
    end)

    it("takes an object with __await, which may wait", function() -- row: run_until_complete.awaitable
      helper.drive(new_loop, function(loop)
        local object = setmetatable({ value = "v" }, {
          __await = function(self)
            aloop.sleep(0)
            return self.value, nil
          end,
        })
        assert.same({ "v", nil, n = 2 }, table.pack(loop:run_until_complete(object)))
        assert.equal("v", (loop:run_until_complete(function() return aloop.await(object) end)))
      end)
    end)

    it("raises the future's error unchanged, whatever its type", function() -- row: run_until_complete.raises
      helper.drive(new_loop, function(loop)
        for _, value in ipairs { aloop.ValueError("mine"), "text", { code = 7 }, false } do
          local future = loop:create_future()
          future:set_exception(value)
          local ok, e = pcall(loop.run_until_complete, loop, future)
          assert.is_false(ok)
          assert.is_true(rawequal(value, e))
        end
        local future = loop:create_future()
        future:cancel("enough")
        raises(aloop.CancelledError, "enough", loop.run_until_complete, loop, future)
      end)
    end)

    it("runs one iteration for a future that is done already", function() -- row: run_until_complete.done_future
      helper.drive(new_loop, function(loop)
        local ran = false
        local future = loop:create_future()
        future:set_result("r")
        loop:call_soon(function() ran = true end)
        assert.equal("r", loop:run_until_complete(future))
        assert.is_true(ran)
      end)
    end)

    -- row: run_until_complete.stopped_early; point: 4
    it("raises RuntimeError if stop() ends the run before the future is done", function()
      helper.drive(new_loop, function(loop)
        local future = loop:create_future()
        loop:call_soon(loop.stop, loop)
        raises(aloop.RuntimeError, "Event loop stopped before Future completed.", loop.run_until_complete, loop, future)
        assert.is_false(future:done())
      end)
    end)

    it("refuses what is no awaitable", function() -- row: run_until_complete.bad_type
      helper.drive(new_loop, function(loop)
        for _, value in ipairs { 42, "text", {}, true } do
          type_error("bad argument #1 to 'run_until_complete' (awaitable expected, got ", loop.run_until_complete, loop,
            value)
        end
        type_error("bad argument #1 to 'run_until_complete'", loop.run_until_complete, loop)
        type_error("bad argument #1 to 'run_until_complete'", loop.run_until_complete, loop, coroutine.running())
      end)
    end)

    it("refuses a future of another loop and leaves it alone", function() -- row: run_until_complete.other_loop
      helper.drive(new_loop, function(loop)
        local other = helper.new_loop()
        local future = other:create_future()
        raises(aloop.ValueError, nil, loop.run_until_complete, loop, future)
        assert.is_false(future:done())
        future:set_result(5)
        assert.equal(5, other:run_until_complete(future))
        other:close()
      end)
    end)

    -- row: run_until_complete.cleanup; point: 4
    it("leaves no stop behind when the run fails: the future's later end does not stop another run", function()
      helper.drive(new_loop, function(loop)
        local future = loop:create_future()
        loop:call_soon(loop.stop, loop)
        assert.is_false((pcall(loop.run_until_complete, loop, future)))
        local turns = 0
        local function tick()
          turns = turns + 1
          if turns == 10 then loop:stop() else loop:call_soon(tick) end
        end
        future:set_result()
        loop:call_soon(tick)
        loop:run_forever()
        assert.equal(10, turns)
      end)
    end)

    it("runs one more iteration after the future is done, for it stops through a callback", function() -- point: 4
      helper.drive(new_loop, function(loop)
        local order = {}
        local future = loop:create_future()
        loop:call_soon(function()
          future:set_result()
          loop:call_soon(function() order[#order + 1] = "next turn" end)
        end)
        loop:run_until_complete(future)
        assert.same({ "next turn" }, order)
      end)
    end)
  end)

  describe("run_forever", function()
    it("runs until stop() and returns nothing", function() -- row: run_forever, stop
      helper.drive(new_loop, function(loop)
        local after_stop = false
        loop:call_later(0.002, function()
          assert.is_nil(loop:stop())
          after_stop = true
        end)
        assert.equal(0, select("#", loop:run_forever()))
        assert.is_true(after_stop)
      end)
    end)

    -- row: run_forever.pre_stop; point: 3
    it("makes exactly one turn without waiting if stop() was called before it, queued-after-stop included", function()
      helper.drive(new_loop, function(loop)
        local order = {}
        local a, b = aloop.socket.socketpair()
        b:send("x")
        loop:add_reader(a, function()
          order[#order + 1] = "reader"
          loop:remove_reader(a)
        end)
        loop:stop()
        loop:call_soon(function()
          order[#order + 1] = "soon"
          loop:call_soon(function() order[#order + 1] = "nested" end)
        end)
        loop:call_later(3600, function() order[#order + 1] = "late" end):cancel()
        loop:run_forever()
        assert.same({ "soon", "reader" }, order)
        helper.turn(loop)
        assert.same({ "soon", "reader", "nested" }, order)
        a:close()
        b:close()
      end)
    end)

    -- row: run_forever.stop_during, run_forever.stop_nested; point: 3
    it("finishes the batch in which stop() is called, and keeps what the batch scheduled for the next run", function()
      helper.drive(new_loop, function(loop)
        local order = {}
        loop:call_soon(function()
          order[#order + 1] = 1
          loop:stop()
        end)
        loop:call_soon(function()
          order[#order + 1] = 2
          loop:call_soon(function() order[#order + 1] = 3 end)
        end)
        loop:run_forever()
        assert.same({ 1, 2 }, order)
        helper.turn(loop)
        assert.same({ 1, 2, 3 }, order)
      end)
    end)

    it("can be called again and keeps queue, timers and watches", function() -- row: run_forever.rerun
      helper.drive(new_loop, function(loop)
        local fired, read = false, 0
        local a, b = aloop.socket.socketpair()
        b:send("x")
        loop:add_reader(a, function() read = read + 1 end)
        loop:call_later(0.02, function()
          fired = true
          loop:stop()
        end)
        helper.turn(loop)
        assert.is_false(fired)
        loop:run_forever()
        assert.is_true(fired)
        assert.is_true(read >= 2)
        loop:remove_reader(a)
        a:close()
        b:close()
      end)
    end)

    it("refuses to run a loop that runs, and goes on", function() -- row: run_forever.nested_same
      helper.drive(new_loop, function(loop)
        local reached = false
        loop:call_soon(function()
          local message = "This event loop is already running"
          raises(aloop.RuntimeError, message, loop.run_forever, loop)
          raises(aloop.RuntimeError, message, loop.run_until_complete, loop, function() end)
          assert.is_true(loop:is_running())
          loop:call_soon(function()
            reached = true
            loop:stop()
          end)
        end)
        loop:run_forever()
        assert.is_true(reached)
      end)
    end)

    -- row: run_forever.nested_other; point: 5
    it("refuses to run a second loop inside another, whose running state stays as it is", function()
      helper.drive(new_loop, function(loop)
        local other = new_loop()
        loop:run_until_complete(function()
          raises(aloop.RuntimeError, "another loop is running", other.run_forever, other)
          assert.is_false(other:is_running())
          assert.is_true(loop:is_running())
          assert.equal(loop, aloop.get_running_loop())
          aloop.sleep(0)
          assert.equal(loop, aloop.get_running_loop())
        end)
        helper.turn(other)
        other:close()
      end)
    end)

    -- row: run_forever.error_exit, errors.interrupts_pass; point: 12
    it("is left by a KeyboardInterrupt of a callback; the loop then does not run and stays usable", function()
      helper.drive(new_loop, function(loop)
        local interrupt = aloop.KeyboardInterrupt("stop it")
        local after = false
        loop:call_soon(function() error(interrupt) end)
        loop:call_soon(function() after = true end)
        local ok, e = pcall(loop.run_forever, loop)
        assert.is_false(ok)
        assert.equal(interrupt, e)
        assert.is_false(loop:is_running())
        raises(aloop.RuntimeError, "no running event loop", aloop.get_running_loop)
        helper.turn(loop)
        assert.is_true(after)
      end)
    end)
  end)

  describe("stop", function()
    it("counts once a run, however often it is called", function() -- row: stop.idempotent
      helper.drive(new_loop, function(loop)
        local reached = 0
        loop:stop()
        loop:stop()
        loop:run_forever()
        loop:call_later(0.001, function()
          reached = reached + 1
          loop:stop()
          loop:stop()
        end)
        loop:run_forever()
        assert.equal(1, reached)
      end)
    end)
  end)

  it("is_running is true only while the loop runs", function() -- row: is_running
    helper.drive(new_loop, function(loop)
      assert.is_false(loop:is_running())
      loop:run_until_complete(function() assert.is_true(loop:is_running()) end)
      assert.is_false(loop:is_running())
    end)
  end)
end)

helper.each_loop(function(_, new_loop)
  -- row: event_loop.facilities
  it("tasks, timers, transports, children and jobs in threads share one loop", function()
    helper.with_loop(new_loop, function(loop)
      local seen, timer = {}, loop:create_future()
      loop:call_later(0.001, timer.set_result, timer, "timer")
      local server <close> = aloop.start_server(function(reader, writer)
        local _ <close> = writer
        writer:write(reader:readline())
      end, "127.0.0.1", 0)
      local address = server.sockets[1]:getsockname()
      do
        local group <close> = aloop.TaskGroup()
        group:create_task(function() seen.timer = timer:await() end)
        group:create_task(function()
          local reader, writer <close> = aloop.open_connection(address.host, address.port)
          writer:write("transport\n")
          seen.transport = reader:readline()
        end)
        group:create_task(function()
          local child = aloop.create_subprocess_exec("echo", "child", { stdout = aloop.subprocess.PIPE })
          seen.child = child:communicate()
        end)
        group:create_task(function() seen.thread = aloop.to_thread(string.rep, "job", 2) end)
      end
      assert.same({ timer = "timer", transport = "transport\n", child = "child\n", thread = "jobjob" }, seen)
      loop:shutdown_default_executor()
    end)
  end)
end)
