-- layers.lua: reads each #include and each require of the tree and fails on an arrow that the plan of the house
-- forbids.
-- `make lint` runs it at the top of the tree with a plain Lua 5.4. The rules:
--   core/      A file uses headers of its own rung and of those below; the headers of rung 2, the machines, are
--              nobody's but their own; Lua is unknown, the ring's library is known to the ring alone, and OpenSSL's
--              headers are included by openssl.h alone.
--   bindings/  Of core they know aloop.h, openssl.h and nothing else; nothing includes main.
--   examples   Public headers only (aloop.h, aloop_lua.h). The C programs of the specs may look inside core.
--   lua/       A module requires aloop.core and other modules of aloop, never `aloop` itself, which gathers them.
--   Nowhere do headers or modules go round in a circle.
-- SPDX-License-Identifier: MIT

-- The rung of each file of core, by its name without .c or .h; * stands for anything.
local RUNGS = {
  [0] = "aloop base mem err log heap buf addr sock openssl openssl_names",
  [1] = "loop handle timer clock wakeup executor debug watch io",
  [2] = "machine selector sel_* io_ready io_uring uring uring_* io_noring",
  [3] = "transport stream datagram pipe server",
  [4] = "resolve signal process spawn clone child sigchld sendfile tls_ctx tls_error tls tls_io net",
}
local MACHINES = 2
local PUBLIC = { ["aloop.h"] = true, ["aloop_lua.h"] = true }
local OF_CORE = { ["aloop.h"] = true, ["openssl.h"] = true } -- that bindings may include
local LUA_HEADERS = { ["lua.h"] = true, ["lauxlib.h"] = true, ["lualib.h"] = true, ["luaconf.h"] = true }

local complaints = {}

