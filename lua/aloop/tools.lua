-- tools.lua: what a running program is asked from outside: the tree of its tasks (SIGQUIT, `aloop pstree`) and their
-- list (`aloop ps`), as text. Each task is written in full once, so that the text grows as the number of tasks does.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local graph = require "aloop.graph"

local tools = {}

local MAX_INDENT = 32 -- deeper ones are not indented further
local MAX_FRAMES = 10 -- of each task, the newest

-- ---- the tree -------------------------------------------------------------------------------------------------------

local function show_frame(frame)
  local name = frame.name:gsub("^function <.*>$", "function") -- the place follows
  return ("%s %s:%d"):format(name, frame.source, frame.currentline)
end

-- Array of the newest frames as text, the newest first.
local function show_frames(frames)
  local texts = {}
  for i = #frames, math.max(1, #frames - MAX_FRAMES + 1), -1 do texts[#texts + 1] = show_frame(frames[i]) end
  if #frames > MAX_FRAMES then texts[#texts + 1] = "..." end
  return texts
end

-- The frames without those of the code that is asked, on top of what it interrupts.
local function without_own(frames)
  return table.move(frames, 1, graph.count_without(frames, "aloop/tools.lua"), 1, {})
end

local MAX_OWN = 8

local function frames_of(node)
  if node.state ~= "running" then return node.task:get_stack(MAX_FRAMES + 1) end
  return without_own(node.task:get_stack(MAX_FRAMES + 1 + MAX_OWN))
end

