/* core_tls_handshake.c - tests of handshakes that fail or never end, through aloop.h alone; and of what TLS can't be
 * started on.
 *
 * SPDX-License-Identifier: MIT */
#include "tls_peers.h"

/* ---- handshakes that never end ----------------------------------------------------------------------------------- */

static void test_handshake_timeout(void) {
  al_loop *loop = new_loop();
  al_loop_stats before, after;
  int raw;
  tls_peer *p = lone(loop, &raw, true, 150 * MS);
  turns(loop, 3);
  al_loop_get_stats(loop, &before);
  UNTIL(loop, p->told);
  al_loop_get_stats(loop, &after);
  CHECK(after.turns - before.turns < 40); /* a silent client costs nothing */
  const al_tls_error *why = al_tls_failure(p->peer.transport);
  CHECK_EQ(why->error, AL_ETLSSLOW);
  CHECK(!strcmp(why->message, "SSL handshake is taking longer than 0.15 seconds: aborting the connection"));
  end_failed(loop, p, raw, AL_ETLSSLOW);
}

/* Stalled half-way: one byte of a ClientHello. */
static void test_handshake_stalled(void) {
  al_loop *loop = new_loop();
  int raw;
  tls_peer *p = lone(loop, &raw, true, 100 * MS);
  CHECK_EQ(write(raw, "\x16", 1), 1);
  UNTIL(loop, p->told);
  end_failed(loop, p, raw, AL_ETLSSLOW);
}

static void test_handshake_timeout_client(void) {
  al_loop *loop = new_loop();
  int raw;
  tls_peer *p = lone(loop, &raw, false, 100 * MS);
  end_failed(loop, p, raw, AL_ETLSSLOW);
}

/* ---- handshakes that fail ---------------------------------------------------------------------------------------- */

static void test_eof_in_handshake(void) {
  for (int bytes = 0; bytes < 2; bytes++) {
    al_loop *loop = new_loop();
    int raw;
    tls_peer *p = lone(loop, &raw, true, 0);
    if (bytes) CHECK_EQ(write(raw, "\x16\x03\x01", 3), 3);
    shutdown(raw, SHUT_WR);
    end_failed(loop, p, raw, -ECONNRESET);
  }
}

static void test_reset_in_handshake(void) {
  al_loop *loop = new_loop();
  int fds[2];
  tcp_pair(fds);
  tls_peer *p = tls_peer_new(loop, fds[0], true, 0, 0);
  turns(loop, 3);
  raw_reset(fds[1]);
  UNTIL(loop, p->told);
  end_failed(loop, p, dup(0), -ECONNRESET);
}

static void garbage(const char *bytes, const char *reason) {
  al_loop *loop = new_loop();
  int raw;
  tls_peer *p = lone(loop, &raw, true, 0);
  CHECK_EQ(write(raw, bytes, strlen(bytes)), (ssize_t)strlen(bytes));
  UNTIL(loop, p->told);
  const al_tls_error *why = al_tls_failure(p->peer.transport);
  CHECK(why && !strcmp(why->library, "SSL") && strstr(why->reason, reason));
  end_failed(loop, p, raw, AL_ETLS);
}

static void test_garbage(void) {
  garbage("GET / HTTP/1.0\r\n\r\n", "HTTP_REQUEST");
  garbage("what is this nonsense?", "WRONG_VERSION_NUMBER");
  garbage("\x16\x03\x01\xff\xff\x01\x01\x01", "LENGTH");
}

/* The client trusts nobody: it says why, and the server hears of it by an alert. */
static void test_untrusted(void) {
  al_tls_ctx *trusted = client_ctx;
  int fds[2];
  al_loop *loop = new_loop();
  make_pair(fds);
  CHECK_EQ(al_tls_ctx_new(AL_TLS_CLIENT, &client_ctx, NULL), 0);
  tls_pair pair = tls_pair_on(loop, fds, 0);
  al_tls_ctx_release(client_ctx);
  client_ctx = trusted;
  UNTIL(loop, pair.server->told && pair.client->told);
  CHECK_EQ(pair.client->result, AL_ETLSVERIFY);
  const al_tls_error *why = al_tls_failure(pair.client->peer.transport);
  CHECK(why && why->verify_code && !strcmp(why->reason, "CERTIFICATE_VERIFY_FAILED"));
  TLS_END(loop, pair.client, "C", 0);
  /* In TLS 1.3 the alert is all that the server has heard: it has not succeeded. */
  CHECK_EQ(pair.server->result, AL_ETLS);
  why = al_tls_failure(pair.server->peer.transport);
  CHECK(why && strstr(why->reason, "ALERT_UNKNOWN_CA"));
  TLS_END(loop, pair.server, "C", 0);
  end_loop(loop);
}

