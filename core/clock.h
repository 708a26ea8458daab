/* clock.h - what loop.c asks of a loop's own clock, if it has one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_CLOCK_H
#define AL_CLOCK_H

#include "aloop.h"

/* Waits for I/O as the clock says, until something is found, its time is that of the next timer (or limit_ns from now),
 * or the loop is stopping. As the machine's wait. */
int al__clock_wait(al_loop *loop, int64_t limit_ns);
void al__clock_turn(al_loop *loop); /* the batch and the timers of a turn are collected */

#endif
