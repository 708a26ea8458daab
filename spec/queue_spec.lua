-- Queue, LifoQueue and PriorityQueue.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, turns, cancelled = helper.as_task, helper.turns, helper.cancelled
local raises, type_error = helper.raises, helper.type_error

local function getter(queue) return aloop.create_task(function() return queue:get() end) end
local function putter(queue, item) return aloop.create_task(function() queue:put(item) end) end

local function fill(queue, ...)
  for _, item in ipairs { ... } do queue:put_nowait(item) end
  return queue
end

-- All that is in it.
local function drain(queue)
  local items = {}
  while not queue:empty() do items[#items + 1] = queue:get_nowait() end
  return items
end

local kinds = { Queue = aloop.Queue, LifoQueue = aloop.LifoQueue, PriorityQueue = aloop.PriorityQueue }

describe("Queue", function()
  it("gives out what was put in, first in, first out", function() -- row: locks_queues
    as_task(function()
      local queue = fill(aloop.Queue(), 1, 3, 2)
      assert.equal(3, queue:qsize())
      assert.is_false(queue:empty())
      assert.same({ 1, 3, 2 }, drain(queue))
      assert.is_true(queue:empty())
      assert.equal(0, queue:qsize())
      queue:put(false)
      assert.is_false(queue:get())
      for i = 1, 1000 do -- as one that is never empty
        queue:put(i)
        if i > 10 then assert.equal(i - 10, queue:get()) end
      end
      assert.equal(10, queue:qsize())
    end)
  end)

  it("takes any value but nil", function()
    as_task(function()
      local queue = aloop.Queue()
      type_error("bad argument #1 to 'put' (value expected, got nil)", queue.put, queue)
      type_error("bad argument #1 to 'put_nowait' (value expected, got nil)", queue.put_nowait, queue, nil)
      assert.equal(0, queue:qsize())
    end)
  end)

  it("has a size of its own, or none", function()
    local queue = fill(aloop.Queue(2), 1)
    assert.equal(2, queue.maxsize)
    assert.is_false(queue:full())
    queue:put_nowait(2)
    assert.is_true(queue:full())
    raises(aloop.QueueFull, nil, queue.put_nowait, queue, 3)
    for _, size in ipairs { 0, -3 } do
      local endless = aloop.Queue(size)
      for i = 1, 100 do endless:put_nowait(i) end
      assert.is_false(endless:full())
    end
    assert.equal(0, aloop.Queue().maxsize)
    local half = fill(aloop.Queue(1.5), 1)
    assert.is_false(half:full())
    half:put_nowait(2)
    assert.is_true(half:full())
    type_error("bad argument #1 to 'Queue' (number expected, got string)", aloop.Queue, "2")
    type_error("bad argument #1 to 'PriorityQueue' (number expected, got table)", aloop.PriorityQueue, {})
  end)

  it("shows what it holds and who waits", function()
    as_task(function()
      local queue = aloop.Queue(2)
      assert.matches("^<Queue at 0x%x+ maxsize=2>$", tostring(queue))
      local tasks = { getter(queue), getter(queue) }
      turns()
      assert.matches("maxsize=2 _getters%[2%]>$", tostring(queue))
      fill(queue, 1, "two")
      for _, task in ipairs(tasks) do task:await() end
      fill(queue, 1, "two")
      local task = putter(queue, 3)
      turns()
      assert.matches("maxsize=2 _queue=%[1, 'two'%] _putters%[1%] tasks=4>$", tostring(queue))
      queue:shutdown()
      assert.matches(" shutdown>$", tostring(queue))
      raises(aloop.QueueShutDown, nil, task.await, task)
      local long = aloop.Queue()
      for i = 1, 1000 do long:put_nowait(i) end
      assert.matches("_queue=%[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, <990 more>%] tasks=1000>$", tostring(long))
      assert.matches("_queue=%['a', 'b'%]", tostring(fill(aloop.LifoQueue(), "a", "b")))
      assert.matches("_queue=%['a', 'b'%]", tostring(fill(aloop.PriorityQueue(), "b", "a")))
      assert.matches("^<Queue at 0x%x+ maxsize=0 _queue=%[<Queue", tostring(fill(aloop.Queue(), aloop.Queue())))
    end)
  end)

  it("may be of a class that keeps its items in another way", function()
    as_task(function()
      local Loud = aloop.Queue:extend("Loud")
      function Loud:_put(item) aloop.Queue._put(self, item .. "!") end
      assert.same({ "a!", "b!" }, drain(fill(Loud(), "a", "b")))
      local Set = aloop.Queue:extend("Set")
      function Set:_init() self.item = nil end
      function Set:_put(item) self.item = item end
      function Set:_get() return self.item end
      function Set:_peek() return self.item end
      local set = fill(Set(1), 5)
      assert.is_true(set:full())
      assert.matches("^<Set at 0x%x+ maxsize=1 _queue=%[5%]", tostring(set))
      assert.equal(5, set:get())
    end)
  end)
end)

describe("get()", function()
  it("waits for an item", function() -- row: locks_queues
    as_task(function()
      local queue = aloop.Queue()
      local task = getter(queue)
      turns(2)
      assert.is_false(task:done())
      queue:put("item")
      assert.equal("item", task:await())
      assert.is_true(queue:empty())
    end)
  end)

  it("gives items to those who wait in the order in which they came", function() -- row: locks_queues
    as_task(function()
      local queue, tasks = aloop.Queue(), {}
      for i = 1, 4 do tasks[i] = getter(queue) end
      turns()
      fill(queue, "a", "b", "c", "d")
      for i, item in ipairs { "a", "b", "c", "d" } do assert.equal(item, tasks[i]:await()) end
    end)
  end)

  it("lets a putter go on", function()
    as_task(function()
      local queue = fill(aloop.Queue(1), 1)
      local tasks = { putter(queue, 2), putter(queue, 3) }
      turns()
      assert.equal(1, queue:get())
      tasks[1]:await()
      assert.is_false(tasks[2]:done())
      assert.equal(2, queue:get_nowait())
      tasks[2]:await()
      assert.equal(3, queue:get())
    end)
  end)

  it("waits again if its item was taken by another", function()
    as_task(function()
      local queue = aloop.Queue()
      local task = getter(queue)
      turns()
      queue:put_nowait(1)
      assert.equal(1, queue:get_nowait())
      turns(2)
      assert.is_false(task:done())
      queue:put_nowait(2)
      assert.equal(2, task:await())
    end)
  end)

  it("that is cancelled leaves the line", function()
    as_task(function()
      local queue = aloop.Queue()
      local first, second = getter(queue), getter(queue)
      turns()
      first:cancel()
      assert.matches("_getters%[1%]", tostring(queue))
      queue:put_nowait(1)
      cancelled(first)
      assert.equal(1, second:await())
    end)
  end)

  it("that is cancelled in the turn of its item leaves it to the next", function() -- row: locks_queues
    as_task(function()
      local queue = aloop.Queue()
      local first, second = getter(queue), getter(queue)
      turns()
      queue:put_nowait(1)
      first:cancel()
      cancelled(first)
      assert.equal(1, second:await())
      local last = getter(queue)
      turns()
      queue:put_nowait(2)
      last:cancel()
      cancelled(last)
      assert.equal(2, queue:get_nowait())
    end)
  end)

  it("that is cancelled many times loses nothing", function()
    as_task(function()
      local queue, got = aloop.Queue(), 0
      local tasks = {}
      for i = 1, 100 do
        tasks[i] = aloop.create_task(function()
          queue:get()
          got = got + 1
        end)
      end
      turns()
      for i = 1, 50 do
        queue:put_nowait(i)
        tasks[i]:cancel()
      end
      for i = 1, 50 do cancelled(tasks[i]) end
      turns(3)
      assert.equal(50, got)
      assert.is_true(queue:empty())
      for i = 51, 100 do tasks[i]:await() end
    end)
  end)
end)

describe("get_nowait()", function()
  it("raises QueueEmpty", function() -- row: locks_queues
    local queue = fill(aloop.Queue(), 1)
    assert.equal(1, queue:get_nowait())
    raises(aloop.QueueEmpty, nil, queue.get_nowait, queue)
  end)
end)

describe("put()", function()
  it("waits for room", function() -- row: locks_queues
    as_task(function()
      local queue = fill(aloop.Queue(1), 1)
      local task = putter(queue, 2)
      turns(2)
      assert.is_false(task:done())
      assert.equal(1, queue:get())
      task:await()
      assert.equal(2, queue:get())
    end)
  end)

  it("waits again if its room was taken by another", function()
    as_task(function()
      local queue = fill(aloop.Queue(1), 1)
      local task = putter(queue, 2)
      turns()
      queue:get_nowait()
      queue:put_nowait(3)
      turns(2)
      assert.is_false(task:done())
      assert.equal(3, queue:get())
      task:await()
      assert.equal(2, queue:get())
    end)
  end)

  it("that is cancelled leaves the line", function()
    as_task(function()
      local queue = fill(aloop.Queue(1), 1)
      local first, second = putter(queue, 2), putter(queue, 3)
      turns()
      first:cancel()
      assert.matches("_putters%[1%]", tostring(queue))
      cancelled(first)
      assert.equal(1, queue:get())
      second:await()
      assert.equal(3, queue:get())
    end)
  end)

  it("that is cancelled in the turn of its room leaves it to the next", function() -- row: locks_queues
    as_task(function()
      local queue = fill(aloop.Queue(1), 1)
      local first, second = putter(queue, 2), putter(queue, 3)
      turns()
      assert.equal(1, queue:get_nowait())
      first:cancel()
      cancelled(first)
      second:await()
      assert.equal(3, queue:get())
      assert.is_true(queue:empty())
    end)
  end)

  it("keeps the order of those who wait with and without room", function()
    as_task(function()
      local queue, items = aloop.Queue(1), {}
      local task = aloop.create_task(function()
        for i = 1, 10 do queue:put(i) end
        queue:shutdown()
      end)
      for item in queue:items() do items[#items + 1] = item end
      task:await()
      assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, items)
    end)
  end)
end)

describe("join()", function()
  for name, kind in pairs(kinds) do
    it("waits until all that was put in is dealt with, of a " .. name, function() -- row: locks_queues
      as_task(function()
        local queue, sum, running = kind(), 0, true
        for i = 0, 99 do queue:put_nowait(i) end
        local workers = {}
        for i = 1, 2 do
          workers[i] = aloop.create_task(function()
            while running do
              local item = queue:get()
              sum = sum + item
              queue:task_done()
            end
          end)
        end
        assert.is_nil(queue:join())
        assert.equal(99 * 50, sum)
        running = false
        for _ = 1, 2 do queue:put(0) end
        for _, worker in ipairs(workers) do worker:await() end
      end)
    end)
  end

  it("of a queue without items returns at once", function()
    as_task(function()
      local queue, turned = aloop.Queue(), false
      aloop.create_task(function() turned = true end)
      queue:join()
      assert.is_false(turned)
    end)
  end)

  it("goes on although more was put in meanwhile, and can be cancelled", function()
    as_task(function()
      local queue = fill(aloop.Queue(), 1)
      local function join() queue:join() end
      local first, second = aloop.create_task(join), aloop.create_task(join)
      turns()
      second:cancel()
      cancelled(second)
      queue:task_done()
      queue:put_nowait(2)
      first:await()
    end)
  end)
end)

describe("task_done()", function()
  it("can't be called more often than items were put in", function() -- row: locks_queues
    local queue = fill(aloop.Queue(), 1)
    assert.is_nil(queue:task_done())
    raises(aloop.ValueError, "task_done() called too many times", queue.task_done, queue)
  end)
end)

describe("shutdown()", function()
  for name, kind in pairs(kinds) do
    it("ends puts at once and gets when nothing is left, of a " .. name, function() -- row: locks_queues
      as_task(function()
        local queue = fill(kind(2), 1, 2)
        local blocked = { putter(queue, 3), putter(queue, 4) }
        turns()
        assert.is_nil(queue:shutdown())
        for _, task in ipairs(blocked) do raises(aloop.QueueShutDown, nil, task.await, task) end
        raises(aloop.QueueShutDown, nil, queue.put, queue, 5)
        raises(aloop.QueueShutDown, nil, queue.put_nowait, queue, 5)
        assert.equal(2, queue:qsize())
        queue:get()
        raises(aloop.QueueShutDown, nil, queue.put_nowait, queue, 5)
        queue:get_nowait()
        raises(aloop.QueueShutDown, nil, queue.get, queue)
        raises(aloop.QueueShutDown, nil, queue.get_nowait, queue)
        queue:shutdown()
        queue:shutdown(false)
      end)
    end)

    it("at once throws away what is left, of a " .. name, function()
      as_task(function()
        local queue = fill(kind(3), 1, 2, 3)
        queue:get_nowait()
        local blocked = { putter(queue, 3), putter(queue, 4) }
        turns()
        local joiner = aloop.create_task(function() queue:join() end)
        turns()
        queue:shutdown(true)
        assert.is_true(queue:empty())
        raises(aloop.QueueShutDown, nil, blocked[2].await, blocked[2])
        raises(aloop.QueueShutDown, nil, queue.get, queue)
        assert.is_false(joiner:done()) -- for the one that was taken
        queue:task_done()
        joiner:await()
        raises(aloop.ValueError, "task_done() called too many times", queue.task_done, queue)
      end)
    end)
  end

  it("ends those who wait for an item", function()
    as_task(function()
      local queue = aloop.Queue()
      local tasks = { getter(queue), getter(queue) }
      turns()
      queue:shutdown()
      for _, task in ipairs(tasks) do raises(aloop.QueueShutDown, nil, task.await, task) end
    end)
  end)

  it("frees who joins a queue of which nothing was taken", function()
    as_task(function()
      local queue = fill(aloop.Queue(), 1, 2)
      local joiner = aloop.create_task(function() queue:join() end)
      turns()
      queue:shutdown(true)
      joiner:await()
    end)
  end)

  it("takes a boolean", function()
    local queue = aloop.Queue()
    type_error("bad argument #1 to 'shutdown' (boolean expected, got table)", queue.shutdown, queue, {})
  end)
end)

describe("items()", function()
  it("are those of the queue until it is shut down and empty", function() -- row: locks_queues
    as_task(function()
      local queue, items = aloop.Queue(), {}
      local task = aloop.create_task(function()
        for item in queue:items() do
          items[#items + 1] = item
          queue:task_done()
        end
        return "ended"
      end)
      turns()
      fill(queue, 1, false)
      queue:join()
      assert.same({ 1, false }, items)
      fill(queue, 3, 4)
      queue:shutdown()
      assert.equal("ended", task:await())
      assert.same({ 1, false, 3, 4 }, items)
      for _ in queue:items() do error("there is nothing") end
    end)
  end)

  it("are shared among those who ask", function()
    as_task(function()
      local queue, sum, tasks = aloop.Queue(), 0, {}
      for i = 1, 3 do
        tasks[i] = aloop.create_task(function()
          for item in queue:items() do
            sum = sum + item
            turns()
          end
        end)
      end
      for i = 1, 10 do queue:put(i) end
      queue:shutdown()
      for _, task in ipairs(tasks) do task:await() end
      assert.equal(55, sum)
    end)
  end)

  it("need a task", function()
    local queue = fill(aloop.Queue(), 1)
    helper.drive(helper.new_loop, function(loop)
      loop:call_soon(function()
        raises(aloop.RuntimeError, "'items' waits, and there is no task", queue:items(), queue)
        loop:stop()
      end)
      loop:run_forever()
    end)
  end)
end)

describe("LifoQueue", function()
  it("gives out last in, first out", function() -- row: locks_queues
    assert.same({ 2, 3, 1 }, drain(fill(aloop.LifoQueue(), 1, 3, 2)))
    assert.is_true(aloop.isinstance(aloop.LifoQueue(), aloop.Queue))
  end)
end)

describe("PriorityQueue", function()
  it("gives out the least", function() -- row: locks_queues
    assert.same({ 1, 2, 3 }, drain(fill(aloop.PriorityQueue(), 1, 3, 2)))
    assert.same({ "a", "b", "c" }, drain(fill(aloop.PriorityQueue(), "b", "c", "a")))
    local queue, seed = aloop.PriorityQueue(), 1
    for _ = 1, 500 do
      seed = (seed * 1103515245 + 12345) & 0x7fffffff
      queue:put_nowait(seed >> 16)
      if seed % 3 == 0 then queue:get_nowait() end
    end
    local items = drain(queue)
    for i = 2, #items do assert.is_true(items[i - 1] <= items[i]) end
  end)

  it("compares arrays by their first element, and keeps the order of equal ones", function() -- row: locks_queues
    local queue = aloop.PriorityQueue()
    for i = 1, 40 do queue:put_nowait { i % 4, i } end
    local last = { -1, 0 }
    for _, item in ipairs(drain(queue)) do
      assert.is_true(last[1] < item[1] or last[1] == item[1] and last[2] < item[2])
      last = item
    end
  end)

  it("compares objects by their own order", function()
    local Job = { __lt = function(a, b) return a.urgency > b.urgency end }
    local function job(urgency) return setmetatable({ urgency = urgency }, Job) end
    local urgencies = {}
    for i, item in ipairs(drain(fill(aloop.PriorityQueue(), job(1), job(3), job(2)))) do urgencies[i] = item.urgency end
    assert.same({ 3, 2, 1 }, urgencies)
  end)

  it("refuses what can't be compared, and is as it was", function()
    local queue = aloop.PriorityQueue()
    local function refused(item, what)
      local ok, err = pcall(function() queue:put_nowait(item) end)
      assert.is_false(ok)
      assert.matches("^spec/queue_spec.lua:%d+: attempt to compare " .. what .. "$", err)
    end
    refused(true, "two boolean values")
    refused({}, "two nil values")
    refused(print, "two function values")
    fill(queue, 3, 1, 2)
    refused("one", "string with number")
    refused({ "one" }, "string with number")
    assert.equal(3, queue:qsize())
    assert.same({ 1, 2, 3 }, drain(queue))
    assert.matches("tasks=3>$", tostring(queue))
  end)

  it("whose comparison fails on the way out still has all items", function()
    local fails = false
    local Item = {}
    function Item.__lt(a, b)
      if fails then error("no order", 0) end
      return a.n < b.n
    end
    local queue = aloop.PriorityQueue()
    for i = 5, 1, -1 do queue:put_nowait(setmetatable({ n = i }, Item)) end
    fails = true
    local ok, err = pcall(queue.get_nowait, queue)
    assert.is_false(ok)
    assert.equal("no order", err)
    fails = false
    assert.equal(5, queue:qsize())
    local numbers = {}
    for i, item in ipairs(drain(queue)) do numbers[i] = item.n end
    assert.same({ 1, 2, 3, 4, 5 }, numbers)
  end)

  it("waits and wakes as the others do", function()
    as_task(function()
      local queue = aloop.PriorityQueue(1)
      local task = getter(queue)
      turns()
      queue:put(5)
      local blocked = putter(queue, 1)
      assert.equal(5, task:await())
      blocked:await()
      assert.equal(1, queue:get())
    end)
  end)
end)
