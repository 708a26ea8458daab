-- 18: a connection attempt that was cancelled closed its descriptor twice, the second time under the feet of whoever
-- had got the number meanwhile (uvloop dc680eb, #740).
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

helper.each_loop(function(_, new_loop)
  it("18: cancelled at any turn, a connect closes its descriptor once", function()
    for turns = 0, 8 do
      helper.with_loop(new_loop, function(loop)
        local listener, address = helper.listen()
        local task = loop:create_task(function()
          local transport = loop:create_connection(function() return {} end, address[1], address[2])
          transport:close()
        end)
        for _ = 1, turns do aloop.sleep(0) end
        task:cancel()
        -- These take the numbers that are free now; a second close would hit one of them.
        local files = {}
        local function open_some()
          for _ = 1, 3 do files[#files + 1] = assert(io.open("/proc/self/stat")) end
        end
        open_some()
        pcall(task.await, task)
        open_some()
        for _ = 1, 5 do aloop.sleep(0) end
        collectgarbage()
        for _, file in ipairs(files) do
          assert.is_number(file:read("n"))
          assert.is_true(file:close())
        end
        listener:close()
      end)
    end
  end)
end)
