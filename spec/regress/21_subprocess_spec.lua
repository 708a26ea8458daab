-- 21: what went wrong with children: an ignored SIGCHLD made wait() hang (gh-76296), so did a grandchild with the pipe
-- (gh-119710); a start that was cancelled left its child (gh-103847) or hung (gh-125502), one that failed its
-- socketpair (gh-79902, uvloop#185) or closed a descriptor twice (18: uvloop 72140d7, 3214cf6); a child survived, or
-- shouted, when the program was interrupted (gh-114177); an empty environment was taken for none (uvloop e04637e).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

local SP = aloop.subprocess

helper.each_loop(function(kind, new_loop)
  local function with_loop(body) subprocesses.with_loop(new_loop, body) end

  it("21: SIGCHLD may be ignored", function()
    local path = helper.write_file [[
      local aloop = require "aloop"
      local loop = require("aloop.testing").new_loop { kind = ... }
      loop:run_until_complete(function()
        local p = aloop.create_subprocess_shell("echo out; exit 3", { stdout = aloop.subprocess.PIPE })
        print(p:communicate(), p.returncode, p:wait())
      end)
      loop:close()
    ]]
    local result = helper.run_program { "perl", "-e", '$SIG{CHLD} = "IGNORE"; exec @ARGV', helper.aloop, path, kind }
    os.remove(path)
    assert.equal("out\n\t255\t255\n", (result.stdout:gsub("\tnil", "")))
    assert.matches("child process pid %d+ exit status already read: will report returncode 255", result.stderr)
  end)

  it("21: a grandchild that has the pipes holds up neither exit nor wait", function()
    with_loop(function(loop)
      local p, transport = subprocesses.follow(loop, "sleep 30 & echo $!; exit 6")
      p:wait_for("exited")
      assert.equal(6, transport:get_returncode())
      assert.equal(0, p:count("lost 1"))
      p:wait_for("data 1")
      local q = aloop.create_subprocess_shell("sleep 30 & echo $!; exit 7", { stdout = SP.PIPE })
      local pid = tonumber(q.stdout:readline())
      assert.equal(7, q:wait())
      aloop.signal.kill(pid, "SIGKILL")
      transport:close() -- its pipes are let go of, whoever else has them
      p:wait_lost()
      aloop.signal.kill(tonumber(p.out[1]), "SIGKILL")
    end)
  end)

  it("21: a start that is cancelled leaves no child and hangs nothing", function()
    local out = helper.output_of([[
      local aloop = require "aloop"
      local loop = require("aloop.testing").new_loop { kind = ... }
      for turns = 0, 2 do
        loop:run_until_complete(function()
          local task = aloop.create_task(function() aloop.create_subprocess_exec("sleep", "30") end)
          for _ = 1, turns do aloop.sleep(0) end
          task:cancel()
          print(pcall(task.await, task))
        end)
      end
      loop:close()
      print(io.open("/proc/thread-self/children"):read("a"))
    ]], { args = { kind } })
    local lines = {}
    for line in out:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    assert.same({ "false\tCancelledError", "false\tCancelledError" }, { lines[1], lines[2] })
    assert.is_true(lines[3] == "true" or lines[3] == "false\tCancelledError")
    assert.equal("", lines[4])
  end)

  -- A descriptor closed twice would be somebody else's by then: that of a pipe made in between.
  it("18, 21: a start that fails closes its descriptors, and each once", function()
    with_loop(function()
      for _ = 1, 20 do
        assert.is_false(pcall(aloop.create_subprocess_exec, "/nosuch", { stdin = SP.PIPE, stdout = SP.PIPE }))
        local r, w = aloop.pipe()
        collectgarbage()
        w:write("x")
        assert.equal("x", r:read(1))
        r:close()
        w:close()
      end
    end)
  end)

  it("21: an interrupted program ends its children, without a word", function()
    local program = helper.start([[
      local aloop = require "aloop"
      local p = aloop.create_subprocess_exec("sleep", "30", { stdin = aloop.subprocess.PIPE })
      print(p.pid)
      io.stdout:flush()
      p:communicate()
    ]], { flags = { "-X", kind == "ring" and "proactor" or "selector=" .. kind } })
    local pid = tonumber(program:read_line())
    program:kill("INT")
    local result = program:wait()
    assert.equal(130, result.code)
    assert.is_nil(result.stderr:find("closed", 1, true) and result.stderr:find("Event loop", 1, true))
    assert.is_false(subprocesses.runs(pid))
  end)

  it("21: an empty environment is empty", function()
    with_loop(function(loop)
      assert.equal("", subprocesses.run(loop, { "/usr/bin/env" }, { env = {} }).out[1])
    end)
  end)
end)
