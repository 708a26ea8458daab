/* lcode.h - functions as bytes and back, remembered on both sides: who sends the same function again doesn't dump it
 * again, who gets the same bytes again doesn't load them again.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LCODE_H
#define AL_LCODE_H

#include "ctx.h"

typedef struct l_code {
  uint64_t hash; /* of the dump */
  size_t len;
  char dump[];
} l_code;

uint64_t al_code_hash(const char *dump, size_t len);

/* The dump of the Lua function at idx, if it is remembered, else NULL. It stays while the function does. */
const l_code *al_code_find(lua_State *L, int idx);
/* The function at idx was dumped; from the second time on that is remembered. */
void al_code_remember(lua_State *L, int idx, uint64_t hash, const char *dump, size_t len);

/* Pushes a new function of the dump. Raises what lua_load does, and an error if the hash isn't the dump's. */
void al_code_load(lua_State *L, uint64_t hash, const char *dump, size_t len);
/* The same for one without upvalues but _ENV: perhaps the function that was pushed for these bytes before. */
void al_code_load_pure(lua_State *L, uint64_t hash, const char *dump, size_t len);

#endif
