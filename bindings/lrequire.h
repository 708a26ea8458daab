/* lrequire.h - the yieldable require.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LREQUIRE_H
#define AL_LREQUIRE_H

#include "ctx.h"

/* Replaces the global `require`. */
void al_require_install(lua_State *L, al_ctx *ctx);

#endif
