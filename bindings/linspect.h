/* linspect.h - looking into tasks: their stacks, and what they wait for.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LINSPECT_H
#define AL_LINSPECT_H

#include "ctx.h"

/* Pushes an array of the Lua frames of a coroutine and of those that it resumes, the oldest first; at most the limit
 * newest ones (< 0: all). */
void al_push_frames(lua_State *L, lua_State *co, lua_Integer limit);

void al_inspect_openlib(lua_State *L, al_ctx *ctx);

#endif
