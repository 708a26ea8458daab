/* lrequire.c - the global `require`, made so that a module may wait at its top level (the stock one can't be
 * suspended). Everything else is as in Lua 5.4: package.loaded, the searchers, the loader data as second result, the
 * messages. module.c installs it. It knows nothing of files.
 *
 * New is only that a second task may ask for a module while the first one's loader waits: it waits for that loader
 * too, unless both would wait for each other. If the first one fails or is cancelled, the second one loads.
 *
 * SPDX-License-Identifier: MIT */
#include "lrequire.h"

#include "lloop.h"
#include "ltask.h"

/* Upvalues besides the context. A guard stands on the stack of the task that loads a module: a table with
 *   [1]    the coroutine that loads; false once it has ended
 *   [2...] the futures of the other tasks that wait for it
 *   task (light userdata), name of the module, outer: the guard of the load within which this one is, of the same
 *   module, depth: how many of those there are */
#define UP_PACKAGE lua_upvalueindex(2)
#define UP_LOADING lua_upvalueindex(3) /* module → guard, weak: a coroutine that loads may be forgotten */
#define UP_GUARD lua_upvalueindex(4)   /* metatable of guards */
#define UP_WAITING lua_upvalueindex(5) /* future → the guard in which it stands, weak */

/* Places in the stack: while searching, while loading. */
enum { NAME = 1, LOADED, SEARCHERS, MESSAGE };
enum { LOADER = 3, DATA, GUARD, HANDLER };

enum { MAX_DEPTH = 16 }; /* loads of a module within itself: a loader may ask for its own name, but not for ever */

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

/* guard, error: the loader has ended, well or not. Upvalue 2: UP_LOADING's table. */
static int guard_close(lua_State *L) {
  lua_settop(L, 1);
  if (lua_rawgeti(L, 1, 1) != LUA_TTHREAD) return 0;
  lua_pushboolean(L, false);
  lua_rawseti(L, 1, 1);
  lua_getfield(L, 1, "name");
  lua_getfield(L, 1, "outer");
  lua_rawset(L, lua_upvalueindex(2));
  lua_settop(L, 1);
  for (lua_Integer i = 2; lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
    lua_pushcfunction(L, wake_one);
    lua_insert(L, -2);
    lua_pcall(L, 1, 0, 0); /* fails when the loop is closed: then nobody waits */
    lua_settop(L, 1);
  }
  return 0;
}

/* The task whose load the guard at idx is of, if it is a task's. */
static l_task *task_of(lua_State *L, int idx) {
  lua_getfield(L, idx, "task");
  l_task *t = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return t;
}

/* Is the loader of the guard at idx suspended in a task that will go on? One that runs is further down in this very
 * stack of calls, and one that a script's yield has suspended may never go on. */
static bool is_waiting(lua_State *L, int idx) {
  lua_rawgeti(L, idx, 1);
  lua_State *co = lua_tothread(L, -1);
  lua_pop(L, 1);
  const l_task *t = task_of(L, idx);
  if (!co || !t || t->slot == 0 || lua_status(co) != LUA_YIELD) return false;
  return t->co == co || al_coro_is_waiting(co);
}

/* Pushes the guard of the module's innermost load, or nil. */
static bool find_guard(lua_State *L) {
  lua_pushvalue(L, NAME);
  return lua_rawget(L, UP_LOADING) == LUA_TTABLE;
}

/* Would waiting for the guard on top be waiting for oneself? Follows who waits for whom. */
static bool is_circle(lua_State *L, const l_task *current) {
  enum { MAX_CHAIN = 1000 };
  al_ctx *ctx = al_ctx_of(L);
  int top = lua_gettop(L);
  bool found = false;
  lua_pushvalue(L, top);
  for (int i = 0; i < MAX_CHAIN && lua_istable(L, -1); i++) {
    l_task *t = task_of(L, lua_gettop(L));
    found = t == current;
    if (found || !t || !t->awaits) break;
    lua_settop(L, top);
    al_task_pushself(L, ctx, t);
    lua_getiuservalue(L, -1, AL_TASK_UV_AWAITED);
    lua_rawget(L, UP_WAITING);
  }
  lua_settop(L, top);
  return found;
}

static int require_again(lua_State *L, int status, lua_KContext extra);

