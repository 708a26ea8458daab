-- loop:run_in_executor, the default executor and its end, to_thread: on every kind of loop.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local threads = require "spec.support.threads"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error
local pass, pool = threads.pass, threads.pool

local function add(a, b) return a + b end
local function nop() end

helper.each_loop(function(_, new_loop)
  local function with_loop(body, options) helper.with_loop(new_loop, body, options) end

  describe("run_in_executor", function()
    -- row: run_in_executor, run_in_executor.executor_nil
    it("runs a function elsewhere while the loop goes on", function()
      with_loop(function(loop)
        threads.until_alone()
        local gate <close> = threads.gate()
        local future = loop:run_in_executor(nil, pass, gate.path, 1, nil, "three")
        assert.equal(1, threads.count())
        local ticks = 0
        for _ = 1, 3 do
          aloop.sleep(0.001)
          ticks = ticks + 1
        end
        gate.open()
        assert.same({ 1, nil, "three", n = 3 }, table.pack(future:await()))
        assert.equal(3, ticks)
        loop:shutdown_default_executor()
        threads.until_alone()
      end)
    end)

    it("returns a Future whose job begins at once", function() -- row: run_in_executor.returns_future
      with_loop(function(loop)
        local future = loop:run_in_executor(nil, add, 2, 3)
        assert.is_true(aloop.isinstance(future, aloop.Future))
        assert.equal(loop, future:get_loop())
        local called = loop:create_future()
        future:add_done_callback(function(f) called:set_result(f, aloop.get_running_loop()) end)
        local f, running = called:await() -- row: executor.ordering_wakeup
        assert.equal(future, f)
        assert.equal(loop, running)
        assert.equal(5, future:result())
      end)
    end)

    it("can be used before the loop runs", function()
      helper.drive(new_loop, function(loop)
        local future = loop:run_in_executor(nil, add, 2, 3)
        assert.equal(5, loop:run_until_complete(future))
      end)
    end)

    it("raises the error of the function where it is awaited", function() -- row: run_in_executor.error
      with_loop(function(loop)
        local future = loop:run_in_executor(nil, function() error(require "aloop".ValueError("what was wrong")) end)
        local task = aloop.create_task(function() future:await() end, { name = "asking" })
        local e = raises(aloop.ValueError, "what was wrong", task.await, task)
        assert.matches("^in a worker thread:\nstack traceback:\n.*\nawaited in asking:\n", e.traceback)
        local ok, text = pcall(function() return loop:run_in_executor(nil, error, "as it is", 0):await() end)
        assert.same({ false, "as it is" }, { ok, text })
      end)
    end)

    it("takes a partial for its arguments", function() -- row: run_in_executor.partial
      with_loop(function(loop)
        assert.equal(42, loop:run_in_executor(nil, aloop.partial(function(a, b) return a * b end, 6), 7):await())
      end)
    end)

    it("forgets a job that is cancelled before it begins; a running one ends unnoticed", function()
      with_loop(function(loop) -- row: run_in_executor.cancel
        local gate <close> = threads.gate()
        local workers <close> = pool()
        local probe = workers:submit(pass, gate.path)
        local queued = loop:run_in_executor(workers, function() _G.spec_ran = true end)
        threads.until_running(probe)
        assert.is_true(queued:cancel())
        helper.cancelled(queued)
        gate.open()
        probe:result()
        local running = loop:run_in_executor(workers, pass, gate.path)
        local task = aloop.create_task(function() running:await() end)
        aloop.sleep(0.001)
        task:cancel()
        helper.cancelled(task)
        gate.open()
        assert.is_nil(loop:run_in_executor(workers, function() return _G.spec_ran end):await())
      end)
    end)

    it("is refused by a closed loop, and after shutdown", function() -- row: run_in_executor.closed, close.irreversible
      local loop = new_loop()
      loop:close()
      raises(aloop.RuntimeError, "Event loop is closed", loop.run_in_executor, loop, nil, nop)
      raises(aloop.RuntimeError, "Event loop is closed", loop.set_default_executor, loop, nil)
      with_loop(function(open)
        local workers = pool()
        workers:shutdown()
        raises(aloop.RuntimeError, "cannot schedule new futures after shutdown", open.run_in_executor, open, workers,
          nop)
      end)
    end)

    it("uses a thread pool of one's own", function() -- row: run_in_executor.thread_pool, run_in_executor.executor
      with_loop(function(loop)
        do
          local workers <close> = pool(2)
          local futures = {}
          for i = 1, 10 do futures[i] = loop:run_in_executor(workers, add, i, i) end
          for i = 1, 10 do assert.equal(2 * i, futures[i]:await()) end
        end
        threads.until_alone()
      end)
    end)

    it("uses an interpreter pool", function() -- row: run_in_executor.interpreter_pool
      with_loop(function(loop)
        local workers <close> = aloop.InterpreterPoolExecutor { max_workers = 1 }
        _G.spec_here = true
        assert.is_nil(loop:run_in_executor(workers, function() return _G.spec_here end):await())
        _G.spec_here = nil
      end)
    end)

    it("uses whatever has a submit", function() -- row: run_in_executor.executor
      with_loop(function(loop)
        local Own = aloop.Executor:extend("Own")
        function Own:submit(f, ...)
          self.calls = (self.calls or 0) + 1
          local future = aloop.ConcurrentFuture()
          future:set_result(f(...))
          return future
        end
        local own = Own()
        assert.equal(5, loop:run_in_executor(own, add, 2, 3):await())
        assert.equal(1, own.calls)
        local future = loop:create_future()
        assert.equal(future, loop:run_in_executor({ submit = function() return future end }, nop))
        raises(aloop.RuntimeError, "the executor's submit gave no future", loop.run_in_executor, loop,
          { submit = function() return 1 end }, nop)
      end)
    end)

    it("checks its arguments", function()
      with_loop(function(loop)
        type_error("bad argument #1 to 'run_in_executor' (Executor expected, got number)", loop.run_in_executor, loop,
          1, nop)
        type_error("bad argument #1 to 'run_in_executor' (Executor expected, got table)", loop.run_in_executor, loop,
          {}, nop)
        type_error("bad argument #2 to 'run_in_executor' (function expected, got number)", loop.run_in_executor, loop,
          nil, 1)
        loop:set_debug(true)
        type_error("coroutines cannot be used with run_in_executor()", loop.run_in_executor, loop, nil,
          coroutine.create(nop))
        raises(aloop.ValueError, "argument #1: FILE*", loop.run_in_executor, loop, nil, nop, io.stdout)
      end)
    end)

    it("serves several loops of one state by one executor", function()
      local workers = pool(2)
      for i = 1, 3 do
        with_loop(function(loop) assert.equal(i + 1, loop:run_in_executor(workers, add, i, 1):await()) end)
      end
      with_loop(function() workers:shutdown() end)
    end)

    it("makes its Futures by create_future, if a class has its own", function()
      local made = 0
      local Own = aloop.SelectorEventLoop:extend("Own")
      function Own:create_future()
        made = made + 1
        return aloop.BaseEventLoop.create_future(self)
      end
      helper.with_loop(function() return Own() end, function(loop)
        local gate <close> = threads.gate()
        local workers <close> = pool()
        local before = made
        assert.equal(5, loop:run_in_executor(workers, add, 2, 3):await())
        assert.is_true(made > before)
        loop:run_in_executor(workers, pass, gate.path)
        local job = workers:submit(add, 1, 1)
        local future = aloop.wrap_future(job)
        future:cancel()
        threads.until_true(function() return job:cancelled() end)
        gate.open()
      end)
    end)

    it("works off thousands of jobs", function()
      with_loop(function(loop)
        local sum, tasks = 0, {}
        for i = 1, 20 do
          tasks[i] = function()
            for _ = 1, 100 do
              local result = loop:run_in_executor(nil, add, i, 1):await()
              sum = sum + result
            end
          end
        end
        aloop.gather(tasks)
        assert.equal(100 * (210 + 20), sum)
      end)
    end)
  end)

  describe("closing a loop", function()
    it("doesn't wait for the default executor", function() -- row: close, close.executor_nowait
      local gate <close> = threads.gate()
      local loop = new_loop()
      local future = loop:run_in_executor(nil, pass, gate.path)
      loop:close() -- would wait for ever
      assert.is_false(future:done())
      future:cancel()
      gate.open()
    end)

    it("with jobs that end at the same time loses nothing and frees all", function()
      for _ = 1, 20 do
        local loop = new_loop()
        for i = 1, 20 do loop:run_in_executor(nil, add, i, i) end
        helper.turn(loop)
        loop:close()
      end
    end)
  end)
end)

