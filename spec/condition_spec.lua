-- Condition: a lock, and those who wait for a change of what it protects.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, turns, cancelled = helper.as_task, helper.turns, helper.cancelled
local raises, type_error = helper.raises, helper.type_error

-- n tasks that wait once under the lock and note who they are.
local function waiters(condition, n, notes)
  local tasks = {}
  for i = 1, n do
    tasks[i] = aloop.create_task(function()
      local _ <close> = condition:acquire()
      assert.is_true(condition:wait())
      assert.is_true(condition:locked())
      notes[#notes + 1] = i
    end)
  end
  turns(2)
  return tasks
end

local function notify(condition, n)
  local _ <close> = condition:acquire()
  condition:notify(n)
end

-- Tasks that take from a store until it is below zero.
local function consumers(condition, store, n)
  local tasks = {}
  for i = 1, n do
    tasks[i] = aloop.create_task(function()
      local _ <close> = condition:acquire()
      while true do
        condition:wait_for(function() return store.n ~= 0 end)
        if store.n < 0 then return end
        store.n = store.n - 1
      end
    end)
  end
  turns(2)
  return tasks
end

describe("Condition", function()
  it("has the methods of its lock", function() -- row: locks_queues
    as_task(function()
      local condition = aloop.Condition()
      assert.is_false(condition:locked())
      do
        local _ <close> = condition:acquire()
        assert.is_true(condition:locked())
      end
      assert.is_false(condition:locked())
      condition:acquire()
      assert.is_nil(condition:release())
      raises(aloop.RuntimeError, "release(): Lock is not acquired.", condition.release, condition)
    end)
  end)

  it("can share its lock", function()
    as_task(function()
      local lock = aloop.Lock()
      local first, second = aloop.Condition(lock), aloop.Condition(lock)
      local _ <close> = first:acquire()
      assert.is_true(second:locked())
      assert.is_true(lock:locked())
      second:notify()
    end)
  end)

  it("takes any lock with a lock's methods, and no other value", function()
    as_task(function()
      type_error("bad argument #1 to 'Condition' (Lock expected, got string)", aloop.Condition, "lock")
      type_error("bad argument #1 to 'Condition' (Lock expected, got Event)", aloop.Condition, aloop.Event())
      local lock, notes = aloop.Lock(), {}
      local own = {}
      for _, name in ipairs { "acquire", "release", "locked" } do
        own[name] = function()
          if name ~= "locked" then notes[#notes + 1] = name end
          return lock[name](lock)
        end
      end
      local condition = aloop.Condition(own)
      local task = aloop.create_task(function()
        local _ <close> = condition:acquire()
        condition:wait()
      end)
      turns()
      notify(condition)
      task:await()
      assert.same({ "acquire", "release", "acquire", "acquire" }, notes)
    end)
  end)

  it("shows its state", function()
    as_task(function()
      local condition = aloop.Condition()
      assert.matches("^<Condition at 0x%x+ %[unlocked%]>$", tostring(condition))
      local tasks = waiters(condition, 2, {})
      assert.matches("%[unlocked, waiters:2%]>$", tostring(condition))
      local guard = condition:acquire()
      condition:notify()
      assert.matches("%[locked, waiters:2%]>$", tostring(condition))
      condition:notify_all()
      guard:release()
      for _, task in ipairs(tasks) do task:await() end
      assert.matches("%[unlocked%]>$", tostring(condition))
    end)
  end)
end)

describe("wait()", function()
  it("lets go of the lock, and has it again", function() -- row: locks_queues
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local tasks = waiters(condition, 3, notes)
      assert.is_false(condition:locked())
      notify(condition)
      turns(3)
      assert.same({ 1 }, notes)
      notify(condition, 2)
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ 1, 2, 3 }, notes)
      assert.is_false(condition:locked())
    end)
  end)

  it("goes on only once the lock is free", function()
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local tasks = waiters(condition, 1, notes)
      local guard = condition:acquire()
      condition:notify()
      turns(3)
      assert.same({}, notes)
      guard:release()
      tasks[1]:await()
      assert.same({ 1 }, notes)
    end)
  end)

  it("keeps the guard valid", function()
    as_task(function()
      local condition = aloop.Condition()
      local task = aloop.create_task(function()
        local guard <close> = condition:acquire()
        condition:wait()
        assert.matches("^<Guard of <Lock", tostring(guard))
      end)
      turns()
      notify(condition)
      task:await()
      assert.is_false(condition:locked())
    end)
  end)

  it("needs the lock", function()
    as_task(function()
      local condition = aloop.Condition()
      raises(aloop.RuntimeError, "wait(): cannot wait on un-acquired lock", condition.wait, condition)
      raises(aloop.RuntimeError, "cannot wait on un-acquired lock", condition.wait_for, condition, function() end)
      raises(aloop.RuntimeError, "notify(): cannot notify on un-acquired lock", condition.notify, condition)
      raises(aloop.RuntimeError, "notify_all(): cannot notify on un-acquired lock", condition.notify_all, condition)
    end)
  end)

  it("that is cancelled has the lock again", function() -- row: locks_queues
    as_task(function()
      local condition = aloop.Condition()
      local held
      local task = aloop.create_task(function()
        local _ <close> = condition:acquire()
        local ok, err = pcall(condition.wait, condition)
        held = condition:locked()
        if not ok then error(err, 0) end
      end)
      turns(2)
      task:cancel("enough")
      assert.equal("enough", cancelled(task).message)
      assert.is_true(held)
      assert.is_false(condition:locked())
      assert.matches("%[unlocked%]", tostring(condition))
    end)
  end)

  it("waits for the lock however often it is cancelled, and raises the last one", function()
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local task = waiters(condition, 1, notes)[1]
      local guard = condition:acquire()
      condition:notify()
      turns()
      for i = 1, 3 do
        task:cancel("cancel " .. i)
        turns()
        assert.is_false(task:done())
      end
      guard:release()
      assert.equal("cancel 3", cancelled(task).message)
      assert.same({}, notes)
      assert.is_false(condition:locked())
    end)
  end)

  it("that is cancelled in the turn in which the lock is let go holds it when it raises", function()
    as_task(function(loop)
      local condition = aloop.Condition()
      local task = aloop.create_task(function()
        condition:acquire()
        condition:wait()
      end)
      turns()
      condition:acquire()
      condition:notify()
      loop:call_soon(task.cancel, task)
      loop:call_soon(condition.release, condition)
      cancelled(task)
      assert.is_true(condition:locked())
    end)
  end)

  it("that is cancelled in the turn of its notification lets another look", function() -- row: locks_queues
    for _, passed in ipairs { 0, 1 } do -- in the line of those who wait, in the line for the lock
      as_task(function()
        local condition, store = aloop.Condition(), { n = 0 }
        local tasks = consumers(condition, store, 2)
        local guard = condition:acquire()
        store.n = 1
        condition:notify(1)
        turns(passed)
        tasks[1]:cancel()
        guard:release()
        cancelled(tasks[1])
        turns(3)
        assert.equal(0, store.n)
        do
          local _ <close> = condition:acquire()
          store.n = -1
          condition:notify_all()
        end
        tasks[2]:await()
      end)
    end
  end)

  it("raises what the lock raises when it can't be had again", function()
    as_task(function()
      local lock = aloop.Lock()
      local broken = false
      local own = {
        acquire = function()
          if broken then error("broken", 0) end
          return lock:acquire()
        end,
        release = function() lock:release() end,
        locked = function() return lock:locked() end,
      }
      local condition = aloop.Condition(own)
      local task = aloop.create_task(function()
        condition:acquire()
        condition:wait()
      end)
      turns()
      condition:acquire()
      condition:notify()
      condition:release()
      broken = true
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.equal("broken", err)
    end)
  end)
