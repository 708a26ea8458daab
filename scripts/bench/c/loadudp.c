/* loadudp.c - the load of datagrams: clients that each send one, wait for it to come back and send the next. One thread
 * over epoll; every byte that comes back is compared with what was sent.
 *
 *   loadudp [-c clients] [-s size] [-w seconds of warm-up] [-t seconds] [-P pid of the server] ADDRESS
 *
 * Prints one line of key=value: requests errors seconds rps, with -P the server's cpu_ns in the measured time. Exits 1
 * if there were errors; a datagram that is lost is one, for on the loopback none should be.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 256
#define STALL_MS 5000

struct client {
  int fd;
  uint64_t number; /* of the datagram under way: its first bytes */
};

static struct options {
  const char *address;
  int clients;
  size_t size;
  double warmup, seconds;
  pid_t pid;
} options = {.clients = 20, .size = 1024, .warmup = 0.1, .seconds = 1};

static struct sockaddr_storage target;
static socklen_t target_len;
static char out[65536], in[65536];
static int epfd;
static uint64_t requests, errors;

static void client_send(struct client *client) {
  client->number++;
  memcpy(out, &client->number, sizeof client->number);
  if (send(client->fd, out, options.size, 0) != (ssize_t)options.size) bench_die("send");
}

static void client_open(struct client *client) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
  client->fd = socket(target.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  client->number = 0;
  if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&target, target_len) < 0) bench_die("connect");
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, client->fd, &event) < 0) bench_die("epoll_ctl");
}

static void client_recv(struct client *client) {
  ssize_t n = recv(client->fd, in, sizeof in, 0);
  if (n < 0 && errno == EAGAIN) return;
  memcpy(out, &client->number, sizeof client->number);
  if (n != (ssize_t)options.size || memcmp(in, out, options.size) != 0) {
    if (errors++ == 0) fprintf(stderr, "loadudp: %s\n", n < 0 ? strerror(errno) : "another datagram came back");
    return;
  }
  requests++;
  client_send(client);
}

static bool turn(void) {
  struct epoll_event events[EVENTS];
  int n = epoll_wait(epfd, events, EVENTS, STALL_MS);
  if (n < 0 && errno != EINTR) bench_die("epoll_wait");
  for (int i = 0; i < n; i++) client_recv(events[i].data.ptr);
  return n != 0;
}

static void run(struct client *clients) {
  for (int i = 0; i < options.clients; i++) client_open(&clients[i]);
  for (int i = 0; i < options.clients; i++) client_send(&clients[i]);
  int64_t warm = bench_now_ns() + (int64_t)(options.warmup * 1e9), now;
  bool alive = true;
  while (alive && errors == 0 && bench_now_ns() < warm) alive = turn();
  uint64_t first = requests;
  int64_t cpu = options.pid ? bench_cpu_ns(options.pid) : 0, start = bench_now_ns();
  int64_t end = start + (int64_t)(options.seconds * 1e9);
  do {
    if (alive) alive = turn();
    now = bench_now_ns();
  } while (alive && errors == 0 && now < end);
  if (options.pid) cpu = bench_cpu_ns(options.pid) - cpu;
  if (!alive) fprintf(stderr, "loadudp: no answer for %d ms after %" PRIu64 " requests\n", STALL_MS, requests);
  if (!alive) errors++;
  double seconds = (double)(now - start) / 1e9;
  uint64_t n = requests - first;
  printf("requests=%" PRIu64 " errors=%" PRIu64 " seconds=%.6f rps=%.0f", n, errors, seconds, (double)n / seconds);
  if (options.pid) printf(" cpu_ns=%" PRId64, cpu);
  printf("\n");
}

static void parse_options(int argc, char **argv) {
  for (int opt; (opt = getopt(argc, argv, "c:s:w:t:P:")) != -1;) {
    switch (opt) {
    case 'c': options.clients = atoi(optarg); break;
    case 's': options.size = (size_t)atol(optarg); break;
    case 'w': options.warmup = atof(optarg); break;
    case 't': options.seconds = atof(optarg); break;
    case 'P': options.pid = (pid_t)atoi(optarg); break;
    default: exit(2);
    }
  }
  options.address = argv[optind];
  if (options.address && options.clients > 0 && options.size >= sizeof(uint64_t) && options.size <= 65507) return;
  fprintf(stderr, "usage: loadudp [-c n] [-s size] [-w s] [-t s] [-P pid] ADDRESS\n");
  exit(2);
}

int main(int argc, char **argv) {
  parse_options(argc, argv);
  for (size_t i = 0; i < sizeof out; i++) out[i] = (char)(i * 31 >> 3);
  target_len = bench_parse_addr(options.address, &target);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  struct client *clients = bench_alloc((size_t)options.clients * sizeof *clients);
  run(clients);
  free(clients);
  return errors != 0;
}
