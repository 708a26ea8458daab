/* lfd.c - descriptors: what number a value stands for, and loop:add_reader and its kin. Knows no transports beyond
 * refusing their descriptors.
 *
 * SPDX-License-Identifier: MIT */
#include "lfd.h"

#include "lloop.h"
#include "lsockops.h"
#include "ltransport.h"

#include <limits.h>

/* ---- what a value stands for ------------------------------------------------------------------------------------- */

static int raise_invalid(lua_State *L, al_ctx *ctx, int idx) {
  return al_raise(L, ctx, AL_C_ValueError, "Invalid file object: %s", luaL_tolstring(L, idx, NULL));
}

/* The integer on top (popped), of the value at arg. */
static int pop_number(lua_State *L, al_ctx *ctx, int arg) {
  int isint;
  lua_Integer fd = lua_tointegerx(L, -1, &isint);
  if (!isint) return raise_invalid(L, ctx, arg);
  lua_pop(L, 1);
  if (fd < 0 || fd > INT_MAX) return al_raise(L, ctx, AL_C_ValueError, "Invalid file descriptor: %I", fd);
  return (int)fd;
}

static int fd_of_file(lua_State *L, al_ctx *ctx, const luaL_Stream *stream) {
  if (!stream->closef) return al_raise(L, ctx, AL_C_ValueError, "I/O operation on closed file");
  return fileno(stream->f);
}

bool al_push_method(lua_State *L, int idx, const char *name) {
  int type = lua_type(L, idx);
  if (type != LUA_TUSERDATA && type != LUA_TTABLE) return false;
  if (type == LUA_TUSERDATA && luaL_getmetafield(L, idx, "__index") == LUA_TNIL) return false;
  if (type == LUA_TUSERDATA) lua_pop(L, 1);
  lua_getfield(L, idx, name);
  if (al_iscallable(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

int al_check_fd(lua_State *L, al_ctx *ctx, int arg) {
  al_checkany(L, arg);
  if (lua_type(L, arg) == LUA_TNUMBER) {
    lua_pushvalue(L, arg);
    return pop_number(L, ctx, arg);
  }
  const luaL_Stream *stream = luaL_testudata(L, arg, LUA_FILEHANDLE);
  if (stream) return fd_of_file(L, ctx, stream);
  if (!al_push_method(L, arg, "fileno") && !al_push_method(L, arg, "getfd")) return raise_invalid(L, ctx, arg);
  lua_pushvalue(L, arg);
  lua_call(L, 1, 1);
  return pop_number(L, ctx, arg);
}

/* ---- handles that stay with a loop ------------------------------------------------------------------------------- */

/* Pushes the table of the loop at 1. */
static void push_places(lua_State *L, int uservalue) {
  if (lua_getiuservalue(L, 1, uservalue) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, uservalue);
}

/* The Handle on top (popped), if it is one, was replaced or removed. */
static void retire(al_ctx *ctx, lua_State *L) {
  l_handle *h = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (!h) return;
  h->cancelled = true;
  al_handle_drop(ctx, h);
}

void al_watch_begin(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key, int handle) {
  l_handle *h = lua_touserdata(L, handle);
  push_places(L, uservalue);
  if (lua_rawgeti(L, -1, key) == LUA_TNIL) { /* the place is made now, for nothing may raise once it is anchored */
    lua_pushboolean(L, false);
    lua_rawseti(L, -3, key);
  }
  h->keep = true;
  al_handle_anchor(L, ctx, handle, h);
  lua_pushvalue(L, handle);
  lua_rawseti(L, -3, key);
  lua_remove(L, -2);
}

void al_watch_commit(lua_State *L, al_ctx *ctx) { retire(ctx, L); }

void al_watch_undo(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key, int handle) {
  push_places(L, uservalue);
  lua_insert(L, -2);
  lua_rawseti(L, -2, key);
  lua_pop(L, 1);
  lua_pushvalue(L, handle);
  retire(ctx, L);
}

/* What stands for the descriptor of a watch is kept as long as that, lest it be collected, which would close it: it has
 * a place below zero. */
static lua_Integer object_place(lua_Integer key) { return -1 - key; }

static void forget_object(lua_State *L, int places, lua_Integer key) {
  places = lua_absindex(L, places);
  lua_pushnil(L);
  lua_rawseti(L, places, object_place(key));
}

void al_watch_end(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key) {
  push_places(L, uservalue);
  forget_object(L, -1, key);
  lua_rawgeti(L, -1, key);
  lua_pushnil(L);
  lua_rawseti(L, -3, key);
  retire(ctx, L);
  lua_pop(L, 1);
}

/* Finds the handle at 2 in the table of the loop at 1: its key. */
static bool find_place(lua_State *L, int uservalue, lua_Integer *key) {
  push_places(L, uservalue);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (!lua_rawequal(L, -1, 2)) continue;
    *key = lua_tointeger(L, -2);
    lua_settop(L, 2);
    return true;
  }
  lua_settop(L, 2);
  return false;
}

static int watch_cancel_body(lua_State *L) { /* loop, handle */
  al_ctx *ctx = al_ctx_of(L);
  const l_loop *loop = lua_touserdata(L, 1);
  lua_Integer key;
  if (find_place(L, AL_LOOP_UV_WATCHES, &key)) {
    (key & 1 ? al_remove_writer : al_remove_reader)(loop->loop, (int)(key >> 1));
    al_watch_end(L, ctx, AL_LOOP_UV_WATCHES, key);
  } else if (find_place(L, AL_LOOP_UV_SIGNALS, &key)) {
    al_remove_signal(loop->loop, (int)key);
    al_watch_end(L, ctx, AL_LOOP_UV_SIGNALS, key);
  }
  return 0;
}

void al_watch_cancel(lua_State *L, al_ctx *ctx, const l_handle *h, int handle) {
  lua_pushvalue(L, handle);
  al_ctx_pushfunction(L, ctx, watch_cancel_body);
  al_pushloop(L, h->loop);
  lua_rotate(L, -3, -1);
  lua_call(L, 2, 0);
}

/* ---- loop:add_reader, remove_reader, add_writer, remove_writer --------------------------------------------------- */

typedef struct direction {
  int (*add)(al_loop *loop, int fd, al_handle *handle, al_handle **old);
  al_handle *(*remove)(al_loop *loop, int fd);
  int bit; /* of the key in AL_LOOP_UV_WATCHES */
} direction;

static const direction reading = {al_add_reader, al_remove_reader, 0};
static const direction writing = {al_add_writer, al_remove_writer, 1};

static lua_Integer key_of(const direction *d, int fd) { return (lua_Integer)fd * 2 + d->bit; }

/* Makes a place for the object of a watch, so that keep_object takes no memory; that of a former watch stays. */
static void reserve_object(lua_State *L, lua_Integer key) {
  push_places(L, AL_LOOP_UV_WATCHES);
  if (lua_rawgeti(L, -1, object_place(key)) == LUA_TNIL) {
    lua_pushboolean(L, false);
    lua_rawseti(L, -3, object_place(key));
  }
  lua_pop(L, 2);
}

/* Keeps the object at 2, if it is one and no number, in the place that is reserved. */
static void keep_object(lua_State *L, lua_Integer key) {
  push_places(L, AL_LOOP_UV_WATCHES);
  if (lua_type(L, 2) == LUA_TNUMBER)
    lua_pushnil(L);
  else
    lua_pushvalue(L, 2);
  lua_rawseti(L, -2, object_place(key));
  lua_pop(L, 1);
}

/* (loop, fd, f, ...) */
static int add(lua_State *L, const direction *d) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  int fd = al_check_fd(L, ctx, 2);
  al_check_callable(L, 3);
  l_loop *loop = al_check_open(L, ctx, 1);
  al_check_fd_free(L, ctx, loop->loop, fd);
  lua_Integer key = key_of(d, fd);
  l_handle *h = al_handle_make(L, ctx, loop, 3);
  reserve_object(L, key);
  al_watch_begin(L, ctx, AL_LOOP_UV_WATCHES, key, 3);
  al_handle *old;
  int err = d->add(loop->loop, fd, &h->t.handle, &old);
  if (err) {
    al_watch_undo(L, ctx, AL_LOOP_UV_WATCHES, key, 3);
    return al_raise_os(L, ctx, err, NULL, NULL);
  }
  keep_object(L, key);
  al_watch_commit(L, ctx);
  al_sockops_replaced(ctx, old);
  return 0;
}

/* Is the object at 2 a file, or a socket or pipe end of ours, that is closed? */
static bool is_closed(lua_State *L, al_ctx *ctx) {
  const luaL_Stream *stream = luaL_testudata(L, 2, LUA_FILEHANDLE);
  if (stream) return !stream->closef;
  bool ours = al_test(L, ctx, 2, AL_C_Socket) || al_test(L, ctx, 2, AL_C_PipeEnd);
  if (!ours || !al_push_method(L, 2, "fileno")) return false;
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1);
  bool closed = lua_tointeger(L, -1) < 0;
  lua_pop(L, 1);
  return closed;
}

