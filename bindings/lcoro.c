/* lcoro.c - the coroutine library for scripts that wait. A user's coroutine may wait inside a task: aloop's own yields
 * carry a tag, and resume and wrap pass them outward until they reach the loop; what scripts yield stays theirs. While
 * a coroutine waits, the tag stays on top of its stack: to others it looks `normal`, for only its task may resume it.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"
#include "ltask.h"

#include <string.h>

/* How results are handed on. A body that had not begun runs under a task's own protected call, so that its <close>
 * variables may wait while an error unwinds. */
enum { AS_RESUME, AS_WRAP, AS_BODY, AS_NEW_BODY };

bool al_coro_is_waiting(lua_State *co) {
  return lua_status(co) == LUA_YIELD && lua_gettop(co) > 0 && lua_touserdata(co, -1) == (const void *)&al_wait_tag;
}

static lua_State *target(lua_State *L, int how) {
  if (how != AS_RESUME) return lua_tothread(L, lua_upvalueindex(2));
  lua_State *co = lua_tothread(L, 1);
  if (!co) al_typeerror(L, 1, "coroutine");
  return co;
}

static int go_on(lua_State *L, lua_State *co, int nargs, int how);

/* The task goes on: so does the coroutine inside. */
static int resumed_outside(lua_State *L, int status, lua_KContext how) {
  (void)status;
  lua_State *co = target(L, (int)how);
  if (al_coro_is_waiting(co)) lua_pop(co, 1);
  return go_on(L, co, 0, (int)how);
}

/* Runs the <close> variables of a coroutine, which can't wait; the status that it ends with. */
static int reset(al_ctx *ctx, lua_State *L, lua_State *co) {
  lua_State *former = ctx->co_top, *former_blocked = ctx->co_blocked;
  if (former == L) ctx->co_top = co;
  ctx->co_blocked = L;
  int status = lua_resetthread(co);
  ctx->co_top = former;
  ctx->co_blocked = former_blocked;
  return status;
}

/* The error of a coroutine that died, on top of co, is raised as coroutine.wrap raises it. */
static int raise_from(lua_State *L, lua_State *co, int how) {
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) status = reset(al_ctx_of(L), L, co);
  lua_xmove(co, L, 1);
  if (how == AS_WRAP && status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int hand_error(lua_State *L, lua_State *co, int how) {
  if (how != AS_RESUME) return raise_from(L, co, how);
  lua_xmove(co, L, 1); /* which may be the same, if it resumes itself */
  lua_pushboolean(L, false);
  lua_insert(L, -2);
  return 2;
}

/* What resume and wrap make of a failure of their own, in stock Lua's words. */
static int hand_refusal(lua_State *L, const char *message, int how) {
  if (how == AS_WRAP) return luaL_error(L, "%s", message);
  if (how == AS_RESUME) lua_pushboolean(L, false);
  lua_pushstring(L, message);
  return how == AS_RESUME ? 2 : lua_error(L);
}

/* What the coroutine yielded or returned: n values on its stack. */
static int hand_values(lua_State *L, lua_State *co, int n, int how) {
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    return hand_refusal(L, "too many results to resume", how);
  }
  if (how == AS_RESUME) lua_pushboolean(L, true);
  lua_xmove(co, L, n);
  return how == AS_RESUME ? n + 1 : n;
}

/* What a new body returned: true and its results, or false and its error, which has its traceback. Where the body is
 * not all of its task, it goes on with that of who awaits it. */
static int hand_outcome(lua_State *L, lua_State *co, int n) {
  enum { DRIVER_AND_MAIN = 2 };
  lua_Debug ar;
  al_ctx *ctx = al_ctx_of(L);
  bool ok = lua_toboolean(co, -n);
  lua_remove(co, -n);
  if (ok) return hand_values(L, co, n - 1, AS_NEW_BODY);
  lua_xmove(co, L, 1);
  if (lua_getstack(L, DRIVER_AND_MAIN, &ar))
    al_set_reraised(ctx);
  else
    ctx->passing = true;
  return lua_error(L);
}

/* A coroutine that is a task's body yields to the loop: nothing gives up one turn, a value is an error told to it. It
 * waits as any other: if somebody else resumed it meanwhile, what it waits for then would be waited for by another
 * task. */
static int yield_from_body(lua_State *L, lua_State *co, int n, int how) {
  lua_xmove(co, L, n);
  lua_pushlightuserdata(co, (void *)&al_wait_tag);
  return lua_yieldk(L, n, how, resumed_outside);
}

