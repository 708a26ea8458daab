/* ctx.c - the context of a Lua state: made once by whoever opens the module first, found through the registry, and torn
 * down by its finalizer, the last of ours to run. Anchors keep alive what has an operation in flight.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"

#include "lalloc.h"
#include "lcfuture.h"
#include "lexecutor.h"
#include "lloop.h"
#include "lpause.h"
#include "lremote.h"
#include "lreport.h"

#include <string.h>

static const char registry_key; /* its address is the key */

enum { USUAL_DEPTH = 4 }; /* threads that are made at once: so deep, no event is dropped for want of memory */

/* At lua_close, after all objects that were made later. */
static int ctx_gc(lua_State *L) {
  al_ctx *ctx = lua_touserdata(L, 1);
  al_log_forget(ctx);
  while (ctx->loops) {
    l_loop *loop = ctx->loops;
    ctx->loops = loop->next;
    al_relays_forget(ctx, loop);
    al_answers_forget(ctx, loop);
    al_loop_release(loop->loop);
    loop->loop = NULL;
  }
  al_executor_join_all(ctx);
  al_mailbox_close(ctx);
  ctx->ended = true;
  al_pause_end(ctx);
  return 0;
}

static int do_nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* Pushes a thread for upcalls: [1] anchors, [2] traceback handler. Its first call takes memory that it then keeps, so
 * that later a callback in C, as a timer's loop.stop, needs none. */
static void new_thread(lua_State *L, al_ctx *ctx, int depth) {
  lua_State *thread = lua_newthread(L);
  lua_pushcfunction(thread, do_nothing);
  bool called = lua_pcall(thread, 0, 0, 0) == LUA_OK;
  if (!called || !lua_checkstack(thread, 2 * LUA_MINSTACK)) luaL_error(L, "not enough memory");
  al_ctx_anchors(L, ctx);
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_xmove(L, thread, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ctx->threads[depth]);
  ctx->threads[depth] = thread;
}

static int grow_threads(lua_State *L) {
  al_ctx *ctx = lua_touserdata(L, 1);
  new_thread(L, ctx, ctx->depth + 1);
  return 0;
}

/* No finalizer comes meanwhile: it would find L, the thread that is taken to be idle, in the middle of this. */
static void grow_on(lua_State *L, al_ctx *ctx) {
  bool collects = lua_gc(L, LUA_GCISRUNNING) == 1;
  if (collects) lua_gc(L, LUA_GCSTOP);
  lua_pushcfunction(L, grow_threads);
  lua_pushlightuserdata(L, ctx);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_settop(L, 2);
  if (collects) lua_gc(L, LUA_GCRESTART);
}

lua_State *al_try_enter(al_ctx *ctx) {
  lua_State *L = ctx->threads[ctx->depth];
  if (ctx->depth + 1 < AL_MAX_DEPTH && !ctx->threads[ctx->depth + 1]) grow_on(L, ctx);
  if (ctx->depth + 1 == AL_MAX_DEPTH || !ctx->threads[ctx->depth + 1]) return NULL;
  ctx->depth++;
  return L;
}

lua_State *al_enter(al_ctx *ctx) {
  lua_State *L = al_try_enter(ctx);
  if (!L) al_log(AL_LOG_ERROR, NULL, "a callback was dropped: callbacks nest too deeply, or there is no memory");
  return L;
}

void al_leave(al_ctx *ctx, lua_State *L) {
  lua_settop(L, 2);
  ctx->depth--;
}

bool al_is_upcall_thread(lua_State *L) {
  lua_Debug ar;
  if (lua_status(L) != LUA_OK || lua_getstack(L, 0, &ar)) return false;
  return lua_gettop(L) >= 2 && lua_tocfunction(L, 2) == al_traceback;
}

static const luaL_Reg ctx_metamethods[] = {{"__gc", ctx_gc}, {NULL, NULL}};

