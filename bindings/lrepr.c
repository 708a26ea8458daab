/* lrepr.c - how handles, futures and tasks show themselves: `<Handle f(1, 'a') at x.lua:3>`, in asyncio's words.
 *
 * SPDX-License-Identifier: MIT */
#include "lrepr.h"

#include "embed.h"

#include <string.h>

enum { MAX_FRAMES = 10, MAX_STRING = 60 };

/* ---- where an object was made ------------------------------------------------------------------------------------ */

/* Pushes the table of what is known of objects without keeping them alive. */
static void push_traces(lua_State *L, al_ctx *ctx) { al_pushanchored(L, ctx, AL_SLOT_TRACES); }

/* Each path of ours is "aloop/" and a name. This is asked for each new task: the first letter
 * tells most names apart. */
bool al_is_own_source(const char *source) {
  static const char folder[] = "aloop/";
  const char *slash = *source == '@' ? strrchr(source, '/') : NULL;
  if (!slash || (size_t)(slash - source) < sizeof folder - 1) return false;
  const char *tail = slash + 1 - (sizeof folder - 1), *name = slash + 1;
  if (memcmp(tail, folder, sizeof folder - 1) != 0) return false;
  if (tail[-1] != '@' && tail[-1] != '/') return false; /* embedded, or of ALOOP_LUADIR */
  for (const al_embedded *file = al_embedded_files; file->name; file++) {
    const char *own = file->path + sizeof folder - 1;
    if (*own == *name && strcmp(own, name) == 0) return true;
  }
  return false;
}

void al_where(lua_State *L) {
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline < 0 || al_is_own_source(ar.source)) continue;
    lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

/* Pushes the stack as text, the first line being the innermost Lua frame that is a script's; nil if there is none, as
 * when the loop itself makes a transport. */
static void push_frames(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  lua_Debug ar;
  int shown = 0;
  for (int level = 1; shown < MAX_FRAMES && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline < 0 || (shown == 0 && al_is_own_source(ar.source))) continue;
    lua_pushfstring(L, shown++ ? "\n\t%s:%d" : "%s:%d", ar.short_src, ar.currentline);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  if (shown) return;
  lua_pop(L, 1);
  lua_pushnil(L);
}

