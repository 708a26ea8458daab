-- locks.lua: Lock, Event, Condition, Semaphore, BoundedSemaphore and Barrier, with asyncio's rules: first come, first
-- served; a task that is cancelled when it has just been woken hands its turn to the next. For tasks of one loop, not
-- for threads.
--
-- Those who wait stand in a list of the bindings (core.wait_list). wait(list) returns nothing once the task is woken,
-- or the CancelledError that is to be raised, and whether the task had been woken before: then it has a turn to hand
-- on. A task leaves the list when it is woken; `woken` counts those that have not gone on yet.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local wait_list = core.wait_list
local check_wait, wait, wake, count, rethrow =
  wait_list.check, wait_list.wait, wait_list.wake, wait_list.count, wait_list.rethrow

local locks = {}

local function misuse(text)
  error(core.RuntimeError(text))
end

-- <Lock at 0x5581 [locked, waiters:2]>
local function show(self, state, n_waiting)
  if n_waiting > 0 then state = ("%s, waiters:%d"):format(state, n_waiting) end
  return ("<%s at %p [%s]>"):format(check.typename(self), self, state)
end

-- ---- guards ---------------------------------------------------------------------------------------------------------

--- What acquire() returns: a true value that releases once, at release() or `<close>`.
---@class aloop.Guard
---@field private owner? aloop.Lock|aloop.Semaphore
local Guard = { __name = "Guard" }
Guard.__index = Guard

--- Releases now; `<close>` then does nothing.
function Guard:release()
  local owner = self.owner
  if not owner then misuse("release(): the guard has released already") end
  self.owner = nil
  owner:release()
end

function Guard:__close()
  if self.owner then self:release() end
end

function Guard:__tostring()
  return self.owner and ("<Guard of %s>"):format(self.owner) or "<Guard released>"
end

-- To be made before anything is taken: without memory it raises.
local function guard_of(owner)
  return setmetatable({ owner = owner }, Guard)
end

-- ---- Lock -----------------------------------------------------------------------------------------------------------

--- A mutual exclusion lock for tasks. `local guard <close> = lock:acquire()` holds it to the end of the block.
---@class aloop.Lock
---@overload fun(): aloop.Lock
local Lock = core.Object:extend("Lock")
locks.Lock = Lock

function Lock:init()
  self.held, self.woken = false, 0
  self.waiters = wait_list.new(self)
end

function Lock:__tostring()
  return show(self, self.held and "locked" or "unlocked", count(self.waiters) + self.woken)
end

--- Whether somebody holds it.
---@return boolean
function Lock:locked()
  return self.held
end

-- One at a time is under way: who has been woken wakes the next, by release() or here.
local function wake_first(self)
  if self.woken == 0 then self.woken = wake(self.waiters) end
end

--- Waits until the lock is free and takes it. Async.
---@return aloop.Guard guard releases it on <close>
function Lock:acquire()
  check_wait("acquire")
  local guard = guard_of(self)
  if self.held or self.woken > 0 then
    local cancelled, woken = wait(self.waiters)
    if woken or not cancelled then self.woken = self.woken - 1 end
    if cancelled then
      if not self.held then wake_first(self) end
      rethrow(cancelled)
    end
  end
  self.held = true
  return guard
end

--- Lets go of it: of the tasks that wait, the first goes on. Prefer the guard of acquire().
function Lock:release()
  if not self.held then misuse("release(): Lock is not acquired.") end
  self.held = false
  wake_first(self)
end

-- ---- Event ----------------------------------------------------------------------------------------------------------

--- A flag that tasks wait for.
---@class aloop.Event
---@overload fun(): aloop.Event
local Event = core.Object:extend("Event")
locks.Event = Event

function Event:init()
  self.value, self.woken = false, 0
  self.waiters = wait_list.new(self)
end

function Event:__tostring()
  return show(self, self.value and "set" or "unset", count(self.waiters) + self.woken)
end

---@return boolean
function Event:is_set()
  return self.value
end

--- Sets the flag; all that wait for it go on, even if it is cleared before their turn comes.
function Event:set()
  if self.value then return end
  self.value = true
  self.woken = self.woken + wake(self.waiters, math.huge)
end

--- Unsets the flag.
function Event:clear()
  self.value = false
end

--- Waits until the flag is set. Async.
---@return true
function Event:wait()
  check_wait("wait")
  if not self.value then
    local cancelled, woken = wait(self.waiters)
    if woken or not cancelled then self.woken = self.woken - 1 end
    if cancelled then rethrow(cancelled) end
  end
  return true
end

-- ---- Condition ------------------------------------------------------------------------------------------------------

