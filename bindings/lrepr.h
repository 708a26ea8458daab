/* lrepr.h - how objects show themselves, and where they were made (debug mode).
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LREPR_H
#define AL_LREPR_H

#include "lhandle.h"
#include "ltask.h"

/* Remembers where the object at idx is being made: the Lua stack, up to 10 frames. */
void al_remember_place(lua_State *L, al_ctx *ctx, int idx);
/* Pushes the remembered stack of the object at idx ("source_traceback"), or nil. */
void al_push_place(lua_State *L, al_ctx *ctx, int idx);
/* Pushes " created at x.lua:3", or "". */
void al_push_place_text(lua_State *L, al_ctx *ctx, int idx);
/* Is it the source (lua_Debug's) of one of aloop's own Lua files, which are no place that a
 * script's author looks for? */
bool al_is_own_source(const char *source);

/* Adds a short text for any value: strings quoted and cut, functions as `function <file:line>`. */
void al_add_repr(lua_State *L, luaL_Buffer *b, int idx);

/* Pushes <Handle …> of the handle at idx. */
void al_handle_repr(lua_State *L, al_ctx *ctx, l_handle *handle, int idx);
/* Pushes the text of callback and arguments. A cancelled handle may have it in place of the callback. */
void al_handle_push_text(lua_State *L, l_handle *handle, int idx);
/* Writes "Exception in callback " and the callback with its arguments to buf. Never throws. */
void al_handle_describe(lua_State *L, l_handle *handle, int idx, char *buf, size_t size);

/* Pushes <Future …> or <Task …> of the future at idx. */
void al_future_repr(lua_State *L, al_ctx *ctx, l_future *future, int idx);

void al_repr_openlib(lua_State *L, al_ctx *ctx);

#endif
