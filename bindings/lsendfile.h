/* lsendfile.h - what loop:sendfile and sock_sendfile (lua/aloop/sendfile.lua) are made of.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSENDFILE_H
#define AL_LSENDFILE_H

#include "ctx.h"

void al_sendfile_openlib(lua_State *L, al_ctx *ctx);

#endif
