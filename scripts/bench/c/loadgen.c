/* loadgen.c - the load: one thread over epoll, a closed loop. Every byte that comes back is compared with what was
 * sent.
 *
 *   loadgen [-m echo|connect|idle] [-l] [-c connections] [-s size] [-p in flight on each connection]
 *           [-w seconds of warm-up] [-t seconds | -n requests] [-P pid of the server] ADDRESS
 *
 *   echo     sends messages and waits for them to come back
 *   connect  a request is: connect, one echo, close
 *   idle     opens all connections, lets each speak once, closes all; needs -P
 *
 * -l: each message is a line.
 *
 * Prints one line of key=value. echo and connect: requests errors seconds rps, and with -P the server's cpu_ns in the
 * measured time. idle: connections errors, and the server's resident bytes a connection while none has spoken yet
 * (idle), after each spoke (spoken) and after all were closed (left). Exits 1 if there were errors.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What a connection sends is one stream of a prime period, so that no message is like its neighbour; lines have a period
 * of as many messages as fit. */
#define PERIOD 65521
#define CHUNK (256 * 1024) /* the most bytes of one send or recv */
#define EVENTS 1024
#define STALL_MS 5000 /* a server that answers nothing for so long has lost something */

struct conn {
  int fd;
  bool blocked;             /* waits to be writable */
  uint64_t sent, want, got; /* bytes sent, bytes that may be sent, bytes that came back */
  uint64_t answered;        /* messages that came back whole */
};

static struct options {
  const char *address, *mode;
  int connections, depth;
  size_t size;
  bool lines;
  double warmup, seconds;
  uint64_t requests;
  pid_t pid;
} options = {.mode = "echo", .connections = 50, .depth = 1, .size = 1024, .warmup = 0.1, .seconds = 1};

static struct sockaddr_storage target;
static socklen_t target_len;
static char pattern[PERIOD + CHUNK], buffer[CHUNK];
static size_t period = PERIOD;
static int epfd;
static uint64_t requests, errors;
static bool reconnecting; /* mode connect */

static void pattern_fill(void) {
  uint32_t x = 12345;
  if (options.lines) period -= period % options.size;
  for (size_t i = 0; i < sizeof pattern; i++) {
    if (i < period) x = x * 1664525 + 1013904223;
    pattern[i] = i < period ? (char)(x >> 24) : pattern[i - period];
    if (options.lines && i < period) pattern[i] = (i + 1) % options.size ? (char)('a' + (x >> 24) % 26) : '\n';
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

static int open_socket(bool nonblocking) {
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

static void conn_send(struct conn *conn);

static void conn_open(struct conn *conn) {
  *conn = (struct conn){.fd = open_socket(reconnecting), .want = options.size * (uint64_t)options.depth};
  if (!reconnecting && fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0) bench_die("fcntl");
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_lost(struct conn *conn, const char *why) {
  if (errors++ == 0) fprintf(stderr, "loadgen: %s after %" PRIu64 " bytes\n", why, conn->got);
  close(conn->fd);
  conn->fd = -1;
  if (reconnecting) {
    conn_open(conn);
    conn_send(conn);
  }
}

static void conn_block(struct conn *conn, bool blocked) {
  if (conn->blocked == blocked) return;
  conn->blocked = blocked;
  struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = conn};
  if (epoll_ctl(epfd, EPOLL_CTL_MOD, conn->fd, &event) < 0) bench_die("epoll_ctl");
}

static void conn_send(struct conn *conn) {
  while (conn->sent < conn->want) {
    size_t n = conn->want - conn->sent < CHUNK ? (size_t)(conn->want - conn->sent) : CHUNK;
    ssize_t sent = send(conn->fd, pattern + conn->sent % period, n, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN)
        conn_block(conn, true);
      else
        conn_lost(conn, strerror(errno));
      return;
    }
    conn->sent += (uint64_t)sent;
    if ((size_t)sent < n) {
      conn_block(conn, true);
      return;
    }
  }
  conn_block(conn, false);
}

static void conn_recv(struct conn *conn) {
  ssize_t n = recv(conn->fd, buffer, sizeof buffer, 0);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) conn_lost(conn, n == 0 ? "closed by the server" : strerror(errno));
    return;
  }
  if (conn->got + (uint64_t)n > conn->sent || memcmp(buffer, pattern + conn->got % period, (size_t)n) != 0) {
    conn_lost(conn, "other bytes came back");
    return;
  }
  conn->got += (uint64_t)n;
  uint64_t answered = conn->got / options.size, fresh = answered - conn->answered;
  conn->answered = answered;
  requests += fresh;
  if (fresh && reconnecting) {
    close(conn->fd);
    conn_open(conn);
  } else {
    conn->want += fresh * options.size;
  }
  if (fresh) conn_send(conn);
}

/* One round of events; false when the server has fallen silent. */
static bool turn(void) {
  struct epoll_event events[EVENTS];
  int n = epoll_wait(epfd, events, EVENTS, STALL_MS);
  if (n < 0 && errno != EINTR) bench_die("epoll_wait");
  for (int i = 0; i < n; i++) {
    struct conn *conn = events[i].data.ptr;
    if (conn->blocked && events[i].events & EPOLLOUT) conn_send(conn);
    if (conn->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT) conn_recv(conn);
  }
  return n != 0;
}

