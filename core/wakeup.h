/* wakeup.h - how other threads and signal handlers reach a loop: an inbox under a mutex, and an eventfd that the loop
 * watches. The struct is part of al_loop; loop.c opens and closes it; signal.c uses al__wakeup_signal and the hook.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_WAKEUP_H
#define AL_WAKEUP_H

#include "aloop.h"
#include "io.h"

#include <pthread.h>

typedef void al_wakeup_hook_fn(al_loop *loop);

typedef struct al__wakeup {
  pthread_mutex_t mutex; /* guards inbox, inbox_end, closed, and each write to fd by a thread */
  al_remote *inbox, **inbox_end;
  bool closed;
  al_remote *batch; /* taken from the inbox, to be run; the loop's thread only */
  al_wakeup_hook_fn *hook;
  int fd;   /* eventfd; atomic, -1 when closed */
  al_op op; /* POLL of fd, always armed */
} al__wakeup;

int al__wakeup_open(al_loop *loop);   /* the machine is open. 0 or -errno */
void al__wakeup_close(al_loop *loop); /* the machine is closed. What is left in the inbox is dropped */
void al__wakeup_free(al_loop *loop);  /* the last reference is gone */

/* Whether al_call_soon_threadsafe fails by now. Any thread. */
bool al__wakeup_is_closed(al_loop *loop);

/* Wakes the loop and has its hook called in its next turn. For signal handlers and any thread: one write(2), errno is
 * kept. The caller sees to it that the loop is not being closed meanwhile. */
void al__wakeup_signal(al_loop *loop);
/* Sets what is called, in the loop's thread and its I/O phase, each time the loop was woken (NULL: nothing). */
void al__wakeup_set_hook(al_loop *loop, al_wakeup_hook_fn *hook);

#endif