describe("the default executor", function()
  it("may be replaced", function() -- row: set_default_executor
    as_task(function(loop)
      local workers = aloop.ThreadPoolExecutor { max_workers = 1, thread_name_prefix = "mine" }
      loop:set_default_executor(workers)
      local function name()
        local file <close> = io.open("/proc/thread-self/comm")
        return (file:read("l"))
      end
      assert.equal("mine_0", loop:run_in_executor(nil, name):await())
      assert.equal("mine_0", aloop.to_thread(name))
      loop:set_default_executor(aloop.InterpreterPoolExecutor { max_workers = 1, thread_name_prefix = "other" })
      assert.equal("other_0", loop:run_in_executor(nil, name):await())
      assert.equal("mine_0", loop:run_in_executor(workers, name):await())
      workers:shutdown()
      loop:shutdown_default_executor()
    end)
  end)

  it("is a ThreadPoolExecutor", function() -- row: set_default_executor.type
    as_task(function(loop)
      for _, value in ipairs { 1, "pool", { submit = nop }, aloop.Executor:extend("Own")() } do
        type_error("bad argument #1 to 'set_default_executor' (ThreadPoolExecutor expected, got",
          loop.set_default_executor, loop, value)
      end
      type_error("bad argument #1 to 'set_default_executor' (ThreadPoolExecutor expected, got nil)",
        loop.set_default_executor, loop, nil)
    end)
  end)

  it("does no lookups: these go on when it is busy", function() -- row: dns.executor, create_connection.ip_skips_dns
    as_task(function(loop)
      local gate <close> = threads.gate()
      loop:set_default_executor(pool())
      local job = loop:run_in_executor(nil, pass, gate.path)
      assert.is_true(#loop:getaddrinfo("localhost", 80) > 0)
      gate.open()
      job:await()
      loop:shutdown_default_executor()
    end)
  end)
end)

describe("shutdown_default_executor", function()
  it("waits for the threads", function() -- row: shutdown_default_executor
    as_task(function(loop)
      local gate <close> = threads.gate()
      local future = loop:run_in_executor(nil, pass, gate.path, "done")
      loop:call_later(0.005, gate.open)
      loop:shutdown_default_executor()
      threads.until_alone()
      assert.equal("done", future:await())
    end)
  end)

  it("gives up after the timeout, with a warning", function() -- row: shutdown_default_executor.timeout
    as_task(function(loop)
      local gate <close> = threads.gate()
      local lines = {}
      local future = loop:run_in_executor(nil, pass, gate.path, "late")
      aloop.set_log_handler(function(level, message, category) lines[#lines + 1] = { level, message, category } end)
      loop:shutdown_default_executor(0.01)
      aloop.set_log_handler(nil)
      local text = "The executor did not finishing joining its threads within 0.01 seconds."
      assert.same({ { "warning", text, "RuntimeWarning" } }, lines)
      gate.open()
      assert.equal("late", future:await())
    end)
  end)

  it("refuses the default executor from then on, but no other", function() -- row: shutdown_default_executor.after
    as_task(function(loop)
      loop:run_in_executor(nil, nop):await()
      loop:shutdown_default_executor()
      raises(aloop.RuntimeError, "Executor shutdown has been called", loop.run_in_executor, loop, nil, nop)
      raises(aloop.RuntimeError, "Executor shutdown has been called", aloop.to_thread, nop)
      local workers <close> = pool()
      assert.equal(5, loop:run_in_executor(workers, add, 2, 3):await())
      loop:shutdown_default_executor()
      loop:set_default_executor(workers)
      raises(aloop.RuntimeError, "Executor shutdown has been called", loop.run_in_executor, loop, nil, nop)
    end)
  end)

  it("returns at once if there is none, and refuses one later", function() -- row: shutdown_default_executor.none
    as_task(function(loop)
      loop:shutdown_default_executor(nil)
      raises(aloop.RuntimeError, "Executor shutdown has been called", loop.run_in_executor, loop, nil, nop)
    end)
  end)

  it("is done by run and by the end of a main chunk", function() -- row: shutdown_default_executor.run_auto, run
    local stdout = helper.output_of [[
      local aloop = require "aloop"
      local lfs = require "lfs"
      local function slow() local t = os.clock() while os.clock() - t < 0.02 do end io.stdout:write("job done\n") end
      aloop.run(function() aloop.get_running_loop():run_in_executor(nil, slow) end)
      local function workers()
        local n = 0
        for tid in lfs.dir("/proc/self/task") do
          local file = io.open("/proc/self/task/" .. tid .. "/comm")
          if file and (file:read("l") or ""):find("^aloop_%d") then n = n + 1 end
        end
        return n
      end
      while workers() > 0 do end
      io.stdout:write("no workers\n")
    ]]
    assert.equal("job done\nno workers\n", stdout)
    stdout = helper.output_of [[
      local aloop = require "aloop"
      local function slow() local t = os.clock() while os.clock() - t < 0.02 do end io.stdout:write("job done\n") end
      aloop.get_event_loop():run_in_executor(nil, slow)
      io.stdout:write("end of the main chunk\n")
    ]]
    assert.equal("end of the main chunk\njob done\n", stdout)
  end)

  it("needs a task, and checks its timeout", function()
    helper.drive(helper.new_loop, function(loop)
      loop:run_until_complete(function()
        type_error("bad argument #1 to 'shutdown_default_executor' (number expected, got table)",
          loop.shutdown_default_executor, loop, {})
      end)
    end)
    threads.blocking(function(loop)
      raises(aloop.RuntimeError, "'shutdown_default_executor'", loop.shutdown_default_executor, loop)
    end)
  end)
end)

describe("to_thread", function()
  it("runs a function in the default executor and returns its results", function() -- row: to_thread
    as_task(function(loop)
      assert.same({ 3, nil, "x", n = 3 }, table.pack(aloop.to_thread(function(a, b) return a + b, nil, "x" end, 1, 2)))
      raises(aloop.ValueError, "oh", aloop.to_thread, function() error(require "aloop".ValueError("oh")) end)
      type_error("bad argument #1 to 'to_thread' (function expected, got nil)", aloop.to_thread, nil)
      loop:shutdown_default_executor()
    end)
    threads.blocking(function() raises(aloop.RuntimeError, "'to_thread'", aloop.to_thread, nop) end)
  end)

  it("takes along the values of context variables that the function refers to", function() -- row: to_thread
    local var = aloop.ContextVar("var", { default = "nothing" })
    local other = aloop.ContextVar("other")
    as_task(function(loop)
      var:set({ "a value" })
      assert.same({ "a value" }, aloop.to_thread(function() return var:get() end))
      assert.equal("nothing", loop:run_in_executor(nil, function() return var:get() end):await())
      assert.is_false(aloop.to_thread(function() return (pcall(other.get, other)) end))
      aloop.to_thread(function() var:set("changed there") end)
      assert.same({ "a value" }, var:get())
      assert.equal("nothing", loop:run_in_executor(nil, function() return var:get() end):await())
    end)
  end)

  it("is cancelled with its task", function()
    as_task(function(loop)
      local gate <close> = threads.gate()
      local task = aloop.create_task(function() aloop.to_thread(pass, gate.path) end)
      aloop.sleep(0.001)
      task:cancel()
      helper.cancelled(task)
      gate.open()
      loop:shutdown_default_executor()
    end)
  end)
end)
