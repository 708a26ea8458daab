/* lhandle.c - Handle and TimerHandle. One userdata holds the core's handle (or timer), the callback, its arguments and
 * its context; while it is queued it is anchored, and that is all that keeps it. Made wherever a script
 * asks for a callback (lschedule.c, lfd.c, lsignal.c, lfuture.c ...); knows nothing of what calls it.
 *
 * SPDX-License-Identifier: MIT */
#include "lhandle.h"

#include "lcontext.h"
#include "lfd.h"
#include "lloop.h"
#include "lrepr.h"

#include <math.h>
#include <string.h>

/* User values: the callback, its arguments, the context; a timer's last one is its loop. */
enum { UV_CALLBACK = 1 };
#define UV_CONTEXT(h) ((h)->nargs + 2)
#define UV_LOOP(h) ((h)->nargs + 3)

static l_handle *of_core(al_handle *core) { return (l_handle *)(void *)((char *)core - offsetof(l_handle, t)); }

static void forget_anchor(al_ctx *ctx, l_handle *h) {
  al_unanchor(ctx, h->slot);
  h->slot = 0;
}

/* Pushes the callback and its arguments; false if there is no room. */
static bool push_call(lua_State *L, l_handle *h, int idx) {
  if (h->nargs > LUA_MINSTACK / 2 && !lua_checkstack(L, h->nargs + LUA_MINSTACK)) return false;
  for (int i = 0; i <= h->nargs; i++) lua_getiuservalue(L, idx, UV_CALLBACK + i);
  return true;
}

static void report_failure(al_ctx *ctx, lua_State *L, l_handle *h, int idx) {
  char message[256];
  al_handle_describe(L, h, idx, message, sizeof message);
  const al_key keys[] = {{"handle", idx}, {NULL, 0}};
  al_report(ctx, L, h->loop, message, keys);
}

static void call(al_ctx *ctx, lua_State *L, l_handle *h, int idx) {
  if (!push_call(L, h, idx)) {
    al_log(AL_LOG_ERROR, NULL, "a callback was dropped: it has too many arguments for the stack");
    return;
  }
  if (al_pcall(L, h->nargs, 0) != LUA_OK) report_failure(ctx, L, h, idx);
}

/* Runs in the handle's context. What it becomes of it stays with the handle, for watches and timers that run again; an
 * error is reported in it, too. */
static void call_in_context(al_ctx *ctx, lua_State *L, l_handle *h, int idx) {
  lua_getiuservalue(L, idx, UV_CONTEXT(h));
  int former = al_context_swap(L, ctx, h->context_kind);
  int saved = lua_gettop(L);
  call(ctx, L, h, idx);
  h->context_kind = (uint8_t)ctx->context_kind;
  lua_pushvalue(L, saved);
  al_context_swap(L, ctx, former);
  lua_setiuservalue(L, idx, UV_CONTEXT(h));
}

static void run_handle(al_loop *loop, al_handle *core) {
  (void)loop;
  l_handle *h = of_core(core);
  al_ctx *ctx = h->loop->ctx;
  lua_State *L = al_enter(ctx);
  if (!L) return;
  lua_rawgeti(L, 1, h->slot);
  if (!h->keep) {
    al_unanchor_begin(ctx, h->slot);
    h->slot = 0;
  }
  int64_t began = al_loop_debug(loop) ? al_time_ns() : 0;
  if (h->context_kind == AL_CONTEXT_EMPTY && ctx->context_kind == AL_CONTEXT_EMPTY) {
    call(ctx, L, h, 3);
    if (ctx->context_kind != AL_CONTEXT_EMPTY) { /* it set a variable */
      h->context_kind = (uint8_t)ctx->context_kind;
      lua_pushnil(L);
      al_context_swap(L, ctx, AL_CONTEXT_EMPTY);
      lua_setiuservalue(L, 3, UV_CONTEXT(h));
    }
  } else {
    call_in_context(ctx, L, h, 3);
  }
  if (began) h->loop->told_slow |= al_loop_check_slow(L, h->loop, 3, al_time_ns() - began) && h->keep;
  al_unanchor_end(ctx);
  al_leave(ctx, L);
}

bool al_handle_is_ours(const al_handle *core) { return core->run == run_handle; }

