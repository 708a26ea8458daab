/* uring_bufs.c - the ring's receive buffers. See uring.h. Called by uring_arm.c and uring_complete.c; knows
 * nothing of what is received.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "mem.h"
#include "uring.h"

#include <errno.h>
#include <sys/mman.h>

#define FIRST_BUFS 16

/* Buffers that begin a power of two apart share few sets of a cache: small messages would push each other out of it. */
#define STRIDE (AL_URING_BUF_SIZE + 17 * 64)
#define ALIGN 64

#define RING_BYTES (AL_URING_BUFS_MAX * sizeof(struct io_uring_buf))

static int add_bufs(al__bufs *bufs, unsigned n) {
  n = AL_MIN(n, AL_URING_BUFS_MAX - bufs->count);
  if (!n || bufs->n_chunks == AL_COUNT(bufs->chunks)) return 0;
  char *chunk = al__malloc((size_t)n * STRIDE + ALIGN);
  if (!chunk) return -ENOMEM;
  bufs->chunks[bufs->n_chunks++] = chunk;
  chunk += ALIGN - (uintptr_t)chunk % ALIGN;
  for (unsigned i = 0; i < n; i++) bufs->at[bufs->count + i] = chunk + (size_t)i * STRIDE;
  bufs->count += n;
  return 0;
}

static int map_ring(al__bufs *bufs) {
  void *mapped = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return -errno;
  bufs->ring = mapped;
  return 0;
}

int al__bufs_register(al__bufs *bufs, struct io_uring *ring) {
  int err = bufs->ring ? 0 : map_ring(bufs);
  if (!err && !bufs->count) err = add_bufs(bufs, FIRST_BUFS);
  if (err) return err;
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)bufs->ring, .ring_entries = AL_URING_BUFS_MAX};
  reg.bgid = AL_URING_GROUP;
  io_uring_buf_ring_init(bufs->ring);
  err = io_uring_register_buf_ring(ring, &reg, 0);
  if (err) return err;
  for (unsigned id = 0; id < bufs->count; id++) al__bufs_give(bufs, id);
  return 0;
}

void al__bufs_grow(al__bufs *bufs) {
  unsigned id = bufs->count;
  add_bufs(bufs, bufs->count); /* without, those that there are have to do */
  for (; id < bufs->count; id++) al__bufs_give(bufs, id);
}

void al__bufs_free(al__bufs *bufs) {
  for (unsigned i = 0; i < bufs->n_chunks; i++) al__free(bufs->chunks[i]);
  if (bufs->ring) munmap(bufs->ring, RING_BYTES);
  *bufs = (al__bufs){.ring = NULL};
}
