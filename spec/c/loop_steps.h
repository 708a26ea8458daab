/* loop_steps.h - what the tests of loops share: loops on the machine under test, callbacks and timers that leave a
 * trace of letters and then do what their test wants, and a main that runs all tests on each machine that there is.
 *
 * SPDX-License-Identifier: MIT */
#ifndef LOOP_STEPS_H
#define LOOP_STEPS_H

#include "aloop.h"
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define OWNER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static const char *machine; /* the one under test */

static inline al_loop *new_loop(void) {
  al_loop *loop;
  CHECK_EQ(al_loop_new(&(al_loop_options){.machine = machine}, &loop, NULL), 0);
  return loop;
}

static inline void end_loop(al_loop *loop) {
  al_loop_stats stats;
  al_loop_get_stats(loop, &stats);
  CHECK(stats.timers == 0 && stats.handles == 0 && stats.watchers == 0);
  CHECK_EQ(al_loop_close(loop), 0);
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.ops, 0);
  al_loop_release(loop);
}

static inline int open_descriptors(void) {
  DIR *dir = opendir("/proc/self/fd");
  int count = 0;
  CHECK(dir);
  while (readdir(dir)) count++;
  closedir(dir);
  return count;
}

static inline void make_pair(int fds[2]) { CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0); }

static inline void put_byte(int fd) { CHECK_EQ(write(fd, "x", 1), 1); }

/* ---- what the callbacks do: they write their letter, then what their test wants ---------------------------------- */

static char trace[256];

static inline void trace_clear(void) { trace[0] = '\0'; }

static inline void trace_add(char letter) {
  size_t len = strlen(trace);
  CHECK(len + 1 < sizeof(trace));
  trace[len] = letter;
  trace[len + 1] = '\0';
}

#define CHECK_TRACE(expected)                                                                            \
  (strcmp(trace, expected)                                                                               \
       ? (fprintf(stderr, "%s:%d: trace is %s, not %s\n", __FILE__, __LINE__, trace, expected), exit(1)) \
       : (void)0)

typedef struct step {
  al_handle handle;
  char letter;
  void (*then)(al_loop *loop, struct step *step);
  void *arg;
} step;

typedef struct alarm_step {
  al_timer timer;
  char letter;
  void (*then)(al_loop *loop, struct alarm_step *step);
  void *arg;
} alarm_step;

static inline void step_run(al_loop *loop, al_handle *handle) {
  step *self = OWNER(handle, step, handle);
  trace_add(self->letter);
  if (self->then) self->then(loop, self);
}

static inline void alarm_run(al_loop *loop, al_handle *handle) {
  alarm_step *self = OWNER(handle, alarm_step, timer.handle);
  CHECK(al_time_ns() >= self->timer.when_ns); /* never early */
  CHECK(!al_timer_is_set(&self->timer));
  trace_add(self->letter);
  if (self->then) self->then(loop, self);
}

static inline step *step_init(step *self, char letter, void (*then)(al_loop *, step *), void *arg) {
  *self = (step){.letter = letter, .then = then, .arg = arg};
  al_handle_init(&self->handle, step_run);
  return self;
}

static inline alarm_step *alarm_init(alarm_step *self, char letter, void (*then)(al_loop *, alarm_step *), void *arg) {
  *self = (alarm_step){.letter = letter, .then = then, .arg = arg};
  al_timer_init(&self->timer, alarm_run);
  return self;
}

static inline void then_stop(al_loop *loop, step *self) {
  (void)self;
  al_loop_stop(loop);
}
static inline void then_break(al_loop *loop, step *self) {
  (void)self;
  al_loop_break(loop);
}
static inline void then_queue(al_loop *loop, step *self) { al_call_soon(loop, &((step *)self->arg)->handle); }
static inline void then_cancel(al_loop *loop, step *self) {
  (void)loop;
  CHECK(al_handle_cancel(&((step *)self->arg)->handle));
}
static inline void alarm_stop(al_loop *loop, alarm_step *self) {
  (void)self;
  al_loop_stop(loop);
}
static inline void alarm_cancel(al_loop *loop, alarm_step *self) {
  (void)loop;
  CHECK(al_timer_cancel(&((alarm_step *)self->arg)->timer));
}

static inline void then_read(al_loop *loop, step *self) {
  char bytes[100];
  (void)loop;
  CHECK(read(*(int *)self->arg, bytes, sizeof(bytes)) > 0);
}

static inline void queue(al_loop *loop, step *self) { al_call_soon(loop, &self->handle); }
static inline void set(al_loop *loop, alarm_step *self, int64_t when_ns) {
  CHECK_EQ(al_timer_set(loop, &self->timer, when_ns), 0);
}

static inline void turns(al_loop *loop, int n) {
  while (n-- > 0) CHECK_EQ(al_loop_run_once(loop, 0), 0);
}

/* Runs turns until the trace is as long as expected. */
static inline void turns_until(al_loop *loop, const char *expected) {
  int64_t limit_ns = al_time_ns() + 5000 * MS;
  while (strlen(trace) < strlen(expected) && al_time_ns() < limit_ns) CHECK_EQ(al_loop_run_once(loop, 10 * MS), 0);
  CHECK_TRACE(expected);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Runs the tests on each machine, or on that of argv[1]. */
static inline int run_on_machines(int argc, char **argv, void (*run_tests)(void)) {
  static const char *const machines[] = {"epoll", "poll", "select", "uring"};
  for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
    const char *reason = "";
    al_loop *loop;
    machine = machines[i];
    if (argc > 1 && strcmp(argv[1], machine)) continue;
    int err = al_loop_new(&(al_loop_options){.machine = machine}, &loop, &reason);
    if (err == AL_ENORING) {
      printf("skipped %s: %s\n", machine, reason);
      continue;
    }
    CHECK_EQ(err, 0);
    al_loop_release(loop);
    run_tests();
  }
  return check_done();
}

#endif
