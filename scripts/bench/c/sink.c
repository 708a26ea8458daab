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
#include "take.h"

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv) {
  struct take take = {.seconds = 1};
  take_options(&take, argc, argv);
  take_rest(take_connect(&take)); /* warm */
  int64_t cpu = take.pid ? bench_cpu_ns(take.pid) : 0, start = bench_now_ns();
  uint64_t bytes = 0;
  do bytes += take_rest(take_connect(&take));
  while (bench_now_ns() - start < (int64_t)(take.seconds * 1e9));
  printf("bytes=%" PRIu64 " seconds=%.6f", bytes, (double)(bench_now_ns() - start) / 1e9);
  if (take.pid) printf(" cpu_ns=%" PRId64, bench_cpu_ns(take.pid) - cpu);
  printf("\n");
  return 0;
}
