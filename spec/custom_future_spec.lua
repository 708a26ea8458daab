-- A loop whose class makes its own futures: whatever a task waits for is one of these.
-- row: create_future.alternative
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  local made, answer

  -- A class like that of the loop, with futures of its own.
  local function new_custom()
    local loop = new_loop()
    loop:close()
    local base = aloop.isinstance(loop, aloop.ProactorEventLoop) and aloop.ProactorEventLoop or aloop.SelectorEventLoop
    local MyLoop = base:extend("MyLoop")
    function MyLoop:create_future()
      if answer then return answer() end
      local future = base.create_future(self)
      made[#made + 1] = future
      return future
    end
    return MyLoop()
  end

  local function with_loop(body)
    made = {}
    helper.with_loop(new_custom, body)
  end

  it("streams wait on the loop's own futures", function()
    with_loop(function(loop)
      local a, b = aloop.socket.socketpair()
      local reader, writer = aloop.open_connection(nil, nil, { sock = a })
      local n = #made
      assert.is_true(n > 0)
      b:send("li")
      loop:call_later(0.002, b.send, b, "ne\n")
      assert.equal("line\n", reader:readline())
      assert.equal(n + 1, #made)
      assert.is_true(made[#made]:done())
      writer:close()
      writer:wait_closed()
      assert.equal(n + 2, #made)
      b:close()
    end)
  end)

  it("a wait whose future a script gives a result to is over, and so is what was waited for", function()
    with_loop(function(loop)
      local a, b = aloop.socket.socketpair()
      local server = loop:create_server(aloop.Protocol, "127.0.0.1", 0)
      local port = server.sockets[1]:getsockname().port
      for _, wait in ipairs {
        function() return loop:sock_recv(a, 10) end,
        function() return server:serve_forever() end,
        function() return (loop:create_connection(aloop.Protocol, "127.0.0.1", port)) end,
        function() return aloop.StreamReader():readline() end,
      } do
        local tasks = { loop:create_task(wait) }
        aloop.sleep(0)
        if not made[#made]:done() then made[#made]:set_result() end
        b:send("x")
        table.remove(tasks):await()
        collectgarbage()
      end
      b:send("late")
      aloop.sleep(0.002)
      assert.equal("xxxxlate", loop:sock_recv(a, 10))
      assert.is_true(server:is_serving())
      server:close()
      server:wait_closed()
      a:close()
      b:close()
    end)
  end)

  it("a wait is cancelled as ever", function()
    with_loop(function(loop)
      local reader = aloop.StreamReader()
      for _ = 1, 2 do
        local task = loop:create_task(function() return reader:readline() end)
        aloop.sleep(0)
        task:cancel("enough")
        helper.raises(aloop.CancelledError, "enough", task.await, task)
        assert.is_true(made[#made]:cancelled())
      end
      local task = loop:create_task(function() return reader:readline() end)
      aloop.sleep(0)
      reader:feed_data("line\n")
      task:cancel()
      helper.raises(aloop.CancelledError, nil, task.await, task)
      assert.equal("line\n", reader:readline())
    end)
  end)

  it("who cancels the future ends the wait, too", function()
    with_loop(function(loop)
      local reader = aloop.StreamReader()
      local task = loop:create_task(function() return reader:readline() end)
      aloop.sleep(0)
      made[#made]:cancel()
      helper.raises(aloop.CancelledError, nil, task.await, task)
      task = loop:create_task(function() return pcall(reader.readline, reader) end)
      aloop.sleep(0)
      made[#made]:set_exception(aloop.ValueError("from outside"))
      assert.equal("from outside", select(2, task:await()).message)
      reader:feed_data("line\n")
      assert.equal("line\n", reader:readline())
    end)
  end)

  it("an error in create_future is that of the wait", function()
    with_loop(function()
      local reader = aloop.StreamReader()
      answer = function() error("no future", 0) end
      local ok, e = pcall(reader.readline, reader)
      local event = aloop.Event()
      assert.same({ false, "no future" }, { pcall(event.wait, event) })
      answer = function() return 7 end
      helper.raises(aloop.RuntimeError, "create_future gave no pending Future", event.wait, event)
      helper.raises(aloop.RuntimeError, "create_future gave no pending Future", reader.readline, reader)
      answer = function() -- what is waited for comes meanwhile
        answer = nil
        event:set()
        return aloop.get_running_loop():create_future()
      end
      assert.is_true(event:wait())
      assert.same({ false, "no future" }, { ok, e })
      reader:feed_data("line\n")
      assert.equal("line\n", reader:readline())
    end)
  end)

  it("locks, queues and their like wait on them, too", function()
    with_loop(function(loop)
      local event, queue, semaphore = aloop.Event(), aloop.Queue(), aloop.Semaphore(0)
      local condition = aloop.Condition()
      local guard = condition:acquire()
      for i, case in ipairs {
        { function() return event:wait() end, function() event:set() end, true },
        { function() return queue:get() end, function() queue:put_nowait("item") end, "item" },
        { function() return semaphore:acquire() ~= nil end, function() semaphore:release() end, true },
        { function() return condition:acquire() ~= nil end, function() guard:release() end, true },
      } do
        local n = #made
        local task = loop:create_task(case[1])
        aloop.sleep(0)
        assert.same({ i, n + 1 }, { i, #made })
        assert.is_false(made[n + 1]:done())
        case[2]()
        assert.is_true(made[n + 1]:done())
        assert.equal(case[3], task:await())
      end
    end)
  end)

  it("who waits for a lock waits on when a script gives its future a result, and hands on its turn", function()
    with_loop(function(loop)
      local lock = aloop.Lock()
      local guard, tasks = lock:acquire(), {}
      for i = 1, 4 do
        tasks[i] = loop:create_task(function()
          local _ <close> = lock:acquire()
          return i
        end)
        aloop.sleep(0)
      end
      made[1]:set_result("not the lock")
      made[2]:cancel()
      aloop.sleep(0)
      assert.equal(5, #made)
      assert.is_true(tasks[2]:cancelled())
      guard:release() -- it is the third's turn
      tasks[3]:cancel("message")
      assert.equal("message", select(2, pcall(tasks[3].await, tasks[3])).message)
      assert.same({ 4, 1 }, { tasks[4]:await(), tasks[1]:await() })
      assert.is_false(lock:locked())
    end)
  end)

  it("a loop that is closed forgets them", function()
    made = {}
    helper.drive(new_custom, function(loop)
      local reader = aloop.StreamReader()
      local event = aloop.Event()
      loop:create_task(function() reader:readline() end)
      loop:create_task(function() event:wait() end)
      loop:set_exception_handler(function() end)
      helper.turn(loop, 2)
      loop:close()
      reader:feed_data("line\n")
      event:set()
    end, { open = true })
  end)
end)
