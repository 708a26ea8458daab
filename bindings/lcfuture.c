/* lcfuture.c - ConcurrentFuture: what submit and run_coroutine_threadsafe return. Its values are made of the parcel
 * when they are first asked for, and stay the same from then on.
 *
 * Waiting for one suspends a task; where there is none, it blocks the thread.
 *
 * SPDX-License-Identifier: MIT */
#include "lcfuture.h"

#include "lhandle.h"
#include "ltask.h"

#include <math.h>
#include <stdio.h>

enum {
  UV_VALUE = 1, /* the value, the table of the values, or the error */
  UV_TRACEBACK,
  UV_COUNT = UV_TRACEBACK
};

typedef struct handle {
  al_cfuture *f;
  bool opened; /* the user values hold the outcome */
  int nvalues; /* other than 1: they stand in a table */
} handle;

/* ---- handles ----------------------------------------------------------------------------------------------------- */

al_cfuture **al_new_cfuture(lua_State *L, al_ctx *ctx) {
  handle *h = al_new(L, ctx, AL_C_ConcurrentFuture, sizeof *h, UV_COUNT);
  return &h->f;
}

static handle *test_handle(lua_State *L, al_ctx *ctx, int idx) {
  handle *h = al_test(L, ctx, idx, AL_C_ConcurrentFuture);
  return h && h->f ? h : NULL;
}

static handle *check_handle(lua_State *L, al_ctx *ctx) {
  handle *h = test_handle(L, ctx, 1);
  if (!h) al_typeerror(L, 1, "ConcurrentFuture");
  return h;
}

al_cfuture *al_test_cfuture(lua_State *L, al_ctx *ctx, int idx) {
  const handle *h = test_handle(L, ctx, idx);
  return h ? h->f : NULL;
}

al_cfuture *al_check_cfuture(lua_State *L, al_ctx *ctx, int arg) {
  al_cfuture *f = al_test_cfuture(L, ctx, arg);
  if (!f) al_typeerror(L, arg, "ConcurrentFuture");
  return f;
}

static int cfuture_gc(lua_State *L) {
  handle *h = al_test(L, al_ctx_of(L), 1, AL_C_ConcurrentFuture);
  if (!h || !h->f) return 0;
  al_cfuture_release(h->f);
  h->f = NULL;
  return 0;
}

/* ConcurrentFuture(): for executors of a script's own */
static int cfuture_new(lua_State *L) {
  handle *h = al_new_instance(L, 1, AL_C_ConcurrentFuture, sizeof *h, UV_COUNT);
  h->f = al_cfuture_new();
  return h->f ? 1 : luaL_error(L, "not enough memory");
}

/* ---- the outcome ------------------------------------------------------------------------------------------------- */

void al_cfuture_pusherror(lua_State *L, al_ctx *ctx, const al_cfuture *f) {
  if (!f->outcome) {
    lua_pushliteral(L, "not enough memory");
    return;
  }
  char where[48];
  snprintf(where, sizeof where, "in worker process %d", f->pid);
  al_unmarshal_error(L, ctx, f->outcome, f->pid ? where : "in a worker thread");
}

static void open_error(lua_State *L, al_ctx *ctx, handle *h, int idx) {
  al_cfuture_pusherror(L, ctx, h->f);
  al_pushtraceback(L, ctx, -1);
  lua_setiuservalue(L, idx, UV_TRACEBACK);
  lua_setiuservalue(L, idx, UV_VALUE);
}

static void open_values(lua_State *L, al_ctx *ctx, handle *h, int idx) {
  int n = h->f->outcome ? al_unmarshal(L, ctx, h->f->outcome) : 0;
  if (n != 1) {
    lua_createtable(L, n, 0);
    lua_insert(L, -n - 1);
    for (int i = n; i >= 1; i--) lua_rawseti(L, -i - 1, i);
  }
  lua_setiuservalue(L, idx, UV_VALUE);
  h->nvalues = n;
}

