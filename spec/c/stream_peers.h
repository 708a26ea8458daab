/* stream_peers.h - what the tests of streams and servers share: a protocol that writes down what it is told, checks
 * the order of it and does what its test wants inside a callback; raw sockets for the other end; and a frame around
 * each test that finds leaked memory and descriptors.
 *
 * SPDX-License-Identifier: MIT */
#ifndef STREAM_PEERS_H
#define STREAM_PEERS_H

#include "loop_steps.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

/* Given up only after so many turns as well: a machine may stand still for a while and then find the time run out. */
#define MIN_TURNS 2000

/* Runs turns until cond holds. */
#define UNTIL(loop, cond)                                                                         \
  do {                                                                                            \
    int64_t until_ns = al_time_ns() + 20000 * MS;                                                 \
    for (int until_n = 0; !(cond) && (until_n < MIN_TURNS || al_time_ns() < until_ns); until_n++) \
      CHECK_EQ(al_loop_run_once(loop, 10 * MS), 0);                                               \
    CHECK(cond);                                                                                  \
  } while (0)

/* The data that all tests send, from a place on: PATTERN_SIZE bytes of it. Its period is prime, so that a piece that
 * is lost, doubled or out of place shows. */
#define PATTERN_SIZE ((size_t)1 << 17)
#define PATTERN_PERIOD 65521
static inline const char *pattern_at(size_t at) {
  static char bytes[PATTERN_PERIOD + PATTERN_SIZE];
  if (!bytes[1])
    for (size_t i = 0; i < sizeof(bytes); i++) bytes[i] = (char)((i % PATTERN_PERIOD * 2654435761u) >> 13);
  return bytes + at % PATTERN_PERIOD;
}

static inline void check_pattern(const char *data, size_t at, size_t len) {
  for (size_t n; len > 0; data += n, at += n, len -= n) {
    n = len < PATTERN_SIZE ? len : PATTERN_SIZE;
    CHECK(memcmp(data, pattern_at(at), n) == 0);
  }
}

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

/* Events: M made, d data, E end, P pause, R resume, L lost, C the owner's closed. Equal ones in a row are written
 * once. */
typedef struct peer {
  al_protocol protocol;
  al_transport *transport;
  char events[2048];
  size_t received, largest;
  int error;
  bool keep_open;     /* what eof_received returns */
  bool paused;        /* by pause_writing */
  bool echo;          /* data_received writes back */
  size_t buffer_size; /* > 0: a buffered protocol with so large a buffer */
  char *buffer;
  int asked;                                  /* get_buffer was called */
  int busy;                                   /* what activity said last; -1: nothing */
  void (*act)(struct peer *peer, char event); /* after the event was written down */
  void *arg;
} peer;

static inline bool peer_has(const peer *p, char event) { return strchr(p->events, event) != NULL; }

static inline void peer_note(peer *p, char event) {
  size_t len = strlen(p->events);
  char last = len ? p->events[len - 1] : '\0';
  CHECK(event == 'M' || event == 'C' || event == 'P' || event == 'R' || peer_has(p, 'M'));
  CHECK(!peer_has(p, 'L') || event == 'C');             /* nothing after connection_lost */
  CHECK(!strchr("MELC", event) || !peer_has(p, event)); /* once */
  if (event == 'd') {
    CHECK(!peer_has(p, 'E'));
    CHECK(al_transport_is_reading(p->transport));
  }
  if (event == 'P' || event == 'R') {
    CHECK(p->paused == (event == 'R'));
    p->paused = event == 'P';
  }
  if (event != last) {
    CHECK(len + 1 < sizeof(p->events));
    p->events[len] = event;
    p->events[len + 1] = '\0';
  }
  if (p->act) p->act(p, event);
}

static inline void peer_made(al_protocol *protocol, al_transport *transport) {
  peer *p = (peer *)protocol;
  CHECK(transport == p->transport);
  peer_note(p, 'M');
}

static inline void peer_take(peer *p, const char *data, size_t len) {
  CHECK(len > 0);
  check_pattern(data, p->received, len);
  p->received += len;
  if (len > p->largest) p->largest = len;
  if (p->echo) al_transport_write(p->transport, data, len, NULL, NULL);
  peer_note(p, 'd');
}

