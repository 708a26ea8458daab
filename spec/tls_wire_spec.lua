-- TLS on a wire that is slow, torn, tampered with or silent: all of aloop's own, with the spec in between.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local talkers = require "spec.support.talkers"
local tls = require "spec.support.tls"
local raises = helper.raises
local ssl = aloop.ssl

local VERSIONS = { "TLSv1_2", "TLSv1_3" }

local function client_of(version)
  local context = certs.client_context()
  context.maximum_version = ssl.TLSVersion[version]
  return context
end

-- How long this process has computed, in seconds.
local computed = os.clock

-- Bytes with which a client begins.
local function client_hello(loop)
  local task, sock = tls.connect_to_socket(loop)
  local hello = helper.recv(loop, sock)
  task:cancel()
  helper.cancelled(task)
  sock:close()
  return hello
end

helper.each_loop(function(kind, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- Connects a Recorder to the port.
  local function connect(loop, port, context, options)
    local client = helper.Recorder(loop)
    loop:create_connection(helper.always(client), "127.0.0.1", port,
      tls.with({ ssl = context, server_hostname = "localhost" }, options or {}))
    return client
  end

  local function directly(_, port) return port end

  -- For each version of TLS: body(client), a Recorder that is connected to a server which sends all back. There may be
  -- something in between: through(loop, port) returns the port to connect to, and what closes it.
  local function with_echo(body, through)
    with_loop(function(loop)
      talkers.serve(loop, certs.server_context(), function(port)
        local there, _ <close> = (through or directly)(loop, port)
        for _, version in ipairs(VERSIONS) do
          local client = connect(loop, there, client_of(version))
          body(client)
          client.transport:close()
          assert.is_nil(client:wait_lost())
        end
      end)
    end)
  end

  describe("TLS", function()
    it("works byte by byte", function()
      with_echo(function(client)
        local text = ("0123456789"):rep(50)
        client.transport:write(text)
        assert.equal(text, client:wait_data(#text))
      end, talkers.bytewise)
    end)

    it("keeps all bytes of records full to the brim", function()
      with_echo(function(client)
        local sent = ""
        for i, size in ipairs { 1, 16383, 16384, 16385, 32768, 32769, 65535, 131072, 131073 } do
          local text = string.char(i):rep(size)
          client.transport:write(text)
          sent = sent .. text
          assert.is_true(client:wait_data(#sent) == sent, size)
        end
      end)
    end)

    it("carries 10 MiB in both directions at once", function()
      local block = ("abcdefghijklmnop"):rep(65536)
      with_echo(function(client)
        for _ = 1, 10 do client.transport:write(block) end
        assert.is_true(client:wait_data(10 * #block) == block:rep(10))
      end)
    end)
  end)

  it("TLS loses nothing that was written before close, though the other end answers all of it", function()
    -- row: tls.close_flush
    with_loop(function(loop)
      talkers.serve(loop, certs.server_context(), function(port, next_one)
        for _, version in ipairs(VERSIONS) do
          local client = connect(loop, port, client_of(version))
          client.transport:write(("x"):rep(3 * 1024 * 1024))
          client.transport:close()
          assert.is_nil(client:wait_lost())
          local echo = next_one()
          assert.is_nil(echo:wait_lost())
          assert.equal(3 * 1024 * 1024, echo.received)
        end
      end)
    end)
  end)

  describe("a TLS connection that is tampered with", function()
    -- Runs body(client, server, near, far, loop): an established connection whose bytes the spec has to carry from now
    -- on, with near, the client's other end, and far, the server's.
    local function tapped(version, body)
      with_loop(function(loop)
        talkers.serve(loop, certs.server_context(), function(port, next_one)
          local task, near, client = tls.connect_to_socket(loop, { client = client_of(version) })
          local far = helper.connect(loop, { "127.0.0.1", port })
          local function pump(from, to)
            return loop:create_task(function()
              while true do helper.send_all(loop, to, helper.recv(loop, from)) end
            end)
          end
          local pumps = { pump(near, far), pump(far, near) }
          task:await()
          client.transport:write "hello"
          assert.equal("hello", client:wait_data(5))
          for _, one in ipairs(pumps) do
            one:cancel()
            helper.cancelled(one)
          end
          body(client, next_one(), near, far, loop)
          near:close()
          far:close()
          client.transport:abort()
        end)
      end)
    end

    -- The next record that comes from a socket.
    local function record(loop, sock)
      local head = helper.recv_exactly(loop, sock, 5)
      return head .. helper.recv_exactly(loop, sock, string.unpack(">I2", head, 4))
    end

    local function check(err, reason)
      assert.is_true(aloop.isinstance(err, ssl.SSLError), tostring(err))
      assert.equal(reason, err.reason)
    end

    for _, version in ipairs(VERSIONS) do
      for name, bytes in pairs {
        PACKET_LENGTH_TOO_LONG = "\23\3\3\255\255" .. ("x"):rep(100),
        WRONG_VERSION_NUMBER = "GET / HTTP/1.1\r\n\r\n",
        DECRYPTION_FAILED_OR_BAD_RECORD_MAC = "\23\3\3\0\64" .. ("x"):rep(64),
      } do
        it(("ends at both sides: %s, %s"):format(version, name), function()
          tapped(version, function(client, server, near, far, loop)
            helper.send_all(loop, far, bytes)
            check(server:wait_lost(), name)
            assert.equal(0, server:count "eof")
            helper.send_all(loop, near, bytes)
            check(client:wait_lost(), name)
          end)
        end)
      end

      it("ends at what was changed or comes again, " .. version, function()
        tapped(version, function(client, server, near, far, loop)
          client.transport:write "first"
          local first = record(loop, near)
          client.transport:write "second"
          local second = record(loop, near)
          helper.send_all(loop, far, first)
          server:wait_data(10)
          helper.send_all(loop, far, first)
          check(server:wait_lost(), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
          assert.equal("hellofirst", server:text())
          assert.equal(#second, #first + 1)
          -- the client hears of it by an alert
          helper.send_all(loop, near, helper.recv_all(loop, far))
          assert.equal("hellofirst", client:wait_data(10))
          check(client:wait_lost(), "SSLV3_ALERT_BAD_RECORD_MAC")
        end)
      end)

      it("ends where one byte of a record differs, " .. version, function()
        tapped(version, function(client, server, near, far, loop)
          client.transport:write "first"
          local bytes = record(loop, near)
          local last = bytes:byte(-1) ~ 1
          helper.send_all(loop, far, bytes:sub(1, -2) .. string.char(last))
          check(server:wait_lost(), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
          assert.equal("hello", server:text())
        end)
      end)

      it("tells its end after all that came with it, " .. version, function()
        -- row: tls.trailing_data
        tapped(version, function(client, server, near, far, loop)
          client.transport:write "first"
          client.transport:write "last"
          client.transport:close()
          helper.send_all(loop, far, record(loop, near) .. record(loop, near) .. record(loop, near))
          assert.is_nil(server:wait_lost())
          assert.equal("hellofirstlast", server:text())
          assert.same({ "data", "eof", "lost" }, { table.unpack(server.events, #server.events - 2) })
        end)
      end)

      it("is cut off in the midst of a record, " .. version, function()
        tapped(version, function(client, server, near, far, loop)
          client.transport:write "first"
          client.transport:write(("x"):rep(1000))
          helper.send_all(loop, far, record(loop, near) .. record(loop, near):sub(1, 500))
          assert.equal("hellofirst", server:wait_data(10))
          far:shutdown(aloop.socket.SHUT_WR)
          assert.is_true(aloop.isinstance(server:wait_lost(), ssl.SSLEOFError))
          assert.equal("hellofirst", server:text())
          assert.equal(0, server:count "eof")
        end)
      end)
    end
  end)

  describe("a TLS handshake that stands still", function()
    it("is ended by a server when its time is over, and costs no CPU", function()
      with_loop(function(loop)
        local hello = client_hello(loop)
        local made = talkers.serve(loop, certs.server_context(), function(port)
          local socks, ended = {}, {}
          for i = 1, 30 do
            local sock = helper.connect(loop, { "127.0.0.1", port })
            -- nothing; half of a ClientHello; all of it, but no answer to the server's
            helper.send_all(loop, sock, ({ "", hello:sub(1, #hello // 2), hello })[i % 3 + 1])
            socks[i] = sock
          end
          aloop.sleep(0.1)
          local begin, before = loop:time(), computed()
          for i, sock in ipairs(socks) do
            ended[i] = loop:create_task(function() pcall(helper.recv_all, loop, sock) end)
          end
          for _, task in ipairs(ended) do task:await() end
          assert.is_true(loop:time() - begin > 0.3)
          assert.is_true(computed() - before < 0.2, computed() - before)
          for _, sock in ipairs(socks) do sock:close() end
        end, { ssl_handshake_timeout = 0.6 })
        assert.equal(0, #made)
      end)
    end)

    it("is ended by a client when its time is over, and costs no CPU", function()
      with_loop(function(loop)
        local listener <close>, address = helper.listen()
        local before = computed()
        for _, answer in ipairs { "", "\22\3\3\0\100\2" } do
          local task = loop:create_task(function()
            connect(loop, address[2], certs.client_context(), { ssl_handshake_timeout = 0.4 })
          end)
          local sock = helper.accept(loop, listener)
          helper.send_all(loop, sock, answer)
          raises(aloop.ConnectionAbortedError, "SSL handshake is taking longer than 0.4 seconds", task.await, task)
          sock:close()
        end
        assert.is_true(computed() - before < 0.3, computed() - before)
      end)
    end)
  end)

  describe("1,000 TLS connections", function()
    if kind ~= "epoll" and kind ~= "ring" then return end

    local function resident_kib()
      return tonumber(helper.read_file "/proc/self/status":match "VmRSS:%s+(%d+)")
    end

    it("of which half are given up in the handshake leave nothing behind, and nothing is said", function()
      with_loop(function(loop, trial)
        local context, client_context = certs.server_context(), certs.client_context()
        local hello = client_hello(loop)
        local Silent = aloop.Protocol:extend "Silent"
        local server <close> = loop:create_server(Silent, "127.0.0.1", 0, { ssl = context })
        local address = helper.address_of(server)
        local function give_up(i)
          local sock = helper.connect(loop, address)
          helper.send_all(loop, sock, ({ "", hello:sub(1, 50), hello, "GET / HTTP/1.1\r\n" })[i % 4 + 1])
          if i % 8 < 4 then aloop.sleep(0) end
          if i % 3 == 0 then helper.reset(sock) else sock:close() end
        end
        local function run(n)
          for i = 1, n // 2 do
            give_up(i)
            local client = connect(loop, address.port, client_context)
            client.transport:close()
            client:wait_lost()
          end
          for _ = 1, 100 do
            if #trial.logs + #trial.errors > 0 then break end
            aloop.sleep(0)
          end
          collectgarbage()
          collectgarbage()
        end
        run(200)
        local fds, kib = helper.count_fds(), resident_kib()
        run(800)
        assert.equal(fds, helper.count_fds())
        assert.equal(0, #trial.logs)
        assert.equal(0, #trial.errors)
        if (os.getenv("ALOOP_PRELOAD") or "") ~= "" then return end -- a sanitizer keeps what is freed for a while
        assert.is_true(resident_kib() - kib < 2048, ("%d KiB more"):format(resident_kib() - kib))
      end)
    end)
  end)
end)
