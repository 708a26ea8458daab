-- The programs of spec/c that try TLS without Lua.
-- SPDX-License-Identifier: MIT

local programs = require "spec.support.programs"

programs.specs(programs.named { "^core_tls" })
