/* lpool.h - threads that run jobs, each by a worker of its own: the pool behind ThreadPoolExecutor and
 * ProcessPoolExecutor (lexecutor.c). A worker is a Lua state (lworker.c), or a process that has one (lprocpool.c).
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPOOL_H
#define AL_LPOOL_H

#include "lconcurrent.h"

typedef struct al_pool al_pool; /* counted */

/* A call on its way to a worker, and its outcome. Counted as its future, which comes first. */
typedef struct al_pool_job {
  al_cfuture f;
  al_pool *pool;            /* one reference */
  struct al_pool_job *next; /* in the pool's queue */
  struct al_pool_job **at;  /* NULL: not in it */
  al_parcel *call;          /* the function and its arguments */
  bool finishing;           /* al_pool_finishing was called */
} al_pool_job;

/* What a worker's state has of the state that starts it. */
typedef struct al_worker_setup {
  char *path, *cpath, *machine; /* package.path, package.cpath, the default machine; each may be NULL */
  bool no_environment, debug;
} al_worker_setup;

enum { AL_WHY = 160 }; /* bytes of a text that says why a worker was lost */

/* What the threads of a pool work with. Each thread has one worker, which it alone makes, uses and ends; is_lost and
 * interrupt come from other threads. A function that fails may have written why, else it is empty. */
typedef struct al_worker_ops {
  bool local;          /* a worker is a state of this process: AL_MARSHAL_LOCAL */
  al_class broken;     /* the class of the error that all jobs get when a worker is lost */
  const char *message; /* its message, with %s for why, or without */
  void *(*open)(al_worker_setup *setup, const char *program, char *why); /* frees the setup; NULL: it can't be made */
  bool (*initialize)(void *worker, const al_parcel *call, char *why);
  bool (*run)(void *worker, al_pool_job *job, char *why); /* ends the job, which has begun; false: the worker is lost */
  void (*close)(void *worker, bool broken);               /* broken: the pool is, nobody waits for anything any more */
  bool (*is_lost)(void *worker, char *why);               /* asked of an idle one; NULL: none is ever */
  void (*interrupt)(void *worker);                        /* what run waits for won't come; NULL: it comes */
} al_worker_ops;

extern const al_worker_ops al_thread_workers;  /* lworker.c: Lua states */
extern const al_worker_ops al_process_workers; /* lprocpool.c: processes; program: which, NULL: this one */

/* max: of threads. name (NULL: "aloop"): of the threads, cut at 15 bytes. program: for the workers, copied; may be
 * NULL. The initializer, a call or NULL, is the pool's from then on, also if this fails. Errors: -ENOMEM. */
int al_pool_new(const al_worker_ops *ops, size_t max, const char *name, const char *program, al_parcel *initializer,
                al_pool **pool);
const al_worker_ops *al_pool_ops(const al_pool *pool);
void al_pool_hold(al_pool *pool);
void al_pool_release(al_pool *pool);

/* Can it take jobs? 0, AL_ECLOSED (it was shut down) or -EPIPE (broken: a worker was lost, or its initializer has
 * failed). */
int al_pool_check(al_pool *pool);
void al_pool_why(al_pool *pool, char *message); /* of one that is broken: at most 2 * AL_WHY bytes */
/* Is a thread to be started for another job? */
bool al_pool_is_short(al_pool *pool);
/* Queues the call, which is the pool's from then on, also if this fails. setup (NULL: nothing was said by
 * al_pool_is_short): for a thread that is started; the pool frees it. looks: whether the caller could call al_pool_look
 * soon, and then, whether it has to. Errors: as al_pool_check, -ENOMEM, -EAGAIN (no thread can be started). */
int al_pool_submit(al_pool *pool, al_parcel *call, al_worker_setup *setup, bool *looks, al_pool_job **job);
/* The queue was left to the threads that are awake: more of them wake up if that was wrong. */
void al_pool_look(al_pool *pool);

/* By the thread that runs the job: it is about to end, the thread will come for another. So whoever hears of its end
 * and has another job doesn't start a thread for it. */
void al_pool_finishing(al_pool_job *job);

/* No more jobs; the threads end when the queue is empty. cancels: those in it are cancelled. */
void al_pool_shutdown(al_pool *pool, bool cancels);
/* The future that is done when it was shut down and its threads have done all their work. It lives as the pool. */
al_cfuture *al_pool_ended(al_pool *pool);
/* Joins the threads; the thread that made the pool only, once. It waits until they have ended. */
void al_pool_join(al_pool *pool);

/* ---- lworker.c --------------------------------------------------------------------------------------------------- */

typedef struct al_worker al_worker;

/* What the state of L hands down; NULL: no memory. Raises what memory makes it. */
al_worker_setup *al_worker_setup_new(lua_State *L, al_ctx *ctx);
void al_worker_setup_free(al_worker_setup *setup); /* NULL: nothing */

/* Makes the state of a worker; NULL: no memory, or it can't be opened (which is logged). Frees the setup. */
al_worker *al_worker_open(al_worker_setup *setup);
/* Runs the initializer; false if it fails, which is logged. */
bool al_worker_initialize(al_worker *worker, const al_parcel *call);
/* Runs a call: its outcome (NULL: none, or no memory for it), made with these flags of al_marshal. */
al_parcel *al_worker_call(al_worker *worker, const al_parcel *call, unsigned flags, bool *failed);
void al_worker_close(al_worker *worker);

#endif
