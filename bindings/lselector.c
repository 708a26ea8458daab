/* lselector.c - aloop.selectors, Python's module of that name: watching descriptors without a loop. One that is only
 * given to SelectorEventLoop opens nothing: the loop takes its kind, and has its own.
 *
 * SPDX-License-Identifier: MIT */
#include "lselector.h"

#include "lfd.h"

#include <errno.h>
#include <math.h>

enum { UV_KEYS = 1, UV_FDS }; /* tables: descriptor → its key {fileobj, fd, events, data}; fileobj → descriptor */
enum { MAX_EVENTS = 64 };

typedef struct l_selector {
  al_selector *s; /* opened at first use */
  bool closed;
} l_selector;

static const char selector_tag; /* metafield __selector of all its classes */

/* The selector at 1. */
static l_selector *check_self(lua_State *L) {
  bool ok = lua_type(L, 1) == LUA_TUSERDATA && luaL_getmetafield(L, 1, "__selector") != LUA_TNIL &&
            lua_touserdata(L, -1) == (const void *)&selector_tag;
  if (!ok) al_typeerror(L, 1, "selector");
  lua_pop(L, 1);
  return lua_touserdata(L, 1);
}

/* ... that isn't closed; opened now if need be. */
static l_selector *check_open(lua_State *L) {
  l_selector *s = check_self(L);
  if (s->closed) al_raise(L, al_ctx_of(L), AL_C_ValueError, "I/O operation on closed selector");
  if (s->s) return s;
  luaL_getmetafield(L, 1, "__machine");
  int err = al_selector_new(lua_tostring(L, -1), &s->s);
  if (err) al_raise_os(L, al_ctx_of(L), err, NULL, NULL);
  lua_pop(L, 1);
  return s;
}

static void push_keys(lua_State *L) { lua_getiuservalue(L, 1, UV_KEYS); }

/* Descriptor of the value at 2, as it was registered: an object may have been closed since. */
static int known_fd(lua_State *L) {
  lua_getiuservalue(L, 1, UV_FDS);
  lua_pushvalue(L, 2);
  bool known = lua_rawget(L, -2) != LUA_TNIL;
  int fd = (int)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return known ? fd : al_check_fd(L, al_ctx_of(L), 2);
}

/* The descriptor that the value on top (popped) is known by from now on; nil: by none. */
static void set_known(lua_State *L, int fileobj) {
  fileobj = lua_absindex(L, fileobj);
  lua_getiuservalue(L, 1, UV_FDS);
  lua_pushvalue(L, fileobj);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

/* Pushes the table of keys and the key of the value at 2, which must be registered. */
static int check_key(lua_State *L) {
  int fd = known_fd(L);
  push_keys(L);
  if (lua_rawgeti(L, -1, fd) == LUA_TNIL)
    al_raise(L, al_ctx_of(L), AL_C_LookupError, "%s is not registered", luaL_tolstring(L, 2, NULL));
  return fd;
}

static unsigned check_events(lua_State *L, int arg) {
  lua_Integer events = al_checkinteger(L, arg);
  if (events <= 0 || events & ~(lua_Integer)(AL_SELECT_READ | AL_SELECT_WRITE))
    al_raise(L, al_ctx_of(L), AL_C_ValueError, "Invalid events: %I", events);
  return (unsigned)events;
}

/* Pushes a key of the file object at 2, the events at 3 and the data at 4. */
static void push_key(lua_State *L, int fd) {
  lua_createtable(L, 0, 4);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "fileobj");
  lua_pushinteger(L, fd);
  lua_setfield(L, -2, "fd");
  lua_pushvalue(L, 3);
  lua_setfield(L, -2, "events");
  lua_pushvalue(L, 4);
  lua_setfield(L, -2, "data");
}

/* The file object at 2 is no more watched by this descriptor; the table of keys is at keys. */
static void forget(lua_State *L, int keys, int fd) {
  lua_pushnil(L);
  lua_rawseti(L, keys, fd);
  lua_pushnil(L);
  set_known(L, 2);
}

