/* handle.c - callbacks that are queued for the next turn, and the lists in which they stand. Called by everybody; knows
 * of the loop only its ready list.
 *
 * SPDX-License-Identifier: MIT */
#include "handle.h"

#include "loop.h"

void al__link_splice(al_link *ring, al_link *from) {
  if (al__link_is_empty(from)) return;
  al_link *first = from->next, *last = from->prev;
  first->prev = ring->prev;
  ring->prev->next = first;
  last->next = ring;
  ring->prev = last;
  al__link_init(from);
}

void al__link_splice_front(al_link *ring, al_link *from) {
  al__link_splice(from, ring);
  al__link_splice(ring, from);
}

size_t al__link_count(const al_link *ring) {
  size_t count = 0;
  for (const al_link *link = ring->next; link != ring; link = link->next) count++;
  return count;
}

void al_list_init(al_list *list) { al__link_init(list); }

bool al_list_is_empty(const al_list *list) { return al__link_is_empty(list); }

void al_list_append(al_list *list, al_handle *handle) {
  al_assert(!al_handle_is_queued(handle));
  al__link_append(list, &handle->link);
}

void al_call_soon(al_loop *loop, al_handle *handle) {
  al_assert(!loop->emptied);
  al_list_append(&loop->ready, handle);
}

void al_call_soon_list(al_loop *loop, al_list *list) {
  al_assert(!loop->emptied);
  al__link_splice(&loop->ready, list);
}

bool al_handle_cancel(al_handle *handle) {
  if (!al_handle_is_queued(handle)) return false;
  al__link_remove(&handle->link);
  return true;
}
