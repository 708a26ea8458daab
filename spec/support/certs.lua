-- certs.lua - certificates for specs, made by the `openssl` command when one is first asked for, and kept for the run
-- of this process: certs.server is { cert = path, key = path }. One authority (certs.ca) has signed them all, unless
-- the name says otherwise; each is right but for what its name says.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local child = require "spec.support.child"
local ssl = aloop.ssl

local certs = {}

local dir, remove = child.temporary_directory()
certs.dir = dir
certs.guard = setmetatable({}, { __gc = remove }) -- it goes with the process that made it

local function path(name) return dir .. "/" .. name end

certs.read = child.read_file

local function write(name, text) return child.write_file(text, path(name)) end
certs.write = write

-- Runs `openssl` with these arguments; what it prints.
local function openssl(format, ...)
  local command = ("cd %s && openssl " .. format):format(dir, ...)
  local pipe = assert(io.popen(command .. " 2>&1 </dev/null"))
  local output = pipe:read "a"
  if not pipe:close() then error(command .. "\n" .. output, 2) end
  return output
end
certs.openssl = openssl

-- ---- how each one is ------------------------------------------------------------------------------------------------

local NAMES = "DNS:localhost, IP:127.0.0.1, IP:::1"
local LEAF = {
  subject = "localhost",
  names = NAMES,
  usage = "digitalSignature",
  purpose = "serverAuth",
  key = "ec -pkeyopt ec_paramgen_curve:P-256",
  issuer = "ca",
}
local AUTHORITY = { usage = "keyCertSign, cRLSign", authority = true, names = false, purpose = false }

local function like(base, changes)
  local one = {}
  for key, value in pairs(LEAF) do one[key] = value end
  for key, value in pairs(base) do one[key] = value end
  for key, value in pairs(changes or {}) do one[key] = value end
  return one
end

local kinds = {
  ca = like(AUTHORITY, { subject = "aloop test CA", issuer = false }),
  other_ca = like(AUTHORITY, { subject = "another CA", issuer = false }),
  middle_ca = like(AUTHORITY, { subject = "aloop test CA, level 2" }),
  server = like {},
  second = like { subject = "second.example", names = "DNS:second.example, DNS:*.wild.example" },
  client = like { subject = "a client", names = "email:client@example.org", purpose = "clientAuth" },
  stranger = like { subject = "a stranger", names = false, purpose = "clientAuth", issuer = "other_ca" },
  self_signed = like { issuer = false },
  unknown_ca = like { issuer = "other_ca" },
  below_middle = like { issuer = "middle_ca" },
  expired = like { from = -20, to = -10 },
  not_yet_valid = like { from = 10, to = 20 },
  wrong_host = like { subject = "elsewhere.example", names = "DNS:elsewhere.example, IP:192.0.2.1" },
  common_name = like { names = false },
  misplaced_wildcard = like { names = "DNS:local*, DNS:*, DNS:www.*.example" },
  wrong_usage = like { purpose = "clientAuth" },
  weak_key = like { key = "rsa:1024", usage = "digitalSignature, keyEncipherment" },
  weak_signature = like { issuer = "middle_weak" },
  middle_weak = like(AUTHORITY, { subject = "signed with SHA-1", digest = "sha1" }),
  revoked = like {},
  rsa = like { key = "rsa:2048", usage = "digitalSignature, keyEncipherment" },
  everything = like {
    subject = "Zoë & Co",
    names = NAMES .. ", email:a@example.org, URI:https://example.org/x, RID:1.2.3.4, dirName:dir, " ..
      "otherName:1.2.3.4;UTF8:other",
    more = "authorityInfoAccess = OCSP;URI:http://ocsp.example/, caIssuers;URI:http://ca.example/ca.crt\n" ..
      "crlDistributionPoints = URI:http://crl.example/ca.crl\n[dir]\nC = XY\nO = Dir Org\n",
  },
}

