/* lsslobject.c - SSLObject, get_extra_info("ssl_object"): what a connection has agreed on, and who the other end is. It
 * keeps OpenSSL's object, so it answers when the transport is closed, too.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"
#include "ltls.h"

#include <string.h>

enum { UV_CONTEXT = 1, UV_HOSTNAME, UV_COUNT = UV_HOSTNAME };

typedef struct l_ssl_object {
  SSL *ssl; /* one reference */
} l_ssl_object;

static l_ssl_object *push_new(lua_State *L, al_ctx *ctx, SSL *ssl, int box) {
  l_ssl_object *o = al_new(L, ctx, AL_C_SSLObject, sizeof *o, UV_COUNT);
  lua_getiuservalue(L, box, AL_TLS_UV_CONTEXT);
  lua_setiuservalue(L, -2, UV_CONTEXT);
  lua_getiuservalue(L, box, AL_TLS_UV_HOSTNAME);
  lua_setiuservalue(L, -2, UV_HOSTNAME);
  SSL_up_ref(ssl);
  o->ssl = ssl;
  return o;
}

void al_push_ssl_object(lua_State *L, al_ctx *ctx, int box) {
  box = lua_absindex(L, box);
  const l_transport *t = lua_touserdata(L, box);
  if (lua_getiuservalue(L, box, AL_TLS_UV_OBJECT) != LUA_TNIL) return;
  SSL *ssl = al_tls_native(t->t);
  if (!ssl) return;
  lua_pop(L, 1);
  push_new(L, ctx, ssl, box);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, box, AL_TLS_UV_OBJECT);
}

static SSL *test_ssl(lua_State *L, int idx) {
  const l_ssl_object *o = al_test(L, al_ctx_of(L), idx, AL_C_SSLObject);
  return o ? o->ssl : NULL;
}

static SSL *check_ssl(lua_State *L) {
  SSL *ssl = test_ssl(L, 1);
  if (!ssl) al_typeerror(L, 1, "SSLObject");
  return ssl;
}

static int object_gc(lua_State *L) {
  l_ssl_object *o = al_test(L, al_ctx_of(L), 1, AL_C_SSLObject);
  if (o) SSL_free(o->ssl);
  if (o) o->ssl = NULL;
  return 0;
}

