-- luv_http.lua - the HTTP server of the benchmarks on luv: the routes and bytes of scripts/examples/http_server.lua.
--
--   lua5.4 luv_http.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local uv = require "luv"

local ANSWER = "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s"

local function respond(head)
  local path, minor = head:match "^%u+ (%S+) HTTP/1%.(%d)\r\n"
  if not path then return nil end
  local connection = head:match "\r\n[Cc]onnection:[ \t]*([^\r]*)"
  local keep_alive = minor == "1"
  if connection then
    connection = connection:lower()
    keep_alive = connection == "keep-alive" or keep_alive and connection ~= "close"
  end
  local status, body = "200 OK", "Hello, World!\n"
  if path ~= "/" then status, body = "404 Not Found", "Not Found\n" end
  return ANSWER:format(status, #body, keep_alive and "" or "Connection: close\r\n", body), keep_alive
end

local known = {} -- heads that were answered and leave the connection open -> answer

-- Answers the whole requests of data; returns what is left, or nil to close.
local function serve(stream, data)
  local at, answers = 1, {}
  while true do
    local _, stop = data:find("\r\n\r\n", at, true)
    if not stop then break end
    local head = data:sub(at, stop)
    local answer, keep_alive = known[head], true
    if not answer then
      answer, keep_alive = respond(head)
      if not answer then return nil end
      if keep_alive then known[head] = answer end
    end
    answers[#answers + 1] = answer
    at = stop + 1
    if not keep_alive then
      stream:write(table.concat(answers), function() stream:close() end)
      return ""
    end
  end
  local out = #answers == 1 and answers[1] or table.concat(answers)
  local n = out ~= "" and stream:try_write(out) or 0
  if n < #out then stream:write(out:sub(n + 1)) end
  return data:sub(at)
end

local listener = uv.new_tcp()
assert(listener:bind("127.0.0.1", 0))
assert(listener:listen(1024, function(err)
  assert(not err, err)
  local stream, rest = uv.new_tcp(), ""
  listener:accept(stream)
  stream:nodelay(true)
  stream:read_start(function(_, data)
    rest = data and serve(stream, rest == "" and data or rest .. data)
    if not rest and not stream:is_closing() then stream:close() end
  end)
end))
print("127.0.0.1:" .. listener:getsockname().port)
io.stdout:flush()
uv.run()