local function complain(file, line, format, ...)
  complaints[#complaints + 1] = ("%s:%d: %s"):format(file, line, format:format(...))
end

local function rung_of(name)
  local stem = name:gsub("%.[ch]$", "")
  for rung, names in pairs(RUNGS) do
    for pattern in names:gmatch("%S+") do
      if stem:find("^" .. pattern:gsub("%*", ".*") .. "$") then return rung end
    end
  end
  return nil
end

local function list(pattern)
  local files = {}
  local pipe = assert(io.popen("ls -d " .. pattern .. " 2>/dev/null"))
  for file in pipe:lines() do files[#files + 1] = file end
  pipe:close()
  return files
end

-- Each match of the patterns in a file's lines: (line number, match, was it "quoted" or <angled>).
local function arrows(file, pattern)
  local found, n = {}, 0
  for line in io.lines(file) do
    n = n + 1
    for before, open, name in line:gmatch("()" .. pattern) do
      found[#found + 1] = { line = n, open = open, name = name, before = line:sub(1, before - 1) }
    end
  end
  return found
end

local function includes(file)
  return arrows(file, '#%s*include%s*([<"])([^>"]+)[>"]')
end

-- graph[from][to] = line of the arrow. Complains of each circle once.
local function check_circles(graph)
  local state = {}
  local function walk(node, path)
    state[node] = "open"
    path[#path + 1] = node
    for to, line in pairs(graph[node] or {}) do
      if state[to] == "open" then
        complain(node, line, "goes round in a circle: %s -> %s", table.concat(path, " -> "), to)
      elseif not state[to] then
        walk(to, path)
      end
    end
    path[#path] = nil
    state[node] = "done"
  end
  local nodes = {}
  for node in pairs(graph) do nodes[#nodes + 1] = node end
  table.sort(nodes)
  for _, node in ipairs(nodes) do
    if not state[node] then walk(node, {}) end
  end
end

-- The arrows between the headers of one directory.
local function header_graph(dir)
  local graph = {}
  for _, file in ipairs(list(dir .. "/*.h")) do
    graph[file] = {}
    for _, arrow in ipairs(includes(file)) do
      if arrow.open == '"' then graph[file][dir .. "/" .. arrow.name] = arrow.line end
    end
  end
  return graph
end

local function check_core_include(file, rung, arrow)
  local name = arrow.name
  if LUA_HEADERS[name] then
    return complain(file, arrow.line, "core knows nothing of Lua, but includes %s", name)
  end
  if name == "liburing.h" then
    if not file:find("uring") then complain(file, arrow.line, "only the ring includes liburing.h") end
    return
  end
  if name:find("^openssl/") and file ~= "core/openssl.h" then complain(file, arrow.line, "use openssl.h") end
  if arrow.open ~= '"' or name == "openssl_calls.h" then return end -- made by the Makefile
  local target = rung_of(name)
  if not target then
    complain(file, arrow.line, "%s stands on no rung (or is not of core)", name)
  elseif target > rung then
    complain(file, arrow.line, "an arrow upward: rung %d includes %s of rung %d", rung, name, target)
  elseif target == MACHINES and rung ~= MACHINES then
    complain(file, arrow.line, "nothing above the machines names one: use io.h, not %s", name)
  end
end

local function check_core()
  for _, file in ipairs(list("core/*.[ch]")) do
    local rung = rung_of(file:match("[^/]+$"))
    if not rung then
      complain(file, 1, "stands on no rung: give it one in scripts/dev/layers.lua")
    else
      for _, arrow in ipairs(includes(file)) do check_core_include(file, rung, arrow) end
    end
  end
  check_circles(header_graph("core"))
end

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

local function check_bindings()
  for _, file in ipairs(list("bindings/*.[ch]")) do
    for _, arrow in ipairs(includes(file)) do
      local name = arrow.name
      if name == "liburing.h" then
        complain(file, arrow.line, "only the ring includes liburing.h")
      elseif name:find("^openssl/") then
        complain(file, arrow.line, "use openssl.h")
      elseif arrow.open == '"' and not OF_CORE[name] and not exists("bindings/" .. name) then
        complain(file, arrow.line, "of core bindings know aloop.h and openssl.h, yet this includes %s", name)
      elseif name == "main.h" then
        complain(file, arrow.line, "nothing includes main")
      end
    end
  end
  check_circles(header_graph("bindings"))
end

local function check_programs()
  for _, file in ipairs(list("scripts/examples/*.[ch] spec/c/*.[ch]")) do
    for _, arrow in ipairs(includes(file)) do
      local beside = file:gsub("[^/]+$", "") .. arrow.name
      local inside = file:find("^spec/") and exists("core/" .. arrow.name)
      if arrow.open == '"' and not PUBLIC[arrow.name] and not exists(beside) and not inside then
        complain(file, arrow.line, "an example uses aloop.h and aloop_lua.h, not %s", arrow.name)
      end
    end
  end
end

local function module_path(name)
  local path = "lua/" .. name:gsub("%.", "/")
  return exists(path .. ".lua") and path .. ".lua" or path .. "/init.lua"
end

-- require "x" and require("x"); a mention in a comment is none.
local function requires(file)
  local found = {}
  for _, arrow in ipairs(arrows(file, [=[require%s*%(?%s*(["'])([%w_.]+)["']]=])) do
    if not arrow.before:find("--", 1, true) then found[#found + 1] = arrow end
  end
  return found
end

local function check_lua()
  local graph = {}
  for _, file in ipairs(list("lua/*.lua lua/*/*.lua lua/*/*/*.lua")) do
    graph[file] = {}
    for _, arrow in ipairs(requires(file)) do
      if arrow.name == "aloop" then
        complain(file, arrow.line, "modules don't require aloop, which gathers them")
      elseif not arrow.name:find("^aloop%.") then
        complain(file, arrow.line, "requires %s, which is not of aloop", arrow.name)
      elseif arrow.name ~= "aloop.core" then
        graph[file][module_path(arrow.name)] = arrow.line
      end
    end
  end
  check_circles(graph)
end

check_core()
check_bindings()
check_programs()
check_lua()

for _, complaint in ipairs(complaints) do io.stderr:write(complaint, "\n") end
if #complaints > 0 then
  io.stderr:write(("layers: %d arrows that must not be\n"):format(#complaints))
  os.exit(1)
end
