-- What keeps a transport alive: an operation in flight, or the script; and what it keeps alive itself.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local S = aloop.socket

local function collect()
  collectgarbage()
  collectgarbage()
end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- A protocol that only its transport knows, and that knows only its transport.
  local function quiet(events)
    return function()
      return {
        connection_made = function(self, transport)
          self.transport = transport
          events.made = (events.made or 0) + 1
          if events.pause then transport:pause_reading() end
        end,
        data_received = function(_, data) events.data = (events.data or "") .. data end,
        connection_lost = function() events.lost = (events.lost or 0) + 1 end,
      }
    end
  end

  describe("a transport", function()
    it("that reads needs no other owner", function()
      with_loop(function(loop, trial)
        local a, b = S.socketpair()
        local events = {}
        loop:create_connection(quiet(events), nil, nil, { sock = a })
        a = nil -- luacheck: ignore 311
        collect()
        b:send("still there")
        trial:wait_until(function() return events.data end)
        collect()
        b:close()
        trial:wait_until(function() return events.lost end)
        assert.equal("still there", events.data)
      end)
    end)

    it("that writes needs no other owner until all is sent", function()
      with_loop(function(loop, trial)
        local a, b = S.socketpair()
        local events = { pause = true }
        local text = ("0123456789"):rep(200000)
        loop:create_connection(quiet(events), nil, nil, { sock = a }):write(text)
        a = nil -- luacheck: ignore 311
        collect()
        assert.equal(text, helper.recv_exactly(loop, b, #text))
        aloop.sleep(0.01)
        collect() -- now it waits for nothing, and goes
        trial:take_log("unclosed transport")
        aloop.sleep(0)
        assert.is_nil(helper.recv(loop, b))
        assert.is_nil(events.lost)
        b:close()
      end)
    end)

    it("that waits for nothing is closed by its server all the same", function()
      for _, how in ipairs { "close_clients", "abort_clients" } do
        with_loop(function(loop, trial)
          local events = { pause = true }
          local server = loop:create_server(quiet(events), "127.0.0.1", 0)
          local socks = {}
          for i = 1, 5 do socks[i] = helper.connect(loop, helper.address_of(server)) end
          trial:wait_until(function() return events.made == 5 end)
          aloop.sleep(0.01)
          server:close()
          server[how](server)
          collect() -- their connection_lost is on its way, which keeps them
          server:wait_closed()
          assert.equal(5, events.lost)
          for _, sock in ipairs(socks) do sock:close() end
        end)
      end
    end)

    it("that resumed reading is kept again", function()
      with_loop(function(loop, trial)
        local a, b = S.socketpair()
        local events = { pause = true }
        local transport = loop:create_connection(quiet(events), nil, nil, { sock = a })
        aloop.sleep(0.01)
        for _ = 1, 3 do
          transport:resume_reading()
          transport:pause_reading()
          aloop.sleep(0)
        end
        transport:resume_reading()
        transport, a = nil, nil -- luacheck: ignore 311
        collect()
        b:send("x")
        trial:wait_until(function() return events.data end)
        b:close()
        trial:wait_until(function() return events.lost end)
      end)
    end)

    it("lets go of its protocol when the connection is lost", function()
      with_loop(function(loop)
        local transport, protocol, sock = helper.over_socketpair(loop)
        local weak = setmetatable({ protocol }, { __mode = "v" })
        assert.equal(protocol, transport:get_protocol())
        transport:close()
        protocol:wait_lost()
        aloop.sleep(0)
        assert.is_nil(transport:get_protocol())
        protocol = nil -- luacheck: ignore 311
        collect()
        assert.is_nil(weak[1])
        sock:close()
      end)
    end)

    it("keeps the strings that it has yet to send", function()
      with_loop(function(loop)
        local transport, protocol, sock = helper.over_socketpair(loop)
        local n = helper.fill(transport)
        local parts = {}
        for i = 1, 30 do
          parts[i] = tostring(i):rep(20000)
          transport:write(parts[i])
          transport:write(tostring(i):rep(20000), 1, 9000)
          collectgarbage()
        end
        for i = 1, 30 do parts[i] = parts[i] .. parts[i]:sub(1, 9000) end
        local expected = table.concat(parts)
        assert.is_true(helper.recv_exactly(loop, sock, n + #expected):sub(n + 1) == expected)
        transport:close()
        protocol:wait_lost()
        sock:close()
      end)
    end)

    it("is told of with the place that made it, in debug mode", function()
      with_loop(function(loop, trial)
        loop:set_debug(true)
        local a, b = S.socketpair()
        loop:create_connection(quiet { pause = true }, nil, nil, { sock = a })
        a = nil -- luacheck: ignore 311
        aloop.sleep(0.01)
        collect()
        assert.matches("created at .*transport_lifetime_spec.lua:%d+", (trial:take_log("unclosed transport")))
        loop:set_debug(false)
        b:close()
      end)
    end)
  end)

  it("a server that never served is told of when it is forgotten, and gives its port back", function()
    with_loop(function(loop, trial)
      local port
      do
        local server = loop:create_server(function() return {} end, "127.0.0.1", 0, { start_serving = false })
        port = helper.address_of(server).port
      end
      collect()
      collect() -- its sockets kept it a while longer
      trial:take_log("unclosed server")
      aloop.sleep(0.01)
      local server = loop:create_server(function() return {} end, "127.0.0.1", port, { reuse_address = false })
      server:close()
      server:wait_closed()
    end)
  end)

  describe("the callbacks of a protocol", function()
    it("run in the context in which its transport was made", function()
      with_loop(function(loop)
        local var = aloop.ContextVar("var", { default = "none" })
        local seen = {}
        local function note(name) seen[#seen + 1] = name .. " " .. var:get() end
        local protocol = helper.Recorder(loop)
        local a, b = S.socketpair()
        local recorder = aloop.Protocol:extend("InContext")
        function recorder:connection_made() note("made") var:set("changed") end
        function recorder:data_received(data) note("data") var:set(data) end
        function recorder:eof_received() note("eof") end
        function recorder:connection_lost() note("lost") protocol:note("lost") end
        protocol.transport = true
        var:set("outside")
        loop:create_connection(recorder, nil, nil, { sock = a })
        var:set("later")
        b:send("one")
        aloop.sleep(0.01)
        b:send("two")
        aloop.sleep(0.01)
        b:close()
        protocol:wait_lost()
        assert.same({ "made outside", "data outside", "data one", "eof two", "lost two" }, seen)
        assert.equal("later", var:get())
      end)
    end)

    it("run, for accepted connections, in copies of the context in which the server began to serve", function()
      with_loop(function(loop, trial)
        local var = aloop.ContextVar("var", { default = "none" })
        local seen = {}
        var:set("serving")
        local server = loop:create_server(function()
          seen[#seen + 1] = "factory " .. var:get()
          var:set("made")
          return {
            connection_made = function(_, transport)
              seen[#seen + 1] = "made " .. var:get()
              transport:close()
            end,
          }
        end, "127.0.0.1", 0)
        var:set("later")
        for i = 1, 2 do
          local sock = helper.connect(loop, helper.address_of(server))
          trial:wait_until(function() return #seen == 2 * i end)
          sock:close()
        end
        server:close()
        server:wait_closed()
        assert.same({ "factory serving", "made made", "factory serving", "made made" }, seen)
        assert.equal("later", var:get())
      end)
    end)
  end)
end)
