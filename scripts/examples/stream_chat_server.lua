-- Shows tasks that share state, on streams: each line of a client goes to all others. The first one is its name.
-- Run: aloop stream_chat_server.lua [port] [host], then connect some clients, say with netcat; end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local LINE_LIMIT = 4096 -- a client that sends more without a line's end is thrown out
local BACKLOG_LIMIT = 1024 * 1024 -- and so is one that doesn't read what it is sent

local members = {} -- writer → name

local function tell_others(sender, text)
  for writer in pairs(members) do
    if writer ~= sender then
      writer:write(text)
      if writer.transport:get_write_buffer_size() > BACKLOG_LIMIT then writer.transport:abort() end
    end
  end
end

-- The client's next line without its end, nil when there is none any more.
local function next_line(reader)
  local line = reader:readline()
  return line and line:gsub("\r?\n$", "")
end

local function chat(reader, writer)
  writer:write("Your name?\n")
  local name = next_line(reader)
  while name == "" do name = next_line(reader) end
  if not name then return end
  members[writer] = name
  local _ <close> = aloop.defer(function()
    members[writer] = nil
    tell_others(writer, ("* %s has gone\n"):format(name))
  end)
  tell_others(writer, ("* %s has come\n"):format(name))
  writer:write(("Welcome, %s\n"):format(name))
  for line in next_line, reader do
    tell_others(writer, ("%s: %s\n"):format(name, line))
  end
end

local function serve(reader, writer)
  local ok, err = aloop.try(chat, reader, writer)
  if not ok and aloop.isinstance(err, aloop.ValueError) then
    writer:write("Too long a line\n")
  elseif not ok and not aloop.isinstance(err, aloop.ConnectionError) then
    error(err, 0)
  end
  writer:close()
end

local server <close> = aloop.start_server(serve, arg[2] or "127.0.0.1", tonumber(arg[1]) or 0, { limit = LINE_LIMIT })
print("listening on " .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
