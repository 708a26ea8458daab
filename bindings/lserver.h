/* lserver.h - the Server object; llisten.c makes them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSERVER_H
#define AL_LSERVER_H

#include "lsocket.h"
#include "ltask.h"
#include "ltls.h"

/* User values of a server. */
enum {
  AL_SERVER_UV_LOOP = 1,
  AL_SERVER_UV_FACTORY,
  AL_SERVER_UV_METHODS, /* the method set of the protocol made last */
  AL_SERVER_UV_CONTEXT, /* of start_serving: accepted connections live in copies of it */
  AL_SERVER_UV_LENT,    /* the object that lent its socket, to be closed with the server's */
  AL_SERVER_UV_SSL,     /* its SSLContext */
  AL_SERVER_UV_COUNT = AL_SERVER_UV_SSL
};

typedef struct l_closed_wait l_closed_wait; /* somebody in wait_closed() */

typedef struct l_server {
  al_server *server; /* one reference; NULL in a half-made object only */
  al_ctx *ctx;
  l_loop *loop;
  l_closed_wait *waiters;
  l_wait *forever; /* serve_forever's */
  int slot;        /* anchored from the start of serving until it is closed and its clients are gone */
  l_tls tls;       /* context is not where it stands, but whether there is one */
  uint8_t context_kind;
  bool done; /* closed, and no client is left */
} l_server;

/* Makes a Server without sockets for the loop at stack index 1 and the factory at 2, and pushes it. */
l_server *al_server_make(lua_State *L, al_ctx *ctx, l_loop *loop, const l_tls *tls);

/* Nothing came of it: what it has is given back at once. */
void al_server_drop(l_server *s);

/* Starts serving; on failure the server is closed and this raises. idx: the server's. */
void al_server_begin(lua_State *L, al_ctx *ctx, l_server *s, int idx);

/* The socket that was given is the server's from now on. Raises; the socket then stays where it was. unlink: see
 * al_server_add. */
void al_server_take(lua_State *L, al_ctx *ctx, l_server *s, int idx, const l_given *given, int backlog,
                    const char *unlink);

void al_server_openlib(lua_State *L, al_ctx *ctx);

#endif
