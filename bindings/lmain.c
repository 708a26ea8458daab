/* lmain.c - the main chunk as a task: it is stepped at once, and its loop, settled by the first call that needs one,
 * runs from its first wait until it is done. Called by embed_api.c, which ends what is left of the loop then.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "ltask.h"

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
  if (t->settled) {                       /* a policy of a script's was asked, and settled it by what it did */
    lua_pop(L, 1);
    return;
  }
  al_ctx_anchors(L, ctx);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, AL_SLOT_MAIN_LOOP);
  lua_pop(L, 1);
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
  al_handle_init(&t->step, al_task_step);
  lua_pushvalue(L, f);
  lua_setiuservalue(L, self, AL_TASK_UV_CORO);
  lua_State *co = al_task_push_coroutine(L, ctx);
  lua_setiuservalue(L, self, AL_TASK_UV_THREAD);
  if (!lua_checkstack(co, nargs + LUA_MINSTACK)) luaL_error(L, "too many arguments");
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
  al_task_run_step(ctx, U, t, 3);
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

static int close_chunk(lua_State *L) { /* guard, error */
  const l_task *t = *(l_task **)lua_touserdata(L, 1);
  if (lua_isnil(L, 2) && t->f.state == AL_FUTURE_PENDING) lua_resetthread(t->co);
  return 0;
}

/* os.exit(code, true) closes the state, which runs the <close> variables of Lua's main thread and no others. Those of
 * the main chunk, though it has a coroutine of its own, are meant by that: as long as this value on the main thread's
 * stack isn't closed by the end of main_body, which comes with an error if the task is still pending. */
static void guard_chunk(lua_State *L, al_ctx *ctx, l_task *t) {
  l_task **guard = lua_newuserdatauv(L, sizeof *guard, 0);
  *guard = t;
  lua_createtable(L, 0, 1);
  al_ctx_pushfunction(L, ctx, close_chunk);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, -2);
  lua_toclose(L, -1);
}

static int main_body(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = new_main(L, ctx, lua_gettop(L) - 1); /* [1] task */
  ctx->main_task = t;
  guard_chunk(L, ctx, t);
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
