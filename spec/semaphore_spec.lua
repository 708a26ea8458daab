-- Semaphore and BoundedSemaphore: counters that tasks take from.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, turns, cancelled = helper.as_task, helper.turns, helper.cancelled
local raises, type_error = helper.raises, helper.type_error

-- Tasks that take one each and note who they are.
local function takers(semaphore, n, notes)
  local tasks = {}
  for i = 1, n do
    tasks[i] = aloop.create_task(function()
      semaphore:acquire()
      notes[#notes + 1] = i
    end)
  end
  turns()
  return tasks
end

describe("Semaphore", function()
  it("counts down, and up again", function() -- row: locks_queues
    as_task(function()
      local semaphore = aloop.Semaphore(2)
      assert.is_false(semaphore:locked())
      assert.truthy(semaphore:acquire())
      assert.is_false(semaphore:locked())
      local guard = semaphore:acquire()
      assert.is_true(semaphore:locked())
      guard:release()
      assert.is_false(semaphore:locked())
      assert.is_nil(semaphore:release())
      semaphore:release() -- beyond its first value: only a BoundedSemaphore minds
      assert.matches("value:3", tostring(semaphore))
      local one = aloop.Semaphore()
      do
        local _ <close> = one:acquire()
        assert.is_true(one:locked())
      end
      assert.is_false(one:locked())
    end)
  end)

  it("begins with a number that is not negative", function()
    assert.is_true(aloop.Semaphore(0):locked())
    raises(aloop.ValueError, "Semaphore initial value must be >= 0", aloop.Semaphore, -1)
    raises(aloop.ValueError, "Semaphore initial value must be >= 0", aloop.Semaphore, 0 / 0)
    raises(aloop.ValueError, "BoundedSemaphore initial value must be >= 0", aloop.BoundedSemaphore, -1)
    type_error("bad argument #1 to 'Semaphore' (number expected, got string)", aloop.Semaphore, "2")
  end)

  it("is given to those who wait in the order in which they came", function() -- row: locks_queues
    as_task(function()
      local semaphore, notes = aloop.Semaphore(0), {}
      local tasks = takers(semaphore, 5, notes)
      for _ = 1, 3 do semaphore:release() end
      turns()
      assert.same({ 1, 2, 3 }, notes)
      for _ = 1, 2 do semaphore:release() end
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ 1, 2, 3, 4, 5 }, notes)
      assert.is_true(semaphore:locked())
    end)
  end)

  it("goes to who waits before who asks again", function()
    as_task(function()
      local semaphore, notes = aloop.Semaphore(1), {}
      local function body(name)
        return function()
          for round = 1, 2 do
            semaphore:acquire()
            notes[#notes + 1] = name .. round
            turns(2)
            semaphore:release()
          end
        end
      end
      local tasks = {}
      for i, name in ipairs { "a", "b", "c" } do tasks[i] = aloop.create_task(body(name)) end
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ "a1", "b1", "c1", "a2", "b2", "c2" }, notes)
    end)
  end)

  it("is not free while one that was woken has not gone on", function()
    as_task(function()
      local semaphore, notes = aloop.Semaphore(0), {}
      local tasks = takers(semaphore, 1, notes)
      for _ = 1, 3 do semaphore:release() end
      assert.matches("%[locked, waiters:1%]", tostring(semaphore)) -- two are left, but it is not their turn
      assert.is_true(semaphore:locked())
      tasks[2] = aloop.create_task(function()
        semaphore:acquire()
        notes[#notes + 1] = 2
      end)
      semaphore:acquire()
      notes[#notes + 1] = "last"
      for _, task in ipairs(tasks) do task:await() end
      assert.same({ 1, "last", 2 }, notes)
      assert.is_true(semaphore:locked())
    end)
  end)

  it("wakes with the first also those who had to wait behind it", function()
    as_task(function()
      local semaphore, notes, tasks = aloop.Semaphore(0), {}, {}
      local function note(i) notes[#notes + 1] = i end
      tasks[1] = aloop.create_task(function()
        semaphore:acquire()
        tasks[4] = aloop.create_task(function() note(4) end)
        note(1)
      end)
      tasks[2] = aloop.create_task(function()
        for _ = 1, 3 do semaphore:release() end
        assert.is_true(semaphore:locked())
        semaphore:acquire()
        note(2)
      end)
      tasks[3] = aloop.create_task(function()
        semaphore:acquire()
        note(3)
      end)
      turns(2)
      for i = 1, 4 do tasks[i]:await() end
      assert.same({ 1, 2, 3, 4 }, notes)
    end)
  end)

  it("shows its state", function()
    as_task(function()
      local semaphore = aloop.Semaphore(1)
      assert.matches("^<Semaphore at 0x%x+ %[unlocked, value:1%]>$", tostring(semaphore))
      semaphore:acquire()
      assert.matches("^<Semaphore at 0x%x+ %[locked%]>$", tostring(semaphore))
      local tasks = takers(semaphore, 2, {})
      assert.matches("%[locked, waiters:2%]>$", tostring(semaphore))
      semaphore:release()
      semaphore:release()
      for _, task in ipairs(tasks) do task:await() end
      assert.matches("^<BoundedSemaphore at 0x%x+ %[unlocked, value:4%]>$", tostring(aloop.BoundedSemaphore(4)))
    end)
  end)
end)

describe("a cancelled acquire()", function()
  it("takes nothing, and the next is woken", function()
    as_task(function()
      local semaphore, notes = aloop.Semaphore(0), {}
      local tasks = takers(semaphore, 4, notes)
      tasks[1]:cancel()
      tasks[2]:cancel()
      semaphore:release()
      turns(2)
      assert.same({ 3 }, notes)
      assert.is_false(tasks[4]:done())
      tasks[4]:cancel()
      for _, i in ipairs { 1, 2, 4 } do cancelled(tasks[i]) end
      assert.matches("%[locked%]", tostring(semaphore))
    end)
  end)

  it("in the turn of the release hands on what it was given", function() -- row: locks_queues
    as_task(function()
      local semaphore, notes = aloop.Semaphore(0), {}
      local tasks = takers(semaphore, 3, notes)
      semaphore:release()
      semaphore:release()
      tasks[1]:cancel()
      tasks[2]:cancel()
      cancelled(tasks[1])
      cancelled(tasks[2])
      tasks[3]:await()
      assert.same({ 3 }, notes)
      assert.matches("%[unlocked, value:1%]", tostring(semaphore))
    end)
  end)

  it("in the turn of a release with no one behind leaves it free", function()
    as_task(function()
      local semaphore = aloop.Semaphore(1)
      local holder, other
      holder = aloop.create_task(function()
        do
          local _ <close> = semaphore:acquire()
          turns()
        end
        other:cancel()
      end)
      other = aloop.create_task(function() semaphore:acquire() end)
      holder:await()
      cancelled(other)
      assert.is_false(semaphore:locked())
      local _ <close> = semaphore:acquire()
    end)
  end)
end)

describe("BoundedSemaphore", function()
  it("may not be released more often than acquired", function() -- row: locks_queues
    as_task(function()
      local semaphore = aloop.BoundedSemaphore(2)
      local release = semaphore.release
      raises(aloop.ValueError, "release(): BoundedSemaphore released too many times", release, semaphore)
      local guard = semaphore:acquire()
      guard:release()
      raises(aloop.ValueError, "released too many times", release, semaphore)
      assert.is_true(aloop.isinstance(semaphore, aloop.Semaphore))
      raises(aloop.ValueError, "released too many times", function() return aloop.BoundedSemaphore():release() end)
    end)
  end)

  it("is given on to those who wait", function()
    as_task(function()
      local semaphore, notes = aloop.BoundedSemaphore(1), {}
      local guard = semaphore:acquire()
      local tasks = takers(semaphore, 1, notes)
      guard:release()
      tasks[1]:await()
      assert.is_true(semaphore:locked())
      semaphore:release()
      raises(aloop.ValueError, "released too many times", semaphore.release, semaphore)
    end)
  end)
end)
