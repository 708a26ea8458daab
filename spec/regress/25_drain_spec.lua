-- 25: two tasks in drain() were an AssertionError (gh-74116), and a task that writes and drains without end neither saw
-- the loss of its connection nor let anybody else run (pyasyncio#263).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  local function with_client(body)
    helper.with_loop(new_loop, function(loop)
      local reader, writer, sock = helper.streams_over_tcp(loop)
      body(reader, writer, sock, loop)
      writer:close()
    end)
  end

  describe("25: StreamWriter:drain", function()
    it("serves many tasks at once", function()
      with_client(function(_, writer, sock, loop)
        local block = ("x"):rep(100000)
        local tasks = {}
        for i = 1, 10 do
          tasks[i] = loop:create_task(function()
            for _ = 1, 10 do
              writer:write(block)
              writer:drain()
            end
          end)
        end
        assert.equal(100 * #block, #helper.recv_exactly(loop, sock, 100 * #block))
        for i = 1, 10 do tasks[i]:await() end
        sock:close()
      end)
    end)

    it("raises in a task that does nothing but write and drain", function()
      with_client(function(_, writer, sock)
        helper.reset(sock)
        local ok, e = pcall(function()
          while true do
            writer:write(("x"):rep(1000))
            writer:drain()
          end
        end)
        assert.is_false(ok)
        assert.is_true(aloop.isinstance(e, aloop.ConnectionError))
      end)
    end)
  end)
end)
