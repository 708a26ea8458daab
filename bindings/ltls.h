/* ltls.h - TLS transports for scripts: the option `ssl` and its kin of every function that makes endpoints, and
 * loop:start_tls. The objects around it are in lssl.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTLS_H
#define AL_LTLS_H

#include "lendpoint.h"

/* User values of a TLS transport. */
enum {
  AL_TLS_UV_CONTEXT = AL_TRANSPORT_UV_OWN, /* its SSLContext */
  AL_TLS_UV_OBJECT,                        /* its SSLObject, once somebody asked */
  AL_TLS_UV_HOSTNAME,                      /* a client's: server_hostname */
  AL_TLS_UV_BELOW,                         /* of start_tls: the transport below */
  AL_TLS_UV_COUNT = AL_TLS_UV_BELOW - AL_TRANSPORT_UV_COUNT
};

/* What the options ask for. */
typedef struct l_tls {
  int context;                                       /* where the SSLContext stands; 0: no TLS is wanted */
  int hostname, session;                             /* of a client's connection; 0: none */
  int64_t handshake_timeout_ns, shutdown_timeout_ns; /* 0: the default */
  bool server_side;
} l_tls;

/* Checks the options at arg of function f that are about TLS, and pushes what *tls names, AL_TLS_VALUES values in any
 * case. host: index of the name that a client's connection goes to; AL_TLS_NO_HOST; or AL_TLS_SERVER_SIDE: there is
 * neither server_hostname nor session. */
enum { AL_TLS_NO_HOST = 0, AL_TLS_SERVER_SIDE = -1, AL_TLS_VALUES = 3 };
void al_tls_check_options(lua_State *L, al_ctx *ctx, int arg, const char *f, int host, l_tls *tls);

/* Makes a TLS transport over the connected socket *fd, as al_transport_make does; done is called with data when its
 * handshake is over. */
l_transport *al_tls_make(lua_State *L, al_ctx *ctx, l_loop *loop, int *fd, const al_addr *peer, int protocol, int last,
                         const l_tls *tls, al_tls_done_fn *done, void *data, int keep);

/* As al_endpoint_make, for one that tls asks for (or not: a stream transport then). */
int al_tls_endpoint_make(lua_State *L, al_ctx *ctx, l_endpoint *e, int factory, const al_addr *peer, const l_tls *tls,
                         const l_given *given);

/* Pushes the extra information of a TLS transport at 1 that only such a one has; false, and nothing, if there is none
 * of that name. */
bool al_tls_push_info(lua_State *L, al_ctx *ctx, const char *name);

void al_tls_openlib(lua_State *L, al_ctx *ctx);

#endif
