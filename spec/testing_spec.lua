-- aloop.testing: virtual time on every kind of loop, orders drawn from a seed, what the leak check finds, and the
-- examples of its documentation.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local testing = require "aloop.testing"
local helper = require "spec.helper"

local function fails(pattern, body, options)
  local ok, e = pcall(testing.run, body, options)
  assert.is_false(ok)
  assert.matches(pattern, tostring(e))
  return tostring(e)
end

-- The real time that a function takes is no matter of these specs, but a jump of hours must not be waited for: LIMIT is
-- what a test gets.
local LIMIT = { limit = 10 }

helper.each_loop(function(kind)
  local function options(more)
    local all = { kind = kind, limit = 10 }
    for key, value in pairs(more or {}) do all[key] = value end
    return all
  end

  describe("virtual time", function()
    it("begins at 0 and jumps to the next timer", function()
      testing.run(function(loop)
        assert.equal(0, loop:time())
        aloop.sleep(3600)
        assert.equal(3600, loop:time())
        aloop.sleep(7 * 86400)
        assert.equal(3600 + 7 * 86400, loop:time())
      end, options())
    end)

    it("keeps timers in order, and those of the same time in that of their making", function()
      testing.run(function(loop)
        local order = {}
        for i, delay in ipairs { 30, 10, 20, 10, 30 } do
          loop:call_later(delay, function() order[#order + 1] = ("%d@%d"):format(i, loop:time()) end)
        end
        aloop.sleep(40)
        assert.equal("2@10 4@10 3@20 1@30 5@30", table.concat(order, " "))
      end, options())
    end)

    it("doesn't move while there is something to do", function()
      testing.run(function(loop)
        loop:call_later(0.001, function() loop.timer_ran = true end)
        for _ = 1, 2000 do aloop.sleep(0) end
        assert.is_nil(loop.timer_ran)
        assert.equal(0, loop:time())
        aloop.sleep(1)
        assert.is_true(loop.timer_ran)
      end, options())
    end)

    it("lets sockets and servers work between the timers", function()
      testing.run(function(loop)
        local factory, wait_for = helper.recorders(loop)
        local server <close> = loop:create_server(factory, "127.0.0.1", 0)
        local address = server.sockets[1]:getsockname()
        for i = 1, 3 do
          local client = helper.Recorder(loop)
          local transport = loop:create_connection(helper.always(client), "127.0.0.1", address.port)
          local peer = wait_for(i)
          for _ = 1, 5 do
            aloop.sleep(600)
            transport:write("ping")
          end
          peer:wait_data(20)
          transport:close()
          peer:wait_lost()
        end
        assert.equal(3 * 5 * 600, loop:time() // 1)
      end, options { patience = 0.02 })
    end)

    it("passes no faster than the real one while a thread works", function()
      testing.run(function(loop)
        local limit = loop:call_later(20, error, "the timer overtook a thread")
        local ok = pcall(loop.getaddrinfo, loop, "localhost", nil)
        assert.is_true(ok)
        limit:cancel()
      end, options())
    end)

    it("doesn't take a descriptor that is watched for a deadlock, but gives up at the limit", function()
      local a, b = aloop.pipe()
      local message = fails("not over after its time", function(loop)
        loop:add_reader(a, function() end)
        local _ <close> = aloop.defer(loop.remove_reader, loop, a)
        loop:create_future():await()
      end, options { limit = 0.05 })
      assert.matches("name='test'", message)
      a:close()
      b:close()
    end)
  end)

  describe("a deadlock", function()
    it("ends the test and tells who waits where", function()
      local message = fails("^nothing is left that could wake a task %(60 s", function(loop)
        local future = loop:create_future()
        local function waits_here() future:await() end
        loop:create_task(waits_here, { name = "other" })
        aloop.sleep(60)
        waits_here()
      end, options())
      assert.matches("name='other'", message)
      assert.matches(": waits for <Future", message)
      assert.matches("testing_spec.lua:%d+ in ", message)
    end)

    it("runs what is to be closed", function()
      local closed
      fails("could wake a task", function(loop)
        local _ <close> = aloop.defer(function() closed = loop:time() end)
        loop:create_future():await()
      end, options())
      assert.equal(0, closed)
    end)

    it("of a sleep for ever is one", function()
      fails("could wake a task", function() aloop.sleep(math.huge) end, options())
    end)
  end)
end)

describe("the limit", function()
  it("ends a test that never waits for anything", function()
    fails("not over after its time", function() while true do aloop.sleep(0) end end, { limit = 0.02 })
  end)

  it("ends a test whose virtual time runs on and on", function()
    fails("not over after its time", function() while true do aloop.sleep(1) end end, { limit = 0.02 })
  end)

  it("ends a test that catches its cancellation", function()
    local message = fails("not over after its time", function(loop)
      while loop:time() < 2e8 do pcall(aloop.sleep, 0.1) end
    end, { limit = 0.02 })
    assert.matches("testing_spec", message)
  end)

  it("holds on real time, too", function()
    fails("not over after its time", function(loop) loop:create_future():await() end,
      { limit = 0.02, new_loop = helper.new_loop })
  end)
end)

describe("a seed", function()
  local function order_of(seed)
    local order = {}
    testing.run(function(loop)
      for i = 1, 8 do
        loop:create_task(function()
          order[#order + 1] = i
          aloop.sleep(1)
          order[#order + 1] = i
        end)
      end
      loop:call_later(1.5, function() order[#order + 1] = "-" end)
      aloop.sleep(2)
    end, { seed = seed, limit = 10 })
    return table.concat(order, " ")
  end

  it("gives one order, always the same", function()
    local seen, n = {}, 0
    for seed = 1, 10 do
      local order = order_of(seed)
      assert.equal(order, order_of(seed))
      if not seen[order] then n = n + 1 end
      seen[order] = true
    end
    assert.is_true(n > 5)
    assert.equal("1 2 3 4 5 6 7 8 1 2 3 4 5 6 7 8 -", order_of(nil))
  end)

  it("leaves call_soon's order alone", function()
    testing.run(function(loop)
      local order = {}
      for i = 1, 20 do
        loop:call_soon(function() order[#order + 1] = i end)
        loop:create_task(function() aloop.sleep(0) end)
      end
      aloop.sleep(0)
      aloop.sleep(0)
      for i = 1, 20 do assert.equal(i, order[i]) end
    end, { seed = 7, limit = 10 })
  end)

  it("that was drawn is told when the test fails", function()
    local message = fails("seed: %d+", function() error("oops") end, { seed = true })
    assert.matches("oops", message)
    testing.run(function() end, { seed = true })
  end)

  it("must be an integer or true", function()
    helper.raises(aloop.ValueError, "seed must be an integer or true", testing.run, function() end, { seed = 1.5 })
    helper.raises(aloop.ValueError, "seed must be an integer or true", testing.new_loop, { seed = "x" })
  end)
end)

describe("the leak check finds", function()
  it("a task", function()
    local message = fails("^still open: 1 tasks", function(loop)
      local future = loop:create_future()
      loop:create_task(function() future:await() end, { name = "forgotten" })
      aloop.sleep(0)
    end)
    assert.matches("name='forgotten'", message)
    assert.matches("testing_spec.lua:%d+", message)
  end)

  it("a timer", function()
    fails("^still open: 1 timers", function(loop) loop:call_later(3600, print) end)
  end)

  it("a watched descriptor", function()
    local a, b = aloop.pipe()
    fails("1 watchers", function(loop) loop:add_reader(a, print) end)
    a:close()
    b:close()
  end)

  it("a server", function()
    local server
    fails("1 servers", function(loop) server = loop:create_server(aloop.Protocol, "127.0.0.1", 0) end)
    assert.is_not_nil(server)
  end)

  it("a transport", function()
    local kept = {}
    fails("still open: 1 transports", function(loop)
      local a, b = aloop.socket.socketpair()
      kept[1] = loop:connect_accepted_socket(aloop.Protocol, a)
      kept[2] = b
    end)
    kept[2]:close()
  end)

  it("a descriptor", function()
    local file
    fails("^leaked descriptors: %d+ → /dev/null", function() file = io.open("/dev/null") end)
    file:close()
  end)

  it("what reached the exception handler, unless it was taken", function()
    fails("unexpected call of the exception handler: .*oops", function(loop)
      loop:call_soon(error, "oops")
      aloop.sleep(0)
    end)
    testing.run(function(loop, trial)
      loop:call_soon(error, "oops")
      trial:turn()
      assert.equal("oops", trial:take_error().exception)
      assert.has_error(function() trial:take_error() end)
    end)
  end)

  it("an error that no one took", function()
    fails("never retrieved", function(loop)
      loop:create_task(function() error("lost") end)
      aloop.sleep(0)
      aloop.sleep(0)
    end)
  end)

  it("what was logged, unless it was taken", function()
    local core = require "aloop.core"
    local function close_badly(loop)
      local a, b = aloop.socket.socketpair()
      local transport = loop:connect_accepted_socket(aloop.Protocol, a)
      transport:abort()
      for _ = 1, 10 do transport:write("x") end
      b:close()
    end
    assert.is_table(core)
    fails("unexpected warning: ", close_badly)
    testing.run(function(loop, trial)
      close_badly(loop)
      local message, level = trial:take_log("socket")
      assert.is_string(message)
      assert.equal("warning", level)
      while #trial.logs > 0 do trial:take_log("") end
      assert.has_error(function() trial:take_log("nothing like it") end)
    end)
  end)

  it("nothing in a test that fails: its own error is told", function()
    local message = fails("the failure", function(loop)
      loop:call_later(3600, print)
      error("the failure")
    end)
    assert.not_matches("still open", message)
  end)

  it("nothing where open = true", function()
    testing.run(function(loop) loop:call_later(3600, print) end, { open = true })
  end)
end)

describe("a test", function()
  it("returns what its body returns, and raises what it raises", function()
    assert.same({ 1, nil, 3, n = 3 }, table.pack(testing.run(function() return 1, nil, 3 end)))
    local thrown = { of = "a framework" }
    local ok, e = pcall(testing.run, function() error(thrown) end)
    assert.is_false(ok)
    assert.equal(thrown, e)
    fails("^ValueError: wrong\n", function() error(aloop.ValueError("wrong")) end)
    fails("a string\nstack traceback:", function() error("a string") end)
  end)

  it("keeps the type of a framework's errors, and adds what was found to their message", function()
    local ok, e = pcall(testing.run, function(loop)
      loop:call_soon(error, "found")
      aloop.sleep(0)
      assert.equal(1, 2)
    end)
    assert.is_false(ok)
    assert.is_table(e)
    assert.matches("Expected objects to be equal.*found", tostring(e.message))
  end)

  it("may drive its loop itself", function()
    local n = 0
    testing.drive(function(loop, trial)
      local timer
      timer = loop:call_later(10, function()
        n = n + 1
        timer:reschedule(loop:time() + 10)
      end)
      trial:advance(35)
      assert.equal(3, n)
      assert.equal(35, loop:time())
      loop:call_soon(function() n = 0 end)
      trial:turn()
      assert.equal(0, n)
      timer:cancel()
      assert.equal("done", trial:run_task(function() return aloop.sleep(5, "done") end))
    end, LIMIT)
  end)

  it("waits for a condition", function()
    testing.run(function(loop, trial)
      local ready
      loop:call_later(100, function() ready = true end)
      trial:wait_until(function() return ready end)
      assert.is_true(loop:time() >= 100)
      trial:advance(50)
      trial:turn(3)
      assert.is_true(loop:time() >= 150)
    end, LIMIT)
  end)

  it("refuses to run inside of a running loop", function()
    testing.run(function()
      helper.raises(aloop.RuntimeError, "inside of a running event loop", testing.run, function() end)
    end)
  end)

  it("refuses wrong arguments", function()
    helper.type_error("bad argument #1 to 'run' (function expected, got nil)", testing.run)
    helper.type_error("bad argument #1 to 'drive' (function expected, got number)", testing.drive, 1)
    helper.type_error("bad argument #1 to 'case' (function expected, got nil)", testing.case)
    helper.type_error("bad argument #1 to 'it' (function expected, got nil)", testing.it)
    helper.type_error("unknown option 'sede' to 'run'", testing.run, function() end, { sede = 1 })
    helper.type_error("bad option 'limit' to 'it' (number expected, got string)", testing.it, it, { limit = "1" })
    helper.type_error("unknown option 'limit' to 'new_loop'", testing.new_loop, { limit = 1 })
    helper.raises(aloop.ValueError, "no such kind of loop: kqueue", testing.new_loop, { kind = "kqueue" })
  end)

  it("becomes a case or an it of any framework", function()
    local ran = {}
    local my_it = testing.it(function(name, test)
      ran[name] = test
      return "returned"
    end, { limit = 5 })
    assert.equal("returned", my_it("name", function(loop) ran.time = aloop.sleep(60, loop:time()) end))
    ran.name()
    assert.equal(0, ran.time)
    testing.case(function() ran.case = true end)()
    assert.is_true(ran.case)
  end)
end)

describe("a loop of new_loop", function()
  it("runs on virtual time, and stops when nothing can wake it", function()
    local loop = testing.new_loop()
    assert.equal(7200, loop:run_until_complete(function()
      aloop.sleep(7200)
      return loop:time()
    end))
    helper.raises(aloop.RuntimeError, "Event loop stopped before Future completed", loop.run_until_complete, loop,
      loop:create_future())
    loop:close()
  end)

  it("serves a runner", function()
    local runner <close> = aloop.Runner { loop_factory = testing.new_loop }
    assert.equal(3600, runner:run(function()
      aloop.sleep(3600)
      return runner:get_loop():time()
    end))
  end)
end)

describe("the documentation's", function()
  local dir, remove = helper.temporary_directory()
  local examples = {}
  local text = helper.read_file("lua/aloop/testing.lua"):match("^(.-)\n\n")
  for example in text:gmatch("%-%- ```lua\n(.-)\n%-%- ```") do
    examples[#examples + 1] = (example:gsub("^%-%- ?", ""):gsub("\n%-%- ?", "\n"))
  end
  teardown(remove)

  it("examples run", function()
    assert.is_true(#examples >= 4)
    for _, example in ipairs(examples) do
      local result
      if example:find("describe(", 1, true) then
        local path = dir .. "/example_spec.lua"
        local file = assert(io.open(path, "w"))
        file:write(example)
        file:close()
        result = helper.run_program { helper.aloop, "scripts/dev/busted.lua", "-o", "plainTerminal", path }
        assert.matches("1 success[^\n]* / 0 failures / 0 errors", result.stdout)
      else
        result = helper.run(example)
      end
      assert.equal("", result.stderr, example)
      assert.equal(0, result.code)
    end
  end)
end)
