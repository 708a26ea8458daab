-- The kinds of loops, their classes, and the selectors that a loop may be made with.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

describe("loop classes", function()
  -- row: EventLoop, implementations.default
  it("EventLoop is SelectorEventLoop, and new_event_loop makes one", function()
    assert.equal(aloop.SelectorEventLoop, aloop.EventLoop)
    local loop <close> = aloop.new_event_loop()
    assert.is_true(aloop.isinstance(loop, aloop.EventLoop))
  end)

  -- row: AbstractEventLoop, BaseEventLoop, abstract_loop.base
  it("AbstractEventLoop is the base of all, BaseEventLoop of both kinds", function()
    local loop <close> = aloop.SelectorEventLoop()
    for _, class in ipairs { "AbstractEventLoop", "BaseEventLoop", "SelectorEventLoop" } do
      assert.is_true(aloop.isinstance(loop, aloop[class]), class)
    end
    assert.is_false(aloop.isinstance(loop, aloop.ProactorEventLoop))
    assert.is_false(aloop.isinstance(42, aloop.AbstractEventLoop))
    assert.is_false(aloop.isinstance({}, aloop.AbstractEventLoop))
  end)

  it("AbstractEventLoop's and AbstractServer's own methods raise NotImplementedError", function()
    local abstract = aloop.AbstractEventLoop()
    for _, name in ipairs { "call_soon", "run_forever", "create_connection", "run_in_executor", "close" } do
      raises(aloop.NotImplementedError, name, abstract[name], abstract)
    end
    raises(aloop.NotImplementedError, "close", aloop.AbstractServer.close, aloop.AbstractServer())
    local loop <close> = aloop.SelectorEventLoop()
    assert.is_false(loop:is_closed())
  end)

  it("a ring is a ProactorEventLoop, or refused with the reason", function() -- row: ProactorEventLoop
    local ok, loop = pcall(aloop.ProactorEventLoop)
    if ok then
      assert.is_true(aloop.isinstance(loop, aloop.ProactorEventLoop))
      assert.is_true(aloop.isinstance(loop, aloop.BaseEventLoop))
      assert.is_false(aloop.isinstance(loop, aloop.SelectorEventLoop))
      assert.equal(4, loop:run_until_complete(function() return 4 end))
      loop:close()
    else
      assert.is_true(aloop.isinstance(loop, aloop.NotImplementedError))
      assert.is_true(#loop.message > 10)
    end
  end)

  -- row: SelectorEventLoop, SelectorEventLoop.selector, SelectorEventLoop.default_selector, selectors.module
  it("a SelectorEventLoop runs on each selector, by default on epoll", function()
    assert.equal(aloop.selectors.EpollSelector, aloop.selectors.DefaultSelector)
    for _, name in ipairs { "EpollSelector", "PollSelector", "SelectSelector", "DefaultSelector" } do
      local before = helper.count_fds()
      local loop = aloop.SelectorEventLoop(aloop.selectors[name]())
      assert.equal(name, loop:run_until_complete(function()
        aloop.sleep(0)
        return name
      end))
      loop:close()
      assert.equal(before, helper.count_fds(), name)
    end
  end)

  it("a SelectorEventLoop refuses what is no selector", function()
    type_error("selector expected, got number", aloop.SelectorEventLoop, 42)
  end)

  it("there is no kqueue here", function() -- row: selectors.module
    raises(aloop.NotImplementedError, nil, aloop.selectors.KqueueSelector)
  end)

  it("several loops may be open at once, of different kinds", function()
    local loops = {}
    for i, kind in ipairs(helper.kinds) do
      local new_loop, reason = helper.loop_maker(kind)
      if not reason then loops[i] = new_loop() end
    end
    for round = 1, 3 do
      for i, loop in pairs(loops) do
        assert.equal(i * round, loop:run_until_complete(function()
          aloop.sleep(0)
          return i * round
        end))
      end
    end
    for _, loop in pairs(loops) do loop:close() end
  end)

  it("a subclass's init runs, with the selector", function()
    for _, base in ipairs { aloop.SelectorEventLoop, aloop.SelectorEventLoop:extend("Between") } do
      local MyLoop = base:extend("MyLoop")
      function MyLoop:init(selector)
        self.given, self.time_of_init = selector, self:time()
      end
      local selector = aloop.selectors.PollSelector()
      local loop <close> = MyLoop(selector)
      assert.equal(selector, loop.given)
      assert.is_true(loop.time_of_init <= loop:time())
      local other <close> = MyLoop()
      assert.is_nil(other.given)
    end
  end)

  -- row: create_future.alternative, create_task.subclass
  it("a subclass may replace create_future and create_task; aloop calls these", function()
    local MyLoop = aloop.SelectorEventLoop:extend("MyLoop")
    local futures, tasks = 0, 0
    function MyLoop:create_future()
      futures = futures + 1
      return aloop.SelectorEventLoop.create_future(self)
    end
    function MyLoop:create_task(...)
      tasks = tasks + 1
      return aloop.SelectorEventLoop.create_task(self, ...)
    end
    local loop <close> = MyLoop()
    assert.is_true(aloop.isinstance(loop, MyLoop))
    assert.is_true(aloop.isinstance(loop, aloop.SelectorEventLoop))
    assert.matches("MyLoop", tostring(loop))
    assert.equal("done", loop:run_until_complete(function()
      local task = aloop.create_task(function() return "done" end)
      return task:await()
    end))
    assert.equal(2, tasks)
    local future = loop:create_future()
    future:set_result(1)
    assert.equal(1, loop:run_until_complete(future))
    assert.is_true(futures >= 1)
  end)

  it("the interpreter's -X options choose the loop that new_event_loop makes", function()
    for _, name in ipairs { "epoll", "poll", "select" } do
      local out = helper.output_of([[
        local aloop = require "aloop"
        aloop.sleep(0)
        print(aloop.isinstance(aloop.get_running_loop(), aloop.SelectorEventLoop))
      ]], { flags = { "-X", "selector=" .. name } })
      assert.equal("true\n", out)
    end
  end)
end)
