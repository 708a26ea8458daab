/* ltask.c - Task: a Lua coroutine that the loop steps. Waiting allocates nothing: the task's step handle stands in the list
 * of the future that it waits for, or the operation that it waits for knows the task. A pending task is anchored.
 *
 * How a step goes: ready queue → run_step → lua_resume → the continuation of the C function that waited → its results.
 * The body runs under a protected call inside its coroutine (task_main), so that its <close> variables may wait.
 *
 * SPDX-License-Identifier: MIT */
#include "ltask.h"

#include "lcontext.h"
#include "lloop.h"
#include "lrepr.h"

#include <math.h>
#include <string.h>

const char al_wait_tag;

enum { MAX_CACHED_COROUTINES = 4096 };

static l_task *of_step(al_handle *step) { return (l_task *)(void *)((char *)step - offsetof(l_task, step)); }
static l_task *of_all(al_link *all) { return (l_task *)(void *)((char *)all - offsetof(l_task, all)); }

void al_task_pushname(lua_State *L, l_task *t) {
  if (t->co) {
    al_task_pushself(L, t->f.loop->ctx, t);
    lua_getiuservalue(L, -1, AL_TASK_UV_NAME);
    lua_remove(L, -2);
    if (lua_isstring(L, -1)) return;
    lua_pop(L, 1);
  }
  lua_pushfstring(L, t->is_main ? "main" : "Task-%I", (LUAI_UACINT)t->number);
}

void al_task_pushself(lua_State *L, al_ctx *ctx, l_task *t) { al_pushanchored(L, ctx, t->slot); }

/* ---- the body */

/* [1] handler, results or the error → ok, results or the error */
static int body_done(lua_State *L, int status, lua_KContext extra) {
  (void)extra;
  lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/* The function at the bottom of every task's coroutine: f, arguments... → ok, results or the error. */
static int task_main(lua_State *L) {
  int nargs = lua_gettop(L) - 1;
  al_ctx_pushfunction(L, al_ctx_of(L), al_traceback);
  lua_insert(L, 1);
  return body_done(L, lua_pcallk(L, nargs, LUA_MULTRET, 1, 0, body_done), 0);
}

/* ---- ending */

typedef struct ending {
  al_ctx *ctx;
  l_task *task;
  bool failed;
} ending;

static void end_failed(lua_State *L, al_ctx *ctx) {
  if (lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_CancelledError)) {
    lua_getfield(L, -1, "message");
    al_future_set_cancelled(L, ctx, 2);
  } else {
    al_future_fail(L, ctx, 2);
  }
}

/* ending, task, results... or the error */
static int end_body(lua_State *L) {
  ending *e = lua_touserdata(L, 1);
  if (e->failed) {
    end_failed(L, e->ctx);
  } else if (e->task->must_cancel) {
    lua_getiuservalue(L, 2, AL_TASK_UV_MESSAGE);
    al_future_set_cancelled(L, e->ctx, 2);
  } else {
    al_future_finish(L, e->ctx, 2, lua_gettop(L) - 2);
  }
  return 0;
}

static int cache_coroutine(lua_State *L) {
  al_ctx *ctx = lua_touserdata(L, 1);
  al_ctx_anchors(L, ctx);
  lua_rawgeti(L, -1, AL_SLOT_COROUTINES);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, ++ctx->n_coroutines);
  return 0;
}

/* A coroutine that returned may serve the next task. */
static void keep_coroutine(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  if (t->exposed || ctx->n_coroutines >= MAX_CACHED_COROUTINES || lua_status(t->co) != LUA_OK) return;
  lua_settop(t->co, 0);
  lua_pushcfunction(L, cache_coroutine);
  lua_pushlightuserdata(L, ctx);
  lua_getiuservalue(L, self, AL_TASK_UV_THREAD);
  if (al_pcall(L, 2, 0) != LUA_OK) {
    ctx->n_coroutines--;
    lua_pop(L, 1);
  }
}

static void leave_lists(al_ctx *ctx, l_task *t) {
  if (t->all.next) {
    t->all.prev->next = t->all.next;
    t->all.next->prev = t->all.prev;
    t->all.next = t->all.prev = NULL;
  }
  al_unanchor(ctx, t->slot);
  t->slot = 0;
}

static void drop_references(lua_State *L, int self) {
  static const int held[] = {AL_TASK_UV_THREAD, AL_TASK_UV_AWAITED, AL_TASK_UV_MESSAGE};
  for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
    lua_pushnil(L);
    lua_setiuservalue(L, self, held[i]);
  }
}

