/* ltask.c - Task: a Lua coroutine that the loop steps. Waiting allocates nothing: the task's step handle stands in the
 * list of the future that it waits for, or the operation that it waits for knows the task. A pending task is anchored.
 *
 * How a step goes: ready queue → run_step → lua_resume → the continuation of the C function that waited → its results.
 * The body runs under a protected call inside its coroutine (task_main), so that its <close> variables may wait.
 *
 * SPDX-License-Identifier: MIT */
#include "ltask.h"

#include "lcontext.h"
#include "lhandle.h"
#include "lloop.h"
#include "lrepr.h"

#include <math.h>
#include <string.h>

const char al_wait_tag;

enum { MAX_CACHED_COROUTINES = 4096, MAX_CREATOR_LEVEL = 6 };

static l_task *of_step(al_handle *step) { return (l_task *)(void *)((char *)step - offsetof(l_task, step)); }
l_task *al_task_of_link(al_link *all) { return (l_task *)(void *)((char *)all - offsetof(l_task, all)); }

void al_task_pushself(lua_State *L, al_ctx *ctx, l_task *t) { al_pushanchored(L, ctx, t->slot); }

/* ---- the body ---------------------------------------------------------------------------------------------------- */

/* [1] handler, results or the error → ok, results or the error */
static int body_done(lua_State *L, int status, lua_KContext extra) {
  (void)extra;
  lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/* The function at the bottom of every task's coroutine: f, arguments... → ok, results or the error. There is one,
 * whose second upvalue is the message handler. */
static int task_main(lua_State *L) {
  int nargs = lua_gettop(L) - 1;
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  return body_done(L, lua_pcallk(L, nargs, LUA_MULTRET, 1, 0, body_done), 0);
}

/* ---- ending ------------------------------------------------------------------------------------------------------ */

typedef struct ending {
  al_ctx *ctx;
  l_task *task;
  bool failed;
} ending;

static void end_failed(lua_State *L, al_ctx *ctx) {
  if (lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_CancelledError)) {
    al_future_set_cancelled(L, ctx, 2);
  } else {
    al_future_fail(L, ctx, 2);
  }
}

/* A timeout or group that is still open has not been closed at the end of its block, because it has no <close>: the
 * task fails for it. What else it failed with is the cause, but a cancellation or interrupt goes on as it is. */
static void check_scopes(lua_State *L, ending *e) {
  static const char message[] = "%s was not closed before its task ended: write `local x <close> = ...`";
  if (!e->task->scopes) return;
  al_scope_push_place(L, e->ctx, e->task);
  al_scope_forget_all(e->ctx, e->task);
  const char *place = lua_tostring(L, -1);
  bool is_error_object = e->failed && lua_istable(L, 3) && al_isinstance(L, e->ctx, 3, AL_C_BaseError);
  if (is_error_object && !al_isinstance(L, e->ctx, 3, AL_C_Error)) {
    al_warn(e->ctx, "RuntimeWarning", message, place);
    lua_pop(L, 1);
    return;
  }
  al_pusherror(L, e->ctx, AL_C_RuntimeError, message, place);
  if (e->failed) {
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, "cause");
  }
  e->failed = true;
  lua_replace(L, 3);
  lua_settop(L, 3);
}

/* ending, task, results... or the error */
static int end_body(lua_State *L) {
  ending *e = lua_touserdata(L, 1);
  check_scopes(L, e);
  if (e->failed) {
    if (lua_gettop(L) == 2) lua_pushliteral(L, "too many results for the stack");
    end_failed(L, e->ctx);
  } else if (e->task->must_cancel) {
    al_task_get_message(L, 2);
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
  lua_rawseti(L, -2, ctx->n_coroutines + 1); /* may raise */
  ctx->n_coroutines++;
  return 0;
}

/* A coroutine that returned may serve the next task. */
static void keep_coroutine(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  if (lua_status(t->co) != LUA_OK) return;
  if (!t->exposed && ctx->n_coroutines >= MAX_CACHED_COROUTINES) return;
  lua_settop(t->co, 0); /* dead, to who has it */
  if (t->exposed) return;
  lua_pushcfunction(L, cache_coroutine);
  lua_pushlightuserdata(L, ctx);
  lua_getiuservalue(L, self, AL_TASK_UV_THREAD);
  if (al_pcall(L, 2, 0) != LUA_OK) lua_pop(L, 1);
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
  static const int held[] = {AL_TASK_UV_THREAD, AL_TASK_UV_AWAITED};
  for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
    lua_pushnil(L);
    lua_setiuservalue(L, self, held[i]);
  }
  al_task_drop_message(L, self);
}

