-- parts.lua - the parts of the benchmark: what load each one is, and what aloop must reach in it. Used by the runner.
--
-- A part has a name, a `kind` (echo, sock, udp, sendfile, http, idle, inproc, startup: how it is measured, see
-- measure.lua), groups by which it can be chosen, and targets: `limit`, the most that an aloop program's lowest figure
-- may be, as a ratio to the baseline's (or `bytes`, in bytes), and `rival` = {program, factor}: how many times faster
-- than that it must be.
--
-- SPDX-License-Identifier: MIT

---@class Part
---@field name string
---@field kind "echo"|"sock"|"udp"|"sendfile"|"http"|"idle"|"inproc"|"startup"
---@field title string
---@field groups string
---@field baseline? string the program that ratios refer to; absent: "c"
---@field where? string
---@field load? string[] arguments of the load generator
---@field bench? string name of the in-process benchmark
---@field limit? number
---@field server? string idle: the kind of server; absent: echo
---@field bytes? number
---@field rival? { [1]: string, [2]: number }

local parts = {}

local function add(part)
  parts[#parts + 1] = part
end

local SIZES = {
  { "64", 64, "64 B" },
  { "1k", 1024, "1 KiB" },
  { "10k", 10240, "10 KiB" },
  { "100k", 102400, "100 KiB" },
}
local PLACES = { { "tcp", "tcp", "TCP" }, { "unix", "unix:@PATH@", "Unix" } }
local LIMITS = { tcp1k = 1.10, unix1k = 1.20 }

local function add_echo(name, title, where, load, groups, limit)
  add { name = name, kind = "echo", title = title, where = where, load = load, groups = groups, limit = limit }
end

for _, place in ipairs(PLACES) do
  for _, size in ipairs(SIZES) do
    local name = place[1] .. size[1]
    local limit = LIMITS[name]
    add_echo(name, ("%s echo, %s, 50 connections"):format(place[3], size[3]), place[2],
      { "-c", "50", "-s", tostring(size[2]) }, limit and "echo net targets quick" or "echo net", limit)
  end
end

local TARGETS = "echo net targets quick"
local STREAMS = "streams net targets quick"
add_echo("tcp64k", "TCP echo, 64 KiB, 50 connections", "tcp", { "-c", "50", "-s", "65536" }, TARGETS, 1.10)
add_echo("pipeline", "TCP echo, 64 B, 50 connections, 32 in flight on each", "tcp",
  { "-c", "50", "-s", "64", "-p", "32" }, TARGETS, 1.10)
add_echo("tcp1k500", "TCP echo, 1 KiB, 500 connections", "tcp", { "-c", "500", "-s", "1024" }, TARGETS, 1.20)
add_echo("connect", "connect, echo 64 B, close; 50 at once", "tcp", { "-m", "connect", "-c", "50", "-s", "64" },
  "net targets quick", 1.15)
add {
  name = "udp1k",
  kind = "udp",
  title = "UDP echo, 1 KiB, 20 clients; baseline: a loop of recvmsg and sendmsg",
  groups = "udp net targets quick",
  load = { "-c", "20", "-s", "1024" },
  limit = 1.20,
  rival = { "uvloop", 1 },
}
add { name = "streams", kind = "streams", title = "streams: TCP echo by read(n) and drain, 1 KiB, 50 connections",
  where = "tcp", load = { "-c", "50", "-s", "1024" }, groups = STREAMS, limit = 1.30, rival = { "uvloop-p", 1 } }
add { name = "lines", kind = "lines", title = "streams: TCP echo by readline and drain, 1 KiB, 50 connections",
  where = "tcp", load = { "-l", "-c", "50", "-s", "1024" }, groups = STREAMS, limit = 1.30, rival = { "uvloop-p", 1 } }
add {
  name = "sock",
  kind = "sock",
  title = "sock_recv and sock_sendall: TCP echo, 1 KiB, 50 connections",
  where = "tcp",
  groups = "sock net targets quick",
  load = { "-c", "50", "-s", "1024" },
  rival = { "uvloop", 1.5 },
}
add { name = "sendfile", kind = "sendfile", title = "a MiB of a GiB by sendfile to a sink: wall time",
  groups = "sendfile net targets quick", limit = 1.05 }
add { name = "http", kind = "http", title = "HTTP hello, wrk -c50", groups = "net targets quick", limit = 1.10 }
add {
  name = "idle",
  kind = "idle",
  title = "resident bytes of an idle connection, 10,000 connections",
  groups = "net targets quick",
  load = { "-m", "idle", "-c", "10000", "-s", "64" },
  bytes = 1024,
}

add {
  name = "idlestr",
  kind = "idle",
  server = "streams",
  title = "resident bytes of an idle connection of streams, its task and reader included, 10,000 connections",
  groups = STREAMS,
  load = { "-m", "idle", "-c", "10000", "-s", "64" },
  bytes = 2560,
}

local function add_inproc(bench, title, groups, limit, rival, baseline)
  add {
    name = bench, kind = "inproc", bench = bench, title = title, groups = groups, limit = limit, rival = rival,
    baseline = baseline,
  }
end

add_inproc("chain", "call_soon chain of 2 million", "loop targets quick", nil, { "uvloop", 4 })
add_inproc("soon", "1 million call_soon at once", "loop targets quick", nil, { "uvloop", 4 })
add_inproc("timers", "1 million timers scheduled and fired", "loop targets quick", nil, { "uvloop", 3 })
add_inproc("cancel", "1 million timers scheduled and cancelled", "loop targets quick", nil, { "uvloop", 4 })
add_inproc("reset", "100,000 timeouts reset again and again", "loop targets quick", nil, { "uvloop", 8 })
add_inproc("switch", "sleep(0) of one task; baseline: a coroutine.resume/yield pair", "loop targets quick", 2.5,
  { "uvloop", 5 })
add_inproc("switch100", "sleep(0) of 100 tasks; baseline: a coroutine.resume/yield pair", "loop targets quick", 2.5,
  { "uvloop", 5 })
add_inproc("tasks", "create and run a task; baseline: a coroutine.resume/yield pair", "loop")
add_inproc("alive", "500,000 tasks alive at once that wait once each; baseline: bare coroutines", "loop targets quick",
  1.5, { "uvloop", 4 }, "lua")
add_inproc("timeouts", "1 million timeout scopes entered and left", "loop targets quick", nil, { "uvloop", 2 })
add_inproc("queue", "an item to a task and back by two queues; baseline: a coroutine.resume/yield pair",
  "loop targets quick", nil, { "uvloop", 4 })

add {
  name = "startup",
  kind = "startup",
  title = "start and end of the interpreter, -e ''",
  groups = "targets quick",
  baseline = "lua",
  limit = 1.5,
}

return parts
