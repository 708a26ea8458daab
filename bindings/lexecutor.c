/* lexecutor.c - ThreadPoolExecutor and ProcessPoolExecutor (lpool.c behind both), and loop:run_in_executor. What of
 * executors need not be fast is in lua/aloop/executors.lua: map, shutdown, the end of a loop's default executor.
 *
 * SPDX-License-Identifier: MIT */
#include "lexecutor.h"

#include "lcfuture.h"
#include "lfuture.h"
#include "lloop.h"
#include "lprocpool.h"
#include "ltask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A pool whose threads are to be joined: by the state that made it, at the latest when that ends. */
typedef struct al_pool_entry {
  al_pool *pool; /* one reference */
  struct al_pool_entry *next;
  al_handle look; /* queued in the running loop: jobs were submitted in this turn, and nobody woken for them */
} entry;

typedef struct executor {
  al_pool *pool; /* one reference; NULL: half-made */
  entry *entry;  /* good as long as the pool takes jobs */
} executor;

/* ---- pools ------------------------------------------------------------------------------------------------------- */

/* Joins the threads of the first pool of the list, which have ended or will. */
static void join_first(entry **at) {
  entry *e = *at;
  *at = e->next;
  al_handle_cancel(&e->look);
  al_pool_join(e->pool);
  al_pool_release(e->pool);
  free(e);
}

/* Those that have ended. */
static void join_ended(al_ctx *ctx) {
  for (entry **at = &ctx->pools; *at;) {
    if (al_cfuture_is_done(al_pool_ended((*at)->pool))) {
      join_first(at);
    } else {
      at = &(*at)->next;
    }
  }
}

void al_executor_join_all(al_ctx *ctx) {
  for (entry *e = ctx->pools; e; e = e->next) al_pool_shutdown(e->pool, false);
  while (ctx->pools) join_first(&ctx->pools);
}

static void look(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_pool_look(((entry *)(void *)((char *)handle - offsetof(entry, look)))->pool);
}

void al_executor_look(al_ctx *ctx) {
  for (entry *e = ctx->pools; e; e = e->next)
    if (al_handle_cancel(&e->look)) al_pool_look(e->pool);
}

static size_t n_cpus(void) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return cpus < 1 ? 1 : (size_t)cpus;
}

static size_t default_workers(const al_worker_ops *ops) {
  size_t cpus = n_cpus();
  if (!ops->local) return cpus;
  return cpus > 28 ? 32 : cpus + 4;
}

/* What a pool is made with; see al_pool_new. */
typedef struct design {
  const al_worker_ops *ops;
  size_t max;
  const char *name, *program;
} design;

/* Gives the executor on top its pool. The initializer is the pool's. */
static void make_pool(lua_State *L, al_ctx *ctx, executor *self, const design *d, al_parcel *initializer) {
  join_ended(ctx);
  entry *e = malloc(sizeof *e);
  if (!e) al_parcel_free(initializer);
  if (!e || al_pool_new(d->ops, d->max, d->name, d->program, initializer, &self->pool) < 0) {
    free(e);
    luaL_error(L, "not enough memory");
    return;
  }
  al_pool_hold(self->pool);
  *e = (entry){self->pool, ctx->pools, {{NULL, NULL}, look}};
  ctx->pools = e;
  self->entry = e;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static size_t max_workers(lua_State *L, al_ctx *ctx, const char *f, const al_worker_ops *ops) {
  if (al_option(L, 2, "max_workers") == LUA_TNIL) return default_workers(ops);
  lua_Integer n = 0;
  if (!al_isinteger(L, -1, &n)) al_option_error(L, f, "max_workers", "integer", -1);
  if (n <= 0) al_raise(L, ctx, AL_C_ValueError, "'%s': max_workers must be greater than 0", f);
  return n > 10000 ? 10000 : (size_t)n;
}

static unsigned call_flags(const al_worker_ops *ops) {
  return ops->local ? AL_MARSHAL_LOCAL | AL_MARSHAL_CALL : AL_MARSHAL_CALL;
}

/* The initializer with its arguments as a call, or NULL. */
static al_parcel *initializer(lua_State *L, al_ctx *ctx, const char *f, const al_worker_ops *ops) {
  if (al_option(L, 2, "initializer") == LUA_TNIL) return NULL;
  if (!al_iscallable(L, -1)) al_option_error(L, f, "initializer", "function", -1);
  int first = lua_gettop(L), type = al_option(L, 2, "initargs"), args = lua_gettop(L);
  if (type != LUA_TNIL && type != LUA_TTABLE) al_option_error(L, f, "initargs", "table", -1);
  lua_Integer n = type == LUA_TNIL ? 0 : luaL_len(L, args);
  luaL_checkstack(L, (int)n + LUA_MINSTACK, "too many arguments");
  lua_pushvalue(L, first);
  for (lua_Integer i = 1; i <= n; i++) lua_geti(L, args, i);
  return al_marshal(L, ctx, args + 1, (int)n + 1, call_flags(ops));
}

/* A string option, which stays on the stack, or NULL. */
static const char *text_option(lua_State *L, const char *f, const char *name) {
  if (al_option(L, 2, name) == LUA_TNIL) return NULL;
  if (lua_type(L, -1) != LUA_TSTRING) al_option_error(L, f, name, "string", -1);
  return lua_tostring(L, -1);
}

/* (class, options), names being those of the options */
static const char *begin_new(lua_State *L, const char *const *names) {
  lua_settop(L, 3);
  lua_getfield(L, 1, "__name");
  const char *f = lua_tostring(L, 4);
  al_options(L, 2, f, names);
  return f;
}

/* Pushes the executor. */
static int end_new(lua_State *L, al_ctx *ctx, const char *f, const design *d) {
  executor *self = al_new_instance(L, 1, AL_C_Executor, sizeof *self, 0);
  int at = lua_gettop(L);
  al_parcel *call = initializer(L, ctx, f, d->ops);
  lua_settop(L, at);
  make_pool(L, ctx, self, d, call);
  return 1;
}

/* ThreadPoolExecutor{max_workers, initializer, initargs, thread_name_prefix} */
static int thread_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"max_workers", "initializer", "initargs", "thread_name_prefix", NULL};
  const char *f = begin_new(L, names);
  design d = {.ops = &al_thread_workers, .max = max_workers(L, ctx, f, &al_thread_workers)};
  d.name = text_option(L, f, "thread_name_prefix");
  return end_new(L, ctx, f, &d);
}

