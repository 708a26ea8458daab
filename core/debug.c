/* debug.c - what a loop shows of itself: slow callbacks, counts, a list of all that is open, and, in debug builds, a
 * walk over what must hold between turns. Reads everything and changes nothing. Called by loop.c and
 * the machines, and by programs for their leak checks.
 *
 * SPDX-License-Identifier: MIT */
#include "debug.h"

#include "handle.h"

#include <inttypes.h>
#include <stdarg.h>

/* ---- slow callbacks ---------------------------------------------------------------------------------------------- */

void al__slow_report(al_loop *loop, al_handle *handle, int64_t began_ns) {
  int64_t took_ns = al_time_ns() - began_ns;
  if (took_ns < loop->slow_ns) return;
  if (loop->slow)
    loop->slow(loop, handle, took_ns);
  else
    al_log(AL_LOG_WARNING, NULL, "Executing %s took %.3f seconds", handle ? "a callback" : "an I/O callback",
           (double)took_ns / (double)AL_NS_PER_SEC);
}

void al_loop_set_slow(al_loop *loop, int64_t slow_ns, al_slow_fn *slow) {
  loop->slow_ns = slow_ns;
  loop->slow = slow;
}

/* ---- counts and the list of what is open ------------------------------------------------------------------------- */

void al_loop_get_stats(const al_loop *loop, al_loop_stats *stats) {
  *stats = loop->stats;
  if (!al_op_is_idle(&loop->wakeup.op)) stats->ops--; /* the loop's own */
  stats->timers = loop->timers.count + al__link_count(&loop->due);
  stats->handles = al__link_count(&loop->ready) + al__link_count(&loop->batch);
  stats->refs = (size_t)__atomic_load_n(&loop->refs, __ATOMIC_RELAXED);
}

void al__dump_line(int fd, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vdprintf(fd, format, args); /* best effort: there is nobody to tell */
  va_end(args);
}

static void dump_handles(const al_list *list, int fd) {
  for (const al_link *link = list->next; link != list; link = link->next)
    al__dump_line(fd, "handle %p queued\n", (const void *)AL_CONTAINER(link, al_handle, link));
}

static void dump_timers(const al_loop *loop, int fd) {
  int64_t now_ns = al_loop_time_ns(loop);
  for (const al_link *link = loop->due.next; link != &loop->due; link = link->next)
    al__dump_line(fd, "timer %p due\n", (const void *)AL_CONTAINER(link, al_timer, handle.link));
  for (size_t i = 0; i < loop->timers.count; i++) {
    const al_timer *timer = loop->timers.entries[i].timer;
    al__dump_line(fd, "timer %p in %.6f s\n", (const void *)timer,
                  (double)(timer->when_ns - now_ns) / (double)AL_NS_PER_SEC);
  }
}

void al_loop_dump(const al_loop *loop, int fd) {
  al_loop_stats stats;
  al_loop_get_stats(loop, &stats);
  al__dump_line(fd, "loop %p %s%s%s turns=%" PRIu64 " ops=%zu\n", (const void *)loop, loop->io->name,
                al_loop_is_running(loop) ? " running" : "", loop->closed ? " closed" : "", stats.turns, stats.ops);
  dump_handles(&loop->batch, fd);
  dump_handles(&loop->ready, fd);
  dump_timers(loop, fd);
  for (size_t i = 0; i < AL_ROOM_COUNT; i++) {
    const al__room *room = &loop->rooms[i];
    if (room->state && room->dump) room->dump(loop, room->state, fd);
  }
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

#ifdef AL_DEBUG
#define CHECK_EVERY 64 /* turns: the walk is O(n), turns are many */

static void check_ring(const al_link *ring) {
  const al_link *link = ring;
  do {
    al_assert(link->next && link->next->prev == link);
    link = link->next;
  } while (link != ring);
}

static void check_heap(const al_loop *loop) {
  const al_heap *heap = &loop->timers;
  al_assert(heap->count <= heap->capacity);
  for (size_t i = 0; i < heap->count; i++) {
    const al_heap_entry *entry = &heap->entries[i], *parent = &heap->entries[i ? (i - 1) / 4 : 0];
    al_assert(entry->timer->index == i && entry->timer->loop == loop);
    al_assert(entry->when_ns <= entry->timer->when_ns && entry->seq <= entry->timer->seq);
    al_assert(parent->when_ns <= entry->when_ns);
  }
}

void al__loop_check(const al_loop *loop) {
  if (loop->stats.turns % CHECK_EVERY) return;
  check_ring(&loop->ready);
  check_ring(&loop->batch);
  check_ring(&loop->due);
  check_heap(loop);
  al_assert(al__link_is_empty(&loop->batch));
  al_assert(loop->stats.ops >= 1); /* the wake-up's */
}
#endif
