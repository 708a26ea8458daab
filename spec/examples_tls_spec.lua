-- The programs of scripts/examples that speak TLS.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local examples = require "spec.support.examples"

local as_task, curl, with_server = helper.as_task, examples.curl, examples.with_server

-- Runs body(reader, writer, loop) with a client over TLS that trusts the authority of the specs.
local function with_tls_client(port, body)
  as_task(function(loop)
    local reader, writer <close> = aloop.open_connection("localhost", port, { ssl = certs.client_context() })
    body(reader, writer, loop)
  end)
end

-- What an example that ends with this code has written: to stdout, to stderr.
local function outcome(name, code, ...)
  local result = examples.start(name, { args = { ... } }):wait()
  assert.equal(code, result.code, result.stderr)
  return result.stdout, result.stderr
end

describe("https_server", function()
  local HELLO = "Hello over TLSv1.3 with TLS_AES_256_GCM_SHA384!\n"

  local function serving(body, flags)
    return with_server("https_server", function(port) body(("https://localhost:%d/"):format(port), port) end,
      { args = { "0", certs.server.cert, certs.server.key }, flags = flags })
  end

  helper.each_loop(function(kind)
    it("answers curl and https_client", function()
      serving(function(url)
        local trusting = "--cacert " .. certs.ca.cert .. " "
        assert.equal(HELLO .. HELLO, curl(trusting .. url .. " " .. url))
        assert.matches("^HTTP/1.1 200 OK\r\n", curl(trusting .. "-I " .. url))
        assert.equal("404 405", curl(trusting .. "-o /dev/null -w '%{http_code}' " .. url .. "no") .. " " ..
          curl(trusting .. "-o /dev/null -w '%{http_code}' --data x " .. url))
        assert.equal("Hello over TLSv1.2 with ECDHE-ECDSA-AES256-GCM-SHA384!\n",
          curl(trusting .. "--tls-max 1.2 " .. url))
        local stdout, stderr = outcome("https_client", 0, url, certs.ca.cert)
        assert.equal(HELLO, stdout)
        assert.equal("200 OK, over TLSv1.3 with TLS_AES_256_GCM_SHA384\n", stderr)
        assert.matches("^404 Not Found", select(2, outcome("https_client", 0, url .. "no", certs.ca.cert)))
      end, examples.flags_of(kind))
    end)
  end)

  it("makes a certificate if there is none", function()
    local server = examples.start("https_server")
    local port, file = server:read_until("^listening on https://127%.0%.0%.1:(%d+) with (.+)$")
    local ok, e = pcall(function()
      assert.equal(HELLO, curl(("--cacert %s https://localhost:%s/"):format(file, port)))
      assert.equal(HELLO, (outcome("https_client", 0, "https://127.0.0.1:" .. port, file)))
    end)
    server:kill("INT")
    assert.equal(130, server:wait().code)
    assert.is_true(ok, e)
    assert.is_nil(io.open(file))
  end)

  it("stands clients that leave, say nonsense, or none of TLS", function()
    serving(function(url, port)
      with_tls_client(port, function(reader, writer)
        writer:write("nonsense\r\n\r\n")
        assert.matches("^HTTP/1.1 400", reader:read())
      end)
      with_tls_client(port, function(reader, writer)
        writer:write("GET / HTTP/1.1\r\n" .. ("X: y\r\n"):rep(10000))
        pcall(reader.read, reader)
      end)
      with_tls_client(port, function(_, writer)
        writer:write("GET / HT")
        writer.transport:abort()
      end)
      examples.exchange(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal(HELLO, curl(("--cacert %s %s"):format(certs.ca.cert, url)))
    end)
  end)
end)

describe("https_client", function()
  -- Serves one connection with f(reader, writer); returns what https_client makes of it.
  local function served(f, code, options)
    options = options or {}
    local stdout, stderr
    as_task(function()
      local server <close> = aloop.start_server(f, "127.0.0.1", 0, { ssl = certs.server_context(options.certificate) })
      local process = aloop.create_subprocess_exec(helper.aloop, examples.DIRECTORY .. "https_client.lua",
        ("https://%s:%d/"):format(options.host or "localhost", helper.address_of(server).port), certs.ca.cert,
        { stdout = aloop.subprocess.PIPE, stderr = aloop.subprocess.PIPE })
      stdout, stderr = process:communicate()
      assert.equal(code, process.returncode, stderr)
    end)
    return stdout, stderr
  end

  local function saying(text, truncate)
    return function(reader, writer)
      reader:readuntil("\r\n\r\n")
      writer:write(text)
      writer:drain()
      if truncate then writer.transport:get_extra_info("socket"):shutdown(aloop.socket.SHUT_WR) end
      writer:close()
    end
  end

  it("takes a body up to the end, if it was meant to be there", function()
    local text = "HTTP/1.1 200 OK\r\n\r\nall of it"
    assert.equal("all of it", (served(saying(text), 0)))
    local stdout, stderr = served(saying(text, true), 1)
    assert.equal("", stdout)
    assert.matches("SSLEOFError: ", stderr)
    assert.matches("IncompleteReadError", select(2, served(saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), 1)))
  end)

  it("refuses who isn't who the URL says", function()
    for name, text in pairs {
      unknown_ca = "unable to get local issuer certificate",
      wrong_host = "Hostname mismatch, certificate is not valid for 'localhost'",
    } do
      local _, stderr = served(saying "HTTP/1.1 200 OK\r\n\r\n", 1, { certificate = name })
      assert.truthy(stderr:find(text, 1, true), stderr)
    end
  end)

  it("tells how it is used", function()
    assert.matches("usage: ", select(2, outcome("https_client", 1, "http://localhost/")))
  end)
end)

