/* lua_states.h - states for the C programs of the specs that embed aloop. Used by embed_*.c.
 *
 * SPDX-License-Identifier: MIT */
#ifndef LUA_STATES_H
#define LUA_STATES_H

#include "aloop_lua.h"
#include "check.h"

#include <lauxlib.h>
#include <lualib.h>

/* A state with Lua's libraries and aloop; lua_close it. */
static inline lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  CHECK(L != NULL);
  luaL_openlibs(L);
  al_lua_open(L);
  return L;
}

#endif
