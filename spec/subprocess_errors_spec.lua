-- What can't be started: asyncio's error class, a message that names the cause, and neither a child nor a descriptor
-- left.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

local raises, type_error, turns = helper.raises, helper.type_error, helper.turns
local SP = aloop.subprocess
local PIPES = { stdin = SP.PIPE, stdout = SP.PIPE, stderr = SP.PIPE }

-- An executable file with this text, and what removes it.
local function program(text, mode)
  local path = helper.write_file(text)
  os.execute(("chmod %s %s"):format(mode or "755", path))
  return path, aloop.defer(os.remove, path)
end

helper.each_loop(function(_, new_loop)
  local function with_loop(body, options) subprocesses.with_loop(new_loop, body, options) end

  -- Both ways to start the program fail alike; returns the error.
  local function refused(loop, class, text, argv, options)
    raises(class, text, aloop.create_subprocess_exec, argv, options)
    local made = 0
    local e = raises(class, text, loop.subprocess_exec, loop, function()
      made = made + 1
      return subprocesses.Follower(loop)
    end, argv, options)
    assert.is_true(made <= 1)
    return e
  end

  describe("a program that can't be run", function()
    it("is missing", function() -- row: subprocess.exec_error
      with_loop(function(loop)
        local e = refused(loop, aloop.FileNotFoundError, "No such file or directory: 'aloop-nosuch'",
          { "aloop-nosuch" })
        assert.equal("aloop-nosuch", e.filename)
        assert.equal("ENOENT", e.code)
        refused(loop, aloop.FileNotFoundError, "'/nosuch/x'", { "/nosuch/x", "arg" }, PIPES)
        refused(loop, aloop.FileNotFoundError, "'/nosuch/x'", { "sh" }, { executable = "/nosuch/x" })
        refused(loop, aloop.PermissionError, "Permission denied: ''", { "" }) -- the directories of PATH
        refused(loop, aloop.NotADirectoryError, "Not a directory: '/etc/passwd/x'", { "/etc/passwd/x" })
      end)
    end)

    it("may not be run, or is none", function()
      with_loop(function(loop)
        local plain, _ <close> = program("#!/bin/sh\n", "644")
        local e = refused(loop, aloop.PermissionError, "Permission denied: '" .. plain .. "'", { plain })
        assert.equal("EACCES", e.code)
        refused(loop, aloop.PermissionError, "'/tmp'", { "/tmp" })
        local junk, _ <close> = program("no shebang, no ELF")
        e = refused(loop, aloop.OSError, "Exec format error: '" .. junk .. "'", { junk })
        assert.equal("ENOEXEC", e.code)
      end)
    end)

    it("has an interpreter that is missing", function()
      with_loop(function(loop)
        local script, _ <close> = program("#! /nosuch/interpreter -x\n")
        local text = ("No such file or directory: interpreter '/nosuch/interpreter' of: '%s'"):format(script)
        local e = refused(loop, aloop.FileNotFoundError, text, { script })
        assert.equal(script, e.filename)
      end)
    end)

    it("has too long an argument list", function()
      with_loop(function(loop)
        local long = ("x"):rep(200000) -- Linux takes 128 KiB an argument
        local e = refused(loop, aloop.OSError, "Argument list too long: 'true'", { "true", long })
        assert.equal("E2BIG", e.code)
        refused(loop, aloop.OSError, "Argument list too long", { "true" }, { env = { LONG = long, PATH = "/bin" } })
      end)
    end)
  end)

  describe("arguments", function()
    it("with a NUL are refused", function()
      with_loop(function(loop)
        for _, argv in ipairs { { "a\0b" }, { "true", "a\0b" } } do
          refused(loop, aloop.ValueError, "embedded null byte", argv)
        end
        raises(aloop.ValueError, "embedded null byte", aloop.create_subprocess_shell, "true\0")
        for _, options in ipairs {
          { cwd = "/\0" }, { executable = "x\0" }, { env = { ["a\0"] = "" } }, { env = { a = "\0" } },
        } do
          refused(loop, aloop.ValueError, "embedded null byte", { "true" }, options)
        end
      end)
    end)

    it("of a wrong type are refused", function()
      with_loop(function(loop)
        local factory = subprocesses.Follower
        type_error("bad argument #2 to 'subprocess_exec' (string expected, got no value)", loop.subprocess_exec, loop,
          factory)
        type_error("bad argument #3 to 'subprocess_exec' (string expected, got boolean)", loop.subprocess_exec, loop,
          factory, "true", false)
        type_error("bad argument #1 to 'subprocess_exec' (function expected, got string)", loop.subprocess_exec, loop,
          "true")
        type_error("bad argument #1 to 'create_subprocess_exec' (string expected, got nil)",
          aloop.create_subprocess_exec, nil, "x")
        type_error("bad argument #2 to 'create_subprocess_exec' (string expected, got table with 'stdin'; options",
          aloop.create_subprocess_exec, "true", { stdin = SP.PIPE }, "x")
        type_error("bad argument #1 to 'create_subprocess_exec' (string expected as item 2, got boolean)",
          aloop.create_subprocess_exec, { "true", true })
        type_error("bad argument #2 to 'create_subprocess_shell' (table expected, got string)",
          aloop.create_subprocess_shell, "true", "x")
        raises(aloop.ValueError, "empty array", aloop.create_subprocess_exec, {})
      end)
    end)
  end)

  describe("options", function()
    it("about text are refused", function() -- row: subprocess_exec.text_rejected
      with_loop(function(loop)
        for name, case in pairs {
          universal_newlines = { true, "universal_newlines must be false" },
          text = { true, "text must be false" },
          bufsize = { 1, "bufsize must be 0" },
          encoding = { "utf-8", "encoding must be nil" },
          errors = { "strict", "errors must be nil" },
          shell = { true, "shell must be false" },
          preexec_fn = { print, "preexec_fn must be nil" },
        } do
          refused(loop, aloop.ValueError, case[2], { "true" }, { [name] = case[1] })
          if name ~= "shell" then
            raises(aloop.ValueError, case[2], aloop.create_subprocess_shell, "true", { [name] = case[1] })
          end
        end
        local p = aloop.create_subprocess_exec("true", { text = false, bufsize = 0, universal_newlines = false })
        assert.equal(0, p:wait())
      end)
    end)

    it("that are unknown or of a wrong type are refused", function()
      with_loop(function(loop)
        type_error("unknown option 'nosuch' to 'create_subprocess_exec'", aloop.create_subprocess_exec, "true",
          { nosuch = 1 })
        type_error("unknown option 'nosuch' to 'subprocess_shell'", loop.subprocess_shell, loop, print, "true",
          { nosuch = 1 })
        for name, case in pairs {
          cwd = { 5, "string" }, executable = { {}, "string" }, env = { "A=1", "table" }, close_fds = { 1, "boolean" },
          start_new_session = { "yes", "boolean" }, process_group = { "x", "integer" }, umask = { {}, "integer" },
          user = { {}, "integer or string" }, group = { true, "integer or string" }, pass_fds = { 5, "table" },
          extra_groups = { "adm", "table" }, restore_signals = { 0, "boolean" },
        } do
          local text = ("bad option '%s' to 'create_subprocess_exec' (%s expected, got %s)"):format(name, case[2],
            type(case[1]))
          type_error(text, aloop.create_subprocess_exec, "true", { [name] = case[1] })
        end
      end)
    end)

    it("name a user or group that there is not", function()
      with_loop(function(loop)
        refused(loop, aloop.LookupError, "user 'aloop-nobody' not found", { "true" }, { user = "aloop-nobody" })
        refused(loop, aloop.LookupError, "group 'aloop-nobody' not found", { "true" }, { group = "aloop-nobody" })
        refused(loop, aloop.LookupError, "group 'x y' not found", { "true" }, { extra_groups = { 0, "x y" } })
        refused(loop, aloop.ValueError, "User ID cannot be negative, got -1", { "true" }, { user = -1 })
        refused(loop, aloop.ValueError, "Group ID cannot be negative, got -5", { "true" }, { extra_groups = { -5 } })
        refused(loop, aloop.ValueError, "User ID is too large", { "true" }, { user = 2 ^ 40 // 1 })
      end)
    end)

    it("name variables that there can't be", function()
      with_loop(function(loop)
        for _, name in ipairs { "", "A=B" } do
          refused(loop, aloop.ValueError, "illegal environment variable name", { "true" }, { env = { [name] = "x" } })
        end
        type_error("bad option 'env' to 'create_subprocess_exec' (strings as names expected, got number)",
          aloop.create_subprocess_exec, "true", { env = { "A=1" } })
        type_error("bad option 'env' to 'create_subprocess_exec' (string as value of A expected, got boolean)",
          aloop.create_subprocess_exec, "true", { env = { A = true } })
      end)
    end)

    it("name a directory or descriptors that there are not", function()
      with_loop(function(loop)
        local e = refused(loop, aloop.FileNotFoundError, "'/nosuch'", { "true" }, { cwd = "/nosuch" })
        assert.equal("/nosuch", e.filename)
        refused(loop, aloop.NotADirectoryError, "'/etc/passwd'", { "true" }, { cwd = "/etc/passwd" })
        for _, name in ipairs { "stdin", "stdout", "stderr" } do
          e = refused(loop, aloop.OSError, "Bad file descriptor: " .. name, { "true" }, { [name] = 999 })
          assert.equal("EBADF", e.code)
        end
        refused(loop, aloop.OSError, "Bad file descriptor: pass_fds 999", { "true" }, { pass_fds = { 999 } })
        refused(loop, aloop.ValueError, "Invalid file object", { "true" }, { pass_fds = { {} } })
      end)
    end)
  end)

  describe("failure", function()
    it("of the factory starts nothing", function()
      with_loop(function(loop)
        raises(aloop.ValueError, "no protocol", loop.subprocess_exec, loop, function()
          error(aloop.ValueError("no protocol"))
        end, "sleep", "30")
        local ok, e = pcall(loop.subprocess_exec, loop, function() return 5 end, "sleep", "30")
        assert.is_false(ok)
        assert.matches("protocol expected, got number", e)
      end)
    end)

    it("is of a process that has ended, too", function()
      with_loop(function()
        for _ = 1, 20 do
          local p = aloop.create_subprocess_exec("true")
          p:wait()
          raises(aloop.ProcessLookupError, nil, p.terminate, p)
        end
      end)
    end)

    -- By hand: 10,000 of them.
    it("leaves neither descriptors nor zombies, however often", function()
      with_loop(function(loop)
        for i = 1, 60 do
          local options = i % 2 == 0 and PIPES or { user = i % 4 == 1 and 0 or nil }
          if i % 4 == 1 then options.cwd = "/nosuch" end
          assert.is_false(pcall(aloop.create_subprocess_exec, { "/nosuch/program", i }, options))
          assert.is_false(pcall(loop.subprocess_exec, loop, subprocesses.Follower, { "/nosuch/program", i }))
        end
      end)
    end)

    -- By hand: 1,000 of them.
    it("by a cancellation leaves neither descriptors nor zombies, however often", function()
      with_loop(function(loop)
        for i = 1, 30 do
          local started = i % 2 == 0
          local task = loop:create_task(function()
            local p = aloop.create_subprocess_exec("sleep", "30", PIPES)
            p:kill() -- it came too late
            p:wait()
          end)
          if started then turns() end
          task:cancel()
          helper.cancelled(task)
        end
      end)
    end)

    it("for want of descriptors is told, and survived", function()
      local out = helper.output_of(helper.HOARD .. [[
        local aloop = require "aloop"
        local SP = aloop.subprocess
        local PIPES = { stdin = SP.PIPE, stdout = SP.PIPE, stderr = SP.PIPE }
        aloop.sleep(0)
        local hoarded = hoard()
        for free = 0, 8 do
          if free > 0 then table.remove(hoarded):close() end
          local ok, p = pcall(aloop.create_subprocess_exec, "cat", PIPES)
          if ok then
            print("ok", p:communicate("x"))
            break
          end
          assert(p.code == "EMFILE", p)
        end
      ]], { before = "ulimit -n 64" })
      assert.equal("ok\tx\t\n", out)
    end)
  end)
end)
