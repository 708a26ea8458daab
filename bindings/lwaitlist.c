/* lwaitlist.c - core.wait_list: the tasks that wait in a lock, an event, a queue, in the order in which they came. What
 * they wait for, and whom to wake when, is decided in Lua (locks.lua, queues.lua).
 *
 * A waiting task stands in the list by a pause (lpause.c), so that one which is cancelled leaves from anywhere at once.
 * It also leaves when it is woken, that is before it goes on; the Lua part counts those under way where it has to.
 *
 * SPDX-License-Identifier: MIT */
#include "lwaitlist.h"

#include "lloop.h"
#include "lpause.h"

enum {
  UV_OWNER = 1, /* whose list it is */
  UV_FIRST,     /* the list with which it shares its loop, or nil */
  UV_LOOP,      /* of the first: the loop of those who waited first */
  UV_COUNT = UV_LOOP
};

typedef struct wait_list wait_list;
struct wait_list {
  al_list waiting;  /* l_pause */
  wait_list *first; /* the one that knows the loop: perhaps itself */
  l_loop *loop;
};

/* Upvalue 2 of all functions here is the lists' metatable. */
static wait_list *check_list(lua_State *L, int arg) {
  wait_list *list = NULL;
  if (lua_type(L, arg) == LUA_TUSERDATA && lua_getmetatable(L, arg)) {
    if (lua_rawequal(L, -1, lua_upvalueindex(2))) list = lua_touserdata(L, arg);
    lua_pop(L, 1);
  }
  if (!list) al_typeerror(L, arg, "wait list");
  return list;
}

/* Pushes the list that knows the loop of the one at idx. */
static void push_first(lua_State *L, const wait_list *list, int idx) {
  if (list->first == list) {
    lua_pushvalue(L, idx);
  } else {
    lua_getiuservalue(L, idx, UV_FIRST);
  }
}

/* new(owner, [list]): a new list; it is bound to the same loop as the other list, if there is one. */
static int new_list(lua_State *L) {
  lua_settop(L, 2);
  wait_list *other = lua_isnil(L, 2) ? NULL : check_list(L, 2);
  wait_list *list = lua_newuserdatauv(L, sizeof *list, UV_COUNT);
  *list = (wait_list){.first = other ? other->first : list};
  al_list_init(&list->waiting);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 3, UV_OWNER);
  if (other) {
    push_first(L, other, 2);
    lua_setiuservalue(L, 3, UV_FIRST);
  }
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, 3);
  return 1;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static int raise_other_loop(lua_State *L, al_ctx *ctx) {
  lua_getiuservalue(L, 1, UV_OWNER);
  return al_raise(L, ctx, AL_C_RuntimeError, "%s is bound to a different event loop", luaL_tolstring(L, -1, NULL));
}

/* The first who waits binds the list to the loop of his task. */
static void bind_to(lua_State *L, al_ctx *ctx, wait_list *list, l_loop *loop) {
  if (list->first->loop == loop) return;
  if (list->first->loop) raise_other_loop(L, ctx);
  push_first(L, list, 1);
  al_pushloop(L, loop);
  lua_setiuservalue(L, -2, UV_LOOP);
  lua_pop(L, 1);
  list->first->loop = loop;
}

/* bind(list): raises RuntimeError if the list belongs to a loop other than the task's. */
static int list_bind(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  wait_list *list = check_list(L, 1);
  bind_to(L, ctx, list, al_check_wait(L, ctx, "wait")->f.loop);
  return 0;
}

static void leave(al_ctx *ctx, l_wait *wait) {
  l_pause *p = al_pause_of_wait(wait);
  al_handle_cancel(&p->timer.handle);
  al_pause_give(ctx, p);
}

static int finish_shown(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)L;
  al_pause_give(ctx, al_pause_of_wait(wait));
  return 0;
}

/* wait_over does what its finish would, where no future shows the wait. */
static const l_wait_kind in_list = {.finish = finish_shown, .abandon = leave, .what = "object"};

static int take_cancellation(lua_State *L) { return al_task_take_cancellation(L, lua_touserdata(L, 1)) ? 1 : 0; }

/* Raises nothing, for the Lua part has to count: without memory, that error takes the place of the CancelledError. */
static int wait_over(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = ctx->current;
  l_wait *wait = al_task_wait(t);
  if (wait) al_pause_give(ctx, al_pause_of_wait(wait)); /* else it was abandoned */
  al_task_set_wait(t, NULL);
  if (!t->throwing) return 0;
  lua_pushcfunction(L, take_cancellation);
  lua_pushlightuserdata(L, ctx);
  lua_pcall(L, 1, 1, 0);
  lua_pushboolean(L, t->woken);
  return 2;
}

/* Puts the current task into the list at 1. */
static l_pause *enter(lua_State *L, al_ctx *ctx, wait_list *list) {
  l_task *t = ctx->current;
  l_pause *p = al_pause_take(L, ctx);
  p->wait = (l_wait){&in_list, t};
  al_task_pushself(L, ctx, t);
  lua_getiuservalue(L, 1, UV_OWNER);
  lua_setiuservalue(L, -2, AL_TASK_UV_AWAITED);
  lua_pop(L, 1);
  al_task_set_wait(t, &p->wait);
  t->woken = false;
  al_list_append(&list->waiting, &p->timer.handle);
  return p;
}