local function add_frames(lines, prefix, frames)
  for _, text in ipairs(show_frames(frames)) do lines[#lines + 1] = prefix .. text end
end

-- One task: its line and its frames. rest: what stands before the lines below its first one.
local function add_task(lines, node, head, rest, depth)
  local note = depth > MAX_INDENT and (" (depth %d)"):format(depth) or ""
  lines[#lines + 1] = ("%s(T) %s: %s%s"):format(head, node.name, graph.describe(node), note)
  add_frames(lines, rest .. (#node.awaits > 0 and "│       " or "        "), frames_of(node))
end

-- Those of the list that were not written yet, and how many were.
local function split(list, shown)
  local new, old = {}, 0
  for _, node in ipairs(list) do
    if shown[node] then old = old + 1 else new[#new + 1] = node end
  end
  return new, old
end

local function push_children(todo, item, shown)
  local new, old = split(item.node.awaits, shown)
  if old > 0 then
    local names = old == 1 and #new == 0 and item.node.awaits[1].name or old .. " tasks"
    todo[#todo + 1] = { text = names .. " (shown above)", prefix = item.rest, depth = item.depth + 1, last = true }
  end
  for i = #new, 1, -1 do
    shown[new[i]] = true
    todo[#todo + 1] = { node = new[i], prefix = item.rest, depth = item.depth + 1, last = i == #new and old == 0 }
  end
end

-- Writes the node and all below it that was not written yet.
local function add_tree(lines, root, shown)
  shown[root] = true
  local todo = { { node = root, prefix = "", depth = 0, last = true } }
  while #todo > 0 do
    local item = table.remove(todo)
    local indented = item.depth <= MAX_INDENT
    local head = item.prefix .. (indented and (item.last and "└── " or "├── ") or "")
    item.rest = item.prefix .. (indented and (item.last and "    " or "│   ") or "")
    if item.node then
      add_task(lines, item.node, head, item.rest, item.depth)
      push_children(todo, item, shown)
    else
      lines[#lines + 1] = head .. item.text
    end
  end
end

local MAX_CYCLES = 10

-- The nodes of the path from the place on.
local function cycle_of(path, place)
  local cycle = {}
  for i = place, #path do cycle[#cycle + 1] = path[i].node end
  return cycle
end

-- Walks all ways once; one that comes back to a node of itself is a cycle. At most MAX_CYCLES are found.
local function find_cycles(nodes)
  local cycles, place, done = {}, {}, {}
  for _, root in ipairs(nodes) do
    local path = done[root] and {} or { { node = root, next = 1 } }
    if path[1] then place[root] = 1 end
    while #path > 0 do
      local top = path[#path]
      local awaited = top.node.awaits[top.next]
      top.next = top.next + 1
      if not awaited then
        done[top.node], place[top.node], path[#path] = true, nil, nil
      elseif place[awaited] then
        if #cycles < MAX_CYCLES then cycles[#cycles + 1] = cycle_of(path, place[awaited]) end
      elseif not done[awaited] then
        path[#path + 1] = { node = awaited, next = 1 }
        place[awaited] = #path
      end
    end
  end
  return cycles
end

local MAX_NAMES = 20

local function describe_cycle(cycle)
  local names = {}
  for i = 1, math.min(#cycle, MAX_NAMES) do names[i] = cycle[i].name end
  if #cycle > MAX_NAMES then names[#names + 1] = ("(%d more)"):format(#cycle - MAX_NAMES) end
  names[#names + 1] = cycle[1].name
  return "cycle: " .. table.concat(names, " → ")
end

-- The cycles, the trees of those whom nobody awaits, and then what is left: who waits in a circle.
local function add_forest(lines, nodes)
  local shown = {}
  for _, cycle in ipairs(find_cycles(nodes)) do lines[#lines + 1] = describe_cycle(cycle) end
  for _, node in ipairs(nodes) do
    if #node.awaited_by == 0 then add_tree(lines, node, shown) end
  end
  for _, node in ipairs(nodes) do
    if not shown[node] then add_tree(lines, node, shown) end
  end
end

local function count(n)
  return n == 1 and "1 task" or n .. " tasks"
end

-- ---- what is asked for ----------------------------------------------------------------------------------------------

-- The frames of what runs when the question interrupts it, as a list of lines.
local function add_running(lines, running)
  if not running or #running == 0 then return end
  lines[#lines + 1] = "running:"
  add_frames(lines, "        ", running)
end

--- The tree of all tasks.
---@param running? table[] the frames of the Lua code that was interrupted, the oldest first
---@return string
function tools.pstree(running)
  local nodes = graph.snapshot()
  local lines = { count(#nodes) }
  if #nodes == 0 then lines[1] = "no tasks" end
  add_forest(lines, nodes)
  add_running(lines, running)
  return table.concat(lines, "\n") .. "\n"
end

local COLUMNS = { "task id", "task name", "waits for", "stack", "awaited by" }

local function stack_of(node)
  return table.concat(show_frames(frames_of(node)), " <- ")
end

local MAX_AWAITERS = 3

local function awaiters_of(node)
  local names = {}
  for i = 1, math.min(#node.awaited_by, MAX_AWAITERS) do names[i] = node.awaited_by[i].name end
  local more = #node.awaited_by - MAX_AWAITERS
  if more > 0 then names[#names + 1] = ("(%d more)"):format(more) end
  return table.concat(names, ", ")
end

local function row_of(node)
  local waits = graph.describe(node):gsub("^waits for ", "")
  return { ("%p"):format(node.task), node.name, waits, stack_of(node), awaiters_of(node) }
end

-- Left-aligned columns; the last one as it is.
local function format_rows(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, text in ipairs(row) do widths[i] = math.max(widths[i] or 0, math.min(#text, 60)) end
  end
  local lines = {}
  for n, row in ipairs(rows) do
    local cells = {}
    for i, text in ipairs(row) do cells[i] = text .. (" "):rep(i < #row and widths[i] - #text or 0) end
    lines[n] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return lines
end

--- The list of all tasks, a line each.
---@param running? table[]
---@return string
function tools.ps(running)
  local rows = { COLUMNS }
  for _, node in ipairs((graph.snapshot())) do rows[#rows + 1] = row_of(node) end
  local lines = #rows > 1 and format_rows(rows) or { "no tasks" }
  add_running(lines, running)
  return table.concat(lines, "\n") .. "\n"
end

--- Where Lua is, and in which task: the rest of the watchdog's line and the lines below it.
---@param running table[]
---@return string
function tools.where(running)
  local lines = {}
  local ok, task = pcall(core.current_task)
  lines[1] = ok and task and (" in task %s, at"):format(task:get_name()) or " at"
  add_frames(lines, "        ", running)
  return table.concat(lines, "\n") .. "\n"
end

--- The answer to a question from outside.
---@param kind string "ps", "pstree" or "where"
---@param interrupted boolean a script's code was interrupted for it: tell where
function tools.answer(kind, interrupted)
  local running = interrupted and without_own(core.running_frames(MAX_FRAMES + 1 + MAX_OWN))
  return tools[kind](running or nil)
end

return tools
