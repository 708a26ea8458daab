-- Server: starting, closing, its sockets and clients. What create_server makes of its arguments is in server_spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises
local S = aloop.socket

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  local function serving(body, options) helper.serving(new_loop, body, options) end

  describe("start_serving", function()
    -- row: create_server.start_serving, Server.start_serving, Server.is_serving
    it("begins to accept where start_serving = false was given, and may be called twice", function()
      serving(function(server, wait_for, loop)
        local address = helper.address_of(server)
        assert.is_false(server:is_serving())
        helper.refused(loop, address)
        server:start_serving()
        assert.is_true(server:is_serving())
        server:start_serving()
        local sock = helper.connect(loop, address)
        wait_for(1)
        sock:close()
        server:close()
        assert.is_false(server:is_serving())
      end, { start_serving = false })
    end)
  end)

  describe("Server", function()
    it("close stops accepting and leaves connections open", function() -- row: Server.close, Server.close_async
      serving(function(server, wait_for, loop)
        local address = helper.address_of(server)
        local sock = helper.connect(loop, address)
        local protocol = wait_for(1)
        server:close()
        assert.is_nil(server.sockets)
        helper.refused(loop, address)
        sock:send("still")
        assert.equal("still", protocol:wait_data(5))
        protocol.transport:write("open")
        assert.equal("open", helper.recv(loop, sock, 10))
        sock:close()
        protocol:wait_lost()
      end)
    end)

    it("close may be called twice", function() -- row: Server.close_idempotent
      serving(function(server)
        server:close()
        server:close()
        assert.is_false(server:is_serving())
      end)
    end)

    -- row: Server.wait_closed; point: 31; bug: 13
    it("wait_closed waits for close and for the last client, in either order", function()
      serving(function(server, wait_for, loop)
        local sock = helper.connect(loop, helper.address_of(server))
        local protocol = wait_for(1)
        local closed = false
        local waiter = loop:create_task(function()
          server:wait_closed()
          closed = true
        end)
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_false(closed)
        server:close()
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_false(closed)
        sock:close()
        protocol:wait_lost()
        waiter:await()
        assert.is_true(closed)
        server:wait_closed()
      end)
      serving(function(server, wait_for, loop)
        local sock = helper.connect(loop, helper.address_of(server))
        local protocol = wait_for(1)
        sock:close()
        protocol:wait_lost()
        local waiter = loop:create_task(function() server:wait_closed() end)
        for _ = 1, 5 do aloop.sleep(0) end
        assert.is_false(waiter:done())
        server:close()
        waiter:await()
      end)
    end)

    it("wait_closed can be cancelled", function()
      serving(function(server, _, loop)
        local waiter = loop:create_task(function() server:wait_closed() end)
        aloop.sleep(0)
        waiter:cancel()
        raises(aloop.CancelledError, nil, waiter.await, waiter)
        assert.is_true(server:is_serving())
      end)
    end)

    it("sockets is a copy, and nil once closed", function()
      -- row: Server.sockets, Server.sockets_closed, Server.sockets_copy
      serving(function(server, wait_for, loop)
        local sockets = server.sockets
        assert.equal(1, #sockets)
        assert.is_true(sockets[1]:fileno() >= 0)
        assert.equal(S.AF_INET, sockets[1].family)
        sockets[1] = nil
        assert.equal(1, #server.sockets)
        local sock = helper.connect(loop, helper.address_of(server))
        wait_for(1)
        sock:close()
        server:close()
        assert.is_nil(server.sockets)
      end)
    end)

    it("get_loop gives its loop", function() -- row: Server.get_loop
      serving(function(server, _, loop) assert.equal(loop, server:get_loop()) end)
    end)

    it("is over two turns after its last client was closed or aborted", function() -- row: Server.wait_closed
      for _, method in ipairs { "close_clients", "abort_clients" } do
        serving(function(server, wait_for, loop)
          local sock = helper.connect(loop, helper.address_of(server))
          local protocol = wait_for(1)
          local waiting = loop:create_task(function() server:wait_closed() end)
          helper.turns(1)
          server:close()
          server[method](server)
          helper.turns(2)
          assert.is_true(protocol.is_lost)
          assert.is_true(waiting:done())
          sock:close()
        end)
      end
    end)

    it("close_clients flushes, abort_clients doesn't", function()
      -- row: Server.close_clients, Server.abort_clients, Server.close_first
      serving(function(server, wait_for, loop)
        local a = helper.connect(loop, helper.address_of(server))
        local first = wait_for(1)
        local b = helper.connect(loop, helper.address_of(server))
        local second = wait_for(2)
        local n = helper.fill(first.transport)
        server:close()
        server:close_clients()
        assert.is_nil(second:wait_lost())
        assert.is_nil(helper.recv(loop, b, 1))
        assert.is_nil(first.is_lost)
        assert.equal(n, #helper.recv_all(loop, a))
        assert.is_nil(first:wait_lost())
        a:close()
        b:close()
      end)
      serving(function(server, wait_for, loop)
        local sock = helper.connect(loop, helper.address_of(server))
        local protocol = wait_for(1)
        helper.fill(protocol.transport)
        server:close()
        server:abort_clients()
        assert.is_nil(protocol:wait_lost())
        sock:close()
      end)
    end)

    it("closes and waits at the end of a block", function() -- row: Server.async_with
      with_loop(function(loop)
        local kept, address
        do
          local server <close> = loop:create_server(function() return {} end, "127.0.0.1", 0)
          kept, address = server, helper.address_of(server)
        end
        assert.is_false(kept:is_serving())
        helper.refused(loop, address)
      end)
    end)
  end)
end)
