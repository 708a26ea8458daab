/* lpool.c - the threads of a pool and the queue of their jobs. It knows Lua states by lworker.c only.
 *
 * A thread is started when a job finds none idle, up to a limit. To wake one costs more than most jobs do, so at most one
 * is being woken at a time: it wakes the next one if it finds more jobs than the one that it takes. So a queue of short
 * jobs is worked off by few threads that stay awake, and one of long jobs by all.
 *
 * SPDX-License-Identifier: MIT */
#include "lpool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct al_pool {
  int refs; /* atomic */
  pthread_mutex_t mutex;
  pthread_cond_t work;        /* a job was queued, or the end has come */
  al_pool_job *first, **last; /* the queue */
  size_t queued, idle;        /* jobs in it; threads that sleep */
  bool waking;                /* one of these was woken, and has not come yet */
  size_t started, alive;      /* threads; those that have not ended */
  bool ending, broken;
  size_t max;
  char name[16]; /* of the threads, without their number */
  al_parcel *initializer;
  al_cfuture *ended;
  pthread_t threads[];
};

/* ---- the queue: under the mutex ---------------------------------------------------------------------------------- */

static void enqueue(al_pool *pool, al_pool_job *job) {
  job->next = NULL;
  job->at = pool->last;
  *pool->last = job;
  pool->last = &job->next;
  pool->queued++;
}

static void unlink_job(al_pool *pool, al_pool_job *job) {
  *job->at = job->next;
  if (job->next) {
    job->next->at = job->at;
  } else {
    pool->last = job->at;
  }
  job->at = NULL;
  pool->queued--;
}

