/* lfuture.c - Future. Whoever waits for it stands in its list as a handle: the step of a task, or the Handle of a
 * callback. When it is done, the list moves to the loop's ready queue as a whole, so nothing is ever called from inside
 * set_result. Only a future whose error nobody has looked at has a finalizer: it changes its metatable when it fails.
 *
 * SPDX-License-Identifier: MIT */
#include "lfuture.h"

#include "lcfuture.h"
#include "lcontext.h"
#include "lhandle.h"
#include "lloop.h"
#include "lrepr.h"
#include "ltask.h"

#include <string.h>

/* ---- making ------------------------------------------------------------------------------------------------------ */

void al_future_init(lua_State *L, al_ctx *ctx, l_future *f, l_loop *loop, int idx) {
  f->loop = loop;
  al_list_init(&f->waiters);
  al_pushloop(L, loop);
  lua_setiuservalue(L, idx, AL_FUTURE_UV_LOOP);
  if (al_loop_debug(loop->loop)) al_remember_place(L, ctx, idx);
}

l_future *al_future_new(lua_State *L, al_ctx *ctx, l_loop *loop) {
  l_future *f = al_new(L, ctx, AL_C_Future, sizeof *f, AL_FUTURE_UV_COUNT);
  al_future_init(L, ctx, f, loop, lua_gettop(L));
  return f;
}

l_future *al_test_future(lua_State *L, al_ctx *ctx, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx)) return NULL;
  const void *meta = lua_topointer(L, -1);
  lua_pop(L, 1);
  if (meta == ctx->class_ptr[AL_C_Future] || meta == ctx->class_ptr[AL_C_Task] || meta == ctx->future_gc ||
      meta == ctx->task_gc || al_isinstance(L, ctx, idx, AL_C_Future))
    return lua_touserdata(L, idx);
  return NULL;
}

void al_future_owner(lua_State *L, const l_future *f, int idx) {
  if (f->has_owner) {
    lua_getiuservalue(L, idx, AL_FUTURE_UV_OWNER);
  } else {
    lua_pushnil(L);
  }
}

/* waiter(owner): a pending future of the running loop, for what is written in Lua and has something to wait for. A loop
 * whose class makes its own futures makes this one too, which then knows no owner. */
static int waiter(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_default_loop(L, ctx);
  if (loop->custom_future) {
    al_pushloop(L, loop);
    lua_getfield(L, -1, "create_future");
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    if (!al_test_future(L, ctx, -1)) return al_raise(L, ctx, AL_C_RuntimeError, "create_future gave no Future");
    return 1;
  }
  lua_settop(L, 1);
  l_future *f = al_new(L, ctx, AL_C_Future, sizeof *f, AL_FUTURE_UV_OWNER);
  al_future_init(L, ctx, f, loop, 2);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, AL_FUTURE_UV_OWNER);
  f->has_owner = true;
  return 1;
}

/* gathering(owner): a pending future that stands for several. Its cancel(message) calls the owner's __cancel(owner,
 * message), which asks those to end, and leaves it pending until they have; false if there was nothing left to ask. */
static int gathering(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_default_loop(L, ctx);
  lua_settop(L, 1);
  l_future *f = al_new(L, ctx, AL_C_Future, sizeof *f, AL_FUTURE_UV_OWNER);
  al_future_init(L, ctx, f, loop, 2);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, AL_FUTURE_UV_OWNER);
  f->has_owner = f->delegates = true;
  return 1;
}

/* The message is on top (popped). */
static bool delegate_cancel(lua_State *L, int idx) {
  int message = lua_gettop(L);
  lua_getiuservalue(L, idx, AL_FUTURE_UV_OWNER);
  luaL_getmetafield(L, -1, "__cancel");
  lua_insert(L, -2);
  lua_pushvalue(L, message);
  lua_call(L, 2, 1);
  bool cancelled = lua_toboolean(L, -1);
  lua_settop(L, message - 1);
  return cancelled;
}

static l_future *check_future(lua_State *L, al_ctx *ctx) {
  l_future *f = al_test_future(L, ctx, 1);
  if (!f) al_typeerror(L, 1, "Future");
  return f;
}

/* ---- ending ------------------------------------------------------------------------------------------------------ */