/* Its outcome could not be kept, for want of memory: it failed with the error on top (popped). */
static void end_poorly(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  lua_pushvalue(L, -1);
  al_report(ctx, L, t->f.loop, "ending a task failed", NULL);
  if (t->f.state != AL_FUTURE_PENDING) {
    lua_pop(L, 1);
    return;
  }
  leave_lists(ctx, t); /* its slot is now one of its callbacks' */
  al_future_fail_poorly(L, ctx, &t->f, self);
}

/* Ends a task that returned at most one value and has no callbacks, which takes no memory and raises nothing; false,
 * and nothing is done, if it ended in another way. */
static bool end_simply(lua_State *L, l_task *t, int self, int n) {
  if (n > 1 || t->must_cancel || t->scopes || t->is_main) return false;
  bool has_callbacks = lua_getiuservalue(L, self, AL_FUTURE_UV_VALUE) == LUA_TTABLE;
  lua_pop(L, 1);
  if (has_callbacks) return false;
  if (n == 1)
    lua_xmove(t->co, L, 1);
  else
    lua_pushnil(L);
  lua_setiuservalue(L, self, AL_FUTURE_UV_VALUE);
  t->f.state = AL_FUTURE_FINISHED;
  t->f.nvalues = n;
  if (!al_list_is_empty(&t->f.waiters)) al_call_soon_list(t->f.loop->loop, &t->f.waiters);
  return true;
}

/* The same in every other way. */
static void end_with_outcome(al_ctx *ctx, lua_State *L, l_task *t, int self, int n, bool failed) {
  if (!lua_checkstack(L, n + LUA_MINSTACK)) {
    lua_settop(t->co, 0);
    n = 0, failed = true;
  }
  bool interrupt = failed && n > 0 && al_isinterrupt(t->co, ctx, -1);
  ending e = {ctx, t, failed};
  int base = lua_gettop(L) + 1;
  lua_pushcfunction(L, end_body);
  lua_pushlightuserdata(L, &e);
  lua_pushvalue(L, self);
  lua_xmove(t->co, L, n);
  if (interrupt) { /* it also leaves the loop */
    lua_pushvalue(L, -1);
    lua_insert(L, base);
  }
  if (al_pcall(L, n + 2, 0) != LUA_OK) end_poorly(ctx, L, t, self);
  al_scope_forget_all(ctx, t);
  if (interrupt) {
    al_report(ctx, L, t->f.loop, "interrupt", NULL);
    al_future_mark_read(ctx, &t->f); /* who runs the loop gets it */
  }
}

/* The task at self of L has ended with n values (or the error, if failed) on top of its coroutine. */
static void end_task(al_ctx *ctx, lua_State *L, l_task *t, int self, int n, bool failed) {
  if (failed || !end_simply(L, t, self, n)) end_with_outcome(ctx, L, t, self, n, failed);
  if (t->traced) al_forget_traceback(L, ctx);
  keep_coroutine(ctx, L, t, self);
  t->co = NULL;
  leave_lists(ctx, t);
  drop_references(L, self);
}

/* ---- stepping ---------------------------------------------------------------------------------------------------- */

bool al_task_take_cancellation(lua_State *L, al_ctx *ctx) {
  l_task *t = ctx->current;
  if (!t->throwing) return false;
  t->throwing = false;
  al_pusherror(L, ctx, AL_C_CancelledError, NULL);
  al_task_pushself(L, ctx, t);
  al_task_get_message(L, lua_gettop(L));
  lua_setfield(L, -3, "message");
  lua_pop(L, 1);
  return true;
}

/* In the task again, before the waiting function goes on: raises what is to be raised there. */
l_task *al_task_resumed(lua_State *L, al_ctx *ctx) {
  l_task *t = ctx->current;
  bool misyielded = t->misyielded;
  t->misyielded = false;
  if (al_task_take_cancellation(L, ctx)) {
    t->told = true;
    lua_error(L);
  }
  if (misyielded) {
    al_raise(
        L, ctx, AL_C_RuntimeError,
        "a task may only yield to its loop without a value; to hand out values, yield inside a coroutine of your own");
  }
  return t;
}

