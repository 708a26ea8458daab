-- 12: what was written before close() was dropped, over pipes, too (gh-70850).
-- 15: a factory or a transport that fails left the descriptor of a pipe open, and nobody heard of it (gh-156400).
-- 18: ends of pipes were closed twice, the second time under another owner (uvloop 72140d7, 3214cf6).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local raises = helper.raises

helper.each_loop(function(_, new_loop)
  it("12: a pipe is closed when all is written", function()
    helper.with_loop(new_loop, function(loop)
      for _ = 1, 10 do
        local r, w = aloop.pipe()
        local out = loop:connect_write_pipe(aloop.BaseProtocol, w)
        local protocol = helper.Recorder(loop)
        for _ = 1, 5 do out:write(("x"):rep(50000)) end
        out:close()
        out:close()
        loop:connect_read_pipe(helper.always(protocol), r)
        assert.is_nil(protocol:wait_lost())
        assert.equal(250000, protocol.received)
      end
    end)
  end)

  it("15: a factory that fails is heard of, and leaves no descriptor", function()
    helper.with_loop(new_loop, function(loop)
      local before = helper.count_fds()
      for _, name in ipairs { "connect_read_pipe", "connect_write_pipe" } do
        local r, w = aloop.pipe()
        local end_of_it = name:find "read" and r or w
        raises(aloop.ValueError, "no protocol", loop[name], loop, function()
          error(aloop.ValueError("no protocol"))
        end, end_of_it)
        helper.type_error("bad result of protocol_factory", loop[name], loop, function() return nil end, end_of_it)
        r:close()
        w:close()
      end
      assert.equal(before, helper.count_fds())
    end)
  end)

  it("18: what a pipe's number stands for after its close is left alone", function()
    helper.with_loop(new_loop, function(loop)
      for _ = 1, 10 do
        local r, w = aloop.pipe()
        local protocol = helper.Recorder(loop)
        local transport = loop:connect_read_pipe(helper.always(protocol), r)
        transport:close()
        protocol:wait_lost()
        aloop.sleep(0)
        local a, b = aloop.pipe()
        transport:close()
        r:close()
        transport, r = nil, nil -- luacheck: ignore 311
        collectgarbage()
        b:write("x")
        assert.equal("x", a:read(1))
        for _, pipe in ipairs { a, b, w } do pipe:close() end
      end
    end)
  end)
end)