al_ctx *al_ctx_open(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key) == LUA_TUSERDATA) {
    al_ctx *found = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return found;
  }
  lua_pop(L, 1);
  al_ctx *ctx = lua_newuserdatauv(L, sizeof *ctx, 1);
  memset(ctx, 0, sizeof *ctx);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  ctx->main = lua_tothread(L, -1);
  ctx->alloc = al_alloc_of(L);
  lua_pop(L, 1);
  luaL_newlib(L, ctx_metamethods);
  lua_setmetatable(L, -2);

  lua_createtable(L, 64, 0); /* the anchors: the context's user value */
  for (int slot = 1; slot < AL_SLOT_FIRST_FREE; slot++) {
    lua_pushboolean(L, false);
    lua_rawseti(L, -2, slot);
  }
  ctx->n_slots = AL_SLOT_FIRST_FREE - 1;
  al_pushweak(L, "k"); /* creation places, and what else is known of objects without keeping them */
  lua_rawseti(L, -2, AL_SLOT_TRACES);
  lua_pushvalue(L, -1);
  ctx->anchors_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_setiuservalue(L, -2, 1);
  for (int depth = 0; depth < USUAL_DEPTH; depth++) new_thread(L, ctx, depth);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
  return ctx;
}

void al_ctx_pushfunction(lua_State *L, al_ctx *ctx, lua_CFunction f) {
  lua_pushlightuserdata(L, ctx);
  lua_pushcclosure(L, f, 1);
}

void al_ctx_setfuncs(lua_State *L, al_ctx *ctx, const luaL_Reg *functions) {
  lua_pushlightuserdata(L, ctx);
  luaL_setfuncs(L, functions, 1);
}

void al_pushweak(lua_State *L, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

void *al_allocate(al_ctx *ctx, void *block, size_t old, size_t new) {
  void *ud;
  lua_Alloc f = lua_getallocf(ctx->main, &ud);
  return f(ud, block, old, new);
}

void al_ctx_anchors(lua_State *L, al_ctx *ctx) { lua_rawgeti(L, LUA_REGISTRYINDEX, ctx->anchors_ref); }

/* Room for each slot in the list of free ones, so that giving one back never allocates. It is Lua's memory, for
 * finalizers may come after the context's own. */
static void grow_free_slots(lua_State *L, al_ctx *ctx) {
  int size = ctx->size_free ? ctx->size_free * 2 : 64;
  int *slots = lua_newuserdatauv(L, (size_t)size * sizeof(int), 0);
  if (ctx->free_slots) memcpy(slots, ctx->free_slots, (size_t)ctx->n_free * sizeof(int));
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ctx->free_slots);
  ctx->free_slots = slots;
  ctx->size_free = size;
}

int al_anchor(lua_State *L, al_ctx *ctx, int idx) {
  lua_pushvalue(L, idx);
  al_ctx_anchors(L, ctx);
  lua_insert(L, -2);
  int slot = al_anchor_top(L, ctx, lua_gettop(L) - 1);
  lua_pop(L, 2);
  return slot;
}

int al_anchor_top(lua_State *L, al_ctx *ctx, int anchors) {
  if (!ctx->n_free && ctx->n_slots >= ctx->size_free) grow_free_slots(L, ctx);
  int slot = ctx->n_free ? ctx->free_slots[ctx->n_free - 1] : ctx->n_slots + 1;
  lua_pushvalue(L, -1);
  lua_rawseti(L, anchors, slot); /* may throw: nothing is taken yet */
  if (ctx->n_free) {
    ctx->n_free--;
  } else {
    ctx->n_slots++;
  }
  if (slot == ctx->stale) ctx->stale = 0;
  return slot;
}

void al_pushanchored(lua_State *L, al_ctx *ctx, int slot) {
  al_ctx_anchors(L, ctx);
  lua_rawgeti(L, -1, slot);
  lua_replace(L, -2);
}

static void clear_slot(al_ctx *ctx, int slot) {
  lua_State *L = ctx->threads[ctx->depth]; /* idle, at base level */
  lua_pushboolean(L, false);               /* not nil, so that the table's array never shrinks and grows again */
  lua_rawseti(L, 1, slot);
}

void al_unanchor(al_ctx *ctx, int slot) {
  if (slot == 0) return;
  clear_slot(ctx, slot);
  ctx->free_slots[ctx->n_free++] = slot;
}

void al_unanchor_clear(al_ctx *ctx) {
  clear_slot(ctx, ctx->stale);
  ctx->stale = 0;
}

void al_unanchor_begin(al_ctx *ctx, int slot) {
  al_unanchor_end(ctx);
  ctx->free_slots[ctx->n_free++] = ctx->stale = slot;
}
