-- ThreadPoolExecutor and InterpreterPoolExecutor: workers, what jobs find there, shutdown, map, initializers.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local threads = require "spec.support.threads"

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error
local pass, pool = threads.pass, threads.pool

local function add(a, b) return a + b end
local function nop() end

local function own_pid()
  local file <close> = io.open("/proc/self/stat")
  return file:read("n")
end

describe("a ThreadPoolExecutor", function()
  it("runs functions with arguments in threads of its own", function() -- row: executors
    as_task(function()
      threads.until_alone()
      local workers <close> = pool(2)
      assert.equal(0, threads.count())
      assert.equal(3, workers:submit(add, 1, 2):result())
      assert.equal(1, threads.count())
      assert.equal(7, workers:submit(add, 3, 4):result())
      assert.equal(1, threads.count()) -- an idle one is used again
      workers:shutdown()
      threads.until_alone()
    end)
  end)

  it("starts a thread for each job that finds none idle, up to its limit", function()
    as_task(function()
      threads.until_alone()
      local gate <close> = threads.gate()
      local workers <close> = pool(3)
      local jobs = {}
      for i = 1, 5 do jobs[i] = workers:submit(pass, gate.path, i) end
      for i = 1, 3 do threads.until_running(jobs[i]) end
      assert.equal(3, threads.count())
      assert.is_false(jobs[4]:running())
      gate.open(5)
      for i = 1, 5 do assert.equal(i, jobs[i]:result()) end
    end)
  end)

  it("has a default number of workers", function() -- row: run_in_executor.max_workers
    as_task(function()
      local gate <close> = threads.gate()
      local workers <close> = aloop.ThreadPoolExecutor()
      local jobs = {}
      for i = 1, 33 do jobs[i] = workers:submit(pass, gate.path) end
      threads.until_running(jobs[5]) -- cpus + 4
      assert.is_false(jobs[33]:running())
      gate.open(33)
      for _, job in ipairs(jobs) do job:result() end
    end)
  end)

  -- row: run_in_executor.interpreter_pool
  it("keeps the state of a worker from job to job, and states apart", function()
    as_task(function()
      local workers <close> = aloop.InterpreterPoolExecutor { max_workers = 1 }
      assert.is_true(aloop.isinstance(workers, aloop.ThreadPoolExecutor))
      assert.matches("^<InterpreterPoolExecutor at", tostring(workers))
      _G.spec_global = "here"
      workers:submit(function() _G.spec_global = (_G.spec_global or "there") .. "!" end):result()
      assert.equal("there!", workers:submit(function() return _G.spec_global end):result())
      assert.equal("here", _G.spec_global)
      _G.spec_global = nil
    end)
  end)

  it("gives jobs the paths of modules that this state has", function()
    as_task(function()
      local path, cpath = package.path, package.cpath
      package.path, package.cpath = path .. ";/nowhere/?.lua", cpath .. ";/nowhere/?.so"
      local _ <close> = aloop.defer(function() package.path, package.cpath = path, cpath end)
      local workers <close> = pool()
      local got_path, got_cpath = workers:submit(function() return package.path, package.cpath end):result()
      assert.equal(package.path, got_path)
      assert.equal(package.cpath, got_cpath)
    end)
  end)

  it("runs jobs that use aloop themselves", function() -- row: get_running_loop.per_thread, set_event_loop
    as_task(function(loop)
      local workers <close> = pool()
      local results = table.pack(workers:submit(function()
        local before = pcall(aloop.get_running_loop)
        local slept = aloop.run(function() return aloop.sleep(0.001, "slept") end)
        local nothing = pcall(aloop.get_event_loop)
        local own = aloop.new_event_loop()
        aloop.set_event_loop(own)
        local same = aloop.get_event_loop() == own
        aloop.set_event_loop(nil)
        own:close()
        return before, slept, nothing, same, pcall(aloop.sleep, 0)
      end):result())
      assert.same({ false, "slept", false, true, false }, { table.unpack(results, 1, 5) })
      assert.equal("RuntimeError", tostring(results[6]):match("^%w+"))
      assert.equal(loop, aloop.get_running_loop())
    end)
  end)

  it("refuses signal handlers in workers, and never runs one there", function() -- row: add_signal_handler.main_thread
    as_task(function(loop)
      local workers <close> = pool(4)
      local caught = loop:create_future()
      loop:add_signal_handler("SIGUSR1", function() caught:set_result(aloop.get_running_loop()) end)
      local gate <close> = threads.gate()
      local jobs = {}
      for i = 1, 4 do jobs[i] = workers:submit(pass, gate.path, i) end
      for _, job in ipairs(jobs) do threads.until_running(job) end
      aloop.signal.kill(own_pid(), "SIGUSR1")
      assert.equal(loop, caught:await())
      loop:remove_signal_handler("SIGUSR1")
      gate.open(4)
      for _, job in ipairs(jobs) do job:result() end
      local refused = workers:submit(function()
        return aloop.run(function()
          local ok, e = pcall(function() aloop.get_running_loop():add_signal_handler("SIGUSR1", print) end)
          return not ok and tostring(e)
        end)
      end):result()
      assert.equal("RuntimeError: signal only works in main thread of the main interpreter", refused)
    end)
  end)

  it("names its threads", function()
    as_task(function()
      local workers <close> = aloop.ThreadPoolExecutor { thread_name_prefix = "spec" }
      assert.matches("^spec_%d+\n", workers:submit(function()
        local file <close> = io.open("/proc/thread-self/comm")
        return file:read("a")
      end):result())
    end)
  end)

  it("refuses what can't travel, and says what it is", function()
    as_task(function()
      local workers <close> = pool()
      local file = io.stdout
      raises(aloop.ValueError, "argument #2: FILE*", workers.submit, workers, add, 1, file)
      raises(aloop.ValueError, "upvalue 'file' of function <", workers.submit, workers, function() return file end)
      local future = workers:submit(function() return 1, io.stdout end)
      raises(aloop.ValueError, "result #2: FILE*", future.result, future)
      future = workers:submit(function() error(setmetatable({}, { __tostring = function() return "odd one" end })) end)
      raises(aloop.RuntimeError, nil, future.result, future)
    end)
  end)

  it("is not to be sent itself", function()
    as_task(function()
      local workers <close> = pool()
      raises(aloop.ValueError, "ThreadPoolExecutor cannot be sent", workers.submit, workers, nop, workers)
    end)
  end)

  it("checks its arguments", function()
    type_error("bad argument #1 to 'ThreadPoolExecutor' (table expected, got number)", aloop.ThreadPoolExecutor, 4)
    type_error("unknown option 'workers' to 'ThreadPoolExecutor'", aloop.ThreadPoolExecutor, { workers = 1 })
    type_error("bad option 'max_workers' to 'ThreadPoolExecutor' (integer expected, got string)",
      aloop.ThreadPoolExecutor, { max_workers = "2" })
    type_error("bad option 'initializer' to 'ThreadPoolExecutor' (function expected, got number)",
      aloop.ThreadPoolExecutor, { initializer = 1 })
    type_error("bad option 'initargs' to 'ThreadPoolExecutor' (table expected, got number)",
      aloop.ThreadPoolExecutor, { initializer = nop, initargs = 1 })
    type_error("bad option 'thread_name_prefix' to 'ThreadPoolExecutor' (string expected, got boolean)",
      aloop.ThreadPoolExecutor, { thread_name_prefix = true })
    raises(aloop.ValueError, "max_workers must be greater than 0", aloop.ThreadPoolExecutor, { max_workers = 0 })
    raises(aloop.ValueError, "max_workers must be greater than 0", aloop.InterpreterPoolExecutor, { max_workers = -3 })
    as_task(function()
      local workers <close> = pool()
      type_error("bad argument #1 to 'submit' (function expected, got nil)", workers.submit, workers, nil)
      type_error("coroutines cannot be used with submit()", workers.submit, workers, coroutine.create(nop))
      type_error("bad argument #1 to 'shutdown' (boolean expected, got number)", workers.shutdown, workers, 1)
      type_error("unknown option 'cancel' to 'shutdown'", workers.shutdown, workers, true, { cancel = true })
    end)
  end)
end)

