/* linspect.h - looking into tasks: their stacks, and what they wait for.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LINSPECT_H
#define AL_LINSPECT_H

#include "ctx.h"

void al_inspect_openlib(lua_State *L, al_ctx *ctx);

#endif
