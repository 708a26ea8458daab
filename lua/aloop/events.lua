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

-- What each default policy knows: loop, the current one, and was_set: a script has set it, or unset it, and from then
-- on the main chunk's isn't made unasked. Weak: policies come and go.
local WEAK = { __mode = "k" }
local states = setmetatable({}, WEAK)

local policy ---@type aloop.AbstractEventLoopPolicy?
local making = false -- the main chunk's loop is being made: whoever is asked for it meanwhile has none

local function state_of(self)
  if core.forked() then states = setmetatable({}, WEAK) end -- they are the parent's
  local state = states[self]
  if not state then
    state = {}
    states[self] = state
  end
  return state
end

-- The bindings know the current loop of the policy that is installed.
local function set_current(self, loop)
  state_of(self).loop = loop
  if self == policy then core.set_current_loop(loop) end
end

--- The current loop. In a main chunk that has none yet it is made now.
---@return aloop.EventLoop
function DefaultEventLoopPolicy:get_event_loop()
  local state = state_of(self)
  local loop = state.loop
  if not loop and not state.was_set and not making and core.in_main_chunk() then loop = core.default_loop() end
  return loop or error(core.RuntimeError("There is no current event loop"))
end

---@param loop? aloop.EventLoop nil: there is none from now on
function DefaultEventLoopPolicy:set_event_loop(loop)
  if loop ~= nil and not core.isinstance(loop, core.AbstractEventLoop) then
    check.bad_argument(1, "set_event_loop", "AbstractEventLoop", loop)
  end
  state_of(self).was_set = true
  set_current(self, loop)
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

-- Whatever has the three methods, but for the classes: they are called to make one.
local function is_policy(value)
  if type(value) ~= "table" and type(value) ~= "userdata" or check.typename(value) == "class" then return false end
  for _, method in ipairs { "get_event_loop", "set_event_loop", "new_event_loop" } do
    local has, f = pcall(function() return value[method] end)
    if not has or not check.is_callable(f) then return false end
  end
  return true
end

-- A policy of a script's own may give anything; what is no loop is told at once.
local function checked(loop, method)
  if core.isinstance(loop, core.AbstractEventLoop) then return loop end
  local text = "the event loop policy's %s() gave no event loop (AbstractEventLoop expected, got %s)"
  error(core.RuntimeError(text:format(method, check.typename(loop))))
end

--- The policy of this Lua state.
---@return aloop.AbstractEventLoopPolicy
function events.get_event_loop_policy()
  policy = policy or DefaultEventLoopPolicy()
  return policy
end

--- Installs a policy; nil brings the default one back.
---@param new? aloop.AbstractEventLoopPolicy
function events.set_event_loop_policy(new)
  if new ~= nil and not is_policy(new) then
    check.bad_argument(1, "set_event_loop_policy", "AbstractEventLoopPolicy", new)
  end
  policy = new
  local state = new and states[new]
  core.set_current_loop(state and state.loop)
end

--- The running loop; outside of one, the policy's current loop.
---@return aloop.EventLoop
function events.get_event_loop()
  return core.running_loop_or_nil() or checked(events.get_event_loop_policy():get_event_loop(), "get_event_loop")
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
  return checked(events.get_event_loop_policy():new_event_loop(), "new_event_loop")
end

-- What a policy of the script's own has as the current loop, or nil.
local function loop_of_policy(current)
  if getmetatable(current) == DefaultEventLoopPolicy then return nil end
  local _ <close> = setmetatable({}, { __close = function() making = false end })
  making = true
  local ok, loop = pcall(current.get_event_loop, current)
  return ok and core.isinstance(loop, core.AbstractEventLoop) and loop or nil
end

--- The loop is about to be closed: it is no more the current one. A policy of the script's own doesn't hear of it.
---@param loop aloop.EventLoop
function events.forget(loop)
  if core.get_current_loop() == loop then set_current(events.get_event_loop_policy(), nil) end
end

--- The loop on which a main chunk runs that waits and has set none: a policy of the script's own is asked first. If
--- nobody uses it, nobody hears of it.
---@return aloop.EventLoop
function events.make_main_loop()
  local current = events.get_event_loop_policy()
  local loop = loop_of_policy(current)
  if loop then return loop end
  loop = checked(current:new_event_loop(), "new_event_loop")
  core.set_quiet(loop, true)
  set_current(current, loop)
  return loop
end

return events
