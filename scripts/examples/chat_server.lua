-- Shows state that connections share: each line that a client sends goes to all others. The first line is its name.
-- Run: aloop chat_server.lua [port] [host], then connect some clients, say with netcat; end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local LINE_LIMIT = 4096 -- a client that sends more without a line's end is thrown out
local BACKLOG_LIMIT = 1024 * 1024 -- and so is one that doesn't read what it is sent

local members = {} -- protocol → true, for those that have said their name

local function tell_others(sender, text)
  for member in pairs(members) do
    if member ~= sender then
      member.transport:write(text)
      if member.transport:get_write_buffer_size() > BACKLOG_LIMIT then member.transport:abort() end
    end
  end
end

local Chat = aloop.Protocol:extend("Chat")

function Chat:connection_made(transport)
  self.transport, self.rest = transport, ""
  transport:write("Your name?\n")
end

function Chat:line_received(line)
  if self.name then
    tell_others(self, ("%s: %s\n"):format(self.name, line))
  elseif line ~= "" then
    self.name = line
    members[self] = true
    tell_others(self, ("* %s has come\n"):format(line))
    self.transport:write(("Welcome, %s\n"):format(line))
  end
end

function Chat:data_received(data)
  local text, at = self.rest .. data, 1
  for line, next_at in text:gmatch("([^\r\n]*)\r?\n()") do
    self:line_received(line)
    at = next_at
  end
  self.rest = text:sub(at)
  if #self.rest > LINE_LIMIT then
    self.transport:write("Too long a line\n")
    self.transport:close()
  end
end

function Chat:connection_lost()
  if not self.name then return end
  members[self] = nil
  tell_others(self, ("* %s has gone\n"):format(self.name))
end

local loop = aloop.get_event_loop()
local server <close> = loop:create_server(Chat, arg[2] or "127.0.0.1", tonumber(arg[1]) or 0)
print("listening on " .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
