/* lpath.c - the words for where in a parcel a value stands. Slow, as it is for messages.
 *
 * SPDX-License-Identifier: MIT */
#include "lpath.h"

#include "lnames.h"

#include <ctype.h>

enum { MAX_STEPS = 8 };

static void push_root(lua_State *L, const al_path *path, uint64_t which) {
  int i = (int)which;
  if (path->call && i == 0)
    lua_pushliteral(L, "the function");
  else if (path->call)
    lua_pushfstring(L, "argument #%d", i);
  else
    lua_pushfstring(L, path->results ? "result #%d" : "value #%d", i + 1);
}

static bool is_name(const char *text, size_t len) {
  if (len == 0 || len > 60) return false;
  for (size_t i = 0; i < len; i++)
    if (!isprint((unsigned char)text[i])) return false;
  return true;
}

/* Replaces the key on top by what a field with this key is called. */
static void name_field(lua_State *L) {
  if (lua_isinteger(L, -1)) {
    lua_pushfstring(L, "item %I", lua_tointeger(L, -1));
  } else if (lua_type(L, -1) == LUA_TSTRING && is_name(lua_tostring(L, -1), lua_rawlen(L, -1))) {
    lua_pushfstring(L, "field '%s'", lua_tostring(L, -1));
  } else if (lua_type(L, -1) == LUA_TNUMBER) {
    lua_pushfstring(L, "item %f", lua_tonumber(L, -1));
  } else {
    lua_pushfstring(L, "a field (its key is a %s)", luaL_typename(L, -1));
  }
  lua_remove(L, -2);
}

/* Pushes in which field of the table on top the value at idx stands. */
static void push_field(lua_State *L, int idx) {
  int table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_rawequal(L, -1, idx)) {
      lua_pop(L, 1);
      name_field(L);
      return;
    }
    if (lua_rawequal(L, -2, idx)) {
      lua_pop(L, 2);
      lua_pushliteral(L, "a key");
      return;
    }
  }
  if (lua_getmetatable(L, table)) {
    lua_pop(L, 1);
    lua_pushliteral(L, "the class");
  } else {
    lua_pushliteral(L, "a field");
  }
}

/* Pushes which upvalue of the function on top the value at idx is. */
static void push_upvalue(lua_State *L, int idx) {
  int function = lua_gettop(L);
  const char *name;
  for (int i = 1; (name = lua_getupvalue(L, function, i)) != NULL; i++) {
    bool found = lua_rawequal(L, -1, idx);
    lua_pop(L, 1);
    if (!found) continue;
    lua_pushfstring(L, "upvalue '%s'", name);
    return;
  }
  lua_pushliteral(L, "an upvalue");
}

/* Pushes the place of the value at idx in the object on top. */
static void push_step(lua_State *L, int idx) {
  switch (lua_type(L, -1)) {
  case LUA_TTABLE: push_field(L, idx); break;
  case LUA_TFUNCTION: push_upvalue(L, idx); break;
  default: lua_pushliteral(L, "a value");
  }
}

/* Pushes " of function <x.lua:12>" for a function on top; " of " for anything else, for its path tells what it is. */
static void push_owner(lua_State *L) {
  if (!lua_isfunction(L, -1)) {
    lua_pushliteral(L, " of ");
    return;
  }
  lua_Debug ar;
  lua_pushvalue(L, -1);
  lua_getinfo(L, ">S", &ar);
  lua_pushfstring(L, " of function <%s:%d>", ar.short_src, ar.linedefined);
}

/* The text at the place text grows by the one on top (popped). */
static void append(lua_State *L, int text) {
  lua_pushvalue(L, text);
  lua_insert(L, -2);
  lua_concat(L, 2);
  lua_replace(L, text);
}

void al_path_push(lua_State *L, const al_path *path, int idx, uint64_t parent) {
  luaL_checkstack(L, 20, NULL);
  lua_pushliteral(L, "");
  int text = lua_gettop(L);
  lua_pushvalue(L, idx);
  int value = text + 1;
  for (int steps = 0; !(parent & AL_PATH_ROOT); steps++) {
    if (steps == MAX_STEPS) {
      lua_pushliteral(L, "...");
      append(L, text);
      lua_settop(L, text);
      return;
    }
    path->push_object(path->from, parent);
    push_step(L, value);
    append(L, text);
    push_owner(L);
    append(L, text);
    bool function = lua_isfunction(L, -1);
    lua_replace(L, value);
    lua_settop(L, value);
    parent = path->parent_of(path->from, parent);
    if (!function) continue;
    if (parent == AL_PATH_ROOT && path->call) {
      lua_settop(L, text);
      return;
    }
    lua_pushliteral(L, " in ");
    append(L, text);
  }
  push_root(L, path, parent & ~AL_PATH_ROOT);
  append(L, text);
  lua_settop(L, text);
}

void al_path_push_kind(lua_State *L, int idx) {
  int type = lua_type(L, idx);
  if (type == LUA_TTHREAD) {
    lua_pushliteral(L, "coroutine");
  } else if (type == LUA_TFUNCTION) {
    lua_pushliteral(L, "C function");
  } else if (type == LUA_TTABLE && al_is_class(L, idx)) {
    lua_pushliteral(L, "class");
  } else {
    int named = luaL_getmetafield(L, idx, "__name");
    if (named == LUA_TSTRING) return;
    if (named != LUA_TNIL) lua_pop(L, 1);
    lua_pushstring(L, type == LUA_TTABLE ? "table with a metatable" : "userdata");
  }
}
