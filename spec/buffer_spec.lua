-- aloop.buffer: mutable bytes.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error

local function buffer_of(text)
  local b = aloop.buffer(#text)
  b:set(1, text)
  return b
end

describe("buffer", function()
  it("begins with zeros and has a fixed size", function()
    local b = aloop.buffer(4)
    assert.equal(4, #b)
    assert.equal("\0\0\0\0", tostring(b))
    assert.equal(0, #aloop.buffer(0))
    assert.equal("", tostring(aloop.buffer(0)))
    assert.is_true(aloop.isinstance(b, aloop.Buffer))
  end)

  it("refuses sizes that are none", function()
    raises(aloop.ValueError, "negative", aloop.buffer, -1)
    type_error("number expected", aloop.buffer, {})
    type_error("no integer representation", aloop.buffer, 1.5)
    assert.has_error(function() aloop.buffer(math.maxinteger) end)
  end)

  it("sub reads as string.sub does", function()
    local text = "hello world"
    local b = buffer_of(text)
    for i = -14, 14 do
      assert.equal(text:sub(i), b:sub(i))
      for j = -14, 14 do assert.equal(text:sub(i, j), b:sub(i, j)) end
    end
    assert.equal("", aloop.buffer(0):sub(1, -1))
    type_error("number expected", b.sub, b)
  end)

  it("byte reads as string.byte does", function()
    local text = "\0\1\254\255"
    local b = buffer_of(text)
    for i = -6, 6 do
      assert.same({ text:byte(i) }, { b:byte(i) })
      for j = -6, 6 do assert.same({ text:byte(i, j) }, { b:byte(i, j) }) end
    end
    assert.equal(0, b:byte())
    assert.same({}, { aloop.buffer(0):byte() })
  end)

  it("set writes a string or a buffer at a position", function()
    local b = buffer_of("..........")
    b:set(1, "ab")
    b:set(9, "yz")
    b:set(-5, buffer_of("mid"))
    assert.equal("ab...midyz", tostring(b))
    b:set(11, "")
    b:set(1, tostring(b):reverse())
    assert.equal("zydim...ba", tostring(b))
  end)

  it("set writes nothing beyond its ends", function()
    local b = buffer_of("abc")
    for _, case in ipairs { { 2, "xyz" }, { 4, "x" }, { 0, "x" }, { 5, "" }, { math.maxinteger, "x" }, { -4, "x" },
      { math.mininteger, "" } } do
      raises(aloop.ValueError, "out of range", b.set, b, case[1], case[2])
    end
    assert.equal("abc", tostring(b))
    type_error("string or buffer expected, got nil", b.set, b, 1, nil)
    type_error("string or buffer expected, got number", b.set, b, 1, 42)
  end)

  it("find looks for plain bytes", function()
    local b = buffer_of("a.b%c\0d.b")
    assert.same({ 2, 3 }, { b:find(".b") })
    assert.same({ 8, 9 }, { b:find(".b", 3) })
    assert.same({ 8, 9 }, { b:find(".b", -2) })
    assert.same({ 6, 7 }, { b:find("\0d") })
    assert.same({ 4, 3 }, { b:find("", 4) })
    assert.same({ 10, 9 }, { b:find("", 10) })
    assert.is_nil(b:find("", 11))
    assert.is_nil(b:find(".b", 9))
    assert.is_nil(b:find("x"))
    assert.is_nil(aloop.buffer(0):find("x"))
  end)

  it("move copies as table.move does, over itself too", function()
    local b = buffer_of("abcdefgh")
    assert.equal(b, b:move(1, 4, 3))
    assert.equal("ababcdgh", tostring(b))
    b:move(-2, -1, 1)
    assert.equal("ghabcdgh", tostring(b))
    b:move(3, 6, 1)
    assert.equal("abcdcdgh", tostring(b))
    b:move(5, 4, 8)
    for _, pos in ipairs { 6, 0, -3, -9 } do
      raises(aloop.ValueError, "out of range", b.move, b, 1, 4, pos)
    end
    assert.equal("abcdcdgh", tostring(b))
  end)

  it("methods refuse what is no buffer", function()
    local b = aloop.buffer(1)
    type_error("Buffer expected, got table", b.sub, {}, 1)
    type_error("Buffer expected", b.set, "string", 1, "x")
    assert.has_error(function() aloop.Buffer() end)
  end)
end)

helper.each_loop(function(_, new_loop)
  it("write takes a buffer, or a part of it, and copies what can't be sent at once", function()
    helper.with_loop(new_loop, function(loop)
      local transport, protocol, sock = helper.over_socketpair(loop)
      local b = buffer_of("hello world")
      transport:write(b)
      transport:write(b, 1, 5)
      transport:write("hello world", -5)
      transport:write(b, 8, 7)
      assert.equal("hello worldhelloworld", helper.recv_exactly(loop, sock, 21))
      local n = helper.fill(transport)
      transport:write(b)
      b:set(1, "HELLO")
      local all = helper.recv_exactly(loop, sock, n + 11)
      assert.equal("hello world", all:sub(-11))
      type_error("bad argument #1 to 'write' (string or buffer expected, got nil)", function() transport:write(nil) end)
      transport:close()
      protocol:wait_lost()
      sock:close()
    end)
  end)
end)
