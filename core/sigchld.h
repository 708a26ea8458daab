/* sigchld.h - when to look after children that have no pidfd: on old kernels. Used by process.c.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_SIGCHLD_H
#define AL_SIGCHLD_H

#include "aloop.h"

typedef struct al__sigchld al__sigchld;

/* Calls look(loop) in a turn after each SIGCHLD, now and then without one, and for the first time in the next turn.
 * Errors: -errno. */
int al__sigchld_open(al_loop *loop, void (*look)(al_loop *loop), al__sigchld **watch);
void al__sigchld_kick(al__sigchld *watch);  /* look in the next turn */
void al__sigchld_close(al__sigchld *watch); /* in any state of the loop */

#endif
