-- programs.lua - what is measured: the programs, how each is started, what it needs. Used by the runner and parts.lua.
--
-- A program has a name; functions named as the parts' kinds (or `starts`) build its command line for them (absent: it
-- doesn't take part). `needs` says why it can't run here, or nil; `lacks` the same of some of these functions; those
-- with `extra` are measured only when named.
--
-- SPDX-License-Identifier: MIT
local certs = require "lib.certs"
local shell = require "lib.shell"

---@class Program
---@field name string
---@field echo? fun(where: string): string[]
---@field sock? fun(where: string): string[]
---@field udp? fun(): string[]
---@field sendfile? fun(): string[]
---@field streams? fun(where: string): string[]
---@field lines? fun(where: string): string[]
---@field http? fun(): string[]
---@field redis? fun(): string[]
---@field drain? fun(): string[]
---@field tls? fun(): string[]
---@field tlsstreams? fun(): string[]
---@field work? fun(bench: string): string[]
---@field flood? fun(): string[]
---@field works? table<string, boolean> of children and executors that it has; absent: all
---@field inproc? fun(bench: string): string[]
---@field benches? table<string, boolean> the in-process benchmarks that it has; absent: all
---@field startup? fun(): string[]
---@field needs fun(): string|nil
---@field lacks? table<string, fun(): string|nil>
---@field extra? boolean

---@class Paths
---@field build string where `make bench-programs` put the C programs, without /bench
---@field source string this directory
---@field aloop string
---@field lua string
---@field python string
---@field tls string where the certificate is, or will be

local function set(list)
  local result = {}
  for name in list:gmatch "%S+" do result[name] = true end
  return result
end

-- Runs a check that needs more than a file, once.
local function probe(argv, reason)
  local known
  return function()
    if known == nil then
      local _, ok, errors = shell.run(argv)
      known = not ok and (reason or errors:gsub("%s+$", "")) or false
    end
    return known or nil
  end
end

local function c_programs(paths)
  local function bin(name) return paths.build .. "/bench/" .. name end
  local pair = certs.paths(paths.tls)
  local function tls() return { bin "echo_tls", pair.certificate, pair.key } end
  local function built(name) return probe({ "test", "-x", bin(name) }, "not built (make bench-programs)") end
  local programs = {
    {
      name = "c",
      needs = built "echo_epoll",
      echo = function(where) return { bin "echo_epoll", where } end,
      sock = function(where) return { bin "echo_epoll", where } end,
      udp = function() return { bin "echo_udp" } end,
      sendfile = function() return { bin "sendfile" } end,
      streams = function(where) return { bin "echo_epoll", where } end,
      lines = function(where) return { bin "echo_epoll", where } end,
      http = function() return { bin "http_epoll" } end,
      tls = tls,
      tlsstreams = tls,
      work = function(bench) return { bin "children", bench } end,
      works = set "true cat",
      inproc = function(bench)
        if bench:find "^switch" or bench == "tasks" or bench == "queue" then return { bin "coro", "pair" } end
        return { bin "loop_ref", bench }
      end,
      benches = set "chain soon timers cancel reset switch switch100 tasks",
    },
    { name = "c-ring", needs = built "echo_uring", echo = function(where) return { bin "echo_uring", where } end },
  }
  for _, machine in ipairs { "epoll", "uring" } do
    programs[#programs + 1] = {
      name = "core-" .. machine,
      needs = probe({ bin "echo_core", machine, "check" }),
      echo = function(where) return { bin "echo_core", machine, where } end,
      tls = function() return { bin "echo_core", machine, "tcp", pair.certificate, pair.key } end,
      inproc = function(bench) return { bin "loop_core", machine, bench } end,
      benches = set "chain soon timers cancel reset",
    }
  end
  return programs
end

-- A server that can be made has all that is needed; the certificate may not be there yet.
local TLS_SERVER = [[
local aloop = require "aloop"
local context = aloop.ssl.SSLContext(aloop.ssl.PROTOCOL_TLS_SERVER)
aloop.get_event_loop():create_server(aloop.Protocol, "127.0.0.1", 0, { ssl = context }):close()
]]

