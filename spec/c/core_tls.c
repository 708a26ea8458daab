/* core_tls.c - tests of TLS transports through aloop.h alone: both roles, data both ways, pausing, water marks,
 * buffered protocols, upgrades, TLS in TLS, key updates, sessions. How they end is core_tls_end.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "tls_peers.h"

static int family; /* of the pair under test */

/* ---- echo -------------------------------------------------------------------------------------------------------- */

static void echo_over(tls_pair *pair, size_t size) {
  size_t written = 0;
  pair->server->peer.echo = true;
  while (written < size) {
    peer_write(&pair->client->peer, &written, size - written < 300000 ? size - written : 300000);
    UNTIL(pair->loop, !pair->client->peer.paused);
  }
  UNTIL(pair->loop, pair->client->peer.received == size);
  CHECK_EQ(pair->server->peer.received, size);
}

/* Ends the pair by the client's close. What was told of data and of writing is of no interest. */
static void close_pair(tls_pair *pair) {
  al_transport_close(pair->client->peer.transport);
  UNTIL(pair->loop, peer_has(&pair->server->peer, 'C') && peer_has(&pair->client->peer, 'C'));
  CHECK(peer_has(&pair->server->peer, 'E') && !peer_has(&pair->client->peer, 'E'));
  CHECK_EQ(pair->server->peer.error, 0);
  CHECK_EQ(pair->client->peer.error, 0);
  tls_peer_free(pair->server);
  tls_peer_free(pair->client);
  end_loop(pair->loop);
}

static void echo(size_t size, size_t buffer_size) {
  tls_pair pair = tls_pair_new(family, buffer_size);
  echo_over(&pair, size);
  close_pair(&pair);
}

static void test_echo(void) {
  static const size_t sizes[] = {1, 1000, 16384, 16385, 65536, 1048577, 10485760};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) echo(sizes[i], 0);
}