/* What cancel() left to be told: ends the wait (whose result, if it came meanwhile, is dropped). */
static void deliver_cancel(al_ctx *ctx, l_task *t) {
  if (!t->must_cancel) return;
  t->must_cancel = false;
  const l_future *awaited = al_task_awaited(t);
  if (awaited && awaited->state == AL_FUTURE_CANCELLED) return; /* it says so itself */
  t->throwing = true;
  al_task_abandon(ctx, t);
}

static bool yielded_by_aloop(lua_State *co, int n) {
  return n == 1 && lua_touserdata(co, -1) == (const void *)&al_wait_tag;
}

static int request_cancel(lua_State *L) {
  l_task *t = lua_touserdata(L, 1);
  al_ctx *ctx = t->f.loop->ctx;
  al_task_pushself(L, ctx, t);
  al_task_get_message(L, lua_gettop(L));
  t->cancelling--; /* it was counted when it was asked for */
  t->must_cancel = false;
  al_task_cancel(L, ctx, 2);
  return 0;
}

static int settle_body(lua_State *L) {
  al_main_settle(L, lua_touserdata(L, 1));
  return 0;
}

/* May a script have got hold of its coroutine? Then a tag on its stack, as long as it waits, has it refused to be
 * resumed by others (lcoro.c). */
static bool is_guarded(const al_ctx *ctx, const l_task *t) { return t->exposed || !ctx->came_first; }

/* It waits. A cancellation that was asked for during the step reaches what it waits for now. */
static void suspended(al_ctx *ctx, lua_State *L, l_task *t, int n) {
  bool waits = yielded_by_aloop(t->co, n);
  lua_pop(t->co, n);
  if (is_guarded(ctx, t)) lua_pushlightuserdata(t->co, (void *)&al_wait_tag);
  if (!waits) { /* a bare yield gives up one turn */
    t->misyielded = n > 0;
    if (t->is_main && !t->settled && al_pcall_c(L, settle_body, ctx, 0) != LUA_OK) {
      al_report(ctx, L, t->f.loop, "the main chunk can't yield: there is no loop", NULL);
      return;
    }
    al_call_soon(t->f.loop->loop, &t->step);
  }
  bool woken = !t->awaits && (!al_task_wait(t) || al_handle_is_queued(&t->step));
  if (!t->must_cancel || woken) return;
  if (al_pcall_c(L, request_cancel, t, 0) != LUA_OK) al_report(ctx, L, t->f.loop, "cancelling a task failed", NULL);
}

/* Leaves on its coroutine what it is resumed with: at first its function and the arguments; their number. */
static int values_to_resume_with(const al_ctx *ctx, l_task *t) {
  if (t->started) {
    if (is_guarded(ctx, t)) lua_pop(t->co, 1); /* the tag */
    return 0;
  }
  t->started = true;
  return lua_gettop(t->co) - 1;
}

/* Resumes the task's coroutine; self is its userdata on L. */
static void resume(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  int nargs = values_to_resume_with(ctx, t), n = 0;
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
    t->context_kind = (unsigned)ctx->context_kind; /* it set a variable */
    lua_pushnil(L);
    al_context_swap(L, ctx, AL_CONTEXT_EMPTY);
    lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
    return;
  }
  lua_getiuservalue(L, self, AL_TASK_UV_CONTEXT);
  int former = al_context_swap(L, ctx, t->context_kind), saved = lua_gettop(L);
  resume(ctx, L, t, self);
  t->context_kind = (unsigned)ctx->context_kind;
  lua_pushvalue(L, saved);
  al_context_swap(L, ctx, former);
  lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
  lua_settop(L, saved - 1);
}

