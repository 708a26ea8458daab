/* lsockops.h - loop:sock_recv and its kin, for programs that want to keep their sockets. Transports are the faster way:
 * they try less and wait less.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSOCKOPS_H
#define AL_LSOCKOPS_H

#include "lsocket.h"

typedef struct l_sock_wait l_sock_wait; /* somebody who waits for a socket */
typedef struct l_sockops l_sockops;     /* what al_ctx.sockops points to */

/* The socket is about to be closed: who waits for it is woken, and gets the error of a closed descriptor. */
void al_sockops_closing(l_socket *socket);

/* A core's handle was taken off its descriptor by add_reader, remove_reader and their kin. If it is that of a waiting
 * task, that is told of and waits on, as in asyncio; else nothing. */
void al_sockops_replaced(al_ctx *ctx, al_handle *handle);

/* The descriptor of the socket at idx, for a function of the loop; raises for one that blocks, is closed, or is a live
 * transport's. */
int al_check_sock(lua_State *L, al_ctx *ctx, l_loop *loop, int idx);

void al_sockops_openlib(lua_State *L, al_ctx *ctx);

#endif
