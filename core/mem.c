/* mem.c - the allocator hook, its counters, and allocation failure on demand. Used by all of core; knows nothing of it.
 *
 * The counters are of the process and atomic: loops of several threads share them. One addition for each call is
 * enough, for what is live is what was allocated less what was freed.
 *
 * SPDX-License-Identifier: MIT */
#include "mem.h"

#include "base.h"

#include <errno.h>
#include <string.h>

static void *alloc_default(void *ud, void *ptr, size_t size) {
  (void)ud;
  if (size) return realloc(ptr, size);
  free(ptr);
  return NULL;
}

static al_alloc_fn *alloc_fn = alloc_default;
static void *alloc_ud;
static size_t allocated, freed; /* atomic */

#ifdef AL_DEBUG
static long fail_after = -1; /* atomic; -1: never fails, 0: fails, n: fails after n more */

bool al_mem_fail_after(long n) {
  __atomic_store_n(&fail_after, n, __ATOMIC_RELAXED);
  return true;
}

static bool must_fail(void) {
  long n = __atomic_load_n(&fail_after, __ATOMIC_RELAXED);
  while (n > 0 && !__atomic_compare_exchange_n(&fail_after, &n, n - 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    continue;
  return n == 0;
}
#else
bool al_mem_fail_after(long n) {
  (void)n;
  return false;
}

static inline bool must_fail(void) { return false; }
#endif

void al_set_allocator(al_alloc_fn *alloc, void *ud) {
  alloc_fn = alloc ? alloc : alloc_default;
  alloc_ud = alloc ? ud : NULL;
}

void al_mem_stats(size_t *live, size_t *total) {
  size_t gone = __atomic_load_n(&freed, __ATOMIC_RELAXED); /* first: live never comes out below zero */
  size_t made = __atomic_load_n(&allocated, __ATOMIC_RELAXED);
  if (live) *live = made - gone;
  if (total) *total = made;
}

void *al__realloc(void *ptr, size_t size) {
  al_assert(size > 0);
  if (must_fail()) return NULL;
  void *block = alloc_fn(alloc_ud, ptr, size);
  if (block && !ptr) __atomic_fetch_add(&allocated, 1, __ATOMIC_RELAXED);
  return block;
}

void *al__malloc(size_t size) { return al__realloc(NULL, size); }

void *al__calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  void *block = al__malloc(bytes);
  if (block) memset(block, 0, bytes);
  return block;
}

void al__free(void *ptr) {
  if (!ptr) return;
  __atomic_fetch_add(&freed, 1, __ATOMIC_RELAXED);
  alloc_fn(alloc_ud, ptr, 0);
}

char *al__strndup(const char *text, size_t len) {
  char *copy = al__malloc(len + 1);
  if (!copy) return NULL;
  memcpy(copy, text, len);
  copy[len] = '\0';
  return copy;
}

int al__array_grow(void **array, size_t *capacity, size_t item_size, size_t need) {
  if (need <= *capacity) return 0;
  size_t wanted = AL_MAX(need, *capacity ? *capacity * 2 : 8);
  size_t bytes;
  if (__builtin_mul_overflow(wanted, item_size, &bytes)) return -ENOMEM;
  void *grown = al__realloc(*array, bytes);
  if (!grown) return -ENOMEM;
  *array = grown;
  *capacity = wanted;
  return 0;
}
