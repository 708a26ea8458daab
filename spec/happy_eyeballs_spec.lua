-- create_connection with several addresses: happy eyeballs, interleaving, what is told when all fail.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises
local S = aloop.socket

local function nop() end

-- A loop whose names are looked up in a table: name → list of addresses.
local function resolve_with(loop, names)
  local class = aloop.isinstance(loop, aloop.ProactorEventLoop) and aloop.ProactorEventLoop or aloop.SelectorEventLoop
  local Resolving = class:extend("Resolving")
  function Resolving.getaddrinfo(_, host)
    local list = {}
    for i, address in ipairs(names[host]) do
      list[i] = {
        family = address[1]:find(":", 1, true) and S.AF_INET6 or S.AF_INET, type = S.SOCK_STREAM, proto = S.IPPROTO_TCP,
        sockaddr = address,
      }
    end
    return list
  end
  debug.setmetatable(loop, Resolving)
  return function() debug.setmetatable(loop, class) end
end

-- Addresses that refuse: sockets that are bound and don't listen.
local function refusing(hosts)
  local addresses, socks = {}, {}
  for i, host in ipairs(hosts) do
    socks[i] = S.socket(host:find(":", 1, true) and S.AF_INET6 or S.AF_INET, S.SOCK_STREAM)
    socks[i]:bind { host, 0 }
    addresses[i] = socks[i]:getsockname()
  end
  return addresses, function()
    for _, sock in ipairs(socks) do sock:close() end
  end
end

