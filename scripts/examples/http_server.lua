-- Shows an HTTP/1.1 server: keep-alive, pipelining, GET and HEAD of "/". The protocol stands at the end; what comes
-- before it says how a request is answered.
-- Run: aloop [-X proactor] http_server.lua [port] [host]   (any free port of 127.0.0.1 if none is given), then curl it
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local HEAD_LIMIT = 8192 -- bytes of request line and fields; more is answered by 431
local KNOWN_LIMIT = 1024 -- how many different request heads are remembered
local PAGES = { ["/"] = "Hello, World!\n" }
local REASONS = {
  [200] = "OK", [400] = "Bad Request", [404] = "Not Found", [405] = "Method Not Allowed", [411] = "Length Required",
  [431] = "Request Header Fields Too Large", [505] = "HTTP Version Not Supported",
}

-- An answer as it goes over the wire. connection: "keep-alive", "close", or nil where HTTP/1.1 means keep-alive.
local function response(status, body, connection, no_body)
  body = body or REASONS[status] .. "\n"
  local lines = {
    ("HTTP/1.1 %d %s"):format(status, REASONS[status]),
    "Content-Type: text/plain",
    "Content-Length: " .. #body,
  }
  if status == 405 then lines[#lines + 1] = "Allow: GET, HEAD" end
  if connection then lines[#lines + 1] = "Connection: " .. connection end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (no_body and "" or body)
end

-- The fields of a head by lower-case name; nil if a line is none. Repeated ones are joined by commas.
local function fields_of(head, at)
  local fields = {}
  for line in head:sub(at, -3):gmatch("(.-)\r\n") do
    local name, value = line:match("^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not name then return nil end
    name = name:lower()
    fields[name] = fields[name] and fields[name] .. "," .. value or value
  end
  return fields
end

-- How to answer the request with this head (up to and with the empty line): the response, whether the connection ends
-- with it, and how many bytes of body follow the head.
local function answer(head)
  local method, target, minor, at = head:match("^(%u+) (%S+) HTTP/1%.(%d)\r\n()")
  if not method then
    local version = head:match("^%u+ %S+ HTTP/(%d%.%d)\r\n")
    return response(version and 505 or 400, nil, "close"), true, 0
  end
  local fields = fields_of(head, at)
  local nameless = minor ~= "0" and fields and not fields.host
  if not fields or nameless then return response(400, nil, "close"), true, 0 end
  if fields["transfer-encoding"] then return response(411, nil, "close"), true, 0 end
  local length = fields["content-length"] or "0"
  if not length:find("^%d+$") or #length > 15 then return response(400, nil, "close"), true, 0 end

  local wish = (fields.connection or ""):lower()
  local close = wish:find("close", 1, true) ~= nil or (minor == "0" and not wish:find("keep-alive", 1, true))
  -- Whoever asks before it sends the body may leave it out after this answer; then only the end is unmistakable.
  close = close or fields.expect ~= nil and length ~= "0"
  local connection = close and "close" or minor == "0" and "keep-alive" or nil

  local page = PAGES[target:match("^[^?]*")]
  if not page then return response(404, nil, connection, method == "HEAD"), close, tonumber(length) end
  if method ~= "GET" and method ~= "HEAD" then return response(405, nil, connection), close, tonumber(length) end
  return response(200, page, connection, method == "HEAD"), close, tonumber(length)
end

-- Heads that are answered and nothing more (no body, connection stays) → response: clients repeat theirs.
local known, n_known = {}, 0

local function remember(head, text)
  if n_known >= KNOWN_LIMIT then known, n_known = {}, 0 end
  known[head], n_known = text, n_known + 1
end

local Http = aloop.Protocol:extend("Http")

function Http:connection_made(transport)
  self.transport = transport
  self.rest = false -- or a head that has not come whole
  self.body = false -- or how many bytes of a body are still to come
end

function Http:data_received(data)
  local text = known[data]
  if text and not self.rest and not self.body then
    self.transport:write(text)
  else
    self:read_requests(data)
  end
end

function Http:read_requests(data)
  local at, out, close = 1, {}, false
  if self.rest then data, self.rest = self.rest .. data, false end
  while not close do
    if self.body then
      local skipped = math.min(self.body, #data - at + 1)
      at, self.body = at + skipped, self.body > skipped and self.body - skipped or false
    end
    while data:find("^\r\n", at) do at = at + 2 end
    local _, stop = data:find("\r\n\r\n", at, true)
    if (stop or #data) - at >= HEAD_LIMIT then
      out[#out + 1], close = response(431, nil, "close"), true
    elseif not stop then
      if at <= #data then self.rest = data:sub(at) end
      break
    else
      local head = data:sub(at, stop)
      local text, body = known[head], 0
      if not text then
        text, close, body = answer(head)
        if not close and body == 0 then remember(head, text) end
      end
      out[#out + 1], at = text, stop + 1
      if body > 0 then self.body = body end
    end
  end
  if #out > 0 then self.transport:write(table.concat(out)) end
  if close then self.transport:close() end
end

function Http:pause_writing()
  self.transport:pause_reading()
end

function Http:resume_writing()
  self.transport:resume_reading()
end

-- A number is the port, anything else the host.
local port, host = 0, "127.0.0.1"
for _, value in ipairs(arg) do
  if tonumber(value) then port = tonumber(value) else host = value end
end
local server <close> = aloop.get_event_loop():create_server(Http, host, port)
print("listening on http://" .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
