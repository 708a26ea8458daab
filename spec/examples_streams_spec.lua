-- The programs of scripts/examples that stand on streams.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local helper = require "spec.helper"
local examples = require "spec.support.examples"

local as_task = helper.as_task
local output_of, with_server = examples.output_of, examples.with_server
local is_there, with_client = examples.is_there, examples.with_client

-- What redis-cli says to a port: its commands are lines.
local function redis_cli(port, commands)
  local result = helper.run_program({ "redis-cli", "-h", "127.0.0.1", "-p", tostring(port) },
    { stdin = table.concat(commands, "\n") .. "\n" })
  assert.equal(0, result.code, result.stderr)
  return result.stdout
end

describe("example", function()
  it("socket_streams prints what it received", function() -- row: example.socket_streams
    assert.equal("Received: abc\n", output_of("socket_streams"))
  end)

  it("server_async_with serves inside of its block only", function() -- row: example.server_async_with
    assert.equal("Hello from inside the block\nClosed behind it\n", output_of("server_async_with"))
  end)

  it("serve_forever hears its clients until it is cancelled", function() -- row: example.serve_forever
    local result = with_server("serve_forever", function(port, server)
      for _, line in ipairs { "first", "second" } do
        with_client(port, function(reader, writer)
          writer:write(line .. "\n")
          assert.is_nil(reader:read(1))
        end)
        server:read_until("A client says: " .. line)
      end
    end)
    assert.matches("KeyboardInterrupt", result.stderr)
  end)

  it("stream_echo_server and stream_echo_client talk to each other", function()
    local result = with_server("stream_echo_server", function(port)
      assert.equal('Send: "one"\nReceived: "one"\nSend: "two words"\nReceived: "two words"\nClose the connection\n',
        output_of("stream_echo_client", { args = { tostring(port), "one", "two words" } }))
      with_client(port, function(reader, writer, loop)
        local block = ("0123456789\n"):rep(20000)
        local sending = loop:create_task(function()
          for _ = 1, 10 do
            writer:write(block)
            writer:drain()
          end
          writer:write_eof()
        end)
        assert.equal(10 * #block, #reader:read())
        sending:await()
      end)
    end)
    assert.matches("Close the connection of 127", result.stdout)
  end)

  it("stream_chat_server tells each line to the others", function()
    with_server("stream_chat_server", function(port)
      as_task(function()
        local readers, writers = {}, {}
        for i, name in ipairs { "ann", "bob", "cid" } do
          readers[i], writers[i] = aloop.open_connection("127.0.0.1", port)
          assert.equal("Your name?\n", readers[i]:readline())
          writers[i]:write("\r\n" .. name .. "\r\n")
          assert.equal("Welcome, " .. name .. "\n", readers[i]:readline())
          for j = 1, i - 1 do assert.equal("* " .. name .. " has come\n", readers[j]:readline()) end
        end
        writers[1]:write("hello ")
        writers[1]:write("all\nsecond")
        writers[1]:write("\n")
        for i = 2, 3 do
          assert.equal("ann: hello all\n", readers[i]:readline())
          assert.equal("ann: second\n", readers[i]:readline())
        end
        writers[2]:close()
        for _, i in ipairs { 1, 3 } do assert.equal("* bob has gone\n", readers[i]:readline()) end
        writers[3]:write(("x"):rep(5000))
        assert.equal("* cid has gone\n", readers[1]:readline())
        assert.equal("Too long a line\n", select(2, pcall(readers[3].readline, readers[3])))
        writers[1]:close()
        writers[3]:close()
      end)
    end)
  end)

  describe("tcp_proxy", function()
    local function with_proxy(body) examples.with_proxy("tcp_proxy", body) end

    it("carries both ways, and each half's end", function()
      with_proxy(function(loop, port, listener)
        local reader, writer = aloop.open_connection("127.0.0.1", port)
        local sock = helper.accept(loop, listener)
        writer:write("question")
        assert.equal("question", helper.recv_exactly(loop, sock, 8))
        helper.send_all(loop, sock, "answer")
        assert.equal("answer", reader:readexactly(6))
        writer:write_eof()
        assert.is_nil(helper.recv(loop, sock))
        helper.send_all(loop, sock, ("more"):rep(100000))
        sock:close()
        assert.equal(400000, #reader:read())
        writer:close()
      end)
    end)

    it("makes a sender wait for a receiver that doesn't read", function()
      with_proxy(function(loop, port, listener)
        local _, writer = aloop.open_connection("127.0.0.1", port)
        local sock = helper.accept(loop, listener)
        examples.check_sender_waits(function(block)
          writer:write(block)
          writer:drain()
        end, function(n) return helper.recv_exactly(loop, sock, n) end)
        writer.transport:abort()
        sock:close()
      end)
    end)

    it("closes a client whose target isn't there", function()
      with_proxy(function(_, port, listener, proxy)
        listener:close()
        local reader, writer = aloop.open_connection("127.0.0.1", port)
        assert.is_nil(reader:read(1))
        writer:close()
        proxy:read_until("ConnectionRefusedError")
      end)
    end)
  end)
end)

describe("redis_server", function()
  local function command(...)
    local words = { ... }
    for i, word in ipairs(words) do words[i] = ("$%d\r\n%s\r\n"):format(#word, word) end
    return ("*%d\r\n%s"):format(#words, table.concat(words))
  end

  it("answers commands, many at once and byte by byte", function()
    with_server("redis_server", function(port)
      with_client(port, function(reader, writer)
        local text = command("SET", "k", "a\r\nb") .. command("GET", "k") .. command("GET", "none") .. "PING\r\n\r\n"
          .. command("incr", "n") .. command("INCR", "k") .. command("DEL", "k", "n", "x") .. command("NONSENSE")
          .. command("MGET", "k", "n") .. command("SET", "k")
        local answer = "+OK\r\n$4\r\na\r\nb\r\n$-1\r\n+PONG\r\n:1\r\n"
          .. "-ERR value is not an integer or out of range\r\n:2\r\n-ERR unknown command 'NONSENSE'\r\n"
          .. "*2\r\n$-1\r\n$-1\r\n-ERR wrong number of arguments for 'set' command\r\n"
        writer:write(text)
        assert.equal(answer, reader:readexactly(#answer))
        for byte in text:gmatch(".") do
          writer:write(byte)
          writer:drain()
        end
        assert.equal(answer, reader:readexactly(#answer))
        local large = ("large"):rep(100000)
        writer:write(command("SET", "l", large) .. command("GET", "l") .. command("QUIT"))
        assert.equal("+OK\r\n$500000\r\n" .. large .. "\r\n+OK\r\n", reader:read())
      end)
      for _, bad in ipairs { "*1\r\n:5\r\n", "*1\r\n$999999999999\r\n" } do
        with_client(port, function(reader, writer)
          writer:write(bad)
          assert.matches("^%-ERR Protocol error", reader:read())
        end)
      end
    end)
  end)

  it("is a Redis to redis-cli", function()
    if not is_there "redis-cli" then return pending "redis-cli is not installed" end
    with_server("redis_server", function(port)
      assert.equal("PONG\nOK\nhello world\n1\n\nERR unknown command 'NO'\n\n",
        redis_cli(port, { "PING", 'SET greeting "hello world"', "GET greeting", "INCR n", "GET nothing", "NO" }))
      assert.equal("greeting\nn\n", (function()
        local keys = {}
        for key in redis_cli(port, { "KEYS *" }):gmatch("%S+") do keys[#keys + 1] = key .. "\n" end
        table.sort(keys)
        return table.concat(keys)
      end)())
    end)
  end)

  it("is a Redis to redis-benchmark", function()
    if not is_there "redis-benchmark" then return pending "redis-benchmark is not installed" end
    with_server("redis_server", function(port)
      local result = helper.run_program { "redis-benchmark", "-p", tostring(port), "-t", "set,get", "-n", "5000",
        "-c", "10", "-P", "16", "-q" }
      assert.equal(0, result.code, result.stdout .. result.stderr)
      assert.matches("SET: [%d.]+ requests per second", result.stdout)
      assert.matches("GET: [%d.]+ requests per second", result.stdout)
    end)
  end)
end)

describe("redis_client", function()
  local expected = table.concat({
    "PING: PONG", "SET: OK", 'GET: "hello\\13\\', 'world"', "GET of nothing: nil", "the last of 1000 INCR: 1000",
    "INCR of a text: RedisError: ERR value is not an integer or out of range", "EXISTS: 2",
    "MGET: hello world, 1000", "",
  }, "\n")

  it("talks to redis_server", function()
    with_server("redis_server", function(port)
      assert.equal(expected, output_of("redis_client", { args = { tostring(port) } }))
    end)
  end)

  it("talks to a real redis-server", function()
    if not is_there "redis-server" then return pending "redis-server is not installed" end
    local directory, remove = helper.temporary_directory()
    local port = tostring(helper.vacant_address()[2]) -- redis-server can't be asked for any that is free
    local server = helper.start_program { "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir",
      directory, "--daemonize", "no" }
    server:read_until("Ready to accept connections")
    local ok, result = pcall(output_of, "redis_client", { args = { port } })
    server:kill("TERM")
    server:wait()
    remove()
    assert.is_true(ok, result)
    assert.equal(expected, result)
  end)
end)
