/* lloop.c - the loop's userdata: made, found, closed, collected. Called by scripts, and by all bindings that get a loop
 * as an argument. How it is run is llooprun.c's matter, what is scheduled on it lschedule.c's, which one is meant where
 * none is named lloopcurrent.c's.
 *
 * Each loop has a metatable of its own, whose __index is the table of its fields (slow_callback_duration, and what a
 * script sets), which falls back to its class.
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"

#include "lcfuture.h"
#include "lexecutor.h"
#include "lhandle.h"
#include "lquery.h"
#include "lremote.h"
#include "lrepr.h"
#include "lsigint.h"
#include "ltask.h"
#include "ltesting.h"

#include <string.h>

/* ---- finding loops ----------------------------------------------------------------------------------------------- */

l_loop *al_test_loop(lua_State *L, al_ctx *ctx, int arg) {
  l_loop *loop = lua_touserdata(L, arg);
  if (loop && loop == ctx->running) return loop;
  return loop && al_isinstance(L, ctx, arg, AL_C_AbstractEventLoop) ? loop : NULL;
}

l_loop *al_check_loop(lua_State *L, al_ctx *ctx, int arg) {
  l_loop *loop = al_test_loop(L, ctx, arg);
  if (!loop || !loop->loop) al_typeerror(L, arg, "AbstractEventLoop");
  return loop;
}

void al_check_alive(lua_State *L, l_loop *loop) {
  if (!loop->loop || al_loop_is_closed(loop->loop)) al_raise(L, loop->ctx, AL_C_RuntimeError, "Event loop is closed");
}

l_loop *al_check_open(lua_State *L, al_ctx *ctx, int arg) {
  l_loop *loop = al_check_loop(L, ctx, arg);
  al_check_alive(L, loop);
  if (al_loop_debug(loop->loop) && !al_loop_in_thread(loop->loop))
    al_raise(L, ctx, AL_C_RuntimeError,
             "Non-thread-safe operation invoked on an event loop other than the current one");
  return loop;
}

void al_pushloop(lua_State *L, l_loop *loop) {
  al_ctx_anchors(L, loop->ctx);
  lua_rawgeti(L, -1, AL_SLOT_LOOPS);
  lua_rawgetp(L, -1, loop);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

int al_loop_set_function(lua_State *L, int uservalue) {
  al_check_loop(L, al_ctx_of(L), 1);
  if (!lua_isnoneornil(L, 2)) al_check_callable(L, 2);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, uservalue);
  return 0;
}

int al_loop_get_function(lua_State *L, int uservalue) {
  al_check_loop(L, al_ctx_of(L), 1);
  lua_getiuservalue(L, 1, uservalue);
  return 1;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void discard(al_loop *loop, al_handle *handle) {
  (void)loop;
  if (al_handle_is_ours(handle)) al_handle_discard(handle);
}

static int loop_newindex(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "slow_callback_duration") == 0) {
    if (lua_type(L, 3) != LUA_TNUMBER)
      return luaL_error(L, "bad value for 'slow_callback_duration' (number expected, got %s)", luaL_typename(L, 3));
    al_loop_set_slow_callback(loop, lua_tonumber(L, 3));
  }
  lua_getiuservalue(L, 1, AL_LOOP_UV_FIELDS);
  lua_replace(L, 1);
  lua_settop(L, 3);
  lua_rawset(L, 1);
  return 0;
}

/* Copies the methods of the class on top (popped) and of its bases into the table at fields: found there,
 * loop:call_soon is one look-up instead of one a class on the way. */
static void flatten_methods(lua_State *L, int fields) {
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  int class = lua_gettop(L);
  lua_pushliteral(L, "__base");
  lua_rawget(L, class);
  if (lua_rawequal(L, -1, class)) lua_pop(L, 1), lua_pushnil(L);
  flatten_methods(L, fields);
  for (lua_pushnil(L); lua_next(L, class); lua_pop(L, 1)) {
    if (!lua_isfunction(L, -1) || lua_type(L, -2) != LUA_TSTRING || *lua_tostring(L, -2) == '_') continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, fields);
  }
  lua_settop(L, class - 1);
}

