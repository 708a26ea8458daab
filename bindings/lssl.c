/* lssl.c - SSLContext: making one, and the methods that load and set. Its fields are in lsslfields.c, what is called
 * when a client names its server in lsslname.c.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"
#include "lresolve.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

l_ssl_context *al_test_ssl_context(lua_State *L, al_ctx *ctx, int idx) {
  l_ssl_context *c = al_test(L, ctx, idx, AL_C_SSLContext);
  return c && c->tls ? c : NULL;
}

l_ssl_context *al_check_ssl_context(lua_State *L, int arg) {
  l_ssl_context *c = al_test_ssl_context(L, al_ctx_of(L), arg);
  if (!c) al_typeerror(L, arg, "SSLContext");
  return c;
}

const char *al_ssl_check_text(lua_State *L, al_ctx *ctx, int idx) {
  size_t len = 0;
  const char *text = lua_tolstring(L, idx, &len);
  if (text && memchr(text, '\0', len)) al_raise(L, ctx, AL_C_ValueError, "embedded null byte");
  return text;
}

static int context_gc(lua_State *L) {
  l_ssl_context *c = al_test(L, al_ctx_of(L), 1, AL_C_SSLContext);
  if (!c || !c->tls) return 0;
  al_tls_ctx_set_data(c->tls, NULL); /* connections may keep it */
  al_tls_ctx_release(c->tls);
  c->tls = NULL;
  return 0;
}

static al_tls_kind kind_of(lua_State *L, lua_Integer protocol) {
  switch (protocol) {
  case AL_SSL_PROTOCOL_TLS: return AL_TLS_BOTH;
  case AL_SSL_PROTOCOL_TLS_CLIENT: return AL_TLS_CLIENT;
  case AL_SSL_PROTOCOL_TLS_SERVER: return AL_TLS_SERVER;
  default: al_raise(L, al_ctx_of(L), AL_C_ValueError, "invalid or unsupported protocol version"); return AL_TLS_BOTH;
  }
}

/* Makes the context of a new SSLContext. */
static void init(lua_State *L, al_ctx *ctx, l_ssl_context *c, lua_Integer protocol) {
  al_tls_error why;
  c->ctx = ctx;
  c->protocol = (int)protocol;
  if (al_tls_ctx_new(kind_of(L, protocol), &c->tls, &why)) al_raise_tls(L, ctx, &why, NULL);
  al_tls_ctx_set_data(c->tls, c);
}

l_ssl_context *al_ssl_context_new(lua_State *L, al_ctx *ctx, int protocol) {
  l_ssl_context *c = al_new(L, ctx, AL_C_SSLContext, sizeof *c, AL_SSL_UV_COUNT);
  init(L, ctx, c, protocol);
  return c;
}

/* class, [protocol]. Without one it is a client's, so that it isn't by forgetfulness that nobody is checked. */
static int context_new(lua_State *L) {
  lua_Integer protocol = al_optinteger(L, 2, AL_SSL_PROTOCOL_TLS_CLIENT);
  init(L, al_ctx_of(L), al_new_instance(L, 1, AL_C_SSLContext, sizeof(l_ssl_context), AL_SSL_UV_COUNT), protocol);
  return 1;
}

/* ---- our certificate --------------------------------------------------------------------------------------------- */

enum { CONTEXT = 1, CERTFILE, KEYFILE, PASSWORD, FAILURE }; /* stack of load_cert_chain */

typedef struct password {
  lua_State *L;
  al_ctx *ctx;
  const char *bytes; /* or NULL: what the function at PASSWORD returns */
  size_t len;
} password;

/* Raises unless the string on top may be a password. */
static void check_password(lua_State *L, al_ctx *ctx) {
  if (lua_rawlen(L, -1) > PEM_BUFSIZE)
    al_raise(L, ctx, AL_C_ValueError, "password cannot be longer than %d bytes", PEM_BUFSIZE);
}

/* ctx, function → its result, checked */
static int ask_body(lua_State *L) {
  lua_call(L, 0, 1);
  if (lua_type(L, -1) != LUA_TSTRING)
    return luaL_error(L, "password callback must return a string, got %s", luaL_typename(L, -1));
  check_password(L, lua_touserdata(L, 1));
  return 1;
}

