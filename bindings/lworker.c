/* lworker.c - a worker's Lua state: made as the interpreter's own, with the paths of the state that made the pool, and
 * used by one thread for all jobs that it runs. A job's call comes and its outcome goes as a parcel.
 *
 * SPDX-License-Identifier: MIT */
#include "lalloc.h"
#include "lcontext.h"
#include "lpool.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

struct al_worker {
  al_alloc *alloc;
  lua_State *L; /* [1] al_traceback */
  al_ctx *ctx;
};

/* ---- what is handed down ----------------------------------------------------------------------------------------- */

void al_worker_setup_free(al_worker_setup *setup) {
  if (!setup) return;
  free(setup->path);
  free(setup->cpath);
  free(setup->machine);
  free(setup);
}

/* A copy of the string on top (popped), or NULL. */
static char *take_string(lua_State *L) {
  char *copy = lua_type(L, -1) == LUA_TSTRING ? strdup(lua_tostring(L, -1)) : NULL;
  lua_pop(L, 1);
  return copy;
}

static bool no_environment(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  bool ignored = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return ignored;
}

al_worker_setup *al_worker_setup_new(lua_State *L, al_ctx *ctx) {
  al_worker_setup *setup = calloc(1, sizeof *setup);
  if (!setup) return NULL;
  setup->no_environment = no_environment(L);
  setup->debug = ctx->debug;
  int top = lua_gettop(L);
  if (lua_getglobal(L, "package") == LUA_TTABLE) {
    lua_pushliteral(L, "path");
    lua_rawget(L, top + 1);
    setup->path = take_string(L);
    lua_pushliteral(L, "cpath");
    lua_rawget(L, top + 1);
    setup->cpath = take_string(L);
  }
  al_module_pushcore(L);
  lua_pushliteral(L, "default_machine");
  lua_rawget(L, -2);
  setup->machine = take_string(L);
  lua_settop(L, top);
  return setup;
}

/* ---- the state --------------------------------------------------------------------------------------------------- */

