-- TLS with other people's programs at the other end: curl, GnuTLS's, nginx. Those of OpenSSL, on which aloop's own TLS
-- stands, are in tls_openssl_spec.lua.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local lfs = require "lfs"
local certs = require "spec.support.certs"
local examples = require "spec.support.examples"
local helper = require "spec.helper"
local talkers = require "spec.support.talkers"
local raises = helper.raises
local ssl = aloop.ssl

local BIG = ("0123456789abcdef"):rep(10 * 65536) -- 10 MiB

-- A client's context that has one to show.
local function known_client()
  local context = certs.client_context()
  context:load_cert_chain(certs.client.cert, certs.client.key)
  return context
end

-- ---- a little HTTP --------------------------------------------------------------------------------------------------

-- Answers requests by BIG for /big, else by what is told of the connection and of the request's body, whose length it
-- says. objects gets the SSLObject of each connection.
local function web(objects)
  return function(reader, writer)
    local _ <close> = aloop.defer(writer.close, writer)
    local object = writer:get_extra_info "ssl_object"
    objects[#objects + 1] = object
    while true do
      local ok, head = aloop.try(reader.readuntil, reader, "\r\n\r\n")
      if not ok then break end
      local length = head:lower():match "content%-length: (%d+)"
      local body = length and reader:readexactly(math.tointeger(length)) or ""
      local answer = head:find "^GET /big" and BIG
        or ("%s %s %d"):format(object:version(), object:selected_alpn_protocol(), #body)
      writer:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#answer))
      writer:write(answer)
      writer:drain()
    end
  end
end

-- Status and body of a GET. fields: instead of the usual one.
local function get(reader, writer, path, fields)
  writer:write(("GET %s HTTP/1.1\r\n%s\r\n"):format(path, fields or "Host: localhost\r\n"))
  local head = reader:readuntil "\r\n\r\n"
  local length = head:lower():match "content%-length: (%d+)"
  return head:match " (%d+)", length and reader:readexactly(math.tointeger(length)) or reader:read()
end

-- ---- programs -------------------------------------------------------------------------------------------------------

-- As `it`, but pending where there is no such program.
local function it_with(program, name, body)
  it(name, function()
    if not examples.is_there(program) then return pending(program .. " is not installed") end
    body()
  end)
end

-- Code and output of curl.
local function curl(...)
  return talkers.run { "curl", "-sS", "--noproxy", "*", "--max-time", "20", ... }
end

local function gnutls_cli(port, ...)
  local argv = { "gnutls-cli", "--x509cafile", certs.ca.cert, "--sni-hostname", "localhost", "--verify-hostname",
    "localhost", "-p", tostring(port), ... }
  argv[#argv + 1] = "127.0.0.1"
  return talkers.start(argv)
end

local GNUTLS_ONLY = "NORMAL:-VERS-ALL:+VERS-"

-- nginx with this text in its http block ($DIR: its directory, where its sockets are, too).
local function nginx(directory, http)
  local file = directory .. "/nginx.conf"
  local temporary = ""
  for _, what in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
    temporary = temporary .. ("%s_temp_path %s/%s;\n"):format(what, directory, what)
  end
  local text = [[
    daemon off; master_process off; pid $DIR/pid; error_log stderr warn;
    events { worker_connections 64; }
    http { access_log off; ]] .. temporary .. http .. "}\n"
  local out <close> = assert(io.open(file, "w"))
  out:write((text:gsub("%$DIR", directory)))
  out:close()
  local server = talkers.start { "nginx", "-p", directory, "-c", file, "-e", "stderr" }
  local pid, deadline = directory .. "/pid", os.time() + 10 -- written when its sockets listen
  while not lfs.attributes(pid) and os.time() < deadline do aloop.sleep(0.01) end
  return server
end

local function in_directory(body)
  local directory = helper.temporary_directory()
  local _ <close> = aloop.defer(function() os.execute("rm -rf " .. helper.quote(directory)) end)
  body(directory)
end

helper.each_loop(function(kind, new_loop)
  if kind ~= "epoll" and kind ~= "ring" then return end
  local function with_loop(body) helper.with_loop(new_loop, body) end

  describe("curl", function()
    -- body(url, objects, port)
    local function serving(context, body)
      with_loop(function()
        local objects = {}
        local server <close> = aloop.start_server(web(objects), "127.0.0.1", 0, { ssl = context })
        local port = helper.address_of(server).port
        body(("https://localhost:%d/"):format(port), objects, port)
      end)
    end

    it_with("curl", "gets and sends", function()
      local context = certs.server_context()
      context:set_alpn_protocols { "http/1.1" }
      serving(context, function(url)
        local code, text = curl("--cacert", certs.ca.cert, url, url)
        assert.same({ 0, ("TLSv1.3 http/1.1 0"):rep(2) }, { code, text })
        code, text = curl("--cacert", certs.ca.cert, "--tls-max", "1.2", url)
        assert.same({ 0, "TLSv1.2 http/1.1 0" }, { code, text })
        code, text = curl("--cacert", certs.ca.cert, url .. "big")
        assert.is_true(code == 0 and text == BIG)
        local file = certs.write("big", BIG)
        code, text = curl("--cacert", certs.ca.cert, "-H", "Expect:", "--data-binary", "@" .. file, url)
        assert.same({ 0, "TLSv1.3 http/1.1 10485760" }, { code, text })
      end)
    end)

    it_with("curl", "refuses the wrong host and whom it doesn't know", function()
      serving(certs.server_context(), function(url, objects, port)
        local code, text = curl(url)
        assert.equal(60, code, text)
        assert.equal(0, #objects)
        code, text = curl("--cacert", certs.ca.cert, "--resolve", "wrong.example:" .. port .. ":127.0.0.1",
          ("https://wrong.example:%d/"):format(port))
        assert.equal(60, code, text)
        assert.matches("no alternative certificate subject name matches", text)
        code, text = curl("--cacert", certs.ca.cert, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url)
        assert.equal(35, code, text)
      end)
    end)

    it_with("curl", "shows its certificate", function()
      serving(certs.mutual_context(), function(url, objects)
        local code, text = curl("--cacert", certs.ca.cert, "--cert", certs.client.cert, "--key", certs.client.key, url)
        assert.same({ 0, "TLSv1.3 nil 0" }, { code, text })
        assert.equal("a client", objects[1]:getpeercert().subject[2][2])
        code, text = curl("--cacert", certs.ca.cert, url)
        assert.equal(56, code, text)
        assert.matches("certificate required", text)
      end)
    end)

    it_with("curl", "is told when there is TLS on one side only", function()
      serving(certs.server_context(), function(url, objects, port)
        local code = curl(("http://127.0.0.1:%d/"):format(port))
        assert.is_true(code == 52 or code == 56 or code == 1, code) -- nothing, a reset, or an alert that is no HTTP
        assert.equal(0, #objects)
        assert.equal(0, (curl("--cacert", certs.ca.cert, url)))
      end)
      with_loop(function()
        local server <close> = aloop.start_server(function(reader, writer)
          reader:read(1)
          writer:write "HTTP/1.0 400 Bad Request\r\n\r\n"
          writer:close()
        end, "127.0.0.1", 0)
        local port = helper.address_of(server).port
        assert.equal(35, (curl(("https://127.0.0.1:%d/"):format(port))))
        raises(ssl.SSLError, "[SSL: WRONG_VERSION_NUMBER] wrong version number", talkers.connect, port,
          certs.client_context())
      end)
    end)
  end)

  describe("gnutls-cli", function()
    -- body(port, next_one, loop) with an echo server
    local function serving(context, body)
      with_loop(function(loop)
        talkers.serve(loop, context, function(port, next_one) body(port, next_one, loop) end)
      end)
    end

    for _, version in ipairs { "1.2", "1.3" } do
      it_with("gnutls-cli", "speaks TLS " .. version, function()
        local context = certs.server_context()
        context:set_alpn_protocols { "echo" }
        serving(context, function(port, next_one, loop)
          local relay, _ <close> = talkers.bytewise(loop, port)
          for _, through in ipairs { port, relay } do
            local client <close> = gnutls_cli(through, "--priority", GNUTLS_ONLY .. "TLS" .. version, "--alpn", "echo")
            client:expect "The certificate is trusted"
            client:expect "Application protocol: echo"
            client:expect "Simple Client Mode"
            local echo = next_one()
            assert.equal("TLSv" .. version, echo.object:version())
            client:say "hello\n"
            client:expect "hello\n"
            client.process.stdin:close()
            assert.is_nil(echo:wait_lost())
            assert.equal(0, client:wait())
          end
        end)
      end)

      it_with("gnutls-cli", "takes up a session of TLS " .. version, function()
        serving(certs.server_context(), function(port, next_one)
          local client <close> = gnutls_cli(port, "-r", "--waitresumption", "--priority",
            GNUTLS_ONLY .. "TLS" .. version)
          client:expect "This is a resumed session"
          client:say "hello\n"
          client:expect "hello\n"
          assert.is_false(next_one().object.session_reused)
          assert.is_true(next_one().object.session_reused)
        end)
      end)
    end

    it_with("gnutls-cli", "shows its certificate, or is refused", function()
      serving(certs.mutual_context(), function(port, next_one)
        local client <close> = gnutls_cli(port, "--x509certfile", certs.client.cert, "--x509keyfile", certs.client.key)
        assert.equal("a client", next_one().object:getpeercert().subject[2][2])
        client.process.stdin:close()
        local nobody <close> = gnutls_cli(port)
        nobody:expect "Certificate is required"
      end)
    end)

    it_with("gnutls-cli", "is refused another handshake", function()
      serving(certs.server_context(), function(port, next_one)
        local client <close> = gnutls_cli(port, "-e", "--priority", GNUTLS_ONLY .. "TLS1.2")
        client:expect "No renegotiation is allowed"
        client.process:kill()
        next_one():wait_lost()
      end)
    end)

    it_with("gnutls-cli", "refuses who isn't who it wants", function()
      serving(certs.server_context "wrong_host", function(port)
        local client <close> = gnutls_cli(port)
        client:expect "The name in the certificate does not match"
        assert.equal(1, client:wait())
      end)
    end)
  end)

  describe("nginx", function()
    local function quoted(one)
      return ("ssl_certificate %s; ssl_certificate_key %s;"):format(certs[one].cert, certs[one].key)
    end

    -- Connects to a socket of nginx's.
    local function connect(directory, context, options)
      local all = { ssl = context or certs.client_context(), server_hostname = "localhost" }
      for key, value in pairs(options or {}) do all[key] = value end
      return aloop.open_unix_connection(directory .. "/tls", all)
    end

    it_with("nginx", "serves over TLS", function()
      with_loop(function()
        in_directory(function(directory)
          local out = io.open(directory .. "/big", "wb")
          out:write(BIG)
          out:close()
          local _ <close> = nginx(directory, [[
            ssl_session_cache shared:one:1m; ssl_protocols TLSv1.2 TLSv1.3;
            server {
              listen unix:$DIR/tls ssl; server_name localhost; root $DIR;
              ]] .. quoted "server" .. [[ ssl_client_certificate ]] .. certs.ca.cert .. [[; ssl_verify_client optional;
              location = / { return 200 "$ssl_protocol $ssl_server_name $ssl_client_verify $ssl_session_reused"; }
            }
            server { listen unix:$DIR/tls ssl; server_name second.example; ]] .. quoted "second" .. [[
              location = / { return 200 "second"; } }
          ]])
          local context, session = certs.client_context(), nil
          context:set_alpn_protocols { "h2", "http/1.1" }
          for i = 1, 2 do
            local reader, writer = connect(directory, context, { session = session })
            local status, body = get(reader, writer, "/")
            assert.same({ "200", "TLSv1.3 localhost NONE " .. (i == 1 and "." or "r") }, { status, body })
            local object = writer:get_extra_info "ssl_object"
            assert.equal("http/1.1", object:selected_alpn_protocol())
            assert.equal(i > 1, object.session_reused)
            session = object.session
            status, body = get(reader, writer, "/big", "Host: localhost\r\nConnection: close\r\n")
            assert.is_true(status == "200" and body == BIG)
            assert.is_nil(reader:read(1)) -- an end in order
            writer:close()
            writer:wait_closed()
          end
          local old = known_client()
          old.maximum_version = ssl.TLSVersion.TLSv1_2
          local reader, writer = connect(directory, old)
          assert.equal("TLSv1.2 localhost SUCCESS .", select(2, get(reader, writer, "/")))
          writer:close()
          reader, writer = connect(directory, nil, { server_hostname = "second.example" })
          assert.equal("second", select(2, get(reader, writer, "/", "Host: second.example\r\n")))
          writer:close()
          raises(ssl.SSLCertVerificationError, "Hostname mismatch", connect, directory, nil,
            { server_hostname = "third.example" })
        end)
      end)
    end)

    it_with("nginx", "is a client of aloop's", function()
      with_loop(function()
        in_directory(function(directory)
          local objects, context = {}, certs.mutual_context()
          local server <close> = aloop.start_unix_server(web(objects), directory .. "/aloop", { ssl = context })
          local _ <close> = nginx(directory, [[
            server {
              listen unix:$DIR/plain;
              proxy_ssl_verify on; proxy_ssl_trusted_certificate ]] .. certs.ca.cert .. [[; proxy_ssl_server_name on;
              proxy_ssl_certificate ]] .. certs.client.cert .. "; proxy_ssl_certificate_key " .. certs.client.key .. [[;
              proxy_http_version 1.1; client_max_body_size 20m;
              location / { proxy_ssl_name localhost; proxy_pass https://unix:$DIR/aloop:; }
              location /wrong { proxy_ssl_name wrong.example; proxy_pass https://unix:$DIR/aloop:; }
            }
          ]])
          local reader, writer = aloop.open_unix_connection(directory .. "/plain")
          for i = 1, 2 do
            local status, body = get(reader, writer, "/")
            assert.same({ "200", "TLSv1.2 nil 0" }, { status, body }) -- nginx's own choice, unless it is told more
            assert.equal(i > 1, objects[i].session_reused)
            assert.equal("a client", objects[i]:getpeercert().subject[2][2])
          end
          local status, body = get(reader, writer, "/big")
          assert.is_true(status == "200" and body == BIG)
          writer:write(("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"):format(#BIG))
          writer:write(BIG)
          assert.matches("^HTTP/1.1 200", reader:readuntil "\r\n\r\n")
          assert.equal("TLSv1.2 nil 10485760", reader:readexactly(20))
          assert.equal("502", (get(reader, writer, "/wrong")))
          writer:close()
          server:close()
        end)
      end)
    end)
  end)
end)
