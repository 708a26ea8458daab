-- Values by value: what a function that is sent to another Lua state takes along, and what is refused.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local core = require "aloop.core"
local helper = require "spec.helper"
local raises = helper.raises

-- Over and back, through bytes.
local function travel(...)
  return core.unmarshal(core.marshal(...))
end

local function echo(...)
  return ...
end

-- The ways that values take: through bytes in this state, through a worker thread's, through a worker process.
local function each_way(body)
  it("through bytes", function() body(travel) end)
  for _, class in ipairs { "ThreadPoolExecutor", "ProcessPoolExecutor" } do
    it("through a " .. class, function()
      helper.as_task(function()
        local pool <close> = aloop[class] { max_workers = 1 }
        body(function(...) return pool:submit(echo, ...):result() end)
      end)
    end)
  end
end

describe("plain values", function() -- row: executors
  each_way(function(way)
    local values = table.pack(nil, true, false, 0, -1, 1, 127, 128, -128, 1 << 40, math.mininteger, math.maxinteger,
      0.0, -0.0, 1.5, math.huge, -math.huge, "", "a\0b", ("x"):rep(255), ("y"):rep(256), ("z"):rep(100000), nil)
    local got = table.pack(way(table.unpack(values, 1, values.n)))
    assert.equal(values.n, got.n)
    for i = 1, values.n do
      assert.equal(values[i], got[i])
      assert.equal(math.type(values[i]), math.type(got[i]))
    end
    assert.equal(-math.huge, 1 / got[14])
    local nan = way(0 / 0)
    assert.is_true(nan ~= nan)
    assert.equal(0, select("#", way()))
  end)
end)

