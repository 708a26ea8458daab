/* executor.c - blocking work in threads: a queue, and threads that are started when a job finds none idle, up to a
 * limit. Its jobs come back to their loop through al_call_soon_threadsafe. Knows nothing of what the jobs do.
 *
 * A job holds its loop until it is handed back, so that a loop may be closed and released while its jobs run.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "base.h"
#include "mem.h"
#include "wakeup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

enum { JOB_QUEUED = 1, JOB_RUNNING, JOB_FINISHED, JOB_CANCELLED };

struct al_executor {
  pthread_mutex_t mutex; /* guards all but max_threads and name */
  pthread_cond_t work;   /* a job was queued, or the end has come */
  al_job *first, **last; /* the queue */
  size_t queued, idle;   /* jobs in it; threads that wait for one */
  size_t started, alive; /* threads in threads[]; those that have not ended */
  bool ending;           /* threads end when the queue is empty */
  bool abandoned;        /* nobody joins them: the last one frees the executor */
  size_t max_threads;
  char name[16]; /* the kernel's limit for the name of a thread */
  pthread_t threads[];
};

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

static void job_run(al_loop *loop, al_remote *remote) {
  al_job *job = AL_CONTAINER(remote, al_job, remote);
  (void)loop;
  job->done(job, job->state == JOB_FINISHED ? 0 : -ECANCELED);
}

static void job_drop(al_remote *remote) {
  al_job *job = AL_CONTAINER(remote, al_job, remote);
  job->done(job, -ECANCELED);
}

/* Gives the job back to its owner: in the loop's thread, or here if the loop is closed. The
 * job is not touched any more. */
static void deliver(al_job *job) {
  al_loop *loop = job->loop;
  if (al_call_soon_threadsafe(loop, &job->remote) != 0) job_drop(&job->remote);
  al_loop_release(loop);
}

static void enqueue(al_executor *executor, al_job *job) {
  *executor->last = job;
  executor->last = &job->next;
  executor->queued++;
}

/* Takes out the job to which link points. */
static al_job *unlink_job(al_executor *executor, al_job **link) {
  al_job *job = *link;
  *link = job->next;
  if (!job->next) executor->last = link;
  executor->queued--;
  return job;
}

static al_job **find_job(al_executor *executor, const al_job *job) {
  al_job **link = &executor->first;
  while (*link && *link != job) link = &(*link)->next;
  return link;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void destroy(al_executor *executor) {
  pthread_cond_destroy(&executor->work);
  pthread_mutex_destroy(&executor->mutex);
  al__free(executor);
}

/* The next job, waited for; NULL when the thread shall end. Under the mutex. */
static al_job *next_job(al_executor *executor) {
  while (!executor->first && !executor->ending) {
    executor->idle++;
    pthread_cond_wait(&executor->work, &executor->mutex);
    executor->idle--;
  }
  if (!executor->first) return NULL;
  al_job *job = unlink_job(executor, &executor->first);
  job->state = JOB_RUNNING;
  return job;
}

static void *thread_main(void *arg) {
  al_executor *executor = arg;
  al_job *job;
  pthread_mutex_lock(&executor->mutex);
  while ((job = next_job(executor)) != NULL) {
    pthread_mutex_unlock(&executor->mutex);
    job->work(job);
    job->state = JOB_FINISHED;
    deliver(job);
    pthread_mutex_lock(&executor->mutex);
  }
  bool last = --executor->alive == 0 && executor->abandoned;
  pthread_mutex_unlock(&executor->mutex);
  if (last) destroy(executor);
  return NULL;
}

/* Under the mutex. The threads take no signals: these are the business of the program's own threads. */
static int start_thread(al_executor *executor) {
  pthread_t *thread = &executor->threads[executor->started];
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int err = pthread_create(thread, NULL, thread_main, executor);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (err) return -err;
  pthread_setname_np(*thread, executor->name);
  executor->started++;
  executor->alive++;
  return 0;
}

static bool is_own_thread(const al_executor *executor) {
  for (size_t i = 0; i < executor->started; i++)
    if (pthread_equal(executor->threads[i], pthread_self())) return true;
  return false;
}

/* ---- the executor ------------------------------------------------------------------------------------------------ */

int al_executor_new(size_t max_threads, const char *name, al_executor **executor) {
  if (!max_threads || max_threads > SIZE_MAX / 2 / sizeof(pthread_t)) return -EINVAL;
  al_executor *made = al__calloc(1, sizeof(*made) + max_threads * sizeof(pthread_t));
  if (!made) return -ENOMEM;
  made->max_threads = max_threads;
  made->last = &made->first;
  snprintf(made->name, sizeof(made->name), "%s", name ? name : "aloop");
  int err = pthread_mutex_init(&made->mutex, NULL);
  if (err) goto fail_mutex;
  err = pthread_cond_init(&made->work, NULL);
  if (err) goto fail_cond;
  *executor = made;
  return 0;
fail_cond:
  pthread_mutex_destroy(&made->mutex);
fail_mutex:
  al__free(made);
  return -err;
}

int al_executor_submit(al_executor *executor, al_loop *loop, al_job *job) {
  if (al__wakeup_is_closed(loop)) return AL_ECLOSED;
  job->remote = (al_remote){.run = job_run, .drop = job_drop};
  job->next = NULL;
  job->loop = loop;
  job->state = JOB_QUEUED;
  int err = 0;
  pthread_mutex_lock(&executor->mutex);
  al_assert(!executor->ending);
  if (executor->idle <= executor->queued && executor->started < executor->max_threads) err = start_thread(executor);
  if (executor->started) err = 0; /* those that there are will come to it */
  if (!err) {
    al_loop_hold(loop);
    enqueue(executor, job);
    pthread_cond_signal(&executor->work);
  }
  pthread_mutex_unlock(&executor->mutex);
  return err;
}

bool al_executor_cancel(al_executor *executor, al_job *job) {
  pthread_mutex_lock(&executor->mutex);
  al_job **link = find_job(executor, job);
  bool found = *link != NULL;
  if (found) unlink_job(executor, link)->state = JOB_CANCELLED;
  pthread_mutex_unlock(&executor->mutex);
  if (found) deliver(job);
  return found;
}

/* A thread of the pool can't wait for itself: the last release of a loop may come from there. */
void al_executor_shutdown(al_executor *executor, bool wait) {
  pthread_mutex_lock(&executor->mutex);
  executor->ending = true;
  executor->abandoned = !wait || is_own_thread(executor);
  bool joins = !executor->abandoned, last = executor->alive == 0;
  pthread_cond_broadcast(&executor->work);
  for (size_t i = 0; i < executor->started; i++)
    if (!joins) pthread_detach(executor->threads[i]);
  pthread_mutex_unlock(&executor->mutex);
  for (size_t i = 0; joins && i < executor->started; i++) pthread_join(executor->threads[i], NULL);
  if (joins || last) destroy(executor);
}
