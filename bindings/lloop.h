/* lloop.h - the loop's userdata.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LLOOP_H
#define AL_LLOOP_H

#include "ctx.h"

/* User values of the loop's userdata. */
enum {
  AL_LOOP_UV_FIELDS = 1, /* table behind __index: slow_callback_duration and what scripts set */
  AL_LOOP_UV_HANDLER,    /* the exception handler */
  AL_LOOP_UV_FACTORY,    /* the task factory */
  AL_LOOP_UV_SELECTOR,   /* the selector that it was made with */
  AL_LOOP_UV_WATCHES,    /* table: descriptor × 2 (+ 1 for writing) → Handle of add_reader, add_writer; lfd.c */
  AL_LOOP_UV_SIGNALS,    /* table: number → Handle */
  AL_LOOP_UV_CLOCK,      /* the clock that it was made with (ltesting.h) */
  AL_LOOP_UV_EXECUTOR,   /* the default executor; false: it was shut down */
  AL_LOOP_UV_COUNT = AL_LOOP_UV_EXECUTOR
};

struct l_loop {
  al_ctx *ctx;
  al_loop *loop;                   /* one reference; NULL in a half-made object only */
  l_loop *next;                    /* ctx->loops */
  al_link tasks;                   /* the unfinished tasks (l_task.all) */
  bool custom_future, custom_task; /* a subclass replaces create_future, create_task */
  al_timer collector;              /* debug mode: the next full collection */
  int64_t collected_ns;            /* the last one */
  int64_t slow_ns;                 /* slow_callback_duration */
  struct al_relay *relays;         /* lrelay.c: what is on its way from other threads to its futures */
  struct al_relay *spare_relay;    /* the next one, so that nothing raises when it is needed */
  struct al_answer *answers;       /* lremote.c: tasks that other threads wait for */
  bool told_slow;                  /* what was slow in this round of I/O is reported already */
  bool quiet;                      /* not reported when collected unclosed (the interpreter's own) */
  bool of_finalizer;               /* a finalizer has made it */
};

/* Lua answers nothing from inside a finalizer (from 5.4.4 on). */
static inline bool al_in_finalizer(lua_State *L) { return lua_gc(L, LUA_GCCOUNT) < 0; }

/* The loop at arg (self of every method), or a type error. */
l_loop *al_check_loop(lua_State *L, al_ctx *ctx, int arg);
l_loop *al_test_loop(lua_State *L, al_ctx *ctx, int arg);
/* ... that is open: raises RuntimeError("Event loop is closed"). In debug mode also checks the thread. */
l_loop *al_check_open(lua_State *L, al_ctx *ctx, int arg);
/* Raises RuntimeError("Event loop is closed") if it is, or was even collected: what outlives the loop at the end of
 * a state has only its address. */
void al_check_alive(lua_State *L, l_loop *loop);
/* Pushes the loop's userdata. */
void al_pushloop(lua_State *L, l_loop *loop);
/* Methods of a loop that set and get a function (nil: none) among its user values. */
int al_loop_set_function(lua_State *L, int uservalue);
int al_loop_get_function(lua_State *L, int uservalue);

/* ---- lloopcurrent.c ---------------------------------------------------------------------------------------------- */

/* The running loop, else raises RuntimeError("no running event loop"). */
l_loop *al_running_loop(lua_State *L, al_ctx *ctx);

/* The running loop; in the main chunk before it has turned, the one that it will run on (made now if need be). */
l_loop *al_default_loop(lua_State *L, al_ctx *ctx);

/* Pushes the loop of a future or task that is made outside of one, too: as al_default_loop, else get_event_loop()'s. */
l_loop *al_push_implied_loop(lua_State *L, al_ctx *ctx);

/* get_event_loop() outside of a running loop: pushes the current loop; makes it if a factory was set; or raises. */
l_loop *al_current_loop(lua_State *L, al_ctx *ctx);

/* ---- llooprun.c -------------------------------------------------------------------------------------------------- */

/* Runs the loop, nothing raised: an error of the core, or 0. */
int al_turn_forever(al_ctx *ctx, l_loop *loop);
/* Raises the interrupt that left the loop (ctx->exiting). */
int al_raise_exit(lua_State *L, al_ctx *ctx);

/* ---- lloopdebug.c ------------------------------------------------------------------------------------------------ */

#define AL_SLOW_CALLBACK 0.1 /* slow_callback_duration of a new loop, in seconds */
void al_loop_set_slow_callback(l_loop *loop, double seconds);

/* Debug mode: warns if the callback whose object is at idx took too long; did it? Never throws. */
bool al_loop_check_slow(lua_State *L, l_loop *loop, int idx, int64_t took_ns);

void al_loop_init_collector(l_loop *loop);
/* Debug mode: has the garbage collected soon, for the errors that nobody took; at most once a second. */
void al_loop_collect_soon(l_loop *loop);

void al_loop_openlib(lua_State *L, al_ctx *ctx);
void al_loop_current_openlib(lua_State *L, al_ctx *ctx);
void al_loop_run_openlib(lua_State *L, al_ctx *ctx);
void al_schedule_openlib(lua_State *L, al_ctx *ctx); /* lschedule.c */

#endif
