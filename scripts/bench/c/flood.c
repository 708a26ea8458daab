/* flood.c - a child that writes a GiB to stdout and a GiB to stderr, to both as fast as they take it: blocks of 64 KiB,
 * each of one byte again and again, its number modulo 7 (stderr: and 1 more).
 *
 *   flood
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 65536
#define SIZE ((uint64_t)1 << 30)

struct stream {
  int fd, shift;
  uint64_t sent;
  char block[BLOCK];
};

/* Writes the rest of the block under way. */
static void stream_write(struct stream *stream) {
  size_t at = stream->sent % BLOCK;
  if (at == 0) memset(stream->block, (int)((stream->sent / BLOCK + (uint64_t)stream->shift) % 7), BLOCK);
  ssize_t n = write(stream->fd, stream->block + at, BLOCK - at);
  if (n < 0 && errno != EAGAIN) bench_die("write");
  if (n > 0) stream->sent += (uint64_t)n;
}

int main(void) {
  static struct stream streams[] = {{.fd = STDOUT_FILENO}, {.fd = STDERR_FILENO, .shift = 1}};
  struct pollfd fds[2];
  for (int i = 0; i < 2; i++) {
    fds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLOUT};
    if (fcntl(streams[i].fd, F_SETFL, O_NONBLOCK) < 0) bench_die("fcntl");
  }
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    if (poll(fds, 2, -1) < 0) bench_die("poll");
    for (int i = 0; i < 2; i++) {
      if (fds[i].fd >= 0 && fds[i].revents) stream_write(&streams[i]);
      if (streams[i].sent == SIZE) fds[i].fd = -1;
    }
  }
  return 0;
}
