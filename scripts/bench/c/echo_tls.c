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
#include "tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)
#define EVENTS 1024

struct conn {
  int fd;
  uint32_t events; /* that epoll watches */
  SSL *ssl;
  char *rest; /* unsent bytes, or NULL */
  size_t len, sent;
  bool ended; /* by the peer, in order */
};

static int epfd;
static SSL_CTX *ctx;
static char buffer[READ_SIZE];

static void conn_watch(struct conn *conn, int ctl, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = conn};
  if (conn->events == events) return;
  conn->events = events;
  if (epoll_ctl(epfd, ctl, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_close(struct conn *conn) {
  if (conn->ended) SSL_shutdown(conn->ssl);
  SSL_free(conn->ssl);
  ERR_clear_error();
  close(conn->fd);
  free(conn->rest);
  free(conn);
}

static void conn_accept(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct conn *conn = bench_alloc(sizeof *conn);
    *conn = (struct conn){.fd = fd, .ssl = SSL_new(ctx)};
    if (!conn->ssl || SSL_set_fd(conn->ssl, fd) != 1) tls_die("SSL_new");
    SSL_set_accept_state(conn->ssl);
    bench_no_delay(fd);
    conn_watch(conn, EPOLL_CTL_ADD, EPOLLIN);
  }
}

/* A call of OpenSSL did less than was asked for: waits for what it lacks. false: close. */
static bool conn_wait(struct conn *conn, int result) {
  switch (SSL_get_error(conn->ssl, result)) {
  case SSL_ERROR_WANT_READ: conn_watch(conn, EPOLL_CTL_MOD, EPOLLIN); return true;
  case SSL_ERROR_WANT_WRITE: conn_watch(conn, EPOLL_CTL_MOD, EPOLLOUT); return true;
  case SSL_ERROR_ZERO_RETURN: conn->ended = true; return false;
  default: return false;
  }
}

/* Writes as much as can be; *sent counts. false: close. */
static bool conn_send(struct conn *conn, const char *data, size_t len, size_t *sent) {
  while (*sent < len) {
    int n = SSL_write(conn->ssl, data + *sent, (int)(len - *sent));
    if (n <= 0) return conn_wait(conn, n);
    *sent += (size_t)n;
  }
  conn_watch(conn, EPOLL_CTL_MOD, EPOLLIN);
  return true;
}

static bool conn_write(struct conn *conn) {
  if (!conn_send(conn, conn->rest, conn->len, &conn->sent)) return false;
  if (conn->sent < conn->len) return true;
  free(conn->rest);
  conn->rest = NULL;
  return true;
}

static bool conn_echo(struct conn *conn, size_t len) {
  size_t sent = 0;
  if (!conn_send(conn, buffer, len, &sent)) return false;
  if (sent == len) return true;
  conn->sent = 0;
  conn->len = len - sent;
  conn->rest = bench_alloc(conn->len);
  memcpy(conn->rest, buffer + sent, conn->len);
  return true;
}

static bool conn_read(struct conn *conn) {
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

static void serve(int listener) {
  struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &event) < 0) bench_die("epoll_ctl");
  for (;;) {
    int n = epoll_wait(epfd, events, EVENTS, -1);
    if (n < 0 && errno != EINTR) bench_die("epoll_wait");
    for (int i = 0; i < n; i++) {
      struct conn *conn = events[i].data.ptr;
      if (!conn)
        conn_accept(listener);
      else if (!(conn->rest ? conn_write(conn) : conn_read(conn)))
        conn_close(conn);
    }
  }
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
  serve(bench_listen("tcp"));
}
