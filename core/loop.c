/* loop.c - the loop: its life and its turn. This page is the specification; the rest of core says how.
 *
 * A turn: wait for I/O, collect the timers that are due, run the callbacks that were queued before the wait, then what
 * the I/O completed, then the due timers. What all these add waits for the next turn.
 *
 * SPDX-License-Identifier: MIT */
#include "loop.h"

#include "clock.h"
#include "debug.h"
#include "handle.h"
#include "mem.h"
#include "timer.h"

#include <errno.h>
#include <string.h>

#define SLOW_NS (100 * INT64_C(1000000))

/* A poll that does not wait costs a system call a turn, more than many a callback. So once this many in a row have
 * found nothing, while callbacks queue callbacks, each is good for so long. The clock isn't free either: it is read
 * every eighth turn. An op submitted or cancelled puts an end to it (al__loop_io_changed). */
#define EMPTY_POLLS 16
#define SPARED_NS 20000
#define CLOCK_TURNS 8

static const al_io_ops *const machines[] = {&al__io_epoll, &al__io_poll, &al__io_select, &al__io_uring};

static _Thread_local al_loop *current; /* the loop that runs in this thread */

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

void al__loop_run(al_loop *loop, al_handle *handle) {
  int64_t began_ns = al__slow_begin(loop);
  handle->run(loop, handle);
  al__slow_end(loop, handle, began_ns);
}

static int64_t wait_ns(al_loop *loop, int64_t limit_ns) {
  if (loop->stopping || loop->broken || !al__link_is_empty(&loop->ready) || !al__link_is_empty(&loop->due)) return 0;
  int64_t timer_ns = limit_ns ? al__timer_wait_ns(loop) : 0;
  if (timer_ns < 0) return limit_ns;
  return limit_ns < 0 ? timer_ns : AL_MIN(timer_ns, limit_ns);
}

static bool may_spare_poll(const al_loop *loop) {
  return loop->empty_polls >= EMPTY_POLLS && !loop->stopping && !al__link_is_empty(&loop->ready) &&
         (loop->spared_polls % CLOCK_TURNS != CLOCK_TURNS - 1 || al_time_ns() - loop->polled_ns < SPARED_NS);
}

/* Has the machine wait at most limit_ns (-1: for ever) and collect. */
static int poll_io(al_loop *loop, int64_t limit_ns) {
  int64_t timeout_ns = wait_ns(loop, limit_ns);
  int found = timeout_ns && loop->clock ? al__clock_wait(loop, limit_ns) : loop->io->wait(loop, timeout_ns);
  if (found < 0) return found;
  loop->spared_polls = 0;
  loop->empty_polls = found || timeout_ns ? 0 : loop->empty_polls + 1;
  /* After a wait in vain too: a signal may have ended it, and the thread sanitizer, which doesn't know all ways to
   * wait, runs its handler only inside a call that it does know. */
  if (loop->empty_polls >= EMPTY_POLLS || (!found && timeout_ns)) loop->polled_ns = al_time_ns();
  return 0;
}

static void run_batch(al_loop *loop) {
  while (!al__link_is_empty(&loop->batch) && !loop->broken) al__loop_run(loop, al__list_pop(&loop->batch));
  if (loop->broken)
    al__link_splice_front(&loop->ready, &loop->batch); /* al_loop_break: the rest comes first in the next turn */
}