/* The descriptor of the value at 2. One that was closed while it was watched has none, but its watch knows it. */
static int fd_of_watched(lua_State *L, al_ctx *ctx, const direction *d) {
  if (lua_type(L, 2) != LUA_TUSERDATA || !is_closed(L, ctx)) return al_check_fd(L, ctx, 2);
  push_places(L, AL_LOOP_UV_WATCHES);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    lua_Integer key = object_place(lua_tointeger(L, -2));
    if (key < 0 || (key & 1) != d->bit || !lua_rawequal(L, -1, 2)) continue;
    lua_settop(L, 2);
    return (int)(key >> 1);
  }
  return al_check_fd(L, ctx, 2);
}

/* (loop, fd) → was it watched? */
static int remove_watch(lua_State *L, const direction *d) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  int fd = fd_of_watched(L, ctx, d);
  al_handle *watched = NULL;
  if (!al_loop_is_closed(loop->loop)) {
    al_check_fd_free(L, ctx, loop->loop, fd);
    watched = d->remove(loop->loop, fd);
  }
  if (watched) al_watch_end(L, ctx, AL_LOOP_UV_WATCHES, key_of(d, fd));
  al_sockops_replaced(ctx, watched);
  lua_pushboolean(L, watched != NULL);
  return 1;
}

static int loop_add_reader(lua_State *L) { return add(L, &reading); }
static int loop_add_writer(lua_State *L) { return add(L, &writing); }
static int loop_remove_reader(lua_State *L) { return remove_watch(L, &reading); }
static int loop_remove_writer(lua_State *L) { return remove_watch(L, &writing); }

static const luaL_Reg loop_methods[] = {{"add_reader", loop_add_reader},
                                        {"remove_reader", loop_remove_reader},
                                        {"add_writer", loop_add_writer},
                                        {"remove_writer", loop_remove_writer},
                                        {NULL, NULL}};

void al_fd_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods); }
