-- flood.lua - reads a GiB of stdout and a GiB of stderr of a child at once, after a while in which nothing is read, and
-- checks every byte. The loop is the interpreter's choice (-X).
--
--   aloop flood.lua CHILD       (scripts/bench/c/flood.c)
--
-- Prints growth=BYTES, the most by which this process grew.
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local BLOCK, SIZE = 65536, 1 << 30

local function status(name)
  for line in io.lines "/proc/self/status" do
    local kib = line:match("^" .. name .. ":%s*(%d+) kB")
    if kib then return tonumber(kib) * 1024 end
  end
end

local blocks = {}
for i = 0, 6 do blocks[i] = string.char(i):rep(BLOCK) end

local function check(reader, shift)
  aloop.sleep(0.5)
  for i = 0, SIZE // BLOCK - 1 do
    if reader:readexactly(BLOCK) ~= blocks[(i + shift) % 7] then error "other bytes came" end
  end
  if reader:read() ~= "" then error "too many bytes came" end
end

local PIPE = aloop.subprocess.PIPE
collectgarbage()
local before = status "VmRSS"
local file = assert(io.open("/proc/self/clear_refs", "w")) -- the peak is counted from here on
file:write "5"
file:close()
local process = aloop.create_subprocess_exec(arg[1], { stdout = PIPE, stderr = PIPE })
do
  local group <close> = aloop.TaskGroup()
  group:create_task(function() check(process.stdout, 0) end)
  group:create_task(function() check(process.stderr, 1) end)
end
if process:wait() ~= 0 then error "the child failed" end
print(("growth=%d"):format(status "VmHWM" - before))
