-- Barrier: tasks that wait for each other.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, turns, cancelled = helper.as_task, helper.turns, helper.cancelled
local raises, type_error = helper.raises, helper.type_error

-- n tasks that wait once.
local function waiters(barrier, n)
  local tasks = {}
  for i = 1, n do tasks[i] = aloop.create_task(function() return barrier:wait() end) end
  turns(3)
  return tasks
end

local function indices(tasks)
  local list = {}
  for i, task in ipairs(tasks) do list[i] = task:await() end
  return list
end

local function all_broken(tasks, text)
  for _, task in ipairs(tasks) do raises(aloop.BrokenBarrierError, text, task.await, task) end
end

local function check_state(barrier, parties, n_waiting, broken)
  assert.equal(parties, barrier.parties)
  assert.equal(n_waiting, barrier.n_waiting)
  assert.equal(broken, barrier.broken)
end

describe("Barrier", function()
  it("for one lets every task pass", function()
    as_task(function()
      local barrier = aloop.Barrier(1)
      check_state(barrier, 1, 0, false)
      assert.equal(0, barrier:wait())
      assert.equal(0, barrier:wait())
      check_state(barrier, 1, 0, false)
    end)
  end)

  it("lets all go on when the last has come, each with a number of its own", function() -- row: locks_queues
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      check_state(barrier, 3, 2, false)
      assert.is_false(tasks[1]:done())
      assert.equal(2, barrier:wait())
      assert.same({ 0, 1 }, indices(tasks))
      check_state(barrier, 3, 0, false)
    end)
  end)

  it("is filled again after it was emptied", function() -- row: locks_queues
    as_task(function()
      local barrier, sum = aloop.Barrier(3), 0
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = aloop.create_task(function()
          for _ = 1, 4 do
            local index = barrier:wait()
            sum = sum + index
          end
        end)
      end
      for _, task in ipairs(tasks) do task:await() end
      assert.equal(4 * 3, sum)
      check_state(barrier, 3, 0, false)
    end)
  end)

  it("lets in those of the next time when those of the last are gone", function()
    as_task(function()
      local barrier, tasks, notes = aloop.Barrier(2), {}, {}
      for i = 1, 6 do
        tasks[i] = aloop.create_task(function()
          local index = barrier:wait()
          notes[#notes + 1] = index
        end)
      end
      for _, task in ipairs(tasks) do task:await() end
      local n = { [0] = 0, 0 }
      for _, index in ipairs(notes) do n[index] = n[index] + 1 end
      assert.same({ [0] = 3, 3 }, n)
    end)
  end)

  it("has a block that one of them runs", function()
    as_task(function()
      local barrier, ran = aloop.Barrier(4), 0
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = aloop.create_task(function()
          if barrier:wait() == 0 then ran = ran + 1 end
        end)
      end
      for _, task in ipairs(tasks) do task:await() end
      assert.equal(1, ran)
    end)
  end)

  it("is for at least one", function()
    raises(aloop.ValueError, "parties must be > 0", aloop.Barrier, 0)
    raises(aloop.ValueError, "parties must be > 0", aloop.Barrier, -4)
    type_error("bad argument #1 to 'Barrier' (number expected, got nil)", aloop.Barrier)
    type_error("bad argument #1 to 'Barrier' (number expected, got string)", aloop.Barrier, "3")
  end)

  it("shows its state", function()
    as_task(function()
      local barrier = aloop.Barrier(2)
      assert.matches("^<Barrier at 0x%x+ %[filling, waiters:0/2%]>$", tostring(barrier))
      local tasks = waiters(barrier, 1)
      assert.matches("%[filling, waiters:1/2%]", tostring(barrier))
      tasks[2] = aloop.create_task(function() return barrier:wait() end)
      turns()
      assert.matches("%[draining, waiters:0/2%]", tostring(barrier))
      indices(tasks)
      tasks = waiters(barrier, 1)
      barrier:reset()
      assert.matches("%[resetting, waiters:0/2%]", tostring(barrier))
      all_broken(tasks)
      barrier:abort()
      assert.matches("^<Barrier at 0x%x+ %[broken%]>$", tostring(barrier))
    end)
  end)
end)

