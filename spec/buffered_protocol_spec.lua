-- Protocols that give their own memory: get_buffer and buffer_updated.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

-- A buffered protocol over the recorder: what arrives in its buffer is recorded as data.
local function buffered(loop, size, options)
  local protocol = helper.Recorder(loop, options)
  local buffer = aloop.buffer(size)
  protocol.hints = {}
  protocol.get_buffer = function(self, hint)
    self.hints[#self.hints + 1] = hint
    return buffer
  end
  protocol.buffer_updated = function(self, n) helper.Recorder.data_received(self, buffer:sub(1, n)) end
  protocol.data_received = function() error("data_received of a buffered protocol") end
  return protocol
end

helper.each_loop(function(_, new_loop)
  local function over(make_protocol, body)
    helper.with_loop(new_loop, function(loop, trial)
      local protocol = make_protocol(loop)
      local transport, _, sock = helper.over_socketpair(loop, protocol)
      body(protocol, sock, loop, trial, transport)
      transport:abort()
      sock:close()
      for _ = 1, 5 do aloop.sleep(0) end
    end)
  end

  describe("a buffered protocol", function()
    -- row: BufferedProtocol.get_buffer, BufferedProtocol.buffer_updated
    it("gets its bytes in its own buffer, and how many they are", function()
      for _, size in ipairs { 1, 7, 4096, 300000 } do
        over(function(loop) return buffered(loop, size) end, function(protocol, sock, loop)
          local data = {}
          for i = 1, size < 10 and 300 or 60000 do data[i] = ("%d,"):format(i) end
          data = table.concat(data)
          local sender = loop:create_task(function() helper.send_all(loop, sock, data) end)
          assert.is_true(protocol:wait_data(#data) == data)
          sender:await()
          for _, n in ipairs(protocol.chunks) do assert.is_true(n >= 1 and n <= size) end
          for _, hint in ipairs(protocol.hints) do assert.is_true(hint == -1 or hint > 0) end
        end)
      end
    end)

    it("may give the first free position with the buffer", function() -- row: BufferedProtocol.get_buffer
      local buffer, used = aloop.buffer(100), 0
      over(function(loop)
        local protocol = helper.Recorder(loop)
        protocol.get_buffer = function() return buffer, used + 1 end
        protocol.buffer_updated = function(self, n)
          used = used + n
          self:note("data")
        end
        return protocol
      end, function(protocol, sock)
        for i = 1, 10 do
          sock:send(("part%d;"):format(i))
          protocol:wait(function() return buffer:sub(1, used):find(("part%d;"):format(i), 1, true) end)
        end
        assert.equal("part1;part2;", buffer:sub(1, 12))
      end)
    end)

    it("sees the end of data", function() -- row: BufferedProtocol.eof_received
      for _, keep in ipairs { true, false } do
        over(function(loop) return buffered(loop, 10, { keep_open = keep }) end, function(protocol, sock, _, _, tr)
          sock:send("x")
          sock:shutdown(aloop.socket.SHUT_WR)
          protocol:wait_for("eof")
          for _ = 1, 3 do aloop.sleep(0) end
          assert.equal(not keep, tr:is_closing())
          if not keep then assert.is_nil(protocol:wait_lost()) end
          assert.equal("x", protocol:text())
        end)
      end
    end)

    it("can pause and resume", function()
      over(function(loop) return buffered(loop, 16) end, function(protocol, sock, _, _, transport)
        transport:pause_reading()
        sock:send("paused")
        for _ = 1, 5 do aloop.sleep(0) end
        assert.equal("", protocol:text())
        transport:resume_reading()
        assert.equal("paused", protocol:wait_data(6))
      end)
    end)

    local function fails(name, make, pattern, message)
      it(name, function()
        helper.with_loop(new_loop, function(loop, trial)
          local protocol = helper.Recorder(loop)
          make(protocol)
          local _, _, sock = helper.over_socketpair(loop, protocol)
          sock:send("data")
          local err = protocol:wait_lost()
          assert.is_not_nil(err)
          local context = trial:take_error()
          assert.matches(message, context.message, 1, true)
          assert.matches(pattern, tostring(context.exception))
          assert.equal(protocol, context.protocol)
          sock:close()
        end)
      end)
    end

    -- row: BufferedProtocol.get_buffer
    fails("that gives an empty buffer loses the connection", function(protocol)
      protocol.get_buffer = function() return aloop.buffer(0) end
      protocol.buffer_updated = function() end
    end, "empty", "get_buffer")

    fails("that gives no buffer loses the connection", function(protocol)
      protocol.get_buffer = function() return 42 end
      protocol.buffer_updated = function() end
    end, "buffer", "get_buffer")

    fails("that gives a position behind the buffer's end loses the connection", function(protocol)
      local buffer = aloop.buffer(10)
      protocol.get_buffer = function() return buffer, 11 end
      protocol.buffer_updated = function() end
    end, ".", "get_buffer")

    -- row: transport.fatal_error_protocol
    fails("whose get_buffer fails loses the connection", function(protocol)
      protocol.get_buffer = function() error("get fails") end
      protocol.buffer_updated = function() end
    end, "get fails", "get_buffer")

    fails("whose buffer_updated fails loses the connection", function(protocol)
      local buffer = aloop.buffer(10)
      protocol.get_buffer = function() return buffer end
      protocol.buffer_updated = function() error("update fails") end
    end, "update fails", "buffer_updated")

    it("made with BufferedProtocol:extend is one", function()
      local Mine = aloop.BufferedProtocol:extend("Mine")
      local got
      function Mine:init() self.buffer = aloop.buffer(64) end
      function Mine:get_buffer() return self.buffer end
      function Mine:buffer_updated(n) got = self.buffer:sub(1, n) end
      over(function() return Mine() end, function(protocol, sock, _, trial)
        assert.is_true(aloop.isinstance(protocol, aloop.BufferedProtocol))
        sock:send("hello")
        trial:wait_until(function() return got end)
        assert.equal("hello", got)
      end)
    end)

    it("may be closed inside buffer_updated", function()
      over(function(loop)
        local protocol = buffered(loop, 10)
        local updated = protocol.buffer_updated
        protocol.buffer_updated = function(self, n)
          updated(self, n)
          self.transport:close()
        end
        return protocol
      end, function(protocol, sock)
        sock:send("x")
        assert.is_nil(protocol:wait_lost())
        assert.equal("x", protocol:text())
      end)
    end)
  end)
end)
