/* lcontext.h - context variables: what the running callback or task sees. Maps are immutable: a set makes a new one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LCONTEXT_H
#define AL_LCONTEXT_H

#include "ctx.h"

/* What stands for a context without making an object of it. */
enum {
  AL_CONTEXT_EMPTY, /* no variable was ever set; the value is nil */
  AL_CONTEXT_MAP,   /* a map, to be copied into a context of its own at the first set */
  AL_CONTEXT_OBJECT /* a Context */
};

/* Pushes a snapshot of the current context, as a copy_context() that costs nothing; returns its kind (EMPTY: nil, MAP). */
int al_context_capture(lua_State *L, al_ctx *ctx);

/* Makes the value on top of L (popped) with its kind the current one, and leaves the former one in its place, whose kind is
 * returned. A swap there and back brackets a callback. Never throws; for EMPTY ↔ EMPTY skip it. */
int al_context_swap(lua_State *L, al_ctx *ctx, int kind);

/* Pushes the Context object for a captured value at idx (makes one from EMPTY or MAP). */
void al_context_object(lua_State *L, al_ctx *ctx, int kind, int idx);

/* A function made by ctx:bind: pushes its function and its Context in this order and returns true; else pushes nothing. */
bool al_context_unbind(lua_State *L, al_ctx *ctx, int idx);

/* Calls the function below the nargs values on top in the Context at idx, be it entered or not; results are dropped, errors
 * raised. For reports; it can't be suspended. */
void al_context_call(lua_State *L, al_ctx *ctx, int idx, int nargs);

/* Is it the function of Context:run, or of what bind made? */
bool al_context_is_run(lua_CFunction f);
/* Does a Context:run stand on the stack of this coroutine? Ask only if ctx->n_entered > 0. */
bool al_context_is_entered_in(lua_State *L);

void al_context_openlib(lua_State *L, al_ctx *ctx);

#endif