/* Anchors the callbacks that wait and hands all that waits to the loop. */
static void schedule_waiters(lua_State *L, al_ctx *ctx, l_future *f, int idx) {
  if (al_list_is_empty(&f->waiters)) return;
  al_check_alive(L, f->loop);
  if (lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE) == LUA_TTABLE) {
    lua_Integer n = luaL_len(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_rawgeti(L, -1, i);
      l_handle *h = lua_touserdata(L, -1);
      if (al_handle_is_queued(&h->t.handle)) al_handle_anchor(L, ctx, -1, h);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  al_call_soon_list(f->loop->loop, &f->waiters);
}

/* Leaves the values on top as one: itself, or a table of them. */
static void pack(lua_State *L, int n) {
  if (n == 1) return;
  if (n == 0) {
    lua_pushnil(L);
    return;
  }
  lua_createtable(L, n, 0);
  lua_insert(L, -n - 1);
  for (int i = n; i >= 1; i--) lua_rawseti(L, -i - 1, i);
}

void al_future_finish(lua_State *L, al_ctx *ctx, int idx, int nvalues) {
  idx = lua_absindex(L, idx);
  l_future *f = lua_touserdata(L, idx);
  pack(L, nvalues);
  schedule_waiters(L, ctx, f, idx);
  f->state = AL_FUTURE_FINISHED;
  f->nvalues = nvalues;
  lua_setiuservalue(L, idx, AL_FUTURE_UV_VALUE);
}

/* Enters it among those whose error nobody looked at. This takes memory; what follows doesn't. */
static void note_unread(lua_State *L, al_ctx *ctx, int idx) {
  al_pushanchored(L, ctx, AL_SLOT_UNREAD);
  lua_pushvalue(L, idx);
  lua_pushboolean(L, true);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Gives it the metatable with the finalizer that reports an error nobody looked at. */
static void watch_for_collection(lua_State *L, al_ctx *ctx, l_future *f, int idx) {
  al_pushanchored(L, ctx, f->is_task ? AL_SLOT_TASK_GC : AL_SLOT_FUTURE_GC);
  lua_setmetatable(L, idx);
  f->unread = true;
  ctx->n_unread++;
}

void al_future_fail(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  l_future *f = lua_touserdata(L, idx);
  al_pushtraceback(L, ctx, -1);
  if (!lua_isnil(L, -1) && !lua_istable(L, -2)) { /* of a string or other value: it stands with the future */
    al_pushanchored(L, ctx, AL_SLOT_TRACES);
    lua_pushlightuserdata(L, f);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  note_unread(L, ctx, idx);
  schedule_waiters(L, ctx, f, idx);
  f->state = AL_FUTURE_FINISHED;
  f->failed = true;
  lua_setiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  watch_for_collection(L, ctx, f, idx);
  if (f->loop->loop && al_loop_debug(f->loop->loop) && !al_loop_is_closed(f->loop->loop)) al_loop_collect_soon(f->loop);
}

/* Anchors those of the table of callbacks on top that this takes no memory for, and drops the others. */
static void anchor_some(lua_State *L, al_ctx *ctx) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    l_handle *h = lua_touserdata(L, -1);
    if (al_handle_is_queued(&h->t.handle) && al_anchor_is_free(ctx))
      al_handle_anchor(L, ctx, -1, h);
    else if (!h->slot)
      al_handle_drop(ctx, h);
    lua_pop(L, 1);
  }
}

void al_future_fail_poorly(lua_State *L, al_ctx *ctx, l_future *f, int idx) {
  idx = lua_absindex(L, idx);
  if (lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE) == LUA_TTABLE) anchor_some(L, ctx);
  lua_pop(L, 1);
  f->state = AL_FUTURE_FINISHED;
  f->failed = true;
  lua_setiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  if (!al_list_is_empty(&f->waiters)) al_call_soon_list(f->loop->loop, &f->waiters);
}

void al_future_set_cancelled(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  l_future *f = lua_touserdata(L, idx);
  schedule_waiters(L, ctx, f, idx);
  f->state = AL_FUTURE_CANCELLED;
  lua_setiuservalue(L, idx, AL_FUTURE_UV_VALUE);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

void al_future_mark_read(al_ctx *ctx, l_future *f) {
  if (!f->unread) return;
  f->unread = false;
  ctx->n_unread--;
}

/* A task leaves the error that ended it, whose traceback goes on in who awaits it; else there is a message. */
static int raise_cancelled(lua_State *L, al_ctx *ctx, int idx) {
  lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  if (lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_CancelledError)) {
    al_set_reraised(ctx);
    return lua_error(L);
  }
  al_pusherror(L, ctx, AL_C_CancelledError, NULL);
  lua_insert(L, -2);
  lua_setfield(L, -2, "message");
  return lua_error(L);
}

