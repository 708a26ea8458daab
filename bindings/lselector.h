/* lselector.h - aloop.selectors. A loop that is made with a selector reads which kind it is off its class, the
 * metafield __machine.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSELECTOR_H
#define AL_LSELECTOR_H

#include "ctx.h"

void al_selector_openlib(lua_State *L, al_ctx *ctx);

#endif
