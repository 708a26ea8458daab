/* module.h - the module in a Lua state, for the interpreter and the embedding API.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_MODULE_H
#define AL_MODULE_H

#include "ctx.h"

/* Opens the core in the state and lets its `require` find "aloop" and all below it. Idempotent. */
al_ctx *al_module_open(lua_State *L);

/* Pushes the table of all that the bindings offer to the Lua part (aloop.core). */
void al_module_pushcore(lua_State *L);

/* embed_api.c: main chunks. */
void al_main_openlib(lua_State *L, al_ctx *ctx);

#endif
