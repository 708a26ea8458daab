-- queues.lua: Queue, PriorityQueue and LifoQueue, with asyncio's rules. Those who wait stand in lists of the bindings
-- (locks.lua tells how). A kind of queue is a class with four methods that know nothing of waiting: _init(),
-- _put(item), _get(), and _peek(i) for tostring.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local wait_list = core.wait_list
local check_wait, wait, wake, count, rethrow =
  wait_list.check, wait_list.wait, wait_list.wake, wait_list.count, wait_list.rethrow

local queues = {}

local MAX_SHOWN = 10 -- items in tostring

-- ---- Queue ----------------------------------------------------------------------------------------------------------

--- Hands items from task to task: first in, first out.
---@class aloop.Queue
---@field maxsize number how many items it holds; 0 or less: any number
---@overload fun(maxsize?: number): aloop.Queue
local Queue = core.Object:extend("Queue")
queues.Queue = Queue

---@param maxsize? number default 0: any number
function Queue:init(maxsize)
  if maxsize == nil then maxsize = 0 end
  if type(maxsize) ~= "number" then check.bad_argument(1, check.typename(self), "number", maxsize) end
  self.maxsize = maxsize
  self.capacity = maxsize > 0 and maxsize or math.huge
  self.size, self.unfinished, self.is_shutdown = 0, 0, false
  self.getters = wait_list.new(self)
  self.putters = wait_list.new(self, self.getters)
  self.joiners = wait_list.new(self, self.getters)
  self.is_plain = self._put == Queue._put and self._get == Queue._get
  self:_init()
end

-- The items stand at first..last of the store.
function Queue:_init()
  self.store, self.first, self.last = {}, 1, 0
end

function Queue:_put(item)
  local last = self.last + 1
  self.store[last], self.last = item, last
end

function Queue:_get()
  local store, first = self.store, self.first
  local item = store[first]
  store[first] = nil
  if first == self.last then
    self.first, self.last = 1, 0
  else
    self.first = first + 1
  end
  return item
end

function Queue:_peek(i)
  return self.store[self.first + i - 1]
end

-- "[1, 'a', <3 more>]"
local function show_items(self)
  local parts = {}
  for i = 1, math.min(self.size, MAX_SHOWN) do
    parts[i] = core.repr(self:_peek(i))
  end
  if self.size > MAX_SHOWN then parts[MAX_SHOWN + 1] = ("<%d more>"):format(self.size - MAX_SHOWN) end
  return "[" .. table.concat(parts, ", ") .. "]"
end

