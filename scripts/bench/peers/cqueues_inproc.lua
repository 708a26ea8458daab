-- cqueues_inproc.lua - the task switch on cqueues.
--
--   lua5.4 cqueues_inproc.lua switch|switch100|tasks       prints ns=NANOSECONDS, CPU an operation
--
-- SPDX-License-Identifier: MIT
local cqueues = require "cqueues"

local kind = arg[1]
local loop = cqueues.new()
local count, tasks = 200000, kind == "switch100" and 100 or 1

if kind == "tasks" then
  loop:wrap(function()
    for _ = 1, count // 1000 do
      for _ = 1, 1000 do
        loop:wrap(function() end)
      end
      cqueues.sleep(0)
    end
  end)
else
  for _ = 1, tasks do
    loop:wrap(function()
      for _ = 1, count // tasks do cqueues.sleep(0) end
    end)
  end
end
local start = os.clock()
assert(loop:loop())
print(("ns=%.2f"):format((os.clock() - start) * 1e9 / count))