/* Called by OpenSSL, through which no error may be raised: it waits at FAILURE. */
static int give_password(void *ud, char *buf, int size) {
  password *p = ud;
  lua_State *L = p->L;
  if (!p->bytes) {
    lua_pushcfunction(L, ask_body);
    lua_pushlightuserdata(L, p->ctx);
    lua_pushvalue(L, PASSWORD);
    int status = lua_pcall(L, 2, 1, 0);
    lua_replace(L, status == LUA_OK ? PASSWORD : FAILURE);
    if (status != LUA_OK) return -1;
    p->bytes = lua_tolstring(L, PASSWORD, &p->len);
  }
  if (p->len > (size_t)size) return -1;
  memcpy(buf, p->bytes, p->len);
  return (int)p->len;
}

static int raise_load_failure(lua_State *L, al_ctx *ctx, const al_tls_error *why) {
  const char *cert = lua_tostring(L, CERTFILE), *key = lua_tostring(L, KEYFILE);
  if (!lua_isnil(L, FAILURE)) {
    lua_settop(L, FAILURE);
    return lua_error(L);
  }
  bool missing = why->error == -ENOENT || why->error == -EACCES;
  if (!key || (missing && access(cert, R_OK) < 0)) return al_raise_tls(L, ctx, why, cert);
  return al_raise_tls(L, ctx, why, missing ? key : lua_pushfstring(L, "%s' and '%s", cert, key));
}

/* load_cert_chain(certfile, [keyfile], [password]) */
static int context_load_cert_chain(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, CONTEXT);
  if (lua_type(L, CERTFILE) != LUA_TSTRING) return al_typeerror(L, CERTFILE, "string");
  if (!lua_isnoneornil(L, KEYFILE) && lua_type(L, KEYFILE) != LUA_TSTRING) return al_typeerror(L, KEYFILE, "string");
  bool given = !lua_isnoneornil(L, PASSWORD);
  password p = {.L = L, .ctx = c->ctx};
  lua_settop(L, PASSWORD);
  if (lua_type(L, PASSWORD) == LUA_TSTRING) {
    check_password(L, c->ctx);
    p.bytes = lua_tolstring(L, PASSWORD, &p.len);
  } else if (given && !al_iscallable(L, PASSWORD)) {
    return al_typeerror(L, PASSWORD, "string or function");
  }
  lua_pushnil(L);
  luaL_checkstack(L, 10, NULL);
  al_tls_error why;
  const char *cert = al_ssl_check_text(L, c->ctx, CERTFILE), *key = al_ssl_check_text(L, c->ctx, KEYFILE);
  if (al_tls_ctx_load_chain(c->tls, cert, key, given ? give_password : NULL, &p, &why))
    return raise_load_failure(L, c->ctx, &why);
  return 0;
}

/* ---- whom to trust ----------------------------------------------------------------------------------------------- */

const char *const al_ssl_ca_options[] = {"cafile", "capath", "cadata", NULL};

/* Pushes the option, which stays in the table, too; NULL if it isn't given. */
static const char *string_option(lua_State *L, int arg, const char *f, const char *name) {
  int type = al_option(L, arg, name);
  if (type != LUA_TNIL && type != LUA_TSTRING) al_option_error(L, f, name, "string", -1);
  return lua_tostring(L, -1);
}

static const char *path_option(lua_State *L, l_ssl_context *c, int arg, const char *f, const char *name) {
  string_option(L, arg, f, name);
  return al_ssl_check_text(L, c->ctx, -1);
}

static void load_data(lua_State *L, l_ssl_context *c, int idx) {
  size_t len;
  al_tls_error why;
  const char *data = lua_tolstring(L, idx, &len);
  if (len == 0) al_raise(L, c->ctx, AL_C_ValueError, "Empty certificate data");
  unsigned flags = (unsigned char)*data == 0x30 && !strstr(data, "-----BEGIN") ? AL_TLS_CA_DER : 0; /* a SEQUENCE */
  if (al_tls_ctx_load_ca_data(c->tls, data, len, flags, &why)) al_raise_tls(L, c->ctx, &why, NULL);
}

bool al_ssl_load_ca(lua_State *L, l_ssl_context *c, int arg, const char *f) {
  const char *cafile = path_option(L, c, arg, f, "cafile"), *capath = path_option(L, c, arg, f, "capath");
  const char *cadata = string_option(L, arg, f, "cadata");
  al_tls_error why;
  if (cadata) load_data(L, c, -1);
  if ((cafile || capath) && al_tls_ctx_load_ca(c->tls, cafile, capath, &why))
    al_raise_tls(L, c->ctx, &why, cafile ? cafile : capath);
  lua_pop(L, 3);
  return cafile || capath || cadata;
}

