/* tls_peers.h - what the tests of TLS transports share: certificates made by the openssl command, contexts, protocols
 * on both ends (stream_peers.h), and a wire between the ends that carries bytes in pieces, holds them back or cuts off.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TLS_PEERS_H
#define TLS_PEERS_H

#include "stream_peers.h"

#include <openssl/ssl.h>
#include <sys/stat.h>

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static al_tls_ctx *server_ctx, *client_ctx; /* the client trusts the server, as "localhost" */
static char cert_dir[] = "/tmp/aloop-tls-XXXXXX";

static inline void make_contexts(void) {
  char command[512], path[64];
  CHECK(mkdtemp(cert_dir));
  snprintf(path, sizeof path, "%s/cert.pem", cert_dir);
  snprintf(command, sizeof command,
           "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s -out %s.crt -days 2 "
           "-subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null && cat %s.crt >>%s",
           path, path, path, path);
  CHECK_EQ(system(command), 0);
  CHECK_EQ(al_tls_ctx_new(AL_TLS_SERVER, &server_ctx, NULL), 0);
  CHECK_EQ(al_tls_ctx_load_chain(server_ctx, path, NULL, NULL, NULL, NULL), 0);
  CHECK_EQ(al_tls_ctx_new(AL_TLS_CLIENT, &client_ctx, NULL), 0);
  CHECK_EQ(al_tls_ctx_load_ca(client_ctx, path, NULL, NULL), 0);
  unlink(path);
  strcat(path, ".crt");
  unlink(path);
  rmdir(cert_dir);
}

static inline int tls_main(int argc, char **argv, void (*run_tests)(void)) {
  make_contexts();
  int result = run_on_machines(argc, argv, run_tests);
  al_tls_ctx_release(server_ctx);
  al_tls_ctx_release(client_ctx);
  return result;
}

/* ---- one end ----------------------------------------------------------------------------------------------------- */

typedef struct tls_peer {
  peer peer;
  int told; /* how often `done` was called */
  int result;
} tls_peer;

static inline void tls_peer_done(al_transport *transport, void *data, int error) {
  tls_peer *p = data;
  CHECK(transport == p->peer.transport);
  CHECK(error || peer_has(&p->peer, 'M'));
  p->told++;
  p->result = error;
}

static inline al_tls_options tls_options(tls_peer *p, bool server) {
  return (al_tls_options){.ctx = server ? server_ctx : client_ctx,
                          .server_side = server,
                          .host = server ? NULL : "localhost",
                          .data = p,
                          .done = tls_peer_done};
}

static inline tls_peer *tls_peer_alloc(size_t buffer_size) {
  tls_peer *p = calloc(1, sizeof(*p));
  p->peer.busy = -1;
  peer_set_buffer(&p->peer, buffer_size);
  return p;
}

static inline void tls_peer_made(tls_peer *p) {
  al_transport_set_owner(p->peer.transport, &peer_owner, &p->peer);
  CHECK_EQ(p->peer.busy, 1);
  CHECK(al_transport_is_tls(p->peer.transport));
}

/* timeout_ns: of the handshake and the shutdown; 0: the default */
static inline tls_peer *tls_peer_new(al_loop *loop, int fd, bool server, size_t buffer_size, int64_t timeout_ns) {
  tls_peer *p = tls_peer_alloc(buffer_size);
  al_tls_options options = tls_options(p, server);
  options.handshake_timeout_ns = options.shutdown_timeout_ns = timeout_ns;
  CHECK_EQ(al_tls_new(loop, fd, NULL, &options, &p->peer.protocol, &p->peer.transport), 0);
  tls_peer_made(p);
  return p;
}

static inline void tls_peer_free(tls_peer *p) {
  al_transport_release(p->peer.transport);
  free(p->peer.buffer);
  free(p);
}

/* Waits for the end, checks what was told and why it ended, frees it. */
#define TLS_END(loop, p, expected, why)                                                       \
  do {                                                                                        \
    UNTIL(loop, peer_has(&(p)->peer, 'C'));                                                   \
    if (strcmp((p)->peer.events, expected)) {                                                 \
      fprintf(stderr, "%s:%d: %s, not %s\n", __FILE__, __LINE__, (p)->peer.events, expected); \
      exit(1);                                                                                \
    }                                                                                         \
    CHECK_EQ((p)->peer.error, why);                                                           \
    CHECK(al_tls_native((p)->peer.transport) == NULL);                                        \
    tls_peer_free(p);                                                                         \
  } while (0)

/* One end over TLS; the other one is a bare socket. */
static inline tls_peer *lone(al_loop *loop, int *raw, bool server, int64_t timeout_ns) {
  int fds[2];
  make_pair(fds);
  *raw = fds[1];
  return tls_peer_new(loop, fds[0], server, 0, timeout_ns);
}

