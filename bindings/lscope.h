/* lscope.h - scopes: what a task enters and has to close, a timeout or a task group. An open scope stands in a list of
 * its task and is anchored; one that is still open when the task ends is an error of that task.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSCOPE_H
#define AL_LSCOPE_H

#include "ltask.h"

struct l_scope {
  l_scope *outer; /* the task's next one */
  l_task *task;   /* NULL: not open any more */
  const char *what;
  int line;       /* where it was made; 0: not known */
  int slot;       /* anchored while it is open */
  al_timer timer; /* a timeout's */
};

/* User values of a scope's userdata. */
enum {
  AL_SCOPE_UV_CREATOR = 1, /* the Lua function that made it */
  AL_SCOPE_UV_COUNT = AL_SCOPE_UV_CREATOR
};

/* The current task, to which a scope made by the function `what` will belong; or raises RuntimeError. */
l_task *al_scope_check_task(lua_State *L, al_ctx *ctx, const char *what);
/* Makes the scope whose userdata is at idx the innermost of the task. level: the first stack level that may be its
 * maker. */
void al_scope_enter(lua_State *L, al_ctx *ctx, l_scope *scope, l_task *task, int idx, const char *what, int level);
/* Takes it out of its task's list, and its timer out of the loop. An unopen one: nothing. */
void al_scope_leave(al_ctx *ctx, l_scope *scope);

void al_scope_openlib(lua_State *L, al_ctx *ctx);
void al_timeout_openlib(lua_State *L, al_ctx *ctx); /* ltimeout.c */

#endif
