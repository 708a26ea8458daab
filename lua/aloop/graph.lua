-- graph.lua: who waits for whom: asyncio's call graphs (capture_call_graph, format_call_graph, print_call_graph,
-- future_add_to_awaited_by), and for aloop.tools what each task waits for, in words.
-- Nothing here calls code of scripts, no __tostring either, for it also runs in the midst of one: a task tree can be
-- asked for at any time.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

local graph = {}

local isinstance, Future, Task = core.isinstance, core.Future, core.Task

-- ---- edges ----------------------------------------------------------------------------------------------------------

-- waiter → set of the futures that it was said to wait for; weak, so that nothing lives longer for it.
local told = setmetatable({}, { __mode = "k" })

local function check_future(n, name, value)
  if not isinstance(value, Future) then check.bad_argument(n, name, "Future", value) end
end

--- Says that a future (or task) is awaited by another one, for control flow that is built on callbacks.
---@param future aloop.Future
---@param waiter aloop.Future
function graph.future_add_to_awaited_by(future, waiter)
  check_future(1, "future_add_to_awaited_by", future)
  check_future(2, "future_add_to_awaited_by", waiter)
  local set = told[waiter]
  if not set then
    set = setmetatable({}, { __mode = "k" })
    told[waiter] = set
  end
  set[future] = true
end

--- Takes back what future_add_to_awaited_by said.
---@param future aloop.Future
---@param waiter aloop.Future
function graph.future_discard_from_awaited_by(future, waiter)
  check_future(1, "future_discard_from_awaited_by", future)
  check_future(2, "future_discard_from_awaited_by", waiter)
  local set = told[waiter]
  if set then set[future] = nil end
end

local function metatable_of(value)
  local metatable = debug.getmetatable(value)
  return type(metatable) == "table" and metatable or nil
end

local function class_name(value)
  local metatable = metatable_of(value)
  local name = metatable and rawget(metatable, "__name")
  return type(name) == "string" and name or type(value)
end

-- Calls add for each future that an object stands for which somebody waits for: those in its `futures` or `children`.
local function each_future_behind(object, add)
  if type(object) ~= "table" then return end
  for _, field in ipairs { "futures", "children" } do
    local list = rawget(object, field)
    for key, value in next, type(list) == "table" and list or {} do
      if isinstance(key, Future) then add(key) end
      if isinstance(value, Future) then add(value) end
    end
  end
end

-- Calls add for each future that will hear of it when the function, a done callback, is called: those among its
-- upvalues; of a TaskGroup there, the task that it belongs to.
local function each_future_told(f, add)
  for i = 1, type(f) == "function" and 255 or 0 do
    local name, value = debug.getupvalue(f, i)
    if not name then return end
    if type(value) == "table" and class_name(value) == "TaskGroup" then value = rawget(value, "parent") end
    if isinstance(value, Future) then add(value) end
  end
end

---@class aloop.graph.Node
---@field task aloop.Task
---@field name string
---@field state string "created", "running", "ready" or "waiting"
---@field kind? string what a waiting one waits for: "timer", "future", "object", "operation"
---@field what any
---@field awaits aloop.graph.Node[] the tasks that it waits for
---@field awaited_by aloop.graph.Node[]

