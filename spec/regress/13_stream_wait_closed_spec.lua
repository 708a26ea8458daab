-- 13: StreamWriter.wait_closed() hung, or raised what had been raised before, when the other end was gone already,
-- when the connection was lost with bytes unsent, or when another task waited too (gh-83939).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  describe("13: StreamWriter:wait_closed returns", function()
    local function with_client(body)
      helper.with_loop(new_loop, function(loop)
        local reader, writer, sock = helper.streams_over_tcp(loop)
        body(reader, writer, sock, loop)
      end)
    end

    it("when the other end was closed before", function()
      with_client(function(reader, writer, sock)
        sock:close()
        assert.is_nil(reader:read(1))
        writer:close()
        writer:wait_closed()
        writer:wait_closed()
      end)
    end)

    it("in every task that waits, and in one that comes later", function()
      with_client(function(_, writer, sock, loop)
        local tasks = {}
        for i = 1, 3 do tasks[i] = loop:create_task(function() writer:wait_closed() end) end
        aloop.sleep(0)
        writer:close()
        for i = 1, 3 do tasks[i]:await() end
        writer:wait_closed()
        sock:close()
      end)
    end)

    it("with bytes unsent that nobody will read", function()
      with_client(function(_, writer, sock)
        helper.fill(writer.transport)
        writer:close()
        helper.reset(sock)
        helper.raises(aloop.ConnectionError, nil, writer.wait_closed, writer)
        helper.raises(aloop.ConnectionError, nil, writer.wait_closed, writer)
      end)
    end)

    it("after an abort with bytes unsent", function()
      with_client(function(_, writer, sock)
        helper.fill(writer.transport)
        writer.transport:abort()
        writer:wait_closed()
        sock:close()
      end)
    end)
  end)
end)