/* The task at self of L has ended with n values (or the error, if failed) on top of its coroutine. */
static void end_task(al_ctx *ctx, lua_State *L, l_task *t, int self, int n, bool failed) {
  if (!lua_checkstack(L, n + LUA_MINSTACK)) {
    lua_settop(t->co, 0);
    n = 1, failed = true;
    lua_pushliteral(t->co, "too many results for the stack");
  }
  bool interrupt = failed && al_isinterrupt(t->co, ctx, -1);
  ending e = {ctx, t, failed};
  lua_pushcfunction(L, end_body);
  lua_pushlightuserdata(L, &e);
  lua_pushvalue(L, self);
  lua_xmove(t->co, L, n);
  if (interrupt) { /* it also leaves the loop */
    lua_pushvalue(L, -1);
    lua_insert(L, self + 1);
  }
  if (al_pcall(L, n + 2, 0) != LUA_OK) al_report(ctx, L, t->f.loop, "ending a task failed", NULL);
  if (interrupt) al_report(ctx, L, t->f.loop, "interrupt", NULL);
  keep_coroutine(ctx, L, t, self);
  t->co = NULL;
  leave_lists(ctx, t);
  drop_references(L, self);
}

/* ---- stepping */

static void throw_cancelled(lua_State *L, al_ctx *ctx, l_task *t) {
  al_pusherror(L, ctx, AL_C_CancelledError, NULL);
  al_task_pushself(L, ctx, t);
  lua_getiuservalue(L, -1, AL_TASK_UV_MESSAGE);
  lua_setfield(L, -3, "message");
  lua_pop(L, 1);
  lua_error(L);
}

/* In the task again, before the waiting function goes on: raises what is to be raised there. */
static l_task *resumed(lua_State *L, al_ctx *ctx) {
  l_task *t = ctx->current;
  if (t->throwing) {
    t->throwing = false;
    throw_cancelled(L, ctx, t);
  }
  if (t->misyielded) {
    t->misyielded = false;
    al_raise(L, ctx, AL_C_RuntimeError,
             "a task may only yield to its loop without a value; to hand out values, yield inside a coroutine of your own");
  }
  return t;
}

/* What cancel() left to be told: ends the wait (whose result, if it came meanwhile, is dropped). */
static void deliver_cancel(al_ctx *ctx, l_task *t) {
  if (!t->must_cancel) return;
  if (t->awaiting && t->awaiting->state == AL_FUTURE_CANCELLED) { /* it says so itself */
    t->must_cancel = false;
    return;
  }
  t->must_cancel = false;
  t->throwing = true;
  if (t->wait) t->wait->abandon(ctx, t->wait);
  t->wait = NULL;
}

static bool yielded_by_aloop(lua_State *co, int n) { return n == 1 && lua_touserdata(co, -1) == (const void *)&al_wait_tag; }

static int request_cancel(lua_State *L) {
  l_task *t = lua_touserdata(L, 1);
  al_ctx *ctx = t->f.loop->ctx;
  al_task_pushself(L, ctx, t);
  lua_getiuservalue(L, -1, AL_TASK_UV_MESSAGE);
  t->cancelling--; /* it was counted when it was asked for */
  t->must_cancel = false;
  al_task_cancel(L, ctx, 2);
  return 0;
}

static int settle_body(lua_State *L) {
  al_main_settle(L, lua_touserdata(L, 1));
  return 0;
}

/* It waits. A cancellation that was asked for during the step reaches what it waits for now. */
static void suspended(al_ctx *ctx, lua_State *L, l_task *t, int n) {
  if (yielded_by_aloop(t->co, n)) {
    lua_pop(t->co, n);
  } else { /* a bare yield gives up one turn */
    t->misyielded = n > 0;
    lua_pop(t->co, n);
    if (t->is_main && !t->settled && al_pcall_c(L, settle_body, ctx, 0) != LUA_OK) {
      al_report(ctx, L, t->f.loop, "the main chunk can't yield: there is no loop", NULL);
      return;
    }
    al_call_soon(t->f.loop->loop, &t->step);
  }
  bool woken = !t->awaiting && (!t->wait || al_handle_is_queued(&t->step));
  if (!t->must_cancel || woken) return;
  if (al_pcall_c(L, request_cancel, t, 0) != LUA_OK) al_report(ctx, L, t->f.loop, "cancelling a task failed", NULL);
}

/* Pushes the first resume's function and arguments; the number of values to resume with. */
static int first_values(l_task *t) {
  t->started = true;
  return lua_gettop(t->co) - 1;
}

