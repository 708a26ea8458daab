/* lreport.c - where errors and warnings end that nobody takes: the loop's exception handlers, and the log. call.c
 * brings errors here (al_report), lfuture.c and ltask.c those that nobody looked at.
 *
 * SPDX-License-Identifier: MIT */
#include "lreport.h"

#include "lcontext.h"
#include "lloop.h"
#include "lrepr.h"

#include <pthread.h>
#include <string.h>

/* ---- the log ----------------------------------------------------------------------------------------------------- */

/* The states that have a log handler. What the core logs in a thread goes to the one that was last given a handler
 * there, or has run a loop there; a state may move to another thread, and end there. */
static al_ctx *log_states;
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER; /* for log_states, their log_next and log_thread */
static bool takes_core;                                       /* atomic */

/* A number of this thread's that no other has or will have; never 0. */
static uint64_t thread_number(void) {
  static uint64_t last; /* atomic */
  static _Thread_local uint64_t mine;
  if (mine == 0) mine = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
  return mine;
}

/* The mutex is held. */
static void leave_list(al_ctx *ctx) {
  al_ctx **at = &log_states;
  while (*at && *at != ctx) at = &(*at)->log_next;
  if (*at) *at = ctx->log_next;
}

void al_log_forget(al_ctx *ctx) {
  if (ctx->log_thread == 0) return;
  pthread_mutex_lock(&log_mutex);
  leave_list(ctx);
  ctx->log_thread = 0;
  pthread_mutex_unlock(&log_mutex);
}

/* The state is this thread's from now on, before others of it. */
static void claim(al_ctx *ctx) {
  pthread_mutex_lock(&log_mutex);
  leave_list(ctx);
  ctx->log_next = log_states;
  ctx->log_thread = thread_number();
  log_states = ctx;
  pthread_mutex_unlock(&log_mutex);
}

void al_log_enter_thread(al_ctx *ctx) {
  if (ctx->log_thread != 0 && ctx->log_thread != thread_number()) claim(ctx);
}

static al_ctx *state_of_thread(void) {
  uint64_t number = thread_number();
  pthread_mutex_lock(&log_mutex);
  al_ctx *ctx = log_states;
  while (ctx && ctx->log_thread != number) ctx = ctx->log_next;
  pthread_mutex_unlock(&log_mutex);
  return ctx;
}

typedef struct line {
  al_ctx *ctx;
  al_log_level level;
  const char *text, *category;
} line;

static int call_log_handler(lua_State *L) {
  static const char *const level_names[] = {"debug", "info", "warning", "error"};
  const line *l = lua_touserdata(L, 1);
  al_pushanchored(L, l->ctx, AL_SLOT_LOG);
  lua_pushstring(L, level_names[l->level]);
  lua_pushstring(L, l->text);
  lua_pushstring(L, l->category);
  lua_call(L, 3, 0);
  return 0;
}

static int failure_text(lua_State *L) { /* ctx, error */
  al_pusherrortext(L, lua_touserdata(L, 1), 2);
  lua_pushfstring(L, "Exception in the log handler: %s", lua_tostring(L, -1));
  return 1;
}

/* Calls the handler; false if there is none, or if it failed, which stderr is told. */
static bool taken_by_handler(lua_State *L, line *l) {
  lua_rawgeti(L, 1, AL_SLOT_LOG);
  if (!lua_toboolean(L, -1)) return false;
  if (al_pcall_c(L, call_log_handler, l, 0) == LUA_OK) return true;
  lua_pushcfunction(L, failure_text);
  lua_pushlightuserdata(L, l->ctx);
  lua_rotate(L, -3, 2);
  if (al_pcall(L, 2, 1) == LUA_OK) al_log_stderr(NULL, AL_LOG_ERROR, lua_tostring(L, -1), NULL);
  return false;
}

void al_log_line(al_ctx *ctx, al_log_level level, const char *category, const char *text) {
  line l = {ctx, level, text, category};
  lua_State *L = al_enter(ctx);
  if (L) {
    bool taken = taken_by_handler(L, &l);
    al_leave(ctx, L);
    if (taken) return;
  }
  if (__atomic_load_n(&takes_core, __ATOMIC_RELAXED)) {
    al_log_stderr(NULL, level, text, category);
  } else {
    al_log(level, category, "%s", text);
  }
}

static void log_from_core(void *ud, al_log_level level, const char *message, const char *category) {
  al_ctx *ctx = state_of_thread();
  if (ctx) {
    al_log_line(ctx, level, category, message);
  } else {
    al_log_stderr(ud, level, message, category);
  }
}

