/* mem.h - memory for all of core: the allocator of al_set_allocator, counted, and made to fail on demand in debug
 * builds. Any thread. The block belongs to the caller. Knows nothing of loops.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_MEM_H
#define AL_MEM_H

#include "aloop.h"

void *al__malloc(size_t size);
void *al__calloc(size_t count, size_t size);     /* zeroed; NULL also if count * size overflows */
void *al__realloc(void *ptr, size_t size);       /* size > 0; on failure the old block stays */
void al__free(void *ptr);                        /* NULL: nothing */
char *al__strndup(const char *text, size_t len); /* NUL-terminated copy */

/* Makes room in *array, which has *capacity items of item_size bytes, for at least need items: doubles it from 8 on.
 * 0 or -ENOMEM (nothing changed). New items are not cleared. */
int al__array_grow(void **array, size_t *capacity, size_t item_size, size_t need);

#endif
