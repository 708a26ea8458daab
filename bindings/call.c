/* call.c - the gate from C to Lua: protected calls, tracebacks, and where errors go that nobody takes. Every upcall of
 * the core comes through here; what becomes of a report is lreport.c's matter.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"
#include "lloop.h"
#include "lreport.h"
#include "lrepr.h"
#include "ltask.h"

#include <stdarg.h>
#include <string.h>

int al_pcall(lua_State *L, int nargs, int nresults) { return lua_pcall(L, nargs, nresults, 2); }

int al_pcall_c(lua_State *L, lua_CFunction f, void *arg, int nresults) {
  lua_pushcfunction(L, f);
  lua_pushlightuserdata(L, arg);
  return al_pcall(L, 1, nresults);
}

/* ---- tracebacks -------------------------------------------------------------------------------------------------- */

/* Those of error objects stand in them; that of another value is remembered until the next one of the same task. */

static bool is_error_object(lua_State *L, al_ctx *ctx, int idx) {
  return lua_istable(L, idx) && al_isinstance(L, ctx, idx, AL_C_BaseError);
}

static bool in_task(const al_ctx *ctx) { return ctx->current && ctx->current->slot != 0; }

/* Pushes the key of the pair {value, traceback} that is remembered, in the table of traces: the current task's thread,
 * or what stands for none. */
static void push_key(lua_State *L, al_ctx *ctx, bool of_task) {
  if (!of_task) {
    lua_pushliteral(L, "last");
    return;
  }
  al_task_pushself(L, ctx, ctx->current);
  lua_getiuservalue(L, -1, AL_TASK_UV_THREAD);
  lua_remove(L, -2);
}

