-- 15: a protocol factory, or the making of a transport, that raised leaked the descriptor, silently outside of debug
-- mode (gh-153133 client, gh-155934 server, gh-156400 datagrams), or stopped the server from accepting (gh-156365).
-- 16: a callback of a new connection that failed was silent and left the connection open (gh-110894, gh-155928).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

helper.each_loop(function(_, new_loop)
  local function failing() error(aloop.ValueError("factory fails")) end

  it("15: clients, accepted and handed-over sockets are closed when the factory fails", function()
    helper.with_loop(new_loop, function(loop)
      local listener, address = helper.listen()
      local fds = helper.count_fds()
      for _ = 1, 5 do
        raises(aloop.ValueError, "factory fails", loop.create_connection, loop, failing, address[1], address[2])
        helper.accept(loop, listener):close()
      end
      for _, name in ipairs { "create_connection", "create_unix_connection", "connect_accepted_socket" } do
        local a, b = aloop.socket.socketpair()
        local ok
        if name == "create_connection" then
          ok = pcall(loop[name], loop, failing, nil, nil, { sock = a })
        elseif name == "create_unix_connection" then
          ok = pcall(loop[name], loop, failing, nil, { sock = a })
        else
          ok = pcall(loop[name], loop, failing, a)
        end
        assert.is_false(ok)
        a:close() -- harmless if it is closed already
        assert.is_nil(helper.recv(loop, b, 1))
        b:close()
      end
      assert.equal(fds, helper.count_fds())
      listener:close()
    end)
  end)

  it("15: datagram sockets are closed when the factory fails", function()
    helper.with_loop(new_loop, function(loop)
      local fds = helper.count_fds()
      for _ = 1, 5 do
        raises(aloop.ValueError, "factory fails", loop.create_datagram_endpoint, loop, failing, { "127.0.0.1", 0 })
        assert.is_false((pcall(loop.create_datagram_endpoint, loop, function() end, nil, { "127.0.0.1", 9 })))
      end
      assert.equal(fds, helper.count_fds())
    end)
  end)

  it("15: a server whose factory fails again and again goes on accepting and leaks nothing", function()
    helper.with_loop(new_loop, function(loop, trial)
      local n = 0
      local server = loop:create_server(function()
        n = n + 1
        failing()
      end, "127.0.0.1", 0)
      local address = helper.address_of(server)
      local fds = helper.count_fds()
      for i = 1, 20 do
        local sock = helper.connect(loop, address)
        pcall(helper.recv, loop, sock, 1)
        sock:close()
        assert.equal(i, n)
        assert.equal("factory fails", trial:take_error().exception.message)
      end
      assert.equal(fds, helper.count_fds())
      server:close()
      server:wait_closed()
    end)
  end)

  it("16: a connection_made that fails is reported, on servers as on clients", function()
    helper.with_loop(new_loop, function(loop, trial)
      local function factory()
        return { connection_made = function(_, transport)
          transport:close()
          error("made fails")
        end }
      end
      local server = loop:create_server(factory, "127.0.0.1", 0)
      local address = helper.address_of(server)
      local sock = helper.connect(loop, address)
      assert.is_nil(helper.recv(loop, sock, 1))
      sock:close()
      assert.matches("made fails", trial:take_error().exception)
      loop:create_connection(factory, address[1], address[2])
      trial:wait_until(function() return #trial.errors == 2 end)
      assert.matches("made fails", trial:take_error().exception)
      assert.matches("made fails", trial:take_error().exception)
      server:close()
      server:wait_closed()
    end)
  end)
end)
