/* lsslerror.c - errors of TLS as error objects: SSLError and its subclasses, with library, reason and what the check of
 * the certificate said. All files of aloop.ssl raise through it, and protocols are told by it why a connection was
 * lost.
 *
 * SPDX-License-Identifier: MIT */
#include "lssl.h"
#include "ltls.h"

#include <errno.h>

static void set_text(lua_State *L, const char *name, const char *text) {
  if (!text || !*text) return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

/* Sets the fields of the error on top. */
static void set_fields(lua_State *L, const al_tls_error *why) {
  set_text(L, "library", why->library);
  set_text(L, "reason", why->reason);
  if (why->error != AL_ETLSVERIFY) return;
  lua_pushinteger(L, why->verify_code);
  lua_setfield(L, -2, "verify_code");
  set_text(L, "verify_message", why->verify_message);
}

void al_push_tls_error(lua_State *L, al_ctx *ctx, const al_tls_error *why, const char *filename) {
  if (why->error > -4096) {
    al_pushoserror(L, ctx, why->error, NULL, filename);
    return;
  }
  lua_pushfstring(L, filename ? "%s ('%s')" : "%s", why->message, filename);
  al_pushoserror(L, ctx, why->error, lua_tostring(L, -1), NULL);
  lua_remove(L, -2);
  set_fields(L, why);
}

int al_raise_tls(lua_State *L, al_ctx *ctx, const al_tls_error *why, const char *filename) {
  al_push_tls_error(L, ctx, why, filename);
  return lua_error(L);
}

/* Pushes " ('example.org' at 192.0.2.1:443)", of a server " (peer 192.0.2.1:50000)"; or "". */
static void push_parties(lua_State *L, al_ctx *ctx, al_transport *transport) {
  const l_transport *box = al_transport_data(transport);
  char peer[AL_ADDR_STRLEN] = "";
  al_addr addr;
  int top = lua_gettop(L);
  if (al_transport_peername(transport, &addr) == 0) al_addr_format(&addr, peer, sizeof peer);
  if (box && box->slot) {
    al_pushanchored(L, ctx, box->slot);
    if (lua_isuserdata(L, -1)) lua_getiuservalue(L, -1, AL_TLS_UV_HOSTNAME);
  }
  if (lua_type(L, -1) == LUA_TSTRING)
    lua_pushfstring(L, *peer ? " ('%s' at %s)" : " ('%s')", lua_tostring(L, -1), peer);
  else
    lua_pushfstring(L, *peer ? " (peer %s)" : "", peer);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

void al_push_transport_error(lua_State *L, al_ctx *ctx, al_transport *transport, int error) {
  const al_tls_error *why = transport && al_transport_is_tls(transport) ? al_tls_failure(transport) : NULL;
  if (!why || why->error != error) {
    al_pushoserror(L, ctx, error, NULL, NULL);
    return;
  }
  push_parties(L, ctx, transport);
  lua_pushfstring(L, "%s%s", why->message, lua_tostring(L, -1));
  al_pushoserror(L, ctx, error, lua_tostring(L, -1), NULL);
  lua_replace(L, -3);
  lua_pop(L, 1);
  set_fields(L, why);
}
