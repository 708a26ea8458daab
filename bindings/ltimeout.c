/* ltimeout.c - timeout and timeout_at: a scope that cancels its task when the time is up, and turns the CancelledError
 * that comes of it into a TimeoutError where it is closed. It stands here and not in Lua for its price: the timer is
 * part of the object, so entering and leaving one allocates it alone and schedules no handle. Called by scripts.
 *
 * SPDX-License-Identifier: MIT */
#include "lhandle.h"
#include "lloop.h"
#include "lscope.h"

#include <math.h>

typedef enum state { ACTIVE, EXPIRING, EXPIRED, FINISHED } state;
static const char *const state_names[] = {"active", "expiring", "expired", "finished"};

typedef struct timeout {
  l_scope scope; /* first: a scope's userdata */
  state state;
  bool limited;
  double when;
  int cancelling; /* the task's count when it was entered */
} timeout;

/* ---- expiring ---------------------------------------------------------------------------------------------------- */

static int cancel_task(lua_State *L) {
  timeout *t = lua_touserdata(L, 1);
  al_ctx *ctx = t->scope.task->f.loop->ctx;
  al_task_pushself(L, ctx, t->scope.task);
  lua_pushnil(L);
  al_task_cancel(L, ctx, 2);
  return 0;
}

static void on_timeout(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_timer *timer = (al_timer *)(void *)((char *)handle - offsetof(al_timer, handle));
  timeout *t = (timeout *)(void *)((char *)timer - offsetof(timeout, scope.timer));
  l_loop *owner = t->scope.task->f.loop;
  lua_State *L = al_enter(owner->ctx);
  if (!L) return;
  t->state = EXPIRING;
  if (al_pcall_c(L, cancel_task, t, 0) != LUA_OK) al_report(owner->ctx, L, owner, "a timeout could not cancel", NULL);
  al_leave(owner->ctx, L);
}

/* Sets the timer; a time that has come expires in the next turn. It is compared in seconds, as a script would: rounded
 * to nanoseconds, "now" may lie ahead. */
static int arm(timeout *t, int64_t now_ns) {
  al_loop *loop = t->scope.task->f.loop->loop;
  al_timer *timer = &t->scope.timer;
  if (t->when > (double)now_ns / 1e9) return al_timer_set(loop, timer, al_seconds_to_ns(t->when));
  al_timer_cancel(timer);
  if (!al_handle_is_queued(&timer->handle)) al_call_soon(loop, &timer->handle);
  return 0;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* The time at arg of the function f: a number, which is no NaN; false if it is nil. */
static bool opt_time(lua_State *L, al_ctx *ctx, int arg, const char *f, const char *name, double *time) {
  if (lua_isnoneornil(L, arg)) return false;
  *time = al_checknumber(L, arg);
  if (isnan(*time)) al_raise(L, ctx, AL_C_ValueError, "'%s': %s must not be NaN", f, name);
  return true;
}

/* timeout(delay), timeout_at(when): entered by being made. The class is the second upvalue. */
static int enter(lua_State *L, bool relative) {
  al_ctx *ctx = al_ctx_of(L);
  const char *name = relative ? "timeout" : "timeout_at";
  double when = 0;
  bool limited = opt_time(L, ctx, 1, name, relative ? "delay" : "when", &when);
  l_task *task = al_scope_check_task(L, ctx, name);
  int64_t now_ns = limited ? al_loop_time_ns(task->f.loop->loop) : 0;
  timeout *t = lua_newuserdatauv(L, sizeof *t, AL_SCOPE_UV_COUNT);
  *t = (timeout){
      .limited = limited, .when = relative ? (double)now_ns / 1e9 + when : when, .cancelling = task->cancelling};
  al_timer_init(&t->scope.timer, on_timeout);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, -2);
  al_scope_enter(L, ctx, &t->scope, task, lua_gettop(L), name, 1);
  if (limited && arm(t, now_ns) < 0) {
    al_scope_leave(ctx, &t->scope);
    luaL_error(L, "not enough memory");
  }
  return 1;
}

static int timeout_new(lua_State *L) { return enter(L, true); }
static int timeout_at(lua_State *L) { return enter(L, false); }

/* ---- closing ----------------------------------------------------------------------------------------------------- */

static bool is_cancelled_error(lua_State *L, al_ctx *ctx, int idx) {
  return lua_istable(L, idx) && al_isinstance(L, ctx, idx, AL_C_CancelledError);
}

