/* core_threads.c - tests of other threads that call into a loop, and of the executor.
 *
 * SPDX-License-Identifier: MIT */
#include "loop_steps.h"

#include <signal.h>

/* ---- other threads ----------------------------------------------------------------------------------------------- */

#define SENDERS 4
#define CALLS 1000

typedef struct call {
  al_remote remote;
  int number;
  struct sender *sender;
} call;

typedef struct sender {
  pthread_t thread;
  al_loop *loop;
  int next;               /* the number of the call that has to come next */
  int ran, dropped, sent; /* sent: by the thread, read after it was joined */
  call calls[CALLS];
} sender;

static sender senders[SENDERS];
static int senders_done;

static void call_run(al_loop *loop, al_remote *remote) {
  call *self = OWNER(remote, call, remote);
  CHECK(al_loop_running() == loop && al_loop_in_thread(loop));
  CHECK_EQ(self->number, self->sender->next);
  self->sender->next++;
  self->sender->ran++;
  if (self->number == CALLS - 1 && ++senders_done == SENDERS) al_loop_stop(loop);
}

static void call_drop(al_remote *remote) { OWNER(remote, call, remote)->sender->dropped++; }

static void *sender_main(void *arg) {
  sender *self = arg;
  CHECK(!al_loop_running());
  for (int i = 0; i < CALLS; i++) {
    self->calls[i] = (call){.remote = {.run = call_run, .drop = call_drop}, .number = i, .sender = self};
    int err = al_call_soon_threadsafe(self->loop, &self->calls[i].remote);
    if (err == AL_ECLOSED) break;
    CHECK_EQ(err, 0);
    self->sent++;
  }
  al_loop_release(self->loop);
  return NULL;
}

static void start_senders(al_loop *loop) {
  memset(senders, 0, sizeof(senders));
  senders_done = 0;
  for (int i = 0; i < SENDERS; i++) {
    senders[i].loop = loop;
    al_loop_hold(loop);
    CHECK_EQ(pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]), 0);
  }
}

static void test_threadsafe(void) {
  al_loop *loop = new_loop();
  start_senders(loop);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  for (int i = 0; i < SENDERS; i++) {
    CHECK_EQ(pthread_join(senders[i].thread, NULL), 0);
    CHECK(senders[i].ran == CALLS && senders[i].dropped == 0);
  }
  end_loop(loop);
}

/* A call is run, or dropped, or refused: each in exactly one way, whenever the loop closes. */
static void test_threadsafe_against_close(void) {
  for (int round = 0; round < 20; round++) {
    al_loop *loop = new_loop();
    start_senders(loop);
    for (int turns = round % 5; turns > 0; turns--) CHECK_EQ(al_loop_run_once(loop, MS), 0);
    CHECK_EQ(al_loop_close(loop), 0);
    al_loop_release(loop);
    for (int i = 0; i < SENDERS; i++) {
      CHECK_EQ(pthread_join(senders[i].thread, NULL), 0);
      CHECK_EQ(senders[i].ran + senders[i].dropped, senders[i].sent);
    }
  }
}

typedef struct remote_step {
  al_remote remote;
  char letter;
  bool breaks;
} remote_step;

static void remote_run(al_loop *loop, al_remote *remote) {
  remote_step *self = OWNER(remote, remote_step, remote);
  trace_add(self->letter);
  if (self->breaks) al_loop_break(loop);
}

static void test_threadsafe_from_own_thread(void) {
  al_loop *loop = new_loop();
  remote_step a = {{.run = remote_run}, 'a', false}, b = {{.run = remote_run}, 'b', true};
  remote_step c = {{.run = remote_run}, 'c', false}, d = {{.run = remote_run}, 'd', false};
  trace_clear();
  CHECK_EQ(al_call_soon_threadsafe(loop, &a.remote), 0);
  CHECK_EQ(al_call_soon_threadsafe(loop, &b.remote), 0);
  CHECK_EQ(al_call_soon_threadsafe(loop, &c.remote), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("ab"); /* broken */
  CHECK_EQ(al_call_soon_threadsafe(loop, &d.remote), 0);
  turns(loop, 3); /* the first may only end the broken one */
  CHECK_TRACE("abcd");
  CHECK_EQ(al_call_soon_threadsafe(loop, &a.remote), 0); /* dropped without a drop function */
  al_loop_hold(loop);
  end_loop(loop);
  CHECK_EQ(al_call_soon_threadsafe(loop, &a.remote), AL_ECLOSED);
  al_loop_release(loop);
}

static void *wake_later(void *arg) {
  static remote_step late = {{.run = remote_run}, 'w', true};
  usleep(5000);
  CHECK_EQ(al_call_soon_threadsafe(arg, &late.remote), 0);
  return NULL;
}

static void test_threadsafe_wakes(void) {
  al_loop *loop = new_loop();
  alarm_step never;
  pthread_t thread;
  trace_clear();
  set(loop, alarm_init(&never, 'n', NULL, NULL), al_time_ns() + 60000 * MS);
  CHECK_EQ(pthread_create(&thread, NULL, wake_later, loop), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("w");
  CHECK_EQ(pthread_join(thread, NULL), 0);
  al_timer_cancel(&never.timer);
  end_loop(loop);
}

/* ---- executor ---------------------------------------------------------------------------------------------------- */

typedef struct work_item {
  al_job job;
  pthread_mutex_t *gate;          /* held: work waits for it */
  int worked, done, error, begun; /* begun: atomic */
} work_item;

static int items_left;

static void item_work(al_job *job) {
  work_item *self = OWNER(job, work_item, job);
  sigset_t mask;
  __atomic_store_n(&self->begun, 1, __ATOMIC_RELEASE);
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  CHECK(sigismember(&mask, SIGINT) && sigismember(&mask, SIGCHLD));
  CHECK(!al_loop_running());
  if (self->gate) {
    pthread_mutex_lock(self->gate);
    pthread_mutex_unlock(self->gate);
  }
  self->worked++;
}

static void item_done(al_job *job, int error) {
  work_item *self = OWNER(job, work_item, job);
  self->error = error;
  __atomic_add_fetch(&self->done, 1, __ATOMIC_RELEASE);
  if (--items_left == 0 && al_loop_running()) al_loop_stop(al_loop_running());
}

static work_item *item_init(work_item *self, pthread_mutex_t *gate) {
  *self = (work_item){.job = {.work = item_work, .done = item_done}, .gate = gate};
  return self;
}

static void wait_until(int *flag) {
  while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE)) usleep(100);
}

