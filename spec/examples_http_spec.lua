-- The programs of scripts/examples that speak HTTP.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local helper = require "spec.helper"
local examples = require "spec.support.examples"

local as_task = helper.as_task
local curl, exchange, with_server = examples.curl, examples.exchange, examples.with_server

describe("static_server", function()
  local directory, remove, big

  setup(function() -- luacheck: ignore 113
    big = ("0123456789abcdef"):rep(300000)
    directory, remove = helper.temporary_directory {
      ["index.html"] = "<p>the index</p>\n", ["a file.txt"] = "text\n", ["big.bin"] = big, ["empty.css"] = "",
    }
    lfs.mkdir(directory .. "/sub")
  end)

  teardown(function() remove() end) -- luacheck: ignore 113

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

  helper.each_loop(function(kind)
    it("sends files to curl", function() -- row: sendfile
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
      end, examples.flags_of(kind))
    end)
  end)

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
      as_task(function(loop)
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

  helper.each_loop(function(kind)
    it("answers curl", function()
      with_server("http_server", function(port)
        local url = ("http://127.0.0.1:%d/"):format(port)
        assert.equal("Hello, World!\n", curl(url))
        assert.equal("Hello, World!\nHello, World!\n", curl(url .. " " .. url))
        assert.matches("^HTTP/1.1 200 OK\r\n", curl("-I " .. url))
        assert.equal("404", curl("-o /dev/null -w '%{http_code}' " .. url .. "nothing"))
        assert.equal("405", curl("-o /dev/null -w '%{http_code}' --data-binary xyz " .. url))
        assert.equal("Hello, World!\n", curl("--http1.0 " .. url))
      end, { flags = examples.flags_of(kind) })
    end)
  end)

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
      as_task(function(loop)
        local transport, client = loop:create_connection(helper.always(helper.Recorder(loop)), "127.0.0.1", port)
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
      as_task(function(loop)
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
