/* loop.h - struct al_loop, for the files of core from rung 1 upward. What stands in a room of it (al__room) is known to
 * the file of that room alone.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LOOP_H
#define AL_LOOP_H

#include "aloop.h"
#include "base.h"
#include "heap.h"
#include "io.h"
#include "wakeup.h"

/* A room of a higher rung keeps its state of a loop (made at first use) here, and takes it down at close. */
typedef enum al__room_id {
  AL_ROOM_WATCH,
  AL_ROOM_TLS, /* goes after the transports, which use it to the end */
  AL_ROOM_TRANSPORT,
  AL_ROOM_SERVER,
  AL_ROOM_SIGNAL,
  AL_ROOM_RESOLVE,
  AL_ROOM_NET,
  AL_ROOM_PROCESS,
  AL_ROOM_COUNT
} al__room_id;

typedef struct al__room {
  void *state; /* NULL: not used yet */
  /* Ends all and frees state; called by al_loop_close, highest room first, before the machine closes: an op that is
   * still in flight gets its final completion (-ECANCELED) only then, so its memory must outlive this call. */
  void (*close)(al_loop *loop, void *state);
  /* Writes a line for each thing that is open (al__dump_line); may be NULL. */
  void (*dump)(const al_loop *loop, void *state, int fd);
} al__room;

struct al_loop {
  const al_io_ops *io;
  void *machine; /* the machine's state */

  al_list ready; /* queued for the next turn */
  al_list batch; /* being run in this turn; empty between turns */
  al_list due;   /* timers that are due, being run in this turn; after al_loop_break some are left for the next */
  al_heap timers;
  uint64_t timer_seq;

  al__wakeup wakeup;
  int refs;     /* atomic */
  bool running; /* atomic: read by al_loop_in_thread in other threads */

  bool stopping;
  bool broken; /* by al_loop_break in this turn, or in the last one: there are leftovers */
  bool closed, debug;
  bool emptied;          /* the last step of al_loop_close is done: nothing may be queued any more */
  unsigned empty_polls;  /* how many polls in a row did not wait and found nothing */
  unsigned spared_polls; /* how many turns have done without a poll since the last one */
  int64_t polled_ns;     /* when the last one was, once many were empty */

  int64_t slow_ns;
  al_slow_fn *slow;
  void *data;
  void (*discard)(al_loop *loop, al_handle *handle); /* al_loop_options */
  al_clock *clock;                                   /* al_loop_options */
  /* Counted by those who own the things: transports, servers, watchers; ops by the machine, +1 at submit and -1 before
   * the final completion; turns by loop.c. The others are worked out by al_loop_get_stats. */
  al_loop_stats stats;

  al__room rooms[AL_ROOM_COUNT];
};

/* The loop was told to leave its turn at once (al_loop_break). */
static inline bool al__loop_broken(const al_loop *loop) { return loop->broken; }

/* A machine has something new to hand over or to end: the next turn polls. */
static inline void al__loop_io_changed(al_loop *loop) { loop->empty_polls = 0; }

/* Tells the owner of a handle that it won't run. */
void al__loop_discard(al_loop *loop, al_handle *handle);

/* Runs a callback of the loop, timed in debug mode. */
void al__loop_run(al_loop *loop, al_handle *handle);

#endif