describe("tables", function()
  each_way(function(way)
    local shared = { "shared" }
    local t = { 1, 2, nil, 4, [10] = "ten", [-1] = "minus", [1.5] = "float", [true] = "yes", x = shared, y = shared }
    t.self, t[t] = t, "itself"
    local u = way(t)
    assert.is_true(u ~= t)
    assert.equal(u, u.self)
    assert.equal("itself", u[u])
    assert.equal(u.x, u.y)
    assert.equal("shared", u.x[1])
    assert.same({ 1, 2, nil, 4 }, { u[1], u[2], u[3], u[4] })
    assert.same({ "ten", "minus", "float", "yes" }, { u[10], u[-1], u[1.5], u[true] })
    local a, b = way(shared, { shared })
    assert.equal(a, b[1])
    local list = {}
    for i = 1, 1000 do list[i] = { id = i, name = "n" .. i } end
    list = way(list)
    assert.equal(1000, #list)
    assert.same({ id = 777, name = "n777" }, list[777])
  end)
end)

it("tables of any depth, without a limit of the stack", function()
  local deep = {}
  local at = deep
  for _ = 1, 100000 do
    at.next = {}
    at = at.next
  end
  local n = 0
  at = travel(deep)
  while at.next do at, n = at.next, n + 1 end
  assert.equal(100000, n)
  local chain = function() return 0 end
  for _ = 1, 10000 do
    local inner = chain
    chain = function() return inner end
  end
  n = 0
  at = travel(chain)
  while at ~= 0 do at, n = at(), n + 1 end
  assert.equal(10001, n)
end)

describe("functions", function()
  each_way(function(way)
    local count, name = 10, "counter"
    local function up() count = count + 1 return count end
    local function get() return name, count end
    local function fact(n) return n <= 1 and 1 or n * fact(n - 1) end
    local up2, get2, fact2 = way(up, get, fact)
    assert.equal(11, up2())
    assert.same({ "counter", 11 }, { get2() }) -- the upvalue is shared there, too
    assert.equal(10, count) -- but not with ours
    assert.equal(120, fact2(5)) -- it refers to itself
    assert.is_true(up2 ~= up)
    local again = way(up)
    assert.equal(11, again())
    assert.equal(12, up2())
    local f, t = way(get, { get })
    assert.equal(f, t[1])
    local vararg = way(function(...) return select("#", ...) end)
    assert.equal(3, vararg(nil, nil, nil))
  end)
end)

it("_ENV becomes the globals of the state that runs it", function()
  helper.as_task(function()
    local pool <close> = aloop.ThreadPoolExecutor { max_workers = 1 }
    local function set() marshalled = 42 end -- luacheck: ignore 111
    pool:submit(set):result()
    assert.is_nil(rawget(_G, "marshalled"))
    assert.equal(42, pool:submit(function() return marshalled end):result()) -- luacheck: ignore 113
    local globals = _G
    assert.equal(42, pool:submit(function() return globals.marshalled end):result())
    local ours
    do
      local _ENV = { other = true } -- luacheck: ignore 211
      function ours() return tostring(1), other end -- luacheck: ignore 113
    end
    assert.same({ "1" }, { pool:submit(ours):result() })
  end)
end)

it("the same function again, with what its upvalues are then", function()
  helper.as_task(function()
    local pool <close> = aloop.ThreadPoolExecutor { max_workers = 1 }
    local n = 0
    local function job()
      n = n + 1
      return n
    end
    for _ = 1, 5 do assert.equal(1, pool:submit(job):result()) end
    n = 100
    assert.equal(101, pool:submit(job):result())
    local kept = {}
    local function keep(f) kept[#kept + 1] = f end
    for i = 1, 3 do
      pool:submit(keep, function() return i end):result()
      pool:submit(function(f) handlers = { f, handlers } end, -- luacheck: ignore 111 113
        function() return i end):result()
    end
    local sum = pool:submit(function()
      local sum, at = 0, handlers -- luacheck: ignore 113
      while at do sum, at = sum * 10 + at[1](), at[2] end
      return sum
    end):result()
    assert.equal(321, sum)
    assert.same({}, kept)
  end)
end)

it("a function that loses its globals in one job has them in the next", function()
  helper.as_task(function()
    local pool <close> = aloop.ThreadPoolExecutor { max_workers = 1 }
    local function job()
      local getinfo, setupvalue = debug.getinfo, debug.setupvalue
      setupvalue(getinfo(1, "f").func, 1, {})
      return debug == nil
    end
    for _ = 1, 3 do assert.is_true(pool:submit(job):result()) end
  end)
end)

it("two functions with the same bytes have lives of their own", function()
  local function make() return function() end end
  local a, b = travel(make()), travel(make())
  assert.is_nil(a())
  assert.is_nil(b())
  local function place() return debug.getinfo(1, "Sl").currentline end
  assert.equal(place(), travel(place)())
end)

describe("what both sides have", function()
  each_way(function(way)
    assert.equal(print, way(print))
    assert.equal(string.format, way(string.format))
    assert.equal(coroutine.wrap, way(coroutine.wrap))
    assert.equal(aloop, way(aloop))
    assert.equal(aloop.sleep, way(aloop.sleep))
    assert.equal(aloop.gather, way(aloop.gather))
    assert.equal(aloop.ValueError, way(aloop.ValueError))
    assert.equal(aloop.Queue, way(aloop.Queue))
    assert.equal(aloop.socket, way(aloop.socket))
    assert.equal(aloop.signal.kill, way(aloop.signal.kill))
    assert.equal(_G, way(_G))
    assert.equal(string, way(string))
  end)
end)

it("a loaded module is required on the other side", function()
  local lfs, dir = require "lfs", nil
  helper.as_task(function()
    for _, class in ipairs { "ThreadPoolExecutor", "ProcessPoolExecutor" } do
      local pool <close> = aloop[class] { max_workers = 1 }
      dir = pool:submit(function() return lfs.currentdir() end):result()
      assert.equal(lfs.currentdir(), dir)
      dir = pool:submit(lfs.currentdir):result()
      assert.equal(lfs.currentdir(), dir)
    end
  end)
end)

it("the null of a module, and its functions", function()
  local cjson = require "cjson"
  local decoded = travel(cjson.decode('{"a": [1, null, "x"]}'))
  assert.equal(cjson.null, decoded.a[2])
  local encode = cjson.encode
  helper.as_task(function()
    local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
    assert.equal('{"a":[1,null,"x"]}', pool:submit(function(t) return encode(t) end, decoded):result())
  end)
end)

it("a module that the other side can't load fails there", function()
  package.loaded["spec.no_such_file"] = { f = 1 }
  local module = package.loaded["spec.no_such_file"]
  helper.as_task(function()
    local pool <close> = aloop.ThreadPoolExecutor { max_workers = 1 }
    local ok, e = pcall(function() return pool:submit(function() return module.f end):result() end)
    assert.is_false(ok)
    assert.matches("module 'spec.no_such_file' not found", tostring(e))
    package.loaded["spec.no_such_file"] = nil
    assert.equal(1, pool:submit(function() return module.f end):result()) -- a table like others
  end)
end)

describe("buffers", function()
  each_way(function(way)
    local b = aloop.buffer(5)
    b:set(1, "hello")
    local c, d = way(b, b)
    assert.equal("hello", tostring(c))
    assert.equal(c, d)
    assert.is_true(c ~= b)
    assert.equal(0, #way(aloop.buffer(0)))
  end)
end)

describe("errors", function()
  each_way(function(way)
    local cause = aloop.OSError(2, nil, "/no/such")
    local e = way(aloop.ValueError("bad", { cause = cause }))
    assert.is_true(aloop.isinstance(e, aloop.ValueError))
    assert.equal("ValueError: bad", tostring(e))
    assert.is_true(aloop.isinstance(e.cause, aloop.FileNotFoundError))
    assert.same({ 2, "ENOENT", "/no/such" }, { e.cause.errno, e.cause.code, e.cause.filename })
    local group = way(aloop.ExceptionGroup("many", { aloop.TimeoutError(), aloop.IncompleteReadError("ab", 3) }))
    assert.is_true(aloop.isinstance(group, aloop.ExceptionGroup))
    assert.is_true(aloop.isinstance(group.exceptions[1], aloop.TimeoutError))
    assert.equal("ab", group.exceptions[2].partial)
    e.cause = e
    e = way(e)
    assert.equal(e, e.cause)
  end)
end)

describe("errors of a script's own class", function()
  each_way(function(way)
    local RedisError = aloop.Error:extend("RedisError")
    function RedisError:hint() return "look at " .. self.message end
    local Moved = RedisError:extend("Moved")
    local e = Moved("slot 3")
    e.slot = 3
    e = way(e)
    assert.is_true(aloop.isinstance(e, Moved)) -- back again, the class is ours
    assert.is_true(aloop.isinstance(e, RedisError))
    assert.equal("Moved: slot 3", tostring(e))
    assert.equal("look at slot 3", e:hint())
    assert.equal(3, e.slot)
    assert.equal(Moved, way(Moved))
  end)
end)

it("a class goes along with a function that raises it", function()
  local Failed = aloop.RuntimeError:extend("Failed")
  function Failed:__tostring() return "<" .. self.message .. ">" end
  helper.as_task(function()
    for _, class in ipairs { "ThreadPoolExecutor", "ProcessPoolExecutor" } do
      local pool <close> = aloop[class] { max_workers = 1 }
      for _ = 1, 3 do
        local e = pool:submit(function(text)
          local err = Failed(text)
          assert(tostring(err) == "<x>", tostring(err))
          error(err)
        end, "x"):exception()
        assert.equal(Failed, getmetatable(e))
        assert.equal("<x>", tostring(e))
      end
    end
  end)
end)

describe("context variables", function()
  each_way(function(way)
    local var = aloop.ContextVar("request", { default = { "none" } })
    assert.equal(var, way(var))
    assert.equal(var, (way { var })[1])
  end)
end)

it("a context variable is the same one in all jobs", function()
  local var = aloop.ContextVar("v", { default = "default" })
  local bare = aloop.ContextVar("bare")
  helper.as_task(function()
    local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
    assert.equal("default", pool:submit(function() return var:get() end):result())
    pool:submit(function() kept = var end):result() -- luacheck: ignore 111
    assert.is_true(pool:submit(function() return kept == var end):result()) -- luacheck: ignore 113
    local e = pool:submit(function() return bare:get() end):exception()
    assert.is_true(aloop.isinstance(e, aloop.LookupError))
  end)
end)

describe("partials", function()
  each_way(function(way)
    local p = way(aloop.partial(math.max, 3, 9))
    assert.equal(9, p(5))
    assert.equal(11, p(11))
    assert.matches("partial%(", tostring(p))
  end)
end)

it("partials are called by workers", function()
  helper.as_task(function()
    local pool <close> = aloop.ProcessPoolExecutor { max_workers = 1 }
    assert.equal(9, pool:submit(aloop.partial(math.max, 3, 9), 5):result())
  end)
end)

it("addresses", function()
  helper.as_task(function(loop)
    local infos = loop:getaddrinfo("127.0.0.1", 80, { type = aloop.socket.SOCK_STREAM })
    local addr = travel(infos[1].sockaddr)
    assert.equal("127.0.0.1:80", tostring(addr))
    assert.equal(80, addr.port)
  end)
end)

-- ---- what is refused ------------------------------------------------------------------------------------------------

describe("refused, with the path to it:", function()
  local function refused(message, ...)
    assert.equal(message, raises(aloop.ValueError, nil, core.marshal, ...).message)
  end

  it("userdata", function()
    refused("value #1: FILE* cannot be sent to another process", io.stdout)
    refused("value #2: FILE* cannot be sent to another process", 1, io.stdout)
  end)

  it("upvalues", function()
    local conn = io.stdout
    local get, line = function() return conn end, debug.getinfo(1, "l").currentline
    local place = ("function <spec/marshal_spec.lua:%d>"):format(line)
    refused(("upvalue 'conn' of %s in value #1: FILE* cannot be sent to another process"):format(place), get)
    local outer, text = function() return get end, "upvalue 'conn' of %s in upvalue 'get' of function "
      .. "<spec/marshal_spec.lua:%d> in value #1: FILE* cannot be sent to another process"
    refused(text:format(place, line + 3), outer)
  end)

  it("fields, items, keys", function()
    refused("field 'sock' of item 3 of field 'list' of value #1: FILE* cannot be sent to another process",
      { list = { 1, 2, { sock = io.stdout } } })
    refused("a key of value #1: FILE* cannot be sent to another process", { [io.stdout] = 1 })
    refused("item 1.5 of value #1: coroutine cannot be sent to another process",
      { [1.5] = coroutine.create(print) })
    refused("a field (its key is a boolean) of value #1: FILE* cannot be sent to another process",
      { [true] = io.stdout })
  end)

  it("far down: the end of the path", function()
    local t = io.stdout
    for _ = 1, 1000 do t = { t } end
    local e = raises(aloop.ValueError, "item 1 of item 1 of ", core.marshal, t)
    assert.matches("%.%.%.: FILE%* cannot be sent", e.message)
    assert.is_true(#e.message < 200)
  end)

  it("coroutines, tables with a metatable, C functions of nobody's", function()
    refused("value #1: coroutine cannot be sent to another process", coroutine.create(print))
    refused("value #1: table with a metatable cannot be sent to another process", setmetatable({}, {}))
    refused("value #1: Odd cannot be sent to another process", setmetatable({}, { __name = "Odd" }))
    refused("value #1: C function cannot be sent to another process (it is in no module)", ("x"):gmatch("x"))
    refused("field 'q' of value #1: Queue cannot be sent to another process", { q = aloop.Queue() })
    refused("field 'secret' of field 'x' of value #1: FILE* cannot be sent to another process",
      { x = setmetatable({ secret = io.stdout }, getmetatable(aloop.Error())) })
  end)

  it("objects of the loop", function()
    helper.as_task(function(loop)
      local future = loop:create_future()
      refused("value #1: Future cannot be sent to another process", future)
      refused("value #1: Task cannot be sent to another process", aloop.current_task())
      refused("value #1: SelectorEventLoop cannot be sent to another process", loop)
      local sock <close> = aloop.socket.socket()
      refused("value #1: Socket cannot be sent to another process", sock)
      refused("value #1: Context cannot be sent to another process", aloop.copy_context())
      future:cancel()
    end)
  end)

  it("classes with what can't travel in them", function()
    local Bad = aloop.Error:extend("Bad")
    Bad.log = io.stdout
    refused("field 'log' of the class of value #1: FILE* cannot be sent to another process", Bad())
  end)

  it("as arguments and results of jobs", function()
    helper.as_task(function()
      for class, what in pairs { ThreadPoolExecutor = "thread", ProcessPoolExecutor = "process" } do
        local pool <close> = aloop[class] { max_workers = 1 }
        local conn = io.stdout
        local refusal = "FILE* cannot be sent to another " .. what
        raises(aloop.ValueError, "argument #2: " .. refusal, pool.submit, pool, print, 1, conn)
        local line = debug.getinfo(1, "l").currentline + 1
        local e = raises(aloop.ValueError, nil, pool.submit, pool, function() return conn end)
        assert.equal(("upvalue 'conn' of function <spec/marshal_spec.lua:%d>: %s"):format(line, refusal), e.message)
        e = pool:submit(function() return 1, { io.stdout } end):exception()
        assert.equal("item 1 of result #2: " .. refusal, e.message)
        assert.is_true(aloop.isinstance(e, aloop.ValueError))
        assert.equal("still there", pool:submit(echo, "still there"):result())
      end
    end)
  end)
end)

it("an error that can't travel leaves its text", function()
  helper.as_task(function()
    for _, class in ipairs { "ThreadPoolExecutor", "ProcessPoolExecutor" } do
      local pool <close> = aloop[class] { max_workers = 1 }
      local e = pool:submit(function()
        local err = aloop.ValueError("too bad")
        err.file = io.stdout
        error(err)
      end):exception()
      assert.is_true(aloop.isinstance(e, aloop.RuntimeError))
      assert.matches("^ValueError: too bad %(the error itself stays behind: .*field 'file'.*FILE%*", e.message)
      e = pool:submit(function()
        error(setmetatable({}, { __tostring = function() error("no text") end }))
      end):exception()
      assert.matches("an error %(a table%)", e.message)
      assert.same({ code = 7 }, pool:submit(function() error { code = 7 } end):exception())
      local err, none = pool:submit(function() error() end):exception()
      assert.is_nil(err, none)
    end
  end)
end)

-- ---- bytes ----------------------------------------------------------------------------------------------------------

it("bytes that were cut off or changed raise an error", function()
  local Own = aloop.Error:extend("Own")
  local count = 0
  local t = { 1, { x = 1.5 }, ("long"):rep(100), aloop.buffer(3), Own("x"), function() count = count + 1 end, print,
    aloop.ContextVar("v", { default = 1 }) }
  t.self = t
  local bytes = core.marshal(t, nil, true)
  for n = 0, #bytes - 1 do assert.is_false((pcall(core.unmarshal, bytes:sub(1, n)))) end
  for i = 1, #bytes do
    for _, byte in ipairs { 0, 1, 7, 9, 23, 127, 128, 255 } do
      pcall(core.unmarshal, bytes:sub(1, i - 1) .. string.char(byte) .. bytes:sub(i + 1))
    end
  end
  raises(aloop.RuntimeError, "a parcel is damaged", core.unmarshal, "")
  raises(aloop.RuntimeError, "a parcel is damaged", core.unmarshal, "hello")
end)

it("big strings", function()
  helper.as_task(function()
    local big = ("0123456789abcdef"):rep(1 << 18)
    for _, class in ipairs { "ThreadPoolExecutor", "ProcessPoolExecutor" } do
      local pool <close> = aloop[class] { max_workers = 1 }
      local length, back = pool:submit(function(s, again) return #s + #again, s end, big, big):result()
      assert.equal(2 * #big, length)
      assert.is_true(back == big)
    end
  end)
end)
