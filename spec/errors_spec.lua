-- Classes and error objects: API.md, errors. How errors travel is in exception_handler_spec and task_spec.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

-- Class → base, as the documentation draws it.
local BASES = {
  CancelledError = "BaseError", KeyboardInterrupt = "BaseError", SystemExit = "BaseError", GeneratorExit = "BaseError",
  Error = "BaseError",
  RuntimeError = "Error", ValueError = "Error", LookupError = "Error", InvalidStateError = "Error", OSError = "Error",
  SendfileNotAvailableError = "RuntimeError", NotImplementedError = "RuntimeError", BrokenProcessPool = "RuntimeError",
  TimeoutError = "OSError", gaierror = "OSError", ConnectionError = "OSError",
  BrokenPipeError = "ConnectionError", ConnectionAbortedError = "ConnectionError",
  ConnectionRefusedError = "ConnectionError", ConnectionResetError = "ConnectionError",
  FileNotFoundError = "OSError", FileExistsError = "OSError", PermissionError = "OSError",
  ProcessLookupError = "OSError", ChildProcessError = "OSError", BlockingIOError = "OSError",
  InterruptedError = "OSError", NotADirectoryError = "OSError", IsADirectoryError = "OSError", SSLError = "OSError",
  SSLCertVerificationError = "SSLError", SSLEOFError = "SSLError", SSLZeroReturnError = "SSLError",
  IncompleteReadError = "Error", LimitOverrunError = "Error", QueueEmpty = "Error", QueueFull = "Error",
  QueueShutDown = "Error", BrokenBarrierError = "RuntimeError", ExceptionGroup = "Error",
}

-- An instance of any error class.
local function make(class)
  if class == aloop.IncompleteReadError then return class("", 1) end
  if class == aloop.LimitOverrunError then return class("m", 1) end
  if class == aloop.ExceptionGroup then return class("m", { "e" }) end
  return class("m")
end

describe("error classes", function()
  it("are all there, each below its base", function() -- row: errors.kinds
    for name, base in pairs(BASES) do
      local class = aloop[name]
      assert.equal("class '" .. name .. "'", tostring(class))
      local e = make(class)
      assert.is_true(aloop.isinstance(e, class), name)
      assert.is_true(aloop.isinstance(e, aloop[base]), name)
      assert.is_true(aloop.isinstance(e, aloop.BaseError), name)
      assert.equal(BASES[name] ~= "BaseError" or name == "Error", aloop.isinstance(e, aloop.Error), name)
    end
  end)

  it("CancelledError, KeyboardInterrupt, SystemExit and GeneratorExit are no Error", function() -- point: 11
    for _, name in ipairs { "CancelledError", "KeyboardInterrupt", "SystemExit", "GeneratorExit" } do
      assert.is_false(aloop.isinstance(aloop[name](), aloop.Error))
    end
  end)

  it("isinstance is false for values that are not aloop's, and wants a class", function()
    local foreign = setmetatable({}, { __name = "ValueError" })
    for _, value in ipairs { "ValueError", 1, true, {}, print, io.stdout, foreign } do
      assert.is_false(aloop.isinstance(value, aloop.BaseError))
    end
    assert.is_false(aloop.isinstance(nil, aloop.BaseError))
    assert.is_false(aloop.isinstance(aloop.ValueError, aloop.ValueError))
    type_error("bad argument #2 to 'isinstance' (class expected, got table)", aloop.isinstance, 1, {})
    type_error("bad argument #2 to 'isinstance' (class expected, got nil)", aloop.isinstance, 1, nil)
  end)

  it("extend makes your own", function()
    local RedisError = aloop.Error:extend("RedisError")
    local ReplyError = RedisError:extend("ReplyError")
    local e = ReplyError("WRONGTYPE")
    assert.equal("ReplyError: WRONGTYPE", tostring(e))
    assert.is_true(aloop.isinstance(e, RedisError))
    assert.is_true(aloop.isinstance(e, aloop.Error))
    assert.is_false(aloop.isinstance(e, aloop.OSError))
    assert.is_false(aloop.isinstance(aloop.Error("x"), RedisError))
    assert.equal("Error", tostring(aloop.Error:extend()()))
  end)

  it("a subclass may have an init of its own, which may call its base's", function()
    local HTTPError = aloop.Error:extend("HTTPError")
    function HTTPError:init(status, reason)
      aloop.Error.init(self, status .. " " .. reason)
      self.status = status
    end
    local e = HTTPError(404, "Not Found")
    assert.equal("HTTPError: 404 Not Found", tostring(e))
    assert.equal(404, e.status)
  end)

  it("a subclass of OSError keeps its class whatever the errno", function()
    local DiskError = aloop.OSError:extend("DiskError")
    local e = DiskError(2, "gone", "/dev/sdx")
    assert.equal("DiskError: gone: '/dev/sdx'", tostring(e))
    assert.equal("ENOENT", e.code)
  end)
end)

