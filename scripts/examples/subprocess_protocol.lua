-- Shows a SubprocessProtocol: a child prints the date, the protocol collects it. That the child has ended and that its
-- output has come to its end are told apart, in any order.
-- Run: aloop subprocess_protocol.lua
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local DateProtocol = aloop.SubprocessProtocol:extend("DateProtocol")

function DateProtocol:init(exit_future)
  self.exit_future = exit_future
  self.output = {}
  self.pipe_closed, self.exited = false, false
end

function DateProtocol:pipe_data_received(_, data)
  self.output[#self.output + 1] = data
end

function DateProtocol:pipe_connection_lost()
  self.pipe_closed = true
  self:check_for_exit()
end

function DateProtocol:process_exited()
  self.exited = true
  self:check_for_exit()
end

function DateProtocol:check_for_exit()
  if self.pipe_closed and self.exited then self.exit_future:set_result(true) end
end

local function this_interpreter()
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

local function get_date()
  local loop = aloop.get_running_loop()
  local exit_future = loop:create_future()
  local function factory() return DateProtocol(exit_future) end
  local code = "print(os.date('%Y-%m-%d %H:%M:%S'))"
  local inherit = aloop.subprocess.INHERIT
  local transport, protocol = loop:subprocess_exec(factory, this_interpreter(), "-e", code,
    { stdin = inherit, stderr = inherit })
  exit_future:await()
  transport:close()
  return table.concat(protocol.output):gsub("%s+$", "")
end

local date = aloop.run(get_date)
print("Current date: " .. date)
