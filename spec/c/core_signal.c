/* core_signal.c - tests of Unix signals as callbacks, through aloop.h alone.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

#include <signal.h>

static void test_several_at_once(void) {
  al_loop *loop = new_loop();
  al_handle *old = &(al_handle){0};
  step usr1, usr2, term;
  trace_clear();
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &step_init(&usr1, '1', NULL, NULL)->handle, &old), 0);
  CHECK(!old);
  CHECK_EQ(al_add_signal(loop, SIGUSR2, &step_init(&usr2, '2', NULL, NULL)->handle, NULL), 0);
  CHECK_EQ(al_add_signal(loop, SIGTERM, &step_init(&term, 't', NULL, NULL)->handle, NULL), 0);
  raise(SIGTERM);
  raise(SIGUSR2);
  raise(SIGUSR1);
  CHECK_TRACE("");
  turns_until(loop, "12t"); /* by number */
  for (int i = 0; i < 3; i++) raise(SIGUSR1);
  turns_until(loop, "12t111"); /* each arrival has its call */
  turns(loop, 3);
  CHECK_TRACE("12t111");
  CHECK(al_remove_signal(loop, SIGUSR1) == &usr1.handle && !al_remove_signal(loop, SIGUSR1));
  CHECK(al_remove_signal(loop, SIGUSR2) == &usr2.handle && al_remove_signal(loop, SIGTERM) == &term.handle);
  end_loop(loop);
}

static int sending; /* atomic */

/* Again and again, for the thread sanitizer may sit on one while the ring waits. */
static void *kill_later(void *arg) {
  for (usleep(20000); __atomic_load_n(&sending, __ATOMIC_RELAXED); usleep(20000))
    pthread_kill(*(pthread_t *)arg, SIGALRM);
  return NULL;
}

/* A loop that waits is woken at once. */
static void test_while_waiting(void) {
  al_loop *loop = new_loop();
  step alrm;
  pthread_t self = pthread_self(), thread;
  trace_clear();
  CHECK_EQ(al_add_signal(loop, SIGALRM, &step_init(&alrm, 'a', then_stop, NULL)->handle, NULL), 0);
  sending = 1;
  CHECK_EQ(pthread_create(&thread, NULL, kill_later, &self), 0);
  int64_t began_ns = al_time_ns();
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(al_time_ns() - began_ns < 5000 * MS);
  CHECK(trace[0] == 'a');
  __atomic_store_n(&sending, 0, __ATOMIC_RELAXED);
  pthread_join(thread, NULL);
  CHECK(al_remove_signal(loop, SIGALRM));
  end_loop(loop);
}

static int old_calls;
static void old_handler(int signum) {
  (void)signum;
  old_calls++;
}

static void check_disposition(int signum, void (*handler)(int)) {
  struct sigaction action;
  CHECK_EQ(sigaction(signum, NULL, &action), 0);
  CHECK(action.sa_handler == handler);
}

/* What was there before comes back, at removal and at close. */
static void test_disposition(void) {
  struct sigaction ours = {.sa_handler = old_handler}, original;
  step a, b;
  CHECK_EQ(sigaction(SIGUSR1, &ours, &original), 0);
  al_loop *loop = new_loop();
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &step_init(&a, 'a', NULL, NULL)->handle, NULL), 0);
  CHECK_EQ(al_add_signal(loop, SIGUSR2, &step_init(&b, 'b', NULL, NULL)->handle, NULL), 0);
  raise(SIGUSR1);
  CHECK_EQ(old_calls, 0);
  CHECK(al_remove_signal(loop, SIGUSR1)); /* and with it what is pending */
  turns(loop, 3);
  check_disposition(SIGUSR1, old_handler);
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &a.handle, NULL), 0);
  raise(SIGUSR1);
  CHECK_EQ(al_loop_close(loop), 0);
  al_loop_release(loop);
  check_disposition(SIGUSR1, old_handler);
  check_disposition(SIGUSR2, SIG_DFL);
  CHECK_EQ(sigaction(SIGUSR1, &original, NULL), 0);
}

static void test_replace(void) {
  al_loop *loop = new_loop();
  al_handle *old;
  step a, b;
  trace_clear();
  step_init(&a, 'a', NULL, NULL);
  step_init(&b, 'b', NULL, NULL);
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &a.handle, NULL), 0);
  raise(SIGUSR1);
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &b.handle, &old), 0);
  CHECK(old == &a.handle);
  turns_until(loop, "b");
  raise(SIGUSR1);
  while (!al_handle_is_queued(&b.handle)) turns(loop, 1);
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &a.handle, &old), 0); /* it was about to run: the new one does */
  CHECK(old == &b.handle);
  turns_until(loop, "ba");
  turns(loop, 2);
  CHECK_TRACE("ba");
  CHECK(al_remove_signal(loop, SIGUSR1) == &a.handle);
  end_loop(loop);
}

