/* lgenerator.h - what asynchronous generators need of C.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LGENERATOR_H
#define AL_LGENERATOR_H

#include "ctx.h"

void al_generator_openlib(lua_State *L, al_ctx *ctx);

#endif
