/* lsleep.c - aloop.sleep: a timer of the few that are used again and again (lpause.c), so that waiting for it takes no
 * memory.
 *
 * SPDX-License-Identifier: MIT */
#include "lhandle.h"
#include "lloop.h"
#include "lpause.h"

#include <math.h>

static int sleep_values(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_pause_give(ctx, al_pause_of_wait(wait));
  return lua_gettop(L) - 1;
}

static void sleep_abandon(al_ctx *ctx, l_wait *wait) {
  l_pause *p = al_pause_of_wait(wait);
  al_timer_cancel(&p->timer);
  al_pause_give(ctx, p);
}

static const l_wait_kind sleeping = {sleep_values, sleep_abandon, "timer"};

static void sleep_over(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_wake(&al_pause_of_handle(handle)->wait);
}

const al_timer *al_sleep_timer(const l_task *t) {
  l_wait *wait = al_task_wait(t);
  if (!wait || wait->kind != &sleeping) return NULL;
  const al_timer *timer = &al_pause_of_wait(wait)->timer;
  return al_timer_is_set(timer) ? timer : NULL;
}

static int sleep_turn_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  al_task_resumed(L, al_ctx_of(L));
  return lua_gettop(L) - 1;
}

/* ---- a loop whose class makes its own futures is slept on with one of these -------------------------------------- */

static int set_result_unless_done(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_future *f = al_test_future(L, ctx, 1);
  if (f && f->state == AL_FUTURE_PENDING) al_future_finish(L, ctx, 1, lua_gettop(L) - 1);
  return 0;
}

/* The future is done, perhaps by a cancellation: the timer has nothing left to do. */
static int cancel_timer(lua_State *L) {
  lua_getfield(L, lua_upvalueindex(1), "cancel");
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_call(L, 1, 0);
  return 0;
}

/* [1] delay, values... */
static int sleep_on_future(lua_State *L, al_ctx *ctx, l_loop *loop) {
  int nvalues = lua_gettop(L) - 1;
  al_pushloop(L, loop);
  lua_getfield(L, -1, "create_future");
  lua_pushvalue(L, -2);
  lua_call(L, 1, 1);
  int fut = lua_gettop(L), self = fut - 1;
  if (!al_test_future(L, ctx, fut)) return al_raise(L, ctx, AL_C_RuntimeError, "create_future gave no Future");
  luaL_checkstack(L, nvalues + LUA_MINSTACK, "too many values");
  lua_getfield(L, self, "call_later");
  lua_pushvalue(L, self);
  lua_pushvalue(L, 1);
  al_ctx_pushfunction(L, ctx, set_result_unless_done);
  lua_pushvalue(L, fut);
  for (int i = 0; i < nvalues; i++) lua_pushvalue(L, 2 + i);
  lua_call(L, nvalues + 4, 1); /* the timer */
  lua_pushcclosure(L, cancel_timer, 1);
  lua_getfield(L, fut, "add_done_callback");
  lua_insert(L, -2);
  lua_pushvalue(L, fut);
  lua_insert(L, -2);
  lua_call(L, 2, 0);
  return al_await(L, ctx, fut);
}

static int sleep(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = al_check_wait(L, ctx, "sleep");
  double delay = al_checknumber(L, 1);
  if (isnan(delay)) return al_raise(L, ctx, AL_C_ValueError, "Invalid delay: NaN (not a number)");
  if (delay <= 0) {
    al_call_soon(t->f.loop->loop, &t->step);
    return al_suspend(L, 0, sleep_turn_done);
  }
  if (t->f.loop->custom_future) return sleep_on_future(L, ctx, t->f.loop);
  l_pause *p = al_pause_take(L, ctx);
  p->timer.handle.run = sleep_over;
  if (al_timer_set(t->f.loop->loop, &p->timer, al_loop_time_ns(t->f.loop->loop) + al_seconds_to_ns(delay)) < 0) {
    al_pause_give(ctx, p);
    return luaL_error(L, "not enough memory");
  }
  return al_wait(L, ctx, &p->wait, &sleeping);
}

static const luaL_Reg functions[] = {{"sleep", sleep}, {NULL, NULL}};

void al_sleep_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
