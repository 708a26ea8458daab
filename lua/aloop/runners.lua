-- runners.lua: running a main coroutine from start to clean end: aloop.run, Runner, and what the bindings do when a
-- main chunk is over (shut_down). A runner has one loop for all that it runs.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"
local events = require "aloop.events"
local interrupts = require "aloop.interrupts"

local is_interrupt = interrupts.is_interrupt

local runners = {}

local THREAD_JOIN_TIMEOUT = 300 -- seconds

-- Lets the loop run until the task is done, whatever becomes of it.
local function run_until_done(loop, task)
  if task:done() then return end
  local ok, err = pcall(loop.run_until_complete, loop, task)
  if not ok and (not task:done() or is_interrupt(err)) then error(err, 0) end
end

-- Cancels what is left of tasks and waits for it; errors that this brings up are reported, for nobody else will.
local function cancel_all_tasks(loop)
  local tasks = core.all_tasks(loop)
  if #tasks == 0 then return end
  for _, task in ipairs(tasks) do
    task:cancel()
  end
  for _, task in ipairs(tasks) do
    run_until_done(loop, task)
  end
  for _, task in ipairs(tasks) do
    if not task:cancelled() then
      local err, failed = task:exception()
      if failed then
        loop:call_exception_handler {
          message = "unhandled exception during aloop.run() shutdown",
          exception = err,
          task = task,
        }
      end
    end
  end
end

-- The traceback of the error which ends a run, if it is no aloop error, is remembered until the next one, which the
-- end may bring: closing this brings it back.
local function keep_traceback()
  local value, traceback = core.last_traceback()
  return setmetatable({}, {
    __close = function(_, err)
      if traceback and err == nil then core.set_traceback(value, traceback) end
    end,
  })
end

--- Ends a loop that doesn't run: cancels and awaits its tasks, closes its asynchronous generators, then the loop
--- itself, even if any of that fails.
---@param loop aloop.EventLoop
---@param forget? fun(loop: aloop.EventLoop) called before the loop is closed
function runners.shut_down(loop, forget)
  local _ <close> = keep_traceback()
  local _ <close> = loop
  local _ <close> = setmetatable({}, { __close = function() (forget or events.forget)(loop) end })
  cancel_all_tasks(loop)
  loop:run_until_complete(function() loop:shutdown_asyncgens() end)
  loop:run_until_complete(function() loop:shutdown_default_executor(THREAD_JOIN_TIMEOUT) end)
end

--- Runs coroutines one after the other on one loop, which it makes at the first and closes at `close()` or `<close>`.
---@class aloop.Runner
---@field private loop? aloop.EventLoop
local Runner = core.Object:extend("Runner")
runners.Runner = Runner

local runner_options = { debug = "boolean", loop_factory = "function" }

---@param options? {debug: boolean?, loop_factory: (fun(): aloop.EventLoop)?}
function Runner:init(options, ...)
  options = check.options(1, "Runner", options, runner_options, ...)
  self.debug, self.loop_factory = options.debug, options.loop_factory
end

-- A loop that the runner may have: the factory may give anything.
local function made_by(factory)
  local loop = factory()
  if core.isinstance(loop, core.AbstractEventLoop) then return loop end
  local text = "'Runner': loop_factory gave no event loop (AbstractEventLoop expected, got %s)"
  error(core.RuntimeError(text:format(check.typename(loop))), 0)
end

--- The runner's loop.
---@return aloop.EventLoop
function Runner:get_loop()
  if self.closed then error(core.RuntimeError("Runner is closed")) end
  if self.loop then return self.loop end
  self.loop = made_by(self.loop_factory or events.new_event_loop)
  if not self.loop_factory then
    events.set_event_loop(self.loop)
    self.is_set = true
  end
  if self.debug ~= nil then self.loop:set_debug(self.debug) end
  self.context = core.copy_context()
  return self.loop
end

-- Any awaitable as something that a task can be made of.
local function as_coroutine(main)
  if core.isinstance(main, core.Future) or not check.is_callable(main) and type(main) ~= "thread" then
    return function() return core.await(main) end
  end
  return main
end

-- SIGINT cancels the task, once; a second one raises KeyboardInterrupt in whatever runs.
local function cancel_at_sigint(loop, task)
  return core.take_sigint(loop, function(count)
    if count > 1 or task:done() then return false end
    task:cancel()
    return true
  end)
end

--- Runs a coroutine as a task and returns its results, or raises its error.
---@param coro function|thread|aloop.Future
---@param options? {context: aloop.Context?}
---@return any ...
function Runner:run(coro, options, ...)
  check.awaitable(1, "run", coro)
  options = check.options(2, "run", options, { context = true }, ...)
  if core.running_loop_or_nil() then
    error(core.RuntimeError("Runner:run() cannot be called from a running event loop"))
  end
  local loop = self:get_loop()
  local task = loop:create_task(as_coroutine(coro), { context = options.context or self.context })
  local sigint <close> = cancel_at_sigint(loop, task)
  local outcome = table.pack(pcall(loop.run_until_complete, loop, task))
  if outcome[1] then return table.unpack(outcome, 2, outcome.n) end
  local err = outcome[2]
  if core.isinstance(err, core.CancelledError) and core.sigint_count(sigint) > 0 and task:uncancel() == 0 then
    err = interrupts.of_cancelled(err)
  end
  error(err, 0)
end

--- Cancels and awaits what the runs have left behind, and closes the loop.
function Runner:close()
  if self.closed then return end
  local loop = self.loop
  self.closed, self.loop = true, nil
  if loop then runners.shut_down(loop, self.is_set and function() events.set_event_loop(nil) end) end
end
Runner.__close = Runner.close

--- Runs a coroutine on a loop of its own, which is closed at the end, and returns its results, or raises its error.
---@param main function|thread|aloop.Future
---@param options? {debug: boolean?, loop_factory: (fun(): aloop.EventLoop)?}
---@return any ...
function runners.run(main, options, ...)
  check.awaitable(1, "run", main)
  options = check.options(2, "run", options, runner_options, ...)
  if core.running_loop_or_nil() then
    error(core.RuntimeError("aloop.run() cannot be called from a running event loop"))
  end
  local runner <close> = Runner(options)
  return runner:run(main)
end

return runners
