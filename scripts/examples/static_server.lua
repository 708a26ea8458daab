-- Shows loop:sendfile: a server of static files over HTTP/1.1, with GET, HEAD, keep-alive and ranges. A connection is a
-- task on streams; the bodies of answers never come into Lua, the kernel sends them.
-- Run: aloop [-X proactor] static_server.lua [port] [directory] [host]   (any free port of 127.0.0.1 and the current
-- directory if none is given), then curl it. A directory is answered by its index.html. Symbolic links are followed, so
-- don't serve a directory in which strangers may make them.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local HEAD_LIMIT = 8192 -- bytes of request line and fields; more is answered by 431
local IDLE_S = 60 -- for how long a connection may ask nothing
local IS_A_DIRECTORY = 21 -- EISDIR
local REASONS = {
  [200] = "OK", [206] = "Partial Content", [400] = "Bad Request", [403] = "Forbidden", [404] = "Not Found",
  [405] = "Method Not Allowed", [416] = "Range Not Satisfiable", [431] = "Request Header Fields Too Large",
}
local TYPES = {
  css = "text/css", gif = "image/gif", html = "text/html; charset=utf-8", jpg = "image/jpeg", js = "text/javascript",
  json = "application/json", png = "image/png", svg = "image/svg+xml", txt = "text/plain; charset=utf-8",
}

local port, directory, host = tonumber(arg[1]) or 0, arg[2] or ".", arg[3] or "127.0.0.1"

-- ---- from a request to a file ---------------------------------------------------------------------------------------

-- The path that a target names below the directory; nil if it is none, false if it leads out of it.
local function path_of(target)
  local path = target:match("^(/[^?#]*)")
  if not path or path:find("%%$") or path:find("%%.$") or path:find("%%%x?[^%x]") then return nil end
  path = path:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end)
  if path:find("\0", 1, true) then return nil end
  for part in path:gmatch("[^/]+") do
    if part == ".." then return false end
  end
  return path
end

-- The open file and its size; nil and the error's number otherwise. A directory can be opened, but not read.
local function open(path)
  local file, _, errno = io.open(directory .. path, "rb")
  if not file then return nil, errno end
  local byte, _, failure = file:read(0)
  if byte == nil and failure then
    file:close()
    return nil, failure
  end
  return file, file:seek("end")
end

local function open_page(path)
  local file, size = open(path)
  if not file and size == IS_A_DIRECTORY then return open(path:gsub("/*$", "/index.html")) end
  return file, size
end

-- What a Range field asks of a file of this size: first byte (from 0 on) and how many. nil: all of it, for there is no
-- such field, or none that is understood; false: nothing that the file has.
local function range_of(field, size)
  local first, last = (field or ""):match("^bytes=(%d*)%-(%d*)$")
  if not first or first .. last == "" then return nil end
  if first == "" then
    first, last = math.max(0, size - tonumber(last)), size - 1
  else
    first, last = tonumber(first), math.min(tonumber(last) or size, size - 1)
  end
  if first >= size then return false end
  if first > last then return nil end
  return first, last - first + 1
end

-- ---- answers --------------------------------------------------------------------------------------------------------

local function head_of(status, fields)
  local lines = { ("HTTP/1.1 %d %s"):format(status, REASONS[status]) }
  for _, field in ipairs(fields) do lines[#lines + 1] = field end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- An answer without a file.
local function refuse(writer, request, status, ...)
  local body = REASONS[status] .. "\n"
  local fields = { "Content-Type: text/plain", "Content-Length: " .. #body, request.connection, ... }
  writer:write(head_of(status, fields) .. (request.method == "HEAD" and "" or body))
end

local function send_page(writer, request, file, size, path)
  local first, count = range_of(request.fields.range, size)
  if first == false then return refuse(writer, request, 416, "Content-Range: bytes */" .. size) end
  local fields = {
    "Content-Type: " .. (TYPES[path:match("%.(%w+)$") or "html"] or "application/octet-stream"),
    "Content-Length: " .. (count or size),
    "Accept-Ranges: bytes",
  }
  if first then
    fields[#fields + 1] = ("Content-Range: bytes %d-%d/%d"):format(first, first + count - 1, size)
  end
  fields[#fields + 1] = request.connection
  writer:write(head_of(first and 206 or 200, fields))
  count = count or size
  if request.method == "HEAD" or count == 0 then return end
  local sent = aloop.get_running_loop():sendfile(writer.transport, file, first or 0, count)
  if sent < count then writer.transport:abort() end -- the file has shrunk: what was promised won't come
end

local function answer(writer, request)
  if request.method ~= "GET" and request.method ~= "HEAD" then
    return refuse(writer, request, 405, "Allow: GET, HEAD")
  end
  local path = path_of(request.target)
  if path == nil then return refuse(writer, request, 400) end
  local file, size = nil, nil
  if path then file, size = open_page(path) end
  if not file then return refuse(writer, request, (path == false or size == 13) and 403 or 404) end -- EACCES
  local _ <close> = file
  send_page(writer, request, file, size, path)
end

-- ---- connections ----------------------------------------------------------------------------------------------------

-- The request of a head; nil if it makes no sense. One with a body is the last, for what follows isn't looked at.
local function parse(head)
  local method, target, minor, at = head:match("^(%u+) (%S+) HTTP/1%.(%d)\r\n()")
  if not method then return nil end
  local fields = {}
  for name, value in head:sub(at):gmatch("([^%s:]+):[ \t]*([^\r\n]-)[ \t]*\r\n") do fields[name:lower()] = value end
  local wish = (fields.connection or ""):lower()
  local body = fields["transfer-encoding"] or (fields["content-length"] or "0") ~= "0"
  local close = body or wish:find("close", 1, true) or (minor == "0" and not wish:find("keep-alive", 1, true))
  local connection = close and "Connection: close" or minor == "0" and "Connection: keep-alive" or nil
  return { method = method, target = target, fields = fields, close = close, connection = connection }
end

-- The next request; nil when the client has no more.
local function next_request(reader, writer)
  local ok, head = aloop.try(function()
    local _ <close> = aloop.timeout(IDLE_S)
    return reader:readuntil("\r\n\r\n")
  end)
  if ok then
    local request = parse(head)
    if not request then refuse(writer, { connection = "Connection: close" }, 400) end
    return request
  end
  if aloop.isinstance(head, aloop.LimitOverrunError) then
    refuse(writer, { connection = "Connection: close" }, 431)
  elseif not (aloop.isinstance(head, aloop.IncompleteReadError) or aloop.isinstance(head, aloop.OSError)) then
    error(head, 0)
  end
  return nil
end

local function serve(reader, writer)
  local ok, err = aloop.try(function()
    local request
    repeat
      request = next_request(reader, writer)
      if request then
        answer(writer, request)
        writer:drain()
      end
    until not request or request.close
  end)
  writer:close()
  if not ok and not aloop.isinstance(err, aloop.ConnectionError) then error(err, 0) end
end

local server <close> = aloop.start_server(serve, host, port, { limit = HEAD_LIMIT })
print("listening on http://" .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
