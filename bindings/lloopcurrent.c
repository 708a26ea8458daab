/* lloopcurrent.c - which loop is meant where none is named: the one that runs, else the current one, else the one that
 * the main chunk will run on. Called by whatever makes objects of "the" loop; the default policy (events.lua) keeps its
 * loop here. It neither makes loops nor runs them.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "ltask.h"

/* Pushes it, or false. */
static void push_current_loop(lua_State *L, al_ctx *ctx) {
  if (ctx->forked)
    lua_pushboolean(L, false);
  else
    al_pushanchored(L, ctx, AL_SLOT_CURRENT_LOOP);
}

l_loop *al_running_loop(lua_State *L, al_ctx *ctx) {
  if (!ctx->running) al_raise(L, ctx, AL_C_RuntimeError, "no running event loop");
  return ctx->running;
}

l_loop *al_current_loop(lua_State *L, al_ctx *ctx) {
  push_current_loop(L, ctx);
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    al_pushanchored(L, ctx, AL_SLOT_LOOP_FACTORY);
    if (!lua_toboolean(L, -1)) al_raise(L, ctx, AL_C_RuntimeError, "There is no current event loop");
    lua_call(L, 0, 1);
  }
  return al_check_loop(L, ctx, lua_gettop(L));
}

l_loop *al_default_loop(lua_State *L, al_ctx *ctx) {
  if (ctx->running) return ctx->running;
  if (!ctx->current || !ctx->current->is_main) al_running_loop(L, ctx);
  al_main_settle(L, ctx);
  return ctx->current->f.loop;
}

l_loop *al_push_implied_loop(lua_State *L, al_ctx *ctx) {
  if (ctx->running || (ctx->current && ctx->current->is_main)) {
    l_loop *loop = al_default_loop(L, ctx);
    al_pushloop(L, loop);
    return loop;
  }
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "aloop.events") != LUA_TTABLE) /* which alone sets one */
    al_raise(L, ctx, AL_C_RuntimeError, "There is no current event loop");
  lua_getfield(L, -1, "get_event_loop");
  lua_call(L, 0, 1);
  lua_replace(L, -3);
  lua_pop(L, 1);
  return al_check_loop(L, ctx, lua_gettop(L));
}

/* ---- the module's functions -------------------------------------------------------------------------------------- */

static int get_running_loop(lua_State *L) {
  al_pushloop(L, al_running_loop(L, al_ctx_of(L)));
  return 1;
}

static int running_loop_or_nil(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (!ctx->running) return 0;
  al_pushloop(L, ctx->running);
  return 1;
}

/* forked() → is this a child of the process in which the current loops were set? From then on it is not. */
static int was_forked(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_pushboolean(L, ctx->forked);
  if (ctx->forked) {
    ctx->forked = false;
    al_ctx_anchors(L, ctx);
    lua_pushboolean(L, false);
    lua_rawseti(L, -2, AL_SLOT_CURRENT_LOOP);
    lua_pop(L, 1);
  }
  return 1;
}

/* set_current_loop([loop]): nil: there is none */
static int set_current_loop(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (!lua_isnoneornil(L, 1)) al_check_loop(L, ctx, 1);
  al_ctx_anchors(L, ctx);
  if (lua_toboolean(L, 1))
    lua_pushvalue(L, 1);
  else
    lua_pushboolean(L, false);
  lua_rawseti(L, -2, AL_SLOT_CURRENT_LOOP);
  return 0;
}

static int get_current_loop(lua_State *L) {
  push_current_loop(L, al_ctx_of(L));
  return lua_toboolean(L, -1);
}

/* The loop of the current task or callback; of the main chunk, before it turns, too. */
static int default_loop(lua_State *L) {
  al_pushloop(L, al_default_loop(L, al_ctx_of(L)));
  return 1;
}

static const luaL_Reg functions[] = {{"get_running_loop", get_running_loop},
                                     {"running_loop_or_nil", running_loop_or_nil},
                                     {"default_loop", default_loop},
                                     {"get_current_loop", get_current_loop},
                                     {"set_current_loop", set_current_loop},
                                     {"forked", was_forked},
                                     {NULL, NULL}};

void al_loop_current_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