static int go_on(lua_State *L, lua_State *co, int nargs, int how) {
  al_ctx *ctx = al_ctx_of(L);
  lua_State *former = ctx->co_top, *former_blocked = ctx->co_blocked, *outer = ctx->innermost;
  int n = 0;
  if (former == L) ctx->co_top = co; /* else aloop has lost track: a foreign resume is on the way */
  if (!ctx->co_blocked && !lua_isyieldable(L)) ctx->co_blocked = L;
  ctx->innermost = co;
  int status = lua_resume(co, L, nargs, &n);
  ctx->innermost = outer;
  ctx->co_top = former;
  ctx->co_blocked = former_blocked;
  if (status == LUA_YIELD) {
    if (al_coro_is_waiting(co)) return al_suspend(L, how, resumed_outside);
    if (how >= AS_BODY) return yield_from_body(L, co, n, how);
    return hand_values(L, co, n, how);
  }
  if (status == LUA_OK) return how == AS_NEW_BODY ? hand_outcome(L, co, n) : hand_values(L, co, n, how);
  return hand_error(L, co, how);
}

static int start(lua_State *L, int first_arg, int how) {
  lua_State *co = target(L, how);
  int nargs = lua_gettop(L) - first_arg + 1;
  if (al_coro_is_waiting(co)) return hand_refusal(L, "cannot resume non-suspended coroutine", how);
  if (al_is_upcall_thread(co)) return hand_refusal(L, "cannot resume dead coroutine", how);
  if (!lua_checkstack(co, nargs)) return hand_refusal(L, "too many arguments to resume", how);
  lua_xmove(L, co, nargs);
  return go_on(L, co, nargs, how);
}

static int coro_resume(lua_State *L) { return start(L, 2, AS_RESUME); }
static int coro_wrapped(lua_State *L) { return start(L, 1, AS_WRAP); }

/* A coroutine given to several tasks runs in the one that comes first. */
static int refuse_reuse(lua_State *L, lua_State *co) {
  lua_Debug ar;
  bool runs = al_coro_is_waiting(co) || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar));
  const char *why = runs ? "coroutine is being awaited already" : "cannot reuse already awaited coroutine";
  return al_raise(L, al_ctx_of(L), AL_C_RuntimeError, "%s", why);
}

static int coro_body(lua_State *L) {
  lua_Debug ar;
  lua_State *co = target(L, AS_BODY);
  bool begins = lua_status(co) == LUA_OK && lua_gettop(co) > 0 && !lua_getstack(co, 0, &ar);
  if (begins && al_is_upcall_thread(co)) return refuse_reuse(L, co);
  if (!begins && (lua_status(co) != LUA_YIELD || al_coro_is_waiting(co))) return refuse_reuse(L, co);
  if (!begins || !lua_checkstack(co, 1)) return start(L, 1, AS_BODY);
  al_pushanchored(L, al_ctx_of(L), AL_SLOT_TASK_MAIN);
  lua_xmove(L, co, 1);
  lua_insert(co, 1);
  return go_on(L, co, lua_gettop(co) - 1, AS_NEW_BODY);
}

static int coro_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_pushlightuserdata(L, al_ctx_of(L));
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, coro_wrapped, 2);
  return 1;
}

void al_coro_pushdriver(lua_State *L, al_ctx *ctx, int idx) {
  idx = lua_absindex(L, idx);
  lua_pushlightuserdata(L, ctx);
  lua_pushvalue(L, idx);
  lua_pushcclosure(L, coro_body, 2);
}

/* Goes before an error that a yield is to raise in the coroutine that is resumed. */
static const char throw_tag;

static int yielded(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  if (lua_gettop(L) == 2 && lua_touserdata(L, 1) == (const void *)&throw_tag) return lua_error(L);
  return al_task_yielded(L, (al_ctx *)ctx);
}

/* Is L a coroutine that is the body of the current task? Its yields only give up a turn. */
static bool is_body(lua_State *L, al_ctx *ctx) {
  if (!ctx->current || ctx->current->co == L) return ctx->current != NULL;
  al_task_pushself(L, ctx, ctx->current);
  lua_getiuservalue(L, -1, AL_TASK_UV_CORO);
  bool is = lua_tothread(L, -1) == L;
  lua_pop(L, 2);
  return is;
}

