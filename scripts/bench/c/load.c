/* load.c - see load.h.
 *
 * SPDX-License-Identifier: MIT */
#include "load.h"
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What a connection sends is one stream of a prime period, so that no message is like its neighbour; lines have a
 * period of as many messages as fit. */
#define PERIOD 65521
#define CHUNK (256 * 1024) /* the most bytes of one send or recv */
#define EVENTS 1024
#define STALL_MS 5000 /* a server that answers nothing for so long has lost something */

struct load_options load_options = {
    .mode = "echo", .connections = 50, .depth = 1, .size = 1024, .warmup = 0.1, .seconds = 1};
uint64_t load_errors;

static struct sockaddr_storage target;
static socklen_t target_len;
static char pattern[PERIOD + CHUNK], buffer[CHUNK];
static size_t period = PERIOD;
static int epfd;
static uint64_t requests;
static bool reconnecting; /* mode connect */

static void pattern_fill(void) {
  uint32_t x = 12345;
  if (load_options.lines) period -= period % load_options.size;
  for (size_t i = 0; i < sizeof pattern; i++) {
    if (i < period) x = x * 1664525 + 1013904223;
    pattern[i] = i < period ? (char)(x >> 24) : pattern[i - period];
    if (load_options.lines && i < period)
      pattern[i] = (i + 1) % load_options.size ? (char)('a' + (x >> 24) % 26) : '\n';
  }
}

/* Each connection from another address of 127/8, or the ports would run out: the side that closes first keeps its port
 * for a minute. */
static void bind_source(int fd) {
  static uint32_t next;
  int one = 1;
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 + next++ % 250)};
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0) bench_die("bind");
}

int load_socket(bool nonblocking) {
  /* A Unix socket connects at once, or would fail when the backlog is full. */
  bool later = nonblocking && target.ss_family == AF_UNIX;
  int fd = socket(target.ss_family, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking && !later ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) bench_die("socket");
  if (target.ss_family == AF_INET) {
    if (reconnecting) bind_source(fd);
    bench_no_delay(fd);
  }
  if (connect(fd, (struct sockaddr *)&target, target_len) < 0 && errno != EINPROGRESS) bench_die("connect");
  if (later && fcntl(fd, F_SETFL, O_NONBLOCK) < 0) bench_die("fcntl");
  return fd;
}

/* Connects and lets the wire begin; blocking unless it is said otherwise. */
static void conn_connect(struct load_conn *conn, bool nonblocking) {
  *conn = (struct load_conn){.fd = load_socket(nonblocking)};
  if (load_wire->open) load_wire->open(conn);
}

static void conn_close(struct load_conn *conn) {
  if (conn->fd < 0) return;
  if (load_wire->close) load_wire->close(conn);
  close(conn->fd);
  conn->fd = -1;
}

static void conn_send(struct load_conn *conn);