static int loop_gc(lua_State *L);

/* Gives the loop at idx, made by the class at 1, its fields and its own metatable. The finalizer is ours, whatever the
 * class has. */
static void make_metatable(lua_State *L, al_ctx *ctx, int idx) {
  lua_newtable(L); /* the metatable */
  int meta = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || strncmp(lua_tostring(L, -2), "__", 2) != 0) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, meta);
  }
  al_ctx_pushfunction(L, ctx, loop_gc);
  lua_setfield(L, meta, "__gc");
  lua_pushvalue(L, 1);
  lua_setfield(L, meta, "__base");
  lua_newtable(L); /* the fields */
  lua_pushvalue(L, 1);
  flatten_methods(L, lua_gettop(L) - 1);
  lua_pushnumber(L, AL_SLOW_CALLBACK);
  lua_setfield(L, -2, "slow_callback_duration");
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, idx, AL_LOOP_UV_FIELDS);
  lua_setfield(L, meta, "__index");
  al_ctx_pushfunction(L, ctx, loop_newindex);
  lua_setfield(L, meta, "__newindex");
  lua_setmetatable(L, idx);
}

static bool replaces(lua_State *L, al_ctx *ctx, const char *method) {
  lua_getfield(L, 1, method);
  al_pushclass(L, ctx, AL_C_BaseEventLoop);
  lua_getfield(L, -1, method);
  bool other = !lua_rawequal(L, -1, -3);
  lua_pop(L, 3);
  return other;
}

/* A subclass's init(self, [selector]), for the class at 1, the selector at 2, the loop at 4. */
static void call_init(lua_State *L) {
  if (lua_getfield(L, 1, "init") == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, 4);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 0);
}

/* [1] class, [2] selector or nil, [3] clock or nil */
static int new_loop(lua_State *L, al_ctx *ctx, const char *machine) {
  if (ctx->ended) return al_raise(L, ctx, AL_C_RuntimeError, "no new event loop: the Lua state is being closed");
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  al_clock *clock = al_opt_clock(L, 3);
  l_loop *loop = al_new(L, ctx, AL_C_BaseEventLoop, sizeof *loop, AL_LOOP_UV_COUNT); /* 4 */
  loop->ctx = ctx;
  loop->of_finalizer = al_in_finalizer(L);
  loop->tasks.next = loop->tasks.prev = &loop->tasks;
  al_loop_init_collector(loop);
  al_pushanchored(L, ctx, AL_SLOT_LOOPS);
  lua_pushvalue(L, 4);
  lua_rawsetp(L, -2, loop);
  lua_settop(L, 4);
  make_metatable(L, ctx, 4);
  if (!al_isinstance(L, ctx, 4, AL_C_AbstractEventLoop)) return al_typeerror(L, 1, "class of event loops");
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, AL_LOOP_UV_CLOCK);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 4, AL_LOOP_UV_SELECTOR);
  loop->custom_future = replaces(L, ctx, "create_future");
  loop->custom_task = replaces(L, ctx, "create_task");
  al_remember_place(L, ctx, 4);
  al_loop_options options = {.machine = machine, .debug = ctx->debug, .data = loop, .discard = discard, .clock = clock};
  const char *reason = NULL;
  int error = al_loop_new(&options, &loop->loop, &reason);
  if (error == AL_ENORING) return al_raise(L, ctx, AL_C_NotImplementedError, "no io_uring here: %s", reason);
  if (error < 0) return al_raise_os(L, ctx, error, NULL, NULL);
  al_loop_set_slow_callback(loop, AL_SLOW_CALLBACK);
  loop->next = ctx->loops;
  ctx->loops = loop;
  if (ctx->debug) al_debug_line(ctx, "Using selector: %s", al_loop_machine(loop->loop));
  call_init(L);
  lua_settop(L, 4);
  return 1;
}

