/* lssldefault.c - create_default_context: a context with what Python recommends today. Option `ssl = true` is one, too.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"

#include <stdlib.h>
#include <string.h>

/* Python's Purpose members are the names of what a certificate may be used for. */
#define SERVER_AUTH "1.3.6.1.5.5.7.3.1"
#define CLIENT_AUTH "1.3.6.1.5.5.7.3.2"

/* Must the environment be left alone? The interpreter's -E. */
static bool ignores_environment(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  bool ignored = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return ignored;
}

/* Through the field, so that it shows there. */
static void set_keylog(lua_State *L) {
  const char *path = ignores_environment(L) ? NULL : secure_getenv("SSLKEYLOGFILE");
  if (!path || !*path) return;
  lua_pushstring(L, path);
  lua_setfield(L, -2, "keylog_filename");
}

void al_push_default_ssl_context(lua_State *L, al_ctx *ctx, bool for_server, int arg) {
  int protocol = for_server ? AL_SSL_PROTOCOL_TLS_SERVER : AL_SSL_PROTOCOL_TLS_CLIENT;
  l_ssl_context *c = al_ssl_context_new(L, ctx, protocol);
  al_tls_error why;
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(al_tls_ctx_native(c->tls)),
                              X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_X509_STRICT);
  bool loaded = arg && al_ssl_load_ca(L, c, arg, "create_default_context");
  if (!loaded && !for_server && al_tls_ctx_load_defaults(c->tls, &why)) al_raise_tls(L, ctx, &why, NULL);
  set_keylog(L);
}

/* create_default_context([purpose], {cafile, capath, cadata}) */
static int create_default_context(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (!lua_isnoneornil(L, 1) && lua_type(L, 1) != LUA_TSTRING) return al_typeerror(L, 1, "Purpose");
  const char *purpose = luaL_optstring(L, 1, SERVER_AUTH);
  bool for_server = strcmp(purpose, CLIENT_AUTH) == 0;
  if (!for_server && strcmp(purpose, SERVER_AUTH) != 0)
    return al_raise(L, ctx, AL_C_ValueError, "no purpose of a context: '%s'", purpose);
  al_options(L, 2, "create_default_context", al_ssl_ca_options);
  lua_settop(L, 2);
  al_push_default_ssl_context(L, ctx, for_server, 2);
  return 1;
}

/* ssl_constants() → a new table of them, for lua/aloop/ssl.lua */
static int ssl_constants(lua_State *L) {
  al_tls_error why;
  if (al_tls_load(&why)) return al_raise_tls(L, al_ctx_of(L), &why, NULL);
  lua_createtable(L, 0, 100);
  al_ssl_constants(L);
  lua_createtable(L, 0, 2);
  lua_pushliteral(L, SERVER_AUTH);
  lua_setfield(L, -2, "SERVER_AUTH");
  lua_pushliteral(L, CLIENT_AUTH);
  lua_setfield(L, -2, "CLIENT_AUTH");
  lua_setfield(L, -2, "Purpose");
  return 1;
}

static const luaL_Reg functions[] = {
    {"create_default_context", create_default_context}, {"ssl_constants", ssl_constants}, {NULL, NULL}};

void al_ssl_default_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
