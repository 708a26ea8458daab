/* debug.h - timing of callbacks, and the walk over all that must hold. Used by whoever calls callbacks of the loop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_DEBUG_H
#define AL_DEBUG_H

#include "loop.h"

/* Around a callback: int64_t began = al__slow_begin(loop); ...; al__slow_end(loop, handle or NULL, began); One branch
 * each outside debug mode. Used by al__loop_run, and by the machines around dispatching a completion. */
static inline int64_t al__slow_begin(const al_loop *loop) { return loop->debug ? al_time_ns() : 0; }
void al__slow_report(al_loop *loop, al_handle *handle, int64_t began_ns);
static inline void al__slow_end(al_loop *loop, al_handle *handle, int64_t began_ns) {
  if (began_ns) al__slow_report(loop, handle, began_ns);
}

/* Asserts the invariants of lists, heap and counters (debug builds; else nothing). Called between turns. */
#ifdef AL_DEBUG
void al__loop_check(const al_loop *loop);
#else
static inline void al__loop_check(const al_loop *loop) { (void)loop; }
#endif

/* For the dump hooks of rooms: one line to fd. */
void al__dump_line(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
