-- events.lua: which loop is the current one, and how new ones are made: the event loop policy. What the bindings
-- know of it is one slot, the current loop of this Lua state; what they ask for is make_main_loop.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local events = {}

--- A policy decides what the current loop is and how loops are made. Derive from DefaultEventLoopPolicy, or take
--- any table with these three methods.
---@class aloop.AbstractEventLoopPolicy
local AbstractEventLoopPolicy = core.Object:extend("AbstractEventLoopPolicy")

local function refuse()
  error(core.NotImplementedError("an event loop policy needs get_event_loop, set_event_loop and new_event_loop"))
end
AbstractEventLoopPolicy.get_event_loop = refuse
AbstractEventLoopPolicy.set_event_loop = refuse
AbstractEventLoopPolicy.new_event_loop = refuse
events.AbstractEventLoopPolicy = AbstractEventLoopPolicy

---@class aloop.DefaultEventLoopPolicy: aloop.AbstractEventLoopPolicy
local DefaultEventLoopPolicy = AbstractEventLoopPolicy:extend("DefaultEventLoopPolicy")
events.DefaultEventLoopPolicy = DefaultEventLoopPolicy

-- A loop was set, or unset, by a script: from then on the main chunk's isn't made unasked.
local was_set = false

--- The current loop. In a main chunk that has none yet it is made now.
---@return aloop.EventLoop
function DefaultEventLoopPolicy:get_event_loop()
  local loop = core.get_current_loop()
  if not loop and not was_set and core.in_main_chunk() then loop = core.default_loop() end
  return loop or error(core.RuntimeError("There is no current event loop"))
end

---@param loop? aloop.EventLoop nil: there is none from now on
function DefaultEventLoopPolicy:set_event_loop(loop)
  was_set = true
  core.set_current_loop(loop)
end

-- What -X selector and -X proactor ask for, as the core names machines.
local makers = {
  epoll = function() return core.SelectorEventLoop(core.selectors.EpollSelector()) end,
  poll = function() return core.SelectorEventLoop(core.selectors.PollSelector()) end,
  select = function() return core.SelectorEventLoop(core.selectors.SelectSelector()) end,
  uring = function() return core.ProactorEventLoop() end,
}

---@return aloop.EventLoop
function DefaultEventLoopPolicy:new_event_loop()
  local make = makers[core.default_machine] or core.SelectorEventLoop
  return make()
end

local policy ---@type aloop.AbstractEventLoopPolicy?

--- The policy of this Lua state.
---@return aloop.AbstractEventLoopPolicy
function events.get_event_loop_policy()
  policy = policy or DefaultEventLoopPolicy()
  return policy
end

--- Installs a policy; nil brings the default one back.
---@param new? aloop.AbstractEventLoopPolicy
function events.set_event_loop_policy(new)
  if new ~= nil and type(new) ~= "table" and type(new) ~= "userdata" then
    check.bad_argument(1, "set_event_loop_policy", "AbstractEventLoopPolicy", new)
  end
  for _, method in ipairs { "get_event_loop", "set_event_loop", "new_event_loop" } do
    if new ~= nil and not check.is_callable(new[method]) then
      check.bad_argument(1, "set_event_loop_policy", "AbstractEventLoopPolicy", new)
    end
  end
  policy = new
end

--- The running loop; outside of one, the policy's current loop.
---@return aloop.EventLoop
function events.get_event_loop()
  return core.running_loop_or_nil() or events.get_event_loop_policy():get_event_loop()
end

--- Makes a loop the current one of this Lua state (nil: none).
---@param loop? aloop.EventLoop
function events.set_event_loop(loop)
  if loop ~= nil and not core.isinstance(loop, core.AbstractEventLoop) then
    check.bad_argument(1, "set_event_loop", "AbstractEventLoop", loop)
  end
  events.get_event_loop_policy():set_event_loop(loop)
end

--- A new loop, which is not yet the current one.
---@return aloop.EventLoop
function events.new_event_loop()
  return events.get_event_loop_policy():new_event_loop()
end

--- The loop on which a main chunk runs that waits and has set none: a policy of the script's own is asked first. If
--- nobody uses it, nobody hears of it.
---@return aloop.EventLoop
function events.make_main_loop()
  local current = events.get_event_loop_policy()
  if getmetatable(current) ~= DefaultEventLoopPolicy then
    local ok, loop = pcall(current.get_event_loop, current)
    if ok and core.isinstance(loop, core.AbstractEventLoop) then return loop end
  end
  local loop = current:new_event_loop()
  core.set_quiet(loop, true)
  core.set_current_loop(loop)
  return loop
end

return events
