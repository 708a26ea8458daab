/* tls_ctx.h - what tls_ctx.c shares with tls.c: contexts from OpenSSL's side, and the text of its errors.
 *
 * A connection's SSL has its al_transport as app data (SSL_set_app_data).
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_TLS_CTX_H
#define AL_TLS_CTX_H

#include "aloop.h"
#include "openssl.h"

/* Fills *why (may be NULL) from the queue of OpenSSL's errors in this thread, and empties it. ssl (may be NULL): of
 * whose certificate check it tells if that is what failed. Returns why->error: AL_ETLS*, or -errno (-ENOMEM too). */
int al__tls_take_error(al_tls_error *why, const SSL *ssl);

/* Prepares a new SSL for a connection with the host (NULL: not named; "": whatever its name is): SNI, and what the
 * certificate must be made out to. -EINVAL: the context checks names and there is none, or it
 * is no name at all; -ENOMEM. */
int al__tls_set_host(SSL *ssl, const al_tls_ctx *ctx, const char *host);

#endif
