/* lmaywait.c - may a function wait where it is called? If not, the error says what is in the way, and the way out. In
 * debug mode those are told of, too, who wait again though they were cancelled. Called at the begin of all that waits
 * (al_check_wait); how one then waits is ltask.c's and lcoro.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"
#include "lloop.h"
#include "lrepr.h"
#include "ltask.h"

#include <string.h>

/* ---- what is in the way ------------------------------------------------------------------------------------------ */

/* Pushes "string.gsub" if the module's table on top (popped) has the function at f; else false, and pushes nothing. */
static bool push_name_in(lua_State *L, int f, const char *module) {
  int table = lua_gettop(L);
  if (!lua_istable(L, table)) {
    lua_pop(L, 1);
    return false;
  }
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_rawequal(L, -1, f)) continue;
    bool global = strcmp(module, LUA_GNAME) == 0;
    lua_pushfstring(L, "%s%s%s", global ? "" : module, global ? "" : ".", lua_tostring(L, -2));
    lua_replace(L, table);
    lua_settop(L, table);
    return true;
  }
  lua_pop(L, 1);
  return false;
}

/* The name by which a loaded module has the function at f: Lua's own modules first, for others may have it, too. */
static bool push_loaded_name(lua_State *L, int f) {
  static const char *const own[] = {LUA_GNAME, "string", "table", "coroutine", "os",
                                    "io",      "math",   "utf8",  "debug",     NULL};
  int loaded = lua_gettop(L) + 1;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (const char *const *module = own; *module; module++) {
    lua_getfield(L, loaded, *module);
    if (push_name_in(L, f, *module)) return true;
  }
  for (lua_pushnil(L); lua_next(L, loaded);) {
    if (lua_type(L, -2) != LUA_TSTRING)
      lua_pop(L, 1);
    else if (push_name_in(L, f, lua_tostring(L, -2)))
      return true;
  }
  lua_pop(L, 1);
  return false;
}

/* Pushes a name for the function of a stack frame that can't be suspended: `string.gsub`; or nil. */
static bool push_function_name(lua_State *L, lua_Debug *ar) {
  lua_getinfo(L, "fn", ar);
  int f = lua_gettop(L);
  if (!push_loaded_name(L, f)) {
    bool iterator = strcmp(ar->namewhat, "for iterator") == 0;
    lua_pushstring(L, iterator ? "the iterator of a for loop (ipairs?)" : ar->name);
  }
  lua_replace(L, f);
  lua_settop(L, f);
  return !lua_isnil(L, f);
}

/* Is the frame one of aloop's own functions that let waits through? */
static bool is_passed(lua_State *L, lua_Debug *ar) {
  lua_getinfo(L, "f", ar);
  lua_CFunction f = lua_tocfunction(L, -1);
  lua_pop(L, 1);
  return al_coro_is_passing(f) || al_context_is_run(f) || al_class_is_call(f);
}

/* Lua functions that are called from within what runs, and can't be suspended: what to do instead, or NULL. */
static const char *special_frame(const lua_Debug *ar) {
  if (strcmp(ar->namewhat, "hook") == 0) return "a debug hook can't be suspended; have a task do it (loop:create_task)";
  if (ar->name && strcmp(ar->name, "__gc") == 0)
    return "a finalizer (__gc) can't be suspended; have a task do it (loop:create_task)";
  return NULL;
}

/* Pushes what a C function of this name does, and the way out. */
static void push_complaint(lua_State *L, const char *name) {
  lua_pushfstring(L,
                  "%s, a C function that can't be suspended, stands between it and its task; get the value before "
                  "calling %s, or after",
                  name, name);
}

/* Pushes what stands in blocked between the caller L and its task. Lua functions and the functions that can be
 * suspended are passed over; so are those without a name, which a named one has called, unless there is none. False,
 * and pushes nothing, if there is nothing. */
static bool find_culprit(lua_State *L, lua_State *blocked) {
  static const char *const fine[] = {"pcall", "xpcall", "dofile", "pairs", "require", "error", NULL};
  lua_Debug ar;
  bool nameless = false;
  if (!lua_checkstack(blocked, LUA_MINSTACK)) return false;
  for (int level = blocked == L ? 1 : 0; lua_getstack(blocked, level, &ar); level++) {
    lua_getinfo(blocked, "Sn", &ar);
    if (special_frame(&ar)) {
      lua_pushstring(L, special_frame(&ar));
      return true;
    }
    if (*ar.what != 'C' || is_passed(blocked, &ar)) continue;
    if (!push_function_name(blocked, &ar)) {
      lua_pop(blocked, 1);
      nameless = true;
      continue;
    }
    if (blocked != L) lua_xmove(blocked, L, 1);
    const char *const *name = fine;
    while (*name && strcmp(*name, lua_tostring(L, -1)) != 0) name++;
    if (!*name) {
      push_complaint(L, lua_tostring(L, -1));
      return true;
    }
    lua_pop(L, 1);
  }
  if (nameless) lua_pushliteral(L, "a C function that can't be suspended stands between it and its task");
  return nameless;
}

