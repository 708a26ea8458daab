-- Lock, its guards, and what all that waits in an object of Lua has in common: who may wait, on which loop.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"

local as_task, turns, cancelled = helper.as_task, helper.turns, helper.cancelled
local raises, type_error = helper.raises, helper.type_error

-- A task that takes the lock, notes its name, and lets go when the turn is over.
local function taker(lock, name, notes)
  return aloop.create_task(function()
    local _ <close> = lock:acquire()
    notes[#notes + 1] = name
    aloop.sleep(0)
  end)
end

describe("Lock", function()
  it("is taken at once where it is free, and let go", function() -- row: locks_queues
    as_task(function()
      local lock = aloop.Lock()
      assert.is_false(lock:locked())
      local turned = false
      aloop.create_task(function() turned = true end)
      assert.truthy(lock:acquire())
      assert.is_false(turned)
      assert.is_true(lock:locked())
      assert.is_nil(lock:release())
      assert.is_false(lock:locked())
    end)
  end)

  it("is given to those who wait in the order in which they came", function() -- row: locks_queues
    as_task(function()
      local lock, notes, tasks = aloop.Lock(), {}, {}
      local guard = lock:acquire()
      for i = 1, 5 do tasks[i] = taker(lock, i, notes) end
      turns(2)
      assert.same({}, notes)
      guard:release()
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ 1, 2, 3, 4, 5 }, notes)
      assert.is_false(lock:locked())
    end)
  end)

  it("goes to who waits before one that asks in the turn of the release", function()
    as_task(function()
      local lock, notes = aloop.Lock(), {}
      local guard = lock:acquire()
      local task = taker(lock, "waited", notes)
      turns()
      guard:release()
      assert.is_false(lock:locked()) -- the other is woken, and has not gone on
      local _ <close> = lock:acquire()
      notes[#notes + 1] = "asked"
      assert.same({ "waited", "asked" }, notes)
      task:await()
    end)
  end)

  it("shows its state", function()
    as_task(function()
      local lock = aloop.Lock()
      assert.matches("^<Lock at 0x%x+ %[unlocked%]>$", tostring(lock))
      local guard = lock:acquire()
      assert.matches("^<Lock at 0x%x+ %[locked%]>$", tostring(lock))
      local tasks = { taker(lock, 1, {}), taker(lock, 2, {}) }
      turns()
      assert.matches("%[locked, waiters:2%]>$", tostring(lock))
      guard:release()
      assert.matches("%[unlocked, waiters:2%]>$", tostring(lock))
      for _, task in ipairs(tasks) do task:await() end
      assert.matches("^<Mine at ", tostring(aloop.Lock:extend("Mine")()))
    end)
  end)

  it("that nobody holds can't be released", function()
    local lock = aloop.Lock()
    raises(aloop.RuntimeError, "release(): Lock is not acquired.", lock.release, lock)
  end)

  it("survives the end of a task that doesn't let go", function()
    as_task(function()
      local lock = aloop.Lock()
      aloop.create_task(function() lock:acquire() end):await()
      assert.is_true(lock:locked())
      lock:release()
    end)
  end)
end)

