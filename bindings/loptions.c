/* loptions.c - what is said of wrong arguments, and keyword arguments: the table behind a function's last positional
 * argument. All bindings use it; it knows none of them.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"

#include <limits.h>
#include <string.h>

/* ---- wrong arguments --------------------------------------------------------------------------------------------- */

/* Pushes the name under which the table on top (popped) has the function at f; false, and nothing, if it has it not. */
static bool push_key_of(lua_State *L, int f) {
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (!lua_rawequal(L, -1, f) || lua_type(L, -2) != LUA_TSTRING || *lua_tostring(L, -2) == '_') continue;
    lua_pop(L, 1);
    lua_remove(L, -2);
    return true;
  }
  lua_pop(L, 1);
  return false;
}

/* Pushes the name of the method at f of the object at 1, as one of its classes has it; false if it is none. */
static bool push_method_name(lua_State *L, int f) {
  if (!lua_getmetatable(L, 1)) return false;
  while (lua_istable(L, -1)) {
    lua_pushvalue(L, -1);
    if (push_key_of(L, f)) {
      lua_remove(L, -2);
      return true;
    }
    lua_pushliteral(L, "__base");
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return false;
}

/* The same in one of the tables of the table on top (popped), as kill stands in aloop.signal. */
static bool push_key_in_parts(lua_State *L, int f) {
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (!lua_istable(L, -1)) continue;
    lua_pushvalue(L, -1);
    if (!push_key_of(L, f)) continue;
    lua_replace(L, -4);
    lua_pop(L, 2);
    return true;
  }
  lua_pop(L, 1);
  return false;
}

/* Pushes the name of a function of the module; false if it is none. */
static bool push_function_name(lua_State *L, int f) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  int type = lua_getfield(L, -1, "aloop");
  lua_remove(L, -2);
  if (type != LUA_TTABLE) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, -1);
  if (!push_key_of(L, f)) return push_key_in_parts(L, f);
  lua_remove(L, -2);
  return true;
}

/* Pushes the name of the class at 1; false if there is none. */
static bool push_class_name(lua_State *L) {
  if (!lua_istable(L, 1)) return false;
  lua_pushliteral(L, "__name");
  if (lua_rawget(L, 1) == LUA_TSTRING) return true;
  lua_pop(L, 1);
  return false;
}

/* Lua knows a function by the call; called by pcall(loop.call_later, loop) it has no name but what its class knows. */
int al_argerror(lua_State *L, int arg, const char *text) {
  lua_Debug ar;
  if (!lua_getstack(L, 0, &ar)) return luaL_argerror(L, arg, text);
  lua_getinfo(L, "nf", &ar);
  int f = lua_gettop(L);
  if (ar.name) return luaL_argerror(L, arg, text);
  bool of_object = arg > 1 && (push_method_name(L, f) || push_class_name(L));
  if (!of_object && !push_function_name(L, f)) return luaL_argerror(L, arg, text);
  al_where(L);
  lua_pushfstring(L, "%sbad argument #%d to '%s' (%s)", lua_tostring(L, -1), of_object ? arg - 1 : arg,
                  lua_tostring(L, -2), text);
  return lua_error(L);
}

/* A value's type as luaL_typeerror names it. */
static const char *type_name(lua_State *L, int idx) {
  if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING) return lua_tostring(L, -1);
  return lua_islightuserdata(L, idx) ? "light userdata" : luaL_typename(L, idx);
}

/* Pushes the name of an option in the plain table at arg; nil if it has none or is no such table. */
static void push_some_option(lua_State *L, int arg) {
  bool plain = lua_istable(L, arg) && !lua_getmetatable(L, arg);
  if (plain) {
    for (lua_pushnil(L); lua_next(L, arg);) {
      lua_pop(L, 1);
      if (lua_type(L, -1) == LUA_TSTRING) return;
    }
  }
  lua_pushnil(L);
}