static void test_wrong_host(void) {
  int fds[2];
  al_loop *loop = new_loop();
  make_pair(fds);
  tls_peer *server = tls_peer_new(loop, fds[0], true, 0, 0), *client = tls_peer_alloc(0);
  al_tls_options options = tls_options(client, false);
  options.host = "example.org";
  CHECK_EQ(al_tls_new(loop, fds[1], NULL, &options, &client->peer.protocol, &client->peer.transport), 0);
  tls_peer_made(client);
  UNTIL(loop, server->told && client->told);
  CHECK_EQ(client->result, AL_ETLSVERIFY);
  CHECK(strstr(al_tls_failure(client->peer.transport)->message, "example.org"));
  TLS_END(loop, client, "C", 0);
  TLS_END(loop, server, "C", 0);
  end_loop(loop);
}

/* Whoever had a connection before hears of its end. */
static void test_upgrade_fails(void) {
  al_loop *loop = new_loop();
  int fds[2];
  make_pair(fds);
  peer *plain = peer_new_on(loop, fds[0], 0);
  tls_peer *p = tls_peer_alloc(0);
  turns(loop, 1);
  strcpy(p->peer.events, "M");
  al_tls_options options = tls_options(p, true);
  options.upgrade = true;
  CHECK_EQ(al_tls_start(plain->transport, &options, &p->peer.protocol, &p->peer.transport), 0);
  tls_peer_made(p);
  CHECK_EQ(write(fds[1], "nonsense", 8), 8);
  UNTIL(loop, p->told);
  CHECK_EQ(p->result, AL_ETLS);
  TLS_END(loop, p, "MLC", AL_ETLS);
  CHECK(peer_has(plain, 'C'));
  peer_free(plain);
  close(fds[1]);
  end_loop(loop);
}

/* What TLS can't be started on. */
static void test_refused(void) {
  al_loop *loop = new_loop();
  int fds[2], ends[2];
  make_pair(fds);
  CHECK_EQ(pipe(ends), 0);
  peer *plain = peer_new_on(loop, fds[0], 0);
  tls_peer *p = tls_peer_alloc(0);
  al_tls_options options = tls_options(p, true);
  al_transport *made = NULL, *reader;
  al_sendfile *feed;
  CHECK_EQ(al_pipe_reader_new(loop, ends[0], NULL, NULL, &reader), 0);
  CHECK_EQ(al_tls_start(reader, &options, &p->peer.protocol, &made), -ENOTSUP);
  turns(loop, 1);
  CHECK_EQ(al_feed_new(plain->transport, &feed), 0);
  CHECK_EQ(al_tls_start(plain->transport, &options, &p->peer.protocol, &made), -EBUSY);
  al_feed_free(feed);
  al_transport_close(plain->transport);
  CHECK_EQ(al_tls_start(plain->transport, &options, &p->peer.protocol, &made), -ESHUTDOWN);
  options = tls_options(p, false);
  options.host = NULL;
  CHECK_EQ(al_tls_new(loop, fds[1], NULL, &options, &p->peer.protocol, &made), -EINVAL);
  CHECK(!made);
  free(p);
  al_transport_abort(reader);
  al_transport_release(reader);
  PEER_END(loop, plain, "MLC");
  turns(loop, 3);
  close(fds[1]);
  close(ends[1]);
  end_loop(loop);
}

static void run_tests(void) {
  RUN_CLEAN(test_handshake_timeout);
  RUN_CLEAN(test_handshake_stalled);
  RUN_CLEAN(test_handshake_timeout_client);
  RUN_CLEAN(test_eof_in_handshake);
  RUN_CLEAN(test_reset_in_handshake);
  RUN_CLEAN(test_garbage);
  RUN_CLEAN(test_untrusted);
  RUN_CLEAN(test_wrong_host);
  RUN_CLEAN(test_upgrade_fails);
  RUN_CLEAN(test_refused);
}

int main(int argc, char **argv) { return tls_main(argc, argv, run_tests); }