describe("starttls_server", function()
  -- body(say, reader, writer): say(line) → the last line of the answer
  local function with_mail_client(body)
    return with_server("starttls_server", function(port)
      examples.with_client(port, function(reader, writer)
        local function answer()
          local line
          repeat line = reader:readline() until not line or line:find("^%d+ ")
          return line and line:gsub("\r\n", "")
        end
        assert.equal("220 localhost ESMTP", answer())
        body(function(line)
          writer:write(line .. "\r\n")
          return answer()
        end, reader, writer)
      end)
    end, { args = { "0", certs.server.cert, certs.server.key } })
  end

  it("takes a message after STARTTLS", function()
    local result = with_mail_client(function(say, _, writer)
      assert.equal("250 STARTTLS", say "EHLO me")
      assert.equal("530 must issue a STARTTLS command first", say "MAIL FROM:<a@example.org>")
      assert.equal("220 go ahead", say "starttls")
      writer:start_tls(certs.client_context(), { server_hostname = "localhost" })
      assert.equal("TLSv1.3", writer:get_extra_info("ssl_object"):version())
      assert.equal("250 localhost", say "EHLO me")
      assert.equal("503 RCPT comes first", say "DATA")
      assert.equal("250 OK", say "MAIL FROM:<a@example.org>")
      assert.equal("250 OK", say "RCPT TO:<b@example.org>")
      assert.equal("354 end it with a line of one dot", say "DATA")
      assert.equal("250 OK", say "Subject: x\r\n\r\n..text\r\n.")
      assert.equal("503 this is TLS already", say "STARTTLS")
      assert.equal("500 unknown command", say "NONSENSE")
      assert.equal("221 bye", say "QUIT")
    end)
    assert.matches('from a@example.org to b@example.org: "Subject: x\\\n\\\n.text"', result.stdout, 1, true)
  end)

  it("takes no command that came before TLS for one under it", function()
    with_server("starttls_server", function(port, server)
      as_task(function(loop)
        local sock = helper.connect(loop, { "127.0.0.1", port })
        helper.send_all(loop, sock, "STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
        local said = "220 localhost ESMTP\r\n220 go ahead\r\n"
        assert.equal(said, helper.recv_exactly(loop, sock, #said))
        server:read_until("SSLError")
        sock:close()
      end)
    end, { args = { "0", certs.server.cert, certs.server.key } })
  end)

  it("is sent mail by curl", function()
    local result = with_server("starttls_server", function(port)
      local message = helper.write_file "Subject: from curl\r\n\r\n.hidden\r\n"
      local letter = "--mail-from a@example.org --mail-rcpt b@example.org -T " .. message
      curl(("--ssl-reqd --cacert %s %s smtp://localhost:%d"):format(certs.ca.cert, letter, port))
      os.remove(message)
    end, { args = { "0", certs.server.cert, certs.server.key } })
    assert.matches('from a@example.org to b@example.org: "Subject: from curl\\\n\\\n.hidden"', result.stdout, 1, true)
  end)

  it("is spoken to by openssl s_client", function()
    with_server("starttls_server", function(port)
      local result = helper.run_program({ "openssl", "s_client", "-starttls", "smtp", "-crlf", "-ign_eof", "-brief",
        "-verify_return_error", "-CAfile", certs.ca.cert, "-verify_hostname", "localhost", "-connect",
        "127.0.0.1:" .. port }, { stdin = "EHLO me\nQUIT\n", merge = true })
      assert.matches("Verification: OK", result.stdout)
      assert.matches("250 localhost\r?\n221 bye", result.stdout)
    end, { args = { "0", certs.server.cert, certs.server.key } })
  end)
end)

describe("tls_proxy", function()
  local function with_proxy(body) examples.with_proxy("tls_proxy", body, certs.server.cert, certs.server.key) end

  local function connect(port)
    return aloop.open_connection("localhost", port, { ssl = certs.client_context() })
  end

  -- Ends the connections on both sides of the proxy, at once.
  local function sever(writer, sock)
    sock:close()
    writer.transport:abort()
    helper.turns(3)
  end

  it("carries both ways, and the end", function()
    with_proxy(function(loop, port, listener)
      local reader, writer = connect(port)
      local sock = helper.accept(loop, listener)
      writer:write("question")
      assert.equal("question", helper.recv_exactly(loop, sock, 8))
      local block = ("more"):rep(100000)
      helper.send_all(loop, sock, block)
      sock:close()
      assert.equal(#block, #reader:read()) -- and not cut off
      writer:close()
      local _, second = connect(port)
      sock = helper.accept(loop, listener)
      second:write(block)
      second:close()
      assert.is_true(helper.recv_all(loop, sock) == block)
      sock:close()
      second:wait_closed()
    end)
  end)

  it("makes a sender wait for a receiver that doesn't read, on either side", function()
    with_proxy(function(loop, port, listener)
      local _, writer = connect(port)
      local sock = helper.accept(loop, listener)
      examples.check_sender_waits(function(block)
        writer:write(block)
        writer:drain()
      end, function(n) return helper.recv_exactly(loop, sock, n) end)
      sever(writer, sock)
      local reader
      reader, writer = connect(port)
      sock = helper.accept(loop, listener)
      examples.check_sender_waits(function(block) helper.send_all(loop, sock, block) end,
        function(n) return reader:readexactly(n) end)
      sever(writer, sock)
    end)
  end)

  it("closes a client whose target isn't there", function()
    with_proxy(function(_, port, listener, proxy)
      listener:close()
      local reader, writer = connect(port)
      assert.is_nil(reader:read(1))
      writer:close()
      proxy:read_until("ConnectionRefusedError")
    end)
  end)

  it("tells its target of no end that the client didn't mean", function()
    with_proxy(function(loop, port, listener, proxy)
      local _, writer = connect(port)
      local sock = helper.accept(loop, listener)
      writer:write("half of")
      assert.equal("half of", helper.recv_exactly(loop, sock, 7))
      writer.transport:get_extra_info("socket"):shutdown(aloop.socket.SHUT_WR)
      proxy:read_until("SSLEOFError")
      sever(writer, sock)
    end)
  end)
end)

describe("mutual_tls", function()
  it("lets in who is known", function()
    assert.equal("a friend: Hello friend.example, you said good day\na stranger: TLSV1_ALERT_UNKNOWN_CA\n"
      .. "nobody: TLSV13_ALERT_CERTIFICATE_REQUIRED\n", examples.output_of("mutual_tls"))
  end)
end)

describe("the TLS examples that need a certificate", function()
  it("tell how one is made", function()
    for _, name in ipairs { "starttls_server", "tls_proxy" } do
      local _, stderr = outcome(name, 1)
      assert.matches("openssl req %-x509", stderr)
    end
  end)
end)
