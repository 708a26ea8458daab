/* lalloc.h - the interpreter's allocator for Lua's objects. Embedders bring their own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LALLOC_H
#define AL_LALLOC_H

#include <lua.h>
#include <stdbool.h>

typedef struct al_alloc al_alloc;

/* As luaL_newstate, with an allocator of its own: one thread, known sizes and no headers make it three times as cheap
 * as malloc. What its lists once held they keep until al_alloc_end. *alloc is set in any case, perhaps to NULL. */
lua_State *al_alloc_newstate(al_alloc **alloc);

/* The one of this state, or NULL: it has another. */
al_alloc *al_alloc_of(lua_State *L);

/* A place for n bytes, of which al_alloc_pushlstring makes a string without copying them; it stays the allocator's, and
 * good until the next al_alloc_room. NULL: none; n is small, say. Doesn't throw. */
char *al_alloc_room(al_alloc *alloc, size_t n);

/* As lua_pushlstring. alloc may be NULL. */
void al_alloc_pushlstring(lua_State *L, al_alloc *alloc, const char *data, size_t n);

/* The memory, of al_allocate and so large, becomes the string of n bytes that stands in it at data, which is pushed:
 * without a copy, and without failing. False, and nothing: it can't be, for Lua needs a certain number of bytes before
 * a string. alloc may be NULL. */
bool al_alloc_pushblock(lua_State *L, al_alloc *alloc, void *memory, size_t size, const char *data, size_t n);

/* After lua_close: frees what the lists hold. alloc may be NULL. */
void al_alloc_end(al_alloc *alloc);

#endif
