/* ltaskobj.c - what a task tells: its name, context, cancellation counts; current_task and all_tasks.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"
#include "lloop.h"
#include "ltask.h"

static l_task *check_task(lua_State *L, al_ctx *ctx) {
  l_future *f = al_test_future(L, ctx, 1);
  if (!f || !f->is_task) al_typeerror(L, 1, "Task");
  return (l_task *)f;
}

/* ---- its texts --------------------------------------------------------------------------------------------------- */

enum { NAME = 1, MESSAGE }; /* in the table that keeps both */

/* Pushes what anchors[AL_SLOT_TEXTS] has of the task at idx: its name, a table, or nil. Returns its type. */
static int push_texts(lua_State *L, int idx) {
  const l_task *t = lua_touserdata(L, idx);
  if (!t->has_texts) {
    lua_pushnil(L);
    return LUA_TNIL;
  }
  lua_pushvalue(L, idx);
  al_pushanchored(L, t->f.loop->ctx, AL_SLOT_TEXTS);
  lua_insert(L, -2);
  int type = lua_rawget(L, -2);
  lua_remove(L, -2);
  return type;
}

/* Sets it to the value on top (popped). What takes the place of another one takes no memory. */
static void set_texts(lua_State *L, int idx) {
  l_task *t = lua_touserdata(L, idx);
  lua_pushvalue(L, idx);
  al_pushanchored(L, t->f.loop->ctx, AL_SLOT_TEXTS);
  lua_insert(L, -3);
  lua_insert(L, -2);
  t->has_texts = true;
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Pushes the name that the task at idx was given, or nil. */
static bool push_given_name(lua_State *L, int idx) {
  if (push_texts(L, idx) == LUA_TTABLE) {
    lua_rawgeti(L, -1, NAME);
    lua_remove(L, -2);
  }
  return lua_isstring(L, -1);
}

void al_task_pushname_of(lua_State *L, int idx) {
  const l_task *t = lua_touserdata(L, idx);
  if (push_given_name(L, idx)) return;
  lua_pop(L, 1);
  lua_pushfstring(L, "Task-%I", (LUAI_UACINT)t->number);
}

void al_task_pushname(lua_State *L, l_task *t) {
  if (t->co) {
    al_task_pushself(L, t->f.loop->ctx, t);
    bool given = push_given_name(L, lua_gettop(L));
    lua_remove(L, -2);
    if (given) return;
    lua_pop(L, 1);
  }
  lua_pushfstring(L, t->is_main ? "main" : "Task-%I", (LUAI_UACINT)t->number);
}

void al_task_set_name(lua_State *L, int self, int name) {
  bool in_table = push_texts(L, self) == LUA_TTABLE;
  luaL_tolstring(L, name, NULL);
  in_table ? lua_rawseti(L, -2, NAME) : set_texts(L, self);
  lua_pop(L, 1);
}

void al_task_get_message(lua_State *L, int idx) {
  if (push_texts(L, idx) == LUA_TTABLE)
    lua_rawgeti(L, -1, MESSAGE);
  else
    lua_pushnil(L);
  lua_remove(L, -2);
}

void al_task_set_message(lua_State *L, int idx) {
  if (push_texts(L, idx) != LUA_TTABLE) {
    if (lua_isnil(L, -2)) { /* as most are */
      lua_pop(L, 2);
      return;
    }
    lua_createtable(L, 2, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, NAME);
    lua_pushvalue(L, -1);
    set_texts(L, idx);
  }
  lua_insert(L, -2);
  lua_rawseti(L, -2, MESSAGE);
  lua_pop(L, 1);
}

void al_task_drop_message(lua_State *L, int idx) {
  if (push_texts(L, idx) == LUA_TTABLE) {
    lua_rawgeti(L, -1, NAME);
    set_texts(L, idx);
  }
  lua_pop(L, 1);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

static int task_cancelling(lua_State *L) {
  lua_pushinteger(L, check_task(L, al_ctx_of(L))->cancelling);
  return 1;
}

static int task_uncancel(lua_State *L) {
  lua_pushinteger(L, al_task_uncancel(check_task(L, al_ctx_of(L))));
  return 1;
}

static int task_get_name(lua_State *L) {
  check_task(L, al_ctx_of(L));
  al_task_pushname_of(L, 1);
  return 1;
}

static int task_set_name(lua_State *L) {
  check_task(L, al_ctx_of(L));
  al_checkany(L, 2);
  al_task_set_name(L, 1, 2);
  return 0;
}

static int task_get_coro(lua_State *L) {
  check_task(L, al_ctx_of(L));
  lua_getiuservalue(L, 1, AL_TASK_UV_CORO);
  return 1;
}

static int task_get_context(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = check_task(L, ctx);
  if (t == ctx->current) { /* its context is the current one */
    al_pushanchored(L, ctx, AL_SLOT_CONTEXT);
    if (ctx->context_kind == AL_CONTEXT_OBJECT) return 1;
    al_context_object(L, ctx, ctx->context_kind, -1);
    lua_pushvalue(L, -1);
    al_context_swap(L, ctx, AL_CONTEXT_OBJECT);
    lua_pop(L, 1);
    return 1;
  }
  lua_getiuservalue(L, 1, AL_TASK_UV_CONTEXT);
  if (t->context_kind == AL_CONTEXT_OBJECT) return 1;
  al_context_object(L, ctx, t->context_kind, -1);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, AL_TASK_UV_CONTEXT);
  t->context_kind = AL_CONTEXT_OBJECT;
  return 1;
}

static int current_task(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = lua_isnoneornil(L, 1) ? NULL : al_check_loop(L, ctx, 1);
  l_task *t = ctx->current;
  if (t && t->is_main) al_main_settle(L, ctx);
  if (!t && !loop) al_running_loop(L, ctx);
  if (!t || (loop && t->f.loop != loop)) return 0;
  al_task_pushself(L, ctx, t);
  return 1;
}

static int all_tasks(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = lua_isnoneornil(L, 1) ? al_default_loop(L, ctx) : al_check_loop(L, ctx, 1);
  lua_newtable(L);
  lua_Integer n = 0;
  for (al_link *link = loop->tasks.next; link != &loop->tasks; link = link->next) {
    al_task_pushself(L, ctx, al_task_of_link(link));
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static const luaL_Reg task_methods[] = {{"cancelling", task_cancelling},
                                        {"uncancel", task_uncancel},
                                        {"get_name", task_get_name},
                                        {"set_name", task_set_name},
                                        {"get_coro", task_get_coro},
                                        {"get_context", task_get_context},
                                        {NULL, NULL}};
static const luaL_Reg functions[] = {{"current_task", current_task}, {"all_tasks", all_tasks}, {NULL, NULL}};

void al_task_openlib(lua_State *L, al_ctx *ctx) {
  al_task_prepare(L, ctx);
  al_class_methods(L, ctx, AL_C_Task, task_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