--- A lock together with the tasks that wait for a change of what it protects.
---@class aloop.Condition
---@overload fun(lock?: aloop.Lock): aloop.Condition
local Condition = core.Object:extend("Condition")
locks.Condition = Condition

local function is_lock(value)
  if core.isinstance(value, Lock) then return true end
  if type(value) ~= "table" then return false end
  return check.is_callable(value.acquire) and check.is_callable(value.release) and check.is_callable(value.locked)
end

---@param lock? aloop.Lock shared with others; by default one of its own
function Condition:init(lock)
  if lock ~= nil and not is_lock(lock) then check.bad_argument(1, "Condition", "Lock", lock) end
  self.lock = lock or Lock()
  self.woken = 0
  self.waiters = wait_list.new(self)
end

function Condition:__tostring()
  return show(self, self:locked() and "locked" or "unlocked", count(self.waiters) + self.woken)
end

--- Takes the lock. Async.
---@return aloop.Guard guard survives wait(), and releases the lock on <close>
function Condition:acquire()
  return self.lock:acquire()
end

--- Gives the lock back. Prefer the guard of acquire().
function Condition:release()
  self.lock:release()
end

---@return boolean
function Condition:locked()
  return self.lock:locked()
end

local function notify(self, n)
  self.woken = self.woken + wake(self.waiters, n)
end

-- Takes the lock again, however often the task is cancelled meanwhile. Returns the last of these cancellations, or the
-- error for which the lock can't be had, and whether it is held.
local function reacquire(lock)
  local cancelled
  while true do
    local ok, err = pcall(lock.acquire, lock)
    if ok then return cancelled end
    if not core.isinstance(err, core.CancelledError) then return err end
    cancelled = err
  end
end

--- Releases the lock, waits until notified, and takes the lock again, even if the task is cancelled. It may also return
--- without a notification, so look again at what you wait for; or use wait_for. Async.
---@return true
function Condition:wait()
  check_wait("wait")
  if not self:locked() then misuse("wait(): cannot wait on un-acquired lock") end
  wait_list.bind(self.waiters)
  self:release()
  local cancelled, woken = wait(self.waiters)
  if woken or not cancelled then self.woken = self.woken - 1 end
  local err = reacquire(self.lock) or cancelled
  if not err then return true end
  notify(self, 1) -- a notification may have been meant for this task: somebody else shall look
  rethrow(err)
end

--- Waits until predicate() is true. Async.
---@generic T
---@param predicate fun(): T
---@return T value what it returned
function Condition:wait_for(predicate)
  check.callable(1, "wait_for", predicate)
  check_wait("wait_for")
  local value = predicate()
  while not value do
    self:wait()
    value = predicate()
  end
  return value
end

--- Wakes the n tasks that have waited longest. They go on once the caller has released the lock.
---@param n? integer default 1
function Condition:notify(n)
  if n == nil then n = 1 end
  if type(n) ~= "number" then check.bad_argument(1, "notify", "number", n) end
  if not self:locked() then misuse("notify(): cannot notify on un-acquired lock") end
  notify(self, n)
end

--- Wakes all tasks that wait.
function Condition:notify_all()
  if not self:locked() then misuse("notify_all(): cannot notify on un-acquired lock") end
  notify(self, math.huge)
end

-- ---- Semaphore ------------------------------------------------------------------------------------------------------

--- A counter that acquire() takes from, and waits for while it is 0.
---@class aloop.Semaphore
---@overload fun(value?: integer): aloop.Semaphore
local Semaphore = core.Object:extend("Semaphore")
locks.Semaphore = Semaphore

---@param value? integer default 1
function Semaphore:init(value)
  if value == nil then value = 1 end
  if type(value) ~= "number" then check.bad_argument(1, check.typename(self), "number", value) end
  if value < 0 or value ~= value then error(core.ValueError(check.typename(self) .. " initial value must be >= 0")) end
  self.value, self.woken = value, 0
  self.waiters = wait_list.new(self)
end

function Semaphore:__tostring()
  local state = self:locked() and "locked" or ("unlocked, value:%s"):format(self.value)
  return show(self, state, count(self.waiters) + self.woken)
end

--- Whether acquire() would wait: the counter is 0, or others have to go on first.
---@return boolean
function Semaphore:locked()
  return self.value <= 0 or self.woken > 0
end

-- Who is woken has its share of the counter already.
local function wake_next(self)
  local n = wake(self.waiters)
  self.value, self.woken = self.value - n, self.woken + n
  return n > 0
end