static void test_errors(void) {
  al_loop *loop = new_loop(), *other = new_loop();
  step a, b;
  step_init(&a, 'a', NULL, NULL);
  step_init(&b, 'b', NULL, NULL);
  CHECK_EQ(al_add_signal(loop, 0, &a.handle, NULL), -EINVAL);
  CHECK_EQ(al_add_signal(loop, -1, &a.handle, NULL), -EINVAL);
  CHECK_EQ(al_add_signal(loop, 1000, &a.handle, NULL), -EINVAL);
  CHECK_EQ(al_add_signal(loop, SIGKILL, &a.handle, NULL), -EINVAL);
  CHECK_EQ(al_add_signal(loop, SIGSTOP, &a.handle, NULL), -EINVAL);
  CHECK(!al_remove_signal(loop, 0) && !al_remove_signal(loop, 1000) && !al_remove_signal(loop, SIGUSR1));
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &a.handle, NULL), 0);
  CHECK_EQ(al_add_signal(other, SIGUSR1, &b.handle, NULL), -EBUSY);
  CHECK(!al_remove_signal(other, SIGUSR1));
  CHECK_EQ(al_add_signal(other, SIGUSR2, &b.handle, NULL), 0);
  trace_clear();
  raise(SIGUSR1);
  raise(SIGUSR2);
  turns(loop, 3);
  CHECK_TRACE("a"); /* each loop its own */
  turns(other, 3);
  CHECK_TRACE("ab");
  CHECK(al_remove_signal(loop, SIGUSR1) && al_remove_signal(other, SIGUSR2));
  CHECK_EQ(al_add_signal(other, SIGUSR1, &a.handle, NULL), 0); /* free again */
  CHECK(al_remove_signal(other, SIGUSR1));
  CHECK_EQ(al_loop_close(other), 0);
  CHECK_EQ(al_add_signal(other, SIGUSR1, &a.handle, NULL), AL_ECLOSED);
  al_loop_release(other);
  end_loop(loop);
}

static void remove_own(al_loop *loop, step *self) { CHECK(al_remove_signal(loop, SIGUSR1) == &self->handle); }

static void test_remove_inside(void) {
  al_loop *loop = new_loop();
  step a;
  trace_clear();
  CHECK_EQ(al_add_signal(loop, SIGUSR1, &step_init(&a, 'a', remove_own, NULL)->handle, NULL), 0);
  raise(SIGUSR1);
  turns_until(loop, "a");
  check_disposition(SIGUSR1, SIG_DFL);
  end_loop(loop);
}

/* ---- loops that come and go while another thread sends ----------------------------------------------------------- */

static void *send_signals(void *arg) {
  (void)arg;
  while (__atomic_load_n(&sending, __ATOMIC_RELAXED)) kill(getpid(), SIGUSR1);
  return NULL;
}

static void test_loops_come_and_go(void) {
  struct sigaction ignore = {.sa_handler = SIG_IGN}, original;
  pthread_t thread;
  CHECK_EQ(sigaction(SIGUSR1, &ignore, &original), 0);
  sending = 1;
  CHECK_EQ(pthread_create(&thread, NULL, send_signals, NULL), 0);
  for (int i = 0; i < 100; i++) {
    al_loop *loop = new_loop();
    step a;
    trace_clear();
    CHECK_EQ(al_add_signal(loop, SIGUSR1, &step_init(&a, 'a', remove_own, NULL)->handle, NULL), 0);
    if (i % 2) turns_until(loop, "a");
    al_loop_release(loop);
  }
  __atomic_store_n(&sending, 0, __ATOMIC_RELAXED);
  pthread_join(thread, NULL);
  CHECK_EQ(sigaction(SIGUSR1, &original, NULL), 0);
}

static void run_tests(void) {
  RUN_CLEAN(test_several_at_once);
  RUN_CLEAN(test_while_waiting);
  RUN_CLEAN(test_disposition);
  RUN_CLEAN(test_replace);
  RUN_CLEAN(test_errors);
  RUN_CLEAN(test_remove_inside);
  RUN_CLEAN(test_loops_come_and_go);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