/* SelectorEventLoop([selector]): a selector says by its class's __machine which one it is. */
static int selector_loop_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, 3);
  const char *machine = NULL;
  if (!lua_isnoneornil(L, 2)) {
    if (luaL_getmetafield(L, 2, "__machine") != LUA_TSTRING) return al_typeerror(L, 2, "selector");
    machine = lua_tostring(L, -1); /* its class keeps the string */
  }
  return new_loop(L, ctx, machine);
}

static int proactor_loop_new(lua_State *L) { return new_loop(L, al_ctx_of(L), "uring"); }

/* ---- life -------------------------------------------------------------------------------------------------------- */

static int loop_is_closed(lua_State *L) {
  lua_pushboolean(L, al_loop_is_closed(al_check_loop(L, al_ctx_of(L), 1)->loop));
  return 1;
}

/* Lets go of the handles in the table at this user value. */
static void drop_handles(lua_State *L, al_ctx *ctx, int idx, int uservalue) {
  if (lua_getiuservalue(L, idx, uservalue) == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      l_handle *h = al_test(L, ctx, lua_gettop(L), AL_C_Handle);
      if (h) al_handle_drop(ctx, h);
    }
  }
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_setiuservalue(L, idx, uservalue);
}

static int report_all_body(lua_State *L) {
  l_loop *loop = lua_touserdata(L, 1);
  al_future_report_all(L, loop->ctx, loop);
  return 0;
}

/* Closes the loop at idx, whatever its exception handler raises: that is on top if this returns no LUA_OK. */
static int close_loop(lua_State *L, al_ctx *ctx, l_loop *loop, int idx) {
  lua_pushcfunction(L, report_all_body);
  lua_pushlightuserdata(L, loop);
  int status = lua_pcall(L, 1, 0, 0);
  al_task_forget_all(L, ctx, loop);
  al_sigint_detach(ctx, loop);
  al_query_detach(ctx, loop);
  al_executor_abandon(L, ctx, idx);
  al_loop_close(loop->loop);
  al_relays_forget(ctx, loop);
  al_answers_forget(ctx, loop);
  drop_handles(L, ctx, idx, AL_LOOP_UV_WATCHES);
  drop_handles(L, ctx, idx, AL_LOOP_UV_SIGNALS);
  return status;
}

static void leave_list(al_ctx *ctx, l_loop *loop) {
  l_loop **at = &ctx->loops;
  while (*at != loop) at = &(*at)->next;
  *at = loop->next;
}

static int loop_close(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  if (al_loop_is_running(loop->loop)) return al_raise(L, ctx, AL_C_RuntimeError, "Cannot close a running event loop");
  if (al_loop_is_closed(loop->loop)) return 0;
  if (al_loop_debug(loop->loop)) al_debug_line(ctx, "Close %s", luaL_tolstring(L, 1, NULL));
  if (close_loop(L, ctx, loop, 1) != LUA_OK) return lua_error(L);
  return 0;
}

static int warn_unclosed(lua_State *L) {
  al_ctx *ctx = ((const l_loop *)lua_touserdata(L, 1))->ctx;
  al_push_place_text(L, ctx, 1);
  bool known = lua_rawlen(L, -1) > 0;
  al_warn(ctx, "ResourceWarning", "unclosed event loop %s%s%s", luaL_tolstring(L, 1, NULL), known ? "," : "",
          lua_tostring(L, 2));
  return 0;
}

/* A class of a script's may replace __tostring and the exception handler: whatever they raise, the loop is closed. */
static int loop_gc(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_test_loop(L, ctx, 1); /* a script may give a table of its own the class as metatable */
  if (!loop || !loop->loop) return 0;
  if (!al_loop_is_closed(loop->loop)) {
    lua_pushcfunction(L, warn_unclosed);
    lua_pushvalue(L, 1);
    if (!loop->quiet && lua_pcall(L, 1, 0, 0) != LUA_OK) al_warn(ctx, "ResourceWarning", "unclosed event loop");
    close_loop(L, ctx, loop, 1);
  }
  leave_list(ctx, loop);
  al_loop_release(loop->loop);
  loop->loop = NULL;
  return 0;
}

