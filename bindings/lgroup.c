/* lgroup.c - ExceptionGroup's split and subgroup: the part of a group that is of a kind, with its nesting. How a group
 * is made and shown is lerror.c's. Called by scripts; no group is changed.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"

#include <string.h>

enum { MAX_NESTING = 100 }; /* groups in groups: more is a circle */

static bool is_class(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || luaL_getmetafield(L, idx, "__name") == LUA_TNIL) return false;
  bool is = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "class") == 0;
  lua_pop(L, 1);
  return is;
}

/* Is the value at idx an instance of the class on top (popped)? */
static bool is_instance(lua_State *L, al_ctx *ctx, int idx) {
  bool found = false;
  const void *wanted = lua_topointer(L, -1);
  lua_pop(L, 1);
  if (!lua_istable(L, idx) || !al_isinstance(L, ctx, idx, AL_C_BaseError) || !lua_getmetatable(L, idx)) return false;
  while (!found && lua_istable(L, -1)) {
    found = lua_topointer(L, -1) == wanted;
    lua_pushliteral(L, "__base");
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return found;
}

/* Does the condition at 2, a class, several, or a function, hold for the value at idx? */
static bool matches(lua_State *L, al_ctx *ctx, int idx) {
  bool found = false;
  if (is_class(L, 2)) {
    lua_pushvalue(L, 2);
    return is_instance(L, ctx, idx);
  }
  if (lua_istable(L, 2) && !al_iscallable(L, 2)) {
    lua_Integer n = luaL_len(L, 2);
    for (lua_Integer i = 1; i <= n && !found; i++) {
      lua_geti(L, 2, i);
      found = is_instance(L, ctx, idx);
    }
    return found;
  }
  lua_pushvalue(L, 2);
  lua_pushvalue(L, idx);
  lua_call(L, 1, 1);
  found = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return found;
}

/* Replaces the array of members on top by a group that is otherwise as the one at idx; by nil if it is empty. */
static void derive(lua_State *L, int idx) {
  static const char *const kept[] = {"message", "traceback", "cause"};
  if (lua_rawlen(L, -1) == 0) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return;
  }
  lua_createtable(L, 0, 4);
  lua_insert(L, -2);
  lua_setfield(L, -2, "exceptions");
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    lua_getfield(L, idx, kept[i]);
    lua_setfield(L, -2, kept[i]);
  }
  lua_getmetatable(L, idx);
  lua_setmetatable(L, -2);
}

static void append(lua_State *L, int array) {
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
  } else {
    lua_rawseti(L, array, (lua_Integer)lua_rawlen(L, array) + 1);
  }
}

/* Pushes the part of the group at idx that matches, and the rest: groups, or nil. */
static void split(lua_State *L, al_ctx *ctx, int idx, int depth) {
  luaL_checkstack(L, 12, NULL);
  if (matches(L, ctx, idx)) {
    lua_pushvalue(L, idx);
    lua_pushnil(L);
    return;
  }
  lua_newtable(L);
  lua_newtable(L);
  int rest = lua_gettop(L), matching = rest - 1, members = rest + 1, member = rest + 2;
  lua_getfield(L, idx, "exceptions");
  lua_Integer n = lua_istable(L, members) ? luaL_len(L, members) : 0;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, members, i);
    if (depth < MAX_NESTING && lua_istable(L, member) && al_isinstance(L, ctx, member, AL_C_ExceptionGroup)) {
      split(L, ctx, member, depth + 1);
      append(L, rest);
      append(L, matching);
    } else {
      bool match = matches(L, ctx, member);
      lua_pushvalue(L, member);
      append(L, match ? matching : rest);
    }
    lua_settop(L, members);
  }
  lua_settop(L, rest);
  derive(L, idx);
  lua_insert(L, matching);
  derive(L, idx);
  lua_insert(L, matching);
}

static void check_arguments(lua_State *L, al_ctx *ctx) {
  if (!lua_istable(L, 1) || !al_isinstance(L, ctx, 1, AL_C_ExceptionGroup)) al_typeerror(L, 1, "ExceptionGroup");
  if (!lua_istable(L, 2) && !al_iscallable(L, 2)) al_typeerror(L, 2, "class, array of classes or function");
  lua_settop(L, 2);
}

/* group:split(condition) → the group of those for which it holds, the group of the others; nil: there are none. */
static int group_split(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  check_arguments(L, ctx);
  split(L, ctx, 1, 0);
  return 2;
}

static int group_subgroup(lua_State *L) {
  group_split(L);
  lua_settop(L, 3);
  return 1;
}

void al_group_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg methods[] = {{"split", group_split}, {"subgroup", group_subgroup}, {NULL, NULL}};
  al_class_methods(L, ctx, AL_C_ExceptionGroup, methods);
}
