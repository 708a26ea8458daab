/* core_tls_end.c - tests of how TLS transports end, through aloop.h alone: closing in each state and from each
 * callback, cut connections, peers that never close, lack of memory. Of handshakes that fail: core_tls_handshake.c.
 *
 * SPDX-License-Identifier: MIT */
#include "tls_peers.h"

static char logged[512]; /* the last line */
static void note_log(void *ud, al_log_level level, const char *message, const char *category) {
  (void)ud, (void)level, (void)category;
  snprintf(logged, sizeof logged, "%s", message);
}

/* ---- closing on our side ----------------------------------------------------------------------------------------- */

static void close_it(al_transport *t) { al_transport_close(t); }
static void abort_it(al_transport *t) { al_transport_abort(t); }
static void (*const enders[])(al_transport *) = {close_it, abort_it};

static void test_end_before_handshake(void) {
  for (int i = 0; i < 4; i++) {
    al_loop *loop = new_loop();
    int raw;
    tls_peer *p = lone(loop, &raw, i % 2, 0);
    if (i / 2) turns(loop, 3);
    size_t written = 0;
    peer_write(&p->peer, &written, 1000);
    enders[i % 2](p->peer.transport);
    CHECK(al_transport_is_closing(p->peer.transport));
    CHECK_EQ(p->told, 0); /* later */
    end_failed(loop, p, raw, -ECONNABORTED);
  }
}

static void test_forget(void) {
  al_loop *loop = new_loop();
  int raw;
  tls_peer *p = lone(loop, &raw, false, 0);
  turns(loop, 2);
  al_tls_forget(p->peer.transport);
  al_transport_abort(p->peer.transport);
  UNTIL(loop, peer_has(&p->peer, 'C'));
  CHECK_EQ(p->told, 0);
  TLS_END(loop, p, "C", 0);
  close(raw);
  end_loop(loop);
}

/* All that was written arrives, then a clean end. */
static void test_close_flushes(void) {
  tls_pair pair = tls_pair_new(AF_INET, 0);
  size_t written = 0;
  peer_write(&pair.server->peer, &written, 5000000);
  al_transport_close(pair.server->peer.transport);
  al_transport_close(pair.server->peer.transport);
  CHECK(al_transport_is_closing(pair.server->peer.transport));
  UNTIL(pair.loop, pair.client->peer.received == written);
  tls_pair_end(&pair, "MPLC", "MdELC");
}

static void test_abort_is_told(void) {
  tls_pair pair = tls_pair_new(AF_UNIX, 0);
  size_t written = 0;
  peer_write(&pair.server->peer, &written, 5000000);
  al_transport_abort(pair.server->peer.transport);
  CHECK_EQ(al_transport_write_buffer_size(pair.server->peer.transport), 0);
  TLS_END(pair.loop, pair.server, "MPLC", 0);
  TLS_END(pair.loop, pair.client, "MdLC", AL_ETLSEOF);
  end_loop(pair.loop);
}

static void test_fail(void) {
  tls_pair pair = tls_pair_new(AF_UNIX, 0);
  al_transport_fail(pair.server->peer.transport, AL_EPROTOCOL);
  al_transport_fail(pair.server->peer.transport, -EIO);
  TLS_END(pair.loop, pair.server, "MLC", AL_EPROTOCOL);
  TLS_END(pair.loop, pair.client, "MLC", AL_ETLSEOF);
  end_loop(pair.loop);
}

/* The other end says nothing to our close_notify; nor does it read, the second time. */
static void test_shutdown_timeout(void) {
  for (int full = 0; full < 2; full++) {
    wire w;
    tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 200 * MS);
    wire_connect(&pair, &w);
    size_t written = 0;
    if (full) peer_write(&pair.server->peer, &written, 3000000);
    al_transport_close(pair.server->peer.transport);
    TLS_END(pair.loop, pair.server, full ? "MPLC" : "MLC", AL_ETLSSTUCK);
    wire_cut(&w);
    TLS_END(pair.loop, pair.client, "MLC", AL_ETLSEOF);
    end_loop(pair.loop);
  }
}