--- Takes one from the counter, waiting while it is 0. Async.
---@return aloop.Guard guard gives it back on <close>
function Semaphore:acquire()
  check_wait("acquire")
  local guard = guard_of(self)
  if not self:locked() then
    self.value = self.value - 1
    return guard
  end
  local cancelled, woken = wait(self.waiters)
  if woken or not cancelled then self.woken = self.woken - 1 end
  if woken then self.value = self.value + 1 end
  while self.value > 0 and wake_next(self) do end -- also those who came later and had to wait behind this one
  if cancelled then rethrow(cancelled) end
  return guard
end

--- Gives one back: of the tasks that wait, the first goes on. Prefer the guard of acquire().
function Semaphore:release()
  self.value = self.value + 1
  wake_next(self)
end

--- A Semaphore whose counter may not grow beyond its first value.
---@class aloop.BoundedSemaphore: aloop.Semaphore
---@overload fun(value?: integer): aloop.BoundedSemaphore
local BoundedSemaphore = Semaphore:extend("BoundedSemaphore")
locks.BoundedSemaphore = BoundedSemaphore

---@param value? integer default 1
function BoundedSemaphore:init(value)
  Semaphore.init(self, value)
  self.bound = self.value
end

--- As Semaphore's, but raises ValueError if the counter is at its first value.
function BoundedSemaphore:release()
  if self.value >= self.bound then
    error(core.ValueError("release(): BoundedSemaphore released too many times"))
  end
  Semaphore.release(self)
end

-- ---- Barrier --------------------------------------------------------------------------------------------------------

--- Lets a number of tasks wait for each other. `if barrier:wait() == 0 then ... end` is a block that one of them runs.
---@class aloop.Barrier
---@field parties integer how many tasks it takes
---@field n_waiting integer how many wait now
---@field broken boolean
---@overload fun(parties: integer): aloop.Barrier
local Barrier = core.Object:extend("Barrier")
locks.Barrier = Barrier

-- n_waiting and broken are for others to read; what is gone by here are state and count.
local function enter_state(self, state, n)
  self.state, self.count = state, n
  self.n_waiting, self.broken = state == "filling" and n or 0, state == "broken"
end

---@param parties integer
function Barrier:init(parties)
  if type(parties) ~= "number" then check.bad_argument(1, "Barrier", "number", parties) end
  if parties < 1 or parties ~= parties then error(core.ValueError("Barrier: parties must be > 0")) end
  self.parties = parties
  self.condition = Condition()
  enter_state(self, "filling", 0)
end

function Barrier:__tostring()
  local state = self.state
  if not self.broken then state = ("%s, waiters:%s/%s"):format(state, self.n_waiting, self.parties) end
  return show(self, state, 0)
end

-- Waits until those of the last time are gone.
local function wait_for_room(self)
  self.condition:wait_for(function() return self.state ~= "draining" and self.state ~= "resetting" end)
  if self.broken then error(core.BrokenBarrierError("Barrier aborted")) end
end

local function wait_for_others(self)
  self.condition:wait_for(function() return self.state ~= "filling" end)
  if self.state == "broken" or self.state == "resetting" then
    error(core.BrokenBarrierError("Abort or reset of barrier"))
  end
end

-- One goes; the last of all lets in those who wait for room.
local Leaving = {
  __close = function(leaving)
    local self = leaving.barrier
    local left = self.count - 1
    local emptied = left == 0 and (self.state == "resetting" or self.state == "draining")
    enter_state(self, emptied and "filling" or self.state, left)
    if left == 0 then self.condition:notify_all() end
  end,
}

--- Waits until as many tasks wait as the barrier takes; then all go on. BrokenBarrierError if it is reset or aborted
--- meanwhile. Async.
---@return integer index another for each of them, 0 to parties - 1
function Barrier:wait()
  check_wait("wait")
  local _ <close> = self.condition:acquire()
  wait_for_room(self)
  local index = self.count
  enter_state(self, self.state, index + 1)
  local _ <close> = setmetatable({ barrier = self }, Leaving)
  if index + 1 == self.parties then
    enter_state(self, "draining", self.count)
    self.condition:notify_all()
  else
    wait_for_others(self)
  end
  return index
end

--- Empties it: those who wait get a BrokenBarrierError. Async.
function Barrier:reset()
  check_wait("reset")
  local _ <close> = self.condition:acquire()
  enter_state(self, self.count > 0 and "resetting" or "filling", self.count)
  self.condition:notify_all()
end

--- Breaks it: those who wait, and those who will, get a BrokenBarrierError, until it is reset. Async.
function Barrier:abort()
  check_wait("abort")
  local _ <close> = self.condition:acquire()
  enter_state(self, "broken", self.count)
  self.condition:notify_all()
end

return locks
