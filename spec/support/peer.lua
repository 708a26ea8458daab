-- peer.lua - both ends of a connection, as specs need them: a protocol that records and can be waited for, bare sockets
-- driven through add_reader and add_writer, transports over either. Part of spec/helper.lua. What waits needs a task.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"

local peer = {}

-- ---- protocols that record ------------------------------------------------------------------------------------------

-- What every protocol that records can do, whatever it receives: it notes the events and can be waited for.
---@class Recording
---@field events string[] "made", "data", "eof", "pause", "resume", "lost" …, in order
local Recording = {}

-- A subclass of a protocol class that records. Its init calls self:begin(loop), its methods self:note(event).
function peer.recording(base, name)
  local class = base:extend(name)
  for method, f in pairs(Recording) do class[method] = f end
  return class
end

function Recording:begin(loop)
  self.loop = loop
  self.events, self.waiters = {}, {}
end

function Recording:note(event)
  if self.is_lost then error(event .. " after connection_lost") end
  if not self.transport then error(event .. " before connection_made") end
  self.events[#self.events + 1] = event
  local waiters = self.waiters
  self.waiters = {}
  for _, future in ipairs(waiters) do
    if not future:done() then future:set_result() end
  end
end

function Recording:connection_made(transport)
  if self.transport then error("connection_made twice") end
  self.transport = transport
  self:note("made")
end

function Recording:pause_writing()
  self.paused = true
  self:note("pause")
end

function Recording:resume_writing()
  self.paused = false
  self:note("resume")
end

function Recording:connection_lost(err)
  self:note("lost")
  self.is_lost, self.reason = true, err
end

function Recording:count(event)
  local n = 0
  for _, e in ipairs(self.events) do
    if e == event then n = n + 1 end
  end
  return n
end

-- Waits until cond(self) is true; looked at whenever something happened.
function Recording:wait(cond)
  while not cond(self) do
    local future = self.loop:create_future()
    self.waiters[#self.waiters + 1] = future
    future:await()
  end
end

function Recording:wait_for(event)
  self:wait(function() return self:count(event) > 0 end)
end

-- Waits for the end; returns the error of connection_lost.
function Recording:wait_lost()
  self:wait_for("lost")
  return self.reason
end

---@class Recorder: Recording
---@field chunks integer[] the length of each data_received
local Recorder = peer.recording(aloop.Protocol, "Recorder")
peer.Recorder = Recorder

function Recorder:init(loop, options)
  self:begin(loop)
  self.chunks, self.parts, self.received = {}, {}, 0
  self.keep_open = options and options.keep_open -- what eof_received returns
end

function Recorder:data_received(data)
  if #data == 0 then error("data_received without data") end
  self.parts[#self.parts + 1] = data
  self.chunks[#self.chunks + 1] = #data
  self.received = self.received + #data
  self:note("data")
end

function Recorder:eof_received()
  self.has_eof = true
  self:note("eof")
  return self.keep_open
end

-- All that was received, in one string.
function Recorder:text()
  return table.concat(self.parts)
end

function Recorder:wait_data(n)
  self:wait(function() return self.received >= n end)
  return self:text()
end

-- A factory of recorders that keeps them in a list, and a way to wait for the n-th.
function peer.recorders(loop)
  local made = {}
  local changed = loop:create_future()
  local function factory()
    local protocol = Recorder(loop)
    local connection_made = Recorder.connection_made
    protocol.connection_made = function(self, transport)
      made[#made + 1] = self
      connection_made(self, transport)
      if not changed:done() then changed:set_result() end
    end
    return protocol
  end
  local function wait_for(n)
    while #made < n do
      changed = loop:create_future()
      changed:await()
    end
    return made[n]
  end
  return factory, wait_for, made
end

-- A factory that returns this very protocol.
function peer.always(protocol)
  return function() return protocol end
end

-- ---- bare sockets ---------------------------------------------------------------------------------------------------

-- Waits until add ("add_reader", "add_writer") calls for the descriptor once.
local function wait_ready(loop, sock, add, remove)
  local ready = loop:create_future()
  loop[add](loop, sock, function()
    if not ready:done() then ready:set_result() end
  end)
  local _ <close> = setmetatable({}, { __close = function() loop[remove](loop, sock) end })
  ready:await()
end

function peer.wait_readable(loop, sock) wait_ready(loop, sock, "add_reader", "remove_reader") end
function peer.wait_writable(loop, sock) wait_ready(loop, sock, "add_writer", "remove_writer") end

-- Calls f(...), again after each BlockingIOError when the descriptor is ready; returns its results.
local function retry(loop, sock, wait, f, ...)
  while true do
    local results = table.pack(pcall(f, sock, ...))
    if results[1] then return table.unpack(results, 2, results.n) end
    if not aloop.isinstance(results[2], aloop.BlockingIOError) then error(results[2], 0) end
    wait(loop, sock)
  end
end

-- Up to n bytes, nil at the end.
function peer.recv(loop, sock, n)
  return retry(loop, sock, peer.wait_readable, sock.recv, n or 65536)
end

-- Exactly n bytes, or fewer at the end.
function peer.recv_exactly(loop, sock, n)
  local parts, got = {}, 0
  while got < n do
    local data = peer.recv(loop, sock, math.min(n - got, 262144))
    if not data then break end
    parts[#parts + 1] = data
    got = got + #data
  end
  return table.concat(parts)
end

-- All up to the end of the stream.
function peer.recv_all(loop, sock)
  return peer.recv_exactly(loop, sock, math.huge)
end

function peer.send_all(loop, sock, data)
  while #data > 0 do
    local n = retry(loop, sock, peer.wait_writable, sock.send, data)
    data = data:sub(n + 1)
  end
end

function peer.accept(loop, sock)
  return retry(loop, sock, peer.wait_readable, sock.accept)
end

-- A bare client of a TCP address ({host, port}) or a Unix path.
function peer.connect(loop, address)
  local family = type(address) == "string" and aloop.socket.AF_UNIX
    or address[1]:find(":", 1, true) and aloop.socket.AF_INET6 or aloop.socket.AF_INET
  local sock = aloop.socket.socket(family, aloop.socket.SOCK_STREAM)
  local ok, err = pcall(sock.connect, sock, address)
  if not ok then
    if not aloop.isinstance(err, aloop.BlockingIOError) then
      sock:close()
      error(err, 0)
    end
    peer.wait_writable(loop, sock)
    local code = sock:getsockopt(aloop.socket.SOL_SOCKET, aloop.socket.SO_ERROR)
    if code ~= 0 then
      sock:close()
      error(aloop.OSError(code, "connect"), 0)
    end
  end
  return sock
end

-- A bare listener on 127.0.0.1 and its address.
function peer.listen(backlog)
  local sock = aloop.socket.socket(aloop.socket.AF_INET, aloop.socket.SOCK_STREAM)
  sock:setsockopt(aloop.socket.SOL_SOCKET, aloop.socket.SO_REUSEADDR, 1)
  sock:bind({ "127.0.0.1", 0 })
  sock:listen(backlog or 100)
  return sock, sock:getsockname()
end

-- An address on 127.0.0.1 where nobody listens. type: of the socket that was there, SOCK_STREAM unless told.
function peer.vacant_address(type)
  local sock <close> = aloop.socket.socket(aloop.socket.AF_INET, type or aloop.socket.SOCK_STREAM)
  sock:bind { "127.0.0.1", 0 }
  return (sock:getsockname())
end

-- Asserts that a bare client is refused there.
function peer.refused(loop, address)
  local ok, e = pcall(peer.connect, loop, address)
  if ok then
    e:close()
    error("the connection was not refused", 2)
  end
  if not aloop.isinstance(e, aloop.ConnectionRefusedError) then error(e, 0) end
end

-- An address that answers no connect: of a listener whose queue is full. Also a function that closes it.
function peer.black_hole()
  local listener, address = peer.listen(0)
  local fillers = {}
  for i = 1, 4 do
    fillers[i] = aloop.socket.socket(aloop.socket.AF_INET, aloop.socket.SOCK_STREAM)
    pcall(fillers[i].connect, fillers[i], address)
  end
  return address, function()
    for _, sock in ipairs(fillers) do sock:close() end
    listener:close()
  end
end

-- Closes a TCP socket with a RST.
function peer.reset(sock)
  sock:setsockopt(aloop.socket.SOL_SOCKET, aloop.socket.SO_LINGER, string.pack("=i4i4", 1, 0))
  sock:close()
end

-- ---- transports -----------------------------------------------------------------------------------------------------

-- A transport over one end of a Unix socket pair, with the bare other end: transport, protocol, socket.
function peer.over_socketpair(loop, protocol)
  local a, b = aloop.socket.socketpair()
  protocol = protocol or Recorder(loop)
  local transport = loop:create_connection(peer.always(protocol), nil, nil, { sock = a })
  return transport, protocol, b
end

-- A transport over TCP with the bare accepted other end: transport, protocol, socket.
function peer.over_tcp(loop, protocol)
  local listener, address = peer.listen()
  protocol = protocol or Recorder(loop)
  local transport = loop:create_connection(peer.always(protocol), address[1], address[2])
  local sock = peer.accept(loop, listener)
  listener:close()
  return transport, protocol, sock
end

-- Streams over TCP with the bare accepted other end: reader, writer, socket.
function peer.streams_over_tcp(loop)
  local listener, address = peer.listen()
  local reader, writer = aloop.open_connection(address[1], address[2])
  local sock = peer.accept(loop, listener)
  listener:close()
  return reader, writer, sock
end

-- Runs body(server, wait_for, made) with a server of recorders (see peer.recorders); closed at the end with its
-- clients. options: create_server's.
function peer.serve(loop, body, options)
  local factory, wait_for, made = peer.recorders(loop)
  local server = loop:create_server(factory, "127.0.0.1", 0, options)
  body(server, wait_for, made)
  server:close()
  server:abort_clients()
  server:wait_closed()
end

-- Two transports joined through a server of the loop: client transport and protocol, server transport and protocol.
function peer.joined(loop, options)
  options = options or {}
  local server_side = options.server or Recorder(loop)
  local client_side = options.client or Recorder(loop)
  local server = loop:create_server(peer.always(server_side), "127.0.0.1", 0)
  local address = server.sockets[1]:getsockname()
  local transport = loop:create_connection(peer.always(client_side), address[1], address[2])
  server_side:wait_for("made")
  server:close()
  return transport, client_side, server_side.transport, server_side
end

-- Address of a server's first socket.
function peer.address_of(server)
  local address = server.sockets[1]:getsockname()
  return address
end

-- Fills the send buffers of a transport whose peer doesn't read, until something stays in its own buffer. Returns how
-- many bytes were written.
function peer.fill(transport)
  local block = ("x"):rep(65536)
  local written = 0
  while transport:get_write_buffer_size() == 0 do
    transport:write(block)
    written = written + #block
    if written > 64 * 1024 * 1024 then error("the peer takes without end") end
  end
  return written
end

return peer
