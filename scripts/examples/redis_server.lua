-- Shows a server for a real protocol on streams: RESP, which redis-cli and redis-benchmark speak. Its store is a table.
-- Run: aloop redis_server.lua [port]   (6379 if none is given; 0: any free one); end it with Ctrl-C
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local BLOCK = 65536
local LONGEST = 512 * 1024 * 1024 -- of a value, as in Redis

local store = {}

-- ---- RESP -----------------------------------------------------------------------------------------------------------

local OK, NIL, PONG = "+OK\r\n", "$-1\r\n", "+PONG\r\n"
local byte, match, sub, unpack = string.byte, string.match, string.sub, table.unpack

local function bulk(value)
  return value and "$" .. #value .. "\r\n" .. value .. "\r\n" or NIL
end

local function array(replies)
  return "*" .. #replies .. "\r\n" .. table.concat(replies)
end

local function protocol_error(text)
  error(aloop.ValueError("Protocol error: " .. text))
end

-- Most commands have two or three words without line breaks in them: those are had by one match.
local TWO = "^%*2\r\n%$(%d+)\r\n([^\r\n]*)\r\n%$(%d+)\r\n([^\r\n]*)\r\n()"
local THREE = TWO:gsub("2", "3", 1):sub(1, -3) .. "%$(%d+)\r\n([^\r\n]*)\r\n()"

local function parse_plain(text, at)
  local count = byte(text, at + 1)
  if count == 50 then
    local n1, word1, n2, word2, behind = match(text, TWO, at)
    if behind and #word1 == tonumber(n1) and #word2 == tonumber(n2) then return { word1, word2 }, behind end
  elseif count == 51 then
    local n1, word1, n2, word2, n3, word3, behind = match(text, THREE, at)
    if behind and #word1 == tonumber(n1) and #word2 == tonumber(n2) and #word3 == tonumber(n3) then
      return { word1, word2, word3 }, behind
    end
  end
end

-- The command that begins at `at` of the text, and the place behind it; nil if it is not all there yet, and how many
-- bytes are missing if that is known.
local function parse(text, at)
  local count, next_at = match(text, "^%*(%d+)\r\n()", at)
  if not count then
    local line, behind = match(text, "^([^*\r\n][^\r\n]*)\r?\n()", at) -- typed by hand
    if line then
      local words = {}
      for word in line:gmatch("%S+") do words[#words + 1] = word end
      return words, behind
    end
    behind = match(text, "^\r?\n()", at)
    if behind then return {}, behind end
    if #text - at > BLOCK then protocol_error("too big a request") end
    return nil
  end
  local words = {}
  for i = 1, tonumber(count) do
    local length, first = match(text, "^%$(%d+)\r\n()", next_at)
    if not length then
      local other = match(text, "^[^$]", next_at)
      if other then protocol_error(("expected '$', got '%s'"):format(other)) end
      return nil
    end
    length = tonumber(length)
    if length > LONGEST then protocol_error("invalid bulk length") end
    next_at = first + length + 2
    if next_at > #text + 1 then return nil, next_at - #text - 1 end
    words[i] = sub(text, first, first + length - 1)
  end
  return words, next_at
end

-- ---- commands: each gets the words behind its name, and returns the reply -------------------------------------------

local commands = {}

function commands.PING(text) return text and bulk(text) or PONG end
function commands.ECHO(text) return bulk(text) end
function commands.GET(key) return bulk(store[key]) end

function commands.SET(key, value)
  store[key] = value
  return OK
end

function commands.DEL(...)
  local n = 0
  for _, key in ipairs { ... } do
    if store[key] then n = n + 1 end
    store[key] = nil
  end
  return ":" .. n .. "\r\n"
end

function commands.EXISTS(...)
  local n = 0
  for _, key in ipairs { ... } do
    if store[key] then n = n + 1 end
  end
  return ":" .. n .. "\r\n"
end

function commands.INCR(key)
  local n = math.tointeger(tonumber(store[key] or "0"))
  if not n then return "-ERR value is not an integer or out of range\r\n" end
  store[key] = tostring(n + 1)
  return ":" .. store[key] .. "\r\n"
end

function commands.APPEND(key, value)
  store[key] = (store[key] or "") .. value
  return ":" .. #store[key] .. "\r\n"
end

function commands.MGET(...)
  local values = {}
  for i, key in ipairs { ... } do values[i] = bulk(store[key]) end
  return array(values)
end

function commands.MSET(...)
  local words = { ... }
  for i = 1, #words - 1, 2 do store[words[i]] = words[i + 1] end
  return OK
end

function commands.KEYS()
  local keys = {}
  for key in pairs(store) do keys[#keys + 1] = bulk(key) end
  return array(keys)
end

function commands.DBSIZE()
  local n = 0
  for _ in pairs(store) do n = n + 1 end
  return ":" .. n .. "\r\n"
end

function commands.FLUSHALL()
  store = {}
  return OK
end

-- What clients ask before they begin.
function commands.COMMAND() return array {} end
function commands.CONFIG(_, name) return array { bulk(name or ""), bulk("") } end
function commands.CLIENT() return OK end
function commands.SELECT() return OK end
function commands.QUIT() return OK end

local least = {} -- command → how many words it needs
for name, n in pairs { ECHO = 1, GET = 1, SET = 2, DEL = 1, EXISTS = 1, INCR = 1, APPEND = 2, MGET = 1, MSET = 2 } do
  least[commands[name]] = n
end

local function reply_to(words)
  local name = words[1]
  local command = commands[name] or commands[name:upper()]
  if not command then return ("-ERR unknown command '%s'\r\n"):format(name) end
  if #words <= (least[command] or 0) then
    return ("-ERR wrong number of arguments for '%s' command\r\n"):format(name:lower())
  end
  return command(unpack(words, 2)), command == commands.QUIT
end

-- ---- connections ----------------------------------------------------------------------------------------------------

-- The replies to all commands that are whole in the text, where the rest of it begins, and how many bytes that lacks at
-- least; quits is set by a QUIT among them.
local function answer(text)
  local replies, at = {}, 1
  while at <= #text do
    local words, behind = parse_plain(text, at)
    if not words then words, behind = parse(text, at) end
    if not words then return replies, at, behind end
    at = behind
    if words[1] then replies[#replies + 1], replies.quits = reply_to(words) end
    if replies.quits then break end
  end
  return replies, at
end

-- Many commands may come in one piece; their replies go out in one, too.
local function serve(reader, writer)
  local rest, missing = "", nil
  while true do
    local data = missing and reader:readexactly(missing) or reader:read(BLOCK)
    if not data then break end
    if rest ~= "" then data = rest .. data end
    local ok, replies, at
    ok, replies, at, missing = pcall(answer, data)
    if not ok then
      writer:write("-ERR " .. replies.message .. "\r\n")
      break
    end
    rest = at > #data and "" or sub(data, at)
    writer:write(table.concat(replies))
    writer:drain()
    if replies.quits then break end
  end
end

local function serve_client(reader, writer)
  local ok, err = aloop.try(serve, reader, writer)
  writer:close()
  local gone = aloop.isinstance(err, aloop.ConnectionError) or aloop.isinstance(err, aloop.IncompleteReadError)
  if not ok and not gone then error(err, 0) end
end

local server <close> = aloop.start_server(serve_client, "127.0.0.1", tonumber(arg[1]) or 6379)
print("listening on " .. tostring(server.sockets[1]:getsockname()))
io.stdout:flush()
server:serve_forever()
