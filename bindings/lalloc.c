/* lalloc.c - a lua_Alloc for the interpreter's state: lists of free blocks by size. Small ones are cut from slabs;
 * medium ones, as the strings that a server reads and drops, are malloc's, but not given back at once. Lua tells the
 * size of what it gives back, so a block needs no header. Large blocks are left to malloc. Called by Lua, and by
 * lprotocol.c and lreader.c for the strings that they make of what was received.
 *
 * Medium blocks may be filled before they are strings: lua_pushlstring allocates first and copies then, so that bytes
 * which already stand where the next block will be are copied onto themselves, which memcpy does by doing nothing. In
 * blocks of bulk data a string's bytes lie where the kernel copies them fast: see al_place.
 *
 * Sanitizer builds keep malloc for everything, for a slab would hide from them what is freed.
 *
 * SPDX-License-Identifier: MIT */
#include "lalloc.h"
#include "aloop.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  STEP = 16,
  SMALL = 768,        /* the stack of a new coroutine is among them */
  LARGE = 288 * 1024, /* the string of a whole read is not; beyond it all is malloc's alone */
  N_SMALL = SMALL / STEP + 1,
  OCTAVE_BITS = 3,
  PER_OCTAVE = 1 << OCTAVE_BITS, /* medium classes between a power of two and the next: at most an eighth is wasted */
  N_MEDIUM = 9 * PER_OCTAVE + 1,
  SLAB = 64 * 1024,
  PAGE = 4096,
  LARGE_SLAB = 1024 * 1024, /* has its pages from the start: faults for each cost as much as half of what Lua does */
  SLABS_FIRST = 512,        /* 32 MiB, before slabs are large: for what is smaller, bytes count more than faults */
  BULK_CLASS = 4 * PER_OCTAVE + 4, /* the first medium class of bulk data: beyond 12 KiB, see stream.c */
  SHELVES = 16 * 1024 * 1024,      /* the most bytes of free medium blocks: beyond, all of them go back to malloc */
  HEAD = 2 * sizeof(void *) + 8,   /* of Lua's before the bytes of a long string: next, five small fields, length */
  /* Of a block of bulk data, behind what malloc gave. No multiple of STEP, which tells it from others, where malloc
   * gives these: not everywhere with 32 bits. */
  LEAD = PAGE / 2 - HEAD,
  HAS_LEAD = _Alignof(max_align_t) % STEP == 0 && LEAD % STEP != 0
};

typedef struct block {
  struct block *next;
} block;

struct al_alloc {
  block *free[N_SMALL];    /* by size / STEP, rounded up */
  block *medium[N_MEDIUM]; /* malloc's blocks, which it takes and gives back at ten times the cost */
  size_t kept;             /* bytes of these */
  char *room;              /* a medium block for a string that is yet to be made, or NULL */
  size_t room_size;        /* what was asked for */
  void *next;              /* the medium block that Lua gets when it asks next, or NULL */
  bool has_head;           /* it was seen that HEAD is right for this Lua */
  char *newest;            /* the medium block taken last */
  block *slabs;            /* each begins with its link */
  block *large_slabs;      /* these are mapped */
  char *at, *end;          /* what is uncut of the last slab */
  int n_slabs;
  bool warns, in_warning; /* the state's warnings are on; a part of one was written */
};

static size_t class_of(size_t size) { return (size + STEP - 1) / STEP; }

static bool begin_slab(al_alloc *self, void *memory, size_t size, block **list) {
  block *slab = memory;
  slab->next = *list;
  *list = slab;
  self->at = (char *)slab + STEP;
  self->end = (char *)slab + size;
  return true;
}

static bool new_slab(al_alloc *self) {
  if (self->n_slabs < SLABS_FIRST) {
    void *slab = malloc(SLAB);
    if (slab) self->n_slabs++;
    return slab && begin_slab(self, slab, SLAB, &self->slabs);
  }
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
  void *slab = mmap(NULL, LARGE_SLAB, PROT_READ | PROT_WRITE, flags, -1, 0);
  return slab != MAP_FAILED && begin_slab(self, slab, LARGE_SLAB, &self->large_slabs);
}

