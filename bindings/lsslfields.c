/* lsslfields.c - the fields of an SSLContext: each is a getter and, if it may be set, a setter over OpenSSL's own
 * state, so that nothing is known twice.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"

#include <stdio.h>
#include <string.h>

typedef struct field {
  const char *name;
  void (*get)(lua_State *L, const l_ssl_context *c);
  void (*set)(lua_State *L, l_ssl_context *c); /* the value is at VALUE. NULL: it can't be set */
} field;

enum { CONTEXT = 1, KEY, VALUE };

static SSL_CTX *native_of(const l_ssl_context *c) { return al_tls_ctx_native(c->tls); }

static void refuse(lua_State *L, const char *expected) {
  luaL_error(L, "bad value for field '%s' of an SSLContext (%s expected, got %s)", lua_tostring(L, KEY), expected,
             luaL_typename(L, VALUE));
}

static lua_Integer check_integer(lua_State *L) {
  lua_Integer n = 0;
  if (!al_isinteger(L, VALUE, &n)) refuse(L, "integer");
  return n;
}

static bool check_boolean(lua_State *L) {
  if (!lua_isboolean(L, VALUE)) refuse(L, "boolean");
  return lua_toboolean(L, VALUE);
}

/* ---- whom to believe --------------------------------------------------------------------------------------------- */

static void get_check_hostname(lua_State *L, const l_ssl_context *c) {
  lua_pushboolean(L, al_tls_ctx_check_hostname(c->tls));
}

static void set_check_hostname(lua_State *L, l_ssl_context *c) {
  al_tls_ctx_set_check_hostname(c->tls, check_boolean(L));
}

static void get_common_name(lua_State *L, const l_ssl_context *c) {
  lua_pushboolean(L, al_tls_ctx_check_common_name(c->tls));
}

static void set_common_name(lua_State *L, l_ssl_context *c) {
  al_tls_ctx_set_check_common_name(c->tls, check_boolean(L));
}

/* CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED */
static const int modes[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};

static void get_verify_mode(lua_State *L, const l_ssl_context *c) {
  int mode = SSL_CTX_get_verify_mode(native_of(c));
  lua_pushinteger(L, !(mode & SSL_VERIFY_PEER) ? 0 : mode & SSL_VERIFY_FAIL_IF_NO_PEER_CERT ? 2 : 1);
}

static void set_verify_mode(lua_State *L, l_ssl_context *c) {
  lua_Integer mode = check_integer(L);
  if (mode < 0 || mode > 2) al_raise(L, c->ctx, AL_C_ValueError, "invalid value for verify_mode");
  if (al_tls_ctx_set_verify(c->tls, modes[mode]))
    al_raise(L, c->ctx, AL_C_ValueError, "Cannot set verify_mode to CERT_NONE when check_hostname is enabled.");
}

static void get_verify_flags(lua_State *L, const l_ssl_context *c) {
  lua_pushinteger(L, (lua_Integer)X509_VERIFY_PARAM_get_flags(SSL_CTX_get0_param(native_of(c))));
}

static void set_verify_flags(lua_State *L, l_ssl_context *c) {
  X509_VERIFY_PARAM *param = SSL_CTX_get0_param(native_of(c));
  unsigned long wanted = (unsigned long)check_integer(L), now = X509_VERIFY_PARAM_get_flags(param);
  X509_VERIFY_PARAM_clear_flags(param, now & ~wanted);
  X509_VERIFY_PARAM_set_flags(param, wanted & ~now);
}

/* ---- which TLS --------------------------------------------------------------------------------------------------- */

static void get_options(lua_State *L, const l_ssl_context *c) {
  lua_pushinteger(L, (lua_Integer)SSL_CTX_get_options(native_of(c)));
}

static void set_options(lua_State *L, l_ssl_context *c) {
  lua_Integer options = check_integer(L);
  if (options < 0) al_raise(L, c->ctx, AL_C_ValueError, "options must not be negative");
  uint64_t wanted = (uint64_t)options, now = SSL_CTX_get_options(native_of(c));
  SSL_CTX_clear_options(native_of(c), now & ~wanted);
  SSL_CTX_set_options(native_of(c), wanted & ~now);
}

static void get_minimum(lua_State *L, const l_ssl_context *c) {
  long version = SSL_CTX_get_min_proto_version(native_of(c));
  lua_pushinteger(L, version ? version : AL_SSL_MINIMUM_SUPPORTED);
}

static void get_maximum(lua_State *L, const l_ssl_context *c) {
  long version = SSL_CTX_get_max_proto_version(native_of(c));
  lua_pushinteger(L, version ? version : AL_SSL_MAXIMUM_SUPPORTED);
}

