-- Shows mutual TLS: a server that lets in only whose certificate it knows, and what becomes of three clients: one with
-- such a certificate, one with that of a stranger, one with none. Each side trusts exactly the other's certificate; in
-- earnest it would be that of an authority. They are made by the openssl command, for this run.
-- Run: aloop mutual_tls.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local ssl = aloop.ssl

local SELF_SIGNED = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=%s "
  .. "-addext subjectAltName=DNS:%s -addext basicConstraints=critical,CA:FALSE -keyout %s -out %s 2>/dev/null"

-- A file with a certificate for this name and its key.
local function self_signed(name)
  local file = os.tmpname()
  assert(os.execute(SELF_SIGNED:format(name, name, file, file)), "the openssl command can't make a certificate")
  return file
end

local function server_context(own, friend)
  local context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, { cafile = friend })
  context:load_cert_chain(own)
  context.verify_mode = ssl.CERT_REQUIRED -- this makes it mutual
  return context
end

local function client_context(own, server)
  local context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, { cafile = server })
  if own then context:load_cert_chain(own) end
  return context
end

-- Only who has shown a certificate that is trusted comes as far as here.
local function greet(reader, writer)
  local _ <close> = writer
  local subject = writer:get_extra_info("peercert").subject
  local question = reader:readline()
  writer:write(("Hello %s, you said %s"):format(subject[1][2], question))
  writer:drain()
end

-- In TLS 1.3 a client is done before the server has looked at its certificate: it is by reading that it hears of a
-- refusal, not by connecting.
local function try_to_talk(who, port, context)
  local ok, answer = aloop.try(function()
    local reader, writer <close> = aloop.open_connection("127.0.0.1", port,
      { ssl = context, server_hostname = "server.example" })
    writer:write("good day\n")
    return reader:readline()
  end)
  print(("%s: %s"):format(who, ok and answer:gsub("\n", "") or answer.reason or answer))
end

local pems = {}
local _ <close> = aloop.defer(function()
  for _, file in pairs(pems) do os.remove(file) end
end)
for _, name in ipairs { "server", "friend", "stranger" } do pems[name] = self_signed(name .. ".example") end

local server <close> = aloop.start_server(greet, "127.0.0.1", 0, { ssl = server_context(pems.server, pems.friend) })
local port = server.sockets[1]:getsockname().port
try_to_talk("a friend", port, client_context(pems.friend, pems.server))
try_to_talk("a stranger", port, client_context(pems.stranger, pems.server))
try_to_talk("nobody", port, client_context(nil, pems.server))
