/* lpipe.h - aloop.pipe.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPIPE_H
#define AL_LPIPE_H

#include "ctx.h"

void al_pipe_openlib(lua_State *L, al_ctx *ctx);

#endif
