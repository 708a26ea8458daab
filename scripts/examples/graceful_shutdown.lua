-- Shows a graceful shutdown: at SIGTERM or SIGINT the server takes no new connections, lets go of those that are idle,
-- and finishes the requests in progress, for which there is some time. A request is a line with the seconds it takes.
-- Run: aloop graceful_shutdown.lua [port] [seconds to finish], then connect with netcat and type 5; kill -TERM it
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local PORT, GRACE_S = math.tointeger(arg[1]) or 8888, tonumber(arg[2]) or 10

local stopping = false
local idle = {} -- the tasks that wait for a request
local in_progress = 0

local function next_request(reader)
  local task = aloop.current_task()
  idle[task] = true
  local _ <close> = aloop.defer(function() idle[task] = nil end)
  return reader:readline()
end

local function answer(writer, request)
  in_progress = in_progress + 1
  local _ <close> = aloop.defer(function() in_progress = in_progress - 1 end)
  aloop.sleep(tonumber(request) or 0)
  writer:write("done\n")
  writer:drain()
end

local function serve(reader, writer)
  local _ <close> = writer
  while not stopping do
    local request = next_request(reader)
    if not request then break end
    answer(writer, request)
  end
end

local function wait_for_signal(loop)
  local signalled = loop:create_future()
  for _, name in ipairs { "SIGTERM", "SIGINT" } do
    loop:add_signal_handler(name, function()
      if not signalled:done() then signalled:set_result(name) end
    end)
  end
  return signalled:await()
end

local function serve_until_signalled()
  local loop = aloop.get_running_loop()
  local limit <close> = aloop.timeout(nil)
  local connections <close> = aloop.TaskGroup() -- the block ends when all of its tasks have
  local server <close> = aloop.start_server(function(reader, writer)
    connections:create_task(function() serve(reader, writer) end)
  end, "127.0.0.1", PORT)
  print("Serving on " .. tostring(server.sockets[1]:getsockname()))
  local signal = wait_for_signal(loop)
  print(("%s: finishing %d requests"):format(signal, in_progress))
  stopping = true
  server:close()
  limit:reschedule(loop:time() + GRACE_S)
  for task in pairs(idle) do task:cancel() end
end

io.stdout:setvbuf("line")
aloop.sleep(0) -- the loop runs from here on
local ok, err = aloop.try(serve_until_signalled)
if not ok and not aloop.isinstance(err, aloop.TimeoutError) then error(err, 0) end
print(ok and "All requests are answered" or "Some requests took too long")
