/* lcontext.c - ContextVar, Context and Token. A context holds an immutable map; set makes a new map. What a callback or
 * task sees stands in AL_SLOT_CONTEXT of the anchors, and is no more than `empty` until a variable is set.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"

#include <string.h>

enum { CONTEXT_MAP = 1, CONTEXT_UV = 1 };
enum { VAR_NAME = 1, VAR_DEFAULT, VAR_UV = 2 };
enum { TOKEN_VAR = 1, TOKEN_OLD, TOKEN_CONTEXT, TOKEN_UV = 3 };

typedef struct context {
  bool entered;
} context;

typedef struct var {
  bool has_default;
} var;

typedef struct token {
  bool used, was_set;
} token;

static const char nil_value; /* stands for nil in a map */

/* ---- the current context ----------------------------------------------------------------------------------------- */

int al_context_swap(lua_State *L, al_ctx *ctx, int kind) {
  int former = ctx->context_kind;
  al_ctx_anchors(L, ctx);
  lua_rawgeti(L, -1, AL_SLOT_CONTEXT);
  lua_insert(L, -3); /* former value, value, anchors */
  lua_insert(L, -2); /* former value, anchors, value */
  lua_rawseti(L, -2, AL_SLOT_CONTEXT);
  lua_pop(L, 1);
  ctx->context_kind = kind;
  return former;
}

static void push_current(lua_State *L, al_ctx *ctx) { al_pushanchored(L, ctx, AL_SLOT_CONTEXT); }

/* Pushes the map of what is at idx, of this kind; nil if there is none. */
static void push_map(lua_State *L, int kind, int idx) {
  if (kind == AL_CONTEXT_OBJECT) {
    lua_getiuservalue(L, idx, CONTEXT_MAP);
  } else if (kind == AL_CONTEXT_MAP) {
    lua_pushvalue(L, idx);
  } else {
    lua_pushnil(L);
  }
}

static void push_current_map(lua_State *L, al_ctx *ctx) {
  push_current(L, ctx);
  push_map(L, ctx->context_kind, lua_gettop(L));
  lua_remove(L, -2);
}

int al_context_capture(lua_State *L, al_ctx *ctx) {
  if (ctx->context_kind == AL_CONTEXT_EMPTY) {
    lua_pushnil(L);
    return AL_CONTEXT_EMPTY;
  }
  push_current_map(L, ctx);
  return lua_isnil(L, -1) ? AL_CONTEXT_EMPTY : AL_CONTEXT_MAP;
}

/* Pops a map (or nil) and pushes a Context of it. */
static void new_context(lua_State *L, al_ctx *ctx) {
  al_new(L, ctx, AL_C_Context, sizeof(context), CONTEXT_UV);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, CONTEXT_MAP);
}

void al_context_object(lua_State *L, al_ctx *ctx, int kind, int idx) {
  idx = lua_absindex(L, idx);
  if (kind == AL_CONTEXT_OBJECT) {
    lua_pushvalue(L, idx);
    return;
  }
  push_map(L, kind, idx);
  new_context(L, ctx);
}

/* Pushes the current context as an object, which it is from then on. */
static void push_current_object(lua_State *L, al_ctx *ctx) {
  push_current(L, ctx);
  if (ctx->context_kind == AL_CONTEXT_OBJECT) return;
  al_context_object(L, ctx, ctx->context_kind, -1);
  lua_replace(L, -2);
  lua_pushvalue(L, -1);
  al_context_swap(L, ctx, AL_CONTEXT_OBJECT);
  lua_pop(L, 1);
}

/* ---- variables --------------------------------------------------------------------------------------------------- */

/* ContextVar(name, {default}) */
static int var_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"default", NULL};
  if (lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
  bool given = al_options(L, 3, "ContextVar", names);
  lua_settop(L, 3);
  var *v = al_new(L, ctx, AL_C_ContextVar, sizeof *v, VAR_UV);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, VAR_NAME);
  if (given) {
    v->has_default = al_option(L, 3, "default") != LUA_TNIL;
    lua_setiuservalue(L, -2, VAR_DEFAULT);
  }
  return 1;
}

/* Pushes what the map on top (replaced) has for the variable at idx; false, and the map goes, if nothing. */
static bool lookup(lua_State *L, int idx) {
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  if (lua_touserdata(L, -1) == (void *)&nil_value) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  return true;
}

static int var_get(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  var *v = al_check(L, ctx, 1, AL_C_ContextVar);
  int top = lua_gettop(L);
  if (ctx->context_kind != AL_CONTEXT_EMPTY) {
    push_current_map(L, ctx);
    if (lookup(L, 1)) return 1;
  }
  if (top >= 2) {
    lua_settop(L, 2);
    return 1;
  }
  if (!v->has_default) {
    lua_getiuservalue(L, 1, VAR_NAME);
    return al_raise(L, ctx, AL_C_LookupError, "context variable '%s' has no value", lua_tostring(L, -1));
  }
  lua_getiuservalue(L, 1, VAR_DEFAULT);
  return 1;
}

