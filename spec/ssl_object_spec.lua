-- SSLObject: what a connection has agreed on; names that clients ask for, protocols, sessions, bindings, secrets.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local raises, type_error = helper.raises, helper.type_error
local ssl = aloop.ssl
local V = ssl.TLSVersion

local function object_of(transport) return transport:get_extra_info "ssl_object" end

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(client's object, server's object, client, server, loop); closed after it.
  local function with_pair(options, body)
    with_loop(function(loop, trial)
      local transport, client, server_transport, server = tls.pair(loop, options)
      body(object_of(transport), object_of(server_transport), client, server, loop, trial)
      tls.finish(client, server)
    end)
  end

  local function client_of(version)
    local context = certs.client_context()
    context.minimum_version, context.maximum_version = version, version
    return context
  end

  describe("SSLObject", function()
    it("tells what was agreed on", function()
      with_pair({}, function(object, other)
        local name, protocol, bits = object:cipher()
        assert.same({ "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256 }, { name, protocol, bits })
        assert.same({ name, protocol, bits }, { other:cipher() })
        assert.equal("TLSv1.3", object:version())
        assert.is_nil(object:compression())
        assert.is_nil(object:selected_alpn_protocol())
        assert.equal("localhost", object.server_hostname)
        assert.is_nil(other.server_hostname)
        assert.is_false(object.server_side)
        assert.is_true(other.server_side)
        assert.is_false(object.session_reused)
        assert.is_true(aloop.isinstance(object.context, ssl.SSLContext))
        assert.is_nil(object.nothing)
        type_error("an SSLObject has no field 'session' that can be set", function() object.session = 1 end)
        type_error("bad value for field 'context' of an SSLObject (SSLContext expected, got nil)",
          function() object.context = nil end)
      end)
    end)

    it("of TLS 1.2 has the ciphers of that", function()
      with_pair({ client = client_of(V.TLSv1_2) }, function(object)
        local name, protocol, bits = object:cipher()
        assert.same({ "ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256 }, { name, protocol, bits })
        assert.equal("TLSv1.2", object:version())
      end)
    end)

    it("still answers when the connection is closed", function()
      with_loop(function(loop)
        local transport, client, _, server = tls.pair(loop)
        local object = object_of(transport)
        tls.finish(client, server)
        helper.turns(3)
        assert.equal("TLSv1.3", object:version())
        assert.equal("localhost", object:getpeercert().subject[2][2])
        assert.equal(object, object_of(transport))
        assert.is_nil(object_of(server.transport))
        assert.is_nil(server.transport:get_extra_info "cipher")
      end)
    end)

    it("binds channels", function()
      with_pair({ client = client_of(V.TLSv1_2) }, function(object, other)
        assert.equal(12, #object:get_channel_binding())
        assert.equal(object:get_channel_binding(), other:get_channel_binding "tls-unique")
        assert.equal(32, #object:get_channel_binding "tls-exporter")
        assert.equal(object:get_channel_binding "tls-exporter", other:get_channel_binding "tls-exporter")
        raises(aloop.ValueError, "'x' channel binding type not implemented", object.get_channel_binding, object, "x")
        type_error("string expected, got number", object.get_channel_binding, object, 5)
      end)
      with_pair({}, function(object, other)
        assert.is_nil(object:get_channel_binding "tls-unique")
        assert.equal(object:get_channel_binding "tls-exporter", other:get_channel_binding "tls-exporter")
      end)
    end)
  end)

  describe("ALPN", function()
    local function agreed(loop, offered, known)
      local server, client = certs.server_context(), certs.client_context()
      if offered then client:set_alpn_protocols(offered) end
      if known then server:set_alpn_protocols(known) end
      local transport, client_side, server_transport, server_side = tls.pair(loop, { server = server, client = client })
      local found = object_of(transport):selected_alpn_protocol()
      assert.equal(found, object_of(server_transport):selected_alpn_protocol())
      tls.finish(client_side, server_side)
      return found
    end

    it("chooses what the server likes best", function()
      with_loop(function(loop)
        assert.equal("http/1.1", agreed(loop, { "h2", "http/1.1" }, { "http/1.1", "h2" }))
        assert.equal("h2", agreed(loop, { "h2", "http/1.1" }, { "h2", "http/1.1" }))
      end)
    end)

    it("goes on without what both know", function()
      with_loop(function(loop)
        assert.is_nil(agreed(loop, { "h2" }, { "smtp" }))
        assert.is_nil(agreed(loop, { "h2" }))
        assert.is_nil(agreed(loop, nil, { "h2" }))
      end)
    end)
  end)

  describe("a servername callback", function()
    -- Connects to a server with this callback; what the client's certificate check found, or the error.
    local function connect(loop, callback, name, client)
      local server = certs.server_context()
      server:set_servername_callback(callback)
      local result
      tls.serve(loop, function(connect_to)
        local ok, transport, protocol = pcall(connect_to, { server_hostname = name or "localhost" })
        result = ok and transport:get_extra_info "peercert".subject[2][2] or transport
        if ok then
          transport:close()
          protocol:wait_lost()
        end
      end, { server = server, client = client })
      return result, server
    end

    it("is told the name, and may change the context", function()
      with_loop(function(loop)
        local second = certs.server_context "second"
        local told
        local found, server = connect(loop, function(...)
          told = table.pack(...)
          told[1].context = second
        end, "second.example")
        assert.equal("second.example", found)
        assert.equal(3, told.n)
        assert.is_true(aloop.isinstance(told[1], ssl.SSLObject))
        assert.is_true(told[1].server_side)
        assert.equal("second.example", told[2])
        assert.equal(server, told[3])
        assert.equal(second, told[1].context)
      end)
    end)

    it("may leave everything as it is", function()
      with_loop(function(loop)
        assert.equal("localhost", connect(loop, function() end))
      end)
    end)

    it("is told that there was no name", function()
      with_loop(function(loop)
        local told = {}
        assert.equal("localhost", connect(loop, function(_, name) told.name = name or "none" end, "127.0.0.1"))
        assert.equal("none", told.name)
      end)
    end)

    it("refuses by an alert", function()
      with_loop(function(loop)
        local e = connect(loop, function() return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME end)
        assert.is_true(aloop.isinstance(e, ssl.SSLError), tostring(e))
        assert.equal("TLSV1_UNRECOGNIZED_NAME", e.reason)
      end)
    end)

    it("that fails is reported, and refuses", function()
      with_loop(function(loop, trial)
        local e = connect(loop, function() error("no such thing", 0) end)
        assert.equal("SSLV3_ALERT_HANDSHAKE_FAILURE", e.reason)
        local context = trial:take_error()
        assert.equal("Exception in servername callback", context.message)
        assert.equal("no such thing", context.exception)
        assert.is_true(aloop.isinstance(context.transport, aloop.Transport))
        e = connect(loop, function() return "x" end)
        assert.equal("TLSV1_ALERT_INTERNAL_ERROR", e.reason)
        assert.matches("nil or the number of an alert, got string", trial:take_error().exception)
        connect(loop, function() return 256 end)
        assert.matches("nil or the number of an alert, got 256", trial:take_error().exception)
        connect(loop, function() aloop.sleep(0) end)
        assert.is_true(aloop.isinstance(trial:take_error().exception, aloop.RuntimeError))
      end)
    end)

    it("may choose a context that asks for certificates", function()
      with_loop(function(loop)
        local strict = certs.server_context "second"
        strict.verify_mode = ssl.CERT_REQUIRED
        strict:load_verify_locations { cafile = certs.ca.cert }
        local function choose(object, name)
          if name == "second.example" then object.context = strict end
        end
        local client = client_of(V.TLSv1_2)
        local e = connect(loop, choose, "second.example", client)
        assert.equal("SSLV3_ALERT_HANDSHAKE_FAILURE", e.reason)
        assert.equal("localhost", connect(loop, choose, "localhost", client))
        client:load_cert_chain(certs.client.cert, certs.client.key)
        assert.equal("second.example", connect(loop, choose, "second.example", client))
      end)
    end)

    it("may close the connection, or be replaced", function()
      with_loop(function(loop)
        local server
        server = select(2, connect(loop, function()
          server = nil
        end))
        server:set_servername_callback(nil)
        local e = connect(loop, function(object, _, context)
          context:set_servername_callback(nil)
          assert(object.server_side)
          return ssl.ALERT_DESCRIPTION_ACCESS_DENIED
        end)
        assert.equal("TLSV1_ALERT_ACCESS_DENIED", e.reason)
      end)
    end)
  end)

  describe("a session", function()
    -- Connects, lets a byte come (tickets of TLS 1.3 come before it) and closes: the client's session, was it reused?
    local function visit(loop, server, client, options)
      local transport, client_side, server_transport, server_side = tls.pair(loop,
        { server = server, client = client, connect = options })
      server_transport:write "x"
      client_side:wait_data(1)
      local object = object_of(transport)
      local session, reused = object.session, object.session_reused
      assert.equal(reused, object_of(server_transport).session_reused)
      tls.finish(client_side, server_side)
      return session, reused
    end

    it("can be taken up by the next connection", function()
      with_loop(function(loop)
        for _, version in ipairs { V.TLSv1_2, V.TLSv1_3 } do
          local server, client = certs.server_context(), client_of(version)
          local session, reused = visit(loop, server, client)
          assert.is_false(reused)
          assert.is_true(aloop.isinstance(session, ssl.SSLSession))
          assert.is_true(session.has_ticket)
          assert.is_true(session.time > 0)
          assert.is_true(session.timeout > 0)
          assert.is_true(session.ticket_lifetime_hint > 0)
          assert.equal("string", type(session.id))
          session, reused = visit(loop, server, client, { session = session })
          assert.is_true(reused)
          assert.is_true(select(2, visit(loop, server, client, { session = session })))
          assert.is_false(select(2, visit(loop, server, client)))
          assert.equal(2, server:session_stats().hits)
          assert.equal(4, server:session_stats().accept_good)
          assert.equal(4, client:session_stats().connect_good)
          assert.equal(2, client:session_stats().hits)
        end
      end)
    end)

    it("is kept by the server where it gives no tickets", function()
      with_loop(function(loop)
        local server, client = certs.server_context(), client_of(V.TLSv1_2)
        server.options = server.options | ssl.OP_NO_TICKET
        local session = visit(loop, server, client)
        assert.is_false(session.has_ticket)
        assert.equal(32, #session.id)
        assert.is_true(select(2, visit(loop, server, client, { session = session })))
        assert.equal(1, server:session_stats().number)
      end)
    end)

    it("is not offered by a server without tickets", function()
      with_loop(function(loop)
        local server, client = certs.server_context(), client_of(V.TLSv1_3)
        server.num_tickets = 0
        local session = visit(loop, server, client)
        assert.is_false(session.has_ticket)
        assert.is_false(select(2, visit(loop, server, client, { session = session })))
      end)
    end)

    it("of a server that has forgotten it is no error", function()
      with_loop(function(loop)
        local client = certs.client_context()
        local session = visit(loop, certs.server_context(), client)
        assert.is_false(select(2, visit(loop, certs.server_context(), client, { session = session })))
      end)
    end)

    it("goes with its context", function()
      with_loop(function(loop)
        local client = certs.client_context()
        local session = visit(loop, certs.server_context(), client)
        tls.serve(loop, function(connect)
          raises(aloop.ValueError, "Session refers to a different SSLContext.", connect, { session = session })
          raises(aloop.ValueError, "Session refers to a different SSLContext.", connect,
            { session = session, ssl = true })
          type_error("SSLSession expected, got table", connect, { session = {} })
        end)
      end)
    end)

    it("is the same if it is the same", function()
      with_pair({}, function(object, other)
        assert.is_true(object.session == object.session)
        assert.is_false(object.session == other.session)
      end)
    end)
  end)

  describe("keylog_filename", function()
    it("gets the secrets of every connection", function()
      with_loop(function(loop)
        local client, file = certs.client_context(), certs.dir .. "/secrets"
        os.remove(file)
        client.keylog_filename = file
        local _, one, _, other = tls.pair(loop, { client = client })
        tls.finish(one, other)
        local text = certs.read(file)
        assert.matches("CLIENT_TRAFFIC_SECRET_0 %x+ %x+\n", text)
        client.keylog_filename = nil
        _, one, _, other = tls.pair(loop, { client = client })
        tls.finish(one, other)
        assert.equal(text, certs.read(file))
      end)
    end)
  end)

  describe("versions and ciphers", function()
    it("that have nothing in common are told to both", function()
      with_loop(function(loop)
        local server = certs.server_context()
        server.minimum_version = V.TLSv1_3
        tls.serve(loop, function(connect)
          local e = raises(ssl.SSLError, "tlsv1 alert protocol version ('localhost' at ", connect)
          assert.equal("TLSV1_ALERT_PROTOCOL_VERSION", e.reason)
        end, { server = server, client = client_of(V.TLSv1_2) })
        server = certs.server_context()
        server:set_ciphers "ECDHE-ECDSA-AES128-GCM-SHA256"
        local client = client_of(V.TLSv1_2)
        client:set_ciphers "ECDHE-ECDSA-AES256-GCM-SHA384"
        tls.serve(loop, function(connect)
          assert.equal("SSLV3_ALERT_HANDSHAKE_FAILURE", raises(ssl.SSLError, nil, connect).reason)
        end, { server = server, client = client })
      end)
    end)

    it("older than TLS 1.2 are refused by default", function()
      with_loop(function(loop)
        local client = certs.client_context()
        client.minimum_version, client.maximum_version = V.TLSv1, V.TLSv1_1
        client:set_ciphers "DEFAULT:@SECLEVEL=0"
        tls.serve(loop, function(connect)
          assert.equal("TLSV1_ALERT_PROTOCOL_VERSION", raises(ssl.SSLError, nil, connect).reason)
        end, { client = client })
      end)
    end)
  end)
end)
