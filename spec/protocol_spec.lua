-- Protocols: what they are told, in which order, and what their errors do.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  -- A transport of this protocol over a socket pair; closed at the end.
  local function with(make_protocol, body)
    helper.with_loop(new_loop, function(loop, trial)
      local a, b = aloop.socket.socketpair()
      local protocol = make_protocol(loop)
      local transport = loop:create_connection(helper.always(protocol), nil, nil, { sock = a })
      body(protocol, b, loop, trial, transport)
      transport:abort()
      if b:fileno() >= 0 then b:close() end
      for _ = 1, 5 do aloop.sleep(0) end
    end)
  end
  local function recorder(options)
    return function(loop) return helper.Recorder(loop, options) end
  end

  it("connection_made comes first and once, with the transport", function() -- row: BaseProtocol.connection_made
    with(recorder(), function(protocol, _, _, _, transport)
      assert.same({ "made" }, protocol.events)
      assert.equal(transport, protocol.transport)
    end)
  end)

  it("data_received gets what came, in order and never nothing", function() -- row: Protocol.data_received
    with(recorder(), function(protocol, sock, loop)
      local parts = {}
      for i = 1, 100 do parts[i] = string.char(i):rep(i * 17) end
      local data = table.concat(parts)
      helper.send_all(loop, sock, data)
      assert.is_true(protocol:wait_data(#data) == data)
    end)
  end)

  it("bytes of any value come through", function() -- row: Protocol.data_received
    with(recorder(), function(protocol, sock)
      local bytes = {}
      for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
      sock:send(table.concat(bytes))
      assert.equal(table.concat(bytes), protocol:wait_data(256))
    end)
  end)

  it("large pieces stay what they are while others come", function() -- row: Protocol.data_received
    local Keeper = aloop.Protocol:extend("Keeper")
    function Keeper:init(loop)
      self.pieces, self.size, self.largest, self.done = {}, 0, 0, loop:create_future()
    end
    function Keeper:data_received(data)
      self.pieces[#self.pieces + 1] = data
      self.size, self.largest = self.size + #data, math.max(self.largest, #data)
      self.scratch = ("-"):rep(#data) -- as large as what may be reused
      if #self.pieces % 5 == 0 then self.pieces[#self.pieces] = data:sub(1) end
      if self.size == self.wanted then self.done:set_result() end
    end
    with(Keeper, function(protocol, sock, loop)
      local parts = {}
      for i = 1, 60 do parts[i] = string.pack("<I4", i):rep(i % 7 == 0 and 30 or 9000 + i * 1000) end
      local data = table.concat(parts)
      protocol.wanted = #data
      helper.send_all(loop, sock, data)
      protocol.done:await()
      assert.is_true(protocol.largest > 32 * 1024)
      assert.is_true(table.concat(protocol.pieces) == data)
    end)
  end)

  describe("eof_received", function()
    it("that returns nothing or false lets the transport close", function() -- row: Protocol.eof_received
      for _, keep in ipairs { "nil", "false" } do
        with(recorder(keep == "false" and { keep_open = false } or nil), function(protocol, sock)
          sock:send("x")
          sock:shutdown(aloop.socket.SHUT_WR)
          assert.is_nil(protocol:wait_lost())
          assert.same({ "made", "data", "eof", "lost" }, protocol.events)
        end)
      end
    end)

    it("that returns true keeps the writing side open", function() -- row: Protocol.eof_received; point: 25
      with(recorder { keep_open = true }, function(protocol, sock, loop, _, transport)
        sock:shutdown(aloop.socket.SHUT_WR)
        protocol:wait_for("eof")
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_false(transport:is_closing())
        transport:write("still writing")
        assert.equal("still writing", helper.recv_exactly(loop, sock, 13))
        transport:close()
        assert.is_nil(protocol:wait_lost())
        assert.equal(1, protocol:count("eof"))
      end)
    end)

    it("that returns nothing flushes what was written before", function()
      with(recorder(), function(protocol, sock, loop, _, transport)
        local n = helper.fill(transport)
        sock:shutdown(aloop.socket.SHUT_WR)
        protocol:wait_for("eof")
        assert.is_true(transport:is_closing())
        assert.equal(n, #helper.recv_all(loop, sock))
        assert.is_nil(protocol:wait_lost())
      end)
    end)

    it("isn't there: the transport closes", function()
      local lost
      with(function() return { connection_lost = function(_, ...) lost = table.pack(...) end } end,
        function(_, sock, _, trial)
          sock:shutdown(aloop.socket.SHUT_WR)
          trial:wait_until(function() return lost end)
          assert.is_nil(lost[1])
        end)
    end)
  end)

  it("connection_lost comes last and once, with the error or nil", function() -- row: BaseProtocol.connection_lost
    with(recorder(), function(protocol, sock, _, _, transport)
      sock:send("x")
      protocol:wait_data(1)
      transport:close()
      assert.is_nil(protocol:wait_lost())
      sock:close()
      for _ = 1, 3 do aloop.sleep(0) end
      assert.same({ "made", "data", "lost" }, protocol.events)
    end)
  end)

  describe("a protocol", function()
    it("may have no method at all", function() -- row: protocols.optional_callbacks
      with(function() return {} end, function(_, sock, loop, _, transport)
        sock:send("ignored")
        helper.fill(transport)
        while transport:get_write_buffer_size() > 0 do helper.recv(loop, sock, 65536) end
        sock:shutdown(aloop.socket.SHUT_WR)
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_true(transport:is_closing())
      end)
    end)

    it("may be an instance of a base class with nothing of its own", function() -- row: protocols.optional_callbacks
      with(function() return aloop.Protocol() end, function(_, sock, _, _, transport)
        sock:send("ignored")
        sock:shutdown(aloop.socket.SHUT_WR)
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_true(transport:is_closing())
      end)
    end)

    it("may be an object whose methods come through __index", function()
      local got
      local class = setmetatable({}, { __index = { data_received = function(_, data) got = data end } })
      with(function() return setmetatable({}, { __index = class }) end, function(_, sock, _, trial)
        sock:send("inherited")
        trial:wait_until(function() return got end)
        assert.equal("inherited", got)
      end)
    end)

    it("class is callable, runs init, and can be extended and named", function()
      local Base = aloop.Protocol:extend("Base")
      function Base:init(value) self.value = value end
      function Base:data_received(data) self.got = data end
      local Derived = Base:extend("Derived")
      function Derived:data_received(data) Base.data_received(self, data .. "!") end
      local object = Derived(42)
      assert.equal(42, object.value)
      assert.is_true(aloop.isinstance(object, Derived))
      assert.is_true(aloop.isinstance(object, Base))
      assert.is_true(aloop.isinstance(object, aloop.Protocol))
      assert.is_true(aloop.isinstance(object, aloop.BaseProtocol))
      assert.is_false(aloop.isinstance(object, aloop.BufferedProtocol))
      assert.matches("Derived", tostring(object))
      with(function() return object end, function(_, sock, _, trial)
        sock:send("x")
        trial:wait_until(function() return object.got end)
        assert.equal("x!", object.got)
      end)
    end)

    it("class itself is a factory", function()
      helper.with_loop(new_loop, function(loop)
        local Echo = aloop.Protocol:extend("Echo")
        function Echo:connection_made(transport) self.transport = transport end
        function Echo:data_received(data) self.transport:write(data) end
        local server = loop:create_server(Echo, "127.0.0.1", 0)
        local transport, protocol = loop:create_connection(function() return helper.Recorder(loop) end, "127.0.0.1",
          helper.address_of(server).port)
        transport:write("echo")
        assert.equal("echo", protocol:wait_data(4))
        transport:close()
        protocol:wait_lost()
        server:close()
        server:wait_closed()
      end)
    end)
  end)

  describe("an error", function()
    for _, method in ipairs { "data_received", "eof_received" } do
      -- row: transport.fatal_error_protocol, context.protocol, context.transport; point: 26
      it("in " .. method .. " is reported and ends the connection with connection_lost(that error)", function()
        helper.with_loop(new_loop, function(loop, trial)
          local protocol = helper.Recorder(loop)
          local raised = aloop.ValueError("protocol fails")
          protocol[method] = function() error(raised) end
          local transport, _, sock = helper.over_socketpair(loop, protocol)
          sock:send("x")
          sock:shutdown(aloop.socket.SHUT_WR)
          assert.equal(raised, protocol:wait_lost())
          local context = trial:take_error()
          assert.matches("Fatal error: protocol." .. method .. "() call failed.", context.message, 1, true)
          assert.equal(raised, context.exception)
          assert.equal(protocol, context.protocol)
          assert.equal(transport, context.transport)
          assert.matches("protocol_spec", raised.traceback)
          sock:close()
        end)
      end)
    end

    -- row: transport.connection_made_error
    it("in connection_made is reported; reading still starts", function()
      helper.with_loop(new_loop, function(loop, trial)
        local protocol = helper.Recorder(loop)
        protocol.connection_made = function(self, transport)
          helper.Recorder.connection_made(self, transport)
          error("made fails")
        end
        local transport, _, sock = helper.over_socketpair(loop, protocol)
        assert.matches("made fails", trial:take_error().exception)
        sock:send("read all the same")
        assert.equal("read all the same", protocol:wait_data(17))
        transport:close()
        protocol:wait_lost()
        sock:close()
      end)
    end)

    it("in connection_lost is reported, and the descriptor is closed", function()
      helper.with_loop(new_loop, function(loop, trial)
        local transport, _, sock = helper.over_socketpair(loop, {
          connection_lost = function() error("lost fails") end,
        })
        transport:close()
        trial:wait_until(function() return #trial.errors > 0 end)
        assert.matches("lost fails", trial:take_error().exception)
        assert.is_nil(helper.recv(loop, sock, 1))
        sock:close()
      end)
    end)

    it("that is no string or object is passed on as it is", function()
      helper.with_loop(new_loop, function(loop, trial)
        local raised = { code = 5 }
        local lost
        local _, _, sock = helper.over_socketpair(loop, {
          data_received = function() error(raised) end,
          connection_lost = function(_, e) lost = e end,
        })
        sock:send("x")
        trial:wait_until(function() return lost end)
        assert.equal(raised, lost)
        assert.equal(raised, trial:take_error().exception)
        sock:close()
      end)
    end)
  end)

  it("events keep their order whatever closes when", function() -- row: protocols.state_machine
    -- The recorder raises on anything before connection_made, after connection_lost, or twice.
    local random = 12345
    local function choose(n)
      random = (random * 1103515245 + 12345) % 2 ^ 31 // 1 | 0
      return random // 65536 % n + 1
    end
    helper.with_loop(new_loop, function(loop)
      local actions = {
        function(transport) transport:close() end,
        function(transport) transport:abort() end,
        function(transport)
          if not transport:is_closing() then transport:write_eof() end
        end,
        function(transport) transport:pause_reading() end,
        function(transport) transport:resume_reading() end,
        function(_, sock)
          if sock:fileno() >= 0 then pcall(sock.send, sock, ("x"):rep(choose(100000))) end
        end,
        function(_, sock) sock:close() end,
        function(_, sock)
          if sock:fileno() >= 0 then pcall(sock.shutdown, sock, aloop.socket.SHUT_WR) end
        end,
        function() aloop.sleep(0) end,
        function(_, sock)
          if sock:fileno() >= 0 then pcall(sock.recv, sock, choose(100000)) end
        end,
      }
      for round = 1, 60 do
        local transport, protocol, sock = helper.over_socketpair(loop, helper.Recorder(loop, {
          keep_open = round % 2 == 0,
        }))
        local eof_sent = false
        for _ = 1, choose(10) do
          local action = choose(#actions)
          if action == 3 then eof_sent = true end
          actions[action](transport, sock)
          if not eof_sent and not transport:is_closing() then transport:write(("y"):rep(choose(300000))) end
          if choose(2) == 1 then aloop.sleep(0) end
        end
        transport:abort()
        sock:close()
        protocol:wait_lost()
        assert.equal("made", protocol.events[1])
        assert.equal("lost", protocol.events[#protocol.events])
        assert.equal(1, protocol:count("lost"))
        assert.is_true(protocol:count("eof") <= 1)
      end
    end)
  end)
end)
