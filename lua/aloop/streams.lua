-- streams.lua: connections and servers as pairs of a StreamReader and a StreamWriter. Those are in the bindings
-- (lreader.c, lwriter.c); what is here puts them on top of the loop's own functions.
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"
local check = require "aloop.check"

---@class aloop.StreamReader
---@field read async fun(self: aloop.StreamReader, n?: integer): string? at most n bytes, nil at the end; all without n
---@field readline async fun(self: aloop.StreamReader): string? with its newline; nil at the end
---@field readexactly async fun(self: aloop.StreamReader, n: integer): string or IncompleteReadError
---@field readuntil async fun(self: aloop.StreamReader, separator?: string|string[]): string or LimitOverrunError
---@field lines fun(self: aloop.StreamReader): function, aloop.StreamReader for line in reader:lines() do
---@field at_eof fun(self: aloop.StreamReader): boolean
---@field feed_data fun(self: aloop.StreamReader, data: string|aloop.buffer)
---@field feed_eof fun(self: aloop.StreamReader)
---@field exception fun(self: aloop.StreamReader): any
---@field set_exception fun(self: aloop.StreamReader, exception: any)
---@field set_transport fun(self: aloop.StreamReader, transport: aloop.Transport)

---@class aloop.StreamWriter
---@field transport aloop.Transport
---@field write fun(self: aloop.StreamWriter, data: string|aloop.buffer, i?: integer, j?: integer)
---@field writelines fun(self: aloop.StreamWriter, list: (string|aloop.buffer)[])
---@field drain async fun(self: aloop.StreamWriter) waits until the other end has taken enough
---@field close fun(self: aloop.StreamWriter)
---@field wait_closed async fun(self: aloop.StreamWriter)
---@field is_closing fun(self: aloop.StreamWriter): boolean
---@field can_write_eof fun(self: aloop.StreamWriter): boolean
---@field write_eof fun(self: aloop.StreamWriter)
---@field get_extra_info fun(self: aloop.StreamWriter, name: string, default: any): any
---@field start_tls async fun(self: aloop.StreamWriter, sslcontext: any, options?: table)

local streams = {}

local DEFAULT_LIMIT = 65536

local function names(list)
  local set = { limit = "number" }
  for name in list:gmatch "%S+" do
    set[name] = true
  end
  return set
end

local TLS = " ssl ssl_handshake_timeout ssl_shutdown_timeout "
local CONNECTION = names("family proto flags sock local_addr server_hostname happy_eyeballs_delay interleave"
  .. " all_errors session" .. TLS)
local UNIX_CONNECTION = names("sock server_hostname session" .. TLS)
local SERVER = names("family flags sock backlog reuse_address reuse_port keep_alive start_serving" .. TLS)
local UNIX_SERVER = names("sock backlog start_serving cleanup_socket" .. TLS)

-- The limit, and the options without it.
local function split(name, options)
  local rest = {}
  for key, value in pairs(options) do
    rest[key] = value
  end
  local limit = math.tointeger(rest.limit or DEFAULT_LIMIT)
  rest.limit = nil
  if not limit then
    check.fail(("bad option 'limit' to '%s' (integer expected, got float)"):format(name))
  end
  return limit, rest
end

-- What the loop's method refused is told of the function that was called, whose arguments are `shift` places further
-- to the front.
local function results(name, method, shift, ok, ...)
  if ok then return ... end
  local e = ...
  if type(e) == "string" then
    e = e:gsub("#(%d+) to '" .. method .. "'", function(n) return ("#%d to '%s'"):format(n - shift, name) end)
      :gsub("' to '" .. method .. "'", "' to '" .. name .. "'")
  end
  error(e, 0)
end

local function call(name, method, shift, ...)
  local loop = core.default_loop()
  return results(name, method, shift, pcall(loop[method], loop, ...))
end

-- Makes the reader and the protocol; the loop's method the transport.
local function connect(name, method, limit, ...)
  local reader = core.StreamReader { limit = limit }
  local protocol = core.StreamReaderProtocol(reader)
  local transport = call(name, method, 1, function() return protocol end, ...)
  return reader, core.StreamWriter(transport, protocol, reader)
end

--- Connects to host and port. The options are those of loop:create_connection, and limit (65536): how long a line may
--- be, and half of what is read ahead.
---@async
---@param host? string
---@param port? integer|string
---@param options? table
---@return aloop.StreamReader reader
---@return aloop.StreamWriter writer
function streams.open_connection(host, port, options, ...)
  if host ~= nil and type(host) ~= "string" then check.bad_argument(1, "open_connection", "string", host) end
  local limit, rest = split("open_connection", check.options(3, "open_connection", options, CONNECTION, ...))
  return connect("open_connection", "create_connection", limit, host, port, rest)
end

--- Connects to the Unix socket at path. The options are those of loop:create_unix_connection, and limit.
---@async
---@param path? string
---@param options? table
---@return aloop.StreamReader reader
---@return aloop.StreamWriter writer
function streams.open_unix_connection(path, options, ...)
  local name = "open_unix_connection"
  if path ~= nil and type(path) ~= "string" then check.bad_argument(1, name, "string", path) end
  local limit, rest = split(name, check.options(2, name, options, UNIX_CONNECTION, ...))
  return connect(name, "create_unix_connection", limit, path, rest)
end

--- Serves on host and port: calls client_connected_cb(reader, writer) as a task for each connection. An error in it is
--- reported, and the connection closed. The options are those of loop:create_server, and limit.
---@async
---@param client_connected_cb fun(reader: aloop.StreamReader, writer: aloop.StreamWriter)
---@param host? string|string[]
---@param port? integer|string
---@param options? table
---@return aloop.Server
function streams.start_server(client_connected_cb, host, port, options, ...)
  check.callable(1, "start_server", client_connected_cb)
  local limit, rest = split("start_server", check.options(4, "start_server", options, SERVER, ...))
  local factory = core.stream_factory(client_connected_cb, limit)
  return call("start_server", "create_server", 0, factory, host, port, rest)
end

--- As start_server, on the Unix socket at path. The options are those of loop:create_unix_server, and limit.
---@async
---@param client_connected_cb fun(reader: aloop.StreamReader, writer: aloop.StreamWriter)
---@param path? string
---@param options? table
---@return aloop.Server
function streams.start_unix_server(client_connected_cb, path, options, ...)
  check.callable(1, "start_unix_server", client_connected_cb)
  local limit, rest = split("start_unix_server", check.options(3, "start_unix_server", options, UNIX_SERVER, ...))
  local factory = core.stream_factory(client_connected_cb, limit)
  return call("start_unix_server", "create_unix_server", 0, factory, path, rest)
end

return streams
