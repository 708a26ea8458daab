-- echo_sock.lua - the echo server on loop:sock_accept, sock_recv and sock_sendall that the benchmarks load. The loop is
-- the interpreter's choice (-X).
--
--   aloop echo_sock.lua       prints its address
--
-- SPDX-License-Identifier: MIT
local aloop = require "aloop"

local BUFFER_SIZE = 256 * 1024

local loop = aloop.get_event_loop()
local S = aloop.socket

local function echo(sock)
  sock:setsockopt(S.IPPROTO_TCP, S.TCP_NODELAY, 1)
  while true do
    local data = loop:sock_recv(sock, BUFFER_SIZE)
    if not data then break end
    loop:sock_sendall(sock, data)
  end
end

local function serve(sock)
  local ok, err = pcall(echo, sock)
  sock:close()
  if not ok and not aloop.isinstance(err, aloop.ConnectionError) then error(err, 0) end
end

local listener = S.socket()
listener:setsockopt(S.SOL_SOCKET, S.SO_REUSEADDR, 1)
listener:bind { "127.0.0.1", 0 }
listener:listen(1024)
print(listener:getsockname())
io.stdout:flush()
while true do
  local sock = loop:sock_accept(listener)
  aloop.create_task(function() serve(sock) end)
end
