/* lbuffer.h - aloop.buffer: mutable bytes whose place and size never change; and bytes as arguments, be they in a
 * string or in a buffer.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LBUFFER_H
#define AL_LBUFFER_H

#include "ctx.h"

typedef struct l_buffer {
  size_t size;
  char *data; /* behind; al_place for a large one */
} l_buffer;

/* Pushes a buffer of so many zero bytes. */
l_buffer *al_buffer_new(lua_State *L, al_ctx *ctx, size_t size);

/* The buffer at idx, or NULL. */
l_buffer *al_test_buffer(lua_State *L, al_ctx *ctx, int idx);

/* The bytes of the string or buffer at arg, else "bad argument #n to 'f' (string or buffer expected, got type)". They
 * stay as long as the value does. */
const char *al_check_bytes(lua_State *L, al_ctx *ctx, int arg, size_t *len);

/* Narrows *data and *len to the part from the position at arg to the one behind it, as in string.sub (none: all of
 * it). */
void al_opt_range(lua_State *L, int arg, const char **data, size_t *len);

void al_buffer_openlib(lua_State *L, al_ctx *ctx);

#endif
