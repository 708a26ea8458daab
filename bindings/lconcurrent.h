/* lconcurrent.h - concurrent futures: the outcome of work that goes on in another thread or process. The record is
 * shared by all threads and counted; a ConcurrentFuture (lcfuture.h) is a handle of it in one Lua state. Values stand
 * in it as parcels. This half knows no Lua state.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LCONCURRENT_H
#define AL_LCONCURRENT_H

#include "lmarshal.h"

#include <pthread.h>

typedef struct al_cfuture al_cfuture;

/* Somebody who is told, once, when the future is done: fire is called, without a lock, by the thread that ends it.
 * Embedded in its owner, which stays until fire was called or al_cfuture_unwatch has returned true. */
typedef struct al_cwatch al_cwatch;
struct al_cwatch {
  al_cwatch *next;
  void (*fire)(al_cwatch *watch);
};

enum { AL_CF_PENDING, AL_CF_RUNNING, AL_CF_CANCELLED, AL_CF_FINISHED };

/* Embedded in its owner's struct, or al_cfuture_new's. The owner sets cancelled and destroy after al_cfuture_init. */
struct al_cfuture {
  int refs;              /* atomic */
  int state;             /* atomic; changed under the mutex */
  bool failed;           /* once done: outcome is an al_marshal_error's; NULL: there was no memory for it */
  pthread_mutex_t mutex; /* guards watches, and the change of state */
  al_parcel *outcome;    /* once done: what it came to; NULL: no values */
  al_cwatch *watches, **watches_end;
  /* cancel() was heard of before the work began: called without a lock by the thread that cancels, before those who
   * watch are told. May be NULL. */
  void (*cancelled)(al_cfuture *future);
  void (*destroy)(al_cfuture *future); /* the last reference is gone: frees the struct around it; NULL: free() */
  int pid;                             /* of the worker process that failed; 0: it was a thread of ours */
  const void *home;                    /* the al_loop whose thread has to go on for it to be done, or NULL */
};

/* With one reference. Pending. */
int al_cfuture_init(al_cfuture *future); /* 0 or -errno */
al_cfuture *al_cfuture_new(void);        /* NULL: no memory */
void al_cfuture_hold(al_cfuture *future);
void al_cfuture_release(al_cfuture *future);

int al_cfuture_state(const al_cfuture *future);
static inline bool al_cfuture_is_done(const al_cfuture *future) { return al_cfuture_state(future) >= AL_CF_CANCELLED; }

/* The work begins: it can't be cancelled any more. False: it was cancelled, or has begun before. */
bool al_cfuture_start(al_cfuture *future);
/* It has ended with these values, or with this error. The parcel is the future's from now on. False, and the parcel is
 * freed: it was done already. */
bool al_cfuture_finish(al_cfuture *future, al_parcel *values);
bool al_cfuture_fail(al_cfuture *future, al_parcel *error);
/* False: it runs or has ended. True also if it was cancelled before. */
bool al_cfuture_cancel(al_cfuture *future);

bool al_cfuture_watch(al_cfuture *future, al_cwatch *watch);   /* false: it is done; fire is not called */
bool al_cfuture_unwatch(al_cfuture *future, al_cwatch *watch); /* false: fire was called, or is about to be */

#endif