describe("shutdown of an executor", function()
  it("refuses jobs from then on, and does those that it has", function()
    as_task(function()
      local gate <close> = threads.gate()
      local workers = pool()
      local jobs = { workers:submit(pass, gate.path, 1), workers:submit(pass, gate.path, 2) }
      workers:shutdown(false)
      raises(aloop.RuntimeError, "cannot schedule new futures after shutdown", workers.submit, workers, nop)
      gate.open(2)
      assert.same({ 1, 2 }, { jobs[1]:result(), jobs[2]:result() })
      workers:shutdown()
      workers:shutdown()
    end)
  end)

  it("cancels what has not begun, if asked to", function()
    as_task(function()
      local gate <close> = threads.gate()
      local workers = pool()
      local first, second = workers:submit(pass, gate.path, 1), workers:submit(pass, gate.path, 2)
      threads.until_running(first)
      workers:shutdown(false, { cancel_futures = true })
      assert.is_true(second:cancelled())
      gate.open()
      assert.equal(1, first:result())
      workers:shutdown()
    end)
  end)

  it("suspends a task while others go on; <close> is a shutdown", function()
    as_task(function(loop)
      local gate <close> = threads.gate()
      local job
      do
        local workers <close> = pool()
        job = workers:submit(pass, gate.path, "done")
        loop:call_later(0.005, gate.open)
      end
      assert.is_true(job:done())
    end)
  end)

  it("blocks the thread where there is no task", function()
    local gate <close> = threads.gate()
    threads.blocking(function()
      local workers = pool()
      local job = workers:submit(pass, gate.path, "done")
      gate.open()
      workers:shutdown()
      assert.is_true(job:done())
    end)
  end)

  it("of one that was never used returns at once", function()
    as_task(function() pool():shutdown() end)
  end)

  it("comes by itself for one that is forgotten: its jobs are done", function()
    as_task(function()
      local job
      do
        job = pool():submit(add, 1, 1)
      end
      collectgarbage()
      collectgarbage()
      assert.equal(2, job:result())
    end)
  end)

  it("waits at the end of the interpreter", function()
    local result = helper.run [[
      local aloop = require "aloop"
      aloop.ThreadPoolExecutor():submit(function()
        local t = os.clock()
        while os.clock() - t < 0.05 do end
        io.stdout:write("done\n")
      end)
      io.stdout:write("main\n")
    ]]
    assert.equal("main\ndone\n", result.stdout, result.stderr)
    assert.equal(0, result.code)
  end)
end)