static inline void peer_data(al_protocol *protocol, const char *data, size_t len) {
  peer_take((peer *)protocol, data, len);
}

static inline int peer_get_buffer(al_protocol *protocol, ssize_t hint, char **base, size_t *len) {
  peer *p = (peer *)protocol;
  CHECK(hint == -1 || hint > 0);
  p->asked++;
  *base = p->buffer;
  *len = p->buffer_size;
  if (p->act) p->act(p, 'g');
  return 0;
}

static inline void peer_updated(al_protocol *protocol, size_t n) {
  peer *p = (peer *)protocol;
  CHECK(n <= p->buffer_size);
  peer_take(p, p->buffer, n);
}

static inline bool peer_eof(al_protocol *protocol) {
  peer_note((peer *)protocol, 'E');
  return ((peer *)protocol)->keep_open;
}

static inline void peer_pause(al_protocol *protocol) { peer_note((peer *)protocol, 'P'); }
static inline void peer_resume(al_protocol *protocol) { peer_note((peer *)protocol, 'R'); }

static inline void peer_lost(al_protocol *protocol, int error) {
  peer *p = (peer *)protocol;
  CHECK(al_transport_fd(p->transport) >= 0); /* closed only afterwards */
  CHECK(al_transport_is_closing(p->transport));
  p->error = error;
  peer_note(p, 'L');
}

static inline void peer_activity(al_transport *transport, void *data, bool busy) {
  peer *p = data;
  CHECK(transport == p->transport && p->busy != busy);
  p->busy = busy;
}

static inline void peer_closed(al_transport *transport, void *data) {
  CHECK_EQ(al_transport_fd(transport), -1);
  peer_note(data, 'C');
}

static const al_protocol_ops stream_ops = {.connection_made = peer_made,
                                           .data_received = peer_data,
                                           .eof_received = peer_eof,
                                           .pause_writing = peer_pause,
                                           .resume_writing = peer_resume,
                                           .connection_lost = peer_lost};
static const al_protocol_ops buffered_ops = {.connection_made = peer_made,
                                             .get_buffer = peer_get_buffer,
                                             .buffer_updated = peer_updated,
                                             .eof_received = peer_eof,
                                             .pause_writing = peer_pause,
                                             .resume_writing = peer_resume,
                                             .connection_lost = peer_lost};
static const al_transport_owner peer_owner = {.activity = peer_activity, .closed = peer_closed};

static inline void peer_set_buffer(peer *p, size_t size) {
  free(p->buffer);
  p->buffer = size ? malloc(size) : NULL;
  p->buffer_size = size;
  p->protocol.ops = size ? &buffered_ops : &stream_ops;
}

/* Opens the transport; buffer_size 0: a plain protocol. */
static inline peer *peer_new_on(al_loop *loop, int fd, size_t buffer_size) {
  peer *p = calloc(1, sizeof(*p));
  p->busy = -1;
  peer_set_buffer(p, buffer_size);
  CHECK_EQ(al_stream_new(loop, fd, NULL, &p->protocol, NULL, &p->transport), 0);
  al_transport_set_owner(p->transport, &peer_owner, p);
  CHECK_EQ(p->busy, 1);
  return p;
}

static inline void peer_free(peer *p) {
  al_transport_release(p->transport);
  free(p->buffer);
  free(p);
}

/* Waits for the end, checks what was told, frees all but the other end. */
#define PEER_END(loop, p, expected)                 \
  do {                                              \
    UNTIL(loop, peer_has(p, 'C'));                  \
    if (strcmp((p)->events, expected)) {            \
      fprintf(stderr, "events: %s\n", (p)->events); \
      CHECK(!"events as expected");                 \
    }                                               \
    peer_free(p);                                   \
  } while (0)

/* ---- the other end ----------------------------------------------------------------------------------------------- */

static inline al_addr loopback(int port) {
  al_addr addr;
  CHECK_EQ(al_addr_ip(&addr, "127.0.0.1", (uint16_t)port, 0, 0), 0);
  return addr;
}

/* With a small send buffer, or the kernel takes megabytes before a write has to wait. The receive buffer is left
 * alone: with a small one TCP falls into waiting for its timers, up to minutes, each time that the window closes. */
