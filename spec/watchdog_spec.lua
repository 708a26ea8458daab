-- watchdog_spec.lua: -X watchdog=SECONDS.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"

local function run(script, seconds)
  return helper.run(script, { flags = { "-X", "watchdog=" .. (seconds or "0.05") }, timeout = 30 })
end

-- Code that is busy for a while; the strings give the thread sanitizer occasions to run signal handlers.
local BUSY = [[
  local aloop = require "aloop"
  local function busy(seconds)
    local loop = aloop.get_event_loop()
    local ends = loop:time() + seconds
    while loop:time() < ends do string.rep("x", 10) end
  end
]]

local function occurrences(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("the watchdog", function()
  it("tells the line of a callback while it blocks the loop, once, and how long it took", function()
    local result = run(BUSY .. [[
      aloop.sleep(0.01)
      local child = aloop.create_task(function() busy(0.7) print("over") end, { name = "hog" })
      child:await()
    ]], "0.2")
    assert.equal(0, result.code)
    assert.equal("over\n", result.stdout)
    local first, last = result.stderr:match("^aloop: watchdog: blocked for ([%d.]+) seconds in task hog, at\n"
      .. "%s+busy .*:5\n%s+function .*:8\naloop: watchdog: going on after ([%d.]+) seconds\n$")
    assert.is_not_nil(first, result.stderr)
    assert.is_true(tonumber(first) >= 0.2 and tonumber(first) < tonumber(last))
  end)

  it("tells of plain callbacks and of coroutines in them", function()
    local result = run(BUSY .. [[
      local done = aloop.get_event_loop():create_future()
      aloop.get_event_loop():call_soon(function()
        coroutine.wrap(function() busy(0.3) end)()
        done:set_result()
      end)
      done:await()
    ]])
    assert.matches("blocked for [%d.]+ seconds at\n%s+busy .*:5\n%s+function .*:9\n", result.stderr)
  end)

  it("tells of each stretch anew", function()
    local result = run(BUSY .. "for _ = 1, 3 do busy(0.2) aloop.sleep(0.05) end")
    assert.is_true(occurrences(result.stderr, "blocked for [%d.]+ seconds in task") >= 3, result.stderr)
    assert.is_true(occurrences(result.stderr, "going on after") >= 3)
  end)

  it("tells of the main chunk before it needs a loop", function()
    local result = run("local n = 0\nlocal ends = os.clock() + 0.3\nrepeat n = #tostring(n) until os.clock() >= ends")
    assert.matches("^aloop: watchdog: blocked for [%d.]+ seconds[^\n]*at\n%s+main chunk .*:3\n", result.stderr)
  end)

  it("says so when a C function doesn't return, and where Lua is afterwards", function()
    local result = run(BUSY .. [[
      aloop.sleep(0.01)
      os.execute("sleep 0.4")
      busy(0.15)
    ]])
    assert.matches("aloop: watchdog: blocked for [%d.]+ seconds, in a C function that does not return: no line of Lua "
      .. "is reached\naloop: watchdog: blocked for [%d.]+ seconds in task Task%-1, at\n", result.stderr)
    assert.matches("going on after [%d.]+ seconds\n$", result.stderr)
  end)

  it("is silent about a loop that turns or sleeps", function()
    local result = run(BUSY .. [[
      for _ = 1, 50 do aloop.sleep(0) busy(0.002) end
      aloop.sleep(0.7)
      print("end")
    ]], "0.5")
    assert.same({ 0, "end\n", "" }, { result.code, result.stdout, result.stderr })
  end)

  it("follows loops as they come and go", function()
    local result = run(BUSY .. [[
      for i = 1, 3 do
        aloop.run(function()
          aloop.sleep(0.01)
          if i ~= 2 then busy(0.2) end
        end)
      end
    ]])
    assert.equal(0, result.code, result.stderr)
    assert.is_true(occurrences(result.stderr, "blocked for [%d.]+ seconds in task") >= 2, result.stderr)
  end)

  it("does not keep the program from ending, by os.exit too", function()
    assert.equal(3, run("os.exit(3)", "0.01").code)
    assert.equal(4, run("require('aloop').sleep(0.05) os.exit(4, true)", "0.01").code)
    assert.equal(1, run("require('aloop').sleep(0.05) error('x')", "0.01").code)
  end)

  it("leaves SIGQUIT and ps as they are", function()
    local child = helper.start([[
      io.stdout:setvbuf("line")
      local aloop = require "aloop"
      aloop.sleep(0.02)
      print("ready")
      local n = 0
      while true do n = #tostring(n) end
    ]], { flags = { "-X", "watchdog=0.05" }, merge = true, timeout = 30 })
    child:read_until("ready")
    child:read_until("watchdog: blocked for")
    local result = helper.run_program({ helper.aloop, "pstree", tostring(child.pid) })
    assert.equal(0, result.code, result.stderr)
    assert.matches("running:\n%s+main chunk .*:6\n", result.stdout)
    child:kill("KILL")
    child:wait()
  end)

  it("wants a time", function()
    for _, text in ipairs { "", "x", "-1", "0", "nan", "inf", "1x" } do
      local result = helper.run("print(1)", { flags = { "-X", "watchdog=" .. text } })
      assert.same({ 1, "" }, { result.code, result.stdout })
      assert.matches("^aloop: bad time for the watchdog: '" .. text:gsub("%-", "%%-") .. "'\nusage: ", result.stderr)
    end
    assert.matches("unrecognized option '%-X watchdog'", helper.run("", { flags = { "-X", "watchdog" } }).stderr)
  end)
end)