static void open_outcome(lua_State *L, al_ctx *ctx, handle *h, int idx) {
  if (h->opened) return;
  if (h->f->failed) {
    open_error(L, ctx, h, idx);
  } else {
    open_values(L, ctx, h, idx);
  }
  h->opened = true;
}

static int raise_error(lua_State *L, al_ctx *ctx, int idx) {
  lua_getiuservalue(L, idx, UV_VALUE);
  if (lua_getiuservalue(L, idx, UV_TRACEBACK) == LUA_TNIL) {
    lua_pop(L, 1);
  } else {
    al_settraceback(L, ctx, -2);
  }
  al_set_reraised(ctx);
  return lua_error(L);
}

/* Pushes the values of the done future at idx, a ConcurrentFuture, and returns their number, or raises its error. */
static int push_outcome(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  handle *h = lua_touserdata(L, idx);
  if (al_cfuture_state(h->f) == AL_CF_CANCELLED) return al_raise(L, ctx, AL_C_CancelledError, NULL);
  open_outcome(L, ctx, h, idx);
  if (h->f->failed) return raise_error(L, ctx, idx);
  lua_getiuservalue(L, idx, UV_VALUE);
  if (h->nvalues == 1) return 1;
  luaL_checkstack(L, h->nvalues, "too many results");
  int values = lua_gettop(L);
  for (int i = 1; i <= h->nvalues; i++) lua_rawgeti(L, values, i);
  return h->nvalues;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* The time until which to wait, by the number of seconds at arg, if there is one. */
static int64_t deadline(lua_State *L, al_ctx *ctx, int arg, const char *f) {
  if (lua_isnoneornil(L, arg)) return INT64_MAX;
  double timeout = al_checknumber(L, arg);
  if (isnan(timeout)) al_raise(L, ctx, AL_C_ValueError, "'%s': timeout must not be NaN", f);
  int64_t now_ns = al_time_ns(), wait_ns = al_seconds_to_ns(timeout);
  return wait_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + wait_ns;
}

/* Pushes what waits for a ConcurrentFuture in a task: executors.lua's wait. */
static void push_wait(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "aloop.executors");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "wait");
  lua_remove(L, -2);
}

/* [1] ConcurrentFuture, [2] timeout or nil: goes on with k when it is done or the time is up. */
static int wait_for(lua_State *L, const char *f, lua_KFunction k) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  int64_t until_ns = deadline(L, ctx, 2, f);
  lua_settop(L, 2);
  al_mailbox_drain(ctx);
  if (!al_cfuture_is_done(h->f)) {
    if (al_may_wait(L, ctx)) {
      push_wait(L);
      lua_pushvalue(L, 1);
      lua_pushvalue(L, 2);
      lua_callk(L, 2, 0, 0, k);
    } else {
      al_cfuture_block(L, ctx, h->f, until_ns);
    }
  }
  return k(L, LUA_OK, 0);
}

/* [1] ConcurrentFuture */
static handle *check_done(lua_State *L, al_ctx *ctx) {
  handle *h = lua_touserdata(L, 1);
  if (!al_cfuture_is_done(h->f)) al_raise(L, ctx, AL_C_TimeoutError, NULL);
  return h;
}

static int result_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  al_ctx *ctx = al_ctx_of(L);
  check_done(L, ctx);
  return push_outcome(L, ctx, 1);
}

static int exception_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_done(L, ctx);
  if (al_cfuture_state(h->f) == AL_CF_CANCELLED) return al_raise(L, ctx, AL_C_CancelledError, NULL);
  if (h->f->failed) {
    open_outcome(L, ctx, h, 1);
    lua_getiuservalue(L, 1, UV_VALUE);
  } else {
    lua_pushnil(L);
  }
  lua_pushboolean(L, h->f->failed);
  return 2;
}

/* result([timeout]) → values */
static int cfuture_result(lua_State *L) { return wait_for(L, "result", result_done); }
/* exception([timeout]) → error, failed */
static int cfuture_exception(lua_State *L) { return wait_for(L, "exception", exception_done); }

