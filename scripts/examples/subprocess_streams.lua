-- Shows a child with streams: it prints the date, of which a line is read; then its exit is waited for.
-- Run: aloop subprocess_streams.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local function this_interpreter()
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

local function get_date()
  local code = "print(os.date('%Y-%m-%d %H:%M:%S'))"
  local process = aloop.create_subprocess_exec(this_interpreter(), "-e", code, { stdout = aloop.subprocess.PIPE })
  local line = process.stdout:readline()
  process:wait()
  return (line:gsub("%s+$", ""))
end

print("Current date: " .. get_date())