static void *cut(al_alloc *self, size_t size) {
  if ((size_t)(self->end - self->at) < size && !new_slab(self)) return NULL;
  void *made = self->at;
  self->at += size;
  return made;
}

/* The class of a medium size, and the size of its blocks. */
static size_t medium_class(size_t size, size_t *rounded) {
  unsigned octave = 63 - (unsigned)__builtin_clzll(size - 1); /* 2^octave < size <= 2^(octave + 1) */
  unsigned shift = octave - OCTAVE_BITS;
  size_t step = ((size - 1) >> shift) + 1; /* 9 to 16 eighths of 2^octave */
  *rounded = step << shift;
  return (octave - 9) * PER_OCTAVE + (step - PER_OCTAVE - 1);
}

static void *new_medium(size_t class, size_t rounded) {
  if (!HAS_LEAD || class < BULK_CLASS) return malloc(rounded);
  size_t whole = (LEAD + rounded + PAGE - 1) / PAGE * PAGE;
  void *pages = aligned_alloc(PAGE, whole);
  return pages ? (char *)pages + LEAD : NULL; /* cppcheck-suppress memleak ; free_medium knows */
}

/* Its size may have changed since it was new, but its place has not. */
static void free_medium(void *medium) { free((char *)medium - (HAS_LEAD && (uintptr_t)medium % STEP ? LEAD : 0)); }

static void *take_medium(al_alloc *self, size_t size) {
  size_t rounded, class = medium_class(size, &rounded);
  block **shelf = &self->medium[class], *taken = *shelf;
  if (self->next) {
    taken = self->next;
    self->next = NULL;
  } else if (taken) {
    *shelf = taken->next;
    self->kept -= rounded;
  } else {
    taken = new_medium(class, rounded);
  }
  self->newest = (char *)taken;
  return taken;
}

static void free_chain(block *chain) {
  while (chain) {
    block *next = chain->next;
    free_medium(chain);
    chain = next;
  }
}

static void clear_shelves(al_alloc *self) {
  for (int i = 0; i < N_MEDIUM; i++) {
    free_chain(self->medium[i]);
    self->medium[i] = NULL;
  }
  self->kept = 0;
}

static void give_medium(al_alloc *self, void *ptr, size_t size) {
  size_t rounded;
  block **shelf = &self->medium[medium_class(size, &rounded)], *freed = ptr;
  if (self->kept + rounded > SHELVES) clear_shelves(self);
  freed->next = *shelf;
  *shelf = freed;
  self->kept += rounded;
}

static inline void *take(al_alloc *self, size_t size) {
  if (size > SMALL) return size > LARGE ? malloc(size) : take_medium(self, size);
  size_t class = class_of(size);
  block *free_block = self->free[class];
  if (!free_block) return cut(self, class * STEP);
  self->free[class] = free_block->next;
  return free_block;
}

static inline void give(al_alloc *self, void *ptr, size_t size) {
  if (size > SMALL) {
    size > LARGE ? free(ptr) : give_medium(self, ptr, size);
  } else if (ptr) {
    block *freed = ptr;
    freed->next = self->free[class_of(size)];
    self->free[class_of(size)] = freed;
  }
}

/* Do blocks of these sizes, both of malloc's, serve each other? */
static bool same_block(size_t a, size_t b) {
  size_t rounded;
  if (a > LARGE || b > LARGE || a <= SMALL || b <= SMALL) return false;
  return medium_class(a, &rounded) == medium_class(b, &rounded);
}

static void drop_room(al_alloc *self) {
  if (self->room) give_medium(self, self->room, self->room_size);
  self->room = NULL;
}

