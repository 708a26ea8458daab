-- lua_inproc.lua - what bare coroutines cost under a plain Lua: the yardstick of tasks.
--
--   lua5.4 lua_inproc.lua alive
--
-- Prints ns=NANOSECONDS, CPU an operation.
--
-- SPDX-License-Identifier: MIT
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local bench = {}

-- Coroutines that are alive at once, and yield once each.
function bench.alive()
  local n, set = 500000, {}
  local function body() yield() end
  for i = 1, n do set[i] = create(body) end
  for i = 1, n do resume(set[i]) end
  for i = 1, n do resume(set[i]) end
  return n
end

local start = os.clock()
local n = bench[arg[1]]()
print(("ns=%.2f"):format((os.clock() - start) * 1e9 / n))
io.stdout:flush()
os.exit(0) -- as its peers
