-- Water marks: pause_writing and resume_writing.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

helper.each_loop(function(_, new_loop)
  local function unix(body, methods)
    helper.with_loop(new_loop, function(loop, trial)
      local protocol = helper.Recorder(loop)
      for name, method in pairs(methods or {}) do protocol[name] = method end
      local transport, _, sock = helper.over_socketpair(loop, protocol)
      body(transport, protocol, sock, loop, trial)
      transport:abort()
      sock:close()
      protocol:wait_lost()
    end)
  end

  -- A peer that takes nothing more: returns what is buffered. Limits are out of the way.
  local function fill(transport)
    transport:set_write_buffer_limits { high = 2 ^ 40 // 1 | 0 }
    helper.fill(transport)
    return transport:get_write_buffer_size()
  end

  -- The peer reads until cond holds. Its last bytes may be here before the sender hears that they left.
  local function read_until(loop, sock, protocol, cond)
    local received = 0
    loop:add_reader(sock, function()
      local ok, data = pcall(sock.recv, sock, 65536)
      if ok and data then received = received + #data end
    end)
    protocol:wait(cond)
    loop:remove_reader(sock)
    return received
  end

  local function resumed(protocol) return protocol:count("resume") > 0 end

  it("the limits are 16 and 64 KiB, low first", function() -- row: WriteTransport.get_write_buffer_limits; point: 24
    unix(function(transport)
      assert.same({ 16384, 65536 }, { transport:get_write_buffer_limits() })
    end)
  end)

  it("set_write_buffer_limits derives the one from the other", function() -- row: WriteTransport.set_write_buffer_limits
    unix(function(transport)
      local function limits(options)
        transport:set_write_buffer_limits(options)
        return { transport:get_write_buffer_limits() }
      end
      assert.same({ 10, 40 }, limits { low = 10 })
      assert.same({ 2, 10 }, limits { high = 10 })
      assert.same({ 0, 0 }, limits { high = 0 })
      assert.same({ 5, 7 }, limits { high = 7, low = 5 })
      assert.same({ 16384, 65536 }, limits {})
      assert.same({ 16384, 65536 }, limits())
      assert.same({ math.maxinteger, math.maxinteger }, limits { low = math.maxinteger })
      assert.same({ 16384, 65536 }, limits {})
      for _, bad in ipairs { { high = 1, low = 2 }, { high = -1 }, { low = -1 }, { high = 5, low = -5 } } do
        raises(aloop.ValueError, nil, transport.set_write_buffer_limits, transport, bad)
      end
      assert.same({ 16384, 65536 }, { transport:get_write_buffer_limits() })
      type_error("unknown option 'hihg' to 'set_write_buffer_limits'", transport.set_write_buffer_limits, transport,
        { hihg = 1 })
      type_error("bad option 'high' to 'set_write_buffer_limits'", transport.set_write_buffer_limits, transport,
        { high = "many" })
    end)
  end)

  -- row: flow.pause_writing_threshold, flow.pause_sync, BaseProtocol.pause_writing; point: 23
  it("pause_writing comes inside write, once, when the size is above high", function()
    unix(function(transport, protocol)
      local size = fill(transport)
      transport:set_write_buffer_limits { high = size + 100, low = size + 50 }
      assert.equal(0, protocol:count("pause"))
      transport:write(("x"):rep(100))
      assert.equal(0, protocol:count("pause"))
      transport:write("x")
      assert.equal(1, protocol:count("pause"))
      transport:write(("x"):rep(1000))
      assert.equal(1, protocol:count("pause"))
      assert.equal(0, protocol:count("resume"))
    end)
  end)

  -- row: flow.pause_writing_threshold, BaseProtocol.resume_writing; point: 23
  it("resume_writing comes once, when the size is at or below low", function()
    local size_at_resume
    unix(function(transport, protocol, sock, loop)
      local size = fill(transport)
      transport:set_write_buffer_limits { high = size + 1000, low = 500 }
      transport:write(("x"):rep(2000))
      assert.equal(1, protocol:count("pause"))
      read_until(loop, sock, protocol, resumed)
      assert.is_true(size_at_resume <= 500)
      assert.equal(1, protocol:count("pause"))
      assert.equal(1, protocol:count("resume"))
    end, {
      resume_writing = function(self)
        size_at_resume = self.transport:get_write_buffer_size()
        helper.Recorder.resume_writing(self)
      end,
    })
  end)

  it("changed limits may pause at once", function() -- row: WriteTransport.set_write_buffer_limits; point: 23
    unix(function(transport, protocol)
      local size = fill(transport)
      assert.equal(0, protocol:count("pause"))
      transport:set_write_buffer_limits { high = size - 1, low = 0 }
      assert.equal(1, protocol:count("pause"))
    end)
  end)

  it("a high mark of 0 pauses with the first byte buffered and resumes when all is sent", function()
    unix(function(transport, protocol, sock, loop)
      transport:set_write_buffer_limits { high = 0 }
      helper.fill(transport)
      assert.equal(1, protocol:count("pause"))
      read_until(loop, sock, protocol, resumed)
      assert.equal(0, transport:get_write_buffer_size())
    end)
  end)

  it("pause and resume alternate over many rounds", function()
    unix(function(transport, protocol, sock, loop)
      local sent = 0
      for _ = 1, 5 do
        while not protocol.paused do
          transport:write(("x"):rep(30000))
          sent = sent + 30000
        end
        sent = sent - read_until(loop, sock, protocol, function() return not protocol.paused end)
      end
      local pauses, resumes = protocol:count("pause"), protocol:count("resume")
      assert.equal(5, pauses)
      assert.equal(5, resumes)
      assert.is_true(sent >= 0)
    end)
  end)

  it("writing inside resume_writing is legal", function() -- bug: 25
    unix(function(transport, protocol, sock, loop)
      helper.fill(transport)
      while not protocol.paused do transport:write(("x"):rep(10000)) end
      read_until(loop, sock, protocol, resumed)
      assert.is_true(protocol.wrote)
    end, {
      resume_writing = function(self)
        helper.Recorder.resume_writing(self)
        self.wrote = true
        self.transport:write(("y"):rep(10))
      end,
    })
  end)

  it("closing inside pause_writing is legal", function()
    unix(function(transport, protocol, sock, loop)
      while not transport:is_closing() do transport:write(("x"):rep(60000)) end
      helper.recv_all(loop, sock)
      assert.is_nil(protocol:wait_lost())
    end, {
      pause_writing = function(self)
        helper.Recorder.pause_writing(self)
        self.transport:close()
      end,
    })
  end)

  it("pause_writing is no place to wait in, though a task wrote", function()
    local seen
    unix(function(transport)
      while not seen do transport:write(("x"):rep(60000)) end
      assert.same({ aloop.current_task() }, { seen.task })
      for _, text in ipairs { "sleep", "wrapped sleep" } do
        assert.matches("'sleep' waits, and there is no task to suspend here", tostring(seen[text]))
      end
      assert.matches("'timeout' should be used inside a task", tostring(seen.timeout))
    end, {
      pause_writing = function()
        seen = { task = aloop.current_task() }
        seen.sleep = select(2, pcall(aloop.sleep, 0))
        seen["wrapped sleep"] = select(2, pcall(coroutine.wrap(function() aloop.sleep(0) end)))
        seen.timeout = select(2, pcall(aloop.timeout, 1))
      end,
    })
  end)

  -- row: flow.callback_error
  it("an error in pause_writing or resume_writing is reported and writing goes on", function()
    unix(function(transport, protocol, sock, loop, trial)
      local n = helper.fill(transport)
      while #trial.errors == 0 do
        transport:write(("x"):rep(10000))
        n = n + 10000
      end
      local context = trial:take_error()
      assert.matches("pause_writing", context.message)
      assert.matches("pause fails", context.exception)
      assert.equal(transport, context.transport)
      assert.equal(protocol, context.protocol)
      assert.equal(n, #helper.recv_exactly(loop, sock, n))
      while #trial.errors == 0 do aloop.sleep(0.001) end
      context = trial:take_error()
      assert.matches("resume_writing", context.message)
      assert.matches("resume fails", context.exception)
      assert.is_false(transport:is_closing())
    end, {
      pause_writing = function() error("pause fails") end,
      resume_writing = function() error("resume fails") end,
    })
  end)
end)
