-- trial.lua: one test's loop, and what happened on it: made before the test, taken down after it with a check for what
-- is left open. What aloop.testing (testing.lua) is made of; knows nothing of how the loop was made.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local graph = require "aloop.graph"

local trials = {}

local LIMIT_S = 30 -- of real time, for a test
local GRACE_S = 1 -- of real time, for its end after a cancellation
local SETTLE_TURNS = 5 -- what ends by itself does so within these ...
local SETTLE_STEPS, SETTLE_STEP_S = 1000, 0.002 -- ... or, if it needs I/O, within these; on virtual time they
local VIRTUAL_STEPS = 200 -- take less, but each has its moment of patience

--- One loop, and what happened on it.
---@class aloop.testing.Trial
---@field loop aloop.EventLoop
---@field errors table[] contexts that reached the exception handler and that no one took
---@field logs {level: string, message: string, category: string?}[] what was logged, likewise
local Trial = {}
Trial.__index = Trial

--- Takes the first context that reached the exception handler; there must be one.
---@return table context
function Trial:take_error()
  local context = table.remove(self.errors, 1)
  if not context then error("the exception handler was not called", 2) end
  return context
end

--- Takes the first log line that matches the pattern; there must be one.
---@param pattern string
---@return string message
---@return string level
---@return string? category
function Trial:take_log(pattern)
  for i, line in ipairs(self.logs) do
    if line.message:find(pattern) then
      table.remove(self.logs, i)
      return line.message, line.level, line.category
    end
  end
  local lines = {}
  for i, line in ipairs(self.logs) do
    lines[i] = "\n  " .. line.level .. ": " .. line.message
  end
  error(("nothing like %q was logged%s"):format(pattern, table.concat(lines)), 2)
end

local function run_turn(loop)
  loop:stop()
  loop:run_forever()
end

--- Lets the loop turn n times (once) without waiting.
---@param n? integer
function Trial:turn(n)
  for _ = 1, n or 1 do
    if core.running_loop_or_nil() then core.sleep(0) else run_turn(self.loop) end
  end
end

--- Lets this much time pass on the loop.
---@param seconds number
function Trial:advance(seconds)
  if core.running_loop_or_nil() then return core.sleep(seconds) end
  self.loop:call_later(seconds, self.loop.stop, self.loop)
  self.loop:run_forever()
end

--- Waits (in a task) until cond() is true.
---@param cond fun(): any
function Trial:wait_until(cond)
  while not cond() do core.sleep(0.001) end
end