/* Closing twice, the second time for good: in the midst of flushing, and in wait for the other's close. */
static void test_close_then_abort(void) {
  for (int full = 0; full < 2; full++) {
    wire w;
    tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
    wire_connect(&pair, &w);
    size_t written = 0;
    if (full) peer_write(&pair.server->peer, &written, 3000000);
    al_transport_close(pair.server->peer.transport);
    turns(pair.loop, 3);
    CHECK(!peer_has(&pair.server->peer, 'L'));
    al_transport_abort(pair.server->peer.transport);
    TLS_END(pair.loop, pair.server, full ? "MPLC" : "MLC", 0);
    wire_cut(&w);
    TLS_END(pair.loop, pair.client, "MLC", AL_ETLSEOF);
    end_loop(pair.loop);
  }
}

/* The other end goes without a close_notify after ours, or without having read it (a reset): that is in order. */
static void test_close_unanswered(void) {
  for (int unread = 0; unread < 2; unread++) {
    wire w;
    char bytes[4096];
    tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
    wire_connect(&pair, &w);
    al_transport_close(pair.server->peer.transport);
    turns(pair.loop, 2);
    CHECK(!peer_has(&pair.server->peer, 'L'));
    if (!unread) CHECK(recv(w.fds[0], bytes, sizeof bytes, 0) > 0);
    wire_cut(&w);
    TLS_END(pair.loop, pair.server, "MLC", 0);
    TLS_END(pair.loop, pair.client, "MLC", AL_ETLSEOF);
    end_loop(pair.loop);
  }
}

/* What was on its way when we closed is taken in and thrown away, or our last words would be lost by a reset. */
static void test_close_with_data_coming(void) {
  tls_pair pair = tls_pair_new(AF_INET, 0);
  size_t written = 0, last = 0;
  peer_write(&pair.client->peer, &written, 100000);
  peer_write(&pair.server->peer, &last, 50000);
  al_transport_close(pair.server->peer.transport);
  UNTIL(pair.loop, pair.client->peer.received == last);
  tls_pair_end(&pair, "MLC", "MdELC");
}

static void write_on(peer *p, char event) {
  size_t written = 0;
  if (event == 'R') peer_write(p, &written, 600000);
}

/* One that sends for ever doesn't keep us. */
static void test_close_with_endless_data(void) {
  tls_pair pair = tls_pair_new(AF_UNIX, 0);
  al_transport *client = pair.client->peer.transport;
  size_t written = 0;
  al_transport_close(pair.server->peer.transport);
  SSL_set_shutdown(al_tls_native(client), 0);
  CHECK_EQ(al_transport_pause_reading(client), 0); /* it doesn't see our close */
  pair.client->peer.act = write_on;
  peer_write(&pair.client->peer, &written, 1500000);
  UNTIL(pair.loop, peer_has(&pair.server->peer, 'C'));
  TLS_END(pair.loop, pair.server, "MLC", 0);
  UNTIL(pair.loop, peer_has(&pair.client->peer, 'C'));
  CHECK(peer_has(&pair.client->peer, 'P') && pair.client->peer.error < 0);
  tls_peer_free(pair.client);
  end_loop(pair.loop);
}

/* ---- ends from outside ------------------------------------------------------------------------------------------- */

