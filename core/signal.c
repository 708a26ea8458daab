/* signal.c - Unix signals as callbacks of a loop (al_add_signal). The handler does two things: it marks the signal as
 * pending in a table of the process and wakes the loop that owns it; the wake-up says only "look", so nothing is lost
 * when its channel is full. The loop then queues the watching handle like any other callback, for each time that the
 * signal came: once a turn, for a handle stands in the queue but once. Knows no machine.
 *
 * SPDX-License-Identifier: MIT */
#include "debug.h"
#include "loop.h"
#include "mem.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

typedef struct sig_slot {
  al_loop *owner;       /* atomic: read by the handler. Written under mutex */
  int pending;          /* atomic: how often it came, and the handle was not queued for it */
  al_handle *handle;    /* the owner's thread only */
  struct sigaction old; /* what al_remove_signal restores */
} sig_slot;

static sig_slot slots[NSIG];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards owner and old of all slots */
static int handling;                                      /* atomic: how many handlers are at work, in all threads */

typedef struct sig_room {
  int count; /* signals that the loop owns */
} sig_room;

static al_loop *owner_of(int signum) { return __atomic_load_n(&slots[signum].owner, __ATOMIC_SEQ_CST); }

/* In a signal handler: atomics and write(2) only. */
static void on_signal(int signum) {
  __atomic_fetch_add(&handling, 1, __ATOMIC_SEQ_CST);
  al_loop *loop = owner_of(signum);
  if (loop) {
    __atomic_fetch_add(&slots[signum].pending, 1, __ATOMIC_SEQ_CST);
    al__wakeup_signal(loop);
  }
  __atomic_fetch_sub(&handling, 1, __ATOMIC_SEQ_CST);
}

static int pending_of(int signum) { return __atomic_load_n(&slots[signum].pending, __ATOMIC_SEQ_CST); }

/* The loop was woken, perhaps by a signal. */
static void signal_on_wakeup(al_loop *loop) {
  bool more = false;
  for (int signum = 1; signum < NSIG; signum++) {
    if (owner_of(signum) != loop || pending_of(signum) == 0) continue;
    if (!al_handle_is_queued(slots[signum].handle)) {
      __atomic_fetch_sub(&slots[signum].pending, 1, __ATOMIC_SEQ_CST);
      al_call_soon(loop, slots[signum].handle);
    }
    more = more || pending_of(signum) > 0;
  }
  if (more) al__wakeup_signal(loop); /* look again in the next turn */
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* Under mutex, and with no handler of ours installed. */
static int install(int signum, al_loop *loop) {
  sig_slot *slot = &slots[signum];
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigfillset(&action.sa_mask); /* a handler is over soon; al_remove_signal waits for it */
  if (sigaction(signum, NULL, &slot->old)) return -errno;
  __atomic_store_n(&slot->pending, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&slot->owner, loop, __ATOMIC_SEQ_CST);
  if (!sigaction(signum, &action, NULL)) return 0;
  __atomic_store_n(&slot->owner, NULL, __ATOMIC_SEQ_CST);
  return -errno;
}

/* Under mutex. A handler that is at work in another thread may still use the loop: it is waited for. */
static void uninstall(int signum) {
  sigaction(signum, &slots[signum].old, NULL);
  __atomic_store_n(&slots[signum].owner, NULL, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&handling, __ATOMIC_SEQ_CST)) sched_yield();
}

static int claim(int signum, al_loop *loop) {
  pthread_mutex_lock(&mutex);
  int err = slots[signum].owner ? -EBUSY : install(signum, loop);
  pthread_mutex_unlock(&mutex);
  return err;
}

static void give_back(int signum) {
  pthread_mutex_lock(&mutex);
  uninstall(signum);
  pthread_mutex_unlock(&mutex);
}

/* ---- the room ---------------------------------------------------------------------------------------------------- */

static void room_close(al_loop *loop, void *state) {
  for (int signum = 1; signum < NSIG; signum++)
    if (owner_of(signum) == loop) al__loop_discard(loop, al_remove_signal(loop, signum));
  al__wakeup_set_hook(loop, NULL);
  al__free(state);
}

static void room_dump(const al_loop *loop, void *state, int fd) {
  (void)state;
  for (int signum = 1; signum < NSIG; signum++)
    if (owner_of(signum) == loop) al__dump_line(fd, "handler of signal %d\n", signum);
}

static sig_room *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_SIGNAL];
  if (!slot->state) {
    sig_room *room = al__calloc(1, sizeof(*room));
    if (room) *slot = (al__room){.state = room, .close = room_close, .dump = room_dump};
  }
  return slot->state;
}

/* ---- add and remove ---------------------------------------------------------------------------------------------- */

static bool is_signal(int signum) { return signum > 0 && signum < NSIG; }

/* What had arrived for the old handle and was not yet run is the new one's. */
static al_handle *replace(al_loop *loop, int signum, al_handle *handle) {
  al_handle *old = slots[signum].handle;
  slots[signum].handle = handle;
  if (old != handle && al_handle_cancel(old)) al_call_soon(loop, handle);
  return old;
}

int al_add_signal(al_loop *loop, int signum, al_handle *handle, al_handle **old) {
  if (loop->closed) return AL_ECLOSED;
  if (!is_signal(signum)) return -EINVAL;
  bool owned = owner_of(signum) == loop;
  if (owned) {
    al_handle *replaced = replace(loop, signum, handle);
    if (old) *old = replaced;
    return 0;
  }
  sig_room *room = room_of(loop);
  if (!room) return -ENOMEM;
  int err = claim(signum, loop);
  if (err) return err;
  slots[signum].handle = handle;
  if (room->count++ == 0) al__wakeup_set_hook(loop, signal_on_wakeup);
  if (old) *old = NULL;
  return 0;
}

al_handle *al_remove_signal(al_loop *loop, int signum) {
  if (!is_signal(signum) || owner_of(signum) != loop) return NULL;
  sig_room *room = loop->rooms[AL_ROOM_SIGNAL].state;
  al_handle *handle = slots[signum].handle;
  give_back(signum);
  slots[signum].handle = NULL;
  al_handle_cancel(handle);
  if (room && --room->count == 0) al__wakeup_set_hook(loop, NULL);
  return handle;
}
