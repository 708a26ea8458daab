-- The programs in C: those of spec/c that use the core alone (of TLS: c_tls_spec.lua), the echo example.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local programs = require "spec.support.programs"

-- core_threads has the races of call_soon_threadsafe with close: row: call_soon_threadsafe.close_race; bug: 27
programs.specs(programs.named({ "^core_", "^io_" }, { except = "^core_tls" }))

describe("the echo server in C", function()
  it("echoes", function()
    local server = helper.start_program { programs.path "echo_server" }
    local port = tonumber((server:read_until(":(%d+)")))
    helper.as_task(function(loop)
      local protocol = helper.Recorder(loop)
      local transport = loop:create_connection(helper.always(protocol), "127.0.0.1", port)
      local data = ("0123456789"):rep(50000)
      transport:write(data)
      assert.is_true(protocol:wait_data(#data) == data)
      transport:close()
      protocol:wait_lost()
    end)
    server:kill("TERM")
    local result = server:wait()
    assert.is_true(result.signal == 15 or result.code == 0)
  end)
end)
