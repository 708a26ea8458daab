-- helper.lua - what the specs stand on: loops of every kind, a body that runs on a fresh one, and a teardown that
-- fails on whatever stays open. Processes are in support/child.lua, peers of a connection in support/peer.lua; both are
-- joined in here.
-- SPDX-License-Identifier: MIT
--
-- A spec never waits in its main chunk: that would start the interpreter's own loop, and no other could run any more.
-- ALOOP_LOOPS=epoll,ring runs the specs on these kinds only.

local aloop = require "aloop"
local busted = require "busted"
local lfs = require "lfs"
local core = require "aloop.core"

local helper = {}

local TIMEOUT_S = tonumber(os.getenv("ALOOP_SPEC_TIMEOUT")) or 30
local SETTLE_S = 2.0

-- ---- kinds of loops ------------------------------------------------------------------------------------------------

local makers = {
  epoll = function() return aloop.SelectorEventLoop(aloop.selectors.EpollSelector()) end,
  poll = function() return aloop.SelectorEventLoop(aloop.selectors.PollSelector()) end,
  select = function() return aloop.SelectorEventLoop(aloop.selectors.SelectSelector()) end,
  ring = function() return aloop.ProactorEventLoop() end,
}

helper.kinds = {}
for kind in (os.getenv("ALOOP_LOOPS") or "epoll,poll,select,ring"):gmatch("%a+") do
  assert(makers[kind], "ALOOP_LOOPS: no such kind of loop: " .. kind)
  helper.kinds[#helper.kinds + 1] = kind
end

-- The loop for specs whose matter has nothing to do with descriptors.
helper.new_loop = makers.epoll

-- The constructor of a kind of loop; if this machine refuses it, also the reason.
function helper.loop_maker(kind)
  local new_loop = makers[kind]
  if kind ~= "ring" then return new_loop end
  local ok, loop = pcall(new_loop)
  if ok then
    loop:close()
  elseif aloop.isinstance(loop, aloop.NotImplementedError) then
    return new_loop, "no ring: " .. loop.message
  end
  return new_loop
end

-- A describe block for each kind of loop: body(kind, new_loop). Specs of a kind that is refused are pending.
function helper.each_loop(body)
  for _, kind in ipairs(helper.kinds) do
    local new_loop, reason = helper.loop_maker(kind)
    busted.describe("on " .. kind, function()
      if reason then
        it = function(name) -- luacheck: ignore 121 (goes to the environment of this block)
          busted.it(name, function()
            pending(reason) -- luacheck: ignore 113
          end)
        end
      end
      body(kind, new_loop)
    end)
  end
end

-- ---- what is open ---------------------------------------------------------------------------------------------------

local function open_fds()
  local fds = {}
  for name in lfs.dir("/proc/self/fd") do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. name, "target")
    if tonumber(name) and target and not target:find("^/proc/%d+/fd") then fds[name] = target end
  end
  return fds
end

-- How many descriptors this process has.
function helper.count_fds()
  local n = 0
  for _ in pairs(open_fds()) do n = n + 1 end
  return n
end

local COUNTED = { "transports", "servers", "ops", "timers", "handles", "watchers" }

