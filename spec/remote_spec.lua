-- Loops as other threads have them: call_soon_threadsafe and run_coroutine_threadsafe of a RemoteLoop, and
-- run_coroutine_threadsafe in the loop's own thread.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local threads = require "spec.support.threads"

local pool = threads.pool

local as_task, raises, type_error = helper.as_task, helper.raises, helper.type_error

-- What functions that come back find here: they bring no upvalues of this file.
local function share(value)
  _G.spec_shared = value
  return aloop.defer(function() _G.spec_shared = nil end)
end

helper.each_loop(function(_, new_loop)
  local function with_loop(body, options) helper.with_loop(new_loop, body, options) end

  describe("call_soon_threadsafe of a remote", function()
    it("wakes a loop that sleeps", function() -- row: call_soon_threadsafe
      with_loop(function(loop)
        local workers <close> = pool()
        local called = loop:create_future()
        local _ <close> = share(called)
        workers:submit(function(remote)
          remote:call_soon_threadsafe(function(...) _G.spec_shared:set_result(...) end, 1, nil, 3)
        end, loop)
        assert.same({ 1, nil, 3, n = 3 }, table.pack(called:await()))
      end)
    end)

    it("loses no call of many threads, and keeps the order of each", function() -- row: call_soon_threadsafe.fifo
      with_loop(function(loop)
        local workers <close> = pool(4)
        local last, n = { 0, 0, 0, 0 }, 0
        local _ <close> = share(function(thread, i)
          assert(i == last[thread] + 1)
          last[thread] = i
          n = n + 1
        end)
        local jobs = {}
        for thread = 1, 4 do
          jobs[thread] = workers:submit(function(remote, t)
            for i = 1, 1000 do remote:call_soon_threadsafe(function(...) _G.spec_shared(...) end, t, i) end
          end, loop, thread)
        end
        for _, job in ipairs(jobs) do job:await() end
        threads.until_true(function() return n == 4000 end)
      end)
    end)

    it("calls in the loop's thread, and reports what that raises", function()
      with_loop(function(loop)
        local workers <close> = pool()
        local contexts, reported = {}, loop:create_future()
        loop:set_exception_handler(function(_, context)
          contexts[#contexts + 1] = context
          reported:set_result()
        end)
        assert.equal(0, select("#", workers:submit(function(remote)
          return remote:call_soon_threadsafe(function() error("in a callback", 0) end)
        end, loop):await()))
        reported:await()
        assert.equal("in a callback", contexts[1].exception)
        assert.matches("^Exception in callback function", contexts[1].message)
      end)
    end)

    it("raises RuntimeError when the loop is closed", function() -- row: call_soon_threadsafe.closed
      local workers, closed = pool(), new_loop()
      local gate <close> = threads.gate()
      local job = workers:submit(function(remote, path)
        local file <close> = io.open(path)
        file:read(1)
        local f = function() end
        local results = {}
        for _, g in ipairs { remote.call_soon_threadsafe, remote.run_coroutine_threadsafe } do
          local ok, e = pcall(g, remote, f)
          results[#results + 1] = tostring(ok) .. " " .. tostring(e)
        end
        return results
      end, closed, gate.path)
      closed:close()
      gate.open()
      with_loop(function()
        local text = "false RuntimeError: Event loop is closed"
        assert.same({ text, text }, job:result())
        workers:shutdown()
      end)
    end)

    it("races with close: a call is made, dropped or refused", function() -- row: call_soon_threadsafe.close_race
      local workers = pool(2)
      local jobs = {}
      for _ = 1, 10 do
        local loop = new_loop()
        for _ = 1, 2 do
          jobs[#jobs + 1] = workers:submit(function(remote)
            local n, ok, e = 0, true, nil
            while ok and n < 1000 do
              ok, e = pcall(remote.call_soon_threadsafe, remote, math.abs, 1)
              n = n + 1
            end
            return ok or tostring(e)
          end, loop)
        end
        for _ = 1, 3 do helper.turn(loop) end
        loop:close()
      end
      with_loop(function()
        for _, job in ipairs(jobs) do
          local outcome = job:result()
          assert.is_true(outcome == true or outcome == "RuntimeError: Event loop is closed", outcome)
        end
        workers:shutdown()
      end)
    end)
  end)

  describe("run_coroutine_threadsafe of a remote", function()
    it("runs a coroutine on the loop and brings its results", function() -- row: run_coroutine_threadsafe
      with_loop(function(loop)
        local workers <close> = pool()
        local _ <close> = share(function() return aloop.get_running_loop() == loop end)
        assert.same({ 3, "slept", true, 2 }, { workers:submit(function(remote, a)
          local future = remote:run_coroutine_threadsafe(function()
            local sleep = require "aloop".sleep
            return a + 2, sleep(0.001, "slept"), _G.spec_shared(), a + 1
          end)
          return future:result()
        end, loop, 1):await() })
      end)
    end)

    it("brings errors, too, with the traceback of here", function()
      with_loop(function(loop)
        local workers <close> = pool()
        local text, traceback = workers:submit(function(remote)
          local future = aloop.run_coroutine_threadsafe(function()
            error(require "aloop".ValueError("from the loop"))
          end, remote)
          local e = future:exception()
          return tostring(e), e.traceback
        end, loop):await()
        assert.equal("ValueError: from the loop", text)
        assert.matches("spec/remote_spec.lua:%d+: in function", traceback)
      end)
    end)

    it("is cancelled by its future", function()
      with_loop(function(loop)
        local workers <close> = pool()
        local cancelled = loop:create_future()
        local _ <close> = share(cancelled)
        local results = table.pack(workers:submit(function(remote)
          local future = remote:run_coroutine_threadsafe(function()
            local _ <close> = aloop.defer(function() _G.spec_shared:set_result("unwound") end)
            aloop.sleep(3600)
          end)
          remote:run_coroutine_threadsafe(function() end):result() -- by now the one before has begun
          local late = pcall(future.result, future, 0.005)
          return late, future:cancel(), future:cancelled(), pcall(future.result, future)
        end, loop):await())
        assert.same({ false, true, true, false }, { table.unpack(results, 1, 4) })
        assert.is_true(aloop.isinstance(results[5], aloop.CancelledError))
        assert.equal("unwound", cancelled:await())
      end)
    end)

    it("is told of a cancellation on the loop", function()
      with_loop(function(loop)
        local workers <close> = pool()
        local cancelled = workers:submit(function(remote)
          local future = remote:run_coroutine_threadsafe(function()
            require "aloop".current_task():cancel()
            require "aloop".sleep(0)
          end)
          pcall(future.result, future)
          return future:cancelled()
        end, loop):await()
        assert.is_true(cancelled)
      end)
    end)

    it("doesn't hang when the loop is closed: it is cancelled", function()
      local workers = pool(2)
      local loop = new_loop()
      local jobs = {}
      for i = 1, 2 do
        jobs[i] = workers:submit(function(remote)
          local ok, future = pcall(remote.run_coroutine_threadsafe, remote, function() require "aloop".sleep(3600) end)
          if not ok then return tostring(future) end
          local _, e = pcall(future.result, future)
          return tostring(e), aloop.isinstance(e, aloop.CancelledError)
        end, loop)
      end
      loop:set_exception_handler(function() end) -- its tasks are destroyed
      local tasks = 0
      while tasks == 0 do
        helper.turn(loop)
        tasks = #aloop.all_tasks(loop)
      end
      loop:close() -- one is a task already; the other may be, be on its way, or come too late
      with_loop(function()
        for _, job in ipairs(jobs) do
          local text = job:result()
          assert.is_true(text == "CancelledError" or text == "RuntimeError: Event loop is closed", text)
        end
        workers:shutdown()
      end)
      collectgarbage()
    end)
  end)
end)

describe("a loop in another state", function()
  it("is a remote with two methods, and itself again at home", function()
    as_task(function(loop)
      local workers <close> = pool()
      local text, has, back, nested = workers:submit(function(remote)
        return tostring(remote), remote.create_task ~= nil or remote.call_soon ~= nil, remote, { remote },
          aloop.isinstance(remote, aloop.RemoteLoop)
      end, loop):await()
      assert.matches("^<RemoteLoop of 0x%x+>$", text)
      assert.is_false(has)
      assert.equal(loop, back)
      assert.equal(loop, nested[1])
    end)
  end)

  it("goes on to further states", function()
    as_task(function(loop)
      local workers <close> = pool()
      local called = loop:create_future()
      local _ <close> = share(called)
      workers:submit(function(remote)
        local inner <close> = require "aloop".ThreadPoolExecutor { max_workers = 1 }
        inner:submit(function(r)
          r:call_soon_threadsafe(function() _G.spec_shared:set_result("from afar") end)
        end, remote):result()
      end, loop)
      assert.equal("from afar", called:await())
    end)
  end)

  it("checks arguments", function()
    as_task(function(loop)
      local workers <close> = pool()
      local texts = workers:submit(function(remote)
        local texts = {}
        for i, f in ipairs {
          function() remote:call_soon_threadsafe(1) end,
          function() remote:call_soon_threadsafe(coroutine.create(print)) end,
          function() remote:call_soon_threadsafe(print, io.stdout) end,
          function() remote:run_coroutine_threadsafe(1) end,
          function() remote.run_coroutine_threadsafe({}, print) end,
        } do
          local _, e = pcall(f)
          texts[i] = tostring(e)
        end
        return texts
      end, loop):await()
      assert.matches("bad argument #1 to 'call_soon_threadsafe' %(function expected, got number%)", texts[1])
      assert.matches("coroutines cannot be used with call_soon_threadsafe%(%)", texts[2])
      assert.matches("^ValueError: argument #1: FILE%* cannot be sent", texts[3])
      assert.matches("bad argument #1 to 'run_coroutine_threadsafe' %(coroutine expected, got number", texts[4])
      assert.matches("RemoteLoop expected, got table", texts[5])
      raises(aloop.RuntimeError, "can't be made by calling its class", aloop.RemoteLoop)
    end)
  end)
end)

describe("run_coroutine_threadsafe in the loop's own thread", function()
  it("makes a task in a later turn", function()
    as_task(function(loop)
      local ran = false
      local upvalue = io.stdout -- nothing travels
      local future = aloop.run_coroutine_threadsafe(function()
        ran = upvalue ~= nil
        return 1, 2
      end, loop)
      assert.is_false(ran)
      assert.same({ 1, 2 }, { future:result() })
      assert.is_true(ran)
      future = aloop.run_coroutine_threadsafe(coroutine.create(function() return "a coroutine" end), loop)
      assert.equal("a coroutine", future:await())
      future = aloop.run_coroutine_threadsafe(function() return io.stdout end, loop)
      raises(aloop.ValueError, "FILE*", future.result, future)
      future = aloop.run_coroutine_threadsafe(function() error("its error", 0) end, loop)
      assert.same({ false, "its error" }, { pcall(future.result, future) })
    end)
  end)

  it("can be cancelled before it begins and after", function()
    as_task(function(loop)
      local before, after = false, false
      local first = aloop.run_coroutine_threadsafe(function() before = true end, loop)
      assert.is_true(first:cancel())
      local second = aloop.run_coroutine_threadsafe(function()
        local _ <close> = aloop.defer(function() after = true end)
        aloop.sleep(3600)
      end, loop)
      aloop.sleep(0.001)
      assert.is_true(second:cancel())
      threads.until_true(function() return after end)
      assert.is_false(before)
    end)
  end)

  it("refuses to block that thread for it", function()
    threads.blocking(function(loop)
      local future = aloop.run_coroutine_threadsafe(function() end, loop)
      raises(aloop.RuntimeError, "this would block the thread of the loop", future.result, future)
    end)
  end)

  it("is cancelled when the loop is closed", function()
    local loop = helper.new_loop()
    loop:set_exception_handler(function() end)
    local waiting = aloop.run_coroutine_threadsafe(function() aloop.sleep(3600) end, loop)
    helper.turn(loop, 3)
    local queued = aloop.run_coroutine_threadsafe(function() end, loop)
    loop:close()
    assert.is_true(waiting:cancelled())
    assert.is_true(queued:cancelled())
    raises(aloop.RuntimeError, "Event loop is closed", aloop.run_coroutine_threadsafe, print, loop)
    collectgarbage()
  end)

  it("checks its arguments", function()
    as_task(function(loop)
      type_error("bad argument #1 to 'run_coroutine_threadsafe' (coroutine expected, got nil",
        aloop.run_coroutine_threadsafe, nil, loop)
      type_error("bad argument #2 to 'run_coroutine_threadsafe' (AbstractEventLoop expected, got nil)",
        aloop.run_coroutine_threadsafe, print, nil)
    end)
  end)
end)
