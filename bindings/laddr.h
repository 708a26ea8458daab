/* laddr.h - socket addresses between Lua and the core: arrays {host, port} and {host, port, flowinfo, scope_id},
 * strings for Unix sockets.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LADDR_H
#define AL_LADDR_H

#include "ctx.h"

/* Pushes the address; arrays also answer .host, .port and tostring. "" for an unnamed Unix socket. */
void al_pushaddr(lua_State *L, const al_addr *addr);

/* Is the table at idx an array that al_pushaddr made? And makes one of the table on top. */
bool al_is_addr(lua_State *L, int idx);
void al_addr_adopt(lua_State *L);

/* The address at arg, for a socket of this family. The host may be "" for any; a name is looked up at once, which may
 * block, as in Python's sockets. Raises type errors, ValueError for what is no address, gaierror. */
void al_check_addr(lua_State *L, al_ctx *ctx, int arg, int family, al_addr *addr);
/* The same, but returns the error of a host that can't be looked up; 0: it was found. */
int al_find_addr(lua_State *L, al_ctx *ctx, int arg, int family, al_addr *addr);

/* The same for an address with a numeric host, as the system gives them: never blocks; gaierror for a name. */
void al_check_numeric_addr(lua_State *L, al_ctx *ctx, int arg, al_addr *addr);

/* The host at idx, a string or nil (NULL); raises ValueError for one that the system would not read to its end. */
const char *al_check_host(lua_State *L, al_ctx *ctx, int idx);

/* The Unix path at idx, which is a string; raises ValueError or OSError for one that can't be. */
void al_check_unix_path(lua_State *L, al_ctx *ctx, int idx, al_addr *addr);

/* Whether the value can be a port: nil or none, an integer, a string. */
bool al_is_service(lua_State *L, int idx);
/* Pushes the port at arg (nil, a number, or the name of a service) as the string that getaddrinfo wants, and returns
 * it; NULL for nil and "". */
const char *al_check_service(lua_State *L, al_ctx *ctx, int arg);

void al_addr_openlib(lua_State *L, al_ctx *ctx);

#endif
