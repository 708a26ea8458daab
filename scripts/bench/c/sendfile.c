/* sendfile.c - the baseline for sending files: sendfile(2) and poll(2), without any event loop. Each connection gets a
 * GiB: a file of 64 MiB, again and again.
 *
 *   sendfile       prints its address, 127.0.0.1:PORT
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define SIZE (64 * 1024 * 1024)
#define TIMES 16

static int make_file(void) {
  static char block[65536];
  FILE *file = tmpfile();
  if (!file) bench_die("tmpfile");
  memset(block, 'x', sizeof block);
  for (size_t n = 0; n < SIZE; n += sizeof block)
    if (fwrite(block, 1, sizeof block, file) != sizeof block) bench_die("fwrite");
  fflush(file);
  return fileno(file);
}

static bool send_once(int fd, int file) {
  off_t offset = 0;
  while (offset < SIZE) {
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    if (sendfile(fd, file, &offset, (size_t)(SIZE - offset)) >= 0) continue;
    if (errno != EAGAIN) return false;
    if (poll(&writable, 1, -1) < 0 && errno != EINTR) bench_die("poll");
  }
  return true;
}

int main(void) {
  int file = make_file(), listener = bench_listen("tcp");
  for (;;) {
    struct pollfd readable = {.fd = listener, .events = POLLIN};
    if (poll(&readable, 1, -1) < 0) bench_die("poll");
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) continue;
    for (int i = 0; i < TIMES && send_once(fd, file); i++) {
    }
    close(fd);
  }
}
