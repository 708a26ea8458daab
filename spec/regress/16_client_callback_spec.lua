-- 16: an error in start_server's callback was silent, and the connection stayed open for ever (gh-110894, gh-155928).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  it("16: an error in start_server's callback is told, and its connection closed", function()
    helper.with_loop(new_loop, function(loop, trial)
      local server = aloop.start_server(function(reader)
        reader:readline()
        local nothing = nil
        return nothing.field
      end, "127.0.0.1", 0)
      local sock = helper.connect(loop, helper.address_of(server))
      helper.send_all(loop, sock, "go\n")
      assert.is_nil(helper.recv(loop, sock))
      sock:close()
      local context = trial:take_error()
      assert.equal("Unhandled exception in client_connected_cb", context.message)
      assert.truthy(context.exception:find("attempt to index a nil value", 1, true))
      server:close()
      server:wait_closed()
    end)
  end)
end)
