/* timer.c - timers: set, moved, cancelled in O(log n); moved later at the cost of two stores (heap.h). A timer is in
 * the heap until it is due, then in loop->due until it runs; it can be cancelled or moved in both. Called by
 * everybody, loop.c collects what is due; knows no clock.
 *
 * SPDX-License-Identifier: MIT */
#include "timer.h"

#include "handle.h"
#include "loop.h"

#include <time.h>

int64_t al_time_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * AL_NS_PER_SEC + now.tv_nsec;
}

void al_timer_init(al_timer *timer, al_handle_fn *run) {
  *timer = (al_timer){.index = AL_HEAP_NONE};
  al_handle_init(&timer->handle, run);
}

bool al_timer_is_set(const al_timer *timer) { return timer->loop != NULL; }

int al_timer_set(al_loop *loop, al_timer *timer, int64_t when_ns) {
  al_assert(!timer->loop || timer->loop == loop);
  if (loop->closed) return AL_ECLOSED;
  timer->when_ns = when_ns;
  timer->seq = ++loop->timer_seq;
  if (timer->index != AL_HEAP_NONE) {
    al__heap_moved(&loop->timers, timer);
    return 0;
  }
  al_handle_cancel(&timer->handle); /* it was due in this turn */
  int err = al__heap_push(&loop->timers, timer);
  timer->loop = err ? NULL : loop;
  return err;
}

bool al_timer_cancel(al_timer *timer) {
  if (!timer->loop) return false;
  if (timer->index != AL_HEAP_NONE)
    al__heap_remove(&timer->loop->timers, timer);
  else
    al_handle_cancel(&timer->handle);
  timer->loop = NULL;
  return true;
}

int64_t al__timer_wait_ns(al_loop *loop) {
  al_timer *first = al__heap_top(&loop->timers);
  if (!first) return -1;
  int64_t now_ns = al_loop_time_ns(loop);
  if (first->when_ns <= now_ns) return 0;
  return AL_MIN(first->when_ns - now_ns, AL_TIMER_MAX_WAIT_NS);
}

void al__timer_collect(al_loop *loop) {
  al_timer *first = al__heap_top(&loop->timers);
  if (!first) return;
  int64_t now_ns = al_loop_time_ns(loop);
  while (first && first->when_ns <= now_ns) {
    al__heap_remove(&loop->timers, first);
    al_list_append(&loop->due, &first->handle);
    first = al__heap_top(&loop->timers);
  }
}

static al_timer *pop_due(al_loop *loop) {
  al_timer *timer = AL_CONTAINER(al__list_pop(&loop->due), al_timer, handle);
  timer->loop = NULL;
  return timer;
}

void al__timer_run_due(al_loop *loop) {
  while (!al__link_is_empty(&loop->due) && !loop->broken) al__loop_run(loop, &pop_due(loop)->handle);
}

void al__timer_close(al_loop *loop) {
  while (!al__link_is_empty(&loop->due)) al__loop_discard(loop, &pop_due(loop)->handle);
  while (loop->timers.count > 0) {
    al_timer *timer = loop->timers.entries[loop->timers.count - 1].timer;
    al__heap_remove(&loop->timers, timer);
    timer->loop = NULL;
    al__loop_discard(loop, &timer->handle);
  }
  al__heap_free(&loop->timers);
}
