/* echo_server.c [port [certificate [key]]] - a TCP echo server in C, without Lua: aloop.h is all of aloop that it
 * needs. Listens at 127.0.0.1 until SIGINT or SIGTERM; port 0 or none: any free one. With a certificate it speaks TLS.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"

#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct connection {
  al_protocol protocol;
  al_transport *transport;
} connection;

static al_tls_ctx *tls; /* NULL: plain TCP */

static al_transport *transport_of(al_protocol *protocol) { return ((connection *)protocol)->transport; }
static void on_data(al_protocol *protocol, const char *data, size_t len) {
  al_transport_write(transport_of(protocol), data, len, NULL, NULL);
}

/* As much goes out as comes in: a client that doesn't read is not read from either. */
static void on_pause(al_protocol *protocol) { al_transport_pause_reading(transport_of(protocol)); }
static void on_resume(al_protocol *protocol) { al_transport_resume_reading(transport_of(protocol)); }

static void on_lost(al_protocol *protocol, int error) {
  (void)error;
  al_transport_release(transport_of(protocol));
  free(protocol);
}

static const al_protocol_ops echo = {
    .data_received = on_data, .pause_writing = on_pause, .resume_writing = on_resume, .connection_lost = on_lost};

/* A handshake that failed never was a connection. */
static void on_handshake(al_transport *transport, void *c, int error) {
  (void)transport;
  if (error) on_lost(c, error);
}

static int open_transport(al_loop *loop, int fd, const al_addr *peer, connection *c) {
  al_tls_options options = {.ctx = tls, .server_side = true, .data = c, .done = on_handshake};
  return tls ? al_tls_new(loop, fd, peer, &options, &c->protocol, &c->transport)
             : al_stream_new(loop, fd, peer, &c->protocol, NULL, &c->transport);
}

static void on_accepted(al_server *server, void *loop, int fd, const al_addr *peer) {
  connection *c = calloc(1, sizeof(*c));
  if (c) c->protocol.ops = &echo;
  if (c && open_transport(loop, fd, peer, c) == 0)
    al_server_attach(server, c->transport);
  else
    free(c), close(fd);
}
static void on_closed(al_server *server, void *loop) { (void)server, al_loop_stop(loop); }
static const al_server_ops server_ops = {.accepted = on_accepted, .closed = on_closed};

static void on_signal(al_loop *loop, al_handle *handle) {
  (void)handle;
  al_server_close(al_loop_data(loop)); /* ends the loop when the clients are gone */
  al_server_abort_clients(al_loop_data(loop));
}

static int listen_at(al_server *server, const char *port) {
  al_addr addr;
  char text[AL_ADDR_STRLEN];
  int fd, err = al_addr_ip(&addr, "127.0.0.1", (uint16_t)atoi(port), 0, 0);
  struct addrinfo at = {0, AF_INET, SOCK_STREAM, 0, addr.len, (void *)&addr.ss, NULL, NULL};
  if (err || (err = al_server_bind(server, &at, NULL, NULL)) || (err = al_server_start(server))) return err;
  al_server_sockets(server, &fd, 1);
  getsockname(fd, (void *)&addr.ss, &addr.len);
  printf("listening on %s\n", al_addr_format(&addr, text, sizeof(text)));
  return fflush(stdout);
}

/* The key may stand in the certificate's file. */
static int load_certificate(const char *certificate, const char *key) {
  al_tls_error why;
  if (!al_tls_ctx_new(AL_TLS_SERVER, &tls, &why) && !al_tls_ctx_load_chain(tls, certificate, key, NULL, NULL, &why))
    return 0;
  return fprintf(stderr, "echo_server: %s: %s\n", certificate, why.message), -1;
}

int main(int argc, char **argv) {
  al_handle on_int = {.run = on_signal}, on_term = {.run = on_signal};
  al_loop *loop;
  al_server *server;
  if (argc > 2 && load_certificate(argv[2], argc > 3 ? argv[3] : NULL)) return 1;
  if (al_loop_new(NULL, &loop, NULL) || al_server_new(loop, &server_ops, loop, &server)) return 1;
  int err = listen_at(server, argc > 1 ? argv[1] : "0");
  if (err) return fprintf(stderr, "echo_server: %s\n", al_strerror(err)), 1;
  al_loop_set_data(loop, server);
  al_add_signal(loop, SIGINT, &on_int, NULL);
  al_add_signal(loop, SIGTERM, &on_term, NULL);
  err = al_loop_run_forever(loop);
  al_server_release(server);
  al_loop_release(loop);
  if (tls) al_tls_ctx_release(tls);
  return err ? 1 : 0;
}
