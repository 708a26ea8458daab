-- Unix sockets: create_unix_server and create_unix_connection.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local S = aloop.socket

local function nop() end

local Echo = aloop.Protocol:extend("Echo")
function Echo:connection_made(transport) self.transport = transport end
function Echo:data_received(data) self.transport:write(data) end

helper.each_loop(function(_, new_loop)
  -- body(loop, path, trial, directory): path is free for a socket.
  local function with_path(body)
    helper.in_directory(function(directory)
      helper.with_loop(new_loop, function(loop, trial) body(loop, directory .. "/socket", trial, directory) end)
    end)
  end

  local function recorder_factory(loop)
    return function() return helper.Recorder(loop) end
  end

  local function echo_once(loop, address)
    local transport, protocol = loop:create_unix_connection(recorder_factory(loop), address)
    transport:write("echo")
    assert.equal("echo", protocol:wait_data(4))
    transport:close()
    protocol:wait_lost()
    return transport
  end

  describe("create_unix_server and create_unix_connection", function()
    it("meet at a path", function()
      -- row: create_unix_server, create_unix_server.path, create_unix_connection, create_unix_connection.path
      -- row: unix.availability
      with_path(function(loop, path)
        local server = loop:create_unix_server(Echo, path)
        assert.is_true(aloop.isinstance(server, aloop.Server))
        assert.is_true(server:is_serving())
        assert.equal(path, server.sockets[1]:getsockname())
        local transport = echo_once(loop, path)
        assert.equal(path, transport:get_extra_info("peername"))
        server:close()
        server:wait_closed()
      end)
    end)

    it("meet at an abstract name, which has no file", function()
      -- row: create_unix_server.path, create_unix_server.path_object, create_unix_server.cleanup_socket; point: 32
      with_path(function(loop, path)
        local name = "\0" .. path
        local server = loop:create_unix_server(Echo, name)
        assert.equal(name, server.sockets[1]:getsockname())
        echo_once(loop, name)
        assert.is_nil(lfs.attributes(path))
        local in_use = ("Address '@%s' is already in use"):format(path)
        raises(aloop.OSError, in_use, loop.create_unix_server, loop, Echo, name)
        server:close()
        server:wait_closed()
        raises(aloop.ConnectionRefusedError, "'@" .. path, loop.create_unix_connection, loop, nop, name)
      end)
    end)
  end)

  describe("create_unix_server", function()
    it("needs a path or a socket, and not both", function() -- row: create_unix_server.path, create_unix_server.sock
      with_path(function(loop, path)
        raises(aloop.ValueError, nil, loop.create_unix_server, loop, nop)
        local sock = S.socket(S.AF_UNIX, S.SOCK_STREAM)
        raises(aloop.ValueError, nil, loop.create_unix_server, loop, nop, path, { sock = sock })
        sock:close()
        local inet = S.socket(S.AF_INET, S.SOCK_STREAM)
        raises(aloop.ValueError, nil, loop.create_unix_server, loop, nop, nil, { sock = inet })
        inet:close()
        local dgram = S.socket(S.AF_UNIX, S.SOCK_DGRAM)
        raises(aloop.ValueError, nil, loop.create_unix_server, loop, nop, nil, { sock = dgram })
        dgram:close()
        type_error("bad argument #2 to 'create_unix_server'", loop.create_unix_server, loop, nop, 42)
        local options = { host = 1 }
        type_error("unknown option 'host' to 'create_unix_server'", loop.create_unix_server, loop, nop, path, options)
      end)
    end)

    it("takes a bound socket, and removes its file too", function()
      -- row: create_unix_server.sock, create_unix_server.cleanup_socket
      with_path(function(loop, path)
        local sock = S.socket(S.AF_UNIX, S.SOCK_STREAM)
        sock:bind(path)
        local server = loop:create_unix_server(Echo, nil, { sock = sock })
        echo_once(loop, path)
        server:close()
        server:wait_closed()
        assert.is_nil(lfs.attributes(path))
        assert.equal(-1, sock:fileno())
      end)
    end)

    -- row: create_unix_server.cleanup_socket; point: 32
    it("removes the file when it closes, unless it was replaced or is to be kept", function()
      with_path(function(loop, path)
        local server = loop:create_unix_server(nop, path)
        assert.equal("socket", lfs.attributes(path, "mode"))
        server:close()
        assert.is_nil(lfs.attributes(path))

        server = loop:create_unix_server(nop, path)
        os.remove(path)
        local other = loop:create_unix_server(nop, path)
        server:close()
        assert.equal("socket", lfs.attributes(path, "mode"))
        other:close()
        assert.is_nil(lfs.attributes(path))

        server = loop:create_unix_server(nop, path, { cleanup_socket = false })
        server:close()
        assert.equal("socket", lfs.attributes(path, "mode"))
      end)
    end)

    -- row: create_unix_server.stale_socket
    it("takes the place of a stale socket, but not of another file", function()
      with_path(function(loop, path)
        loop:create_unix_server(nop, path, { cleanup_socket = false }):close()
        local server = loop:create_unix_server(Echo, path)
        echo_once(loop, path)
        server:close()
        server:wait_closed()
        io.open(path, "w"):close()
        local fds = helper.count_fds()
        local e = raises(aloop.OSError, path, loop.create_unix_server, loop, nop, path)
        assert.equal("EADDRINUSE", e.code)
        assert.equal("file", lfs.attributes(path, "mode"))
        assert.equal(fds, helper.count_fds())
      end)
    end)

    -- row: create_unix_server.start_serving
    it("begins to accept later where start_serving = false was given", function()
      with_path(function(loop, path)
        local server = loop:create_unix_server(Echo, path, { start_serving = false })
        assert.is_false(server:is_serving())
        raises(aloop.ConnectionRefusedError, nil, loop.create_unix_connection, loop, nop, path)
        server:start_serving()
        echo_once(loop, path)
        server:close()
        server:wait_closed()
      end)
    end)

    it("lets a hundred clients connect before it accepts", function() -- row: create_unix_server.backlog
      with_path(function(loop, path, trial)
        local n = 0
        local server = loop:create_unix_server(function()
          n = n + 1
          return {}
        end, path)
        local socks = {}
        for i = 1, 100 do
          socks[i] = S.socket(S.AF_UNIX, S.SOCK_STREAM)
          socks[i]:connect(path)
        end
        trial:wait_until(function() return n == 100 end)
        for _, sock in ipairs(socks) do sock:close() end
        server:close()
        server:wait_closed()
      end)
    end)

    it("says what is wrong with a path", function()
      with_path(function(loop, path)
        local e = raises(aloop.OSError, nil, loop.create_unix_server, loop, nop, path .. "/below/it")
        assert.is_true(e.code == "ENOENT" or e.code == "ENOTDIR")
        e = raises(aloop.OSError, nil, loop.create_unix_server, loop, nop, ("x"):rep(200))
        assert.equal("ENAMETOOLONG", e.code)
      end)
    end)
  end)

  describe("create_unix_connection", function()
    -- row: create_unix_connection.path, create_unix_connection.sock
    it("needs a path or a socket, and not both", function()
      with_path(function(loop, path)
        raises(aloop.ValueError, nil, loop.create_unix_connection, loop, nop)
        local sock = S.socket(S.AF_UNIX, S.SOCK_STREAM)
        raises(aloop.ValueError, nil, loop.create_unix_connection, loop, nop, path, { sock = sock })
        sock:close()
        local inet = S.socket(S.AF_INET, S.SOCK_STREAM)
        raises(aloop.ValueError, nil, loop.create_unix_connection, loop, nop, nil, { sock = inet })
        inet:close()
        type_error("bad argument #2 to 'create_unix_connection'", loop.create_unix_connection, loop, nop, 42)
      end)
    end)

    it("takes one end of a socket pair", function() -- row: create_unix_connection.sock
      with_path(function(loop)
        local a, b = S.socketpair()
        local transport, protocol = loop:create_unix_connection(recorder_factory(loop), nil, { sock = a })
        b:send("over a pair")
        assert.equal("over a pair", protocol:wait_data(11))
        transport:close()
        protocol:wait_lost()
        b:close()
      end)
    end)

    it("raises FileNotFoundError and ConnectionRefusedError, and leaks nothing", function()
      -- row: create_unix_connection.errors
      with_path(function(loop, path)
        local fds = helper.count_fds()
        local e = raises(aloop.FileNotFoundError, nil, loop.create_unix_connection, loop, nop, path)
        assert.equal("ENOENT", e.code)
        loop:create_unix_server(nop, path, { cleanup_socket = false }):close()
        aloop.sleep(0)
        e = raises(aloop.ConnectionRefusedError, nil, loop.create_unix_connection, loop, nop, path)
        assert.equal("ECONNREFUSED", e.code)
        assert.equal(fds, helper.count_fds())
      end)
    end)

    it("refuses TLS options without ssl", function() -- row: create_unix_connection.ssl
      with_path(function(loop, path)
        for _, options in ipairs {
          { server_hostname = "x" }, { ssl_handshake_timeout = 1 }, { ssl_shutdown_timeout = 1 },
        } do
          raises(aloop.ValueError, nil, loop.create_unix_connection, loop, nop, path, options)
        end
        raises(aloop.ValueError, nil, loop.create_unix_server, loop, nop, path, { ssl_handshake_timeout = 1 })
      end)
    end)
  end)
end)
