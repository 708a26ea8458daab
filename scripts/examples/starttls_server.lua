-- Shows start_tls: a mail server that speaks enough of SMTP to take a message, once the client has asked for TLS by
-- STARTTLS. It prints what it takes and keeps nothing.
-- Run: aloop starttls_server.lua PORT CERT [KEY]   (PEM files; PORT 0: any free one), then
-- openssl s_client -starttls smtp -crlf -connect 127.0.0.1:PORT
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local ssl = aloop.ssl

local LINE_LIMIT, MESSAGE_LIMIT = 2048, 1024 * 1024
local IDLE_S = 300

assert(arg[2], "usage: aloop starttls_server.lua PORT CERT [KEY]; a pair for trying out is made by\n"
  .. "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout pair.pem -out pair.pem")
local context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context:load_cert_chain(arg[2], arg[3])

local Session = {}
Session.__index = Session

function Session:reply(text)
  self.writer:write(text .. "\r\n")
  self.writer:drain()
end

function Session:read_line()
  local _ <close> = aloop.timeout(IDLE_S)
  return (self.reader:readuntil("\n"):gsub("\r?\n$", ""))
end

-- The lines of a message, without the dot that ends it. Too long a message is read to its end and thrown away: nil.
function Session:read_message()
  local lines, size = {}, 0
  while true do
    local line = self:read_line()
    if line == "." then break end
    size = size + #line + 1
    if size <= MESSAGE_LIMIT then lines[#lines + 1] = line:gsub("^%.", "") end
  end
  return size <= MESSAGE_LIMIT and table.concat(lines, "\n") or nil
end

-- The commands by name: each gets the rest of its line. One that returns true ends the session.
local commands = {}

function commands:EHLO()
  self:reply(self.secure and "250 localhost" or "250-localhost\r\n250 STARTTLS")
end

function commands:STARTTLS()
  if self.secure then return self:reply("503 this is TLS already") end
  self:reply("220 go ahead")
  self.writer:start_tls(context) -- what the client has sent already is part of the handshake, never a command
  self.secure, self.sender = true, nil -- and what was said before is forgotten
end

function commands:MAIL(rest)
  if not self.secure then return self:reply("530 must issue a STARTTLS command first") end
  self.sender = rest:match("^[Ff][Rr][Oo][Mm]:%s*<([^>]*)>")
  self:reply(self.sender and "250 OK" or "501 MAIL FROM:<address>")
end

function commands:RCPT(rest)
  if not self.sender then return self:reply("503 MAIL comes first") end
  self.recipient = rest:match("^[Tt][Oo]:%s*<([^>]+)>")
  self:reply(self.recipient and "250 OK" or "501 RCPT TO:<address>")
end

function commands:DATA()
  if not self.recipient then return self:reply("503 RCPT comes first") end
  self:reply("354 end it with a line of one dot")
  local message = self:read_message()
  if message then print(("from %s to %s: %q"):format(self.sender, self.recipient, message)) end
  self.sender, self.recipient = nil, nil
  self:reply(message and "250 OK" or "552 too long")
end

function commands:RSET()
  self.sender, self.recipient = nil, nil
  self:reply("250 OK")
end

function commands:NOOP() self:reply("250 OK") end

function commands:QUIT()
  self:reply("221 bye")
  return true
end

commands.HELO = commands.EHLO

function Session:run()
  self:reply("220 localhost ESMTP")
  repeat
    local word, rest = self:read_line():match("^(%a*)%s*(.*)$")
    local command = commands[word:upper()]
    if not command then self:reply("500 unknown command") end
  until command and command(self, rest)
end

local function serve(reader, writer)
  local _ <close> = writer
  local session = setmetatable({ reader = reader, writer = writer, secure = false }, Session)
  local ok, err = aloop.try(session.run, session)
  if not ok then print(("%s: %s"):format(writer:get_extra_info("peername"), err)) end
end

io.stdout:setvbuf("line")
local server <close> = aloop.start_server(serve, "127.0.0.1", tonumber(arg[1]), { limit = LINE_LIMIT })
print("listening on " .. tostring(server.sockets[1]:getsockname()))
server:serve_forever()
