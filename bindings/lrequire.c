/* lrequire.c - the global `require`, made so that a module may wait at its top level (the stock one can't be
 * suspended). Everything else is as in Lua 5.4: package.loaded, the searchers, the loader data as second result, the
 * messages. module.c installs it. It knows nothing of files.
 *
 * New is only that a second task may ask for a module while the first one's loader waits: it waits for that loader
 * too.
 *
 * SPDX-License-Identifier: MIT */
#include "lrequire.h"

#include "lloop.h"
#include "ltask.h"

/* Upvalues besides the context. A guard stands on the stack of the task that loads a module: a table with the task
 * (light userdata) in [1], then the futures of the other tasks that wait for it. */
#define UP_PACKAGE lua_upvalueindex(2)
#define UP_LOADING lua_upvalueindex(3) /* module → guard, weak: a coroutine that loads may be forgotten */
#define UP_GUARD lua_upvalueindex(4)   /* metatable of guards */

/* Places in the stack: while searching, while loading. */
enum { NAME = 1, LOADED, SEARCHERS, MESSAGE };
enum { LOADER = 3, DATA, GUARD };

/* ---- two tasks, one module --------------------------------------------------------------------------------------- */

/* future → wakes who waits for it, if it still does. */
static int wake_one(lua_State *L) {
  lua_getfield(L, 1, "done");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_toboolean(L, -1)) return 0;
  lua_getfield(L, 1, "set_result");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* guard, error: the loader has ended, well or not. */
static int guard_close(lua_State *L) {
  lua_pushboolean(L, false);
  lua_rawseti(L, 1, 1);
  for (lua_Integer i = 2; lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
    lua_pushcfunction(L, wake_one);
    lua_insert(L, -2);
    lua_pcall(L, 1, 0, 0); /* fails when the loop is closed: then nobody waits */
    lua_settop(L, 1);
  }
  return 0;
}

/* Pushes the guard of another task that is loading the module and returns true, or pushes nothing. */
static bool find_guard(lua_State *L) {
  lua_pushvalue(L, NAME);
  if (lua_rawget(L, UP_LOADING) == LUA_TTABLE) {
    bool loading = lua_rawgeti(L, -1, 1) == LUA_TLIGHTUSERDATA;
    const void *task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (loading && task != al_ctx_of(L)->current) return true;
  }
  lua_pop(L, 1);
  return false;
}

static int require_again(lua_State *L, int status, lua_KContext extra);

/* Waits for the loader whose guard is on top, in a future of its own: a wait that is cancelled cancels its future. */
static int wait_for_loader(lua_State *L) {
  if (!al_ctx_of(L)->current) {
    const char *name = lua_tostring(L, NAME);
    return al_raise(L, al_ctx_of(L), AL_C_RuntimeError,
                    "module '%s' is being loaded by a task that waits; only another task can wait for it", name);
  }
  al_pushloop(L, al_default_loop(L, al_ctx_of(L)));
  lua_getfield(L, -1, "create_future");
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  lua_pushvalue(L, -1);
  lua_rawseti(L, -3, (lua_Integer)lua_rawlen(L, -3) + 1);
  lua_getfield(L, -1, "await");
  lua_insert(L, -2);
  lua_callk(L, 1, 0, 0, require_again);
  return require_again(L, LUA_OK, 0);
}

/* Pushes the guard of this load, which is closed when require returns, raises, or is given up. */
static void push_guard(lua_State *L) {
  lua_createtable(L, 1, 0);
  lua_pushlightuserdata(L, al_ctx_of(L)->current);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, UP_GUARD);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, NAME);
  lua_pushvalue(L, -2);
  lua_rawset(L, UP_LOADING);
  lua_toclose(L, -1);
}

/* ---- searching and loading --------------------------------------------------------------------------------------- */

/* The loader has run; its result is on top. */
static int loaded(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  if (!lua_isnil(L, -1)) lua_setfield(L, LOADED, lua_tostring(L, NAME));
  if (lua_getfield(L, LOADED, lua_tostring(L, NAME)) == LUA_TNIL) {
    lua_pushboolean(L, true);
    lua_copy(L, -1, -2);
    lua_setfield(L, LOADED, lua_tostring(L, NAME));
  }
  lua_pushvalue(L, DATA);
  return 2;
}

/* Calls the loader below the top with the loader data on top. */
static int call_loader(lua_State *L) {
  lua_replace(L, DATA);
  lua_replace(L, LOADER);
  lua_settop(L, DATA);
  push_guard(L);
  lua_pushvalue(L, LOADER);
  lua_pushvalue(L, NAME);
  lua_pushvalue(L, DATA);
  lua_callk(L, 2, 1, 0, loaded);
  return loaded(L, LUA_OK, 0);
}

/* A searcher has found nothing: keeps the message that it may have given. Pops its two results. */
static void add_message(lua_State *L) {
  lua_pop(L, 1);
  if (!lua_isstring(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, MESSAGE);
  lua_pushliteral(L, "\n\t");
  lua_rotate(L, -3, 2);
  lua_concat(L, 3);
  lua_replace(L, MESSAGE);
}

/* Asks the searchers from the i-th on; with LUA_YIELD, the i-th has just returned. */
static int search(lua_State *L, int status, lua_KContext i) {
  for (;; i++) {
    if (status != LUA_YIELD) {
      if (lua_rawgeti(L, SEARCHERS, i) == LUA_TNIL)
        return luaL_error(L, "module '%s' not found:%s", lua_tostring(L, NAME), lua_tostring(L, MESSAGE));
      lua_pushvalue(L, NAME);
      lua_callk(L, 1, 2, i, search);
    }
    status = LUA_OK;
    if (lua_isfunction(L, -2)) return call_loader(L);
    add_message(L);
  }
}

static int require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_settop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, LOADED, name);
  if (lua_toboolean(L, -1)) return 1;
  lua_pop(L, 1);
  if (find_guard(L)) return wait_for_loader(L);
  if (lua_getfield(L, UP_PACKAGE, "searchers") != LUA_TTABLE)
    return luaL_error(L, "'package.searchers' must be a table");
  lua_pushliteral(L, "");
  return search(L, LUA_OK, 1);
}

static int require_again(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  return require(L);
}

static void push_weak_table(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

void al_require_install(lua_State *L, al_ctx *ctx) {
  lua_pushlightuserdata(L, ctx);
  if (lua_getglobal(L, "package") != LUA_TTABLE) { /* a state without the package library has nothing to replace */
    lua_pop(L, 2);
    return;
  }
  push_weak_table(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, guard_close);
  lua_setfield(L, -2, "__close");
  lua_pushcclosure(L, require, 4);
  lua_setglobal(L, "require");
}
