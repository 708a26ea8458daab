-- create_datagram_endpoint and its options.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local datagrams = require "spec.support.datagrams"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local Datagrams, endpoint, sockname = datagrams.Datagrams, datagrams.endpoint, datagrams.sockname
local with_resolver = datagrams.with_resolver
local S = aloop.socket

local function nop() end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  describe("create_datagram_endpoint", function()
    it("refuses reuse_address", function() -- row: create_datagram_endpoint.reuse_address
      with_loop(function(loop)
        raises(aloop.ValueError, "reuse_address", loop.create_datagram_endpoint, loop, nop, { "127.0.0.1", 0 }, nil, {
          reuse_address = true,
        })
        local protocol, transport = endpoint(loop, { "127.0.0.1", 0 })
        assert.equal(0, transport:get_extra_info("socket"):getsockopt(S.SOL_SOCKET, S.SO_REUSEADDR))
        protocol:close()
      end)
    end)

    it("shares a port with reuse_port only", function() -- row: create_datagram_endpoint.reuse_port
      with_loop(function(loop)
        local one, transport = endpoint(loop, { "127.0.0.1", 0 }, nil, { reuse_port = true })
        local address = sockname(transport)
        local other = endpoint(loop, { "127.0.0.1", address.port }, nil, { reuse_port = true })
        local e = raises(aloop.OSError, tostring(address), loop.create_datagram_endpoint, loop, nop,
          { "127.0.0.1", address.port })
        assert.equal("EADDRINUSE", e.code)
        one:close()
        other:close()
      end)
    end)

    -- row: create_datagram_endpoint.allow_broadcast, create_datagram_endpoint.broadcast_no_connect
    it("isn't connected if it may broadcast", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local other, elsewhere = endpoint(loop, { "127.0.0.1", 0 })
        local client, transport = endpoint(loop, { "127.0.0.1", 0 }, sockname(at), { allow_broadcast = true })
        assert.equal(1, transport:get_extra_info("socket"):getsockopt(S.SOL_SOCKET, S.SO_BROADCAST))
        assert.is_nil(transport:get_extra_info("peername"))
        transport:sendto("to the remote address")
        assert.same({ "to the remote address" }, server:wait_got(1))
        transport:sendto("again", sockname(at))
        server:wait_got(2)
        elsewhere:sendto("from another", sockname(transport))
        assert.same({ "from another" }, client:wait_got(1))
        -- row: datagram.sendto_addr_check
        local only = "Invalid address: must be nil or " .. tostring(sockname(at))
        raises(aloop.ValueError, only, transport.sendto, transport, "x", sockname(elsewhere))
        for _, protocol in ipairs { server, other, client } do protocol:close() end
      end)
    end)

    it("needs a family without addresses", function() -- row: create_datagram_endpoint.family
      with_loop(function(loop)
        raises(aloop.ValueError, "unexpected address family", loop.create_datagram_endpoint, loop, nop)
        raises(aloop.ValueError, "unexpected address family", loop.create_datagram_endpoint, loop, nop, nil, nil, {})
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local bare, transport = endpoint(loop, nil, nil, { family = S.AF_INET })
        transport:sendto("x", { "127.0.0.1", sockname(at).port })
        assert.same({ "x" }, server:wait_got(1))
        raises(aloop.ValueError, "needs an address", transport.sendto, transport, "x")
        server:close()
        bare:close()
      end)
    end)

    it("looks names up by the loop's getaddrinfo", function() -- row: create_datagram_endpoint.proto_flags
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local asked = {}
        local function getaddrinfo(_, host, port, options)
          asked[#asked + 1] = { host = host, port = port, options = options }
          return { { family = S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP,
            sockaddr = { "127.0.0.1", host == "there" and sockname(at).port or 0 } } }
        end
        local client, transport
        with_resolver(loop, getaddrinfo, function()
          client, transport = endpoint(loop, { "here", 7 }, { "there", "service" }, {
            proto = S.IPPROTO_UDP, flags = S.AI_PASSIVE, family = S.AF_INET,
          })
        end)
        local options = { family = S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP, flags = S.AI_PASSIVE }
        assert.same({ { host = "here", port = 7, options = options },
          { host = "there", port = "service", options = options } }, asked)
        transport:sendto("x")
        assert.same({ "x" }, server:wait_got(1))
        client:close()
        server:close()
      end)
    end)

    it("resolves names", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "localhost", 0 }, nil, { family = S.AF_INET })
        local there = { "localhost", tostring(sockname(at).port) }
        local client, transport = endpoint(loop, nil, there, { family = S.AF_INET })
        transport:sendto("x")
        assert.matches("^<DatagramTransport fd=", tostring(transport))
        assert.same({ "x" }, server:wait_got(1))
        raises(aloop.gaierror, nil, loop.create_datagram_endpoint, loop, nop, nil, { "no-such-host.invalid", 9 })
        client:close()
        server:close()
      end)
    end)

    -- row: create_datagram_endpoint.family_match
    it("wants both addresses to be of one family", function()
      with_loop(function(loop)
        raises(aloop.ValueError, "can not get address information", loop.create_datagram_endpoint, loop, nop,
          { "127.0.0.1", 0 }, { "::1", 9 })
      end)
    end)

    it("tries one pair after the other", function() -- row: create_datagram_endpoint.try_next
      with_loop(function(loop)
        local answer
        local function info(host)
          return { family = host:find(":") and S.AF_INET6 or S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP,
            sockaddr = { host, 0 } }
        end
        local create = loop.create_datagram_endpoint
        with_resolver(loop, function() return answer end, function()
          answer = { info "203.0.113.77", info "::1", info "127.0.0.1" }
          local protocol, transport = endpoint(loop, { "name", 0 })
          assert.equal("::1", sockname(transport).host)
          protocol:close()
          answer = { info "203.0.113.77", info "2001:db8::77" }
          local fds = helper.count_fds()
          local e = raises(aloop.OSError, "203.0.113.77", create, loop, nop, { "name", 0 })
          assert.equal("EADDRNOTAVAIL", e.code)
          assert.equal(fds, helper.count_fds())
          answer = {}
          raises(aloop.OSError, "getaddrinfo() returned empty list", create, loop, nop, { "name", 0 })
        end)
      end)
    end)

    it("checks its arguments", function() -- row: create_datagram_endpoint.addr_type
      with_loop(function(loop)
        local create = loop.create_datagram_endpoint
        local text = "bad argument #%d to 'create_datagram_endpoint' (address {host, port} expected, got %s)"
        type_error(text:format(2, "string"), create, loop, nop, "x")
        type_error(text:format(3, "table"), create, loop, nop, nil, {})
        type_error(text:format(3, "table"), create, loop, nop, nil, { "127.0.0.1", 1.5 })
        type_error(text:format(2, "table"), create, loop, nop, { "127.0.0.1" })
        type_error(text:format(3, "table"), create, loop, nop, nil, { "127.0.0.1" })
        type_error("bad argument #2 to 'create_datagram_endpoint' (string expected, got table)", create, loop, nop,
          { "127.0.0.1", 0 }, nil, { family = S.AF_UNIX })
        type_error("bad option 'family' to 'create_datagram_endpoint'", create, loop, nop, nil, nil, { family = "x" })
        type_error("unknown option 'reuse' to 'create_datagram", create, loop, nop, nil, nil, { reuse = true })
        raises(aloop.ValueError, "port must be 0-65535", create, loop, nop, { "127.0.0.1", 65536 })
        type_error("bad option 'sock'", create, loop, nop, nil, nil, { sock = 3.5 })
      end)
    end)
  end)

  describe("create_datagram_endpoint with sock", function()
    -- row: create_datagram_endpoint.sock, create_datagram_endpoint.sock_ownership
    it("takes over a connected socket", function()
      with_loop(function(loop)
        local server, at = endpoint(loop, { "127.0.0.1", 0 })
        local sock = S.socket(S.AF_INET, S.SOCK_DGRAM)
        sock:connect(sockname(at))
        local client, transport = endpoint(loop, nil, nil, { sock = sock })
        assert.equal(tostring(sockname(at)), tostring(transport:get_extra_info("peername")))
        transport:sendto("x")
        transport:sendto("y", sockname(at))
        assert.same({ "x", "y" }, server:wait_got(2))
        raises(aloop.ValueError, "Invalid address", transport.sendto, transport, "z", { "127.0.0.1", 9 })
        client:close()
        aloop.sleep(0)
        assert.equal(-1, sock:fileno())
        server:close()
      end)
    end)

    it("refuses what would change it, and streams", function() -- row: create_datagram_endpoint.sock_type
      with_loop(function(loop)
        local create = loop.create_datagram_endpoint
        local sock, stream = S.socket(S.AF_INET, S.SOCK_DGRAM), S.socket(S.AF_INET, S.SOCK_STREAM)
        for name, value in pairs { family = S.AF_INET, proto = S.IPPROTO_UDP, flags = 1, reuse_port = true,
          allow_broadcast = true } do
          raises(aloop.ValueError, "(" .. name .. ")", create, loop, nop, nil, nil, { sock = sock, [name] = value })
        end
        raises(aloop.ValueError, "(local_addr)", create, loop, nop, { "127.0.0.1", 0 }, nil, { sock = sock })
        raises(aloop.ValueError, "(remote_addr)", create, loop, nop, nil, { "127.0.0.1", 9 }, { sock = sock })
        raises(aloop.ValueError, "A datagram socket was expected", create, loop, nop, nil, nil, { sock = stream })
        assert.is_true(sock:fileno() >= 0)
        sock:close()
        stream:close()
      end)
    end)

    it("leaves no descriptor behind when the factory fails", function()
      with_loop(function(loop)
        local fds = helper.count_fds()
        raises(aloop.Error, "no protocol", loop.create_datagram_endpoint, loop, function()
          error(aloop.Error("no protocol"))
        end, { "127.0.0.1", 0 })
        assert.equal(fds, helper.count_fds())
      end)
    end)

    it("is closed when cancelled before connection_made", function()
      with_loop(function(loop)
        local protocol = Datagrams(loop)
        local task = loop:create_task(function()
          loop:create_datagram_endpoint(helper.always(protocol), { "127.0.0.1", 0 })
        end)
        loop:call_soon(function() task:cancel() end)
        raises(aloop.CancelledError, nil, task.await, task)
        protocol:wait(function() return protocol.is_lost or #protocol.events == 0 end)
      end)
    end)
  end)
end)