helper.each_loop(function(_, new_loop)
  -- body(loop, names): names are what the loop resolves.
  local function with_names(body)
    helper.with_loop(new_loop, function(loop, trial)
      local names = {}
      local restore = resolve_with(loop, names)
      body(loop, names, trial)
      restore()
    end)
  end

  local function settle()
    for _ = 1, 5 do aloop.sleep(0) end
  end

  -- Connects, closes at once and returns where it was.
  local function try(loop, options)
    local protocol = helper.Recorder(loop)
    local transport = loop:create_connection(helper.always(protocol), "name", 1, options)
    local peer = tostring(transport:get_extra_info("peername"))
    transport:close()
    protocol:wait_lost()
    return peer
  end

  describe("happy eyeballs", function()
    -- row: create_connection.happy_eyeballs_delay
    it("passes an address that doesn't answer after the delay", function()
      with_names(function(loop, names)
        local hole, fill_in = helper.black_hole()
        local listener, address = helper.listen()
        local fds = helper.count_fds()
        names.name = { hole, address }
        local began = loop:time()
        assert.equal(tostring(address), try(loop, { happy_eyeballs_delay = 0.05 }))
        assert.is_true(loop:time() - began >= 0.05)
        settle()
        assert.equal(fds, helper.count_fds())
        fill_in()
        listener:close()
      end)
    end)

    it("goes on at once when an attempt fails", function()
      with_names(function(loop, names)
        local refused, close = refusing { "127.0.0.1", "127.0.0.1", "::1" }
        local listener, address = helper.listen()
        names.name = { refused[1], refused[2], refused[3], address }
        local began = loop:time()
        assert.equal(tostring(address), try(loop, { happy_eyeballs_delay = 20 }))
        assert.is_true(loop:time() - began < 10)
        close()
        listener:close()
      end)
    end)

    it("has one winner, and closes the others", function() -- bug: 19
      with_names(function(loop, names)
        local listeners = {}
        names.name = {}
        for i = 1, 6 do listeners[i], names.name[i] = helper.listen() end
        local fds = helper.count_fds()
        local made = 0
        for _ = 1, 10 do
          local protocol = helper.Recorder(loop)
          local transport = loop:create_connection(function()
            made = made + 1
            return protocol
          end, "name", 1, { happy_eyeballs_delay = 0 })
          transport:close()
          protocol:wait_lost()
        end
        settle()
        assert.equal(10, made)
        assert.equal(fds, helper.count_fds())
        for _, listener in ipairs(listeners) do listener:close() end
      end)
    end)

    it("cancelled while several attempts go on leaves nothing behind", function()
      with_names(function(loop, names)
        local holes, closers = {}, {}
        for i = 1, 3 do holes[i], closers[i] = helper.black_hole() end
        local fds = helper.count_fds()
        names.name = holes
        for turns = 0, 12, 3 do
          local task = loop:create_task(function()
            loop:create_connection(nop, "name", 1, { happy_eyeballs_delay = turns > 6 and 0 or 10 })
          end)
          for _ = 1, turns do aloop.sleep(0) end
          task:cancel()
          raises(aloop.CancelledError, nil, task.await, task)
          settle()
          assert.equal(fds, helper.count_fds())
        end
        for _, close in ipairs(closers) do close() end
      end)
    end)

    it("is ended by the loop's close", function()
      local hole, fill_in = helper.black_hole()
      helper.drive(new_loop, function(loop, trial)
        local restore = resolve_with(loop, { name = { hole, hole, hole } })
        loop:create_task(function() loop:create_connection(nop, "name", 1, { happy_eyeballs_delay = 0 }) end)
        helper.turn(loop, 6)
        restore()
        loop:close()
        loop = nil -- luacheck: ignore 311
        collectgarbage()
        assert.equal("Task was destroyed but it is pending!", trial:take_error().message)
      end, { open = true })
      fill_in()
    end)

    it("still waits for an attempt when those after it have failed", function()
      with_names(function(loop, names)
        local hole, fill_in = helper.black_hole()
        local refused, close = refusing { "127.0.0.1" }
        names.name = { hole, refused[1] }
        local e = raises(aloop.TimeoutError, nil, aloop.wait_for, function()
          loop:create_connection(nop, "name", 1, { happy_eyeballs_delay = 0.01 })
        end, 0.1)
        assert.is_not_nil(e)
        fill_in()
        close()
      end)
    end)
  end)

  describe("several addresses", function()
    local function hosts_of(group)
      local hosts = {}
      for i, e in ipairs(group.exceptions) do hosts[i] = e.message:find("[::1]", 1, true) and 6 or 4 end
      return hosts
    end

    -- row: create_connection.interleave, create_connection.interleave_default
    it("are tried in the resolver's order, or with the families alternating", function()
      with_names(function(loop, names)
        local close
        names.name, close = refusing { "::1", "::1", "::1", "127.0.0.1", "127.0.0.1" }
        local function order(options)
          options.all_errors = true
          local create = loop.create_connection
          local group = raises(aloop.ExceptionGroup, "create_connection failed", create, loop, nop, "name", 1, options)
          for _, e in ipairs(group.exceptions) do assert.is_true(aloop.isinstance(e, aloop.ConnectionRefusedError)) end
          return hosts_of(group)
        end
        assert.same({ 6, 6, 6, 4, 4 }, order {})
        assert.same({ 6, 6, 6, 4, 4 }, order { interleave = 0 })
        assert.same({ 6, 4, 6, 4, 6 }, order { interleave = 1 })
        assert.same({ 6, 6, 4, 6, 4 }, order { interleave = 2 })
        assert.same({ 6, 6, 6, 4, 4 }, order { interleave = 9 })
        assert.same({ 6, 4, 6, 4, 6 }, order { happy_eyeballs_delay = 5 })
        assert.same({ 6, 6, 6, 4, 4 }, order { happy_eyeballs_delay = 5, interleave = 0 })
        close()
      end)
    end)

    it("that all fail raise one error: a common one, or one that joins all", function()
      with_names(function(loop, names)
        local refused, close = refusing { "127.0.0.1", "::1" }
        names.name = { refused[1], refused[1] }
        local e = raises(aloop.ConnectionRefusedError, nil, loop.create_connection, loop, nop, "name", 1)
        assert.equal(111, e.errno)
        names.name = refused
        for _, delay in ipairs { false, 5 } do
          e = raises(aloop.OSError, nil, loop.create_connection, loop, nop, "name", 1, {
            happy_eyeballs_delay = delay or nil, interleave = 0,
          })
          assert.matches("^Multiple exceptions: .*" .. refused[1].port .. ".*, .*" .. refused[2].port, e.message)
        end
        close()
      end)
    end)

    it("count each local address that could not be bound", function()
      with_names(function(loop, names)
        local listener, address = helper.listen()
        names.name = { address, { "::1", 1 } }
        names.here = { { "203.0.113.1", 0 }, { "203.0.113.2", 0 } }
        local group = raises(aloop.ExceptionGroup, nil, loop.create_connection, loop, nop, "name", 1, {
          local_addr = { "here", 0 }, all_errors = true,
        })
        assert.equal(3, #group.exceptions)
        assert.matches("^error while attempting to bind on address 203.0.113.1:0: cannot", group.exceptions[1].message)
        assert.matches("203.0.113.2:0", group.exceptions[2].message)
        assert.matches("no matching local address with family=AF_INET6 found", group.exceptions[3].message)
        names.here = { { "203.0.113.1", 0 }, { "127.0.0.2", 0 } }
        local protocol = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(protocol), "name", 1, { local_addr = { "here", 0 } })
        assert.equal("127.0.0.2", transport:get_extra_info("sockname").host)
        transport:close()
        protocol:wait_lost()
        listener:close()
      end)
    end)

    it("may be none", function()
      with_names(function(loop, names)
        names.name, names.here = {}, {}
        raises(aloop.OSError, "getaddrinfo() returned empty list", loop.create_connection, loop, nop, "name", 1)
        raises(aloop.OSError, "getaddrinfo() returned empty list", loop.create_connection, loop, nop, "127.0.0.1", 1, {
          local_addr = { "here", 0 },
        })
      end)
    end)
  end)

  it("refuses delays and counts that are none", function()
    helper.with_loop(new_loop, function(loop)
      local create = loop.create_connection
      for _, delay in ipairs { -1, 0 / 0 } do
        raises(aloop.ValueError, "happy_eyeballs_delay", create, loop, nop, "127.0.0.1", 1, {
          happy_eyeballs_delay = delay,
        })
      end
      raises(aloop.ValueError, "interleave", create, loop, nop, "127.0.0.1", 1, { interleave = -1 })
      helper.type_error("bad option 'happy_eyeballs_delay' to 'create_connection'", create, loop, nop, "127.0.0.1", 1, {
        happy_eyeballs_delay = "soon",
      })
    end)
  end)
end)