/* One step of the task whose userdata is at self of L. */
void al_task_run_step(al_ctx *ctx, lua_State *L, l_task *t, int self) {
  deliver_cancel(ctx, t);
  if (t->throwing && !t->started && !t->begins) { /* its body never begins */
    lua_settop(t->co, 0);
    t->must_cancel = true;
    end_task(ctx, L, t, self, 0, false);
    return;
  }
  l_task *former = ctx->current;
  lua_State *former_top = ctx->co_top, *former_blocked = ctx->co_blocked;
  int former_depth = ctx->step_depth;
  ctx->current = t;
  ctx->step_depth = ctx->depth;
  ctx->co_top = t->co;
  ctx->co_blocked = NULL;
  resume_in_context(ctx, L, t, self);
  ctx->current = former;
  ctx->step_depth = former_depth;
  ctx->co_top = former_top;
  ctx->co_blocked = former_blocked;
}

/* Tasks that were made one after the other mostly go on in this order, too: what the next ones need is fetched
 * meanwhile. */
static inline void prefetch_next(const l_task *t) {
  const al_link *end = &t->f.loop->tasks, *next = t->all.next;
  if (!next || next == end) return;
  const l_task *following = (const l_task *)(const void *)((const char *)next - offsetof(l_task, all));
  __builtin_prefetch(following->co);
  __builtin_prefetch(next->next);
}

void al_task_step(al_loop *loop, al_handle *core) {
  l_task *t = of_step(core);
  prefetch_next(t);
  al_ctx *ctx = t->f.loop->ctx;
  lua_State *L = al_enter(ctx);
  if (!L) return;
  lua_rawgeti(L, 1, t->slot);
  int64_t began = al_loop_debug(loop) ? al_time_ns() : 0;
  al_task_run_step(ctx, L, t, 3);
  if (began) al_loop_check_slow(L, t->f.loop, 3, al_time_ns() - began);
  al_leave(ctx, L);
}

bool al_task_is_step(const al_handle *core) { return core->run == al_task_step; }

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

int al_suspend(lua_State *L, lua_KContext kctx, lua_KFunction k) {
  lua_pushlightuserdata(L, (void *)&al_wait_tag);
  return lua_yieldk(L, 1, kctx, k);
}

static int wait_done(lua_State *L, int status, lua_KContext kctx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = ctx->current;
  l_wait *wait = (l_wait *)kctx;
  if (t->throwing || t->misyielded) al_task_abandon(ctx, t); /* our yield looked like a script's */
  al_task_set_wait(al_task_resumed(L, ctx), NULL);
  return wait->kind->finish(L, ctx, wait);
}

int al_wait(lua_State *L, al_ctx *ctx, l_wait *wait, const l_wait_kind *kind) {
  *wait = (l_wait){kind, ctx->current};
  al_task_set_wait(ctx->current, wait);
  if (ctx->current->f.loop->custom_future) return al_wait_on_future(L, ctx, wait);
  return al_suspend(L, (lua_KContext)wait, wait_done);
}

void al_wake(l_wait *wait) {
  if (wait->task->shown)
    al_wake_future(wait);
  else
    al_call_soon(wait->task->f.loop->loop, &wait->task->step);
}

