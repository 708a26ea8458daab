/* lscope.c - see lscope.h. Timeouts (ltimeout.c) are scopes; task groups (taskgroups.lua) have one, made by core.scope.
 *
 * SPDX-License-Identifier: MIT */
#include "lscope.h"

#include "lloop.h"

l_task *al_scope_check_task(lua_State *L, al_ctx *ctx, const char *what) {
  l_task *t = al_task_here(ctx);
  if (!t) {
    al_raise(L, ctx, AL_C_RuntimeError,
             "'%s' should be used inside a task, to which it belongs: call it from one (aloop.run, loop:create_task)",
             what);
  }
  if (t->is_main) al_main_settle(L, ctx);
  al_check_alive(L, t->f.loop);
  return t;
}

/* Remembers the Lua function that makes the scope, and its line. */
static void remember_maker(lua_State *L, l_scope *s, int idx, int level) {
  lua_Debug ar;
  for (; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "lf", &ar);
    if (ar.currentline <= 0) {
      lua_pop(L, 1);
      continue;
    }
    s->line = ar.currentline;
    lua_setiuservalue(L, idx, AL_SCOPE_UV_CREATOR);
    return;
  }
}

void al_scope_enter(lua_State *L, al_ctx *ctx, l_scope *s, l_task *t, int idx, const char *what, int level) {
  s->what = what;
  remember_maker(L, s, idx, level);
  s->slot = al_anchor(L, ctx, idx);
  s->outer = t->scopes;
  s->task = t;
  t->scopes = s;
}

void al_scope_leave(al_ctx *ctx, l_scope *s) {
  if (!s->task) return;
  if (!al_timer_cancel(&s->timer)) al_handle_cancel(&s->timer.handle);
  l_scope **at = &s->task->scopes;
  while (*at != s) at = &(*at)->outer;
  *at = s->outer;
  s->task = NULL;
  al_unanchor(ctx, s->slot);
}

void al_scope_forget_all(al_ctx *ctx, l_task *t) {
  while (t->scopes) al_scope_leave(ctx, t->scopes);
}

void al_scope_push_place(lua_State *L, al_ctx *ctx, const l_task *t) {
  lua_Debug ar;
  al_pushanchored(L, ctx, t->scopes->slot);
  if (lua_getiuservalue(L, -1, AL_SCOPE_UV_CREATOR) == LUA_TFUNCTION) {
    lua_getinfo(L, ">S", &ar);
    lua_pushfstring(L, "%s() at %s:%d", t->scopes->what, ar.short_src, t->scopes->line);
  } else {
    lua_pushfstring(L, "%s()", t->scopes->what);
  }
  lua_replace(L, -2);
}

/* scope(what): an open scope of the current task for a class written in Lua, whose init calls this; and the task. */
static int scope_new(lua_State *L) {
  enum { LEVEL = 2 }; /* past this function and the init */
  al_ctx *ctx = al_ctx_of(L);
  const char *what = luaL_checkstring(L, 1);
  l_task *t = al_scope_check_task(L, ctx, what);
  lua_settop(L, 1);
  l_scope *s = lua_newuserdatauv(L, sizeof *s, AL_SCOPE_UV_COUNT);
  *s = (l_scope){.task = NULL};
  al_timer_init(&s->timer, NULL);
  al_scope_enter(L, ctx, s, t, 2, what, LEVEL);
  al_task_pushself(L, ctx, t);
  return 2;
}

/* scope_leave(scope) */
static int scope_leave(lua_State *L) {
  l_scope *s = lua_touserdata(L, 1);
  luaL_argexpected(L, s, 1, "scope");
  al_scope_leave(al_ctx_of(L), s);
  return 0;
}

/* unwinding(): is the __close that calls this called because an error passes, be it nil? What closes a block at its
 * normal end is the Lua function itself; an error is caught by C, which closes what it passes. */
static int unwinding(lua_State *L) {
  lua_Debug ar;
  bool by_c = lua_getstack(L, 2, &ar) && lua_getinfo(L, "S", &ar) && *ar.what == 'C';
  lua_pushboolean(L, by_c);
  return 1;
}

static const luaL_Reg functions[] = {
    {"scope", scope_new}, {"scope_leave", scope_leave}, {"unwinding", unwinding}, {NULL, NULL}};

void al_scope_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
