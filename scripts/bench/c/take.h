/* take.h - what the programs that only take bytes (sink.c, stall.c) share: their options, and a connection taken to its
 * end. Knows nothing of who sends, or why.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TAKE_H
#define TAKE_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct take {
  double seconds; /* -t */
  pid_t pid;      /* -P: of the server; 0: not given */
  struct sockaddr_storage addr;
  socklen_t addr_len;
};

/* Reads the arguments [-t seconds] [-P pid] ADDRESS over what stands in take already, or ends the program. */
void take_options(struct take *take, int argc, char **argv);

int take_connect(const struct take *take);
uint64_t take_rest(int fd); /* how many bytes came until the end; closes fd */

#endif
