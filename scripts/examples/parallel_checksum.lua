-- Shows work for all CPUs: the checksum of each file is a job for a pool of threads (the default) or of processes. The
-- event loop is free meanwhile: here it tells how far the work has got.
-- Run: aloop parallel_checksum.lua [--threads | --processes] [--workers N] FILE...
-- Prints the CRC-32 of each file in the order given; a file that can't be read is told, and the exit status is 1.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

-- ---- what workers run: functions travel by value, so they hold on to nothing that can't -----------------------------

-- Once in each worker: its globals are its own, and stay from job to job.
local function set_up()
  local steps = {}
  for byte = 0, 255 do
    local crc = byte
    for _ = 1, 8 do crc = crc & 1 == 1 and 0xEDB88320 ~ crc >> 1 or crc >> 1 end
    steps[byte] = crc
  end
  CRC = steps -- luacheck: ignore 111
end

local function checksum(path)
  local file <close> = assert(io.open(path, "rb"))
  local crc, size, steps = 0xFFFFFFFF, 0, CRC -- luacheck: ignore 113
  for block in file:lines(4096) do
    for i = 1, #block do crc = steps[(crc ~ block:byte(i)) & 255] ~ crc >> 8 end
    size = size + #block
  end
  return crc ~ 0xFFFFFFFF, size
end

-- ---- the program ----------------------------------------------------------------------------------------------------

local function parse(args)
  local options, paths, i = { class = aloop.ThreadPoolExecutor }, {}, 1
  while i <= #args do
    if args[i] == "--threads" then
      options.class = aloop.ThreadPoolExecutor
    elseif args[i] == "--processes" then
      options.class = aloop.ProcessPoolExecutor
    elseif args[i] == "--workers" then
      i = i + 1
      options.workers = math.tointeger(tonumber(args[i]))
    else
      paths[#paths + 1] = args[i]
    end
    i = i + 1
  end
  return options, paths
end

local function show_progress(futures)
  while true do
    aloop.sleep(1)
    local done = 0
    for _, future in ipairs(futures) do done = done + (future:done() and 1 or 0) end
    io.stderr:write(("%d of %d files\n"):format(done, #futures))
  end
end

local options, paths = parse(arg)
local pool <close> = options.class { max_workers = options.workers, initializer = set_up }

local loop, futures, failed = aloop.get_event_loop(), {}, false
for i, path in ipairs(paths) do futures[i] = loop:run_in_executor(pool, checksum, path) end
local progress = aloop.create_task(function() show_progress(futures) end)

for i, path in ipairs(paths) do
  local ok, crc, size = aloop.try(futures[i].await, futures[i])
  if ok then
    print(("%08x %d %s"):format(crc, size, path))
  else
    io.stderr:write(tostring(crc), "\n")
    failed = true
  end
end
progress:cancel()
if failed then error(aloop.SystemExit(1)) end
