/* embed.h - the Lua files of lua/ as bytes in the binary. scripts/dev/embed.lua makes the table (gen/embed.c in the
 * build directory) from whatever stands below lua/; module.c looks files up in it. Knows nothing of Lua states.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_EMBED_H
#define AL_EMBED_H

#include <stddef.h>

typedef struct al_embedded {
  const char *name;          /* what require is asked for: "aloop", "aloop.class" */
  const char *path;          /* the file below lua/: "aloop/init.lua", "aloop/class.lua" */
  const unsigned char *text; /* the file's bytes */
  size_t len;
} al_embedded;

/* Sorted by path, closed by an entry whose name is NULL. */
extern const al_embedded al_embedded_files[];

#endif
