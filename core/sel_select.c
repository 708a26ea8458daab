/* sel_select.c - selector.h over select(2), for descriptors below FD_SETSIZE. Used by io_ready.c through
 * al__sel_select.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "io.h"
#include "mem.h"
#include "selector.h"
#include "sock.h"

#include <errno.h>
#include <sys/select.h>

typedef struct sel_select {
  fd_set reading, writing;
  int n;     /* all that are watched are below */
  int first; /* where looking for ready ones begins: after those that were told last, if there was no room for all */
  uint64_t keys[FD_SETSIZE];
} sel_select;

static int select_open(void **state) {
  sel_select *self = al__calloc(1, sizeof(*self));
  if (!self) return -ENOMEM;
  *state = self;
  return 0;
}

static void select_close(void *state) { al__free(state); }

static bool watched(const sel_select *self, int fd) {
  return FD_ISSET(fd, &self->reading) || FD_ISSET(fd, &self->writing);
}

static int select_set(void *state, int fd, uint64_t key, unsigned old, unsigned wanted) {
  sel_select *self = state;
  int err = !wanted || al__fd_is_open(fd) ? 0 : -EBADF;
  (void)old;
  if (err) wanted = 0;
  FD_CLR(fd, &self->reading);
  FD_CLR(fd, &self->writing);
  if (wanted & AL_POLL_IN) FD_SET(fd, &self->reading);
  if (wanted & AL_POLL_OUT) FD_SET(fd, &self->writing);
  self->keys[fd] = key;
  if (wanted) self->n = AL_MAX(self->n, fd + 1);
  while (self->n > 0 && !watched(self, self->n - 1)) self->n--;
  return err;
}

/* After EBADF, which doesn't say which. */
static int find_bad(const sel_select *self, al__event *events, int max) {
  int n = 0;
  for (int fd = 0; fd < self->n && n < max; fd++) {
    if (watched(self, fd) && !al__fd_is_open(fd))
      events[n++] = (al__event){.key = self->keys[fd], .events = AL_POLL_IN | AL_POLL_OUT | AL_SEL_BAD};
  }
  return n;
}

static int select_wait(void *state, al__event *events, int max, int64_t timeout_ns) {
  sel_select *self = state;
  struct timespec ts;
  fd_set in = self->reading, out = self->writing;
  int ready = pselect(self->n, &in, &out, NULL, al__timespec(&ts, timeout_ns), NULL);
  if (ready < 0) return errno == EINTR ? 0 : errno == EBADF ? find_bad(self, events, max) : -errno;
  int n = 0, fd = self->first < self->n ? self->first : 0;
  for (int seen = 0; ready > 0 && seen < self->n && n < max; seen++) {
    unsigned got = 0;
    if (FD_ISSET(fd, &in)) got |= AL_POLL_IN, ready--;
    if (FD_ISSET(fd, &out)) got |= AL_POLL_OUT, ready--;
    if (got) events[n++] = (al__event){.key = self->keys[fd], .events = got};
    if (++fd == self->n) fd = 0;
  }
  self->first = ready > 0 ? fd : 0;
  return n;
}

static int select_no_fd(void *state) {
  (void)state;
  return -ENOSYS;
}

const al__selector al__sel_select = {
    .max_fd = FD_SETSIZE - 1,
    .open = select_open,
    .close = select_close,
    .set = select_set,
    .wait = select_wait,
    .poll_fd = select_no_fd,
};
