/* lwatchdog.c - a thread that asks the running loop for a sign of life, several times in the time that it is to
 * grant. If none comes, it has the thread that runs Lua interrupted (lquery.c), which then tells where it is: once
 * for each stretch of blocking, and at its end how long it took. If Lua can't be interrupted either, because a C
 * function doesn't return, the watchdog says that much by itself. Where no loop runs, the main chunk's own time
 * counts.
 *
 * Callbacks know nothing of it: without a watchdog nothing is paid, with one a wake-up of the loop for each sign.
 *
 * SPDX-License-Identifier: MIT */
#include "lwatchdog.h"

#include "lloop.h"
#include "lquery.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SIGNS = 4 /* asked for in the time granted */ };

static struct {
  pthread_t thread;
  pthread_mutex_t mutex; /* guards what follows */
  pthread_cond_t changed;
  bool ending;
  int64_t granted_ns;
  al_loop *loop;                /* that runs: one reference; NULL: none */
  bool waiting;                 /* for a sign of this loop */
  int64_t since_ns;             /* the last time that something went on, or the sign was asked for */
  bool asked, answered, told_c; /* in this stretch: the interruption, its answer, that C code runs */
} dog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Atomic(al_ctx *) watched; /* whose loops; NULL: there is no watchdog */

static double seconds_since(int64_t ns) { return (double)(al_time_ns() - ns) * 1e-9; }

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...) {
  char text[200];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  al_query_write(STDERR_FILENO, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}

/* Something went on: a stretch of blocking that was told of is over. Under the mutex, in the thread that runs Lua. */
static void go_on(void) {
  if (dog.answered || dog.told_c) say("aloop: watchdog: going on after %.3f seconds\n", seconds_since(dog.since_ns));
  dog.asked = dog.answered = dog.told_c = false;
  dog.since_ns = al_time_ns();
}

/* ---- signs of life ----------------------------------------------------------------------------------------------- */

static void give_sign(al_loop *loop, al_remote *remote) {
  free(remote);
  pthread_mutex_lock(&dog.mutex);
  if (dog.loop == loop) {
    dog.waiting = false;
    go_on();
  }
  pthread_mutex_unlock(&dog.mutex);
}

/* The loop is closed. */
static void drop_sign(al_remote *remote) { free(remote); }

/* Under the mutex. */
static void ask_for_sign(void) {
  al_remote *sign = malloc(sizeof *sign);
  if (!sign) return;
  *sign = (al_remote){.run = give_sign, .drop = drop_sign};
  dog.since_ns = al_time_ns();
  dog.waiting = true;
  if (al_call_soon_threadsafe(dog.loop, sign) == 0) return;
  dog.waiting = false;
  free(sign);
}

void al_watchdog_loop(al_ctx *ctx, l_loop *loop) {
  if (atomic_load_explicit(&watched, memory_order_relaxed) != ctx) return;
  pthread_mutex_lock(&dog.mutex);
  al_loop *former = dog.loop;
  go_on();
  dog.waiting = false;
  dog.loop = loop ? loop->loop : NULL;
  if (dog.loop) al_loop_hold(dog.loop);
  pthread_mutex_unlock(&dog.mutex);
  if (former) al_loop_release(former);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Nothing has gone on for the time granted, or longer. Under the mutex. */
static void bark(int64_t blocked_ns) {
  if (!dog.asked) {
    dog.asked = true;
    al_query_ask_watchdog();
  } else if (!dog.answered && !dog.told_c && blocked_ns >= 2 * dog.granted_ns) {
    dog.told_c = true;
    say("aloop: watchdog: blocked for %.3f seconds, in a C function that does not return: no line of Lua is reached\n",
        (double)blocked_ns * 1e-9);
  }
}

static void look(void) {
  if (dog.loop && !dog.waiting) {
    ask_for_sign();
    return;
  }
  int64_t blocked_ns = al_time_ns() - dog.since_ns;
  if (blocked_ns >= dog.granted_ns) bark(blocked_ns);
}

static void wait_a_while(int64_t ns) {
  struct timespec until;
  int64_t at_ns = al_time_ns() + ns;
  until.tv_sec = (time_t)(at_ns / 1000000000);
  until.tv_nsec = (long)(at_ns % 1000000000);
  pthread_cond_timedwait(&dog.changed, &dog.mutex, &until);
}

static void *run(void *extra) {
  (void)extra;
  pthread_mutex_lock(&dog.mutex);
  while (!dog.ending) {
    wait_a_while(dog.granted_ns / SIGNS);
    if (!dog.ending) look();
  }
  pthread_mutex_unlock(&dog.mutex);
  return NULL;
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

void al_watchdog_answer(lua_State *L, bool interrupted) {
  pthread_mutex_lock(&dog.mutex);
  bool wanted = dog.asked && !dog.answered && interrupted;
  double seconds = seconds_since(dog.since_ns);
  if (wanted) dog.answered = true;
  pthread_mutex_unlock(&dog.mutex);
  if (!wanted) return;
  size_t len;
  const char *text = al_query_push_answer(L, "where", true, &len);
  fflush(stderr);
  say("aloop: watchdog: blocked for %.3f seconds", seconds);
  al_query_write(STDERR_FILENO, text, len);
  lua_pop(L, 1);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

/* Without signals, which are for the thread that runs Lua. */
static int start_thread(void) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int err = pthread_create(&dog.thread, NULL, run, NULL);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return -err;
}

int al_watchdog_start(al_ctx *ctx, double seconds) {
  pthread_condattr_t attr;
  int err = -pthread_condattr_init(&attr);
  if (err) return err;
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  err = -pthread_cond_init(&dog.changed, &attr);
  pthread_condattr_destroy(&attr);
  if (err) return err;
  dog.granted_ns = (int64_t)(seconds * 1e9);
  dog.since_ns = al_time_ns();
  atomic_store(&watched, ctx);
  err = start_thread();
  if (err) atomic_store(&watched, NULL);
  return err;
}

void al_watchdog_end(void) {
  if (!atomic_load(&watched)) return;
  pthread_mutex_lock(&dog.mutex);
  dog.ending = true;
  pthread_cond_signal(&dog.changed);
  pthread_mutex_unlock(&dog.mutex);
  pthread_join(dog.thread, NULL);
  atomic_store(&watched, NULL);
  if (dog.loop) al_loop_release(dog.loop);
  dog.loop = NULL;
}