/* Is a coroutine being closed by who resumed it, because it died? Nothing else is in the way of that one then. */
static bool is_burying(lua_State *resumer) {
  lua_Debug ar;
  return lua_isyieldable(resumer) && lua_getstack(resumer, 0, &ar) && is_passed(resumer, &ar);
}

/* The same, which is sought in the caller's coroutine, and then in the one that resumes or closes it. */
static void push_culprit(lua_State *L, lua_State *resumer) {
  if (!lua_isyieldable(L) && find_culprit(L, L)) return;
  if (resumer && is_burying(resumer)) {
    lua_pushliteral(L, "the coroutine has died of an error, and closing its variables can't be suspended; catch the "
                       "error inside the coroutine, by pcall");
    return;
  }
  if (resumer && find_culprit(L, resumer)) return;
  push_complaint(L, "something");
}

/* ---- debug mode: who waits again though it was cancelled --------------------------------------------------------- */

static bool holds_cancellation(lua_State *co, al_ctx *ctx, lua_Debug *ar) {
  for (int n = 1; lua_getlocal(co, ar, n); n++) {
    bool found = lua_istable(co, -1) && al_isinstance(co, ctx, -1, AL_C_CancelledError);
    lua_pop(co, 1);
    if (found) return true;
  }
  return false;
}

/* Is a cancellation on its way through this coroutine, and the wait one of a <close> variable, or of aloop's own, which
 * raises it again? While a C function (pcall, the task's own) closes the variables of what failed under it, it
 * keeps the error on its stack. */
static bool is_unwinding(lua_State *co, al_ctx *ctx) {
  lua_Debug ar;
  if (!lua_checkstack(co, LUA_MINSTACK)) return true;
  for (int level = 0; lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "S", &ar);
    if ((*ar.what == 'C' || al_is_own_source(ar.source)) && holds_cancellation(co, ctx, &ar)) return true;
  }
  return false;
}

/* A task that was told to end, and waits again, is likely to have lost the telling in a pcall. */
static void check_swallowed(lua_State *L, al_ctx *ctx, l_task *t) {
  if (!t->told || t->cancelling == 0 || is_unwinding(L, ctx) || (t->co != L && is_unwinding(t->co, ctx))) return;
  t->told = false;
  al_where(L);
  al_task_pushname(L, t);
  al_warn(ctx, "RuntimeWarning",
          "%s%s waits again though it was cancelled: a pcall caught the CancelledError; use aloop.try, or uncancel()",
          lua_tostring(L, -2), lua_tostring(L, -1));
  lua_pop(L, 2);
}

/* ---- the question itself ----------------------------------------------------------------------------------------- */

l_task *al_check_wait(lua_State *L, al_ctx *ctx, const char *f) {
  l_task *t = al_task_here(ctx);
  if (!t) {
    al_raise(L, ctx, AL_C_RuntimeError,
             "'%s' waits, and there is no task to suspend here: call it from a task (aloop.run, loop:create_task), not "
             "from a plain callback or protocol method",
             f);
  }
  if (ctx->co_top != L) {
    al_raise(
        L, ctx, AL_C_RuntimeError,
        "'%s' waits, but this coroutine was resumed by a coroutine.resume or wrap from before require \"aloop\"; use "
        "the present ones",
        f);
  }
  if (ctx->co_blocked || !lua_isyieldable(L)) {
    push_culprit(L, ctx->co_blocked);
    al_raise(L, ctx, AL_C_RuntimeError, "'%s' can't wait here: %s", f, lua_tostring(L, -1));
  }
  if (t->is_main) al_main_settle(L, ctx);
  al_check_alive(L, t->f.loop);
  if (al_loop_debug(t->f.loop->loop)) check_swallowed(L, ctx, t);
  return t;
}

bool al_may_wait(lua_State *L, al_ctx *ctx) {
  const l_task *t = ctx->current;
  if (!t || ctx->co_top != L || ctx->co_blocked || !lua_isyieldable(L)) return false;
  return t->f.loop->loop && !al_loop_is_closed(t->f.loop->loop);
}
