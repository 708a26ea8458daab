/* stall.c - a peer that does not read what a server writes, for a while, and then takes all: what the server holds in
 * memory for it.
 *
 *   stall [-t seconds in which nothing is read] -P pid of the server ADDRESS
 *
 * Prints one line of key=value: bytes that came, and the server's resident bytes before and at most (before most).
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE (1024 * 1024)

static char buffer[PIECE]; /* MSG_TRUNC leaves it alone */

/* From here on the server's peak is counted anew. */
static void reset_peak(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)pid);
  FILE *file = fopen(path, "w");
  if (!file || fputs("5", file) < 0 || fclose(file) != 0) bench_die(path);
}

static int64_t peak(pid_t pid) {
  char path[64], line[256];
  long long kib = -1;
  snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *file = fopen(path, "r");
  if (!file) bench_die(path);
  while (kib < 0 && fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %lld kB", &kib) != 1) kib = -1;
  fclose(file);
  return kib * 1024;
}

int main(int argc, char **argv) {
  double seconds = 0.5;
  pid_t pid = 0;
  for (int opt; (opt = getopt(argc, argv, "t:P:")) != -1;) {
    if (opt == 't') seconds = atof(optarg);
    if (opt == 'P') pid = (pid_t)atoi(optarg);
    if (opt == '?') exit(2);
  }
  struct sockaddr_storage addr;
  if (!argv[optind] || !pid) exit(2);
  socklen_t len = bench_parse_addr(argv[optind], &addr);
  usleep(200000); /* the server has started in full */
  int64_t before = bench_rss(pid);
  reset_peak(pid);
  int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&addr, len) < 0) bench_die("connect");
  usleep((useconds_t)(seconds * 1e6));
  uint64_t bytes = 0;
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof buffer, MSG_TRUNC)) > 0) bytes += (uint64_t)n;
  if (n < 0) bench_die("recv");
  printf("bytes=%" PRIu64 " before=%" PRId64 " most=%" PRId64 "\n", bytes, before, peak(pid));
  return 0;
}