/* set_log(f): a function for the log of this state, or nil */
static int set_log(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, 1);
  bool given = lua_toboolean(L, 1);
  al_ctx_anchors(L, ctx);
  if (given) {
    lua_pushvalue(L, 1);
  } else {
    lua_pushboolean(L, false);
  }
  lua_rawseti(L, -2, AL_SLOT_LOG);
  if (!given) {
    al_log_forget(ctx);
    return 0;
  }
  claim(ctx);
  if (!__atomic_exchange_n(&takes_core, true, __ATOMIC_RELAXED)) al_set_log(log_from_core, NULL);
  return 0;
}

/* warn(message, [category]) */
static int warn(lua_State *L) {
  const char *message = luaL_checkstring(L, 1);
  al_log_line(al_ctx_of(L), AL_LOG_WARNING, luaL_optstring(L, 2, NULL), message);
  return 0;
}

/* ---- the default exception handler ------------------------------------------------------------------------------- */

/* Pushes the smallest string key of the context at 2 that comes behind the one on top (nil: any), or nil. */
static void next_key(lua_State *L) {
  int after = lua_gettop(L), best = after + 1;
  lua_pushnil(L);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    if (!lua_isnil(L, after) && !lua_compare(L, after, -2, LUA_OPLT)) continue;
    if (!lua_isnil(L, best) && !lua_compare(L, -2, best, LUA_OPLT)) continue;
    lua_pushvalue(L, -2);
    lua_replace(L, best);
  }
}

/* Pushes the message of the context at 2. */
static void push_message(lua_State *L) {
  lua_getfield(L, 2, "message");
  if (!lua_toboolean(L, -1)) {
    lua_pushliteral(L, "Unhandled exception in event loop");
  } else {
    al_push_text(L, -1);
  }
  lua_remove(L, -2);
}

/* Appends the exception of the context at 2, whole, to the text on top. */
static void append_exception(lua_State *L, al_ctx *ctx) {
  int type = lua_getfield(L, 2, "exception");
  if (type == LUA_TNIL && lua_getfield(L, 2, "traceback") == LUA_TNIL) { /* with one, the error was nil */
    lua_pop(L, 2);
    return;
  }
  if (type == LUA_TNIL) lua_pop(L, 1);
  if (lua_getfield(L, 2, "traceback") == LUA_TSTRING) {
    al_settraceback(L, ctx, -2);
  } else {
    lua_pop(L, 1);
  }
  lua_pushliteral(L, "\n");
  al_pusherrortext(L, ctx, -2);
  lua_remove(L, -3);
  lua_concat(L, 3);
}

static int context_text(lua_State *L);

/* Pushes what the context at idx says, which stands inside the context: what a handler that failed was told of. */
static void push_inner_context(lua_State *L, al_ctx *ctx, int idx) {
  al_ctx_pushfunction(L, ctx, context_text);
  lua_pushboolean(L, true);
  lua_pushvalue(L, idx);
  lua_call(L, 2, 1);
  luaL_gsub(L, lua_tostring(L, -1), "\n", "\n\t");
  lua_remove(L, -2);
}

/* Pushes a value of the context as text. */
static void push_value_text(lua_State *L, int idx) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  al_add_repr(L, &b, idx);
  luaL_pushresult(&b);
}

/* Appends "\nkey: value" for the key on top to the text below it. Where something was made is shown as it is, by
 * lines. */
static void append_entry(lua_State *L, al_ctx *ctx) {
  int key = lua_gettop(L);
  const char *name = lua_tostring(L, key);
  bool lines = strcmp(name, "source_traceback") == 0;
  lua_pushvalue(L, key);
  lua_gettable(L, 2);
  if (strcmp(name, "context") == 0 && lua_istable(L, -1) && !lua_toboolean(L, 1)) {
    push_inner_context(L, ctx, key + 1);
  } else if (!lines || lua_type(L, -1) != LUA_TSTRING) {
    push_value_text(L, key + 1);
  }
  lua_pushfstring(L, lines ? "\n%s:\n\t%s" : "\n%s: %s", name, lua_tostring(L, -1));
  lua_pushvalue(L, key - 1);
  lua_insert(L, -2);
  lua_concat(L, 2);
  lua_replace(L, key - 1);
  lua_settop(L, key);
}

static bool is_told_apart(const char *key) {
  return strcmp(key, "message") == 0 || strcmp(key, "exception") == 0 || strcmp(key, "traceback") == 0;
}

/* [1] whether it is an inner one, [2] context → its message, the other keys in order, the exception with its
 * traceback */
