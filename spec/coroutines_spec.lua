-- Waiting through everything that Lua has between a task and its wait, and the errors where Lua can't.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local as_task, raises = helper.as_task, helper.raises

-- Waits for a turn and returns its arguments.
local function wait(...) return aloop.sleep(0, ...) end

describe("a task waits through", function()
  it("pcall and xpcall, with errors after the wait", function()
    as_task(function()
      assert.same({ true, 1, nil, n = 3 }, table.pack(pcall(wait, 1, nil)))
      local ok, e = pcall(function()
        wait()
        error("after", 0)
      end)
      assert.is_false(ok)
      assert.equal("after", e)
      local handled
      ok, handled = xpcall(function()
        wait()
        error("x", 0)
      end, function(m) return m .. "!" end)
      assert.is_false(ok)
      assert.equal("x!", handled)
      assert.is_true(pcall(pcall, pcall, wait))
    end)
  end)

  it("metamethods", function()
    as_task(function()
      local object = setmetatable({}, {
        __index = function(_, k) return wait("got " .. k) end,
        __newindex = function(t, k, v) rawset(t, k, wait(v)) end,
        __call = function(_, ...) return wait(...) end,
        __add = function(_, n) return wait(n + 1) end,
        __concat = function(_, s) return wait("concat " .. s) end,
        __eq = function() return wait(true) end,
        __lt = function() return wait(true) end,
        __le = function() return wait(true) end,
        __len = function() return wait(7) end,
        __unm = function() return wait("minus") end,
      })
      local other = setmetatable({}, getmetatable(object))
      assert.equal("got key", object.key)
      object.stored = 5
      assert.equal(5, rawget(object, "stored"))
      assert.same({ 1, nil, n = 2 }, table.pack(object(1, nil)))
      assert.equal(3, object + 2)
      assert.equal("concat s", object .. "s")
      assert.is_true(object == other)
      assert.is_true(object < other)
      assert.is_true(object <= other)
      assert.equal(7, #object)
      assert.equal("minus", -object)
    end)
  end)

  it("iterators and __pairs", function()
    as_task(function()
      local got = {}
      local function iterator(n, i)
        wait()
        if i < n then return i + 1 end
      end
      for i in iterator, 3, 0 do got[#got + 1] = i end
      local object = setmetatable({}, { __pairs = function()
        wait()
        return iterator, 2, 0
      end })
      for i in pairs(object) do got[#got + 1] = i end
      assert.same({ 1, 2, 3, 1, 2 }, got)
    end)
  end)

  it("__close, at the end of a block, by break, by return and while an error unwinds", function()
    as_task(function()
      local order = {}
      local function closer(name)
        return setmetatable({}, { __close = function()
          wait()
          order[#order + 1] = name
        end })
      end
      do
        local _ <close> = closer("block")
      end
      for i = 1, 2 do
        local _ <close> = closer("break")
        if i == 1 then break end
      end
      local function returning()
        local _ <close> = closer("return")
        return "value"
      end
      assert.equal("value", returning())
      local ok, e = pcall(function()
        local _ <close> = closer("outer")
        local _ <close> = closer("inner")
        error("unwinding", 0)
      end)
      assert.is_false(ok)
      assert.equal("unwinding", e)
      assert.same({ "block", "break", "return", "inner", "outer" }, order)
    end)
  end)

  it("dofile and load", function()
    as_task(function()
      local path = helper.write_file("local aloop = require 'aloop' aloop.sleep(0) return 'from file'")
      assert.equal("from file", dofile(path))
      os.remove(path)
      assert.equal("loaded", load("return require('aloop').sleep(0, 'loaded')")())
    end)
  end)

  it("require: a module that waits while it loads", function()
    local directory, remove = helper.temporary_directory {
      ["waiting_module.lua"] = "require('aloop').sleep(0.001) return { name = ..., loaded = true }",
    }
    local out = helper.output_of([[
      local aloop = require "aloop"
      local task = aloop.create_task(function()
        return require("waiting_module")
      end)
      local module = task:await()
      print(module.name, module.loaded, require("waiting_module") == module)
      print(select("#", require("waiting_module")))
    ]], { dir = directory })
    remove()
    assert.equal("waiting_module\ttrue\ttrue\n", out:match("^[^\n]*\n"))
  end)
end)

describe("user coroutines in a task", function()
  it("made with wrap may wait between their yields", function()
    as_task(function()
      local numbers = coroutine.wrap(function(first)
        wait()
        local second = coroutine.yield(first + 1)
        wait()
        wait()
        coroutine.yield(second + 1)
        return "end"
      end)
      assert.equal(11, numbers(10))
      assert.equal(21, numbers(20))
      assert.equal("end", numbers())
    end)
  end)

  it("made with create may wait; resume gives what they yield and return, all values", function()
    as_task(function()
      local co = coroutine.create(function(...)
        wait()
        local again = table.pack(coroutine.yield(...))
        wait()
        return table.unpack(again, 1, again.n)
      end)
      assert.same({ true, 1, nil, n = 3 }, table.pack(coroutine.resume(co, 1, nil)))
      assert.equal("suspended", coroutine.status(co))
      assert.same({ true, nil, 2, nil, n = 4 }, table.pack(coroutine.resume(co, nil, 2, nil)))
      assert.equal("dead", coroutine.status(co))
      assert.is_false((coroutine.resume(co)))
    end)
  end)

  it("that fail after a wait give their error, and wrap passes it on", function()
    as_task(function()
      local co = coroutine.create(function()
        wait()
        error("inside", 0)
      end)
      local ok, e = coroutine.resume(co)
      assert.is_false(ok)
      assert.equal("inside", e)
      assert.equal("dead", coroutine.status(co))
      local f = coroutine.wrap(function()
        wait()
        error({ "table" })
      end)
      ok, e = pcall(f)
      assert.is_false(ok)
      assert.same({ "table" }, e)
    end)
  end)

  it("nest, and other tasks run while the innermost waits", function()
    as_task(function(loop)
      local others = 0
      local other = loop:create_task(function()
        for _ = 1, 4 do
          others = others + 1
          wait()
        end
      end)
      local function nested(depth)
        return coroutine.wrap(function()
          wait()
          if depth > 0 then
            local inner = nested(depth - 1)
            coroutine.yield("depth " .. depth)
            coroutine.yield(inner())
            coroutine.yield(inner())
          else
            coroutine.yield("bottom one")
            wait()
            coroutine.yield("bottom two")
          end
        end)
      end
      local f = nested(1)
      assert.equal("depth 1", f())
      assert.equal("bottom one", f())
      assert.equal("bottom two", f())
      other:await()
      assert.equal(4, others)
    end)
  end)

  it("see status, running and isyieldable as everywhere", function()
    as_task(function()
      local outer = coroutine.running()
      local co
      co = coroutine.create(function()
        assert.equal(co, (coroutine.running()))
        assert.is_false(select(2, coroutine.running()))
        assert.equal("running", coroutine.status(co))
        assert.equal("normal", coroutine.status(outer))
        assert.is_true(coroutine.isyieldable())
        wait()
        assert.equal(co, (coroutine.running()))
      end)
      assert.is_true(coroutine.resume(co))
      assert.is_true(coroutine.isyieldable())
    end)
  end)

  it("that wait can't be resumed by others meanwhile", function()
    as_task(function(loop)
      local future = loop:create_future()
      local co = coroutine.create(function() return future:await() end)
      local task = loop:create_task(function() return coroutine.resume(co) end)
      wait()
      wait()
      local ok, e = coroutine.resume(co)
      assert.is_false(ok)
      assert.is_not_nil(e)
      assert.are_not.equal("dead", coroutine.status(co))
      future:set_result("later")
      assert.same({ true, "later" }, { task:await() })
    end)
  end)

  it("that are a task can't be resumed, closed or taken by others", function()
    as_task(function()
      local co
      local function body(wait_once)
        return function()
          co = coroutine.running()
          wait_once()
          return "done"
        end
      end
      for _, wait_once in ipairs { function() aloop.sleep(0) end, coroutine.yield } do
        local task = aloop.create_task(body(wait_once))
        aloop.sleep(0)
        assert.equal("normal", coroutine.status(co))
        assert.same({ false, "cannot resume non-suspended coroutine" }, { coroutine.resume(co) })
        assert.has_error(function() coroutine.close(co) end, "cannot close a normal coroutine")
        for _, take in ipairs { aloop.create_task, aloop.ensure_future, aloop.shield } do
          assert.matches("a coroutine that runs or is finished", select(2, pcall(take, co)))
        end
        assert.equal("done", task:await())
        assert.equal("dead", coroutine.status(co))
        assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
      end
    end)
  end)

  it("that are given to a task and yield in it can't be resumed or closed by others", function()
    as_task(function(loop)
      local future = loop:create_future()
      local co = coroutine.create(function()
        coroutine.yield()
        return future:await()
      end)
      local task = aloop.create_task(co)
      aloop.sleep(0)
      assert.equal("normal", coroutine.status(co))
      assert.same({ false, "cannot resume non-suspended coroutine" }, { coroutine.resume(co) })
      assert.has_error(function() coroutine.close(co) end, "cannot close a normal coroutine")
      future:set_result("later")
      assert.equal("later", task:await())
      assert.equal("dead", coroutine.status(co))
    end)
  end)

  it("that callbacks run in can't be resumed, closed or taken by others", function()
    as_task(function(loop)
      local co, inside
      local function callback()
        co = coroutine.running()
        inside = coroutine.status(co)
      end
      loop:call_soon(callback)
      aloop.sleep(0)
      assert.equal("running", inside)
      assert.equal("dead", coroutine.status(co))
      assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
      assert.is_true(coroutine.close(co))
      for _, take in ipairs { aloop.create_task, aloop.ensure_future, aloop.shield } do
        assert.matches("a coroutine that runs or is finished", select(2, pcall(take, co)))
      end
      local reported
      loop:set_exception_handler(function(_, context) reported = context end)
      loop:call_soon(error, "oh")
      aloop.sleep(0)
      loop:set_exception_handler(nil)
      assert.equal("oh", reported.exception)
      assert.matches("stack traceback", reported.traceback)
    end)
  end)

  it("that are a task are refused in a stock Lua, too, even if the old coroutine.running told of them", function()
    if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer's module doesn't load there
    local path = helper.write_file [[
      local running = coroutine.running
      local aloop = require "aloop"
      aloop.run(function()
        local co
        local task = aloop.create_task(function()
          co = running()
          aloop.sleep(0.001)
          return "done"
        end)
        aloop.sleep(0)
        print(coroutine.resume(co))
        print(task:await())
      end)
    ]]
    local result = helper.run_program({ os.getenv("ALOOP_LUA") or "lua5.4", path }, {
      env = { LUA_CPATH = helper.build .. "/?.so;;" },
    })
    os.remove(path)
    assert.equal("false\tcannot resume non-suspended coroutine\ndone\n", result.stdout, result.stderr)
  end)

  it("close runs their <close> variables; waiting in there raises", function()
    as_task(function()
      local order = {}
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() order[#order + 1] = "closed" end })
        wait()
        coroutine.yield()
      end)
      coroutine.resume(co)
      assert.is_true(coroutine.close(co))
      assert.same({ "closed" }, order)
      local waiting = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() wait() end })
        coroutine.yield()
      end)
      coroutine.resume(waiting)
      local ok, e = coroutine.close(waiting)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
    end)
  end)

  it("that are a task's body run their <close> variables while an error unwinds, and these may wait", function()
    as_task(function(loop)
      local closed = {}
      local function body(f)
        return coroutine.create(function()
          local _ <close> = setmetatable({}, { __close = function(_, e) closed[#closed + 1] = wait(e) end })
          return f()
        end)
      end
      local co = body(function() error(aloop.ValueError("fails")) end)
      local task = loop:create_task(co)
      local e = raises(aloop.ValueError, "fails", task.await, task)
      assert.matches("coroutines_spec", e.traceback)
      assert.is_nil(e.traceback:find("awaited in", 1, true))
      assert.equal("dead", coroutine.status(co))
      task = loop:create_task(body(function() wait(aloop.sleep(1000)) end))
      wait()
      wait()
      task:cancel("cancelled")
      local cancelled = raises(aloop.CancelledError, "cancelled", task.await, task)
      assert.is_true(task:cancelled())
      local raw = { pcall(aloop.await, body(function() error("raw", 0) end)) }
      assert.same({ false, "raw" }, raw)
      assert.same({ "fine", nil, n = 2 }, table.pack(aloop.await(body(function() return "fine", nil end))))
      assert.same({ e, cancelled, "raw" }, closed)
    end)
  end)

  it("given to two tasks run in the first; the other fails, and says why", function()
    as_task(function(loop)
      for _, case in ipairs {
        { function() return wait("done") end, "coroutine is being awaited already" },
        { function() return "done" end, "cannot reuse already awaited coroutine" },
      } do
        local co = coroutine.create(case[1])
        local first, second = loop:create_task(co), loop:create_task(co)
        raises(aloop.RuntimeError, case[2], second.await, second)
        assert.equal("done", first:await())
      end
      local failing = coroutine.create(function() error("fails", 0) end)
      local first, second = loop:create_task(failing), loop:create_task(failing)
      raises(aloop.RuntimeError, "cannot reuse already awaited coroutine", second.await, second)
      assert.same({ false, "fails" }, { pcall(first.await, first) })
      local by_hand = coroutine.create(function() return "done" end)
      local late = loop:create_task(by_hand)
      assert.same({ true, "done" }, { coroutine.resume(by_hand) })
      raises(aloop.RuntimeError, "cannot reuse already awaited coroutine", late.await, late)
    end)
  end)

  it("that died of an error can't wait when they are closed, and the error says so", function()
    as_task(function()
      local generator = coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() wait() end })
        error("fails")
      end)
      raises(aloop.RuntimeError, "the coroutine has died of an error", generator)
    end)
  end)

  it("moved from one task to another wait for the one that resumes them", function()
    as_task(function(loop)
      local generator = coroutine.wrap(function()
        for i = 1, 4 do
          wait()
          coroutine.yield(i, aloop.current_task():get_name())
        end
      end)
      local got = {}
      for i = 1, 4 do
        local task = loop:create_task(function()
          local n, name = generator()
          got[n] = name
        end, { name = "t" .. i })
        task:await()
      end
      assert.same({ "t1", "t2", "t3", "t4" }, got)
    end)
  end)

  it("outside of tasks behave as Lua's own", function()
    local co = coroutine.wrap(function(a)
      local b = coroutine.yield(a)
      error("e" .. b, 0)
    end)
    assert.equal(1, co(1))
    local ok, e = pcall(co, 2)
    assert.is_false(ok)
    assert.equal("e2", e)
  end)
end)

describe("where Lua can't wait", function()
  -- The error names the C function in the way.
  local function refused(name, f)
    as_task(function()
      local ok, e = pcall(f)
      assert.is_false(ok)
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError), tostring(e))
      assert.matches(name, e.message)
      wait() -- the task can still wait elsewhere
    end)
  end

  it("string.gsub raises RuntimeError that names it", function()
    refused("gsub", function() return (("x"):gsub("x", function() return wait("y") end)) end)
  end)

  it("table.sort raises RuntimeError that names it", function()
    refused("sort", function()
      table.sort({ 2, 1, 3 }, function(a, b)
        wait()
        return a < b
      end)
    end)
  end)

  it("tostring raises RuntimeError that names it", function()
    local object = setmetatable({}, { __tostring = function() return wait("s") end })
    refused("tostring", function() return tostring(object) end)
  end)

  it("a reader of load raises RuntimeError that names it", function()
    as_task(function()
      local chunk, e = load(function() return wait(nil) end)
      assert.is_nil(chunk)
      assert.matches("load", tostring(e))
    end)
  end)

  local slow = setmetatable({}, {
    __index = function() return wait(nil) end,
    __newindex = function() wait() end,
    __len = function() return wait(3) end,
    __lt = function() return wait(true) end,
    __tostring = function() return wait("slow") end,
  })
  for name, f in pairs {
    ["string%.format"] = function() return ("%s"):format(slow) end,
    ["table%.concat"] = function() return table.concat(slow) end,
    ["table%.insert"] = function() table.insert(slow, 1) end,
    ["table%.move"] = function() return table.move(slow, 1, 2, 3) end,
    ["table%.unpack"] = function() return table.unpack(slow) end,
    ["ipairs"] = function() for _ in ipairs(slow) do end end,
    ["print"] = function() print(slow) end,
    ["os%.time"] = function() return os.time(slow) end,
    ["remove_done_callback"] = function()
      local future = aloop.get_running_loop():create_future()
      local function callable() return setmetatable({}, { __call = wait, __eq = function() return wait(true) end }) end
      future:add_done_callback(callable())
      future:remove_done_callback(callable())
    end,
  } do
    it("metamethods called by " .. name:gsub("%%", "") .. " raise RuntimeError that names it", function()
      refused(name .. ".*, a C function that can't be suspended, stands between it and its task", f)
    end)
  end

  it("what lets waits through isn't named, but what is behind it", function()
    local Class = aloop.BaseProtocol:extend("Class")
    function Class.init() wait() end
    local ctx = aloop.copy_context()
    for _, f in ipairs {
      coroutine.wrap(wait), Class, function() ctx:run(wait) end, function() pcall(error(wait())) end,
      function() dofile("/dev/null", wait()) end, function() return pairs(setmetatable({}, { __pairs = wait })) end,
      function() coroutine.resume(coroutine.create(function() error(wait()) end)) error("x", wait()) end,
      aloop.async_generator(wait)(),
    } do
      refused("string%.gsub", function() return (("x"):gsub("x", function() f() end)) end)
    end
    as_task(function()
      Class()
      assert.equal(1, ctx:run(wait, 1))
    end)
  end)

  it("an exception handler that a task has called raises RuntimeError that names what called it", function()
    refused("^'sleep' can't wait here: call_exception_handler, a C function", function()
      local loop = aloop.get_running_loop()
      local _ <close> = aloop.defer(loop.set_exception_handler, loop, loop:get_exception_handler())
      local e
      loop:set_exception_handler(function() e = select(2, pcall(aloop.sleep, 0)) end)
      loop:call_exception_handler { message = "asked for" }
      error(e, 0)
    end)
  end)

  it("a finalizer and a debug hook raise RuntimeError that says so", function()
    as_task(function()
      local e
      setmetatable({}, { __gc = function() e = select(2, pcall(wait)) end })
      collectgarbage()
      assert.matches("a finalizer %(__gc%) can't be suspended", e.message)
      debug.sethook(function()
        debug.sethook()
        e = select(2, pcall(wait))
      end, "c")
      math.abs(1)
      debug.sethook()
      assert.matches("a debug hook can't be suspended", e.message)
    end)
  end)

  it("a message handler of xpcall fails, and nothing hangs", function()
    as_task(function()
      assert.is_false((xpcall(error, function() return wait("handled") end, "x")))
      assert.equal(1, wait(1))
    end)
  end)

  it("a coroutine resumed by a foreign resume raises RuntimeError that says so", function()
    local out = helper.output_of [[
      local foreign_resume = coroutine.resume
      local foreign_wrap = coroutine.wrap
      local aloop = require "aloop"
      local function try(resume)
        local co = coroutine.create(function() return pcall(aloop.sleep, 0) end)
        local _, ok, e = resume(co)
        return ok, aloop.isinstance(e, aloop.RuntimeError), tostring(e):find("resume") ~= nil
      end
      local task = aloop.create_task(function()
        print(try(coroutine.resume))
        print(try(foreign_resume))
      end)
      task:await()
    ]]
    local first, second = out:match("^([^\n]*)\n([^\n]*)\n")
    assert.matches("^true", first)
    if second ~= first then assert.equal("false\ttrue\ttrue", second) end
  end)

  it("a plain callback raises RuntimeError", function()
    helper.drive(helper.new_loop, function(loop, trial)
      loop:call_soon(wait)
      helper.turn(loop)
      local e = trial:take_error().exception
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
      assert.matches("sleep", e.message)
      assert.matches("task", e.message)
    end)
  end)

  it("a protocol method raises RuntimeError, which is reported", function()
    helper.with_loop(helper.new_loop, function(loop, trial)
      local protocol = helper.Recorder(loop)
      local _, _, sock = helper.over_socketpair(loop, setmetatable({
        data_received = function() aloop.sleep(0) end,
      }, { __index = protocol }))
      sock:send("x")
      trial:wait_until(function() return #trial.errors > 0 end)
      assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.RuntimeError))
      sock:close()
    end)
  end)

  it("the errors leave the task as it was: raises stays usable", function()
    as_task(function()
      raises(aloop.RuntimeError, nil, string.gsub, "x", "x", function() return wait("y") end)
      assert.equal(1, wait(1))
    end)
  end)
