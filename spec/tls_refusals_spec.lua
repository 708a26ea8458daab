-- Certificates that must not be believed, each against each way to believe more than usual: it is refused by default
-- with its own message, accepted by the opt-ins that are meant for it, and by no other.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local raises = helper.raises
local ssl = aloop.ssl

local NO_CHECK_TIME = 0x200000 -- OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name either

-- Name of the certificate, verify_code, verify_message; host: what is asked for, localhost unless it is told; opt_in:
-- by which it is accepted besides `nobody_checked`.
local bad = {
  { "self_signed", 18, "self-signed certificate", opt_in = { "trusts_it" } },
  { "unknown_ca", 20, "unable to get local issuer certificate", opt_in = { "trusts_its_issuer" } },
  { "expired", 10, "certificate has expired", opt_in = { "knows_no_time" } },
  { "not_yet_valid", 9, "certificate is not yet valid", opt_in = { "knows_no_time" } },
  { "wrong_host", 62, "Hostname mismatch, certificate is not valid for 'localhost'.",
    opt_in = { "checks_no_name", "means_elsewhere" } },
  { "wrong_host", 64, "IP address mismatch, certificate is not valid for '127.0.0.1'.", host = "127.0.0.1",
    opt_in = { "checks_no_name", "means_elsewhere" } },
  { "common_name", 62, "Hostname mismatch, certificate is not valid for 'localhost'.",
    opt_in = { "checks_no_name", "takes_common_names" } },
  { "misplaced_wildcard", 62, "Hostname mismatch, certificate is not valid for 'localhost'.",
    opt_in = { "checks_no_name" } },
  { "misplaced_wildcard", 62, "Hostname mismatch, certificate is not valid for 'www.a.example'.",
    host = "www.a.example", opt_in = { "checks_no_name" } },
  { "wrong_usage", 26, "unsuitable certificate purpose", opt_in = {} },
  { "weak_key", 66, "EE certificate key too weak", opt_in = { "takes_the_weak" } },
  { "weak_signature", 68, "CA signature digest algorithm too weak", opt_in = { "takes_the_weak" },
    chain = { "weak_signature", "middle_weak" } },
  { "revoked", 23, "certificate revoked", asks_who_is_revoked = true, opt_in = { "asks_for_no_list" } },
}

-- Each changes a client's context; what it returns is the name to be asked for.
local opt_ins = {
  trusts_it = function(context) context:load_verify_locations { cafile = certs.self_signed.cert } end,
  trusts_its_issuer = function(context) context:load_verify_locations { cafile = certs.other_ca.cert } end,
  knows_no_time = function(context) context.verify_flags = context.verify_flags | NO_CHECK_TIME end,
  checks_no_name = function(context) context.check_hostname = false end,
  means_elsewhere = function() return "elsewhere.example" end,
  takes_common_names = function(context) context.hostname_checks_common_name = true end,
  takes_the_weak = function(context) context:set_ciphers "DEFAULT:@SECLEVEL=0" end,
  asks_for_no_list = function(context) context.verify_flags = context.verify_flags & ~ssl.VERIFY_CRL_CHECK_LEAF end,
  nobody_checked = function(context)
    context.check_hostname = false
    context.verify_mode = ssl.CERT_NONE
  end,
}

-- A server that shows even what is too weak for it.
local function server_context(one)
  local context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context:set_ciphers "DEFAULT:@SECLEVEL=0"
  context:load_cert_chain(one.chain and certs.chain(table.unpack(one.chain)) or certs[one[1]].cert, certs[one[1]].key)
  return context
end

local revoked -- the list of them

local function client_context(one)
  local context = certs.client_context()
  if one.asks_who_is_revoked then
    revoked = revoked or certs.crl "revoked"
    context:load_verify_locations { cafile = revoked }
    context.verify_flags = context.verify_flags | ssl.VERIFY_CRL_CHECK_LEAF
  end
  return context
end

-- Connects to the server with a client of its own context, changed by the opt-in (may be nil).
local function try(connect, one, opt_in)
  local context = client_context(one)
  local other_name = opt_in and opt_in(context)
  local transport, client = connect { ssl = context, server_hostname = other_name or one.host or "localhost" }
  transport:close()
  assert.is_nil(client:wait_lost())
end

-- Python's own words, of 3.13 with the same certificates; but it takes a common name for a host name by default.
for _, one in ipairs(bad) do
  local host = one.host or "localhost"
  it(("%s as %s is refused: %s"):format(one[1], host, one[3]), function()
    helper.as_task(function(loop)
      tls.serve(loop, function(connect, _, _, made)
        local e = raises(ssl.SSLCertVerificationError,
          "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: " .. one[3], try, connect, one)
        assert.same({ one[2], one[3] }, { e.verify_code, e.verify_message })
        assert.truthy(e.message:find(("('%s' at 127.0.0.1:"):format(host), 1, true), e.message)
        local accepted = { nobody_checked = true }
        for _, name in ipairs(one.opt_in) do accepted[name] = true end
        for name, opt_in in pairs(opt_ins) do
          local ok, failure = pcall(try, connect, one, opt_in)
          assert.equal(accepted[name] or false, ok, name .. ": " .. tostring(failure))
        end
        assert.equal(#one.opt_in + 1, #made)
      end, { server = server_context(one) })
    end)
  end)
end

it("good ones are believed as they are", function()
  helper.as_task(function(loop)
    tls.serve(loop, function(connect)
      for _, host in ipairs { "a.wild.example", "SECOND.example" } do try(connect, { host = host }) end
      for _, host in ipairs { "awild.example", ".wild.example.org", "second.example.org" } do
        assert.is_false(pcall(try, connect, { host = host }), host)
      end
    end, { server = "second" })
    tls.serve(loop, function(connect)
      for _, host in ipairs { "localhost", "127.0.0.1", "::1", "0:0::0001" } do try(connect, { host = host }) end
    end)
  end)
end)
