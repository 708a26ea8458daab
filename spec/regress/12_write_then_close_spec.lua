-- 12: data written before close() was dropped (gh-115514: sockets; uvloop 6476aad: the end of data came while a flush
-- was under way; uvloop 9c6ecb6: a write queued before all buffers were processed). Close must flush all that was
-- written before, whatever the peer does meanwhile, short of closing its own receiving side.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  for _, over in ipairs { "over_socketpair", "over_tcp" } do
    local function run(body)
      helper.with_loop(new_loop, function(loop)
        local transport, protocol, sock = helper[over](loop)
        body(transport, protocol, sock, loop)
        assert.is_nil(protocol:wait_lost())
        sock:close()
      end)
    end

    it("12: all sizes arrive whole before the end, " .. over, function()
      for _, size in ipairs { 1, 4096, 65536, 65537, 262144, 1000000, 5000000 } do
        run(function(transport, _, sock, loop)
          local data = ("%07d"):format(size):rep(size // 7 + 1):sub(1, size)
          transport:write(data:sub(1, size // 2))
          transport:write(data:sub(size // 2 + 1))
          transport:close()
          assert.is_true(helper.recv_all(loop, sock) == data)
        end)
      end
    end)

    it("12: the end of the peer's data during a flush drops nothing, " .. over, function()
      run(function(transport, protocol, sock, loop)
        local n = helper.fill(transport)
        sock:send("last words")
        sock:shutdown(aloop.socket.SHUT_WR)
        protocol:wait_for("eof")
        assert.equal(n, #helper.recv_all(loop, sock))
      end)
    end)

    it("12: a write and close inside data_received arrive, " .. over, function()
      helper.with_loop(new_loop, function(loop)
        local protocol = helper.Recorder(loop)
        local answer = ("answer"):rep(100000)
        protocol.data_received = function(self, data)
          helper.Recorder.data_received(self, data)
          self.transport:write(answer)
          self.transport:close()
        end
        local _, _, sock = helper[over](loop, protocol)
        sock:send("question")
        assert.is_true(helper.recv_all(loop, sock) == answer)
        assert.is_nil(protocol:wait_lost())
        sock:close()
      end)
    end)

    it("12: write_eof and close after a full buffer arrive in order, " .. over, function()
      run(function(transport, _, sock, loop)
        local n = helper.fill(transport)
        transport:write("end")
        transport:write_eof()
        transport:close()
        local data = helper.recv_all(loop, sock)
        assert.equal(n + 3, #data)
        assert.equal("end", data:sub(-3))
      end)
    end)
  end
end)
