/* lnet.h - what the functions that make endpoints by name have in common: their options. lnet.c connects, llisten.c
 * listens.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LNET_H
#define AL_LNET_H

#include "lresolve.h"

/* Pushes the option sock; false, and nothing, if it isn't given. Raises for what can't be a socket. */
bool al_sock_option(lua_State *L, int arg, const char *f);

void al_net_openlib(lua_State *L, al_ctx *ctx);
void al_listen_openlib(lua_State *L, al_ctx *ctx);

#endif