/* await(): as a Future of the task's loop; a cancellation of the task cancels it. */
static int cfuture_await(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  l_task *task = al_check_wait(L, ctx, "await");
  lua_settop(L, 1);
  if (al_cfuture_is_done(h->f)) return push_outcome(L, ctx, 1);
  al_wrap_cfuture(L, ctx, task->f.loop, h->f);
  return al_await(L, ctx, 2);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static int state_is(lua_State *L, int state) {
  al_ctx *ctx = al_ctx_of(L);
  const handle *h = check_handle(L, ctx);
  al_mailbox_drain(ctx);
  lua_pushboolean(L, al_cfuture_state(h->f) == state);
  return 1;
}

static int cfuture_running(lua_State *L) { return state_is(L, AL_CF_RUNNING); }
static int cfuture_cancelled(lua_State *L) { return state_is(L, AL_CF_CANCELLED); }

static int cfuture_done(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  const handle *h = check_handle(L, ctx);
  al_mailbox_drain(ctx);
  lua_pushboolean(L, al_cfuture_is_done(h->f));
  return 1;
}

static int cfuture_cancel(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  lua_pushboolean(L, al_cfuture_cancel(h->f));
  al_mailbox_drain(ctx);
  return 1;
}

static int cfuture_tostring(lua_State *L) {
  static const char *const names[] = {"pending", "running", "cancelled", "finished"};
  const handle *h = check_handle(L, al_ctx_of(L));
  int state = al_cfuture_state(h->f);
  luaL_getmetafield(L, 1, "__name");
  lua_pushfstring(L, "<%s at %p state=%s%s>", lua_tostring(L, -1), (const void *)h->f, names[state],
                  state == AL_CF_FINISHED && h->f->failed ? " with an error" : "");
  return 1;
}

/* ---- setting: what an executor does ------------------------------------------------------------------------------ */

static int refuse_state(lua_State *L, al_ctx *ctx) {
  cfuture_tostring(L);
  return al_raise(L, ctx, AL_C_InvalidStateError, "invalid state: %s", lua_tostring(L, -1));
}

/* set_running_or_notify_cancel() → false: it was cancelled */
static int cfuture_start(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  bool began = al_cfuture_start(h->f);
  if (!began && al_cfuture_state(h->f) != AL_CF_CANCELLED) return refuse_state(L, ctx);
  lua_pushboolean(L, began);
  return 1;
}

static int cfuture_set_result(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  al_parcel *values = al_marshal(L, ctx, 2, lua_gettop(L) - 1, AL_MARSHAL_LOCAL | AL_MARSHAL_RESULTS);
  if (!al_cfuture_finish(h->f, values)) return refuse_state(L, ctx);
  al_mailbox_drain(ctx);
  return 0;
}

static int cfuture_set_exception(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  handle *h = check_handle(L, ctx);
  al_checkany(L, 2);
  al_parcel *error = al_marshal_error(L, ctx, 2, AL_MARSHAL_LOCAL);
  if (!al_cfuture_fail(h->f, error)) return refuse_state(L, ctx);
  al_mailbox_drain(ctx);
  return 0;
}

static const luaL_Reg methods[] = {{"result", cfuture_result},
                                   {"exception", cfuture_exception},
                                   {"await", cfuture_await},
                                   {"__await", cfuture_await},
                                   {"done", cfuture_done},
                                   {"running", cfuture_running},
                                   {"cancelled", cfuture_cancelled},
                                   {"cancel", cfuture_cancel},
                                   {"set_running_or_notify_cancel", cfuture_start},
                                   {"set_result", cfuture_set_result},
                                   {"set_exception", cfuture_set_exception},
                                   {"__tostring", cfuture_tostring},
                                   {"__new", cfuture_new},
                                   {"__gc", cfuture_gc},
                                   {NULL, NULL}};

void al_cfuture_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_ConcurrentFuture, methods); }
