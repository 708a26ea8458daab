-- Stream transports, seen from their protocol and from the bare socket at the other end.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

helper.each_loop(function(_, new_loop)
  local unix = helper.over(new_loop, helper.over_socketpair, "close")
  local tcp = helper.over(new_loop, helper.over_tcp, "close")

  describe("close", function()
    it("flushes what was written, then connection_lost(nil)", function() -- row: BaseTransport.close; point: 22; bug: 12
      for _, make in ipairs { unix, tcp } do
        make(function(transport, protocol, sock, loop)
          local data = ("0123456789abcdef"):rep(65536)
          transport:write(data)
          transport:close()
          assert.is_true(transport:is_closing())
          assert.is_nil(protocol.is_lost)
          assert.is_true(helper.recv_all(loop, sock) == data)
          assert.is_nil(protocol:wait_lost())
        end)
      end
    end)

    it("stops reading at once, also while it still writes", function() -- row: BaseTransport.close; point: 22
      unix(function(transport, protocol, sock, loop)
        local n = helper.fill(transport)
        sock:send("must not arrive")
        transport:close()
        assert.is_false(transport:is_reading())
        aloop.sleep(0)
        aloop.sleep(0)
        assert.is_nil(protocol.is_lost)
        assert.equal(n, #helper.recv_exactly(loop, sock, n))
        protocol:wait_lost()
        assert.equal("", protocol:text())
        assert.equal(0, protocol:count("eof"))
      end)
    end)

    -- row: BaseTransport.close_idempotent; point: 21
    it("and abort, in any mix and number, bring one connection_lost", function()
      for _, calls in ipairs { "close close", "close abort", "abort close", "abort abort" } do
        unix(function(transport, protocol)
          for name in calls:gmatch("%a+") do transport[name](transport) end
          protocol:wait_lost()
          transport:close()
          transport:abort()
          aloop.sleep(0)
          aloop.sleep(0)
          assert.equal(1, protocol:count("lost"))
        end)
      end
    end)

    -- row: BaseTransport.close_async; point: 21
    it("calls connection_lost from a later turn, and closes the socket after it", function()
      unix(function(transport, protocol, sock)
        local socket = transport:get_extra_info("socket")
        local fd_in_lost
        protocol.connection_lost = function(self, err)
          fd_in_lost = socket:fileno()
          helper.Recorder.connection_lost(self, err)
        end
        transport:set_protocol(protocol)
        transport:close()
        assert.is_nil(protocol.is_lost)
        protocol:wait_lost()
        assert.is_true(fd_in_lost >= 0)
        aloop.sleep(0)
        assert.equal(-1, socket:fileno())
        assert.is_nil(sock:recv(1))
      end)
    end)

    it("is legal inside any callback", function() -- point: 21
      for _, method in ipairs { "connection_made", "data_received", "eof_received" } do
        helper.with_loop(new_loop, function(loop)
          local protocol = helper.Recorder(loop, { keep_open = true })
          protocol[method] = function(self, ...)
            local result = helper.Recorder[method](self, ...)
            self.transport:close()
            return result
          end
          local _, _, sock = helper.over_socketpair(loop, protocol)
          pcall(sock.send, sock, "data")
          pcall(sock.shutdown, sock, aloop.socket.SHUT_WR)
          protocol:wait_lost()
          assert.equal(1, protocol:count("lost"))
          sock:close()
        end)
      end
    end)

    it("at the end of a block is done by <close>", function()
      unix(function(transport, protocol)
        do
          local _ <close> = transport
        end
        assert.is_true(transport:is_closing())
        protocol:wait_lost()
      end)
    end)

    it("is_closing tells", function() -- row: BaseTransport.is_closing
      unix(function(transport, protocol)
        assert.is_false(transport:is_closing())
        transport:close()
        assert.is_true(transport:is_closing())
        protocol:wait_lost()
        assert.is_true(transport:is_closing())
      end)
    end)
  end)

  describe("get_extra_info", function()
    it("gives socket, sockname, peername, else the default", function() -- row: BaseTransport.get_extra_info
      tcp(function(transport, _, sock)
        local peername, sockname = transport:get_extra_info("peername"), transport:get_extra_info("sockname")
        assert.equal("127.0.0.1", sockname.host)
        assert.equal(sock:getsockname()[2], peername.port)
        assert.equal(sock:getpeername()[2], sockname[2])
        assert.equal("127.0.0.1:" .. peername[2], tostring(peername))
        assert.is_nil(transport:get_extra_info("nothing"))
        assert.equal("default", transport:get_extra_info("nothing", "default"))
        assert.is_nil(transport:get_extra_info("sslcontext"))
      end)
    end)

    it("names stay after the close", function() -- row: BaseTransport.get_extra_info_after_close
      tcp(function(transport, protocol)
        local peername, sockname = transport:get_extra_info("peername"), transport:get_extra_info("sockname")
        transport:close()
        protocol:wait_lost()
        aloop.sleep(0)
        assert.equal(tostring(peername), tostring(transport:get_extra_info("peername")))
        assert.equal(tostring(sockname), tostring(transport:get_extra_info("sockname")))
      end)
    end)

    it("the socket asks and sets options but doesn't read, write or close", function() -- row: TransportSocket
      tcp(function(transport)
        local socket = transport:get_extra_info("socket")
        local S = aloop.socket
        assert.is_true(aloop.isinstance(socket, aloop.TransportSocket))
        assert.is_true(socket:fileno() >= 0)
        assert.equal(S.AF_INET, socket.family)
        assert.equal(S.SOCK_STREAM, socket.type)
        assert.equal("127.0.0.1", socket:getsockname()[1])
        assert.equal("127.0.0.1", socket:getpeername()[1])
        socket:setsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE, 1)
        assert.is_true(socket:getsockopt(S.SOL_SOCKET, S.SO_KEEPALIVE) ~= 0)
        for _, name in ipairs { "close", "recv", "send", "recv_into", "accept", "connect", "bind", "listen" } do
          assert.is_nil(socket[name], name)
        end
        assert.is_false((pcall(function() socket:setblocking(true) end)))
        local copy = socket:dup()
        assert.are_not.equal(socket:fileno(), copy:fileno())
        copy:close()
      end)
    end)
  end)

  describe("the protocol of a transport", function()
    it("is told by get_protocol", function() -- row: BaseTransport.get_protocol
      unix(function(transport, protocol) assert.equal(protocol, transport:get_protocol()) end)
    end)

    it("can be exchanged: later events go to the new one, without connection_made", function()
      -- row: BaseTransport.set_protocol
      unix(function(transport, protocol, sock, loop)
        sock:send("one")
        protocol:wait_data(3)
        local second = helper.Recorder(loop)
        local made = false
        second.connection_made = function() made = true end
        second.transport = transport
        transport:set_protocol(second)
        assert.equal(second, transport:get_protocol())
        sock:send("two")
        assert.equal("two", second:wait_data(3))
        transport:close()
        second:wait_lost()
        assert.is_false(made)
        assert.equal("one", protocol:text())
        assert.is_nil(protocol.is_lost)
        protocol.is_lost = true
      end)
    end)

    it("may be a buffered one after a plain one, and back", function() -- row: BaseTransport.set_protocol
      unix(function(transport, protocol, sock, loop)
        local buffer = aloop.buffer(4)
        local got = {}
        local arrived = loop:create_future()
        transport:set_protocol {
          get_buffer = function() return buffer end,
          buffer_updated = function(_, n)
            got[#got + 1] = buffer:sub(1, n)
            if #table.concat(got) == 6 then arrived:set_result() end
          end,
        }
        sock:send("abcdef")
        arrived:await()
        assert.equal("abcdef", table.concat(got))
        transport:set_protocol(protocol)
        sock:send("plain")
        assert.equal("plain", protocol:wait_data(5))
      end)
    end)

    it("is looked at once: methods added later count after another set_protocol", function()
      unix(function(transport, former, sock, loop)
        former.is_lost = true -- it hears no more
        local protocol = {}
        transport:set_protocol(protocol)
        local got = loop:create_future()
        protocol.data_received = function(_, data) got:set_result(data) end
        transport:set_protocol(protocol)
        sock:send("x")
        assert.equal("x", got:await())
        local lost = loop:create_future()
        transport:set_protocol { connection_lost = function() lost:set_result() end }
        transport:close()
        lost:await()
      end)
    end)

    it("must be a table or object", function()
      unix(function(transport, protocol)
        type_error("bad argument #1 to 'set_protocol'", transport.set_protocol, transport, 42)
        type_error("bad argument #1 to 'set_protocol'", transport.set_protocol, transport, nil)
        assert.equal(protocol, transport:get_protocol())
      end)
    end)
  end)

  describe("reading", function()
    -- row: ReadTransport.is_reading, ReadTransport.pause_reading, ReadTransport.resume_reading
    it("can be paused and resumed, each twice, and loses nothing", function()
      unix(function(transport, protocol, sock, loop)
        assert.is_true(transport:is_reading())
        transport:pause_reading()
        transport:pause_reading()
        assert.is_false(transport:is_reading())
        sock:send("held")
        for _ = 1, 5 do aloop.sleep(0) end
        assert.equal("", protocol:text())
        transport:resume_reading()
        transport:resume_reading()
        assert.is_true(transport:is_reading())
        assert.equal("held", protocol:wait_data(4))
        -- What arrives around a pause stays in order.
        local total = 0
        for i = 1, 50 do
          local part = ("%04d"):format(i)
          sock:send(part)
          total = total + 4
          if i % 2 == 0 then transport:pause_reading() else transport:resume_reading() end
          if i % 3 == 0 then aloop.sleep(0) end
        end
        transport:resume_reading()
        local text = protocol:wait_data(4 + total)
        local expected = { "held" }
        for i = 1, 50 do expected[i + 1] = ("%04d"):format(i) end
        assert.equal(table.concat(expected), text)
        assert.is_not_nil(loop)
      end)
    end)

    it("a pause inside data_received holds for what has come already", function()
      unix(function(transport, protocol, sock)
        protocol.data_received = function(self, data)
          helper.Recorder.data_received(self, data)
          self.transport:pause_reading()
        end
        transport:set_protocol(protocol)
        helper.send_all(protocol.loop, sock, ("x"):rep(100000))
        protocol:wait_data(1)
        local n = #protocol.chunks
        for _ = 1, 5 do aloop.sleep(0) end
        assert.equal(n, #protocol.chunks)
        while protocol.received < 100000 do
          local before = #protocol.chunks
          transport:resume_reading()
          protocol:wait(function() return #protocol.chunks > before end)
          assert.equal(before + 1, #protocol.chunks)
        end
      end)
    end)

    -- row: ReadTransport.pause_in_made; point: 20
    it("paused in connection_made never starts until it is resumed", function()
      helper.with_loop(new_loop, function(loop)
        local protocol = helper.Recorder(loop)
        protocol.connection_made = function(self, transport)
          helper.Recorder.connection_made(self, transport)
          transport:pause_reading()
        end
        local a, b = aloop.socket.socketpair()
        b:send("early")
        local transport = loop:create_connection(helper.always(protocol), nil, nil, { sock = a })
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_false(transport:is_reading())
        assert.equal("", protocol:text())
        transport:resume_reading()
        assert.equal("early", protocol:wait_data(5))
        transport:close()
        protocol:wait_lost()
        b:close()
      end)
    end)

    it("of a closing transport is nothing to pause or resume", function() -- row: ReadTransport.pause_reading
      unix(function(transport, protocol)
        transport:close()
        transport:pause_reading()
        transport:resume_reading()
        assert.is_false(transport:is_reading())
        protocol:wait_lost()
        transport:pause_reading()
        transport:resume_reading()
      end)
    end)

    it("takes at most 256 KiB at once", function() -- row: transport.max_read
      tcp(function(_, protocol, sock, loop)
        local sender = loop:create_task(function() helper.send_all(loop, sock, ("x"):rep(2000000)) end)
        protocol:wait_data(2000000)
        sender:await()
        for _, n in ipairs(protocol.chunks) do assert.is_true(n > 0 and n <= 262144) end
      end)
    end)

    it("of single bytes comes through in order", function()
      unix(function(_, protocol, sock)
        for i = 1, 200 do
          sock:send(string.char(i % 256))
          if i % 7 == 0 then aloop.sleep(0) end
        end
        local text = protocol:wait_data(200)
        for i = 1, 200 do assert.equal(i % 256, text:byte(i)) end
      end)
    end)
  end)

  it("EIO and its kin: a peer that resets ends it with ConnectionResetError, unreported", function()
    -- row: transport.fatal_error_oserror; point: 26
    tcp(function(_, protocol, sock)
      helper.reset(sock)
      local err = protocol:wait_lost()
      assert.is_true(aloop.isinstance(err, aloop.ConnectionResetError))
      assert.equal("ECONNRESET", err.code)
    end)
  end)

  it("a reset in the middle of a write ends it with a ConnectionError", function() -- row: transport.fatal_error_oserror
    tcp(function(transport, protocol, sock)
      helper.fill(transport)
      helper.reset(sock)
      local err = protocol:wait_lost()
      assert.is_true(aloop.isinstance(err, aloop.ConnectionError), tostring(err))
      transport:write("dropped")
      assert.equal(0, transport:get_write_buffer_size())
    end)
  end)

  it("forgotten without a close is reported and its descriptor closed", function() -- row: transport.unclosed_warning
    helper.with_loop(new_loop, function(loop, trial)
      local a, b = aloop.socket.socketpair()
      do
        local transport = loop:create_connection(function() return {} end, nil, nil, { sock = a })
        transport:pause_reading()
        a = nil -- luacheck: ignore 311
      end
      for _ = 1, 3 do aloop.sleep(0) end
      for _ = 1, 3 do
        collectgarbage()
        aloop.sleep(0)
      end
      local _, level, category = trial:take_log("unclosed transport")
      assert.equal("warning", level)
      assert.equal("ResourceWarning", category)
      assert.is_nil(helper.recv(loop, b, 1))
      b:close()
    end)
  end)

  it("that reads is kept by the loop alone", function()
    helper.with_loop(new_loop, function(loop)
      local got = loop:create_future()
      local a, b = aloop.socket.socketpair()
      loop:create_connection(function()
        return { data_received = function(_, data) got:set_result(data) end }
      end, nil, nil, { sock = a })
      collectgarbage()
      collectgarbage()
      b:send("still there")
      assert.equal("still there", got:await())
      b:close()
      for _ = 1, 5 do aloop.sleep(0) end
    end)
  end)

  it("tostring names class and state", function()
    unix(function(transport)
      assert.matches("[Tt]ransport", tostring(transport))
      assert.is_true(aloop.isinstance(transport, aloop.Transport))
      for _, class in ipairs { "BaseTransport", "ReadTransport", "WriteTransport" } do
        assert.is_true(aloop.isinstance(transport, aloop[class]), class)
      end
    end)
  end)

  it("methods refuse another self", function()
    unix(function(transport)
      raises(aloop.ValueError, nil, transport.set_write_buffer_limits, transport, { high = 1, low = 2 })
      assert.is_false((pcall(transport.write, {}, "x")))
      assert.is_false((pcall(transport.close, 42)))
    end)
  end)
end)

describe("a script's own transport", function()
  local function extend()
    local Mock = aloop.Transport:extend("Mock")
    function Mock:write(data) self.data = (self.data or "") .. data end
    function Mock:close()
      aloop.sleep(0)
      self.is_closed = true
    end
    return Mock
  end

  it("has the methods that it brings, and no other", function()
    local mock = extend()()
    mock:write("a")
    mock:write("b")
    assert.equal("ab", mock.data)
    for _, name in ipairs { "abort", "is_closing", "pause_reading", "get_extra_info", "get_write_buffer_size" } do
      raises(aloop.NotImplementedError, "Mock", mock[name], mock, "peername")
    end
    type_error("Transport expected, got Protocol", aloop.Transport.abort, aloop.Protocol())
  end)

  it("has a text", function()
    assert.matches("^Mock: ", tostring(extend()()))
    assert.matches("^BaseTransport: ", tostring(aloop.BaseTransport()))
  end)

  it("is closed by its own close at the end of a scope", function()
    helper.as_task(function()
      local mock = extend()()
      do
        local _ <close> = mock
      end
      assert.is_true(mock.is_closed)
    end)
  end)
end)
