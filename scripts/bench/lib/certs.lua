-- certs.lua - the certificate of the TLS servers that are measured: self-signed, ECDSA over P-256, for localhost. Used
-- by the runner.
--
-- SPDX-License-Identifier: MIT
local shell = require "lib.shell"

local certs = {}

---@class Pair
---@field certificate string
---@field key string

--- Where the files are below a directory.
---@param dir string
---@return Pair
function certs.paths(dir)
  return { certificate = dir .. "/cert.pem", key = dir .. "/key.pem" }
end

--- Makes them anew. Returns nil, or why it can't be done.
---@param dir string
---@return string|nil reason
function certs.make(dir)
  if not shell.has "openssl" then return "openssl is not installed" end
  local pair = certs.paths(dir)
  shell.run { "mkdir", "-p", dir }
  local _, ok, errors = shell.run { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
    "-nodes", "-keyout", pair.key, "-out", pair.certificate, "-days", "30", "-subj", "/CN=localhost",
    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1" }
  return not ok and "openssl: " .. errors:gsub("%s+$", "") or nil
end

return certs
