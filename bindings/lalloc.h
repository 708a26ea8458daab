/* lalloc.h - the interpreter's allocator for Lua's objects. Embedders bring their own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LALLOC_H
#define AL_LALLOC_H

#include <lua.h>

typedef struct al_alloc al_alloc;

/* As luaL_newstate, with an allocator of its own: one thread, known sizes and no headers make it three times as cheap
 * as malloc. What its lists once held they keep until al_alloc_end. *alloc is set in any case, perhaps to NULL. */
lua_State *al_alloc_newstate(al_alloc **alloc);

/* After lua_close: frees what the lists hold. alloc may be NULL. */
void al_alloc_end(al_alloc *alloc);

#endif