/* ProcessPoolExecutor{max_workers, initializer, initargs, executable} */
static int process_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"max_workers", "initializer", "initargs", "executable", NULL};
  const char *f = begin_new(L, names);
  design d = {.ops = &al_process_workers, .max = max_workers(L, ctx, f, &al_process_workers), .name = "aloop-proc"};
  d.program = al_procpool_push_program(L, ctx, text_option(L, f, "executable"));
  return end_new(L, ctx, f, &d);
}

static executor *test_executor(lua_State *L, al_ctx *ctx, int idx) {
  executor *self = al_test(L, ctx, idx, AL_C_ThreadPoolExecutor);
  if (!self) self = al_test(L, ctx, idx, AL_C_ProcessPoolExecutor);
  return self && self->pool ? self : NULL;
}

static executor *check_executor(lua_State *L, al_ctx *ctx) {
  executor *self = test_executor(L, ctx, 1);
  if (!self) al_typeerror(L, 1, "Executor");
  return self;
}

/* Forgotten: its jobs are done, then its threads end; the state joins them. */
static int executor_gc(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  executor *self = test_executor(L, ctx, 1);
  if (!self) return 0;
  al_pool_shutdown(self->pool, false);
  al_pool_release(self->pool);
  self->pool = NULL;
  if (!ctx->ended) join_ended(ctx);
  return 0;
}

static int close_done(lua_State *L, int status, lua_KContext extra) {
  (void)L, (void)status, (void)extra;
  return 0;
}

/* __close: shutdown(), also of executors that a script has made */
static int executor_close(lua_State *L) {
  lua_settop(L, 1);
  lua_getfield(L, 1, "shutdown");
  lua_insert(L, 1);
  lua_callk(L, 1, 0, 0, close_done);
  return 0;
}

/* ---- submitting -------------------------------------------------------------------------------------------------- */

static int refuse(lua_State *L, al_ctx *ctx, al_pool *pool, int err) {
  if (err == -EPIPE) {
    char why[2 * AL_WHY];
    al_pool_why(pool, why);
    return al_raise(L, ctx, al_pool_ops(pool)->broken, "%s", why);
  }
  if (err == AL_ECLOSED) return al_raise(L, ctx, AL_C_RuntimeError, "cannot schedule new futures after shutdown");
  if (err == -ENOMEM) return luaL_error(L, "not enough memory");
  return al_raise(L, ctx, AL_C_RuntimeError, "can't start new thread: %s", al_strerror(err));
}

/* A coroutine is no function to be called elsewhere. */
static void check_function(lua_State *L, int arg, const char *f) {
  if (lua_isthread(L, arg)) al_argerror(L, arg, lua_pushfstring(L, "coroutines cannot be used with %s()", f));
  al_check_callable(L, arg);
}

