/* lconcurrent.c - see lconcurrent.h. Pools, remotes and lcfuture.c use it; all of it may be called by any thread.
 *
 * SPDX-License-Identifier: MIT */
#include "lconcurrent.h"

#include <stdlib.h>
#include <string.h>

int al_cfuture_init(al_cfuture *f) {
  memset(f, 0, sizeof *f);
  f->refs = 1;
  f->watches_end = &f->watches;
  return -pthread_mutex_init(&f->mutex, NULL);
}

al_cfuture *al_cfuture_new(void) {
  al_cfuture *f = malloc(sizeof *f);
  if (!f || al_cfuture_init(f) == 0) return f;
  free(f);
  return NULL;
}

void al_cfuture_hold(al_cfuture *f) { __atomic_fetch_add(&f->refs, 1, __ATOMIC_RELAXED); }

void al_cfuture_release(al_cfuture *f) {
  if (__atomic_sub_fetch(&f->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_parcel_free(f->outcome);
  pthread_mutex_destroy(&f->mutex);
  if (f->destroy) {
    f->destroy(f);
  } else {
    free(f);
  }
}

int al_cfuture_state(const al_cfuture *f) { return __atomic_load_n(&f->state, __ATOMIC_ACQUIRE); }

/* Under the mutex. What was written before is seen by whoever reads the state. */
static void set_state(al_cfuture *f, int state) { __atomic_store_n(&f->state, state, __ATOMIC_RELEASE); }

bool al_cfuture_start(al_cfuture *f) {
  pthread_mutex_lock(&f->mutex);
  bool pending = f->state == AL_CF_PENDING;
  if (pending) set_state(f, AL_CF_RUNNING);
  pthread_mutex_unlock(&f->mutex);
  return pending;
}

static al_cwatch *take_watches(al_cfuture *f) {
  al_cwatch *first = f->watches;
  f->watches = NULL;
  f->watches_end = &f->watches;
  return first;
}

static void fire(al_cwatch *watch) {
  while (watch) {
    al_cwatch *next = watch->next; /* the watch may be gone when its fire returns */
    watch->fire(watch);
    watch = next;
  }
}

static bool end(al_cfuture *f, al_parcel *outcome, bool failed) {
  pthread_mutex_lock(&f->mutex);
  bool first = f->state < AL_CF_CANCELLED;
  al_cwatch *watches = NULL;
  if (first) {
    f->outcome = outcome;
    f->failed = failed;
    set_state(f, AL_CF_FINISHED);
    watches = take_watches(f);
  }
  pthread_mutex_unlock(&f->mutex);
  if (!first) al_parcel_free(outcome);
  fire(watches);
  return first;
}

bool al_cfuture_finish(al_cfuture *f, al_parcel *values) { return end(f, values, false); }
bool al_cfuture_fail(al_cfuture *f, al_parcel *error) { return end(f, error, true); }

bool al_cfuture_cancel(al_cfuture *f) {
  pthread_mutex_lock(&f->mutex);
  int former = f->state;
  al_cwatch *watches = NULL;
  if (former == AL_CF_PENDING) {
    set_state(f, AL_CF_CANCELLED);
    watches = take_watches(f);
  }
  pthread_mutex_unlock(&f->mutex);
  if (former == AL_CF_PENDING && f->cancelled) f->cancelled(f);
  fire(watches);
  return former == AL_CF_PENDING || former == AL_CF_CANCELLED;
}

bool al_cfuture_watch(al_cfuture *f, al_cwatch *watch) {
  watch->next = NULL;
  pthread_mutex_lock(&f->mutex);
  bool waits = f->state < AL_CF_CANCELLED;
  if (waits) {
    *f->watches_end = watch;
    f->watches_end = &watch->next;
  }
  pthread_mutex_unlock(&f->mutex);
  return waits;
}

bool al_cfuture_unwatch(al_cfuture *f, al_cwatch *watch) {
  pthread_mutex_lock(&f->mutex);
  al_cwatch **at = &f->watches;
  while (*at && *at != watch) at = &(*at)->next;
  bool found = *at != NULL;
  if (found) {
    *at = watch->next;
    if (!watch->next) f->watches_end = at;
  }
  pthread_mutex_unlock(&f->mutex);
  return found;
}