describe("an error object", function()
  it("shows class and message, or the class alone", function()
    assert.equal("ValueError: wrong", tostring(aloop.ValueError("wrong")))
    assert.equal("ValueError", tostring(aloop.ValueError()))
    assert.equal("CancelledError", tostring(aloop.CancelledError()))
    assert.equal("CancelledError: stop it", tostring(aloop.CancelledError("stop it")))
    assert.equal("wrong", aloop.ValueError("wrong").message)
    assert.is_nil(aloop.ValueError().message)
  end)

  it("takes a message of any type", function()
    assert.equal("CancelledError: 42", tostring(aloop.CancelledError(42)))
    local message = setmetatable({}, { __tostring = function() return "a table" end })
    local e = aloop.CancelledError(message)
    assert.equal(message, e.message)
    assert.equal("CancelledError: a table", tostring(e))
  end)

  it("has a cause if it is given one", function()
    local cause = aloop.LookupError("no such key")
    local e = aloop.RuntimeError("lookup failed", { cause = cause })
    assert.equal(cause, e.cause)
    assert.equal("plain", aloop.OSError(2, nil, nil, { cause = "plain" }).cause)
  end)

  it("refuses numbers that no system has for an error", function()
    for _, number in ipairs { math.mininteger, -2 ^ 31, 2 ^ 31, 2 ^ 40, math.maxinteger } do
      raises(aloop.ValueError, "is out of range", aloop.OSError, number)
      raises(aloop.ValueError, "is out of range", aloop.gaierror, number)
    end
    assert.equal(2 ^ 31 - 1, aloop.OSError(2 ^ 31 - 1).errno)
    assert.equal(-999, aloop.gaierror(-999).errno)
  end)

  it("refuses wrong arguments by name and number", function()
    local function message_of(f) return select(2, pcall(f)) end
    assert.matches("^spec/errors_spec.lua:%d+: unknown option 'causes' to 'ValueError'$",
      message_of(function() return aloop.ValueError("x", { causes = 1 }) end))
    assert.matches("bad argument #2 to 'ValueError' %(table expected, got string%)",
      message_of(function() return aloop.ValueError("x", "y") end))
    assert.matches("bad argument #2 to 'OSError' %(string expected, got boolean%)",
      message_of(function() return aloop.OSError(2, true) end))
    assert.matches("bad argument #1 to 'IncompleteReadError' %(string expected, got nil%)",
      message_of(function() return aloop.IncompleteReadError() end))
    assert.matches("bad argument #2 to 'LimitOverrunError' %(integer expected, got nil%)",
      message_of(function() return aloop.LimitOverrunError("x") end))
    assert.matches("bad argument #2 to 'ExceptionGroup' %(table expected, got nil%)",
      message_of(function() return aloop.ExceptionGroup("x") end))
  end)

  it("has its traceback when it leaves a callback", function()
    helper.drive(helper.new_loop, function(loop, trial)
      local e = aloop.ValueError("x")
      assert.is_nil(e.traceback)
      local function raiser() error(e) end
      loop:call_soon(raiser)
      helper.turn(loop)
      assert.equal(e, trial:take_error().exception)
      assert.matches("errors_spec.lua:%d+: in function", e.traceback)
    end)
  end)

  it("that is a string has its traceback, whatever fails while its <close> variables wait", function()
    helper.drive(helper.new_loop, function(loop, trial)
      local contexts = {}
      loop:set_exception_handler(function(_, context) contexts[context.exception] = context.traceback end)
      trial:run_task(function()
        local function slow()
          local _ <close> = aloop.defer(aloop.sleep, 0.002)
          error("slow", 0)
        end
        local function quick() error("quick", 0) end
        local task = loop:create_task(function() slow() end)
        loop:create_task(function() quick() end)
        loop:call_soon(error, "callback")
        while not task:done() do aloop.sleep(0.001) end
      end)
      collectgarbage()
      collectgarbage()
      assert.matches("in upvalue 'slow'", contexts.slow)
      assert.matches("in upvalue 'quick'", contexts.quick)
      assert.matches("traceback", contexts.callback)
    end)
  end)

  it("has its traceback when it is made, in debug mode", function() -- row: context.source_traceback
    helper.drive(helper.new_loop, function(loop)
      loop:set_debug(true)
      local e
      loop:call_soon(function() e = aloop.ValueError("x") end)
      helper.turn(loop)
      assert.matches("errors_spec", e.traceback)
    end)
  end)
end)