/* Raises the error of the failed future at idx; in a task, its traceback goes on with that of the task. */
static int raise_failure(lua_State *L, al_ctx *ctx, l_future *f, int idx) {
  al_future_mark_read(ctx, f);
  lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  if (!lua_istable(L, -1)) {
    al_pushanchored(L, ctx, AL_SLOT_TRACES);
    lua_pushlightuserdata(L, f);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
    } else {
      al_settraceback(L, ctx, -2);
    }
  }
  if (f->is_task || f->chained) al_set_reraised(ctx);
  return lua_error(L);
}

int al_future_result(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  l_future *f = lua_touserdata(L, idx);
  if (f->state == AL_FUTURE_CANCELLED) return raise_cancelled(L, ctx, idx);
  if (f->failed) return raise_failure(L, ctx, f, idx);
  lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  if (f->nvalues == 1) return 1;
  luaL_checkstack(L, f->nvalues, "too many results");
  int values = lua_gettop(L);
  for (int i = 1; i <= f->nvalues; i++) lua_rawgeti(L, values, i);
  return f->nvalues;
}

static int future_result(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_future *f = check_future(L, ctx);
  if (f->state == AL_FUTURE_PENDING) return al_raise(L, ctx, AL_C_InvalidStateError, "Result is not set.");
  return al_future_result(L, ctx, 1);
}

static int future_exception(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_future *f = check_future(L, ctx);
  if (f->state == AL_FUTURE_PENDING) return al_raise(L, ctx, AL_C_InvalidStateError, "Exception is not set.");
  if (f->state == AL_FUTURE_CANCELLED) return raise_cancelled(L, ctx, 1);
  al_future_mark_read(ctx, f);
  if (f->failed) {
    lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE);
  } else {
    lua_pushnil(L);
  }
  lua_pushboolean(L, f->failed);
  return 2;
}

/* outcome(future) → "pending", "finished", "failed" or "cancelled"; whether nobody looked at its error yet. Other than
 * exception() it is no look at the error. */
static int outcome(lua_State *L) {
  l_future *f = check_future(L, al_ctx_of(L));
  static const char *const names[] = {"pending", "finished", "cancelled"};
  lua_pushstring(L, f->failed ? "failed" : names[f->state]);
  lua_pushboolean(L, f->unread);
  return 2;
}

/* take_error(failed future) → its error, its traceback or nil: as exception(), for who hands both on. */
static int take_error(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_future *f = check_future(L, ctx);
  al_future_mark_read(ctx, f);
  lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE);
  if (lua_istable(L, -1)) {
    al_pushtraceback(L, ctx, -1);
    return 2;
  }
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  lua_pushlightuserdata(L, f);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  return 2;
}

static int future_done(lua_State *L) {
  lua_pushboolean(L, check_future(L, al_ctx_of(L))->state != AL_FUTURE_PENDING);
  return 1;
}

static int future_cancelled(lua_State *L) {
  lua_pushboolean(L, check_future(L, al_ctx_of(L))->state == AL_FUTURE_CANCELLED);
  return 1;
}

/* ---- setting ----------------------------------------------------------------------------------------------------- */

static l_future *check_settable(lua_State *L, al_ctx *ctx) {
  l_future *f = check_future(L, ctx);
  const char *what = "invalid state: the future is done already";
  if (f->is_task) al_raise(L, ctx, AL_C_RuntimeError, "a task's result is what its function returns; it can't be set");
  if (f->state != AL_FUTURE_PENDING) al_raise(L, ctx, AL_C_InvalidStateError, what);
  return f;
}

static int future_set_result(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_settable(L, ctx);
  al_future_finish(L, ctx, 1, lua_gettop(L) - 1);
  return 0;
}

static int future_set_exception(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_settable(L, ctx);
  al_checkany(L, 2);
  lua_settop(L, 2);
  if (lua_istable(L, 2)) { /* a class stands for an error of it */
    lua_pushliteral(L, "__base");
    if (lua_rawget(L, 2) != LUA_TNIL) {
      lua_pushvalue(L, 2);
      lua_call(L, 0, 1);
      lua_replace(L, 2);
    }
    lua_settop(L, 2);
    check_settable(L, ctx); /* still: the class may have code of its own */
  }
  al_future_fail(L, ctx, 1);
  return 0;
}

bool al_future_cancel(lua_State *L, al_ctx *ctx, int idx) {
  l_future *f = lua_touserdata(L, idx);
  al_future_mark_read(ctx, f);
  if (f->state != AL_FUTURE_PENDING) {
    lua_pop(L, 1);
    return false;
  }
  if (f->is_task) return al_task_cancel(L, ctx, idx);
  if (f->delegates) return delegate_cancel(L, idx);
  al_future_set_cancelled(L, ctx, idx);
  if (f->chained) al_wrapped_cancelled(L, ctx, idx);
  return true;
}