void al_handle_discard(al_handle *core) {
  l_handle *h = of_core(core);
  forget_anchor(h->loop->ctx, h);
}

/* Makes the handle and pushes it; the class is at class_idx, which may be an upvalue. */
static l_handle *make(lua_State *L, al_ctx *ctx, l_loop *loop, bool timer, int f, int nargs, int class_idx) {
  if (nargs > UINT16_MAX - 8) luaL_error(L, "too many arguments");
  size_t size = timer ? sizeof(l_handle) : offsetof(l_handle, t) + sizeof(al_handle);
  l_handle *h = lua_newuserdatauv(L, size, nargs + 2 + timer);
  memset(h, 0, size);
  lua_pushvalue(L, class_idx);
  lua_setmetatable(L, -2);
  int self = lua_gettop(L);
  h->loop = loop;
  h->nargs = (uint16_t)nargs;
  h->timer = timer;
  if (timer) {
    al_timer_init(&h->t, run_handle);
    al_pushloop(L, loop);
    lua_setiuservalue(L, self, UV_LOOP(h));
  } else {
    al_handle_init(&h->t.handle, run_handle);
  }
  if (al_context_unbind(L, ctx, f)) {
    h->context_kind = AL_CONTEXT_OBJECT;
    lua_setiuservalue(L, self, UV_CONTEXT(h));
    lua_replace(L, f);
  } else if (ctx->context_kind != AL_CONTEXT_EMPTY) {
    h->context_kind = (uint8_t)al_context_capture(L, ctx);
    lua_setiuservalue(L, self, UV_CONTEXT(h));
  }
  for (int i = 0; i <= nargs; i++) {
    lua_pushvalue(L, f + i);
    lua_setiuservalue(L, self, UV_CALLBACK + i);
  }
  if (al_loop_debug(loop->loop)) al_remember_place(L, ctx, self);
  return h;
}

l_handle *al_handle_make(lua_State *L, al_ctx *ctx, l_loop *loop, int f) {
  int nargs = lua_gettop(L) - f;
  al_pushclass(L, ctx, AL_C_Handle);
  l_handle *h = make(L, ctx, loop, false, f, nargs, lua_gettop(L));
  lua_replace(L, f);
  lua_settop(L, f);
  return h;
}

/* Upvalues of the scheduling functions of lloop.c, besides the context: what each call would look up. */
enum { UPVALUE_ANCHORS = 2, UPVALUE_HANDLE, UPVALUE_TIMER };

void al_handle_pushfunction(lua_State *L, al_ctx *ctx, lua_CFunction f) {
  lua_pushlightuserdata(L, ctx);
  al_ctx_anchors(L, ctx);
  al_pushclass(L, ctx, AL_C_Handle);
  al_pushclass(L, ctx, AL_C_TimerHandle);
  lua_pushcclosure(L, f, UPVALUE_TIMER);
}

l_handle *al_handle_schedule(lua_State *L, al_ctx *ctx, l_loop *loop, bool timer, int f) {
  int class_idx = lua_upvalueindex(timer ? UPVALUE_TIMER : UPVALUE_HANDLE);
  l_handle *h = make(L, ctx, loop, timer, f, lua_gettop(L) - f, class_idx);
  h->slot = al_anchor_top(L, ctx, lua_upvalueindex(UPVALUE_ANCHORS));
  return h;
}

void al_handle_anchor(lua_State *L, al_ctx *ctx, int idx, l_handle *h) {
  if (!h->slot) h->slot = al_anchor(L, ctx, idx);
}

void al_handle_soon(lua_State *L, al_ctx *ctx, int idx, l_handle *h) {
  al_handle_anchor(L, ctx, idx, h);
  al_call_soon(h->loop->loop, &h->t.handle);
}