static void *resize(void *large, size_t old, size_t new) {
  void *resized = realloc(large, new);
  if (!resized && new <= old) return large;
  return resized;
}

/* lua_Alloc. Lua relies on shrinking never to fail: a block that can't be moved stays where it is. */
static void *allocate(void *ud, void *ptr, size_t old, size_t new) {
  al_alloc *self = ud;
  if (!ptr) return new ? take(self, new) : NULL;
  if (new == 0) {
    give(self, ptr, old);
    return NULL;
  }
  if (same_block(old, new)) return ptr;
  if (old > LARGE && new > LARGE) return resize(ptr, old, new);
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

/* As that of luaL_newstate, which makes states for malloc only: "@on" and "@off" switch, else the pieces of a
 * warning. */
static void warn(void *ud, const char *message, int more) {
  al_alloc *self = ud;
  if (!self->in_warning && !more && *message == '@') {
    if (strcmp(message, "@on") == 0) self->warns = true;
    if (strcmp(message, "@off") == 0) self->warns = false;
    return;
  }
  if (self->warns) fprintf(stderr, "%s%s%s", self->in_warning ? "" : "Lua warning: ", message, more ? "" : "\n");
  self->in_warning = more;
}

static int panic(lua_State *L) {
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "PANIC: unprotected error in call to Lua API (%s)\n", message ? message : "not a string");
  return 0;
}

lua_State *al_alloc_newstate(al_alloc **alloc) {
  al_alloc *self = sanitized() ? NULL : calloc(1, sizeof *self);
  *alloc = self;
  if (!self) return luaL_newstate();
  lua_State *L = lua_newstate(allocate, self);
  if (!L) return NULL;
  lua_atpanic(L, panic);
  lua_setwarnf(L, warn, self);
  return L;
}

al_alloc *al_alloc_of(lua_State *L) {
  void *ud;
  return lua_getallocf(L, &ud) == allocate ? ud : NULL;
}

/* ---- strings that are filled before they are made ---------------------------------------------------------------- */

/* Can a block of this size be that of a string of n bytes? */
static bool fits(const al_alloc *self, size_t size, size_t n) {
  return self->has_head && same_block(size, HEAD + n + 1);
}

char *al_alloc_room(al_alloc *self, size_t n) {
  size_t size = HEAD + n + 1;
  if (!fits(self, size, n)) return NULL;
  if (self->room && !fits(self, self->room_size, n)) drop_room(self);
  if (!self->room) self->room = take_medium(self, size);
  self->room_size = size;
  return self->room ? self->room + HEAD : NULL;
}

/* Does Lua ask self itself? Somebody may have put an allocator between the two, who takes blocks of other sizes. */
static bool is_asked(lua_State *L, const al_alloc *self) { return self && al_alloc_of(L) == self; }

void al_alloc_pushlstring(lua_State *L, al_alloc *self, const char *data, size_t n) {
  bool in_room = self && self->room && data == self->room + HEAD;
  if (in_room && is_asked(L, self) && fits(self, self->room_size, n)) {
    self->next = self->room;
    self->room = NULL;
  }
  lua_pushlstring(L, data, n);
  if (self && !self->has_head && n > SMALL && n < LARGE - HEAD)
    self->has_head = lua_tostring(L, -1) == self->newest + HEAD;
}

bool al_alloc_pushblock(lua_State *L, al_alloc *self, void *memory, size_t size, const char *data, size_t n) {
  if (!is_asked(L, self) || data != (char *)memory + HEAD || !fits(self, size, n)) return false;
  self->next = memory;
  lua_pushlstring(L, data, n);
  return true;
}

void al_alloc_end(al_alloc *self) {
  if (!self) return;
  free_chain(self->slabs);
  for (block *slab = self->large_slabs, *next; slab; slab = next) {
    next = slab->next;
    munmap(slab, LARGE_SLAB);
  }
  drop_room(self);
  clear_shelves(self);
  free(self);
}