/* Replaces the map of the Context at context_idx by a copy in which the variable at var_idx has the value on top
 * (popped; nil: &nil_value), or none if remove. */
static void change(lua_State *L, int context_idx, int var_idx, bool remove) {
  if (lua_isnil(L, -1) && !remove) {
    lua_pop(L, 1);
    lua_pushlightuserdata(L, (void *)&nil_value);
  }
  lua_newtable(L);
  if (lua_getiuservalue(L, context_idx, CONTEXT_MAP) == LUA_TTABLE) {
    lua_pushnil(L);
    while (lua_next(L, -2)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -5);
    }
  }
  lua_pop(L, 1);
  lua_insert(L, -2); /* map, value */
  lua_pushvalue(L, var_idx);
  lua_insert(L, -2);
  lua_rawset(L, -3);
  lua_setiuservalue(L, context_idx, CONTEXT_MAP);
}

static int var_set(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check(L, ctx, 1, AL_C_ContextVar);
  lua_settop(L, 2);
  push_current_object(L, ctx); /* 3 */
  token *t = al_new(L, ctx, AL_C_Token, sizeof *t, TOKEN_UV);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 4, TOKEN_VAR);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, TOKEN_CONTEXT);
  lua_getiuservalue(L, 3, CONTEXT_MAP);
  t->was_set = lookup(L, 1);
  if (t->was_set) lua_setiuservalue(L, 4, TOKEN_OLD);
  lua_pushvalue(L, 2);
  change(L, 3, 1, false);
  lua_settop(L, 4);
  return 1;
}

static int reset(lua_State *L, al_ctx *ctx, int var_idx, int token_idx) {
  token *t = lua_touserdata(L, token_idx);
  if (t->used) return al_raise(L, ctx, AL_C_RuntimeError, "the token has already been used once");
  push_current_object(L, ctx);
  lua_getiuservalue(L, token_idx, TOKEN_CONTEXT);
  if (!lua_rawequal(L, -1, -2)) return al_raise(L, ctx, AL_C_ValueError, "the token was made in another context");
  lua_pop(L, 1);
  int context_idx = lua_gettop(L);
  lua_getiuservalue(L, token_idx, TOKEN_OLD);
  if (!t->was_set) lua_settop(L, context_idx), lua_pushnil(L);
  change(L, context_idx, var_idx, !t->was_set);
  t->used = true;
  return 0;
}

static int var_reset(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check(L, ctx, 1, AL_C_ContextVar);
  al_check(L, ctx, 2, AL_C_Token);
  lua_settop(L, 2);
  lua_getiuservalue(L, 2, TOKEN_VAR);
  if (!lua_rawequal(L, 1, 3))
    return al_raise(L, ctx, AL_C_ValueError, "the token was made by another context variable");
  return reset(L, ctx, 1, 2);
}

static int token_close(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  token *t = al_check(L, ctx, 1, AL_C_Token);
  lua_settop(L, 1);
  if (t->used) return 0;
  lua_getiuservalue(L, 1, TOKEN_VAR);
  return reset(L, ctx, 2, 1);
}

static int var_tostring(lua_State *L) {
  al_check(L, al_ctx_of(L), 1, AL_C_ContextVar);
  lua_getiuservalue(L, 1, VAR_NAME);
  lua_pushfstring(L, "<ContextVar name='%s'>", lua_tostring(L, -1));
  return 1;
}

/* ---- variables in pieces ----------------------------------------------------------------------------------------- */

void al_var_push_name(lua_State *L, int idx) { lua_getiuservalue(L, idx, VAR_NAME); }

bool al_var_push_default(lua_State *L, int idx) {
  const var *v = lua_touserdata(L, idx);
  if (v->has_default) lua_getiuservalue(L, idx, VAR_DEFAULT);
  return v->has_default;
}

bool al_var_push_value(lua_State *L, al_ctx *ctx, int idx) {
  if (ctx->context_kind == AL_CONTEXT_EMPTY) return false;
  idx = lua_absindex(L, idx);
  push_current_map(L, ctx);
  return lookup(L, idx);
}

void al_var_new(lua_State *L, al_ctx *ctx) {
  al_new(L, ctx, AL_C_ContextVar, sizeof(var), VAR_UV);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, VAR_NAME);
}

void al_var_set_default(lua_State *L, int idx) {
  ((var *)lua_touserdata(L, idx))->has_default = true;
  lua_setiuservalue(L, lua_absindex(L, idx), VAR_DEFAULT);
}