local function describe_stats(stats, base)
  local parts = {}
  for _, key in ipairs(COUNTED) do
    local n = (stats[key] or 0) - (base[key] or 0)
    if n > 0 then parts[#parts + 1] = n .. " " .. key end
  end
  return #parts > 0 and table.concat(parts, ", ") or nil
end

-- ---- a trial: one loop, one body -----------------------------------------------------------------------------------

---@class Trial
---@field loop any
---@field errors table[] the contexts that reached the exception handler and that no one took
---@field logs table[] {level, message, category} of all that was logged
local Trial = {}
Trial.__index = Trial

local function new_trial(new_loop, options)
  local self = setmetatable({ errors = {}, logs = {}, options = options }, Trial)
  self.fds = open_fds()
  aloop.set_log_handler(function(level, message, category)
    self.logs[#self.logs + 1] = { level = level, message = message, category = category }
  end)
  local loop = new_loop()
  loop:set_exception_handler(function(_, context) self.errors[#self.errors + 1] = context end)
  self.loop = loop
  loop:stop() -- one turn: what a loop makes for itself at its first run is no leak
  loop:run_forever()
  self.base = core.stats(loop)
  return self
end

-- Takes the first context that reached the exception handler; there must be one.
function Trial:take_error()
  local context = table.remove(self.errors, 1)
  if not context then error("the exception handler was not called", 2) end
  return context
end

-- Takes the first log line that matches; there must be one. Returns its message, level and category.
function Trial:take_log(pattern)
  for i, line in ipairs(self.logs) do
    if line.message:find(pattern) then
      table.remove(self.logs, i)
      return line.message, line.level, line.category
    end
  end
  local lines = {}
  for i, line in ipairs(self.logs) do lines[i] = "\n  " .. line.level .. ": " .. line.message end
  error(("nothing like %q was logged%s"):format(pattern, table.concat(lines)), 2)
end

-- Waits (in a task) until cond() is true.
function Trial:wait_until(cond)
  while not cond() do aloop.sleep(0.001) end
end

-- The body runs as a task; after the time is up the spec fails instead of hanging.
function Trial:run_task(body)
  local loop = self.loop
  local task = loop:create_task(function() return body(loop, self) end, { name = "spec" })
  local expired
  local timer = loop:call_later(self.options.timeout or TIMEOUT_S, function()
    local frames = {}
    for i, frame in ipairs(task:get_stack()) do
      frames[i] = ("\n    %s:%s in %s"):format(frame.source, frame.currentline, frame.name or "?")
    end
    expired = "the spec still waits after its time is up" .. table.concat(frames)
    task:cancel("time is up")
    loop:call_later(1, loop.stop, loop) -- in case it can't be cancelled
  end)
  local result = table.pack(pcall(loop.run_until_complete, loop, task))
  if not loop:is_closed() then timer:cancel() end
  if expired then error(expired, 0) end
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 2, result.n)
end

-- Lets closes that were asked for come to their end. Returns what then still is open.
local function settle(self)
  local loop = self.loop
  local deadline = loop:time() + SETTLE_S
  for turn = 1, math.huge do
    loop:stop()
    loop:run_forever()
    local left = describe_stats(core.stats(loop), self.base)
    if not left or self.options.open or loop:time() > deadline then return left end
    if turn > 5 then
      loop:call_later(0.002, loop.stop, loop)
      loop:run_forever()
    end
  end
end

local function describe_context(context)
  local exception = context.exception
  local text = tostring(exception)
  if type(exception) == "table" and exception.message then text = tostring(exception.message) end
  local trace = aloop.isinstance(exception, aloop.BaseError) and exception.traceback or ""
  return ("unexpected call of the exception handler: %s: %s\n%s"):format(context.message, text, trace or "")
end

local function find_leaked_fds(before)
  local leaked = {}
  for fd, target in pairs(open_fds()) do
    if before[fd] ~= target then leaked[#leaked + 1] = fd .. " → " .. target end
  end
  return #leaked > 0 and "leaked descriptors: " .. table.concat(leaked, ", ") or nil
end

-- Closes the loop and returns the list of all that is wrong.
local function tear_down(self)
  local problems = {}
  local loop = self.loop
  collectgarbage()
  if not loop:is_closed() then
    local left = settle(self)
    if left and not self.options.open then problems[#problems + 1] = "still open: " .. left end
    loop:close()
  end
  loop, self.loop, self.base = nil, nil, nil -- luacheck: ignore 311
  collectgarbage()
  for _, context in ipairs(self.errors) do problems[#problems + 1] = describe_context(context) end
  for _, line in ipairs(self.logs) do
    local loud = line.level == "warning" or line.level == "error"
    local slow = line.message:find("^Executing .* took ") -- the machine's fault, not the spec's
    if loud and not slow then problems[#problems + 1] = ("unexpected %s: %s"):format(line.level, line.message) end
  end
  problems[#problems + 1] = find_leaked_fds(self.fds)
  aloop.set_log_handler(nil)
  return problems
end

-- Raises the body's own error, or the problems of the teardown, or both in one.
local function conclude(ok, err, problems)
  if ok and #problems == 0 then return end
  local text = table.concat(problems, "\n")
  if ok then error(text, 0) end
  if #problems == 0 and type(err) ~= "string" and not aloop.isinstance(err, aloop.BaseError) then error(err, 0) end
  if type(err) == "table" and rawget(err, "message") and not aloop.isinstance(err, aloop.BaseError) then
    err.message = tostring(err.message) .. "\n" .. text
    error(err, 0)
  end
  local trace = aloop.isinstance(err, aloop.BaseError) and err.traceback or ""
  error(tostring(err) .. "\n" .. (trace or "") .. "\n" .. text, 0)
end

-- Runs body(loop, trial) in the main chunk, with a loop that it may drive itself. options: timeout (seconds), open =
-- true: what stays open in the loop when the body ends is no failure.
function helper.drive(new_loop, body, options)
  local trial = new_trial(new_loop, options or {})
  local ok, err = xpcall(body, function(e)
    if type(e) == "string" then return debug.traceback(e, 2) end
    return e
  end, trial.loop, trial)
  conclude(ok, err, tear_down(trial))
end

-- Runs body(loop, trial) as a task of a fresh loop.
function helper.with_loop(new_loop, body, options)
  helper.drive(new_loop, function(_, trial) trial:run_task(body) end, options)
end

-- One iteration of the loop that doesn't wait.
function helper.turn(loop, n)
  for _ = 1, n or 1 do
    loop:stop()
    loop:run_forever()
  end
end

-- ---- errors ---------------------------------------------------------------------------------------------------------

-- Asserts that f(...) raises an instance of the class whose text has the plain pattern in it; returns the error.
function helper.raises(class, pattern, f, ...)
  local result = table.pack(pcall(f, ...))
  if result[1] then error("no error was raised", 2) end
  local e = result[2]
  if not aloop.isinstance(e, class) then error(("raised %s instead of %s"):format(tostring(e), tostring(class)), 2) end
  if pattern and not tostring(e):find(pattern, 1, true) then
    error(("%q has no %q in it"):format(tostring(e), pattern), 2)
  end
  return e
end

-- Lua names a function in its errors after the way it is called, so f is called by its name if the pattern has it: as a
-- method of its first argument, or as a field of aloop.
local function named(pattern, f, first)
  local name = pattern:match(" to '([%a_]+)'")
  if not name then return f end
  local ok, method = pcall(function() return first[name] end)
  if ok and rawequal(method, f) then
    return load(("local o = ... local r = o:%s(select(2, ...)) return r"):format(name))
  elseif rawequal(aloop[name], f) then
    return load(("local r = require('aloop').%s(...) return r"):format(name))
  end
  return f
end

-- Asserts that f(...) raises one of Lua's own argument errors: a string with the plain pattern in it.
function helper.type_error(pattern, f, ...)
  local ok, e = pcall(named(pattern, f, (...)), ...)
  if ok then error("no error was raised", 2) end
  if type(e) ~= "string" then error("raised a " .. type(e) .. " instead of a string: " .. tostring(e), 2) end
  if not e:find(pattern, 1, true) then error(("%q has no %q in it"):format(e, pattern), 2) end
  return e
end

for _, part in ipairs { "spec.support.child", "spec.support.peer" } do
  for name, value in pairs(require(part)) do helper[name] = value end
end

-- The interpreter's own loop is made at first need; now, so that it counts as no leak later.
pcall(aloop.get_event_loop)

return helper
