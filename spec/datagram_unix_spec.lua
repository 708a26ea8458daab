-- Datagrams over Unix sockets, whose receivers make senders wait: flow control, close and abort with what waits.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local raises = helper.raises
local endpoint, sockname = datagrams.endpoint, datagrams.sockname
local S = aloop.socket

local function nop() end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(loop, directory)
  local function with_directory(body)
    helper.in_directory(function(directory)
      with_loop(function(loop, trial) body(loop, directory, trial) end)
    end)
  end

  describe("over Unix sockets", function()
    it("sends between paths", function() -- row: create_datagram_endpoint.unix_stale
      with_directory(function(loop, directory)
        local here, there = directory .. "/here", directory .. "/there"
        local server, at = endpoint(loop, there, nil, { family = S.AF_UNIX })
        local client, transport = endpoint(loop, here, there, { family = S.AF_UNIX })
        assert.equal(there, sockname(at))
        assert.equal(there, transport:get_extra_info("peername"))
        transport:sendto("ping")
        server:wait_got(1)
        assert.same({ here }, server.senders)
        at:sendto("pong", here)
        assert.same({ "pong" }, client:wait_got(1))
        client:close()
        server:close()
        local again = endpoint(loop, there, nil, { family = S.AF_UNIX }) -- the file is still there
        again:close()
        local nowhere, file = directory .. "/nowhere", directory .. "/file"
        local create, options = loop.create_datagram_endpoint, { family = S.AF_UNIX }
        local e = raises(aloop.FileNotFoundError, nowhere, create, loop, nop, nil, nowhere, options)
        assert.equal("ENOENT", e.code)
        assert(io.open(file, "w")):close()
        e = raises(aloop.OSError, file, create, loop, nop, file, nil, options)
        assert.equal("EADDRINUSE", e.code)
      end)
    end)

    it("takes abstract names, and senders without a name", function()
      with_loop(function(loop)
        local name = "\0aloop-spec" .. os.tmpname()
        local server, at = endpoint(loop, name, nil, { family = S.AF_UNIX })
        assert.equal(name, sockname(at))
        local client, transport = endpoint(loop, nil, name, { family = S.AF_UNIX })
        transport:sendto("x")
        assert.same({ "x" }, server:wait_got(1))
        assert.same({ false }, server.senders)
        client:close()
        server:close()
      end)
    end)

    it("counts what waits as asyncio, and tells when to pause", function() -- row: DatagramTransport.abort
      with_loop(function(loop)
        local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
        local protocol, transport = endpoint(loop, nil, nil, { sock = a })
        local low, high = transport:get_write_buffer_limits()
        assert.same({ 16384, 65536 }, { low, high })
        transport:set_write_buffer_limits { high = 1000, low = 108 }
        local sent = 0
        repeat
          transport:sendto(("x"):rep(100))
          sent = sent + 1
        until transport:get_write_buffer_size() > 0
        assert.equal(108, transport:get_write_buffer_size())
        for i = 2, 9 do
          transport:sendto(("x"):rep(100))
          assert.equal(i * 108, transport:get_write_buffer_size())
          assert.equal(0, protocol:count("pause"))
        end
        transport:sendto(("x"):rep(20)) -- 972 + 28 = 1000: not above the mark
        assert.equal(0, protocol:count("pause"))
        transport:sendto("")
        assert.equal(1008, transport:get_write_buffer_size())
        assert.equal(1, protocol:count("pause"))
        transport:sendto("")
        assert.equal(1, protocol:count("pause"))
        local n = 0
        while n < sent + 8 + 3 do
          helper.recv(loop, b)
          n = n + 1
        end
        protocol:wait(function() return protocol:count("resume") == 1 end)
        assert.is_true(transport:get_write_buffer_size() <= 108)
        protocol:close()
        b:close()
      end)
    end)

    it("sends what waits before it closes, and drops it when aborted", function() -- row: datagram.close_flush
      with_loop(function(loop)
        for _, how in ipairs { "close", "abort" } do
          local a, b = S.socketpair(S.AF_UNIX, S.SOCK_DGRAM)
          local protocol, transport = endpoint(loop, nil, nil, { sock = a })
          local sent = 0
          while transport:get_write_buffer_size() < 3000 do
            sent = sent + 1
            transport:sendto(tostring(sent))
          end
          local waiting = transport:get_write_buffer_size()
          transport[how](transport)
          assert.is_true(transport:is_closing())
          assert.is_false(protocol.is_lost or false)
          assert.equal(how == "close" and waiting or 0, transport:get_write_buffer_size())
          local n = 0
          if how == "close" then
            while n < sent do
              n = n + 1
              assert.equal(tostring(n), helper.recv(loop, b))
            end
          end
          protocol:wait(function() return protocol.is_lost end)
          assert.is_nil(protocol.reason)
          assert.equal(1, protocol:count("lost"))
          b:close()
        end
      end)
    end)

    it("waits without spinning for a full receiver that it isn't connected to", function()
      with_directory(function(loop, directory)
        local there = S.socket(S.AF_UNIX, S.SOCK_DGRAM)
        there:bind(directory .. "/there")
        local protocol, transport = endpoint(loop, nil, nil, { family = S.AF_UNIX })
        local sent = 0
        while transport:get_write_buffer_size() == 0 do
          sent = sent + 1
          transport:sendto(tostring(sent), directory .. "/there")
        end
        local turns = require("aloop.core").stats(loop).turns
        aloop.sleep(0.1)
        assert.is_true(require("aloop.core").stats(loop).turns - turns < 200)
        for i = 1, sent do assert.equal(tostring(i), helper.recv(loop, there)) end
        protocol:close()
        there:close()
      end)
    end)
  end)
end)