describe("OSError", function()
  local CLASSES = { -- Linux's numbers
    [2] = "FileNotFoundError", [1] = "PermissionError", [13] = "PermissionError", [3] = "ProcessLookupError",
    [4] = "InterruptedError", [10] = "ChildProcessError", [11] = "BlockingIOError", [115] = "BlockingIOError",
    [17] = "FileExistsError", [20] = "NotADirectoryError", [21] = "IsADirectoryError", [32] = "BrokenPipeError",
    [103] = "ConnectionAbortedError", [104] = "ConnectionResetError", [111] = "ConnectionRefusedError",
    [110] = "TimeoutError", [98] = "OSError",
  }

  it("picks its subclass by errno", function() -- row: errors.kinds
    for errno, name in pairs(CLASSES) do
      local e = aloop.OSError(errno, "m")
      assert.equal(name .. ": m", tostring(e))
      assert.equal(errno, e.errno)
      assert.is_true(aloop.isinstance(e, aloop.OSError))
    end
  end)

  it("has errno, code and filename, and the system's message if none is given", function()
    local e = aloop.OSError(2, nil, "/no/such")
    assert.equal("FileNotFoundError: No such file or directory: '/no/such'", tostring(e))
    assert.same({ 2, "ENOENT", "/no/such" }, { e.errno, e.code, e.filename })
    assert.equal("ECONNREFUSED", aloop.OSError(111).code)
    assert.equal("ConnectionRefusedError: Connection refused", tostring(aloop.OSError(111)))
  end)

  it("and its subclasses take a message alone", function()
    local unknown = aloop.OSError(3999)
    assert.equal(3999, unknown.errno)
    assert.is_nil(unknown.code)
    assert.equal("OSError: Unknown error 3999", tostring(unknown))
    local e = aloop.OSError("just text")
    assert.same({ "just text" }, { e.message, e.errno, e.code })
    e = aloop.ConnectionResetError("by whom?")
    assert.equal("ConnectionResetError: by whom?", tostring(e))
    assert.is_nil(e.errno)
    assert.equal("TimeoutError", tostring(aloop.TimeoutError()))
    assert.equal(104, aloop.ConnectionResetError(104).errno)
  end)

  it("comes from the system with all fields", function()
    helper.with_loop(helper.new_loop, function(loop)
      local connect = loop.create_unix_connection
      local e = raises(aloop.FileNotFoundError, nil, connect, loop, aloop.Protocol, "/no/such/socket")
      assert.same({ 2, "ENOENT" }, { e.errno, e.code })
      assert.matches("/no/such/socket", e.message)
    end)
  end)

  it("gaierror has the resolver's numbers and names", function()
    local e = aloop.gaierror(-2)
    assert.same({ -2, "EAI_NONAME" }, { e.errno, e.code })
    assert.equal("gaierror: Name or service not known", tostring(e))
    assert.equal("gaierror: m", tostring(aloop.gaierror(-3, "m")))
  end)
end)

