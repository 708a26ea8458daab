/* lpause.h - a place to wait in: for a time, or in a list until somebody wakes the task.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPAUSE_H
#define AL_LPAUSE_H

#include "ltask.h"

/* What stands for a task that sleeps, or waits in a list of tasks. It is not part of the task, for few tasks of many
 * wait in this way at one time; and no userdata, for the same few serve again and again. */
typedef struct l_pause l_pause;
struct l_pause {
  al_timer timer; /* sleep()'s; otherwise its handle is the place in a list */
  l_wait wait;    /* its kind's finish and abandon give the pause back */
};

/* One that is in no list and whose timer is not set; raises for want of memory. */
l_pause *al_pause_take(lua_State *L, al_ctx *ctx);
void al_pause_give(al_ctx *ctx, l_pause *pause);

l_pause *al_pause_of_wait(l_wait *wait);
l_pause *al_pause_of_handle(al_handle *handle);
l_pause *al_pause_of_link(al_link *link);

/* When the sleeping task wakes up; NULL: it does not sleep. */
const al_timer *al_sleep_timer(const l_task *task);

void al_pause_end(al_ctx *ctx); /* of the state: frees those that are not in use */

#endif