static const char *boolean(bool value) { return value ? "true" : "false"; }

static int loop_tostring(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = lua_touserdata(L, 1);
  if (!loop || !al_isinstance(L, ctx, 1, AL_C_AbstractEventLoop)) return al_typeerror(L, 1, "AbstractEventLoop");
  luaL_getmetafield(L, 1, "__name");
  const char *name = lua_tostring(L, -1);
  if (!loop->loop) {
    lua_pushfstring(L, "<%s>", name);
  } else {
    lua_pushfstring(L, "<%s running=%s closed=%s debug=%s>", name, boolean(al_loop_is_running(loop->loop)),
                    boolean(al_loop_is_closed(loop->loop)), boolean(al_loop_debug(loop->loop)));
  }
  return 1;
}

/* ---- debug mode -------------------------------------------------------------------------------------------------- */

static int loop_get_debug(lua_State *L) {
  lua_pushboolean(L, al_loop_debug(al_check_loop(L, al_ctx_of(L), 1)->loop));
  return 1;
}

static int loop_set_debug(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  al_loop_set_debug(loop->loop, lua_toboolean(L, 2));
  if (loop == ctx->running) ctx->times_upcalls = lua_toboolean(L, 2);
  return 0;
}

/* ---- the module's functions -------------------------------------------------------------------------------------- */

static int set_quiet(lua_State *L) {
  al_check_loop(L, al_ctx_of(L), 1)->quiet = lua_toboolean(L, 2);
  return 0;
}

static int stats(lua_State *L) {
  al_loop_stats s;
  al_loop_get_stats(al_check_loop(L, al_ctx_of(L), 1)->loop, &s);
  const struct {
    const char *name;
    uint64_t value;
  } fields[] = {{"transports", s.transports}, {"servers", s.servers},   {"ops", s.ops},    {"timers", s.timers},
                {"handles", s.handles},       {"watchers", s.watchers}, {"turns", s.turns}};
  lua_createtable(L, 0, 7);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushinteger(L, (lua_Integer)fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

static int machine_of(lua_State *L) {
  lua_pushstring(L, al_loop_machine(al_check_loop(L, al_ctx_of(L), 1)->loop));
  return 1;
}

static const luaL_Reg methods[] = {{"is_closed", loop_is_closed}, {"close", loop_close}, {"get_debug", loop_get_debug},
                                   {"set_debug", loop_set_debug}, {"__gc", loop_gc},     {"__close", loop_close},
                                   {"__tostring", loop_tostring}, {NULL, NULL}};
static const luaL_Reg selector_methods[] = {{"__new", selector_loop_new},
                                            {"__gc", loop_gc},
                                            {"__close", loop_close},
                                            {"__tostring", loop_tostring},
                                            {NULL, NULL}};
static const luaL_Reg proactor_methods[] = {{"__new", proactor_loop_new},
                                            {"__gc", loop_gc},
                                            {"__close", loop_close},
                                            {"__tostring", loop_tostring},
                                            {NULL, NULL}};
static const luaL_Reg functions[] = {{"set_quiet", set_quiet}, {"stats", stats}, {"machine", machine_of}, {NULL, NULL}};

void al_loop_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, methods);
  al_class_methods(L, ctx, AL_C_SelectorEventLoop, selector_methods);
  al_class_methods(L, ctx, AL_C_ProactorEventLoop, proactor_methods);
  al_ctx_setfuncs(L, ctx, functions);
  al_ctx_anchors(L, ctx);
  al_pushweak(L, "v");
  lua_rawseti(L, -2, AL_SLOT_LOOPS);
  ctx->no_loop = lua_newuserdatauv(L, sizeof *ctx->no_loop, 0);
  memset(ctx->no_loop, 0, sizeof *ctx->no_loop);
  ctx->no_loop->ctx = ctx;
  al_anchor(L, ctx, -1);
  lua_pop(L, 2);
}