static void stalled(void) {
  fprintf(stderr, "loadgen: no answer for %d ms after %" PRIu64 " requests\n", STALL_MS, requests);
  errors++;
}

static void run_load(struct conn *conns) {
  for (int i = 0; i < options.connections; i++) conn_open(&conns[i]);
  for (int i = 0; i < options.connections; i++) conn_send(&conns[i]);
  int64_t warm = bench_now_ns() + (int64_t)(options.warmup * 1e9), now;
  bool alive = true;
  while (alive && errors == 0 && bench_now_ns() < warm) alive = turn();

  uint64_t first = requests;
  int64_t cpu = options.pid ? bench_cpu_ns(options.pid) : 0, start = bench_now_ns();
  int64_t end = start + (int64_t)(options.seconds * 1e9);
  do {
    if (alive) alive = turn();
    now = bench_now_ns();
  } while (alive && errors == 0 && now < end && (!options.requests || requests - first < options.requests));
  if (options.pid) cpu = bench_cpu_ns(options.pid) - cpu;
  if (!alive) stalled();

  double seconds = (double)(now - start) / 1e9;
  uint64_t n = requests - first;
  printf("requests=%" PRIu64 " errors=%" PRIu64 " seconds=%.6f rps=%.0f", n, errors, seconds, (double)n / seconds);
  if (options.pid) printf(" cpu_ns=%" PRId64, cpu);
  printf("\n");
}

/* One message there and back, blocking. */
static void speak(int fd) {
  size_t got = 0;
  if (send(fd, pattern, options.size, MSG_NOSIGNAL) != (ssize_t)options.size) bench_die("send");
  while (got < options.size) {
    ssize_t n = recv(fd, buffer + got, options.size - got, 0);
    if (n <= 0) bench_die("recv");
    got += (size_t)n;
  }
  if (memcmp(buffer, pattern, got) != 0) errors++;
}

static void run_idle(struct conn *conns) {
  int n = options.connections;
  speak(conns[0].fd = open_socket(false));
  int64_t before = bench_rss(options.pid);
  /* Accepting is in order, so an answer to the last says that all were accepted; else the backlog would overflow. */
  for (int i = 1; i <= n; i++) {
    conns[i].fd = open_socket(false);
    if (i % 64 == 0 || i == n) speak(conns[i].fd);
  }
  int64_t idle = bench_rss(options.pid);
  for (int i = 1; i <= n; i++) speak(conns[i].fd);
  int64_t spoken = bench_rss(options.pid);
  for (int i = 0; i <= n; i++) close(conns[i].fd);
  for (int i = 0; i < 3; i++) { /* by then the server has seen the ends */
    int fd = open_socket(false);
    speak(fd);
    close(fd);
    usleep(50000);
  }
  int64_t left = bench_rss(options.pid);
  printf("connections=%d errors=%" PRIu64 " idle=%.0f spoken=%.0f left=%.0f\n", n, errors, (double)(idle - before) / n,
         (double)(spoken - before) / n, (double)(left - before) / n);
}

static void parse_options(int argc, char **argv) {
  for (int opt; (opt = getopt(argc, argv, "lm:c:s:p:w:t:n:P:")) != -1;) {
    switch (opt) {
    case 'l': options.lines = true; break;
    case 'm': options.mode = optarg; break;
    case 'c': options.connections = atoi(optarg); break;
    case 's': options.size = (size_t)atol(optarg); break;
    case 'p': options.depth = atoi(optarg); break;
    case 'w': options.warmup = atof(optarg); break;
    case 't': options.seconds = atof(optarg); break;
    case 'n': options.requests = (uint64_t)atoll(optarg), options.seconds = 60; break;
    case 'P': options.pid = (pid_t)atoi(optarg); break;
    default: exit(2);
    }
  }
  options.address = argv[optind];
  bool idle = strcmp(options.mode, "idle") == 0;
  if (!options.address || options.connections < 1 || options.depth < 1 || options.size < 1 ||
      (options.lines && options.size > PERIOD) || (idle && (!options.pid || options.size > sizeof buffer))) {
    fprintf(stderr,
            "usage: loadgen [-m echo|connect|idle] [-l] [-c n] [-s size] [-p depth] [-w s] [-t s | -n n] [-P pid] "
            "ADDRESS\n");
    exit(2);
  }
  reconnecting = strcmp(options.mode, "connect") == 0;
  if (reconnecting) options.depth = 1;
}

int main(int argc, char **argv) {
  parse_options(argc, argv);
  pattern_fill();
  target_len = bench_parse_addr(options.address, &target);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  struct conn *conns = bench_alloc(((size_t)options.connections + 1) * sizeof *conns);
  if (strcmp(options.mode, "idle") == 0)
    run_idle(conns);
  else
    run_load(conns);
  free(conns);
  return errors != 0;
}
