/* selector.h - what io_ready.c needs of a readiness interface of the kernel: which descriptors are watched for what,
 * and which of them are ready. Implemented by sel_epoll.c, sel_poll.c and sel_select.c; used by io_ready.c, and by
 * selector.c for programs without a loop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_SELECTOR_H
#define AL_SELECTOR_H

#include "aloop.h"

#include <time.h>

#define AL_SEL_BAD 4u /* beside AL_POLL_IN and AL_POLL_OUT (io.h): the descriptor was closed behind our back */
#define AL_SEL_ONCE \
  8u /* beside them in the masks of set: after one event the descriptor is known, but watched no more */
#define AL_SEL_KNOWN 16u /* the mask of such a one */

typedef struct al__event {
  uint64_t key; /* what set gave with the descriptor last */
  unsigned events;
} al__event;

typedef struct al__selector {
  int max_fd; /* the largest descriptor it can watch */
  bool once;  /* it has AL_SEL_ONCE */
  int (*open)(void **state);
  void (*close)(void *state);
  /* Changes what is watched from the mask old to wanted (0: nothing). Right also if old is out of date because the
   * descriptor was closed, and perhaps opened as something else, meanwhile. On error nothing is watched: -EBADF,
   * -EPERM (epoll: a file that is always ready), -ENOMEM, -ENOSPC. To 0 it never fails. */
  int (*set)(void *state, int fd, uint64_t key, unsigned old, unsigned wanted);
  /* Level-triggered; errors and hang-ups count as both. Returns how many events (<= max), 0 also when interrupted, or
   * -errno. If more are ready than max, those left out come before the others next time. */
  int (*wait)(void *state, al__event *events, int max, int64_t timeout_ns);
  int (*poll_fd)(void *state); /* readable when wait would return something; or -ENOSYS */
} al__selector;

extern const al__selector al__sel_epoll, al__sel_poll, al__sel_select;

/* NULL for no timeout (-1), else *ts filled in. */
static inline struct timespec *al__timespec(struct timespec *ts, int64_t timeout_ns) {
  if (timeout_ns < 0) return NULL;
  ts->tv_sec = (time_t)(timeout_ns / 1000000000);
  ts->tv_nsec = (long)(timeout_ns % 1000000000);
  return ts;
}

#endif