function Queue:__tostring()
  local parts = { ("<%s at %p maxsize=%s"):format(check.typename(self), self, self.maxsize) }
  if self.size > 0 then parts[#parts + 1] = "_queue=" .. show_items(self) end
  if count(self.getters) > 0 then parts[#parts + 1] = ("_getters[%d]"):format(count(self.getters)) end
  if count(self.putters) > 0 then parts[#parts + 1] = ("_putters[%d]"):format(count(self.putters)) end
  if self.unfinished > 0 then parts[#parts + 1] = ("tasks=%d"):format(self.unfinished) end
  if self.is_shutdown then parts[#parts + 1] = "shutdown" end
  return table.concat(parts, " ") .. ">"
end

--- How many items it has.
---@return integer
function Queue:qsize()
  return self.size
end

---@return boolean
function Queue:empty()
  return self.size == 0
end

--- Whether put() would wait.
---@return boolean
function Queue:full()
  return self.size >= self.capacity
end

-- Puts it in, where there is room.
local function insert(self, item)
  if self.is_shutdown then error(core.QueueShutDown()) end
  if self.is_plain then -- _put without a call: it is the most common
    local last = self.last + 1
    self.store[last], self.last = item, last
  else
    self:_put(item)
  end
  self.size, self.unfinished = self.size + 1, self.unfinished + 1
  wake(self.getters)
end

local function wait_for_room(self)
  while self.size >= self.capacity and not self.is_shutdown do
    local cancelled, woken = wait(self.putters)
    if cancelled then
      if woken and not self:full() then wake(self.putters) end -- the room that was this task's is another's
      rethrow(cancelled)
    end
  end
end

--- Puts an item in, waiting for room in a full queue. QueueShutDown if the queue is shut down. Async.
---@param item any but nil
function Queue:put(item)
  if item == nil then check.bad_argument(1, "put", "value", item) end
  check_wait("put")
  if self.size >= self.capacity then wait_for_room(self) end
  return insert(self, item)
end

--- Puts an item in, or raises QueueFull.
---@param item any but nil
function Queue:put_nowait(item)
  if item == nil then check.bad_argument(1, "put_nowait", "value", item) end
  if self.size >= self.capacity and not self.is_shutdown then error(core.QueueFull()) end
  return insert(self, item)
end

-- Waits until there is an item, or none to come.
local function wait_for_item(self, name)
  while self.size == 0 and not self.is_shutdown do
    local cancelled, woken = wait(self.getters, name)
    if cancelled then
      if woken and self.size > 0 then wake(self.getters) end -- the item that was this task's is another's
      rethrow(cancelled)
    end
  end
end

-- Takes an item out; nil if there is none.
local function remove(self)
  local size = self.size
  if size == 0 then return nil end
  local item
  if self.is_plain then
    local store, first = self.store, self.first
    item = store[first]
    store[first] = nil
    if size == 1 then
      self.first, self.last = 1, 0
    else
      self.first = first + 1
    end
  else
    item = self:_get()
  end
  self.size = size - 1
  if self.maxsize > 0 then wake(self.putters) end
  return item
end

--- Takes an item out, waiting for one in an empty queue. QueueShutDown if the queue is shut down, and empty. Async.
---@return any item
function Queue:get()
  if self.size > 0 then check_wait("get") else wait_for_item(self, "get") end
  local item = remove(self)
  if item == nil then error(core.QueueShutDown()) end
  return item
end

--- Takes an item out, or raises QueueEmpty (QueueShutDown if the queue is shut down).
---@return any item
function Queue:get_nowait()
  local item = remove(self)
  if item == nil then error(self.is_shutdown and core.QueueShutDown() or core.QueueEmpty()) end
  return item
end

local function next_item(self)
  check_wait("items")
  if self.size == 0 then wait_for_item(self) end
  return remove(self)
end

--- The items as they come, until the queue is shut down and empty: `for item in queue:items() do`. Async.
---@return fun(queue: aloop.Queue): any
---@return aloop.Queue
function Queue:items()
  return next_item, self
end

local function all_done(self)
  wake(self.joiners, math.huge)
end

--- Says that an item that get() gave is dealt with; for join().
function Queue:task_done()
  if self.unfinished <= 0 then error(core.ValueError("task_done() called too many times")) end
  self.unfinished = self.unfinished - 1
  if self.unfinished == 0 then all_done(self) end
end

--- Waits until task_done() was called for each item that was put in. Async.
function Queue:join()
  check_wait("join")
  if self.unfinished == 0 then return end
  local cancelled = wait(self.joiners)
  if cancelled then rethrow(cancelled) end
end

--- From now on put() raises QueueShutDown, and so does get() once the queue is empty; also for those who wait.
---@param immediate? boolean throws the items away, as if they were dealt with
function Queue:shutdown(immediate)
  if immediate ~= nil and type(immediate) ~= "boolean" then check.bad_argument(1, "shutdown", "boolean", immediate) end
  self.is_shutdown = true
  if immediate then
    self.unfinished = math.max(0, self.unfinished - self.size)
    self.size = 0
    self:_init()
    if self.unfinished == 0 then all_done(self) end
  end
  wake(self.getters, math.huge)
  wake(self.putters, math.huge)
end

-- ---- LifoQueue ------------------------------------------------------------------------------------------------------

--- A Queue that gives out what was put in last.
---@class aloop.LifoQueue: aloop.Queue
---@overload fun(maxsize?: number): aloop.LifoQueue
local LifoQueue = Queue:extend("LifoQueue")
queues.LifoQueue = LifoQueue

function LifoQueue:_init()
  self.store = {}
end

function LifoQueue:_put(item)
  self.store[#self.store + 1] = item
end

function LifoQueue:_get()
  return table.remove(self.store)
end

function LifoQueue:_peek(i)
  return self.store[i]
end

-- ---- PriorityQueue --------------------------------------------------------------------------------------------------

--- A Queue that gives out the least item: compared by `<`, arrays without an order of their own by their first element;
--- of equal ones, that which was put in first.
---@class aloop.PriorityQueue: aloop.Queue
---@overload fun(maxsize?: number): aloop.PriorityQueue
local PriorityQueue = Queue:extend("PriorityQueue")
queues.PriorityQueue = PriorityQueue

-- The store is a binary heap, kept in three arrays: what each item is compared by, when it came, and the item itself.
function PriorityQueue:_init()
  self.store, self.keys, self.numbers, self.number = {}, {}, {}, 0
end

local function has_order(value)
  local metatable = debug.getmetatable(value)
  return type(metatable) == "table" and metatable.__lt ~= nil
end

local function key_of(item)
  if type(item) ~= "table" or has_order(item) then return item end
  return item[1]
end

local function is_plain(kind)
  return kind == "number" or kind == "string"
end

-- Refuses in Lua's words what `<` would refuse, but with the script's line.
local function check_order(a, b)
  local kind = type(a)
  if is_plain(kind) and type(b) == kind or has_order(a) or has_order(b) then return end
  local name, other = check.typename(a), check.typename(b)
  check.fail("attempt to compare " .. (name == other and ("two %s values"):format(name) or name .. " with " .. other))
end

-- Both compare first and move items afterwards, so that a comparison that fails changes nothing.
function PriorityQueue:_put(item)
  local store, keys, numbers = self.store, self.keys, self.numbers
  local key, number, place = key_of(item), self.number + 1, #store + 1
  local kind = type(key)
  local plain = is_plain(kind)
  if place == 1 then check_order(key, key) end -- what can't be compared is refused at once
  while place > 1 do
    local other = keys[place // 2]
    if not plain or type(other) ~= kind then check_order(key, other) end
    if not (key < other) then break end -- luacheck: ignore 581 (equal ones came before; NaN stays where it is)
    place = place // 2
  end
  local at = #store + 1
  while at > place do
    local parent = at // 2
    store[at], keys[at], numbers[at] = store[parent], keys[parent], numbers[parent]
    at = parent
  end
  store[place], keys[place], numbers[place], self.number = item, key, number, number
end

-- Where the last of n + 1 belongs once the first is gone. That is most often far down: the way goes down along the
-- lesser children, then up again.
local function find_place(keys, numbers, n)
  local place, child = 1, 2
  while child <= n do
    if child < n then
      local key, other = keys[child], keys[child + 1]
      if other < key or numbers[child + 1] < numbers[child] and not (key < other) then -- luacheck: ignore 581
        child = child + 1
      end
    end
    place, child = child, 2 * child
  end
  local key, number = keys[n + 1], numbers[n + 1]
  while place > 1 do
    local other = keys[place]
    if other < key or number > numbers[place] and not (key < other) then break end -- luacheck: ignore 581
    place = place // 2
  end
  return place
end

function PriorityQueue:_get()
  local store, keys, numbers = self.store, self.keys, self.numbers
  local last = #store
  local at = find_place(keys, numbers, last - 1)
  local item, key, number = store[last], keys[last], numbers[last]
  store[last], keys[last], numbers[last] = nil, nil, nil
  if last == 1 then return item end
  while at > 0 do -- up to the root, which drops out
    store[at], item = item, store[at]
    keys[at], key = key, keys[at]
    numbers[at], number = number, numbers[at]
    at = at // 2
  end
  return item
end

function PriorityQueue:_peek(i)
  return self.store[i]
end

return queues
