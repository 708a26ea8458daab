-- Shows a supervisor: it keeps its children running, restarts those that end, after a pause that grows while they fail
-- at once, and at SIGTERM or SIGINT asks them all to end, for which there is some time; what still runs then is killed.
-- Run: aloop supervisor.lua 'command' 'command' ...; GRACE=seconds
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local GRACE_S = tonumber(os.getenv("GRACE")) or 10
local FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30
local STEADY_S = 5 -- who ran for so long failed for another reason

local function say(format, ...)
  print(format:format(...))
  io.stdout:flush()
end

local running = {} -- name → process

-- Runs a command again and again. Each child leads a session of its own, so that its children can be reached, too.
local function keep_alive(name, command)
  local loop, pause = aloop.get_running_loop(), FIRST_PAUSE_S
  while true do
    local process = aloop.create_subprocess_shell(command, { start_new_session = true })
    local started = loop:time()
    running[name] = process
    say("%s: started, pid %d", name, process.pid)
    local code = process:wait()
    running[name] = nil
    if loop:time() - started >= STEADY_S then pause = FIRST_PAUSE_S end
    say("%s: ended with %d, again in %.1f s", name, code, pause)
    aloop.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE_S)
  end
end

local function wait_for_signal()
  local loop = aloop.get_event_loop()
  local signalled = loop:create_future()
  for _, name in ipairs { "SIGTERM", "SIGINT" } do
    loop:add_signal_handler(name, function()
      if not signalled:done() then signalled:set_result(name) end
    end)
  end
  return signalled:await()
end

local function signal_group(process, name)
  if process.returncode == nil then aloop.signal.kill(-process.pid, name) end
end

-- Asks a child to end; kills it if it doesn't.
local function drain(name, process)
  signal_group(process, "SIGTERM")
  local ok = aloop.try(function()
    local _ <close> = aloop.timeout(GRACE_S)
    process:wait()
  end)
  if not ok then
    say("%s: does not end, is killed", name)
    signal_group(process, "SIGKILL")
  end
  say("%s: ended with %d", name, process:wait())
end

local keepers = {}
for i, command in ipairs(arg) do
  keepers[i] = aloop.create_task(function() keep_alive("child " .. i, command) end)
end
say("got %s", wait_for_signal())
for _, keeper in ipairs(keepers) do keeper:cancel() end
aloop.gather(keepers, { return_exceptions = true })
do
  local group <close> = aloop.TaskGroup()
  for name, process in pairs(running) do
    group:create_task(function() drain(name, process) end)
  end
end
say("all ended")
