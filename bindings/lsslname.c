/* lsslname.c - set_servername_callback: a function of the script's is asked in the course of a server's handshake when
 * a client has named the server that it wants. It can't wait there.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "lssl.h"
#include "ltls.h"

typedef struct question {
  const l_ssl_context *context;
  const char *name; /* or NULL */
  int alert;        /* if it fails now */
} question;

enum { QUESTION = 1, TRANSPORT, FUNCTION, RESULT }; /* stack of ask_body */

/* question, transport → the number of an alert, or 0 */
static int ask_body(lua_State *L) {
  question *q = lua_touserdata(L, QUESTION);
  al_ctx *ctx = q->context->ctx;
  lua_getiuservalue(L, TRANSPORT, AL_TLS_UV_CONTEXT);
  lua_getiuservalue(L, -1, AL_SSL_UV_SERVERNAME);
  lua_insert(L, FUNCTION);
  al_push_ssl_object(L, ctx, TRANSPORT);
  lua_pushstring(L, q->name);
  lua_rotate(L, -3, -1); /* the object, its name, its context */
  lua_call(L, 3, 1);
  q->alert = SSL_AD_INTERNAL_ERROR;
  if (lua_isnil(L, -1)) {
    lua_pushinteger(L, 0);
    return 1;
  }
  lua_Integer alert = lua_tointeger(L, -1);
  if (!lua_isinteger(L, -1) || alert < 1 || alert > 255)
    return luaL_error(L, "a servername callback must return nil or the number of an alert, got %s",
                      lua_isinteger(L, -1) ? lua_tostring(L, -1) : luaL_typename(L, -1));
  return 1;
}

/* The error on top (popped). */
static void report(const l_ssl_context *c, lua_State *L, al_transport *transport, int box) {
  l_loop *loop = al_loop_data(al_transport_loop(transport));
  lua_getiuservalue(L, box, AL_TRANSPORT_UV_PROTOCOL);
  lua_insert(L, -2);
  const al_key keys[] = {{"transport", box}, {"protocol", lua_gettop(L) - 1}, {NULL, 0}};
  al_report(c->ctx, L, loop, "Exception in servername callback", keys);
}

static int on_servername(al_tls_ctx *tls, al_transport *transport, SSL *ssl, const char *name) {
  const l_ssl_context *c = al_tls_ctx_data(tls);
  const l_transport *box = c && transport ? al_transport_data(transport) : NULL;
  lua_State *L = box && box->slot ? al_enter(c->ctx) : NULL;
  (void)ssl;
  if (!L) return SSL_AD_INTERNAL_ERROR;
  int alert = SSL_AD_INTERNAL_ERROR;
  if (lua_rawgeti(L, 1, box->slot) == LUA_TUSERDATA) {
    question q = {c, name, SSL_AD_HANDSHAKE_FAILURE};
    int transport_at = lua_gettop(L);
    lua_pushcfunction(L, ask_body);
    lua_pushlightuserdata(L, &q);
    lua_pushvalue(L, transport_at);
    if (al_pcall(L, 2, 1) == LUA_OK) {
      alert = (int)lua_tointeger(L, -1);
    } else {
      alert = q.alert;
      report(c, L, transport, transport_at);
    }
  }
  al_leave(c->ctx, L);
  return alert;
}

void al_ssl_set_servername(lua_State *L, l_ssl_context *c, int box, int idx) {
  al_tls_ctx_set_servername(c->tls, lua_isnil(L, idx) ? NULL : on_servername);
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, box, AL_SSL_UV_SERVERNAME);
}

/* set_servername_callback(f | nil): f(ssl_object, name | nil, context) → nil, or an alert's number */
int al_ssl_set_servername_callback(lua_State *L) {
  l_ssl_context *c = al_check_ssl_context(L, 1);
  if (!lua_isnoneornil(L, 2)) al_check_callable(L, 2);
  lua_settop(L, 2);
  al_ssl_set_servername(L, c, 1, 2);
  return 0;
}