static int future_cancel(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_future(L, ctx);
  lua_settop(L, 2);
  lua_pushboolean(L, al_future_cancel(L, ctx, 1));
  return 1;
}

/* ---- callbacks --------------------------------------------------------------------------------------------------- */

/* Pushes the table of the handles of the pending future at idx. */
static void push_callbacks(lua_State *L, int idx) {
  int type = lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  if (type == LUA_TTABLE) return;
  lua_createtable(L, 1, type == LUA_TFUNCTION);
  lua_insert(L, -2);
  lua_rawseti(L, -2, AL_CALLBACKS_CREATOR);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, idx, AL_FUTURE_UV_VALUE);
}

static int future_add_done_callback(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"context", NULL};
  l_future *f = check_future(L, ctx);
  al_check_callable(L, 2);
  if (al_options(L, 3, "add_done_callback", names) && al_option(L, 3, "context") != LUA_TNIL) {
    if (!al_test(L, ctx, -1, AL_C_Context)) return al_option_error(L, "add_done_callback", "context", "Context", -1);
    lua_getfield(L, -1, "bind");
    lua_insert(L, -2);
    lua_pushvalue(L, 2);
    lua_call(L, 2, 1);
    lua_replace(L, 2);
  }
  lua_settop(L, 2);
  lua_pushvalue(L, 1);
  if (f->state != AL_FUTURE_PENDING || !f->loop->loop) al_check_alive(L, f->loop);
  l_handle *h = al_handle_make(L, ctx, f->loop, 2);
  if (f->state != AL_FUTURE_PENDING) {
    al_handle_soon(L, ctx, 2, h);
    return 0;
  }
  push_callbacks(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, luaL_len(L, -2) + 1);
  al_list_append(&f->waiters, &h->t.handle);
  return 0;
}

/* Pushes the table of the handles whose callback equals the value at 2; to be asked of a copy, for an __eq may do
 * anything to the future. */
static void push_equal_handles(lua_State *L, int handles) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, handles);
  lua_newtable(L);
  int copy = lua_gettop(L);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, handles, i);
    lua_rawseti(L, copy, i);
  }
  lua_newtable(L);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, copy, i);
    lua_getiuservalue(L, -1, 1);
    bool same = lua_compare(L, -1, 2, LUA_OPEQ);
    lua_pop(L, 1);
    lua_pushboolean(L, same);
    lua_rawset(L, copy + 1);
  }
  lua_remove(L, copy);
}

/* Takes those handles from the list that the table at equal marks; their number. Calls nothing of a script's. */
static lua_Integer remove_handles(lua_State *L, int handles, int equal) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, handles), kept = 0;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, handles, i);
    l_handle *h = lua_touserdata(L, -1);
    lua_pushvalue(L, -1);
    lua_rawget(L, equal);
    bool same = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (same) {
      al_handle_cancel(&h->t.handle);
      lua_pop(L, 1);
    } else {
      lua_rawseti(L, handles, ++kept);
    }
  }
  for (lua_Integer i = kept + 1; i <= n; i++) {
    lua_pushnil(L);
    lua_rawseti(L, handles, i);
  }
  return n - kept;
}

static int future_remove_done_callback(lua_State *L) {
  l_future *f = check_future(L, al_ctx_of(L));
  al_checkany(L, 2);
  lua_settop(L, 2);
  lua_Integer removed = 0;
  if (f->state == AL_FUTURE_PENDING && lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE) == LUA_TTABLE) {
    push_equal_handles(L, 3);
    if (f->state == AL_FUTURE_PENDING) removed = remove_handles(L, 3, 4);
  }
  lua_pushinteger(L, removed);
  return 1;
}

static int future_get_loop(lua_State *L) {
  check_future(L, al_ctx_of(L));
  lua_getiuservalue(L, 1, AL_FUTURE_UV_LOOP);
  return 1;
}

static int future_tostring(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_future_repr(L, ctx, check_future(L, ctx), 1);
  return 1;
}

/* ---- errors that nobody took ------------------------------------------------------------------------------------- */

