-- The programs of scripts/examples that have children.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local examples = require "spec.support.examples"
local subprocesses = require "spec.support.subprocesses"

local output_of = examples.output_of

helper.each_loop(function(kind)
  local flags = examples.flags_of(kind)

  describe("example", function()
    for _, name in ipairs { "subprocess_protocol", "subprocess_streams" } do
      it(name .. " prints the date that a child printed", function() -- row: example.subprocess_protocol
        local before = os.date("%Y-%m-%d %H:%M:%S")
        local date = output_of(name, { flags = flags }):match("^Current date: (%d+%-%d+%-%d+ %d+:%d+:%d+)\n$")
        assert.is_true(before <= date and date <= os.date("%Y-%m-%d %H:%M:%S"))
      end)
    end

    it("subprocess_bc calculates in a child", function()
      local has_bc = examples.is_there("bc")
      assert.equal("1+2 = 3\n3*4 = 12\n", output_of("subprocess_bc", { flags = flags, args = { "1+2", "3*4" } }))
      local function output_of_shell(command)
        local program = helper.aloop .. " " .. examples.DIRECTORY .. "subprocess_bc.lua"
        return helper.run_program({ "sh", "-c", command:format(program) }).stdout
      end
      assert.equal("2+3 = 5\n10/3 = 3\n", output_of_shell "printf '2+3\\n10/3\\n' | %s")
      assert.equal("7*6 = 42\n", output_of_shell "PATH=/nosuch %s '7*6'")
      if not has_bc then return end
      assert.equal("while (1) { x = 1 } = no answer: TimeoutError\n1+1 = 2\n", output_of("subprocess_bc",
        { flags = flags, args = { "while (1) { x = 1 }", "1+1" }, env = { PATIENCE = "0.2" } }))
    end)

    it("supervisor restarts its children, and drains them at SIGTERM", function()
      local supervisor = examples.start("supervisor", {
        flags = flags,
        args = { "exec sleep 100", "exit 3", "trap '' TERM; while [ -e /proc/$PPID ]; do sleep 0.05; done" },
        env = { GRACE = "0.3" },
      })
      local pids = {}
      while not (pids["child 1"] and pids["child 2"] and pids["child 3"]) do
        local name, pid = supervisor:read_until("^(child %d): started, pid (%d+)$")
        pids[name] = tonumber(pid)
      end
      supervisor:read_until("^child 2: ended with 3, again in 0.%d s$")
      supervisor:read_until("^child 2: started, pid %d+$")
      supervisor:read_until("^child 2: ended with 3, again in 0.[24] s$")
      assert.is_true(subprocesses.runs(pids["child 1"]))
      supervisor:kill("TERM")
      supervisor:read_until("^got SIGTERM$")
      local result = supervisor:wait()
      assert.equal(0, result.code, result.stderr)
      assert.matches("child 1: ended with %-15\n", result.stdout)
      assert.matches("child 3: does not end, is killed\nchild 3: ended with %-9\n", result.stdout)
      assert.matches("all ended\n$", result.stdout)
      for _, pid in pairs(pids) do assert.is_false(subprocesses.runs(pid)) end
    end)
  end)
end)
