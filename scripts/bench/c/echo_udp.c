/* echo_udp.c - the baseline for datagrams: a loop of recvmsg and sendmsg, without any event loop.
 *
 *   echo_udp       prints its address, 127.0.0.1:PORT
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <netinet/in.h>
#include <stdio.h>

static char buffer[65536];

int main(void) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) < 0) bench_die("socket");
  if (getsockname(fd, (struct sockaddr *)&in, &len) < 0) bench_die("getsockname");
  printf("127.0.0.1:%u\n", ntohs(in.sin_port));
  fflush(stdout);
  for (;;) {
    struct sockaddr_storage from;
    struct iovec iov = {.iov_base = buffer, .iov_len = sizeof buffer};
    struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n = recvmsg(fd, &msg, 0);
    if (n < 0) bench_die("recvmsg");
    iov.iov_len = (size_t)n;
    if (sendmsg(fd, &msg, 0) < 0) bench_die("sendmsg");
  }
}