/* Watches what the arguments of register or modify say, and remembers its key in the table at 5; returns the key. What
 * can't be watched is not registered, be it that it was. */
static int watch(lua_State *L, l_selector *s, int fd, unsigned events) {
  push_key(L, fd);
  int err = s->s ? al_selector_set(s->s, fd, events) : -EBADF; /* a finalizer may have closed it */
  if (err) {
    forget(L, 5, fd);
    return al_raise_os(L, al_ctx_of(L), err, NULL, NULL);
  }
  lua_pushinteger(L, fd);
  set_known(L, 2);
  lua_pushvalue(L, -1);
  lua_rawseti(L, 5, fd);
  return 1;
}

/* register(fd, events, [data]) → key */
static int selector_register(lua_State *L) {
  l_selector *s = check_open(L);
  lua_settop(L, 4);
  int fd = al_check_fd(L, al_ctx_of(L), 2);
  unsigned events = check_events(L, 3);
  push_keys(L);
  if (lua_rawgeti(L, 5, fd) != LUA_TNIL)
    return al_raise(L, al_ctx_of(L), AL_C_LookupError, "%s (FD %d) is already registered", luaL_tolstring(L, 2, NULL),
                    fd);
  return watch(L, s, fd, events);
}

/* modify(fd, events, [data]) → key */
static int selector_modify(lua_State *L) {
  l_selector *s = check_open(L);
  lua_settop(L, 4);
  unsigned events = check_events(L, 3);
  int fd = check_key(L);
  lua_getfield(L, -1, "fileobj");
  lua_replace(L, 2);
  return watch(L, s, fd, events);
}

/* unregister(fd) → key */
static int selector_unregister(lua_State *L) {
  l_selector *s = check_open(L);
  lua_settop(L, 2);
  int fd = check_key(L);
  al_selector_set(s->s, fd, 0);
  lua_getfield(L, 4, "fileobj");
  lua_replace(L, 2);
  forget(L, 3, fd);
  return 1;
}

static int64_t check_timeout(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return -1;
  double seconds = al_checknumber(L, arg);
  if (isnan(seconds)) al_raise(L, al_ctx_of(L), AL_C_ValueError, "'select': timeout must not be NaN");
  if (seconds <= 0) return 0;
  return seconds > 9e9 ? -1 : (int64_t)ceil(seconds * 1e9);
}

enum { READY = 3, KEYS, SEEN }; /* stack places in select: the array of {key, events}, the keys, descriptors in READY */

/* Appends what is ready; false if some of it was there before. */
static bool add_ready(lua_State *L, const al_selected *ready, int n) {
  for (int i = 0; i < n; i++) {
    lua_settop(L, SEEN);
    if (lua_rawgeti(L, SEEN, ready[i].fd) != LUA_TNIL) return false;
    lua_pushboolean(L, true);
    lua_rawseti(L, SEEN, ready[i].fd);
    if (ready[i].events == 0) continue;
    lua_createtable(L, 2, 0);
    lua_rawgeti(L, KEYS, ready[i].fd);
    lua_rawseti(L, -2, 1);
    lua_pushinteger(L, ready[i].events);
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, READY, (lua_Integer)lua_rawlen(L, READY) + 1);
  }
  return true;
}

/* select([timeout]): blocks the thread. Those that one wait has no room for are told by the next, before others. */
static int selector_select(lua_State *L) {
  check_open(L);
  int64_t timeout_ns = check_timeout(L, 2);
  lua_settop(L, 2);
  lua_newtable(L);
  push_keys(L);
  lua_newtable(L);
  const l_selector *s = check_open(L); /* a finalizer that new objects brought about may have closed it */
  al_selected ready[MAX_EVENTS];
  int n = al_selector_wait(s->s, ready, MAX_EVENTS, timeout_ns);
  while (n > 0 && add_ready(L, ready, n) && n == MAX_EVENTS && s->s) n = al_selector_wait(s->s, ready, MAX_EVENTS, 0);
  if (n < 0) return al_raise_os(L, al_ctx_of(L), n, NULL, NULL);
  lua_settop(L, READY);
  return 1;
}