void al_var_set(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  push_current_object(L, ctx);
  lua_insert(L, -2);
  change(L, lua_gettop(L) - 1, idx, false);
  lua_pop(L, 1);
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static int copy_context(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_context_capture(L, ctx);
  new_context(L, ctx);
  return 1;
}

static int context_copy(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check(L, ctx, 1, AL_C_Context);
  lua_getiuservalue(L, 1, CONTEXT_MAP);
  new_context(L, ctx);
  return 1;
}

static int context_get(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check(L, ctx, 1, AL_C_Context);
  al_check(L, ctx, 2, AL_C_ContextVar);
  lua_settop(L, 3);
  lua_getiuservalue(L, 1, CONTEXT_MAP);
  if (!lookup(L, 2)) lua_settop(L, 3);
  return 1;
}

/* [1] Context, [2] former value, [3] handler, results or the error: back to the former context. */
static int run_done(lua_State *L, int status, lua_KContext former) {
  al_ctx *ctx = al_ctx_of(L);
  context *c = lua_touserdata(L, 1);
  c->entered = false;
  ctx->n_entered--;
  lua_pushvalue(L, 2);
  al_context_swap(L, ctx, (int)former);
  lua_pop(L, 1);
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - 3;
  ctx->passing = true;
  return lua_error(L);
}

/* Is the Context at idx what the running task or callback has? */
static bool is_current(lua_State *L, al_ctx *ctx, int idx) {
  if (ctx->context_kind != AL_CONTEXT_OBJECT) return false;
  push_current(L, ctx);
  bool same = lua_rawequal(L, -1, idx);
  lua_pop(L, 1);
  return same;
}

static int run(lua_State *L, al_ctx *ctx) {
  context *c = al_check(L, ctx, 1, AL_C_Context);
  al_check_callable(L, 2);
  if (c->entered || is_current(L, ctx, 1))
    return al_raise(L, ctx, AL_C_RuntimeError, "cannot enter context: it is entered already");
  c->entered = true;
  ctx->n_entered++;
  lua_pushvalue(L, 1);
  int former = al_context_swap(L, ctx, AL_CONTEXT_OBJECT);
  lua_insert(L, 2);
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_insert(L, 3);
  int nargs = lua_gettop(L) - 4;
  return run_done(L, lua_pcallk(L, nargs, LUA_MULTRET, 3, former, run_done), former);
}

void al_context_call(lua_State *L, al_ctx *ctx, int idx, int nargs) {
  int f = lua_gettop(L) - nargs;
  lua_pushvalue(L, idx);
  int former = al_context_swap(L, ctx, AL_CONTEXT_OBJECT);
  lua_insert(L, f); /* the former value */
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_insert(L, f + 1);
  int status = lua_pcall(L, nargs, 0, f + 1);
  lua_pushvalue(L, f);
  al_context_swap(L, ctx, former);
  lua_pop(L, 1);
  if (status != LUA_OK) {
    ctx->passing = true;
    lua_error(L);
  }
  lua_settop(L, f - 1);
}

static int context_run(lua_State *L) { return run(L, al_ctx_of(L)); }

/* What bind returns: upvalues ctx, Context, f. */
static int bound(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_rotate(L, 1, 2);
  return run(L, al_ctx_of(L));
}

static int context_bind(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check(L, ctx, 1, AL_C_Context);
  al_check_callable(L, 2);
  lua_pushlightuserdata(L, ctx);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, bound, 3);
  return 1;
}

bool al_context_is_run(lua_CFunction f) { return f == context_run || f == bound; }

bool al_context_is_entered_in(lua_State *L) {
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    lua_CFunction f = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    if (al_context_is_run(f)) return true;
  }
  return false;
}

bool al_context_unbind(lua_State *L, al_ctx *ctx, int idx) {
  (void)ctx;
  if (lua_tocfunction(L, idx) != bound) return false;
  idx = lua_absindex(L, idx);
  lua_getupvalue(L, idx, 3);
  lua_getupvalue(L, idx, 2);
  return true;
}

static const luaL_Reg var_methods[] = {
    {"__new", var_new},           {"get", var_get}, {"set", var_set}, {"reset", var_reset},
    {"__tostring", var_tostring}, {NULL, NULL}};
static const luaL_Reg token_methods[] = {{"__close", token_close}, {NULL, NULL}};
static const luaL_Reg context_methods[] = {
    {"run", context_run}, {"bind", context_bind}, {"copy", context_copy}, {"get", context_get}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"copy_context", copy_context}, {NULL, NULL}};

void al_context_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_ContextVar, var_methods);
  al_class_methods(L, ctx, AL_C_Token, token_methods);
  al_class_methods(L, ctx, AL_C_Context, context_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
