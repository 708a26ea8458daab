-- Shows add_signal_handler: SIGINT and SIGTERM stop the loop. Because stop() ends aloop.run before its main function is
-- done, a RuntimeError follows. Run: aloop signals.lua, then press Ctrl-C.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function ask_exit(name, loop)
  print(("got signal %s: exit"):format(name))
  loop:stop()
end

local function main()
  local loop = aloop.get_running_loop()
  for _, name in ipairs { "SIGINT", "SIGTERM" } do
    loop:add_signal_handler(name, ask_exit, name, loop)
  end
  print("Event loop running for 1 hour, press Ctrl+C to interrupt.")
  print(("pid %d: send SIGINT or SIGTERM to exit."):format(io.open("/proc/self/stat"):read("n")))
  io.stdout:flush()
  aloop.sleep(3600)
end

aloop.run(main)