/* load_verify_locations({cafile, capath, cadata}) */
static int context_load_verify_locations(lua_State *L) {
  static const char *const f = "load_verify_locations";
  l_ssl_context *c = al_check_ssl_context(L, 1);
  al_options(L, 2, f, al_ssl_ca_options);
  if (!al_ssl_load_ca(L, c, 2, f)) return al_argerror(L, 2, "cafile, capath and cadata cannot be all omitted");
  return 0;
}

/* load_default_certs([purpose]): the system's store is one for all purposes */
static int context_load_default_certs(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, 1);
  al_tls_error why;
  return al_tls_ctx_load_defaults(c->tls, &why) ? al_raise_tls(L, c->ctx, &why, NULL) : 0;
}

static X509_STORE *store_of(const l_ssl_context *c) { return SSL_CTX_get_cert_store(al_tls_ctx_native(c->tls)); }

static void set_count(lua_State *L, const char *name, long n) {
  lua_pushinteger(L, n);
  lua_setfield(L, -2, name);
}

static int context_cert_store_stats(lua_State *L) {
  X509_STORE *store = store_of(al_check_ssl_context(L, 1));
  long certs = 0, crls = 0, cas = 0;
  X509_STORE_lock(store);
  STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
  for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
    const X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
    X509 *cert = X509_OBJECT_get0_X509(object);
    certs += cert != NULL;
    cas += cert && X509_check_ca(cert) > 0;
    crls += X509_OBJECT_get_type(object) == X509_LU_CRL;
  }
  X509_STORE_unlock(store);
  lua_createtable(L, 0, 3);
  set_count(L, "x509", certs);
  set_count(L, "crl", crls);
  set_count(L, "x509_ca", cas);
  return 1;
}

typedef struct l_certs { /* freed on every way out */
  l_op base;
  STACK_OF(X509) * list;
} l_certs;

static void certs_dispose(l_op *op) {
  l_certs *certs = (l_certs *)(void *)op;
  sk_X509_pop_free(certs->list, X509_free);
  certs->list = NULL;
}

/* get_ca_certs([binary]): those that were loaded, not those that a directory may have */
static int context_get_ca_certs(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, 1);
  bool binary = lua_toboolean(L, 2);
  l_certs *certs = al_op_new(L, c->ctx, sizeof *certs, certs_dispose);
  lua_toclose(L, -1);
  certs->list = X509_STORE_get1_all_certs(store_of(c));
  if (!certs->list) return al_raise_os(L, c->ctx, -ENOMEM, NULL, NULL);
  lua_newtable(L);
  lua_Integer n = 0;
  for (int i = 0; i < sk_X509_num(certs->list); i++) {
    X509 *cert = sk_X509_value(certs->list, i);
    if (X509_check_ca(cert) <= 0) continue;
    al_push_certificate(L, c->ctx, cert, binary);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* ---- what is offered --------------------------------------------------------------------------------------------- */

/* set_alpn_protocols(list) */
static int context_set_alpn_protocols(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, 1);
  if (!lua_istable(L, 2)) return al_typeerror(L, 2, "table");
  luaL_Buffer b;
  lua_settop(L, 2);
  lua_Integer n = luaL_len(L, 2);
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; i <= n; i++) {
    size_t len;
    if (lua_geti(L, 2, i) != LUA_TSTRING)
      return al_argerror(L, 2, lua_pushfstring(L, "list of strings expected, got %s in it", luaL_typename(L, -1)));
    lua_tolstring(L, -1, &len);
    if (len == 0 || len > 255) return al_raise(L, c->ctx, AL_C_SSLError, "ALPN protocols must be 1 to 255 in length");
    luaL_addchar(&b, (char)len);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  size_t len;
  const char *wire = lua_tolstring(L, -1, &len);
  int err = al_tls_ctx_set_alpn(c->tls, (const unsigned char *)wire, len);
  if (err == -EINVAL) return al_raise(L, c->ctx, AL_C_SSLError, "ALPN protocols must have 65535 bytes at most in all");
  return err ? al_raise_os(L, c->ctx, err, NULL, NULL) : 0;
}

