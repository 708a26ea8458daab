-- TLS with the programs of OpenSSL at the other end: `openssl s_client` talks to aloop's server, aloop's client to
-- `openssl s_server`.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local talkers = require "spec.support.talkers"
local raises = helper.raises
local ssl = aloop.ssl

local VERSIONS = { ["TLSv1.2"] = "-tls1_2", ["TLSv1.3"] = "-tls1_3" }

-- s_client for the port; more arguments follow. It verifies, as aloop does by default.
local function s_client(port, ...)
  return talkers.start { "openssl", "s_client", "-connect", "127.0.0.1:" .. port, "-CAfile", certs.ca.cert,
    "-verify_hostname", "localhost", "-verify_return_error", ... }
end

-- s_server with these arguments, and the port that it listens on.
local function s_server(...)
  local server = talkers.start { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certs.server.cert, "-key",
    certs.server.key, ... }
  return server, tonumber((server:expect "ACCEPT 127.0.0.1:(%d+)"))
end

-- Sends a line and reads it, as an echo or (of s_server -rev) reversed.
local function ask(reader, writer, line, answer)
  writer:write(line .. "\n")
  assert.equal((answer or line) .. "\n", reader:readline())
end

helper.each_loop(function(kind, new_loop)
  if kind ~= "epoll" and kind ~= "ring" then return end

  -- body(port, next_one, loop) with the echo server of aloop.
  local function serving(context, body)
    helper.with_loop(new_loop, function(loop)
      talkers.serve(loop, context, function(port, next_one) body(port, next_one, loop) end)
    end)
  end

  -- body(server, connect, loop) with s_server; connect(context, options) → reader, writer
  local function served(arguments, body)
    helper.with_loop(new_loop, function(loop)
      local server <close>, port = s_server(table.unpack(arguments))
      body(server, function(context, options)
        return talkers.connect(port, context or certs.client_context(), options)
      end, loop)
    end)
  end

  describe("openssl s_client", function()
    for version, flag in pairs(VERSIONS) do
      it("speaks " .. version .. " and ends in order", function()
        serving(certs.server_context(), function(port, next_one)
          local client <close> = s_client(port, flag)
          client:expect "Verification: OK"
          local echo = next_one()
          client:say "hello\n"
          client:expect "hello\n"
          assert.equal(version, echo.object:version())
          client:say "Q\n"
          assert.is_nil(echo:wait_lost())
          assert.equal(1, echo:count "eof")
          assert.equal(0, client:wait())
        end)
      end)

      it("takes up a session of " .. version, function()
        local file = certs.dir .. "/" .. version .. ".session"
        serving(certs.server_context(), function(port, next_one)
          for _, how in ipairs { { "-sess_out", "New" }, { "-sess_in", "Reused" } } do
            local client <close> = s_client(port, flag, how[1], file)
            client:expect(how[2] .. ", " .. version:gsub("%p", "%%%0"))
            local echo = next_one()
            client:say "hello\n" -- tickets of TLS 1.3 come after the handshake
            client:expect "hello\n"
            client:say "Q\n"
            client:wait()
            assert.equal(how[2] == "Reused", echo.object.session_reused)
            echo:wait_lost()
          end
        end)
      end)

      it("sends single bytes, and gets them, of " .. version, function()
        serving(certs.mutual_context(), function(port, next_one, loop)
          local relay, _ <close> = talkers.bytewise(loop, port)
          local client <close> = s_client(relay, flag, "-cert", certs.client.cert, "-key", certs.client.key)
          client:expect "Verification: OK"
          client:say "hello\n"
          client:expect "hello\n"
          client:say "Q\n"
          assert.is_nil(next_one():wait_lost())
        end)
      end)
    end

    it("gets records as short as it wants them", function()
      serving(certs.server_context(), function(port)
        for _, flag in pairs(VERSIONS) do
          local client <close> = s_client(port, flag, "-quiet", "-maxfraglen", "512")
          local text = ("0123456789abcde\n"):rep(4000)
          client:say(text .. "END\n")
          client:expect "END\n"
          assert.truthy(client.output:find(text, 1, true))
        end
      end)
    end)

    it("older than TLS 1.2 is refused", function()
      serving(certs.server_context(), function(port)
        for _, flag in ipairs { "-tls1", "-tls1_1" } do
          local client <close> = s_client(port, flag, "-cipher", "DEFAULT@SECLEVEL=0")
          client:expect "alert protocol version"
          assert.equal(1, client:wait())
        end
      end)
    end)

    it("gets the certificate of the name that it asks for", function()
      local contexts = { ["localhost"] = certs.server_context(), ["second.example"] = certs.server_context "second" }
      contexts["localhost"]:set_servername_callback(function(object, name)
        if not contexts[name] then return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME end
        object.context = contexts[name]
      end)
      serving(contexts["localhost"], function(port)
        for name in pairs(contexts) do
          local client <close> = s_client(port, "-servername", name, "-verify_hostname", name)
          client:expect("subject=O = aloop, CN = " .. name)
          client:expect "Verification: OK"
        end
        local client <close> = s_client(port, "-servername", "third.example")
        client:expect "unrecognized name"
      end)
    end)

    it("agrees on a protocol", function()
      local context = certs.server_context()
      context:set_alpn_protocols { "h2", "http/1.1" }
      serving(context, function(port, next_one)
        local client <close> = s_client(port, "-alpn", "spdy/1,http/1.1")
        client:expect "ALPN protocol: http/1%.1"
        assert.equal("http/1.1", next_one().object:selected_alpn_protocol())
      end)
    end)

    it("shows its certificate", function()
      serving(certs.mutual_context(), function(port, next_one)
        for _, flag in pairs(VERSIONS) do
          local client <close> = s_client(port, flag, "-cert", certs.client.cert, "-key", certs.client.key)
          assert.equal("a client", next_one().object:getpeercert().subject[2][2])
          client:say "Q\n"
          client:wait()
          local stranger <close> = s_client(port, flag, "-cert", certs.stranger.cert, "-key", certs.stranger.key)
          stranger:expect "alert unknown ca"
          local nobody <close> = s_client(port, flag)
          nobody:expect(flag == "-tls1_2" and "alert handshake failure" or "alert certificate required")
        end
      end)
    end)

    it("changes keys in TLS 1.3", function()
      serving(certs.server_context(), function(port, next_one)
        local client <close> = s_client(port, "-tls1_3")
        client:expect "read R BLOCK"
        for i, command in ipairs { "K", "k", "K", "K" } do
          client:say(command .. "\n")
          client:expect "KEYUPDATE\n"
          client:say(("line %d\n"):format(i))
          client:expect(("line %d\n"):format(i))
        end
        client:say "Q\n"
        assert.is_nil(next_one():wait_lost())
      end)
    end)

    it("is refused another handshake in TLS 1.2", function()
      local context = certs.server_context()
      serving(context, function(port, next_one)
        local client <close> = s_client(port, "-tls1_2")
        client:expect "Verify return code"
        client:say "hello\n"
        client:expect "hello\n"
        client:say "R\n"
        client:expect "RENEGOTIATING\n"
        client:expect "no renegotiation"
        client:wait()
        next_one():wait_lost()
        assert.equal(1, context:session_stats().accept_good)
      end)
    end)

    it("that vanishes has not come to an end", function()
      serving(certs.server_context(), function(port, next_one)
        for _, flag in pairs(VERSIONS) do
          local client <close> = s_client(port, flag)
          local echo = next_one()
          client:say "hello\n"
          client:expect "hello\n"
          client.process:kill()
          assert.is_true(aloop.isinstance(echo:wait_lost(), ssl.SSLEOFError))
          assert.equal(0, echo:count "eof")
        end
      end)
    end)
  end)

  describe("openssl s_server", function()
    for version, flag in pairs(VERSIONS) do
      it("is spoken to in " .. version, function()
        served({ flag, "-rev", "-alpn", "http/1.1" }, function(_, connect)
          local context = certs.client_context()
          context:set_alpn_protocols { "h2", "http/1.1" }
          local reader, writer = connect(context)
          local object = writer:get_extra_info "ssl_object"
          assert.equal(version, object:version())
          assert.equal("http/1.1", object:selected_alpn_protocol())
          ask(reader, writer, "hello", "olleh")
          writer:close()
          writer:wait_closed()
        end)
      end)

      it("takes up a session of " .. version, function()
        served({ flag, "-rev" }, function(_, connect)
          local context, session = certs.client_context(), nil
          for i = 1, 3 do
            local reader, writer = connect(context, { session = session })
            ask(reader, writer, "hello", "olleh")
            local object = writer:get_extra_info "ssl_object"
            assert.equal(i > 1, object.session_reused)
            session = object.session
            writer:close()
            writer:wait_closed()
          end
        end)
      end)

      it("wants a certificate in " .. version, function()
        served({ flag, "-rev", "-Verify", "1", "-verify_return_error", "-CAfile", certs.ca.cert }, function(_, connect)
          local context = certs.client_context()
          context:load_cert_chain(certs.client.cert, certs.client.key)
          local reader, writer = connect(context)
          ask(reader, writer, "hello", "olleh")
          writer:close()
          writer:wait_closed()
          local e = raises(ssl.SSLError, "ALERT", function() return connect():read(1) end)
          assert.equal(version == "TLSv1.2" and "SSLV3_ALERT_HANDSHAKE_FAILURE" or "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            e.reason)
        end)
      end)

      it("that vanishes has not come to an end, in " .. version, function()
        served({ flag, "-rev" }, function(server, connect)
          local reader, writer = connect()
          ask(reader, writer, "hello", "olleh")
          server.process:kill()
          raises(ssl.SSLEOFError, "EOF occurred in violation of protocol", reader.read, reader, 1)
          raises(ssl.SSLEOFError, nil, writer.wait_closed, writer)
        end)
      end)
    end

    it("chooses its certificate by the name", function()
      local second = certs.second
      served({ "-rev", "-servername", "second.example", "-cert2", second.cert, "-key2", second.key },
        function(_, connect)
          for _, name in ipairs { "localhost", "second.example" } do
            local reader, writer = connect(nil, { server_hostname = name })
            ask(reader, writer, "hello", "olleh")
            assert.equal(name, writer:get_extra_info "peercert".subject[2][2])
            writer:close()
            writer:wait_closed()
          end
        end)
    end)

    it("older than TLS 1.2 is refused", function()
      served({ "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0" }, function(_, connect)
        local e = raises(ssl.SSLError, nil, connect)
        assert.equal("TLSV1_ALERT_PROTOCOL_VERSION", e.reason)
      end)
    end)

    it("changes keys in TLS 1.3", function()
      served({ "-tls1_3" }, function(server, connect)
        local reader, writer = connect()
        server:expect "CIPHER is"
        for i, command in ipairs { "K", "k", "K" } do
          server:say(command .. "\n")
          server:expect "SSL_do_handshake %-> 1\n"
          server:say(("to %d\n"):format(i))
          assert.equal(("to %d\n"):format(i), reader:readline())
          writer:write(("from %d\n"):format(i))
          server:expect(("from %d\n"):format(i))
        end
        writer:close()
        writer:wait_closed()
      end)
    end)

    it("is refused another handshake in TLS 1.2", function()
      served({ "-tls1_2" }, function(server, connect)
        local context = certs.client_context()
        local reader, writer = connect(context)
        server:expect "CIPHER is"
        server:say "r\n"
        server:expect "SSL_do_handshake %->"
        assert.equal(0, context:session_stats().connect_renegotiate)
        writer.transport:abort()
        pcall(reader.read, reader)
      end)
    end)

    it("that falls back to plain text is cut off", function()
      served({ "-tls1_3" }, function(server, connect)
        local reader, writer = connect()
        server:expect "CIPHER is"
        server:say "P\n"
        raises(ssl.SSLError, "wrong version number", reader.read, reader)
        raises(ssl.SSLError, nil, writer.wait_closed, writer)
      end)
    end)
  end)
end)