describe("errors with more to tell", function()
  it("IncompleteReadError", function()
    local e = aloop.IncompleteReadError("abc", 10)
    assert.same({ "abc", 10 }, { e.partial, e.expected })
    assert.equal("IncompleteReadError: 3 bytes read on a total of 10 expected bytes", tostring(e))
    assert.equal("IncompleteReadError: 0 bytes read on a total of undefined expected bytes",
      tostring(aloop.IncompleteReadError("")))
  end)

  it("LimitOverrunError", function()
    local e = aloop.LimitOverrunError("too long", 17)
    assert.equal(17, e.consumed)
    assert.equal("LimitOverrunError: too long", tostring(e))
  end)

  it("SystemExit has a code", function()
    assert.equal(3, aloop.SystemExit(3).code)
    assert.is_nil(aloop.SystemExit().code)
    assert.equal("SystemExit: 3", tostring(aloop.SystemExit(3)))
  end)

  it("ExceptionGroup has its members, and shows them", function()
    local members = { aloop.ValueError("one"), "two", aloop.ExceptionGroup("inner", { aloop.OSError(2) }) }
    local e = aloop.ExceptionGroup("several", members)
    assert.same(members, e.exceptions)
    assert.not_equal(members, e.exceptions)
    assert.equal([[
ExceptionGroup: several
  [1] ValueError: one
  [2] two
  [3] ExceptionGroup: inner
    [1] FileNotFoundError: No such file or directory]], tostring(e))
    raises(aloop.ValueError, "at least one", aloop.ExceptionGroup, "none", {})
  end)
end)

describe("classes", function()
  it("of table objects make instances and run init", function()
    local Echo = aloop.Protocol:extend("Echo")
    function Echo:init(a, b) self.a, self.b = a, b end
    local echo = Echo(1, nil)
    assert.equal(1, echo.a)
    assert.is_true(aloop.isinstance(echo, aloop.Protocol))
    assert.is_true(aloop.isinstance(echo, aloop.BaseProtocol))
    assert.matches("^Echo: ", tostring(echo))
    local Loud = Echo:extend("Loud")
    assert.equal(2, Loud(2).a)
  end)

  it("inherit metamethods", function()
    local Point = aloop.Protocol:extend("Point")
    Point.__eq = function() return true end
    Point.__tostring = function() return "a point" end
    local Point3 = Point:extend("Point3")
    assert.equal("a point", tostring(Point3()))
    assert.is_true(Point3() == Point3())
  end)

  it("of objects that aloop makes can't be called", function()
    for _, name in ipairs { "Handle", "TimerHandle", "Server" } do
      raises(aloop.RuntimeError, "a " .. name .. " can't be made by calling its class", aloop[name])
    end
  end)

  it("a Transport is a ReadTransport and a WriteTransport", function()
    local transport = setmetatable({}, aloop.Transport)
    for _, name in ipairs { "ReadTransport", "WriteTransport", "BaseTransport" } do
      assert.is_true(aloop.isinstance(transport, aloop[name]), name)
    end
    assert.is_false(aloop.isinstance(transport, aloop.DatagramProtocol))
  end)

  it("extend is for classes", function()
    local _, message = pcall(function() return aloop.Protocol():extend() end)
    assert.matches("calling 'extend' on bad self %(class expected, got Protocol%)", message)
  end)
end)