/* set_ciphers(string) */
static int context_set_ciphers(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, 1);
  al_tls_error why;
  if (lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
  return al_tls_ctx_set_ciphers(c->tls, al_ssl_check_text(L, c->ctx, 2), &why) ? al_raise_tls(L, c->ctx, &why, NULL)
                                                                               : 0;
}

static void set_string(lua_State *L, const char *name, const char *text) {
  if (!text) return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static const char *nid_name(int nid) { return nid == NID_undef ? NULL : OBJ_nid2ln(nid); }

static void push_cipher(lua_State *L, const SSL_CIPHER *cipher) {
  char text[256];
  int alg_bits = 0, bits = SSL_CIPHER_get_bits(cipher, &alg_bits);
  SSL_CIPHER_description(cipher, text, sizeof text);
  text[strcspn(text, "\n")] = '\0';
  lua_createtable(L, 0, 11);
  set_count(L, "id", (long)SSL_CIPHER_get_id(cipher));
  set_string(L, "name", SSL_CIPHER_get_name(cipher));
  set_string(L, "protocol", SSL_CIPHER_get_version(cipher));
  set_string(L, "description", text);
  set_count(L, "strength_bits", bits);
  set_count(L, "alg_bits", alg_bits);
  lua_pushboolean(L, SSL_CIPHER_is_aead(cipher));
  lua_setfield(L, -2, "aead");
  set_string(L, "symmetric", nid_name(SSL_CIPHER_get_cipher_nid(cipher)));
  set_string(L, "digest", nid_name(SSL_CIPHER_get_digest_nid(cipher)));
  set_string(L, "kea", nid_name(SSL_CIPHER_get_kx_nid(cipher)));
  set_string(L, "auth", nid_name(SSL_CIPHER_get_auth_nid(cipher)));
}

/* get_ciphers() → those that connections may have, in order */
static int context_get_ciphers(lua_State *L) {
  const l_ssl_context *c = al_check_ssl_context(L, 1);
  STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(al_tls_ctx_native(c->tls)); /* stays the context's */
  int n = sk_SSL_CIPHER_num(ciphers);
  lua_createtable(L, n > 0 ? n : 0, 0);
  for (int i = 0; i < n; i++) {
    push_cipher(L, sk_SSL_CIPHER_value(ciphers, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

static int context_session_stats(lua_State *L) {
  SSL_CTX *native = al_tls_ctx_native(al_check_ssl_context(L, 1)->tls);
  lua_createtable(L, 0, 11);
  set_count(L, "number", SSL_CTX_sess_number(native));
  set_count(L, "connect", SSL_CTX_sess_connect(native));
  set_count(L, "connect_good", SSL_CTX_sess_connect_good(native));
  set_count(L, "connect_renegotiate", SSL_CTX_sess_connect_renegotiate(native));
  set_count(L, "accept", SSL_CTX_sess_accept(native));
  set_count(L, "accept_good", SSL_CTX_sess_accept_good(native));
  set_count(L, "accept_renegotiate", SSL_CTX_sess_accept_renegotiate(native));
  set_count(L, "hits", SSL_CTX_sess_hits(native));
  set_count(L, "misses", SSL_CTX_sess_misses(native));
  set_count(L, "timeouts", SSL_CTX_sess_timeouts(native));
  set_count(L, "cache_full", SSL_CTX_sess_cache_full(native));
  return 1;
}

static const luaL_Reg methods[] = {{"__new", context_new},
                                   {"__gc", context_gc},
                                   {"__index", al_ssl_context_index},
                                   {"__newindex", al_ssl_context_newindex},
                                   {"load_cert_chain", context_load_cert_chain},
                                   {"load_verify_locations", context_load_verify_locations},
                                   {"load_default_certs", context_load_default_certs},
                                   {"set_default_verify_paths", context_load_default_certs},
                                   {"cert_store_stats", context_cert_store_stats},
                                   {"get_ca_certs", context_get_ca_certs},
                                   {"set_alpn_protocols", context_set_alpn_protocols},
                                   {"set_ciphers", context_set_ciphers},
                                   {"get_ciphers", context_get_ciphers},
                                   {"set_servername_callback", al_ssl_set_servername_callback},
                                   {"session_stats", context_session_stats},
                                   {NULL, NULL}};

void al_ssl_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_SSLContext, methods); }
