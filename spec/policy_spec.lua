-- Event loop policies: which loop is current and how loops are made; policies of a script's own, also for the main
-- chunk's loop. That each thread has its own current loop is spec/c/embed_threads.c's. -- row: policy.per_thread_loop
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function select_loop() return aloop.SelectorEventLoop(aloop.selectors.SelectSelector()) end

describe("event loop policies", function()
  local before
  setup(function() before = aloop.get_event_loop_policy() end)
  after_each(function() aloop.set_event_loop_policy(before) end)

  it("the default one is made at need, and stays", function() -- row: get_event_loop_policy
    aloop.set_event_loop_policy(nil)
    local policy = aloop.get_event_loop_policy()
    assert.is_true(aloop.isinstance(policy, aloop.DefaultEventLoopPolicy))
    assert.is_true(aloop.isinstance(policy, aloop.AbstractEventLoopPolicy))
    assert.equal(policy, aloop.get_event_loop_policy())
  end)

  it("one that is set is what get_event_loop_policy gives; nil brings a default one back", function()
    -- row: set_event_loop_policy, set_event_loop_policy.nil
    local mine = aloop.DefaultEventLoopPolicy()
    assert.is_nil(aloop.set_event_loop_policy(mine))
    assert.equal(mine, aloop.get_event_loop_policy())
    aloop.set_event_loop_policy(nil)
    assert.are_not.equal(mine, aloop.get_event_loop_policy())
  end)

  it("what is no policy is refused, a class among it", function() -- row: set_event_loop_policy.nil
    local expected = "bad argument #1 to 'set_event_loop_policy' (AbstractEventLoopPolicy expected, got "
    for value, typename in pairs {
      [42] = "number", ["x"] = "string", [true] = "boolean", [{}] = "table", [print] = "function",
      [aloop.DefaultEventLoopPolicy] = "class", [io.stderr] = "FILE*",
    } do
      type_error(expected .. typename, aloop.set_event_loop_policy, value)
    end
    assert.equal(before, aloop.get_event_loop_policy())
  end)

  it("AbstractEventLoopPolicy's methods raise NotImplementedError; a subclass may do as it likes", function()
    -- row: AbstractEventLoopPolicy
    local abstract = aloop.AbstractEventLoopPolicy()
    for _, name in ipairs { "get_event_loop", "set_event_loop", "new_event_loop" } do
      raises(aloop.NotImplementedError, name, abstract[name], abstract)
    end
    local Mine = aloop.AbstractEventLoopPolicy:extend("Mine")
    local loop <close> = select_loop()
    function Mine:new_event_loop() return loop end
    aloop.set_event_loop_policy(Mine())
    assert.equal(loop, aloop.new_event_loop())
    raises(aloop.NotImplementedError, nil, aloop.get_event_loop)
    raises(aloop.NotImplementedError, nil, aloop.set_event_loop, loop)
  end)

  it("get_event_loop, set_event_loop and new_event_loop go through it", function() -- row: getters.policy_overridable
    local calls, loop = {}, select_loop()
    aloop.set_event_loop_policy {
      get_event_loop = function() calls[#calls + 1] = "get" return loop end,
      set_event_loop = function(_, l) calls[#calls + 1] = l or "none" end,
      new_event_loop = function() calls[#calls + 1] = "new" return loop end,
    }
    assert.equal(loop, aloop.get_event_loop())
    assert.equal(loop, aloop.new_event_loop())
    aloop.set_event_loop(loop)
    aloop.set_event_loop(nil)
    assert.same({ "get", "new", loop, "none" }, calls)
    assert.equal(loop, loop:run_until_complete(function() return aloop.get_event_loop() end))
    assert.equal(4, #calls)
    loop:close()
  end)

  it("what it gives that is no loop is an error, never the result", function() -- row: get_event_loop.never_nil
    local result
    aloop.set_event_loop_policy {
      get_event_loop = function() return result end,
      set_event_loop = function() end,
      new_event_loop = function() return result end,
    }
    for _, value in ipairs { false, 42, {} } do
      result = value or nil
      raises(aloop.RuntimeError, "the event loop policy's get_event_loop() gave no event loop", aloop.get_event_loop)
      raises(aloop.RuntimeError, "the event loop policy's new_event_loop() gave no event loop", aloop.new_event_loop)
      raises(aloop.RuntimeError, "gave no event loop", aloop.run, function() end)
    end
  end)

  it("a default one with its own new_event_loop supplies the loops of run and Runner", function()
    -- row: DefaultEventLoopPolicy
    local Policy = aloop.DefaultEventLoopPolicy:extend("MyPolicy")
    Policy.new_event_loop = select_loop
    aloop.set_event_loop_policy(Policy())
    local function machine() return core.machine(aloop.get_running_loop()) end
    assert.equal("select", aloop.run(machine))
    local runner <close> = aloop.Runner()
    assert.equal("select", runner:run(machine))
    local loop <close> = aloop.new_event_loop()
    assert.equal("select", core.machine(loop))
  end)

  it("each default one has its own current loop", function() -- row: DefaultEventLoopPolicy
    local one, other = aloop.DefaultEventLoopPolicy(), aloop.DefaultEventLoopPolicy()
    local a <close> = select_loop()
    local b <close> = select_loop()
    aloop.set_event_loop_policy(one)
    aloop.set_event_loop(a)
    aloop.set_event_loop_policy(other)
    other:set_event_loop(b)
    assert.equal(b, aloop.get_event_loop())
    assert.equal(a, one:get_event_loop())
    aloop.set_event_loop_policy(one)
    assert.equal(a, aloop.get_event_loop())
    aloop.set_event_loop(nil)
    raises(aloop.RuntimeError, "There is no current event loop", aloop.get_event_loop)
    assert.equal(b, other:get_event_loop())
    local expected = "bad argument #1 to 'set_event_loop' (AbstractEventLoop expected, got number)"
    type_error(expected, one.set_event_loop, one, 1)
  end)

  it("a run sets the loop by it, and none at the end; with a loop_factory it isn't asked", function()
    local calls = {}
    local Policy = aloop.DefaultEventLoopPolicy:extend()
    function Policy:set_event_loop(loop)
      calls[#calls + 1] = loop and tostring(loop:is_running()) or "none"
      aloop.DefaultEventLoopPolicy.set_event_loop(self, loop)
    end
    aloop.set_event_loop_policy(Policy())
    aloop.run(function() calls[#calls + 1] = "running" end)
    assert.same({ "false", "running", "none" }, calls)
    calls = {}
    aloop.run(function() end, { loop_factory = select_loop })
    assert.same({}, calls)
  end)

  it("still work, deprecated as they are in Python", function() -- row: policy.deprecated
    helper.drive(helper.new_loop, function(_, trial)
      aloop.set_event_loop_policy(aloop.DefaultEventLoopPolicy())
      aloop.get_event_loop_policy()
      assert.equal(0, #trial.logs)
    end)
  end)
end)

describe("the main chunk's loop", function()
  local function output(policy, rest)
    return (helper.output_of('local aloop, core = require "aloop", require "aloop.core"\n' .. policy .. rest))
  end

  local subclass = [[
    local Policy = aloop.DefaultEventLoopPolicy:extend("MyPolicy")
    function Policy:new_event_loop()
      print("new")
      return aloop.SelectorEventLoop(aloop.selectors.SelectSelector())
    end
    aloop.set_event_loop_policy(Policy())
  ]]

  it("is made by the policy that is set, once, when it is first needed", function() -- row: DefaultEventLoopPolicy
    assert.equal("new\nselect\ntrue\n", output(subclass, [[
      aloop.sleep(0)
      local loop = aloop.get_running_loop()
      print(core.machine(loop))
      print(loop == aloop.get_event_loop())
    ]]))
    assert.equal("new\nselect\ntrue\ntrue\n", output(subclass, [[
      local loop = aloop.get_event_loop()
      print(core.machine(loop))
      print(loop == aloop.get_event_loop())
      aloop.sleep(0)
      print(loop == aloop.get_running_loop())
    ]]))
    assert.equal("end\n", output(subclass, "print('end')"))
  end)

  it("is the one that a policy has as the current one already", function()
    assert.equal("get\ntrue\n", output([[
      local loop = aloop.SelectorEventLoop()
      aloop.set_event_loop_policy {
        get_event_loop = function()
          print("get")
          return loop
        end,
        set_event_loop = print,
        new_event_loop = function() error("not asked for") end,
      }
    ]], [[
      aloop.sleep(0)
      print(aloop.get_running_loop() == loop)
    ]]))
  end)

  it("is not to be had from a policy that fails, and the wait says why", function()
    assert.matches("^false\tValueError: no loops today\n", output([[
      aloop.set_event_loop_policy {
        get_event_loop = function() error(aloop.ValueError("none")) end,
        set_event_loop = print,
        new_event_loop = function() error(aloop.ValueError("no loops today")) end,
      }
    ]], "print(pcall(aloop.sleep, 0))"))
    assert.matches("NotImplementedError", output([[
      aloop.set_event_loop_policy(aloop.AbstractEventLoopPolicy())
    ]], "print(pcall(aloop.sleep, 0))"))
  end)

  it("that a script made and set is the one it waits on", function()
    assert.equal("true\n", output("", [[
      local loop = aloop.SelectorEventLoop(aloop.selectors.PollSelector())
      aloop.set_event_loop(loop)
      aloop.sleep(0)
      print(aloop.get_running_loop() == loop)
    ]]))
  end)
end)