static inline int raw_socket(int domain) {
  int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0), size = 65536;
  CHECK(fd >= 0);
  if (domain == AF_INET) CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
  return fd;
}

static inline int raw_listen(al_addr *addr, int backlog) {
  int fd = raw_socket(AF_INET);
  *addr = loopback(0);
  CHECK_EQ(bind(fd, (struct sockaddr *)&addr->ss, addr->len), 0);
  CHECK_EQ(listen(fd, backlog), 0);
  CHECK_EQ(getsockname(fd, (struct sockaddr *)&addr->ss, &addr->len), 0);
  return fd;
}

static inline int raw_connect(const al_addr *addr) {
  int fd = raw_socket(addr->ss.ss_family);
  CHECK_EQ(connect(fd, (const struct sockaddr *)&addr->ss, addr->len), 0);
  CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  return fd;
}

static inline void tcp_pair(int fds[2]) {
  al_addr addr;
  int listener = raw_listen(&addr, 1);
  fds[1] = raw_connect(&addr);
  fds[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  CHECK(fds[0] >= 0);
  close(listener);
}

static inline void any_pair(int family, int fds[2]) {
  if (family == AF_INET)
    tcp_pair(fds);
  else
    make_pair(fds);
}

/* Closes with a reset. */
static inline void raw_reset(int fd) {
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger)), 0);
  close(fd);
}

/* Sends what goes of the pattern up to end. */
static inline void raw_send(int fd, size_t *sent, size_t end) {
  while (*sent < end) {
    size_t len = end - *sent < PATTERN_SIZE ? end - *sent : PATTERN_SIZE;
    ssize_t n = send(fd, pattern_at(*sent), len, MSG_NOSIGNAL);
    if (n < 0) {
      CHECK_EQ(errno, EAGAIN);
      return;
    }
    *sent += (size_t)n;
  }
}

/* Receives what is there, at most max bytes; checks it. False at the end of data. */
static inline bool raw_receive(int fd, size_t *received, size_t max) {
  static char bytes[PATTERN_SIZE];
  while (max > 0) {
    ssize_t n = recv(fd, bytes, max < sizeof(bytes) ? max : sizeof(bytes), 0);
    if (n == 0) return false;
    if (n < 0 && errno == ECONNRESET) return false; /* it closed with data unread */
    if (n < 0) {
      CHECK_EQ(errno, EAGAIN);
      return true;
    }
    check_pattern(bytes, *received, (size_t)n);
    *received += (size_t)n;
    max -= (size_t)n;
  }
  return true;
}

/* Writes the pattern to the transport. */
static inline void peer_write(peer *p, size_t *written, size_t len) {
  while (len > 0) {
    size_t n = len < PATTERN_SIZE ? len : PATTERN_SIZE;
    size_t at = *written;
    *written += n; /* at once: the protocol may write more when it is told to pause */
    len -= n;
    CHECK_EQ(al_transport_write(p->transport, pattern_at(at), n, NULL, NULL), 0);
  }
}

/* Receives all that is left of size bytes, then the end of data. */
static inline void raw_drain(al_loop *loop, int fd, size_t *received, size_t size) {
  int64_t limit_ns = al_time_ns() + 20000 * MS;
  for (int n = 0; raw_receive(fd, received, SIZE_MAX); n++) {
    CHECK(n < MIN_TURNS || al_time_ns() < limit_ns);
    al_loop_run_once(loop, MS);
  }
  CHECK_EQ(*received, size);
}

/* ---- the frame around a test ------------------------------------------------------------------------------------- */

/* Threads of a pool that was left behind may need a moment to go. */
static inline void check_clean(size_t live_before, int fds_before) {
  size_t live;
  int64_t limit_ns = al_time_ns() + 5000 * MS;
  for (al_mem_stats(&live, NULL); live != live_before && al_time_ns() < limit_ns; al_mem_stats(&live, NULL))
    usleep(1000);
  CHECK_EQ(live, live_before);
  CHECK_EQ(open_descriptors(), fds_before);
}

#define RUN_CLEAN(test)                   \
  do {                                    \
    int fds_before = open_descriptors();  \
    size_t live_before;                   \
    al_mem_stats(&live_before, NULL);     \
    RUN(test);                            \
    check_clean(live_before, fds_before); \
  } while (0)

#endif
