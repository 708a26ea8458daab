/* lcreate.c - how tasks come to be: create_task, task factories, Task(...), and the awaitables that become
 * tasks. Called by scripts, and by whatever takes an awaitable; how a task is stepped is ltask.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"
#include "lfd.h"
#include "lloop.h"
#include "ltask.h"

#define FINISHED "a coroutine that runs or is finished" /* what is said of a thread that no task can run */

/* While the child's step has its own context, that of the current task stands where get_context looks for it. */
static void put_context_aside(lua_State *L, al_ctx *ctx, l_task *current) {
  al_task_pushself(L, ctx, current);
  al_pushanchored(L, ctx, AL_SLOT_CONTEXT);
  lua_setiuservalue(L, -2, AL_TASK_UV_CONTEXT);
  current->context_kind = (unsigned)ctx->context_kind;
  lua_pop(L, 1);
}

static void take_context_back(lua_State *L, al_ctx *ctx, l_task *current) {
  if (current->context_kind == AL_CONTEXT_EMPTY && ctx->context_kind == AL_CONTEXT_EMPTY) return;
  al_task_pushself(L, ctx, current);
  lua_getiuservalue(L, -1, AL_TASK_UV_CONTEXT);
  al_context_swap(L, ctx, current->context_kind);
  lua_pop(L, 2);
}

/* The first step of the task on top, now; in the next turn, where too many stand inside each other already. */
static void step_eagerly(lua_State *L, al_ctx *ctx, l_task *t) {
  lua_State *U = al_try_enter(ctx);
  l_task *current = ctx->current;
  if (!U) {
    al_call_soon(t->f.loop->loop, &t->step);
    return;
  }
  lua_pushvalue(L, -1);
  lua_xmove(L, U, 1);
  if (current) put_context_aside(L, ctx, current);
  al_task_run_step(ctx, U, t, 3);
  if (current) take_context_back(L, ctx, current);
  al_leave(ctx, U);
}

/* loop, coro, [options] → Task, by the default way, for f. eager: unless the option says otherwise. */
static int default_create_task(lua_State *L, al_ctx *ctx, l_loop *loop, const char *f, bool eager) {
  lua_settop(L, 3);
  eager = al_bool_option(L, 3, f, "eager_start", eager) && ctx->running == loop;
  if (al_option(L, 3, "name") != LUA_TNIL) luaL_tolstring(L, -1, NULL);
  int name = lua_gettop(L), kind = AL_CONTEXT_OBJECT;
  if (al_option(L, 3, "context") == LUA_TNIL) {
    lua_pop(L, 1);
    kind = al_context_capture(L, ctx);
  } else if (!al_test(L, ctx, -1, AL_C_Context)) {
    al_option_error(L, f, "context", "Context", -1);
  }
  l_task *t = al_task_new(L, ctx, loop, 2, kind, name); /* nothing raises from here on: the task would stay unqueued */
  if (eager) {
    step_eagerly(L, ctx, t);
  } else {
    al_call_soon(loop->loop, &t->step);
  }
  return 1;
}

/* The options as the factory gets them: a table always, without the name, which create_task sets itself. */
static void push_factory_options(lua_State *L) {
  lua_newtable(L);
  if (!lua_istable(L, 3)) return;
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5);
  }
  lua_pushnil(L);
  lua_setfield(L, -2, "name");
}

/* [1] loop, [2] coro, [3] options or nil, [4] factory → what the factory made, named if it can be. */
static int factory_create_task(lua_State *L) {
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  push_factory_options(L);
  lua_call(L, 3, 1); /* [4] the task */
  if (lua_istable(L, 3) && lua_getfield(L, 3, "name") != LUA_TNIL && al_push_method(L, 4, "set_name")) {
    lua_pushvalue(L, 4);
    lua_pushvalue(L, 5);
    lua_call(L, 2, 0);
  }
  lua_settop(L, 4);
  return 1;
}

/* Refuses what no task can run. */
static void check_coroutine(lua_State *L, int arg) {
  if (al_is_coroutine(L, arg)) return;
  if (!lua_isthread(L, arg)) al_typeerror(L, arg, "function or coroutine");
  al_argerror(L, arg, "function or coroutine expected, got " FINISHED);
}

static const char *const create_task_options[] = {"name", "context", "eager_start", NULL};

/* eager_task_factory(loop, coro, [options]): tasks take their first step at once. create_task knows it, so that a
 * task has its name in that step. */
static int eager_task_factory(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_open(L, ctx, 1);
  check_coroutine(L, 2);
  al_options(L, 3, "eager_task_factory", create_task_options);
  return default_create_task(L, ctx, loop, "eager_task_factory", true);
}

static int loop_create_task(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_open(L, ctx, 1);
  check_coroutine(L, 2);
  al_options(L, 3, "create_task", create_task_options);
  lua_settop(L, 3);
  if (lua_getiuservalue(L, 1, AL_LOOP_UV_FACTORY) == LUA_TNIL)
    return default_create_task(L, ctx, loop, "create_task", false);
  if (lua_tocfunction(L, -1) == eager_task_factory) return default_create_task(L, ctx, loop, "create_task", true);
  return factory_create_task(L);
}

static int loop_set_task_factory(lua_State *L) { return al_loop_set_function(L, AL_LOOP_UV_FACTORY); }
static int loop_get_task_factory(lua_State *L) { return al_loop_get_function(L, AL_LOOP_UV_FACTORY); }

