-- generators.lua: asynchronous generators: coroutines that hand items to a `for` loop and may wait in between. One runs
-- in the task that asks it for an item, as any coroutine of a script's does; what is more is its end, which may wait
-- too, and that the loop knows those that have begun. loop:shutdown_asyncgens() comes here by the bindings
-- (lgenerator.c).
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local generators = {}

local resume = coroutine.resume -- aloop's own: what waits passes through
local next_of, throw_into, raise = core.generator_next, core.generator_throw, core.generator_raise
local check_wait, default_loop, are_shut = core.check_wait, core.default_loop, core.asyncgens_are_shut
local GeneratorExit, isinstance, remember_place = core.GeneratorExit, core.isinstance, core.remember_place

-- What a generator's coroutine gives back first when it has ended; anything else was yielded.
local ENDED = {}

-- loop → set of those that have begun on it and are not closed. Both weak: a forgotten one closes itself.
local open = setmetatable({}, { __mode = "k" })

local begun = 0 -- how many have begun: they are closed in this order

---@class aloop.AsyncGenerator
---@field private func function
---@field private args? table the arguments, until it begins
---@field private co? thread while it has begun and not ended
---@field private loop? aloop.EventLoop on which it began
---@field private number? integer
---@field private closed? boolean
---@field private closer? aloop.Task which closes it because it was forgotten
local AsyncGenerator = core.Object:extend("async_generator")

-- Under a protected call inside the coroutine, for there <close> variables may wait while an error unwinds.
local function body(func, ...)
  return ENDED, xpcall(func, core.add_traceback, ...)
end

-- From its first item on its loop knows it.
local function begin(gen)
  local loop = default_loop()
  if are_shut(loop) then
    local text = "asynchronous generator %s was scheduled after loop:shutdown_asyncgens() call"
    core.warn(text:format(tostring(gen)), "ResourceWarning")
  end
  begun = begun + 1
  gen.number, gen.loop, gen.co = begun, loop, coroutine.create(body)
  local set = open[loop]
  if not set then
    set = setmetatable({}, { __mode = "k" })
    open[loop] = set
  end
  set[gen] = true
end

local function forget(gen)
  gen.closed, gen.co = true, nil
  open[gen.loop][gen] = nil
end

-- The coroutine could not be resumed.
local function refused(gen, what, message)
  if gen.co and coroutine.status(gen.co) == "suspended" then error(message, 0) end
  error(core.RuntimeError(what .. "(): asynchronous generator is already running"))
end

local NIL_ITEM = "an async generator can't yield nil, with which a `for` loop ends"

-- What the coroutine gave back: an item and what came with it, or its end.
local function hand_out(gen, resumed, first, ...)
  if not resumed then refused(gen, "anext", first) end
  if first == nil then return hand_out(gen, throw_into(gen.co, core.ValueError(NIL_ITEM))) end
  if first ~= ENDED then return first, ... end
  forget(gen)
  local ok, err = ...
  if not ok then raise(err) end
  return nil
end

--- The next item, ⧗; nil at the end.
function AsyncGenerator:__call()
  if self.co then return hand_out(self, next_of(self.co)) end
  if self.closed then return nil end
  check_wait("async_generator")
  begin(self)
  local func, args = self.func, self.args
  self.args = nil
  return hand_out(self, resume(self.co, func, table.unpack(args, 1, args.n)))
end

-- An error that ended the cleaning up; the one because of which it was done, if any, is not lost by it.
local function fail(err, reason)
  local chains = reason ~= nil and not rawequal(err, reason) and isinstance(err, core.BaseError)
  if chains and rawget(err, "cause") == nil then err.cause = reason end
  raise(err)
end

local function closed(gen, reason, resumed, first, ok, err)
  if not resumed then refused(gen, "aclose", first) end
  local co = gen.co
  forget(gen)
  if first ~= ENDED then
    local _, why = coroutine.close(co)
    fail(core.RuntimeError("async generator ignored GeneratorExit", { cause = why }), reason)
  elseif not ok and not isinstance(err, GeneratorExit) then
    fail(err, reason)
  end
end

local function close(gen, reason)
  if gen.co then
    local exit = GeneratorExit()
    exit.traceback = "" -- nobody will look, and making one costs more than all the rest
    closed(gen, reason, throw_into(gen.co, exit))
  end
  gen.closed, gen.args = true, nil
