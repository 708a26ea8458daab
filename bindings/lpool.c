/* lpool.c - the threads of a pool and the queue of their jobs. What runs the jobs it knows by al_worker_ops only.
 *
 * A thread is started when a job finds none idle, up to a limit. To wake one costs more than most jobs do, so at most
 * one is being woken at a time: it wakes the next one if it finds more jobs than the one that it takes. As long as all
 * jobs are brisk, those threads that are awake are left alone with them, if whoever submits them looks after them again
 * soon (al_pool_look). So a queue of short jobs is worked off by few threads that stay awake, and one of long jobs by
 * all.
 *
 * SPDX-License-Identifier: MIT */
#include "lpool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() (void)0
#endif

enum {
  BRISK_NS = 20000, /* a job that took less */
  BRISK_JOBS = 16,  /* so many of them make a brisk pool */
  BRISK_MAX = 64,
  SPIN_NS = 10000, /* as long a thread of a brisk pool looks for another job before it sleeps */
  SPIN_PAUSES = 32 /* between two looks at the clock */
};

typedef struct worker_slot {
  pthread_t thread;
  void *worker; /* NULL: not yet, or not any more */
  bool busy;    /* with a job */
} slot;

struct al_pool {
  const al_worker_ops *ops;
  int refs; /* atomic */
  pthread_mutex_t mutex;
  pthread_cond_t work;        /* a job was queued, or the end has come */
  al_pool_job *first, **last; /* the queue */
  size_t queued;              /* jobs in it; also read without the mutex */
  size_t idle;                /* threads that sleep */
  size_t finishing;           /* atomic: threads whose job is about to end */
  bool waking;                /* one of these was woken, and has not come yet */
  bool spinning;              /* a thread looks for a job without the mutex */
  bool watched;               /* al_pool_look will be called: nobody is woken until then */
  unsigned brisk;             /* how sure it is that jobs are short */
  size_t started, alive;      /* threads; those that have not ended */
  bool ending, broken;
  bool spins; /* there is another CPU */
  size_t max;
  char name[16]; /* of the threads, without their number */
  al_parcel *initializer;
  al_cfuture *ended;
  char *program;    /* of the workers, or NULL */
  char why[AL_WHY]; /* it is broken */
  slot slots[];
};

/* ---- the queue: under the mutex ---------------------------------------------------------------------------------- */

static void set_queued(al_pool *pool, size_t n) { __atomic_store_n(&pool->queued, n, __ATOMIC_RELAXED); }

static void enqueue(al_pool *pool, al_pool_job *job) {
  job->next = NULL;
  job->at = pool->last;
  *pool->last = job;
  pool->last = &job->next;
  set_queued(pool, pool->queued + 1);
}

static void unlink_job(al_pool *pool, al_pool_job *job) {
  *job->at = job->next;
  if (job->next) {
    job->next->at = job->at;
  } else {
    pool->last = job->at;
  }
  job->at = NULL;
  set_queued(pool, pool->queued - 1);
}

/* Is one to be woken? It is by pthread_cond_signal then, without the mutex, which it would have to wait for. */
static bool wants_one(al_pool *pool) {
  if (pool->waking || pool->spinning || pool->idle == 0) return false;
  return pool->waking = true;
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
  job->finishing = false;
  al_pool_hold(pool);
  return job;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* Looks for a job for a moment, without the mutex, as the only one; the others may sleep. */
static void spin(al_pool *pool) {
  pool->spinning = true;
  pthread_mutex_unlock(&pool->mutex);
  int64_t until_ns = al_time_ns() + SPIN_NS;
  bool found;
  do {
    for (int i = 0; i < SPIN_PAUSES; i++) PAUSE();
    found = __atomic_load_n(&pool->queued, __ATOMIC_RELAXED) > 0;
  } while (!found && al_time_ns() < until_ns);
  pthread_mutex_lock(&pool->mutex);
  pool->spinning = false;
}

static bool has_nothing(const al_pool *pool) { return !pool->first && !pool->ending && !pool->broken; }

/* The next job, waited for; NULL when the thread shall end. Under the mutex. others: another thread is to be woken. */
static al_pool_job *next_job(al_pool *pool, int64_t *since_ns, bool *others) {
  *others = false;
  if (has_nothing(pool) && pool->spins && pool->brisk >= BRISK_JOBS && !pool->spinning) {
    spin(pool);
    *since_ns = al_time_ns();
  }
  while (has_nothing(pool)) {
    pool->idle++;
    pthread_cond_wait(&pool->work, &pool->mutex);
    pool->idle--;
    pool->waking = false;
    *since_ns = al_time_ns();
  }
  al_pool_job *job = pool->first;
  if (!job) return NULL;
  unlink_job(pool, job);
  *others = pool->first && !pool->watched && wants_one(pool);
  return job;
}

/* Under the mutex. A thread that lost its CPU meanwhile made one job long, but says little of the others. */
static void note_duration(al_pool *pool, int64_t took_ns) {
  if (took_ns >= BRISK_NS) {
    pool->brisk /= 2;
  } else if (pool->brisk < BRISK_MAX) {
    pool->brisk++;
  }
}

/* Takes all jobs out of the queue; each has the queue's reference. */
static al_pool_job *take_queue(al_pool *pool) {
  al_pool_job *first = pool->first;
  for (al_pool_job *job = first; job; job = job->next) job->at = NULL;
  pool->first = NULL;
  pool->last = &pool->first;
  set_queued(pool, 0);
  return first;
}

void al_pool_why(al_pool *pool, char *message) { snprintf(message, 2 * AL_WHY, pool->ops->message, pool->why); }

/* The pool is broken: the job, which has begun or was taken out of the queue, fails. */
static void fail_job(al_pool *pool, al_pool_job *job) {
  char message[2 * AL_WHY];
  al_pool_why(pool, message);
  al_cfuture_fail(&job->f, al_parcel_error(pool->ops->broken, message));
}

/* A worker was lost, or can't be made: nothing can be run any more, what was queued and what runs fails. */
static void give_up(al_pool *pool, const char *why) {
  pthread_mutex_lock(&pool->mutex);
  bool first = !pool->broken;
  if (first) snprintf(pool->why, sizeof pool->why, "%s", *why ? why : "its worker could not be made");
  pool->broken = true;
  al_pool_job *job = take_queue(pool);
  for (size_t i = 0; first && pool->ops->interrupt && i < pool->started; i++)
    if (pool->slots[i].worker) pool->ops->interrupt(pool->slots[i].worker);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->mutex);
  while (job) {
    al_pool_job *next = job->next;
    fail_job(pool, job);
    al_cfuture_release(&job->f);
    job = next;
  }
}