/* Resumes the task's coroutine; self is its userdata on L. */
static void resume(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  int nargs = t->started ? 0 : first_values(t), n = 0;
  int status = lua_resume(t->co, L, nargs, &n);
  if (status == LUA_YIELD) {
    suspended(ctx, L, t, n);
  } else if (status == LUA_OK) {
    bool ok = lua_toboolean(t->co, -n);
    end_task(ctx, L, t, self, n - 1, !ok);
  } else { /* an error in the handler itself, or no memory */
    t->exposed = true;
    end_task(ctx, L, t, self, 1, true);
  }
}

/* Switches to the task's context for the length of the step, and keeps what became of it. */
static void resume_in_context(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  if (t->context_kind == AL_CONTEXT_EMPTY && ctx->context_kind == AL_CONTEXT_EMPTY) {
    resume(ctx, L, t, self);
    if (ctx->context_kind == AL_CONTEXT_EMPTY) return;
    t->context_kind = (uint8_t)ctx->context_kind; /* it set a variable */
    lua_pushnil(L);
    al_context_swap(L, ctx, AL_CONTEXT_EMPTY);
    lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
    return;
  }
  lua_getiuservalue(L, self, AL_TASK_UV_CONTEXT);
  int former = al_context_swap(L, ctx, t->context_kind), saved = lua_gettop(L);
  resume(ctx, L, t, self);
  t->context_kind = (uint8_t)ctx->context_kind;
  lua_pushvalue(L, saved);
  al_context_swap(L, ctx, former);
  lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
  lua_settop(L, saved - 1);
}

/* One step of the task whose userdata is at self of L. */
static void run_step(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  deliver_cancel(ctx, t);
  if (t->throwing && !t->started) { /* its body never begins */
    lua_settop(t->co, 0);
    t->must_cancel = true;
    end_task(ctx, L, t, self, 0, false);
    return;
  }
  l_task *former = ctx->current;
  lua_State *former_top = ctx->co_top, *former_blocked = ctx->co_blocked;
  ctx->current = t;
  ctx->co_top = t->co;
  ctx->co_blocked = NULL;
  resume_in_context(ctx, L, t, self);
  ctx->current = former;
  ctx->co_top = former_top;
  ctx->co_blocked = former_blocked;
}

static void step(al_loop *loop, al_handle *core) {
  l_task *t = of_step(core);
  al_ctx *ctx = t->f.loop->ctx;
  lua_State *L = al_enter(ctx);
  if (!L) return;
  lua_rawgeti(L, 1, t->slot);
  int64_t began = al_loop_debug(loop) ? al_time_ns() : 0;
  run_step(ctx, L, t, 3);
  if (began) al_loop_check_slow(L, t->f.loop, 3, al_time_ns() - began);
  al_leave(ctx, L);
}

bool al_task_is_step(const al_handle *core) { return core->run == step; }

/* ---- waiting */

int al_suspend(lua_State *L, lua_KContext kctx, lua_KFunction k) {
  lua_pushlightuserdata(L, (void *)&al_wait_tag);
  return lua_yieldk(L, 1, kctx, k);
}

static int wait_done(lua_State *L, int status, lua_KContext kctx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = resumed(L, ctx);
  t->wait = NULL;
  l_wait *wait = (l_wait *)kctx;
  return wait->finish(L, ctx, wait);
}

int al_wait(lua_State *L, al_ctx *ctx, l_wait *wait) {
  wait->task = ctx->current;
  ctx->current->wait = wait;
  return al_suspend(L, (lua_KContext)wait, wait_done);
}

void al_wake(l_wait *wait) { al_call_soon(wait->task->f.loop->loop, &wait->task->step); }

static int await_done(lua_State *L, int status, lua_KContext idx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = ctx->current;
  if (t->throwing) al_future_mark_read(ctx, t->awaiting); /* the cancellation takes the place of its error */
  t->awaiting = NULL;
  resumed(L, ctx);
  return al_future_result(L, ctx, (int)idx);
}

int al_await(lua_State *L, al_ctx *ctx, int idx) {
  l_future *f = lua_touserdata(L, idx);
  l_task *t = ctx->current;
  if (f->state != AL_FUTURE_PENDING) return al_future_result(L, ctx, idx);
  if (f == &t->f) return al_raise(L, ctx, AL_C_RuntimeError, "Task cannot await on itself");
  if (f->loop != t->f.loop)
    return al_raise(L, ctx, AL_C_RuntimeError, "the awaited future belongs to a different loop than the task");
  al_task_pushself(L, ctx, t);
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, -2, AL_TASK_UV_AWAITED);
  lua_pop(L, 1);
  t->awaiting = f;
  al_list_append(&f->waiters, &t->step);
  return al_suspend(L, idx, await_done);
}

