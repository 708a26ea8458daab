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
  AL_LOOP_UV_WATCHES,    /* table: descriptor × 2 (+ 1 for writing) → Handle of add_reader, add_writer */
  AL_LOOP_UV_SIGNALS,    /* table: number → Handle */
  AL_LOOP_UV_COUNT = AL_LOOP_UV_SIGNALS
};

struct l_loop {
  al_ctx *ctx;
  al_loop *loop; /* one reference; NULL in a half-made object only */
  l_loop *next;  /* ctx->loops */
  int slot;      /* anchored while it runs; 0: not */
  int self_ref;  /* a weak way to push it: key of the weak table of loops */
  al_link tasks; /* the unfinished tasks (l_task.all) */
  bool custom_future, custom_task; /* a subclass replaces create_future, create_task */
  bool quiet;    /* not reported when collected unclosed (the interpreter's own) */
};

/* The loop at arg (self of every method), or a type error. */
l_loop *al_check_loop(lua_State *L, al_ctx *ctx, int arg);
l_loop *al_test_loop(lua_State *L, al_ctx *ctx, int arg);
/* ... that is open: raises RuntimeError("Event loop is closed"). In debug mode also checks the thread. */
l_loop *al_check_open(lua_State *L, al_ctx *ctx, int arg);
/* Pushes the loop's userdata. */
void al_pushloop(lua_State *L, l_loop *loop);
/* The running loop, else raises RuntimeError("no running event loop"). */
l_loop *al_running_loop(lua_State *L, al_ctx *ctx);

void al_loop_openlib(lua_State *L, al_ctx *ctx);

#endif
