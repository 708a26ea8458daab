/* lhandle.h - Handle and TimerHandle: a callback with its arguments and context in one userdata.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LHANDLE_H
#define AL_LHANDLE_H

#include "ctx.h"

typedef struct l_handle {
  l_loop *loop; /* of a plain Handle only good while slot is set; a timer keeps its loop */
  int slot;     /* anchored while it is queued, set or watching; 0: not */
  uint16_t nargs;
  uint8_t context_kind;
  bool timer, cancelled, keep; /* keep: stays anchored after a run (watches, signals) */
  double when;                 /* timers: as given */
  al_timer t;                  /* of a plain Handle only t.handle exists */
} l_handle;

/* Makes a Handle of the callable at f and the nargs values behind it, up to the top; pops these nargs
 * + 1 values (f must stand right below its arguments) and pushes the handle, unqueued and unanchored. Takes the context
 * along (ctx:bind's, or a snapshot of the current one). */
l_handle *al_handle_make(lua_State *L, al_ctx *ctx, l_loop *loop, int f);

/* The same for the scheduling functions of the loop, which are made by al_handle_pushfunction, and anchored; pushes the
 * handle and leaves the rest of the stack as it was. */
l_handle *al_handle_schedule(lua_State *L, al_ctx *ctx, l_loop *loop, bool timer, int f);
void al_handle_pushfunction(lua_State *L, al_ctx *ctx, lua_CFunction f);

/* Queues a handle that stands at idx: anchored until it has run. */
void al_handle_soon(lua_State *L, al_ctx *ctx, int idx, l_handle *handle);
void al_handle_anchor(lua_State *L, al_ctx *ctx, int idx, l_handle *handle);
void al_handle_drop(al_ctx *ctx, l_handle *handle); /* takes it out of every list and unanchors it; doesn't throw */

/* Seconds of the loop's clock to its nanoseconds: rounded up, so that nothing is early; clamped to a lifetime. */
int64_t al_seconds_to_ns(double seconds);
/* Sets (or moves) the timer of the TimerHandle at idx. */
void al_timer_handle_start(lua_State *L, al_ctx *ctx, int idx, l_handle *handle, double when);

/* For the loop's teardown: is it a handle of ours, which was dropped from the queue, and its anchor with it. */
bool al_handle_is_ours(const al_handle *core);
void al_handle_discard(al_handle *core);

void al_handle_openlib(lua_State *L, al_ctx *ctx);

#endif
