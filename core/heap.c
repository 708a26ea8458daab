/* heap.c - see heap.h. Four children a node: half the levels of a binary heap, and the four
 * keys to compare lie together.
 *
 * SPDX-License-Identifier: MIT */
#include "heap.h"

#include "base.h"
#include "mem.h"

#define ARITY 4
#define SHRINK_FROM 4096 /* entries (96 KiB): below that, memory that a burst left behind does not matter */

static inline bool before(const al_heap_entry *a, const al_heap_entry *b) {
  return a->when_ns < b->when_ns || (a->when_ns == b->when_ns && a->seq < b->seq);
}

static inline void put(al_heap *heap, size_t i, al_heap_entry entry) {
  heap->entries[i] = entry;
  entry.timer->index = i;
}

static inline al_heap_entry entry_of(al_timer *timer) { return (al_heap_entry){timer->when_ns, timer->seq, timer}; }

/* Finds entry's place from the hole at i upward. */
static void sift_up(al_heap *heap, size_t i, al_heap_entry entry) {
  while (i > 0) {
    size_t parent = (i - 1) / ARITY;
    if (!before(&entry, &heap->entries[parent])) break;
    put(heap, i, heap->entries[parent]);
    i = parent;
  }
  put(heap, i, entry);
}

/* The least child of i, or 0 if i is a leaf. */
static size_t least_child(const al_heap *heap, size_t i) {
  size_t first = i * ARITY + 1;
  if (first >= heap->count) return 0;
  size_t end = AL_MIN(first + ARITY, heap->count);
  size_t least = first;
  for (size_t child = first + 1; child < end; child++)
    if (before(&heap->entries[child], &heap->entries[least])) least = child;
  return least;
}

/* Finds entry's place from the hole at i downward. */
static void sift_down(al_heap *heap, size_t i, al_heap_entry entry) {
  size_t child;
  while ((child = least_child(heap, i)) != 0 && before(&heap->entries[child], &entry)) {
    put(heap, i, heap->entries[child]);
    i = child;
  }
  put(heap, i, entry);
}

/* An entry with a new key stands at i: up or down. */
static void place(al_heap *heap, size_t i, al_heap_entry entry) {
  if (i > 0 && before(&entry, &heap->entries[(i - 1) / ARITY]))
    sift_up(heap, i, entry);
  else
    sift_down(heap, i, entry);
}

int al__heap_push(al_heap *heap, al_timer *timer) {
  void *entries = heap->entries;
  int err = al__array_grow(&entries, &heap->capacity, sizeof(al_heap_entry), heap->count + 1);
  heap->entries = entries;
  if (err) return err;
  sift_up(heap, heap->count++, entry_of(timer));
  return 0;
}

void al__heap_moved(al_heap *heap, al_timer *timer) {
  al_heap_entry *old = &heap->entries[timer->index];
  al_assert(old->timer == timer && timer->seq > old->seq);
  if (timer->when_ns >= old->when_ns) return; /* it lags until it comes to the top */
  sift_up(heap, timer->index, entry_of(timer));
}

static void shrink(al_heap *heap) {
  size_t capacity = heap->capacity / 2;
  al_heap_entry *entries = al__realloc(heap->entries, capacity * sizeof(al_heap_entry));
  if (!entries) return; /* it stays large */
  heap->entries = entries;
  heap->capacity = capacity;
}

void al__heap_remove(al_heap *heap, al_timer *timer) {
  size_t i = timer->index;
  al_assert(i < heap->count && heap->entries[i].timer == timer);
  al_heap_entry last = heap->entries[--heap->count];
  if (i < heap->count) place(heap, i, last);
  timer->index = AL_HEAP_NONE;
  if (heap->capacity > SHRINK_FROM && heap->count < heap->capacity / 4) shrink(heap);
}

al_timer *al__heap_top(al_heap *heap) {
  if (!heap->count) return NULL;
  for (;;) {
    al_timer *timer = heap->entries[0].timer;
    if (heap->entries[0].seq == timer->seq) return timer;
    sift_down(heap, 0, entry_of(timer));
  }
}

void al__heap_free(al_heap *heap) {
  for (size_t i = 0; i < heap->count; i++) heap->entries[i].timer->index = AL_HEAP_NONE;
  al__free(heap->entries);
  *heap = (al_heap){0};
}
