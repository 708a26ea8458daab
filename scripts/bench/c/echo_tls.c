/* echo_tls.c - the baseline of TLS: a plain echo server, level-triggered epoll and OpenSSL right on the socket. An
 * event reads the records that are there and writes them back; what a write doesn't take is kept until the socket is
 * writable, and nothing is read meanwhile.
 *
 *   echo_tls CERTIFICATE KEY       prints its address, 127.0.0.1:PORT
 *
 * SSL_CTX_set_read_ahead would save a read a record and cost a copy: it makes no difference here.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"
#include "epoll_server.h"
#include "tls.h"

#include <openssl/err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)

struct tls_conn {
  int fd;
  uint32_t events; /* that epoll watches */
  SSL *ssl;
  char *rest; /* unsent bytes, or NULL */
  size_t len, sent;
  bool ended; /* by the peer, in order */
};

static SSL_CTX *ctx;
static char buffer[READ_SIZE];

static void conn_watch(struct tls_conn *conn, uint32_t events) {
  if (conn->events == events) return;
  epoll_watch(conn->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, conn->fd, events, conn);
  conn->events = events;
}

static void conn_close(void *data) {
  struct tls_conn *conn = data;
  if (conn->ended) SSL_shutdown(conn->ssl);
  SSL_free(conn->ssl);
  ERR_clear_error();
  close(conn->fd);
  free(conn->rest);
  free(conn);
}

static void conn_accepted(int fd) {
  struct tls_conn *conn = bench_alloc(sizeof *conn);
  *conn = (struct tls_conn){.fd = fd, .ssl = SSL_new(ctx)};
  if (!conn->ssl || SSL_set_fd(conn->ssl, fd) != 1) tls_die("SSL_new");
  SSL_set_accept_state(conn->ssl);
  conn_watch(conn, EPOLLIN);
}

/* A call of OpenSSL did less than was asked for: waits for what it lacks. false: close. */
static bool conn_wait(struct tls_conn *conn, int result) {
  switch (SSL_get_error(conn->ssl, result)) {
  case SSL_ERROR_WANT_READ: conn_watch(conn, EPOLLIN); return true;
  case SSL_ERROR_WANT_WRITE: conn_watch(conn, EPOLLOUT); return true;
  case SSL_ERROR_ZERO_RETURN: conn->ended = true; return false;
  default: return false;
  }
}

/* Writes as much as can be; *sent counts. false: close. */
static bool conn_write_out(struct tls_conn *conn, const char *data, size_t len, size_t *sent) {
  while (*sent < len) {
    int n = SSL_write(conn->ssl, data + *sent, (int)(len - *sent));
    if (n <= 0) return conn_wait(conn, n);
    *sent += (size_t)n;
  }
  conn_watch(conn, EPOLLIN);
  return true;
}

static bool conn_write(struct tls_conn *conn) {
  if (!conn_write_out(conn, conn->rest, conn->len, &conn->sent)) return false;
  if (conn->sent < conn->len) return true;
  free(conn->rest);
  conn->rest = NULL;
  return true;
}

static bool conn_echo(struct tls_conn *conn, size_t len) {
  size_t sent = 0;
  if (!conn_write_out(conn, buffer, len, &sent)) return false;
  if (sent == len) return true;
  conn->sent = 0;
  conn->len = len - sent;
  conn->rest = bench_alloc(conn->len);
  memcpy(conn->rest, buffer + sent, conn->len);
  return true;
}

static bool conn_read(struct tls_conn *conn) {
  size_t got = 0;
  int n;
  bool alive = true;
  do { /* more is likely there behind a record that is full; behind one that isn't, epoll will say it */
    n = SSL_read(conn->ssl, buffer + got, (int)(sizeof buffer - got));
    if (n > 0)
      got += (size_t)n;
    else
      alive = conn_wait(conn, n);
  } while (n > 0 && n == SSL3_RT_MAX_PLAIN_LENGTH && got < sizeof buffer);
  return (got == 0 || conn_echo(conn, got)) && alive;
}

static bool conn_ready(void *data) {
  struct tls_conn *conn = data;
  return conn->rest ? conn_write(conn) : conn_read(conn);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: echo_tls CERTIFICATE KEY\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN); /* OpenSSL writes as to a file */
  ctx = tls_context(TLS_server_method());
  if (SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1) tls_die(argv[1]);
  if (SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1) tls_die(argv[2]);
  epoll_turn(bench_listen("tcp"), &(struct epoll_turner){conn_accepted, conn_ready, conn_close});
}
