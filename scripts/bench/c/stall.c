/* stall.c - a peer that does not read what a server writes, for a while, and then takes all: what the server holds in
 * memory for it.
 *
 *   stall [-t seconds in which nothing is read] -P pid of the server ADDRESS
 *
 * Prints one line of key=value: bytes that came, and the server's resident bytes before and at most (before most).
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"
#include "take.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
  struct take take = {.seconds = 0.5};
  take_options(&take, argc, argv);
  if (!take.pid) exit(2);
  usleep(200000); /* the server has started in full */
  int64_t before = bench_rss(take.pid);
  reset_peak(take.pid);
  int fd = take_connect(&take);
  usleep((useconds_t)(take.seconds * 1e6));
  uint64_t bytes = take_rest(fd);
  printf("bytes=%" PRIu64 " before=%" PRId64 " most=%" PRId64 "\n", bytes, before, peak(take.pid));
  return 0;
}
