-- Every program of scripts/examples, run as its first lines say, with real clients.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local helper = require "spec.helper"

local DIRECTORY = "scripts/examples/"

local function start(name, options)
  options = options or {}
  options.file = true
  return helper.start(DIRECTORY .. name .. ".lua", options)
end

-- The output of an example that ends by itself.
local function output_of(name, options)
  local result = start(name, options):wait()
  assert.equal(0, result.code, result.stderr)
  assert.equal("", result.stderr)
  return result.stdout
end

-- body(port, child) with a server example running; ended by SIGINT.
local function with_server(name, body, options)
  options = options or {}
  options.args = options.args or { "0" }
  local server = start(name, options)
  local port = tonumber((server:read_until("127%.0%.0%.1:(%d+)")))
  local ok, e = pcall(body, port, server)
  server:kill("INT")
  local result = server:wait()
  if not ok then error(e, 0) end
  assert.equal(130, result.code, result.stderr)
  return result
end

-- Talks to a port over a bare connection: sends, and returns all that comes until the peer ends it.
local function exchange(port, request, half_close)
  local answer
  helper.with_loop(helper.new_loop, function(loop)
    local sock = helper.connect(loop, { "127.0.0.1", port })
    helper.send_all(loop, sock, request)
    if half_close then sock:shutdown(aloop.socket.SHUT_WR) end
    answer = helper.recv_all(loop, sock)
    sock:close()
  end)
  return answer
end

local function curl(arguments)
  local pipe = io.popen("curl -sS --noproxy '*' --max-time 20 " .. arguments .. " 2>&1")
  local text = pipe:read("a")
  local ok = pipe:close()
  assert.is_true(ok, text)
  return text
end

