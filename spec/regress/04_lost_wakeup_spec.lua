-- 4: a task that was cancelled when it had just been woken took its turn along: a lock stayed free with tasks in line,
-- an item stayed in a queue with tasks waiting for one (bpo-27585, bpo-32734, gh-90155, anyio#1145). Whoever can't use
-- its turn hands it on, and nobody overtakes.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local function is_cancelled(err) return aloop.isinstance(err, aloop.CancelledError) end

-- Numbers in no order, the same in each run.
local function dice(seed)
  return function(n)
    seed = (seed * 1103515245 + 12345) & 0x7fffffff
    return (seed >> 12) % n
  end
end

-- Starts n tasks with this body, cancels some of them at odd times, and waits for the others, which must end.
local function stir(loop, random, n, body)
  local tasks, spared = {}, {}
  for i = 1, n do
    tasks[i] = loop:create_task(function() body(i) end)
    spared[i] = random(3) > 0
  end
  for i = 1, n do
    for _ = 1, random(3) do aloop.sleep(0) end
    if not spared[i] then tasks[i]:cancel() end
  end
  for i, task in ipairs(tasks) do
    local ok, err = pcall(task.await, task)
    assert(ok or is_cancelled(err) and not spared[i], err)
  end
end

describe("4: turns of tasks that are cancelled when woken are handed on, by", function()
  local function each_seed(body)
    for seed = 1, 20 do
      helper.with_loop(helper.new_loop, function(loop) body(loop, dice(seed)) end, { timeout = 5 })
    end
  end

  it("Lock", function() -- row: locks_queues
    each_seed(function(loop, random)
      local lock, holder = aloop.Lock(), nil
      stir(loop, random, 30, function(i)
        local _ <close> = lock:acquire()
        assert.is_nil(holder)
        holder = i
        local _ <close> = aloop.defer(function() holder = nil end)
        for _ = 1, random(3) do aloop.sleep(0) end
      end)
      assert.is_false(lock:locked())
    end)
  end)

  it("Semaphore", function() -- row: locks_queues
    each_seed(function(loop, random)
      local semaphore, inside = aloop.BoundedSemaphore(3), 0
      stir(loop, random, 30, function()
        local _ <close> = semaphore:acquire()
        inside = inside + 1
        assert.is_true(inside <= 3)
        local _ <close> = aloop.defer(function() inside = inside - 1 end)
        for _ = 1, random(3) do aloop.sleep(0) end
      end)
      assert.matches("%[unlocked, value:3%]", tostring(semaphore))
    end)
  end)

  it("Condition", function() -- row: locks_queues
    each_seed(function(loop, random)
      local condition, items = aloop.Condition(), 0
      local producer = loop:create_task(function()
        for _ = 1, 30 do
          local _ <close> = condition:acquire()
          items = items + 1
          condition:notify()
          for _ = 1, random(2) do aloop.sleep(0) end
        end
      end)
      stir(loop, random, 30, function()
        local _ <close> = condition:acquire()
        condition:wait_for(function() return items > 0 end)
        items = items - 1
      end)
      producer:await()
    end)
  end)

  it("Queue", function() -- row: locks_queues
    each_seed(function(loop, random)
      local queue, put, got = aloop.Queue(2), 0, 0
      local function consume()
        for _ in queue:items() do
          got = got + 1
          if random(4) == 0 then aloop.sleep(0) end
        end
      end
      local faithful, others = loop:create_task(consume), {}
      for i = 1, 5 do others[i] = loop:create_task(consume) end
      stir(loop, random, 60, function(i)
        queue:put(i)
        put = put + 1
        if random(6) == 0 then table.remove(others, 1):cancel() end
        if #others < 5 then others[#others + 1] = loop:create_task(consume) end
      end)
      queue:shutdown()
      faithful:await()
      for _, task in ipairs(others) do task:await() end
      assert.equal(put, got)
    end)
  end)
end)

it("4: those who wait for a semaphore are not overtaken by one that comes when it is let go", function()
  helper.with_loop(helper.new_loop, function(loop)
    local semaphore, order = aloop.Semaphore(1), {}
    local function body(i)
      return function()
        local _ <close> = semaphore:acquire()
        order[#order + 1] = i
        aloop.sleep(0)
      end
    end
    local tasks = {}
    for i = 1, 3 do tasks[i] = loop:create_task(body(i)) end
    aloop.sleep(0)
    loop:call_soon(function() tasks[4] = loop:create_task(body(4)) end)
    while not tasks[4] do aloop.sleep(0) end
    for _, task in ipairs(tasks) do task:await() end
    assert.same({ 1, 2, 3, 4 }, order)
  end)
end)
