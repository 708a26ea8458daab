/* lbuffer.c - aloop.buffer, the memory that BufferedProtocol, recv_into and write share with Lua. The bytes stand in
 * the userdata itself: they never move, and whoever reads into them keeps the userdata alive, nothing more. Knows no
 * loop.
 *
 * Positions count from 1, negative ones from the end, as in string.sub.
 *
 * SPDX-License-Identifier: MIT */
#include "lbuffer.h"

#include <string.h>

#define LARGE (16 * 1024) /* from here on it is placed well: the slack is little beside it */

l_buffer *al_buffer_new(lua_State *L, al_ctx *ctx, size_t size) {
  size_t slack = size < LARGE ? 0 : AL_PLACE_SLACK;
  if (size > PTRDIFF_MAX - sizeof(l_buffer) - slack) luaL_error(L, "not enough memory");
  l_buffer *b = al_new(L, ctx, AL_C_Buffer, sizeof(l_buffer) + size + slack, 0);
  b->size = size;
  b->data = slack ? al_place(b + 1) : (char *)(b + 1);
  return b;
}

l_buffer *al_test_buffer(lua_State *L, al_ctx *ctx, int idx) { return al_test(L, ctx, idx, AL_C_Buffer); }

const char *al_check_bytes(lua_State *L, al_ctx *ctx, int arg, size_t *len) {
  if (lua_type(L, arg) == LUA_TSTRING) return lua_tolstring(L, arg, len);
  l_buffer *b = al_test_buffer(L, ctx, arg);
  if (!b) al_typeerror(L, arg, "string or buffer");
  *len = b->size;
  return b->data;
}

/* The first position of a range: within 1 .. len + 1, or beyond. */
static size_t first_of(lua_Integer pos, size_t len) {
  if (pos > 0) return (size_t)pos;
  if (pos == 0 || pos < -(lua_Integer)len) return 1;
  return len + (size_t)pos + 1;
}

/* The last position: within 0 .. len. */
static size_t last_of(lua_Integer pos, size_t len) {
  if (pos > (lua_Integer)len) return len;
  if (pos >= 0) return (size_t)pos;
  if (pos < -(lua_Integer)len) return 0;
  return len + (size_t)pos + 1;
}

void al_opt_range(lua_State *L, int arg, const char **data, size_t *len) {
  if (lua_isnoneornil(L, arg) && lua_isnoneornil(L, arg + 1)) return;
  size_t first = first_of(al_optinteger(L, arg, 1), *len);
  size_t last = last_of(al_optinteger(L, arg + 1, -1), *len);
  if (first > last) {
    *len = 0;
    return;
  }
  *data += first - 1;
  *len = last - first + 1;
}

static l_buffer *check_self(lua_State *L) { return al_check(L, al_ctx_of(L), 1, AL_C_Buffer); }

/* Where n bytes from the position at arg on stand, all of them within the buffer; else ValueError. */
static char *check_place(lua_State *L, l_buffer *b, int arg, size_t n) {
  lua_Integer pos = al_checkinteger(L, arg);
  size_t first = first_of(pos, b->size);
  bool before = pos == 0 || pos < -(lua_Integer)b->size;
  if (before || first - 1 > b->size || n > b->size - (first - 1))
    al_raise(L, al_ctx_of(L), AL_C_ValueError, "position %I is out of range: %I bytes in a buffer of %I", pos,
             (lua_Integer)n, (lua_Integer)b->size);
  return b->data + first - 1;
}

/* buffer(n): n bytes, all zero */
static int buffer_new(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_Integer n = al_checkinteger(L, 1);
  if (n < 0) return al_raise(L, ctx, AL_C_ValueError, "the size of a buffer must not be negative");
  al_buffer_new(L, ctx, (size_t)n);
  return 1;
}

static int buffer_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_self(L)->size);
  return 1;
}

static int buffer_tostring(lua_State *L) {
  l_buffer *b = check_self(L);
  lua_pushlstring(L, b->data, b->size);
  return 1;
}

static int buffer_sub(lua_State *L) {
  l_buffer *b = check_self(L);
  al_checkinteger(L, 2);
  const char *data = b->data;
  size_t len = b->size;
  al_opt_range(L, 2, &data, &len);
  lua_pushlstring(L, data, len);
  return 1;
}

static int buffer_set(lua_State *L) {
  l_buffer *b = check_self(L);
  size_t len;
  const char *data = al_check_bytes(L, al_ctx_of(L), 3, &len);
  memmove(check_place(L, b, 2, len), data, len);
  return 0;
}

static int buffer_byte(lua_State *L) {
  l_buffer *b = check_self(L);
  lua_Integer i = al_optinteger(L, 2, 1);
  size_t first = first_of(i, b->size), last = last_of(al_optinteger(L, 3, i), b->size);
  if (first > last) return 0;
  if (last - first >= INT_MAX) return luaL_error(L, "buffer slice too long");
  int n = (int)(last - first + 1);
  luaL_checkstack(L, n, "buffer slice too long");
  for (int k = 0; k < n; k++) lua_pushinteger(L, (unsigned char)b->data[first - 1 + (size_t)k]);
  return n;
}

/* find(plain, [init]) → first and last position, or nil */
static int buffer_find(lua_State *L) {
  l_buffer *b = check_self(L);
  size_t len;
  const char *what = al_check_bytes(L, al_ctx_of(L), 2, &len);
  size_t first = first_of(al_optinteger(L, 3, 1), b->size);
  const char *found = NULL;
  if (first <= b->size + 1) found = memmem(b->data + first - 1, b->size - (first - 1), what, len);
  if (!found) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, found - b->data + 1);
  lua_pushinteger(L, found - b->data + (lua_Integer)len);
  return 2;
}

/* move(i, j, pos): the bytes i .. j to pos, as table.move */
static int buffer_move(lua_State *L) {
  l_buffer *b = check_self(L);
  al_checkinteger(L, 2);
  al_checkinteger(L, 3);
  const char *data = b->data;
  size_t len = b->size;
  al_opt_range(L, 2, &data, &len);
  memmove(check_place(L, b, 4, len), data, len);
  lua_settop(L, 1);
  return 1;
}

static const luaL_Reg methods[] = {
    {"sub", buffer_sub},   {"set", buffer_set},   {"byte", buffer_byte},           {"find", buffer_find},
    {"move", buffer_move}, {"__len", buffer_len}, {"__tostring", buffer_tostring}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"buffer", buffer_new}, {NULL, NULL}};

void al_buffer_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Buffer, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
