/* lssl.h - aloop.ssl: contexts, what a TLS connection tells of itself, sessions, certificates and errors of TLS. lssl.c
 * has contexts, the other files one thing each.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSSL_H
#define AL_LSSL_H

#include "ctx.h"
#include "openssl.h"

/* ---- contexts (lssl.c, lssldefault.c, lsslfields.c, lsslname.c) -------------------------------------------------- */

/* User values of an SSLContext. */
enum {
  AL_SSL_UV_SERVERNAME = 1, /* the function of set_servername_callback */
  AL_SSL_UV_KEYLOG,         /* the file's name */
  AL_SSL_UV_COUNT = AL_SSL_UV_KEYLOG
};

typedef struct l_ssl_context {
  al_tls_ctx *tls; /* one reference; its data is this */
  al_ctx *ctx;
  int protocol; /* PROTOCOL_* as it was asked for */
} l_ssl_context;

/* Python's numbers; OpenSSL has none. */
enum {
  AL_SSL_PROTOCOL_TLS = 2,
  AL_SSL_PROTOCOL_TLS_CLIENT = 16,
  AL_SSL_PROTOCOL_TLS_SERVER = 17,
  AL_SSL_MINIMUM_SUPPORTED = -2,
  AL_SSL_MAXIMUM_SUPPORTED = -1
};

/* The SSLContext at idx, or NULL. */
l_ssl_context *al_test_ssl_context(lua_State *L, al_ctx *ctx, int idx);
l_ssl_context *al_check_ssl_context(lua_State *L, int arg);

/* Pushes a new one. */
l_ssl_context *al_ssl_context_new(lua_State *L, al_ctx *ctx, int protocol);
/* Loads what the options at arg of function f name; false if they name nothing. */
bool al_ssl_load_ca(lua_State *L, l_ssl_context *c, int arg, const char *f);
extern const char *const al_ssl_ca_options[];

/* lssldefault.c: pushes what create_default_context(purpose, {options at arg}) gives; arg 0: no options. */
void al_push_default_ssl_context(lua_State *L, al_ctx *ctx, bool for_server, int arg);

/* The string at idx, or NULL for nil. ValueError if it has a zero byte, where C would take it to end. */
const char *al_ssl_check_text(lua_State *L, al_ctx *ctx, int idx);

int al_ssl_context_index(lua_State *L);    /* __index */
int al_ssl_context_newindex(lua_State *L); /* __newindex */
int al_ssl_set_servername_callback(lua_State *L);

/* Sets the function (nil: none) at idx as that of the context at box. */
void al_ssl_set_servername(lua_State *L, l_ssl_context *c, int box, int idx);

/* ---- constants (lsslconstants.c) --------------------------------------------------------------------------------- */

/* Adds Python's constants to the table on top. */
void al_ssl_constants(lua_State *L);

/* ---- errors (lsslerror.c) ---------------------------------------------------------------------------------------- */

/* Push / raise the error of TLS; an OSError if a file could not be read. filename (may be NULL): whose fault it is. */
void al_push_tls_error(lua_State *L, al_ctx *ctx, const al_tls_error *why, const char *filename);
int al_raise_tls(lua_State *L, al_ctx *ctx, const al_tls_error *why, const char *filename);
/* Pushes what a connection failed with, as the core said it: of a TLS transport with what it knows of it and who the
 * other end is. */
void al_push_transport_error(lua_State *L, al_ctx *ctx, al_transport *transport, int error);

/* ---- certificates (lsslcert.c) ----------------------------------------------------------------------------------- */

/* Pushes the certificate as Python's getpeercert() has it, or (binary) as DER. */
void al_push_certificate(lua_State *L, al_ctx *ctx, X509 *cert, bool binary);

/* ---- connections (lsslobject.c, lsslsession.c) ------------------------------------------------------------------- */

/* Pushes the SSLObject of the TLS transport at box, always the same; nil: it was closed before anybody asked. */
void al_push_ssl_object(lua_State *L, al_ctx *ctx, int box);

/* Pushes an SSLSession; context: the SSLContext that it goes with. */
void al_push_ssl_session(lua_State *L, al_ctx *ctx, SSL_SESSION *session, int context);
SSL_SESSION *al_test_ssl_session(lua_State *L, al_ctx *ctx, int idx); /* at idx, or NULL */
bool al_ssl_session_is_of(lua_State *L, int session, int context);    /* the SSLContext at context */

void al_ssl_openlib(lua_State *L, al_ctx *ctx);
void al_ssl_default_openlib(lua_State *L, al_ctx *ctx);
void al_ssl_object_openlib(lua_State *L, al_ctx *ctx);
void al_ssl_session_openlib(lua_State *L, al_ctx *ctx);

#endif