/* Queues the function at first with the arguments behind it, up to top; its job, with one reference. Raises nothing
 * once it has begun. */
static al_pool_job *submit(lua_State *L, al_ctx *ctx, const executor *self, int first, int top, unsigned flags) {
  al_pool *pool = self->pool;
  int err = al_pool_check(pool);
  if (err) refuse(L, ctx, pool, err);
  al_parcel *call = al_marshal(L, ctx, first, top - first + 1, call_flags(al_pool_ops(pool)) | flags);
  al_worker_setup *setup = al_pool_is_short(pool) ? al_worker_setup_new(L, ctx) : NULL;
  al_pool_job *job = NULL;
  bool looks = ctx->running != NULL;
  err = al_pool_submit(pool, call, setup, &looks, &job);
  if (err) refuse(L, ctx, pool, err);
  if (looks && !al_handle_is_queued(&self->entry->look)) al_call_soon(ctx->running->loop, &self->entry->look);
  return job;
}

/* (executor, func, ...) → ConcurrentFuture */
static int executor_submit(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  executor *self = check_executor(L, ctx);
  check_function(L, 2, "submit");
  al_mailbox_drain(ctx);
  al_cfuture **handle = al_new_cfuture(L, ctx);
  lua_insert(L, 1);
  al_pool_job *job = submit(L, ctx, self, 3, lua_gettop(L), 0);
  *handle = &job->f;
  lua_settop(L, 1);
  return 1;
}

static int executor_tostring(lua_State *L) {
  const executor *self = check_executor(L, al_ctx_of(L));
  luaL_getmetafield(L, 1, "__name");
  lua_pushfstring(L, "<%s at %p>", lua_tostring(L, -1), (const void *)self->pool);
  return 1;
}

/* pool_shutdown(executor, cancel_futures) → ConcurrentFuture that is done when its threads have ended */
static int pool_shutdown(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  executor *self = check_executor(L, ctx);
  bool cancels = lua_toboolean(L, 2);
  al_cfuture **handle = al_new_cfuture(L, ctx);
  *handle = al_pool_ended(self->pool);
  al_cfuture_hold(*handle);
  al_pool_shutdown(self->pool, cancels);
  return 1;
}

/* join_pools(): the threads of those that have ended */
static int join_pools(lua_State *L) {
  join_ended(al_ctx_of(L));
  return 0;
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

/* Pushes the default executor of the loop at idx; makes it if need be. */
static void push_default(lua_State *L, al_ctx *ctx, int idx) {
  if (lua_getiuservalue(L, idx, AL_LOOP_UV_EXECUTOR) == LUA_TBOOLEAN)
    al_raise(L, ctx, AL_C_RuntimeError, "Executor shutdown has been called");
  if (!lua_isnil(L, -1)) return;
  lua_pop(L, 1);
  executor *self = al_new(L, ctx, AL_C_ThreadPoolExecutor, sizeof *self, 0);
  design d = {.ops = &al_thread_workers, .max = default_workers(&al_thread_workers), .name = "aloop"};
  make_pool(L, ctx, self, &d, NULL);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, idx, AL_LOOP_UV_EXECUTOR);
}

/* What submit of an executor that is not ours has returned, on top, as a Future. */
static int as_future(lua_State *L, al_ctx *ctx, l_loop *loop) {
  if (al_test_future(L, ctx, -1)) return 1;
  al_cfuture *f = al_test_cfuture(L, ctx, -1);
  if (!f) {
    luaL_tolstring(L, -1, NULL);
    return al_raise(L, ctx, AL_C_RuntimeError,
                    "the executor's submit gave no future (ConcurrentFuture or Future expected, got %s)",
                    lua_tostring(L, -1));
  }
  al_wrap_cfuture(L, ctx, loop, f);
  return 1;
}

/* Queues the function at first with the arguments behind it and pushes the Future of the loop. */
static void run_in_pool(lua_State *L, al_ctx *ctx, l_loop *loop, const executor *self, int first, unsigned flags) {
  int top = lua_gettop(L);
  if (loop->custom_future) {
    al_cfuture **handle = al_new_cfuture(L, ctx);
    *handle = &submit(L, ctx, self, first, top, flags)->f;
    al_wrap_cfuture(L, ctx, loop, *handle);
  } else {
    al_wrap_prepare(L, ctx, loop);
    al_wrap_begin(L, ctx, loop, &submit(L, ctx, self, first, top, flags)->f);
  }
}

