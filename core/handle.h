/* handle.h - rings of links, for the lists of handles and for others inside core. The public part stands in aloop.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_HANDLE_H
#define AL_HANDLE_H

#include "aloop.h"
#include "base.h"

static inline void al__link_init(al_link *link) { link->next = link->prev = link; } /* an empty ring */
static inline bool al__link_is_empty(const al_link *ring) { return ring->next == ring; }

static inline void al__link_append(al_link *ring, al_link *link) {
  link->next = ring;
  link->prev = ring->prev;
  ring->prev->next = link;
  ring->prev = link;
}

/* Takes link out of its ring; it then stands in none (next NULL). */
static inline void al__link_remove(al_link *link) {
  link->prev->next = link->next;
  link->next->prev = link->prev;
  link->next = link->prev = NULL;
}

/* Moves all of from to the end, or to the front, of ring. */
void al__link_splice(al_link *ring, al_link *from);
void al__link_splice_front(al_link *ring, al_link *from);
size_t al__link_count(const al_link *ring);

static inline al_handle *al__list_pop(al_list *list) { /* the first, taken out; the list is not empty */
  al_link *link = list->next;
  al__link_remove(link);
  return AL_CONTAINER(link, al_handle, link);
}

#endif
