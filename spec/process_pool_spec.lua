-- ProcessPoolExecutor: jobs in worker processes, and what becomes of them when a worker is lost.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

-- Functions that are jobs. They travel by value, so each has in it all that it needs.
local function pid()
  local file <close> = io.open("/proc/self/stat")
  return file:read("n")
end

-- Waits until the file is there.
local function wait_for_file(path)
  local file
  repeat file = io.open(path) until file
  file:close()
  return path
end

local own_pid = pid()

-- In a task: body(pool) with a pool, which is closed then.
local function with_pool(options, body)
  helper.as_task(function(loop)
    local pool <close> = aloop.ProcessPoolExecutor(options)
    body(pool, loop)
  end)
end

-- The path of a file that there is not, and what makes it; it is removed in the end.
local function flag()
  local path = os.tmpname()
  os.remove(path)
  local function raise() assert(io.open(path, "w")):close() end
  return path, raise, setmetatable({}, { __close = function() os.remove(path) end })
end

local function wait_until(condition)
  for _ = 1, 2000 do
    if condition() then return true end
    aloop.sleep(0.005)
  end
  return false
end

-- Is there such a process, and not as a zombie?
local function lives(number)
  local file = io.open(("/proc/%d/stat"):format(number))
  if not file then return false end
  local state = (file:read("a") or ""):match("%) (%a)") or "X" -- it may end right now
  file:close()
  return state ~= "Z" and state ~= "X"
end

local BROKEN = "A process in the process pool was terminated abruptly, the pool is not usable anymore: "

-- ---- jobs -----------------------------------------------------------------------------------------------------------

