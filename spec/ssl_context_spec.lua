-- aloop.ssl without a connection: contexts with Python's defaults, what they load and refuse, their fields, constants.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local raises, type_error = helper.raises, helper.type_error
local ssl = aloop.ssl

local function set(context, field, value)
  context[field] = value
  return context[field]
end

describe("ssl.SSLContext", function()
  -- row: ssl_module
  it("of a client checks certificates and names", function()
    local context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert.is_true(context.check_hostname)
    assert.equal(ssl.CERT_REQUIRED, context.verify_mode)
    assert.is_false(context.hostname_checks_common_name)
    assert.equal(ssl.PROTOCOL_TLS_CLIENT, context.protocol)
    assert.equal(ssl.PROTOCOL_TLS_CLIENT, ssl.SSLContext().protocol)
    assert.is_true(aloop.isinstance(context, ssl.SSLContext))
  end)

  it("of a server asks clients for nothing", function()
    for _, protocol in ipairs { ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS } do
      local context = ssl.SSLContext(protocol)
      assert.is_false(context.check_hostname)
      assert.equal(ssl.CERT_NONE, context.verify_mode)
    end
  end)

  it("has Python's versions, options and ciphers", function()
    local context = ssl.SSLContext()
    assert.equal(ssl.TLSVersion.TLSv1_2, context.minimum_version)
    assert.equal(ssl.TLSVersion.MAXIMUM_SUPPORTED, context.maximum_version)
    assert.equal(2, context.security_level)
    assert.equal(2, context.num_tickets)
    assert.equal(ssl.VERIFY_X509_TRUSTED_FIRST, context.verify_flags)
    local wanted = ssl.OP_ALL | ssl.OP_NO_SSLv3 | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
      | ssl.OP_ENABLE_MIDDLEBOX_COMPAT | ssl.OP_NO_RENEGOTIATION
    assert.equal(wanted, context.options)
    assert.equal(0, context.options & ssl.OP_IGNORE_UNEXPECTED_EOF)
    for _, cipher in ipairs(context:get_ciphers()) do
      assert.is_true(cipher.strength_bits >= 128, cipher.name)
      assert.is_nil(cipher.name:find "RC4" or cipher.name:find "DES" or cipher.name:find "%-SHA$" or
        cipher.name:find "PSK", cipher.name)
    end
  end)

  it("refuses protocols that it doesn't know", function()
    raises(aloop.ValueError, "invalid or unsupported protocol version", ssl.SSLContext, 3)
    type_error("number expected, got string", ssl.SSLContext, "TLS")
  end)

  it("is created with what is recommended by create_default_context", function()
    local client = ssl.create_default_context()
    assert.equal(ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT,
      client.verify_flags)
    assert.equal(ssl.PROTOCOL_TLS_CLIENT, client.protocol)
    local server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert.equal(ssl.PROTOCOL_TLS_SERVER, server.protocol)
    assert.equal(ssl.CERT_NONE, server.verify_mode)
    assert.equal(0, server:cert_store_stats().x509)
    local own = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, { cafile = certs.ca.cert })
    assert.same({ x509 = 1, x509_ca = 1, crl = 0 }, own:cert_store_stats())
    raises(aloop.ValueError, "no purpose", ssl.create_default_context, "x")
    type_error("Purpose expected, got number", ssl.create_default_context, 1)
    type_error("unknown option 'cafiles' to 'create_default_context'", ssl.create_default_context, nil,
      { cafiles = "x" })
    type_error("bad option 'cafile' to 'create_default_context' (string expected, got boolean)",
      ssl.create_default_context, nil, { cafile = true })
  end)

  it("extends", function()
    local Own = ssl.SSLContext:extend "Own"
    local context = Own(ssl.PROTOCOL_TLS_SERVER)
    assert.is_true(aloop.isinstance(context, ssl.SSLContext))
    assert.equal(ssl.CERT_NONE, context.verify_mode)
  end)

  it("takes the name of a file for secrets from the environment", function()
    local file = certs.dir .. "/env.keys"
    local code = "print(require('aloop').ssl.create_default_context().keylog_filename)"
    local function run(arguments)
      local pipe = assert(io.popen(("SSLKEYLOGFILE=%s %s %s \"%s\""):format(file, helper.aloop, arguments, code)))
      local line = pipe:read "l"
      pipe:close()
      return line
    end
    assert.equal(file, run "-e")
    assert.equal("nil", run "-E -e")
  end)
