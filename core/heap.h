/* heap.h - the timers of a loop, ordered by (when, seq): a 4-ary array heap that knows each timer's place
 * (timer->index), so that any of them is removed in O(log n). Used by timer.c; debug.c and clock.c look into it. Knows
 * no clock and no loop.
 *
 * An entry keeps the key by which it stands in the heap. A timer that is moved later keeps its old place, with a key
 * that is too early; it goes to its true place once it comes to the top (al__heap_top). So a timeout that is put off
 * again and again costs two stores each time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_HEAP_H
#define AL_HEAP_H

#include "aloop.h"

typedef struct al_heap_entry {
  int64_t when_ns; /* never later than the timer's own */
  uint64_t seq;
  al_timer *timer;
} al_heap_entry;

typedef struct al_heap { /* all zero: empty */
  al_heap_entry *entries;
  size_t count, capacity;
} al_heap;

#define AL_HEAP_NONE SIZE_MAX /* timer->index of a timer that is in no heap */

int al__heap_push(al_heap *heap, al_timer *timer); /* at timer->when_ns, timer->seq. 0 or -ENOMEM */
/* timer->when_ns or timer->seq has changed; the new seq must be greater than the old one. Never fails. */
void al__heap_moved(al_heap *heap, al_timer *timer);
void al__heap_remove(al_heap *heap, al_timer *timer);
al_timer *al__heap_top(al_heap *heap); /* the first by true order, or NULL; puts lagging entries right */
void al__heap_free(al_heap *heap);     /* forgets all timers (their index says none) and frees the array */

#endif