static int push_none(lua_State *L) {
  lua_pushnil(L);
  return 1;
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

/* getpeercert([binary]) → table or DER; nil: it sent none. What was not asked for is not believed, so the table is
 * empty. */
static int object_getpeercert(lua_State *L) {
  SSL *ssl = check_ssl(L);
  bool binary = lua_toboolean(L, 2);
  if (!SSL_is_init_finished(ssl)) return al_raise(L, al_ctx_of(L), AL_C_ValueError, "handshake not done yet");
  X509 *cert = SSL_get0_peer_certificate(ssl);
  if (!cert)
    lua_pushnil(L);
  else if (!binary && !(SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER))
    lua_newtable(L);
  else
    al_push_certificate(L, al_ctx_of(L), cert, binary);
  return 1;
}

/* cipher() → name, protocol, bits; nil: none yet */
static int object_cipher(lua_State *L) {
  const SSL_CIPHER *cipher = SSL_get_current_cipher(check_ssl(L));
  if (!cipher) return push_none(L);
  lua_pushstring(L, SSL_CIPHER_get_name(cipher));
  lua_pushstring(L, SSL_CIPHER_get_version(cipher));
  lua_pushinteger(L, SSL_CIPHER_get_bits(cipher, NULL));
  return 3;
}

static int object_version(lua_State *L) {
  const SSL *ssl = check_ssl(L);
  if (!SSL_is_init_finished(ssl)) return push_none(L);
  lua_pushstring(L, SSL_get_version(ssl));
  return 1;
}

static int object_selected_alpn_protocol(lua_State *L) {
  const unsigned char *name;
  unsigned len;
  SSL_get0_alpn_selected(check_ssl(L), &name, &len);
  if (!name) return push_none(L);
  lua_pushlstring(L, (const char *)name, len);
  return 1;
}

static int object_compression(lua_State *L) {
  const COMP_METHOD *method = SSL_get_current_compression(check_ssl(L));
  if (!method) return push_none(L);
  lua_pushstring(L, COMP_get_name(method));
  return 1;
}

/* RFC 5929: the first Finished message, which is the client's of a full handshake and the server's of a resumed one.
 * TLS 1.3 has no such binding. */
static int push_unique(lua_State *L, const SSL *ssl) {
  char message[EVP_MAX_MD_SIZE];
  if (SSL_version(ssl) >= TLS1_3_VERSION) return push_none(L);
  bool ours = SSL_session_reused(ssl) == SSL_is_server(ssl);
  size_t len =
      ours ? SSL_get_finished(ssl, message, sizeof message) : SSL_get_peer_finished(ssl, message, sizeof message);
  if (len == 0) return push_none(L);
  lua_pushlstring(L, message, len);
  return 1;
}

/* RFC 9266. */
static int push_exporter(lua_State *L, SSL *ssl) {
  static const char label[] = "EXPORTER-Channel-Binding";
  unsigned char key[32];
  if (!SSL_is_init_finished(ssl)) return push_none(L);
  int ok = SSL_export_keying_material(ssl, key, sizeof key, label, sizeof label - 1, NULL, 0, 1);
  ERR_clear_error();
  if (ok != 1) return push_none(L);
  lua_pushlstring(L, (const char *)key, sizeof key);
  return 1;
}

/* get_channel_binding([kind = "tls-unique"]) → bytes, or nil if this connection has none */
static int object_get_channel_binding(lua_State *L) {
  SSL *ssl = check_ssl(L);
  const char *kind = "tls-unique";
  if (!lua_isnoneornil(L, 2)) {
    if (lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
    kind = lua_tostring(L, 2);
  }
  if (strcmp(kind, "tls-unique") == 0) return push_unique(L, ssl);
  if (strcmp(kind, "tls-exporter") == 0) return push_exporter(L, ssl);
  return al_raise(L, al_ctx_of(L), AL_C_ValueError, "'%s' channel binding type not implemented", kind);
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

/* Pushes the session to be taken up by a next connection; nil: there is none. */
static void push_session(lua_State *L, SSL *ssl) {
  SSL_SESSION *session = SSL_get_session(ssl);
  if (!session) {
    lua_pushnil(L);
    return;
  }
  lua_getiuservalue(L, 1, UV_CONTEXT);
  al_push_ssl_session(L, al_ctx_of(L), session, -1);
}

/* Pushes the field; false if there is none of that name. */
static bool push_field(lua_State *L, SSL *ssl, const char *name) {
  if (strcmp(name, "context") == 0)
    lua_getiuservalue(L, 1, UV_CONTEXT);
  else if (strcmp(name, "server_hostname") == 0)
    lua_getiuservalue(L, 1, UV_HOSTNAME);
  else if (strcmp(name, "server_side") == 0)
    lua_pushboolean(L, SSL_is_server(ssl));
  else if (strcmp(name, "session") == 0)
    push_session(L, ssl);
  else if (strcmp(name, "session_reused") == 0)
    lua_pushboolean(L, SSL_session_reused(ssl));
  else
    return false;
  return true;
}

static int object_index(lua_State *L) {
  SSL *ssl = test_ssl(L, 1);
  if (ssl && lua_type(L, 2) == LUA_TSTRING && push_field(L, ssl, lua_tostring(L, 2))) return 1;
  return al_class_lookup(L);
}

/* context may be set, by a servername callback: the connection goes on with another certificate. */
static int object_newindex(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  SSL *ssl = check_ssl(L);
  if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "context") != 0)
    return luaL_error(L, "an SSLObject has no field '%s' that can be set", luaL_tolstring(L, 2, NULL));
  const l_ssl_context *other = al_test_ssl_context(L, ctx, 3);
  if (!other)
    return luaL_error(L, "bad value for field 'context' of an SSLObject (SSLContext expected, got %s)",
                      luaL_typename(L, 3));
  int err = al_tls_choose_ctx(ssl, other->tls);
  if (err) return al_raise_os(L, ctx, err, NULL, NULL);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 1, UV_CONTEXT);
  return 0;
}

static const luaL_Reg methods[] = {{"getpeercert", object_getpeercert},
                                   {"cipher", object_cipher},
                                   {"version", object_version},
                                   {"selected_alpn_protocol", object_selected_alpn_protocol},
                                   {"compression", object_compression},
                                   {"get_channel_binding", object_get_channel_binding},
                                   {"__index", object_index},
                                   {"__newindex", object_newindex},
                                   {"__gc", object_gc},
                                   {NULL, NULL}};

void al_ssl_object_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_SSLObject, methods); }
