/* lreader.h - StreamReader: the bytes of a stream as they came, and how tasks take them out of it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LREADER_H
#define AL_LREADER_H

#include "ltask.h"

#define AL_STREAM_LIMIT 65536 /* asyncio's */

typedef struct l_reader l_reader;

/* The reader at idx, or NULL. */
l_reader *al_test_reader(lua_State *L, int idx);

/* Makes a reader and pushes it. */
l_reader *al_reader_new(lua_State *L, al_ctx *ctx, size_t limit);

/* Pushes the class's error, a ValueError, unless n may be a limit. */
void al_reader_check_limit(lua_State *L, al_ctx *ctx, lua_Integer n);

/* The transport whose reading it pauses when it has too much (NULL: none any more); it takes a reference. */
void al_reader_connect(l_reader *reader, al_transport *transport);
al_transport *al_reader_transport(const l_reader *reader); /* or NULL */

/* What comes in. None of them throws; -ENOMEM: the bytes are lost. */
char *al_reader_room(al_ctx *ctx, l_reader *reader, size_t len); /* where to put what is fed next, or NULL */
int al_reader_feed(al_ctx *ctx, l_reader *reader, const char *data, size_t len);
void al_reader_feed_eof(l_reader *reader);
const char *al_reader_peek(const l_reader *reader, size_t *len); /* what is there to be read */
void al_reader_drop(al_ctx *ctx, l_reader *reader, size_t len);  /* ... the first len bytes are gone */
void al_reader_fail(l_reader *reader, int error); /* every read raises this error of the core from now on */

/* Every read of the reader at idx raises the value on top (popped) from now on. */
void al_reader_set_exception(lua_State *L, int idx);
/* Pushes what the reader at idx failed with; false, and nothing, if it did not. */
bool al_reader_push_exception(lua_State *L, al_ctx *ctx, int idx);

void al_reader_openlib(lua_State *L, al_ctx *ctx);

#endif