/* ---- making */

/* Pushes a coroutine with task_main at its bottom: a finished one, or a new one. */
static lua_State *push_coroutine(lua_State *L, al_ctx *ctx) {
  lua_State *co;
  if (ctx->n_coroutines > 0) {
    al_pushanchored(L, ctx, AL_SLOT_COROUTINES);
    lua_rawgeti(L, -1, ctx->n_coroutines);
    lua_pushboolean(L, false);
    lua_rawseti(L, -3, ctx->n_coroutines--);
    lua_remove(L, -2);
    co = lua_tothread(L, -1);
  } else {
    co = lua_newthread(L);
  }
  al_ctx_pushfunction(co, ctx, task_main);
  return co;
}

/* What runs a coroutine given instead of a function: see lcoro.c. */
static void push_body(lua_State *L, al_ctx *ctx, int idx) {
  if (lua_isthread(L, idx)) {
    al_coro_pushdriver(L, ctx, idx);
  } else {
    lua_pushvalue(L, idx);
  }
}

static bool is_coroutine(lua_State *L, int idx) {
  if (lua_isthread(L, idx)) return lua_status(lua_tothread(L, idx)) == LUA_YIELD || lua_gettop(lua_tothread(L, idx)) > 0;
  return al_iscallable(L, idx) && !lua_isuserdata(L, idx);
}

/* Pushes a new task of the loop for the coroutine at idx, not yet queued; its context is the value on top (popped) with
 * this kind. */
static l_task *new_task(lua_State *L, al_ctx *ctx, l_loop *loop, int idx, int context_kind) {
  l_task *t = al_new(L, ctx, AL_C_Task, sizeof *t, AL_TASK_UV_COUNT);
  int self = lua_gettop(L);
  lua_insert(L, self - 1); /* task, context */
  self--;
  lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
  t->f.is_task = true;
  t->context_kind = (uint8_t)context_kind;
  al_handle_init(&t->step, step);
  al_timer_init(&t->timer, NULL);
  al_future_init(L, ctx, &t->f, loop, self);
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, self, AL_TASK_UV_CORO);
  lua_State *co = push_coroutine(L, ctx);
  push_body(L, ctx, idx);
  lua_xmove(L, co, 1);
  lua_setiuservalue(L, self, AL_TASK_UV_THREAD);
  t->slot = al_anchor(L, ctx, self);
  t->co = co;
  t->number = ++ctx->task_names;
  t->all.next = &loop->tasks;
  t->all.prev = loop->tasks.prev;
  t->all.prev->next = &t->all;
  loop->tasks.prev = &t->all;
  return t;
}

static void set_name(lua_State *L, int self, int name) {
  luaL_tolstring(L, name, NULL);
  lua_setiuservalue(L, self, AL_TASK_UV_NAME);
}

static void step_eagerly(lua_State *L, al_ctx *ctx, l_task *t) {
  lua_State *U = al_enter(ctx);
  if (!U) {
    al_call_soon(t->f.loop->loop, &t->step);
    return;
  }
  lua_pushvalue(L, -1);
  lua_xmove(L, U, 1);
  run_step(ctx, U, t, 3);
  al_leave(ctx, U);
}

/* loop, coro, [options] → Task, by the default way. */
static int default_create_task(lua_State *L, al_ctx *ctx, l_loop *loop) {
  bool given = !lua_isnoneornil(L, 3);
  lua_settop(L, 3);
  int kind;
  if (given && al_option(L, 3, "context") != LUA_TNIL) {
    if (!al_test(L, ctx, lua_gettop(L), AL_C_Context)) al_option_error(L, "create_task", "context", "Context", -1);
    kind = AL_CONTEXT_OBJECT;
  } else {
    lua_settop(L, 3);
    kind = al_context_capture(L, ctx);
  }
  l_task *t = new_task(L, ctx, loop, 2, kind);
  int self = lua_gettop(L);
  bool eager = false;
  if (given) {
    if (al_option(L, 3, "name") != LUA_TNIL) set_name(L, self, lua_gettop(L));
    al_option(L, 3, "eager_start");
    eager = lua_toboolean(L, -1) && ctx->running == loop;
    lua_settop(L, self);
  }
  if (eager) {
    step_eagerly(L, ctx, t);
  } else {
    al_call_soon(loop->loop, &t->step);
  }
  return 1;
}

