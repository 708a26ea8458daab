-- create_subprocess_exec and create_subprocess_shell: a Process, its streams, communicate and wait.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local testing = require "aloop.testing"
local tools = require "aloop.tools"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

local raises, type_error, turns = helper.raises, helper.type_error, helper.turns
local SP = aloop.subprocess
local PIPES = { stdin = SP.PIPE, stdout = SP.PIPE, stderr = SP.PIPE }

helper.each_loop(function(_, new_loop)
  local function with_loop(body, options) subprocesses.with_loop(new_loop, body, options) end

  describe("create_subprocess_exec", function()
    it("gives a Process that inherits by default", function() -- row: create_subprocess_exec
      with_loop(function()
        local p = aloop.create_subprocess_exec("/bin/sh", "-c", "sleep 0.05; exit 3")
        assert.is_true(aloop.isinstance(p, SP.Process))
        assert.is_nil(p.stdin)
        assert.is_nil(p.stdout)
        assert.is_nil(p.stderr)
        assert.is_nil(p.returncode)
        assert.equal(("<Process %d>"):format(p.pid), tostring(p))
        assert.equal(3, p:wait())
        assert.equal(3, p.returncode)
        assert.equal(3, p:wait())
        assert.same({ n = 2 }, table.pack(p:communicate()))
        assert.is_nil(p.nosuch)
      end)
    end)

    it("takes its options behind the arguments, and the program as an array", function()
      with_loop(function()
        for _, start in ipairs {
          function() return aloop.create_subprocess_exec("cat", "-", { stdin = SP.PIPE, stdout = SP.PIPE }) end,
          function() return aloop.create_subprocess_exec({ "cat", "-" }, { stdin = SP.PIPE, stdout = SP.PIPE }) end,
        } do
          local p = start()
          assert.is_true(aloop.isinstance(p.stdin, aloop.StreamWriter))
          assert.is_true(aloop.isinstance(p.stdout, aloop.StreamReader))
          assert.is_nil(p.stderr)
          assert.same({ "abc", n = 2 }, table.pack(p:communicate("abc")))
          assert.equal(0, p.returncode)
        end
      end)
    end)

    it("streams lines to a child and back", function()
      with_loop(function()
        local p = aloop.create_subprocess_exec("cat", { stdin = SP.PIPE, stdout = SP.PIPE })
        for i = 1, 20 do
          p.stdin:write(("line %d\n"):format(i))
          p.stdin:drain()
          assert.equal(("line %d\n"):format(i), p.stdout:readline())
        end
        p.stdin:write("unfinished")
        p.stdin:write_eof()
        assert.equal("unfinished", p.stdout:readline())
        assert.is_nil(p.stdout:readline())
        assert.is_true(p.stdout:at_eof())
        p.stdin:wait_closed()
        assert.equal(0, p:wait())
      end)
    end)

    it("has no more ahead in memory than its limit says", function()
      with_loop(function()
        local p = aloop.create_subprocess_exec("head", "-c", "3000000", "/dev/zero", { stdout = SP.PIPE, limit = 1000 })
        aloop.sleep(0.05)
        assert.is_nil(p.returncode) -- its pipe is full
        local n = 0
        while true do
          local data = p.stdout:read(100000)
          if not data then break end
          n = n + #data
        end
        assert.equal(3000000, n)
        assert.equal(0, p:wait())
        p = aloop.create_subprocess_shell("echo 0123456789", { stdout = SP.PIPE, limit = 5 })
        raises(aloop.ValueError, "chunk is longer than limit", p.stdout.readline, p.stdout)
        p:wait()
      end)
    end)

    -- By hand: 1 GiB each.
    it("reads much of both outputs at once, slowly, in little memory", function()
      with_loop(function(loop)
        local script = "head -c 16000000 /dev/zero >&2 & head -c 16000000 /dev/zero; wait"
        local p = aloop.create_subprocess_shell(script, { stdout = SP.PIPE, stderr = SP.PIPE })
        local most = 0
        local function read_slowly(reader)
          local n = 0
          while true do
            local data = reader:read(200000)
            if not data then return n end
            n = n + #data
            most = math.max(most, #data)
            if n % 8 == 0 then aloop.sleep(0) end
          end
        end
        collectgarbage()
        local before = collectgarbage("count")
        local out, err = aloop.gather {
          function() return read_slowly(p.stdout) end,
          function() return read_slowly(p.stderr) end,
        }
        assert.same({ 16000000, 16000000 }, { out, err })
        assert.is_true(most <= 3 * 65536 + 262144)
        collectgarbage()
        assert.is_true(collectgarbage("count") - before < 2000)
        assert.equal(0, p:wait())
        assert.is_true(loop:is_running())
      end)
    end)

    it("tells of a wrong limit", function()
      with_loop(function(loop)
        raises(aloop.ValueError, "Limit cannot be <= 0", aloop.create_subprocess_exec, "true", { limit = 0 })
        type_error("bad option 'limit' to 'create_subprocess_exec' (integer expected, got string)",
          aloop.create_subprocess_exec, "true", { limit = "x" })
        type_error("unknown option 'limit' to 'subprocess_exec'", loop.subprocess_exec, loop, print, "true",
          { limit = 5 })
      end)
    end)

    it("may not be called where nothing can wait", function()
      with_loop(function(loop)
        local refused = loop:create_future()
        loop:call_soon(function()
          raises(aloop.RuntimeError, "create_subprocess_exec", aloop.create_subprocess_exec, "true")
          raises(aloop.RuntimeError, "create_subprocess_shell", aloop.create_subprocess_shell, "true")
          refused:set_result()
        end)
        refused:await()
      end)
    end)
  end)

  describe("create_subprocess_shell", function()
    it("runs a command", function() -- row: create_subprocess_shell
      with_loop(function()
        local p = aloop.create_subprocess_shell("cat; echo err >&2; exit 7", PIPES)
        assert.same({ "in", "err\n", n = 2 }, table.pack(p:communicate("in")))
        assert.equal(7, p.returncode)
        raises(aloop.ValueError, "cmd must be a string", aloop.create_subprocess_shell, { "true" })
      end)
    end)
  end)

  describe("Process:communicate", function()
    it("feeds stdin and reads both outputs at once, of any size", function() -- row: Process.communicate
      with_loop(function()
        local data = ("0123456789abcdef"):rep(128 * 1024) -- 2 MiB
        local script = "exec 3>&1; (head -c 1500000 /dev/zero >&2) & tee /dev/null; wait"
        local p = aloop.create_subprocess_shell(script, PIPES)
        local out, err = p:communicate(data)
        assert.is_true(out == data)
        assert.equal(1500000, #err)
        assert.equal(0, p.returncode)
      end)
    end)

    it("gives an empty string for what was empty, nil for what is no pipe, and closes stdin without input", function()
      with_loop(function()
        local p = aloop.create_subprocess_exec("cat", PIPES)
        assert.same({ "", "", n = 2 }, table.pack(p:communicate()))
        p = aloop.create_subprocess_exec("cat", { stdin = SP.PIPE, stderr = SP.PIPE, stdout = SP.DEVNULL })
        assert.same({ nil, "", n = 2 }, table.pack(p:communicate("x")))
        p = aloop.create_subprocess_exec("cat", { stdin = SP.DEVNULL, stdout = SP.PIPE })
        assert.same({ "", n = 2 }, table.pack(p:communicate("no stdin to take it")))
        local buffer = aloop.buffer(3)
        buffer:set(1, "buf")
        p = aloop.create_subprocess_exec("cat", { stdin = SP.PIPE, stdout = SP.PIPE })
        assert.equal("buf", (p:communicate(buffer)))
      end)
    end)

    it("refuses input that is no text, and is asked again", function()
      with_loop(function()
        local p = aloop.create_subprocess_exec("cat", { stdin = SP.PIPE, stdout = SP.PIPE })
        type_error("bad argument #1 to 'communicate' (string or buffer expected, got table)", p.communicate, p, {})
        assert.equal("text", (p:communicate("text")))
      end)
    end)

    it("takes a child that doesn't read its input", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("exec <&-; echo done; exit 2", PIPES)
        assert.same({ "done\n", "", n = 2 }, table.pack(p:communicate(("x"):rep(1000000))))
        assert.equal(2, p.returncode)
        p = aloop.create_subprocess_exec("true", { stdin = SP.PIPE })
        assert.equal(0, p:wait())
        turns(3)
        assert.same({ n = 2 }, table.pack(p:communicate("too late")))
      end)
    end)

    it("may be given up, and begun again", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("echo one; echo e1 >&2; read x; echo two; echo e2 >&2", PIPES)
        raises(aloop.TimeoutError, nil, function()
          local _ <close> = aloop.timeout(0.05)
          p.stdout:readline()
          p.stdout:readline()
        end)
        p.stdin:write("\n")
        local out, err = p:communicate()
        assert.equal("two\n", out)
        assert.equal("e1\ne2\n", err)
        p = aloop.create_subprocess_exec("sleep", "30", PIPES)
        raises(aloop.TimeoutError, nil, function()
          local _ <close> = aloop.timeout(0.02)
          p:communicate()
        end)
        assert.is_nil(p.returncode)
        p:kill()
        assert.same({ "", "", n = 2 }, table.pack(p:communicate()))
        assert.equal(-9, p.returncode)
      end)
    end)

    it("keeps stderr's flow control when it is given up", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("exec 1>&2; head -c 2000000 /dev/zero; exec sleep 30",
          { stdout = SP.PIPE, stderr = SP.PIPE, limit = 1000 })
        local q = aloop.create_subprocess_exec("sleep", "30", PIPES)
        for _, child in ipairs { p, q } do
          raises(aloop.TimeoutError, nil, function()
            local _ <close> = aloop.timeout(0.1)
            child:communicate()
          end)
        end
        assert.matches("transport=", tostring(q.stderr))
        p:kill()
        q:kill()
        q:wait()
        p:wait()
        p.stderr:read()
      end)
    end)

    it("refuses input that is none", function()
      with_loop(function()
        local p = aloop.create_subprocess_exec("cat", PIPES)
        assert.is_false(pcall(p.communicate, p, {}))
        p:communicate()
      end)
    end)
  end)

  describe("Process:wait", function()
    it("may be called by many tasks, of which some are cancelled", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("read x; exit 4", { stdin = SP.PIPE })
        local tasks = {}
        for i = 1, 10 do tasks[i] = aloop.create_task(function() return p:wait() end) end
        turns()
        tasks[3]:cancel()
        helper.cancelled(tasks[3])
        p.stdin:write("\n")
        for i, task in ipairs(tasks) do
          if i ~= 3 then assert.equal(4, task:await()) end
        end
      end)
    end)

    it("is told of by the task tree", function()
      with_loop(function(loop)
        local p = aloop.create_subprocess_exec("sleep", "30", { stdout = SP.PIPE })
        local waiting = loop:create_task(function() p:wait() end, { name = "waiter" })
        local reading = loop:create_task(function() p:communicate() end, { name = "reader" })
        turns(2)
        local tree = tools.pstree()
        assert.matches("waiter.-waits for wait%(" .. p.pid .. "%): exit of a process", tree)
        assert.matches("reader.-waits for read", tree)
        p:kill()
        waiting:await()
        reading:await()
      end)
    end)

    it("does not wait for whoever else has its pipes", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("sleep 30 & echo $!; exit 6", { stdout = SP.PIPE })
        local pid = tonumber(p.stdout:readline())
        assert.equal(6, p:wait())
        assert.is_true(subprocesses.runs(pid))
        aloop.signal.kill(pid, "SIGKILL")
        assert.same({ "", n = 2 }, table.pack(p:communicate()))
      end)
    end)
  end)

  describe("Process", function()
    it("sends signals", function()
      with_loop(function()
        for name, code in pairs { terminate = -15, kill = -9 } do
          local p = aloop.create_subprocess_exec("sleep", "30")
          p[name](p)
          assert.equal(code, p:wait())
          raises(aloop.ProcessLookupError, nil, p[name], p)
        end
        local p = aloop.create_subprocess_exec("sleep", "30")
        p:send_signal("SIGHUP")
        assert.equal(-1, p:wait())
        type_error("(Process expected, got table)", p.kill, {})
      end)
    end)

    it("loses its stdin when it ends, which whoever drains is told", function()
      with_loop(function()
        local p = aloop.create_subprocess_shell("read x", { stdin = SP.PIPE })
        p.stdin:write(("x"):rep(1000000))
        local draining = aloop.create_task(function() p.stdin:drain() end)
        turns()
        assert.is_false(draining:done())
        p:kill()
        raises(aloop.ConnectionError, nil, draining.await, draining)
        assert.equal(-9, p:wait())
        raises(aloop.ConnectionError, nil, p.stdin.wait_closed, p.stdin)
      end)
    end)

    it("may be forgotten: its child goes on, is reaped, and nothing is left", function()
      with_loop(function()
        local pid
        do
          local p = aloop.create_subprocess_shell("read x; exit 5", { stdin = SP.PIPE, stdout = SP.PIPE })
          pid = p.pid
          p.stdin:write("\n")
        end
        for _ = 1, 1000 do
          collectgarbage()
          aloop.sleep(0.001)
          if not subprocesses.children()[pid] then break end
        end
        assert.is_nil(subprocesses.children()[pid])
      end)
    end)
  end)

  describe("a loop of a class of its own", function()
    it("has children, too, though it makes its own futures", function()
      local kind = aloop.SelectorEventLoop:extend("Kind")
      local made = 0
      function kind:create_future()
        made = made + 1
        return aloop.SelectorEventLoop.create_future(self)
      end
      helper.with_loop(function() return kind() end, function()
        subprocesses.leaves_nothing(function()
          local p = aloop.create_subprocess_exec("cat", PIPES)
          assert.same({ "x", "", n = 2 }, table.pack(p:communicate("x")))
          assert.is_true(made > 0)
          local task = aloop.create_task(function() aloop.create_subprocess_exec("sleep", "30") end)
          turns()
          task:cancel()
          helper.cancelled(task)
        end)
      end)
    end)

    it("has children on a time of its own, too", function()
      testing.run(function()
        local p = aloop.create_subprocess_shell("sleep 0.05; exit 3", { stdout = SP.PIPE })
        assert.same({ "", n = 2 }, table.pack(p:communicate()))
        assert.equal(3, p:wait())
        aloop.sleep(3600)
      end)
    end)
  end)

  describe("a spawn that is cancelled", function()
    it("kills and reaps its child", function() -- row: subprocess.cancel_start
      with_loop(function(loop)
        local events
        for _, start in ipairs {
          function() aloop.create_subprocess_exec("sleep", "30", PIPES) end,
          function()
            local follower = subprocesses.Follower(loop)
            events = follower
            loop:subprocess_exec(function() return follower end, "sleep", "30")
          end,
        } do
          local task = aloop.create_task(start)
          turns()
          task:cancel()
          helper.cancelled(task)
        end
        events:wait_lost()
        assert.equal("made", events.events[1])
        assert.equal(-9, events.transport:get_returncode())
      end)
    end)
  end)
end)
