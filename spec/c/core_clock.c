/* core_clock.c - tests of loops on a clock of their own: when it is asked, what it may do, on every machine.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "aloop.h"

#include <string.h>
#include <unistd.h>

typedef struct test_clock {
  al_clock clock;
  int64_t now_ns, asked_ns;
  int idles, turns, stop_at; /* stop_at: the call of idle that stops the loop */
  unsigned last_round;
  int64_t wait_ns; /* for I/O, in the first round */
  bool reverses;
} test_clock;

static test_clock *of_clock(al_clock *clock) { return (test_clock *)(void *)clock; }

static int64_t clock_now(al_clock *clock) { return of_clock(clock)->now_ns; }

static int64_t clock_idle(al_clock *clock, al_loop *loop, int64_t when_ns, unsigned round) {
  test_clock *c = of_clock(clock);
  c->idles++;
  c->asked_ns = when_ns;
  c->last_round = round;
  if (c->idles == c->stop_at) {
    al_loop_stop(loop);
    return 0;
  }
  if (round == 0 && c->wait_ns) return c->wait_ns;
  CHECK(when_ns != INT64_MAX);
  c->now_ns = when_ns;
  return 0;
}

static void clock_turn(al_clock *clock, al_loop *loop, al_list *batch, al_list *due) {
  test_clock *c = of_clock(clock);
  CHECK(al_loop_running() == loop && due);
  c->turns++;
  if (!c->reverses) return;
  al_handle *handles[8];
  int n = 0;
  while (!al_list_is_empty(batch)) {
    handles[n] = (al_handle *)(void *)batch->next;
    al_handle_cancel(handles[n++]);
  }
  while (n > 0) al_list_append(batch, handles[--n]);
}

static test_clock fresh(void) { return (test_clock){.clock = {clock_now, clock_idle, clock_turn}}; }

static al_loop *new_loop(const char *machine, test_clock *c) {
  al_loop *loop = NULL;
  al_loop_options options = {.machine = machine, .clock = &c->clock};
  CHECK_EQ(al_loop_new(&options, &loop, NULL), 0);
  return loop;
}

/* ---- what runs --------------------------------------------------------------------------------------------------- */

static char order[16];

typedef struct named_timer {
  al_timer timer;
  char name;
} named_timer;

static void note(al_loop *loop, al_handle *handle) {
  size_t n = strlen(order);
  order[n] = ((named_timer *)(void *)handle)->name;
  order[n + 1] = '\0';
  if (order[n] == 'z') al_loop_stop(loop);
}

static named_timer named(char name) {
  named_timer t = {.name = name};
  al_timer_init(&t.timer, note);
  return t;
}

static const char *machine;

static void test_jumps(void) {
  test_clock c = fresh();
  al_loop *loop = new_loop(machine, &c);
  named_timer a = named('a'), b = named('b'), z = named('z');
  order[0] = '\0';
  CHECK_EQ(al_loop_time_ns(loop), 0);
  CHECK_EQ(al_timer_set(loop, &z.timer, INT64_C(86400000000000)), 0);
  CHECK_EQ(al_timer_set(loop, &b.timer, INT64_C(3600000000000)), 0);
  CHECK_EQ(al_timer_set(loop, &a.timer, 1), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(!strcmp(order, "abz"));
  CHECK_EQ(c.idles, 3);
  CHECK_EQ(c.now_ns, INT64_C(86400000000000));
  al_loop_release(loop);
}

static void test_is_not_asked_while_there_is_work(void) {
  test_clock c = fresh();
  al_loop *loop = new_loop(machine, &c);
  named_timer a = named('a'), z = named('z');
  order[0] = '\0';
  al_call_soon(loop, &a.timer.handle);
  al_call_soon(loop, &z.timer.handle);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(!strcmp(order, "az"));
  CHECK_EQ(c.idles, 0);
  CHECK_EQ(c.turns, 1);
  al_loop_release(loop);
}

static void test_run_once_is_limited(void) {
  test_clock c = fresh();
  al_loop *loop = new_loop(machine, &c);
  named_timer a = named('a');
  order[0] = '\0';
  CHECK_EQ(al_timer_set(loop, &a.timer, 1000), 0);
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_EQ(c.idles, 0);
  CHECK_EQ(al_loop_run_once(loop, 400), 0);
  CHECK_EQ(c.now_ns, 400);
  CHECK(!strcmp(order, ""));
  CHECK_EQ(al_loop_run_once(loop, 5000), 0);
  CHECK_EQ(c.now_ns, 1000);
  CHECK(!strcmp(order, "a"));
  al_loop_release(loop);
}

static void test_stops(void) {
  test_clock c = fresh();
  c.stop_at = 1;
  al_loop *loop = new_loop(machine, &c);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_EQ(c.idles, 1);
  CHECK(c.asked_ns == INT64_MAX);
  al_loop_release(loop);
}

static void test_waits_for_io(void) {
  test_clock c = fresh();
  c.wait_ns = 1000000;
  c.stop_at = 2; /* the second time: nothing came */
  al_loop *loop = new_loop(machine, &c);
  int fds[2];
  CHECK_EQ(pipe(fds), 0);
  named_timer z = named('z');
  al_handle *old = NULL;
  CHECK_EQ(al_add_reader(loop, fds[0], &z.timer.handle, &old), 0);
  order[0] = '\0';
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(!strcmp(order, ""));
  CHECK_EQ(c.last_round, 1);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  c.stop_at = 0;
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_EQ(order[0], 'z');
  al_remove_reader(loop, fds[0]);
  al_loop_release(loop);
  close(fds[0]);
  close(fds[1]);
}

static void test_may_change_the_order(void) {
  test_clock c = fresh();
  c.reverses = true;
  al_loop *loop = new_loop(machine, &c);
  named_timer a = named('a'), b = named('b'), z = named('z');
  order[0] = '\0';
  al_call_soon(loop, &z.timer.handle);
  al_call_soon(loop, &b.timer.handle);
  al_call_soon(loop, &a.timer.handle);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(!strcmp(order, "abz"));
  al_loop_release(loop);
}

int main(void) {
  static const char *const machines[] = {"epoll", "poll", "select", "uring"};
  for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
    al_loop *loop;
    machine = machines[i];
    al_loop_options options = {.machine = machine};
    if (al_loop_new(&options, &loop, NULL) < 0) continue; /* no ring here */
    al_loop_release(loop);
    RUN(test_jumps);
    RUN(test_is_not_asked_while_there_is_work);
    RUN(test_run_once_is_limited);
    RUN(test_stops);
    RUN(test_waits_for_io);
    RUN(test_may_change_the_order);
  }
  return check_done();
}
