-- executors.lua: what of executors and concurrent futures is not the bindings': waiting for one in a task, map,
-- shutdown, the end of a loop's default executor. Works with every executor whose submit gives a
-- ConcurrentFuture or a Future.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"
local tasks = require "aloop.tasks"

--- Runs functions elsewhere. They travel by value, with their upvalues and arguments, and so do results and errors:
--- what can't travel (userdata, coroutines, tables with a metatable) is refused with a ValueError that names the way
--- to it.
--- `local pool <close> = ...` shuts down at the end of the block.
---@class aloop.Executor
---@field submit fun(self: aloop.Executor, func: function, ...: any): aloop.ConcurrentFuture
---@field map fun(self: aloop.Executor, func: function, ...: table): function
---@field shutdown fun(self: aloop.Executor, wait?: boolean, options?: {cancel_futures: boolean?})

--- Each worker is a process of this interpreter, with a Lua state of its own; as many as there are CPUs unless
--- max_workers says otherwise. They are started when jobs need them, inherit environment, directory, stdout and stderr,
--- and end with the pool or its process. If one is lost, be it by os.exit in a job, all jobs fail with
--- BrokenProcessPool, and no more are taken. executable names the interpreter where this program is none, because it
--- embeds aloop. initializer(initargs...) is called once in each worker, before its first job.
---@class aloop.ProcessPoolExecutor: aloop.Executor
---@overload fun(options?: {max_workers: integer?, initializer: function?, initargs: any[]?, executable: string?})

--- Each worker is a thread with a Lua state of its own: min(32, CPUs + 4) of them at most, unless max_workers says
--- otherwise. They are started when jobs need them and used again; package.path and cpath are those of this state. If
--- initializer(initargs...), which is called once in each worker, fails, all jobs fail with BrokenThreadPool.
---@class aloop.ThreadPoolExecutor: aloop.Executor
---@overload fun(options?: aloop.ThreadPoolOptions)

---@class aloop.ThreadPoolOptions
---@field max_workers? integer
---@field initializer? function
---@field initargs? any[]
---@field thread_name_prefix? string

--- The same, as Python names it.
---@class aloop.InterpreterPoolExecutor: aloop.ThreadPoolExecutor

--- What became, or will become, of a function elsewhere. Whoever waits in a task lets others go on; elsewhere the
--- thread sleeps. `await`, gather and the like cancel it if they are cancelled; result and exception don't.
---@class aloop.ConcurrentFuture
---@field result fun(self: aloop.ConcurrentFuture, timeout?: number): any ...
---@field exception fun(self: aloop.ConcurrentFuture, timeout?: number): any, boolean
---@field await fun(self: aloop.ConcurrentFuture): any ...
---@field done fun(self: aloop.ConcurrentFuture): boolean
---@field running fun(self: aloop.ConcurrentFuture): boolean
---@field cancelled fun(self: aloop.ConcurrentFuture): boolean
---@field cancel fun(self: aloop.ConcurrentFuture): boolean
---@field add_done_callback fun(self: aloop.ConcurrentFuture, f: fun(future: aloop.ConcurrentFuture))
---@field set_running_or_notify_cancel fun(self: aloop.ConcurrentFuture): boolean for executors
---@field set_result fun(self: aloop.ConcurrentFuture, ...: any) for executors
---@field set_exception fun(self: aloop.ConcurrentFuture, err: any) for executors

--- A loop as another thread's state has it. Functions given to it travel back by value.
---@class aloop.RemoteLoop
---@field call_soon_threadsafe fun(self: aloop.RemoteLoop, f: function, ...: any)
---@field run_coroutine_threadsafe fun(self: aloop.RemoteLoop, coro: function): aloop.ConcurrentFuture

local executors = {}

-- ---- waiting --------------------------------------------------------------------------------------------------------

--- In a task: returns when the ConcurrentFuture is done, or the time is up.
---@param future aloop.ConcurrentFuture
---@param timeout? number
function executors.wait(future, timeout)
  local latch = core.latch(future)
  if timeout == nil then return latch:await() end
  local _ <close> = setmetatable({}, { __close = function() latch:cancel() end })
  tasks.wait({ latch }, { timeout = timeout })
end

-- ---- map ------------------------------------------------------------------------------------------------------------

-- The arguments of the nth call: the nth item of each list; nil if one of them has none.
local function nth(lists, n)
  local args = {}
  for i, list in ipairs(lists) do
    local value = list[n]
    if value == nil then return nil end
    args[i] = value
  end
  return args
end

-- A Future of a loop is awaited; for a ConcurrentFuture, result() does what can be done here.
local function result(future)
  if core.isinstance(future, core.Future) then return future:await() end
  return future:result()
end

local function first_not_nil(n, value, ...)
  if value == nil then
    local text = "'map': call #%d returned nil, which would end the loop over the results"
    error(core.ValueError(text:format(n)), 0)
  end
  return value, ...
end

--- Calls func for the first items of the lists, for the second ones, ..., at the same time, and returns an iterator of
--- the results, in order. Waiting for one suspends a task, and blocks elsewhere. Those that are not begun when the loop
--- is left are cancelled.
---@param func function
---@param ... table
---@return function
function executors.map(self, func, ...)
  check.callable(1, "map", func)
  local lists = table.pack(...)
  for i = 1, math.max(lists.n, 1) do
    if type(lists[i]) ~= "table" then check.bad_argument(i + 1, "map", "array", lists[i]) end
  end
  local futures, n = {}, 0
  local cancel = setmetatable({}, {
    __close = function()
      for i = n + 1, #futures do futures[i]:cancel() end
    end,
  })
  local args = nth(lists, 1)
  while args do
    futures[#futures + 1] = self:submit(func, table.unpack(args))
    args = nth(lists, #futures + 1)
  end
  local function next_result()
    if n == #futures then return nil end
    n = n + 1
    local future = futures[n]
    futures[n] = false
    return first_not_nil(n, result(future))
  end
  return next_result, nil, nil, cancel
end

-- ---- shutdown -------------------------------------------------------------------------------------------------------

--- No more jobs are taken. With wait (the default) it returns when all are done and the threads have ended: it suspends
--- a task, and blocks elsewhere. cancel_futures: those that have not begun are cancelled.
---@param wait? boolean
---@param options? {cancel_futures: boolean?}
function executors.shutdown(self, wait, options, ...)
  if wait ~= nil and type(wait) ~= "boolean" then check.bad_argument(1, "shutdown", "boolean", wait) end
  options = check.options(2, "shutdown", options, { cancel_futures = "boolean" }, ...)
  local ended = core.pool_shutdown(self, options.cancel_futures)
  if wait ~= false then
    ended:result()
    core.join_pools()
  end
end

-- ---- loops ----------------------------------------------------------------------------------------------------------

local NOT_JOINED = "The executor did not finishing joining its threads within %s seconds."

--- Shuts the default executor of a loop down and waits until its threads have ended; at most for timeout seconds.
---@param executor aloop.ThreadPoolExecutor
---@param timeout? number
function executors.end_executor(executor, timeout)
  local ended = core.pool_shutdown(executor)
  executors.wait(ended, timeout)
  if ended:done() then
    core.join_pools()
  else
    core.warn(NOT_JOINED:format(timeout), "RuntimeWarning")
  end
end

return executors
