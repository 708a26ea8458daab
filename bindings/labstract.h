/* labstract.h - what all loops and servers have.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LABSTRACT_H
#define AL_LABSTRACT_H

#include "ctx.h"

void al_abstract_openlib(lua_State *L, al_ctx *ctx);

#endif
