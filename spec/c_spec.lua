-- The programs in C: those of spec/c that use the core alone (of TLS: c_tls_spec.lua), the echo example.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local programs = require "spec.support.programs"

-- core_threads has the races of call_soon_threadsafe with close: row: call_soon_threadsafe.close_race; bug: 27
programs.specs(programs.named({ "^core_", "^io_" }, { except = "^core_tls" }))

describe("the echo server in C", function()
  -- options: how a client connects
  local function echoes(options, ...)
    local server = helper.start_program { programs.path "echo_server", ... }
    local port = tonumber((server:read_until(":(%d+)")))
    helper.as_task(function(loop)
      local protocol = helper.Recorder(loop)
      local transport = loop:create_connection(helper.always(protocol), "127.0.0.1", port, options)
      local data = ("0123456789"):rep(50000)
      transport:write(data)
      assert.is_true(protocol:wait_data(#data) == data)
      transport:close()
      protocol:wait_lost()
    end)
    server:kill("TERM")
    local result = server:wait()
    assert.is_true(result.signal == 15 or result.code == 0)
  end

  it("echoes", function() echoes() end)

  it("echoes over TLS", function()
    local certs = require "spec.support.certs"
    echoes({ ssl = certs.client_context() }, "0", certs.server.cert, certs.server.key)
  end)

  it("says what is wrong with its certificate", function()
    local result = helper.run_program { programs.path "echo_server", "0", "/nowhere" }
    assert.equal(1, result.code)
    assert.matches("^echo_server: /nowhere: .*No such file", result.stderr)
  end)
end)
