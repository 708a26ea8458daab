-- 28: what goes wrong when files are sent. The fallback sent more than count says (gh-81460); an error was of another
-- class when falling back was refused (gh-152099); a file overtook what was written before it (zuvloop#53).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

local S = aloop.socket

local function zeros() return io.popen("head -c 100000 /dev/zero") end

helper.each_loop(function(_, new_loop)
  it("28: the fallback sends count bytes, in blocks that don't fit it", function()
    helper.with_loop(new_loop, function(loop)
      for _, count in ipairs { 1, 16383, 16384, 16385, 50000, 99999, 100000 } do
        local transport, protocol, sock = helper.over_socketpair(loop)
        local a, b = S.socketpair()
        local file <close>, other = zeros(), zeros()
        assert.equal(count, loop:sendfile(transport, file, 0, count))
        assert.equal(count, loop:sock_sendfile(a, other, 0, count))
        transport:close()
        protocol:wait_lost()
        a:close()
        other:close()
        for _, peer in ipairs { sock, b } do
          local n = 0
          for data in function() return loop:sock_recv(peer, 65536) end do n = n + #data end
          assert.equal(count, n)
          peer:close()
        end
      end
    end)
  end)

  it("28: without the fallback, what can't be sent is SendfileNotAvailableError, whatever the way", function()
    helper.with_loop(new_loop, function(loop)
      local transport, protocol, sock = helper.over_socketpair(loop)
      local a, b = S.socketpair()
      for _, file in ipairs { zeros(), { read = function() end } } do
        local refused, class = { fallback = false }, aloop.SendfileNotAvailableError
        raises(class, nil, loop.sendfile, loop, transport, file, 0, nil, refused)
        raises(class, nil, loop.sock_sendfile, loop, a, file, 0, nil, refused)
        if io.type(file) then file:close() end
      end
      transport:close()
      protocol:wait_lost()
      for _, s in ipairs { sock, a, b } do s:close() end
    end)
  end)

  it("28: a file doesn't overtake what was written before it", function()
    helper.with_loop(new_loop, function(loop)
      local transport, protocol, sock = helper.over_socketpair(loop)
      local path = helper.write_file(("f"):rep(1000))
      local file <close> = io.open(path, "rb")
      os.remove(path)
      for _ = 1, 20 do transport:write(("w"):rep(100000)) end
      local task = loop:create_task(function() return loop:sendfile(transport, file) end)
      local expected = ("w"):rep(2000000) .. ("f"):rep(1000)
      assert.is_true(helper.recv_exactly(loop, sock, #expected) == expected)
      assert.equal(1000, task:await())
      transport:close()
      protocol:wait_lost()
      sock:close()
    end)
  end)
end)
