/* lgenerator.c - loop:shutdown_asyncgens(), and what else asynchronous generators (generators.lua) ask of C besides the
 * resuming, which is lcoro.c's. The Lua file is loaded by the first generator: without one, there is
 * nothing to shut down but the door.
 *
 * SPDX-License-Identifier: MIT */
#include "lgenerator.h"

#include "lloop.h"
#include "lrepr.h"
#include "ltask.h"

static const char shut_key; /* in a loop's fields: true once shutdown_asyncgens() was called */

static int closed_all(lua_State *L, int status, lua_KContext extra) {
  (void)L, (void)status, (void)extra;
  return 0;
}

/* Closes the generators that the loop at 1 runs, and waits for it. From now on a new one is warned of. */
static int loop_shutdown_asyncgens(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_wait(L, ctx, "shutdown_asyncgens");
  al_check_loop(L, ctx, 1);
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, AL_LOOP_UV_FIELDS);
  lua_pushboolean(L, true);
  lua_rawsetp(L, -2, &shut_key);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "aloop.generators") != LUA_TTABLE) return 0;
  lua_getfield(L, -1, "close_all");
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 0, 0, closed_all);
  return 0;
}

/* asyncgens_are_shut(loop) */
static int asyncgens_are_shut(lua_State *L) {
  al_check_loop(L, al_ctx_of(L), 1);
  lua_getiuservalue(L, 1, AL_LOOP_UV_FIELDS);
  lua_rawgetp(L, -1, &shut_key);
  lua_pushboolean(L, lua_toboolean(L, -1));
  return 1;
}

/* remember_place(object): in debug mode, where it is being made. */
static int remember_place(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  luaL_checkany(L, 1);
  if (ctx->debug || (ctx->running && al_loop_debug(ctx->running->loop))) al_remember_place(L, ctx, 1);
  return 0;
}

/* place_of(object) → " created at file:line", or "" */
static int place_of(lua_State *L) {
  luaL_checkany(L, 1);
  al_push_place_text(L, al_ctx_of(L), 1);
  return 1;
}

static const luaL_Reg loop_methods[] = {{"shutdown_asyncgens", loop_shutdown_asyncgens}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"asyncgens_are_shut", asyncgens_are_shut},
                                     {"remember_place", remember_place},
                                     {"place_of", place_of},
                                     {NULL, NULL}};

void al_generator_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
