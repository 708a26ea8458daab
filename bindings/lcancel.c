/* lcancel.c - how a request to cancel finds its way: from the task that is asked, along what it waits for. It is told
 * to the task at its next step (ltask.c). Called by task:cancel(), timeouts, and whoever cancels a future.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "ltask.h"

/* Ends the wait of the task at self, for a plain future or an operation; the message is on top. */
static void cancel_wait(lua_State *L, al_ctx *ctx, l_task *t, int self) {
  const l_future *awaited = al_task_awaited(t);
  if (awaited && awaited->state == AL_FUTURE_PENDING && !t->throwing) {
    lua_getiuservalue(L, self, AL_TASK_UV_AWAITED);
    lua_pushvalue(L, -2);
    if (!al_future_cancel(L, ctx, lua_gettop(L) - 1)) t->must_cancel = true;
    lua_pop(L, 1);
  } else if (al_task_wait(t) && !al_handle_is_queued(&t->step)) {
    t->throwing = true;
    al_task_abandon(ctx, t);
    al_call_soon(t->f.loop->loop, &t->step);
  } else {
    t->must_cancel = true;
  }
}

/* Tasks that wait for each other in a circle would do so for ever: one of them is told where it waits. */
static void break_circle(l_task *t) {
  al_handle_cancel(&t->step); /* it stood in the list of the next one */
  t->throwing = true;
  al_call_soon(t->f.loop->loop, &t->step);
}

/* Goes from task to task along what they wait for, each of which is asked and counts it, to the last one. This is no
 * recursion, for nobody knows how many there are. */
bool al_task_cancel(lua_State *L, al_ctx *ctx, int idx) {
  l_task *t = lua_touserdata(L, idx), *mark = t;
  if (t->f.state != AL_FUTURE_PENDING) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, idx);
  lua_insert(L, -2);
  int message = lua_gettop(L), self = message - 1;
  for (uint64_t steps = 1, limit = 2;; steps++) {
    if (!t->throwing) { /* else what an earlier cancel() gave is on its way */
      lua_pushvalue(L, message);
      al_task_set_message(L, self);
    }
    t->cancelling++;
    l_future *next = al_task_awaited(t);
    if (!next || !next->is_task || next->state != AL_FUTURE_PENDING || t->throwing) break;
    lua_getiuservalue(L, self, AL_TASK_UV_AWAITED);
    lua_replace(L, self);
    t = (l_task *)next;
    if (t == mark) {
      break_circle(t);
      lua_settop(L, self - 1);
      return true;
    }
    if (steps == limit) mark = t, limit *= 2;
  }
  cancel_wait(L, ctx, t, self);
  lua_settop(L, self - 1);
  return true;
}

int al_task_uncancel(l_task *t) {
  if (t->cancelling > 0 && --t->cancelling == 0) t->must_cancel = t->told = false;
  return t->cancelling;
}