static void conn_open(struct load_conn *conn) {
  conn_connect(conn, reconnecting);
  conn->want = load_options.size * (uint64_t)load_options.depth;
  if (!reconnecting && fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0) bench_die("fcntl");
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_reopen(struct load_conn *conn) {
  conn_close(conn);
  conn_open(conn);
  conn_send(conn);
}

static void conn_lost(struct load_conn *conn, const char *why) {
  if (load_errors++ == 0) fprintf(stderr, "%s: %s after %" PRIu64 " bytes\n", load_options.name, why, conn->got);
  if (reconnecting)
    conn_reopen(conn);
  else
    conn_close(conn);
}

void load_block(struct load_conn *conn, bool blocked) {
  if (conn->blocked == blocked) return;
  conn->blocked = blocked;
  struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = conn};
  if (epoll_ctl(epfd, EPOLL_CTL_MOD, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_send(struct load_conn *conn) {
  while (conn->sent < conn->want) {
    size_t n = conn->want - conn->sent < CHUNK ? (size_t)(conn->want - conn->sent) : CHUNK;
    ssize_t sent = load_wire->send(conn, pattern + conn->sent % period, n);
    if (sent < 0) {
      if (errno != EAGAIN) conn_lost(conn, strerror(errno));
      return;
    }
    conn->sent += (uint64_t)sent;
  }
  load_block(conn, false);
}

/* Bytes came back; counts the messages that are whole by them. */
static uint64_t conn_count(struct load_conn *conn, size_t n) {
  conn->got += (uint64_t)n;
  uint64_t answered = conn->got / load_options.size, fresh = answered - conn->answered;
  conn->answered = answered;
  requests += fresh;
  return fresh;
}

static void conn_end(struct load_conn *conn) {
  conn->ending = load_wire->goodbye && load_wire->goodbye(conn);
  if (!conn->ending) conn_reopen(conn);
}

static void conn_recv(struct load_conn *conn) {
  ssize_t n = load_wire->recv(conn, buffer, sizeof buffer);
  if (n < 0 && errno == EAGAIN) {
    if (!conn->blocked) conn_send(conn); /* a handshake has ended: what waited for it */
  } else if (n <= 0 && conn->ending) {
    conn_reopen(conn);
  } else if (n <= 0) {
    conn_lost(conn, n == 0 ? "closed by the server" : strerror(errno));
  } else if (conn->got + (uint64_t)n > conn->sent || memcmp(buffer, pattern + conn->got % period, (size_t)n) != 0) {
    conn_lost(conn, "other bytes came back");
  } else {
    uint64_t fresh = conn_count(conn, (size_t)n);
    if (fresh && reconnecting) {
      conn_end(conn);
    } else {
      conn->want += fresh * load_options.size;
      if (fresh) conn_send(conn);
    }
  }
}

/* One round of events; false when the server has fallen silent. */
static bool turn(void) {
  struct epoll_event events[EVENTS];
  int n = epoll_wait(epfd, events, EVENTS, STALL_MS);
  if (n < 0 && errno != EINTR) bench_die("epoll_wait");
  for (int i = 0; i < n; i++) {
    struct load_conn *conn = events[i].data.ptr;
    if (conn->blocked && events[i].events & EPOLLOUT) conn_send(conn);
    if (conn->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT) conn_recv(conn);
  }
  if (n == 0) {
    fprintf(stderr, "%s: no answer for %d ms after %" PRIu64 " requests\n", load_options.name, STALL_MS, requests);
    load_errors++;
  }
  return n != 0;
}

static void open_all(struct load_conn *conns) {
  for (int i = 0; i < load_options.connections; i++) conn_open(&conns[i]);
  for (int i = 0; i < load_options.connections; i++) conn_send(&conns[i]);
}

void load_run(struct load_conn *conns, uint64_t n) {
  uint64_t first = requests;
  open_all(conns);
  while (load_errors == 0 && requests - first < n && turn()) continue;
  for (int i = 0; i < load_options.connections; i++) conn_close(&conns[i]);
}

void load_measure(struct load_conn *conns) {
  open_all(conns);
  int64_t warm = bench_now_ns() + (int64_t)(load_options.warmup * 1e9), now;
  bool alive = true;
  while (alive && load_errors == 0 && bench_now_ns() < warm) alive = turn();

  pid_t pid = load_options.pid;
  uint64_t first = requests, n = load_options.requests;
  int64_t cpu = pid ? bench_cpu_ns(pid) : 0, start = bench_now_ns();
  int64_t end = start + (int64_t)(load_options.seconds * 1e9);
  do {
    if (alive) alive = turn();
    now = bench_now_ns();
  } while (alive && load_errors == 0 && now < end && (!n || requests - first < n));
  if (pid) cpu = bench_cpu_ns(pid) - cpu;

  double seconds = (double)(now - start) / 1e9;
  n = requests - first;
  printf("requests=%" PRIu64 " errors=%" PRIu64 " seconds=%.6f rps=%.0f", n, load_errors, seconds, (double)n / seconds);
  if (pid) printf(" cpu_ns=%" PRId64, cpu);
}

/* One message there and back, blocking. */
static void speak(struct load_conn *conn) {
  size_t got = 0;
  if (load_wire->send(conn, pattern, load_options.size) != (ssize_t)load_options.size) bench_die("send");
  while (got < load_options.size) {
    ssize_t n = load_wire->recv(conn, buffer + got, load_options.size - got);
    if (n <= 0) bench_die("recv");
    got += (size_t)n;
  }
  if (memcmp(buffer, pattern, got) != 0) load_errors++;
}

void load_idle(struct load_conn *conns) {
  int n = load_options.connections;
  conn_connect(&conns[0], false);
  speak(&conns[0]);
  int64_t before = bench_rss(load_options.pid);
  /* Accepting is in order, so an answer to the last says that all were accepted; else the backlog would overflow. */
  for (int i = 1; i <= n; i++) {
    conn_connect(&conns[i], false);
    if (i % 64 == 0 || i == n) speak(&conns[i]);
  }
  int64_t idle = bench_rss(load_options.pid);
  for (int i = 1; i <= n; i++) speak(&conns[i]);
  int64_t spoken = bench_rss(load_options.pid);
  for (int i = 0; i <= n; i++) conn_close(&conns[i]);
  for (int i = 0; i < 3; i++) { /* by then the server has seen the ends */
    conn_connect(&conns[0], false);
    speak(&conns[0]);
    conn_close(&conns[0]);
    usleep(50000);
  }
  int64_t left = bench_rss(load_options.pid);
  printf("connections=%d errors=%" PRIu64 " idle=%.0f spoken=%.0f left=%.0f", n, load_errors,
         (double)(idle - before) / n, (double)(spoken - before) / n, (double)(left - before) / n);
}

bool load_option(int opt, const char *value) {
  switch (opt) {
  case 'l': load_options.lines = true; return true;
  case 'm': load_options.mode = value; return true;
  case 'c': load_options.connections = atoi(value); return true;
  case 's': load_options.size = (size_t)atol(value); return true;
  case 'p': load_options.depth = atoi(value); return true;
  case 'w': load_options.warmup = atof(value); return true;
  case 't': load_options.seconds = atof(value); return true;
  case 'n': load_options.requests = (uint64_t)atoll(value), load_options.seconds = 60; return true;
  case 'P': load_options.pid = (pid_t)atoi(value); return true;
  default: return false;
  }
}

struct load_conn *load_begin(const char *address) {
  struct load_options *o = &load_options;
  bool idle = strcmp(o->mode, "idle") == 0;
  if (!address || o->connections < 1 || o->depth < 1 || o->size < 1 || (o->lines && o->size > PERIOD) ||
      (idle && (!o->pid || o->size > sizeof buffer)))
    return NULL;
  reconnecting = strcmp(o->mode, "echo") != 0 && !idle;
  if (reconnecting) o->depth = 1;
  pattern_fill();
  target_len = bench_parse_addr(address, &target);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  size_t count = (size_t)o->connections + 1;
  struct load_conn *conns = bench_alloc(count * sizeof *conns);
  for (size_t i = 0; i < count; i++) conns[i] = (struct load_conn){.fd = -1};
  return conns;
}
