/* lcode.c - functions as bytes and back, remembered on both sides, each in one registry value of its state. Memory is
 * bounded: what is remembered gives way to what comes later.
 *
 * SPDX-License-Identifier: MIT */
#include "lcode.h"

#include <stdlib.h>
#include <string.h>

static const char code_key; /* its address is the registry key of the state below */

enum {
  N_SEEN = 64,               /* functions that were dumped once */
  N_LOADED = 64,             /* functions that were loaded */
  MAX_REMEMBERED = 64 * 1024 /* bytes of a dump */
};

enum { UV_DUMPS = 1 /* weak: function → l_code */, UV_LOADED /* array: function, or false */, N_UV = 2 };

typedef struct code {
  const void *seen[N_SEEN];
  l_code *loaded[N_LOADED]; /* what UV_LOADED has at the same place */
  bool ended;               /* the state goes: nothing is remembered any more */
} code;

static int code_gc(lua_State *L) {
  code *c = lua_touserdata(L, 1);
  for (int i = 0; i < N_LOADED; i++) free(c->loaded[i]);
  memset(c, 0, sizeof *c);
  c->ended = true;
  return 0;
}

/* Pushes the state's userdata; made at the first call. */
static code *push_code(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &code_key) == LUA_TUSERDATA) return lua_touserdata(L, -1);
  lua_pop(L, 1);
  code *c = lua_newuserdatauv(L, sizeof *c, N_UV);
  memset(c, 0, sizeof *c);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, code_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  al_pushweak(L, "k");
  lua_setiuservalue(L, -2, UV_DUMPS);
  lua_createtable(L, N_LOADED, 0);
  lua_setiuservalue(L, -2, UV_LOADED);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &code_key);
  return c;
}

uint64_t al_code_hash(const char *dump, size_t len) {
  uint64_t hash = len * 0x9e3779b97f4a7c15u, word;
  for (; len >= sizeof word; dump += sizeof word, len -= sizeof word) {
    memcpy(&word, dump, sizeof word);
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  }
  word = 0;
  memcpy(&word, dump, len);
  hash = (hash ^ word) * 0xc4ceb9fe1a85ec53u;
  return hash ^ (hash >> 29);
}

/* ---- dumps ------------------------------------------------------------------------------------------------------- */

const l_code *al_code_find(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  push_code(L);
  lua_getiuservalue(L, -1, UV_DUMPS);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  const l_code *found = lua_touserdata(L, -1);
  lua_pop(L, 3);
  return found;
}

void al_code_remember(lua_State *L, int idx, uint64_t hash, const char *dump, size_t len) {
  const void *function = lua_topointer(L, idx);
  idx = lua_absindex(L, idx);
  code *c = push_code(L);
  const void **seen = &c->seen[((uintptr_t)function >> 5) % N_SEEN];
  if (*seen != function || len > MAX_REMEMBERED) {
    *seen = function;
    lua_pop(L, 1);
    return;
  }
  lua_getiuservalue(L, -1, UV_DUMPS);
  lua_pushvalue(L, idx);
  l_code *made = lua_newuserdatauv(L, sizeof *made + len, 0);
  *made = (l_code){.hash = hash, .len = len};
  memcpy(made->dump, dump, len);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

void al_code_load(lua_State *L, uint64_t hash, const char *dump, size_t len) {
  if (al_code_hash(dump, len) != hash) luaL_error(L, "a function in a parcel is damaged"); /* Lua doesn't look */
  if (luaL_loadbufferx(L, dump, len, "=parcel", "b") != LUA_OK) lua_error(L);
}

/* Makes the function on top the one that is remembered at this place. */
static void keep(lua_State *L, code *c, int place, uint64_t hash, const char *dump, size_t len) {
  lua_getiuservalue(L, -2, UV_LOADED);
  l_code *made = malloc(sizeof *made + len);
  if (made) {
    *made = (l_code){.hash = hash, .len = len};
    memcpy(made->dump, dump, len);
  }
  free(c->loaded[place]);
  c->loaded[place] = NULL;
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, place + 1); /* the array has the room: nothing is thrown */
  c->loaded[place] = made;
  lua_pop(L, 1);
}

/* Does the remembered function on top still have the globals, if it has anything? A script may have changed that. */
static bool is_unchanged(lua_State *L) {
  if (!lua_getupvalue(L, -1, 1)) return true;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

void al_code_load_pure(lua_State *L, uint64_t hash, const char *dump, size_t len) {
  code *c = push_code(L);
  int place = (int)(hash % N_LOADED);
  const l_code *known = c->loaded[place];
  if (known && known->hash == hash && known->len == len && memcmp(known->dump, dump, len) == 0) {
    lua_getiuservalue(L, -1, UV_LOADED);
    lua_rawgeti(L, -1, place + 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
    if (is_unchanged(L)) return;
    lua_pop(L, 1);
    push_code(L);
  }
  al_code_load(L, hash, dump, len);
  if (len <= MAX_REMEMBERED && !c->ended) keep(L, c, place, hash, dump, len);
  lua_remove(L, -2);
}
