-- TLS transports over sockets: what they tell and how they end, as clients and as servers; their options.
-- SPDX-License-Identifier: MIT

local aloop = require "aloop"
local certs = require "spec.support.certs"
local helper = require "spec.helper"
local tls = require "spec.support.tls"
local raises, type_error = helper.raises, helper.type_error
local ssl, Silent = aloop.ssl, aloop.Protocol

helper.each_loop(function(_, new_loop)
  local function with_loop(body) helper.with_loop(new_loop, body) end

  -- body(client transport, client, server transport, server, loop, trial); both ends are closed after it.
  local function with_pair(body, options)
    with_loop(function(loop, trial)
      local transport, client, server_transport, server = tls.pair(loop, options)
      body(transport, client, server_transport, server, loop, trial)
      transport:abort()
      server_transport:abort()
    end)
  end

  describe("a TLS connection", function()
    it("carries bytes both ways", function()
      -- row: create_connection.ssl, create_server.ssl, tls.proactor
      with_pair(function(transport, client, server_transport, server)
        transport:write("from the client")
        assert.equal("from the client", server:wait_data(15))
        server_transport:write("from the server")
        assert.equal("from the server", client:wait_data(15))
        local block = ("0123456789abcdef"):rep(65536)
        transport:write(block)
        server:wait_data(15 + #block)
        assert.equal(block, server:text():sub(16))
        tls.finish(client, server)
        assert.same({ "made", "data" }, { client.events[1], client.events[2] })
        assert.is_nil(client.reason)
        assert.is_nil(server.reason)
      end)
    end)

    it("is made known when the handshake is over", function()
      -- row: tls.connection_made_after_handshake
      with_loop(function(loop)
        local task, sock, protocol = tls.connect_to_socket(loop)
        helper.recv(loop, sock, 5)
        helper.turns(5)
        assert.same({}, protocol.events)
        sock:close()
        raises(aloop.OSError, nil, task.await, task)
        assert.same({}, protocol.events)
      end)
    end)

    it("tells of itself", function()
      -- row: tls.extra_info, BaseTransport.get_extra_info
      local client_context = certs.client_context()
      with_pair(function(transport, _, server_transport)
        assert.equal(client_context, transport:get_extra_info "sslcontext")
        local object = transport:get_extra_info "ssl_object"
        assert.is_true(aloop.isinstance(object, ssl.SSLObject))
        assert.equal(object, transport:get_extra_info "ssl_object")
        assert.equal("localhost", transport:get_extra_info "peercert".subject[2][2])
        assert.equal("TLSv1.3", transport:get_extra_info "cipher"[2])
        assert.is_nil(transport:get_extra_info "compression")
        assert.equal("none", transport:get_extra_info("compression", "none"))
        local sockname = server_transport:get_extra_info "sockname"
        assert.equal(tostring(sockname), tostring(transport:get_extra_info "peername"))
        assert.is_true(transport:get_extra_info "socket":fileno() >= 0)
        assert.is_nil(server_transport:get_extra_info "peercert")
        assert.equal("x", transport:get_extra_info("nothing", "x"))
        assert.matches("^<Transport TLS fd=%d+ ", tostring(transport))
        assert.is_true(aloop.isinstance(transport, aloop.Transport))
      end, { client = client_context })
    end)

    it("has Python's marks", function()
      -- row: tls.write_limits
      with_pair(function(transport)
        assert.same({ 131072, 524288 }, { transport:get_write_buffer_limits() })
        transport:set_write_buffer_limits { high = 4000 }
        assert.same({ 1000, 4000 }, { transport:get_write_buffer_limits() })
      end)
    end)

    it("pauses a writer whose other end does not read", function()
      with_pair(function(transport, client, server_transport)
        server_transport:pause_reading()
        local block, n = ("x"):rep(100000), 0
        while not client.paused do
          transport:write(block)
          n = n + 1
          helper.turns(1)
          assert.is_true(n < 1000)
        end
        assert.is_true(transport:get_write_buffer_size() >= 524288)
        server_transport:resume_reading()
        client:wait_for "resume"
      end)
    end)

    it("has no half that can be closed alone", function()
      -- row: tls.can_write_eof, WriteTransport.can_write_eof
      with_pair(function(transport)
        assert.is_false(transport:can_write_eof())
        raises(aloop.NotImplementedError, "write_eof", transport.write_eof, transport)
      end)
    end)

    it("closes at the other end's close, whatever eof_received says", function()
      -- row: tls.eof_always_closes, tls.trailing_data; point: 25
      local last = ("end"):rep(100000)
      with_loop(function(loop, trial)
        local client = helper.Recorder(loop, { keep_open = true })
        local _, _, server_transport, server = tls.pair(loop, { client_protocol = client })
        server_transport:write(last)
        server_transport:close()
        assert.is_nil(client:wait_lost())
        assert.is_nil(server:wait_lost())
        trial:take_log("returning true from eof_received%(%) has no effect when using ssl")
        assert.equal(last, client:text())
        assert.equal("eof", client.events[#client.events - 1])
        assert.equal(1, client:count "eof")
      end)
    end)

    it("is flushed by close", function()
      -- row: tls.close_flush
      with_pair(function(transport, client, _, server)
        local block = ("x"):rep(3000000)
        transport:write(block)
        transport:close()
        assert.is_true(transport:is_closing())
        assert.is_nil(client:wait_lost())
        assert.is_nil(server:wait_lost())
        assert.equal(#block, server.received)
        assert.equal(1, server:count "eof")
        transport:write("more")
        transport:close()
      end)
    end)

    it("is cut off by abort", function()
      -- row: tls.abort
      with_pair(function(transport, client, _, server)
        transport:abort()
        assert.is_nil(client:wait_lost())
        local e = server:wait_lost()
        assert.is_true(aloop.isinstance(e, ssl.SSLEOFError) or aloop.isinstance(e, aloop.ConnectionResetError),
          tostring(e))
        assert.equal(0, server:count "eof")
      end)
    end)

    it("that ends without a close is no end of data", function()
      with_loop(function(loop)
        local listener = helper.listen()
        local address = listener:getsockname()
        local server = helper.Recorder(loop)
        local task = loop:create_task(function()
          return loop:connect_accepted_socket(helper.always(server), helper.accept(loop, listener),
            { ssl = certs.server_context() })
        end)
        local client = helper.Recorder(loop)
        local transport = loop:create_connection(helper.always(client), address[1], address[2],
          { ssl = certs.client_context(), server_hostname = "localhost" })
        local server_transport = task:await()
        server_transport:write("before")
        assert.equal("before", client:wait_data(6))
        server_transport:get_extra_info "socket":shutdown(aloop.socket.SHUT_WR)
        local e = client:wait_lost()
        assert.is_true(aloop.isinstance(e, ssl.SSLEOFError), tostring(e))
        assert.equal("SSL", e.library)
        assert.equal("UNEXPECTED_EOF_WHILE_READING", e.reason)
        raises(ssl.SSLEOFError, "EOF occurred in violation of protocol ('localhost' at 127.0.0.1:", error, e)
        assert.equal(0, client:count "eof")
        assert.is_true(transport:is_closing())
        server:wait_lost()
        listener:close()
      end)
    end)

    it("may end without a close where the context allows it", function()
      local context = certs.client_context()
      context.options = context.options | ssl.OP_IGNORE_UNEXPECTED_EOF
      with_pair(function(_, client, server_transport, server)
        server_transport:get_extra_info "socket":shutdown(aloop.socket.SHUT_WR)
        assert.is_nil(client:wait_lost())
        assert.equal(1, client:count "eof")
        server:wait_lost()
      end, { client = context })
    end)

    it("takes lists, buffers and parts of them", function()
      with_pair(function(transport, _, _, server)
        local buffer = aloop.buffer(5)
        buffer:set(1, "world")
        transport:writelines { "hel", "lo ", buffer }
        transport:write("xyz!", 4)
        assert.equal("hello world!", server:wait_data(12))
      end)
    end)

    it("feeds buffers of the protocol's own", function()
      local Buffered = helper.recording(aloop.BufferedProtocol, "Buffered")
      function Buffered:init(loop)
        self:begin(loop)
        self.buffer, self.parts, self.received = aloop.buffer(1000), {}, 0
      end
      function Buffered:get_buffer() return self.buffer end
      function Buffered:buffer_updated(n)
        self.parts[#self.parts + 1] = self.buffer:sub(1, n)
        self.received = self.received + n
        self:note "data"
      end
      function Buffered:eof_received() self:note "eof" end
      with_loop(function(loop)
        local client = Buffered(loop)
        local _, _, server_transport, server = tls.pair(loop, { client_protocol = client })
        local text = ("0123456789"):rep(20000)
        server_transport:write(text)
        client:wait(function() return client.received >= #text end)
        assert.equal(text, table.concat(client.parts))
        server_transport:close()
        assert.is_nil(client:wait_lost())
        assert.equal(1, client:count "eof")
        server:wait_lost()
      end)
    end)

    it("may be paused and handed to another protocol", function()
      with_pair(function(transport, client, server_transport, _, loop)
        transport:pause_reading()
        assert.is_false(transport:is_reading())
        server_transport:write("one")
        helper.turns(10)
        assert.equal(0, client.received)
        local other = helper.Recorder(loop)
        other.transport = transport
        transport:set_protocol(other)
        assert.equal(other, transport:get_protocol())
        transport:resume_reading()
        assert.equal("one", other:wait_data(3))
      end)
    end)

    it("sends files", function()
      -- row: sendfile.fallback, sendfile.not_available
      with_pair(function(transport, _, _, server, loop)
        local text = ("a line of text\n"):rep(20000)
        local file = assert(io.open(certs.write("file.txt", text), "rb"))
        raises(aloop.SendfileNotAvailableError, nil, loop.sendfile, loop, transport, file, 0, nil, { fallback = false })
        transport:write "before "
        assert.equal(#text, loop:sendfile(transport, file))
        transport:write " after"
        server:wait_data(#text + 13)
        assert.equal("before " .. text .. " after", server:text())
        file:close()
      end)
    end)

    it("works with TLS 1.2, too", function()
      local context = certs.client_context()
      context.maximum_version = ssl.TLSVersion.TLSv1_2
      with_pair(function(transport, client, server_transport, server)
        assert.equal("TLSv1.2", transport:get_extra_info "ssl_object":version())
        transport:write "x"
        server:wait_data(1)
        server_transport:write "y"
        client:wait_data(1)
        tls.finish(client, server)
        assert.is_nil(client.reason)
        assert.is_nil(server.reason)
      end, { client = context })
    end)

    it("still tells of itself in connection_lost", function()
      with_loop(function(loop)
        local client, told = helper.Recorder(loop), nil
        local lost = client.connection_lost
        client.connection_lost = function(self, err)
          told = {
            self.transport:get_extra_info "cipher"[2], self.transport:get_extra_info "peercert".subject[2][2],
            self.transport:get_extra_info "ssl_object":version(),
          }
          lost(self, err)
        end
        local _, _, server_transport, server = tls.pair(loop, { client_protocol = client })
        server_transport:close()
        client:wait_lost()
        server:wait_lost()
        assert.same({ "TLSv1.3", "localhost", "TLSv1.3" }, told)
      end)
    end)

    it("ends when a method of its protocol fails", function()
      for _, method in ipairs { "data_received", "eof_received" } do
        with_loop(function(loop, trial)
          local client = helper.Recorder(loop)
          client[method] = function() error("in " .. method, 0) end
          local _, _, server_transport, server = tls.pair(loop, { client_protocol = client })
          server_transport:write "x"
          if method == "eof_received" then server_transport:close() end
          assert.equal("in " .. method, client:wait_lost())
          local context = trial:take_error()
          assert.equal(("Fatal error: protocol.%s() call failed."):format(method), context.message)
          assert.equal(client.transport, context.transport)
          server:wait_lost()
        end)
      end
    end)

    it("ends with an error of connection_made, which the one who connects gets, too", function()
      for _, side in ipairs { "client", "server" } do
        with_loop(function(loop, trial)
          local protocols = { client = helper.Recorder(loop), server = helper.Recorder(loop) }
          local made = protocols[side].connection_made
          protocols[side].connection_made = function(self, transport)
            made(self, transport)
            error("in connection_made", 0)
          end
          local server_context, client_context = tls.contexts()
          local server <close> = loop:create_server(helper.always(protocols.server), "127.0.0.1", 0,
            { ssl = server_context })
          local address = server.sockets[1]:getsockname()
          local ok, e = pcall(loop.create_connection, loop, helper.always(protocols.client), address[1], address[2],
            { ssl = client_context, server_hostname = "localhost" })
          assert.equal(side == "server", ok)
          if not ok then assert.equal("in connection_made", e) end
          assert.equal("in connection_made", protocols[side]:wait_lost())
          if ok then protocols.client:wait_lost() end
          local context = trial:take_error()
          assert.equal("Fatal error: protocol.connection_made() call failed.", context.message)
          assert.equal(protocols[side], context.protocol)
        end)
      end
    end)

    it("may be closed or aborted from inside connection_made", function()
      for _, method in ipairs { "close", "abort" } do
        with_loop(function(loop)
          local client = helper.Recorder(loop)
          local made = client.connection_made
          client.connection_made = function(self, transport)
            made(self, transport)
            transport[method](transport)
          end
          tls.serve(loop, function(_, server, wait_for, _, client_context)
            local address = server.sockets[1]:getsockname()
            loop:create_connection(helper.always(client), address[1], address[2],
              { ssl = client_context, server_hostname = "localhost" })
            assert.is_nil(client:wait_lost())
            if method == "close" then wait_for(1):wait_lost() end -- else the server's handshake may have had no end
          end)
        end)
      end
    end)

    it("goes with its loop", function()
      local loop = new_loop()
      local transport, sock
      loop:run_until_complete(function()
        transport = tls.pair(loop)
        transport:write(("x"):rep(3000000))
        local listener, address = helper.listen()
        loop:create_task(function()
          pcall(loop.create_connection, loop, Silent, address[1], address[2], { ssl = certs.client_context() })
        end)
        sock = helper.accept(loop, listener)
        helper.recv(loop, sock)
        listener:close()
      end)
      for _, task in ipairs(aloop.all_tasks(loop)) do task:cancel() end
      helper.turn(loop, 2)
      loop:close()
      sock:close()
      assert.is_true(transport:is_closing())
    end)

    it("that is forgotten is reported and closed", function()
      with_loop(function(loop, trial)
        local _, _, server_transport, server = tls.pair(loop)
        server_transport:pause_reading()
        server.transport, server_transport = nil, nil -- luacheck: ignore 311
        helper.turns(3)
        collectgarbage()
        collectgarbage()
        trial:take_log "unclosed transport"
      end, { open = true })
    end)
  end)

  describe("create_connection with ssl", function()
    it("makes a context of its own for true, which trusts the system's authorities", function()
      -- row: create_connection.ssl
      with_loop(function(loop)
        tls.serve(loop, function(connect)
          raises(ssl.SSLCertVerificationError, "unable to get local issuer certificate", connect, { ssl = true })
        end)
      end)
    end)

    it("is plain for nil and false", function()
      with_loop(function(loop)
        helper.serve(loop, function(server)
          local address = server.sockets[1]:getsockname()
          local transport = loop:create_connection(Silent, address[1], address[2], { ssl = false })
          assert.is_nil(transport:get_extra_info "sslcontext")
          transport:abort()
        end, { ssl = false })
      end)
    end)

    it("needs a name if it has no host", function()
      -- row: create_connection.server_hostname_required
      with_loop(function(loop)
        local a, b = aloop.socket.socketpair()
        raises(aloop.ValueError, "You must set server_hostname when using ssl without a host", loop.create_connection,
          loop, Silent, nil, nil, { sock = a, ssl = ssl.SSLContext() })
        raises(aloop.ValueError, "You must set server_hostname", loop.create_connection, loop, Silent, "", 80,
          { ssl = true })
        a:close()
        b:close()
      end)
    end)

    it("goes over a socket that was given", function()
      with_loop(function(loop)
        tls.serve(loop, function(_, server, wait_for, _, client_context)
          local sock = helper.connect(loop, server.sockets[1]:getsockname())
          local transport = loop:create_connection(Silent, nil, nil,
            { sock = sock, ssl = client_context, server_hostname = "localhost" })
          transport:write "x"
          wait_for(1):wait_data(1)
          transport:abort()
        end)
      end)
    end)

    it("checks names before anything is done", function()
      with_loop(function(loop)
        local context = ssl.SSLContext()
        local function connect(name, more)
          local options = tls.with({ ssl = context, server_hostname = name }, more or {})
          return loop:create_connection(Silent, "127.0.0.1", 1, options)
        end
        raises(aloop.ValueError, "server_hostname must not contain a zero byte", connect, "localhost\0.evil")
        raises(aloop.ValueError, "server_hostname cannot start with a leading dot.", connect, ".localhost")
        raises(aloop.ValueError, "server_hostname is too long", connect, ("x"):rep(256))
        raises(aloop.ValueError, "server_hostname must be in ASCII", connect, "zoë.example")
        type_error("bad option 'server_hostname' to 'create_connection' (string expected, got number)", connect, 5)
        type_error("bad option 'session' to 'create_connection' (SSLSession expected, got string)", connect, "x",
          { session = "x" })
      end)
    end)

    it("refuses what makes no sense without ssl", function()
      -- row: create_connection.server_hostname_nossl, create_connection.ssl_timeouts_nossl
      with_loop(function(loop)
        local function connect(options) return loop:create_connection(Silent, "127.0.0.1", 1, options) end
        raises(aloop.ValueError, "server_hostname is only meaningful with ssl", connect, { server_hostname = "x" })
        raises(aloop.ValueError, "server_hostname is only meaningful with ssl", connect,
          { server_hostname = "", ssl = false })
        raises(aloop.ValueError, "session is only meaningful with ssl", connect, { session = "x" })
        for _, name in ipairs { "ssl_handshake_timeout", "ssl_shutdown_timeout" } do
          raises(aloop.ValueError, name .. " is only meaningful with ssl", connect, { [name] = 1 })
          for _, value in ipairs { 0, -1, 0 / 0 } do
            raises(aloop.ValueError, name .. " should be a positive number, got ", connect,
              { ssl = true, [name] = value })
          end
          type_error(("bad option '%s' to 'create_connection' (number expected, got string)"):format(name), connect,
            { ssl = true, [name] = "1" })
        end
        type_error("bad option 'ssl' to 'create_connection' (SSLContext expected, got string)", connect, { ssl = "x" })
        type_error("bad option 'ssl' to 'create_connection' (SSLContext expected, got table)", connect, { ssl = {} })
      end)
    end)

    it("refuses a server's context", function()
      with_loop(function(loop)
        raises(ssl.SSLError, "Cannot create a client socket with a PROTOCOL_TLS_SERVER context", loop.create_connection,
          loop, Silent, "127.0.0.1", 1, { ssl = certs.server_context() })
      end)
    end)

    it("ends a handshake that takes too long", function()
      -- row: create_connection.ssl_handshake_timeout, tls.handshake_timeout_error
      with_loop(function(loop)
        local task, sock, protocol = tls.connect_to_socket(loop, { connect = { ssl_handshake_timeout = 0.05 } })
        local text = "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
        local e = raises(aloop.ConnectionAbortedError, text, task.await, task)
        assert.matches("'localhost' at 127.0.0.1:%d+", e.message)
        assert.same({}, protocol.events)
        sock:close()
      end)
    end)

    it("ends a shutdown that takes too long", function()
      -- row: create_connection.ssl_shutdown_timeout, tls.shutdown_timeout_error
      with_pair(function(transport, client, server_transport)
        server_transport:pause_reading()
        transport:close()
        local e = client:wait_lost()
        assert.is_true(aloop.isinstance(e, aloop.TimeoutError), tostring(e))
        assert.matches("SSL shutdown timed out", e.message)
      end, { connect = { ssl_shutdown_timeout = 0.05 } })
    end)

    it("can be cancelled in the handshake", function()
      with_loop(function(loop)
        local task, sock, protocol = tls.connect_to_socket(loop)
        helper.recv(loop, sock, 5)
        task:cancel()
        helper.cancelled(task)
        helper.recv_all(loop, sock)
        assert.same({}, protocol.events)
        sock:close()
      end)
    end)

    it("says who does not speak TLS", function()
      with_loop(function(loop)
        local task, sock = tls.connect_to_socket(loop)
        sock:send "220 mail.example ESMTP\r\n"
        local e = raises(ssl.SSLError, "[SSL: WRONG_VERSION_NUMBER] wrong version number ('localhost' at 127.0.0.1:",
          task.await, task)
        assert.equal("WRONG_VERSION_NUMBER", e.reason)
        assert.equal("SSL", e.library)
        sock:close()
      end)
    end)
  end)

  describe("create_server with ssl", function()
    it("needs a context", function()
      -- row: create_server.ssl_bool, create_server.ssl_handshake_timeout, create_server.ssl_shutdown_timeout
      with_loop(function(loop)
        local function serve(options) return loop:create_server(Silent, "127.0.0.1", 0, options) end
        type_error("bad option 'ssl' to 'create_server' (SSLContext expected, got boolean)", serve, { ssl = true })
        type_error("unknown option 'server_hostname' to 'create_server'", serve, { server_hostname = "x" })
        raises(ssl.SSLError, "Cannot create a server socket with a PROTOCOL_TLS_CLIENT context", serve,
          { ssl = ssl.SSLContext() })
        for _, name in ipairs { "ssl_handshake_timeout", "ssl_shutdown_timeout" } do
          raises(aloop.ValueError, name .. " is only meaningful with ssl", serve, { [name] = 1 })
          raises(aloop.ValueError, name .. " should be a positive number, got 0", serve,
            { ssl = certs.server_context(), [name] = 0 })
        end
      end)
    end)

    it("drops clients that say nothing", function()
      -- row: create_server.ssl_handshake_timeout
      with_loop(function(loop)
        tls.serve(loop, function(connect, server, wait_for, made)
          local sock = helper.connect(loop, server.sockets[1]:getsockname())
          assert.equal("", helper.recv_all(loop, sock))
          sock:close()
          assert.equal(0, #made)
          connect()
          wait_for(1)
        end, { listen = { ssl_handshake_timeout = 0.1 } })
      end)
    end)

    it("forces the end of clients that don't close", function()
      -- row: create_server.ssl_shutdown_timeout
      with_loop(function(loop)
        tls.serve(loop, function(connect, _, wait_for)
          local transport, client = connect()
          transport:pause_reading()
          local server_side = wait_for(1)
          server_side.transport:close()
          assert.is_true(aloop.isinstance(server_side:wait_lost(), aloop.TimeoutError))
          transport:resume_reading()
          client:wait_lost()
        end, { listen = { ssl_shutdown_timeout = 0.05 } })
      end)
    end)

    it("is not harmed by what strangers send, and says nothing of it", function()
      -- row: create_server.accept_setup_error
      with_loop(function(loop)
        tls.serve(loop, function(connect, server, wait_for, made)
          local address = server.sockets[1]:getsockname()
          for _, bytes in ipairs {
            "", "\22", "GET / HTTP/1.0\r\n\r\n", ("\0"):rep(1000), "\22\3\1\255\255", "\22\3\1\0\5\1\0\0\1\0",
            "\23\3\3\64\1" .. ("x"):rep(16385), ("\255"):rep(70000),
          } do
            local sock = helper.connect(loop, address)
            pcall(helper.send_all, loop, sock, bytes)
            pcall(sock.shutdown, sock, aloop.socket.SHUT_WR)
            pcall(helper.recv_all, loop, sock)
            sock:close()
          end
          helper.reset(helper.connect(loop, address))
          assert.equal(0, #made)
          connect()
          wait_for(1)
        end)
      end)
    end)

    it("tells of failed handshakes in debug mode", function()
      with_loop(function(loop, trial)
        loop:set_debug(true)
        tls.serve(loop, function(_, server)
          local sock = helper.connect(loop, server.sockets[1]:getsockname())
          helper.send_all(loop, sock, "GET / HTTP/1.0\r\n\r\n")
          helper.recv_all(loop, sock)
          sock:close()
          trial:wait_until(function() return #trial.errors > 0 end)
          local context = trial:take_error()
          assert.equal("Error on transport creation for incoming connection", context.message)
          assert.equal("HTTP_REQUEST", context.exception.reason)
          assert.matches("peer 127.0.0.1:%d+", context.exception.message)
          assert.is_true(aloop.isinstance(context.transport, aloop.Transport))
          assert.is_true(aloop.isinstance(context.protocol, helper.Recorder))
        end)
      end)
    end)

    it("closes and aborts its clients", function()
      with_loop(function(loop)
        tls.serve(loop, function(connect, server, wait_for)
          local _, one = connect()
          wait_for(1)
          server:close_clients()
          assert.is_nil(one:wait_lost())
          assert.equal(1, one:count "eof")
          local _, two = connect()
          wait_for(2)
          server:abort_clients()
          assert.is_true(aloop.isinstance(two:wait_lost(), aloop.OSError))
        end)
      end)
    end)

    it("waits for its clients, also for those in a handshake", function()
      with_loop(function(loop)
        tls.serve(loop, function(_, server)
          local sock = helper.connect(loop, server.sockets[1]:getsockname())
          helper.turns(5)
          server:close()
          local waiting = loop:create_task(function() server:wait_closed() end)
          helper.turns(5)
          assert.is_false(waiting:done())
          sock:close()
          waiting:await()
        end)
      end)
    end)
  end)

  describe("TLS", function()
    it("goes over Unix sockets", function()
      -- row: create_unix_server.ssl, create_unix_connection.ssl, create_unix_connection.server_hostname
      with_loop(function(loop)
        local path = certs.dir .. "/tls.sock"
        local server_side, client = helper.Recorder(loop), helper.Recorder(loop)
        local server = loop:create_unix_server(helper.always(server_side), path, { ssl = certs.server_context() })
        local context = certs.client_context()
        local transport = loop:create_unix_connection(helper.always(client), path,
          { ssl = context, server_hostname = "localhost" })
        transport:write "over a path"
        assert.equal("over a path", server_side:wait_data(11))
        assert.equal("localhost", transport:get_extra_info "ssl_object".server_hostname)
        transport:close()
        client:wait_lost()
        server_side:wait_lost()
        local e = raises(ssl.SSLCertVerificationError, "Hostname mismatch", loop.create_unix_connection, loop, Silent,
          path, { ssl = context, server_hostname = "other.example" })
        assert.matches(path, e.message, 1, true)
        server:close()
        server:wait_closed()
      end)
    end)

    it("over Unix sockets needs a name, and ssl for the rest", function()
      -- row: create_unix_connection.ssl_handshake_timeout, create_unix_connection.ssl_shutdown_timeout
      -- row: create_unix_server.ssl_timeouts
      with_loop(function(loop)
        local function connect(options) return loop:create_unix_connection(Silent, "/nowhere", options) end
        local function serve(options) return loop:create_unix_server(Silent, "/nowhere", options) end
        raises(aloop.ValueError, "You must set server_hostname", connect, { ssl = true })
        raises(aloop.ValueError, "server_hostname is only meaningful with ssl", connect, { server_hostname = "x" })
        type_error("SSLContext expected, got boolean", serve, { ssl = true })
        for _, name in ipairs { "ssl_handshake_timeout", "ssl_shutdown_timeout" } do
          raises(aloop.ValueError, name .. " is only meaningful with ssl", connect, { [name] = 1 })
          raises(aloop.ValueError, name .. " is only meaningful with ssl", serve, { [name] = 1 })
          raises(aloop.ValueError, name .. " should be a positive number, got 0", connect,
            { ssl = true, server_hostname = "x", [name] = 0 })
          raises(aloop.ValueError, name .. " should be a positive number, got -1.5", serve,
            { ssl = certs.server_context(), [name] = -1.5 })
        end
      end)
    end)

    it("over Unix sockets has time limits", function()
      with_loop(function(loop)
        local path = certs.dir .. "/silent.sock"
        local server = loop:create_unix_server(Silent, path)
        raises(aloop.ConnectionAbortedError, "SSL handshake is taking longer than 0.05 seconds",
          loop.create_unix_connection, loop, Silent, path,
          { ssl = true, server_hostname = "x", ssl_handshake_timeout = 0.05 })
        server:close()
      end)
    end)

    it("takes over sockets that were accepted elsewhere", function()
      -- row: connect_accepted_socket.ssl, connect_accepted_socket.ssl_handshake_timeout
      -- row: connect_accepted_socket.ssl_shutdown_timeout
      with_loop(function(loop)
        local listener, address = helper.listen()
        local context = certs.client_context()
        local client = loop:create_task(function()
          return loop:create_connection(Silent, address[1], address[2],
            { ssl = context, server_hostname = "localhost" })
        end)
        local server_side = helper.Recorder(loop)
        local transport, protocol = loop:connect_accepted_socket(helper.always(server_side),
          helper.accept(loop, listener), { ssl = certs.server_context(), ssl_handshake_timeout = 10,
            ssl_shutdown_timeout = 10 })
        assert.equal(server_side, protocol)
        assert.is_true(transport:get_extra_info "ssl_object".server_side)
        client:await():write "x"
        server_side:wait_data(1)
        client:await():abort()
        server_side:wait_lost()
        local a, b = aloop.socket.socketpair()
        local function connect(options) return loop:connect_accepted_socket(Silent, a, options) end
        for _, name in ipairs { "ssl_handshake_timeout", "ssl_shutdown_timeout" } do
          raises(aloop.ValueError, name .. " is only meaningful with ssl", connect, { [name] = 1 })
        end
        type_error("SSLContext expected, got boolean", connect, { ssl = true })
        raises(ssl.SSLError, "PROTOCOL_TLS_CLIENT", connect, { ssl = context })
        raises(aloop.ConnectionAbortedError, "SSL handshake is taking longer than 0.05 seconds", connect,
          { ssl = certs.server_context(), ssl_handshake_timeout = 0.05 })
        b:close()
        listener:close()
      end)
    end)

    it("carries streams", function()
      -- row: StreamWriter
      with_loop(function()
        local server = aloop.start_server(function(reader, writer)
          for line in reader:lines() do
            writer:write(line:upper())
            writer:drain()
          end
          writer:close()
        end, "127.0.0.1", 0, { ssl = certs.server_context() })
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2],
          { ssl = certs.client_context(), server_hostname = "localhost" })
        writer:write "one\ntwo\n"
        assert.equal("ONE\n", reader:readline())
        assert.equal("TWO\n", reader:readline())
        assert.is_false(writer:can_write_eof())
        writer:close()
        writer:wait_closed()
        assert.is_nil(reader:readline())
        server:close()
        server:wait_closed()
      end)
    end)

    it("tells readers and writers that a stream was cut off", function()
      with_loop(function()
        local cut
        local server = aloop.start_server(function(_, writer)
          writer:write "half a li"
          cut = writer
        end, "127.0.0.1", 0, { ssl = certs.server_context() })
        local address = server.sockets[1]:getsockname()
        local reader, writer = aloop.open_connection(address[1], address[2],
          { ssl = certs.client_context(), server_hostname = "localhost" })
        assert.equal("half a li", reader:readexactly(9))
        cut:get_extra_info "socket":shutdown(aloop.socket.SHUT_WR)
        local e = raises(ssl.SSLEOFError, "violation of protocol ('localhost' at ", reader.readline, reader)
        assert.equal("UNEXPECTED_EOF_WHILE_READING", e.reason)
        raises(ssl.SSLEOFError, nil, writer.wait_closed, writer)
        cut:close()
        server:close()
        server:wait_closed()
      end)
    end)
  end)
end)