-- What each task of the loop waits for, and where.
local function describe_tasks(loop)
  local lines = {}
  local _, nodes = graph.snapshot()
  for _, task in ipairs(core.all_tasks(loop)) do
    lines[#lines + 1] = ("\n  %s: %s"):format(task, nodes[task] and graph.describe(nodes[task]) or "?")
    for _, frame in ipairs(task:get_stack()) do
      lines[#lines + 1] = ("\n    %s:%s in %s"):format(frame.source, frame.currentline, frame.name or "?")
    end
  end
  return table.concat(lines)
end

local reasons = {
  deadlock = "nothing is left that could wake a task",
  limit = "the test is not over after its time",
}

local function describe_stuck(self, why)
  return ("%s (%g s on the loop's clock):%s"):format(reasons[why], self.loop:time(), describe_tasks(self.loop))
end

-- On virtual time the clock stops the loop, and the task is cancelled after that.
local function run_on_virtual_time(self, task)
  local loop, clock = self.loop, self.clock
  clock:limit(self.options.limit or LIMIT_S)
  local result = table.pack(pcall(loop.run_until_complete, loop, task))
  local why = clock:stuck()
  if why then
    result = { false, describe_stuck(self, why), n = 2 }
    clock:limit(GRACE_S)
    if task:cancel() then pcall(loop.run_until_complete, loop, task) end
    clock:stuck()
  end
  clock:limit(nil)
  return result
end

local function run_on_real_time(self, task)
  local loop = self.loop
  local expired
  local timer = loop:call_later(self.options.limit or LIMIT_S, function()
    expired = describe_stuck(self, "limit")
    task:cancel("time is up")
    loop:call_later(GRACE_S, loop.stop, loop) -- in case it can't be cancelled
  end)
  local result = table.pack(pcall(loop.run_until_complete, loop, task))
  if not loop:is_closed() then timer:cancel() end
  if expired then return { false, expired, n = 2 } end
  return result
end

--- Runs body(loop, trial) as a task, and returns its results.
---@param body fun(loop: aloop.EventLoop, trial: aloop.testing.Trial): any ...
---@return any ...
function Trial:run_task(body)
  local loop = self.loop
  local task = loop:create_task(function() return body(loop, self) end, { name = "test" })
  local result = (self.clock and run_on_virtual_time or run_on_real_time)(self, task)
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 2, result.n)
end

-- ---- before and after -----------------------------------------------------------------------------------------------

--- Begins a trial. make() returns its loop, the clock of that if it is on virtual time, and the seed if it has one.
---@param options aloop.testing.Options
---@param make fun(): aloop.EventLoop, userdata?, integer?
---@return aloop.testing.Trial
function trials.new(options, make)
  local self = setmetatable({ errors = {}, logs = {}, options = options }, Trial)
  self.descriptors = core.descriptors()
  core.set_log(function(level, message, category)
    self.logs[#self.logs + 1] = { level = level, message = message, category = category }
  end)
  self.loop, self.clock, self.seed = make()
  self.loop:set_exception_handler(function(_, context) self.errors[#self.errors + 1] = context end)
  run_turn(self.loop) -- what a loop makes for itself at its first run is no leak
  if self.clock then self.clock:mark(self.loop) end
  self.base = core.stats(self.loop)
  return self
end

local COUNTED = { "transports", "servers", "ops", "timers", "handles", "watchers" }

local function describe_open(self)
  local stats, parts = core.stats(self.loop), {}
  for _, key in ipairs(COUNTED) do
    local n = stats[key] - self.base[key]
    if n > 0 then parts[#parts + 1] = n .. " " .. key end
  end
  local tasks = #core.all_tasks(self.loop)
  if tasks > 0 then parts[#parts + 1] = tasks .. " tasks" end
  return #parts > 0 and table.concat(parts, ", ") or nil
end

-- Lets what was asked to close come to its end. Returns what then still is open.
local function settle(self)
  local loop = self.loop
  for turn = 1, SETTLE_TURNS + (self.clock and VIRTUAL_STEPS or SETTLE_STEPS) do
    run_turn(loop)
    local left = describe_open(self)
    if not left or self.options.open then return nil end
    if turn > SETTLE_TURNS then
      local stats = core.stats(loop)
      if stats.ops <= self.base.ops and stats.handles == 0 then break end -- nothing will end by itself
      self:advance(SETTLE_STEP_S)
    end
  end
  local list = core.dump(loop):gsub("^[^\n]*\n", ""):gsub("\n$", ""):gsub("[^\n]+", "\n  %0"):gsub("\n\n", "\n")
  return "still open: " .. describe_open(self) .. list .. describe_tasks(loop)
end

-- Tasks that are left would be reported once more when the loop closes.
local function cancel_tasks(self)
  for _ = 1, 10 do
    local tasks = core.all_tasks(self.loop)
    if #tasks == 0 then return end
    for _, task in ipairs(tasks) do
      task:cancel()
    end
    run_turn(self.loop)
    run_turn(self.loop)
  end
end

local function describe_context(context)
  local err = context.exception
  return ("unexpected call of the exception handler: %s\n%s"):format(context.message,
    err == nil and "" or core.errortext(err))
end

-- What another thread has open for a moment, as libc and sanitizers have, is no leak: it is gone when looked for again.
local function find_leaked_descriptors(before)
  local leaked
  for _ = 1, 100 do
    leaked = {}
    for fd, target in pairs(core.descriptors()) do
      if before[fd] ~= target then leaked[#leaked + 1] = fd .. " → " .. target end
    end
    if #leaked == 0 then break end
  end
  return #leaked > 0 and "leaked descriptors: " .. table.concat(leaked, ", ") or nil
end

--- Closes the loop and returns the list of all that is wrong. What a body that failed has left open is its failure's
--- consequence and not told.
---@param self aloop.testing.Trial
---@param ok boolean the body did not fail
---@return string[] problems
function trials.tear_down(self, ok)
  local problems = {}
  local loop = self.loop
  local descriptors = self.descriptors
  collectgarbage()
  if not loop:is_closed() then
    local left = settle(self)
    if ok then problems[1] = left end
    if left then cancel_tasks(self) end
    loop:close()
  end
  loop, self.loop, self.base, self.clock = nil, nil, nil, nil -- luacheck: ignore 311
  collectgarbage()
  for _, context in ipairs(self.errors) do
    problems[#problems + 1] = describe_context(context)
  end
  for _, line in ipairs(self.logs) do
    local loud = line.level == "warning" or line.level == "error"
    local slow = line.message:find("^Executing .* took ") -- the machine's fault, not the test's
    if loud and not slow then problems[#problems + 1] = ("unexpected %s: %s"):format(line.level, line.message) end
  end
  if ok then problems[#problems + 1] = find_leaked_descriptors(descriptors) end
  if self.seed and (not ok or #problems > 0) then problems[#problems + 1] = "seed: " .. self.seed end
  core.set_log(nil)
  return problems
end

--- Raises the body's own error, or the problems of the teardown, or both in one. Error tables of test frameworks keep
--- their type, for it says what they are.
function trials.conclude(ok, err, problems)
  if ok and #problems == 0 then return end
  local text = table.concat(problems, "\n")
  local ours = core.isinstance(err, core.BaseError)
  if ok then error(text, 0) end
  if #problems == 0 and type(err) ~= "string" and not ours then error(err, 0) end
  if type(err) == "table" and not ours then
    if rawget(err, "message") ~= nil then err.message = tostring(err.message) .. "\n" .. text end
    error(err, 0)
  end
  error((ours and core.errortext(err) or tostring(err)) .. (text ~= "" and "\n" .. text or ""), 0)
end

return trials