void al_future_report_unread(lua_State *L, al_ctx *ctx, int idx) {
  l_future *f = lua_touserdata(L, idx);
  if (!f->unread) return;
  al_future_mark_read(ctx, f);
  idx = lua_absindex(L, idx);
  lua_getiuservalue(L, idx, AL_FUTURE_UV_LOOP);
  lua_getfield(L, -1, "call_exception_handler");
  lua_insert(L, -2);
  lua_createtable(L, 0, 4);
  lua_pushstring(L, f->is_task ? "Task exception was never retrieved" : "Future exception was never retrieved");
  lua_setfield(L, -2, "message");
  lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  lua_setfield(L, -2, "exception");
  lua_pushvalue(L, idx);
  lua_setfield(L, -2, "future");
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  lua_pushlightuserdata(L, f);
  lua_rawget(L, -2);
  lua_setfield(L, -3, "traceback");
  lua_pop(L, 1);
  al_push_place(L, ctx, idx);
  lua_setfield(L, -2, "source_traceback");
  lua_call(L, 2, 0);
}

static int future_gc(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_future *f = al_test_future(L, ctx, 1);
  if (!f) return 0;
  if (f->is_task) al_task_report_destroyed(L, ctx, 1);
  al_future_report_unread(L, ctx, 1);
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  lua_pushlightuserdata(L, f);
  lua_pushnil(L);
  lua_rawset(L, -3);
  return 0;
}

/* The unread errors of a loop that closes are told now: who could still ask? */
void al_future_report_all(lua_State *L, al_ctx *ctx, l_loop *loop) {
  if (ctx->n_unread == 0) return;
  al_pushanchored(L, ctx, AL_SLOT_UNREAD);
  lua_newtable(L); /* a copy, for reporting runs scripts */
  int n = 0;
  lua_pushnil(L);
  while (lua_next(L, -3)) {
    lua_pop(L, 1);
    l_future *f = lua_touserdata(L, -1);
    if (f->loop != loop || !f->unread) continue;
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, ++n);
  }
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    al_future_report_unread(L, ctx, lua_gettop(L));
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
}

/* Future([{loop}]) */
static int future_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", NULL};
  l_loop *loop = NULL;
  if (al_options(L, 2, "Future", names) && al_option(L, 2, "loop") != LUA_TNIL) {
    loop = al_test_loop(L, ctx, lua_gettop(L));
    if (!loop) return al_option_error(L, "Future", "loop", "AbstractEventLoop", -1);
  }
  al_future_new(L, ctx, loop ? loop : al_push_implied_loop(L, ctx));
  return 1;
}

/* The metatable of a class once more, with the finalizer. */
static const void *make_gc_variant(lua_State *L, al_ctx *ctx, al_class class, int slot) {
  al_pushclass(L, ctx, class);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, -3)) {
    if (lua_type(L, -2) == LUA_TSTRING && strncmp(lua_tostring(L, -2), "__", 2) == 0) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    } else {
      lua_pop(L, 1);
    }
  }
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__base");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__index");
  al_ctx_pushfunction(L, ctx, future_gc);
  lua_setfield(L, -2, "__gc");
  const void *ptr = lua_topointer(L, -1);
  al_ctx_anchors(L, ctx);
  lua_insert(L, -2);
  lua_rawseti(L, -2, slot);
  lua_pop(L, 2);
  return ptr;
}

static const luaL_Reg methods[] = {{"result", future_result},
                                   {"set_result", future_set_result},
                                   {"exception", future_exception},
                                   {"set_exception", future_set_exception},
                                   {"done", future_done},
                                   {"cancelled", future_cancelled},
                                   {"cancel", future_cancel},
                                   {"add_done_callback", future_add_done_callback},
                                   {"remove_done_callback", future_remove_done_callback},
                                   {"get_loop", future_get_loop},
                                   {"__tostring", future_tostring},
                                   {"__new", future_new},
                                   {NULL, NULL}};

void al_future_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg functions[] = {
      {"waiter", waiter}, {"gathering", gathering}, {"outcome", outcome}, {"take_error", take_error}, {NULL, NULL}};
  al_ctx_setfuncs(L, ctx, functions);
  al_class_methods(L, ctx, AL_C_Future, methods);
  al_ctx_anchors(L, ctx);
  al_pushweak(L, "k"); /* the futures with unread errors, weakly */
  lua_rawseti(L, -2, AL_SLOT_UNREAD);
  lua_pop(L, 1);
}

void al_future_openlib_late(lua_State *L, al_ctx *ctx) {
  ctx->future_gc = make_gc_variant(L, ctx, AL_C_Future, AL_SLOT_FUTURE_GC);
  ctx->task_gc = make_gc_variant(L, ctx, AL_C_Task, AL_SLOT_TASK_GC);
}
