-- Server:serve_forever, and accepting under strain.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises
local S = aloop.socket

helper.each_loop(function(kind, new_loop)
  local function with_server(body)
    helper.with_loop(new_loop, function(loop, trial)
      local server = loop:create_server(function() return helper.Recorder(loop) end, "127.0.0.1", 0)
      body(server, loop, trial)
      server:close()
      server:wait_closed()
    end)
  end

  describe("serve_forever", function()
    -- row: Server.serve_forever, Server.serve_forever_cancel; point: 31
    it("serves until it is cancelled, then the server is closed", function()
      with_server(function(server, loop)
        local address = helper.address_of(server)
        local task = loop:create_task(function() server:serve_forever() end)
        aloop.sleep(0)
        helper.connect(loop, address):close()
        assert.is_false(task:done())
        task:cancel()
        raises(aloop.CancelledError, nil, task.await, task)
        assert.is_nil(server.sockets)
        assert.is_false(server:is_serving())
        raises(aloop.ConnectionRefusedError, nil, helper.connect, loop, address)
      end)
    end)

    it("is ended by close() with CancelledError", function() -- row: Server.serve_forever_close; point: 31
      with_server(function(server, loop)
        local task = loop:create_task(function() server:serve_forever() end)
        aloop.sleep(0)
        aloop.sleep(0)
        server:close()
        raises(aloop.CancelledError, nil, task.await, task)
      end)
    end)

    it("may run once only, and not on a closed server", function() -- row: Server.serve_forever_single
      with_server(function(server, loop)
        local task = loop:create_task(function() server:serve_forever() end)
        aloop.sleep(0)
        aloop.sleep(0)
        raises(aloop.RuntimeError, nil, server.serve_forever, server)
        server:close()
        pcall(task.await, task)
        raises(aloop.RuntimeError, "is closed", server.serve_forever, server)
      end)
    end)
  end)

  describe("a server", function()
    it("that is not held by anyone goes on serving", function()
      helper.with_loop(new_loop, function(loop)
        local made = loop:create_future()
        local address
        do
          local server = loop:create_server(function() made:set_result() return {} end, "127.0.0.1", 0)
          address = helper.address_of(server)
        end
        collectgarbage()
        collectgarbage()
        local sock = helper.connect(loop, address)
        made:await()
        sock:close()
        for _ = 1, 5 do aloop.sleep(0) end
      end, { open = true })
    end)

    it("may be closed inside its factory and inside connection_made", function()
      for _, where in ipairs { "factory", "connection_made" } do
        helper.with_loop(new_loop, function(loop)
          local server
          local protocol = helper.Recorder(loop)
          if where == "connection_made" then
            protocol.connection_made = function(self, transport)
              helper.Recorder.connection_made(self, transport)
              server:close()
            end
          end
          server = loop:create_server(function()
            if where == "factory" then server:close() end
            return protocol
          end, "127.0.0.1", 0)
          local sock = helper.connect(loop, helper.address_of(server))
          protocol:wait_for("made")
          sock:close()
          protocol:wait_lost()
          server:wait_closed()
        end)
      end
    end)

    it("serves many short connections and leaks none", function()
      helper.with_loop(new_loop, function(loop)
        local Echo = aloop.Protocol:extend("Echo")
        function Echo:connection_made(transport) self.transport = transport end
        function Echo:data_received(data) self.transport:write(data) end
        local server = loop:create_server(Echo, "127.0.0.1", 0)
        local address = helper.address_of(server)
        local tasks = {}
        for i = 1, 10 do
          tasks[i] = loop:create_task(function()
            for j = 1, 20 do
              local sock = helper.connect(loop, address)
              local text = i .. ":" .. j
              sock:send(text)
              assert.equal(text, helper.recv(loop, sock, 100))
              sock:close()
            end
          end)
        end
        for _, task in ipairs(tasks) do task:await() end
        server:close()
        server:wait_closed()
      end)
    end)

    it("whose clients never read doesn't hinder the others", function()
      helper.with_loop(new_loop, function(loop, trial)
        local protocols = {}
        local server = loop:create_server(function()
          local protocol = helper.Recorder(loop)
          protocols[#protocols + 1] = protocol
          return protocol
        end, "127.0.0.1", 0)
        local deaf = helper.connect(loop, helper.address_of(server))
        deaf:send("x")
        trial:wait_until(function() return protocols[1] end)
        protocols[1]:wait_data(1)
        helper.fill(protocols[1].transport)
        protocols[1].transport:write(("x"):rep(100000))
        assert.equal(1, protocols[1]:count("pause"))
        for _ = 1, 10 do
          local transport, client = loop:create_connection(function() return helper.Recorder(loop) end, "127.0.0.1",
            helper.address_of(server).port)
          transport:write("ping")
          while #protocols[#protocols].events == 0 do aloop.sleep(0) end
          protocols[#protocols]:wait_data(4)
          protocols[#protocols].transport:write("pong")
          assert.equal("pong", client:wait_data(4))
          transport:close()
          client:wait_lost()
        end
        server:close()
        server:abort_clients()
        server:wait_closed()
        deaf:close()
      end)
    end)
  end)

  -- row: create_server.accept_emfile, context.socket; point: 33; bug: 14
  it("out of descriptors a server reports it once, waits a second, and then serves", function()
    local out = helper.output_of(helper.HOARD .. [[
      local aloop = require "aloop"
      local core = require "aloop.core"
      local loop = require("aloop.testing").new_loop { kind = ... }
      local reports = {}
      loop:set_exception_handler(function(_, context) reports[#reports + 1] = context end)
      loop:run_until_complete(function()
        local served = loop:create_future()
        local server = loop:create_server(function()
          if not served:done() then served:set_result() end
          return {}
        end, "127.0.0.1", 0)
        local client = aloop.socket.socket()
        local hoarded = hoard()
        pcall(client.connect, client, server.sockets[1]:getsockname())
        while #reports == 0 do aloop.sleep(0.001) end
        local turns, began = core.stats(loop).turns, loop:time()
        aloop.sleep(0.3)
        local context = reports[1]
        print(#reports, context.exception.code, context.message ~= nil, context.socket ~= nil,
          core.stats(loop).turns - turns < 10, served:done())
        for _, file in ipairs(hoarded) do file:close() end
        served:await()
        print(loop:time() - began > 0.9)
        client:close()
        server:close()
        server:wait_closed()
      end)
      loop:close()
    ]], { before = "ulimit -n 60", args = { kind } })
    assert.equal("1\tEMFILE\ttrue\ttrue\ttrue\tfalse\ntrue\n", out)
  end)

  it("closed while it waits for descriptors, a server stays closed", function() -- point: 33
    local out = helper.output_of(helper.HOARD .. [[
      local aloop = require "aloop"
      local loop = require("aloop.testing").new_loop { kind = ... }
      local reported = false
      loop:set_exception_handler(function() reported = true end)
      loop:run_until_complete(function()
        local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
        local client = aloop.socket.socket()
        local hoarded = hoard()
        pcall(client.connect, client, server.sockets[1]:getsockname())
        while not reported do aloop.sleep(0.001) end
        for _, file in ipairs(hoarded) do file:close() end
        server:close()
        server:wait_closed()
        client:close()
        aloop.sleep(1.1)
        print("closed")
      end)
      loop:close()
    ]], { before = "ulimit -n 60", args = { kind } })
    assert.equal("closed\n", out)
  end)

  it("reset while it waits to be accepted, a connection does no harm", function()
    helper.with_loop(new_loop, function(loop)
      local lost = 0
      local server = loop:create_server(function()
        return { connection_lost = function() lost = lost + 1 end }
      end, "127.0.0.1", 0, { start_serving = true })
      local address = helper.address_of(server)
      for _ = 1, 10 do
        local sock = S.socket(S.AF_INET, S.SOCK_STREAM)
        pcall(sock.connect, sock, address)
        helper.reset(sock)
      end
      local sock = helper.connect(loop, address)
      sock:close()
      for _ = 1, 20 do aloop.sleep(0.001) end
      server:close()
      server:wait_closed()
      assert.is_true(lost >= 1)
    end)
  end)
end)
