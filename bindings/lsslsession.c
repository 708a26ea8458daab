/* lsslsession.c - SSLSession: what a client keeps of a connection to take up the next one faster (option `session`).
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"

#include <string.h>

enum { UV_CONTEXT = 1 };

typedef struct l_ssl_session {
  SSL_SESSION *session; /* one reference */
} l_ssl_session;

void al_push_ssl_session(lua_State *L, al_ctx *ctx, SSL_SESSION *session, int context) {
  context = lua_absindex(L, context);
  l_ssl_session *s = al_new(L, ctx, AL_C_SSLSession, sizeof *s, 1);
  SSL_SESSION_up_ref(session);
  s->session = session;
  lua_pushvalue(L, context);
  lua_setiuservalue(L, -2, UV_CONTEXT);
}

SSL_SESSION *al_test_ssl_session(lua_State *L, al_ctx *ctx, int idx) {
  l_ssl_session *s = al_test(L, ctx, idx, AL_C_SSLSession);
  return s ? s->session : NULL;
}

bool al_ssl_session_is_of(lua_State *L, int session, int context) {
  context = lua_absindex(L, context);
  lua_getiuservalue(L, session, UV_CONTEXT);
  bool is = lua_rawequal(L, -1, context);
  lua_pop(L, 1);
  return is;
}

static int session_gc(lua_State *L) {
  l_ssl_session *s = al_test(L, al_ctx_of(L), 1, AL_C_SSLSession);
  if (s) SSL_SESSION_free(s->session);
  if (s) s->session = NULL;
  return 0;
}

/* Pushes the field; false if there is none of that name. */
static bool push_field(lua_State *L, const SSL_SESSION *session, const char *name) {
  unsigned len = 0;
  if (strcmp(name, "id") == 0) {
    const unsigned char *id = SSL_SESSION_get_id(session, &len);
    lua_pushlstring(L, (const char *)id, len);
  } else if (strcmp(name, "time") == 0) {
    lua_pushinteger(L, SSL_SESSION_get_time(session));
  } else if (strcmp(name, "timeout") == 0) {
    lua_pushinteger(L, SSL_SESSION_get_timeout(session));
  } else if (strcmp(name, "ticket_lifetime_hint") == 0) {
    lua_pushinteger(L, (lua_Integer)SSL_SESSION_get_ticket_lifetime_hint(session));
  } else if (strcmp(name, "has_ticket") == 0) {
    lua_pushboolean(L, SSL_SESSION_has_ticket(session));
  } else {
    return false;
  }
  return true;
}

static int session_index(lua_State *L) {
  const SSL_SESSION *session = al_test_ssl_session(L, al_ctx_of(L), 1);
  if (session && lua_type(L, 2) == LUA_TSTRING && push_field(L, session, lua_tostring(L, 2))) return 1;
  return al_class_lookup(L);
}

/* Two objects may stand for one session. */
static int session_eq(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  const SSL_SESSION *a = al_test_ssl_session(L, ctx, 1), *b = al_test_ssl_session(L, ctx, 2);
  unsigned alen = 0, blen = 0;
  const unsigned char *aid = a ? SSL_SESSION_get_id(a, &alen) : NULL, *bid = b ? SSL_SESSION_get_id(b, &blen) : NULL;
  lua_pushboolean(L, a && b && alen == blen && memcmp(aid, bid, alen) == 0);
  return 1;
}

static const luaL_Reg methods[] = {
    {"__gc", session_gc}, {"__index", session_index}, {"__eq", session_eq}, {NULL, NULL}};

void al_ssl_session_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_SSLSession, methods); }