static int turn(al_loop *loop, int64_t limit_ns) {
  bool spared = limit_ns < 0 && may_spare_poll(loop);
  loop->spared_polls += spared; /* set to 0 by a poll */
  int err = spared ? 0 : poll_io(loop, limit_ns);
  if (err) return err;
  loop->stats.turns++;
  loop->broken = false;
  if (loop->timers.count) al__timer_collect(loop);
  al__link_splice(&loop->batch, &loop->ready);
  if (loop->clock) al__clock_turn(loop);
  run_batch(loop);
  if (!loop->broken && !spared) loop->io->dispatch(loop);
  al__timer_run_due(loop);
  al__loop_check(loop);
  return 0;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static int enter(al_loop *loop) {
  if (loop->closed) return AL_ECLOSED;
  if (al_loop_is_running(loop)) return AL_ERUNNING;
  if (current) return AL_ENESTED;
  al_loop_hold(loop); /* a callback may release the last reference */
  __atomic_store_n(&loop->running, true, __ATOMIC_RELEASE);
  current = loop;
  return 0;
}

static void leave(al_loop *loop) {
  loop->stopping = false;
  current = NULL;
  __atomic_store_n(&loop->running, false, __ATOMIC_RELEASE);
  al_loop_release(loop);
}

int al_loop_run_forever(al_loop *loop) {
  int err = enter(loop);
  if (err) return err;
  do err = turn(loop, -1);
  while (!err && !loop->stopping);
  leave(loop);
  return err;
}

int al_loop_run_once(al_loop *loop, int64_t timeout_ns) {
  int err = enter(loop);
  if (err) return err;
  err = turn(loop, timeout_ns);
  leave(loop);
  return err;
}

void al_loop_stop(al_loop *loop) { loop->stopping = true; }

void al_loop_break(al_loop *loop) {
  loop->stopping = true;
  if (al_loop_is_running(loop)) loop->broken = true;
}

int al_loop_poll_fd(al_loop *loop) { return loop->closed ? AL_ECLOSED : loop->io->poll_fd(loop); }

int64_t al_loop_timeout_ns(al_loop *loop) {
  if (loop->closed) return -1;
  return loop->io->flush(loop) ? 0 : wait_ns(loop, -1);
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

static const al_io_ops *find_machine(const char *name) {
  if (!name) return machines[0];
  for (size_t i = 0; i < AL_COUNT(machines); i++)
    if (!strcmp(machines[i]->name, name)) return machines[i];
  return NULL;
}

static void init(al_loop *loop, const al_io_ops *io, const al_loop_options *options) {
  loop->io = io;
  loop->refs = 1;
  loop->slow_ns = SLOW_NS;
  loop->debug = options && options->debug;
  loop->data = options ? options->data : NULL;
  loop->discard = options ? options->discard : NULL;
  loop->clock = options ? options->clock : NULL;
  al__link_init(&loop->ready);
  al__link_init(&loop->batch);
  al__link_init(&loop->due);
}

int al_loop_new(const al_loop_options *options, al_loop **loop, const char **reason) {
  const char *why = NULL;
  const al_io_ops *io = find_machine(options ? options->machine : NULL);
  if (!io) return -EINVAL;
  al_loop *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  init(made, io, options);
  int err = io->open(made, &why);
  if (err) goto fail_open;
  err = al__wakeup_open(made);
  if (err) goto fail_wakeup;
  *loop = made;
  return 0;
fail_wakeup:
  made->closed = true;
  io->close(made);
fail_open:
  al__free(made);
  if (reason) *reason = why;
  return err;
}

static void close_rooms(al_loop *loop) {
  for (size_t i = AL_ROOM_COUNT; i-- > 0;) {
    al__room *room = &loop->rooms[i];
    if (room->state) room->close(loop, room->state);
    room->state = NULL;
  }
}

void al__loop_discard(al_loop *loop, al_handle *handle) {
  if (loop->discard) loop->discard(loop, handle);
}

static void empty_queues(al_loop *loop) {
  al__link_splice(&loop->ready, &loop->batch);
  while (!al__link_is_empty(&loop->ready)) al__loop_discard(loop, al__list_pop(&loop->ready));
  al__timer_close(loop);
  loop->emptied = true;
}

int al_loop_close(al_loop *loop) {
  if (al_loop_is_running(loop)) return AL_ERUNNING;
  if (loop->closed) return 0;
  loop->closed = true;
  close_rooms(loop);
  loop->io->close(loop);
  al__wakeup_close(loop);
  empty_queues(loop);
  return 0;
}

void al_loop_hold(al_loop *loop) { __atomic_fetch_add(&loop->refs, 1, __ATOMIC_RELAXED); }

void al_loop_release(al_loop *loop) {
  if (__atomic_sub_fetch(&loop->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_loop_close(loop);
  al__wakeup_free(loop);
  al__free(loop);
}

/* ---- what a loop tells ------------------------------------------------------------------------------------------- */

bool al_loop_is_running(const al_loop *loop) { return __atomic_load_n(&loop->running, __ATOMIC_ACQUIRE); }
bool al_loop_is_closed(const al_loop *loop) { return loop->closed; }
bool al_loop_in_thread(const al_loop *loop) { return current == loop || !al_loop_is_running(loop); }
al_loop *al_loop_running(void) { return current; }
void al_loop_forked(void) { current = NULL; }
const char *al_loop_machine(const al_loop *loop) { return loop->io->name; }
void *al_loop_data(const al_loop *loop) { return loop->data; }
void al_loop_set_data(al_loop *loop, void *data) { loop->data = data; }
bool al_loop_debug(const al_loop *loop) { return loop->debug; }
void al_loop_set_debug(al_loop *loop, bool debug) { loop->debug = debug; }
