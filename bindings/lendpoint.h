/* lendpoint.h - the last step of every function that makes an endpoint: from a descriptor to a transport whose protocol
 * has been told. Used by lnet.c and ldatagram.c; for pipes, too.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LENDPOINT_H
#define AL_LENDPOINT_H

#include "lresolve.h"
#include "lsocket.h"
#include "ltransport.h"

/* The state of such a function, or the first member of it: a userdata on its stack. */
typedef struct l_endpoint {
  l_op base;
  l_wait wait;
  l_loop *loop;
  int fd;             /* connected, and no transport's yet; or -1 */
  int idx;            /* where this stands on the stack */
  al_handle started;  /* queued by the transport after connection_made */
  al_transport *made; /* waited for */
  int error;          /* of a TLS handshake */
} l_endpoint;

/* Pushes a new state of size bytes. dispose has to call al_endpoint_dispose. */
void *al_endpoint_new(lua_State *L, al_ctx *ctx, l_loop *loop, size_t size, void (*dispose)(l_op *op));
/* Closes what has no owner yet. */
void al_endpoint_dispose(l_endpoint *e);

/* Has the factory at index factory make a protocol, makes a transport of this kind over e->fd or over the socket given
 * (NULL: none), and waits until it is connected: `return al_endpoint_make(...)`, whose results are transport and
 * protocol. A cancellation meanwhile closes the transport. */
int al_endpoint_make(lua_State *L, al_ctx *ctx, l_endpoint *e, int factory, const l_transport_kind *kind,
                     const void *how, const l_given *given);

/* The last steps of that, for who makes the transport otherwise: waits for al_endpoint_done (a TLS transport's `done`,
 * with e as its data). The kind's abandon is al_endpoint_abandon; its finish lets al_endpoint_finish raise what the
 * handshake of the transport at idx failed with. */
int al_endpoint_wait(lua_State *L, al_ctx *ctx, l_endpoint *e, al_transport *made, const l_wait_kind *kind);
void al_endpoint_done(al_transport *transport, void *data, int error);
void al_endpoint_abandon(al_ctx *ctx, l_wait *wait);
void al_endpoint_finish(lua_State *L, al_ctx *ctx, l_wait *wait, int idx);

#endif