static void test_echo_buffered(void) {
  echo(1000, 1000);
  echo(100000, 777);
  echo(3000000, 65536);
  echo(3000000, 1000000);
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

static void test_made_after_handshake(void) {
  int fds[2];
  any_pair(family, fds);
  al_loop *loop = new_loop();
  tls_peer *server = tls_peer_new(loop, fds[0], true, 0, 0);
  turns(loop, 3);
  CHECK_EQ(strlen(server->peer.events), 0);
  CHECK(!al_transport_is_closing(server->peer.transport) && al_transport_is_reading(server->peer.transport));
  tls_pair pair = {loop, server, tls_peer_new(loop, fds[1], false, 0, 0)};
  tls_connect(&pair);
  CHECK(!strcmp(server->peer.events, "M") && !strcmp(pair.client->peer.events, "M"));
  CHECK_EQ(server->told + pair.client->told, 2);
  CHECK(SSL_is_init_finished(al_tls_native(server->peer.transport)));
  CHECK(SSL_get_app_data(al_tls_native(server->peer.transport)) == server->peer.transport);
  CHECK(!al_tls_failure(server->peer.transport));
  close_pair(&pair);
}

static void write_at_made(peer *p, char event) {
  size_t written = 0;
  if (event == 'M') peer_write(p, &written, 5000);
}

/* As soon as they may speak, both do. */
static void test_write_at_made(void) {
  int fds[2];
  any_pair(family, fds);
  tls_pair pair = tls_pair_on(new_loop(), fds, 0);
  pair.server->peer.act = pair.client->peer.act = write_at_made;
  tls_connect(&pair);
  UNTIL(pair.loop, pair.server->peer.received == 5000 && pair.client->peer.received == 5000);
  close_pair(&pair);
}

static void test_one_byte_fragments(void) {
  wire w;
  tls_pair pair = tls_pair_wired(&w, 1, 0);
  wire_connect(&pair, &w);
  size_t written = 0, back = 0;
  peer_write(&pair.client->peer, &written, 3000);
  peer_write(&pair.server->peer, &back, 2000);
  WIRE_UNTIL(pair, &w, pair.server->peer.received == written && pair.client->peer.received == back);
  al_transport_close(pair.server->peer.transport);
  WIRE_UNTIL(pair, &w, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
  wire_cut(&w);
  tls_pair_end(&pair, "MdLC", "MdELC");
}

static void test_names(void) {
  tls_pair pair = tls_pair_new(AF_INET, 0);
  al_transport *server = pair.server->peer.transport, *client = pair.client->peer.transport;
  al_addr local, peer_name;
  CHECK_EQ(al_transport_sockname(server, &local), 0);
  CHECK_EQ(al_transport_peername(client, &peer_name), 0);
  CHECK(local.len == peer_name.len && !memcmp(&local.ss, &peer_name.ss, local.len));
  CHECK(al_transport_fd(server) >= 0);
  CHECK(!al_transport_can_write_eof(server));
  CHECK_EQ(al_transport_write_eof(server), -ENOTSUP);
  size_t low, high;
  al_transport_get_limits(server, &low, &high);
  CHECK(low == 131072 && high == 524288);
  al_transport_hold(server);
  close_pair(&pair);
  CHECK_EQ(al_transport_sockname(server, &peer_name), 0); /* known still */
  CHECK(!memcmp(&local.ss, &peer_name.ss, local.len));
  al_transport_release(server);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void pause_at_made(peer *p, char event) {
  if (event == 'M') CHECK_EQ(al_transport_pause_reading(p->transport), 0);
}

static void test_pause_in_made(void) {
  int fds[2];
  any_pair(family, fds);
  tls_pair pair = tls_pair_on(new_loop(), fds, 0);
  pair.server->peer.act = pause_at_made;
  pair.client->peer.act = write_at_made;
  tls_connect(&pair);
  turns(pair.loop, 5);
  CHECK(!strcmp(pair.server->peer.events, "M"));
  CHECK_EQ(pair.server->peer.busy, 0); /* waits for nothing */
  al_transport_resume_reading(pair.server->peer.transport);
  CHECK_EQ(pair.server->peer.busy, 1);
  CHECK(!strcmp(pair.server->peer.events, "M")); /* not from inside resume */
  UNTIL(pair.loop, pair.server->peer.received == 5000);
  close_pair(&pair);
}

static void pause_at_data(peer *p, char event) {
  if (event == 'd') al_transport_pause_reading(p->transport);
}

/* Pauses inside each data_received, with more in flight: nothing comes while paused, nothing is lost, and the end comes
 * last. */
static void pause_resume(size_t buffer_size) {
  tls_pair pair = tls_pair_new(family, buffer_size);
  size_t written = 0, size = 2000000;
  peer *p = &pair.server->peer;
  p->act = pause_at_data;
  peer_write(&pair.client->peer, &written, size);
  al_transport_close(pair.client->peer.transport);
  while (p->received < size) {
    size_t before = p->received;
    UNTIL(pair.loop, p->received > before);
    before = p->received;
    turns(pair.loop, (int)(check_random() % 3));
    CHECK_EQ(p->received, before);
    CHECK(!peer_has(p, 'E'));
    al_transport_resume_reading(p->transport);
    if (check_random() % 3 == 0) { /* back and forth within a turn */
      al_transport_pause_reading(p->transport);
      turns(pair.loop, 2);
      al_transport_resume_reading(p->transport);
    }
    CHECK_EQ(p->received, before);
  }
  TLS_END(pair.loop, pair.server, "MdELC", 0);
  UNTIL(pair.loop, peer_has(&pair.client->peer, 'C'));
  CHECK_EQ(pair.client->peer.error, 0);
  tls_peer_free(pair.client);
  end_loop(pair.loop);
}

static void test_pause_resume(void) { pause_resume(0); }
static void test_pause_resume_buffered(void) { pause_resume(10000); }

static void switch_at_data(peer *p, char event) {
  if (event == 'd') peer_set_buffer(p, p->buffer_size ? 0 : 1 + check_random() % 30000);
}

/* The protocol changes its kind while data is delivered. */
static void test_switch_kind(void) {
  tls_pair pair = tls_pair_new(family, 0);
  pair.server->peer.act = switch_at_data;
  tls_send(&pair, pair.client, pair.server, 2000000);
  close_pair(&pair);
}

static void break_at_data(peer *p, char event) {
  if (event == 'd') al_loop_break(al_transport_loop(p->transport));
}

/* A loop that is broken leaves off after the callback in progress, and loses nothing. */
static void test_break(void) {
  tls_pair pair = tls_pair_new(family, 3000);
  size_t written = 0;
  peer *p = &pair.server->peer;
  peer_write(&pair.client->peer, &written, 60000);
  turns(pair.loop, 2);
  p->act = break_at_data;
  for (size_t before = p->received; before < written; before = p->received) {
    al_loop_run_once(pair.loop, 10 * MS);
    CHECK(p->received - before <= 3000);
  }
  p->act = NULL;
  close_pair(&pair);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* As much as the high mark pauses, the low one resumes, and the size tells what the one below has not taken. */
static void test_marks(void) {
  wire w;
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  wire_connect(&pair, &w);
  peer *p = &pair.client->peer;
  size_t written = 0, low, high;
  while (al_transport_write_buffer_size(p->transport) == 0) peer_write(p, &written, 65536);
  CHECK(!p->paused);
  peer_write(p, &written, 524287 - al_transport_write_buffer_size(p->transport));
  CHECK(!p->paused);
  peer_write(p, &written, 1);
  CHECK(p->paused);
  CHECK_EQ(al_transport_write_buffer_size(p->transport), 524288);
  CHECK_EQ(al_transport_set_limits(p->transport, SIZE_MAX, SIZE_MAX), 0);
  al_transport_get_limits(p->transport, &low, &high);
  CHECK(low == 131072 && high == 524288);
  WIRE_UNTIL(pair, &w, !p->paused);
  CHECK(al_transport_write_buffer_size(p->transport) <= 131072);
  WIRE_UNTIL(pair, &w, pair.server->peer.received == written);
  CHECK_EQ(al_transport_set_limits(p->transport, 0, 0), 0);
  CHECK(!p->paused); /* nothing is unsent */
  al_transport_close(p->transport);
  WIRE_UNTIL(pair, &w, peer_has(p, 'C') && peer_has(&pair.server->peer, 'C'));
  wire_cut(&w);
  tls_pair_end(&pair, "MdELC", "MPRLC");
}

/* Both write, and neither is resumed by anything but the other's reading. */
static void test_both_ways(void) {
  tls_pair pair = tls_pair_new(family, 0);
  size_t there = 0, back = 0, size = 8000000;
  while (there < size || back < size || pair.server->peer.received < size || pair.client->peer.received < size) {
    if (there < size && !pair.client->peer.paused) peer_write(&pair.client->peer, &there, 100000);
    if (back < size && !pair.server->peer.paused) peer_write(&pair.server->peer, &back, 100000);
    CHECK_EQ(al_loop_run_once(pair.loop, 10 * MS), 0);
  }
  close_pair(&pair);
}

static int held, unheld;
static void *keep(void *ud, const char *data, size_t len) {
  (void)data, (void)len;
  held++;
  return ud;
}
static void unkeep(void *token) {
  CHECK(token == &held);
  unheld++;
}

/* The rest of a large write is not copied; it is let go of when it is encrypted, or dropped. */
static void test_keeper(void) {
  static const al_keeper keeper = {keep, unkeep};
  size_t size = 3000000;
  char *data = malloc(size);
  for (size_t at = 0; at < size; at += PATTERN_PERIOD)
    memcpy(data + at, pattern_at(at), size - at < PATTERN_PERIOD ? size - at : PATTERN_PERIOD);
  tls_pair pair = tls_pair_new(family, 0);
  held = unheld = 0;
  CHECK_EQ(al_transport_write(pair.client->peer.transport, data, size, &keeper, &held), 0);
  CHECK(held == 1 && unheld == 0);
  UNTIL(pair.loop, pair.server->peer.received == size);
  CHECK_EQ(unheld, 1);
  al_transport_pause_reading(pair.server->peer.transport);
  CHECK_EQ(al_transport_write(pair.client->peer.transport, data, size, &keeper, &held), 0);
  CHECK_EQ(held, 2);
  al_transport_abort(pair.client->peer.transport);
  CHECK_EQ(unheld, 2);
  TLS_END(pair.loop, pair.client, "MPRPLC", 0);
  al_transport_abort(pair.server->peer.transport);
  TLS_END(pair.loop, pair.server, "MdLC", 0);
  end_loop(pair.loop);
  free(data);
}

/* What a protocol receives from one connection it writes to another, in pieces: the buffers of a loop are shared. */
static size_t forwarded[2];
static void forward(peer *p, char event) {
  peer *to = p->arg;
  if (event != 'd') return;
  peer_write(p, &forwarded[0], 10);
  peer_write(to, &forwarded[1], 7);
  peer_write(p, &forwarded[0], 10);
  peer_write(to, &forwarded[1], 8);
}

static void test_shared_buffers(void) {
  tls_pair one = tls_pair_new(family, 0), two = {one.loop, NULL, NULL};
  int fds[2];
  any_pair(family, fds);
  two = tls_pair_on(one.loop, fds, 0);
  tls_connect(&two);
  forwarded[0] = forwarded[1] = 0;
  one.server->peer.act = forward;
  one.server->peer.arg = &two.server->peer;
  tls_send(&one, one.client, one.server, 50);
  UNTIL(one.loop, one.client->peer.received == 20 && two.client->peer.received == 15);
  al_transport_close(two.client->peer.transport);
  TLS_END(one.loop, two.client, "MdLC", 0);
  TLS_END(one.loop, two.server, "MELC", 0);
  close_pair(&one);
}

/* What is written while data is received leaves in one piece. */
static void write_twice(peer *p, char event) {
  size_t written = 0;
  if (event != 'd') return;
  peer_write(p, &written, 100);
  peer_write(p, &written, 200);
  al_transport_close(p->transport);
}

static void test_gathered(void) {
  wire w;
  char bytes[4096];
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  wire_connect(&pair, &w);
  turns(pair.loop, 2);
  wire_run(&w); /* tickets */
  size_t written = 0;
  pair.server->peer.act = write_twice;
  peer_write(&pair.client->peer, &written, 1);
  wire_carry(&w, 1);
  CHECK_EQ(al_loop_run_once(pair.loop, 100 * MS), 0);
  ssize_t n = recv(w.fds[0], bytes, sizeof bytes, 0);
  CHECK_EQ(n, 3 * (5 + 1 + 16) + 100 + 200 + 2); /* two records and the alert */
  CHECK_EQ(send(w.fds[1], bytes, (size_t)n, 0), n);
  WIRE_UNTIL(pair, &w, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
  wire_cut(&w);
  tls_pair_end(&pair, "MdLC", "MdELC");
}

/* ---- upgrades ---------------------------------------------------------------------------------------------------- */

/* Makes TLS of a peer that was plain; its protocol goes on. */
static tls_peer *upgrade(peer *plain, bool server) {
  tls_peer *p = tls_peer_alloc(0);
  al_tls_options options = tls_options(p, server);
  strcpy(p->peer.events, "M");
  options.upgrade = true;
  CHECK_EQ(al_tls_start(plain->transport, &options, &p->peer.protocol, &p->peer.transport), 0);
  tls_peer_made(p);
  return p;
}

static void free_plain(peer *plain) {
  CHECK(peer_has(plain, 'C') && !peer_has(plain, 'L')); /* its protocol was replaced */
  peer_free(plain);
}

/* Ends the pair by the server's close. */
static void close_upgraded(tls_pair *pair) {
  al_transport_close(pair->server->peer.transport);
  UNTIL(pair->loop, peer_has(&pair->server->peer, 'C') && peer_has(&pair->client->peer, 'C'));
  CHECK(pair->server->peer.error == 0 && pair->client->peer.error == 0);
  tls_peer_free(pair->server);
  tls_peer_free(pair->client);
}

/* Both ends talk, then switch; writes of before the handshake are sent after it. */
static void test_upgrade(void) {
  int fds[2];
  any_pair(family, fds);
  al_loop *loop = new_loop();
  peer *plain[2] = {peer_new_on(loop, fds[0], 0), peer_new_on(loop, fds[1], 0)};
  size_t written = 0, early = 0;
  turns(loop, 1);
  peer_write(plain[1], &written, 20);
  UNTIL(loop, plain[0]->received == 20);
  tls_pair pair = {loop, upgrade(plain[0], true), upgrade(plain[1], false)};
  peer_write(&pair.client->peer, &early, 700000);
  CHECK(pair.client->peer.paused);
  tls_connect(&pair);
  CHECK_EQ(pair.server->peer.events[1] == 'M', 0); /* no second connection_made */
  UNTIL(loop, pair.server->peer.received == 700000);
  CHECK(!pair.client->peer.paused);
  close_upgraded(&pair);
  free_plain(plain[0]);
  free_plain(plain[1]);
  end_loop(loop);
}

/* A protocol that was told to pause, by the transport that it had, is told to go on by the one that it gets. */
static void test_upgrade_while_paused(void) {
  int fds[2];
  make_pair(fds);
  al_loop *loop = new_loop();
  peer *plain = peer_new_on(loop, fds[0], 0);
  size_t written = 0, received = 0;
  turns(loop, 1);
  while (!plain->paused) peer_write(plain, &written, 65536);
  tls_peer *p = tls_peer_alloc(0);
  al_tls_options options = tls_options(p, true);
  strcpy(p->peer.events, "M");
  p->peer.paused = options.upgrade = true;
  CHECK_EQ(al_tls_start(plain->transport, &options, &p->peer.protocol, &p->peer.transport), 0);
  tls_peer_made(p);
  CHECK(p->peer.paused);
  UNTIL(loop, raw_receive(fds[1], &received, SIZE_MAX) && !p->peer.paused);
  CHECK_EQ(received, written);
  close(fds[1]);
  TLS_END(loop, p, "MRLC", -ECONNRESET);
  CHECK(peer_has(plain, 'C'));
  peer_free(plain);
  end_loop(loop);
}

/* What the former protocol had received too early is handed over. */
static void test_upgrade_fed(void) {
  int fds[2];
  any_pair(family, fds);
  al_loop *loop = new_loop();
  peer *plain = peer_new_on(loop, fds[0], 0);
  tls_peer *client = tls_peer_new(loop, fds[1], false, 0, 0);
  char hello[2000];
  CHECK_EQ(al_transport_pause_reading(plain->transport), 0);
  turns(loop, 5);
  ssize_t n = recv(al_transport_fd(plain->transport), hello, 100, 0); /* as the former protocol had it */
  CHECK_EQ(n, 100);
  tls_peer *server = upgrade(plain, true);
  CHECK_EQ(al_tls_feed(server->peer.transport, hello, 40), 0);
  CHECK_EQ(al_tls_feed(server->peer.transport, hello + 40, 60), 0);
  tls_pair pair = {loop, server, client};
  tls_connect(&pair);
  tls_send(&pair, client, server, 100);
  close_upgraded(&pair);
  free_plain(plain);
  end_loop(loop);
}

/* ---- TLS in TLS -------------------------------------------------------------------------------------------------- */

static tls_peer *nest(tls_peer *outer, bool server) {
  tls_peer *p = tls_peer_alloc(0);
  al_tls_options options = tls_options(p, server);
  CHECK_EQ(al_tls_start(outer->peer.transport, &options, &p->peer.protocol, &p->peer.transport), 0);
  tls_peer_made(p);
  return p;
}

static void free_outer(tls_peer *outer) {
  CHECK(!strcmp(outer->peer.events, "MC"));
  tls_peer_free(outer);
}

static void test_tls_in_tls(void) {
  tls_pair outer = tls_pair_new(family, 0);
  tls_pair middle = {outer.loop, nest(outer.server, true), nest(outer.client, false)};
  tls_connect(&middle);
  tls_pair inner = {outer.loop, nest(middle.server, true), nest(middle.client, false)};
  tls_connect(&inner);
  echo_over(&inner, 3000000);
  CHECK_EQ(al_transport_fd(inner.server->peer.transport), al_transport_fd(outer.server->peer.transport));
  al_transport_close(inner.client->peer.transport);
  UNTIL(inner.loop, peer_has(&inner.client->peer, 'C') && peer_has(&inner.server->peer, 'C'));
  CHECK_EQ(inner.client->peer.error, 0);
  CHECK_EQ(inner.server->peer.error, 0);
  CHECK(peer_has(&inner.server->peer, 'E'));
  tls_peer_free(inner.server);
  tls_peer_free(inner.client);
  free_outer(middle.server);
  free_outer(middle.client);
  free_outer(outer.server);
  free_outer(outer.client);
  end_loop(outer.loop);
}

/* ---- keys and sessions ------------------------------------------------------------------------------------------- */

static void test_key_update(void) {
  tls_pair pair = tls_pair_new(family, 0);
  SSL *server = al_tls_native(pair.server->peer.transport), *client = al_tls_native(pair.client->peer.transport);
  CHECK_EQ(SSL_version(server), TLS1_3_VERSION);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED), 1);
    tls_send(&pair, pair.client, pair.server, 40000);
    CHECK_EQ(SSL_key_update(server, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    tls_send(&pair, pair.server, pair.client, 30000);
  }
  close_pair(&pair);
}

/* One that asks for new keys on and on, and never reads the answers, isn't read any more. */
static void test_endless_key_updates(void) {
  wire w;
  tls_pair pair = tls_pair_wired(&w, SIZE_MAX, 0);
  wire_connect(&pair, &w);
  SSL *client = al_tls_native(pair.client->peer.transport);
  size_t written = 0;
  tls_peer *ends[] = {pair.server, pair.client};
  for (int e = 0, size = 4096; e < 2; e++)
    CHECK_EQ(setsockopt(al_transport_fd(ends[e]->peer.transport), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
  w.held[0] = true;
  while (SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED) == 1) {
    CHECK(written < 1000000);
    peer_write(&pair.client->peer, &written, 1);
    if (written % 100 == 0) WIRE_UNTIL(pair, &w, true);
  }
  CHECK(pair.server->peer.received < written && al_transport_write_buffer_size(pair.client->peer.transport) > 0);
  w.held[0] = false;
  WIRE_UNTIL(pair, &w, pair.server->peer.received == written);
  al_transport_close(pair.client->peer.transport);
  WIRE_UNTIL(pair, &w, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
  wire_cut(&w);
  tls_pair_end(&pair, "MdELC", "MLC");
}

static void test_tls_1_2(void) {
  SSL_CTX_set_max_proto_version(al_tls_ctx_native(client_ctx), TLS1_2_VERSION);
  tls_pair pair = tls_pair_new(family, 0);
  SSL_CTX_set_max_proto_version(al_tls_ctx_native(client_ctx), 0);
  CHECK_EQ(SSL_version(al_tls_native(pair.server->peer.transport)), TLS1_2_VERSION);
  CHECK_EQ(SSL_renegotiate(al_tls_native(pair.server->peer.transport)), 0);
  echo_over(&pair, 1000000);
  close_pair(&pair);
}

static void test_session(void) {
  tls_pair first = tls_pair_new(family, 0);
  tls_send(&first, first.server, first.client, 1); /* the tickets came before it */
  SSL_SESSION *session = SSL_get1_session(al_tls_native(first.client->peer.transport));
  CHECK(session && SSL_SESSION_is_resumable(session));
  close_pair(&first);
  int fds[2];
  any_pair(family, fds);
  tls_pair pair = {new_loop(), NULL, tls_peer_alloc(0)};
  al_tls_options options = tls_options(pair.client, false);
  options.session = session;
  CHECK_EQ(al_tls_new(pair.loop, fds[1], NULL, &options, &pair.client->peer.protocol, &pair.client->peer.transport), 0);
  SSL_SESSION_free(session);
  tls_peer_made(pair.client);
  pair.server = tls_peer_new(pair.loop, fds[0], true, 0, 0);
  tls_connect(&pair);
  CHECK_EQ(SSL_session_reused(al_tls_native(pair.client->peer.transport)), 1);
  CHECK_EQ(SSL_session_reused(al_tls_native(pair.server->peer.transport)), 1);
  close_pair(&pair);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void on_sent(void *data, int error, int64_t sent) {
  (void)sent;
  CHECK_EQ(error, 0);
  ++*(int *)data;
}

/* The kernel can't send files over TLS; piece by piece it works, and nobody else may write meanwhile. */
static void test_feed(void) {
  tls_pair pair = tls_pair_new(family, 0);
  al_transport *t = pair.client->peer.transport;
  al_sendfile *request, *feed;
  int64_t sent;
  int flushed = 0;
  CHECK_EQ(al_transport_sendfile(t, &(al_sendfile_what){.file = 0, .count = -1}, NULL, NULL, &request, &sent),
           -ENOTSUP);
  CHECK_EQ(al_feed_new(t, &feed), 0);
  CHECK(!al_transport_is_reading(t));
  CHECK_EQ(al_transport_write(t, "x", 1, NULL, NULL), -EBUSY);
  size_t size = 0;
  int waiting = 0;
  while (waiting == 0) {
    CHECK_EQ(al_feed_write(feed, pattern_at(size), 65536), 0);
    size += 65536;
    waiting = !al_feed_wait(feed, &flushed, on_sent);
  }
  CHECK(al_transport_write_buffer_size(t) > 0);
  UNTIL(pair.loop, flushed);
  CHECK_EQ(al_transport_write_buffer_size(t), 0);
  al_feed_free(feed);
  CHECK(al_transport_is_reading(t));
  UNTIL(pair.loop, pair.server->peer.received == size);
  close_pair(&pair);
}

static void run_tests(void) {
  static const int families[] = {AF_UNIX, AF_INET};
  for (int i = 0; i < 2; i++) {
    family = families[i];
    RUN_CLEAN(test_echo);
    RUN_CLEAN(test_echo_buffered);
    RUN_CLEAN(test_made_after_handshake);
    RUN_CLEAN(test_write_at_made);
    RUN_CLEAN(test_pause_in_made);
    RUN_CLEAN(test_pause_resume);
    RUN_CLEAN(test_pause_resume_buffered);
    RUN_CLEAN(test_switch_kind);
    RUN_CLEAN(test_break);
    RUN_CLEAN(test_both_ways);
    RUN_CLEAN(test_keeper);
    RUN_CLEAN(test_shared_buffers);
    RUN_CLEAN(test_upgrade);
    RUN_CLEAN(test_upgrade_fed);
    RUN_CLEAN(test_tls_in_tls);
    RUN_CLEAN(test_key_update);
    RUN_CLEAN(test_tls_1_2);
    RUN_CLEAN(test_session);
    RUN_CLEAN(test_feed);
  }
  RUN_CLEAN(test_upgrade_while_paused);
  RUN_CLEAN(test_endless_key_updates);
  RUN_CLEAN(test_names);
  RUN_CLEAN(test_one_byte_fragments);
  RUN_CLEAN(test_marks);
  RUN_CLEAN(test_gathered);
}

int main(int argc, char **argv) { return tls_main(argc, argv, run_tests); }
