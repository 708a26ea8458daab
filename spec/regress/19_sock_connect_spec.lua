-- 19: sock_connect and the race of its end with a cancellation, and with the socket's closing (gh-131728): the outcome
-- came for a future that was done already, or the watch stayed and hit the next owner of the number.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local core = require "aloop.core"

local S = aloop.socket

helper.each_loop(function(_, new_loop)
  local function race(name, act)
    it("19: sock_connect and " .. name .. " at the same time", function()
      helper.with_loop(new_loop, function(loop)
        local base = core.stats(loop).watchers
        local listener = S.socket()
        listener:bind { "127.0.0.1", 0 }
        listener:listen(100)
        for turns = 0, 5 do
          for _ = 1, 3 do
            local sock = S.socket()
            local task = loop:create_task(function() loop:sock_connect(sock, listener:getsockname()) end)
            for _ = 1, turns do aloop.sleep(0) end
            act(task, sock)
            local ok, e = pcall(task.await, task)
            local expected = ok or aloop.isinstance(e, aloop.CancelledError) or e.code == "EBADF"
            assert.is_true(expected, tostring(e))
            assert.equal(base, core.stats(loop).watchers)
            sock:close()
            local a, b = S.socketpair() -- the number's next owner
            b:send("x")
            assert.equal("x", loop:sock_recv(a, 10))
            a:close()
            b:close()
          end
        end
        listener:close()
      end)
    end)
  end

  race("cancel", function(task) task:cancel() end)
  race("close", function(_, sock) sock:close() end)
  race("cancel and close", function(task, sock)
    task:cancel()
    sock:close()
  end)
end)
