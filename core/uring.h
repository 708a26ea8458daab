/* uring.h - a ring, before there is a machine around it: setting one up, and its receive buffers. Used by uring_ops.h,
 * uring_setup.c and uring_bufs.c. Knows no ops.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_URING_H
#define AL_URING_H

#include "aloop.h"

#include <liburing.h>

/* ---- uring_setup.c ----------------------------------------------------------------------------------------------- */

#define AL_URING_SQ 512  /* a turn that submits more makes one more system call for each so many */
#define AL_URING_CQ 4096 /* what doesn't fit is kept by the kernel, at a price */

/* Makes a ring, disabled: the thread that enables it is the only one that may use it. 0; AL_ENORING with *reason;
 * -errno. */
int al__uring_setup(struct io_uring *ring, const char **reason);

/* ---- uring_bufs.c ------------------------------------------------------------------------------------------------ */

#define AL_URING_GROUP 0        /* the buffer group of all receives */
#define AL_URING_BUF_SIZE 65536 /* the largest piece; small buffers make bulk data slow */
#define AL_URING_BUFS_MAX 1024  /* a power of two */

/* The buffers, of which the kernel takes one for each piece that it receives. All zero: none yet. */
typedef struct al__bufs {
  struct io_uring_buf_ring *ring; /* those that are free, told to the kernel */
  unsigned count;
  unsigned n_chunks;
  void *chunks[16];            /* the memory behind */
  char *at[AL_URING_BUFS_MAX]; /* by id */
} al__bufs;

/* Makes the first few buffers, unless they are there, and registers all with the ring. All must be free. */
int al__bufs_register(al__bufs *bufs, struct io_uring *ring);
void al__bufs_grow(al__bufs *bufs); /* doubles their number, as far as memory and the limit allow */
void al__bufs_free(al__bufs *bufs); /* the ring is gone */

/* Gives a buffer back to the kernel. */
static inline void al__bufs_give(al__bufs *bufs, unsigned id) {
  io_uring_buf_ring_add(bufs->ring, bufs->at[id], AL_URING_BUF_SIZE, (unsigned short)id,
                        io_uring_buf_ring_mask(AL_URING_BUFS_MAX), 0);
  io_uring_buf_ring_advance(bufs->ring, 1);
}

#endif
