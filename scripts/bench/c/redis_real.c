/* redis_real.c - starts a redis-server that keeps nothing, as a peer of the example that speaks its protocol.
 *
 *   redis_real PATH       makes the directory PATH for its files; prints the address
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What it logs is no address. The child that says the address has its own stdout by then. */
static void silence(void) {
  int fd = open("/dev/null", O_WRONLY);
  if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0) bench_die("/dev/null");
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: redis_real PATH\n");
    return 2;
  }
  char port[8];
  snprintf(port, sizeof port, "%u", bench_hold_port());
  if (mkdir(argv[1], 0700) < 0) bench_die(argv[1]);
  bench_announce((uint16_t)atoi(port));
  silence();
  execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", argv[1], "--save", "",
         "--appendonly", "no", (char *)NULL);
  bench_die("redis-server");
}
