-- Runner, and event loop policies as far as getting loops goes. aloop.run is in main_chunk_spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

describe("Runner", function()
  it("runs coroutines one after the other on one loop", function() -- row: Runner
    local loop
    do
      local runner <close> = aloop.Runner()
      local var = aloop.ContextVar("v", { default = 0 })
      assert.same({ 1, nil, 3, n = 3 }, table.pack(runner:run(function()
        loop = aloop.get_running_loop()
        var:set(5)
        return aloop.sleep(0, 1, nil, 3)
      end)))
      assert.equal(5, runner:run(function() return var:get() end)) -- the context is kept
      assert.equal(0, var:get())
      assert.equal(loop, runner:get_loop())
      assert.equal(loop, runner:run(aloop.get_running_loop))
      local ctx = aloop.copy_context()
      assert.equal(0, runner:run(function() return var:get() end, { context = ctx }))
    end
    assert.is_true(loop:is_closed())
  end)

  it("raises what the coroutine raises, and can be used again", function()
    local runner <close> = aloop.Runner()
    local err = aloop.ValueError("x")
    assert.equal(err, raises(aloop.ValueError, nil, runner.run, runner, function() error(err) end))
    assert.equal(2, runner:run(function() return 2 end))
  end)

  it("is the current loop's, until it is closed", function() -- row: get_event_loop.unset
    local runner = aloop.Runner()
    assert.equal(runner:get_loop(), aloop.get_event_loop())
    runner:close()
    raises(aloop.RuntimeError, "There is no current event loop", aloop.get_event_loop)
    runner:close()
    raises(aloop.RuntimeError, "Runner is closed", runner.run, runner, function() end)
    raises(aloop.RuntimeError, "Runner is closed", runner.get_loop, runner)
  end)

  it("refuses what is no loop of its factory, and closes all the same", function() -- row: Runner
    local runner <close> = aloop.Runner { loop_factory = function() return 5 end }
    raises(aloop.RuntimeError, "loop_factory gave no event loop (AbstractEventLoop expected, got number)", runner.run,
      runner, function() end)
  end)

  it("takes debug and loop_factory", function()
    local made
    local runner <close> = aloop.Runner {
      debug = true,
      loop_factory = function()
        made = aloop.new_event_loop()
        return made
      end,
    }
    local loop = runner:get_loop()
    assert.equal(made, loop)
    assert.is_true(made:get_debug())
    raises(aloop.RuntimeError, "no current event loop", aloop.get_event_loop)
  end)

  it("cancels what its runs left behind when it is closed", function()
    local outcome
    do
      local runner <close> = aloop.Runner()
      runner:run(function()
        aloop.create_task(function()
          local _ <close> = aloop.defer(function()
            aloop.sleep(0.001)
            outcome = "cleaned"
          end)
          aloop.sleep(1000)
        end)
        aloop.sleep(0)
      end)
    end
    assert.equal("cleaned", outcome)
  end)

  it("takes any awaitable, and nothing else", function() -- row: run.nested
    local runner <close> = aloop.Runner()
    local future = runner:get_loop():create_future()
    future:set_result("done")
    assert.equal("done", runner:run(future))
    assert.equal("thread", runner:run(coroutine.create(function() return "thread" end)))
    type_error("bad argument #1 to 'run' (awaitable expected, got number; pass the function, don't call it)",
      runner.run, runner, 1)
    local _, message = pcall(aloop.run, function() end, { debugging = true })
    assert.matches("unknown option 'debugging' to 'run'", message)
    _, message = pcall(aloop.run, function() end, { debug = 1 })
    assert.matches("bad option 'debug' to 'run' %(boolean expected, got number%)", message)
  end)

  it("refuses to run inside a running loop", function()
    helper.with_loop(helper.new_loop, function()
      local runner = aloop.Runner()
      raises(aloop.RuntimeError, "cannot be called from a running event loop", runner.run, runner, function() end)
      runner:close()
    end)
  end)
end)

describe("a policy", function()
  teardown(function() aloop.set_event_loop_policy(nil) end)

  it("of one's own is asked for loops", function() -- row: set_event_loop_policy
    local Policy = aloop.DefaultEventLoopPolicy:extend("MyPolicy")
    function Policy:new_event_loop() return aloop.SelectorEventLoop(aloop.selectors.SelectSelector()) end
    local policy = Policy()
    aloop.set_event_loop_policy(policy)
    assert.equal(policy, aloop.get_event_loop_policy())
    local loop <close> = aloop.new_event_loop()
    assert.equal("select", require "aloop.core".machine(loop))
    assert.equal("select", aloop.run(function() return require "aloop.core".machine(aloop.get_running_loop()) end))
  end)

  it("may be any table with the three methods", function()
    local loop <close> = aloop.SelectorEventLoop()
    local set
    aloop.set_event_loop_policy {
      get_event_loop = function() return loop end,
      set_event_loop = function(_, l) set = l end,
      new_event_loop = function() return loop end,
    }
    assert.equal(loop, aloop.get_event_loop())
    assert.equal(loop, aloop.new_event_loop())
    aloop.set_event_loop(loop)
    assert.equal(loop, set)
  end)

  it("nil brings the default one back, what is none is refused", function() -- row: set_event_loop_policy.nil
    aloop.set_event_loop_policy(nil)
    local policy = aloop.get_event_loop_policy()
    assert.is_true(aloop.isinstance(policy, aloop.DefaultEventLoopPolicy))
    assert.equal(policy, aloop.get_event_loop_policy()) -- row: get_event_loop_policy
    type_error("bad argument #1 to 'set_event_loop_policy' (AbstractEventLoopPolicy expected, got number)",
      aloop.set_event_loop_policy, 1)
    type_error("bad argument #1 to 'set_event_loop_policy'", aloop.set_event_loop_policy, {})
    raises(aloop.NotImplementedError, nil, aloop.AbstractEventLoopPolicy().new_event_loop)
  end)
end)