/* Waits for the loader whose guard is on top, in a future of its own: a wait that is cancelled cancels its future. */
static int wait_for_loader(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  const char *name = lua_tostring(L, NAME);
  if (!ctx->current) {
    return al_raise(L, ctx, AL_C_RuntimeError,
                    "module '%s' is being loaded by a task that waits; only another task can wait for it", name);
  }
  if (is_circle(L, ctx->current))
    return luaL_error(L, "module '%s' is being loaded by a task that waits for this one: a circular require", name);
  al_check_wait(L, ctx, "require");
  int guard = lua_gettop(L);
  al_pushloop(L, al_default_loop(L, ctx));
  lua_getfield(L, -1, "create_future");
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  lua_pushvalue(L, -1);
  lua_pushvalue(L, guard);
  lua_rawset(L, UP_WAITING);
  lua_pushvalue(L, -1);
  lua_rawseti(L, guard, (lua_Integer)lua_rawlen(L, guard) + 1);
  lua_getfield(L, -1, "await");
  lua_insert(L, -2);
  lua_callk(L, 1, 0, 0, require_again);
  return require_again(L, LUA_OK, 0);
}

/* Makes the load at hand the inner one of another of the same module, if there is one that
 * hasn't ended; the guard is on top. */
static void nest(lua_State *L) {
  int guard = lua_gettop(L);
  lua_Integer depth = 0;
  if (find_guard(L) && lua_rawgeti(L, -1, 1) == LUA_TTHREAD && lua_status(lua_tothread(L, -1)) == LUA_OK) {
    lua_getfield(L, guard + 1, "depth");
    depth = lua_tointeger(L, -1) + 1;
    lua_pushvalue(L, guard + 1);
    lua_setfield(L, guard, "outer");
  }
  lua_settop(L, guard);
  if (depth > MAX_DEPTH) luaL_error(L, "module '%s' requires itself: a circular require", lua_tostring(L, NAME));
  lua_pushinteger(L, depth);
  lua_setfield(L, guard, "depth");
}

/* Pushes the guard of this load, which is closed when require returns, raises, or is given up. */
static void push_guard(lua_State *L) {
  lua_createtable(L, 1, 4);
  nest(L);
  lua_pushthread(L);
  lua_rawseti(L, -2, 1);
  lua_pushlightuserdata(L, al_ctx_of(L)->current);
  lua_setfield(L, -2, "task");
  lua_pushvalue(L, NAME);
  lua_setfield(L, -2, "name");
  lua_pushvalue(L, UP_GUARD);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, NAME);
  lua_pushvalue(L, -2);
  lua_rawset(L, UP_LOADING);
  lua_toclose(L, -1);
}

/* ---- searching and loading --------------------------------------------------------------------------------------- */

/* The loader has run; its result is on top, or its error, which must not leave the guard to a
 * coroutine that dies of it. */
static int loaded(lua_State *L, int status, lua_KContext extra) {
  (void)extra;
  if (status != LUA_OK && status != LUA_YIELD) {
    luaL_callmeta(L, GUARD, "__close");
    lua_settop(L, HANDLER + 1);
    al_ctx_of(L)->passing = true;
    return lua_error(L);
  }
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
  al_ctx_pushfunction(L, al_ctx_of(L), al_traceback);
  lua_pushvalue(L, LOADER);
  lua_pushvalue(L, NAME);
  lua_pushvalue(L, DATA);
  return loaded(L, lua_pcallk(L, 2, 1, HANDLER, 0, loaded), 0);
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
  if (find_guard(L) && is_waiting(L, lua_gettop(L))) return wait_for_loader(L);
  lua_settop(L, LOADED);
  if (lua_getfield(L, UP_PACKAGE, "searchers") != LUA_TTABLE)
    return luaL_error(L, "'package.searchers' must be a table");
  lua_pushliteral(L, "");
  return search(L, LUA_OK, 1);
}

static int require_again(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  return require(L);
}

void al_require_install(lua_State *L, al_ctx *ctx) {
  lua_pushlightuserdata(L, ctx);
  if (lua_getglobal(L, "package") != LUA_TTABLE) { /* a state without the package library has nothing to replace */
    lua_pop(L, 2);
    return;
  }
  al_pushweak(L, "v");
  lua_createtable(L, 0, 1);
  lua_pushlightuserdata(L, ctx);
  lua_pushvalue(L, -3);
  lua_pushcclosure(L, guard_close, 2);
  lua_setfield(L, -2, "__close");
  al_pushweak(L, "k");
  lua_pushcclosure(L, require, 5);
  lua_setglobal(L, "require");
}
