-- aloop.selectors: readiness without a loop, and the kinds of loops.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local selectors = aloop.selectors
local READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

-- {descriptor → events} of what select() returned.
local function by_fd(ready)
  local events = {}
  for _, pair in ipairs(ready) do events[pair[1].fd] = pair[2] end
  return events
end

local function with_pair(Selector, body)
  local selector = Selector()
  local a, b = aloop.socket.socketpair()
  body(selector, a, b)
  selector:close()
  a:close()
  b:close()
end

for _, name in ipairs { "EpollSelector", "PollSelector", "SelectSelector" } do
  local Selector = selectors[name]

  describe(name, function()
    it("select tells what is ready, in keys as they were registered", function()
      with_pair(Selector, function(selector, a, b)
        local key = selector:register(a, READ, "data")
        assert.same({ a, a:fileno(), READ, "data" }, { key.fileobj, key.fd, key.events, key.data })
        assert.same({}, selector:select(0))
        b:send("x")
        local ready = selector:select()
        assert.equal(1, #ready)
        assert.equal(key, ready[1][1])
        assert.equal(READ, ready[1][2])
        assert.same({ [a:fileno()] = READ }, by_fd(selector:select(1))) -- level-triggered
      end)
    end)

    it("select waits no longer than its timeout", function()
      with_pair(Selector, function(selector, a)
        selector:register(a, READ)
        assert.same({}, selector:select(0.001))
        assert.same({}, selector:select(0))
        assert.same({}, selector:select(-1))
      end)
    end)

    it("tells reading and writing apart, and both in one", function()
      with_pair(Selector, function(selector, a, b)
        selector:register(a, READ | WRITE)
        selector:register(b, WRITE)
        assert.same({ [a:fileno()] = WRITE, [b:fileno()] = WRITE }, by_fd(selector:select(1)))
        b:send("x")
        assert.same({ [a:fileno()] = READ | WRITE, [b:fileno()] = WRITE }, by_fd(selector:select(1)))
      end)
    end)

    it("modify changes events and data, unregister ends it", function()
      with_pair(Selector, function(selector, a, b)
        b:send("x")
        selector:register(a, WRITE, 1)
        local key = selector:modify(a, READ, 2)
        assert.same({ READ, 2 }, { key.events, key.data })
        assert.same({ [a:fileno()] = READ }, by_fd(selector:select(1)))
        assert.equal(key, selector:get_key(a))
        assert.equal(key, selector:unregister(a:fileno()))
        assert.same({}, selector:select(0))
        selector:register(a, READ)
        assert.same({ [a:fileno()] = READ }, by_fd(selector:select(1)))
      end)
    end)

    it("knows its keys", function()
      with_pair(Selector, function(selector, a, b)
        local key = selector:register(a, READ)
        local map = selector:get_map()
        assert.equal(key, map[a:fileno()])
        assert.is_nil(map[b:fileno()])
        map[a:fileno()] = nil -- the caller's own
        assert.equal(key, selector:get_key(a))
      end)
    end)

    it("raises LookupError for what is registered already, or isn't", function()
      with_pair(Selector, function(selector, a, b)
        selector:register(a, READ)
        raises(aloop.LookupError, "already registered", selector.register, selector, a:fileno(), WRITE)
        raises(aloop.LookupError, "is not registered", selector.modify, selector, b, READ)
        raises(aloop.LookupError, "is not registered", selector.unregister, selector, b)
        raises(aloop.LookupError, "is not registered", selector.get_key, selector, b)
      end)
    end)

    it("knows an object that was closed meanwhile", function()
      with_pair(Selector, function(selector, a)
        local key = selector:register(a, READ, "data")
        a:close()
        assert.equal(key, selector:get_key(a))
        assert.equal(key, selector:unregister(a))
        assert.same({}, selector:get_map())
        raises(aloop.ValueError, "Invalid file descriptor", selector.unregister, selector, a)
      end)
    end)

    it("modify by the number leaves the object that was registered", function()
      with_pair(Selector, function(selector, a)
        selector:register(a, READ)
        assert.equal(a, selector:modify(a:fileno(), WRITE).fileobj)
        assert.equal(a, selector:unregister(a:fileno()).fileobj)
        raises(aloop.LookupError, "is not registered", selector.unregister, selector, a)
      end)
    end)

    it("modify that fails leaves nothing registered", function()
      with_pair(Selector, function(selector, a)
        local other = a:dup()
        local fd = other:fileno()
        selector:register(other, READ)
        other:close()
        raises(aloop.OSError, "Bad file descriptor", selector.modify, selector, other, WRITE)
        assert.same({}, selector:get_map())
        raises(aloop.LookupError, "is not registered", selector.get_key, selector, fd)
      end)
    end)

    it("may be closed by a finalizer while it selects", function()
      local closed = 0
      for i = 1, 300 do
        with_pair(Selector, function(selector, a)
          selector:register(a, WRITE)
          setmetatable({}, { __gc = function() selector:close() end })
          collectgarbage("step", i % 7)
          for _ = 1, 300 do
            if not pcall(selector.select, selector, 0) then break end
          end
          if not pcall(selector.select, selector, 0) then closed = closed + 1 end
        end)
      end
      assert.is_true(closed > 0)
    end)

    it("select tells all that is ready, however much", function()
      with_pair(Selector, function(selector, a)
        local objects = {}
        for i = 1, 200 do
          objects[i] = a:dup()
          selector:register(objects[i], WRITE)
        end
        for _ = 1, 2 do
          local ready, count = selector:select(), 0
          for _ in pairs(by_fd(ready)) do count = count + 1 end
          assert.same({ 200, 200 }, { #ready, count })
        end
        for _, object in ipairs(objects) do object:close() end
      end)
    end)

    it("refuses events and descriptors that are none", function()
      with_pair(Selector, function(selector, a)
        for _, events in ipairs { 0, 4, -1, 7 } do
          raises(aloop.ValueError, "Invalid events", selector.register, selector, a, events)
        end
        raises(aloop.ValueError, "Invalid file", selector.register, selector, {}, READ)
        raises(aloop.ValueError, "Invalid file", selector.register, selector, -1, READ)
        type_error("selector expected", selector.register, {}, a, READ)
        raises(aloop.ValueError, "'select': timeout must not be NaN", selector.select, selector, 0 / 0)
        assert.same({}, selector:get_map())
      end)
    end)

    it("is of no more use when it is closed", function()
      with_pair(Selector, function(selector, a)
        selector:register(a, READ)
        selector:close()
        selector:close()
        raises(aloop.ValueError, "closed", selector.select, selector, 0)
        raises(aloop.ValueError, "closed", selector.register, selector, a, READ)
        raises(aloop.RuntimeError, "closed", selector.get_key, selector, a)
        assert.is_nil(selector:get_map())
      end)
    end)

    it("opens nothing until it is used, and closes at the end of its scope", function()
      local before = helper.count_fds()
      do
        local selector <close> = Selector()
        assert.equal(before, helper.count_fds())
        local a, b = aloop.socket.socketpair()
        selector:register(a, READ)
        a:close()
        b:close()
      end
      assert.equal(before, helper.count_fds())
    end)

    it("makes a loop of its kind", function()
      local loop = aloop.SelectorEventLoop(Selector())
      local a, b = aloop.socket.socketpair()
      loop:add_reader(a, loop.stop, loop)
      b:send("x")
      loop:run_forever()
      loop:remove_reader(a)
      loop:close()
      a:close()
      b:close()
    end)
  end)
end

describe("selectors", function()
  it("has epoll as the default, and no kqueue here", function()
    assert.equal(selectors.EpollSelector, selectors.DefaultSelector)
    raises(aloop.NotImplementedError, "kqueue", selectors.KqueueSelector)
    assert.equal(1, READ)
    assert.equal(2, WRITE)
  end)

  it("epoll refuses a regular file, poll finds it ready always", function()
    local file = assert(io.open("/etc/passwd"))
    local epoll, poll = selectors.EpollSelector(), selectors.PollSelector()
    raises(aloop.PermissionError, nil, epoll.register, epoll, file, READ)
    poll:register(file, READ)
    assert.equal(file, poll:select(1)[1][1].fileobj)
    epoll:close()
    poll:close()
    file:close()
  end)

  it("select refuses descriptors that are too large for it, also in a loop", function()
    local out = helper.output_of([[
      local aloop = require "aloop"
      local loop <close> = aloop.SelectorEventLoop(aloop.selectors.SelectSelector())
      local held, a, b = {}, nil, nil
      repeat
        held[#held + 1] = aloop.socket.socket()
        a, b = aloop.socket.socketpair()
      until a:fileno() >= 1024
      local text = "filedescriptor out of range in select()"
      local function refused(f, ...)
        local ok, e = pcall(f, ...)
        assert(not ok and aloop.isinstance(e, aloop.ValueError) and e.message:find(text, 1, true), e)
      end
      local selector = aloop.selectors.SelectSelector()
      refused(selector.register, selector, a, 1)
      selector:close()
      loop:run_until_complete(function()
        refused(loop.add_reader, loop, a, print)
        refused(loop.add_writer, loop, a, print)
        refused(loop.sock_recv, loop, a, 1)
        refused(loop.create_server, loop, aloop.Protocol, "127.0.0.1", 0)
        refused(loop.create_connection, loop, aloop.Protocol, "127.0.0.1", 9)
        local lost = loop:create_future()
        local protocol = { connection_lost = function(_, e) lost:set_exception(e) end }
        loop:create_connection(function() return protocol end, nil, nil, { sock = a })
        refused(lost.await, lost)
      end)
      print "refused"
    ]], { before = "ulimit -Sn 2200" })
    assert.equal("refused\n", out)
  end)

  it("a loop refuses what is no selector", function()
    type_error("selector expected", aloop.SelectorEventLoop, {})
    type_error("selector expected", aloop.SelectorEventLoop, 42)
  end)
end)