/* Remembers the traceback on top (popped) of the value at idx. */
static void remember(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  lua_createtable(L, 2, 0);
  lua_insert(L, -2);
  lua_rawseti(L, -2, 2);
  lua_pushvalue(L, idx);
  lua_rawseti(L, -2, 1);
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  lua_insert(L, -2);
  if (in_task(ctx)) {
    push_key(L, ctx, true);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
    ctx->current->traced = true;
  }
  push_key(L, ctx, false);
  lua_insert(L, -2);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Pushes value and traceback that were remembered last; false, and nothing, if there are none. */
static bool push_remembered(lua_State *L, al_ctx *ctx, bool of_task) {
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  push_key(L, ctx, of_task);
  bool has = lua_rawget(L, -2) == LUA_TTABLE;
  lua_remove(L, -2);
  if (has) {
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    lua_remove(L, -3);
  } else {
    lua_pop(L, 1);
  }
  return has;
}

void al_forget_traceback(lua_State *L, al_ctx *ctx) {
  if (!in_task(ctx)) return; /* it ended without memory, and has left the lists */
  al_pushanchored(L, ctx, AL_SLOT_TRACES);
  push_key(L, ctx, true);
  lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

bool al_pushlasttraceback(lua_State *L, al_ctx *ctx) {
  return (in_task(ctx) && push_remembered(L, ctx, true)) || push_remembered(L, ctx, false);
}

void al_pushtraceback(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  if (is_error_object(L, ctx, idx)) {
    lua_getfield(L, idx, "traceback");
    return;
  }
  for (int of_task = in_task(ctx) ? 1 : 0; of_task >= 0; of_task--) {
    if (!push_remembered(L, ctx, of_task)) continue;
    bool same = lua_rawequal(L, -2, idx);
    lua_remove(L, -2);
    if (same) return;
    lua_pop(L, 1);
  }
  lua_pushnil(L);
}

void al_settraceback(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  if (is_error_object(L, ctx, idx)) {
    lua_setfield(L, idx, "traceback");
  } else {
    remember(L, ctx, idx);
  }
}

static void put_reraised(al_ctx *ctx, bool reraised) {
  if (ctx->current)
    ctx->current->reraised = reraised;
  else
    ctx->reraised = reraised;
}

void al_set_reraised(al_ctx *ctx) { put_reraised(ctx, true); }

/* Was the error that is raised now of an awaited task? Of the next one it is not known yet. */
static bool take_reraised(al_ctx *ctx) {
  bool reraised = ctx->current ? ctx->current->reraised : ctx->reraised;
  put_reraised(ctx, false);
  return reraised;
}

enum { MAX_TRACEBACK = 16 * 1024 }; /* bytes: of a chain of many tasks, the innermost are told */

/* Adds the stack of L to the traceback on top, as that of the current task, to which the
 * error came from another one. */
static void add_stack(lua_State *L, al_ctx *ctx) {
  lua_pushliteral(L, "\nawaited in ");
  al_task_pushname(L, ctx->current);
  lua_pushliteral(L, ":\n");
  luaL_traceback(L, L, NULL, 1);
  lua_concat(L, 5);
}

int al_traceback(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, 1);
  bool reraised = take_reraised(ctx), told = ctx->passing || is_error_object(L, ctx, 1);
  ctx->passing = false;
  al_pushtraceback(L, ctx, 1);
  bool has = !lua_isnil(L, -1) && (told || reraised); /* of equal strings an old one's may be left */
  if (has && reraised && ctx->current && lua_isstring(L, -1) && lua_rawlen(L, -1) < MAX_TRACEBACK) {
    add_stack(L, ctx);
  } else if (has) {
    lua_settop(L, 1);
    return 1;
  } else {
    lua_pop(L, 1);
    luaL_traceback(L, L, NULL, 1);
    if (ctx->current) {
      al_task_push_creation(L, ctx->current);
      lua_concat(L, 2);
    }
  }
  al_settraceback(L, ctx, 1);
  return 1;
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

typedef struct report {
  al_ctx *ctx;
  l_loop *loop;
  const char *message;
  const al_key *keys;
} report;

/* report, error, the keys' values → loop:call_exception_handler(context) */
static int report_body(lua_State *L) {
  report *r = lua_touserdata(L, 1);
  al_pushloop(L, r->loop);
  lua_getfield(L, -1, "call_exception_handler");
  lua_insert(L, -2);
  lua_createtable(L, 0, 4);
  lua_pushstring(L, r->message);
  lua_setfield(L, -2, "message");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "exception");
  if (!is_error_object(L, r->ctx, 2)) {
    al_pushtraceback(L, r->ctx, 2);
    lua_setfield(L, -2, "traceback");
  }
  int arg = 3;
  for (const al_key *key = r->keys; key && key->key; key++, arg++) {
    lua_pushvalue(L, arg);
    lua_setfield(L, -2, key->key);
    if (!al_loop_debug(r->loop->loop)) continue;
    al_push_place(L, r->ctx, arg);
    if (lua_isnil(L, -1))
      lua_pop(L, 1);
    else
      lua_setfield(L, -2, "source_traceback");
  }
  lua_call(L, 2, 0);
  return 0;
}

/* Keeps the interrupt on top (popped) for run_forever to raise. */
static void leave_loop(al_ctx *ctx, lua_State *L, l_loop *loop) {
  al_ctx_anchors(L, ctx);
  lua_insert(L, -2);
  lua_rawseti(L, -2, AL_SLOT_EXIT);
  lua_pop(L, 1);
  ctx->exiting = true;
  if (loop->loop) al_loop_break(loop->loop);
}

void al_report(al_ctx *ctx, lua_State *L, l_loop *loop, const char *message, const al_key *keys) {
  if (al_isinterrupt(L, ctx, -1)) {
    leave_loop(ctx, L, loop);
    return;
  }
  report r = {ctx, loop, message, keys};
  int error = lua_gettop(L), nargs = 2;
  lua_pushcfunction(L, report_body);
  lua_pushlightuserdata(L, &r);
  lua_pushvalue(L, error);
  for (const al_key *key = keys; key && key->key; key++, nargs++) lua_pushvalue(L, key->idx);
  if (lua_pcall(L, nargs, 0, 0) != LUA_OK) {
    if (al_isinterrupt(L, ctx, -1)) {
      lua_pushvalue(L, -1);
      leave_loop(ctx, L, loop);
    } else {
      const char *why = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "(an error object)";
      al_log(AL_LOG_ERROR, NULL, "%s; and reporting it failed: %s", message, why);
    }
  }
  lua_settop(L, error - 1);
}

static void log_formatted(al_ctx *ctx, al_log_level level, const char *category, const char *format, va_list args) {
  char text[512];
  vsnprintf(text, sizeof text, format, args);
  al_log_line(ctx, level, category, text);
}

void al_warn(al_ctx *ctx, const char *category, const char *format, ...) {
  va_list args;
  va_start(args, format);
  log_formatted(ctx, AL_LOG_WARNING, category, format, args);
  va_end(args);
}

void al_debug_line(al_ctx *ctx, const char *format, ...) {
  va_list args;
  va_start(args, format);
  log_formatted(ctx, AL_LOG_DEBUG, NULL, format, args);
  va_end(args);
}
