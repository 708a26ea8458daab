-- Debug mode: slow callbacks, places of creation, what is logged.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local function nop() end

-- Lets the clock go on without the loop.
local function block(loop, seconds)
  local stop_at = loop:time() + seconds
  while loop:time() < stop_at do nop() end
end

describe("get_debug", function()
  it("is false, follows set_debug, also in a run", function() -- row: get_debug, set_debug
    helper.drive(helper.new_loop, function(loop)
      assert.is_false(loop:get_debug())
      loop:set_debug(true)
      assert.is_true(loop:get_debug())
      loop:run_until_complete(function() loop:set_debug(false) end)
      assert.is_false(loop:get_debug())
    end)
  end)

  it("follows ALOOPDEBUG and -X debug for new loops", function() -- row: debug.env, debug.dev_mode
    local script = [[
      local loop = require("aloop").new_event_loop()
      print(loop:get_debug())
      loop:close()
    ]]
    assert.equal("true\n", (helper.output_of(script, { env = { ALOOPDEBUG = "1" } })))
    assert.equal("false\n", (helper.output_of(script, { env = { ALOOPDEBUG = "" } })))
    assert.equal("false\n", (helper.output_of(script, { env = { ALOOPDEBUG = false } })))
    assert.equal("true\n", (helper.output_of(script, { flags = { "-X", "debug" } })))
  end)
end)

helper.each_loop(function(_, new_loop)
  describe("a slow callback", function()
    -- row: slow_callback_duration, debug.slow_callback_log
    it("is logged in debug mode, with its name, place and time", function()
      helper.drive(new_loop, function(loop, trial)
        assert.equal(0.1, loop.slow_callback_duration)
        loop.slow_callback_duration = 0.02
        assert.equal(0.02, loop.slow_callback_duration)
        local function slow() block(loop, 0.03) end
        loop:call_soon(slow)
        helper.turn(loop)
        assert.equal(0, #trial.logs)
        loop:set_debug(true)
        loop:call_soon(nop)
        loop:call_soon(slow)
        helper.turn(loop)
        local message, level = trial:take_log("^Executing <Handle .*took %d+%.%d+ seconds")
        assert.equal("warning", level)
        assert.matches("debug_spec%.lua:%d+", message)
        assert.is_false((pcall(trial.take_log, trial, "^Executing")))
      end)
    end)

    it("may be a timer or a step of a task", function() -- row: debug.slow_callback_log
      helper.drive(new_loop, function(loop, trial)
        loop.slow_callback_duration = 0.02
        loop:set_debug(true)
        loop:call_later(0, block, loop, 0.03)
        helper.turn(loop)
        trial:take_log("^Executing <TimerHandle .*took")
        loop:run_until_complete(loop:create_task(function()
          block(loop, 0.03)
        end, { name = "slow one" }))
        local message = trial:take_log("^Executing .*took")
        assert.matches("slow one", message)
      end)
    end)

    it("may be a protocol method", function()
      helper.with_loop(new_loop, function(loop, trial)
        local got = false
        local _, _, sock = helper.over_socketpair(loop, { data_received = function()
          block(loop, 0.03)
          got = true
        end })
        loop.slow_callback_duration = 0.02
        loop:set_debug(true)
        sock:send("x")
        trial:wait_until(function() return got end)
        trial:wait_until(function() return pcall(trial.take_log, trial, "^Executing .*took") end)
        loop:set_debug(false)
        sock:close()
      end)
    end)
  end)

  it("the state of things is logged in debug mode", function() -- row: debug.log_levels
    helper.drive(function()
      local loop = new_loop()
      loop:set_debug(true)
      return loop
    end, function(loop, trial)
      trial:run_task(function()
        local transport, client, _, accepted = helper.joined(loop)
        transport:close()
        client:wait_lost()
        accepted:wait_lost()
      end)
      loop:close()
      local quiet = 0
      for _, line in ipairs(trial.logs) do
        if line.level == "debug" or line.level == "info" then quiet = quiet + 1 end
      end
      assert.is_true(quiet >= 1)
    end)
  end)
end)

describe("debug mode", function()
  it("changes no outcome: errors, cancellation and results are the same", function() -- bug: 30
    for _, debug in ipairs { false, true } do
      helper.with_loop(helper.new_loop, function(loop)
        loop:set_debug(debug)
        local task = loop:create_task(function() error({ code = 1 }) end)
        local ok, e = pcall(task.await, task)
        assert.is_false(ok)
        assert.equal(1, e.code)
        local sleeping = loop:create_task(function() aloop.sleep(100) end)
        aloop.sleep(0)
        sleeping:cancel()
        assert.is_false((pcall(sleeping.await, sleeping)))
        assert.is_true(sleeping:cancelled())
        assert.equal(3, loop:create_task(function() return 1 + 2 end):await())
        loop:set_debug(false)
      end)
    end
  end)

  it("shows where handles, timers, futures and tasks were made", function() -- row: debug.creation_traceback
    helper.drive(helper.new_loop, function(loop)
      loop:set_debug(true)
      local things = { loop:call_soon(nop), loop:call_later(0, nop), loop:create_future(), loop:create_task(nop) }
      for _, thing in ipairs(things) do
        assert.matches("created at .*debug_spec%.lua:%d+", tostring(thing))
      end
      helper.turn(loop, 3)
    end)
  end)

  it("reports a task that waits again after its cancellation was caught", function()
    helper.with_loop(helper.new_loop, function(loop, trial)
      loop:set_debug(true)
      local task = loop:create_task(function()
        pcall(aloop.sleep, 100)
        aloop.sleep(0)
      end)
      aloop.sleep(0)
      task:cancel()
      task:await()
      local message = trial:take_log("cancel")
      assert.matches("debug_spec%.lua:%d+", message)
      loop:set_debug(false)
    end)
  end)

  it("log lines go to stderr as 'aloop: level: message'", function()
    local _, err = helper.output_of [[
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      loop:set_debug(true)
      loop.slow_callback_duration = 0.001
      loop:call_soon(function()
        local stop_at = loop:time() + 0.01
        while loop:time() < stop_at do end
      end)
      aloop.sleep(0)
    ]]
    assert.matches("aloop: warning: Executing <Handle .* took 0%.%d+ seconds", err)
  end)
end)
