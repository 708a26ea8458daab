-- testing.lua: a kit for tests of asynchronous code: loops on virtual time, a check for what a test leaves open. For
-- busted and for any other framework whose tests are functions; aloop's own specs stand on it.
-- SPDX-License-Identifier: MIT
--
-- A test is a function that runs as a task of a loop of its own, made for it and closed after it:
--
-- ```lua
-- local aloop = require "aloop"
-- local testing = require "aloop.testing"
--
-- testing.run(function(loop)
--   local began = loop:time()
--   aloop.sleep(3600)
--   assert(loop:time() - began == 3600) -- after a few microseconds
-- end)
-- ```
--
-- Virtual time. The loop's clock begins at 0 and stands still while there is something to do. When there is nothing, it
-- jumps to the next timer: what takes hours takes no time, and takes the same course each time. Sockets, pipes and
-- children still work: with I/O in flight the loop first waits `patience` seconds (0.001) of real time for something
-- to arrive before it jumps; while a thread works for it (getaddrinfo, executors), time passes no faster than the real
-- one. When nothing is left that could wake a task, not even a timer, the test fails at once and tells who waits where.
--
-- Order. Tasks that can go on at the same time do so in the order in which they were woken. A program shouldn't depend
-- on that: with `seed = 1` (any integer) they go on in an order drawn from that number, and so do timers that are due
-- at the same time. With `seed = true` the number is new each time, and told when the test fails. call_soon keeps its
-- order.
--
-- The leak check. After the test everything must be closed: tasks done, transports, servers, timers, watched
-- descriptors and signals gone, no more descriptors open in the process than before. What was reported to the exception
-- handler, and what was logged as a warning or error, fails the test too, unless the test has taken it:
--
-- ```lua
-- local testing = require "aloop.testing"
--
-- testing.run(function(loop, trial)
--   loop:call_soon(error, "expected")
--   trial:turn()
--   assert(trial:take_error().exception == "expected")
-- end)
-- ```
--
-- With busted: `it` whose body is such a test. Files run by `busted --lua=aloop`, or under plain Lua.
--
-- ```lua
-- local aloop = require "aloop"
-- local testing = require "aloop.testing"
-- local it = testing.it(it)
--
-- describe("a pump", function()
--   it("stops after an hour", function(loop)
--     local running = true
--     loop:call_later(3600, function() running = false end)
--     aloop.sleep(3599)
--     assert.is_true(running)
--     aloop.sleep(1)
--     assert.is_false(running)
--   end)
-- end)
-- ```
--
-- Other frameworks: `testing.case(body, options)` is a function without arguments that runs the test and raises if it
-- fails. Tests that drive the loop themselves, from outside of any task, are run by `testing.drive`:
--
-- ```lua
-- local testing = require "aloop.testing"
--
-- local count = 0
-- local test = testing.case(function(loop, trial)
--   local timer
--   timer = loop:call_later(10, function()
--     count = count + 1
--     timer:reschedule(loop:time() + 10)
--   end)
--   trial:advance(60)
--   timer:cancel()
-- end, { drive = true })
-- test()
-- assert(count == 6)
-- ```

local core = require "aloop.core"
local check = require "aloop.check"
local trials = require "aloop.trial"

local testing = {}

local PATIENCE_S = 0.001

-- ---- loops ----------------------------------------------------------------------------------------------------------

---@class aloop.testing.LoopOptions
---@field kind? "epoll"|"poll"|"select"|"ring" the default one is epoll
---@field seed? integer|true see "Order" above
---@field patience? number seconds of real time; see "Virtual time" above

local loop_options = { kind = "string", seed = true, patience = "number" }

local makers = {
  epoll = function(clock) return core.SelectorEventLoop(core.selectors.EpollSelector(), clock) end,
  poll = function(clock) return core.SelectorEventLoop(core.selectors.PollSelector(), clock) end,
  select = function(clock) return core.SelectorEventLoop(core.selectors.SelectSelector(), clock) end,
  ring = function(clock) return core.ProactorEventLoop(nil, clock) end,
}