static int context_text(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  push_message(L);
  lua_pushnil(L); /* 4: the last key */
  for (next_key(L); !lua_isnil(L, -1); next_key(L)) {
    lua_replace(L, 4);
    if (!is_told_apart(lua_tostring(L, 4))) append_entry(L, ctx);
  }
  lua_settop(L, 3);
  append_exception(L, ctx);
  return 1;
}

/* loop, context: writes what the context says to the log. */
static int default_exception_handler(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  al_ctx_pushfunction(L, ctx, context_text);
  lua_pushboolean(L, false);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  al_log_line(ctx, AL_LOG_ERROR, NULL, lua_tostring(L, -1));
  return 0;
}

/* ---- calling the handler that is set ----------------------------------------------------------------------------- */

/* Pushes the context of the task, future or handle that the context table at 2 is about, or nil. */
static void push_context_of_failure(lua_State *L, al_ctx *ctx) {
  static const char *const keys[] = {"task", "future", "handle"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (lua_getfield(L, 2, keys[i]) == LUA_TNIL) {
      lua_pop(L, 1);
      continue;
    }
    bool has = al_isinstance(L, ctx, -1, AL_C_Task) || al_isinstance(L, ctx, -1, AL_C_Handle);
    if (has && lua_getfield(L, -1, "get_context") == LUA_TFUNCTION) {
      lua_insert(L, -2);
      lua_call(L, 1, 1);
      return;
    }
    lua_settop(L, 3);
    break;
  }
  lua_pushnil(L);
}

/* loop, context, handler: calls it, in the context of what failed. */
static int run_handler(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  push_context_of_failure(L, ctx); /* 4 */
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  if (lua_isnil(L, 4)) {
    lua_call(L, 2, 0);
  } else {
    al_context_call(L, ctx, 4, 2);
  }
  return 0;
}

/* Calls f(loop, context) or f(loop, context, handler), which are on top, protected; interrupts pass, and of another
 * error this returns false, with the error on top. */
static bool try(lua_State *L, al_ctx *ctx, lua_CFunction f, int nargs) {
  al_ctx_pushfunction(L, ctx, al_traceback);
  al_ctx_pushfunction(L, ctx, f);
  lua_rotate(L, -nargs - 2, 2);
  int handler = lua_gettop(L) - nargs - 1, status = lua_pcall(L, nargs, 0, handler);
  lua_remove(L, handler);
  if (status == LUA_OK) return true;
  if (al_isinterrupt(L, ctx, -1)) lua_error(L);
  return false;
}

/* loop, context → loop:default_exception_handler(context), which a subclass may have replaced */
static int run_default(lua_State *L) {
  lua_getfield(L, 1, "default_exception_handler");
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  return 0;
}

/* The default handler for the context at 2; when even that fails, its error is logged. */
static void report_by_default(lua_State *L, al_ctx *ctx, const char *failed) {
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  if (try(L, ctx, run_default, 2)) return;
  al_pusherrortext(L, ctx, -1);
  lua_pushfstring(L, "%s: %s", failed, lua_tostring(L, -1));
  al_log_line(ctx, AL_LOG_ERROR, NULL, lua_tostring(L, -1));
}

/* loop, context */
static int call_exception_handler(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  if (lua_getiuservalue(L, 1, AL_LOOP_UV_HANDLER) == LUA_TNIL) {
    report_by_default(L, ctx, "Exception in default exception handler");
    return 0;
  }
  lua_pushvalue(L, 1);
  lua_insert(L, 3);
  lua_pushvalue(L, 2);
  lua_insert(L, 4);
  if (try(L, ctx, run_handler, 3)) return 0;
  lua_createtable(L, 0, 3);
  lua_pushliteral(L, "Unhandled error in exception handler");
  lua_setfield(L, -2, "message");
  lua_pushvalue(L, 3);
  lua_setfield(L, -2, "exception");
  al_pushtraceback(L, ctx, 3);
  lua_setfield(L, -2, "traceback");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "context");
  lua_replace(L, 2);
  report_by_default(L, ctx, "Exception in default exception handler after one in the loop's own");
  return 0;
}

static int loop_set_exception_handler(lua_State *L) { return al_loop_set_function(L, AL_LOOP_UV_HANDLER); }
static int loop_get_exception_handler(lua_State *L) { return al_loop_get_function(L, AL_LOOP_UV_HANDLER); }

static const luaL_Reg methods[] = {{"set_exception_handler", loop_set_exception_handler},
                                   {"get_exception_handler", loop_get_exception_handler},
                                   {"default_exception_handler", default_exception_handler},
                                   {"call_exception_handler", call_exception_handler},
                                   {NULL, NULL}};
static const luaL_Reg functions[] = {{"set_log", set_log}, {"warn", warn}, {NULL, NULL}};

void al_report_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
