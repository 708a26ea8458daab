-- subprocess_exec and subprocess_shell: children, their pipes, and what a SubprocessProtocol is told in which order.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local subprocesses = require "spec.support.subprocesses"

local raises, type_error = helper.raises, helper.type_error
local follow, run, Follower = subprocesses.follow, subprocesses.run, subprocesses.Follower
local SP = aloop.subprocess

local function index_of(list, value)
  for i, v in ipairs(list) do
    if v == value then return i end
  end
  return nil
end

helper.each_loop(function(_, new_loop)
  local function with_loop(body, options) subprocesses.with_loop(new_loop, body, options) end

  describe("subprocess_exec", function()
    -- row: subprocess_exec, subprocess_exec.args, subprocess_exec.protocol_factory, subprocess_exec.returns
    -- row: SubprocessTransport.get_pid, SubprocessTransport.get_pipe_transport, SubprocessTransport.get_returncode
    -- row: subprocess.windows_default
    it("starts a program and tells its protocol what becomes of it", function()
      with_loop(function(loop)
        local made
        local transport, protocol = loop:subprocess_exec(function()
          made = Follower(loop)
          return made
        end, "/bin/sh", "-c", 'echo "$0|$1"; echo $$ >&2', "a b", "*")
        assert.is_true(rawequal(made, protocol))
        assert.is_true(rawequal(transport, protocol.transport))
        assert.is_true(rawequal(protocol, transport:get_protocol()))
        assert.is_true(aloop.isinstance(transport, aloop.SubprocessTransport))
        assert.is_true(aloop.isinstance(transport, aloop.BaseTransport))
        assert.same({ "made" }, { protocol.events[1] })
        assert.is_true(math.type(transport:get_pid()) == "integer" and transport:get_pid() > 0)
        assert.is_true(aloop.isinstance(transport:get_pipe_transport(0), aloop.WriteTransport))
        assert.is_true(aloop.isinstance(transport:get_pipe_transport(1), aloop.ReadTransport))
        assert.is_true(aloop.isinstance(transport:get_pipe_transport(2), aloop.ReadTransport))
        assert.is_nil(transport:get_pipe_transport(5))
        assert.is_nil(transport:get_pipe_transport(-1))
        assert.equal(0, protocol:wait_end())
        assert.equal("a b|*\n", protocol.out[1])
        assert.equal(transport:get_pid() .. "\n", protocol.out[2])
        assert.is_false(transport:is_closing())
        transport:close()
        assert.is_true(transport:is_closing())
        assert.equal(("<SubprocessTransport closed pid=%d returncode=0>"):format(transport:get_pid()),
          tostring(transport))
      end)
    end)

    it("takes the program and its arguments as an array, too", function()
      with_loop(function(loop)
        assert.equal("a b\n", run(loop, { "echo", "a b" }).out[1])
        assert.equal("1 2.5\n", run(loop, { "echo", 1, 2.5 }, {}).out[1])
        local transport, protocol = loop:subprocess_exec(function() return Follower(loop) end, "echo", 7, nil)
        protocol:wait_lost()
        transport:close()
        assert.equal("7\n", protocol.out[1])
      end)
    end)

    -- row: subprocess.event_order, subprocess.pending_before_made
    -- row: SubprocessProtocol.pipe_data_received, SubprocessProtocol.pipe_connection_lost
    -- row: SubprocessProtocol.process_exited
    it("calls connection_made first, connection_lost last, everything else once", function()
      with_loop(function(loop)
        for round = 1, 25 do
          local command = round % 2 == 0 and "echo out; echo err >&2" or "exit 3"
          local p = run(loop, command)
          local events = p.events
          assert.equal("made", events[1])
          assert.equal("lost", events[#events])
          for _, event in ipairs { "exited", "lost 0", "lost 1", "lost 2" } do
            assert.equal(1, p:count(event), event)
          end
          assert.equal(round % 2 == 0 and 0 or 3, p.transport:get_returncode())
          if round % 2 == 0 then
            assert.same({ "out\n", "err\n" }, p.out)
            assert.is_true(index_of(events, "data 1") < index_of(events, "lost 1"))
          end
        end
      end)
    end)

    -- row: subprocess.bytes_only, subprocess_exec.stdin
    it("moves bytes as they are, both ways", function()
      with_loop(function(loop)
        local all = {}
        for i = 0, 255 do all[i + 1] = string.char(i) end
        local data = table.concat(all):rep(2000)
        local p, transport = follow(loop, { "cat" })
        local stdin = transport:get_pipe_transport(0)
        assert.is_true(stdin:can_write_eof())
        stdin:write(data)
        stdin:write_eof()
        assert.equal(0, p:wait_end())
        assert.is_true(p.out[1] == data)
        assert.is_true(p:count("pause") > 0 and p:count("resume") == p:count("pause"))
        transport:close()
      end)
    end)

    -- row: subprocess.exit_status, SubprocessTransport.kill, SubprocessTransport.send_signal
    -- row: SubprocessTransport.terminate
    it("sends signals, and tells how a child ended", function()
      with_loop(function(loop)
        local function ends_with(expected, f, ...)
          local p, transport = follow(loop, "trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.01; done")
          p:wait_for("data 1")
          assert.is_nil(transport:get_returncode())
          f(transport, ...)
          assert.equal(expected, p:wait_end())
          assert.equal(expected, transport:get_returncode())
          for _, again in ipairs { "kill", "terminate" } do
            raises(aloop.ProcessLookupError, "No such process", transport[again], transport)
          end
          raises(aloop.ProcessLookupError, nil, transport.send_signal, transport, 0)
          transport:close()
          return p
        end
        ends_with(-9, function(t) t:kill() end)
        ends_with(-15, function(t) t:terminate() end)
        assert.equal("ready\nusr1\n", ends_with(5, function(t) t:send_signal("SIGUSR1") end).out[1])
        ends_with(-1, function(t) t:send_signal(aloop.signal.SIGHUP) end)
        assert.equal(7, run(loop, "exit 7").transport:get_returncode())
      end)
    end)

    it("refuses what is no signal", function()
      with_loop(function(loop)
        local p, transport = follow(loop, { "cat" })
        raises(aloop.ValueError, "unknown signal 'SIGNOSUCH'", transport.send_signal, transport, "SIGNOSUCH")
        raises(aloop.ValueError, "invalid signal number 12345", transport.send_signal, transport, 12345)
        type_error("bad argument #1 to 'send_signal' (signal number or name expected, got table)",
          transport.send_signal, transport, {})
        transport:send_signal(0)
        transport:close()
        assert.equal(-9, p:wait_end())
      end)
    end)

    -- row: SubprocessTransport.close
    it("is closed with its pipes and its child", function()
      with_loop(function(loop)
        local p, transport = follow(loop, { "cat" })
        transport:close()
        transport:close()
        assert.is_true(transport:is_closing())
        assert.is_true(transport:get_pipe_transport(1):is_closing())
        assert.equal(-9, p:wait_end())
        local done
        done, transport = follow(loop, "exit 0")
        done:wait_lost()
        transport:close()
        assert.equal(0, transport:get_returncode())
        do
          local t <close> = select(2, follow(loop, { "cat" }))
          p = t:get_protocol()
        end
        assert.equal(-9, p:wait_end())
      end)
    end)

    -- row: BaseTransport.get_extra_info
    it("tells what it knows of its child, and its pipes of their descriptors", function()
      with_loop(function(loop)
        local p, transport = follow(loop, { "cat" })
        local info = transport:get_extra_info("subprocess")
        assert.same({ pid = transport:get_pid() }, info)
        assert.equal("none", transport:get_extra_info("peername", "none"))
        assert.is_nil(transport:get_extra_info("pipe"))
        assert.is_true(math.type(transport:get_pipe_transport(1):get_extra_info("pipe")) == "integer")
        assert.equal(("<SubprocessTransport pid=%d running>"):format(info.pid), tostring(transport))
        transport:get_pipe_transport(0):close()
        p:wait_lost()
        assert.is_true(rawequal(info, transport:get_extra_info("subprocess")))
        assert.equal(0, info.returncode)
        transport:close()
      end)
    end)

    it("may get another protocol", function()
      with_loop(function(loop)
        local first, transport = follow(loop, { "cat" })
        local second = Follower(loop)
        second.transport = transport
        transport:set_protocol(second)
        assert.is_true(rawequal(second, transport:get_protocol()))
        transport:get_pipe_transport(0):write("x")
        second:wait_for("data 1")
        transport:close()
        second:wait_lost()
        assert.same({ "made" }, first.events)
        type_error("bad argument #1 to 'set_protocol' (protocol expected, got number)", transport.set_protocol,
          transport, 1)
      end)
    end)

    it("does without the methods that a protocol lacks", function()
      with_loop(function(loop)
        local ended = loop:create_future()
        local transport = loop:subprocess_exec(function()
          return { connection_lost = function() ended:set_result() end, pipe_data_received = false }
        end, "echo", "x")
        ended:await()
        assert.equal(0, transport:get_returncode())
        transport:close()
      end)
    end)

    it("lets a pipe be paused", function()
      with_loop(function(loop)
        local p, transport = follow(loop, "echo one; read x; echo two")
        p:wait_for("data 1")
        local stdout = transport:get_pipe_transport(1)
        stdout:pause_reading()
        transport:get_pipe_transport(0):write("\n")
        p:wait_for("exited")
        assert.equal("one\n", p.out[1])
        assert.equal(0, p:count("lost 1"))
        stdout:resume_reading()
        assert.equal(0, p:wait_end())
        assert.equal("one\ntwo\n", p.out[1])
        transport:close()
      end)
    end)

    it("reports what a method of the protocol raises, and goes on", function()
      helper.with_loop(new_loop, function(loop, trial)
        local ended = loop:create_future()
        local names = { "connection_made", "pipe_data_received", "pipe_connection_lost", "process_exited" }
        local protocol = {}
        for _, name in ipairs(names) do protocol[name] = function() error(aloop.ValueError(name)) end end
        function protocol.connection_lost()
          ended:set_result()
          error("connection_lost", 0)
        end
        local transport = loop:subprocess_exec(function() return protocol end, "echo", "x",
          { stdin = SP.DEVNULL, stderr = SP.INHERIT })
        ended:await()
        local seen = {}
        for _ = 1, 5 do
          local context = trial:take_error()
          assert.is_true(rawequal(transport, context.transport))
          assert.is_true(rawequal(protocol, context.protocol))
          local name = context.message:match("^Exception in callback protocol%.([%a_]+)%(%)$")
          assert.is_true(tostring(context.exception):find(name, 1, true) ~= nil)
          seen[name] = true
        end
        for _, name in ipairs(names) do assert.is_true(seen[name], name) end
        assert.is_true(seen.connection_lost)
        transport:close()
      end)
    end)

    it("runs the protocol's methods in the context of who started the child", function()
      with_loop(function(loop)
        local var = aloop.ContextVar("v", { default = "outside" })
        local seen = {}
        local p
        local context = aloop.copy_context()
        context:run(function()
          var:set("inside")
          local protocol = Follower(loop)
          for _, name in ipairs { "connection_made", "pipe_data_received", "process_exited", "connection_lost" } do
            local method = Follower[name]
            protocol[name] = function(...)
              seen[#seen + 1] = var:get()
              var:set("changed")
              return method(...)
            end
          end
          p = protocol
          loop:subprocess_exec(function() return protocol end, "echo", "x")
        end)
        p:wait_lost()
        p.transport:close()
        assert.same({ "inside", "inside", "inside", "inside" }, seen)
        assert.equal("outside", var:get())
      end)
    end)

    -- row: subprocess.reaping
    it("reaps many children at once, each with its own exit", function()
      with_loop(function(loop)
        local followers = {}
        for i = 1, 50 do followers[i] = follow(loop, { "sh", "-c", "exit " .. i }, { stdin = SP.DEVNULL }) end
        for i, p in ipairs(followers) do
          assert.equal(i, p:wait_end())
          p.transport:close()
        end
      end)
    end)


    it("leaves SIGCHLD to others", function()
      with_loop(function(loop)
        local seen = 0
        loop:add_signal_handler("SIGCHLD", function() seen = seen + 1 end)
        for _ = 1, 3 do assert.equal(2, run(loop, "exit 2").transport:get_returncode()) end
        helper.turns(2)
        loop:remove_signal_handler("SIGCHLD")
        assert.is_true(seen >= 1)
      end)
    end)

    it("may not be called where nothing can wait", function()
      helper.drive(new_loop, function(loop)
        raises(aloop.RuntimeError, "subprocess_exec", loop.subprocess_exec, loop, function() return {} end, "true")
        raises(aloop.RuntimeError, "subprocess_shell", loop.subprocess_shell, loop, function() return {} end, "true")
      end)
    end)
  end)

  describe("subprocess_shell", function()
    -- row: subprocess_shell, subprocess_shell.quoting
    it("runs a command of the shell", function()
      with_loop(function(loop)
        assert.equal("3\n", run(loop, "echo $((1+2))").out[1])
        local nasty = "a'b \"c\" $HOME `x` \\ *"
        assert.equal(nasty .. "\n", run(loop, "printf '%s\\n' " .. aloop.shlex_quote(nasty)).out[1])
      end)
    end)

    -- row: subprocess_shell.cmd, subprocess_shell.stdio
    it("takes a string only, and the same options", function()
      with_loop(function(loop)
        local function factory() return Follower(loop) end
        for _, bad in ipairs { {}, 5, true } do
          raises(aloop.ValueError, "cmd must be a string", loop.subprocess_shell, loop, factory, bad)
        end
        raises(aloop.ValueError, "shell must be true", loop.subprocess_shell, loop, factory, "true", { shell = false })
        local p = run(loop, "cat; echo err >&2", { stdin = SP.DEVNULL, stderr = SP.STDOUT, shell = true })
        assert.equal("err\n", p.out[1])
        assert.is_nil(p.transport:get_pipe_transport(0))
        assert.is_nil(p.transport:get_pipe_transport(2))
        assert.equal("/bin/bash\n", run(loop, "echo $0", { executable = "/bin/bash" }).out[1])
      end)
    end)
  end)

  describe("a loop with children", function()
    it("kills and reaps those that run when it closes, and says so", function()
      local pids = {}
      helper.drive(new_loop, function(loop, trial)
        loop:run_until_complete(function()
          pids[1] = select(2, follow(loop, { "sleep", "30" })):get_pid()
          local no_pipes = { stdin = false, stdout = false, stderr = false }
          pids[2] = select(2, follow(loop, { "sleep", "30" }, no_pipes)):get_pid()
          local closed = select(2, follow(loop, { "sleep", "30" }))
          closed:close()
          pids[3] = closed:get_pid()
        end)
        loop:close()
        for _, pid in ipairs(pids) do assert.is_false(subprocesses.runs(pid)) end
        for _ = 1, 2 do
          local message, level, category = trial:take_log("unclosed transport <SubprocessTransport")
          assert.matches("running>", message)
          assert.equal("warning", level)
          assert.equal("ResourceWarning", category)
        end
        assert.same({}, subprocesses.children())
      end, { open = true })
    end)

    it("has a transport that nobody keeps reported and killed at its end only", function()
      helper.drive(new_loop, function(loop, trial)
        local pid
        loop:run_until_complete(function()
          pid = select(2, follow(loop, { "sleep", "30" })):get_pid()
          for _ = 1, 3 do
            collectgarbage()
            aloop.sleep(0)
          end
        end)
        assert.is_true(subprocesses.runs(pid))
        loop:close()
        assert.is_false(subprocesses.runs(pid))
        trial:take_log("unclosed transport")
      end, { open = true })
    end)
  end)

  describe("in debug mode", function()
    -- row: debug.log_levels, debug.not_leak_args
    it("logs the start and the end of a child, without its arguments", function()
      helper.with_loop(new_loop, function(loop, trial)
        loop:set_debug(true)
        local p, transport = follow(loop, { "echo", "secret" })
        p:wait_lost()
        local pid = transport:get_pid()
        transport:close()
        local _, level = trial:take_log("^process 'echo' created: pid " .. pid .. "$")
        assert.equal("debug", level)
        _, level = trial:take_log("^process " .. pid .. " exited with return code 0$")
        assert.equal("info", level)
        p, transport = follow(loop, { "sleep", "30" })
        transport:close()
        _, level = trial:take_log("Close running child process: kill " .. transport:get_pid())
        assert.equal("warning", level)
        p:wait_lost()
        for _, line in ipairs(trial.logs) do assert.is_nil(line.message:find("secret", 1, true)) end
        trial.logs = {}
      end)
    end)
  end)
end)