local function choose_seed(seed)
  if seed == true then return math.random(1, 1000000) end
  if seed ~= nil and math.type(seed) ~= "integer" then
    error(core.ValueError("seed must be an integer or true"), 0)
  end
  return seed or nil
end

-- A loop on virtual time, its clock and its seed.
local function make_loop(options)
  local make = makers[options.kind or "epoll"]
  if not make then error(core.ValueError(("no such kind of loop: %s"):format(options.kind)), 0) end
  local seed = choose_seed(options.seed)
  local clock = core.virtual_clock(options.patience or PATIENCE_S, seed)
  return make(clock), clock, seed
end

--- A loop on virtual time, to be closed by whoever asked for it.
---@param options? aloop.testing.LoopOptions
---@return aloop.EventLoop
function testing.new_loop(options)
  return (make_loop(check.options(1, "new_loop", options, loop_options)))
end

-- ---- tests ----------------------------------------------------------------------------------------------------------

---@class aloop.testing.Options : aloop.testing.LoopOptions
---@field new_loop? fun(): aloop.EventLoop makes the loop, which is then on the time that it has
---@field limit? number seconds of real time that the test may take (30)
---@field open? boolean what stays open when the body ends is no failure
---@field drive? boolean for `case` and `it`: as `drive`, not as `run`

local run_options = {
  kind = "string", seed = true, patience = "number", new_loop = "function", limit = "number", open = "boolean",
  drive = "boolean",
}

local function add_traceback(err)
  if type(err) == "string" then return debug.traceback(err, 2) end
  return err
end

local function drive(body, options)
  if core.running_loop_or_nil() then error(core.RuntimeError("a test can't run inside of a running event loop"), 3) end
  local trial = trials.new(options, options.new_loop or function() return make_loop(options) end)
  local result = table.pack(xpcall(body, add_traceback, trial.loop, trial))
  trials.conclude(result[1], result[2], trials.tear_down(trial, result[1]))
  return table.unpack(result, 2, result.n)
end

--- Runs body(loop, trial) outside of the loop, which it may run itself; then the leak check. Returns its results.
---@param body fun(loop: aloop.EventLoop, trial: aloop.testing.Trial): any ...
---@param options? aloop.testing.Options
---@return any ...
function testing.drive(body, options)
  check.callable(1, "drive", body)
  return drive(body, check.options(2, "drive", options, run_options))
end

local function run(body, options)
  return drive(function(_, trial) return trial:run_task(body) end, options)
end

--- Runs body(loop, trial) as a task of a fresh loop on virtual time; then the leak check. Returns its results.
---@param body fun(loop: aloop.EventLoop, trial: aloop.testing.Trial): any ...
---@param options? aloop.testing.Options
---@return any ...
function testing.run(body, options)
  check.callable(1, "run", body)
  return run(body, check.options(2, "run", options, run_options))
end

local function case(body, options)
  local f = options.drive and drive or run
  return function() f(body, options) end
end

--- The test as a function without arguments, for any test framework.
---@param body fun(loop: aloop.EventLoop, trial: aloop.testing.Trial)
---@param options? aloop.testing.Options
---@return fun()
function testing.case(body, options)
  check.callable(1, "case", body)
  return case(body, check.options(2, "case", options, run_options))
end

--- busted's `it` (or any other function of a name and a test) for such tests.
---@param it fun(name: string, test: fun())
---@param options? aloop.testing.Options
---@return fun(name: string, body: fun(loop: aloop.EventLoop, trial: aloop.testing.Trial))
function testing.it(it, options)
  check.callable(1, "it", it)
  options = check.options(2, "it", options, run_options)
  return function(name, body)
    return it(name, case(body, options))
  end
end

--- All that this process has open: number → what it is.
---@return table<integer, string>
function testing.descriptors()
  return core.descriptors()
end

return testing
