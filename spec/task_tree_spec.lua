-- task_tree_spec.lua: what each task waits for, and who waits for whom (aloop.graph, aloop.tools, call graphs).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local tools = require "aloop.tools"

local as_task, raises, turns, type_error = helper.as_task, helper.raises, helper.turns, helper.type_error

-- Makes tasks of the functions (name → body), lets them come to where they wait, and returns the tree and the tasks.
local function tree_of(loop, bodies)
  local tasks, names = {}, {}
  for name in pairs(bodies) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do tasks[name] = loop:create_task(bodies[name], { name = name }) end
  turns(3)
  return tools.pstree(), tasks
end

local function cancel_all(tasks)
  for _, task in pairs(tasks) do task:cancel() end
  for _, task in pairs(tasks) do pcall(task.await, task) end
end

-- The line of a task, without what stands before its name.
local function line_of(tree, name)
  return tree:match("%(T%) " .. name .. ": ([^\n]*)")
end

-- How far a task's line is indented, in levels.
local function level_of(tree, name)
  for line in tree:gmatch("[^\n]+") do
    local before = line:match("^(.-)%(T%) " .. name .. ":")
    if before then return (utf8.len(before) - 4) // 4 end
  end
end

local function occurrences(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("what a task waits for", function()
  it("is a timer with the time left, with its stack", function() -- row: all_tasks
    as_task(function(loop)
      local function nap() aloop.sleep(100) return 1 end
      local tree, tasks = tree_of(loop, { napping = function() local x = nap() return x end })
      local left = tonumber(line_of(tree, "napping"):match("^waits for timer, ([%d.]+) s left$"))
      assert.is_true(left > 60 and left <= 100)
      assert.matches("\n[^\n]*nap spec/task_tree_spec%.lua:%d+\n[^\n]*function spec/task_tree_spec%.lua:%d+\n", tree)
      cancel_all(tasks)
    end)
  end)

  it("is a lock, an event, a condition, a semaphore, a barrier, a queue: by its class", function()
    as_task(function(loop) -- row: locks_queues
      local lock, semaphore, queue, full = aloop.Lock(), aloop.Semaphore(0), aloop.Queue(), aloop.Queue(1)
      local event, condition, barrier = aloop.Event(), aloop.Condition(), aloop.Barrier(3)
      local guard <close> = lock:acquire() -- luacheck: ignore 211
      full:put(1)
      local tree, tasks = tree_of(loop, {
        at_lock = function() lock:acquire() end,
        at_event = function() event:wait() end,
        at_condition = function()
          local _ <close> = condition:acquire()
          condition:wait()
        end,
        at_semaphore = function() semaphore:acquire() end,
        at_barrier = function() barrier:wait() end,
        getting = function() queue:get() end,
        putting = function() full:put(2) end,
      })
      assert.matches("^waits for <Lock at 0x%x+>$", line_of(tree, "at_lock"))
      assert.matches("^waits for <Event at 0x%x+>$", line_of(tree, "at_event"))
      assert.matches("^waits for <Condition at 0x%x+>$", line_of(tree, "at_condition"))
      assert.matches("^waits for <Semaphore at 0x%x+>$", line_of(tree, "at_semaphore"))
      assert.matches("^waits for <Condition at 0x%x+>$", line_of(tree, "at_barrier")) -- its own
      assert.matches("^waits for <Queue at 0x%x+>$", line_of(tree, "getting"))
      assert.matches("^waits for <Queue at 0x%x+>$", line_of(tree, "putting"))
      cancel_all(tasks)
    end)
  end)

  helper.each_loop(function(_, new_loop)
    it("is an operation with its descriptor and peer", function()
      helper.with_loop(new_loop, function(loop)
        local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
        local port = server.sockets[1]:getsockname()[2]
        local accepting = aloop.socket.socket()
        accepting:setblocking(false)
        accepting:bind({ "127.0.0.1", 0 })
        accepting:listen()
        local here, there = aloop.socket.socketpair()
        here:setblocking(false)
        local client = aloop.socket.socket()
        client:setblocking(false)
        loop:sock_connect(client, { "127.0.0.1", port })
        local tree, tasks = tree_of(loop, {
          serving = function() server:serve_forever() end,
          at_accept = function() loop:sock_accept(accepting) end,
          at_recv = function() loop:sock_recv(here, 10) end,
          at_peer = function() loop:sock_recv(client, 10) end,
          resolving = function() loop:getaddrinfo("localhost", 80) end,
        })
        assert.matches("^waits for serve_forever: .*descriptor %d+, at 127%.0%.0%.1:" .. port, line_of(tree, "serving"))
        assert.matches("^waits for sock_accept: .*descriptor " .. accepting:fileno() .. ", at 127%.0%.0%.1:%d+",
          line_of(tree, "at_accept"))
        assert.matches("^waits for sock_recv: .*descriptor " .. here:fileno(), line_of(tree, "at_recv"))
        assert.matches("^waits for sock_recv: .*descriptor " .. client:fileno() .. ", peer 127%.0%.0%.1:" .. port,
          line_of(tree, "at_peer"))
        local resolving = line_of(tree, "resolving")
        if resolving ~= "ready" then assert.matches('^waits for getaddrinfo%("localhost", 80%)', resolving) end
        client:close() -- or serve_forever would wait for its end
        tasks.at_peer:cancel()
        cancel_all(tasks)
        for _, socket in ipairs { accepting, here, there } do socket:close() end
        server:close()
        server:wait_closed()
      end)
    end)
  end)

  it("is a stream's reader or writer, with its descriptor and peer", function()
    as_task(function(loop)
      local stop = loop:create_future()
      local server = aloop.start_server(function(_, writer)
        local _ <close> = writer
        stop:await()
      end, "127.0.0.1", 0)
      local port = server.sockets[1]:getsockname()[2]
      local reader, writer = aloop.open_connection("127.0.0.1", port)
      local tree, tasks = tree_of(loop, {
        reading = function() reader:readline() end,
        draining = function()
          while true do
            writer:write(("x"):rep(1000000))
            writer:drain()
          end
        end,
      })
      assert.matches("^waits for readline: .*descriptor %d+, peer 127%.0%.0%.1:" .. port, line_of(tree, "reading"))
      assert.matches("^waits for drain: .*descriptor %d+, peer 127%.0%.0%.1:" .. port, line_of(tree, "draining"))
      cancel_all(tasks)
      stop:set_result()
      writer.transport:abort()
      server:close()
      server:wait_closed()
    end)
  end)

  it("is a plain future, a task; and one may be new, ready or running", function()
    as_task(function(loop)
      local future = loop:create_future()
      local _, tasks = tree_of(loop, {
        a = function() future:await() end,
        b = function() aloop.sleep(100) end,
      })
      tasks.c = loop:create_task(function() tasks.b:await() end, { name = "c" })
      turns(2)
      tasks.new = loop:create_task(function() end, { name = "new" })
      future:set_result()
      local tree = tools.pstree()
      assert.equal("ready", line_of(tree, "a"))
      assert.equal("waits for task b", line_of(tree, "c"))
      assert.equal("created", line_of(tree, "new"))
      assert.equal("running", line_of(tree, aloop.current_task():get_name():gsub("%p", "%%%0")))
      future = loop:create_future()
      tasks.d = loop:create_task(function() future:await() end, { name = "d" })
      turns(2)
      assert.matches("^waits for <Future at 0x%x+>$", line_of(tools.pstree(), "d"))
      cancel_all(tasks)
    end)
  end)

  it("is told without a call of any code of the script's", function() -- bug: 30
    as_task(function(loop)
      local Loud = aloop.Lock:extend("Loud")
      function Loud.__tostring() error("shown") end
      local lock = Loud()
      local guard <close> = lock:acquire() -- luacheck: ignore 211
      local tree, tasks = tree_of(loop, { at_lock = function() lock:acquire() end })
      assert.matches("^waits for <Loud at 0x%x+>$", line_of(tree, "at_lock"))
      cancel_all(tasks)
    end)
  end)
end)

describe("the tree", function()
  it("has those who are awaited below those who await, through coroutines too", function()
    as_task(function(loop)
      local leaf = loop:create_task(function() aloop.sleep(100) end, { name = "leaf" })
      local tree, tasks = tree_of(loop, {
        top = function()
          local middle = loop:create_task(function()
            coroutine.wrap(function() leaf:await() end)()
          end, { name = "middle" })
          middle:await()
        end,
      })
      assert.equal(0, level_of(tree, "top"))
      assert.equal(1, level_of(tree, "middle"))
      assert.equal(2, level_of(tree, "leaf"))
      assert.matches("^5 tasks\n", tree) -- with the main chunk and the spec
      cancel_all(tasks)
    end)
  end)

  for what, body in pairs {
    gather = function(a, b) aloop.gather(a, b) end,
    wait = function(a, b) aloop.wait { a, b } end,
    as_completed = function(a, b) for future in aloop.as_completed { a, b } do future:await() end end,
    ["wait_for and shield"] = function(a, b)
      local both = aloop.create_task(function() aloop.gather(a, b) end, { name = "both" })
      aloop.wait_for(function() aloop.shield(both) end, 100)
    end,
    ["a future with callbacks"] = function(a, b)
      local future = a:get_loop():create_future()
      for _, task in ipairs { a, b } do
        task:add_done_callback(function() if not future:done() then future:set_result() end end)
      end
      future:await()
    end,
    future_add_to_awaited_by = function(a, b)
      local future = a:get_loop():create_future()
      aloop.future_add_to_awaited_by(a, future)
      aloop.future_add_to_awaited_by(b, future)
      future:await()
    end,
  } do
    it("sees through " .. what, function()
      as_task(function(loop)
        local a = loop:create_task(function() aloop.sleep(100) end, { name = "a" })
        local b = loop:create_task(function() aloop.sleep(100) end, { name = "b" })
        local tree, tasks = tree_of(loop, { top = function() body(a, b) end })
        local below = what:find("shield") and 2 or 1
        assert.equal(0, level_of(tree, "top"), tree)
        assert.equal(below, level_of(tree, "a"), tree)
        assert.equal(below, level_of(tree, "b"), tree)
        cancel_all(tasks)
        cancel_all { a, b }
      end)
    end)
  end

  it("has the tasks of a TaskGroup below its owner, whatever that does meanwhile", function()
    as_task(function(loop)
      local tree, tasks = tree_of(loop, {
        owner = function()
          local group <close> = aloop.TaskGroup()
          group:create_task(function() aloop.sleep(100) end, { name = "child" })
        end,
        busy = function()
          local group <close> = aloop.TaskGroup()
          group:create_task(function() aloop.sleep(100) end, { name = "other" })
          aloop.sleep(50)
        end,
      })
      assert.matches("^waits for <TaskGroup at 0x%x+>$", line_of(tree, "owner"))
      assert.equal(1, level_of(tree, "child"))
      assert.equal(1, level_of(tree, "other"))
      assert.equal(0, level_of(tree, "busy"))
      cancel_all(tasks)
    end)
  end)

  it("shows a task that several await once, and names it for the others", function() -- bug: 30
    as_task(function(loop)
      local shared = loop:create_task(function() aloop.sleep(100) end, { name = "shared" })
      local tree, tasks = tree_of(loop, {
        a = function() shared:await() end,
        b = function() shared:await() end,
        c = function() aloop.gather(shared, function() aloop.sleep(100) end) end,
      })
      assert.equal(1, occurrences(tree, "%(T%) shared"))
      assert.equal(2, occurrences(tree, "shown above"))
      cancel_all(tasks)
      cancel_all { shared }
    end)
  end)

  it("tells cycles", function()
    as_task(function(loop)
      local tasks = {}
      tasks.a = loop:create_task(function() tasks.b:await() end, { name = "a" })
      tasks.b = loop:create_task(function() tasks.c:await() end, { name = "b" })
      tasks.c = loop:create_task(function() aloop.gather(tasks.a, tasks.d) end, { name = "c" })
      tasks.d = loop:create_task(function() aloop.sleep(0.02) error("over") end, { name = "d" })
      tasks.outside = loop:create_task(function() tasks.a:await() end, { name = "outside" })
      turns(3)
      local tree = tools.pstree()
      assert.matches("\ncycle: a → b → c → a\n", tree)
      for _, name in ipairs { "a", "b", "c", "d", "outside" } do
        assert.equal(1, occurrences(tree, "%(T%) " .. name .. ":"), tree)
      end
      for _, name in ipairs { "a", "b", "c", "d", "outside" } do -- the error goes round and ends them all
        pcall(tasks[name].await, tasks[name])
      end
    end)
  end)

  -- The sizes of the tree and of the list of n tasks, made by make(i, tasks, ending), of which some await ending.
  local function sizes_of(loop, n, make)
    local tasks, ending = {}, loop:create_future()
    for i = 1, n do tasks[i] = loop:create_task(make(i, tasks, ending)) end
    turns(3)
    local tree, list = tools.pstree(), tools.ps()
    assert.matches("^" .. n + 2 .. " tasks\n", tree)
    assert.equal(n + 3, occurrences(list, "\n"))
    ending:set_result()
    tasks[n]:await()
    return #tree, #list
  end

  for what, make in pairs {
    ["that await a future"] = function(_, _, ending)
      return function() ending:await() end
    end,
    ["that await one task"] = function(i, tasks, ending)
      return function() if i == 1 then ending:await() else tasks[1]:await() end end
    end,
    ["of which each awaits two"] = function(i, tasks, ending) -- ever more ways lead to the first ones
      return function()
        if i <= 2 then ending:await() else aloop.wait { tasks[i - 1], tasks[i - 2] } end
      end
    end,
  } do
    it("grows as their number does, of tasks " .. what, function() -- bug: 30; row: all_tasks
      as_task(function(loop)
        local small, small_list = sizes_of(loop, 300, make)
        local large, large_list = sizes_of(loop, 3000, make)
        assert.is_true(large < 13 * small, ("%d, %d"):format(small, large))
        assert.is_true(large_list < 13 * small_list)
      end)
    end)
  end

  it("of a long chain is not indented without end", function() -- bug: 30
    as_task(function(loop)
      local first = loop:create_future()
      local last = first
      for i = 1, 3000 do
        local before = last
        last = loop:create_task(function() before:await() end, { name = "link" .. i })
      end
      turns(3)
      local tree = tools.pstree()
      assert.matches("%(depth 2999%)", tree)
      assert.is_true(#tree < 3000 * 400)
      first:set_result()
      last:await()
    end)
  end)

  it("keeps names on one line", function()
    as_task(function(loop)
      local tree, tasks = tree_of(loop, { ["two\n\27[2Jlines"] = function() aloop.sleep(100) end })
      assert.matches("%(T%) two%?%?%[2Jlines: waits", tree)
      cancel_all(tasks)
    end)
  end)

  it("of nothing says so", function()
    local out = helper.output_of [[io.write(require("aloop.tools").pstree(), require("aloop.tools").ps())]]
    assert.equal("no tasks\nno tasks\n", out)
  end)

  it("has the tasks of the main chunk", function()
    local out = helper.output_of [[
      local aloop = require "aloop"
      local child = aloop.create_task(function() aloop.sleep(100) end, { name = "child" })
      aloop.create_task(function()
        io.write(require("aloop.tools").pstree())
        child:cancel()
      end, { name = "looks" })
      pcall(child.await, child)
    ]]
    assert.matches("^3 tasks\n", out)
    assert.matches("waits for task child", out)
  end)
end)

describe("call graphs", function()
  it("give the stack of a task and who awaits it", function()
    as_task(function(loop)
      local inner = loop:create_task(function()
        local function nap() aloop.sleep(100) return 1 end
        local x = nap()
        return x
      end, { name = "inner" })
      local outer = loop:create_task(function() aloop.gather(inner) end, { name = "outer" })
      turns(3)
      local graph = aloop.capture_call_graph(inner)
      assert.equal(inner, graph.future)
      assert.equal("nap", graph.call_stack[1].name)
      assert.equal(2, #graph.call_stack)
      assert.equal(1, #graph.awaited_by)
      assert.equal(outer, graph.awaited_by[1].future)
      assert.matches("^waits for timer", graph.waits_for)
      assert.equal("nap", aloop.capture_call_graph(inner, { limit = 1 }).call_stack[1].name)
      assert.not_equal("nap", aloop.capture_call_graph(inner, { limit = -1 }).call_stack[1].name)
      assert.same({}, aloop.capture_call_graph(inner, { limit = 0 }).call_stack)
      local text = aloop.format_call_graph(inner)
      assert.matches("^%* Task%(name='inner', id=0x%x+%)\n", text)
      assert.matches("\n  %+ Call stack:\n  |   File 'spec/task_tree_spec%.lua', line %d+, in nap%(%)\n", text)
      assert.matches("\n  %+ Awaited by:\n    %* Task%(name='outer'", text)
      local file = { write = function(self, ...) self.text = table.concat({ ... }) end }
      aloop.print_call_graph(inner, { file = file })
      assert.matches("^%* Task%(name='inner'.*\n$", file.text)
      cancel_all { inner, outer }
    end)
  end)

  it("of the current task, and of a future that is none", function()
    as_task(function(loop)
      local function here() local graph = aloop.capture_call_graph() return graph end
      local graph = here()
      assert.equal(aloop.current_task(), graph.future)
      local names = {}
      for _, frame in ipairs(graph.call_stack) do names[frame.name] = true end
      assert.is_true(names.here)
      assert.equal("here", graph.call_stack[1].name)
      local function deeper() local g = aloop.capture_call_graph(nil, { depth = 2 }) return g end
      local function above() local g = deeper() return g end
      assert.equal("above", above().call_stack[1].name)
      local future = loop:create_future()
      local task = loop:create_task(function() future:await() end)
      turns(2)
      assert.equal(task, aloop.capture_call_graph(future).awaited_by[1].future)
      cancel_all { task }
    end)
  end)

  it("have each future once, and end at cycles", function() -- bug: 30
    as_task(function(loop)
      local tasks = { loop:create_future() }
      for i = 2, 60 do -- two ways to each, 2^30 in all
        tasks[i] = loop:create_task(function()
          aloop.wait { tasks[i - 1], tasks[math.max(i - 2, 1)] }
        end)
      end
      turns(3)
      local text = aloop.format_call_graph(tasks[1])
      assert.is_true(#text < 100000)
      assert.matches("shown above", text)
      tasks[1]:set_result()
      tasks[60]:await()
    end)
  end)

  it("refuse what is no future, and being asked outside of tasks", function()
    as_task(function(loop)
      local future = loop:create_future()
      type_error("bad argument #1 to 'capture_call_graph' (Future expected, got string)", aloop.capture_call_graph, "x")
      type_error("unknown option 'x' to 'print_call_graph'", aloop.print_call_graph, nil, { x = 1 })
      type_error("bad argument #2 to 'future_add_to_awaited_by' (Future expected, got nil)",
        aloop.future_add_to_awaited_by, future)
      type_error("bad argument #1 to 'future_discard_from_awaited_by' (Future expected, got nil)",
        aloop.future_discard_from_awaited_by)
      aloop.future_add_to_awaited_by(future, aloop.current_task())
      assert.equal(1, #aloop.capture_call_graph(future).awaited_by)
      aloop.future_discard_from_awaited_by(future, aloop.current_task())
      assert.equal(0, #aloop.capture_call_graph(future).awaited_by)
    end)
    helper.drive(helper.new_loop, function(loop)
      loop:call_soon(function() raises(aloop.RuntimeError, "capture_call_graph()", aloop.capture_call_graph) end)
      helper.turn(loop)
    end)
  end)
end)
