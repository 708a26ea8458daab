-- init.lua: the module `aloop`: what scripts see, put together from the bindings (aloop.core) and the modules
-- beside this file. Those are loaded when one of their names is first asked for, so that a script pays for what it
-- uses.
-- SPDX-License-Identifier: MIT

local require = require
local core = require "aloop.core"

---@class aloop
local aloop = { _VERSION = core._VERSION }

-- Classes: all that the bindings know.
for name, value in pairs(getmetatable(core).__index) do
  local metatable = getmetatable(value)
  if metatable and metatable.__name == "class" then aloop[name] = value end
end
aloop.EventLoop = core.SelectorEventLoop

-- Functions and tables of the bindings that are public as they are.
for _, name in ipairs {
  "all_tasks", "await", "buffer", "copy_context", "create_task", "current_task", "eager_task_factory", "ensure_future",
  "environ", "get_running_loop", "isinstance", "pipe", "run_coroutine_threadsafe", "selectors", "signal", "sleep",
  "timeout", "timeout_at", "to_thread", "wrap_future",
} do
  aloop[name] = core[name]
end

-- Methods that are written in Lua, and loaded when they are first called.
for _, method in ipairs {
  { core.BaseEventLoop, "sendfile", "aloop.sendfile" },
  { core.BaseEventLoop, "sock_sendfile", "aloop.sendfile" },
  { core.Executor, "map", "aloop.executors" },
  { core.ThreadPoolExecutor, "shutdown", "aloop.executors" },
  { core.ProcessPoolExecutor, "shutdown", "aloop.executors" },
} do
  local class, name, home = table.unpack(method)
  class[name] = function(...) return require(home)[name](...) end
end

-- Where the other names come from.
local homes = {}
for home, names in pairs {
  ["aloop.events"] = {
    "AbstractEventLoopPolicy", "DefaultEventLoopPolicy", "get_event_loop", "get_event_loop_policy", "new_event_loop",
    "set_event_loop", "set_event_loop_policy",
  },
  ["aloop.tasks"] = {
    "ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "as_completed", "gather", "shield", "wait", "wait_for",
  },
  ["aloop.taskgroups"] = { "TaskGroup" },
  ["aloop.generators"] = { "async_generator" },
  ["aloop.graph"] = {
    "capture_call_graph", "format_call_graph", "future_add_to_awaited_by", "future_discard_from_awaited_by",
    "print_call_graph",
  },
  ["aloop.locks"] = { "Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore" },
  ["aloop.queues"] = { "LifoQueue", "PriorityQueue", "Queue" },
  ["aloop.runners"] = { "Runner", "run" },
  ["aloop.subprocess"] = { "create_subprocess_exec", "create_subprocess_shell" },
  ["aloop.streams"] = { "open_connection", "open_unix_connection", "start_server", "start_unix_server" },
  ["aloop.helpers"] = { "defer", "partial", "set_log_handler", "shlex_quote", "try" },
} do
  for _, name in ipairs(names) do
    homes[name] = home
  end
end

for _, name in ipairs { "socket", "ssl", "subprocess" } do homes[name] = "aloop." .. name end -- whole modules

local function load_name(module, name)
  local home = homes[name]
  if not home then return nil end
  local value = require(home)
  if home ~= "aloop." .. name then value = value[name] end
  rawset(module, name, value)
  return value
end

return setmetatable(aloop, {
  __index = load_name,
  __pairs = function(module) -- all but what can't be loaded: `ssl` without OpenSSL, which says so when it is asked for
    for name in pairs(homes) do
      if name ~= "ssl" then load_name(module, name) end
    end
    pcall(load_name, module, "ssl")
    return next, module, nil
  end,
})