/* OpenSSL's number for the TLSVersion at VALUE; open is the end of the range that has no limit, and is OpenSSL's 0. */
static int check_version(lua_State *L, l_ssl_context *c, lua_Integer open) {
  lua_Integer version = check_integer(L);
  if (version == open) return 0;
  if (version == AL_SSL_MINIMUM_SUPPORTED) return TLS1_VERSION;
  if (version == AL_SSL_MAXIMUM_SUPPORTED) return TLS1_3_VERSION;
  if (version < SSL3_VERSION || version > TLS1_3_VERSION) {
    char number[32];
    snprintf(number, sizeof number, "0x%llx", (unsigned long long)version);
    al_raise(L, c->ctx, AL_C_ValueError, "Unsupported TLS/SSL version %s", number);
  }
  return (int)version;
}

static void check_accepted(lua_State *L, l_ssl_context *c, long accepted) {
  if (accepted) return;
  ERR_clear_error();
  al_raise(L, c->ctx, AL_C_ValueError, "Unsupported protocol version");
}

static void set_minimum(lua_State *L, l_ssl_context *c) {
  int version = check_version(L, c, AL_SSL_MINIMUM_SUPPORTED);
  check_accepted(L, c, SSL_CTX_set_min_proto_version(native_of(c), version));
}

static void set_maximum(lua_State *L, l_ssl_context *c) {
  int version = check_version(L, c, AL_SSL_MAXIMUM_SUPPORTED);
  check_accepted(L, c, SSL_CTX_set_max_proto_version(native_of(c), version));
}

static void get_protocol(lua_State *L, const l_ssl_context *c) { lua_pushinteger(L, c->protocol); }

static void get_security_level(lua_State *L, const l_ssl_context *c) {
  lua_pushinteger(L, SSL_CTX_get_security_level(native_of(c)));
}

/* ---- sessions, secrets, names ------------------------------------------------------------------------------------ */

static void get_num_tickets(lua_State *L, const l_ssl_context *c) {
  lua_pushinteger(L, (lua_Integer)SSL_CTX_get_num_tickets(native_of(c)));
}

static void set_num_tickets(lua_State *L, l_ssl_context *c) {
  lua_Integer n = check_integer(L);
  if (n < 0) al_raise(L, c->ctx, AL_C_ValueError, "value must be non-negative");
  if (al_tls_ctx_kind(c->tls) != AL_TLS_SERVER)
    al_raise(L, c->ctx, AL_C_ValueError, "SSLContext is not a server context.");
  SSL_CTX_set_num_tickets(native_of(c), (size_t)n);
}

static void get_keylog(lua_State *L, const l_ssl_context *c) {
  (void)c;
  lua_getiuservalue(L, CONTEXT, AL_SSL_UV_KEYLOG);
}

static void set_keylog(lua_State *L, l_ssl_context *c) {
  if (!lua_isnil(L, VALUE) && lua_type(L, VALUE) != LUA_TSTRING) refuse(L, "string or nil");
  int err = al_tls_ctx_set_keylog(c->tls, al_ssl_check_text(L, c->ctx, VALUE));
  if (err) al_raise_os(L, c->ctx, err, NULL, lua_tostring(L, VALUE));
  lua_pushvalue(L, VALUE);
  lua_setiuservalue(L, CONTEXT, AL_SSL_UV_KEYLOG);
}

static void get_sni_callback(lua_State *L, const l_ssl_context *c) {
  (void)c;
  lua_getiuservalue(L, CONTEXT, AL_SSL_UV_SERVERNAME);
}

static void set_sni_callback(lua_State *L, l_ssl_context *c) {
  if (!lua_isnil(L, VALUE) && !al_iscallable(L, VALUE)) refuse(L, "function or nil");
  al_ssl_set_servername(L, c, CONTEXT, VALUE);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static const field fields[] = {{"check_hostname", get_check_hostname, set_check_hostname},
                               {"hostname_checks_common_name", get_common_name, set_common_name},
                               {"verify_mode", get_verify_mode, set_verify_mode},
                               {"verify_flags", get_verify_flags, set_verify_flags},
                               {"minimum_version", get_minimum, set_minimum},
                               {"maximum_version", get_maximum, set_maximum},
                               {"options", get_options, set_options},
                               {"protocol", get_protocol, NULL},
                               {"security_level", get_security_level, NULL},
                               {"num_tickets", get_num_tickets, set_num_tickets},
                               {"keylog_filename", get_keylog, set_keylog},
                               {"sni_callback", get_sni_callback, set_sni_callback}};

static const field *find(lua_State *L) {
  const char *name = lua_type(L, KEY) == LUA_TSTRING ? lua_tostring(L, KEY) : "";
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (strcmp(fields[i].name, name) == 0) return &fields[i];
  return NULL;
}

int al_ssl_context_index(lua_State *L) {
  const l_ssl_context *c = al_test_ssl_context(L, al_ctx_of(L), CONTEXT);
  const field *f = c ? find(L) : NULL;
  if (!f) return al_class_lookup(L);
  f->get(L, c);
  return 1;
}

int al_ssl_context_newindex(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, CONTEXT);
  const field *f = find(L);
  lua_settop(L, VALUE);
  if (!f || !f->set)
    return luaL_error(L, "an SSLContext has no field '%s' that can be set", luaL_tolstring(L, KEY, NULL));
  f->set(L, c);
  return 0;
}
