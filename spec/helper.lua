-- helper.lua - what the specs stand on: loops of every kind, a body that runs on a fresh one, and a teardown that
-- fails on whatever stays open. Processes are in support/child.lua, peers of a connection in support/peer.lua; both are
-- joined in here.
-- SPDX-License-Identifier: MIT
--
-- A spec never waits in its main chunk: that would start the interpreter's own loop, and no other could run any more.
-- ALOOP_LOOPS=epoll,ring runs the specs on these kinds only.

local aloop = require "aloop"
local busted = require "busted"
local testing = require "aloop.testing"

local helper = {}

local TIMEOUT_S = tonumber(os.getenv("ALOOP_SPEC_TIMEOUT")) or 30

-- ---- kinds of loops -------------------------------------------------------------------------------------------------

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

-- ---- trials: aloop.testing's ----------------------------------------------------------------------------------------

-- How many descriptors this process has.
function helper.count_fds()
  local n = 0
  for _ in pairs(testing.descriptors()) do n = n + 1 end
  return n
end

local function options_of(new_loop, options)
  options = options or {}
  return { new_loop = new_loop, open = options.open, limit = options.timeout or TIMEOUT_S }
end

-- Runs body(loop, trial) in the main chunk, with a loop that it may drive itself. options: timeout (seconds), open =
-- true: what stays open in the loop when the body ends is no failure.
function helper.drive(new_loop, body, options)
  testing.drive(body, options_of(new_loop, options))
end

-- Runs body(loop, trial) as a task of a fresh loop.
function helper.with_loop(new_loop, body, options)
  testing.run(body, options_of(new_loop, options))
end

-- Runs body(loop, trial) as a task of a fresh loop, for specs whose matter has nothing to do with descriptors.
function helper.as_task(body, options)
  helper.with_loop(helper.new_loop, body, options)
end

-- One iteration of the loop that doesn't wait.
function helper.turn(loop, n)
  for _ = 1, n or 1 do
    loop:stop()
    loop:run_forever()
  end
end

-- ---- inside of a task -----------------------------------------------------------------------------------------------

-- Lets turns of the loop pass: n, or one.
function helper.turns(n)
  for _ = 1, n or 1 do aloop.sleep(0) end
end

-- A function that takes its time and returns the values.
function helper.after(seconds, ...)
  local values = table.pack(...)
  return function()
    aloop.sleep(seconds)
    return table.unpack(values, 1, values.n)
  end
end

-- Runs the body with a task group of its own; the error of the block, or nil.
function helper.group_error(body)
  local ok, e = pcall(function()
    local group <close> = aloop.TaskGroup()
    body(group)
  end)
  return not ok and e or nil
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

-- Asserts that a task ends cancelled.
function helper.cancelled(task)
  return helper.raises(aloop.CancelledError, nil, task.await, task)
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

-- ---- with a peer ----------------------------------------------------------------------------------------------------

-- Runs body(server, wait_for, loop, trial, made) as a task of a fresh loop, see helper.serve.
function helper.serving(new_loop, body, options)
  helper.with_loop(new_loop, function(loop, trial)
    helper.serve(loop, function(server, wait_for, made) body(server, wait_for, loop, trial, made) end, options)
  end)
end

-- What runs body(transport, protocol, sock, loop, trial) in a fresh loop over what `make` (over_socketpair, over_tcp)
-- gives for a Recorder of these options; then ends the transport by its method `finish`, and closes what is open.
function helper.over(new_loop, make, finish)
  return function(body, options)
    helper.with_loop(new_loop, function(loop, trial)
      local protocol = helper.Recorder(loop, options)
      local transport, _, sock = make(loop, protocol)
      body(transport, protocol, sock, loop, trial)
      transport[finish](transport)
      if sock:fileno() >= 0 then sock:close() end
      if not protocol.is_lost then protocol:wait_lost() end
    end)
  end
end

-- The interpreter's own loop is made at first need; now, so that it counts as no leak later.
pcall(aloop.get_event_loop)

return helper