static int await_done(lua_State *L, int status, lua_KContext idx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = ctx->current;
  l_future *f = al_task_awaited(t);
  if (f->state == AL_FUTURE_CANCELLED && t->cancelling > 0) t->told = true;
  if (t->throwing) al_future_mark_read(ctx, f); /* the cancellation takes the place of its error */
  al_task_set_wait(t, NULL);
  al_task_resumed(L, ctx);
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
  al_task_set_awaited(t, f);
  al_list_append(&f->waiters, &t->step);
  return al_suspend(L, idx, await_done);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

void al_task_prepare(lua_State *L, al_ctx *ctx) {
  al_ctx_anchors(L, ctx);
  lua_newtable(L);
  lua_rawseti(L, -2, AL_SLOT_COROUTINES);
  al_pushweak(L, "k");
  lua_rawseti(L, -2, AL_SLOT_TEXTS);
  lua_pushlightuserdata(L, ctx);
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_pushcclosure(L, task_main, 2);
  lua_rawseti(L, -2, AL_SLOT_TASK_MAIN);
  lua_pop(L, 1);
}

/* Pushes a coroutine with task_main at its bottom: a finished one, or a new one. */
lua_State *al_task_push_coroutine(lua_State *L, al_ctx *ctx) {
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
  al_pushanchored(L, ctx, AL_SLOT_TASK_MAIN);
  lua_xmove(L, co, 1);
  return co;
}

/* Remembers the script's function that is making the task at self, and its line: for the traceback of an error in the
 * task. */
static void remember_creator(lua_State *L, l_task *t, int self) {
  lua_Debug ar;
  for (int level = 1; level < MAX_CREATOR_LEVEL && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Slf", &ar);
    if (ar.currentline <= 0 || al_is_own_source(ar.source)) {
      lua_pop(L, 1);
      continue;
    }
    t->f.created_line = ar.currentline;
    lua_setiuservalue(L, self, AL_FUTURE_UV_VALUE);
    return;
  }
}

void al_task_push_creation(lua_State *L, l_task *t) {
  lua_Debug ar;
  int top = lua_gettop(L);
  al_task_pushself(L, t->f.loop->ctx, t);
  if (lua_getiuservalue(L, -1, AL_FUTURE_UV_VALUE) == LUA_TTABLE) lua_rawgeti(L, -1, AL_CALLBACKS_CREATOR);
  if (t->f.state != AL_FUTURE_PENDING || !lua_isfunction(L, -1)) {
    lua_pushliteral(L, "");
  } else {
    lua_getinfo(L, ">S", &ar);
    al_task_pushname(L, t);
    lua_pushfstring(L, "\n%s was created at %s:%d", lua_tostring(L, -1), ar.short_src, t->f.created_line);
  }
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

/* What runs a coroutine given instead of a function: see lcoro.c. */
static void push_body(lua_State *L, al_ctx *ctx, int idx) {
  if (lua_isthread(L, idx)) {
    al_coro_pushdriver(L, ctx, idx);
  } else {
    lua_pushvalue(L, idx);
  }
}

bool al_is_coroutine(lua_State *L, int idx) {
  lua_State *co = lua_tothread(L, idx);
  lua_Debug ar;
  if (!co) return al_iscallable(L, idx) && !lua_isuserdata(L, idx);
  if (lua_status(co) == LUA_YIELD) return !al_coro_is_waiting(co);
  if (al_is_upcall_thread(co)) return false;
  return lua_status(co) == LUA_OK && co != L && !lua_getstack(co, 0, &ar) && lua_gettop(co) > 0;
}

/* Pushes a new task of the loop for the coroutine at idx, not yet queued; its context is the value on top (popped) with
 * this kind. */
l_task *al_task_new(lua_State *L, al_ctx *ctx, l_loop *loop, int idx, int context_kind, int name) {
  l_task *t = al_new(L, ctx, AL_C_Task, sizeof *t, AL_TASK_UV_COUNT);
  int self = lua_gettop(L);
  lua_insert(L, self - 1); /* task, context */
  self--;
  lua_setiuservalue(L, self, AL_TASK_UV_CONTEXT);
  t->f.is_task = true;
  t->context_kind = (unsigned)context_kind;
  al_handle_init(&t->step, al_task_step);
  al_future_init(L, ctx, &t->f, loop, self);
  if (name && !lua_isnil(L, name)) al_task_set_name(L, self, name);
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, self, AL_TASK_UV_CORO);
  lua_State *co = al_task_push_coroutine(L, ctx);
  push_body(L, ctx, idx);
  lua_xmove(L, co, 1);
  lua_setiuservalue(L, self, AL_TASK_UV_THREAD);
  remember_creator(L, t, self);
  t->slot = al_anchor(L, ctx, self);
  t->co = co;
  t->number = ++ctx->task_names;
  t->all.next = &loop->tasks;
  t->all.prev = loop->tasks.prev;
  t->all.prev->next = &t->all;
  loop->tasks.prev = &t->all;
  return t;
}

/* ---- the end of a loop ------------------------------------------------------------------------------------------- */

void al_task_forget_all(lua_State *L, al_ctx *ctx, l_loop *loop) {
  while (loop->tasks.next != &loop->tasks) {
    l_task *t = al_task_of_link(loop->tasks.next);
    al_task_pushself(L, ctx, t);
    al_handle_cancel(&t->step);
    if (t->shown) al_task_set_wait(t, al_take_shown_wait(L, t));
    al_task_abandon(ctx, t);
    al_scope_forget_all(ctx, t);
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

/* A task that gives up one turn by coroutine.yield(): lcoro.c. */
int al_task_yielded(lua_State *L, al_ctx *ctx) {
  if (ctx->current && ctx->co_top == L) al_task_resumed(L, ctx);
  return lua_gettop(L);
}
