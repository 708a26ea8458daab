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

/* Pushes a snapshot of the current context, as a copy_context() that costs nothing; returns
 * its kind (EMPTY: nil, MAP). */
int al_context_capture(lua_State *L, al_ctx *ctx);

/* Makes the value on top of L (popped) with its kind the current one, and leaves the former one in its place, whose
 * kind is returned. A swap there and back brackets a callback. Never throws; for EMPTY ↔ EMPTY skip it. */
int al_context_swap(lua_State *L, al_ctx *ctx, int kind);

/* Pushes the Context object for a captured value at idx (makes one from EMPTY or MAP). */
void al_context_object(lua_State *L, al_ctx *ctx, int kind, int idx);

/* A function made by ctx:bind: pushes its function and its Context in this order and returns
 * true; else pushes nothing. */
bool al_context_unbind(lua_State *L, al_ctx *ctx, int idx);

/* Calls the function below the nargs values on top in the Context at idx, be it entered or not; results are dropped,
 * errors raised. For reports; it can't be suspended. */
void al_context_call(lua_State *L, al_ctx *ctx, int idx, int nargs);

/* Is it the function of Context:run, or of what bind made? */
bool al_context_is_run(lua_CFunction f);
/* Does a Context:run stand on the stack of this coroutine? Ask only if ctx->n_entered > 0. */
bool al_context_is_entered_in(lua_State *L);

/* Variables in pieces, for those that go to another state. The first three push the name, the default value, the value
 * in the current context; or push nothing and return false, if there is none. idx is a ContextVar. */
void al_var_push_name(lua_State *L, int idx);
bool al_var_push_default(lua_State *L, int idx);
bool al_var_push_value(lua_State *L, al_ctx *ctx, int idx);
void al_var_new(lua_State *L, al_ctx *ctx);     /* pops a name, pushes a ContextVar without a default value */
void al_var_set_default(lua_State *L, int idx); /* pops the value */
void al_var_set(lua_State *L, al_ctx *ctx,
                int idx); /* pops the value, which it has in the current context from then on */

void al_context_openlib(lua_State *L, al_ctx *ctx);

#endif