static int selector_get_key(lua_State *L) {
  if (check_self(L)->closed) return al_raise(L, al_ctx_of(L), AL_C_RuntimeError, "Selector is closed");
  lua_settop(L, 2);
  check_key(L);
  return 1;
}

/* get_map() → a table descriptor → key, the caller's own; nil once closed */
static int selector_get_map(lua_State *L) {
  if (check_self(L)->closed) return 0;
  lua_settop(L, 1);
  lua_newtable(L);
  push_keys(L);
  for (lua_pushnil(L); lua_next(L, 3);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, 2);
  }
  lua_settop(L, 2);
  return 1;
}

static void new_tables(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  for (int place = UV_KEYS; place <= UV_FDS; place++) {
    lua_newtable(L);
    lua_setiuservalue(L, idx, place);
  }
}

static int selector_close(lua_State *L) {
  l_selector *s = check_self(L);
  if (s->s) al_selector_close(s->s);
  s->s = NULL;
  s->closed = true;
  new_tables(L, 1);
  return 0;
}

/* __new(class) */
static int selector_new(lua_State *L) {
  bool ok = lua_istable(L, 1) && lua_getfield(L, 1, "__selector") == LUA_TLIGHTUSERDATA &&
            lua_touserdata(L, -1) == (const void *)&selector_tag;
  if (!ok) return al_typeerror(L, 1, "class of selectors");
  al_new_instance(L, 1, AL_C_Object, sizeof(l_selector), UV_FDS);
  new_tables(L, -1);
  return 1;
}

static int kqueue_new(lua_State *L) {
  return al_raise(L, al_ctx_of(L), AL_C_NotImplementedError, "this system has no kqueue");
}

static const luaL_Reg methods[] = {{"register", selector_register},
                                   {"modify", selector_modify},
                                   {"unregister", selector_unregister},
                                   {"select", selector_select},
                                   {"get_key", selector_get_key},
                                   {"get_map", selector_get_map},
                                   {"close", selector_close},
                                   {"__close", selector_close},
                                   {"__gc", selector_close},
                                   {NULL, NULL}};

/* Pushes a subclass of the class on top. */
static void extend(lua_State *L, const char *name) {
  lua_getfield(L, -1, "extend");
  lua_pushvalue(L, -2);
  lua_pushstring(L, name);
  lua_call(L, 2, 1);
}

/* A subclass of the class on top, into the table below it. */
static void add_kind(lua_State *L, al_ctx *ctx, const char *name, const char *machine, lua_CFunction make) {
  extend(L, name);
  lua_pushstring(L, machine);
  lua_setfield(L, -2, "__machine");
  al_ctx_pushfunction(L, ctx, make);
  lua_setfield(L, -2, "__new");
  lua_setfield(L, -3, name);
}

void al_selector_openlib(lua_State *L, al_ctx *ctx) {
  lua_newtable(L);
  al_pushclass(L, ctx, AL_C_Object);
  extend(L, "BaseSelector");
  lua_remove(L, -2);
  al_ctx_setfuncs(L, ctx, methods);
  lua_pushlightuserdata(L, (void *)&selector_tag);
  lua_setfield(L, -2, "__selector");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__new");
  add_kind(L, ctx, "EpollSelector", "epoll", selector_new);
  add_kind(L, ctx, "PollSelector", "poll", selector_new);
  add_kind(L, ctx, "SelectSelector", "select", selector_new);
  add_kind(L, ctx, "KqueueSelector", "kqueue", kqueue_new);
  lua_setfield(L, -2, "BaseSelector");
  lua_getfield(L, -1, "EpollSelector");
  lua_setfield(L, -2, "DefaultSelector");
  lua_pushinteger(L, AL_SELECT_READ);
  lua_setfield(L, -2, "EVENT_READ");
  lua_pushinteger(L, AL_SELECT_WRITE);
  lua_setfield(L, -2, "EVENT_WRITE");
  lua_setfield(L, -2, "selectors");
}
