/* timer.h - what loop.c asks of the timers; the rest is public (aloop.h). Knows no I/O.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_TIMER_H
#define AL_TIMER_H

#include "aloop.h"

#define AL_TIMER_MAX_WAIT_NS (24 * 3600 * INT64_C(1000000000)) /* asyncio's: longer waits overflow some clocks */

/* How long to wait for the first timer: -1 for ever, 0 it is due, at most 24 h. */
int64_t al__timer_wait_ns(al_loop *loop);
/* Moves the timers that are due now to loop->due, in order. */
void al__timer_collect(al_loop *loop);
void al__timer_run_due(al_loop *loop); /* until none is left or the loop is broken */
void al__timer_close(al_loop *loop);   /* unsets all */

#endif
