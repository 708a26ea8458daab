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

static int epfd;
static char buffer[READ_SIZE];

static void conn_watch(struct conn *conn, int ctl, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = conn};
  if (epoll_ctl(epfd, ctl, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_close(struct conn *conn) {
  close(conn->fd);
  free(conn->rest);
  free(conn->kept);
  free(conn);
}

static bool passing(int error) { return error == EAGAIN || error == EINTR; }

static void conn_accept(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct conn *conn = bench_alloc(sizeof *conn);
    *conn = (struct conn){.fd = fd};
    bench_no_delay(fd);
    conn_watch(conn, EPOLL_CTL_ADD, EPOLLIN);
  }
}

bool conn_send(struct conn *conn, const char *data, size_t len) {
  ssize_t n = send(conn->fd, data, len, MSG_NOSIGNAL);
  if (n == (ssize_t)len) return true;
  if (n < 0 && !passing(errno)) return false;
  size_t sent = n < 0 ? 0 : (size_t)n;
  conn->sent = 0;
  conn->len = len - sent;
  conn->rest = bench_alloc(conn->len);
  memcpy(conn->rest, data + sent, conn->len);
  conn_watch(conn, EPOLL_CTL_MOD, EPOLLOUT);
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
  conn_watch(conn, EPOLL_CTL_MOD, EPOLLIN);
  return true;
}

static bool conn_read(struct conn *conn, on_data *data) {
  ssize_t n = recv(conn->fd, buffer, sizeof buffer, 0);
  if (n <= 0) return n < 0 && passing(errno);
  return data(conn, buffer, (size_t)n) && !(conn->close_when_sent && !conn->rest);
}

void epoll_serve(const char *where, on_data *data) {
  int listener = bench_listen(where);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &event) < 0) bench_die("epoll_ctl");
  for (;;) {
    int n = epoll_wait(epfd, events, EVENTS, -1);
    if (n < 0 && errno != EINTR) bench_die("epoll_wait");
    for (int i = 0; i < n; i++) {
      struct conn *conn = events[i].data.ptr;
      if (!conn)
        conn_accept(listener);
      else if (!(conn->rest ? conn_write(conn) : conn_read(conn, data)))
        conn_close(conn);
    }
  }
}
