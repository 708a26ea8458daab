/* io_noring.c - stands in for io_uring.c where liburing was not there at build time: opening says so. Used by loop.c.
 *
 * SPDX-License-Identifier: MIT */
#include "io.h"

static int noring_open(al_loop *loop, const char **reason) {
  (void)loop;
  *reason = "aloop was built without io_uring (liburing was not found)";
  return AL_ENORING;
}

const al_io_ops al__io_uring = {.name = "uring", .open = noring_open};
