-- cqueues_echo.lua - the echo server on cqueues: a coroutine a connection.
--
--   lua5.4 cqueues_echo.lua [tcp | unix:PATH] [lines]       prints its address
--
-- SPDX-License-Identifier: MIT
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local where = arg[1] or "tcp"
local what = arg[2] == "lines" and "*L" or -256 * 1024
local path = where:match "^unix:(.+)$"
local listener = assert(path and socket.listen { path = path } or socket.listen("127.0.0.1", 0))
assert(listener:listen())
local loop = cqueues.new()

local function serve(conn)
  conn:setmode("bn", "bn")
  conn:onerror(function(_, _, code) return code end)
  while true do
    local data = conn:read(what)
    if not data or not conn:write(data) then break end
  end
  conn:close()
end

loop:wrap(function()
  for conn in listener:clients() do
    loop:wrap(serve, conn)
  end
end)
local _, _, port = listener:localname()
print(path and where or ("127.0.0.1:%d"):format(port))
io.stdout:flush()
assert(loop:loop())