void al_handle_drop(al_ctx *ctx, l_handle *h) {
  if (h->timer) {
    al_timer_cancel(&h->t);
  } else {
    al_handle_cancel(&h->t.handle);
  }
  forget_anchor(ctx, h);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

/* Lets go of callback and arguments; in debug mode their text stays, for reports. */
static void let_go(lua_State *L, const al_ctx *ctx, l_handle *h) {
  const l_loop *loop = h->slot ? h->loop : ctx->running; /* its own is sure to exist only while it is queued */
  if (loop && al_loop_debug(loop->loop))
    al_handle_push_text(L, h, 1);
  else
    lua_pushnil(L);
  h->cancelled = true;
  lua_setiuservalue(L, 1, UV_CALLBACK);
  for (int i = 1; i <= h->nargs; i++) {
    lua_pushnil(L);
    lua_setiuservalue(L, 1, UV_CALLBACK + i);
  }
}

static int handle_cancel(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *h = al_check(L, ctx, 1, AL_C_Handle);
  if (h->cancelled) return 0;
  let_go(L, ctx, h);
  if (h->slot && h->keep)
    al_watch_cancel(L, ctx, h, 1);
  else if (h->slot)
    al_handle_drop(ctx, h);
  return 0;
}

static int handle_cancelled(lua_State *L) {
  l_handle *h = al_check(L, al_ctx_of(L), 1, AL_C_Handle);
  lua_pushboolean(L, h->cancelled);
  return 1;
}

static int handle_get_context(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *h = al_check(L, ctx, 1, AL_C_Handle);
  lua_getiuservalue(L, 1, UV_CONTEXT(h));
  if (h->context_kind == AL_CONTEXT_OBJECT) return 1;
  al_context_object(L, ctx, h->context_kind, -1);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, UV_CONTEXT(h));
  h->context_kind = AL_CONTEXT_OBJECT;
  return 1;
}

static int handle_tostring(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *h = al_check(L, ctx, 1, AL_C_Handle);
  al_handle_repr(L, ctx, h, 1);
  return 1;
}

static int timer_when(lua_State *L) {
  l_handle *h = al_check(L, al_ctx_of(L), 1, AL_C_TimerHandle);
  lua_pushnumber(L, h->when);
  return 1;
}

int64_t al_seconds_to_ns(double seconds) {
  if (seconds >= 9.0e9) return INT64_C(9000000000) * INT64_C(1000000000); /* 285 years; the loop wakes up once a day */
  if (seconds <= -9.0e9) return 0;
  return (int64_t)ceil(seconds * 1e9);
}

void al_timer_handle_start(lua_State *L, al_ctx *ctx, int idx, l_handle *h, double when) {
  al_handle_anchor(L, ctx, idx, h);
  h->when = when;
  if (al_timer_set(h->loop->loop, &h->t, al_seconds_to_ns(when)) < 0) {
    forget_anchor(ctx, h);
    luaL_error(L, "not enough memory");
  }
}

/* Moves the timer, or arms a fired one again. Not in asyncio, where one cancels and makes another. */
static int timer_reschedule(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *h = al_check(L, ctx, 1, AL_C_TimerHandle);
  double when = al_checknumber(L, 2);
  if (isnan(when)) return al_raise(L, ctx, AL_C_ValueError, "'reschedule': when must not be NaN");
  if (h->cancelled) return al_raise(L, ctx, AL_C_RuntimeError, "cannot reschedule a cancelled timer");
  al_check_alive(L, h->loop);
  al_timer_handle_start(L, ctx, 1, h, when);
  return 0;
}

static int timer_lt(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *a = al_check(L, ctx, 1, AL_C_TimerHandle), *b = al_check(L, ctx, 2, AL_C_TimerHandle);
  lua_pushboolean(L, a->when < b->when);
  return 1;
}

static int timer_le(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_handle *a = al_check(L, ctx, 1, AL_C_TimerHandle), *b = al_check(L, ctx, 2, AL_C_TimerHandle);
  lua_pushboolean(L, a->when <= b->when);
  return 1;
}

static const luaL_Reg handle_methods[] = {{"cancel", handle_cancel},
                                          {"cancelled", handle_cancelled},
                                          {"get_context", handle_get_context},
                                          {"__tostring", handle_tostring},
                                          {NULL, NULL}};
static const luaL_Reg timer_methods[] = {{"when", timer_when}, {"reschedule", timer_reschedule}, {"__lt", timer_lt},
                                         {"__le", timer_le},   {"__tostring", handle_tostring},  {NULL, NULL}};

void al_handle_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Handle, handle_methods);
  al_class_methods(L, ctx, AL_C_TimerHandle, timer_methods);
}
