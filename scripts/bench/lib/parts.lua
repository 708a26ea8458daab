-- parts.lua - the parts of the benchmark: what load each one is, and what aloop must reach in it. Used by the runner.
--
-- A part has a name, a `kind` (how it is measured, see measure.lua), groups by which it can be chosen, and targets:
-- `limit`, the most that an aloop program's lowest figure may be, as a ratio to the baseline's (or `most`, in bytes or
-- ns), and `rival` = {program, factor}: how many times faster than that it must be. What a program is started by is
-- named after the kind, unless `starts` names it. `second` is another figure of the same samples, with targets of its
-- own.
--
-- SPDX-License-Identifier: MIT

---@class Part
---@field name string
---@field kind "echo"|"udp"|"sendfile"|"http"|"idle"|"cycles"|"drain"|"redis"|"inproc"|"work"|"flood"|"startup"
---@field title string
---@field needs? string a program that must be installed
---@field groups string
---@field starts? string what programs are started by; absent: as the kind is named
---@field baseline? string|false the program that ratios refer to; absent: "c"
---@field where? string
---@field load? string[] arguments of the load generator
---@field tls? boolean the load speaks TLS
---@field spoken? boolean idle: what connections cost that were spoken with
---@field rounds? integer the most that are taken
---@field unit? "ns"|"B" absent: ns
---@field bench? string name of the in-process benchmark
---@field limit? number
---@field most? number
---@field rival? { [1]: string, [2]: number }
---@field second? { name: string, title: string, baseline?: string, limit?: number, most?: number, unit?: "ns"|"B" }

local parts = {}

-- `more`: further fields.
local function add(part, more)
  for key, value in pairs(more or {}) do part[key] = value end
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

local function add_streams(name, how, load)
  add {
    name = name, kind = "echo", starts = name,
    title = ("streams: TCP echo by %s and drain, 1 KiB, 50 connections"):format(how),
    where = "tcp", load = load, groups = STREAMS, limit = 1.30, rival = { "uvloop-p", 1 },
  }
end

add_streams("streams", "read(n)", { "-c", "50", "-s", "1024" })
add_streams("lines", "readline", { "-l", "-c", "50", "-s", "1024" })
add {
  name = "sock",
  kind = "echo",
  starts = "sock",
  title = "sock_recv and sock_sendall: TCP echo, 1 KiB, 50 connections",
  where = "tcp",
  groups = "sock net targets quick",
  load = { "-c", "50", "-s", "1024" },
  rival = { "uvloop", 1.5 },
}
add { name = "sendfile", kind = "sendfile", title = "a MiB of a GiB by sendfile to a sink: wall time",
  groups = "sendfile net targets quick", limit = 1.05 }
add { name = "http", kind = "http", title = "HTTP hello, wrk -c50", groups = "net targets quick", needs = "wrk",
  limit = 1.10 }
add {
  name = "redis",
  kind = "redis",
  title = "a request to a Redis, redis-benchmark -t set,get -P 16: wall time; baseline: redis-server",
  second = { name = "redis.cpu", title = "the same: CPU of the server for one", baseline = "redis" },
  groups = "net targets quick",
  needs = "redis-benchmark",
  rounds = 4,
  baseline = "redis",
  limit = 2.5,
}

local function add_idle(name, starts, connections, what, more)
  add({
    name = name, kind = "idle", starts = starts, unit = "B", rounds = 2,
    title = ("resident bytes of an idle connection%s, %s connections"):format(what, connections),
    load = { "-m", "idle", "-c", (connections:gsub(",", "")), "-s", "64" },
  }, more)
end

add_idle("idle", "echo", "10,000", "", { groups = "net targets quick", most = 1024, baseline = false })
add_idle("idlestr", "streams", "10,000", " of streams, its task and reader included",
  { groups = STREAMS, most = 2560, baseline = false })
-- How many bytes a server's memory grows by, at most.
local function add_growth(name, title, groups, most, more)
  add({ name = name, kind = name, title = title, groups = groups, unit = "B", rounds = 2, baseline = false,
    most = most }, more)
end

add_growth("drain", "growth while a GiB is written with drain to a peer that reads nothing for a while, then all",
  "streams net targets", (64 + 512) * 1024) -- the high-water mark, and 512 KiB

-- TLS 1.3, TLS_AES_256_GCM_SHA384, X25519, ECDSA over P-256, in all of them; the load sees to it.
local function add_tls(name, title, load, groups, limit, starts)
  add {
    name = name, kind = "echo", starts = starts or "tls", tls = true, title = "TLS: " .. title, load = load,
    groups = groups, limit = limit,
  }
end

add_tls("tls1k", "echo, 1 KiB, 50 connections", { "-c", "50", "-s", "1024" }, "tls targets quick", 1.20)
add_tls("tls64k", "echo, 64 KiB, 50 connections", { "-c", "50", "-s", "65536" }, "tls targets quick", 1.05)
add_tls("tlsstr", "streams: echo by read(n) and drain, 1 KiB, 50 connections", { "-c", "50", "-s", "1024" },
  "tls streams", nil, "tlsstreams")
add_tls("tlsfull", "connect, full handshake, echo 64 B, close; 50 at once", { "-m", "connect", "-c", "50", "-s", "64" },
  "tls targets quick", 1.05)
add_tls("tlsresume", "the same, each handshake resumes an earlier session",
  { "-m", "connect", "-R", "-c", "50", "-s", "64" }, "tls targets quick", 1.05)
add_idle("tlsidle", "tls", "2,000", " of TLS",
  { tls = true, spoken = true, groups = "tls targets quick", most = 20480 })
add_growth("tlscycles", "TLS: growth over many connections, half of them given up before the handshake has ended",
  "tls targets quick", 2 << 20, -- 200 B a connection: a heap that finds its size, not one that grows
  { kind = "cycles", starts = "tls", tls = true, rounds = 1 })

local function add_work(bench, title, groups, more)
  add({ name = bench, kind = "work", bench = bench, title = title, groups = groups .. " targets quick" }, more)
end

-- Children inherit whatever core and priority their parent has: nothing is pinned.
add_work("true", "2,000 runs of /bin/true, 8 in flight: wall time of one", "processes", {
  rounds = 5,
  limit = 1.1,
  second = { name = "true.cpu", title = "the same: CPU of the parent for one", limit = 3 },
})
add_work("cat", "100 runs of cat with a MiB in and out at once: wall time of one", "processes", {
  rounds = 5,
  limit = 1.8,
  second = { name = "cat.cpu", title = "the same: CPU of the parent for one" },
})
add_growth("flood", "growth while a child writes a GiB to stdout and one to stderr at once, and is read after a while",
  "processes targets", 2 << 20) -- bounded: readers of 64 KiB, pipes, garbage
add_work("jobs", "200,000 jobs that do nothing in the default executor, 100 in flight: wall time of one", "executors", {
  rounds = 4,
  most = 3000,
  second = { name = "jobs.cpu", title = "the same: CPU of all threads for one" },
})

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
