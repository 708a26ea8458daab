/* take.c - see take.h.
 *
 * SPDX-License-Identifier: MIT */
#include "take.h"
#include "bench.h"

#include <stdlib.h>
#include <unistd.h>

#define PIECE (1024 * 1024)

static char buffer[PIECE]; /* MSG_TRUNC leaves it alone: the kernel copies nothing */

void take_options(struct take *take, int argc, char **argv) {
  for (int opt; (opt = getopt(argc, argv, "t:P:")) != -1;) {
    if (opt == 't') take->seconds = atof(optarg);
    if (opt == 'P') take->pid = (pid_t)atoi(optarg);
    if (opt == '?') exit(2);
  }
  if (!argv[optind]) exit(2);
  take->addr_len = bench_parse_addr(argv[optind], &take->addr);
}

int take_connect(const struct take *take) {
  int fd = socket(take->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&take->addr, take->addr_len) < 0) bench_die("connect");
  return fd;
}

uint64_t take_rest(int fd) {
  uint64_t bytes = 0;
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof buffer, MSG_TRUNC)) > 0) bytes += (uint64_t)n;
  if (n < 0) bench_die("recv");
  close(fd);
  return bytes;
}
