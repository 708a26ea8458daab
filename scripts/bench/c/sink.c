/* sink.c - the load of programs that send: connects, takes all that comes and throws it away (the kernel copies
 * nothing), and connects again until the time is up.
 *
 *   sink [-t seconds] [-P pid of the server] ADDRESS
 *
 * Prints one line of key=value: bytes seconds, with -P the server's cpu_ns. Connections are taken to their end, so it
 * may last longer than asked for.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE (1024 * 1024)

static char buffer[PIECE]; /* MSG_TRUNC leaves it alone */

static uint64_t take_all(const struct sockaddr_storage *addr, socklen_t len) {
  uint64_t bytes = 0;
  ssize_t n;
  int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)addr, len) < 0) bench_die("connect");
  while ((n = recv(fd, buffer, sizeof buffer, MSG_TRUNC)) > 0) bytes += (uint64_t)n;
  if (n < 0) bench_die("recv");
  close(fd);
  return bytes;
}

int main(int argc, char **argv) {
  double seconds = 1;
  pid_t pid = 0;
  for (int opt; (opt = getopt(argc, argv, "t:P:")) != -1;) {
    if (opt == 't') seconds = atof(optarg);
    if (opt == 'P') pid = (pid_t)atoi(optarg);
    if (opt == '?') exit(2);
  }
  struct sockaddr_storage addr;
  if (!argv[optind]) exit(2);
  socklen_t len = bench_parse_addr(argv[optind], &addr);
  take_all(&addr, len); /* warm */
  int64_t cpu = pid ? bench_cpu_ns(pid) : 0, start = bench_now_ns();
  uint64_t bytes = 0;
  do bytes += take_all(&addr, len);
  while (bench_now_ns() - start < (int64_t)(seconds * 1e9));
  printf("bytes=%" PRIu64 " seconds=%.6f", bytes, (double)(bench_now_ns() - start) / 1e9);
  if (pid) printf(" cpu_ns=%" PRId64, bench_cpu_ns(pid) - cpu);
  printf("\n");
  return 0;
}