end)

describe("wait_for()", function()
  it("returns what the predicate gives once that is true", function() -- row: locks_queues
    as_task(function()
      local condition, value, asked = aloop.Condition(), nil, 0
      local task = aloop.create_task(function()
        local _ <close> = condition:acquire()
        return condition:wait_for(function()
          asked = asked + 1
          return value
        end)
      end)
      turns(2)
      notify(condition)
      turns(2)
      assert.equal(2, asked)
      assert.is_false(task:done())
      value = "there"
      notify(condition)
      assert.equal("there", task:await())
      assert.equal(3, asked)
    end)
  end)

  it("doesn't wait for what is so already", function()
    as_task(function()
      local condition = aloop.Condition()
      assert.equal(7, condition:wait_for(function() return 7 end))
    end)
  end)

  it("raises the predicate's error, with the lock held", function()
    as_task(function()
      local condition = aloop.Condition()
      local _ <close> = condition:acquire()
      local ok, err = pcall(condition.wait_for, condition, function() error("no", 0) end)
      assert.is_false(ok)
      assert.equal("no", err)
      type_error("bad argument #1 to 'wait_for' (function expected, got boolean)", condition.wait_for, condition, true)
    end)
  end)
end)

describe("notify()", function()
  it("wakes no more than there are, and none for 0", function()
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local tasks = waiters(condition, 3, notes)
      notify(condition, 0)
      turns(4)
      assert.same({}, notes)
      notify(condition, 2)
      turns(4)
      assert.same({ 1, 2 }, notes)
      notify(condition, 2048)
      tasks[3]:await()
      assert.same({ 1, 2, 3 }, notes)
      notify(condition)
      type_error("bad argument #1 to 'notify' (number expected, got string)", condition.notify, condition, "all")
    end)
  end)

  it("passes over those that were cancelled", function()
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local tasks = waiters(condition, 2, notes)
      tasks[1]:cancel()
      notify(condition)
      cancelled(tasks[1])
      tasks[2]:await()
      assert.same({ 2 }, notes)
    end)
  end)
end)

describe("notify_all()", function()
  it("wakes all that wait, who have the lock one after the other", function() -- row: locks_queues
    as_task(function()
      local condition, notes = aloop.Condition(), {}
      local tasks = waiters(condition, 4, notes)
      do
        local _ <close> = condition:acquire()
        condition:notify_all()
      end
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ 1, 2, 3, 4 }, notes)
    end)
  end)
end)

describe("in debug mode", function()
  it("a cancelled wait() that waits for its lock has swallowed nothing", function()
    as_task(function(loop)
      loop:set_debug(true)
      local condition = aloop.Condition()
      local task = waiters(condition, 1, {})[1]
      local guard = condition:acquire()
      task:cancel()
      turns(2)
      guard:release()
      cancelled(task)
    end)
  end)

  it("a cancellation that a pcall took from a lock is reported", function()
    as_task(function(loop, trial)
      loop:set_debug(true)
      local lock = aloop.Lock()
      local guard = lock:acquire()
      local task = aloop.create_task(function()
        pcall(lock.acquire, lock)
        aloop.sleep(0)
      end)
      turns()
      task:cancel()
      task:await()
      guard:release()
      trial:take_log("waits again though it was cancelled")
    end)
  end)
end)
