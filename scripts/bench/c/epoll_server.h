/* epoll_server.h - plain servers over level-triggered epoll. epoll_serve: one recv and one send an event; what a send
 * doesn't take is kept until the socket is writable, and nothing is read meanwhile. The baselines echo_epoll.c and
 * http_epoll.c are made of it, echo_tls.c of the turning alone, which is below it; knows nothing of what they say.
 *
 * SPDX-License-Identifier: MIT */
#ifndef EPOLL_SERVER_H
#define EPOLL_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- turning ----------------------------------------------------------------------------------------------------- */

/* Turns for ever: connects are given to `accepted`, non-blocking; an event of what epoll_watch was told goes to
 * `ready`, and if that returns false to `closed`. */
struct epoll_turner {
  void (*accepted)(int fd);
  bool (*ready)(void *conn);
  void (*closed)(void *conn);
};

void epoll_turn(int listener, const struct epoll_turner *turner) __attribute__((noreturn));
void epoll_watch(int ctl, int fd, uint32_t events, void *conn); /* ctl: EPOLL_CTL_ADD, EPOLL_CTL_MOD */

/* ---- serving ----------------------------------------------------------------------------------------------------- */

struct conn {
  int fd;
  bool close_when_sent; /* set by on_data: nothing more is read */
  char *rest;           /* unsent bytes, or NULL */
  size_t len, sent;
  char *kept; /* free for on_data, freed at the end */
  size_t kept_len;
};

/* Bytes came; they are lent until it returns. false: close. */
typedef bool on_data(struct conn *conn, const char *data, size_t len);

/* Listens where the argument says (bench_listen) and serves until killed. */
void epoll_serve(const char *where, on_data *data) __attribute__((noreturn));

/* Sends; to be called at most once in on_data. false: the connection is lost. */
bool conn_send(struct conn *conn, const char *data, size_t len);

#endif
