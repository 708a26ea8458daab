-- sendfile.lua: loop:sendfile and loop:sock_sendfile: by the kernel where it can, else by reading in a thread and
-- writing. init.lua puts stubs for both into the loops' class.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"
local SOCK_STREAM = require("aloop.socket").SOCK_STREAM

local sendfile = {}

local TRANSPORT_BLOCK = 16 * 1024 -- asyncio's
local SOCKET_BLOCK = 256 * 1024

-- ---- arguments ------------------------------------------------------------------------------------------------------

local function has(file, method)
  local kind = type(file)
  if kind ~= "table" and not (kind == "userdata" and getmetatable(file)) then return false end
  local ok, value = pcall(function() return file[method] end)
  return ok and check.is_callable(value)
end

-- Is there a descriptor behind it? Other objects with a method read are read here and now.
local function has_descriptor(file)
  return math.type(file) == "integer" or io.type(file) ~= nil or has(file, "fileno") or has(file, "getfd")
end

local function check_file(name, file)
  if not has_descriptor(file) and not has(file, "read") then check.bad_argument(2, name, "file", file) end
  local mode = type(file) == "table" and file.mode
  if type(mode) == "string" and not mode:find("b", 1, true) then
    error(core.ValueError("file should be opened in binary mode"))
  end
end

-- The integer, be it a float's (size / 2).
local function check_integer(n, name, value)
  return type(value) == "number" and math.tointeger(value) or check.bad_argument(n, name, "integer", value)
end

-- offset, count
local function check_part(name, offset, count)
  offset = check_integer(3, name, offset)
  if count ~= nil then count = check_integer(4, name, count) end
  if count and count <= 0 then
    error(core.ValueError(("count must be a positive integer (got %d)"):format(count)))
  end
  if offset < 0 then
    error(core.ValueError(("offset must be a non-negative integer (got %d)"):format(offset)))
  end
  return offset, count
end

-- ---- without the kernel ---------------------------------------------------------------------------------------------

local function seek(file, position)
  if has_descriptor(file) then return core.seek_file(file, position) end
  return has(file, "seek") and (file:seek("set", position) and true) or false
end

local function read(loop, file, n)
  if has_descriptor(file) then return core.read_file(loop, file, n) end
  local data = file:read(n)
  return data ~= "" and data or nil
end

-- Reads the part of the file block by block and hands each to send. takes: a block that send waits for counts as sent,
-- for it will be even if nobody waits any more.
local function copy(loop, file, offset, count, block, send, takes)
  local total = 0
  if not seek(file, offset) and offset > 0 then
    error(core.OSError(29, "the file has no positions: it can't be sent from an offset on")) -- ESPIPE
  end
  local _ <close> = setmetatable({}, {
    __close = function()
      if total > 0 then seek(file, offset + total) end
    end,
  })
  while not count or total < count do
    local data = read(loop, file, count and math.min(block, count - total) or block)
    if not data then break end
    if takes then total = total + #data end
    send(data)
    if not takes then total = total + #data end
  end
  return total
end

-- ---- the functions --------------------------------------------------------------------------------------------------

local OPTIONS = { fallback = "boolean" }

--- Sends a file over a stream socket. Async.
---@param loop aloop.EventLoop
---@param sock any a socket
---@param file any
---@param offset? integer
---@param count? integer the most to send
---@param options? {fallback?: boolean}
---@return integer sent
function sendfile.sock_sendfile(loop, sock, file, offset, count, options, ...)
  local name = "sock_sendfile"
  options = check.options(5, name, options, OPTIONS, ...)
  offset = offset or 0
  if math.type(sock) ~= "integer" and not has(sock, "fileno") and not has(sock, "getfd") then
    check.bad_argument(1, name, "socket", sock)
  end
  check_file(name, file)
  if core.sock_type(loop, sock) ~= SOCK_STREAM then
    error(core.ValueError("only SOCK_STREAM type sockets are supported"))
  end
  offset, count = check_part(name, offset, count)
  local sent = has_descriptor(file) and core.sendfile(loop, sock, file, offset, count)
  if sent then return sent end
  if options.fallback == false then
    error(core.SendfileNotAvailableError("not a regular file: sendfile can't send it"))
  end
  return (copy(loop, file, offset, count, SOCKET_BLOCK, function(data) loop:sock_sendall(sock, data) end))
end

--- Sends a file over a transport. Async.
---@param loop aloop.EventLoop
---@param transport aloop.Transport
---@param file any
---@param offset? integer
---@param count? integer the most to send
---@param options? {fallback?: boolean}
---@return integer sent
function sendfile.sendfile(loop, transport, file, offset, count, options, ...)
  local name = "sendfile"
  options = check.options(5, name, options, OPTIONS, ...)
  if not core.isinstance(transport, core.BaseTransport) then check.bad_argument(1, name, "Transport", transport) end
  offset = offset or 0
  check_file(name, file)
  offset, count = check_part(name, offset, count)
  if transport:is_closing() then error(core.RuntimeError("Transport is closing")) end
  if not core.isinstance(transport, core.Transport) then
    error(core.RuntimeError(("sendfile is not supported for transport %s"):format(tostring(transport))))
  end
  local sent = has_descriptor(file) and core.sendfile(loop, transport, file, offset, count)
  if sent then return sent end
  if options.fallback == false then
    local text = "fallback is disabled and native sendfile is not supported for transport %s"
    error(core.SendfileNotAvailableError(text:format(tostring(transport))))
  end
  local hold <close> = core.hold_transport(transport)
  return (copy(loop, file, offset, count, TRANSPORT_BLOCK, function(data) core.send_held(loop, hold, data) end, true))
end

return sendfile