describe("cancelling a job", function()
  it("removes it, and what it was called with", function() -- row: run_in_executor.cancel
    as_task(function()
      local gate <close> = threads.gate()
      local workers <close> = pool()
      local first = workers:submit(pass, gate.path)
      threads.until_running(first)
      local jobs = {}
      for i = 1, 100 do jobs[i] = workers:submit(function() _G.spec_ran = true end) end
      for i = 100, 1, -1 do assert.is_true(jobs[i]:cancel()) end
      gate.open()
      first:result()
      assert.is_nil(workers:submit(function() return _G.spec_ran end):result())
    end)
  end)
end)

describe("an initializer", function()
  it("runs in each worker before its jobs, with its arguments", function()
    as_task(function()
      local workers <close> = aloop.ThreadPoolExecutor {
        max_workers = 2,
        initializer = function(a, b) _G.spec_sum = a + b end,
        initargs = { 40, 2 },
      }
      for _ = 1, 4 do assert.equal(42, workers:submit(function() return _G.spec_sum end):result()) end
    end)
  end)

  it("that fails breaks the pool, and is logged", function()
    local result = helper.run [[
      local aloop = require "aloop"
      local path = os.tmpname() -- as long as it is there, the initializer waits
      local pool = aloop.ThreadPoolExecutor {
        max_workers = 1,
        initializer = function()
          while io.open(path) do os.execute("sleep 0.01") end
          error("no way", 0)
        end,
      }
      local jobs = { pool:submit(print, 1), pool:submit(print, 2) }
      os.remove(path)
      for _, job in ipairs(jobs) do print(pcall(job.result, job)) end
      local ok, e = pcall(pool.submit, pool, print)
      print(e, aloop.isinstance(e, aloop.BrokenThreadPool), aloop.isinstance(e, aloop.BrokenExecutor))
      pool:shutdown()
    ]]
    local text = "BrokenThreadPool: A thread initializer failed, the thread pool is not usable anymore"
    local expected = ("false\t%s\nfalse\t%s\n%s\ttrue\ttrue\n"):format(text, text, text)
    assert.equal(expected, result.stdout, result.stderr)
    assert.matches("exception in initializer: no way\nstack traceback:", result.stderr)
  end)
end)

describe("map of an executor", function()
  it("gives the results in order", function()
    as_task(function()
      local workers <close> = pool(3)
      local results = {}
      for sum, rest in workers:map(function(a, b) return a + b, a end, { 1, 2, 3 }, { 10, 20, 30, 40 }) do
        results[#results + 1] = { sum, rest }
      end
      assert.same({ { 11, 1 }, { 22, 2 }, { 33, 3 } }, results)
      for _ in workers:map(add, {}, {}) do error "there is none" end
    end)
  end)

  it("begins all at once, and cancels what is left when the loop is left", function()
    as_task(function()
      local gate <close> = threads.gate()
      local workers <close> = pool()
      gate.open()
      local seen = 0
      for value in workers:map(pass, { gate.path, gate.path, gate.path }, { 1, 2, 3 }) do
        seen = seen + value
        if seen == 1 then break end
      end
      assert.equal(1, seen)
      gate.open()
    end)
  end)

  it("raises the error of a call in its turn", function()
    as_task(function()
      local workers <close> = pool()
      local seen = {}
      local ok, e = pcall(function()
        for value in workers:map(function(n) return n < 3 and n or error("three", 0) end, { 1, 2, 3, 4 }) do
          seen[#seen + 1] = value
        end
      end)
      assert.same({ false, "three", { 1, 2 } }, { ok, e, seen })
    end)
  end)

  it("tells of a result that would end the loop", function()
    as_task(function()
      local workers <close> = pool()
      local iterator = workers:map(nop, { 1 })
      raises(aloop.ValueError, "call #1 returned nil", iterator)
    end)
  end)

  it("blocks where there is no task", function()
    threads.blocking(function()
      local workers <close> = pool()
      local results = {}
      for value in workers:map(math.abs, { -1, -2 }) do results[#results + 1] = value end
      assert.same({ 1, 2 }, results)
    end)
  end)

  it("checks its arguments", function()
    as_task(function()
      local workers <close> = pool()
      type_error("bad argument #1 to 'map' (function expected, got number)", workers.map, workers, 1, {})
      type_error("bad argument #2 to 'map' (array expected, got number)", workers.map, workers, nop, 1)
      type_error("bad argument #2 to 'map' (array expected, got nil)", workers.map, workers, nop)
    end)
  end)
end)
