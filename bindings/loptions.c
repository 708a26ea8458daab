/* loptions.c - keyword arguments: the table behind a function's last positional argument. Bindings with options use it;
 * it knows none of them.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"

#include <string.h>

static bool is_known(lua_State *L, int key, const char *const *names) {
  if (lua_type(L, key) != LUA_TSTRING) return false;
  const char *name = lua_tostring(L, key);
  for (; *names; names++)
    if (strcmp(*names, name) == 0) return true;
  return false;
}

void al_where(lua_State *L) {
  int level = 1;
  lua_pushliteral(L, "");
  do {
    lua_pop(L, 1);
    luaL_where(L, level);
  } while (lua_rawlen(L, -1) == 0 && level++ < 4);
}

bool al_options(lua_State *L, int arg, const char *f, const char *const *names) {
  if (lua_isnoneornil(L, arg)) return false;
  if (!lua_istable(L, arg)) al_typeerror(L, arg, "table");
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (is_known(L, -2, names)) continue;
    const char *key = luaL_tolstring(L, -2, NULL);
    al_where(L);
    lua_pushfstring(L, "%sunknown option '%s' to '%s'", lua_tostring(L, -1), key, f);
    lua_error(L);
  }
  return true;
}

int al_option(lua_State *L, int arg, const char *name) {
  if (lua_istable(L, arg)) return lua_getfield(L, arg, name);
  lua_pushnil(L);
  return LUA_TNIL;
}

/* A value's type as luaL_typeerror names it. */
static const char *type_name(lua_State *L, int idx) {
  if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING) return lua_tostring(L, -1);
  return lua_islightuserdata(L, idx) ? "light userdata" : luaL_typename(L, idx);
}

int al_option_error(lua_State *L, const char *f, const char *name, const char *expected, int idx) {
  idx = lua_absindex(L, idx);
  const char *got = type_name(L, idx);
  al_where(L);
  lua_pushfstring(L, "%sbad option '%s' to '%s' (%s expected, got %s)", lua_tostring(L, -1), name, f, expected, got);
  return lua_error(L);
}
