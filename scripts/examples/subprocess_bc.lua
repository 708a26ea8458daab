-- Shows a child that is driven interactively: bc calculates, line by line, for as long as we like. An answer that takes
-- too long has bc killed and another one started. Without bc, a shell stands in, which knows integers only.
-- Run: aloop subprocess_bc.lua '2^100' '10/4' ..., or without arguments to be asked
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local PIPE, STDOUT = aloop.subprocess.PIPE, aloop.subprocess.STDOUT
local PATIENCE_S = tonumber(os.getenv("PATIENCE")) or 5
local SHELL = { "/bin/sh", "-c", 'while read -r line; do (eval "echo \\$(($line))"); echo .; done' }

local Calculator = aloop.Object:extend("Calculator")

function Calculator:start()
  local options = { stdin = PIPE, stdout = PIPE, stderr = STDOUT }
  local ok, process = aloop.try(aloop.create_subprocess_exec, "bc", "-q", options)
  self.is_bc = ok
  self.process = ok and process or aloop.create_subprocess_exec(SHELL, options)
end

-- What it writes, up to the dot that we have it print behind each answer.
function Calculator:answer()
  local lines = {}
  for line in self.process.stdout:lines() do
    if line == ".\n" then return table.concat(lines, "; ") end
    lines[#lines + 1] = line:sub(1, -2)
  end
  error("the calculator is gone")
end

function Calculator:calculate(expression)
  if not self.process then self:start() end
  self.process.stdin:write(expression .. (self.is_bc and '\nprint ".\\n"\n' or "\n"))
  self.process.stdin:drain()
  local _ <close> = aloop.timeout(PATIENCE_S)
  return self:answer()
end

function Calculator:stop()
  if not self.process then return end
  self.process.stdin:close()
  self.process:wait()
  self.process = nil
end

function Calculator:kill()
  if not self.process then return end
  if self.process.returncode == nil then self.process:kill() end
  self.process:wait()
  self.process = nil
end

local function show(calculator, expression)
  local ok, result = aloop.try(calculator.calculate, calculator, expression)
  if not ok then calculator:kill() end
  print(("%s = %s"):format(expression, ok and result or "no answer: " .. tostring(result)))
end

local function lines_of_stdin()
  local reader = aloop.StreamReader()
  aloop.get_event_loop():connect_read_pipe(function() return aloop.StreamReaderProtocol(reader) end, io.stdin)
  return reader:lines()
end

local calculator = Calculator()
local _ <close> = aloop.defer(calculator.stop, calculator)
for _, expression in ipairs(arg) do show(calculator, expression) end
if #arg == 0 then
  for line in lines_of_stdin() do show(calculator, (line:gsub("\n$", ""))) end
end
