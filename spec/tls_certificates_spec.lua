-- Who is believed: the refusals that are the default, what it takes to give each of them up, clients' certificates.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local raises = helper.raises
local ssl = aloop.ssl

-- A server's context with the certificate of this name, however weak it is.
local function weak_server(name)
  local context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context:set_ciphers "DEFAULT:@SECLEVEL=0"
  context:load_cert_chain(certs[name].cert, certs[name].key)
  return context
end

-- Also with those that have signed it.
local function chain_server(name, ...)
  local context = weak_server(name)
  context:load_cert_chain(certs.chain(name, ...), certs[name].key)
  return context
end

local function trust(context, name) context:load_verify_locations { cafile = certs[name].cert } end

local function object_of(transport) return transport:get_extra_info "ssl_object" end

local function check_nothing(context)
  context.check_hostname = false
  context.verify_mode = ssl.CERT_NONE
end

-- What is wrong with the server's certificate: its name; what is said; X509_V_ERR_*; the change to the client's
-- context with which it is taken all the same.
local refusals = {
  {
    "self_signed", "self-signed certificate", 18,
    function(context) trust(context, "self_signed") end,
  },
  {
    "unknown_ca", "unable to get local issuer certificate", 20,
    function(context) trust(context, "other_ca") end,
  },
  {
    "below_middle", "unable to get local issuer certificate", 20,
    function(context) trust(context, "middle_ca") end,
  },
  {
    "expired", "certificate has expired", 10,
    check_nothing,
  },
  {
    "not_yet_valid", "certificate is not yet valid", 9,
    check_nothing,
  },
  {
    "wrong_host", "Hostname mismatch, certificate is not valid for 'localhost'.", 62,
    function(context) context.check_hostname = false end,
  },
  {
    "common_name", "Hostname mismatch, certificate is not valid for 'localhost'.", 62,
    function(context) context.hostname_checks_common_name = true end,
  },
  {
    "misplaced_wildcard", "Hostname mismatch, certificate is not valid for 'localhost'.", 62,
    function(context) context.check_hostname = false end,
  },
  {
    "wrong_usage", "unsuitable certificate purpose", 26,
    check_nothing,
  },
  {
    "weak_key", "EE certificate key too weak", 66,
    function(context) context:set_ciphers "DEFAULT:@SECLEVEL=1" end,
  },
}

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- Connects a client with this context to a server with that one; reads and writes a byte.
  local function exchange(loop, server, client, options)
    local transport, client_side, _, server_side = tls.pair(loop,
      { server = server, client = client, connect = options })
    transport:write "x"
    server_side:wait_data(1)
    tls.finish(client_side, server_side)
    return client_side, server_side
  end

  local function refused(loop, server, client, message, code, options)
    local name = options and options.server_hostname or "localhost"
    tls.serve(loop, function(connect, _, _, made)
      local e = raises(ssl.SSLCertVerificationError, message, connect, options)
      assert.equal("SSL", e.library)
      assert.equal("CERTIFICATE_VERIFY_FAILED", e.reason)
      assert.equal(code, e.verify_code)
      assert.equal(message, e.verify_message)
      local text = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: %s ('%s' at "
      text = text:format(message, name)
      assert.equal(text, e.message:sub(1, #text))
      assert.equal(0, #made)
    end, { server = server, client = client })
  end

  describe("a server's certificate", function()
    for _, case in ipairs(refusals) do
      local name, message, code, opt_in = table.unpack(case)
      it("is refused: " .. name, function()
        with_loop(function(loop)
          local server, client = weak_server(name), certs.client_context()
          refused(loop, server, client, message, code)
          opt_in(client)
          exchange(loop, server, client)
        end)
      end)
    end

    it("is refused: signed with SHA-1", function()
      with_loop(function(loop)
        local server, client = chain_server("weak_signature", "middle_weak"), certs.client_context()
        refused(loop, server, client, "CA signature digest algorithm too weak", 68)
        client:set_ciphers "DEFAULT:@SECLEVEL=0"
        exchange(loop, server, client)
      end)
    end)

    it("is refused for an address that it does not name", function()
      with_loop(function(loop)
        local client = certs.client_context()
        local options = { server_hostname = "192.0.2.7" }
        refused(loop, "server", client, "IP address mismatch, certificate is not valid for '192.0.2.7'.", 64, options)
        exchange(loop, "server", client, { server_hostname = "127.0.0.1" })
        exchange(loop, "server", client, { server_hostname = "::1" })
        client.check_hostname = false
        exchange(loop, "server", client, options)
      end)
    end)

    it("is for anybody if the name is empty, but must be trusted", function()
      -- row: create_connection.server_hostname_empty
      with_loop(function(loop)
        local client = certs.client_context()
        local transport, client_side, _, server_side = tls.pair(loop,
          { server = "wrong_host", client = client, connect = { server_hostname = "" } })
        assert.is_nil(object_of(transport).server_hostname)
        tls.finish(client_side, server_side)
        tls.serve(loop, function(connect)
          raises(ssl.SSLCertVerificationError, "self-signed certificate (peer 127.0.0.1:", connect,
            { server_hostname = "" })
        end, { server = "self_signed", client = client })
      end)
    end)

    it("is checked for the host that is connected to", function()
      -- row: create_connection.server_hostname
      with_loop(function(loop)
        tls.serve(loop, function(_, server, wait_for, _, context)
          local port = server.sockets[1]:getsockname().port
          local transport = loop:create_connection(aloop.Protocol, "127.0.0.1", port, { ssl = context })
          assert.equal("127.0.0.1", transport:get_extra_info "ssl_object".server_hostname)
          wait_for(1)
          transport:abort()
        end)
      end)
    end)

    it("may name a whole label by a wildcard", function()
      with_loop(function(loop)
        local client = certs.client_context()
        exchange(loop, "second", client, { server_hostname = "one.wild.example" })
        for _, name in ipairs { "wild.example", "two.one.wild.example" } do
          refused(loop, "second", client, ("Hostname mismatch, certificate is not valid for '%s'."):format(name), 62,
            { server_hostname = name })
        end
      end)
    end)

    it("comes with the chain that leads to the authority", function()
      with_loop(function(loop)
        exchange(loop, chain_server("below_middle", "middle_ca"), certs.client_context())
      end)
    end)

    it("is refused when it is revoked", function()
      with_loop(function(loop)
        local client = certs.client_context()
        exchange(loop, "revoked", client)
        client.verify_flags = client.verify_flags | ssl.VERIFY_CRL_CHECK_LEAF
        refused(loop, "revoked", client, "unable to get certificate CRL", 3)
        client:load_verify_locations { cafile = certs.crl("revoked") }
        refused(loop, "revoked", client, "certificate revoked", 23)
        exchange(loop, "server", client)
        client.verify_flags = client.verify_flags & ~ssl.VERIFY_CRL_CHECK_LEAF
        exchange(loop, "revoked", client)
      end)
    end)

    it("is not looked at where nobody asks for it, and not shown either", function()
      with_loop(function(loop)
        local context = ssl.SSLContext()
        check_nothing(context)
        local transport, client, _, server = tls.pair(loop, { client = context, server = "self_signed" })
        local object = transport:get_extra_info "ssl_object"
        assert.same({}, object:getpeercert())
        assert.equal("string", type(object:getpeercert(true)))
        tls.finish(client, server)
      end)
    end)
  end)

  describe("a certificate", function()
    it("is shown as Python shows it", function()
      with_loop(function(loop)
        local transport, client, _, server = tls.pair(loop, { server = "everything" })
        local object = transport:get_extra_info "ssl_object"
        local cert = object:getpeercert()
        assert.same({ { "organizationName", "aloop" }, { "commonName", "Zoë & Co" } }, cert.subject)
        assert.same({ { "organizationName", "aloop" }, { "commonName", "aloop test CA" } }, cert.issuer)
        assert.same({
          { "DNS", "localhost" }, { "IP Address", "127.0.0.1" }, { "IP Address", "0:0:0:0:0:0:0:1" },
          { "email", "a@example.org" }, { "URI", "https://example.org/x" }, { "Registered ID", "1.2.3.4" },
          { "DirName", { { "countryName", "XY" }, { "organizationName", "Dir Org" } } },
          { "othername", "<unsupported>" },
        }, cert.subjectAltName)
        assert.same({ "http://ocsp.example/" }, cert.OCSP)
        assert.same({ "http://ca.example/ca.crt" }, cert.caIssuers)
        assert.same({ "http://crl.example/ca.crl" }, cert.crlDistributionPoints)
        assert.equal(3, cert.version)
        assert.matches("^%x+$", cert.serialNumber)
        assert.matches("^%u%l%l [%d ]%d %d%d:%d%d:%d%d %d%d%d%d GMT$", cert.notBefore)
        assert.matches(" GMT$", cert.notAfter)
        local der = certs.write("peer.der", object:getpeercert(true))
        local pem = certs.openssl("x509 -inform DER -in %s", der)
        assert.equal(certs.read(certs.everything.cert), pem)
        tls.finish(client, server)
      end)
    end)
  end)

  describe("a client's certificate", function()
    local function server_context(mode)
      local context = certs.server_context()
      context.verify_mode = mode
      context:load_verify_locations { cafile = certs.ca.cert }
      return context
    end

    local function client_context(name)
      local context = certs.client_context()
      if name then context:load_cert_chain(certs[name].cert, certs[name].key) end
      return context
    end

    it("is shown to the server", function()
      with_loop(function(loop)
        for _, mode in ipairs { ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED } do
          local _, client, transport, server = tls.pair(loop,
            { server = server_context(mode), client = client_context "client" })
          local cert = transport:get_extra_info "peercert"
          assert.equal("a client", cert.subject[2][2])
          assert.same({ { "email", "client@example.org" } }, cert.subjectAltName)
          tls.finish(client, server)
        end
      end)
    end)

    it("is missing where it is optional", function()
      with_loop(function(loop)
        local _, client, transport, server = tls.pair(loop,
          { server = server_context(ssl.CERT_OPTIONAL), client = client_context() })
        assert.is_nil(transport:get_extra_info "peercert")
        assert.is_nil(transport:get_extra_info "ssl_object":getpeercert(true))
        tls.finish(client, server)
      end)
    end)

    -- In TLS 1.3 a client hears of its refusal after its own handshake, in 1.2 in its course.
    local function told_refusal(loop, server, client, reason)
      for _, version in ipairs { ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3 } do
        client.minimum_version, client.maximum_version = version, version
        tls.serve(loop, function(connect, _, _, made)
          local ok, result, protocol = pcall(connect)
          local e = result
          if ok then e = protocol:wait_lost() end
          assert.is_true(aloop.isinstance(e, ssl.SSLError), tostring(e))
          assert.equal(reason[version] or reason[1], e.reason)
          assert.equal(0, #made)
        end, { server = server, client = client })
        client.minimum_version = ssl.TLSVersion.TLSv1_2
        client.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
      end
    end

    it("is refused when it is missing, unknown or made for something else", function()
      with_loop(function(loop)
        local server = server_context(ssl.CERT_REQUIRED)
        told_refusal(loop, server, client_context(), {
          [ssl.TLSVersion.TLSv1_2] = "SSLV3_ALERT_HANDSHAKE_FAILURE",
          [ssl.TLSVersion.TLSv1_3] = "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        })
        told_refusal(loop, server, client_context "stranger", { "TLSV1_ALERT_UNKNOWN_CA" })
        told_refusal(loop, server, client_context "server", { "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE" })
        told_refusal(loop, server_context(ssl.CERT_OPTIONAL), client_context "stranger", { "TLSV1_ALERT_UNKNOWN_CA" })
      end)
    end)

    it("is asked for again when a session is taken up", function()
      with_loop(function(loop)
        local server, client = server_context(ssl.CERT_REQUIRED), client_context "client"
        local transport, client_side, server_transport, server_side = tls.pair(loop,
          { server = server, client = client })
        server_transport:write "x"
        client_side:wait_data(1)
        local session = transport:get_extra_info "ssl_object".session
        tls.finish(client_side, server_side)
        local again, client_again, server_again, server_side_again = tls.pair(loop,
          { server = server, client = client, connect = { session = session } })
        assert.is_true(again:get_extra_info "ssl_object".session_reused)
        assert.equal("a client", server_again:get_extra_info "peercert".subject[2][2])
        tls.finish(client_again, server_side_again)
      end)
    end)
  end)
end)
