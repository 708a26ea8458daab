/* echo_core.c - the echo server on aloop.h, without Lua: shows what of a figure is the loop's and what is Lua's.
 *
 *   echo_core epoll|poll|select|uring tcp | unix:PATH | check [CERTIFICATE KEY]
 *
 * Prints its address; check: only opens the loop. With a certificate it speaks TLS.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct conn {
  al_protocol protocol;
  al_transport *transport;
};

static al_tls_ctx *tls; /* NULL: plain */

static void data_received(al_protocol *protocol, const char *data, size_t len) {
  al_transport_write(((struct conn *)protocol)->transport, data, len, NULL, NULL);
}

static void connection_lost(al_protocol *protocol, int error) {
  (void)error;
  al_transport_release(((struct conn *)protocol)->transport);
  free(protocol);
}

static const al_protocol_ops echo = {.data_received = data_received, .connection_lost = connection_lost};

/* A connection whose handshake fails has neither been made nor will it be lost. */
static void shaken(al_transport *transport, void *data, int error) {
  if (error == 0) return;
  al_transport_release(transport);
  free(data);
}

static int open_transport(al_loop *loop, int fd, const al_addr *peer, struct conn *conn) {
  if (!tls) return al_stream_new(loop, fd, peer, &conn->protocol, NULL, &conn->transport);
  al_tls_options options = {.ctx = tls, .server_side = true, .data = conn, .done = shaken};
  return al_tls_new(loop, fd, peer, &options, &conn->protocol, &conn->transport);
}

static void accepted(al_server *server, void *data, int fd, const al_addr *peer) {
  struct conn *conn = bench_alloc(sizeof *conn);
  conn->protocol.ops = &echo;
  if (open_transport(data, fd, peer, conn) < 0) {
    close(fd);
    free(conn);
    return;
  }
  al_server_attach(server, conn->transport);
}

static const al_server_ops server_ops = {.accepted = accepted};

static void check(int error) {
  if (error >= 0) return;
  fprintf(stderr, "echo_core: %s\n", al_strerror(error));
  exit(1);
}

int main(int argc, char **argv) {
  const char *reason = NULL, *where = argc > 2 ? argv[2] : "tcp";
  al_loop_options options = {.machine = argc > 1 ? argv[1] : "epoll"};
  al_loop *loop;
  al_server *server;
  int error = al_loop_new(&options, &loop, &reason);
  if (error < 0 && reason) fprintf(stderr, "%s\n", reason);
  check(error);
  if (strcmp(where, "check") == 0) {
    al_loop_release(loop);
    return 0;
  }
  if (argc > 4) {
    check(al_tls_ctx_new(AL_TLS_SERVER, &tls, NULL));
    check(al_tls_ctx_load_chain(tls, argv[3], argv[4], NULL, NULL, NULL));
  }
  check(al_server_new(loop, &server_ops, loop, &server));
  check(al_server_add(server, bench_listen(where), 1024, NULL));
  check(al_server_start(server));
  check(al_loop_run_forever(loop));
  return 0;
}