/* Runs the job in the thread of the slot; false: its worker is lost. */
static bool run_job(al_pool *pool, slot *self, al_pool_job *job) {
  char why[AL_WHY] = "";
  bool going = !al_cfuture_start(&job->f) || pool->ops->run(self->worker, job, why);
  if (!going) {
    give_up(pool, why);
    fail_job(pool, job);
  }
  if (job->finishing) __atomic_fetch_sub(&pool->finishing, 1, __ATOMIC_RELAXED);
  al_cfuture_release(&job->f);
  return going;
}

static void run_jobs(al_pool *pool, slot *self) {
  al_pool_job *job;
  bool going = true, others;
  int64_t since_ns = al_time_ns();
  pthread_mutex_lock(&pool->mutex);
  while (going && (job = next_job(pool, &since_ns, &others)) != NULL) {
    self->busy = true;
    pthread_mutex_unlock(&pool->mutex);
    if (others) pthread_cond_signal(&pool->work);
    going = run_job(pool, self, job);
    int64_t now_ns = al_time_ns();
    pthread_mutex_lock(&pool->mutex);
    note_duration(pool, now_ns - since_ns);
    since_ns = now_ns;
    self->busy = false;
  }
  pthread_mutex_unlock(&pool->mutex);
}

typedef struct beginning {
  al_pool *pool; /* one reference */
  slot *self;
  al_worker_setup *setup;
} beginning;

/* The slot has the worker (or none) from now on. Is the pool broken? */
static bool set_worker(al_pool *pool, slot *self, void *worker) {
  pthread_mutex_lock(&pool->mutex);
  self->worker = worker;
  bool broken = pool->broken;
  pthread_mutex_unlock(&pool->mutex);
  return broken;
}

static void *thread_main(void *arg) {
  beginning begin = *(beginning *)arg;
  al_pool *pool = begin.pool;
  slot *self = begin.self;
  free(arg);
  char why[AL_WHY] = "";
  void *worker = pool->ops->open(begin.setup, pool->program, why);
  set_worker(pool, self, worker);
  if (worker && (!pool->initializer || pool->ops->initialize(worker, pool->initializer, why))) {
    run_jobs(pool, self);
  } else {
    give_up(pool, why);
  }
  bool broken = set_worker(pool, self, NULL);
  if (worker) pool->ops->close(worker, broken);
  pthread_mutex_lock(&pool->mutex);
  bool last = --pool->alive == 0 && pool->ending;
  pthread_mutex_unlock(&pool->mutex);
  if (last) al_cfuture_finish(pool->ended, NULL);
  al_pool_release(pool);
  return NULL;
}

/* Under the mutex. The threads take no signals: these are the business of the program's own threads. */
static int start_thread(al_pool *pool, al_worker_setup *setup) {
  slot *self = &pool->slots[pool->started];
  beginning *begin = malloc(sizeof *begin);
  if (!begin) return -ENOMEM;
  *begin = (beginning){pool, self, setup};
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int err = pthread_create(&self->thread, NULL, thread_main, begin);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (err) {
    free(begin);
    return -err;
  }
  al_pool_hold(pool);
  char name[32];
  snprintf(name, sizeof name, "%s_%zu", pool->name, pool->started);
  name[15] = '\0';
  pthread_setname_np(self->thread, name);
  pool->started++;
  pool->alive++;
  return 0;
}

