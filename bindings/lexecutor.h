/* lexecutor.h - ThreadPoolExecutor, and the default executor of a loop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LEXECUTOR_H
#define AL_LEXECUTOR_H

#include "lpool.h"

/* The loop at idx is being closed: its default executor takes no more jobs. Never throws. */
void al_executor_abandon(lua_State *L, al_ctx *ctx, int idx);
/* The loop stops, or its thread is about to be blocked: jobs that were left to few threads are looked after. */
void al_executor_look(al_ctx *ctx);
/* The state goes: waits until the threads of its pools have ended. */
void al_executor_join_all(al_ctx *ctx);

void al_executor_openlib(lua_State *L, al_ctx *ctx);

#endif
