-- TLS connections that are written to, paused and closed at random, over a wire that hands on pieces of any size and
-- may change, repeat or lose something. Whatever happens, both ends come to an end, no byte arrives that was not sent,
-- and where nothing was done to the wire nothing is missing.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local ssl = aloop.ssl

local ROUNDS = 30
local random = math.random

local function one_of(list) return list[random(#list)] end

-- ---- the wire -------------------------------------------------------------------------------------------------------

---@class Wire what goes from one bare socket to another
local Wire = {}
Wire.__index = Wire

local faults = {}

function faults.changed(bytes)
  local i = random(#bytes)
  return bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ 1 << random(0, 7)) .. bytes:sub(i + 1)
end

function faults.again(bytes) return bytes .. bytes end

function faults.lost() return "" end

function faults.ended() return nil end

-- mode: a name of faults, or "sound". at: the fault comes after so many bytes; most: how many go at once.
local function new_wire(loop, near, far, mode, at, most)
  local wire = setmetatable({ loop = loop, fault = faults[mode], left = at, most = most }, Wire)
  wire.tasks = { wire:carry(near, far), wire:carry(far, near) }
  return wire
end

-- The bytes, as they arrive; nil: that was the end.
function Wire:through(bytes)
  self.left = self.left - #bytes
  if not self.fault or self.left > 0 then return bytes end
  local fault = self.fault
  self.fault = nil
  return fault(bytes)
end

function Wire:carry(from, to)
  return self.loop:create_task(function()
    aloop.try(function()
      while true do
        local bytes = helper.recv(self.loop, from, self.most)
        bytes = bytes and self:through(bytes)
        if not bytes then break end
        helper.send_all(self.loop, to, bytes)
        if random(3) == 1 then aloop.sleep(0) end
      end
    end)
    pcall(to.shutdown, to, aloop.socket.SHUT_WR)
  end)
end

function Wire:close()
  for _, task in ipairs(self.tasks) do
    task:cancel()
    pcall(task.await, task)
  end
end

-- ---- the ends -------------------------------------------------------------------------------------------------------

local actions = {
  function(self, transport, size)
    if transport:is_closing() then return end
    local text = string.char(random(97, 122)):rep(size())
    self.sent = self.sent .. text
    transport:write(text)
  end,
  function(_, transport) if not transport:is_closing() then transport:pause_reading() end end,
  function(_, transport) transport:resume_reading() end,
  function(_, transport) transport:set_write_buffer_limits { high = random(0, 100000) } end,
  function() aloop.sleep(0) end,
}

-- Writes and does other things; reads again after them.
local function act(self, size)
  for _ = 1, random(6) do
    actions[1](self, self.transport, size)
    one_of(actions)(self, self.transport, size)
    if self.is_lost then return end
  end
  self.transport:resume_reading()
end

-- What one end has read, of what the other has written.
local function check(reader, writer, all)
  local text = reader:text()
  assert.is_true(text == writer.sent:sub(1, #text))
  assert.is_true(reader:count "eof" <= 1)
  if all then assert.equal(#writer.sent, #text) end
end

helper.each_loop(function(kind, new_loop)
  if kind ~= "epoll" and kind ~= "ring" then return end

  local function round(loop, context, number)
    local limits = { ssl_handshake_timeout = 0.3, ssl_shutdown_timeout = 0.3 }
    local server_side = helper.Recorder(loop)
    local mode = one_of { "sound", "sound", "changed", "again", "lost", "ended" }
    if mode == "sound" then limits = {} end
    local server = loop:create_server(helper.always(server_side), "127.0.0.1", 0, tls.with(limits, { ssl = context }))
    local client_context = certs.client_context()
    client_context.maximum_version = one_of { ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3 }
    local task, near, client = tls.connect_to_socket(loop, { client = client_context, connect = limits })
    server_side.sent, client.sent = "", ""
    local far = helper.connect(loop, helper.address_of(server))
    local most = one_of { 1, 300, 20000, 200000 }
    local wire = new_wire(loop, near, far, mode, random(one_of { 3000, 40000 }), most)
    local function size() return random(most < 1000 and most + 200 or 150000) end
    local connected, e = aloop.try(task.await, task)
    if not connected and mode == "sound" then error(e, 0) end
    local how = one_of { "close", "abort", "both" }
    if connected then
      act(client, size)
      if how == "both" and server_side.transport and not server_side.is_lost then act(server_side, size) end
      client.transport[how == "abort" and "abort" or "close"](client.transport)
      client:wait_lost()
    end
    if server_side.transport then server_side:wait_lost() end
    check(server_side, client, mode == "sound" and how == "close")
    check(client, server_side)
    if mode == "sound" and how == "close" then
      assert.is_nil(client.reason, number)
      assert.is_nil(server_side.reason, number)
    end
    wire:close()
    near:close()
    far:close()
    server:close()
    server:wait_closed()
  end

  it("TLS survives whatever happens", function()
    math.randomseed(20261121)
    helper.with_loop(new_loop, function(loop)
      local context = certs.server_context()
      for number = 1, ROUNDS do round(loop, context, number) end
    end)
  end)
end)