/* Pushes the method of the executor at 2, whatever it is; false: it has none. */
static bool push_submit(lua_State *L) {
  if (!lua_istable(L, 2)) {
    if (luaL_getmetafield(L, 2, "__index") == LUA_TNIL) return false;
    lua_pop(L, 1);
  }
  lua_getfield(L, 2, "submit");
  return al_iscallable(L, -1);
}

/* (loop, executor or nil, func, ...) → Future */
static int loop_run_in_executor(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_open(L, ctx, 1);
  check_function(L, 3, "run_in_executor");
  if (lua_isnil(L, 2)) {
    push_default(L, ctx, 1);
    lua_replace(L, 2);
  }
  const executor *self = test_executor(L, ctx, 2);
  if (!self) {
    if (!push_submit(L)) return al_typeerror(L, 2, "Executor");
    lua_insert(L, 2);
    lua_call(L, lua_gettop(L) - 2, 1);
    return as_future(L, ctx, loop);
  }
  run_in_pool(L, ctx, loop, self, 3, 0);
  return 1;
}

/* to_thread(func, ...) → its results. Values of the context variables that it refers to go along. */
static int to_thread(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_wait(L, ctx, "to_thread")->f.loop;
  check_function(L, 1, "to_thread");
  al_pushloop(L, loop);
  push_default(L, ctx, lua_gettop(L));
  lua_rotate(L, 1, 2); /* loop, executor, func, ... */
  const executor *self = lua_touserdata(L, 2);
  run_in_pool(L, ctx, loop, self, 3, AL_MARSHAL_CONTEXT);
  lua_replace(L, 1);
  lua_settop(L, 1);
  return al_await(L, ctx, 1);
}

static int loop_set_default_executor(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_open(L, ctx, 1);
  if (!al_test(L, ctx, 2, AL_C_ThreadPoolExecutor)) return al_typeerror(L, 2, "ThreadPoolExecutor");
  lua_settop(L, 2);
  if (lua_getiuservalue(L, 1, AL_LOOP_UV_EXECUTOR) == LUA_TBOOLEAN) return 0; /* shut down: there is none any more */
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, AL_LOOP_UV_EXECUTOR);
  return 0;
}

/* (loop, [timeout]): the loop makes no executor from now on; if it has one, executors.lua ends that. */
static int loop_shutdown_default_executor(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  al_check_wait(L, ctx, "shutdown_default_executor");
  if (!lua_isnoneornil(L, 2)) al_checknumber(L, 2);
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, AL_LOOP_UV_EXECUTOR);
  lua_pushboolean(L, false);
  lua_setiuservalue(L, 1, AL_LOOP_UV_EXECUTOR);
  if (!lua_toboolean(L, 3)) return 0;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "aloop.executors");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "end_executor");
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 2);
  lua_callk(L, 2, 0, 0, close_done);
  return 0;
}

void al_executor_abandon(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  lua_getiuservalue(L, idx, AL_LOOP_UV_EXECUTOR);
  const executor *self = lua_isuserdata(L, -1) ? test_executor(L, ctx, -1) : NULL;
  if (self) al_pool_shutdown(self->pool, false);
  lua_pushboolean(L, false);
  lua_setiuservalue(L, idx, AL_LOOP_UV_EXECUTOR);
  lua_pop(L, 1);
}

static const luaL_Reg executor_methods[] = {{"__close", executor_close}, {NULL, NULL}};
static const luaL_Reg methods[] = {
    {"__gc", executor_gc}, {"submit", executor_submit}, {"__tostring", executor_tostring}, {NULL, NULL}};
static const luaL_Reg thread_methods[] = {{"__new", thread_new}, {NULL, NULL}};
static const luaL_Reg process_methods[] = {{"__new", process_new}, {NULL, NULL}};
static const luaL_Reg loop_methods[] = {{"run_in_executor", loop_run_in_executor},
                                        {"set_default_executor", loop_set_default_executor},
                                        {"shutdown_default_executor", loop_shutdown_default_executor},
                                        {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"pool_shutdown", pool_shutdown}, {"join_pools", join_pools}, {"to_thread", to_thread}, {NULL, NULL}};

void al_executor_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Executor, executor_methods);
  al_class_methods(L, ctx, AL_C_ThreadPoolExecutor, methods);
  al_class_methods(L, ctx, AL_C_ThreadPoolExecutor, thread_methods);
  al_class_methods(L, ctx, AL_C_ProcessPoolExecutor, methods);
  al_class_methods(L, ctx, AL_C_ProcessPoolExecutor, process_methods);
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