static void cut(bool half_record, bool ignored) {
  wire w;
  uint64_t options = SSL_CTX_get_options(al_tls_ctx_native(server_ctx));
  if (ignored) SSL_CTX_set_options(al_tls_ctx_native(server_ctx), SSL_OP_IGNORE_UNEXPECTED_EOF);
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  if (!(options & SSL_OP_IGNORE_UNEXPECTED_EOF))
    SSL_CTX_clear_options(al_tls_ctx_native(server_ctx), SSL_OP_IGNORE_UNEXPECTED_EOF);
  wire_connect(&pair, &w);
  size_t written = 0;
  peer_write(&pair.client->peer, &written, 100);
  WIRE_UNTIL(pair, &w, pair.server->peer.received == 100);
  if (half_record) {
    w.held[1] = true;
    peer_write(&pair.client->peer, &written, 1000);
    w.held[1] = false;
    w.most = 500;
    wire_carry(&w, 1);
  }
  wire_cut(&w);
  if (ignored) {
    TLS_END(pair.loop, pair.server, "MdELC", 0);
  } else {
    UNTIL(pair.loop, peer_has(&pair.server->peer, 'L'));
    CHECK(strstr(al_tls_failure(pair.server->peer.transport)->reason, "EOF"));
    TLS_END(pair.loop, pair.server, "MdLC", AL_ETLSEOF);
  }
  TLS_END(pair.loop, pair.client, "MLC", half_record ? -ECONNRESET : AL_ETLSEOF);
  end_loop(pair.loop);
}

static void test_truncated(void) {
  cut(false, false);
  cut(true, false);
  cut(false, true);
}

/* What came before the cut is delivered first, also when its protocol paused. */
static void test_truncated_while_paused(void) {
  wire w;
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  wire_connect(&pair, &w);
  CHECK_EQ(al_transport_pause_reading(pair.server->peer.transport), 0);
  size_t written = 0;
  peer_write(&pair.client->peer, &written, 30000);
  wire_run(&w);
  wire_cut(&w);
  turns(pair.loop, 5);
  CHECK_EQ(strlen(pair.server->peer.events), 1);
  al_transport_resume_reading(pair.server->peer.transport);
  UNTIL(pair.loop, peer_has(&pair.server->peer, 'L'));
  CHECK_EQ(pair.server->peer.received, written);
  TLS_END(pair.loop, pair.server, "MdLC", AL_ETLSEOF);
  TLS_END(pair.loop, pair.client, "MLC", AL_ETLSEOF);
  end_loop(pair.loop);
}

static void test_bad_record(void) {
  wire w;
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  wire_connect(&pair, &w);
  CHECK_EQ(write(w.fds[0],
                 "\x17\x03\x03\x00\x20"
                 "0123456789abcdef0123456789abcdef",
                 37),
           37);
  UNTIL(pair.loop, peer_has(&pair.server->peer, 'L'));
  CHECK(strstr(al_tls_failure(pair.server->peer.transport)->reason, "BAD_RECORD_MAC"));
  TLS_END(pair.loop, pair.server, "MLC", AL_ETLS);
  UNTIL(pair.loop, wire_run(&w) && peer_has(&pair.client->peer, 'L'));
  CHECK(strstr(al_tls_failure(pair.client->peer.transport)->reason, "ALERT_BAD_RECORD_MAC")); /* it was told why */
  TLS_END(pair.loop, pair.client, "MLC", AL_ETLS);
  wire_cut(&w);
  end_loop(pair.loop);
}

