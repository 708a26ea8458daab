/* lloopdebug.c - what a loop does in debug mode: it tells of callbacks that took too long, and has garbage collected
 * now and then, so that errors which nobody took show. Called by whoever calls back into Lua; outside of debug mode
 * nobody does.
 *
 * SPDX-License-Identifier: MIT */
#include "lhandle.h"
#include "lloop.h"
#include "lrepr.h"
#include "ltask.h"

/* ---- slow callbacks ---------------------------------------------------------------------------------------------- */

static void slow_io(al_loop *core, al_handle *handle, int64_t took_ns) {
  l_loop *loop = al_loop_data(core);
  bool told = loop->told_slow; /* with the protocol's method, or the handle of the watch */
  loop->told_slow = false;
  if (told || (handle && (al_handle_is_ours(handle) || al_task_is_step(handle)))) return; /* they tell it themselves */
  al_warn(loop->ctx, NULL, "Executing %s took %.3f seconds", handle ? "a callback of aloop" : "the callbacks of I/O",
          (double)took_ns / 1e9);
}

typedef struct slow_text {
  l_loop *loop;
  int64_t took_ns;
} slow_text;

/* Pushes ", now at x.lua:3" if it is a task that waits, else "". */
static void push_task_place(lua_State *L, al_ctx *ctx, int idx) {
  const l_future *f = al_test_future(L, ctx, idx);
  lua_State *co = f && f->is_task ? ((const l_task *)f)->co : NULL;
  lua_Debug ar;
  for (int level = 0; co && lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "Sl", &ar);
    if (ar.currentline < 0 || al_is_own_source(ar.source)) continue;
    lua_pushfstring(L, ", now at %s:%d,", ar.short_src, ar.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

static int slow_body(lua_State *L) {
  slow_text *s = lua_touserdata(L, 1);
  push_task_place(L, s->loop->ctx, 2);
  const char *text = luaL_tolstring(L, 2, NULL);
  al_warn(s->loop->ctx, NULL, "Executing %s%s took %.3f seconds", text, lua_tostring(L, 3), (double)s->took_ns / 1e9);
  return 0;
}

bool al_loop_check_slow(lua_State *L, l_loop *loop, int idx, int64_t took_ns) {
  if (took_ns < loop->slow_ns) return false;
  slow_text s = {loop, took_ns};
  lua_pushcfunction(L, slow_body);
  lua_pushlightuserdata(L, &s);
  lua_pushvalue(L, idx);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1);
  return true;
}

void al_loop_set_slow_callback(l_loop *loop, double seconds) {
  loop->slow_ns = al_seconds_to_ns(seconds);
  al_loop_set_slow(loop->loop, loop->slow_ns, slow_io);
}

/* ---- errors that nobody took show when their futures are collected, so collect now and then ---------------------- */

#define COLLECT_INTERVAL_NS INT64_C(1000000000)

static int collect_body(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT);
  return 0;
}

static void collect(al_loop *core, al_handle *handle) {
  (void)handle;
  l_loop *loop = al_loop_data(core);
  al_ctx *ctx = loop->ctx;
  lua_State *L = al_enter(ctx);
  if (!L) return;
  if (al_pcall_c(L, collect_body, NULL, 0) != LUA_OK) al_report(ctx, L, loop, "collecting garbage failed", NULL);
  al_leave(ctx, L);
  loop->collected_ns = al_loop_time_ns(loop->loop);
  if (ctx->n_unread > 0) al_loop_collect_soon(loop);
}

void al_loop_collect_soon(l_loop *loop) {
  if (al_timer_is_set(&loop->collector)) return;
  int64_t now = al_loop_time_ns(loop->loop), next = loop->collected_ns + COLLECT_INTERVAL_NS;
  al_timer_set(loop->loop, &loop->collector, next > now ? next : now); /* no memory: then later */
}

void al_loop_init_collector(l_loop *loop) { al_timer_init(&loop->collector, collect); }