/* Its handshake has failed, and there never was a connection. */
static inline void end_failed(al_loop *loop, tls_peer *p, int raw, int result) {
  UNTIL(loop, peer_has(&p->peer, 'C'));
  CHECK_EQ(p->told, 1);
  CHECK_EQ(p->result, result);
  TLS_END(loop, p, "C", 0);
  close(raw);
  end_loop(loop);
}

/* ---- both ends --------------------------------------------------------------------------------------------------- */

typedef struct tls_pair {
  al_loop *loop;
  tls_peer *server, *client;
} tls_pair;

static inline tls_pair tls_pair_on(al_loop *loop, int fds[2], size_t buffer_size) {
  tls_pair pair = {loop, NULL, NULL};
  pair.server = tls_peer_new(loop, fds[0], true, buffer_size, 0);
  pair.client = tls_peer_new(loop, fds[1], false, buffer_size, 0);
  return pair;
}

static inline void tls_connect(tls_pair *pair) {
  UNTIL(pair->loop, pair->server->told && pair->client->told);
  CHECK_EQ(pair->server->result, 0);
  CHECK_EQ(pair->client->result, 0);
}

/* A pair that has shaken hands. */
static inline tls_pair tls_pair_new(int family, size_t buffer_size) {
  int fds[2];
  any_pair(family, fds);
  tls_pair pair = tls_pair_on(new_loop(), fds, buffer_size);
  tls_connect(&pair);
  return pair;
}

/* Both ends have come to an end, in these ways. */
static inline void tls_pair_end(tls_pair *pair, const char *server, const char *client) {
  TLS_END(pair->loop, pair->server, server, 0);
  TLS_END(pair->loop, pair->client, client, 0);
  end_loop(pair->loop);
}

/* The data that p has been sent so far, and is sent now. */
static inline void tls_send(tls_pair *pair, tls_peer *from, tls_peer *to, size_t len) {
  size_t sent = to->peer.received, end = sent + len;
  peer_write(&from->peer, &sent, len);
  UNTIL(pair->loop, to->peer.received == end);
}

/* ---- a wire between the ends ------------------------------------------------------------------------------------- */

/* The ends are those of two pairs of sockets; what comes out of one is put into the other. */
typedef struct wire {
  int fds[2];   /* raw: to the server's end, to the client's */
  size_t most;  /* how much is carried at a time */
  bool held[2]; /* nothing is carried from that end */
  size_t spoil; /* so many bytes further on one is changed; 0: none */
} wire;

static inline void wire_carry(wire *w, int from) {
  char bytes[65536];
  if (w->held[from] || w->fds[0] < 0) return;
  ssize_t n = recv(w->fds[from], bytes, w->most < sizeof bytes ? w->most : sizeof bytes, MSG_PEEK);
  if (n == 0) shutdown(w->fds[!from], SHUT_WR);
  if (n > 0 && w->spoil) {
    if (w->spoil <= (size_t)n) bytes[w->spoil - 1] ^= 1 << check_random() % 8;
    w->spoil -= w->spoil < (size_t)n ? w->spoil : (size_t)n;
  }
  ssize_t sent = n > 0 ? send(w->fds[!from], bytes, (size_t)n, MSG_NOSIGNAL) : -1;
  if (sent < 0 && n > 0 && errno != EAGAIN) sent = n; /* nobody is there any more */
  if (sent > 0) CHECK_EQ(recv(w->fds[from], bytes, (size_t)sent, 0), sent);
}

static inline bool wire_run(wire *w) {
  wire_carry(w, 0);
  wire_carry(w, 1);
  return true;
}

static inline void wire_cut(wire *w) {
  close(w->fds[0]);
  close(w->fds[1]);
  w->fds[0] = w->fds[1] = -1;
}

static inline tls_pair tls_pair_wired(wire *w, size_t most, int64_t timeout_ns) {
  tls_pair pair = {new_loop(), NULL, NULL};
  int server[2], client[2];
  make_pair(server);
  make_pair(client);
  pair.server = tls_peer_new(pair.loop, server[0], true, 0, timeout_ns);
  pair.client = tls_peer_new(pair.loop, client[0], false, 0, timeout_ns);
  *w = (wire){.fds = {server[1], client[1]}, .most = most};
  return pair;
}

#define WIRE_UNTIL(pair, w, cond) UNTIL((pair).loop, wire_run(w) && (cond))

static inline void wire_connect(tls_pair *pair, wire *w) {
  WIRE_UNTIL(*pair, w, pair->server->told && pair->client->told);
  CHECK_EQ(pair->server->result, 0);
  CHECK_EQ(pair->client->result, 0);
}

#endif
