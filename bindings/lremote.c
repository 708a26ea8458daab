/* lremote.c - how other threads reach a loop: call_soon_threadsafe and run_coroutine_threadsafe of a RemoteLoop, the
 * same for C programs (aloop_lua.h), and run_coroutine_threadsafe in the loop's own thread.
 *
 * What they ask for goes to the loop's inbox as a parcel, and is opened in the loop's thread. A coroutine is followed
 * by an answer: a concurrent future with a handle among those that wait for the task.
 *
 * SPDX-License-Identifier: MIT */
#include "lremote.h"

#include "aloop_lua.h"
#include "lcfuture.h"
#include "lhandle.h"
#include "lloop.h"
#include "ltask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct al_lua_remote {
  int refs;      /* atomic */
  al_loop *loop; /* one reference */
  l_loop *owner; /* good in its thread, as long as it is open */
  al_ctx *ctx;   /* the same */
};

static al_lua_remote *remote_new(l_loop *owner) {
  al_lua_remote *remote = malloc(sizeof *remote);
  if (!remote) return NULL;
  *remote = (al_lua_remote){1, owner->loop, owner, owner->ctx};
  al_loop_hold(owner->loop);
  return remote;
}

static void hold(al_lua_remote *remote) { __atomic_fetch_add(&remote->refs, 1, __ATOMIC_RELAXED); }