local function aloop_programs(paths)
  local programs = {}
  local pair = certs.paths(paths.tls)
  local function has(name)
    return probe({ paths.aloop, "-e", "assert(require'aloop'." .. name .. ")" }, "there is no aloop." .. name)
  end
  local ssl = probe({ paths.aloop, "-e", TLS_SERVER }, "it has no TLS")
  local pools, children = has "ThreadPoolExecutor", has "create_subprocess_exec"
  local function lacks_work(bench) return (bench == "jobs" and pools or children)() end
  for _, loop in ipairs { { "epoll" }, { "ring", "-X", "proactor" } } do
    local name = "aloop-" .. loop[1]
    local function run(...)
      local argv = { paths.aloop, table.unpack(loop, 2) }
      return table.move({ ... }, 1, select("#", ...), #argv + 1, argv)
    end
    local needs = probe(run("-e", "require'aloop'.get_event_loop()"))
    programs[#programs + 1] = {
      name = name,
      needs = needs,
      lacks = { tls = ssl, tlsstreams = ssl, work = lacks_work, flood = children },
      echo = function(where) return run(paths.source .. "/aloop/echo.lua", "protocol", where) end,
      sock = function() return run(paths.source .. "/aloop/echo_sock.lua") end,
      udp = function() return run(paths.source .. "/aloop/echo_udp.lua") end,
      sendfile = function() return run(paths.source .. "/aloop/sendfile.lua") end,
      streams = function(where) return run(paths.source .. "/aloop/echo.lua", "streams", where) end,
      lines = function(where) return run(paths.source .. "/aloop/echo.lua", "lines", where) end,
      http = function() return run(paths.source .. "/../examples/http_server.lua") end,
      redis = function() return run(paths.source .. "/../examples/redis_server.lua", "0") end,
      drain = function() return run(paths.source .. "/aloop/drain.lua") end,
      tls = function() return run(paths.source .. "/aloop/echo.lua", "protocol", "tcp", pair.certificate, pair.key) end,
      tlsstreams = function()
        return run(paths.source .. "/aloop/echo.lua", "streams", "tcp", pair.certificate, pair.key)
      end,
      work = function(bench) return run(paths.source .. "/aloop/work.lua", bench) end,
      flood = function() return run(paths.source .. "/aloop/flood.lua", paths.build .. "/bench/flood") end,
      inproc = function(bench) return run(paths.source .. "/aloop/inproc.lua", bench) end,
    }
    programs[#programs + 1] = { -- children by transport and protocol, where the others have a Process and streams
      name = name .. "-p",
      needs = needs,
      lacks = { work = lacks_work },
      work = function(bench) return run(paths.source .. "/aloop/work.lua", bench .. ".p") end,
      works = set "true cat",
    }
    programs[#programs + 1] = {
      name = name .. "-buf",
      needs = needs,
      echo = function(where) return run(paths.source .. "/aloop/echo.lua", "buffered", where) end,
    }
  end
  programs[1].startup = function() return { paths.aloop, "-e", "" } end
  return programs
end

local function lua_programs(paths)
  local peers = paths.source .. "/peers/"
  local function lua(script, ...) return { paths.lua, peers .. script, ... } end
  local luv = probe({ paths.lua, "-e", "require'luv'" }, "lua-luv is not installed")
  local cqueues = probe({ paths.lua, "-e", "require'cqueues'" }, "lua-cqueues is not installed")
  return {
    {
      name = "lua",
      needs = function() end,
      inproc = function(bench) return lua("lua_inproc.lua", bench) end,
      benches = set "alive",
      startup = function() return { paths.lua, "-e", "" } end,
    },
    {
      name = "luv",
      needs = luv,
      echo = function(where) return lua("luv_echo.lua", "try_write", where) end,
      udp = function() return lua "luv_udp.lua" end,
      http = function() return lua "luv_http.lua" end,
      inproc = function(bench) return lua("luv_inproc.lua", bench) end,
      benches = set "timers cancel reset switch switch100",
      work = function(bench) return lua("luv_work.lua", bench) end,
    },
    { name = "luv-write", needs = luv, echo = function(where) return lua("luv_echo.lua", "write", where) end },
    {
      name = "cqueues",
      needs = cqueues,
      echo = function(where) return lua("cqueues_echo.lua", where) end,
      streams = function(where) return lua("cqueues_echo.lua", where) end,
      lines = function(where) return lua("cqueues_echo.lua", where, "lines") end,
      inproc = function(bench) return lua("cqueues_inproc.lua", bench) end,
      benches = set "switch switch100 tasks",
    },
  }
end

local function python_programs(paths)
  local programs = {}
  local pair = certs.paths(paths.tls)
  for _, name in ipairs { "uvloop", "asyncio" } do
    local needs = probe({ paths.python, "-c", "import " .. name }, name .. " is not installed for " .. paths.python)
    local function py(script, ...) return { paths.python, paths.source .. "/peers/" .. script, name, ... } end
    programs[#programs + 1] = {
      name = name,
      needs = needs,
      echo = function(where) return py("py_echo.py", "protocol", where) end,
      sock = function() return py "py_sock.py" end,
      udp = function() return py "py_udp.py" end,
      sendfile = name == "asyncio" and function() return py "py_sendfile.py" end or nil,
      streams = function(where) return py("py_echo.py", "streams", where) end,
      lines = function(where) return py("py_echo.py", "lines", where) end,
      http = function() return py "py_http.py" end,
      drain = function() return py "py_drain.py" end,
      tls = function() return py("py_echo.py", "protocol", "tcp", pair.certificate, pair.key) end,
      tlsstreams = function() return py("py_echo.py", "streams", "tcp", pair.certificate, pair.key) end,
      work = function(bench) return py("py_work.py", bench) end,
      flood = function() return py("py_flood.py", paths.build .. "/bench/flood") end,
      inproc = function(bench) return py("py_inproc.py", bench) end,
      benches = set "chain soon timers cancel reset switch switch100 tasks alive timeouts queue",
    }
    programs[#programs + 1] = { -- what the parts for streams are compared with, too
      name = name .. "-p",
      needs = needs,
      streams = function(where) return py("py_echo.py", "protocol", where) end,
      lines = function(where) return py("py_echo.py", "protocol", where) end,
    }
    programs[#programs + 1] = {
      name = name .. "-buf",
      needs = needs,
      extra = true,
      echo = function(where) return py("py_echo.py", "buffered", where) end,
    }
  end
  return programs
end

local function other_programs(paths)
  local peers = paths.source .. "/peers/"
  local pair = certs.paths(paths.tls)
  return {
    {
      name = "node",
      needs = probe({ "node", "--version" }, "nodejs is not installed"),
      echo = function(where) return { "node", peers .. "node_echo.js", where } end,
      http = function() return { "node", peers .. "node_http.js" } end,
      tls = function() return { "node", peers .. "node_echo.js", "tcp", pair.certificate, pair.key } end,
      inproc = function(bench) return { "node", peers .. "node_inproc.js", bench } end,
      benches = set "chain soon timers cancel reset reset.cancel switch tasks alive",
    },
    {
      name = "nginx",
      needs = probe({ "nginx", "-v" }, "nginx is not installed"),
      http = function() return { paths.build .. "/bench/http_nginx", "@PATH@" } end,
    },
    {
      name = "redis",
      needs = probe({ "redis-server", "--version" }, "redis-server is not installed"),
      redis = function() return { paths.build .. "/bench/redis_real", "@PATH@" } end,
    },
  }
end

--- All programs, the baseline first.
---@param paths Paths
---@return Program[]
return function(paths)
  local all = {}
  for _, make in ipairs { c_programs, aloop_programs, lua_programs, python_programs, other_programs } do
    for _, program in ipairs(make(paths)) do all[#all + 1] = program end
  end
  return all
end