/* One bit of all is wrong: what was authentic is delivered, nothing else is, and nobody is harmed. */
static void test_spoiled(void) {
  for (int i = 0; i < 60; i++) {
    wire w;
    size_t there = 0, back = 0;
    tls_pair pair = tls_pair_wired(&w, 1 + check_random() % 20000, 50 * MS);
    w.spoil = 1 + check_random() % (i % 2 ? 3000 : 30000);
    for (int n = 0; n < 400 && (there < 100000 || n < 10); n++) {
      if (al_transport_loop(pair.server->peer.transport)) peer_write(&pair.server->peer, &back, 200);
      if (al_transport_loop(pair.client->peer.transport)) peer_write(&pair.client->peer, &there, 300);
      wire_run(&w);
      CHECK_EQ(al_loop_run_once(pair.loop, 0), 0);
    }
    al_transport_close(pair.client->peer.transport);
    al_transport_close(pair.server->peer.transport);
    WIRE_UNTIL(pair, &w, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
    tls_peer_free(pair.server);
    tls_peer_free(pair.client);
    wire_cut(&w);
    end_loop(pair.loop);
  }
}

static void test_reset(void) {
  for (int writing = 0; writing < 2; writing++) {
    int fds[2], other[2];
    al_loop *loop = new_loop();
    tcp_pair(fds);
    make_pair(other);
    tls_pair pair = {loop, tls_peer_new(loop, fds[0], true, 0, 0), tls_peer_new(loop, other[0], false, 0, 0)};
    wire w = {.fds = {fds[1], other[1]}, .most = SIZE_MAX};
    wire_connect(&pair, &w);
    size_t written = 0;
    if (writing) peer_write(&pair.server->peer, &written, 20000000);
    raw_reset(fds[1]);
    UNTIL(loop, peer_has(&pair.server->peer, 'C'));
    CHECK(pair.server->peer.error == -ECONNRESET || pair.server->peer.error == -EPIPE);
    CHECK_EQ(al_transport_write(pair.server->peer.transport, "x", 1, NULL, NULL), 0);
    tls_peer_free(pair.server);
    close(other[1]);
    TLS_END(loop, pair.client, "MLC", AL_ETLSEOF);
    end_loop(loop);
  }
}

/* eof_received can't keep it open. */
static void test_keep_open_is_ignored(void) {
  tls_pair pair = tls_pair_new(AF_UNIX, 0);
  al_set_log(note_log, NULL);
  pair.server->peer.keep_open = true;
  al_transport_close(pair.client->peer.transport);
  UNTIL(pair.loop, peer_has(&pair.server->peer, 'E'));
  CHECK(!strcmp(logged, "returning true from eof_received() has no effect when using ssl"));
  al_set_log(NULL, NULL);
  tls_pair_end(&pair, "MELC", "MLC");
}

static void test_lost_writes(void) {
  tls_pair pair = tls_pair_new(AF_UNIX, 0);
  al_set_log(note_log, NULL);
  al_transport_close(pair.server->peer.transport);
  logged[0] = '\0';
  for (int i = 0; i < 4; i++) CHECK_EQ(al_transport_write(pair.server->peer.transport, "x", 1, NULL, NULL), 0);
  CHECK(!logged[0]);
  CHECK_EQ(al_transport_write(pair.server->peer.transport, "x", 1, NULL, NULL), 0);
  CHECK(!strcmp(logged, "SSL connection is closed"));
  al_set_log(NULL, NULL);
  tls_pair_end(&pair, "MLC", "MELC");
}

/* The one below is closed behind our back; or it gets another protocol, and we hear of its end all the same. */
static void test_below(void) {
  for (int replaced = 0; replaced < 2; replaced++) {
    al_loop *loop = new_loop();
    int fds[2];
    make_pair(fds);
    peer *plain = peer_new_on(loop, fds[0], 0);
    tls_pair pair = {loop, tls_peer_alloc(0), tls_peer_new(loop, fds[1], false, 0, 0)};
    al_tls_options options = tls_options(pair.server, true);
    CHECK_EQ(al_tls_start(plain->transport, &options, &pair.server->peer.protocol, &pair.server->peer.transport), 0);
    tls_peer_made(pair.server);
    tls_connect(&pair);
    if (replaced) al_transport_set_protocol(plain->transport, NULL);
    al_transport_close(plain->transport);
    TLS_END(loop, pair.server, "MLC", 0);
    TLS_END(loop, pair.client, "MLC", AL_ETLSEOF);
    peer_free(plain);
    end_loop(loop);
  }
}

/* ---- from inside of callbacks ------------------------------------------------------------------------------------ */

static int how;
static void end_at(peer *p, char event) {
  if (event == *(const char *)p->arg) enders[how](p->transport);
}

/* Ends it in each callback; connection_lost comes once, whatever else happens. */
static void test_end_inside(void) {
  al_set_log(note_log, NULL);
  static const char events[] = "MdEPRL";
  for (int i = 0; events[i]; i++) {
    for (how = 0; how < 2; how++) {
      int fds[2];
      any_pair(i % 2 ? AF_UNIX : AF_INET, fds);
      tls_pair pair = tls_pair_on(new_loop(), fds, how ? 1000 : 0);
      peer *p = &pair.server->peer;
      size_t written = 0, back = 0;
      p->act = end_at;
      p->arg = (void *)&events[i];
      UNTIL(pair.loop, pair.client->told && pair.server->told);
      peer_write(&pair.client->peer, &back, 50000);
      if (!al_transport_is_closing(p->transport)) peer_write(p, &written, 3000000);
      for (int n = 0; n < 50 && pair.client->peer.received < written; n++) turns(pair.loop, 1);
      al_transport_close(pair.client->peer.transport);
      UNTIL(pair.loop, peer_has(p, 'C') && peer_has(&pair.client->peer, 'C'));
      CHECK(peer_has(p, 'L') && peer_has(&pair.client->peer, 'L'));
      tls_peer_free(pair.server);
      tls_peer_free(pair.client);
      end_loop(pair.loop);
    }
  }
  al_set_log(NULL, NULL);
}

static void pause_at_data(peer *p, char event) {
  if (event == 'd') al_transport_pause_reading(p->transport);
}

static void close_other(al_protocol *protocol, const char *data, size_t len) {
  peer *p = (peer *)protocol;
  al_transport_close(p->arg);
  al_transport_close(p->transport);
  check_pattern(data, p->received, len);
  p->received += len;
}

/* The bytes lent to a protocol stay as they are while it closes connections that have something in hand to throw away,
 * its own one too. */
static void test_close_others_inside(void) {
  al_protocol_ops ops = stream_ops;
  ops.data_received = close_other;
  tls_pair one = tls_pair_new(AF_INET, 0), two = {one.loop, NULL, NULL};
  int fds[2];
  make_pair(fds);
  two = tls_pair_on(one.loop, fds, 1000);
  tls_connect(&two);
  two.server->peer.act = pause_at_data;
  size_t written = 0, other = 0;
  peer_write(&two.client->peer, &other, 50000);
  UNTIL(one.loop, two.server->peer.received == 1000);
  one.server->peer.protocol.ops = &ops;
  al_transport_set_protocol(one.server->peer.transport, &one.server->peer.protocol);
  one.server->peer.arg = two.server->peer.transport;
  peer_write(&one.client->peer, &written, 200000);
  UNTIL(one.loop, peer_has(&one.client->peer, 'C') && peer_has(&one.server->peer, 'C'));
  UNTIL(one.loop, peer_has(&two.client->peer, 'C') && peer_has(&two.server->peer, 'C'));
  CHECK(one.server->peer.received > 0 && two.server->peer.received == 1000);
  tls_peer_free(one.server);
  tls_peer_free(one.client);
  tls_peer_free(two.server);
  tls_peer_free(two.client);
  end_loop(one.loop);
}

/* Whatever is done, in whatever order: the end comes once and nothing is lost of memory or descriptors. */
static void act_at_random(peer *p, char event) {
  size_t *written = p->arg;
  if (event == 'L' || event == 'C') return;
  switch (check_random() % 12) {
  case 0: al_transport_pause_reading(p->transport); break;
  case 1:
  case 2: al_transport_resume_reading(p->transport); break;
  case 3: peer_write(p, written, 1 + check_random() % 100); break;
  case 4: peer_write(p, written, 1 + check_random() % 300000); break;
  case 5:
    if (check_random() % 5 == 0) al_transport_close(p->transport);
    break;
  case 6:
    if (check_random() % 9 == 0) al_transport_abort(p->transport);
    break;
  case 7: al_loop_break(al_transport_loop(p->transport)); break;
  }
}

static void test_random(void) {
  al_set_log(note_log, NULL);
  for (int i = 0; i < 60; i++) {
    wire w;
    tls_pair pair = tls_pair_wired(&w, 1 + check_random() % 70000, 0);
    tls_peer *ends[] = {pair.server, pair.client};
    size_t written[2] = {0, 0};
    for (int e = 0; e < 2; e++) {
      peer_set_buffer(&ends[e]->peer, check_random() % 2 ? 1 + check_random() % 20000 : 0);
      ends[e]->peer.act = act_at_random;
      ends[e]->peer.arg = &written[e];
    }
    for (int n = 0; n < 60; n++) {
      CHECK_EQ(al_loop_run_once(pair.loop, 0), 0);
      wire_run(&w);
      peer *p = &ends[check_random() % 2]->peer;
      if (al_transport_loop(p->transport)) act_at_random(p, ' ');
      if (check_random() % 400 == 0) wire_cut(&w);
    }
    for (int e = 0; e < 2; e++) {
      ends[e]->peer.act = NULL;
      al_transport_abort(ends[e]->peer.transport);
    }
    if (w.fds[0] >= 0) wire_cut(&w);
    UNTIL(pair.loop, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
    tls_peer_free(pair.server);
    tls_peer_free(pair.client);
    end_loop(pair.loop);
  }
  al_set_log(NULL, NULL);
}

/* ---- the loop, servers, memory ----------------------------------------------------------------------------------- */

/* The loop closes in each state; the owner is told, the protocol and `done` are not. */
static void test_loop_close(void) {
  for (int state = 0; state < 5; state++) {
    wire w;
    tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
    size_t written = 0;
    if (state == 1) turns(pair.loop, 2);
    if (state >= 2) wire_connect(&pair, &w);
    if (state >= 3) peer_write(&pair.server->peer, &written, state == 4 ? 3000000 : 10);
    if (state >= 3) al_transport_close(pair.server->peer.transport);
    CHECK_EQ(al_loop_close(pair.loop), 0);
    CHECK(peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
    CHECK(!peer_has(&pair.server->peer, 'L') && !peer_has(&pair.client->peer, 'L'));
    CHECK_EQ(pair.server->told, state >= 2);
    al_transport_abort(pair.server->peer.transport);
    al_transport_close(pair.client->peer.transport);
    tls_peer_free(pair.server);
    tls_peer_free(pair.client);
    al_loop_release(pair.loop);
    wire_cut(&w);
  }
}

static int servers_closed;
static void server_closed(al_server *server, void *data) {
  (void)server, (void)data;
  servers_closed++;
}

/* A server counts its TLS connections until they are closed; closing and aborting them is done over TLS. */
static void test_server_group(void) {
  static const al_server_ops ops = {.closed = server_closed};
  for (how = 0; how < 2; how++) {
    wire w;
    al_server *server;
    tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
    servers_closed = 0;
    CHECK_EQ(al_server_new(pair.loop, &ops, NULL, &server), 0);
    al_server_attach(server, pair.server->peer.transport);
    int raw;
    tls_peer *unfinished = lone(pair.loop, &raw, true, 0);
    al_server_attach(server, unfinished->peer.transport);
    wire_connect(&pair, &w);
    CHECK_EQ(al_server_clients(server), 2);
    al_server_close(server);
    turns(pair.loop, 3);
    CHECK_EQ(servers_closed, 0);
    if (how)
      al_server_abort_clients(server);
    else
      al_server_close_clients(server);
    WIRE_UNTIL(pair, &w, servers_closed);
    WIRE_UNTIL(pair, &w, peer_has(&pair.client->peer, 'C'));
    CHECK_EQ(pair.client->peer.error, how ? AL_ETLSEOF : 0);
    TLS_END(pair.loop, pair.server, "MLC", 0);
    TLS_END(pair.loop, unfinished, "C", 0);
    al_server_release(server);
    tls_peer_free(pair.client);
    wire_cut(&w);
    close(raw);
    end_loop(pair.loop);
  }
}

/* Nobody but itself holds it. */
static void test_without_references(void) {
  static const al_protocol_ops deaf;
  al_protocol protocol = {&deaf};
  al_loop *loop = new_loop();
  int fds[2];
  al_transport *t;
  make_pair(fds);
  CHECK_EQ(al_tls_new(loop, fds[0], NULL, &(al_tls_options){.ctx = server_ctx, .server_side = true}, &protocol, &t), 0);
  al_transport_release(t);
  tls_peer *client = tls_peer_new(loop, fds[1], false, 0, 0);
  UNTIL(loop, client->told);
  CHECK_EQ(client->result, 0);
  al_transport_close(client->peer.transport);
  TLS_END(loop, client, "MLC", 0);
  end_loop(loop);
}

static void try_without_memory(al_loop *loop, tls_peer *p, int fd, bool server) {
  al_tls_options options = tls_options(p, server);
  int err = al_tls_new(loop, fd, NULL, &options, &p->peer.protocol, &p->peer.transport);
  if (!err) return;
  CHECK_EQ(err, -ENOMEM);
  close(fd);
}

static void write_something(tls_peer *p) {
  if (!p->peer.transport) return;
  int err = al_transport_write(p->peer.transport, pattern_at(0), PATTERN_SIZE, NULL, NULL);
  CHECK(err == 0 || err == -ENOMEM);
}

static void finish_without_memory(al_loop *loop, tls_peer *p) {
  if (p->peer.transport) {
    al_transport_set_owner(p->peer.transport, &peer_owner, &p->peer);
    bool open = al_transport_loop(p->peer.transport) != NULL;
    al_transport_abort(p->peer.transport);
    if (open) UNTIL(loop, peer_has(&p->peer, 'C'));
    CHECK_EQ(p->told, 1);
    al_transport_release(p->peer.transport);
  }
  free(p->peer.buffer);
  free(p);
}

/* The allocation after the next n fails, and all that follow for a while. Nothing leaks, nothing is told twice. */
static bool without_memory(long n) {
  int fds[2];
  make_pair(fds);
  al_loop *loop = new_loop();
  tls_peer *ends[2] = {tls_peer_alloc(n % 3 ? 0 : 100), tls_peer_alloc(0)};
  bool failing = al_mem_fail_after(n);
  for (int i = 0; i < 2; i++) try_without_memory(loop, ends[i], fds[i], i == 0);
  turns(loop, 8);
  for (int i = 0; i < 20; i++) write_something(ends[1]);
  if (ends[0]->peer.transport) al_transport_pause_reading(ends[0]->peer.transport);
  turns(loop, 4);
  al_mem_fail_after(-1);
  for (int i = 0; i < 2; i++) finish_without_memory(loop, ends[i]);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  al_set_log(note_log, NULL);
  for (long n = 0; n < 40 && without_memory(n); n++) continue;
  al_set_log(NULL, NULL);
}

static void run_tests(void) {
  RUN_CLEAN(test_end_before_handshake);
  RUN_CLEAN(test_forget);
  RUN_CLEAN(test_close_flushes);
  RUN_CLEAN(test_abort_is_told);
  RUN_CLEAN(test_fail);
  RUN_CLEAN(test_shutdown_timeout);
  RUN_CLEAN(test_close_then_abort);
  RUN_CLEAN(test_close_unanswered);
  RUN_CLEAN(test_close_with_data_coming);
  RUN_CLEAN(test_close_with_endless_data);
  RUN_CLEAN(test_truncated);
  RUN_CLEAN(test_truncated_while_paused);
  RUN_CLEAN(test_bad_record);
  RUN_CLEAN(test_spoiled);
  RUN_CLEAN(test_reset);
  RUN_CLEAN(test_keep_open_is_ignored);
  RUN_CLEAN(test_lost_writes);
  RUN_CLEAN(test_below);
  RUN_CLEAN(test_end_inside);
  RUN_CLEAN(test_close_others_inside);
  RUN_CLEAN(test_random);
  RUN_CLEAN(test_loop_close);
  RUN_CLEAN(test_server_group);
  RUN_CLEAN(test_without_references);
  RUN_CLEAN(test_without_memory);
}

int main(int argc, char **argv) { return tls_main(argc, argv, run_tests); }