/* The options as the factory gets them: a table always, without the name, which create_task sets itself. */
static void call_factory(lua_State *L, l_loop *loop) {
  (void)loop;
  lua_newtable(L);
  if (lua_istable(L, 3)) {
    lua_pushnil(L);
    while (lua_next(L, 3)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
  }
  lua_pushnil(L);
  lua_setfield(L, -2, "name");
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_rotate(L, -3, 2); /* factory, loop, coro, options */
  lua_call(L, 3, 1);
}

/* loop, coro, [options], factory → what the factory made, named. */
static int factory_create_task(lua_State *L, l_loop *loop) {
  call_factory(L, loop);
  if (lua_istable(L, 3) && lua_getfield(L, 3, "name") != LUA_TNIL) {
    if (luaL_getmetafield(L, -2, "__index") != LUA_TNIL || lua_istable(L, -2)) {
      lua_settop(L, 6);
      lua_getfield(L, 5, "set_name");
      lua_pushvalue(L, 5);
      lua_pushvalue(L, 6);
      lua_call(L, 2, 0);
    }
  }
  lua_settop(L, 5);
  return 1;
}

static const char *const create_task_options[] = {"name", "context", "eager_start", NULL};

static int loop_create_task(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_open(L, ctx, 1);
  if (!is_coroutine(L, 2)) return al_typeerror(L, 2, "function or coroutine");
  al_options(L, 3, "create_task", create_task_options);
  lua_settop(L, 3);
  if (lua_getiuservalue(L, 1, AL_LOOP_UV_FACTORY) != LUA_TNIL) return factory_create_task(L, loop);
  return default_create_task(L, ctx, loop);
}

static int loop_set_task_factory(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  if (!lua_isnoneornil(L, 2)) al_check_callable(L, 2);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, AL_LOOP_UV_FACTORY);
  return 0;
}

static int loop_get_task_factory(lua_State *L) {
  al_check_loop(L, al_ctx_of(L), 1);
  lua_getiuservalue(L, 1, AL_LOOP_UV_FACTORY);
  return 1;
}

/* Task(coro, {loop, name, context, eager_start}) */
static int task_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", "name", "context", "eager_start", NULL};
  if (!is_coroutine(L, 2)) return al_typeerror(L, 2, "function or coroutine");
  l_loop *loop = NULL;
  if (al_options(L, 3, "Task", names) && al_option(L, 3, "loop") != LUA_TNIL) loop = al_check_loop(L, ctx, lua_gettop(L));
  if (!loop) loop = al_default_loop(L, ctx);
  lua_settop(L, 3);
  return default_create_task(L, ctx, loop);
}

/* Calls loop:create_task(value at idx): a subclass's own, if it has one. */
static void create_task_for(lua_State *L, l_loop *loop, int idx) {
  al_pushloop(L, loop);
  lua_getfield(L, -1, "create_task");
  lua_insert(L, -2);
  lua_pushvalue(L, idx);
  lua_call(L, 2, 1);
}

static int await_object(lua_State *L) {
  luaL_getmetafield(L, lua_upvalueindex(2), "__await");
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_callk(L, 1, LUA_MULTRET, 0, NULL);
  return lua_gettop(L);
}

l_future *al_ensure_future(lua_State *L, al_ctx *ctx, l_loop *loop, int idx) {
  idx = lua_absindex(L, idx);
  l_future *f = al_test_future(L, ctx, idx);
  if (f) {
    lua_pushvalue(L, idx);
    return f;
  }
  if (luaL_getmetafield(L, idx, "__await") != LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushlightuserdata(L, ctx);
    lua_pushvalue(L, idx);
    lua_pushcclosure(L, await_object, 2);
    create_task_for(L, loop ? loop : al_default_loop(L, ctx), lua_gettop(L));
    lua_remove(L, -2);
  } else if (is_coroutine(L, idx)) {
    create_task_for(L, loop ? loop : al_default_loop(L, ctx), idx);
  } else {
    const char *message = "awaitable expected, got %s; pass the function, don't call it";
    luaL_argerror(L, idx, lua_pushfstring(L, message, luaL_typename(L, idx)));
  }
  f = al_test_future(L, ctx, -1);
  if (!f) al_raise(L, ctx, AL_C_RuntimeError, "create_task gave no Future");
  return f;
}

/* ---- cancelling */

bool al_task_cancel(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  l_task *t = lua_touserdata(L, idx);
  if (t->f.state != AL_FUTURE_PENDING) {
    lua_pop(L, 1);
    return false;
  }
  lua_setiuservalue(L, idx, AL_TASK_UV_MESSAGE);
  t->cancelling++;
  if (t->awaiting && t->awaiting->state == AL_FUTURE_PENDING) {
    lua_getiuservalue(L, idx, AL_TASK_UV_AWAITED);
    lua_getiuservalue(L, idx, AL_TASK_UV_MESSAGE);
    bool cancelled = al_future_cancel(L, ctx, lua_gettop(L) - 1);
    lua_pop(L, 1);
    if (cancelled) return true;
  } else if (t->wait && !al_handle_is_queued(&t->step)) {
    l_wait *wait = t->wait;
    t->wait = NULL;
    t->throwing = true;
    wait->abandon(ctx, wait);
    al_call_soon(t->f.loop->loop, &t->step);
    return true;
  }
  t->must_cancel = true;
  return true;
}

