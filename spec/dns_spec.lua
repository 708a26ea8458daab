-- getaddrinfo and getnameinfo, and what a name server that doesn't answer leaves undisturbed.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local S = aloop.socket

-- In namespaces of its own: a name server that says nothing, at an address where it disturbs nobody.
local SETUP = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$@"'
local PROBE = "unshare -rmn sh -c 'ip link set lo up && mount --bind /dev/null /etc/resolv.conf' 2>/dev/null"
local RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n"

local DEAD_SERVER = [[
  local aloop = require "aloop"
  local loop = ({
    epoll = function() return aloop.SelectorEventLoop(aloop.selectors.EpollSelector()) end,
    poll = function() return aloop.SelectorEventLoop(aloop.selectors.PollSelector()) end,
    select = function() return aloop.SelectorEventLoop(aloop.selectors.SelectSelector()) end,
    ring = aloop.ProactorEventLoop,
  })[arg[1] ]()
  loop:run_until_complete(function()
    local asked = 0
    local dead = loop:create_datagram_endpoint(function()
      return { datagram_received = function() asked = asked + 1 end }
    end, { "127.0.0.1", 53 })
    local tasks = {}
    for i = 1, 100 do
      tasks[i] = loop:create_task(function() return loop:getaddrinfo("host" .. i .. ".example", 80) end)
    end
    while asked < 4 do aloop.sleep(0.001) end
    local began = loop:time()
    aloop.sleep(0.02)
    local server = loop:create_server(function() return {} end, "127.0.0.1", 0)
    local address = server.sockets[1]:getsockname()
    local transport = loop:create_connection(function() return {} end, address.host, address.port)
    print("numeric", transport:get_extra_info("peername").host, #loop:getaddrinfo("::1", 80) > 0)
    print("name", (loop:getnameinfo({ "127.0.0.1", 80 }, aloop.socket.NI_NUMERICHOST | aloop.socket.NI_NUMERICSERV)))
    print("at once", loop:time() - began < 15)
    for i = 1, 100 do tasks[i]:cancel() end
    local cancelled = 0
    for i = 1, 100 do
      if not pcall(tasks[i].await, tasks[i]) and tasks[i]:cancelled() then cancelled = cancelled + 1 end
    end
    print("cancelled", cancelled)
    transport:close()
    server:close()
    dead:close()
    server:wait_closed()
  end)
  loop:close()
  print("closed")
]]

describe("numbers alone", function()
  it("are answered at once: a main chunk's loop does not begin to turn", function()
    local out = helper.output_of [[
      local aloop = require "aloop"
      local S, loop = aloop.socket, aloop.get_event_loop()
      local found = loop:getaddrinfo("127.0.0.1", "80", { type = S.SOCK_STREAM, flags = S.AI_CANONNAME })
      print(#found, found[1].sockaddr, found[1].canonname, found[1].proto == S.IPPROTO_TCP)
      print(loop:getnameinfo({ "::1", 443 }, S.NI_NUMERICHOST | S.NI_NUMERICSERV))
      print(select(2, pcall(loop.getaddrinfo, loop, "::1", 1, { family = S.AF_INET })).code)
      print((pcall(aloop.get_running_loop)))
    ]]
    assert.equal("1\t127.0.0.1:80\t127.0.0.1\ttrue\n::1\t443\nEAI_ADDRFAMILY\nfalse\n", out)
  end)
end)

helper.each_loop(function(kind, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  describe("getaddrinfo", function()
    it("takes family, type, proto and flags", function() -- row: getaddrinfo
      with_loop(function(loop)
        local one = loop:getaddrinfo("127.0.0.1", 80, {
          family = S.AF_INET, type = S.SOCK_DGRAM, proto = S.IPPROTO_UDP,
        })
        assert.equal(1, #one)
        assert.same({ S.AF_INET, S.SOCK_DGRAM, S.IPPROTO_UDP, "" },
          { one[1].family, one[1].type, one[1].proto, one[1].canonname })
        assert.same({ "127.0.0.1", 80 }, { one[1].sockaddr[1], one[1].sockaddr[2] })
        local named = loop:getaddrinfo("127.0.0.1", "80", { type = S.SOCK_STREAM, flags = S.AI_CANONNAME })
        assert.equal("127.0.0.1", named[1].canonname)
        assert.is_true(#loop:getaddrinfo("127.0.0.1", 80) > 1) -- one for each type
        local any = loop:getaddrinfo(nil, 80, { family = S.AF_INET, flags = S.AI_PASSIVE })
        assert.equal("0.0.0.0", any[1].sockaddr.host)
        local six = loop:getaddrinfo("::1", 80, { type = S.SOCK_STREAM })
        assert.same({ "::1", 80, 0, 0 }, { table.unpack(six[1].sockaddr, 1, 4) })
        assert.equal(0, loop:getaddrinfo("127.0.0.1", nil, { type = S.SOCK_STREAM })[1].sockaddr.port)
      end)
    end)

    it("raises gaierror for what isn't there", function() -- row: getaddrinfo.errors
      with_loop(function(loop)
        local ask = loop.getaddrinfo
        for _, case in ipairs {
          { "localhost", 80, { flags = S.AI_NUMERICHOST } }, { "127.0.0.1", "no-such-service" },
          { "::1", 80, { family = S.AF_INET } }, { nil, nil },
        } do
          local e = raises(aloop.gaierror, nil, ask, loop, case[1], case[2], case[3])
          assert.is_true(aloop.isinstance(e, aloop.OSError))
          assert.matches("^EAI_", e.code)
        end
      end)
    end)

    it("refuses what is no name, port or option", function()
      with_loop(function(loop)
        type_error("bad argument #1 to 'getaddrinfo' (string expected, got table)", loop.getaddrinfo, loop, {}, 80)
        type_error("bad argument #2 to 'getaddrinfo' (integer or string expected", loop.getaddrinfo, loop, "x", {})
        type_error("bad option 'family' to 'getaddrinfo'", loop.getaddrinfo, loop, "x", 80, { family = "inet" })
        type_error("unknown option 'kind' to 'getaddrinfo'", loop.getaddrinfo, loop, "x", 80, { kind = 1 })
        raises(aloop.ValueError, "port must be 0-65535", loop.getaddrinfo, loop, "x", 65536)
        raises(aloop.ValueError, "port must be 0-65535, not 99999", loop.getaddrinfo, loop, "127.0.0.1", "99999")
        raises(aloop.ValueError, "port must be 0-65535", loop.create_server, loop, aloop.Protocol, "127.0.0.1", "65536")
      end)
    end)
  end)

  it("nowhere takes a name with a NUL for what stands before it", function()
    with_loop(function(loop)
      local nul, P = "127.0.0.1\0.example", aloop.Protocol
      local udp <close> = S.socket(S.AF_INET, S.SOCK_DGRAM)
      for _, f in ipairs {
        function() loop:getaddrinfo(nul, 80) end,
        function() loop:getaddrinfo("127.0.0.1", "80\0") end,
        function() loop:getnameinfo { nul, 80 } end,
        function() loop:create_connection(P, nul, 80) end,
        function() loop:create_connection(P, "127.0.0.1", 80, { local_addr = { nul, 0 } }) end,
        function() loop:create_server(P, { "127.0.0.1", nul }, 0) end,
        function() loop:create_datagram_endpoint(P, { nul, 0 }) end,
        function() udp:sendto("x", { nul, 9 }) end,
      } do
        raises(aloop.ValueError, "has a NUL in it", f)
      end
    end)
  end)

  describe("getnameinfo", function()
    it("looks no name up, which would block", function() -- row: getnameinfo
      with_loop(function(loop)
        local e = raises(aloop.gaierror, nil, loop.getnameinfo, loop, { "localhost", 80 })
        assert.equal("EAI_NONAME", e.code)
      end)
    end)

    it("names addresses of both families", function() -- row: getnameinfo
      with_loop(function(loop)
        local numeric = S.NI_NUMERICHOST | S.NI_NUMERICSERV
        assert.same({ "127.0.0.1", "80" }, { loop:getnameinfo({ "127.0.0.1", 80 }, numeric) })
        assert.same({ "::1", "443" }, { loop:getnameinfo({ "::1", 443 }, numeric) })
        assert.same({ "::1", "443" }, { loop:getnameinfo({ "::1", 443, 0, 0 }, numeric) })
        local host, service = loop:getnameinfo { "127.0.0.1", 80 }
        assert.is_string(host)
        assert.is_string(service)
        raises(aloop.gaierror, nil, loop.getnameinfo, loop, { "203.0.113.9", 80 }, S.NI_NAMEREQD | S.NI_NUMERICSERV)
      end)
    end)

    it("refuses what is no address", function()
      with_loop(function(loop)
        for _, value in ipairs { "127.0.0.1", {} } do
          type_error("bad argument #1 to 'getnameinfo' (address {host, port} exp", loop.getnameinfo, loop, value)
        end
        type_error("bad argument #2 to 'getnameinfo'", loop.getnameinfo, loop, { "127.0.0.1", 80 }, "x")
        raises(aloop.ValueError, "port must be 0-65535", loop.getnameinfo, loop, { "127.0.0.1", -1 })
      end)
    end)
  end)

  -- row: dns.executor, dns.nonblocking; point: 36
  it("a hundred lookups at a dead name server disturb nothing else", function()
    local conf, script = helper.write_file(RESOLV_CONF), helper.write_file(DEAD_SERVER)
    local argv = { "unshare", "-rmn", "sh", "-c", SETUP, conf, helper.aloop, script, kind }
    if not os.execute(PROBE) then
      pending "no namespaces here" -- luacheck: ignore 113
    end
    local result = helper.start_program(argv):wait()
    os.remove(conf)
    os.remove(script)
    assert.equal(0, result.code, result.stderr)
    assert.equal("numeric\t127.0.0.1\ttrue\nname\t127.0.0.1\nat once\ttrue\ncancelled\t100\nclosed\n", result.stdout)
  end)
end)