/* ---- in a loop whose class makes its own futures, one of these shows the wait (lwaitfuture.c) -------------------- */

static int shown_body(lua_State *L) {
  l_pause *p = lua_touserdata(L, 1);
  return al_wait_on_future(L, al_ctx_of(L), &p->wait);
}

static int wait_shown(lua_State *L, al_ctx *ctx, wait_list *list);

/* Who gives the future a result wakes nobody: what is waited for didn't come, so the task waits on. An error that is
 * nil or false would look to the Lua part like none. */
static int shown_over(lua_State *L, int status, lua_KContext extra) {
  (void)extra;
  al_ctx *ctx = al_ctx_of(L);
  bool woken = ctx->current->woken;
  if (status == LUA_OK || status == LUA_YIELD) return woken ? 0 : wait_shown(L, ctx, lua_touserdata(L, 1));
  if (!lua_toboolean(L, -1)) al_pusherror(L, ctx, AL_C_RuntimeError, "the wait was ended with an error that is none");
  lua_pushboolean(L, woken);
  return 2;
}

static int wait_shown(lua_State *L, al_ctx *ctx, wait_list *list) {
  l_pause *p = enter(L, ctx, list);
  al_ctx_pushfunction(L, ctx, shown_body);
  lua_pushlightuserdata(L, p);
  return shown_over(L, lua_pcallk(L, 1, 0, 0, 0, shown_over), 0);
}

/* ------------------------------------------------------------------------------------------------------------------ */

/* wait(list, [name]) ⧗: nothing once it is woken; or the CancelledError that is to be raised, and whether it had been
 * woken before. name is that of the Lua function which calls it, unless that has called check(name). */
static int list_wait(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  wait_list *list = check_list(L, 1);
  if (lua_gettop(L) > 1 || !al_may_wait(L, ctx)) al_check_wait(L, ctx, luaL_optstring(L, 2, "wait"));
  l_task *t = ctx->current;
  if (list->first->loop != t->f.loop) bind_to(L, ctx, list, t->f.loop);
  if (t->f.loop->custom_future) return wait_shown(L, ctx, list);
  enter(L, ctx, list);
  return al_suspend(L, 0, wait_over);
}

static bool wake_first(wait_list *list) {
  if (al_list_is_empty(&list->waiting)) return false;
  l_pause *p = al_pause_of_link(list->waiting.next);
  al_handle_cancel(&p->timer.handle);
  p->wait.task->woken = true;
  al_wake(&p->wait);
  return true;
}

/* wake(list, [n = 1]): the n tasks that came first go on in the next turn; returns how many there were. */
static int list_wake(lua_State *L) {
  wait_list *list = check_list(L, 1);
  lua_Number n = lua_isnoneornil(L, 2) ? 1 : luaL_checknumber(L, 2);
  lua_Integer woken = 0;
  while ((lua_Number)woken < n && wake_first(list)) woken++;
  lua_pushinteger(L, woken);
  return 1;
}

/* count(list): how many wait. */
static int list_count(lua_State *L) {
  wait_list *list = check_list(L, 1);
  lua_Integer n = 0;
  for (al_link *link = list->waiting.next; link != &list->waiting; link = link->next) n++;
  lua_pushinteger(L, n);
  return 1;
}

/* ---- for the functions that wait --------------------------------------------------------------------------------- */

/* check(name): raises unless the Lua function of this name, which calls it, may wait. */
static int check(lua_State *L) {
  al_check_wait(L, al_ctx_of(L), luaL_checkstring(L, 1));
  return 0;
}

/* rethrow(err): raises what wait() gave back, as the cancellation of the current task. */
static int rethrow(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  if (ctx->current) ctx->current->told = true;
  lua_settop(L, 1);
  return lua_error(L);
}

bool al_task_push_owner(lua_State *L, al_ctx *ctx, l_task *t) {
  if (t->slot == 0) return false;
  const l_wait *wait = al_task_wait(t);
  const l_future *awaited = al_task_awaited(t);
  bool is_in_list = wait && wait->kind == &in_list;
  if (!is_in_list && !(awaited && awaited->has_owner)) return false;
  al_task_pushself(L, ctx, t);
  lua_getiuservalue(L, -1, AL_TASK_UV_AWAITED);
  if (!is_in_list) {
    al_future_owner(L, awaited, -1);
    lua_remove(L, -2);
  }
  lua_remove(L, -2);
  return true;
}

void al_waitlist_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg functions[] = {{"new", new_list},    {"bind", list_bind},   {"wait", list_wait},
                                       {"wake", list_wake},  {"count", list_count}, {"check", check},
                                       {"rethrow", rethrow}, {NULL, NULL}};
  lua_newtable(L);
  lua_pushlightuserdata(L, ctx);
  lua_createtable(L, 0, 1); /* the lists' metatable */
  lua_pushliteral(L, "wait list");
  lua_setfield(L, -2, "__name");
  luaL_setfuncs(L, functions, 2);
  lua_setfield(L, -2, "wait_list");
}
