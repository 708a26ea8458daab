-- The main chunk of `aloop script.lua` is a task. Each spec is a child process.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local output_of, run = helper.output_of, helper.run

describe("the main chunk", function()
  it("waits without a loop being made for it", function()
    assert.equal("slept\tx\n", output_of [[
      local aloop = require "aloop"
      print("slept", aloop.sleep(0.001, "x"))
    ]])
  end)

  it("runs no loop until it first has to wait", function() -- row: get_running_loop.none
    assert.equal("false\ttrue\ntrue\ntrue\n", output_of [[
      local aloop = require "aloop"
      local ok, e = pcall(aloop.get_running_loop)
      print(ok, aloop.isinstance(e, aloop.RuntimeError))
      aloop.sleep(0)
      local loop = aloop.get_running_loop()
      print(loop == aloop.get_event_loop())
      print(loop:is_running())
    ]])
  end)

  it("doesn't start the loop for a call that need not wait", function()
    assert.equal("1\nfalse\n", output_of [[
      local aloop = require "aloop"
      local future = aloop.get_event_loop():create_future()
      future:set_result(1)
      print(future:await())
      print((pcall(aloop.get_running_loop)))
    ]])
  end)

  it("can't be waited for by a loop that it runs itself", function()
    assert.equal("RuntimeError: Task cannot await on itself\n", output_of [[
      local aloop = require "aloop"
      print(select(2, pcall(aloop.get_event_loop().run_until_complete, aloop.get_event_loop(), aloop.current_task())))
    ]])
  end)

  it("is a task: current_task and create_task work before the loop turns", function()
    assert.equal("true\ntask\n1\n", output_of [[
      local aloop = require "aloop"
      print(aloop.isinstance(aloop.current_task(), aloop.Task))
      local task = aloop.create_task(function() print("task") return 1 end)
      print(task:await())
    ]])
  end)

  it("may make and drive loops of its own instead", function()
    assert.equal("1\n2\n3\n", output_of [[
      local aloop = require "aloop"
      local loop = aloop.new_event_loop()
      print(loop:run_until_complete(function() return aloop.sleep(0, 1) end))
      loop:call_soon(function() print(2) loop:stop() end)
      loop:run_forever()
      loop:close()
      print(aloop.run(function() return aloop.sleep(0, 3) end))
    ]])
  end)

  it("may drive the current loop itself", function()
    assert.equal("turned\n", output_of [[
      local aloop = require "aloop"
      local loop = aloop.get_event_loop()
      loop:call_soon(function() print("turned") loop:stop() end)
      loop:run_forever()
      loop:close()
    ]])
  end)

  it("once it waited, refuses another loop's run", function()
    assert.equal("false\ttrue\n", output_of [[
      local aloop = require "aloop"
      aloop.sleep(0)
      local ok, e = pcall(aloop.run, function() end)
      print(ok, aloop.isinstance(e, aloop.RuntimeError))
    ]])
  end)

  it("cancels and awaits the remaining tasks when it returns", function() -- row: run.cancels_leftovers
    assert.equal("main ends\nCancelledError\ncleaned\n", output_of [[
      local aloop = require "aloop"
      aloop.create_task(function()
        local ok, e = pcall(aloop.sleep, 1000)
        print(tostring(e))
        aloop.sleep(0.001)
        print("cleaned")
        error(e, 0)
      end)
      aloop.sleep(0)
      print("main ends")
    ]])
  end)

  it("that fails prints message and traceback and exits with 1", function()
    for _, wait in ipairs { "", "aloop.sleep(0)" } do
      local result = run([[
        local aloop = require "aloop"
        local function failing() error("the message") end
        ]] .. wait .. [[

        failing()
      ]])
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.matches("the message", result.stderr)
      assert.matches("traceback", result.stderr)
      assert.matches("failing", result.stderr)
    end
  end)

  it("that fails keeps its traceback over what fails while its loop is ended", function()
    for _, main in ipairs { "main()", "aloop.run(main)" } do
      local result = run([[
        local aloop = require "aloop"
        local function left_over()
          pcall(aloop.sleep, 10)
          error("of the end")
        end
        local function failing() error("the message") end
        local function main()
          aloop.create_task(left_over)
          aloop.sleep(0)
          failing()
        end
      ]] .. main)
      assert.equal(1, result.code)
      assert.matches("of the end.*the message\nstack traceback.*in upvalue 'failing'", result.stderr)
    end
  end)

  it("that fails with an error object prints its class and exits with 1", function()
    local result = run [[
      local aloop = require "aloop"
      aloop.sleep(0)
      error(aloop.ValueError("typed"))
    ]]
    assert.equal(1, result.code)
    assert.matches("ValueError: typed", result.stderr)
  end)

  it("that raises SystemExit exits with its code, without a message", function()
    local result = run [[
      local aloop = require "aloop"
      local e = aloop.SystemExit(7)
      aloop.create_task(function()
        local _ <close> = aloop.defer(print, "cleaned")
        aloop.sleep(1000)
      end)
      aloop.sleep(0.001)
      error(e)
    ]]
    assert.equal(7, result.code)
    assert.equal("cleaned\n", result.stdout)
    assert.equal("", result.stderr)
  end)

  it("os.exit leaves at once", function()
    local result = run [[
      local aloop = require "aloop"
      aloop.create_task(function()
        local _ <close> = aloop.defer(print, "not printed")
        aloop.sleep(1000)
      end)
      aloop.sleep(0.001)
      os.exit(5)
    ]]
    assert.equal(5, result.code)
    assert.equal("", result.stdout)
  end)

  it("os.exit that closes the state runs its <close> variables, which can't wait then", function()
    local SCRIPT = [[
      local aloop = require "aloop"
      aloop.create_task(function()
        local _ <close> = aloop.defer(print, "of another task")
        aloop.sleep(1000)
      end)
      local _ <close> = aloop.defer(print, "last")
      local server <close> = aloop.start_server(print, "127.0.0.1", 0)
      local _ <close> = aloop.defer(function() print(pcall(aloop.sleep, 0)) end)
      local _ <close> = aloop.timeout(100)
      aloop.sleep(0.001)
    ]]
    for _, exit in ipairs {
      "os.exit(5, true)",
      "pcall(function() local _ <close> = aloop.defer(os.exit, 5, true) end)",
      "aloop.get_running_loop():call_soon(os.exit, 5, true) aloop.sleep(1000)",
      "aloop.create_task(function() aloop.sleep(0) os.exit(5, true) end):await()",
    } do
      local result = run(SCRIPT .. exit)
      assert.equal(5, result.code)
      assert.matches("^false\tRuntimeError: 'sleep' [^\n]+\nlast\n$", result.stdout)
      assert.equal("", result.stderr)
    end
  end)

  it("gets its arguments in ... and arg", function()
    assert.equal("a\tb c\n2\n", output_of([[
      print(...)
      print(#arg)
    ]], { args = { "a", "b c" } }))
  end)
end)

describe("SIGINT", function()
  local function interrupted(script, times)
    local child = helper.start(script)
    child:read_until("ready")
    for i = 1, times or 1 do
      child:kill("INT")
      if i < (times or 1) then child:read_until("again") end
    end
    return child:wait()
  end

  it("cancels the main task; exit status 130", function() -- row: run.sigint
    local result = interrupted [[
      local aloop = require "aloop"
      local _ <close> = aloop.defer(function()
        aloop.sleep(0.001)
        print("cleaned")
      end)
      io.stdout:setvbuf("no")
      local timer = aloop.get_event_loop():call_later(0, print, "ready")
      aloop.sleep(30)
      print("not reached")
    ]]
    assert.equal(130, result.code)
    assert.equal("cleaned\n", result.stdout)
  end)

  it("a second one interrupts running Lua code", function() -- row: run.sigint
    local result = interrupted([[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      aloop.get_event_loop():call_later(0, print, "ready")
      pcall(aloop.sleep, 30)
      print("again")
      while true do io.stdout:flush() end -- a sanitizer hands signals over in calls of the C library only
    ]], 2)
    assert.equal(130, result.code)
  end)

  it("caught by the main task lets it end normally", function()
    local result = interrupted [[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      aloop.get_event_loop():call_later(0, print, "ready")
      local ok, e = pcall(aloop.sleep, 30)
      print(aloop.isinstance(e, aloop.CancelledError))
    ]]
    assert.equal("true\n", result.stdout)
    assert.equal(0, result.code)
  end)

  it("before the loop turns interrupts as in lua", function()
    local result = interrupted [[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      print("ready")
      while true do io.stdout:flush() end
    ]]
    assert.equal("", result.stdout)
    assert.is_true(result.code == 1 or result.code == 130)
    assert.matches("interrupted", result.stderr:lower())
  end)

  it("goes to the script's own handler once there is one", function()
    local result = interrupted [[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      local loop = aloop.get_event_loop()
      local future = loop:create_future()
      loop:add_signal_handler("SIGINT", function() future:set_result("own handler") end)
      loop:call_later(0, print, "ready")
      print(future:await())
    ]]
    assert.equal("own handler\n", result.stdout)
    assert.equal(0, result.code)
  end)

  it("under aloop.run cancels the main task and raises KeyboardInterrupt", function() -- row: run.sigint
    local result = interrupted [[
      local aloop = require "aloop"
      io.stdout:setvbuf("no")
      local ok, e = pcall(aloop.run, function()
        local _ <close> = aloop.defer(print, "cleaned")
        aloop.get_running_loop():call_later(0, print, "ready")
        aloop.sleep(30)
      end)
      print(ok, aloop.isinstance(e, aloop.KeyboardInterrupt))
    ]]
    assert.equal("cleaned\nfalse\ttrue\n", result.stdout)
  end)
end)

describe("aloop.run", function()
  it("runs the function on a fresh loop, returns its results, and closes the loop", function() -- row: run
    assert.equal("1\tnil\t3\ntrue\n4\n", output_of [[
      local aloop = require "aloop"
      local loop
      print(aloop.run(function()
        loop = aloop.get_running_loop()
        aloop.sleep(0)
        return 1, nil, 3
      end))
      print(loop:is_closed())
      print(aloop.run(function() return 4 end))
    ]])
  end)

  it("is refused inside a running loop, and for what is no coroutine", function() -- row: run.nested
    assert.equal("true\nfalse\n", output_of [[
      local aloop = require "aloop"
      aloop.run(function()
        local _, e = pcall(aloop.run, function() end)
        print(aloop.isinstance(e, aloop.RuntimeError))
      end)
      print((pcall(aloop.run, 42)))
    ]])
  end)

  it("takes debug and loop_factory", function() -- row: run.debug_loop_factory
    assert.equal("true\ntrue\n", output_of [[
      local aloop = require "aloop"
      aloop.run(function() print(aloop.get_running_loop():get_debug()) end, { debug = true })
      local made
      aloop.run(function() print(aloop.get_running_loop() == made) end, {
        loop_factory = function()
          made = aloop.SelectorEventLoop(aloop.selectors.PollSelector())
          return made
        end,
      })
    ]])
  end)

  it("cancels what is left, awaits it, and reports its errors", function() -- row: run.cancels_leftovers
    local out, err = output_of [[
      local aloop = require "aloop"
      aloop.run(function()
        aloop.create_task(function()
          local _ <close> = aloop.defer(function() aloop.sleep(0.001) print("cleaned") end)
          aloop.sleep(1000)
        end)
        aloop.create_task(function()
          pcall(aloop.sleep, 1000)
          error("fails while it is cancelled")
        end)
        aloop.sleep(0)
      end)
    ]]
    assert.equal("cleaned\n", out)
    assert.matches("fails while it is cancelled", err)
  end)

  it("works from a plain lua5.4 that requires aloop", function()
    local module = helper.build .. "/aloop.so"
    local f = io.open(module)
    if not f then return end
    f:close()
    if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end
    local path = helper.write_file [[
      local aloop = require "aloop"
      print(aloop.run(function() return aloop.sleep(0.001, "plain") end))
      local ok, e = pcall(aloop.current_task)
      print(ok, aloop.isinstance(e, aloop.RuntimeError))
      local function body() return "task" end
      print(pcall(aloop.ensure_future, body))
      local loop = aloop.new_event_loop()
      aloop.set_event_loop(loop) -- meant by what is made before it runs, but for create_task
      print(pcall(aloop.create_task, body))
      local pool <close> = aloop.ThreadPoolExecutor { max_workers = 1 }
      for _, future in ipairs {
        aloop.ensure_future(body), aloop.ensure_future(setmetatable({}, { __await = body })), aloop.Task(body),
        aloop.wrap_future(pool:submit(body)),
      } do
        print(future:get_loop() == loop, loop:run_until_complete(future))
      end
      local future = aloop.Future()
      future:set_result("future")
      print(loop:run_until_complete(future))
      loop:close()
    ]]
    local result = helper.run_program({ os.getenv("ALOOP_LUA") or "lua5.4", path }, {
      env = { LUA_CPATH = helper.build .. "/?.so;;" },
    })
    os.remove(path)
    local expected = "plain\nfalse\ttrue\nfalse\tRuntimeError: There is no current event loop\n"
      .. "false\tRuntimeError: no running event loop\n" .. ("true\ttask\n"):rep(4) .. "future\n"
    assert.equal(expected, result.stdout, result.stderr) -- row: current_task
  end)
end)