void al_lua_remote_release(al_lua_remote *remote) {
  if (!remote || __atomic_sub_fetch(&remote->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_loop_release(remote->loop);
  free(remote);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

typedef struct call {
  al_remote remote;
  al_lua_remote *to; /* one reference */
  al_parcel *parcel; /* the function and its arguments; or NULL: */
  lua_CFunction f;
  void *arg;
} call;

static call *of_call(al_remote *remote) { return (call *)(void *)remote; }

static void call_free(al_remote *remote) {
  call *c = of_call(remote);
  al_parcel_free(c->parcel);
  al_lua_remote_release(c->to);
  free(c);
}

/* call → it is scheduled, as by call_soon */
static int arrive_body(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  al_ctx *ctx = c->to->ctx;
  lua_settop(L, 0);
  if (c->parcel) {
    al_unmarshal(L, ctx, c->parcel);
  } else {
    lua_pushcfunction(L, c->f);
    lua_pushlightuserdata(L, c->arg);
  }
  l_handle *h = al_handle_make(L, ctx, c->to->owner, 1);
  al_handle_soon(L, ctx, 1, h);
  return 0;
}

static void call_run(al_loop *loop, al_remote *remote) {
  (void)loop;
  call *c = of_call(remote);
  al_ctx *ctx = c->to->ctx;
  lua_State *L = al_enter(ctx);
  if (L) {
    if (al_pcall_c(L, arrive_body, c, 0) != LUA_OK)
      al_report(ctx, L, c->to->owner, "a call from another thread could not be taken", NULL);
    al_leave(ctx, L);
  }
  call_free(remote);
}

/* The parcel is the call's, also if this fails. */
static int post_call(al_lua_remote *to, const call *what) {
  call *c = malloc(sizeof *c);
  if (!c) {
    al_parcel_free(what->parcel);
    return -ENOMEM;
  }
  *c = *what;
  c->remote = (al_remote){.run = call_run, .drop = call_free};
  c->to = to;
  hold(to);
  int err = al_call_soon_threadsafe(to->loop, &c->remote);
  if (err) call_free(&c->remote);
  return err;
}

int al_lua_call_soon_threadsafe(al_lua_remote *remote, lua_CFunction f, void *arg) {
  return post_call(remote, &(call){.f = f, .arg = arg});
}

/* ---- answers: what became of a coroutine ------------------------------------------------------------------------- */

struct al_answer {
  al_cfuture f;      /* first; the loop's side has one reference until the task is done */
  al_remote remote;  /* brings the coroutine */
  al_remote cancel;  /* brings the cancellation; has a reference while it is on its way */
  al_lua_remote *to; /* one reference */
  al_parcel *parcel; /* the coroutine on its way */
  al_handle begin;   /* the loop's side only from here on: queued in the loop's own thread instead of being sent */
  al_handle done;    /* among those that wait for the task */
  int slot;          /* of the coroutine, then of its task; 0: this side has let go */
  al_answer *next, **at;
};

static al_answer *of_remote(al_remote *r) { return (al_answer *)(void *)((char *)r - offsetof(al_answer, remote)); }
static al_answer *of_cancel(al_remote *r) { return (al_answer *)(void *)((char *)r - offsetof(al_answer, cancel)); }
static al_answer *of_begin(al_handle *h) { return (al_answer *)(void *)((char *)h - offsetof(al_answer, begin)); }
static al_answer *of_done(al_handle *h) { return (al_answer *)(void *)((char *)h - offsetof(al_answer, done)); }

static void answer_destroy(al_cfuture *f) {
  al_answer *a = (al_answer *)(void *)f;
  al_parcel_free(a->parcel);
  al_lua_remote_release(a->to);
  free(a);
}

static void cancel_drop(al_remote *remote) { al_cfuture_release(&of_cancel(remote)->f); }

static int cancel_body(lua_State *L) {
  al_answer *a = lua_touserdata(L, 1);
  al_pushanchored(L, a->to->ctx, a->slot);
  if (al_test_future(L, a->to->ctx, -1)) { /* else the coroutine has not begun, and won't */
    lua_pushnil(L);
    al_future_cancel(L, a->to->ctx, lua_gettop(L) - 1);
  }
  return 0;
}

static void cancel_run(al_loop *loop, al_remote *remote) {
  (void)loop;
  al_answer *a = of_cancel(remote);
  al_ctx *ctx = a->to->ctx;
  lua_State *L = a->slot ? al_enter(ctx) : NULL;
  if (L) {
    if (al_pcall_c(L, cancel_body, a, 0) != LUA_OK)
      al_report(ctx, L, a->to->owner, "cancelling a task for another thread failed", NULL);
    al_leave(ctx, L);
  }
  cancel_drop(remote);
}

/* Who waits doesn't any more: the loop hears of it. */
static void answer_cancelled(al_cfuture *f) {
  al_answer *a = (al_answer *)(void *)f;
  al_cfuture_hold(f);
  if (al_call_soon_threadsafe(a->to->loop, &a->cancel) != 0) cancel_drop(&a->cancel);
}

static void begin_run(al_loop *loop, al_handle *handle);
static void done_run(al_loop *loop, al_handle *handle);
static void answer_run(al_loop *loop, al_remote *remote);
static void answer_drop(al_remote *remote);

/* With a reference for the loop's side and one for the caller. NULL: no memory. */
static al_answer *answer_new(al_lua_remote *to) {
  al_answer *a = calloc(1, sizeof *a);
  if (!a || al_cfuture_init(&a->f) < 0) {
    free(a);
    return NULL;
  }
  al_cfuture_hold(&a->f);
  a->f.cancelled = answer_cancelled;
  a->f.destroy = answer_destroy;
  a->f.home = to->loop;
  a->remote = (al_remote){.run = answer_run, .drop = answer_drop};
  a->cancel = (al_remote){.run = cancel_run, .drop = cancel_drop};
  al_handle_init(&a->begin, begin_run);
  al_handle_init(&a->done, done_run);
  a->to = to;
  hold(to);
  return a;
}

/* The loop's side lets go. */
static void let_go(al_answer *a) {
  if (a->slot) {
    al_unanchor(a->to->ctx, a->slot);
    a->slot = 0;
    *a->at = a->next;
    if (a->next) a->next->at = a->at;
  }
  al_handle_cancel(&a->begin);
  al_handle_cancel(&a->done);
  al_cfuture_release(&a->f);
}

/* The loop knows of the answer, whose coroutine is anchored in the slot. */
static void enlist(al_answer *a, int slot) {
  l_loop *owner = a->to->owner;
  a->slot = slot;
  a->next = owner->answers;
  a->at = &owner->answers;
  if (a->next) a->next->at = &a->next;
  owner->answers = a;
}

void al_answers_forget(al_ctx *ctx, l_loop *loop) {
  (void)ctx;
  while (loop->answers) {
    al_answer *a = loop->answers;
    al_cfuture_cancel(&a->f);
    let_go(a);
  }
}

/* ---- the task ---------------------------------------------------------------------------------------------------- */

/* answer, Future that is done → the outcome is the answer's */
static int answer_body(lua_State *L) {
  al_answer *a = lua_touserdata(L, 1);
  al_ctx *ctx = a->to->ctx;
  l_future *f = lua_touserdata(L, 2);
  if (f->state == AL_FUTURE_CANCELLED) {
    al_cfuture_cancel(&a->f);
  } else if (al_cfuture_is_done(&a->f)) {
    al_future_mark_read(ctx, f); /* nobody waits any more */
  } else {
    int n = al_future_result(L, ctx, 2); /* its error is raised, and taken by the caller */
    al_parcel *values =
        n == 0 ? NULL : al_marshal(L, ctx, lua_gettop(L) - n + 1, n, AL_MARSHAL_LOCAL | AL_MARSHAL_RESULTS);
    al_cfuture_finish(&a->f, values);
  }
  return 0;
}

/* answer, error → */
static int error_body(lua_State *L) {
  al_answer *a = lua_touserdata(L, 1);
  al_cfuture_fail(&a->f, al_marshal_error(L, a->to->ctx, 2, AL_MARSHAL_LOCAL));
  return 0;
}

/* Calls body(answer, what is in its slot). */
static int call_body(lua_State *L, al_answer *a, lua_CFunction body) {
  lua_pushcfunction(L, body);
  lua_pushlightuserdata(L, a);
  al_pushanchored(L, a->to->ctx, a->slot);
  return al_pcall(L, 2, 0);
}

/* The error on top (popped) is the answer. */
static void fail(lua_State *L, al_answer *a) {
  lua_pushcfunction(L, error_body);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, a);
  lua_insert(L, -2);
  if (al_pcall(L, 2, 0) != LUA_OK) {
    lua_pop(L, 1);
    al_cfuture_fail(&a->f, NULL); /* no memory */
  }
}

static void done_run(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_answer *a = of_done(handle);
  al_ctx *ctx = a->to->ctx;
  lua_State *L = al_enter(ctx);
  if (L) {
    if (call_body(L, a, answer_body) != LUA_OK) fail(L, a);
    al_leave(ctx, L);
  }
  al_cfuture_cancel(&a->f); /* if it could not be answered */
  let_go(a);
}

/* answer, coroutine → its task, for which the answer waits */
static int task_body(lua_State *L) {
  al_answer *a = lua_touserdata(L, 1);
  al_ctx *ctx = a->to->ctx;
  if (!al_is_coroutine(L, 2)) al_raise(L, ctx, AL_C_RuntimeError, "the coroutine was started meanwhile");
  l_future *f = al_ensure_future(L, ctx, a->to->owner, 2);
  al_ctx_anchors(L, ctx);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, a->slot);
  if (f->state == AL_FUTURE_PENDING) {
    al_list_append(&f->waiters, &a->done);
  } else {
    al_call_soon(a->to->loop, &a->done);
  }
  return 0;
}

/* Makes the task of the coroutine in the slot. */
static void start_task(lua_State *L, al_answer *a) {
  if (call_body(L, a, task_body) == LUA_OK) return;
  fail(L, a);
  let_go(a);
}

static void begin_run(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_answer *a = of_begin(handle);
  al_ctx *ctx = a->to->ctx;
  lua_State *L = al_cfuture_is_done(&a->f) ? NULL : al_enter(ctx);
  if (L) {
    start_task(L, a);
    al_leave(ctx, L);
  } else {
    al_cfuture_cancel(&a->f);
    let_go(a);
  }
}

/* answer → what was sent is in the slot */
static int open_body(lua_State *L) {
  al_answer *a = lua_touserdata(L, 1);
  al_unmarshal(L, a->to->ctx, a->parcel);
  lua_settop(L, 2);
  enlist(a, al_anchor(L, a->to->ctx, 2));
  return 0;
}

static void answer_run(al_loop *loop, al_remote *remote) {
  (void)loop;
  al_answer *a = of_remote(remote);
  al_ctx *ctx = a->to->ctx;
  lua_State *L = al_cfuture_is_done(&a->f) ? NULL : al_enter(ctx);
  if (!L) {
    answer_drop(remote);
    return;
  }
  if (al_pcall_c(L, open_body, a, 0) == LUA_OK) {
    start_task(L, a);
  } else {
    fail(L, a);
    let_go(a);
  }
  al_leave(ctx, L);
}

/* The loop was closed before it came to it. */
static void answer_drop(al_remote *remote) {
  al_answer *a = of_remote(remote);
  al_cfuture_cancel(&a->f);
  al_cfuture_release(&a->f);
}

/* ---- RemoteLoop -------------------------------------------------------------------------------------------------- */

typedef struct remote_loop {
  al_lua_remote *remote; /* one reference; NULL: half-made */
} remote_loop;

static al_lua_remote *test_remote(lua_State *L, al_ctx *ctx, int idx) {
  const remote_loop *self = al_test(L, ctx, idx, AL_C_RemoteLoop);
  return self ? self->remote : NULL;
}

static al_lua_remote *check_remote(lua_State *L, al_ctx *ctx) {
  al_lua_remote *remote = test_remote(L, ctx, 1);
  if (!remote) al_typeerror(L, 1, "RemoteLoop");
  return remote;
}

static int remote_gc(lua_State *L) {
  remote_loop *self = al_test(L, al_ctx_of(L), 1, AL_C_RemoteLoop);
  if (!self) return 0;
  al_lua_remote_release(self->remote);
  self->remote = NULL;
  return 0;
}

static int remote_tostring(lua_State *L) {
  lua_pushfstring(L, "<RemoteLoop of %p>", (const void *)check_remote(L, al_ctx_of(L))->loop);
  return 1;
}

static int refuse(lua_State *L, al_ctx *ctx, int err) {
  if (err == AL_ECLOSED) return al_raise(L, ctx, AL_C_RuntimeError, "Event loop is closed");
  return luaL_error(L, "not enough memory");
}

/* (remote, f, ...) */
static int remote_call_soon(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_lua_remote *remote = check_remote(L, ctx);
  if (lua_isthread(L, 2)) return al_argerror(L, 2, "coroutines cannot be used with call_soon_threadsafe()");
  al_check_callable(L, 2);
  al_parcel *parcel = al_marshal(L, ctx, 2, lua_gettop(L) - 1, AL_MARSHAL_LOCAL | AL_MARSHAL_CALL);
  int err = post_call(remote, &(call){.parcel = parcel});
  return err ? refuse(L, ctx, err) : 0;
}

static int check_coroutine(lua_State *L, int arg) {
  if (al_is_coroutine(L, arg)) return 0;
  return al_argerror(
      L, arg,
      lua_pushfstring(L, "coroutine expected, got %s; pass the function, don't call it", luaL_typename(L, arg)));
}

/* Pushes the ConcurrentFuture of the coroutine at coro, which is sent. */
static int run_elsewhere(lua_State *L, al_ctx *ctx, al_lua_remote *remote, int coro) {
  al_cfuture **handle = al_new_cfuture(L, ctx);
  al_parcel *parcel = al_marshal(L, ctx, coro, 1, AL_MARSHAL_LOCAL | AL_MARSHAL_CALL);
  al_answer *a = answer_new(remote);
  if (!a) {
    al_parcel_free(parcel);
    return luaL_error(L, "not enough memory");
  }
  a->parcel = parcel;
  *handle = &a->f;
  int err = al_call_soon_threadsafe(remote->loop, &a->remote);
  if (!err) return 1;
  al_cfuture_release(&a->f);
  return refuse(L, ctx, err);
}

/* The same in the loop's own thread: the coroutine stays what it is. */
static int run_here(lua_State *L, al_ctx *ctx, l_loop *loop, int coro) {
  al_check_alive(L, loop);
  al_cfuture **handle = al_new_cfuture(L, ctx);
  int slot = al_anchor(L, ctx, coro);
  al_lua_remote *remote = remote_new(loop);
  al_answer *a = remote ? answer_new(remote) : NULL;
  al_lua_remote_release(remote);
  if (!a) {
    al_unanchor(ctx, slot);
    return luaL_error(L, "not enough memory");
  }
  *handle = &a->f;
  enlist(a, slot);
  al_call_soon(loop->loop, &a->begin);
  return 1;
}

/* (remote, coro) → ConcurrentFuture */
static int remote_run_coroutine(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_lua_remote *remote = check_remote(L, ctx);
  check_coroutine(L, 2);
  lua_settop(L, 2);
  return run_elsewhere(L, ctx, remote, 2);
}

/* run_coroutine_threadsafe(coro, loop or remote) → ConcurrentFuture */
static int run_coroutine_threadsafe(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_coroutine(L, 1);
  lua_settop(L, 2);
  l_loop *loop = al_test_loop(L, ctx, 2);
  if (loop) return run_here(L, ctx, loop, 1);
  al_lua_remote *remote = test_remote(L, ctx, 2);
  if (!remote) return al_typeerror(L, 2, "AbstractEventLoop");
  return run_elsewhere(L, ctx, remote, 1);
}

/* ---- how loops travel -------------------------------------------------------------------------------------------- */

static void *take(lua_State *L, al_ctx *ctx, int idx) {
  al_lua_remote *remote = test_remote(L, ctx, idx);
  if (remote) {
    hold(remote);
    return remote;
  }
  l_loop *loop = al_test_loop(L, ctx, idx);
  if (!loop || !loop->loop) return NULL;
  remote = remote_new(loop);
  if (!remote) luaL_error(L, "not enough memory");
  return remote;
}

/* At home it is the loop itself again. */
static void push(lua_State *L, al_ctx *ctx, void *record) {
  al_lua_remote *remote = record;
  l_loop *loop = ctx->loops;
  while (loop && loop->loop != remote->loop) loop = loop->next;
  if (loop) {
    al_pushloop(L, loop);
    return;
  }
  remote_loop *self = al_new(L, ctx, AL_C_RemoteLoop, sizeof *self, 0);
  hold(remote);
  self->remote = remote;
}

static void drop(void *record) { al_lua_remote_release(record); }

/* ---- for C programs ---------------------------------------------------------------------------------------------- */

al_lua_remote *al_lua_remote_new(lua_State *L, int idx) {
  al_ctx *ctx = al_ctx_open(L);
  l_loop *loop = al_test_loop(L, ctx, lua_absindex(L, idx));
  return loop && loop->loop ? remote_new(loop) : NULL;
}

void al_remote_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg methods[] = {{"call_soon_threadsafe", remote_call_soon},
                                     {"run_coroutine_threadsafe", remote_run_coroutine},
                                     {"__tostring", remote_tostring},
                                     {"__gc", remote_gc},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"run_coroutine_threadsafe", run_coroutine_threadsafe}, {NULL, NULL}};
  static const al_marshal_remotes remotes = {take, push, drop};
  al_class_methods(L, ctx, AL_C_RemoteLoop, methods);
  al_ctx_setfuncs(L, ctx, functions);
  al_marshal_set_remotes(&remotes);
}