static l_task *check_task(lua_State *L, al_ctx *ctx) {
  l_future *f = al_test_future(L, ctx, 1);
  if (!f || !f->is_task) al_typeerror(L, 1, "Task");
  return (l_task *)f;
}

static int task_cancelling(lua_State *L) {
  lua_pushinteger(L, check_task(L, al_ctx_of(L))->cancelling);
  return 1;
}

static int task_uncancel(lua_State *L) {
  l_task *t = check_task(L, al_ctx_of(L));
  if (t->cancelling > 0 && --t->cancelling == 0) t->must_cancel = false;
  lua_pushinteger(L, t->cancelling);
  return 1;
}

/* ---- looking */

static int task_get_name(lua_State *L) {
  l_task *t = check_task(L, al_ctx_of(L));
  if (lua_getiuservalue(L, 1, AL_TASK_UV_NAME) == LUA_TNIL)
    lua_pushfstring(L, "Task-%I", (LUAI_UACINT)t->number);
  return 1;
}

static int task_set_name(lua_State *L) {
  check_task(L, al_ctx_of(L));
  luaL_checkany(L, 2);
  set_name(L, 1, 2);
  return 0;
}

static int task_get_coro(lua_State *L) {
  check_task(L, al_ctx_of(L));
  lua_getiuservalue(L, 1, AL_TASK_UV_CORO);
  return 1;
}

static int task_get_context(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = check_task(L, ctx);
  if (t == ctx->current) { /* its context is the current one */
    al_pushanchored(L, ctx, AL_SLOT_CONTEXT);
    if (ctx->context_kind == AL_CONTEXT_OBJECT) return 1;
    al_context_object(L, ctx, ctx->context_kind, -1);
    lua_pushvalue(L, -1);
    al_context_swap(L, ctx, AL_CONTEXT_OBJECT);
    lua_pop(L, 1);
    return 1;
  }
  lua_getiuservalue(L, 1, AL_TASK_UV_CONTEXT);
  if (t->context_kind == AL_CONTEXT_OBJECT) return 1;
  al_context_object(L, ctx, t->context_kind, -1);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, AL_TASK_UV_CONTEXT);
  t->context_kind = AL_CONTEXT_OBJECT;
  return 1;
}

/* The frames of the task's coroutine, innermost last as in asyncio; those of C functions are left out. */
static int task_get_stack(lua_State *L) {
  l_task *t = check_task(L, al_ctx_of(L));
  lua_newtable(L);
  lua_Debug ar;
  int n = 0;
  while (t->co && lua_getstack(t->co, n, &ar)) n++;
  for (int level = n - 1, i = 0; level >= 0; level--) {
    lua_getstack(t->co, level, &ar);
    lua_getinfo(t->co, "Sln", &ar);
    if (ar.currentline < 0) continue;
    lua_createtable(L, 0, 3);
    lua_pushstring(L, ar.short_src);
    lua_setfield(L, -2, "source");
    lua_pushinteger(L, ar.currentline);
    lua_setfield(L, -2, "currentline");
    lua_pushstring(L, ar.name);
    lua_setfield(L, -2, "name");
    lua_rawseti(L, -2, ++i);
  }
  return 1;
}

static int current_task(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = lua_isnoneornil(L, 1) ? NULL : al_check_loop(L, ctx, 1);
  l_task *t = ctx->current;
  if (t && t->is_main) al_main_settle(L, ctx);
  if (!t && !loop) al_running_loop(L, ctx);
  if (!t || (loop && t->f.loop != loop)) return 0;
  al_task_pushself(L, ctx, t);
  return 1;
}

