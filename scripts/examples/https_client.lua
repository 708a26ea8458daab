-- Shows a client over TLS: fetches a page over HTTPS, says on stderr how, and writes it to stdout. The certificate must
-- be good and made out to the host of the URL; there is no line for that here, it is so by default.
-- Run: aloop https_client.lua URL [CAFILE]   (CAFILE: whose signatures to trust instead of the system's list)
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local ssl = aloop.ssl

local TIMEOUT_S = 30

local function parse_url(url)
  local host, port, path = (url or ""):match("^https://([^/:?#]+):?(%d*)([^#]*)")
  assert(host, "usage: aloop https_client.lua https://HOST[:PORT]/PATH [CAFILE]")
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return host, tonumber(port) or 443, path
end

-- Status line and body of the response. A body without a length goes up to the end, and an end that the server has not
-- announced in TLS raises SSLEOFError: somebody in between has cut it off.
local function read_response(reader)
  local head = reader:readuntil("\r\n\r\n")
  local status = head:match("^HTTP/1%.[01] (%d%d%d[^\r]*)\r\n")
  if not status then error("this is no HTTP", 0) end
  local length = head:lower():match("\r\ncontent%-length:[ \t]*(%d+)")
  return status, length and reader:readexactly(math.tointeger(length)) or reader:read()
end

local host, port, path = parse_url(arg[1])
local context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, { cafile = arg[2] })
context:set_alpn_protocols { "http/1.1" }

local _ <close> = aloop.timeout(TIMEOUT_S)
local reader, writer <close> = aloop.open_connection(host, port, { ssl = context })
local name, protocol = writer:get_extra_info("ssl_object"):cipher()
writer:write(("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"):format(path, host))
local status, body = read_response(reader)
io.stderr:write(("%s, over %s with %s\n"):format(status, protocol, name))
io.stdout:write(body)
