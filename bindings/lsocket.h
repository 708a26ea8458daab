/* lsocket.h - aloop.socket: sockets for direct use, and TransportSocket, the view of a socket that a transport or
 * server owns.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSOCKET_H
#define AL_LSOCKET_H

#include "ctx.h"

/* A Socket or a TransportSocket. Its descriptor is its own, or that of the transport or server that took it over: then
 * it is closed when theirs is. */
typedef struct l_socket {
  int fd;                  /* -1: closed or detached */
  al_transport *transport; /* whose it is: one reference */
  al_server *server;       /* the same */
  int family, type, proto;
  bool blocking; /* as setblocking() has left it */
  struct l_sock_wait
      *waits[2]; /* who waits for it to be readable, writable (lsockops.c): they hear when it is closed */
} l_socket;

/* The descriptor; -1 if it is closed. */
int al_socket_fd(const l_socket *socket);

/* Accepts a connection of the listening descriptor: pushes its Socket and the peer's address and returns 0, or pushes
 * nothing and returns -errno. */
int al_socket_accept(lua_State *L, al_ctx *ctx, int fd);

/* Push a TransportSocket: of a transport's socket, or of socket fd of a server. */
void al_push_transport_socket(lua_State *L, al_ctx *ctx, al_transport *transport);
void al_push_server_socket(lua_State *L, al_ctx *ctx, al_server *server, int fd);

/* Adds what tostring gives for the TransportSocket of this descriptor, without making one. */
void al_socket_addtext(lua_State *L, luaL_Buffer *b, int fd);

/* ---- option `sock` ----------------------------------------------------------------------------------------------- */

/* Is the value at idx a socket that a transport or server may take over: a Socket, or an object of another module with
 * a method fileno() or getfd()? */
bool al_may_be_socket(lua_State *L, int idx);

typedef struct l_given {
  int idx; /* where the value stands */
  int fd;  /* its descriptor */
  int family, type;
  l_socket *socket; /* it is a Socket */
  bool lends;       /* it is an object of another module that will close fd by itself: its new owner works with a
                         duplicate, and closes the object when it is done */
} l_given;

/* Fills *given from the value at idx (absolute). Raises ValueError for what is no socket, RuntimeError for one in use
 * by a transport of the loop. */
void al_check_given(lua_State *L, al_ctx *ctx, al_loop *loop, int idx, l_given *given);

/* The descriptor for the new owner, made non-blocking: a duplicate is the caller's until then (given->lends).
 * Raises. */
int al_given_fd(lua_State *L, al_ctx *ctx, const l_given *given);

/* The new owner is made: just one of transport and server. */
void al_given_taken(lua_State *L, const l_given *given, al_transport *transport, al_server *server);

void al_socket_openlib(lua_State *L, al_ctx *ctx);

/* lconstants.c: adds AF_*, SOCK_*, ... to the table on top. */
void al_socket_constants(lua_State *L);

#endif
