/* lremote.h - a loop as other threads have it: its remote, and RemoteLoop, what a Loop becomes in another Lua state.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LREMOTE_H
#define AL_LREMOTE_H

#include "lconcurrent.h"

typedef struct al_answer al_answer; /* what l_loop.answers points to */

/* The loop is being closed: who waits for one of its coroutines hears that it is cancelled. Never throws. */
void al_answers_forget(al_ctx *ctx, l_loop *loop);

void al_remote_openlib(lua_State *L, al_ctx *ctx);

#endif