end)

describe("SSLContext:load_cert_chain", function()
  local function server() return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) end

  it("takes the key from its own file or from the certificate's", function()
    server():load_cert_chain(certs.server.cert, certs.server.key)
    local both = certs.write("both.pem", certs.read(certs.server.key) .. certs.read(certs.server.cert))
    server():load_cert_chain(both)
    server():load_cert_chain(both, nil, nil)
  end)

  it("opens an encrypted key with a string or what a function returns", function()
    local key = certs.encrypted_key("server", "secret")
    local asked = 0
    server():load_cert_chain(certs.server.cert, key, "secret")
    server():load_cert_chain(certs.server.cert, key, function()
      asked = asked + 1
      return "secret"
    end)
    assert.equal(1, asked)
    server():load_cert_chain(certs.server.cert, certs.server.key, function() error "not needed" end)
  end)

  it("says what is wrong with a password", function()
    local key = certs.encrypted_key("server", "secret")
    local function load(password)
      local context = server()
      return context.load_cert_chain, context, certs.server.cert, key, password
    end
    local e = raises(aloop.SSLError, "bad decrypt", load("wrong"))
    assert.equal("SSL", e.library)
    raises(aloop.SSLError, "the key is encrypted, and no password was given", load())
    raises(aloop.ValueError, "password cannot be longer than 1024 bytes", load(("x"):rep(1025)))
    raises(aloop.ValueError, "password cannot be longer than 1024 bytes", load(function() return ("x"):rep(1025) end))
    raises(aloop.SSLError, nil, load(function() return "" end))
    type_error("password callback must return a string, got number", load(function() return 4 end))
    type_error("string or function expected, got number", load(4))
    local own = { "mine" }
    local ok, err = pcall(load(function() error(own) end))
    assert.is_false(ok)
    assert.equal(own, err)
  end)

  it("doesn't let a password function wait", function()
    helper.as_task(function()
      local context = server()
      raises(aloop.RuntimeError, "sleep", context.load_cert_chain, context, certs.server.cert,
        certs.encrypted_key("server", "secret"), function() aloop.sleep(0) end)
    end)
  end)

  it("refuses what does not belong together, and files that are none", function()
    local context = server()
    local e = raises(aloop.SSLError, "[X509: KEY_VALUES_MISMATCH] key values mismatch", context.load_cert_chain,
      context, certs.server.cert, certs.client.key)
    assert.equal("X509", e.library)
    assert.equal("KEY_VALUES_MISMATCH", e.reason)
    assert.equal(("('%s' and '%s')"):format(certs.server.cert, certs.client.key), e.message:match "%(.*%)$")
    e = raises(aloop.FileNotFoundError, "No such file or directory: '/nowhere.crt'", context.load_cert_chain, context,
      "/nowhere.crt")
    assert.equal("/nowhere.crt", e.filename)
    raises(aloop.FileNotFoundError, "'/nowhere.key'", context.load_cert_chain, context, certs.server.cert,
      "/nowhere.key")
    raises(aloop.SSLError, "[SSL] PEM lib", context.load_cert_chain, context, certs.write("garbage.pem", "garbage"))
    raises(aloop.SSLError, "[SSL] PEM lib", context.load_cert_chain, context, certs.server.cert)
    type_error("bad argument #1 to 'load_cert_chain' (string expected, got no value)", context.load_cert_chain, context)
    type_error("bad argument #2 to 'load_cert_chain' (string expected, got table)", context.load_cert_chain, context,
      certs.server.cert, {})
  end)

  it("refuses a key that is too short, unless the security level is lowered", function()
    local context = server()
    local e = raises(aloop.SSLError, "ee key too small", context.load_cert_chain, context, certs.weak_key.cert,
      certs.weak_key.key)
    assert.equal("EE_KEY_TOO_SMALL", e.reason)
    context:set_ciphers "DEFAULT:@SECLEVEL=1"
    assert.equal(1, context.security_level)
    context:load_cert_chain(certs.weak_key.cert, certs.weak_key.key)
  end)
end)