static void wake_one(al_pool *pool) {
  if (pool->waking || pool->idle == 0) return;
  pool->waking = true;
  pthread_cond_signal(&pool->work);
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

static void job_destroy(al_cfuture *f) {
  al_pool_job *job = (al_pool_job *)(void *)f;
  al_parcel_free(job->call);
  al_pool_release(job->pool);
  free(job);
}

/* A job was cancelled before it began: it leaves the queue, and so does the queue's reference. */
static void job_cancelled(al_cfuture *f) {
  al_pool_job *job = (al_pool_job *)(void *)f;
  al_pool *pool = job->pool;
  pthread_mutex_lock(&pool->mutex);
  bool queued = job->at != NULL;
  if (queued) unlink_job(pool, job);
  pthread_mutex_unlock(&pool->mutex);
  if (queued) al_cfuture_release(f);
}

static al_pool_job *job_new(al_pool *pool, al_parcel *call) {
  al_pool_job *job = malloc(sizeof *job);
  if (!job || al_cfuture_init(&job->f) < 0) {
    free(job);
    return NULL;
  }
  job->f.cancelled = job_cancelled;
  job->f.destroy = job_destroy;
  job->pool = pool;
  job->at = NULL;
  job->call = call;
  al_pool_hold(pool);
  return job;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* The next job, waited for; NULL when the thread shall end. Under the mutex. */
static al_pool_job *next_job(al_pool *pool) {
  while (!pool->first && !pool->ending) {
    pool->idle++;
    pthread_cond_wait(&pool->work, &pool->mutex);
    pool->idle--;
    pool->waking = false;
  }
  al_pool_job *job = pool->first;
  if (!job) return NULL;
  unlink_job(pool, job);
  if (pool->first) wake_one(pool);
  return job;
}

/* Takes all jobs out of the queue; each has the queue's reference. */
static al_pool_job *take_queue(al_pool *pool) {
  al_pool_job *first = pool->first;
  for (al_pool_job *job = first; job; job = job->next) job->at = NULL;
  pool->first = NULL;
  pool->last = &pool->first;
  pool->queued = 0;
  return first;
}

/* The initializer failed in a thread: nothing can be run any more, and what was queued fails. */
static void give_up(al_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  pool->broken = true;
  al_pool_job *job = take_queue(pool);
  pthread_mutex_unlock(&pool->mutex);
  while (job) {
    al_pool_job *next = job->next;
    job->f.broken = true;
    al_cfuture_fail(&job->f, NULL);
    al_cfuture_release(&job->f);
    job = next;
  }
}

static void run_jobs(al_pool *pool, al_worker *worker) {
  al_pool_job *job;
  pthread_mutex_lock(&pool->mutex);
  while ((job = next_job(pool)) != NULL) {
    pthread_mutex_unlock(&pool->mutex);
    if (al_cfuture_start(&job->f)) al_worker_run(worker, job);
    al_cfuture_release(&job->f);
    pthread_mutex_lock(&pool->mutex);
  }
  pthread_mutex_unlock(&pool->mutex);
}

typedef struct beginning {
  al_pool *pool; /* one reference */
  al_worker_setup *setup;
} beginning;

static void *thread_main(void *arg) {
  beginning begin = *(beginning *)arg;
  al_pool *pool = begin.pool;
  free(arg);
  al_worker *worker = al_worker_open(begin.setup);
  if (worker && (!pool->initializer || al_worker_initialize(worker, pool->initializer))) {
    run_jobs(pool, worker);
  } else {
    give_up(pool);
  }
  if (worker) al_worker_close(worker);
  pthread_mutex_lock(&pool->mutex);
  bool last = --pool->alive == 0 && pool->ending;
  pthread_mutex_unlock(&pool->mutex);
  if (last) al_cfuture_finish(pool->ended, NULL);
  al_pool_release(pool);
  return NULL;
}

/* Under the mutex. The threads take no signals: these are the business of the program's own threads. */
static int start_thread(al_pool *pool, al_worker_setup *setup) {
  pthread_t *thread = &pool->threads[pool->started];
  beginning *begin = malloc(sizeof *begin);
  if (!begin) return -ENOMEM;
  *begin = (beginning){pool, setup};
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int err = pthread_create(thread, NULL, thread_main, begin);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (err) {
    free(begin);
    return -err;
  }
  al_pool_hold(pool);
  char name[32];
  snprintf(name, sizeof name, "%s_%zu", pool->name, pool->started);
  name[15] = '\0';
  pthread_setname_np(*thread, name);
  pool->started++;
  pool->alive++;
  return 0;
}

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

int al_pool_new(size_t max, const char *name, al_parcel *initializer, al_pool **pool) {
  al_pool *made = calloc(1, sizeof *made + max * sizeof(pthread_t));
  if (!made) goto fail;
  made->ended = al_cfuture_new();
  if (!made->ended) goto fail;
  al_cfuture_start(made->ended);
  made->refs = 1;
  made->last = &made->first;
  made->max = max;
  made->initializer = initializer;
  snprintf(made->name, sizeof made->name, "%.12s", name ? name : "aloop");
  if (pthread_mutex_init(&made->mutex, NULL) != 0) goto fail;
  if (pthread_cond_init(&made->work, NULL) == 0) {
    *pool = made;
    return 0;
  }
  pthread_mutex_destroy(&made->mutex);
fail:
  if (made && made->ended) al_cfuture_release(made->ended);
  free(made);
  al_parcel_free(initializer);
  return -ENOMEM;
}

void al_pool_hold(al_pool *pool) { __atomic_fetch_add(&pool->refs, 1, __ATOMIC_RELAXED); }

void al_pool_release(al_pool *pool) {
  if (__atomic_sub_fetch(&pool->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_parcel_free(pool->initializer);
  al_cfuture_release(pool->ended);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

static int check(const al_pool *pool) { return pool->broken ? -EPIPE : pool->ending ? AL_ECLOSED : 0; }

int al_pool_check(al_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  int err = check(pool);
  pthread_mutex_unlock(&pool->mutex);
  return err;
}

static bool is_short(const al_pool *pool) { return pool->idle <= pool->queued && pool->started < pool->max; }

bool al_pool_is_short(al_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  bool needed = is_short(pool);
  pthread_mutex_unlock(&pool->mutex);
  return needed;
}

/* Under the mutex. */
static int add(al_pool *pool, al_pool_job *job, al_worker_setup **setup) {
  int err = check(pool);
  if (!err && *setup && is_short(pool)) {
    err = start_thread(pool, *setup);
    if (!err) *setup = NULL;
    if (pool->alive) err = 0; /* those that there are will come to it */
  }
  if (err) return err;
  al_cfuture_hold(&job->f);
  enqueue(pool, job);
  wake_one(pool);
  return 0;
}

int al_pool_submit(al_pool *pool, al_parcel *call, al_worker_setup *setup, al_pool_job **job) {
  al_pool_job *made = job_new(pool, call);
  if (!made) {
    al_parcel_free(call);
    al_worker_setup_free(setup);
    return -ENOMEM;
  }
  pthread_mutex_lock(&pool->mutex);
  int err = add(pool, made, &setup);
  pthread_mutex_unlock(&pool->mutex);
  al_worker_setup_free(setup);
  if (err) {
    al_cfuture_release(&made->f);
    return err;
  }
  *job = made;
  return 0;
}

static void cancel_jobs(al_pool *pool) {
  for (;;) {
    pthread_mutex_lock(&pool->mutex);
    al_pool_job *job = pool->first;
    if (job) unlink_job(pool, job);
    pthread_mutex_unlock(&pool->mutex);
    if (!job) return;
    al_cfuture_cancel(&job->f);
    al_cfuture_release(&job->f);
  }
}

void al_pool_shutdown(al_pool *pool, bool cancels) {
  pthread_mutex_lock(&pool->mutex);
  bool first = !pool->ending, empty = pool->alive == 0;
  pool->ending = true;
  pthread_mutex_unlock(&pool->mutex);
  if (cancels) cancel_jobs(pool);
  pthread_cond_broadcast(&pool->work);
  if (first && empty) al_cfuture_finish(pool->ended, NULL);
}

al_cfuture *al_pool_ended(al_pool *pool) { return pool->ended; }

void al_pool_join(al_pool *pool) {
  for (size_t i = 0; i < pool->started; i++) pthread_join(pool->threads[i], NULL);
  pool->started = 0;
}