describe("a cancelled acquire()", function()
  it("leaves the line", function()
    as_task(function()
      local lock, notes = aloop.Lock(), {}
      local guard = lock:acquire()
      local first, second = taker(lock, 1, notes), taker(lock, 2, notes)
      turns()
      first:cancel("no more")
      assert.equal("no more", cancelled(first).message)
      assert.matches("waiters:1", tostring(lock))
      guard:release()
      second:await()
      assert.same({ 2 }, notes)
    end)
  end)

  it("in the turn of the release hands it to the next", function() -- row: locks_queues
    for _, cancel_first in ipairs { true, false } do
      as_task(function()
        local lock, notes = aloop.Lock(), {}
        local guard = lock:acquire()
        local first, second = taker(lock, 1, notes), taker(lock, 2, notes)
        turns()
        if cancel_first then first:cancel() end
        guard:release()
        if not cancel_first then first:cancel() end
        cancelled(first)
        second:await()
        assert.same({ 2 }, notes)
        assert.is_false(lock:locked())
      end)
    end
  end)

  it("lets only one other take it", function()
    as_task(function()
      local lock, notes, tasks = aloop.Lock(), {}, {}
      lock:acquire()
      for i = 1, 3 do
        tasks[i] = aloop.create_task(function()
          lock:acquire()
          notes[#notes + 1] = i
        end)
      end
      turns()
      tasks[1]:cancel()
      lock:release()
      cancelled(tasks[1])
      turns(3)
      assert.same({ 2 }, notes)
      tasks[3]:cancel()
      cancelled(tasks[3])
    end)
  end)

  it("of the last one in line leaves a free lock", function()
    as_task(function()
      local lock = aloop.Lock()
      local guard = lock:acquire()
      local task = taker(lock, 1, {})
      turns()
      guard:release()
      task:cancel()
      cancelled(task)
      assert.is_false(lock:locked())
      local _ <close> = lock:acquire()
    end)
  end)

  it("that is taken back in the same turn takes the lock", function()
    as_task(function()
      local lock, notes = aloop.Lock(), {}
      local guard = lock:acquire()
      local task = taker(lock, 1, notes)
      turns()
      guard:release()
      task:cancel()
      task:uncancel()
      task:await()
      assert.same({ 1 }, notes)
    end)
  end)

  it("that was asked for before it waits comes where it waits", function()
    as_task(function()
      local lock, notes = aloop.Lock(), {}
      local task = aloop.create_task(function()
        aloop.current_task():cancel("before")
        lock:acquire() -- free: nothing is waited for
        notes[#notes + 1] = "free"
        lock:acquire()
      end)
      assert.equal("before", cancelled(task).message)
      assert.same({ "free" }, notes)
      assert.matches("%[locked%]", tostring(lock))
    end)
  end)

  it("costs no more behind many that wait", function()
    as_task(function()
      local lock, tasks = aloop.Lock(), {}
      local guard = lock:acquire()
      for i = 1, 5000 do tasks[i] = aloop.create_task(function() lock:acquire():release() end) end
      turns()
      for i = #tasks, 1, -1 do
        if i % 2 == 0 then tasks[i]:cancel() end
      end
      guard:release()
      for i = 1, #tasks, 2 do tasks[i]:await() end
      assert.matches("%[unlocked%]", tostring(lock))
    end)
  end)
end)

describe("a guard", function()
  it("releases at the end of its block, also for an error", function() -- row: locks_queues
    as_task(function()
      local lock = aloop.Lock()
      do
        local guard <close> = lock:acquire()
        assert.is_true(lock:locked())
        assert.matches("^<Guard of <Lock at ", tostring(guard))
      end
      assert.is_false(lock:locked())
      local ok, err = pcall(function()
        local _ <close> = lock:acquire()
        error("out", 0)
      end)
      assert.is_false(ok)
      assert.equal("out", err)
      assert.is_false(lock:locked())
    end)
  end)

  it("releases early, and once", function()
    as_task(function()
      local lock = aloop.Lock()
      do
        local guard <close> = lock:acquire()
        guard:release()
        assert.is_false(lock:locked())
        assert.equal("<Guard released>", tostring(guard))
        raises(aloop.RuntimeError, "the guard has released already", guard.release, guard)
        aloop.create_task(function() lock:acquire() end):await()
      end
      assert.is_true(lock:locked()) -- the other's
      lock:release()
    end)
  end)

  it("of a lock that was released meanwhile says so", function()
    as_task(function()
      local lock = aloop.Lock()
      raises(aloop.RuntimeError, "Lock is not acquired.", function()
        local _ <close> = lock:acquire()
        lock:release()
      end)
    end)
  end)

  it("of a cancelled task releases", function()
    as_task(function()
      local lock = aloop.Lock()
      local task = aloop.create_task(function()
        local _ <close> = lock:acquire()
        aloop.sleep(1000)
      end)
      turns()
      task:cancel()
      cancelled(task)
      assert.is_false(lock:locked())
    end)
  end)
end)

-- Each waits on its object; the name is that of the method.
local waiting = {
  { "acquire", function() return aloop.Lock() end },
  { "wait", function() return aloop.Event() end },
  { "acquire", function() return aloop.Condition() end },
  { "wait", function() return aloop.Condition() end },
  { "wait_for", function() return aloop.Condition() end, print },
  { "acquire", function() return aloop.Semaphore() end },
  { "wait", function() return aloop.Barrier(1) end },
  { "reset", function() return aloop.Barrier(1) end },
  { "abort", function() return aloop.Barrier(1) end },
  { "get", function() return aloop.Queue() end },
  { "put", function() return aloop.Queue() end, 1 },
  { "join", function() return aloop.Queue() end },
}

describe("what waits in an object", function()
  it("needs a task, even where nothing is to be waited for", function()
    for _, case in ipairs(waiting) do
      helper.drive(helper.new_loop, function(loop)
        local object = case[2]()
        loop:call_soon(function()
          local text = ("'%s' waits, and there is no task"):format(case[1])
          raises(aloop.RuntimeError, text, object[case[1]], object, case[3])
          loop:stop()
        end)
        loop:run_forever()
      end)
    end
  end)

  it("can't be done through a C function", function()
    as_task(function()
      local queue = aloop.Queue()
      local function get() queue:get() end
      raises(aloop.RuntimeError, "'get' can't wait here: string.gsub", string.gsub, "x", "x", get)
    end)
  end)

  it("is bound to the loop of who first had to wait", function() -- row: locks_queues
    local lock, event, semaphore = aloop.Lock(), aloop.Event(), aloop.Semaphore(0)
    local condition, getting, putting = aloop.Condition(), aloop.Queue(), aloop.Queue(1)
    putting:put_nowait(1)
    local waits = {
      { lock, function() lock:acquire() end },
      { event, function() event:wait() end },
      { semaphore, function() semaphore:acquire() end },
      { condition, function()
        local _ <close> = condition:acquire()
        condition:wait()
      end },
      { getting, function() getting:get() end },
      { putting, function() putting:put(1) end },
      { putting, function() putting:join() end },
    }
    as_task(function()
      lock:acquire() -- binds nothing
    end)
    as_task(function()
      for _, wait in ipairs(waits) do
        local task = aloop.create_task(wait[2])
        turns()
        task:cancel()
        cancelled(task)
      end
    end)
    as_task(function()
      for _, wait in ipairs(waits) do
        local text = tostring(wait[1])
        if wait[1] == condition then text = "<Condition" end
        local e = raises(aloop.RuntimeError, text, wait[2])
        assert.matches(" is bound to a different event loop$", e.message)
      end
      assert.is_false(condition:locked())
    end)
  end)

  it("ends with the loop", function()
    local lock = aloop.Lock()
    helper.drive(helper.new_loop, function(loop, trial)
      local ended = {}
      for i = 1, 2 do
        loop:create_task(function()
          local _ <close> = lock:acquire()
          ended[i] = true
          aloop.sleep(1000)
        end)
      end
      helper.turn(loop, 2)
      loop:close()
      collectgarbage()
      collectgarbage()
      assert.same({ true }, ended)
      for _ = 1, 2 do assert.equal("Task was destroyed but it is pending!", trial:take_error().message) end
    end)
    assert.matches("%[locked%]", tostring(lock))
    lock:release()
  end)

  it("waits in coroutines of the script's own", function()
    as_task(function()
      local queue = aloop.Queue()
      local items = coroutine.wrap(function()
        while true do coroutine.yield(queue:get()) end
      end)
      aloop.create_task(function()
        for i = 1, 3 do
          turns()
          queue:put(i)
        end
      end)
      assert.same({ 1, 2, 3 }, { items(), items(), items() })
    end)
  end)

  it("keeps no memory", function()
    as_task(function()
      local a, b, lock = aloop.Queue(), aloop.Queue(1), aloop.Lock()
      local task = aloop.create_task(function()
        while true do
          local item = a:get()
          local _ <close> = lock:acquire()
          b:put(item)
        end
      end)
      local function play(n)
        for i = 1, n do
          a:put(i)
          b:get()
        end
        collectgarbage()
        collectgarbage()
        return collectgarbage "count"
      end
      play(1000)
      local before = play(1000)
      local after = play(20000)
      assert.is_true(after - before < 8, ("%.1f KiB more"):format(after - before))
      task:cancel()
      cancelled(task)
    end)
  end)
end)

describe("core.waiter", function()
  it("is a pending future of the running loop", function()
    as_task(function(loop)
      local future = core.waiter("owner")
      assert.equal(loop, future:get_loop())
      assert.is_false(future:done())
      future:set_result(5)
      assert.equal(5, future:await())
    end)
  end)

  it("is made by the loop's own class, where that makes futures", function()
    local made, refuse = {}, false
    local Loop = aloop.SelectorEventLoop:extend()
    function Loop:create_future()
      if refuse then return 5 end
      made[#made + 1] = aloop.SelectorEventLoop.create_future(self)
      return made[#made]
    end
    helper.with_loop(Loop, function()
      local n = #made
      assert.equal(core.waiter("owner"), made[n + 1])
      refuse = true
      raises(aloop.RuntimeError, "create_future gave no Future", core.waiter)
      refuse = false
    end)
  end)
end)

describe("a wait list", function()
  it("takes an error that is false for one, where scripts get at the future of a wait", function()
    local made = {}
    local Loop = aloop.SelectorEventLoop:extend()
    function Loop:create_future()
      made[#made + 1] = aloop.SelectorEventLoop.create_future(self)
      return made[#made]
    end
    helper.with_loop(Loop, function(loop)
      local lock = aloop.Lock()
      local _ <close> = lock:acquire()
      local task = loop:create_task(function() return lock:acquire() end)
      aloop.sleep(0)
      made[#made]:set_exception(false)
      raises(aloop.RuntimeError, "an error that is none", task.await, task)
      assert.is_true(lock:locked())
    end)
  end)

  it("is no other object", function()
    type_error("(wait list expected, got table)", core.wait_list.wake, {})
    type_error("(wait list expected, got table)", core.wait_list.new, 1, {})
  end)
end)
