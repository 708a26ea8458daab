/* lfd.h - file descriptors in every form that scripts may pass them: an integer, an open Lua file, an object with a
 * method fileno() or getfd().
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LFD_H
#define AL_LFD_H

#include "lhandle.h"

/* The descriptor of the value at arg; raises ValueError for a value that has none (any more). */
int al_check_fd(lua_State *L, al_ctx *ctx, int arg);

/* Pushes the method of this name of the table or userdata at idx; false, and nothing, if it has none. */
bool al_push_method(lua_State *L, int idx, const char *name);

/* Handles that stay with the loop at stack index 1, in the table at its user value: those of descriptors and signals.
 * begin: puts the Handle at handle there, anchored, and pushes what stood there before. Then either commit, which lets
 * go of the former one (popped), or undo. end: takes the handle out and lets go of it. */
void al_watch_begin(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key, int handle);
void al_watch_commit(lua_State *L, al_ctx *ctx);
void al_watch_undo(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key, int handle);
void al_watch_end(lua_State *L, al_ctx *ctx, int uservalue, lua_Integer key);

/* The handle at idx, which stays with its loop, was cancelled by a script (an exception handler gets to see it): what
 * called it is removed, as asyncio does. */
void al_watch_cancel(lua_State *L, al_ctx *ctx, const l_handle *h, int idx);

void al_fd_openlib(lua_State *L, al_ctx *ctx);

#endif
