/* ledit.h - line editing at the prompt.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LEDIT_H
#define AL_LEDIT_H

#include "ctx.h"

void al_edit_openlib(lua_State *L, al_ctx *ctx);

#endif
