-- 11: who waited for a handshake hung when the other end closed before its end (pyasyncio#472), and whoever knocked at
-- a TLS port made the log grow (pyasyncio#487, aiohttp#3052).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local tls = require "spec.support.tls"

helper.each_loop(function(_, new_loop)
  describe("11: a TLS handshake", function()
    it("ends when the server closes", function()
      helper.with_loop(new_loop, function(loop)
        for _, close in ipairs { function(sock) sock:close() end, helper.reset } do
          local task, sock = tls.connect_to_socket(loop)
          helper.recv(loop, sock)
          close(sock)
          helper.raises(aloop.ConnectionResetError, nil, task.await, task)
        end
      end)
    end)

    it("ends when the server closes half of the connection", function()
      helper.with_loop(new_loop, function(loop)
        local task, sock = tls.connect_to_socket(loop)
        sock:shutdown(aloop.socket.SHUT_WR)
        helper.raises(aloop.ConnectionResetError, nil, task.await, task)
        sock:close()
      end)
    end)

    it("that a client leaves is told to nobody, in debug mode once", function()
      helper.with_loop(new_loop, function(loop, trial)
        tls.serve(loop, function(_, server)
          local address = server.sockets[1]:getsockname()
          local function knock(bytes)
            local sock = helper.connect(loop, address)
            helper.send_all(loop, sock, bytes)
            helper.turns(3)
            helper.reset(sock)
            helper.turns(10)
          end
          knock ""
          knock "\22\3\1"
          assert.equal(0, #trial.errors)
          assert.equal(0, #trial.logs)
          loop:set_debug(true)
          knock "\22\3\1"
          trial:wait_until(function() return #trial.errors > 0 end)
          helper.turns(10)
          assert.equal(1, #trial.errors)
          trial:take_error()
        end)
      end)
    end)
  end)
end)