local function config(name, one)
  local lines = {
    "[req]\nprompt = no\nutf8 = yes\nstring_mask = utf8only\ndistinguished_name = dn",
    "[dn]\nO = aloop\nCN = " .. one.subject,
    "[v3]\nbasicConstraints = critical, CA:" .. (one.authority and "true" or "false"),
    "keyUsage = critical, " .. one.usage,
    "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid",
  }
  if one.purpose then lines[#lines + 1] = "extendedKeyUsage = " .. one.purpose end
  if one.names then lines[#lines + 1] = "subjectAltName = " .. one.names end
  lines[#lines + 1] = one.more
  return write(name .. ".cnf", table.concat(lines, "\n") .. "\n")
end

-- ---- making ---------------------------------------------------------------------------------------------------------

local serial = 1000

-- Signs the request by `openssl ca`, which alone lets dates be chosen.
local function sign_dated(name, one)
  local function date(days) return os.date("!%y%m%d%H%M%SZ", os.time() + days * 86400) end
  local issuer = certs[one.issuer]
  write("index.txt", "")
  write("serial", ("%04X\n"):format(serial))
  write("ca.cnf", "[ca]\ndefault_ca = one\n[one]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n" ..
    "default_md = sha256\npolicy = any\nunique_subject = no\n" ..
    "[any]\norganizationName = supplied\ncommonName = supplied\n")
  openssl("req -new -config %s.cnf -newkey %s -nodes -keyout %s.key -out %s.csr", name, one.key, name, name)
  openssl("ca -batch -notext -config ca.cnf -extfile %s.cnf -extensions v3 -cert %s -keyfile %s -startdate %s "
    .. "-enddate %s -in %s.csr -out %s.crt", name, issuer.cert, issuer.key, date(one.from), date(one.to), name, name)
end

local function make(name)
  local one = assert(kinds[name], "no such certificate: " .. name)
  serial = serial + 1
  config(name, one)
  if one.from then
    sign_dated(name, one)
  else
    local issuer = one.issuer and certs[one.issuer]
    local by = issuer and ("-CA %s -CAkey %s"):format(issuer.cert, issuer.key) or ""
    openssl("req -x509 -config %s.cnf -extensions v3 -newkey %s -nodes -keyout %s.key -out %s.crt -days 30 -%s "
      .. "-set_serial %d %s", name, one.key, name, name, one.digest or "sha256", serial, by)
  end
  return { cert = path(name .. ".crt"), key = path(name .. ".key") }
end

setmetatable(certs, {
  __index = function(_, name)
    local made = make(name)
    rawset(certs, name, made)
    return made
  end,
})

-- The key of a certificate in a file of its own, encrypted with the password.
function certs.encrypted_key(name, password)
  local file = path(name .. ".enc")
  openssl("pkey -in %s -aes256 -passout pass:%s -out %s", certs[name].key, password, file)
  return file
end

-- The certificates of the names one after the other, as a chain is given to load_cert_chain.
function certs.chain(...)
  local parts = {}
  for i, name in ipairs { ... } do parts[i] = certs.read(certs[name].cert) end
  return write(table.concat({ ... }, "+") .. ".pem", table.concat(parts))
end

-- A list of what the authority has revoked: these names.
function certs.crl(...)
  local lines = {}
  for _, name in ipairs { ... } do
    local number = openssl("x509 -in %s -noout -serial", certs[name].cert):match "=(%x+)"
    lines[#lines + 1] = ("R\t%s\t%s\t%s\tunknown\t/CN=x\n"):format(os.date("!%y%m%d%H%M%SZ", os.time() + 86400),
      os.date("!%y%m%d%H%M%SZ"), number)
  end
  write("crl.txt", table.concat(lines))
  write("crl.cnf", "[ca]\ndefault_ca = one\n[one]\ndatabase = crl.txt\ndefault_md = sha256\ndefault_crl_days = 30\n")
  openssl("ca -gencrl -config crl.cnf -cert %s -keyfile %s -out ca.crl", certs.ca.cert, certs.ca.key)
  return path "ca.crl"
end

-- ---- contexts -------------------------------------------------------------------------------------------------------

-- A server's with the certificate of this name.
function certs.server_context(name)
  local one = certs[name or "server"]
  local context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context:load_cert_chain(one.cert, one.key)
  return context
end

-- The usual server's, which wants clients' certificates of the authority.
function certs.mutual_context()
  local context = certs.server_context()
  context:load_verify_locations { cafile = certs.ca.cert }
  context.verify_mode = ssl.CERT_REQUIRED
  return context
end

-- A client's that trusts the authority of this name.
function certs.client_context(name)
  return ssl.create_default_context(nil, { cafile = certs[name or "ca"].cert })
end

return certs
