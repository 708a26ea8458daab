-- The programs of scripts/examples, run as their first lines say, with real clients. Those on streams and those that
-- speak HTTP have specs of their own, examples_*_spec.lua.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local helper = require "spec.helper"
local examples = require "spec.support.examples"

local as_task = helper.as_task
local start, output_of, with_server = examples.start, examples.output_of, examples.with_server

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

  helper.each_loop(function(kind)
    it("echo_server echoes", function()
      with_server("echo_server", function(port)
        local data = ("0123456789abcdef"):rep(20000)
        as_task(function(loop)
          local client = helper.Recorder(loop)
          local transport = loop:create_connection(helper.always(client), "127.0.0.1", port)
          transport:write(data)
          assert.is_true(client:wait_data(#data) == data)
          transport:close()
          client:wait_lost()
        end)
        assert.equal("one\ntwo\n", output_of("echo_client", { args = { tostring(port) }, stdin = "one\ntwo\n" }))
      end, { flags = examples.flags_of(kind) })
    end)
  end)

  it("echo_client fails when no one listens", function()
    local port = tostring(helper.vacant_address()[2])
    local result = start("echo_client", { args = { port }, stdin = "x\n" }):wait()
    assert.equal(1, result.code)
    assert.matches("ConnectionRefusedError", result.stderr)
  end)

  it("chat_server tells each line to the others", function()
    with_server("chat_server", function(port)
      as_task(function(loop)
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
    local port = examples.port_of(server)
    as_task(function(loop)
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
    local port = examples.port_of(server)
    as_task(function(loop)
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
    as_task(function(loop)
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
    local text = ""
    for name in lfs.dir("spec") do
      if name:find("^examples_.*spec%.lua$") then text = text .. helper.read_file("spec/" .. name) end
    end
    for name in lfs.dir(examples.DIRECTORY) do
      local script = name:match("^(.*)%.lua$")
      if script then assert.is_not_nil(text:find(script, 1, true), script) end
    end
  end)

  it("every one says what it shows and how to run it", function()
    for name in lfs.dir(examples.DIRECTORY) do
      if name:find("%.lua$") then
        local head = helper.read_file(examples.DIRECTORY .. name):match("^(.-)SPDX")
        assert.matches("^%-%- Shows ", head)
        assert.is_not_nil(head:find("Run: aloop", 1, true), name)
      end
    end
  end)
end)
