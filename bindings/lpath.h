/* lpath.h - how a value was come to that can't travel: "upvalue 'conn' of function <x.lua:12>". For lmarshal.c alone,
 * which knows through which object it met each other one; in what place of that it stands is searched here.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPATH_H
#define AL_LPATH_H

#include "ctx.h"

#define AL_PATH_ROOT (UINT64_C(1) << 63) /* | i: no object, but the value i of those that were given */

typedef struct al_path {
  void *from; /* handed to the functions */
  void (*push_object)(void *from, uint64_t index);
  uint64_t (*parent_of)(void *from, uint64_t index);
  bool call, results; /* what the values that were given are; see lmarshal.h */
} al_path;

/* Pushes the path to the value at idx (an absolute place), which was met through parent. */
void al_path_push(lua_State *L, const al_path *path, int idx, uint64_t parent);

/* Pushes what the value at idx is: "userdata", "Socket", "C function", "table with a metatable". */
void al_path_push_kind(lua_State *L, int idx);

#endif
