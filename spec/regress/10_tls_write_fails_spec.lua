-- 10: connection_lost was not called when writing failed under TLS (gh-118950), drain() hung there (gh-102792), and a
-- slow reader stalled for good (gh-80279).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"

helper.each_loop(function(_, new_loop)
  describe("10: TLS", function()
    it("tells of a connection that was lost while it was written to", function()
      helper.with_loop(new_loop, function(loop)
        local transport, client, server_transport, server = tls.pair(loop)
        server_transport:pause_reading()
        transport:write(("x"):rep(4000000))
        helper.turns(5)
        local sock = server_transport:get_extra_info "socket"
        sock:setsockopt(aloop.socket.SOL_SOCKET, aloop.socket.SO_LINGER, string.pack("=i4i4", 1, 0))
        server_transport:abort()
        local e = client:wait_lost()
        assert.is_true(aloop.isinstance(e, aloop.ConnectionError), tostring(e))
        server:wait_lost()
      end)
    end)

    -- body(reader, writer, the other end's reader and writer, loop)
    local function with_streams(body)
      helper.with_loop(new_loop, function(loop)
        local accepted = loop:create_future()
        local server = aloop.start_server(function(reader, writer) accepted:set_result(reader, writer) end,
          "127.0.0.1", 0, { ssl = certs.server_context() })
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2],
          { ssl = certs.client_context(), server_hostname = "localhost" })
        local other_reader, other_writer = accepted:await()
        body(reader, writer, other_reader, other_writer, loop)
        for _, one in ipairs { writer, other_writer } do
          one.transport:abort()
          pcall(one.wait_closed, one)
        end
        server:close()
        server:wait_closed()
      end)
    end

    it("wakes a task in drain() when the connection is lost", function()
      with_streams(function(_, writer, _, other_writer, loop)
        local task = loop:create_task(function()
          while true do
            writer:write(("x"):rep(100000))
            writer:drain()
          end
        end)
        helper.turns(50)
        other_writer.transport:abort()
        helper.raises(aloop.OSError, nil, task.await, task)
      end)
    end)

    it("goes on when a slow reader reads on", function()
      with_streams(function(_, writer, other_reader, _, loop)
        local total = 6000000
        local task = loop:create_task(function()
          for _ = 1, total // 50000 do
            writer:write(("x"):rep(50000))
            writer:drain()
          end
        end)
        local got = 0
        while got < total do
          got = got + #other_reader:read(30000)
          if got % 7 == 0 then aloop.sleep(0) end
        end
        task:await()
        assert.equal(total, got)
      end)
    end)
  end)
end)