void al_remember_place(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  push_traces(L, ctx);
  lua_pushvalue(L, idx);
  push_frames(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

void al_push_place(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  push_traces(L, ctx);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

void al_push_place_text(lua_State *L, al_ctx *ctx, int idx) {
  al_push_place(L, ctx, idx);
  const char *text = lua_tostring(L, -1);
  if (!text || !*text) {
    lua_pushliteral(L, "");
  } else {
    lua_pushliteral(L, " created at ");
    lua_pushlstring(L, text, strcspn(text, "\n"));
    lua_concat(L, 2);
  }
  lua_remove(L, -2);
}

static void add_place(lua_State *L, al_ctx *ctx, luaL_Buffer *b, int idx) {
  al_push_place_text(L, ctx, idx);
  luaL_addvalue(b);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Pushes the key under which the table on top (kept) has the function at f; false, and nothing, if it has it not. */
static bool push_key_of(lua_State *L, int f) {
  if (!lua_istable(L, -1)) return false;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (!lua_rawequal(L, -1, f) || lua_type(L, -2) != LUA_TSTRING) continue;
    lua_pop(L, 1);
    return true;
  }
  return false;
}

/* Pushes "print" or "string.format" for a function that a loaded module has, as tracebacks do; else pushes nothing. */
static bool push_global_name(lua_State *L, int f) {
  int top = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (lua_pushnil(L); lua_next(L, top + 1); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !push_key_of(L, f)) continue;
    bool global = strcmp(lua_tostring(L, -3), LUA_GNAME) == 0;
    if (!global) lua_pushfstring(L, "%s.%s", lua_tostring(L, -3), lua_tostring(L, -1));
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return true;
  }
  lua_settop(L, top);
  return false;
}

/* print, C function, work <x.lua:3> or function <x.lua:3> */
static void push_function(lua_State *L, int f) {
  lua_Debug ar;
  lua_pushvalue(L, f);
  lua_getinfo(L, ">S", &ar);
  bool is_c = *ar.what == 'C';
  if (!push_global_name(L, f)) lua_pushstring(L, is_c ? "C function" : "function");
  if (is_c) return;
  lua_pushfstring(L, "%s <%s:%d>", lua_tostring(L, -1), ar.short_src, ar.linedefined);
  lua_remove(L, -2);
}

void al_add_repr(lua_State *L, luaL_Buffer *b, int idx) {
  size_t len;
  switch (lua_type(L, idx)) {
  case LUA_TSTRING: {
    const char *s = lua_tolstring(L, idx, &len);
    luaL_addchar(b, '\'');
    luaL_addlstring(b, s, len > MAX_STRING ? MAX_STRING : len);
    luaL_addstring(b, len > MAX_STRING ? "'..." : "'");
    break;
  }
  case LUA_TFUNCTION:
    push_function(L, idx);
    luaL_addvalue(b);
    break;
  default: al_push_text(L, idx); luaL_addvalue(b);
  }
}

/* ---- handles ----------------------------------------------------------------------------------------------------- */

/* f(1, 'a') */
static void add_call(lua_State *L, luaL_Buffer *b, l_handle *h, int idx) {
  for (int i = 0; i <= h->nargs; i++) {
    luaL_addstring(b, i == 0 ? "" : i == 1 ? "(" : ", ");
    lua_getiuservalue(L, idx, 1 + i);
    int value = lua_gettop(L);
    luaL_Buffer part; /* a buffer wants the top of the stack for itself */
    luaL_buffinit(L, &part);
    al_add_repr(L, &part, value);
    luaL_pushresult(&part);
    lua_remove(L, value);
    luaL_addvalue(b);
  }
  luaL_addstring(b, h->nargs ? ")" : "()");
}

void al_handle_push_text(lua_State *L, l_handle *h, int idx) {
  int type = lua_getiuservalue(L, idx, 1);
  if (h->cancelled && type == LUA_TSTRING) return;
  lua_pop(L, 1);
  if (type == LUA_TNIL) {
    lua_pushliteral(L, "");
    return;
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  add_call(L, &b, h, idx);
  luaL_pushresult(&b);
}

void al_handle_repr(lua_State *L, al_ctx *ctx, l_handle *h, int idx) {
  idx = lua_absindex(L, idx);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, h->timer ? "<TimerHandle" : "<Handle");
  if (h->cancelled) luaL_addstring(&b, " cancelled");
  if (h->timer) {
    lua_pushfstring(L, " when=%f", h->when);
    luaL_addvalue(&b);
  }
  al_handle_push_text(L, h, idx);
  if (*lua_tostring(L, -1)) luaL_addchar(&b, ' ');
  luaL_addvalue(&b);
  add_place(L, ctx, &b, idx);
  luaL_addchar(&b, '>');
  luaL_pushresult(&b);
}

typedef struct description {
  l_handle *handle;
} description;

static int describe_body(lua_State *L) {
  l_handle *h = lua_touserdata(L, 1);
  al_handle_push_text(L, h, 2);
  return 1;
}

void al_handle_describe(lua_State *L, l_handle *h, int idx, char *buf, size_t size) {
  lua_pushcfunction(L, describe_body);
  lua_pushlightuserdata(L, h);
  lua_pushvalue(L, idx);
  bool ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
  snprintf(buf, size, "Exception in callback %s", ok ? lua_tostring(L, -1) : "?");
  lua_pop(L, 1);
}

/* ---- futures and tasks ------------------------------------------------------------------------------------------- */

static const char *const state_names[] = {"pending", "finished", "cancelled"};

/* A future inside a future is only named: it may be the same one again. */
static void add_value(lua_State *L, al_ctx *ctx, luaL_Buffer *b, int idx) {
  l_future *f = al_test_future(L, ctx, idx);
  if (!f) {
    al_add_repr(L, b, idx);
    return;
  }
  luaL_addstring(b, f->is_task ? "<Task " : "<Future ");
  luaL_addstring(b, state_names[f->state]);
  if (f->is_task) {
    luaL_addstring(b, " name='");
    al_task_pushname_of(L, idx);
    luaL_addvalue(b);
    luaL_addchar(b, '\'');
  }
  luaL_addstring(b, " ...>");
}

/* " wait_for=<Future pending ...>" of the task at idx */
static void add_awaited(lua_State *L, al_ctx *ctx, luaL_Buffer *b, int idx) {
  lua_getiuservalue(L, idx, AL_TASK_UV_AWAITED);
  int awaited = lua_gettop(L);
  luaL_Buffer part;
  luaL_buffinit(L, &part);
  luaL_addstring(&part, " wait_for=");
  add_value(L, ctx, &part, awaited);
  luaL_pushresult(&part);
  lua_remove(L, awaited);
  luaL_addvalue(b);
}

static void add_outcome(lua_State *L, al_ctx *ctx, luaL_Buffer *b, l_future *f, int idx) {
  luaL_addstring(b, f->failed ? " exception=" : " result=");
  if (f->nvalues != 1 && !f->failed) {
    lua_pushfstring(L, f->nvalues ? "(%d values)" : "nil", f->nvalues);
    luaL_addvalue(b);
    return;
  }
  lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE);
  int value = lua_gettop(L);
  luaL_Buffer part;
  luaL_buffinit(L, &part);
  add_value(L, ctx, &part, value);
  luaL_pushresult(&part);
  lua_remove(L, value);
  luaL_addvalue(b);
}

/* A callback's text is being made: it may hold the future itself, bound by a partial. */
static _Thread_local bool in_callback;

/* Pushes "f()" for the i-th callback's handle in the table on top. */
static void push_callback(lua_State *L, int i) {
  lua_rawgeti(L, -1, i);
  lua_getiuservalue(L, -1, 1);
  lua_replace(L, -2);
  int callback = lua_gettop(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  in_callback = true;
  al_add_repr(L, &b, callback);
  in_callback = false;
  luaL_addstring(&b, "()");
  luaL_pushresult(&b);
  lua_remove(L, callback);
}

/* " cb=[f(), <2 more>, g()]" */
static void add_callbacks(lua_State *L, luaL_Buffer *b, int idx) {
  if (in_callback) return;
  int top = lua_gettop(L);
  int n = lua_getiuservalue(L, idx, AL_FUTURE_UV_VALUE) == LUA_TTABLE ? (int)lua_rawlen(L, -1) : 0;
  if (n == 0) {
    lua_settop(L, top);
    return;
  }
  push_callback(L, 1);
  lua_insert(L, top + 1);
  if (n > 1) push_callback(L, n);
  const char *first = lua_tostring(L, top + 1), *last = n > 1 ? lua_tostring(L, -1) : "";
  if (n > 2) {
    lua_pushfstring(L, " cb=[%s, <%d more>, %s]", first, n - 2, last);
  } else {
    lua_pushfstring(L, n > 1 ? " cb=[%s, %s]" : " cb=[%s]", first, last);
  }
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  luaL_addvalue(b);
}

void al_future_repr(lua_State *L, al_ctx *ctx, l_future *f, int idx) {
  idx = lua_absindex(L, idx);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, f->is_task ? "<Task " : "<Future ");
  const l_task *t = f->is_task ? (const l_task *)f : NULL;
  luaL_addstring(&b, t && f->state == AL_FUTURE_PENDING && t->cancelling > 0 ? "cancelling" : state_names[f->state]);
  if (t) {
    luaL_addstring(&b, " name='");
    al_task_pushname_of(L, idx);
    luaL_addvalue(&b);
    luaL_addstring(&b, "' coro=");
    lua_getiuservalue(L, idx, AL_TASK_UV_CORO);
    int coro = lua_gettop(L);
    luaL_Buffer part;
    luaL_buffinit(L, &part);
    al_add_repr(L, &part, coro);
    luaL_pushresult(&part);
    lua_remove(L, coro);
    luaL_addvalue(&b);
    if (t->awaits) add_awaited(L, ctx, &b, idx);
  }
  if (f->state == AL_FUTURE_FINISHED) add_outcome(L, ctx, &b, f, idx);
  if (f->state == AL_FUTURE_PENDING) add_callbacks(L, &b, idx);
  add_place(L, ctx, &b, idx);
  luaL_addchar(&b, '>');
  luaL_pushresult(&b);
}

/* ---- the module's functions -------------------------------------------------------------------------------------- */

static int source_traceback(lua_State *L) {
  luaL_checkany(L, 1);
  al_push_place(L, al_ctx_of(L), 1);
  return 1;
}

/* where() → "file:line: " of the innermost line of a script's */
static int where(lua_State *L) {
  al_where(L);
  return 1;
}

/* repr(v) → a short text for any value */
static int repr(lua_State *L) {
  luaL_checkany(L, 1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  al_add_repr(L, &b, 1);
  luaL_pushresult(&b);
  return 1;
}

static const luaL_Reg functions[] = {
    {"repr", repr}, {"where", where}, {"source_traceback", source_traceback}, {NULL, NULL}};

void al_repr_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
