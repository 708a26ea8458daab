/* embed_api.c - aloop_lua.h: main chunks for embedders, and for main.c. What is run at the end of one is told in
 * lua/aloop/runners.lua.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop_lua.h"
#include "lloop.h"
#include "ltask.h"
#include "module.h"

#include <string.h>

void al_lua_open(lua_State *L) { al_module_open(L); }

/* ---- its loop ---------------------------------------------------------------------------------------------------- */

/* A function of a Lua file of ours on top. */
static void push_function(lua_State *L, const char *module, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  lua_call(L, 1, 1);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* When a main chunk first needs a loop and has set none. */
static int make_loop(lua_State *L) {
  push_function(L, "aloop.events", "make_main_loop");
  lua_call(L, 0, 1);
  return 1;
}

static void set_factory(lua_State *L, al_ctx *ctx) {
  al_ctx_anchors(L, ctx);
  lua_pushcfunction(L, make_loop);
  lua_rawseti(L, -2, AL_SLOT_LOOP_FACTORY);
  lua_pop(L, 1);
}

static int in_main_chunk(lua_State *L) {
  lua_pushboolean(L, al_main_task(al_ctx_of(L)) != NULL);
  return 1;
}

void al_main_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg functions[] = {{"in_main_chunk", in_main_chunk}, {NULL, NULL}};
  al_ctx_setfuncs(L, ctx, functions);
  set_factory(L, ctx);
}

/* ---- the end of a main chunk ------------------------------------------------------------------------------------- */

/* loop → cancels and awaits its tasks, closes it */
static int shut_down(lua_State *L) {
  push_function(L, "aloop.runners", "shut_down");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* Ends the loop on top (popped), if the main chunk had one and left it open. An error in that takes the place of the
 * results from base on; if the main chunk has an error of its own, that one stays. */
static int finish(lua_State *L, al_ctx *ctx, int base, int status) {
  l_loop *loop = al_test_loop(L, ctx, -1);
  if (!loop || al_loop_is_closed(loop->loop)) {
    lua_pop(L, 1);
    return status;
  }
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_pushcfunction(L, shut_down);
  lua_rotate(L, -3, 2); /* handler, shut_down, loop */
  int handler = lua_gettop(L) - 2, failed = lua_pcall(L, 1, 0, handler);
  lua_remove(L, handler);
  if (failed == LUA_OK) return status;
  if (status == LUA_OK || al_isinterrupt(L, ctx, -1)) {
    lua_replace(L, base);
    lua_settop(L, base);
    return failed;
  }
  al_warn(ctx, NULL, "at the end of the main chunk: %s", al_lua_pusherror(L, -1));
  lua_pop(L, 2);
  return status;
}

/* ---- a main chunk ------------------------------------------------------------------------------------------------ */

typedef struct chunk {
  const char *code, *name; /* or, code NULL: */
  const char *path;        /* NULL: stdin */
} chunk;

static int load(lua_State *L, const chunk *c) {
  if (c->code) return luaL_loadbuffer(L, c->code, strlen(c->code), c->name);
  return luaL_loadfile(L, c->path);
}

/* chunk, [function], arguments... → status, results or the error */
static int run_body(lua_State *L) {
  const chunk *c = lua_touserdata(L, 1);
  al_ctx *ctx = al_module_open(L);
  if (c) {
    int status = load(L, c);
    if (status != LUA_OK) {
      lua_pushinteger(L, status);
      lua_insert(L, -2);
      return 2;
    }
    lua_replace(L, 1);
  } else {
    lua_remove(L, 1);
  }
  al_pushanchored(L, ctx, AL_SLOT_MAIN_LOOP); /* an outer main chunk's */
  lua_insert(L, 1);
  lua_pushinteger(L, 0);
  lua_insert(L, 2);
  int status = al_main_run(L, ctx, lua_gettop(L) - 3);
  al_pushanchored(L, ctx, AL_SLOT_MAIN_LOOP);
  status = finish(L, ctx, 3, status);
  al_ctx_anchors(L, ctx);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, AL_SLOT_MAIN_LOOP);
  lua_pop(L, 1);
  lua_pushinteger(L, status);
  lua_replace(L, 2);
  return lua_gettop(L) - 1;
}

/* The nargs values on top are for run_body, behind the chunk. */
static int run(lua_State *L, const chunk *c, int nargs) {
  int base = lua_gettop(L) - nargs + 1;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    lua_settop(L, base - 1);
    lua_pushnil(L);
    return LUA_ERRMEM;
  }
  lua_pushcfunction(L, run_body);
  lua_insert(L, base);
  lua_pushlightuserdata(L, (void *)c);
  lua_insert(L, base + 1);
  int status = lua_pcall(L, nargs + 1, LUA_MULTRET, 0);
  if (status != LUA_OK) return status;
  status = (int)lua_tointeger(L, base);
  lua_remove(L, base);
  return status;
}

int al_lua_run(lua_State *L, int nargs) { return run(L, NULL, nargs + 1); }

int al_lua_run_file(lua_State *L, const char *path, int nargs) { return run(L, &(chunk){.path = path}, nargs); }

int al_lua_run_string(lua_State *L, const char *code, const char *name, int nargs) {
  return run(L, &(chunk){.code = code, .name = name}, nargs);
}

/* ---- errors as text ---------------------------------------------------------------------------------------------- */

static int text_body(lua_State *L) {
  al_pusherrortext(L, al_ctx_open(L), 1);
  return 1;
}

const char *al_lua_pusherror(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  if (!lua_checkstack(L, LUA_MINSTACK)) return "not enough memory";
  lua_pushcfunction(L, text_body);
  lua_pushvalue(L, idx);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK && !lua_isstring(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return "(an error whose text can't be had)";
  }
  return lua_tostring(L, -1);
}
