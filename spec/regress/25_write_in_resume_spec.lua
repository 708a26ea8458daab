-- 25: writing to another transport inside resume_writing broke the one that was being flushed (uvloop d2deffe, #498).
-- Each transport's flush must stand on its own, whatever its protocol does to others.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"

local TARGET = 3000000

helper.each_loop(function(_, new_loop)
  it("25: two transports that write to each other in resume_writing both send all", function()
    helper.with_loop(new_loop, function(loop)
      local transports, protocols, socks, written = {}, {}, {}, {}
      for i = 1, 2 do
        local protocol = helper.Recorder(loop)
        protocol.resume_writing = function(self)
          helper.Recorder.resume_writing(self)
          for j = 1, 2 do
            while not protocols[j].paused and written[j] < TARGET do
              transports[j]:write(("z"):rep(100000))
              written[j] = written[j] + 100000
            end
          end
        end
        protocols[i] = protocol
        local _
        transports[i], _, socks[i] = helper.over_socketpair(loop, protocol)
      end
      for i = 1, 2 do
        written[i] = helper.fill(transports[i]) + 100000
        transports[i]:write(("z"):rep(100000))
      end
      local readers, got = {}, { 0, 0 }
      for i = 1, 2 do
        readers[i] = loop:create_task(function()
          while true do
            local data = helper.recv(loop, socks[i], 65536)
            if not data then break end
            got[i] = got[i] + #data
            local all = math.min(written[1], written[2]) >= TARGET
            if all and got[i] == written[i] and got[3 - i] == written[3 - i] then
              transports[1]:close()
              transports[2]:close()
            end
          end
        end)
      end
      for i = 1, 2 do readers[i]:await() end
      assert.same(written, got)
      assert.is_true(protocols[1]:count("resume") >= 1)
      for i = 1, 2 do
        protocols[i]:wait_lost()
        socks[i]:close()
      end
    end)
  end)
end)
