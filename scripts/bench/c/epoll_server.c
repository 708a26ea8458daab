/* epoll_server.c - see epoll_server.h.
 *
 * SPDX-License-Identifier: MIT */
#include "epoll_server.h"
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)
#define EVENTS 1024

/* ---- turning ----------------------------------------------------------------------------------------------------- */

static int epfd;

void epoll_watch(int ctl, int fd, uint32_t events, void *conn) {
  struct epoll_event event = {.events = events, .data.ptr = conn};
  if (epoll_ctl(epfd, ctl, fd, &event) < 0) bench_die("epoll_ctl");
}

static void accept_all(int listener, const struct epoll_turner *turner) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    bench_no_delay(fd);
    turner->accepted(fd);
  }
}

void epoll_turn(int listener, const struct epoll_turner *turner) {
  struct epoll_event events[EVENTS];
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  epoll_watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
  for (;;) {
    int n = epoll_wait(epfd, events, EVENTS, -1);
    if (n < 0 && errno != EINTR) bench_die("epoll_wait");
    for (int i = 0; i < n; i++) {
      void *conn = events[i].data.ptr;
      if (!conn)
        accept_all(listener, turner);
      else if (!turner->ready(conn))
        turner->closed(conn);
    }
  }
}

/* ---- serving ----------------------------------------------------------------------------------------------------- */

static on_data *on_bytes;
static char buffer[READ_SIZE];

static void conn_watch(struct conn *conn, uint32_t events) { epoll_watch(EPOLL_CTL_MOD, conn->fd, events, conn); }

static void conn_close(void *data) {
  struct conn *conn = data;
  close(conn->fd);
  free(conn->rest);
  free(conn->kept);
  free(conn);
}

static void conn_accepted(int fd) {
  struct conn *conn = bench_alloc(sizeof *conn);
  *conn = (struct conn){.fd = fd};
  epoll_watch(EPOLL_CTL_ADD, fd, EPOLLIN, conn);
}

static bool passing(int error) { return error == EAGAIN || error == EINTR; }

bool conn_send(struct conn *conn, const char *data, size_t len) {
  ssize_t n = send(conn->fd, data, len, MSG_NOSIGNAL);
  if (n == (ssize_t)len) return true;
  if (n < 0 && !passing(errno)) return false;
  size_t sent = n < 0 ? 0 : (size_t)n;
  conn->sent = 0;
  conn->len = len - sent;
  conn->rest = bench_alloc(conn->len);
  memcpy(conn->rest, data + sent, conn->len);
  conn_watch(conn, EPOLLOUT);
  return true;
}

/* The socket is writable again. false: close. */
static bool conn_write(struct conn *conn) {
  ssize_t n = send(conn->fd, conn->rest + conn->sent, conn->len - conn->sent, MSG_NOSIGNAL);
  if (n < 0) return passing(errno);
  conn->sent += (size_t)n;
  if (conn->sent < conn->len) return true;
  free(conn->rest);
  conn->rest = NULL;
  if (conn->close_when_sent) return false;
  conn_watch(conn, EPOLLIN);
  return true;
}

static bool conn_read(struct conn *conn) {
  ssize_t n = recv(conn->fd, buffer, sizeof buffer, 0);
  if (n <= 0) return n < 0 && passing(errno);
  return on_bytes(conn, buffer, (size_t)n) && !(conn->close_when_sent && !conn->rest);
}

static bool conn_ready(void *data) {
  struct conn *conn = data;
  return conn->rest ? conn_write(conn) : conn_read(conn);
}

void epoll_serve(const char *where, on_data *data) {
  static const struct epoll_turner turner = {.accepted = conn_accepted, .ready = conn_ready, .closed = conn_close};
  on_bytes = data;
  epoll_turn(bench_listen(where), &turner);
}