describe("a cancelled wait()", function()
  it("is one fewer", function() -- row: locks_queues
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      tasks[1]:cancel()
      cancelled(tasks[1])
      check_state(barrier, 3, 1, false)
      tasks[1] = aloop.create_task(function() return barrier:wait() end)
      turns(2)
      check_state(barrier, 3, 2, false)
      barrier:wait()
      for _, task in ipairs(tasks) do task:await() end
      check_state(barrier, 3, 0, false)
    end)
  end)

  it("that had been let go leaves the others their way", function()
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      tasks[3] = aloop.create_task(function() return barrier:wait() end)
      turns()
      tasks[1]:cancel()
      cancelled(tasks[1])
      assert.equal(1, tasks[2]:await())
      assert.equal(2, tasks[3]:await())
      check_state(barrier, 3, 0, false)
      assert.same({ 0, 1, 2 }, indices(waiters(barrier, 3)))
    end)
  end)
end)

describe("reset()", function()
  it("of an empty one does nothing", function()
    as_task(function()
      local barrier = aloop.Barrier(2)
      assert.is_nil(barrier:reset())
      check_state(barrier, 2, 0, false)
    end)
  end)

  it("breaks it for those who wait, and for no other", function() -- row: locks_queues
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      barrier:reset()
      check_state(barrier, 3, 0, false)
      local later = waiters(barrier, 2) -- these wait until the others are gone
      all_broken(tasks, "Abort or reset of barrier")
      turns(2)
      check_state(barrier, 3, 2, false)
      barrier:wait()
      assert.same({ 0, 1 }, indices(later))
      check_state(barrier, 3, 0, false)
    end)
  end)

  it("while those of the last time go breaks it for those who have not gone", function()
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      local last = aloop.create_task(function()
        local index = barrier:wait()
        barrier:reset()
        return index
      end)
      local outcomes = {}
      for i, task in ipairs(tasks) do
        local ok, err = pcall(task.await, task)
        outcomes[i] = ok or aloop.isinstance(err, aloop.BrokenBarrierError)
      end
      assert.same({ true, true }, outcomes)
      assert.equal(2, last:await())
      check_state(barrier, 3, 0, false)
      assert.same({ 0, 1, 2 }, indices(waiters(barrier, 3)))
    end)
  end)
end)

describe("abort()", function()
  it("breaks it for those who wait, and those who come", function() -- row: locks_queues
    as_task(function()
      local barrier = aloop.Barrier(3)
      local tasks = waiters(barrier, 2)
      assert.is_nil(barrier:abort())
      check_state(barrier, 3, 0, true)
      all_broken(tasks, "Abort or reset of barrier")
      raises(aloop.BrokenBarrierError, "Barrier aborted", barrier.wait, barrier)
      assert.is_true(aloop.isinstance(aloop.BrokenBarrierError(), aloop.RuntimeError))
    end)
  end)

  it("is undone by reset()", function()
    as_task(function()
      local barrier = aloop.Barrier(2)
      barrier:abort()
      barrier:reset()
      check_state(barrier, 2, 0, false)
      assert.same({ 0, 1 }, indices(waiters(barrier, 2)))
    end)
  end)

  it("by a task that fails frees the others", function()
    as_task(function()
      local barrier, tasks = aloop.Barrier(3), {}
      for i = 1, 3 do
        tasks[i] = aloop.create_task(function()
          local ok = aloop.try(function()
            if i == 2 then error("fails") end
            barrier:wait()
          end)
          if not ok and i == 2 then barrier:abort() end
          return ok
        end)
      end
      assert.same({ false, false, false }, indices(tasks))
      check_state(barrier, 3, 0, true)
    end)
  end)
end)
