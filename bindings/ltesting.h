/* ltesting.h - what aloop.testing needs of C: the clock of a loop on virtual time, and what is open.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTESTING_H
#define AL_LTESTING_H

#include "ctx.h"

/* The clock at arg, which lives as long as that value; NULL if it is something else, or none. */
al_clock *al_opt_clock(lua_State *L, int arg);

void al_testing_openlib(lua_State *L, al_ctx *ctx);

#endif
