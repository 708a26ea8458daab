-- The options of subprocess_exec: where a child's descriptors go, its directory, environment, session, user and
-- signals.
-- SPDX-License-Identifier: MIT

local lfs = require "lfs"
local aloop = require "aloop"
local testing = require "aloop.testing"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

local raises, type_error = helper.raises, helper.type_error
local run, follow, Follower = subprocesses.run, subprocesses.follow, subprocesses.Follower
local SP = aloop.subprocess

local function is_root()
  return lfs.attributes("/proc/self", "uid") == 0
end

-- What a child's command writes.
local function output_of(loop, command, options)
  return run(loop, command, options).out[1]
end

-- A path of a file that is removed when the block ends.
local function temporary_file(text)
  local path = helper.write_file(text or "")
  return path, aloop.defer(os.remove, path)
end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) subprocesses.with_loop(new_loop, body) end

  describe("aloop.subprocess", function()
    it("has the constants", function() -- row: subprocess_constants
      assert.same({ -1, -2, -3, false }, { SP.PIPE, SP.STDOUT, SP.DEVNULL, SP.INHERIT })
      assert.is_true(rawequal(SP, require("aloop.subprocess")))
      assert.is_true(rawequal(SP.create_subprocess_exec, aloop.create_subprocess_exec))
    end)
  end)

  describe("stdin, stdout and stderr", function()
    -- row: subprocess_exec.stdin, subprocess_exec.stdout, subprocess_exec.stderr, subprocess_exec.inherit_vs_default
    it("are pipes by default, and without one where something else is said", function()
      with_loop(function(loop)
        local function pipes_of(options)
          local p, transport = follow(loop, "cat; readlink /proc/self/fd/2 >&2", options)
          local has = {}
          for fd = 0, 2 do has[fd + 1] = transport:get_pipe_transport(fd) ~= nil end
          if has[1] then transport:get_pipe_transport(0):close() end
          p:wait_lost()
          transport:close()
          return has
        end
        assert.same({ true, true, true }, pipes_of())
        assert.same({ true, true, true }, pipes_of { stdin = SP.PIPE, stdout = SP.PIPE, stderr = SP.PIPE })
        assert.same({ false, true, true }, pipes_of { stdin = SP.DEVNULL })
        assert.same({ false, false, false }, pipes_of { stdin = SP.DEVNULL, stdout = SP.DEVNULL, stderr = SP.DEVNULL })
        assert.same({ false, true, false }, pipes_of { stdin = SP.DEVNULL, stderr = SP.STDOUT })
        assert.same({ true, true, false }, pipes_of { stderr = SP.DEVNULL })
      end)
    end)

    it("are ours where they are inherited", function()
      with_loop(function(loop)
        local ours = testing.descriptors()
        local report, _ <close> = temporary_file()
        local script = ("a=$(for i in 0 1 2; do readlink /proc/$$/fd/$i; done); echo \"$a\" > %s"):format(report)
        run(loop, script, { stdin = SP.INHERIT, stdout = SP.INHERIT, stderr = false })
        assert.equal(("%s\n%s\n%s\n"):format(ours[0], ours[1], ours[2]), helper.read_file(report))
      end)
    end)

    it("may be descriptors and files", function()
      with_loop(function(loop)
        local input, _ <close> = temporary_file("from a file\n")
        local output, _ <close> = temporary_file()
        local file <close> = assert(io.open(input))
        local out <close> = assert(io.open(output, "w"))
        out:write("before ") -- still in the buffer of the file
        local p = run(loop, "cat; echo err >&2", { stdin = file, stdout = out, stderr = out })
        assert.same({ "", "" }, p.out)
        assert.equal("before from a file\nerr\n", helper.read_file(output))
        local r, w = aloop.pipe()
        run(loop, "echo numbers", { stdin = SP.DEVNULL, stdout = w:fileno(), stderr = SP.DEVNULL })
        assert.equal("numbers\n", r:read(100))
        r:close()
        w:close()
      end)
    end)

    it("may be merged, wherever stdout goes", function()
      with_loop(function(loop)
        local p = run(loop, "echo one; echo two >&2", { stderr = SP.STDOUT })
        assert.equal("one\ntwo\n", p.out[1])
        assert.is_nil(p.transport:get_pipe_transport(2))
        assert.equal(0, p:count("lost 2"))
        local path, _ <close> = temporary_file()
        local file <close> = assert(io.open(path, "w"))
        run(loop, "echo one; echo two >&2", { stdout = file, stderr = SP.STDOUT })
        assert.equal("one\ntwo\n", helper.read_file(path))
        for _, name in ipairs { "stdin", "stdout" } do
          raises(aloop.ValueError, "STDOUT can only be used for stderr", follow, loop, "true", { [name] = SP.STDOUT })
        end
      end)
    end)

    -- row: subprocess_exec.pipe_files
    it("may be ends of our own pipes, whose other ends are then ours to connect", function()
      with_loop(function(loop)
        local r, w = aloop.pipe()
        local r2, w2 = aloop.pipe()
        local p, transport = follow(loop, { "cat" }, { stdin = r2, stdout = w, stderr = SP.INHERIT })
        w:close()
        r2:close()
        local reader = aloop.StreamReader()
        local _, protocol = loop:connect_read_pipe(function() return aloop.StreamReaderProtocol(reader) end, r)
        local input = loop:connect_write_pipe(function() return {} end, w2)
        local data = ("0123456789"):rep(30000)
        input:write(data) -- more than a pipe has room for: to the child the ends block, as programs expect
        input:write_eof()
        assert.is_true(reader:read() == data)
        assert.equal(0, p:wait_end())
        transport:close()
        assert.is_not_nil(protocol)
      end)
    end)

    it("may be a socket", function()
      with_loop(function(loop)
        local a, b = aloop.socket.socketpair()
        local p, transport = follow(loop, "read x; echo got $x", { stdin = b, stdout = b, stderr = SP.STDOUT })
        b:close()
        a:send("this\n")
        assert.equal("got this\n", helper.recv_all(loop, a))
        a:close()
        assert.equal(0, p:wait_end())
        transport:close()
      end)
    end)

    it("refuse other values", function()
      with_loop(function(loop)
        for _, name in ipairs { "stdin", "stdout", "stderr" } do
          for _, value in ipairs { true, "PIPE" } do
            local text = ("bad option '%s' to 'subprocess_shell' (PIPE, DEVNULL, INHERIT or descriptor expected, got "
              .. "%s)"):format(name, type(value))
            type_error(text, loop.subprocess_shell, loop, Follower, "true", { [name] = value })
          end
          raises(aloop.ValueError, "Invalid file object", follow, loop, "true", { [name] = {} })
          raises(aloop.ValueError, "Invalid file descriptor: -7", follow, loop, "true", { [name] = -7 })
        end
        local file = io.tmpfile()
        file:close()
        raises(aloop.ValueError, "closed file", follow, loop, "true", { stdin = file })
      end)
    end)
  end)

  describe("the other options", function() -- row: subprocess_exec.kwargs
    it("cwd and env", function()
      with_loop(function(loop)
        assert.equal("/usr\n", output_of(loop, { "pwd" }, { cwd = "/usr" }))
        local env = { A = 1, B = "two words" }
        assert.equal("A=1\nB=two words\n", output_of(loop, "env | grep '^[AB]=' | sort", { env = env }))
        assert.equal("", output_of(loop, { "/usr/bin/env" }, { env = {} }))
        assert.matches("\nPATH=", "\n" .. output_of(loop, { "env" }))
        assert.equal("\n", output_of(loop, { "/bin/echo" }, { env = {} }))
      end)
    end)

    it("executable, searched in the child's PATH", function()
      with_loop(function(loop)
        assert.equal("renamed\n", output_of(loop, { "renamed", "/proc/self/cmdline" }, { executable = "cat" })
          :match("^renamed") .. "\n")
        local directory, remove = helper.temporary_directory()
        local _ <close> = aloop.defer(remove)
        local path = directory .. "/hello"
        local file = assert(io.open(path, "w"))
        file:write("#!/bin/sh\necho hello $1\n")
        file:close()
        os.execute("chmod 755 " .. path)
        assert.equal("hello you\n", output_of(loop, { "hello", "you" }, { env = { PATH = "/nosuch:" .. directory } }))
        assert.equal("hello you\n", output_of(loop, { "hello", "you" }, { env = { PATH = "" }, cwd = directory }))
        assert.equal("hello you\n", output_of(loop, { "./hello", "you" }, { cwd = directory }))
        raises(aloop.FileNotFoundError, "No such file or directory: 'hello'", follow, loop, { "hello" })
        assert.equal("x\n", output_of(loop, { "echo", "x" }, { env = { NOPATH = "1" } }))
      end)
    end)

    it("close_fds and pass_fds", function()
      with_loop(function(loop)
        local _ <close> = assert(io.open("/dev/null")) -- Lua opens it without close-on-exec
        local fd
        for n, target in pairs(testing.descriptors()) do
          if n > 2 and target == "/dev/null" then fd = n end
        end
        local command = ("[ -e /proc/$$/fd/%d ] && echo open || echo closed"):format(fd)
        assert.equal("closed\n", output_of(loop, command))
        assert.equal("open\n", output_of(loop, command, { close_fds = false }))
        assert.equal("open\n", output_of(loop, command, { pass_fds = { fd } }))
        local r, w = aloop.pipe()
        local command2 = ("echo through > /proc/self/fd/%d; "):format(w:fileno()) .. command
        assert.equal("closed\n", output_of(loop, command2, { pass_fds = { w } }))
        assert.equal("through\n", r:read(100))
        assert.equal("closed\n", output_of(loop, command2, { pass_fds = { w, w, 1 }, close_fds = false }))
        r:close()
        w:close()
      end)
    end)

    it("start_new_session and process_group", function()
      with_loop(function(loop)
        local ids = "sed 's/.*) //' /proc/$$/stat | cut -d' ' -f3,4; echo $$"
        local function same(options)
          local group, session, pid = output_of(loop, ids, options):match("(%d+) (%d+)\n(%d+)")
          return group == pid, session == pid
        end
        assert.same({ false, false }, { same() })
        assert.same({ true, true }, { same { start_new_session = true } })
        assert.same({ true, false }, { same { process_group = 0 } })
        local e = raises(aloop.PermissionError, "process_group", follow, loop, "true",
          { start_new_session = true, process_group = 0 })
        assert.equal("EPERM", e.code)
      end)
    end)

    it("umask", function()
      with_loop(function(loop)
        assert.equal("0027\n", output_of(loop, "umask", { umask = tonumber("27", 8) }))
      end)
    end)

    it("user, group and extra_groups", function()
      if not is_root() then
        pending("needs root")
        return
      end
      with_loop(function(loop)
        local ids = "id -u; id -g; id -G"
        assert.equal("65534\n", output_of(loop, "id -u", { user = "nobody" }))
        local numbers = { user = 1234, group = 4321, extra_groups = { 1, 5 } }
        assert.equal("1234\n4321\n4321 1 5\n", output_of(loop, ids, numbers))
        assert.equal("0\n", output_of(loop, "id -G", { extra_groups = {} }))
        assert.matches("^0\n1\n", output_of(loop, ids, { group = "daemon" }))
        -- A child that may not do it says so.
        local script = [[
          local aloop = require "aloop"
          for _, name in ipairs { "user", "group" } do
            print(select(2, pcall(aloop.create_subprocess_exec, "true", { [name] = 0 })))
          end
          print(select(2, pcall(aloop.create_subprocess_exec, "true", { extra_groups = { 0 } })))
        ]]
        local path, _ <close> = temporary_file(script)
        os.execute("chmod 644 " .. path)
        local interpreter, _ <close> = temporary_file(helper.read_file(helper.aloop))
        os.execute("chmod 755 " .. interpreter)
        assert.equal("PermissionError: Operation not permitted: user\nPermissionError: Operation not permitted: group\n"
          .. "PermissionError: Operation not permitted: extra_groups\n",
          output_of(loop, { interpreter, path }, { user = 65534, group = 65534, stderr = SP.STDOUT }))
      end)
    end)

    -- Signals that we handle, ignore or block.
    it("restore_signals; and clean handlers and mask in any case", function()
      with_loop(function(loop)
        loop:add_signal_handler("SIGUSR1", print)
        local status = output_of(loop, { "cat", "/proc/self/status" })
        loop:remove_signal_handler("SIGUSR1")
        for _, name in ipairs { "SigBlk", "SigCgt" } do
          assert.equal("0000000000000000", status:match(name .. ":%s+(%x+)"))
        end
        -- SIGHUP (1) and SIGXFSZ (25) are ignored by whoever started us.
        local out = helper.output_of([[
          local aloop = require "aloop"
          local function ignored(restore)
            local p = aloop.create_subprocess_exec("grep", "SigIgn", "/proc/self/status",
              { stdout = aloop.subprocess.PIPE, restore_signals = restore })
            return tonumber((p:communicate():match("(%x+)%s*$")), 16)
          end
          for _, restore in ipairs { true, false } do
            local mask = ignored(restore)
            local function has(n) return mask >> (n - 1) & 1 end
            print(has(1), has(13), has(25))
          end
        ]], { before = "trap '' HUP XFSZ" })
        assert.equal("1\t0\t0\n1\t0\t1\n", out)
      end)
    end)
  end)
end)