static int all_tasks(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = lua_isnoneornil(L, 1) ? al_default_loop(L, ctx) : al_check_loop(L, ctx, 1);
  lua_newtable(L);
  lua_Integer n = 0;
  for (al_link *link = loop->tasks.next; link != &loop->tasks; link = link->next) {
    al_task_pushself(L, ctx, of_all(link));
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* ---- the end of a loop */

void al_task_forget_all(lua_State *L, al_ctx *ctx, l_loop *loop) {
  while (loop->tasks.next != &loop->tasks) {
    l_task *t = of_all(loop->tasks.next);
    al_task_pushself(L, ctx, t);
    al_handle_cancel(&t->step);
    al_timer_cancel(&t->timer);
    if (t->wait) t->wait->abandon(ctx, t->wait);
    t->wait = NULL;
    al_pushanchored(L, ctx, AL_SLOT_TASK_GC);
    lua_setmetatable(L, -2);
    leave_lists(ctx, t);
    lua_pop(L, 1);
  }
}

void al_task_report_destroyed(lua_State *L, al_ctx *ctx, int idx) {
  l_task *t = lua_touserdata(L, idx);
  if (t->f.state != AL_FUTURE_PENDING || t->is_main) return;
  idx = lua_absindex(L, idx);
  lua_getiuservalue(L, idx, AL_FUTURE_UV_LOOP);
  lua_getfield(L, -1, "call_exception_handler");
  lua_insert(L, -2);
  lua_createtable(L, 0, 3);
  lua_pushliteral(L, "Task was destroyed but it is pending!");
  lua_setfield(L, -2, "message");
  lua_pushvalue(L, idx);
  lua_setfield(L, -2, "task");
  al_push_place(L, ctx, idx);
  lua_setfield(L, -2, "source_traceback");
  lua_call(L, 2, 0);
}

/* ---- await, sleep */

static int await(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_wait(L, ctx, "await");
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  al_ensure_future(L, ctx, ctx->current->f.loop, 1);
  lua_replace(L, 1);
  return al_await(L, ctx, 1);
}

static int future_await(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (!al_test_future(L, ctx, 1)) return al_typeerror(L, 1, "Future");
  al_check_wait(L, ctx, "await");
  lua_settop(L, 1);
  return al_await(L, ctx, 1);
}

static int sleep_values(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)ctx, (void)wait;
  return lua_gettop(L) - 1;
}

static void sleep_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  l_task *t = (l_task *)(void *)((char *)wait - offsetof(l_task, sleeping));
  al_timer_cancel(&t->timer);
}

static void sleep_over(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_timer *timer = (al_timer *)(void *)((char *)handle - offsetof(al_timer, handle));
  l_task *t = (l_task *)(void *)((char *)timer - offsetof(l_task, timer));
  al_wake(&t->sleeping);
}

static int sleep_turn_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  resumed(L, al_ctx_of(L));
  return lua_gettop(L) - 1;
}

static int sleep(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = al_check_wait(L, ctx, "sleep");
  double delay = luaL_checknumber(L, 1);
  if (isnan(delay)) return al_raise(L, ctx, AL_C_ValueError, "Invalid delay: NaN (not a number)");
  if (delay <= 0) {
    al_call_soon(t->f.loop->loop, &t->step);
    return al_suspend(L, 0, sleep_turn_done);
  }
  t->sleeping.finish = sleep_values;
  t->sleeping.abandon = sleep_abandon;
  t->sleeping.what = "timer";
  t->timer.handle.run = sleep_over;
  if (al_timer_set(t->f.loop->loop, &t->timer, al_time_ns() + al_seconds_to_ns(delay)) < 0)
    return luaL_error(L, "not enough memory");
  return al_wait(L, ctx, &t->sleeping);
}

/* A task that gives up one turn by coroutine.yield(): lcoro.c. */
int al_task_yielded(lua_State *L, al_ctx *ctx) {
  if (ctx->current && ctx->co_top == L) resumed(L, ctx);
  return lua_gettop(L);
}

static int ensure_future(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", NULL};
  luaL_checkany(L, 1);
  l_loop *loop = NULL;
  if (al_options(L, 2, "ensure_future", names) && al_option(L, 2, "loop") != LUA_TNIL)
    loop = al_check_loop(L, ctx, lua_gettop(L));
  l_future *f = al_ensure_future(L, ctx, loop, 1);
  if (loop && f->loop != loop)
    return al_raise(L, ctx, AL_C_ValueError, "The future belongs to a different loop than the one specified as the loop argument");
  return 1;
}

/* ---- the main chunk */

l_task *al_main_task(al_ctx *ctx) { return ctx->main_task; }

typedef struct stopper {
  al_handle handle; /* waits for the main task's future */
} stopper;

static void stop_loop(al_loop *loop, al_handle *handle) {
  (void)handle;
  al_loop_stop(loop);
}

void al_main_settle(lua_State *L, al_ctx *ctx) {
  l_task *t = ctx->main_task;
  if (!t || t->settled) return;
  l_loop *loop = al_current_loop(L, ctx); /* pushes it */
  al_task_pushself(L, ctx, t);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, AL_FUTURE_UV_LOOP);
  lua_pop(L, 1);
  t->f.loop = loop;
  t->settled = true;
  al_link *all = &t->all;
  all->next = &loop->tasks;
  all->prev = loop->tasks.prev;
  all->prev->next = all;
  loop->tasks.prev = all;
}

