-- tasks.lua: what waits for several awaitables, or for one in a particular way: gather, wait, wait_for, as_completed,
-- shield. It makes tasks of coroutines and waits for futures through the bindings, which do all stepping and
-- cancelling.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local tasks = {
  FIRST_COMPLETED = "FIRST_COMPLETED",
  FIRST_EXCEPTION = "FIRST_EXCEPTION",
  ALL_COMPLETED = "ALL_COMPLETED",
}

local DIFFERENT_LOOP = "'%s': a future at #%d belongs to a different loop than the running one"
local AWAITS_ITSELF = "'%s': Task cannot await on itself (#%d)"

-- What a waiter is made for: so that who asks hears what a task waits for. `futures` are those that it waits for.
local Several = core.Object:extend("several")

function Several:__tostring()
  local pending = 0
  for _, future in ipairs(self.futures) do
    if not future:done() then pending = pending + 1 end
  end
  return ("<%s of %d, %d pending>"):format(self.what, #self.futures, pending)
end

-- Calls f where its block ends, on every way out.
local function finally(f)
  return setmetatable({}, { __close = f })
end

local function wake(waiter)
  if not waiter:done() then waiter:set_result() end
end

-- The futures of a list without repetitions, which a done callback would count twice.
local function distinct(futures)
  local seen, unique = {}, {}
  for _, future in ipairs(futures) do
    if not seen[future] then
      seen[future] = true
      unique[#unique + 1] = future
    end
  end
  return unique
end

local function remove_callbacks(futures, callback)
  for _, future in ipairs(futures) do future:remove_done_callback(callback) end
end

local function check_list(name, list)
  if type(list) ~= "table" or check.is_awaitable(list) then
    check.bad_argument(1, name, "array of awaitables", list)
  end
end

local function check_timeout(name, option, timeout)
  if timeout == nil then return end
  if timeout ~= timeout then error(core.ValueError(("'%s': %s must not be NaN"):format(name, option)), 0) end
end

-- Refuses the future at #n that belongs to another loop, or is the task that would wait for it.
local function check_future(name, n, future, loop)
  if not core.isinstance(future, core.Future) then return end
  if future:get_loop() ~= loop then error(core.ValueError(DIFFERENT_LOOP:format(name, n)), 0) end
  if future == core.current_task() then error(core.RuntimeError(AWAITS_ITSELF:format(name, n)), 0) end
end

-- Makes futures of awaitables, all of which are looked at first: one that is refused leaves no task behind. A function
-- becomes a task each time it stands there, anything else once.
local function ensure_futures(name, awaitables, n, loop)
  for i = 1, n do
    local value = awaitables[i]
    if not check.is_awaitable(value) then
      local text = "bad argument #%d to '%s' (awaitable expected, got %s; pass the function, don't call it)"
      check.fail(text:format(i, name, check.typename(value)))
    end
    check_future(name, i, value, loop)
  end
  local made, futures = {}, {}
  for i = 1, n do
    local value = awaitables[i]
    local future = made[value] or core.ensure_future(value)
    if type(value) ~= "function" then made[value] = future end
    futures[i] = future
  end
  return futures
end

-- ---- gather ---------------------------------------------------------------------------------------------------------

local Gathering = Several:extend("gather")
Gathering.what = "gather"

-- The cancellation of who waits goes to the children; it comes back when they have ended.
function Gathering:__cancel(message)
  if self.asking then -- tasks gather each other in a circle, which ends here
    self.cancelled, self.message = true, message
    wake(self.outer)
    return true
  end
  self.asking = true
  local asked = false
  for _, child in ipairs(self.futures) do
    if child:cancel(message) then asked = true end
  end
  self.asking = false
  if asked then self.cancelled, self.message = true, message end
  return asked
end

-- An error as a value among results: one that is no error object is wrapped, for it may be nil or look like a result.
local function as_error(err, traceback)
  if core.isinstance(err, core.BaseError) then return err end
  local text = type(err) == "string" and err or ("(error object is a %s value)"):format(check.typename(err))
  local wrapped = core.Error(text)
  wrapped.value, wrapped.traceback = err, traceback
  return wrapped
end
tasks.as_error = as_error

local function result_or_error(future)
  if core.outcome(future) == "failed" then return as_error(core.take_error(future)) end
  local _, value = pcall(future.result, future) -- or the CancelledError
  return value
end

-- Waits for the futures; those that failed first end the waiting, unless errors are wanted as results.
local function wait_for_all(futures, return_exceptions)
  local children = distinct(futures)
  local self = setmetatable({ futures = children }, Gathering)
  local outer = core.gathering(self)
  self.outer = outer
  local left = #children
  local function on_done(child)
    left = left - 1
    if outer:done() then return end
    local outcome = core.outcome(child)
    if not return_exceptions and outcome ~= "finished" then
      outer:set_result(child)
    elseif left == 0 then
      outer:set_result()
    end
  end
  local _ <close> = finally(function()
    if left > 0 then remove_callbacks(children, on_done) end
  end)
  local done = {}
  for _, child in ipairs(children) do
    if child:done() then done[#done + 1] = child else child:add_done_callback(on_done) end
  end
  for _, child in ipairs(done) do on_done(child) end -- if that is all, nothing has to be waited for
  local failed = outer:await()
  if failed then failed:await() end -- raises its error
  if self.cancelled then error(core.CancelledError(self.message), 0) end
end

local function is_plain_table(value)
  return type(value) == "table" and not check.is_awaitable(value)
end

-- gather(a, b, ..., [options]) or gather({a, b}, [options]) → list, its length, options, what stands behind them
local function gather_arguments(...)
  local list = table.pack(...)
  local first, last, n = list[1], list[list.n], list.n
  if is_plain_table(first) then
    return first, #first, list[2], list[3]
  end
  if n > 0 and is_plain_table(last) then return list, n - 1, last end
  return list, n, nil
end

--- Runs awaitables at the same time and waits for them: one value each, in order. The first error is raised at once,
--- and the others run on; with return_exceptions errors are results. Cancelled, it cancels them all.
--- `gather(a, b, …)` or `gather({ a, b }, { return_exceptions = true })`.
---@param ... any
---@return any ...
function tasks.gather(...)
  local loop = core.waiting_loop("gather")
  local list, n, options, behind = gather_arguments(...)
  options = check.options(2, "gather", options, { return_exceptions = "boolean" }, behind)
  local futures = ensure_futures("gather", list, n, loop)
  if n == 0 then return end
  wait_for_all(futures, options.return_exceptions)
  local values = {}
  for i = 1, n do
    values[i] = result_or_error(futures[i])
  end
  return table.unpack(values, 1, n)
end

-- ---- wait -----------------------------------------------------------------------------------------------------------

local function check_futures(list, loop)
  check_list("wait", list)
  if #list == 0 then error(core.ValueError("'wait': Set of Tasks/Futures is empty."), 0) end
  for i = 1, #list do
    if not core.isinstance(list[i], core.Future) then
      local text = "bad argument #1 to 'wait' (Future expected at #%d, got %s; make tasks of coroutines)"
      check.fail(text:format(i, check.typename(list[i])))
    end
    check_future("wait", i, list[i], loop)
  end
end

--- Waits for futures: for one, for all, or for the first that fails. A timeout is no error, and cancels nothing.
---@param list aloop.Future[]
---@param options? {timeout: number?, return_when: string?}
---@return aloop.Future[] done
---@return aloop.Future[] pending
function tasks.wait(list, options, ...)
  local loop = core.waiting_loop("wait")
  check_futures(list, loop)
  options = check.options(2, "wait", options, { timeout = "number", return_when = true }, ...)
  local when = options.return_when or tasks.ALL_COMPLETED
  if not (type(when) == "string" and tasks[when] == when) then
    error(core.ValueError("'wait': Invalid return_when value: " .. tostring(when)), 0)
  end
  check_timeout("wait", "timeout", options.timeout)

  local futures = distinct(list)
  local waiter = core.waiter(setmetatable({ what = "wait", futures = futures }, Several))
  local left = #futures
  local function on_done(future)
    left = left - 1
    if left == 0 or when == tasks.FIRST_COMPLETED
      or when == tasks.FIRST_EXCEPTION and core.outcome(future) == "failed" then
      wake(waiter)
    end
  end
  do
    local timer = options.timeout and loop:call_later(options.timeout, wake, waiter)
    local _ <close> = finally(function()
      if timer then timer:cancel() end
      remove_callbacks(futures, on_done)
    end)
    for _, future in ipairs(futures) do future:add_done_callback(on_done) end
    waiter:await()
  end

  local done, pending = {}, {}
  for _, future in ipairs(futures) do
    local where = future:done() and done or pending
    where[#where + 1] = future
  end
  return done, pending
end

-- ---- wait_for -------------------------------------------------------------------------------------------------------

-- Cancels a future and waits until it has ended; what it ends with is not looked at.
local function cancel_and_wait(future)
  local waiter = core.waiter(setmetatable({ what = "wait_for", futures = { future } }, Several))
  local function on_done() wake(waiter) end
  local _ <close> = finally(function() future:remove_done_callback(on_done) end)
  future:add_done_callback(on_done)
  future:cancel()
  waiter:await()
end

local function cancel_late(awaitable)
  local future = core.ensure_future(awaitable)
  if future:done() then return future:await() end
  check_future("wait_for", 1, future, core.waiting_loop("wait_for"))
  cancel_and_wait(future)
  if not future:cancelled() then return future:await() end
  local _, cancelled = pcall(future.result, future)
  error(core.TimeoutError(nil, { cause = cancelled }), 0)
end

--- Waits for an awaitable, in this task, but not longer than timeout seconds (nil: for ever): then it is cancelled, and
--- when it has ended TimeoutError is raised. What it returns or raises instead of ending by the cancellation counts.
---@param awaitable any
---@param timeout? number
---@return any ...
function tasks.wait_for(awaitable, timeout)
  core.waiting_loop("wait_for")
  check.awaitable(1, "wait_for", awaitable)
  if timeout ~= nil and type(timeout) ~= "number" then check.bad_argument(2, "wait_for", "number", timeout) end
  check_timeout("wait_for", "timeout", timeout)
  if timeout and timeout <= 0 then return cancel_late(awaitable) end
  local _ <close> = core.timeout(timeout)
  return core.await(awaitable)
end

-- ---- as_completed ---------------------------------------------------------------------------------------------------

local Completed = Several:extend("as_completed")
Completed.what = "as_completed"

-- Ends the wait of all that wait; each looks for itself what has come.
function Completed:wake()
  local waiters = self.waiters
  self.waiters = {}
  for _, waiter in ipairs(waiters) do wake(waiter) end
end

function Completed:close()
  if self.timer then self.timer:cancel() end
  if self.left > 0 then remove_callbacks(self.futures, self.on_done) end
end
Completed.__close = Completed.close

function Completed:next()
  while self.handed == #self.done do
    if self.handed == #self.futures then return nil end
    if self.expired then error(core.TimeoutError(), 0) end
    core.waiting_loop("as_completed")
    local waiter = core.waiter(self)
    self.waiters[#self.waiters + 1] = waiter
    waiter:await()
  end
  self.handed = self.handed + 1
  return self.done[self.handed]
end

--- `for future in aloop.as_completed(list, { timeout = 5 }) do local value = future:await() … end`: the futures (tasks
--- of what were coroutines) as they end; the loop waits for the next one. Raises TimeoutError once the time is up.
---@param list any[] awaitables
---@param options? {timeout: number?}
---@return fun(): aloop.Future?
function tasks.as_completed(list, options, ...)
  local loop = core.waiting_loop("as_completed")
  check_list("as_completed", list)
  options = check.options(2, "as_completed", options, { timeout = "number" }, ...)
  check_timeout("as_completed", "timeout", options.timeout)
  local futures = distinct(ensure_futures("as_completed", list, #list, loop))
  local self = setmetatable({ futures = futures, done = {}, waiters = {}, handed = 0, left = #futures }, Completed)
  function self.on_done(future)
    self.left = self.left - 1
    self.done[#self.done + 1] = future
    if self.left == 0 and self.timer then self.timer:cancel() end
    self:wake()
  end
  if options.timeout and #futures > 0 then
    self.timer = loop:call_later(options.timeout, function()
      self.expired = true
      remove_callbacks(futures, self.on_done)
      self:wake()
    end)
  end
  for _, future in ipairs(futures) do future:add_done_callback(self.on_done) end
  return function() return self:next() end, nil, nil, self
end

-- ---- shield ---------------------------------------------------------------------------------------------------------

-- An error that nobody takes, for who waited was cancelled.
local function report_unread(inner)
  local _, unread = core.outcome(inner)
  if not unread then return end
  local err = inner:exception()
  local class = core.isinstance(err, core.BaseError) and check.typename(err) or "An"
  inner:get_loop():call_exception_handler {
    message = class .. (class == "An" and " error" or " exception") .. " in shielded future",
    exception = err,
    future = inner,
  }
end

-- Who waits for it besides has had its turn by then.
local function report_later(inner) inner:get_loop():call_soon(report_unread, inner) end

-- Leaves one callback behind, however many have waited for it and were cancelled.
local function let_go(inner, callback)
  if inner:done() then return report_later(inner) end
  inner:remove_done_callback(callback)
  inner:remove_done_callback(report_later)
  inner:add_done_callback(report_later)
end

--- Waits for an awaitable, which runs on if the waiting task is cancelled. Its error is then reported.
---@param awaitable any
---@return any ...
function tasks.shield(awaitable)
  local loop = core.waiting_loop("shield")
  check.awaitable(1, "shield", awaitable)
  local inner = core.ensure_future(awaitable)
  if inner:done() then return inner:await() end
  check_future("shield", 1, inner, loop)
  local outer = core.waiter(setmetatable({ what = "shield", futures = { inner } }, Several))
  local function on_done() wake(outer) end
  inner:add_done_callback(on_done)
  do
    local waited = false
    local _ <close> = finally(function()
      if not waited then let_go(inner, on_done) end
    end)
    outer:await()
    waited = true
  end
  return inner:await()
end

return tasks