end

--- Ends it where it stands: its coroutine.yield raises GeneratorExit, and its <close> variables may wait. ⧗
function AsyncGenerator:aclose()
  check_wait("aclose")
  close(self)
end

-- Where nothing can wait, what its <close> variables wait for fails; it is closed all the same.
AsyncGenerator.__close = close

function AsyncGenerator:__tostring()
  return ("<async_generator %s%s>"):format(core.repr(self.func), core.place_of(self))
end

-- ---- ends that nobody waits for -------------------------------------------------------------------------------------

local function is_interrupt(err)
  return isinstance(err, core.BaseError) and not isinstance(err, core.Error)
end

local function report(gen, err, traceback)
  gen.loop:call_exception_handler {
    message = "an error occurred during closing of asynchronous generator " .. tostring(gen),
    exception = err,
    traceback = traceback or core.traceback_of(err),
    asyncgen = gen,
    source_traceback = core.source_traceback(gen),
  }
end

-- The body of the tasks that close: an error goes to failed(gen, error), cancellations and interrupts are the task's
-- own.
local function close_in_task(gen, failed)
  local ok, err = pcall(close, gen)
  if ok then return end
  if is_interrupt(err) then error(err, 0) end
  failed(gen, err)
end

-- The last chance of one whose loop is closed: without waiting.
local function close_at_once(gen)
  local co = gen.co
  forget(gen)
  local ok, err = coroutine.close(co)
  if not ok then report(gen, err) end
end

local function close_forgotten(gen)
  local co = gen.co
  if not co or coroutine.status(co) ~= "suspended" then return end
  gen.closer = gen.loop:create_task(function() close_in_task(gen, report) end)
end

function AsyncGenerator:__gc()
  if not self.co or coroutine.status(self.co) ~= "suspended" then return end
  local ok = pcall(self.loop.call_soon_threadsafe, self.loop, close_forgotten, self)
  if not ok then pcall(close_at_once, self) end
end

local function open_ones(loop)
  local list = {}
  for gen in pairs(open[loop] or {}) do
    list[#list + 1] = gen
  end
  table.sort(list, function(a, b) return a.number < b.number end)
  return list
end

-- Waits until the tasks are done; when that is cancelled they are cancelled first.
local function wait_for_all(tasks, loop)
  local left, all_done = #tasks, nil
  local function one_done()
    left = left - 1
    if left == 0 and not all_done:done() then all_done:set_result() end
  end
  local function wait()
    all_done = loop:create_future()
    all_done:await()
  end
  for _, task in ipairs(tasks) do
    task:add_done_callback(one_done)
  end
  local ok, err = pcall(wait)
  if ok then return end
  for _, task in ipairs(tasks) do
    task:cancel()
  end
  if left > 0 then wait() end
  error(err, 0)
end

--- Closes all that have begun on the loop, each in a task of its own. For the bindings.
---@param loop aloop.EventLoop
function generators.close_all(loop)
  local list = open_ones(loop)
  if #list == 0 then return end
  local running, tasks, errors = core.get_running_loop(), {}, {}
  local function keep_error(gen, err)
    local traceback = core.traceback_of(err)
    errors[#errors + 1] = function() report(gen, err, traceback) end
  end
  for i, gen in ipairs(list) do
    tasks[i] = gen.closer or running:create_task(function() close_in_task(gen, keep_error) end)
  end
  local ok, err = pcall(wait_for_all, tasks, running)
  for _, report_one in ipairs(errors) do
    report_one()
  end
  if not ok then error(err, 0) end
end

-- ---- making them ----------------------------------------------------------------------------------------------------

--- Makes an asynchronous generator of a function that hands out items by coroutine.yield and may wait. What is returned
--- is called with the function's arguments, in a `for` loop: `for item in counted(3) do … end`. Leaving the loop early
--- closes the generator.
---@param func fun(...: any)
---@return fun(...: any): aloop.AsyncGenerator, nil, nil, aloop.AsyncGenerator
function generators.async_generator(func)
  check.callable(1, "async_generator", func)
  return function(...)
    local gen = setmetatable({ func = func, args = table.pack(...) }, AsyncGenerator)
    remember_place(gen)
    return gen, nil, nil, gen
  end
end

return generators
