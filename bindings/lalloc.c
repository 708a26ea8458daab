/* lalloc.c - a lua_Alloc for the interpreter's state: lists of free blocks by size, cut from slabs. Lua tells the size of what
 * it gives back, so a block needs no header. Large blocks are malloc's. Called by Lua alone.
 *
 * Sanitizer builds keep malloc for everything, for a slab would hide from them what is freed.
 *
 * SPDX-License-Identifier: MIT */
#include "lalloc.h"

#include <stdlib.h>
#include <string.h>

enum { STEP = 16, SMALL = 512, CLASSES = SMALL / STEP + 1, SLAB = 64 * 1024 };

typedef struct block {
  struct block *next;
} block;

typedef struct al_alloc {
  block *free[CLASSES]; /* by size / STEP, rounded up */
  block *slabs;         /* each begins with its link */
  char *at, *end;       /* what is uncut of the last slab */
} al_alloc;

static size_t class_of(size_t size) { return (size + STEP - 1) / STEP; }

static void *cut(al_alloc *self, size_t size) {
  if ((size_t)(self->end - self->at) < size) {
    block *slab = malloc(SLAB);
    if (!slab) return NULL;
    slab->next = self->slabs;
    self->slabs = slab;
    self->at = (char *)slab + STEP;
    self->end = (char *)slab + SLAB;
  }
  void *made = self->at;
  self->at += size;
  return made;
}

static void *take(al_alloc *self, size_t size) {
  if (size > SMALL) return malloc(size);
  size_t class = class_of(size);
  block *free_block = self->free[class];
  if (!free_block) return cut(self, class * STEP);
  self->free[class] = free_block->next;
  return free_block;
}

static void give(al_alloc *self, void *ptr, size_t size) {
  if (size > SMALL) {
    free(ptr);
  } else if (ptr) {
    block *freed = ptr;
    freed->next = self->free[class_of(size)];
    self->free[class_of(size)] = freed;
  }
}

/* lua_Alloc. Lua relies on shrinking never to fail: a block that can't be moved stays where it is. */
static void *allocate(void *ud, void *ptr, size_t old, size_t new) {
  al_alloc *self = ud;
  if (!ptr) return new ? take(self, new) : NULL;
  if (new == 0) {
    give(self, ptr, old);
    return NULL;
  }
  if (old > SMALL && new > SMALL) return realloc(ptr, new);
  if (old <= SMALL && new <= SMALL && class_of(old) == class_of(new)) return ptr;
  void *moved = take(self, new);
  if (!moved) return new < old ? ptr : NULL;
  memcpy(moved, ptr, new < old ? new : old);
  give(self, ptr, old);
  return moved;
}

static int sanitized(void) {
#if defined(AL_DEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 1;
#else
  return 0;
#endif
}

al_alloc *al_alloc_begin(lua_State *L) {
  al_alloc *self = sanitized() ? NULL : calloc(1, sizeof *self);
  if (self) lua_setallocf(L, allocate, self); /* what malloc gave so far goes to the lists, too */
  return self;
}

void al_alloc_end(al_alloc *self) {
  if (!self) return;
  while (self->slabs) {
    block *next = self->slabs->next;
    free(self->slabs);
    self->slabs = next;
  }
  free(self);
}