/* What it guards takes less time than to sleep and be woken. */
static int init_mutex(pthread_mutex_t *mutex) {
  pthread_mutexattr_t attributes;
  int err = pthread_mutexattr_init(&attributes);
  if (err) return err;
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
  err = pthread_mutex_init(mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
  return err;
}

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

int al_pool_new(const al_worker_ops *ops, size_t max, const char *name, const char *program, al_parcel *initializer,
                al_pool **pool) {
  al_pool *made = calloc(1, sizeof *made + max * sizeof(slot));
  if (!made) goto fail;
  made->ended = al_cfuture_new();
  made->program = program ? strdup(program) : NULL;
  if (!made->ended || (program && !made->program)) goto fail;
  al_cfuture_start(made->ended);
  made->ops = ops;
  made->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
  made->refs = 1;
  made->last = &made->first;
  made->max = max;
  made->initializer = initializer;
  snprintf(made->name, sizeof made->name, "%.12s", name ? name : "aloop");
  if (init_mutex(&made->mutex) != 0) goto fail;
  if (pthread_cond_init(&made->work, NULL) == 0) {
    *pool = made;
    return 0;
  }
  pthread_mutex_destroy(&made->mutex);
fail:
  if (made && made->ended) al_cfuture_release(made->ended);
  if (made) free(made->program);
  free(made);
  al_parcel_free(initializer);
  return -ENOMEM;
}

const al_worker_ops *al_pool_ops(const al_pool *pool) { return pool->ops; }

void al_pool_hold(al_pool *pool) { __atomic_fetch_add(&pool->refs, 1, __ATOMIC_RELAXED); }

void al_pool_release(al_pool *pool) {
  if (__atomic_sub_fetch(&pool->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_parcel_free(pool->initializer);
  al_cfuture_release(pool->ended);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->mutex);
  free(pool->program);
  free(pool);
}

static int check(const al_pool *pool) { return pool->broken ? -EPIPE : pool->ending ? AL_ECLOSED : 0; }

/* Was a worker lost that had nothing to do? Under the mutex. */
static bool has_lost(al_pool *pool, char *why) {
  for (size_t i = 0; pool->ops->is_lost && !pool->broken && i < pool->started; i++) {
    const slot *s = &pool->slots[i];
    if (s->worker && !s->busy && pool->ops->is_lost(s->worker, why)) return true;
  }
  return false;
}

int al_pool_check(al_pool *pool) {
  char why[AL_WHY] = "";
  pthread_mutex_lock(&pool->mutex);
  bool lost = has_lost(pool, why);
  int err = check(pool);
  pthread_mutex_unlock(&pool->mutex);
  if (!lost || err) return err;
  give_up(pool, why);
  return -EPIPE;
}

/* Under the mutex. */
static bool is_short(const al_pool *pool) {
  size_t coming = pool->idle + pool->spinning + __atomic_load_n(&pool->finishing, __ATOMIC_RELAXED);
  return coming <= pool->queued && pool->started < pool->max;
}

void al_pool_finishing(al_pool_job *job) {
  job->finishing = true;
  __atomic_fetch_add(&job->pool->finishing, 1, __ATOMIC_RELAXED);
}

bool al_pool_is_short(al_pool *pool) {
  if (pool->started == pool->max) return false; /* threads are started by this one alone */
  pthread_mutex_lock(&pool->mutex);
  bool needed = is_short(pool);
  pthread_mutex_unlock(&pool->mutex);
  return needed;
}

/* Under the mutex. wakes: a thread is to be woken. */
static int add(al_pool *pool, al_pool_job *job, al_worker_setup **setup, bool *looks, bool *wakes) {
  int err = check(pool);
  if (!err && *setup && is_short(pool)) {
    err = start_thread(pool, *setup);
    if (!err) *setup = NULL;
    if (pool->alive) err = 0; /* those that there are will come to it */
  }
  if (err) return err;
  al_cfuture_hold(&job->f);
  enqueue(pool, job);
  *looks = *looks && pool->brisk >= BRISK_JOBS && (pool->waking || pool->alive > pool->idle);
  pool->watched |= *looks;
  *wakes = !*looks && wants_one(pool);
  return 0;
}

void al_pool_look(al_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  pool->watched = false;
  bool wakes = pool->first && wants_one(pool);
  pthread_mutex_unlock(&pool->mutex);
  if (wakes) pthread_cond_signal(&pool->work);
}

int al_pool_submit(al_pool *pool, al_parcel *call, al_worker_setup *setup, bool *looks, al_pool_job **job) {
  al_pool_job *made = job_new(pool, call);
  if (!made) {
    al_parcel_free(call);
    al_worker_setup_free(setup);
    return -ENOMEM;
  }
  pthread_mutex_lock(&pool->mutex);
  bool wakes = false;
  int err = add(pool, made, &setup, looks, &wakes);
  pthread_mutex_unlock(&pool->mutex);
  if (wakes) pthread_cond_signal(&pool->work);
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
  for (size_t i = 0; i < pool->started; i++) pthread_join(pool->slots[i].thread, NULL);
  pool->started = 0;
}
