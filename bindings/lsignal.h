/* lsignal.h - aloop.signal, and signal handlers of loops.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSIGNAL_H
#define AL_LSIGNAL_H

#include "ctx.h"

/* The signal at arg: a number, or a name ("SIGTERM"). Raises a type error, or ValueError for a name that is none; the
 * number is checked by whoever uses it. */
int al_check_signal(lua_State *L, al_ctx *ctx, int arg);

void al_signal_openlib(lua_State *L, al_ctx *ctx);

#endif
