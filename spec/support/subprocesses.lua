-- subprocesses.lua - a SubprocessProtocol that records and can be waited for, and what a spec asks of the system about
-- its children. What waits needs a task.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local subprocesses = {}

---@class Follower: Recording
---@field out table<integer, string> what came from each of the child's descriptors
---@field losses table<integer, any> the error of each pipe_connection_lost, or false
local Follower = helper.recording(aloop.SubprocessProtocol, "Follower")
subprocesses.Follower = Follower

function Follower:init(loop)
  self:begin(loop)
  self.out, self.losses = { "", "" }, {}
end

function Follower:pipe_data_received(fd, data)
  if #data == 0 then error("pipe_data_received without data") end
  if self.losses[fd] ~= nil then error("data of a lost pipe") end
  self.out[fd] = self.out[fd] .. data
  self:note("data " .. fd)
end

function Follower:pipe_connection_lost(fd, err)
  if self.losses[fd] ~= nil then error("a pipe is lost twice") end
  self.losses[fd] = err or false
  self:note("lost " .. fd)
end

function Follower:process_exited()
  self:note("exited")
end

-- Waits for connection_lost; returns the returncode.
function Follower:wait_end()
  assert(self:wait_lost() == nil)
  return self.transport:get_returncode()
end

-- Starts a program (an array), or a shell's command (a string): its protocol, and the transport.
function subprocesses.follow(loop, program, options)
  local function factory() return Follower(loop) end
  local start = type(program) == "string" and loop.subprocess_shell or loop.subprocess_exec
  local transport, protocol = start(loop, factory, program, options)
  return protocol, transport
end

-- Runs one to its end: its protocol.
function subprocesses.run(loop, program, options)
  local protocol, transport = subprocesses.follow(loop, program, options)
  protocol:wait_lost()
  transport:close()
  return protocol
end

local function read(path)
  local file = io.open(path)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

-- The children of this process, whoever made them: pid → state ("S", "Z" …). A thread's children are those it made.
function subprocesses.children()
  local list = {}
  for pid in (read("/proc/thread-self/children") or ""):gmatch("%d+") do
    local stat = read("/proc/" .. pid .. "/stat")
    if stat then list[tonumber(pid)] = stat:match("%) (%a)") end
  end
  return list
end

-- Is there such a process, and no zombie?
function subprocesses.runs(pid)
  local stat = read("/proc/" .. pid .. "/stat")
  return stat ~= nil and stat:match("%) (%a)") ~= "Z"
end

-- What there is now that was not there before, in words; nil if there is nothing.
local function what_is_left(fds, before)
  collectgarbage()
  for pid, state in pairs(subprocesses.children()) do
    if not before[pid] then return ("child %d (%s) is left"):format(pid, state) end
  end
  local n = helper.count_fds()
  return n ~= fds and ("%d descriptors, were %d"):format(n, fds) or nil
end

-- Runs the body, after which there are soon the same descriptors and children as before.
function subprocesses.leaves_nothing(body)
  collectgarbage()
  local fds, before = helper.count_fds(), subprocesses.children()
  body()
  local left
  for _ = 1, 500 do
    left = what_is_left(fds, before)
    if not left then return end
    aloop.sleep(0.002)
  end
  error(left, 2)
end

-- Runs body(loop, trial) as a task of a fresh loop, after which neither children nor descriptors are left.
function subprocesses.with_loop(new_loop, body, options)
  helper.with_loop(new_loop, function(loop, trial)
    subprocesses.leaves_nothing(function() body(loop, trial) end)
  end, options)
end

return subprocesses