describe("example", function()
  it("hello_call_soon prints and stops", function() -- row: example.hello_call_soon
    assert.equal("Hello World\n", output_of "hello_call_soon")
  end)

  it("add_reader prints what it received", function() -- row: example.add_reader
    assert.equal("Received: abc\n", output_of "add_reader")
  end)

  it("partial prints", function() -- row: example.partial
    assert.equal("Hello\n", output_of "partial")
  end)

  it("policy_selector makes all loops wait by select", function() -- row: example.policy_selector
    local expected = "<SelectorEventLoop running=false closed=false debug=false>\nslept on select\n"
    assert.equal(expected, output_of "policy_selector")
  end)

  it("shutdown_asyncgens closes what a run has left open", function() -- row: example.shutdown_asyncgens
    assert.equal("reading: 21\nsensor released\nmain is done\tloop closed\n", output_of "shutdown_asyncgens")
  end)

  it("async_generator counts, and closes what is left early", function()
    local expected = "1\t1\n2\t4\n3\t9\nticker closed\n2\t4\n4\t16\nticker closed\n"
    assert.equal(expected, output_of "async_generator")
  end)

  it("producer_consumer deals with all that is made", function()
    assert.equal("20 items are done\nthe consumers went home\n", output_of "producer_consumer")
  end)

  it("crawler finds all pages, a few at a time, and gives up on one that never answers", function()
    local lines = {}
    for line in output_of("crawler"):gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.same({
      "200\t/", "200\t/about", "200\t/archive", "TimeoutError\t/archive/endless", "404\t/lost", "200\t/news",
      "200\t/news/1", "200\t/news/2", "200\t/news/3", "9 pages, at most 3 at a time",
    }, lines)
  end)

  it("loop_selector runs on select", function() -- row: example.loop_selector
    assert.equal("running on select\n", output_of "loop_selector")
  end)

  it("hello_coroutine prints before and after its sleep", function() -- row: example.hello_coroutine
    assert.equal("Hello ...\n... World!\n", output_of "hello_coroutine")
  end)

  it("future_get_running_loop prints hello and world", function() -- row: example.future_get_running_loop
    assert.equal("hello ...\n... world\n", output_of "future_get_running_loop")
  end)

  it("socket_protocol prints what it received", function() -- row: example.socket_protocol
    assert.equal("Received: abc\n", output_of "socket_protocol")
  end)

  -- row: example.display_date, example.date_coroutine, example.hello_repeat
  it("display_date and date_coroutine print five seconds long, hello_repeat every two", function()
    local dates = { start "display_date", start "date_coroutine" }
    local hello = start "hello_repeat"
    for _, child in ipairs(dates) do
      local result = child:wait()
      assert.equal(0, result.code, result.stderr)
      local last
      local n = 0
      for year, month, day, hour, min, sec in result.stdout:gmatch("(%d+)%-(%d+)%-(%d+) (%d+):(%d+):(%d+)\n") do
        local time = os.time { year = year, month = month, day = day, hour = hour, min = min, sec = sec }
        if last then assert.is_true(time - last >= 0 and time - last <= 3) end
        last, n = time, n + 1
      end
      assert.is_true(n == 5 or n == 6, n .. " lines")
    end
    assert.equal("Hello World", hello:read_line())
    assert.equal("Hello World", hello:read_line())
    hello:kill("KILL")
    assert.equal(9, hello:wait().signal)
  end)

  it("signals prints the signal's name; a RuntimeError follows", function() -- row: example.signals
    for _, name in ipairs { "TERM", "INT" } do
      local child = start "signals"
      child:read_until("send SIGINT or SIGTERM")
      child:kill(name)
      local result = child:wait()
      assert.equal(("got signal SIG%s: exit\n"):format(name), result.stdout)
      assert.equal(1, result.code)
      assert.matches("RuntimeError: Event loop stopped before Future completed", result.stderr)
    end
  end)

  it("udp_echo_server and udp_echo_client talk to each other", function() -- row: example.udp_echo
    local server = start("udp_echo_server", { args = { "0" } })
    local port = server:read_until("Starting UDP server on 127%.0%.0%.1:(%d+)")
    assert.equal('Send: Hello World!\nReceived: Hello World!\nClose the socket\nConnection closed\n',
      output_of("udp_echo_client", { args = { port } }))
    server:read_until('Received "Hello World!" from 127%.0%.0%.1:%d+')
    server:kill("INT")
    assert.equal(130, server:wait().code)
    assert.equal("Send: Hello World!\nError received: ConnectionRefusedError: Connection refused\nConnection closed\n",
      output_of("udp_echo_client", { args = { port } }))
  end)

  it("tcp_echo_server and tcp_echo_client talk to each other", function() -- row: example.tcp_echo
    local server = start("tcp_echo_server", { args = { "0" } })
    local port = server:read_until("Serving on 127%.0%.0%.1:(%d+)")
    assert.equal('Data sent: "Hello World!"\nData received: "Hello World!"\nThe server closed the connection\n',
      output_of("tcp_echo_client", { args = { port } }))
    server:read_until("Close the client socket")
    server:kill("INT")
    local result = server:wait()
    assert.is_not_nil(result.code)
  end)

  for _, kind in ipairs { "epoll", "poll", "select", "proactor" } do
    local flags = { "-X", kind == "proactor" and kind or "selector=" .. kind }
    local new_loop, reason = helper.loop_maker(kind == "proactor" and "ring" or kind)
    local spec = reason and function(name) pending(name .. ": " .. reason) end or it

    spec("echo_server echoes, on " .. kind, function()
      assert.is_function(new_loop)
      with_server("echo_server", function(port)
        local data = ("0123456789abcdef"):rep(20000)
        local transport, client
        helper.with_loop(helper.new_loop, function(loop)
          transport, client = loop:create_connection(function() return helper.Recorder(loop) end, "127.0.0.1", port)
          transport:write(data)
          assert.is_true(client:wait_data(#data) == data)
          transport:close()
          client:wait_lost()
        end)
        assert.equal("one\ntwo\n", output_of("echo_client", { args = { tostring(port) }, stdin = "one\ntwo\n" }))
      end, { flags = flags })
    end)

    spec("http_server answers curl, on " .. kind, function()
      with_server("http_server", function(port)
        local url = ("http://127.0.0.1:%d/"):format(port)
        assert.equal("Hello, World!\n", curl(url))
        assert.equal("Hello, World!\nHello, World!\n", curl(url .. " " .. url))
        assert.matches("^HTTP/1.1 200 OK\r\n", curl("-I " .. url))
        assert.equal("404", curl("-o /dev/null -w '%{http_code}' " .. url .. "nothing"))
        assert.equal("405", curl("-o /dev/null -w '%{http_code}' --data-binary xyz " .. url))
        assert.equal("Hello, World!\n", curl("--http1.0 " .. url))
      end, { flags = flags })
    end)
  end

  it("echo_client fails when no one listens", function()
    local _, address = (function()
      local listener, address = helper.listen()
      listener:close()
      return nil, address
    end)()
    local result = start("echo_client", { args = { tostring(address[2]) }, stdin = "x\n" }):wait()
    assert.equal(1, result.code)
    assert.matches("ConnectionRefusedError", result.stderr)
  end)

  it("chat_server tells each line to the others", function()
    with_server("chat_server", function(port)
      helper.with_loop(helper.new_loop, function(loop)
        local clients = {}
        for i, name in ipairs { "ann", "bob", "cid" } do
          local client = helper.Recorder(loop)
          local transport = loop:create_connection(helper.always(client), "127.0.0.1", port)
          clients[i] = client
          transport:write(name .. "\n")
          client:wait(function() return client:text():find("Welcome, " .. name, 1, true) end)
        end
        local ann, bob, cid = table.unpack(clients)
        ann.transport:write("hel")
        ann.transport:write("lo all\r\nsecond\n")
        for _, client in ipairs { bob, cid } do
          client:wait(function() return client:text():find("ann: hello all\nann: second\n", 1, true) end)
        end
        bob.transport:close()
        for _, client in ipairs { ann, cid } do
          client:wait(function() return client:text():find("* bob has gone\n", 1, true) end)
        end
        assert.is_nil(ann:text():find("ann: ", 1, true))
        cid.transport:write(("x"):rep(5000))
        assert.is_nil(cid:wait_lost())
        ann.transport:close()
        ann:wait_lost()
        bob:wait_lost()
      end)
    end)
  end)

  it("graceful_shutdown finishes what is in progress, and no more", function()
    local server = start("graceful_shutdown", { args = { "0", "20" } })
    local port = tonumber((server:read_until("127%.0%.0%.1:(%d+)")))
    helper.with_loop(helper.new_loop, function(loop)
      local clients = {}
      for i, request in ipairs { "0\n", "0\n0.3\n" } do
        clients[i] = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(clients[i]), "127.0.0.1", port)
        transport:write(request)
        clients[i]:wait_data(5)
      end
      aloop.sleep(0.05)
      server:kill("TERM")
      clients[1]:wait_lost()
      clients[2]:wait_lost()
      assert.equal("done\n", clients[1]:text())
      assert.equal("done\ndone\n", clients[2]:text())
      helper.raises(aloop.ConnectionRefusedError, nil, loop.create_connection, loop, aloop.Protocol, "127.0.0.1", port)
    end)
    local result = server:wait()
    assert.equal("SIGTERM: finishing 1 requests\nAll requests are answered\n", result.stdout)
    assert.equal("", result.stderr)
    assert.equal(0, result.code)
  end)

  it("graceful_shutdown gives up when its time is over", function()
    local server = start("graceful_shutdown", { args = { "0", "0.05" } })
    local port = tonumber((server:read_until("127%.0%.0%.1:(%d+)")))
    helper.with_loop(helper.new_loop, function(loop)
      local client = helper.Recorder(loop)
      local transport = loop:create_connection(helper.always(client), "127.0.0.1", port)
      transport:write("0\n1000\n")
      client:wait_data(5)
      aloop.sleep(0.05)
      server:kill("INT")
      client:wait_lost()
    end)
    local result = server:wait()
    assert.equal("SIGINT: finishing 1 requests\nSome requests took too long\n", result.stdout)
    assert.equal("", result.stderr)
    assert.equal(0, result.code)
  end)

  it("keepalive_spec, tests of the protocol keepalive on virtual time, succeeds under busted", function()
    local result = helper.run_program { helper.aloop, "scripts/dev/busted.lua", "-o", "plainTerminal",
      "scripts/examples/keepalive_spec.lua" }
    assert.matches("\n6 successes / 0 failures / 0 errors / 0 pending", result.stdout)
    assert.equal(0, result.code)
  end)

  it("keepalive tells what it hears", function()
    helper.with_loop(helper.new_loop, function(loop)
      local factory, wait_for = helper.recorders(loop)
      local server <close> = loop:create_server(factory, "127.0.0.1", 0)
      local client = start("keepalive", { args = { "127.0.0.1", tostring(server.sockets[1]:getsockname().port) } })
      local transport = wait_for(1).transport
      transport:write("news\npong\n")
      transport:close()
      wait_for(1):wait_lost()
      assert.equal("news\nThe connection has ended: closed\n", client:wait().stdout)
    end)
  end)

  it("every one is named here", function()
    local text = helper.read_file("spec/examples_spec.lua") .. helper.read_file("spec/examples_streams_spec.lua")
    for name in lfs.dir(DIRECTORY) do
      local script = name:match("^(.*)%.lua$")
      if script then assert.is_not_nil(text:find(script, 1, true), script) end
    end
  end)

  it("every one says what it shows and how to run it", function()
    for name in lfs.dir(DIRECTORY) do
      if name:find("%.lua$") then
        local head = helper.read_file(DIRECTORY .. name):match("^(.-)SPDX")
        assert.matches("^%-%- Shows ", head)
        assert.is_not_nil(head:find("Run: aloop", 1, true), name)
      end
    end
  end)
end)

describe("static_server", function()
  local directory, remove, big

  local function write(name, text)
    local file <close> = assert(io.open(directory .. "/" .. name, "wb"))
    file:write(text)
  end

  setup(function() -- luacheck: ignore 113
    directory, remove = helper.temporary_directory()
    big = ("0123456789abcdef"):rep(300000)
    write("index.html", "<p>the index</p>\n")
    write("a file.txt", "text\n")
    write("big.bin", big)
    write("empty.css", "")
    lfs.mkdir(directory .. "/sub")
  end)

  teardown(function() -- luacheck: ignore 113
    lfs.rmdir(directory .. "/sub")
    remove()
  end)

  local function status_of(answer)
    return answer:match("^HTTP/1.1 (%d+)")
  end

  local function serving(body, flags)
    return with_server("static_server", function(port)
      local url = ("http://127.0.0.1:%d/"):format(port)
      local function status(options, path)
        return curl(("-o /dev/null -w '%%{http_code}' %s '%s'"):format(options, url .. path))
      end
      body(url, status, port)
    end, { args = { "0", directory }, flags = flags })
  end

  for kind, flags in pairs { epoll = {}, ring = { "-X", "proactor" } } do
    local _, reason = helper.loop_maker(kind)
    it("sends files to curl, on " .. kind, function() -- row: sendfile
      if reason then return pending(reason) end -- luacheck: ignore 113
      serving(function(url, status)
        assert.equal("<p>the index</p>\n", curl(url))
        assert.equal("text\n", curl(url .. "a%20file.txt?query"))
        assert.is_true(curl(url .. "big.bin") == big)
        assert.equal("", curl(url .. "empty.css"))
        local text = url .. "a%20file.txt"
        assert.equal("text\n<p>the index</p>\ntext\n", curl(text .. " " .. url .. " " .. text))
        assert.equal("text\n", curl("--http1.0 " .. url .. "a%20file.txt"))
        local head = curl("-I " .. url .. "big.bin")
        assert.matches("^HTTP/1.1 200 OK\r\n", head)
        assert.matches("Content%-Length: 4800000\r\n", head)
        assert.equal("200", status("-I", "empty.css"))
      end, flags)
    end)
  end

  it("sends ranges", function()
    serving(function(url, status)
      assert.equal("123", curl("-r 1-3 " .. url .. "big.bin"))
      assert.equal("def", curl("-r -3 " .. url .. "big.bin"))
      assert.is_true(curl("-r 100- " .. url .. "big.bin") == big:sub(101))
      assert.matches("Content%-Range: bytes 1%-3/4800000\r\n", curl("-I -r 1-3 " .. url .. "big.bin"))
      assert.equal("206", status("-r 4799999-9999999", "big.bin"))
      assert.equal("416", status("-r 4800000-", "big.bin"))
      assert.equal("416", status("-r 0-", "empty.css"))
      assert.equal("200", status("-H 'Range: lines=1-2'", "big.bin"))
    end)
  end)

  it("keeps its visitors in the directory", function()
    serving(function(_, status, port)
      for _, path in ipairs { "../etc/passwd", "sub/../../x", "%2e%2e/x", "sub/..%2f..%2fx", "..", ".%2e" } do
        assert.equal("403", status("--path-as-is", path), path)
      end
      for path, expected in pairs {
        ["nothing"] = "404", ["sub"] = "404", ["sub/"] = "404", ["a%20file.txt/"] = "404", ["x%00y"] = "400",
        ["%zz"] = "400", ["x%2"] = "400",
      } do
        assert.equal(expected, status("", path), path)
      end
      assert.equal("405", status("--data-binary xyz", ""))
      assert.equal("400", status_of(exchange(port, "nonsense\r\n\r\n")))
      assert.equal("400", status_of(exchange(port, "GET http://x/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")))
      assert.equal("431", status_of(exchange(port, "GET / HTTP/1.1\r\nX: " .. ("x"):rep(9000) .. "\r\n\r\n")))
    end)
  end)

  it("stands clients that leave in the midst", function()
    serving(function(url, _, port)
      helper.with_loop(helper.new_loop, function(loop)
        for _ = 1, 20 do
          local sock = helper.connect(loop, { "127.0.0.1", port })
          helper.send_all(loop, sock, "GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
          aloop.sleep(0.001)
          helper.reset(sock)
        end
      end)
      assert.equal("text\n", curl(url .. "a%20file.txt"))
    end)
  end)
end)

describe("http_server", function()
  local GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
  local LAST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
  local OK = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, World!\n"

  -- How many answers there are, and the status of each.
  local function statuses(answer)
    local list = {}
    for status in answer:gmatch("HTTP/1%.1 (%d+) ") do list[#list + 1] = tonumber(status) end
    return list
  end

  it("answers pipelined requests in order, with one connection", function()
    with_server("http_server", function(port)
      local answer = exchange(port, GET:rep(50) .. "GET /no HTTP/1.1\r\nHost: x\r\n\r\n" .. GET .. LAST)
      local list = statuses(answer)
      assert.equal(53, #list)
      assert.equal(OK:rep(50), answer:sub(1, #OK * 50))
      assert.same({ 404, 200, 200 }, { list[51], list[52], list[53] })
      assert.matches("Connection: close\r\n\r\nHello, World!\n$", answer)
    end)
  end)

  it("answers requests that come byte by byte, and split anywhere", function()
    with_server("http_server", function(port)
      helper.with_loop(helper.new_loop, function(loop)
        local transport, client = loop:create_connection(function() return helper.Recorder(loop) end, "127.0.0.1", port)
        for i = 1, #GET do
          transport:write(GET:sub(i, i))
          aloop.sleep(0)
        end
        assert.equal(OK, client:wait_data(#OK))
        local text = GET .. GET .. GET
        for cut = 1, #text, 7 do
          local before = client.received
          transport:write(text:sub(1, cut))
          aloop.sleep(0.001)
          transport:write(text:sub(cut + 1))
          client:wait_data(before + 3 * #OK)
        end
        assert.equal(#client:text() % #OK, 0)
        transport:close()
        client:wait_lost()
      end)
    end)
  end)

  it("skips bodies, also those that come in parts, and goes on", function()
    with_server("http_server", function(port)
      local body = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab\r\nc"
      assert.same({ 405, 200, 405, 200 }, statuses(exchange(port, body .. GET .. body .. LAST)))
      local large = "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" .. ("GET / "):rep(50000)
      assert.same({ 404, 200 }, statuses(exchange(port, large .. LAST)))
    end)
  end)

  it("keeps HTTP/1.0 connections only when asked to", function()
    with_server("http_server", function(port)
      local answer = exchange(port, "GET / HTTP/1.0\r\n\r\n")
      assert.same({ 200 }, statuses(answer))
      assert.matches("Connection: close", answer)
      answer = exchange(port, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD / HTTP/1.0\r\n\r\n")
      assert.same({ 200, 200 }, statuses(answer))
      assert.matches("Connection: keep%-alive", answer)
      assert.matches("\r\n\r\n$", answer)
    end)
  end)

  it("answers what it can't serve and closes", function()
    with_server("http_server", function(port)
      local field = "X-Long: " .. ("x"):rep(9000) .. "\r\n"
      for request, status in pairs {
        ["GET / HTTP/1.1\r\nHost: x\r\n" .. field .. "\r\n"] = 431,
        ["GET / HTTP/1.1\r\nHost: x\r\n" .. field:sub(1, 8500)] = 431,
        ["nonsense\r\n\r\n"] = 400,
        ["GET / HTTP/1.1\r\n\r\n"] = 400,
        ["GET / HTTP/1.1\r\nHost: x\r\nbad field\r\n\r\n"] = 400,
        ["GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n"] = 400,
        ["GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"] = 411,
        ["GET / HTTP/2.0\r\nHost: x\r\n\r\n"] = 505,
      } do
        assert.same({ status }, statuses(exchange(port, request)))
      end
      assert.same({ 200 }, statuses(exchange(port, "\r\n\r\n" .. LAST)))
    end)
  end)

  it("stands a client that sends without reading, and one that leaves at once", function()
    with_server("http_server", function(port)
      helper.with_loop(helper.new_loop, function(loop)
        local transport = loop:create_connection(function() return {} end, "127.0.0.1", port)
        transport:pause_reading()
        for _ = 1, 2000 do transport:write(GET:rep(50)) end
        for _ = 1, 20 do aloop.sleep(0.001) end
        for _ = 1, 20 do helper.reset(helper.connect(loop, { "127.0.0.1", port })) end
        transport:abort()
        for _ = 1, 3 do aloop.sleep(0) end
      end)
      assert.same({ 200 }, statuses(exchange(port, LAST)))
    end)
  end)

  it("serves a peer that half-closes after its last request", function()
    with_server("http_server", function(port)
      assert.same({ 200, 200 }, statuses(exchange(port, GET .. GET, true)))
    end)
  end)
end)
