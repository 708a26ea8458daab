/* ltask.h - tasks, and how a C function waits in one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTASK_H
#define AL_LTASK_H

#include "lfuture.h"

/* Something that a task waits for. It is embedded in the state of the operation, which is usually a userdata that stays on the
 * stack of the waiting C function, so that it needs no other owner. */
typedef struct l_wait l_wait;
struct l_wait {
  /* In the task again, after al_wake: pushes the results and returns their number, or raises. L's stack is as the
   * waiting C function left it. */
  int (*finish)(lua_State *L, al_ctx *ctx, l_wait *wait);
  /* The task was cancelled (before or after al_wake, but before finish): ends the operation and disposes of its result.
   * finish won't be called. Must not throw. */
  void (*abandon)(al_ctx *ctx, l_wait *wait);
  const char *what; /* "connection", "timer": for reports */
  l_task *task;     /* set while waiting */
};

/* The current task if a C function called from L may wait here; else raises RuntimeError that says why and what to do
 * (no task; inside a C function that can't be suspended; a coroutine resumed by a foreign resume). f: its name. Call it
 * before anything is begun. */
l_task *al_check_wait(lua_State *L, al_ctx *ctx, const char *f);

/* Suspends the current task until al_wake(wait) or cancellation: `return al_wait(L, ctx, wait);`. */
int al_wait(lua_State *L, al_ctx *ctx, l_wait *wait);

/* The operation has ended: the task goes on in the next turn, with wait->finish. Never throws. */
void al_wake(l_wait *wait);

/* The loop of the current task. */
l_loop *al_task_loop(l_task *task);

void al_task_openlib(lua_State *L, al_ctx *ctx);

#endif
