/* lnet.h - what the functions that make endpoints by name have in common: their options. lnet.c connects, llisten.c
 * listens.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LNET_H
#define AL_LNET_H

#include "lresolve.h"

/* Options of the table at arg to function f: what isn't given is `otherwise`; raise "bad option ...". */
int al_int_option(lua_State *L, int arg, const char *f, const char *name, int otherwise);
bool al_bool_option(lua_State *L, int arg, const char *f, const char *name, bool otherwise);
bool al_option_given(lua_State *L, int arg, const char *name); /* it is there and not nil */

/* Checks ssl and the options that only go with it, in asyncio's order. host: index of the name that TLS would check, 0:
 * there is none (servers). */
void al_check_ssl_options(lua_State *L, al_ctx *ctx, int arg, const char *f, int host);

/* Pushes the option sock; false, and nothing, if it isn't given. Raises for what can't be a socket. */
bool al_sock_option(lua_State *L, int arg, const char *f);

void al_net_openlib(lua_State *L, al_ctx *ctx);
void al_listen_openlib(lua_State *L, al_ctx *ctx);

#endif