static void test_executor(void) {
  enum { ITEMS = 200 };
  static work_item items[ITEMS];
  al_loop *loop = new_loop();
  al_executor *executor;
  CHECK_EQ(al_executor_new(0, NULL, &executor), -EINVAL);
  CHECK_EQ(al_executor_new(3, "spec-with-a-long-name", &executor), 0);
  items_left = ITEMS;
  for (int i = 0; i < ITEMS; i++) CHECK_EQ(al_executor_submit(executor, loop, &item_init(&items[i], NULL)->job), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  for (int i = 0; i < ITEMS; i++) CHECK(items[i].worked == 1 && items[i].done == 1 && items[i].error == 0);
  CHECK(!al_executor_cancel(executor, &items[0].job));
  al_executor_shutdown(executor, true);
  end_loop(loop);
}

static void test_executor_cancel(void) {
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  work_item a, b, c, d;
  al_loop *loop = new_loop();
  al_executor *executor;
  CHECK_EQ(al_executor_new(1, NULL, &executor), 0);
  items_left = 4;
  pthread_mutex_lock(&gate);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&a, &gate)->job), 0);
  wait_until(&a.begun);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&b, NULL)->job), 0);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&c, NULL)->job), 0);
  CHECK(!al_executor_cancel(executor, &a.job)); /* it has begun */
  CHECK(al_executor_cancel(executor, &c.job) && !al_executor_cancel(executor, &c.job));
  CHECK(al_executor_cancel(executor, &b.job));
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&d, NULL)->job), 0);
  CHECK(!b.done && !c.done); /* not from inside cancel */
  pthread_mutex_unlock(&gate);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(a.worked == 1 && d.worked == 1 && !b.worked && !c.worked);
  CHECK(a.error == 0 && b.error == -ECANCELED && c.error == -ECANCELED && d.error == 0);
  CHECK(a.done == 1 && b.done == 1 && c.done == 1 && d.done == 1);
  al_executor_shutdown(executor, true);
  end_loop(loop);
}

/* The loop closes, and goes, while a job runs and another is queued. */
static void test_executor_against_close(void) {
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  work_item a, b, c, d;
  al_loop *loop = new_loop();
  al_executor *executor;
  CHECK_EQ(al_executor_new(1, NULL, &executor), 0);
  items_left = 3;
  pthread_mutex_lock(&gate);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&a, &gate)->job), 0);
  wait_until(&a.begun);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&b, NULL)->job), 0);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&c, NULL)->job), 0);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&d, NULL)->job), AL_ECLOSED);
  CHECK(al_executor_cancel(executor, &b.job));
  CHECK(b.done == 1 && b.error == -ECANCELED);
  al_loop_release(loop); /* the jobs hold it */
  CHECK(!a.done);
  pthread_mutex_unlock(&gate);
  al_executor_shutdown(executor, true);
  CHECK(a.worked == 1 && a.done == 1 && a.error == -ECANCELED);
  CHECK(c.worked == 1 && c.done == 1 && c.error == -ECANCELED); /* nobody took it back */
}

static void test_executor_shutdown(void) {
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  work_item a, b;
  al_loop *loop = new_loop();
  al_executor *executor;
  CHECK_EQ(al_executor_new(4, NULL, &executor), 0);
  al_executor_shutdown(executor, true); /* without a thread */
  CHECK_EQ(al_executor_new(1, NULL, &executor), 0);
  items_left = 2;
  pthread_mutex_lock(&gate);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&a, &gate)->job), 0);
  CHECK_EQ(al_executor_submit(executor, loop, &item_init(&b, NULL)->job), 0);
  al_executor_shutdown(executor, false); /* the work goes on without it */
  CHECK(!a.done && !b.done);
  pthread_mutex_unlock(&gate);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(a.worked == 1 && b.worked == 1 && a.error == 0 && b.error == 0);
  end_loop(loop);
}

static void run_tests(void) {
  RUN(test_threadsafe);
  RUN(test_threadsafe_against_close);
  RUN(test_threadsafe_from_own_thread);
  RUN(test_threadsafe_wakes);
  RUN(test_executor);
  RUN(test_executor_cancel);
  RUN(test_executor_against_close);
  RUN(test_executor_shutdown);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
