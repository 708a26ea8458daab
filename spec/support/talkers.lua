-- talkers.lua - other programs that speak TLS (openssl, gnutls-cli, nginx …) as children of a spec's loop, and the echo
-- server of aloop that they talk to. What waits needs a task. Beside spec/helper.lua.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"

local talkers = {}

local PATIENCE_S = 10 -- for how long a program may write nothing

-- ---- programs -------------------------------------------------------------------------------------------------------

---@class Talker
---@field output string all that it has written, to stdout and stderr
local Talker = {}
Talker.__index = Talker

-- Ends one that still runs.
function Talker:__close()
  if self.process.returncode == nil then self.process:kill() end
  self:wait()
end

-- Starts a program (an array), which is made to write line by line; close it.
function talkers.start(argv)
  local process = aloop.create_subprocess_exec({ "stdbuf", "-oL", table.unpack(argv) }, {
    stdin = aloop.subprocess.PIPE, stdout = aloop.subprocess.PIPE, stderr = aloop.subprocess.STDOUT,
  })
  return setmetatable({ process = process, output = "", at = 1 }, Talker)
end

function Talker:say(text)
  self.process.stdin:write(text)
end

-- Waits for a pattern in what comes after the last one that was expected; returns its captures.
function Talker:expect(pattern)
  while true do
    local found = table.pack(self.output:find(pattern, self.at))
    if found[1] then
      self.at = found[2] + 1
      return table.unpack(found, 3, found.n)
    end
    local in_time, more = aloop.try(aloop.wait_for, function() return self.process.stdout:read(65536) end, PATIENCE_S)
    if not in_time or not more then error(("no %q in what it wrote:\n%s"):format(pattern, self.output), 2) end
    self.output = self.output .. more
  end
end

-- Waits for its end, with no more input for it; returns its code.
function Talker:wait()
  self.process.stdin:close()
  while true do
    local more = self.process.stdout:read(65536)
    if not more then break end
    self.output = self.output .. more
  end
  return self.process:wait()
end

-- Runs a program to its end: its code and its output.
function talkers.run(argv, input)
  local talker <close> = talkers.start(argv)
  if input then talker:say(input) end
  local code = talker:wait()
  return code, talker.output
end

-- ---- what they talk to ----------------------------------------------------------------------------------------------

-- Writes back what it reads. object: its SSLObject.
local Echo = helper.recording(helper.Recorder, "Echo")

function Echo:connection_made(transport)
  helper.Recorder.connection_made(self, transport)
  self.object = transport:get_extra_info "ssl_object"
end

function Echo:data_received(data)
  helper.Recorder.data_received(self, data)
  self.transport:write(data)
end

function Echo:pause_writing()
  helper.Recorder.pause_writing(self)
  self.transport:pause_reading()
end

function Echo:resume_writing()
  helper.Recorder.resume_writing(self)
  self.transport:resume_reading()
end

-- Runs body(port, next_one, server) with an echo server with this context; next_one() waits for the next connection
-- that is made, and returns its Echo.
function talkers.serve(loop, context, body, options)
  local made, taken, changed = {}, 0, aloop.Event()
  local Counted = Echo:extend "Counted"
  function Counted:connection_made(transport)
    Echo.connection_made(self, transport)
    made[#made + 1] = self
    changed:set()
  end
  local function next_one()
    while #made == taken do
      changed:clear()
      changed:wait()
    end
    taken = taken + 1
    return made[taken]
  end
  local listen = { ssl = context }
  for key, value in pairs(options or {}) do listen[key] = value end
  local server = loop:create_server(function() return Counted(loop) end, "127.0.0.1", 0, listen)
  body(helper.address_of(server).port, next_one, server)
  server:close()
  server:abort_clients()
  server:wait_closed()
  return made
end

-- Lets every byte go alone: a relay to the port, in both directions. Its port; closed by the second value.
function talkers.bytewise(loop, port)
  local function carry(reader, writer)
    for data in function() return reader:read(65536) end do
      for i = 1, #data do
        writer:write(data:sub(i, i))
        writer:drain()
        aloop.sleep(0)
      end
    end
    writer:write_eof()
  end
  local server = aloop.start_server(function(reader, writer)
    local far_reader, far_writer = aloop.open_connection("127.0.0.1", port)
    local back = loop:create_task(function() aloop.try(carry, far_reader, writer) end)
    aloop.try(carry, reader, far_writer)
    back:await()
    writer:close()
    far_writer:close()
  end, "127.0.0.1", 0)
  return helper.address_of(server).port, aloop.defer(function()
    server:close()
    server:abort_clients()
    server:wait_closed()
  end)
end

-- A client on streams of what listens at the port, which is called localhost unless options say otherwise.
function talkers.connect(port, context, options)
  local all = { ssl = context, server_hostname = "localhost" }
  for key, value in pairs(options or {}) do all[key] = value end
  return aloop.open_connection("127.0.0.1", port, all)
end

return talkers
