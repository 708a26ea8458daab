/* llooprun.c - running a loop: run_forever, run_until_complete and stop, and what a fork(2) while it runs leaves of it.
 * Called by scripts, and by lmain.c, whose main chunk turns its loop by al_turn_forever. It knows nothing of how a loop
 * is made or closed.
 *
 * SPDX-License-Identifier: MIT */
#include "lexecutor.h"
#include "lloop.h"
#include "lquery.h"
#include "lreport.h"
#include "lsigint.h"
#include "ltask.h"
#include "lwatchdog.h"

#include <pthread.h>

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static _Thread_local al_ctx *turning; /* the state whose loop runs in this thread */

/* A C module called fork(2). Neither loop of the parent is the child's, which may have its own. */
static void in_child(void) {
  al_ctx *ctx = turning;
  al_loop_forked();
  if (!ctx) return;
  turning = NULL;
  ctx->running = NULL;
  ctx->current = NULL;
  ctx->co_top = ctx->co_blocked = NULL;
  ctx->forked = true;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

/* ---- turning ----------------------------------------------------------------------------------------------------- */

/* What is set aside while a loop runs: the task that ran it, if one did. */
typedef struct outside {
  l_task *current;
  lua_State *co_top, *co_blocked;
} outside;

int al_turn_forever(al_ctx *ctx, l_loop *loop) {
  outside o = {ctx->current, ctx->co_top, ctx->co_blocked};
  l_loop *former = ctx->running;
  al_ctx *former_turning = turning;
  turning = ctx;
  ctx->current = NULL;
  ctx->co_top = ctx->co_blocked = NULL;
  ctx->running = loop;
  ctx->times_upcalls = al_loop_debug(loop->loop);
  al_sigint_attach(ctx, loop);
  al_query_attach(ctx, loop);
  al_watchdog_loop(ctx, loop);
  al_log_enter_thread(ctx);
  int error = al_loop_run_forever(loop->loop);
  al_executor_look(ctx);
  al_watchdog_loop(ctx, former);
  turning = former_turning;
  ctx->running = former;
  ctx->times_upcalls = former && al_loop_debug(former->loop);
  ctx->current = o.current;
  ctx->co_top = o.co_top;
  ctx->co_blocked = o.co_blocked;
  return error;
}

int al_raise_exit(lua_State *L, al_ctx *ctx) {
  ctx->exiting = false;
  al_ctx_anchors(L, ctx);
  lua_rawgeti(L, -1, AL_SLOT_EXIT);
  lua_pushboolean(L, false);
  lua_rawseti(L, -3, AL_SLOT_EXIT);
  return lua_error(L);
}

/* A finalizer comes in the middle of any of our functions, and at the end of the state when what the loop's tasks wait
 * for may be finalized already: it runs none but its own. */
static void check_may_run(lua_State *L, al_ctx *ctx, l_loop *loop) {
  if (al_in_finalizer(L) && !loop->of_finalizer)
    al_raise(L, ctx, AL_C_RuntimeError, "Cannot run the event loop in a finalizer (__gc) that has not made it");
  if (al_loop_is_running(loop->loop)) al_raise(L, ctx, AL_C_RuntimeError, "This event loop is already running");
  if (ctx->running || al_loop_running())
    al_raise(L, ctx, AL_C_RuntimeError, "Cannot run the event loop while another loop is running");
}

static int loop_run_forever(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  al_check_alive(L, loop);
  check_may_run(L, ctx, loop);
  int error = al_turn_forever(ctx, loop);
  if (ctx->exiting) return al_raise_exit(L, ctx);
  if (error < 0) return al_raise_os(L, ctx, error, NULL, NULL);
  return 0;
}

static void stop_loop(al_loop *loop, al_handle *handle) {
  (void)handle;
  al_loop_stop(loop);
}

/* [1] loop, [2] awaitable → its results. The loop is stopped by a handle among those that wait for the future. */
static int loop_run_until_complete(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_open(L, ctx, 1);
  if (lua_isnone(L, 2)) return al_typeerror(L, 2, "awaitable");
  lua_settop(L, 2);
  check_may_run(L, ctx, loop);
  bool made = al_test_future(L, ctx, 2) == NULL;
  l_future *f = al_ensure_future(L, ctx, loop, 2); /* 3 */
  if (f->loop != loop) return al_raise(L, ctx, AL_C_ValueError, "The future belongs to a different loop");
  if (ctx->main_task && f == &ctx->main_task->f)
    return al_raise(L, ctx, AL_C_RuntimeError, "Task cannot await on itself");
  al_ctx_pushfunction(L, ctx, loop_run_forever);
  lua_pushvalue(L, 1);
  al_handle stop; /* nothing may raise as long as it stands in a list */
  al_handle_init(&stop, stop_loop);
  if (f->state == AL_FUTURE_PENDING) {
    al_list_append(&f->waiters, &stop);
  } else {
    al_call_soon(loop->loop, &stop);
  }
  int status = lua_pcall(L, 1, 0, 0);
  al_handle_cancel(&stop);
  if (status != LUA_OK) {
    if (made) al_future_mark_read(ctx, f);
    return lua_error(L);
  }
  if (f->state == AL_FUTURE_PENDING)
    return al_raise(L, ctx, AL_C_RuntimeError, "Event loop stopped before Future completed.");
  return al_future_result(L, ctx, 3);
}

static int loop_stop(lua_State *L) {
  al_loop_stop(al_check_loop(L, al_ctx_of(L), 1)->loop);
  return 0;
}

static int loop_is_running(lua_State *L) {
  lua_pushboolean(L, al_loop_is_running(al_check_loop(L, al_ctx_of(L), 1)->loop));
  return 1;
}

static const luaL_Reg methods[] = {{"run_forever", loop_run_forever},
                                   {"run_until_complete", loop_run_until_complete},
                                   {"stop", loop_stop},
                                   {"is_running", loop_is_running},
                                   {NULL, NULL}};

void al_loop_run_openlib(lua_State *L, al_ctx *ctx) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  al_class_methods(L, ctx, AL_C_BaseEventLoop, methods);
}
