/* loadgen.c - the load: one thread over epoll, a closed loop. Every byte that comes back is compared with what was
 * sent.
 *
 *   loadgen [-m echo|connect|idle] [-l] [-c connections] [-s size] [-p in flight on each connection]
 *           [-w seconds of warm-up] [-t seconds | -n requests] [-P pid of the server] ADDRESS
 *
 *   echo     sends messages and waits for them to come back
 *   connect  a request is: connect, one echo, close
 *   idle     opens all connections, lets each speak once, closes all; needs -P
 *
 * -l: each message is a line.
 *
 * Prints one line of key=value. echo and connect: requests errors seconds rps, and with -P the server's cpu_ns in the
 * measured time. idle: connections errors, and the server's resident bytes a connection while none has spoken yet
 * (idle), after each spoke (spoken) and after all were closed (left). Exits 1 if there were errors.
 *
 * SPDX-License-Identifier: MIT */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t plain_send(struct load_conn *conn, const void *data, size_t len) {
  ssize_t n = send(conn->fd, data, len, MSG_NOSIGNAL);
  if (n < 0 && errno == EAGAIN) {
    load_block(conn, true);
    errno = EAGAIN;
  }
  return n;
}

static ssize_t plain_recv(struct load_conn *conn, void *data, size_t len) { return recv(conn->fd, data, len, 0); }

static const struct load_wire plain = {.send = plain_send, .recv = plain_recv};
const struct load_wire *load_wire = &plain;

int main(int argc, char **argv) {
  load_options.name = "loadgen";
  for (int opt; (opt = getopt(argc, argv, LOAD_LETTERS)) != -1;)
    if (!load_option(opt, optarg)) exit(2);
  struct load_conn *conns = load_begin(argv[optind]);
  if (!conns) {
    fprintf(stderr,
            "usage: loadgen [-m echo|connect|idle] [-l] [-c n] [-s size] [-p depth] [-w s] [-t s | -n n] [-P pid] "
            "ADDRESS\n");
    exit(2);
  }
  if (strcmp(load_options.mode, "idle") == 0)
    load_idle(conns);
  else
    load_measure(conns);
  printf("\n");
  free(conns);
  return load_errors != 0;
}
