-- tls.lua - both ends of TLS connections, as specs need them. Beside spec/helper.lua, which knows nothing of TLS.
-- SPDX-License-Identifier: MIT

local certs = require "spec.support.certs"
local helper = require "spec.helper"

local tls = {}

-- What is given of options.server (context, or name of a certificate) and options.client (context), or the usual ones.
function tls.contexts(options)
  options = options or {}
  local server = options.server or "server"
  if type(server) == "string" then server = certs.server_context(server) end
  return server, options.client or certs.client_context()
end

-- Copies options (may be nil), with more put into them.
function tls.with(options, more)
  local all = {}
  for key, value in pairs(options or {}) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

-- Runs body(connect, server, wait_for, made, client context, server context) with a TLS server of recorders.
-- connect(options) → transport, protocol of a client that wants to reach "localhost". options: server, client (see
-- tls.contexts), listen (create_server's).
function tls.serve(loop, body, options)
  options = options or {}
  local server_context, client_context = tls.contexts(options)
  helper.serve(loop, function(server, wait_for, made)
    local function connect(more)
      local address = server.sockets[1]:getsockname()
      return loop:create_connection(function() return helper.Recorder(loop) end, address[1], address[2],
        tls.with({ ssl = client_context, server_hostname = "localhost" }, more or {}))
    end
    body(connect, server, wait_for, made, client_context, server_context)
  end, tls.with(options.listen, { ssl = server_context }))
end

-- A connected pair through a server that is closed: client transport, client protocol, server transport, server
-- protocol. options: as tls.serve, client_protocol, server_protocol, connect (create_connection's).
function tls.pair(loop, options)
  options = options or {}
  local server_context, client_context = tls.contexts(options)
  local server_side = options.server_protocol or helper.Recorder(loop)
  local client_side = options.client_protocol or helper.Recorder(loop)
  local server = loop:create_server(helper.always(server_side), "127.0.0.1", 0,
    tls.with(options.listen, { ssl = server_context }))
  local address = server.sockets[1]:getsockname()
  local transport = loop:create_connection(helper.always(client_side), address[1], address[2],
    tls.with({ ssl = client_context, server_hostname = "localhost" }, options.connect or {}))
  server_side:wait_for("made")
  server:close()
  return transport, client_side, server_side.transport, server_side
end

-- A client over TLS whose other end is the bare socket of `openssl s_client`'s kind: nothing of TLS but what the spec
-- sends. Connects in a task: task, socket, address.
function tls.connect_to_socket(loop, options)
  local _, client_context = tls.contexts(options)
  local listener, address = helper.listen()
  local protocol = helper.Recorder(loop)
  local task = loop:create_task(function()
    return loop:create_connection(helper.always(protocol), address[1], address[2],
      tls.with({ ssl = client_context, server_hostname = "localhost" }, options and options.connect or {}))
  end)
  local sock = helper.accept(loop, listener)
  listener:close()
  return task, sock, protocol, address
end

-- Closes both and waits for their ends.
function tls.finish(client, server)
  client.transport:close()
  client:wait_lost()
  server:wait_lost()
end

return tls
