-- The writing side of stream transports.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

helper.each_loop(function(_, new_loop)
  local unix = helper.over(new_loop, helper.over_socketpair, "abort")
  local tcp = helper.over(new_loop, helper.over_tcp, "abort")

  describe("write", function()
    it("returns at once and keeps what the peer doesn't take, in order", function() -- row: WriteTransport.write
      for _, make in ipairs { unix, tcp } do
        make(function(transport, _, sock, loop)
          local parts = {}
          repeat
            parts[#parts + 1] = ("%08d"):format(#parts):rep(1000)
            transport:write(parts[#parts])
          until #parts > 400 and transport:get_write_buffer_size() > 0
          local expected = table.concat(parts)
          assert.is_true(helper.recv_exactly(loop, sock, #expected) == expected)
          assert.equal(0, transport:get_write_buffer_size())
        end)
      end
    end)

    it("takes strings, parts of strings, and buffers", function() -- row: WriteTransport.write
      unix(function(transport, _, sock, loop)
        transport:write("abc")
        transport:write("0123456789", 3, 5)
        transport:write("0123456789", -2)
        local buffer = aloop.buffer(4)
        buffer:set(1, "WXYZ")
        transport:write(buffer)
        transport:write(buffer, 2, 3)
        buffer:set(1, "....")
        assert.equal("abc23489WXYZXY", helper.recv_exactly(loop, sock, 14))
      end)
    end)

    it("copies what it can't send of a buffer", function()
      unix(function(transport, _, sock, loop)
        local n = helper.fill(transport)
        local buffer = aloop.buffer(100000)
        buffer:set(1, ("a"):rep(100000))
        transport:write(buffer)
        buffer:set(1, ("b"):rep(100000))
        local text = helper.recv_exactly(loop, sock, n + 100000)
        assert.is_true(text:sub(n + 1) == ("a"):rep(100000))
      end)
    end)

    it("of nothing does nothing; of anything but bytes raises", function() -- row: WriteTransport.write_type
      unix(function(transport, _, sock)
        transport:write("")
        assert.equal(0, transport:get_write_buffer_size())
        type_error("bad argument #1 to 'write'", transport.write, transport, nil)
        type_error("bad argument #1 to 'write'", transport.write, transport, {})
        type_error("bad argument #1 to 'write'", transport.write, transport, true)
        raises(aloop.BlockingIOError, nil, sock.recv, sock, 1)
      end)
    end)

    it("sends at once when nothing waits", function() -- row: WriteTransport.write_immediate
      unix(function(transport, _, sock)
        transport:write("now")
        assert.equal(0, transport:get_write_buffer_size())
        assert.equal("now", sock:recv(100))
      end)
    end)

    it("after the connection is lost is dropped, with a warning from the fifth on", function()
      -- row: WriteTransport.write_after_lost
      unix(function(transport, protocol, _, _, trial)
        transport:close()
        protocol:wait_lost()
        for _ = 1, 7 do transport:write("lost") end
        for _ = 1, 3 do trial:take_log("socket%.send%(%) raised exception") end
        assert.is_false((pcall(trial.take_log, trial, "socket%.send")))
      end)
    end)

    it("inside connection_made is sent", function()
      helper.with_loop(new_loop, function(loop)
        local protocol = helper.Recorder(loop)
        protocol.connection_made = function(self, transport)
          helper.Recorder.connection_made(self, transport)
          transport:write("greeting")
        end
        local transport, _, sock = helper.over_socketpair(loop, protocol)
        assert.equal("greeting", helper.recv(loop, sock, 100))
        transport:close()
        protocol:wait_lost()
        sock:close()
      end)
    end)
  end)

  it("writelines writes a list in order", function() -- row: WriteTransport.writelines
    unix(function(transport, _, sock, loop)
      transport:writelines { "a", "b", "", "c" }
      transport:writelines {}
      assert.equal("abc", helper.recv_exactly(loop, sock, 3))
      local list, total = {}, 0
      for i = 1, 3000 do
        list[i] = ("%05d"):format(i):rep(100)
        total = total + 500
      end
      transport:writelines(list)
      assert.is_true(helper.recv_exactly(loop, sock, total) == table.concat(list))
      type_error("bad argument #1 to 'writelines'", transport.writelines, transport, 42)
      assert.is_false((pcall(transport.writelines, transport, { "a", {} })))
    end)
  end)

  describe("write_eof", function()
    -- row: WriteTransport.can_write_eof, WriteTransport.write_eof; bug: 12
    it("half-closes after what was written; reading goes on", function()
      for _, make in ipairs { unix, tcp } do
        make(function(transport, protocol, sock, loop)
          assert.is_true(transport:can_write_eof())
          local data = ("d"):rep(3000000)
          transport:write(data)
          transport:write_eof()
          transport:write_eof()
          assert.is_true(helper.recv_all(loop, sock) == data)
          sock:send("reply")
          assert.equal("reply", protocol:wait_data(5))
          assert.is_false(transport:is_closing())
        end)
      end
    end)

    it("makes a later write raise RuntimeError", function() -- row: WriteTransport.write_after_eof
      unix(function(transport)
        transport:write_eof()
        raises(aloop.RuntimeError, "write_eof", transport.write, transport, "x")
        raises(aloop.RuntimeError, "write_eof", transport.writelines, transport, { "x" })
      end)
    end)

    it("of a closing transport does nothing", function()
      unix(function(transport, protocol)
        transport:close()
        transport:write_eof()
        protocol:wait_lost()
        transport:write_eof()
      end)
    end)
  end)

  it("abort drops what is buffered and ends with connection_lost(nil)", function() -- row: WriteTransport.abort
    for _, make in ipairs { unix, tcp } do
      make(function(transport, protocol)
        helper.fill(transport)
        transport:abort()
        assert.is_nil(protocol.is_lost)
        assert.is_true(transport:is_closing())
        assert.is_nil(protocol:wait_lost())
        assert.equal(0, transport:get_write_buffer_size())
      end)
    end
  end)

  it("abort after close ends a flush that the peer doesn't take", function() -- row: WriteTransport.abort
    unix(function(transport, protocol)
      helper.fill(transport)
      transport:close()
      for _ = 1, 3 do aloop.sleep(0) end
      assert.is_nil(protocol.is_lost)
      transport:abort()
      assert.is_nil(protocol:wait_lost())
    end)
  end)

  -- row: WriteTransport.get_write_buffer_size
  it("get_write_buffer_size is 0 when idle and what is buffered else", function()
    unix(function(transport)
      assert.equal(0, transport:get_write_buffer_size())
      helper.fill(transport)
      local size = transport:get_write_buffer_size()
      assert.is_true(size > 0)
      transport:write(("y"):rep(1000))
      assert.equal(size + 1000, transport:get_write_buffer_size())
    end)
  end)
end)
