/* sel_poll.c - selector.h over poll(2). Used by io_ready.c through al__sel_poll.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "io.h"
#include "mem.h"
#include "selector.h"
#include "sock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

typedef struct sel_poll {
  struct pollfd *fds; /* the watched ones, dense and in no order */
  uint64_t *keys;     /* of each of fds */
  size_t n, fds_size, keys_size;
  int *places; /* by descriptor: 1 + its index in fds, 0 if it is not watched */
  size_t places_size;
  size_t first; /* where looking for ready ones begins: turns, for fairness */
} sel_poll;

static int poll_open(void **state) {
  sel_poll *self = al__calloc(1, sizeof(*self));
  if (!self) return -ENOMEM;
  *state = self;
  return 0;
}

static void poll_close(void *state) {
  sel_poll *self = state;
  al__free(self->fds);
  al__free(self->keys);
  al__free(self->places);
  al__free(self);
}

static int make_room(sel_poll *self, int fd) {
  size_t old = self->places_size;
  int err = al__array_grow((void **)&self->places, &self->places_size, sizeof(*self->places), (size_t)fd + 1);
  for (size_t i = old; i < self->places_size; i++) self->places[i] = 0;
  if (!err) err = al__array_grow((void **)&self->fds, &self->fds_size, sizeof(*self->fds), self->n + 1);
  if (!err) err = al__array_grow((void **)&self->keys, &self->keys_size, sizeof(*self->keys), self->n + 1);
  return err;
}

static void forget(sel_poll *self, int fd) {
  if ((size_t)fd >= self->places_size || !self->places[fd]) return;
  size_t i = (size_t)self->places[fd] - 1, last = --self->n;
  self->fds[i] = self->fds[last];
  self->keys[i] = self->keys[last];
  self->places[self->fds[i].fd] = (int)i + 1;
  self->places[fd] = 0;
}

static int poll_set(void *state, int fd, uint64_t key, unsigned old, unsigned wanted) {
  sel_poll *self = state;
  (void)old;
  if (!wanted) {
    forget(self, fd);
    return 0;
  }
  int err = al__fd_is_open(fd) ? make_room(self, fd) : -EBADF;
  if (err) {
    forget(self, fd);
    return err;
  }
  if (!self->places[fd]) self->places[fd] = (int)++self->n;
  size_t i = (size_t)self->places[fd] - 1;
  short events = (short)((wanted & AL_POLL_IN ? POLLIN : 0) | (wanted & AL_POLL_OUT ? POLLOUT : 0));
  self->fds[i] = (struct pollfd){.fd = fd, .events = events};
  self->keys[i] = key;
  return 0;
}

static unsigned translate(short got) {
  unsigned events = 0;
  if (got & (POLLIN | POLLERR | POLLHUP)) events |= AL_POLL_IN;
  if (got & (POLLOUT | POLLERR | POLLHUP)) events |= AL_POLL_OUT;
  if (got & POLLNVAL) events |= AL_POLL_IN | AL_POLL_OUT | AL_SEL_BAD;
  return events;
}

static int poll_wait(void *state, al__event *events, int max, int64_t timeout_ns) {
  sel_poll *self = state;
  struct timespec ts;
  int ready = ppoll(self->fds, self->n, al__timespec(&ts, timeout_ns), NULL);
  if (ready < 0) return errno == EINTR ? 0 : -errno;
  if (self->first >= self->n) self->first = 0;
  size_t i = self->first;
  int n = 0;
  for (size_t seen = 0; seen < self->n && n < ready && n < max; seen++) {
    unsigned got = translate(self->fds[i].revents);
    if (got) events[n++] = (al__event){.key = self->keys[i], .events = got};
    if (++i == self->n) i = 0;
  }
  self->first = n < ready ? i : 0;
  return n;
}

static int poll_no_fd(void *state) {
  (void)state;
  return -ENOSYS;
}

const al__selector al__sel_poll = {
    .max_fd = INT_MAX,
    .open = poll_open,
    .close = poll_close,
    .set = poll_set,
    .wait = poll_wait,
    .poll_fd = poll_no_fd,
};
