-- Shows TLS under streams: an HTTPS server with keep-alive and ALPN, for GET and HEAD of "/". What it takes is the ssl
-- option; http_server.lua has more of HTTP. https_client.lua and curl talk to it.
-- Run: aloop [-X proactor] https_server.lua [port] [CERT KEY]   (PEM files; any free port if none is given)
-- Without a certificate it makes one of its own by the openssl command, and says where it is. Nobody trusts it yet, so
-- clients must be given it: curl --cacert FILE https://localhost:PORT/
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local ssl = aloop.ssl

local HEAD_LIMIT = 8192 -- bytes of request line and fields
local IDLE_S = 60 -- for how long a connection may ask nothing
local SELF_SIGNED = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj /CN=localhost "
  .. "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE "
  .. "-keyout %s -out %s 2>/dev/null"

-- ---- HTTP -----------------------------------------------------------------------------------------------------------

local function respond(writer, status, body, close, no_body)
  local head = ("HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n"):format(status, #body,
    close and "Connection: close\r\n" or "")
  writer:write(head .. (no_body and "" or body))
  writer:drain()
end

-- Answers the request with this head; whether another one may follow. Bodies aren't read, nor what comes after them.
local function answer(writer, head)
  local method, path, minor = head:match("^(%u+) (%S+) HTTP/1%.([01])\r\n")
  if not method then
    respond(writer, "400 Bad Request", "", true)
    return false
  end
  local fields = head:lower()
  local close = minor == "0" or fields:find("\r\nconnection:[^\r]*close") or fields:find("\r\ncontent%-length:")
    or fields:find("\r\ntransfer%-encoding:")
  if method ~= "GET" and method ~= "HEAD" then
    respond(writer, "405 Method Not Allowed", "", close)
  elseif path ~= "/" then
    respond(writer, "404 Not Found", "There is only /\n", close, method == "HEAD")
  else
    local name, protocol = writer:get_extra_info("ssl_object"):cipher()
    respond(writer, "200 OK", ("Hello over %s with %s!\n"):format(protocol, name), close, method == "HEAD")
  end
  return not close
end

local function serve(reader, writer)
  local _ <close> = writer
  local ok, err = aloop.try(function()
    local head
    repeat
      local _ <close> = aloop.timeout(IDLE_S)
      head = reader:readuntil("\r\n\r\n")
    until not answer(writer, head)
  end)
  local its_fault = not ok and (aloop.isinstance(err, aloop.OSError) -- it has gone, or has been asked for too long
    or aloop.isinstance(err, aloop.IncompleteReadError) or aloop.isinstance(err, aloop.LimitOverrunError))
  if not ok and not its_fault then error(err, 0) end
end

-- ---- TLS ------------------------------------------------------------------------------------------------------------

-- A file with a certificate for localhost and its key.
local function self_signed()
  local file = os.tmpname()
  assert(os.execute(SELF_SIGNED:format(file, file)), "the openssl command can't make a certificate")
  return file
end

local port, own = tonumber(arg[1]) or 0, not arg[2] and self_signed() or nil
local _ <close> = aloop.defer(function() return own and os.remove(own) end)

local context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context:load_cert_chain(own or arg[2], arg[3])
context:set_alpn_protocols { "http/1.1" }
context:set_ciphers "ECDHE+AESGCM:ECDHE+CHACHA20" -- for TLS 1.2; by default old clients may have AES in CBC mode, too

local server <close> = aloop.start_server(serve, "127.0.0.1", port, { ssl = context, limit = HEAD_LIMIT })
print(("listening on https://%s with %s"):format(server.sockets[1]:getsockname(), own or arg[2]))
io.stdout:flush()
server:serve_forever()
