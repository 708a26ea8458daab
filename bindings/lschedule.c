/* lschedule.c - what a loop is asked to call: call_soon, call_later, call_at and their kin. They make handles
 * (lhandle.c) and hand them to the core; each call of them counts.
 *
 * SPDX-License-Identifier: MIT */
#include "lfuture.h"
#include "lhandle.h"
#include "lloop.h"

#include <math.h>

/* In debug mode a value that can't be called is refused at once, else when it is called; a coroutine always. */
static void check_callback(lua_State *L, l_loop *loop, int arg, const char *f) {
  if (lua_isfunction(L, arg)) return;
  if (lua_isthread(L, arg)) al_argerror(L, arg, lua_pushfstring(L, "coroutines cannot be used with %s()", f));
  if (lua_isnoneornil(L, arg) || (al_loop_debug(loop->loop) && !al_iscallable(L, arg)))
    al_typeerror(L, arg, "function");
}

/* al_check_open, short for the loop that runs: it is open. In debug mode the thread is checked, too. */
static inline l_loop *check_loop(lua_State *L, al_ctx *ctx) {
  l_loop *loop = lua_touserdata(L, 1);
  return loop && loop == ctx->running && !al_loop_debug(loop->loop) ? loop : al_check_open(L, ctx, 1);
}

static int loop_call_soon(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = check_loop(L, ctx);
  check_callback(L, loop, 2, "call_soon");
  l_handle *h = al_handle_schedule(L, ctx, loop, false, 2);
  al_call_soon(loop->loop, &h->t.handle);
  return 1;
}

/* In this thread nothing sleeps; other threads have other states and come through a remote. */
static int loop_call_soon_threadsafe(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  al_check_alive(L, loop);
  check_callback(L, loop, 2, "call_soon_threadsafe");
  l_handle *h = al_handle_schedule(L, ctx, loop, false, 2);
  al_call_soon(loop->loop, &h->t.handle);
  return 1;
}

static int schedule(lua_State *L, bool relative, const char *f) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = check_loop(L, ctx);
  double when = al_checknumber(L, 2);
  if (isnan(when)) return al_raise(L, ctx, AL_C_ValueError, "'%s': %s must not be NaN", f, relative ? "delay" : "when");
  check_callback(L, loop, 3, f);
  if (relative) when += (double)al_loop_time_ns(loop->loop) / 1e9;
  l_handle *h = al_handle_schedule(L, ctx, loop, true, 3);
  al_timer_handle_start(L, ctx, lua_gettop(L), h, when);
  return 1;
}

static int loop_call_later(lua_State *L) { return schedule(L, true, "call_later"); }
static int loop_call_at(lua_State *L) { return schedule(L, false, "call_at"); }

static int loop_time(lua_State *L) {
  lua_pushnumber(L, (double)al_loop_time_ns(al_check_loop(L, al_ctx_of(L), 1)->loop) / 1e9);
  return 1;
}

static int loop_create_future(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_future_new(L, ctx, al_check_loop(L, ctx, 1));
  return 1;
}

static const luaL_Reg methods[] = {{"time", loop_time}, {"create_future", loop_create_future}, {NULL, NULL}};

/* al_handle_pushfunction gives them what they need at hand. */
static const luaL_Reg scheduling[] = {{"call_soon", loop_call_soon},
                                      {"call_soon_threadsafe", loop_call_soon_threadsafe},
                                      {"call_later", loop_call_later},
                                      {"call_at", loop_call_at},
                                      {NULL, NULL}};
void al_schedule_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, methods);
  al_pushclass(L, ctx, AL_C_BaseEventLoop);
  for (const luaL_Reg *reg = scheduling; reg->name; reg++) {
    al_handle_pushfunction(L, ctx, reg->func);
    lua_setfield(L, -2, reg->name);
  }
  lua_pop(L, 1);
}
