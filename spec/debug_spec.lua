-- Debug mode: slow callbacks, places of creation, what is logged.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local raises = helper.raises

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

    it("is told of once if it is a watch's", function()
      helper.with_loop(new_loop, function(loop, trial)
        local a, b = aloop.socket.socketpair()
        local n = 0
        local function slow()
          n = n + 1
          block(loop, 0.03)
        end
        loop.slow_callback_duration = 0.02
        loop:set_debug(true)
        loop:add_writer(a, function()
          loop:remove_writer(a)
          slow()
        end)
        trial:wait_until(function() return n == 1 end)
        loop:call_soon(slow) -- it does not hang on what was told before
        trial:wait_until(function() return n == 2 end)
        for _ = 1, 2 do trial:take_log("^Executing <Handle") end
        assert.is_false((pcall(trial.take_log, trial, "^Executing <Handle.*debug_spec")))
        a:close()
        b:close()
      end)
    end)

    it("is shown although it has cancelled its own handle", function()
      helper.drive(new_loop, function(loop, trial)
        loop.slow_callback_duration = 0.02
        loop:set_debug(true)
        local handle
        handle = loop:call_soon(function()
          handle:cancel()
          block(loop, 0.03)
        end, "an argument")
        helper.turn(loop)
        local message = trial:take_log("^Executing <Handle cancelled .*took")
        assert.matches("debug_spec%.lua:%d+>%('an argument'%) created at", message)
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
        local message
        trial:wait_until(function()
          message = select(2, pcall(trial.take_log, trial, "^Executing data_received"))
          return message:find("^Executing")
        end)
        assert.matches("^Executing data_received%(%) of protocol .*debug_spec%.lua:%d+>, took 0%.%d+ seconds$", message)
        for _, line in ipairs(trial.logs) do assert.not_matches("^Executing the callbacks", line.message) end
        loop:set_debug(false)
        sock:close()
      end)
    end)

    it("that is a step of a task is logged with where the task stands now", function()
      helper.drive(new_loop, function(loop, trial)
        loop.slow_callback_duration = 0.02
        loop:set_debug(true)
        local line
        loop:run_until_complete(loop:create_task(function()
          block(loop, 0.03)
          line = debug.getinfo(1, "l").currentline + 1
          coroutine.wrap(function() aloop.sleep(0) end)()
        end))
        assert.matches("created at .*debug_spec%.lua:%d+>, now at .*debug_spec%.lua:" .. line .. ",",
          (trial:take_log("^Executing <Task pending")))
      end)
    end)
  end)

  it("the state of things is logged in debug mode, and only there", function() -- row: debug.log_levels
    for _, debug in ipairs { true, false } do
      helper.drive(function()
        local loop = new_loop()
        loop:set_debug(debug)
        return loop
      end, function(loop, trial)
        trial:run_task(function()
          local transport, client, _, accepted = helper.joined(loop)
          transport:close()
          client:wait_lost()
          accepted:wait_lost()
        end)
        loop:close()
        local texts = {}
        for i, line in ipairs(trial.logs) do
          texts[i] = line.message
          assert.equal("debug", line.level)
        end
        local text = table.concat(texts, "\n")
        if debug then
          assert.matches("Server.* got a new connection from 127%.0%.0%.1:%d+: protocol ", text)
          assert.matches("<Transport fd=%d+ .* is connected to protocol ", text)
          assert.matches("received EOF", text)
          assert.matches("Close <%a+EventLoop running=false closed=false debug=true>", text)
        else
          assert.equal("", text)
        end
      end)
    end
  end)

  it("name look-ups are logged with their time; slow ones more loudly", function() -- row: debug.getaddrinfo_slow
    helper.with_loop(new_loop, function(loop, trial)
      loop:set_debug(true)
      loop.slow_callback_duration = 0
      loop:getaddrinfo("localhost", 80)
      local text, level = trial:take_log("^Getting address info localhost:80 took %d+%.%d+ms: found")
      assert.equal("info", level, text)
      loop.slow_callback_duration = 100
      loop:getaddrinfo("localhost", "80")
      assert.equal("debug", select(2, trial:take_log("^Getting address info localhost:80 took")))
      raises(aloop.gaierror, nil, loop.getaddrinfo, loop, "localhost", "no such service")
      trial:take_log("^Getting address info localhost:no such service took %d+%.%d+ms: ")
      loop:set_debug(false)
      loop:getaddrinfo("localhost", 80)
      assert.is_false((pcall(trial.take_log, trial, "^Getting address")))
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

  -- Cancels a task with this body where it first waits, and gives the reports of caught cancellations.
  local function reports_of(body)
    local found = {}
    helper.with_loop(helper.new_loop, function(loop, trial)
      loop:set_debug(true)
      local task = loop:create_task(body, { name = "cancelled one" })
      for _ = 1, 6 do aloop.sleep(0) end
      task:cancel()
      aloop.try(pcall, task.await, task)
      while true do
        local ok, message, level, category = pcall(trial.take_log, trial, "waits again though it was cancelled")
        if not ok then break end
        assert.same({ "warning", "RuntimeWarning" }, { level, category })
        found[#found + 1] = message
      end
      loop:set_debug(false)
    end)
    return found
  end

  it("reports a task that waits again after its cancellation was caught, once, with the place", function()
    local line
    local reports = reports_of(function()
      pcall(aloop.sleep, 100)
      line = debug.getinfo(1, "l").currentline + 1
      aloop.sleep(0)
      aloop.sleep(0)
    end)
    assert.equal(1, #reports)
    assert.matches("debug_spec%.lua:" .. line .. ": cancelled one waits again though it was cancelled", reports[1])
    line = nil
    reports = reports_of(function()
      local queue = aloop.Queue()
      pcall(queue.get, queue)
      aloop.get_running_loop():call_soon(queue.put_nowait, queue, "item")
      line = debug.getinfo(1, "l").currentline + 1
      pcall(queue.get, queue)
    end)
    assert.equal(0, #reports - 1)
    assert.matches("debug_spec%.lua:" .. line .. ": ", reports[1])
  end)

  for name, body in pairs {
    ["aloop.try lets it pass"] = function()
      aloop.try(aloop.sleep, 100)
      error("not reached")
    end,
    ["it was taken back by uncancel()"] = function()
      pcall(aloop.sleep, 100)
      aloop.current_task():uncancel()
      aloop.sleep(0)
    end,
    ["it is raised again"] = function()
      local ok, e = pcall(aloop.sleep, 100)
      if not ok then error(e, 0) end
    end,
    ["what waits are <close> variables, also inside a pcall"] = function()
      local _ <close> = aloop.defer(aloop.sleep, 0)
      pcall(function()
        local _ <close> = aloop.defer(aloop.sleep, 0)
        aloop.sleep(100)
      end)
      aloop.current_task():uncancel()
    end,
    ["what waits is the end of an async generator"] = function()
      local numbers = aloop.async_generator(function()
        local _ <close> = aloop.defer(aloop.sleep, 0)
        while true do coroutine.yield(1) end
      end)
      for _ in numbers() do aloop.sleep(100) end
    end,
    ["what waits is shutdown_asyncgens, which ends what it began"] = function()
      local slow = aloop.async_generator(function()
        local _ <close> = aloop.defer(function()
          local _ <close> = aloop.defer(aloop.sleep, 0)
          aloop.sleep(100)
        end)
        coroutine.yield(1)
      end)
      slow()()
      aloop.get_running_loop():shutdown_asyncgens()
    end,
    ["what waits is a condition that takes its lock again"] = function()
      local condition = aloop.Condition()
      local guard <close> = condition:acquire()
      local holder = aloop.create_task(function()
        local _ <close> = condition:acquire()
        for _ = 1, 5 do aloop.sleep(0) end
      end)
      local _ <close> = aloop.defer(holder.cancel, holder)
      condition:wait()
      return guard
    end,
    ["what waits is a task group that ends"] = function()
      local group <close> = aloop.TaskGroup()
      group:create_task(function()
        local _ <close> = aloop.defer(aloop.sleep, 0)
        aloop.sleep(100)
      end)
      aloop.sleep(100)
    end,
    ["it was a timeout's"] = function()
      pcall(function()
        local _ <close> = aloop.timeout(-1)
        aloop.sleep(100)
      end)
      aloop.sleep(0)
      aloop.sleep(100)
    end,
    ["a task cancels itself after it had been cancelled before"] = function()
      pcall(aloop.sleep, 100)
      local me = aloop.current_task()
      me:uncancel()
      me:cancel()
      aloop.sleep(0)
    end,
  } do
    it("reports no cancellation if " .. name, function() assert.same({}, reports_of(body)) end)
  end

  it("tells where an unclosed loop was made, and an unclosed transport and server", function()
    -- row: loop.unclosed_warning, transport.unclosed_warning
    helper.drive(helper.new_loop, function(loop, trial)
      local line = debug.getinfo(1, "l").currentline + 1
      aloop.SelectorEventLoop()
      collectgarbage()
      local message, level, category = trial:take_log("unclosed event loop <SelectorEventLoop running=false")
      assert.same({ "warning", "ResourceWarning" }, { level, category })
      assert.matches("created at .*debug_spec%.lua:" .. line .. "$", message)
      loop:set_debug(true)
      trial:run_task(function()
        local server = loop:create_server(aloop.Protocol, "127.0.0.1", 0)
        local transport = loop:create_connection(aloop.Protocol, "127.0.0.1", server.sockets[1]:getsockname().port)
        transport:pause_reading()
        loop:create_server(aloop.Protocol, "127.0.0.1", 0, { start_serving = false })
        aloop.sleep(0.001)
        transport, server = nil, nil -- luacheck: ignore 311
      end)
      collectgarbage()
      assert.matches("unclosed transport .*created at .*debug_spec%.lua:%d+$", (trial:take_log("unclosed transport")))
      assert.matches("unclosed server .*created at .*debug_spec%.lua:%d+$", (trial:take_log("unclosed server")))
      loop:set_debug(false)
    end, { open = true })
  end)

  it("has the place of creation in each report of what nobody took", function() -- row: context.source_traceback
    helper.drive(helper.new_loop, function(loop, trial)
      loop:set_debug(true)
      local line = debug.getinfo(1, "l").currentline
      loop:create_future():set_exception("of a future")
      loop:create_task(function() error("of a task", 0) end)
      loop:call_soon(error, "of a callback")
      helper.turn(loop, 2)
      collectgarbage()
      local lost = helper.new_loop()
      lost:set_debug(true)
      lost:set_exception_handler(function(_, context) trial.errors[#trial.errors + 1] = context end)
      lost:create_task(function() aloop.sleep(1000) end)
      helper.turn(lost, 2)
      lost:close()
      lost = nil -- luacheck: ignore 311
      collectgarbage()
      local places = {}
      for _ = 1, 4 do
        local context = trial:take_error()
        places[context.message:match("^%S+ %S+ %S+")] = context.source_traceback:match("^.-:(%d+)")
      end
      assert.same({
        ["Future exception was"] = tostring(line + 1),
        ["Task exception was"] = tostring(line + 2),
        ["Exception in callback"] = tostring(line + 3),
        ["Task was destroyed"] = tostring(line + 9),
      }, places)
      loop:set_debug(false)
    end)
  end)

  it("has no place to tell of what the loop itself made", function()
    helper.as_task(function(loop, trial)
      loop:set_debug(true)
      local server = loop:create_server(function()
        return { connection_made = function(_, transport)
          transport:close()
          error("no place")
        end }
      end, "127.0.0.1", 0)
      local transport = loop:create_connection(aloop.Protocol, "127.0.0.1", server.sockets[1]:getsockname()[2])
      while #trial.errors == 0 do aloop.sleep(0) end
      local context = trial:take_error()
      assert.is_not_nil(context.transport)
      assert.is_nil(context.source_traceback)
      transport:close()
      server:close()
      server:wait_closed()
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
