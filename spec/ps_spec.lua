-- ps_spec.lua: questions to a running interpreter: SIGQUIT, `aloop ps PID`, `aloop pstree PID`.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"

-- A child with its stderr in its stdout, in which the output can be waited for.
local function start(script, flags)
  return helper.start(script, { merge = true, flags = flags, timeout = 30 })
end

local function finish(child)
  child:kill("KILL")
  child:wait()
end

local function ask(command, pid, patience)
  return helper.run_program({ helper.aloop, command, tostring(pid) },
    { timeout = 60, env = { ALOOP_PS_TIMEOUT = patience or "20" } })
end

-- Reads lines up to one that matches; returns all of them as one text.
local function read_to(child, pattern)
  local lines = {}
  repeat
    local line = assert(child:read_line(), "the output ends without " .. pattern .. ":\n" .. table.concat(lines, "\n"))
    lines[#lines + 1] = line
  until line:find(pattern)
  return table.concat(lines, "\n")
end

-- Asks until the answer says that the program has come to where it stays.
local function settle(child, pattern)
  for _ = 1, 100 do
    local result = ask("pstree", child.pid)
    assert.equal(0, result.code, result.stderr)
    if result.stdout:find(pattern) and (pattern:find("running") or not result.stdout:find("running", 1, true)) then
      return result.stdout
    end
  end
  error("the program does not come to " .. pattern)
end

local SLEEPERS = [[
  io.stdout:setvbuf("line")
  local aloop = require "aloop"
  local function nap() aloop.sleep(1000) return 1 end
  local sleeper = aloop.create_task(function() local x = nap() return x end, { name = "sleeper" })
  print("ready")
  sleeper:await()
]]

-- Busy for ever, after a line; the strings give the thread sanitizer occasions to run signal handlers.
local SPIN = [[
  io.stdout:setvbuf("line")
  local function spin()
    print("ready")
    local x = 0
    while true do x = #tostring(x) + 1 end
  end
]]

describe("SIGQUIT", function()
  it("writes the tree of a sleeping program to stderr, and the program goes on", function()
    local child = start((SLEEPERS:gsub("aloop.sleep%(1000%) return 1", [[
      local until_told = aloop.get_running_loop():create_future()
      aloop.get_running_loop():add_signal_handler("SIGUSR1", function() until_told:set_result() end)
      until_told:await() print("went on") return 1
    ]])))
    child:read_until("ready")
    settle(child, "waits for <Future")
    for _ = 1, 3 do
      child:kill("QUIT")
      local text = read_to(child, "function .*:7$")
      assert.matches("aloop: tasks of process " .. child.pid .. ": 2 tasks\n", text)
      assert.matches("%(T%) [%w-]+: waits for task sleeper", text)
      assert.matches("%(T%) sleeper: waits for <Future at 0x%x+>", text)
      assert.matches("nap .*:%d+", text)
    end
    child:kill("USR1")
    child:read_until("went on")
    assert.equal(0, child:wait().code)
  end)

  it("tells the line of a busy loop, in a task", function()
    local child = start("local aloop = require 'aloop' aloop.sleep(0)\n" .. SPIN .. "spin()")
    child:read_until("ready")
    settle(child, "running:\n%s+spin .*:6")
    for _ = 1, 2 do
      child:kill("QUIT")
      local text = read_to(child, "main chunk .*:8$")
      assert.matches("1 task\n", text)
      assert.matches("%(T%) Task%-1: running\n%s+spin .*:6\n", text)
      text = read_to(child, "main chunk .*:8$")
      assert.matches("running:\n%s+spin .*:6\n", text)
    end
    finish(child)
  end)

  it("tells the line of a busy loop in a coroutine of a plain callback", function()
    local child = start("local aloop = require 'aloop'\n" .. SPIN .. [[
      aloop.get_event_loop():call_soon(function() coroutine.wrap(function() spin() end)() end)
      aloop.sleep(1000)
    ]])
    child:read_until("ready")
    settle(child, "running:\n%s+spin .*:6")
    child:kill("QUIT")
    local text = read_to(child, "spin .*:6$")
    assert.matches("waits for timer, %d+%.%d+ s left", text)
    assert.matches("\nrunning:\n", text)
    finish(child)
  end)

  it("before any loop says that there are no tasks, and the line", function()
    local child = start(SPIN .. "spin()")
    child:read_until("ready")
    settle(child, "running:\n%s+spin .*:5")
    child:kill("QUIT")
    local text = read_to(child, "main chunk")
    assert.matches("^aloop: tasks of process %d+: no tasks\nrunning:\n%s+spin .*:5\n%s+main chunk .*:7$", text)
    finish(child)
  end)

  it("leaves a hook of the script's in place", function()
    local child = start [[
      io.stdout:setvbuf("line")
      local n = 0
      debug.sethook(function() n = n + 1 end, "", 1000)
      print("ready")
      local x = 0
      repeat x = #tostring(x) + 1 until n > 1000
      local seen = n
      repeat x = #tostring(x) + 1 until n > seen + 2000
      print("hooked", debug.gethook() ~= nil, select(3, debug.gethook()))
    ]]
    child:read_until("ready")
    child:kill("QUIT")
    read_to(child, "main chunk")
    child:read_until("hooked\ttrue\t1000")
    assert.equal(0, child:wait().code)
  end)

  it("does not hinder SIGINT, nor SIGINT it", function()
    local child = start(SPIN .. "spin()")
    child:read_until("ready")
    child:kill("QUIT")
    child:kill("INT")
    local text = read_to(child, "KeyboardInterrupt")
    if not text:find("running:", 1, true) then text = read_to(child, "main chunk") end
    assert.equal(130, child:wait().code, text)
  end)

  it("is the script's, if it has a handler of its own, and ours again afterwards", function()
    local child = start [[
      io.stdout:setvbuf("line")
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      local got = loop:create_future()
      loop:add_signal_handler("SIGQUIT", function() got:set_result() end)
      print("ready")
      got:await()
      loop:remove_signal_handler("SIGQUIT")
      print("mine")
      aloop.sleep(1000)
    ]]
    child:read_until("ready")
    child:kill("QUIT")
    assert.equal("mine", child:read_line())
    child:kill("QUIT")
    assert.matches("tasks of process", child:read_line())
    finish(child)
  end)

  it("is left alone in a stock Lua", function()
    if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer's module doesn't load there
    local child = helper.start_program({ os.getenv("ALOOP_LUA") or "lua5.4", "-e",
      [[local aloop = require "aloop" print("ready") io.stdout:flush() aloop.run(function() aloop.sleep(1000) end)]] },
      { env = { LUA_CPATH = helper.build .. "/?.so" }, before = "ulimit -c 0", timeout = 30 })
    child:read_until("ready")
    child:kill("QUIT")
    assert.equal(3, child:wait().signal)
  end)

  it("is ended by nothing but its own end: many at once", function()
    local child = start(SLEEPERS)
    child:read_until("ready")
    for _ = 1, 50 do child:kill("QUIT") end
    read_to(child, "sleeper: waits for timer")
    local result = ask("ps", child.pid)
    assert.equal(0, result.code, result.stderr)
    finish(child)
  end)
end)

describe("aloop ps and pstree", function()
  it("show a sleeping program", function()
    local child = start(SLEEPERS)
    child:read_until("ready")
    settle(child, "sleeper: waits for timer")
    local tree = ask("pstree", child.pid)
    assert.same({ 0, "" }, { tree.code, tree.stderr })
    assert.matches("^2 tasks\n└── %(T%) [%w-]+: waits for task sleeper\n", tree.stdout)
    assert.matches("\n    └── %(T%) sleeper: waits for timer, %d+%.%d+ s left\n%s+nap .*:3\n%s+function .*:4\n$",
      tree.stdout)
    local list = ask("ps", child.pid)
    assert.same({ 0, "" }, { list.code, list.stderr })
    assert.matches("^task id +task name +waits for +stack +awaited by\n", list.stdout)
    assert.matches("\n0x%x+ +sleeper +timer, %d+%.%d+ s left +nap .*:3 <%- function .*:4 +%S+\n", list.stdout)
    assert.equal(3, select(2, list.stdout:gsub("\n", "")))
    finish(child)
  end)

  it("show a program that is stuck in a busy loop", function()
    local child = start(SPIN .. "spin()")
    child:read_until("ready")
    settle(child, "running:\n%s+spin .*:5")
    for _, command in ipairs { "ps", "pstree" } do
      local result = ask(command, child.pid)
      assert.same({ 0, "" }, { result.code, result.stderr })
      assert.matches("^no tasks\nrunning:\n%s+spin .*:5\n%s+main chunk .*:7\n$", result.stdout)
    end
    finish(child)
  end)

  it("show ten thousand tasks whole", function()
    local child = start [[
      io.stdout:setvbuf("line")
      local aloop = require "aloop"
      local list = {}
      for i = 1, 10000 do list[i] = aloop.create_task(function() aloop.sleep(1000) end, { name = "t" .. i }) end
      aloop.create_task(function() aloop.sleep(0) aloop.get_running_loop():call_soon(print, "ready") end)
      aloop.wait(list)
    ]]
    child:read_until("ready")
    local tree = ask("pstree", child.pid)
    assert.same({ 0, "" }, { tree.code, tree.stderr })
    assert.equal(10001, select(2, tree.stdout:gsub("%(T%)", "")))
    assert.is_truthy(tree.stdout:find("%(T%) t10000: [^\n]*\n[^\n]*\n$")) -- assert.matches takes its time
    finish(child)
  end)

  it("answer several askers", function()
    local child = start(SLEEPERS)
    child:read_until("ready")
    settle(child, "sleeper: waits for timer")
    local askers = {}
    for i = 1, 8 do
      askers[i] = helper.start_program({ helper.aloop, i % 2 == 0 and "ps" or "pstree", tostring(child.pid) })
    end
    for i, asker in ipairs(askers) do
      local result = asker:wait()
      assert.equal(0, result.code, result.stderr)
      assert.matches(i % 2 == 0 and "^task id" or "^2 tasks", result.stdout)
    end
    finish(child)
  end)

  it("leave nothing on disk and no descriptor", function()
    local child = start(SLEEPERS)
    child:read_until("ready")
    settle(child, "sleeper: waits for timer")
    local function count()
      return select(2, helper.run_program({ "ls", "/proc/" .. child.pid .. "/fd" }).stdout:gsub("\n", ""))
    end
    local before = count()
    for _ = 1, 3 do assert.equal(0, ask("ps", child.pid).code) end
    assert.equal(before, count())
    finish(child)
  end)

  it("tell of a process that there is not, or that is no aloop", function()
    local result = ask("ps", 2 ^ 22 | 0)
    assert.same({ 1, "", "aloop ps: there is no process 4194304\n" }, { result.code, result.stdout, result.stderr })
    local other = helper.start_program({ "sleep", "30" })
    for _, command in ipairs { "ps", "pstree" } do
      result = ask(command, other.pid)
      local text = ("aloop %s: process %d is no aloop interpreter\n"):format(command, other.pid)
      assert.same({ 1, "", text }, { result.code, result.stdout, result.stderr })
    end
    assert.equal(0, helper.run_program({ "sh", "-c", "kill -0 " .. other.pid }).code) -- it lives
    finish(other)
  end)

  it("tell of a process that catches the signal and gives no answer", function()
    local other = helper.start_program({ "perl", "-e", '$| = 1; $SIG{URG} = sub {}; print "ready\n"; sleep 1 while 1' })
    other:read_until("ready")
    local result = ask("ps", other.pid, "0.5")
    assert.same({ 1, "" }, { result.code, result.stdout })
    assert.matches("^aloop ps: no answer from process %d+ within 0.5 seconds", result.stderr)
    finish(other)
  end)

  it("tell of a process that is stopped", function()
    local child = start(SLEEPERS)
    child:read_until("ready")
    child:kill("STOP")
    local result = ask("ps", child.pid)
    assert.same({ 1, "" }, { result.code, result.stdout })
    assert.equal(("aloop ps: no answer: process %d is stopped\n"):format(child.pid), result.stderr)
    finish(child)
  end)

  it("tell of a process that ends meanwhile", function()
    local other = helper.start_program({ "perl", "-e", '$| = 1; $SIG{URG} = sub { exit }; print "ready\n"; sleep 60' })
    other:read_until("ready")
    local result = ask("ps", other.pid)
    assert.equal(1, result.code)
    assert.matches("^aloop ps: process %d+ has ended\n$", result.stderr)
    other:wait()
  end)

  it("refuse the process of another user", function()
    if helper.run_program({ "id", "-u" }).stdout ~= "0\n" then
      pending("only root can start one") -- luacheck: ignore 113
      return
    end
    local child = helper.start_program({ "perl", "-e", '$< = $> = 65534; $| = 1; print "ready\n"; sleep 30' })
    child:read_until("ready")
    local result = ask("ps", child.pid)
    assert.same({ 1, "" }, { result.code, result.stdout })
    assert.matches("^aloop ps: process %d+ belongs to another user", result.stderr)
    finish(child)
    child = start(SLEEPERS)
    child:read_until("ready")
    local dir, remove = helper.temporary_directory() -- the other user may not be allowed where ours stands
    local copy = dir .. "/aloop"
    assert.equal(0, helper.run_program({ "cp", helper.aloop, copy }).code)
    assert.equal(0, helper.run_program({ "chmod", "755", dir, copy }).code)
    local argv = { "perl", "-e", "$< = $> = 65534; exec @ARGV or exit 126", copy, "ps", tostring(child.pid) }
    result = helper.run_program(argv, { dir = "/" })
    remove()
    assert.same({ 1, "" }, { result.code, result.stdout })
    finish(child)
  end)

  it("tell how they are called", function()
    for _, args in ipairs { {}, { "x" }, { "-1" }, { "0" }, { "1", "2" }, { "99999999999999999999" }, { "" } } do
      local result = helper.run_program({ helper.aloop, "pstree", table.unpack(args) })
      assert.same({ 1, "", "usage: aloop pstree PID\n" }, { result.code, result.stdout, result.stderr })
    end
    local help = helper.run_program({ helper.aloop, "--help" }).stdout
    assert.matches("ps PID", help)
    assert.matches("pstree PID", help)
    assert.matches("%-X watchdog=SECONDS", help)
  end)

  it("leave scripts of these names to be run by a path", function()
    local dir, remove = helper.temporary_directory { ps = "print('a script', ...)" }
    local result = helper.run_program({ helper.aloop, "./ps", "1" }, { dir = dir })
    assert.same({ 0, "a script\t1\n" }, { result.code, result.stdout })
    result = helper.run_program({ helper.aloop, "--", "ps", "1" }, { dir = dir })
    assert.same({ 0, "a script\t1\n" }, { result.code, result.stdout })
    remove()
  end)
end)
