/* lwatchdog.h - the watchdog of the interpreter (-X watchdog=SECONDS): tells on stderr where Lua is while it keeps the
 * loop from turning.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LWATCHDOG_H
#define AL_LWATCHDOG_H

#include "ctx.h"

/* Starts it, after al_query_begin; 0 or -errno. end: before the state is closed. */
int al_watchdog_start(al_ctx *ctx, double seconds);
void al_watchdog_end(void);

/* The loop begins to run in the interpreter's thread, or (NULL, or the one outside) has ended. Without a watchdog
 * nothing. */
void al_watchdog_loop(al_ctx *ctx, l_loop *loop);

/* lquery.c: the thread that runs Lua answers, out of the code that runs in L (or not: it has just come to an end).
 * There are free stack slots. Never throws. */
void al_watchdog_answer(lua_State *L, bool interrupted);

#endif