end)

describe("as in stock Lua,", function()
  it("a coroutine can't resume itself", function()
    local co = coroutine.create(function() return coroutine.resume((coroutine.running())) end)
    local results = table.pack(coroutine.resume(co))
    assert.same({ true, false, "cannot resume non-suspended coroutine", n = 3 }, results)
  end)

  it("resume returns false if there are too many arguments or results", function()
    local half = 600000 -- more than half of what a stack holds
    local function hold(...)
      local results = table.pack(coroutine.yield())
      return results, ...
    end
    local full = coroutine.create(hold)
    assert.is_true(coroutine.resume(full, table.unpack({}, 1, half)))
    local ok, text = coroutine.resume(full, table.unpack({}, 1, half))
    assert.is_false(ok)
    assert.equal("too many arguments to resume", text)
    local generous = coroutine.create(function() return table.unpack({}, 1, half) end)
    local function crowded(...)
      local results = table.pack(coroutine.resume(generous))
      return results, (...)
    end
    assert.same({ false, "too many results to resume", n = 2 }, (crowded(table.unpack({}, 1, 450000))))
  end)
end)

describe("coroutine.close", function()
  it("names itself if a <close> variable waits", function()
    as_task(function()
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() aloop.sleep(0) end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      local ok, e = coroutine.close(co)
      assert.is_false(ok)
      assert.matches("coroutine%.close", e.message)
    end)
  end)
end)