/* A value can't be handed out of a Context:run: whoever gets it would find itself in that context. */
static int coro_yield(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (ctx->n_entered > 0 && !is_body(L, ctx) && al_context_is_entered_in(L)) {
    return al_raise(L, ctx, AL_C_RuntimeError,
                    "coroutine.yield can't leave Context:run, which stands between it and who resumed the coroutine; "
                    "run the coroutine in the context, or yield outside of it");
  }
  return lua_yieldk(L, lua_gettop(L), (lua_KContext)ctx, yielded);
}

/* For what is written in Lua. check_wait(name): raises unless the Lua function of this name,
 * which calls it, may wait. */
static int check_wait(lua_State *L) {
  al_check_wait(L, al_ctx_of(L), luaL_checkstring(L, 1));
  return 0;
}

/* may_wait(): whether the Lua function that calls it may wait. */
static int may_wait(lua_State *L) {
  lua_pushboolean(L, al_may_wait(L, al_ctx_of(L)));
  return 1;
}

/* generator_next(co): coroutine.resume, by one who may wait; else raises. */
static int generator_next(lua_State *L) {
  al_check_wait(L, al_ctx_of(L), "async_generator");
  lua_settop(L, 1);
  return start(L, 2, AS_RESUME);
}

/* generator_throw(co, error): resumes the coroutine so that its coroutine.yield raises the error. */
static int generator_throw(lua_State *L) {
  lua_settop(L, 2);
  lua_pushlightuserdata(L, (void *)&throw_tag);
  lua_insert(L, 2);
  return start(L, 2, AS_RESUME);
}

/* generator_raise(error): an error that came out of a generator's coroutine goes on in the one that runs
 * it, and so does its traceback. */
static int generator_raise(lua_State *L) {
  lua_settop(L, 1);
  al_set_reraised(al_ctx_of(L));
  return lua_error(L);
}

static lua_State *check_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  if (!co) al_typeerror(L, 1, "coroutine");
  return co;
}

static const char *status_of(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (co == L) return "running";
  switch (lua_status(co)) {
  case LUA_YIELD: return al_coro_is_waiting(co) ? "normal" : "suspended";
  case LUA_OK:
    if (lua_getstack(co, 0, &ar)) return "normal";
    return lua_gettop(co) == 0 || al_is_upcall_thread(co) ? "dead" : "suspended";
  default: return "dead";
  }
}

static int coro_status(lua_State *L) {
  lua_pushstring(L, status_of(L, check_coroutine(L)));
  return 1;
}

static int coro_close(lua_State *L) {
  lua_State *co = check_coroutine(L);
  const char *status = status_of(L, co);
  if (strcmp(status, "suspended") != 0 && strcmp(status, "dead") != 0)
    return luaL_error(L, "cannot close a %s coroutine", status);
  if (al_is_upcall_thread(co) || reset(al_ctx_of(L), L, co) == LUA_OK) {
    lua_pushboolean(L, true);
    return 1;
  }
  lua_pushboolean(L, false);
  lua_xmove(co, L, 1);
  return 2;
}

static int coro_isyieldable(lua_State *L) {
  lua_State *co = lua_isnone(L, 1) ? L : check_coroutine(L);
  lua_pushboolean(L, lua_isyieldable(co));
  return 1;
}

/* The main chunk's coroutine counts as the main one, as under lua. */
static int coro_running(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  bool main = lua_pushthread(L);
  if (ctx->current && ctx->current->co == L) ctx->current->exposed = true;
  lua_pushboolean(L, main || (ctx->main_task && ctx->main_task->co == L));
  return 2;
}

bool al_coro_is_passing(lua_CFunction f) {
  return f == coro_resume || f == coro_wrapped || f == coro_body || f == generator_next || f == generator_throw;
}

static const luaL_Reg functions[] = {{"resume", coro_resume},   {"wrap", coro_wrap},
                                     {"yield", coro_yield},     {"status", coro_status},
                                     {"close", coro_close},     {"isyieldable", coro_isyieldable},
                                     {"running", coro_running}, {NULL, NULL}};
static const luaL_Reg generator_functions[] = {
    {"check_wait", check_wait},           {"may_wait", may_wait},
    {"generator_next", generator_next},   {"generator_throw", generator_throw},
    {"generator_raise", generator_raise}, {NULL, NULL}};

/* Replaces the functions of the global table coroutine. */
void al_coro_openlib(lua_State *L, al_ctx *ctx) {
  al_ctx_setfuncs(L, ctx, generator_functions);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE) al_ctx_setfuncs(L, ctx, functions);
  lua_pop(L, 2);
}
