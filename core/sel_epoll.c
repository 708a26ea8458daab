/* sel_epoll.c - selector.h over epoll, level-triggered. Used by io_ready.c through al__sel_epoll.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "io.h"
#include "mem.h"
#include "selector.h"
#include "sock.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct sel_epoll {
  int fd;
  bool has_pwait2; /* a wait in nanoseconds (Linux 5.11) */
  struct epoll_event events[AL_EVENTS_PER_WAIT];
} sel_epoll;

#ifdef SYS_epoll_pwait2
static int pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout) {
  return (int)syscall(SYS_epoll_pwait2, fd, events, max, timeout, NULL, (size_t)0);
}
#else
static int pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout) {
  (void)fd, (void)events, (void)max, (void)timeout;
  errno = ENOSYS;
  return -1;
}
#endif

static int epoll_open(void **state) {
  sel_epoll *self = al__malloc(sizeof(*self));
  if (!self) return -ENOMEM;
  self->fd = epoll_create1(EPOLL_CLOEXEC);
  if (self->fd < 0) {
    int err = -errno;
    al__free(self);
    return err;
  }
  self->has_pwait2 = pwait2(self->fd, self->events, 1, &(struct timespec){0, 0}) == 0;
  *state = self;
  return 0;
}

static void epoll_close(void *state) {
  sel_epoll *self = state;
  al__fd_close(self->fd);
  al__free(self);
}

static int control(sel_epoll *self, int how, int fd, uint64_t key, unsigned wanted) {
  struct epoll_event event = {.data.u64 = key};
  if (wanted & AL_POLL_IN) event.events |= EPOLLIN;
  if (wanted & AL_POLL_OUT) event.events |= EPOLLOUT;
  if (wanted & AL_SEL_ONCE) event.events |= EPOLLONESHOT;
  return epoll_ctl(self->fd, how, fd, &event) < 0 ? -errno : 0;
}

/* The kernel forgets a descriptor when the last duplicate of it is closed, so it may know less than old says, or
 * more. */
static int epoll_set(void *state, int fd, uint64_t key, unsigned old, unsigned wanted) {
  if (!wanted) {
    control(state, EPOLL_CTL_DEL, fd, key, 0);
    return 0;
  }
  int err = control(state, old ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, key, wanted);
  if (err == -ENOENT) return control(state, EPOLL_CTL_ADD, fd, key, wanted);
  if (err == -EEXIST) return control(state, EPOLL_CTL_MOD, fd, key, wanted);
  return err;
}

static int wait_ms(sel_epoll *self, int max, int64_t timeout_ns) {
  int64_t ms = timeout_ns < 0 ? -1 : timeout_ns / 1000000 + (timeout_ns % 1000000 != 0); /* rounded up: never early */
  return epoll_wait(self->fd, self->events, max, (int)AL_MIN(ms, INT_MAX));
}

static int epoll_wait_events(void *state, al__event *events, int max, int64_t timeout_ns) {
  sel_epoll *self = state;
  struct timespec ts;
  max = AL_MIN(max, AL_EVENTS_PER_WAIT);
  int n = self->has_pwait2 ? pwait2(self->fd, self->events, max, al__timespec(&ts, timeout_ns))
                           : wait_ms(self, max, timeout_ns);
  if (n < 0) return errno == EINTR ? 0 : -errno;
  for (int i = 0; i < n; i++) {
    unsigned got = self->events[i].events;
    events[i].key = self->events[i].data.u64;
    events[i].events = 0;
    if (got & (EPOLLIN | EPOLLERR | EPOLLHUP)) events[i].events |= AL_POLL_IN;
    if (got & (EPOLLOUT | EPOLLERR | EPOLLHUP)) events[i].events |= AL_POLL_OUT;
  }
  return n;
}

static int epoll_poll_fd(void *state) { return ((sel_epoll *)state)->fd; }

const al__selector al__sel_epoll = {
    .max_fd = INT_MAX,
    .once = true,
    .open = epoll_open,
    .close = epoll_close,
    .set = epoll_set,
    .wait = epoll_wait_events,
    .poll_fd = epoll_poll_fd,
};
