/* lparcel.c - the memory of parcels. Knows nothing of what is in them, and no Lua state: a parcel goes from thread to
 * thread.
 *
 * SPDX-License-Identifier: MIT */
#include "lparcel.h"

#include <stdlib.h>
#include <string.h>

static const al_marshal_remotes *hooks;

void al_marshal_set_remotes(const al_marshal_remotes *remotes) { __atomic_store_n(&hooks, remotes, __ATOMIC_RELEASE); }

const al_marshal_remotes *al_parcel_remotes(void) { return __atomic_load_n(&hooks, __ATOMIC_ACQUIRE); }

al_parcel *al_parcel_new(size_t capacity) {
  if (capacity > PTRDIFF_MAX - sizeof(al_parcel)) return NULL;
  al_parcel *parcel = malloc(sizeof *parcel + capacity);
  if (!parcel) return NULL;
  *parcel = (al_parcel){.capacity = capacity};
  return parcel;
}

bool al_parcel_reserve(al_parcel **parcel, size_t n) {
  size_t len = (*parcel)->len, capacity = (*parcel)->capacity;
  if (n <= capacity - len) return true;
  if (n > PTRDIFF_MAX - sizeof(al_parcel) - len) return false;
  size_t wanted = len + n > 2 * capacity ? len + n : 2 * capacity;
  al_parcel *grown = realloc(*parcel, sizeof *grown + wanted);
  if (!grown) return false;
  grown->capacity = wanted;
  *parcel = grown;
  return true;
}

bool al_parcel_add_remote(al_parcel *parcel, void *remote) {
  void **remotes = realloc(parcel->remotes, (parcel->n_remotes + 1) * sizeof *remotes);
  if (!remotes) return false;
  remotes[parcel->n_remotes++] = remote;
  parcel->remotes = remotes;
  return true;
}

void al_parcel_free(al_parcel *parcel) {
  if (!parcel) return;
  for (size_t i = 0; i < parcel->n_remotes; i++) al_parcel_remotes()->drop(parcel->remotes[i]);
  free(parcel->remotes);
  free(parcel);
}

const char *al_parcel_bytes(const al_parcel *parcel, size_t *len) {
  *len = parcel->len;
  return parcel->bytes;
}

char *al_parcel_room(al_parcel *parcel) { return parcel->bytes; }

al_parcel *al_parcel_from_bytes(const char *data, size_t len) {
  al_parcel *parcel = al_parcel_new(len);
  if (!parcel) return NULL;
  parcel->len = len;
  if (data && len) memcpy(parcel->bytes, data, len);
  return parcel;
}
