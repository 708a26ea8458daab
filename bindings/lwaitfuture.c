/* lwaitfuture.c - waiting in a loop whose class makes its own futures: what a task waits for, be it data, a connection
 * or a server's end, is shown by one of these, which loop:create_future() made. Called by ltask.c in such loops only.
 *
 * The task awaits the future; its wait stands in the registry meanwhile, at the address of the task.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "ltask.h"

l_wait *al_take_shown_wait(lua_State *L, l_task *t) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, t);
  l_wait *wait = lua_touserdata(L, -1);
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, t);
  t->shown = false;
  return wait;
}

/* ctx, loop, wait → a pending future of the loop */
static int make_body(lua_State *L) {
  al_ctx *ctx = lua_touserdata(L, 1);
  const l_wait *wait = lua_touserdata(L, 3);
  lua_getfield(L, 2, "create_future");
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1);
  const l_future *f = al_test_future(L, ctx, 4);
  if (!f || f->state != AL_FUTURE_PENDING) al_raise(L, ctx, AL_C_RuntimeError, "create_future gave no pending Future");
  lua_pushvalue(L, 3);
  lua_rawsetp(L, LUA_REGISTRYINDEX, wait->task);
  return 1;
}

static void push_future(lua_State *L, al_ctx *ctx, l_task *t) {
  al_task_pushself(L, ctx, t);
  lua_getiuservalue(L, -1, AL_TASK_UV_AWAITED);
  lua_replace(L, -2);
}

/* The task goes on: the operation has ended, or the future was cancelled or given something else by a script. */
static int future_done(lua_State *L, int status, lua_KContext kctx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = ctx->current;
  l_wait *wait = (l_wait *)kctx;
  const l_future *f = al_task_awaited(t);
  bool ended = t->woken && !t->throwing && f->state != AL_FUTURE_CANCELLED && !f->failed;
  if (f->state == AL_FUTURE_CANCELLED && t->cancelling > 0) t->told = true;
  push_future(L, ctx, t);
  al_take_shown_wait(L, t);
  al_task_set_wait(t, NULL);
  if (!ended) wait->kind->abandon(ctx, wait);
  al_task_resumed(L, ctx);
  if (!ended) return al_future_result(L, ctx, -1);
  lua_pop(L, 1);
  return wait->kind->finish(L, ctx, wait);
}

/* An operation that ended while the future was made, or the like: no future is needed. */
static int turn_done(lua_State *L, int status, lua_KContext kctx) {
  (void)status;
  al_ctx *ctx = al_ctx_of(L);
  l_wait *wait = (l_wait *)kctx;
  al_task_set_wait(al_task_resumed(L, ctx), NULL);
  return wait->kind->finish(L, ctx, wait);
}

int al_wait_on_future(lua_State *L, al_ctx *ctx, l_wait *wait) {
  l_task *t = ctx->current;
  lua_pushcfunction(L, make_body);
  lua_pushlightuserdata(L, ctx);
  al_pushloop(L, t->f.loop);
  lua_pushlightuserdata(L, wait);
  if (lua_pcall(L, 3, 1, 0) != LUA_OK) {
    al_handle_cancel(&t->step);
    al_task_abandon(ctx, t);
    return lua_error(L);
  }
  if (al_handle_is_queued(&t->step)) {
    lua_pop(L, 1);
    al_take_shown_wait(L, t);
    return al_suspend(L, (lua_KContext)wait, turn_done);
  }
  l_future *f = lua_touserdata(L, -1);
  al_task_pushself(L, ctx, t);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, AL_TASK_UV_AWAITED);
  lua_pop(L, 1);
  al_task_set_awaited(t, f);
  t->shown = true;
  t->woken = false;
  al_list_append(&f->waiters, &t->step);
  return al_suspend(L, (lua_KContext)wait, future_done);
}

/* ctx, future */
static int finish_body(lua_State *L) {
  al_future_finish(L, lua_touserdata(L, 1), 2, 0);
  return 0;
}

void al_wake_future(l_wait *wait) {
  l_task *t = wait->task;
  const l_future *f = al_task_awaited(t);
  t->woken = true;
  if (f->state != AL_FUTURE_PENDING) return; /* it goes on already */
  al_ctx *ctx = t->f.loop->ctx;
  lua_State *L = al_enter(ctx);
  if (L) {
    lua_pushcfunction(L, finish_body);
    lua_pushlightuserdata(L, ctx);
    push_future(L, ctx, t);
    al_pcall(L, 2, 0);
    al_leave(ctx, L);
  }
  if (f->state != AL_FUTURE_PENDING) return;
  al_handle_cancel(&t->step); /* for want of memory: it goes on without */
  al_call_soon(t->f.loop->loop, &t->step);
}
