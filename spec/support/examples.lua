-- examples.lua - the programs of scripts/examples as children of a spec, and the clients that talk to those that serve.
-- The specs of the examples require it by name. exchange and with_client run a loop of their own.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local assert = require "luassert"
local helper = require "spec.helper"

local examples = {}

examples.DIRECTORY = "scripts/examples/"

-- Starts one by its name; options as helper.start.
function examples.start(name, options)
  options = options or {}
  options.file = true
  return helper.start(examples.DIRECTORY .. name .. ".lua", options)
end

-- The interpreter's options that make its loops be of a kind (see helper.each_loop).
function examples.flags_of(kind)
  return { "-X", kind == "ring" and "proactor" or "selector=" .. kind }
end

-- The output of one that ends by itself.
function examples.output_of(name, options)
  local result = examples.start(name, options):wait()
  assert.equal(0, result.code, result.stderr)
  assert.equal("", result.stderr)
  return result.stdout
end

-- The port that a server example says it listens on.
function examples.port_of(child)
  return tonumber((child:read_until("127%.0%.0%.1:(%d+)")))
end

-- body(port, child) with a server example running; ended by SIGINT. Returns what child:wait does.
function examples.with_server(name, body, options)
  options = options or {}
  options.args = options.args or { "0" }
  local server = examples.start(name, options)
  local ok, e = pcall(body, examples.port_of(server), server)
  server:kill("INT")
  local result = server:wait()
  if not ok then error(e, 0) end
  assert.equal(130, result.code, result.stderr)
  return result
end

-- body(loop, port of the proxy, listener behind it, proxy) with a proxy running, as a task. ...: more arguments of its.
function examples.with_proxy(name, body, ...)
  local more = { ... }
  helper.as_task(function(loop)
    local listener, address = helper.listen()
    local _ <close> = aloop.defer(function() listener:close() end)
    examples.with_server(name, function(port, proxy) body(loop, port, listener, proxy) end,
      { args = { "0", address[1], tostring(address[2]), table.unpack(more) } })
  end)
end

-- ---- clients --------------------------------------------------------------------------------------------------------

-- Talks to a port over a bare connection: sends, and returns all that comes until the peer ends it.
function examples.exchange(port, request, half_close)
  local answer
  helper.as_task(function(loop)
    local sock = helper.connect(loop, { "127.0.0.1", port })
    helper.send_all(loop, sock, request)
    if half_close then sock:shutdown(aloop.socket.SHUT_WR) end
    answer = helper.recv_all(loop, sock)
    sock:close()
  end)
  return answer
end

-- Runs body(reader, writer, loop) with a client on streams.
function examples.with_client(port, body)
  helper.as_task(function(loop)
    local reader, writer <close> = aloop.open_connection("127.0.0.1", port)
    body(reader, writer, loop)
  end)
end

-- Asserts that send(block), which may wait, does wait while nobody reads, and goes on when read(n) has read.
function examples.check_sender_waits(send, read)
  local block, sent = ("x"):rep(65536), 0
  local sending = aloop.create_task(function()
    while true do
      send(block)
      sent = sent + #block
    end
  end)
  local before
  repeat
    before = sent
    aloop.sleep(0.1)
  until sent == before
  assert.is_true(sent < 64 * 1024 * 1024)
  assert.equal(before, #read(before))
  while sent == before do aloop.sleep(0.001) end
  sending:cancel()
  pcall(sending.await, sending)
end

-- What curl writes when it is called with these arguments (a line for the shell).
function examples.curl(arguments)
  local pipe = io.popen("curl -sS --noproxy '*' --max-time 20 " .. arguments .. " 2>&1")
  local text = pipe:read("a")
  local ok = pipe:close()
  assert.is_true(ok, text)
  return text
end

-- Whether the shell finds a program of this name.
function examples.is_there(program)
  return os.execute("command -v " .. program .. " >/dev/null 2>&1") == true
end

return examples
