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

bool al_parcel_is_small(const al_parcel *parcel) { return parcel->capacity <= 512 && parcel->n_remotes == 0; }

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

/* ---- an error without a Lua state -------------------------------------------------------------------------------- */

typedef struct writer {
  al_parcel *parcel;
  bool failed;
} writer;

static void write_bytes(writer *w, const void *data, size_t len) {
  if (w->failed || !al_parcel_reserve(&w->parcel, len)) {
    w->failed = true;
    return;
  }
  memcpy(w->parcel->bytes + w->parcel->len, data, len);
  w->parcel->len += len;
}

static void write_byte(writer *w, int byte) { write_bytes(w, &(char){(char)byte}, 1); }

static void write_string(writer *w, const char *text) {
  size_t len = strnlen(text, AL_W_SHORT);
  write_byte(w, AL_W_STRING);
  if (len > 127) write_byte(w, (int)(len & 127) | 128);
  write_byte(w, len > 127 ? (int)(len >> 7) : (int)len);
  write_bytes(w, text, len);
}

_Static_assert(AL_C_COUNT < 128 * 128, "two bytes are enough for the number of a class");

static void write_class(writer *w, al_class class) {
  write_byte(w, AL_W_CLASS);
  write_byte(w, (int)(class & 127) | 128);
  write_byte(w, (int)class >> 7);
}

al_parcel *al_parcel_error(al_class class, const char *message) {
  writer w = {.parcel = al_parcel_new(strlen(message) + 32)};
  if (!w.parcel) return NULL;
  static const char head[] = {AL_WIRE_VERSION, 2, AL_W_INSTANCE, AL_W_NIL, AL_W_FILL, AL_W_INSTANCE, 0};
  write_bytes(&w, head, sizeof head);
  write_class(&w, class);
  write_string(&w, "message");
  write_string(&w, message);
  write_byte(&w, AL_W_END);
  write_byte(&w, AL_W_END);
  if (!w.failed) return w.parcel;
  al_parcel_free(w.parcel);
  return NULL;
}
