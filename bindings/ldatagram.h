/* ldatagram.h - loop:create_datagram_endpoint, and what lprotocol.c needs of a datagram transport: the addresses of
 * those that it hears from.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LDATAGRAM_H
#define AL_LDATAGRAM_H

#include "ctx.h"

/* Pushes the address, of which the senders at idx (first own value of the transport) may have an array already. */
void al_senders_push(lua_State *L, int idx, const al_addr *addr);

void al_datagram_openlib(lua_State *L, al_ctx *ctx);

#endif
