-- ssl.lua: aloop.ssl: contexts, constants and errors of TLS, by the names of Python's module ssl. All that does
-- something is in the bindings (lssl*.c).
-- SPDX-License-Identifier: MIT

local core = require "aloop.core"

---@class aloop.SSLContext
---@field check_hostname boolean a client's certificate must be made out to the name or address that was asked for
---@field hostname_checks_common_name boolean the subject's common name counts, if there is no DNS name (default: no)
---@field verify_mode integer CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED
---@field verify_flags integer VERIFY_*
---@field minimum_version integer TLSVersion.*
---@field maximum_version integer TLSVersion.*
---@field options integer OP_*
---@field keylog_filename? string where the secrets of connections are written to, for debugging
---@field num_tickets integer how many session tickets a server sends after a handshake of TLS 1.3
---@field sni_callback? function as set by set_servername_callback
---@field protocol integer PROTOCOL_*
---@field security_level integer
---@field load_cert_chain fun(self, certfile: string, keyfile?: string, password?: string|fun(): string)
---@field load_verify_locations fun(self, where: {cafile?: string, capath?: string, cadata?: string})
---@field load_default_certs fun(self, purpose?: string)
---@field set_alpn_protocols fun(self, protocols: string[])
---@field set_ciphers fun(self, ciphers: string)
---@field get_ciphers fun(self): table[]
---@field set_servername_callback fun(self, f?: fun(object: aloop.SSLObject, name?: string, context): integer?)
---@field session_stats fun(self): table<string, integer>
---@field cert_store_stats fun(self): {x509: integer, crl: integer, x509_ca: integer}
---@field get_ca_certs fun(self, binary?: boolean): (table|string)[]

---@class aloop.SSLObject
---@field context aloop.SSLContext
---@field server_side boolean
---@field server_hostname? string
---@field session? aloop.SSLSession to be given to the next connection as option `session`
---@field session_reused boolean
---@field getpeercert fun(self, binary?: boolean): table|string|nil
---@field cipher fun(self): string?, string?, integer? name, protocol, bits
---@field version fun(self): string?
---@field selected_alpn_protocol fun(self): string?
---@field compression fun(self): string?
---@field get_channel_binding fun(self, kind?: "tls-unique"|"tls-exporter"): string?

---@class aloop.SSLSession
---@field id string
---@field time integer
---@field timeout integer
---@field ticket_lifetime_hint integer
---@field has_ticket boolean

---@class aloop.ssl
---@field create_default_context fun(purpose?: string, where?: table): aloop.SSLContext
---@field Purpose {SERVER_AUTH: string, CLIENT_AUTH: string}
---@field TLSVersion table<string, integer>
local ssl = core.ssl_constants()

ssl.create_default_context = core.create_default_context
ssl.CHANNEL_BINDING_TYPES = { "tls-unique", "tls-exporter" }

for _, name in ipairs {
  "SSLContext", "SSLObject", "SSLSession", "SSLError", "SSLCertVerificationError", "SSLEOFError", "SSLZeroReturnError",
} do
  ssl[name] = core[name]
end
ssl.CertificateError = ssl.SSLCertVerificationError

return ssl