/* A task without a loop yet: its loop is a stand-in until it is settled. */
static l_task *new_main(lua_State *L, al_ctx *ctx, int nargs) {
  int f = lua_gettop(L) - nargs;
  l_task *t = al_new(L, ctx, AL_C_Task, sizeof *t, AL_TASK_UV_COUNT);
  int self = lua_gettop(L);
  t->f.is_task = t->is_main = t->exposed = true;
  t->f.loop = ctx->no_loop;
  al_list_init(&t->f.waiters);
  al_handle_init(&t->step, step);
  al_timer_init(&t->timer, NULL);
  lua_pushvalue(L, f);
  lua_setiuservalue(L, self, AL_TASK_UV_CORO);
  lua_State *co = push_coroutine(L, ctx);
  lua_setiuservalue(L, self, AL_TASK_UV_THREAD);
  luaL_checkstack(co, nargs + LUA_MINSTACK, "too many arguments");
  t->slot = al_anchor(L, ctx, self);
  t->co = co;
  t->number = ++ctx->task_names;
  lua_insert(L, f); /* task, f, arguments */
  lua_xmove(L, co, nargs + 1);
  return t;
}

/* Steps it for the first time, before any loop turns. */
static void start_main(lua_State *L, al_ctx *ctx, l_task *t) {
  lua_State *U = al_enter(ctx);
  if (!U) luaL_error(L, "not enough memory");
  lua_rawgeti(U, 1, t->slot);
  run_step(ctx, U, t, 3);
  al_leave(ctx, U);
}

/* Runs its loop until it is done. */
static void turn_main(lua_State *L, al_ctx *ctx, l_task *t) {
  stopper s;
  al_handle_init(&s.handle, stop_loop);
  al_list_append(&t->f.waiters, &s.handle);
  int error = al_turn_forever(ctx, t->f.loop);
  al_handle_cancel(&s.handle);
  if (error < 0) al_raise_os(L, ctx, error, NULL, NULL);
}

static int main_body(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = new_main(L, ctx, lua_gettop(L) - 1); /* [1] task */
  ctx->main_task = t;
  start_main(L, ctx, t);
  if (t->f.state == AL_FUTURE_PENDING && !ctx->exiting) turn_main(L, ctx, t);
  if (ctx->exiting) return al_raise_exit(L, ctx);
  if (t->f.state == AL_FUTURE_PENDING)
    return al_raise(L, ctx, AL_C_RuntimeError, "Event loop stopped before Future completed.");
  return al_future_result(L, ctx, 1);
}

int al_main_run(lua_State *L, al_ctx *ctx, int nargs) {
  int f = lua_gettop(L) - nargs;
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_insert(L, f);
  al_ctx_pushfunction(L, ctx, main_body);
  lua_insert(L, f + 1);
  l_task *former = ctx->main_task;
  int status = lua_pcall(L, nargs + 1, LUA_MULTRET, f);
  ctx->main_task = former;
  lua_remove(L, f);
  return status;
}

static const luaL_Reg task_methods[] = {{"cancelling", task_cancelling},
                                        {"uncancel", task_uncancel},
                                        {"get_name", task_get_name},
                                        {"set_name", task_set_name},
                                        {"get_coro", task_get_coro},
                                        {"get_context", task_get_context},
                                        {"get_stack", task_get_stack},
                                        {"__new", task_new},
                                        {NULL, NULL}};
static const luaL_Reg future_methods[] = {{"await", future_await}, {NULL, NULL}};
static const luaL_Reg loop_methods[] = {{"create_task", loop_create_task},
                                        {"set_task_factory", loop_set_task_factory},
                                        {"get_task_factory", loop_get_task_factory},
                                        {NULL, NULL}};
static const luaL_Reg functions[] = {{"await", await},
                                     {"sleep", sleep},
                                     {"current_task", current_task},
                                     {"all_tasks", all_tasks},
                                     {"ensure_future", ensure_future},
                                     {NULL, NULL}};

void al_task_openlib(lua_State *L, al_ctx *ctx) {
  al_ctx_anchors(L, ctx);
  lua_newtable(L);
  lua_rawseti(L, -2, AL_SLOT_COROUTINES);
  lua_pop(L, 1);
  al_class_methods(L, ctx, AL_C_Future, future_methods);
  al_class_methods(L, ctx, AL_C_Task, task_methods);
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