static void set_string(lua_State *L, const char *name, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

/* worker, setup → */
static int open_body(lua_State *L) {
  al_worker *worker = lua_touserdata(L, 1);
  const al_worker_setup *setup = lua_touserdata(L, 2);
  if (setup->no_environment) {
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  worker->ctx = al_module_open(L);
  worker->ctx->debug = setup->debug;
  lua_getglobal(L, "package");
  set_string(L, "path", setup->path);
  set_string(L, "cpath", setup->cpath);
  al_module_pushcore(L);
  set_string(L, "default_machine", setup->machine);
  return 0;
}

static void log_error(lua_State *L, const char *what) {
  const char *why = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "(an error object)";
  al_log(AL_LOG_ERROR, NULL, "%s: %s", what, why);
}

al_worker *al_worker_open(al_worker_setup *setup) {
  al_worker *worker = calloc(1, sizeof *worker);
  if (!worker) goto fail;
  worker->L = al_alloc_newstate(&worker->alloc);
  if (!worker->L) goto fail;
  lua_State *L = worker->L;
  lua_gc(L, LUA_GCSTOP);
  lua_pushcfunction(L, open_body);
  lua_pushlightuserdata(L, worker);
  lua_pushlightuserdata(L, setup);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
    log_error(L, "the state of a worker can't be opened");
    goto fail;
  }
  lua_gc(L, LUA_GCRESTART);
  lua_gc(L, LUA_GCGEN, 0, 0);
  al_ctx_pushfunction(L, worker->ctx, al_traceback); /* its memory is Lua's smallest; the state is fresh */
  al_worker_setup_free(setup);
  return worker;
fail:
  al_worker_setup_free(setup);
  if (worker) al_worker_close(worker);
  return NULL;
}

void al_worker_close(al_worker *worker) {
  if (worker->L) lua_close(worker->L);
  al_alloc_end(worker->alloc);
  free(worker);
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

/* A job begins with no variable set, whatever the one before has left. */
static void reset_context(lua_State *L, al_ctx *ctx) {
  if (ctx->context_kind == AL_CONTEXT_EMPTY) return;
  lua_pushnil(L);
  al_context_swap(L, ctx, AL_CONTEXT_EMPTY);
  lua_pop(L, 1);
}

typedef struct call {
  al_ctx *ctx;
  const al_parcel *parcel;
  unsigned flags; /* of al_marshal, for the outcome */
  al_parcel *outcome;
} call;

/* call → its outcome is that of the call */
static int call_body(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  int n = al_unmarshal(L, c->ctx, c->parcel);
  lua_call(L, n - 1, LUA_MULTRET);
  n = lua_gettop(L) - 1;
  if (n) c->outcome = al_marshal(L, c->ctx, 2, n, c->flags | AL_MARSHAL_RESULTS);
  return 0;
}

/* call, error → its outcome is that error */
static int error_body(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  c->outcome = al_marshal_error(L, c->ctx, 2, c->flags);
  return 0;
}

al_parcel *al_worker_call(al_worker *worker, const al_parcel *parcel, unsigned flags, bool *failed) {
  lua_State *L = worker->L;
  call c = {worker->ctx, parcel, flags, NULL};
  reset_context(L, worker->ctx);
  lua_pushcfunction(L, call_body);
  lua_pushlightuserdata(L, &c);
  bool ok = lua_pcall(L, 1, 0, 1) == LUA_OK;
  if (!ok) {
    lua_pushcfunction(L, error_body);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, &c);
    lua_insert(L, -2);
    lua_pcall(L, 2, 0, 0); /* without memory: an error without a text */
  }
  lua_settop(L, 1);
  *failed = !ok;
  return c.outcome;
}

/* call → */
static int initialize_body(lua_State *L) {
  const call *c = lua_touserdata(L, 1);
  lua_call(L, al_unmarshal(L, c->ctx, c->parcel) - 1, 0);
  return 0;
}

static int text_body(lua_State *L) {
  al_pusherrortext(L, lua_touserdata(L, 1), 2);
  return 1;
}

bool al_worker_initialize(al_worker *worker, const al_parcel *parcel) {
  lua_State *L = worker->L;
  call c = {.ctx = worker->ctx, .parcel = parcel};
  lua_pushcfunction(L, initialize_body);
  lua_pushlightuserdata(L, &c);
  bool ok = lua_pcall(L, 1, 0, 1) == LUA_OK;
  if (!ok) {
    lua_pushcfunction(L, text_body);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, worker->ctx);
    lua_insert(L, -2);
    lua_pcall(L, 2, 1, 0);
    log_error(L, "exception in initializer");
  }
  lua_settop(L, 1);
  return ok;
}

/* ---- in a thread of a pool --------------------------------------------------------------------------------------- */

static void *open_worker(al_worker_setup *setup, const char *program, char *why) {
  (void)program, (void)why;
  return al_worker_open(setup);
}

static bool initialize(void *worker, const al_parcel *parcel, char *why) {
  (void)why;
  return al_worker_initialize(worker, parcel);
}

static bool run(void *worker, al_pool_job *job, char *why) {
  (void)why;
  bool failed;
  al_parcel *outcome = al_worker_call(worker, job->call, AL_MARSHAL_LOCAL, &failed);
  if (!al_parcel_is_small(job->call)) { /* else the thread that made it frees it, most often, which costs less */
    al_parcel_free(job->call);
    job->call = NULL;
  }
  al_pool_finishing(job);
  if (failed) {
    al_cfuture_fail(&job->f, outcome);
  } else {
    al_cfuture_finish(&job->f, outcome);
  }
  return true;
}

static void close_worker(void *worker, bool broken) {
  (void)broken;
  al_worker_close(worker);
}

const al_worker_ops al_thread_workers = {.local = true,
                                         .broken = AL_C_BrokenThreadPool,
                                         .message =
                                             "A thread initializer failed, the thread pool is not usable anymore",
                                         .open = open_worker,
                                         .initialize = initialize,
                                         .run = run,
                                         .close = close_worker};