/* Pushes a TimeoutError caused by the CancelledError on top (popped). */
static void push_timeout_error(lua_State *L, al_ctx *ctx) {
  al_pusherror(L, ctx, AL_C_TimeoutError, NULL);
  lua_insert(L, -2);
  lua_setfield(L, -2, "cause");
}

/* An error on top (popped) that the cancellation has caused, at some remove: the TimeoutError comes in between. */
static void insert_timeout_error(lua_State *L, al_ctx *ctx) {
  enum { MAX_CHAIN = 100 }; /* more is a circle */
  for (int i = 0; i < MAX_CHAIN && lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_BaseError); i++) {
    lua_getfield(L, -1, "cause");
    if (is_cancelled_error(L, ctx, -1)) {
      push_timeout_error(L, ctx);
      lua_setfield(L, -2, "cause");
      break;
    }
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
}

/* The same for the error at idx and, if it is a group, for its members. */
static void insert_timeout_errors(lua_State *L, al_ctx *ctx, int idx) {
  lua_pushvalue(L, idx);
  insert_timeout_error(L, ctx);
  if (!lua_istable(L, idx) || !al_isinstance(L, ctx, idx, AL_C_ExceptionGroup)) return;
  if (lua_getfield(L, idx, "exceptions") == LUA_TTABLE) {
    lua_Integer n = luaL_len(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_geti(L, -1, i);
      insert_timeout_error(L, ctx);
    }
  }
  lua_pop(L, 1);
}

static timeout *check(lua_State *L, al_ctx *ctx) { return al_check(L, ctx, 1, AL_C_Timeout); }

/* __close(timeout, error). The request to cancel is taken back; if none has come besides, the error was ours. */
static int timeout_close(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  timeout *t = check(L, ctx);
  l_task *task = t->scope.task;
  if (!task) return 0; /* closed before, or its loop is */
  al_scope_leave(ctx, &t->scope);
  if (t->state == ACTIVE) {
    t->state = FINISHED;
    return 0;
  }
  t->state = EXPIRED;
  if (al_task_uncancel(task) > t->cancelling || lua_isnoneornil(L, 2)) return 0;
  lua_settop(L, 2);
  if (!is_cancelled_error(L, ctx, 2)) {
    insert_timeout_errors(L, ctx, 2);
    return 0;
  }
  push_timeout_error(L, ctx);
  return lua_error(L);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

static int timeout_when(lua_State *L) {
  timeout *t = check(L, al_ctx_of(L));
  if (t->limited) {
    lua_pushnumber(L, t->when);
  } else {
    lua_pushnil(L);
  }
  return 1;
}

static int timeout_reschedule(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  timeout *t = check(L, ctx);
  double when = 0;
  bool limited = opt_time(L, ctx, 2, "reschedule", "when", &when);
  if (t->state != ACTIVE)
    return al_raise(L, ctx, AL_C_RuntimeError, "Cannot change state of %s Timeout", state_names[t->state]);
  if (!t->scope.task) return al_raise(L, ctx, AL_C_RuntimeError, "Event loop is closed");
  t->limited = limited;
  t->when = when;
  if (limited) {
    if (arm(t, al_loop_time_ns(t->scope.task->f.loop->loop)) < 0) luaL_error(L, "not enough memory");
  } else if (!al_timer_cancel(&t->scope.timer)) {
    al_handle_cancel(&t->scope.timer.handle);
  }
  return 0;
}

static int timeout_expired(lua_State *L) {
  timeout *t = check(L, al_ctx_of(L));
  lua_pushboolean(L, t->state == EXPIRING || t->state == EXPIRED);
  return 1;
}

static int timeout_tostring(lua_State *L) {
  timeout *t = check(L, al_ctx_of(L));
  if (t->state != ACTIVE) {
    lua_pushfstring(L, "<Timeout [%s]>", state_names[t->state]);
  } else if (!t->limited) {
    lua_pushliteral(L, "<Timeout [active] when=nil>");
  } else {
    lua_pushfstring(L, "<Timeout [active] when=%f>", round(t->when * 1e3) / 1e3);
  }
  return 1;
}

static const luaL_Reg methods[] = {{"when", timeout_when},           {"reschedule", timeout_reschedule},
                                   {"expired", timeout_expired},     {"__close", timeout_close},
                                   {"__tostring", timeout_tostring}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"timeout", timeout_new}, {"timeout_at", timeout_at}, {NULL, NULL}};

void al_timeout_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Timeout, methods);
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushlightuserdata(L, ctx);
    al_pushclass(L, ctx, AL_C_Timeout);
    lua_pushcclosure(L, f->func, 2);
    lua_setfield(L, -2, f->name);
  }
}