/* Task(coro, {loop, name, context, eager_start}) */
static int task_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", "name", "context", "eager_start", NULL};
  check_coroutine(L, 2);
  l_loop *loop = NULL;
  if (al_options(L, 3, "Task", names) && al_option(L, 3, "loop") != LUA_TNIL)
    loop = al_check_loop(L, ctx, lua_gettop(L));
  if (!loop) {
    loop = al_push_implied_loop(L, ctx);
    lua_replace(L, 1); /* where the class was */
  }
  lua_settop(L, 3);
  return default_create_task(L, ctx, loop, "Task", false);
}

/* Calls loop:create_task(value at idx): a subclass's own, if it has one. loop may be NULL:
 * the one that is meant then. */
static void create_task_for(lua_State *L, al_ctx *ctx, l_loop *loop, int idx) {
  if (loop)
    al_pushloop(L, loop);
  else
    al_push_implied_loop(L, ctx);
  lua_getfield(L, -1, "create_task");
  lua_insert(L, -2);
  lua_pushvalue(L, idx);
  lua_call(L, 2, 1);
}

static int await_object_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  return lua_gettop(L);
}

/* The coroutine of an object's task: __await(object), which may wait. */
static int await_object(lua_State *L) {
  luaL_getmetafield(L, lua_upvalueindex(2), "__await");
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_callk(L, 1, LUA_MULTRET, 0, await_object_done);
  return lua_gettop(L);
}

static int refuse_awaitable(lua_State *L, int idx) {
  const char *got = luaL_typename(L, idx);
  if (lua_isthread(L, idx)) got = FINISHED;
  return al_argerror(L, idx, lua_pushfstring(L, "awaitable expected, got %s; pass the function, don't call it", got));
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
    create_task_for(L, ctx, loop, lua_gettop(L));
    lua_remove(L, -2);
  } else if (al_is_coroutine(L, idx)) {
    create_task_for(L, ctx, loop, idx);
  } else {
    refuse_awaitable(L, idx);
  }
  f = al_test_future(L, ctx, -1);
  if (!f) al_raise(L, ctx, AL_C_RuntimeError, "create_task gave no Future");
  return f;
}

static int ensure_future(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", NULL};
  al_checkany(L, 1);
  l_loop *loop = NULL;
  if (al_options(L, 2, "ensure_future", names) && al_option(L, 2, "loop") != LUA_TNIL)
    loop = al_check_loop(L, ctx, lua_gettop(L));
  l_future *f = al_ensure_future(L, ctx, loop, 1);
  if (loop && f->loop != loop)
    return al_raise(L, ctx, AL_C_ValueError,
                    "The future belongs to a different loop than the one specified as the loop argument");
  return 1;
}

/* ---- await ------------------------------------------------------------------------------------------------------- */

/* A coroutine runs as part of the current task, as in Python; so does an object's __await. */
static int await(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_wait(L, ctx, "await");
  al_checkany(L, 1);
  lua_settop(L, 1);
  if (al_test_future(L, ctx, 1)) return al_await(L, ctx, 1);
  if (luaL_getmetafield(L, 1, "__await") != LUA_TNIL) {
    lua_insert(L, 1);
    lua_callk(L, 1, LUA_MULTRET, 0, await_object_done);
    return lua_gettop(L);
  }
  if (!al_is_coroutine(L, 1)) return refuse_awaitable(L, 1);
  if (lua_isthread(L, 1)) {
    al_coro_pushdriver(L, ctx, 1);
    lua_replace(L, 1);
  }
  lua_callk(L, 0, LUA_MULTRET, 0, await_object_done);
  return lua_gettop(L);
}

/* waiting_loop(name) → the current task's loop; or raises as every function of that name which waits. */
static int waiting_loop(lua_State *L) {
  al_pushloop(L, al_check_wait(L, al_ctx_of(L), luaL_checkstring(L, 1))->f.loop);
  return 1;
}

static int future_await(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (!al_test_future(L, ctx, 1)) return al_typeerror(L, 1, "Future");
  al_check_wait(L, ctx, "await");
  lua_settop(L, 1);
  return al_await(L, ctx, 1);
}

/* keep_cancellation(): the CancelledError that the current task has just caught isn't lost:
 * it is raised again later. */
static int keep_cancellation(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (ctx->current) ctx->current->told = false;
  return 0;
}

static const luaL_Reg task_methods[] = {{"__new", task_new}, {NULL, NULL}};
static const luaL_Reg future_methods[] = {{"await", future_await}, {NULL, NULL}};
static const luaL_Reg loop_methods[] = {{"create_task", loop_create_task},
                                        {"set_task_factory", loop_set_task_factory},
                                        {"get_task_factory", loop_get_task_factory},
                                        {NULL, NULL}};
/* create_task(coro, [options]): on the running loop; in a main chunk, on the one that it will run on. */
static int create_task(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_coroutine(L, 1);
  al_options(L, 2, "create_task", create_task_options);
  lua_settop(L, 2);
  l_loop *loop = al_default_loop(L, ctx);
  al_pushloop(L, loop);
  lua_insert(L, 1);
  if (!loop->custom_task) return loop_create_task(L);
  lua_getfield(L, 1, "create_task");
  lua_insert(L, 1);
  lua_call(L, 3, 1);
  return 1;
}

static const luaL_Reg functions[] = {{"await", await},
                                     {"create_task", create_task},
                                     {"ensure_future", ensure_future},
                                     {"waiting_loop", waiting_loop},
                                     {"keep_cancellation", keep_cancellation},
                                     {"eager_task_factory", eager_task_factory},
                                     {NULL, NULL}};

void al_create_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Task, task_methods);
  al_class_methods(L, ctx, AL_C_Future, future_methods);
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
