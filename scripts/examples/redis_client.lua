-- Shows a client for a real protocol on streams: RESP, as redis-server speaks it, with pipelines and errors of its own.
-- Run: aloop redis_client.lua PORT [host], with a redis-server at that port; its keys begin with "aloop:"
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local RedisError = aloop.Error:extend("RedisError")

local Redis = {}
Redis.__index = Redis

function Redis.connect(host, port)
  local reader, writer = aloop.open_connection(host, port)
  return setmetatable({ reader = reader, writer = writer }, Redis)
end

function Redis:send(...)
  local parts = { "*" .. select("#", ...) }
  for i = 1, select("#", ...) do
    local word = tostring((select(i, ...)))
    parts[#parts + 1] = "$" .. #word
    parts[#parts + 1] = word
  end
  parts[#parts + 1] = ""
  self.writer:write(table.concat(parts, "\r\n"))
end

-- The next reply: a string, an integer, an array (a table), nil, or an error, which is returned and not raised.
function Redis:receive()
  local line = self.reader:readuntil("\r\n"):sub(1, -3)
  local kind, text = line:sub(1, 1), line:sub(2)
  if kind == "+" then return text end
  if kind == "-" then return RedisError(text) end
  local n = math.tointeger(tonumber(text))
  if kind == ":" then return n end
  if n < 0 then return nil end
  if kind == "$" then return self.reader:readexactly(n + 2):sub(1, -3) end
  assert(kind == "*", "this is no Redis")
  local items = {}
  for i = 1, n do items[i] = self:receive() end
  return items
end

-- Sends a command and returns its reply, or raises its error.
function Redis:call(...)
  self:send(...)
  self.writer:drain()
  local reply = self:receive()
  if aloop.isinstance(reply, RedisError) then error(reply) end
  return reply
end

-- Sends many commands at once and returns their replies in order.
function Redis:pipeline(commands)
  for _, command in ipairs(commands) do self:send(table.unpack(command)) end
  self.writer:drain()
  local replies = {}
  for i = 1, #commands do replies[i] = self:receive() end
  return replies
end

function Redis:__close()
  self.writer:close()
  self.writer:wait_closed()
end

local port = assert(tonumber(arg[1]), "usage: aloop redis_client.lua PORT [host]")
local redis <close> = Redis.connect(arg[2] or "127.0.0.1", port)

print("PING: " .. redis:call("PING"))
redis:call("DEL", "aloop:greeting", "aloop:count", "aloop:list")
print("SET: " .. redis:call("SET", "aloop:greeting", "hello\r\nworld"))
print(("GET: %q"):format(redis:call("GET", "aloop:greeting")))
print("GET of nothing: " .. tostring(redis:call("GET", "aloop:nothing")))

local commands = {}
for i = 1, 1000 do commands[i] = { "INCR", "aloop:count" } end
print("the last of 1000 INCR: " .. redis:pipeline(commands)[1000])

local ok, err = pcall(redis.call, redis, "INCR", "aloop:greeting")
print("INCR of a text: " .. tostring(err))
assert(not ok and aloop.isinstance(err, RedisError))
print("EXISTS: " .. redis:call("EXISTS", "aloop:greeting", "aloop:count", "aloop:nothing"))
print("MGET: " .. table.concat(redis:call("MGET", "aloop:greeting", "aloop:count"), ", "):gsub("\r\n", " "))
redis:call("DEL", "aloop:greeting", "aloop:count")