describe("ProcessPoolExecutor", function() -- row: run_in_executor.process_pool, executors
  helper.each_loop(function(_, new_loop)
    it("runs jobs in another process while the loop goes on", function()
      helper.with_loop(new_loop, function(loop)
        local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
        local path, raise, remove = flag()
        local _ <close> = remove
        local future = loop:run_in_executor(pool, function()
          wait_for_file(path)
          return pid(), "more"
        end)
        assert.is_true(aloop.isinstance(future, aloop.Future))
        loop:call_later(0.01, raise)
        local number, more = future:await()
        assert.is_true(number ~= own_pid)
        assert.equal("more", more)
        local e = raises(aloop.ValueError, "bad", function()
          loop:run_in_executor(pool, function() error(aloop.ValueError("bad")) end):await()
        end)
        assert.matches("^in worker process " .. number .. ":\nstack traceback:", e.traceback)
        assert.matches("process_pool_spec.lua:%d+: in function", e.traceback)
      end)
    end)
  end)

  it("gives concurrent futures, whose result a task may wait for", function()
    with_pool({ max_workers = 2 }, function(pool)
      local future = pool:submit(function(a, b) return a + b end, 3, 4)
      assert.is_true(aloop.isinstance(future, aloop.ConcurrentFuture))
      assert.equal(7, future:result())
      assert.is_true(future:done())
      assert.equal(3, pool:submit(function(...) return select("#", ...) end, nil, 1, nil):result())
      assert.equal(0, select("#", pool:submit(function() end):result()))
      assert.matches("spec.lua:%d+: text$", (pool:submit(function() error("text") end):exception()))
    end)
  end)

  it("maps in order", function()
    with_pool({ max_workers = 2 }, function(pool)
      local results = {}
      for product, number in pool:map(function(a, b) return a * b, pid() end, { 1, 2, 3, 4 }, { 5, 6, 7 }) do
        results[#results + 1] = product
        assert.is_true(number ~= own_pid)
      end
      assert.same({ 5, 12, 21 }, results)
    end)
  end)

  it("starts workers when jobs need them, and uses them again", function()
    with_pool({ max_workers = 3 }, function(pool)
      local path, raise, remove = flag()
      local _ <close> = remove
      local futures, seen, n = {}, {}, 0
      local first = pool:submit(pid):result()
      for i = 1, 6 do
        futures[i] = pool:submit(function()
          wait_for_file(path)
          return pid()
        end)
      end
      assert.is_true(wait_until(function() return futures[3]:running() end))
      assert.is_false(futures[4]:running())
      raise()
      for _, future in ipairs(futures) do
        local number = future:result()
        if not seen[number] then n = n + 1 end
        seen[number] = true
      end
      assert.equal(3, n)
      assert.is_true(seen[first])
      for _ = 1, 10 do assert.is_true(seen[pool:submit(pid):result()]) end
    end)
  end)

  it("has its own globals, paths and nothing of our descriptors", function()
    marker = "ours" -- luacheck: ignore 111
    local path = package.path
    package.path = path .. ";/no/such/place/?.lua"
    local file <close> = io.tmpfile()
    with_pool({ max_workers = 1 }, function(pool)
      file:write("x")
      local theirs, search, fds = pool:submit(function()
        local n = 0
        for fd in pairs(require("aloop.testing").descriptors()) do n = n + (tonumber(fd) > 2 and 1 or 0) end
        return marker, package.path, n -- luacheck: ignore 113
      end):result()
      assert.is_nil(theirs)
      assert.equal(package.path, search)
      assert.equal(1, fds) -- its socket
      assert.is_nil(pool:submit(function() return io.read("l") end):result())
      pool:submit(function() marker = "theirs" end):result() -- luacheck: ignore 111
      assert.equal("theirs", pool:submit(function() return marker end):result()) -- luacheck: ignore 113
    end)
    assert.equal("ours", marker) -- luacheck: ignore 113
    package.path, marker = path, nil -- luacheck: ignore 111
  end)

  it("lets a job run a loop of its own, and a pool", function()
    with_pool({ max_workers = 1 }, function(pool)
      local slept, number = pool:submit(function()
        return aloop.run(function()
          aloop.sleep(0.001)
          local inner <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
          return "slept", inner:submit(pid):result()
        end)
      end):result()
      assert.equal("slept", slept)
      assert.is_true(number ~= own_pid and not lives(number))
    end)
  end)

  it("isn't hurt by results that can't travel", function()
    with_pool({ max_workers = 1 }, function(pool)
      local number = pool:submit(pid):result()
      raises(aloop.ValueError, "result #1: coroutine cannot be sent to another process", function()
        pool:submit(function() return coroutine.create(print) end):result()
      end)
      raises(aloop.SystemExit, nil, function() pool:submit(function() error(aloop.SystemExit(3)) end):result() end)
      local function deep() return 1 + deep() end
      assert.matches("stack overflow", (pool:submit(deep):exception()))
      assert.matches("resulting string too large", (pool:submit(string.rep, "xyz", math.maxinteger):exception()))
      assert.equal(number, pool:submit(pid):result())
    end)
  end)

  it("carries what is large", function()
    with_pool({ max_workers = 2 }, function(pool)
      local text = ("0123456789abcdef"):rep(1 << 17)
      local futures = {}
      for i = 1, 4 do futures[i] = pool:submit(function(s, n) return s, #s + n end, text, i) end
      for i, future in ipairs(futures) do
        local back, n = future:result()
        assert.is_true(back == text)
        assert.equal(#text + i, n)
      end
    end)
  end)

  it("does many jobs", function()
    with_pool({ max_workers = 2 }, function(pool, loop)
      local sum = 0
      do
        local group <close> = aloop.TaskGroup()
        for i = 1, 50 do
          group:create_task(function()
            for k = 1, 10 do
              local product = loop:run_in_executor(pool, function(n) return n * k end, i):await()
              sum = sum + product
            end
          end)
        end
      end
      assert.equal(55 * 1275, sum)
    end)
  end)
end)

-- ---- making one -----------------------------------------------------------------------------------------------------

describe("its options", function()
  it("are checked", function()
    local new = aloop.ProcessPoolExecutor
    raises(aloop.ValueError, "max_workers must be greater than 0", new, { max_workers = 0 })
    raises(aloop.ValueError, "max_workers must be greater than 0", new, { max_workers = -1 })
    type_error("bad option 'max_workers' to 'ProcessPoolExecutor' (integer expected, got string)", new,
      { max_workers = "2" })
    type_error("bad option 'initializer' to 'ProcessPoolExecutor' (function expected, got number)", new,
      { initializer = 1 })
    type_error("bad option 'executable' to 'ProcessPoolExecutor' (string expected, got number)", new,
      { executable = 1 })
    type_error("unknown option 'workers' to 'ProcessPoolExecutor'", new, { workers = 1 })
    raises(aloop.ValueError, "argument #2: FILE* cannot be sent to another process", new,
      { initializer = print, initargs = { 1, io.stdout } })
  end)

  it("initializer runs once in each worker, with initargs", function()
    local function initialize(a, b) made = (made or 0) + a + b end -- luacheck: ignore 111 113
    with_pool({ max_workers = 2, initializer = initialize, initargs = { 3, 4 } }, function(pool)
      for _ = 1, 4 do assert.equal(7, pool:submit(function() return made end):result()) end -- luacheck: ignore 113
    end)
  end)

  it("an initializer that raises breaks the pool, and its worker says why", function()
    local stdout, stderr = helper.output_of([[
      local aloop = require "aloop"
      local pool <close> = aloop.ProcessPoolExecutor {
        max_workers = 1, initializer = function() error(aloop.ValueError("not today")) end,
      }
      local futures = { pool:submit(print), pool:submit(print) }
      for _, f in ipairs(futures) do print((f:exception())) end
      print(pcall(pool.submit, pool, print))
    ]])
    local text = ("BrokenProcessPool: %sthe initializer has failed in worker process %%d+\n"):format(BROKEN)
    assert.matches("^" .. text .. text .. "false\t" .. text .. "$", stdout)
    assert.matches("exception in initializer: ValueError: not today\nstack traceback:", stderr)
  end)

  it("executable names the workers' program", function()
    with_pool({ max_workers = 1, executable = helper.aloop }, function(pool)
      assert.is_true(pool:submit(pid):result() ~= own_pid)
    end)
    with_pool({ max_workers = 1, executable = "/no/such/aloop" }, function(pool)
      local e = pool:submit(pid):exception()
      assert.equal(BROKEN .. "a worker process can't be started: No such file or directory", e.message)
    end)
    with_pool({ max_workers = 1, executable = "/bin/true" }, function(pool)
      local e = pool:submit(pid):exception()
      assert.is_true(aloop.isinstance(e, aloop.BrokenProcessPool))
      assert.matches("worker process %d+ ended with exit code 0$", e.message)
    end)
  end)
end)

-- ---- workers that are lost ------------------------------------------------------------------------------------------

describe("a worker that is lost", function()
  it("fails all jobs, those that wait and those of other workers, and whatever is submitted later", function()
    with_pool({ max_workers = 2 }, function(pool, loop)
      local path, _, remove = flag()
      local _ <close> = remove
      local other, victim = os.tmpname(), os.tmpname()
      local function tell(to)
        local file <close> = io.open(to, "w")
        file:write(pid(), "\n")
        file:close()
        wait_for_file(path)
      end
      local first, second = pool:submit(tell, victim), pool:submit(tell, other)
      local waiting = { pool:submit(pid), pool:submit(pid) }
      local wrapped = loop:run_in_executor(pool, pid)
      local numbers = {}
      for i, to in ipairs { victim, other } do
        assert.is_true(wait_until(function()
          numbers[i] = tonumber((helper.read_file(to):match("^(%d+)\n")))
          return numbers[i]
        end))
        os.remove(to)
      end
      aloop.signal.kill(numbers[1], "SIGKILL")
      local message = ("%sworker process %d was killed by SIGKILL"):format(BROKEN, numbers[1])
      for _, future in ipairs { first, second, waiting[1], waiting[2] } do
        local e = future:exception()
        assert.is_true(aloop.isinstance(e, aloop.BrokenProcessPool))
        assert.is_true(aloop.isinstance(e, aloop.BrokenExecutor))
        assert.equal(message, e.message)
      end
      raises(aloop.BrokenProcessPool, message, wrapped.await, wrapped)
      raises(aloop.BrokenProcessPool, message, pool.submit, pool, print)
      raises(aloop.BrokenProcessPool, message, loop.run_in_executor, loop, pool, print)
      pool:shutdown()
      assert.is_false(lives(numbers[2]))
      raises(aloop.BrokenProcessPool, nil, pool.submit, pool, print)
    end)
  end)

  it("by os.exit", function()
    with_pool({ max_workers = 1 }, function(pool)
      local e = pool:submit(function() os.exit(3) end):exception()
      assert.matches("worker process %d+ ended with exit code 3$", e.message)
    end)
  end)

  it("while it had nothing to do, is found out when the next job comes", function()
    with_pool({ max_workers = 1 }, function(pool)
      local number = pool:submit(pid):result()
      aloop.signal.kill(number, "SIGTERM")
      assert.is_true(wait_until(function() return not lives(number) end))
      local message = ("worker process %d was killed by SIGTERM"):format(number)
      raises(aloop.BrokenProcessPool, message, pool.submit, pool, pid)
    end)
  end)

  it("isn't lost to what its jobs start: that has no part of its socket", function()
    with_pool({ max_workers = 1 }, function(pool)
      assert.is_true(not pool:submit(function() return os.execute("(echo nonsense >&3) 2>/dev/null") end):result())
      assert.equal("there", pool:submit(function() return "there" end):result())
    end)
  end)
end)

-- ---- cancelling, shutting down --------------------------------------------------------------------------------------

describe("cancelling", function()
  it("removes a job that has not begun, and no other", function()
    with_pool({ max_workers = 1 }, function(pool, loop)
      local path, raise, remove = flag()
      local _ <close> = remove
      local made, _, remove_made = flag()
      local _ <close> = remove_made
      local function mark(to) io.open(to, "w"):close() end
      local running = pool:submit(wait_for_file, path)
      local queued, wrapped = pool:submit(mark, made), loop:run_in_executor(pool, mark, made)
      assert.is_true(wait_until(function() return running:running() end))
      assert.is_false(running:cancel())
      assert.is_true(queued:cancel())
      assert.is_true(wrapped:cancel())
      raise()
      assert.equal(path, running:result())
      raises(aloop.CancelledError, nil, queued.result, queued)
      assert.equal("last", pool:submit(function() return "last" end):result())
      assert.is_nil(io.open(made))
    end)
  end)

  it("by shutdown with cancel_futures", function()
    with_pool({ max_workers = 1 }, function(pool)
      local path, raise, remove = flag()
      local _ <close> = remove
      local running = pool:submit(wait_for_file, path)
      assert.is_true(wait_until(function() return running:running() end))
      local queued = { pool:submit(pid), pool:submit(pid) }
      pool:shutdown(false, { cancel_futures = true })
      assert.is_true(queued[1]:cancelled() and queued[2]:cancelled())
      assert.is_false(running:done())
      raise()
      assert.equal(path, running:result())
    end)
  end)
end)

describe("shutdown", function()
  it("waits for the jobs, and ends the workers", function()
    local fds = helper.count_fds()
    helper.as_task(function()
      local pool = aloop.ProcessPoolExecutor { max_workers = 2 }
      local futures = { pool:submit(pid), pool:submit(pid), pool:submit(pid) }
      pool:shutdown()
      for _, future in ipairs(futures) do
        assert.is_true(future:done())
        assert.is_nil(io.open("/proc/" .. future:result()))
      end
      raises(aloop.RuntimeError, "cannot schedule new futures after shutdown", pool.submit, pool, pid)
      pool:shutdown()
    end)
    assert.equal(fds, helper.count_fds())
  end)

  it("without waiting lets the jobs run to their end", function()
    helper.as_task(function()
      collectgarbage()
      local fds = helper.count_fds()
      local pool = aloop.ProcessPoolExecutor { max_workers = 1 }
      local first, second = pool:submit(pid), pool:submit(pid)
      pool:shutdown(false)
      raises(aloop.RuntimeError, "after shutdown", pool.submit, pool, pid)
      local number = first:result()
      assert.equal(number, second:result())
      assert.is_true(wait_until(function() return not lives(number) and helper.count_fds() == fds end))
      pool:shutdown(true)
    end)
  end)

  it("of one that had no job", function()
    helper.as_task(function()
      local pool <close> = aloop.ProcessPoolExecutor()
      pool:shutdown()
    end)
  end)

  it("comes by itself when the pool is forgotten", function()
    helper.as_task(function()
      collectgarbage()
      local fds = helper.count_fds()
      local pool = aloop.ProcessPoolExecutor { max_workers = 1 }
      local number = pool:submit(pid):result()
      assert.is_true(lives(number))
      pool = nil -- luacheck: ignore 311
      collectgarbage()
      collectgarbage()
      assert.is_true(wait_until(function() return not lives(number) and helper.count_fds() == fds end))
    end)
  end)
end)

-- ---- the process around it ------------------------------------------------------------------------------------------

describe("in a script", function()
  it("blocks where no loop runs", function()
    assert.equal("42\n4 5 6 \nShutdown\n", helper.output_of [[
      local aloop = require "aloop"
      local pool = aloop.ProcessPoolExecutor { max_workers = 2 }
      local loop = aloop.new_event_loop()
      loop:call_soon(function()
        print(pool:submit(function() return 42 end):result())
        for n in pool:map(function(n) return n + 3 end, { 1, 2, 3 }) do io.write(n, " ") end
        print()
        pool:shutdown()
        print("Shutdown")
        loop:stop()
      end)
      loop:run_forever()
      loop:close()
    ]])
  end)

  it("waits at its end for jobs that run, as Python does", function()
    assert.equal("end\njob\n", helper.output_of [[
      local aloop = require "aloop"
      pool = aloop.ProcessPoolExecutor { max_workers = 1 }
      pool:submit(function() os.execute("sleep 0.05") print("job") end)
      io.stdout:write("end\n"):flush()
    ]])
  end)

  it("isn't run again by workers: no guard of the main module is needed", function() -- row: run_in_executor.main_guard
    assert.equal("main\n1\n", helper.output_of [[
      local aloop = require "aloop"
      print "main"
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 2 }
      print(pool:submit(function() return 1 end):result())
    ]])
  end)

  it("SIGINT is the script's to answer, and no worker's", function()
    local child = helper.start([[
      local aloop = require "aloop"
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
      local function pid() local f <close> = io.open("/proc/self/stat") return f:read("n") end
      local number = pool:submit(pid):result()
      aloop.get_event_loop():add_signal_handler("SIGINT", function() end)
      aloop.signal.kill(number, "SIGINT")
      aloop.signal.kill(pid(), "SIGINT")
      aloop.sleep(0.01)
      print(pool:submit(pid):result() == number)
    ]], { merge = true })
    assert.equal("true\n", child:wait().stdout)
  end)

  it("workers end when the script is killed, also in the middle of a job", function()
    local child = helper.start [[
      local aloop = require "aloop"
      local pool = aloop.ProcessPoolExecutor { max_workers = 2 }
      local function pid() local f <close> = io.open("/proc/self/stat") return f:read("n") end
      print(pool:submit(pid):result())
      local busy = pool:submit(function() print(pid()) io.stdout:flush() while true do end end)
      busy:result()
    ]]
    local idle, busy = child.out:read("n", "n")
    assert.is_true(lives(busy))
    child:kill("KILL")
    assert.equal(9, child:wait().signal)
    helper.as_task(function()
      assert.is_true(wait_until(function() return not lives(idle) and not lives(busy) end))
    end)
  end)

  it("in a plain Lua, whose workers are plain Luas", function()
    if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer's module doesn't load there
    local result = helper.run_program({ os.getenv("ALOOP_LUA") or "lua5.4", "-e", [[
      local aloop = require "aloop"
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
      local function program()
        local pipe <close> = io.popen("readlink /proc/$PPID/exe")
        return pipe:read("l"):match("[^/]*$")
      end
      print(pool:submit(program):result():match("^lua5"))
      print(aloop.run(function()
        return aloop.get_running_loop():run_in_executor(pool, function() return aloop ~= nil end):await()
      end))
      print((pool:submit(function() error(aloop.ValueError("x")) end):exception()))
    ]] }, { env = { LUA_CPATH = helper.build .. "/?.so;;" }, merge = true })
    assert.equal("lua5\ntrue\nValueError: x\n", result.stdout)
  end)

  it("in a program that embeds aloop, which has to name an interpreter", function()
    local path = helper.write_file(([[
      local aloop = require "aloop"
      local ok, e = pcall(aloop.ProcessPoolExecutor)
      assert(aloop.isinstance(e, aloop.NotImplementedError))
      local pool <close> = aloop.ProcessPoolExecutor { executable = %q }
      return e.message, (pool:submit(function() return 42 end):result())
    ]]):format(helper.aloop))
    local result = helper.run_program({ helper.build .. "/c/embed", path })
    os.remove(path)
    assert.equal("result 1: this program is no interpreter that worker processes could run; name one by the option "
      .. "'executable'\nresult 2: 42\n", result.stdout, result.stderr)
  end)

  it("fails a job whose result is too large for the script, and goes on", function()
    if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer needs all the addresses that there are
    local wrapper = helper.write_file(('#!/bin/sh\nulimit -Sv unlimited\nexec "%s" "$@"\n'):format(helper.aloop))
    os.execute("chmod +x " .. wrapper)
    local stdout = helper.output_of(([[
      local aloop = require "aloop"
      local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1, executable = %q }
      local function pid() local f <close> = io.open("/proc/self/stat") return f:read("n") end
      local number = pool:submit(pid):result()
      print(pool:submit(function() return ("x"):rep(1 << 20):rep(128) end):exception())
      print(pool:submit(pid):result() == number)
    ]]):format(wrapper), { before = "ulimit -Sv 120000" })
    os.remove(wrapper)
    assert.equal("not enough memory\ttrue\ntrue\n", stdout)
  end)

  it("--worker without a pool says what it is for", function()
    local result = helper.run_program({ helper.aloop, "--worker" }, { before = "exec 3</dev/null" })
    assert.equal(1, result.code)
    assert.matches("worker processes of a ProcessPoolExecutor", result.stderr)
  end)
end)