describe("SSLContext:load_verify_locations", function()
  local function load(options)
    local context = ssl.SSLContext()
    context:load_verify_locations(options)
    return context
  end

  it("takes files, directories and data", function()
    assert.equal(1, load({ cafile = certs.ca.cert }):cert_store_stats().x509)
    assert.equal(0, load({ capath = certs.dir }):cert_store_stats().x509)
    local pem = certs.read(certs.ca.cert)
    assert.equal(1, load({ cadata = pem }):cert_store_stats().x509)
    local two = "# two\n" .. pem .. certs.read(certs.other_ca.cert) .. pem
    assert.equal(2, load({ cadata = two }):cert_store_stats().x509)
    local der = load({ cafile = certs.ca.cert }):get_ca_certs(true)[1]
    local other = load({ cafile = certs.other_ca.cert }):get_ca_certs(true)[1]
    assert.equal(1, load({ cadata = der }):cert_store_stats().x509)
    assert.equal(2, load({ cadata = der .. other }):cert_store_stats().x509)
    assert.same({ x509 = 1, x509_ca = 0, crl = 0 }, load({ cafile = certs.server.cert }):cert_store_stats())
    local crl = certs.crl()
    assert.equal(1, load({ cafile = crl }):cert_store_stats().crl)
    assert.equal(1, load({ cadata = certs.read(crl) }):cert_store_stats().crl)
  end)

  it("says what is wrong", function()
    local e = raises(aloop.FileNotFoundError, "'/nowhere.crt'", load, { cafile = "/nowhere.crt" })
    assert.equal("ENOENT", e.code)
    raises(aloop.SSLError, "[X509: NO_CERTIFICATE_OR_CRL_FOUND]", load,
      { cafile = certs.write("garbage.pem", "garbage") })
    raises(aloop.ValueError, "Empty certificate data", load, { cadata = "" })
    raises(aloop.SSLError, "no start line: cadata does not contain a certificate", load, { cadata = "x" })
    raises(aloop.SSLError, "not enough data: cadata does not contain a certificate", load, { cadata = "\x30x" })
    local der = load({ cafile = certs.ca.cert }):get_ca_certs(true)[1]
    raises(aloop.SSLError, "[ASN1", load, { cadata = der .. "\x30\x82" })
    raises(aloop.SSLError, "[PEM", load, { cadata = certs.read(certs.ca.cert):sub(1, -10) })
    local context = ssl.SSLContext()
    type_error("cafile, capath and cadata cannot be all omitted", context.load_verify_locations, context)
    type_error("cafile, capath and cadata cannot be all omitted", context.load_verify_locations, context, {})
    type_error("table expected, got string", context.load_verify_locations, context, certs.ca.cert)
    type_error("unknown option 'ca' to 'load_verify_locations'", context.load_verify_locations, context, { ca = "x" })
    type_error("bad option 'cadata' to 'load_verify_locations' (string expected, got table)",
      context.load_verify_locations, context, { cadata = {} })
  end)

  it("takes no name that goes on behind a zero byte", function()
    local context, cert, key = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certs.server.cert, certs.server.key
    local function refused(...) raises(aloop.ValueError, "embedded null byte", ...) end
    refused(load, { cafile = certs.ca.cert .. "\0.other" })
    refused(load, { capath = certs.dir .. "\0.other" })
    refused(context.load_cert_chain, context, cert .. "\0", key)
    refused(context.load_cert_chain, context, cert, key .. "\0")
    refused(context.set_ciphers, context, "HIGH\0:!aNULL")
    refused(function() context.keylog_filename = certs.dir .. "/keys\0.log" end)
    assert.equal(0, context:cert_store_stats().x509)
  end)

  it("shows the authorities", function()
    local context = load({ cafile = certs.ca.cert })
    local list = context:get_ca_certs()
    assert.equal(1, #list)
    assert.same({ { "organizationName", "aloop" }, { "commonName", "aloop test CA" } }, list[1].subject)
    assert.same(list[1].subject, list[1].issuer)
    assert.equal(3, list[1].version)
    assert.matches("^%u%l%l [%d ]%d %d%d:%d%d:%d%d %d%d%d%d GMT$", list[1].notAfter)
    assert.same({}, load({ cafile = certs.server.cert }):get_ca_certs())
  end)

  it("knows the system's store", function()
    local context = ssl.SSLContext()
    context:load_default_certs()
    context:load_default_certs(ssl.Purpose.SERVER_AUTH)
    context:set_default_verify_paths()
  end)
end)

describe("a field of an SSLContext", function()
  it("is a switch of the check of names", function()
    local context = ssl.SSLContext(ssl.PROTOCOL_TLS)
    assert.is_true(set(context, "check_hostname", true))
    assert.equal(ssl.CERT_REQUIRED, context.verify_mode)
    raises(aloop.ValueError, "Cannot set verify_mode to CERT_NONE when check_hostname is enabled.", set, context,
      "verify_mode", ssl.CERT_NONE)
    assert.is_false(set(context, "check_hostname", false))
    assert.equal(ssl.CERT_NONE, set(context, "verify_mode", ssl.CERT_NONE))
    assert.equal(ssl.CERT_OPTIONAL, set(context, "verify_mode", ssl.CERT_OPTIONAL))
    assert.is_true(set(context, "hostname_checks_common_name", true))
    assert.is_false(set(context, "hostname_checks_common_name", false))
    raises(aloop.ValueError, "invalid value for verify_mode", set, context, "verify_mode", 3)
    type_error("bad value for field 'verify_mode' of an SSLContext (integer expected, got string)", set, context,
      "verify_mode", "none")
    type_error("bad value for field 'check_hostname' of an SSLContext (boolean expected, got number)", set, context,
      "check_hostname", 1)
  end)

  it("is a set of flags or options", function()
    local context = ssl.SSLContext()
    assert.equal(ssl.VERIFY_CRL_CHECK_LEAF, set(context, "verify_flags", ssl.VERIFY_CRL_CHECK_LEAF))
    assert.equal(ssl.VERIFY_X509_STRICT, set(context, "verify_flags", ssl.VERIFY_X509_STRICT))
    assert.equal(ssl.OP_NO_TICKET, set(context, "options", ssl.OP_NO_TICKET))
    context.options = context.options | ssl.OP_IGNORE_UNEXPECTED_EOF
    assert.equal(ssl.OP_NO_TICKET | ssl.OP_IGNORE_UNEXPECTED_EOF, context.options)
    raises(aloop.ValueError, "options must not be negative", set, context, "options", -1)
  end)

  it("is a version of TLS", function()
    local context, V = ssl.SSLContext(), ssl.TLSVersion
    assert.equal(V.TLSv1_3, set(context, "minimum_version", V.TLSv1_3))
    assert.equal(V.TLSv1_3, set(context, "minimum_version", V.MAXIMUM_SUPPORTED))
    assert.equal(V.MINIMUM_SUPPORTED, set(context, "minimum_version", V.MINIMUM_SUPPORTED))
    assert.equal(V.TLSv1_2, set(context, "maximum_version", V.TLSv1_2))
    assert.equal(V.TLSv1, set(context, "maximum_version", V.MINIMUM_SUPPORTED))
    assert.equal(V.MAXIMUM_SUPPORTED, set(context, "maximum_version", V.MAXIMUM_SUPPORTED))
    raises(aloop.ValueError, "Unsupported TLS/SSL version 0x5", set, context, "minimum_version", 5)
    raises(aloop.ValueError, "Unsupported TLS/SSL version 0x305", set, context, "maximum_version", 0x305)
  end)

  it("is the number of tickets of a server", function()
    local context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert.equal(0, set(context, "num_tickets", 0))
    raises(aloop.ValueError, "value must be non-negative", set, context, "num_tickets", -1)
    raises(aloop.ValueError, "SSLContext is not a server context.", set, ssl.SSLContext(), "num_tickets", 1)
  end)

  it("is a file of secrets", function()
    local context, file = ssl.SSLContext(), certs.dir .. "/keys"
    assert.is_nil(context.keylog_filename)
    assert.equal(file, set(context, "keylog_filename", file))
    assert.is_nil(set(context, "keylog_filename", nil))
    raises(aloop.FileNotFoundError, "'/nowhere/x'", set, context, "keylog_filename", "/nowhere/x")
    type_error("string or nil expected, got number", set, context, "keylog_filename", 5)
  end)

  it("is what is asked about names", function()
    local context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    local function f() end
    context:set_servername_callback(f)
    assert.equal(f, context.sni_callback)
    context:set_servername_callback(nil)
    assert.is_nil(context.sni_callback)
    assert.equal(f, set(context, "sni_callback", f))
    type_error("function expected, got number", context.set_servername_callback, context, 5)
    type_error("function or nil expected, got number", set, context, "sni_callback", 5)
  end)

  it("can't be another one", function()
    local context = ssl.SSLContext()
    assert.is_nil(context.nothing)
    type_error("an SSLContext has no field 'nothing' that can be set", set, context, "nothing", 1)
    type_error("an SSLContext has no field 'protocol' that can be set", set, context, "protocol", 2)
    type_error("an SSLContext has no field '1' that can be set", set, context, 1, 2)
  end)
end)

describe("SSLContext", function()
  it("takes lists of protocols and ciphers", function()
    local context = ssl.SSLContext()
    context:set_alpn_protocols { "h2", "http/1.1" }
    context:set_alpn_protocols {}
    raises(aloop.SSLError, "ALPN protocols must be 1 to 255 in length", context.set_alpn_protocols, context, { "" })
    raises(aloop.SSLError, "1 to 255", context.set_alpn_protocols, context, { ("x"):rep(256) })
    type_error("table expected, got string", context.set_alpn_protocols, context, "h2")
    type_error("list of strings expected, got boolean in it", context.set_alpn_protocols, context, { "h2", true })
    context:set_ciphers "ECDHE-RSA-AES128-GCM-SHA256"
    local names = {}
    for _, cipher in ipairs(context:get_ciphers()) do names[#names + 1] = cipher.name end
    assert.equal("ECDHE-RSA-AES128-GCM-SHA256", names[#names])
    assert.equal("TLS_AES_256_GCM_SHA384", names[1])
    raises(aloop.SSLError, "No cipher can be selected.", context.set_ciphers, context, "NOPE")
    type_error("string expected, got nil", context.set_ciphers, context, nil)
  end)

  it("counts its connections", function()
    local stats = ssl.SSLContext():session_stats()
    for _, name in ipairs {
      "number", "connect", "connect_good", "connect_renegotiate", "accept", "accept_good", "accept_renegotiate", "hits",
      "misses", "timeouts", "cache_full",
    } do
      assert.equal(0, stats[name], name)
    end
  end)

  it("shows ciphers as Python does", function()
    local first = ssl.SSLContext():get_ciphers()[1]
    assert.same({
      id = 50336514, name = "TLS_AES_256_GCM_SHA384", protocol = "TLSv1.3", strength_bits = 256, alg_bits = 256,
      description = "TLS_AES_256_GCM_SHA384         TLSv1.3 Kx=any      Au=any   Enc=AESGCM(256)            Mac=AEAD",
      aead = true, symmetric = "aes-256-gcm", kea = "kx-any", auth = "auth-any",
    }, first)
  end)
end)

describe("aloop.ssl", function()
  it("has Python's constants and errors", function()
    for name, value in pairs {
      CERT_NONE = 0, CERT_OPTIONAL = 1, CERT_REQUIRED = 2, PROTOCOL_TLS = 2, PROTOCOL_TLS_CLIENT = 16,
      PROTOCOL_TLS_SERVER = 17, VERIFY_DEFAULT = 0, VERIFY_CRL_CHECK_LEAF = 4, VERIFY_CRL_CHECK_CHAIN = 12,
      VERIFY_X509_STRICT = 32, VERIFY_X509_TRUSTED_FIRST = 32768, VERIFY_X509_PARTIAL_CHAIN = 0x80000,
      OP_NO_TLSv1_2 = 0x08000000, OP_IGNORE_UNEXPECTED_EOF = 128, ALERT_DESCRIPTION_UNRECOGNIZED_NAME = 112,
      HAS_SNI = true, HAS_ALPN = true, HAS_TLSv1_3 = true, HAS_SSLv3 = false,
    } do
      assert.equal(value, ssl[name], name)
    end
    assert.equal(0x0304, ssl.TLSVersion.TLSv1_3)
    assert.matches("^OpenSSL %d", ssl.OPENSSL_VERSION)
    assert.equal(5, #ssl.OPENSSL_VERSION_INFO)
    assert.equal(aloop.SSLError, ssl.SSLError)
    assert.equal(ssl, require "aloop.ssl")
    assert.is_true(aloop.isinstance(ssl.SSLEOFError "x", aloop.OSError))
    raises(aloop.RuntimeError, "can't be made", ssl.SSLObject)
    raises(aloop.RuntimeError, "can't be made", ssl.SSLSession)
  end)
end)