int al_typeerror(lua_State *L, int arg, const char *expected) {
  const char *got = lua_isnone(L, arg) ? "no value" : type_name(L, arg);
  const char *text = lua_pushfstring(L, "%s expected, got %s", expected, got);
  push_some_option(L, arg);
  if (!lua_isnil(L, -1))
    text = lua_pushfstring(L, "%s with '%s'; options stand behind the last argument", text, lua_tostring(L, -1));
  return al_argerror(L, arg, text);
}

lua_Number al_checknumber(lua_State *L, int arg) {
  int isnum;
  lua_Number n = lua_tonumberx(L, arg, &isnum);
  if (!isnum) al_typeerror(L, arg, "number");
  return n;
}

lua_Integer al_checkinteger(lua_State *L, int arg) {
  int isnum;
  lua_Integer n = lua_tointegerx(L, arg, &isnum);
  if (isnum) return n;
  if (!lua_isnumber(L, arg)) return al_typeerror(L, arg, "number");
  return al_argerror(L, arg, "number has no integer representation");
}

void al_checkany(lua_State *L, int arg) {
  if (lua_isnone(L, arg)) al_argerror(L, arg, "value expected");
}

lua_Integer al_optinteger(lua_State *L, int arg, lua_Integer otherwise) {
  return lua_isnoneornil(L, arg) ? otherwise : al_checkinteger(L, arg);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static bool is_known(lua_State *L, int key, const char *const *names) {
  if (lua_type(L, key) != LUA_TSTRING) return false;
  const char *name = lua_tostring(L, key);
  for (; *names; names++)
    if (strcmp(*names, name) == 0) return true;
  return false;
}

/* Options one place too far would else be taken for nothing. */
static void check_behind(lua_State *L, int arg) {
  push_some_option(L, arg);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  al_argerror(L, arg, lua_pushfstring(L, "option '%s' is out of place: options stand one before", lua_tostring(L, -1)));
}

int al_unknown_option(lua_State *L, const char *f, const char *name) {
  al_where(L);
  lua_pushfstring(L, "%sunknown option '%s' to '%s'", lua_tostring(L, -1), name, f);
  return lua_error(L);
}

bool al_options(lua_State *L, int arg, const char *f, const char *const *names) {
  if (lua_gettop(L) > arg) check_behind(L, arg + 1);
  if (lua_isnoneornil(L, arg)) return false;
  if (!lua_istable(L, arg)) al_typeerror(L, arg, "table");
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (is_known(L, -2, names)) continue;
    al_unknown_option(L, f, luaL_tolstring(L, -2, NULL));
  }
  return true;
}

int al_option(lua_State *L, int arg, const char *name) {
  if (lua_istable(L, arg)) return lua_getfield(L, arg, name);
  lua_pushnil(L);
  return LUA_TNIL;
}

int al_option_error(lua_State *L, const char *f, const char *name, const char *expected, int idx) {
  idx = lua_absindex(L, idx);
  const char *got = type_name(L, idx);
  al_where(L);
  lua_pushfstring(L, "%sbad option '%s' to '%s' (%s expected, got %s)", lua_tostring(L, -1), name, f, expected, got);
  return lua_error(L);
}

bool al_isinteger(lua_State *L, int idx, lua_Integer *n) {
  int isint = 0;
  if (lua_type(L, idx) == LUA_TNUMBER) *n = lua_tointegerx(L, idx, &isint);
  return isint;
}

int al_int_option(lua_State *L, int arg, const char *f, const char *name, int otherwise) {
  int isint = 1;
  lua_Integer n = otherwise;
  if (al_option(L, arg, name) != LUA_TNIL) n = lua_tointegerx(L, -1, &isint);
  if (!isint || n < INT_MIN || n > INT_MAX) al_option_error(L, f, name, "integer", -1);
  lua_pop(L, 1);
  return (int)n;
}

bool al_bool_option(lua_State *L, int arg, const char *f, const char *name, bool otherwise) {
  int type = al_option(L, arg, name);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN) al_option_error(L, f, name, "boolean", -1);
  bool value = type == LUA_TNIL ? otherwise : lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

bool al_option_given(lua_State *L, int arg, const char *name) {
  bool given = al_option(L, arg, name) != LUA_TNIL;
  lua_pop(L, 1);
  return given;
}