local function add_edge(from, to)
  if from.linked[to] then return end
  from.linked[to] = true
  from.awaits[#from.awaits + 1] = to
  to.awaited_by[#to.awaited_by + 1] = from
end

-- A script's text on one line, and nothing in it that a terminal obeys.
local function clean(text)
  return (text:gsub("%c", "?"))
end

local function new_node(task)
  local node = { task = task, name = clean(task:get_name()), awaits = {}, awaited_by = {}, linked = {} }
  node.state, node.kind, node.what = core.task_state(task)
  return node
end

local function append(lists, key, value)
  local list = lists[key]
  if list then list[#list + 1] = value else lists[key] = { value } end
end

-- future → array of the tasks that will tell it of their end.
local function find_tellers(nodes)
  local tellers = {}
  for _, node in ipairs(nodes) do
    for _, f in ipairs(core.future_callbacks(node.task) or {}) do
      each_future_told(f, function(future) append(tellers, future, node.task) end)
    end
  end
  return tellers
end

-- Links the node with the tasks that it waits for, also through futures that are no tasks; to these in `waiters`.
local function link(node, by_task, tellers, waiters)
  local pending, seen = {}, {}
  local function add(future)
    if seen[future] then return end
    seen[future] = true
    if by_task[future] then
      add_edge(node, by_task[future])
    elseif not isinstance(future, Task) then
      pending[#pending + 1] = future
      append(waiters, future, node)
    end
  end
  local function add_what_tells(future)
    for inner in next, told[future] or {} do add(inner) end
    for _, task in ipairs(tellers[future] or {}) do add(task) end
  end
  if node.kind == "future" then add(node.what) end
  if node.kind == "object" then each_future_behind(node.what, add) end
  add_what_tells(node.task)
  while #pending > 0 do
    local future = table.remove(pending)
    each_future_behind(core.future_owner(future), add)
    add_what_tells(future)
  end
end

--- All unfinished tasks of this Lua state, linked.
---@return aloop.graph.Node[] nodes in the order of their creation, the main chunk's first
---@return table<aloop.Task, aloop.graph.Node> by_task
---@return table<aloop.Future, aloop.graph.Node[]> waiters of futures that are no tasks
function graph.snapshot()
  local nodes, by_task, waiters = {}, {}, {}
  for i, task in ipairs(core.living_tasks()) do
    local node = new_node(task)
    nodes[i], by_task[task] = node, node
  end
  local tellers = find_tellers(nodes)
  for _, node in ipairs(nodes) do link(node, by_task, tellers, waiters) end
  return nodes, by_task, waiters
end

-- ---- in words -------------------------------------------------------------------------------------------------------

-- <Queue at 0x5581a0>: without asking the object.
local function name_of(object)
  local what = type(object) == "table" and rawget(object, "what")
  local list = type(object) == "table" and rawget(object, "futures")
  if type(what) == "string" and type(list) == "table" then
    return ("<%s of %d at %p>"):format(what, #list, object)
  end
  return ("<%s at %p>"):format(class_name(object), object)
end

local function show_argument(value)
  if type(value) ~= "string" then return tostring(value) end
  if #value > 60 then value = value:sub(1, 57) .. "..." end
  return ("%q"):format(value):gsub("\\\n", "\\n")
end

local function describe_operation(op)
  local parts, args = {}, {}
  if op.fd then parts[#parts + 1] = "descriptor " .. op.fd end
  if op.peer then parts[#parts + 1] = "peer " .. op.peer end
  if op.name then parts[#parts + 1] = "at " .. op.name end
  if op.address then parts[#parts + 1] = "to " .. op.address end
  if not op.fd then
    for i, value in ipairs(op.args or {}) do args[i] = show_argument(value) end
  end
  local text = op.func or op.what or "an operation"
  if #args > 0 then text = text .. "(" .. table.concat(args, ", ") .. ")" end
  if op.what and op.what ~= op.func and op.func then table.insert(parts, 1, op.what) end
  return #parts > 0 and text .. ": " .. table.concat(parts, ", ") or text
end

local describers = {
  timer = function(seconds) return ("timer, %.3f s left"):format(math.max(seconds, 0)) end,
  object = name_of,
  operation = describe_operation,
  future = function(future)
    if isinstance(future, Task) then return "task " .. future:get_name() end
    local owner = core.future_owner(future)
    return name_of(owner ~= nil and owner or future)
  end,
}

--- What a task waits for, or what else it does.
---@param node aloop.graph.Node
---@return string
function graph.describe(node)
  if node.state ~= "waiting" then return node.state end
  return "waits for " .. clean(describers[node.kind](node.what))
end

-- ---- asyncio's call graphs ------------------------------------------------------------------------------------------

--- A future with its stack and those who wait for it. In a graph each future stands once: if two ways lead to it, both
--- lead to the same table.
---@class aloop.FutureCallGraph
---@field future aloop.Future
---@field call_stack {source: string, currentline: integer, name: string}[] the newest first
---@field awaited_by aloop.FutureCallGraph[]
---@field waits_for? string what it waits for, in words

local graph_options = { depth = "number", limit = "number", file = true }

--- How many frames are left without those of a file on top: of who asks about the task that runs.
---@param frames table[]
---@param file string
---@return integer
function graph.count_without(frames, file)
  local n = #frames
  while n > 0 and frames[n].source == file do n = n - 1 end
  return n
end

-- The limit newest frames (limit > 0) or -limit oldest ones, the newest first; skip newest ones are left out.
local function call_stack(future, limit, skip)
  local frames, stack = isinstance(future, Task) and future:get_stack() or {}, {}
  local first, last = 1, graph.count_without(frames, "aloop/graph.lua") - skip
  if limit and limit >= 0 then first = math.max(1, last - limit + 1) end
  if limit and limit < 0 then last = math.min(last, -limit) end
  for i = last, first, -1 do stack[#stack + 1] = frames[i] end
  return stack
end

local function capture(future, options)
  local _, by_task, waiters = graph.snapshot()
  local made, todo = {}, {}
  local function make(f)
    if made[f] then return made[f] end
    local skip = options.depth and f == future and f == core.current_task() and options.depth - 1 or 0
    local entry = { future = f, call_stack = call_stack(f, options.limit, skip), awaited_by = {} }
    if by_task[f] then entry.waits_for = graph.describe(by_task[f]) end
    made[f], todo[#todo + 1] = entry, entry
    return entry
  end
  local top = make(future)
  while #todo > 0 do
    local entry = table.remove(todo)
    local node = by_task[entry.future]
    for _, waiter in ipairs(node and node.awaited_by or waiters[entry.future] or {}) do
      entry.awaited_by[#entry.awaited_by + 1] = make(waiter.task)
    end
  end
  return top
end

local function check_graph_arguments(name, future, options, ...)
  options = check.options(2, name, options, graph_options, ...)
  if future == nil then
    future = core.current_task() or error(core.RuntimeError(name .. "() is called outside of a running task"), 3)
  elseif not isinstance(future, Future) then
    check.bad_argument(1, name, "Future", future)
  end
  return future, options
end

--- The call graph of a future (nil: the current task): its stack, and all who wait for it.
---@param future? aloop.Future
---@param options? {limit: integer?, depth: integer?} limit: at most so many of the newest frames, < 0: of the oldest;
--- depth: of the current task, so many newest frames less one are left out
---@return aloop.FutureCallGraph
function graph.capture_call_graph(future, options, ...)
  future, options = check_graph_arguments("capture_call_graph", future, options, ...)
  return capture(future, options)
end

local MAX_INDENT = 40

local function format_entry(lines, entry, depth, shown)
  local indent = ("    "):rep(math.min(depth, MAX_INDENT))
  local function add(text) lines[#lines + 1] = indent .. text end
  local future = entry.future
  local name = isinstance(future, Task) and ("name='%s', "):format(future:get_name()) or ""
  add(("* %s(%sid=%p)%s"):format(class_name(future), name, future, shown[entry] and " (shown above)" or ""))
  if shown[entry] then return false end
  shown[entry] = true
  if entry.waits_for then add("  + " .. entry.waits_for) end
  if #entry.call_stack > 0 then add("  + Call stack:") end
  for _, frame in ipairs(entry.call_stack) do
    local called = frame.name:find("[ <]") and "" or "()"
    add(("  |   File '%s', line %d, in %s%s"):format(frame.source, frame.currentline, frame.name, called))
  end
  if #entry.awaited_by > 0 then add("  + Awaited by:") end
  return true
end

--- The call graph as text, in asyncio's form.
---@param future? aloop.Future
---@param options? {limit: integer?, depth: integer?}
---@return string
function graph.format_call_graph(future, options, ...)
  future, options = check_graph_arguments("format_call_graph", future, options, ...)
  local lines, shown = {}, {}
  local todo = { { entry = capture(future, options), depth = 0 } }
  while #todo > 0 do
    local item = table.remove(todo)
    if format_entry(lines, item.entry, item.depth, shown) then
      for i = #item.entry.awaited_by, 1, -1 do
        todo[#todo + 1] = { entry = item.entry.awaited_by[i], depth = item.depth + 1 }
      end
    end
  end
  return table.concat(lines, "\n")
end

--- Writes the call graph to a file, or to stdout.
---@param future? aloop.Future
---@param options? {limit: integer?, depth: integer?, file: file*?}
function graph.print_call_graph(future, options, ...)
  future, options = check_graph_arguments("print_call_graph", future, options, ...)
  local file = options.file or io.stdout
  file:write(graph.format_call_graph(future, { limit = options.limit, depth = options.depth }), "\n")
end

return graph
