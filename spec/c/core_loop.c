/* core_loop.c - tests of the loop through aloop.h alone: callbacks, timers, stop and break, nesting, foreign
 * loops, closing, lack of memory, debug mode.
 *
 * SPDX-License-Identifier: MIT */
#include "loop_steps.h"

#include <poll.h>

/* ---- handles ----------------------------------------------------------------------------------------------------- */

static void test_call_soon(void) {
  al_loop *loop = new_loop();
  step a, b, c, d, e;
  trace_clear();
  step_init(&e, 'e', NULL, NULL);
  queue(loop, step_init(&a, 'a', then_queue, &e));
  queue(loop, step_init(&b, 'b', then_cancel, &c));
  queue(loop, step_init(&c, 'c', NULL, NULL));
  queue(loop, step_init(&d, 'd', NULL, NULL));
  CHECK_TRACE("");
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_TRACE("abd"); /* in order, without the cancelled one; e waits */
  CHECK(al_handle_is_queued(&e.handle) && !al_handle_is_queued(&c.handle));
  CHECK_EQ(al_loop_run_once(loop, -1), 0); /* doesn't wait */
  CHECK_TRACE("abde");
  CHECK(!al_handle_cancel(&e.handle));
  end_loop(loop);
}

static void test_call_soon_list(void) {
  al_loop *loop = new_loop();
  step a, b, c;
  al_list list;
  trace_clear();
  al_list_init(&list);
  al_call_soon_list(loop, &list);
  queue(loop, step_init(&a, 'a', NULL, NULL));
  al_list_append(&list, &step_init(&b, 'b', NULL, NULL)->handle);
  al_list_append(&list, &step_init(&c, 'c', NULL, NULL)->handle);
  CHECK(!al_list_is_empty(&list));
  al_call_soon_list(loop, &list);
  CHECK(al_list_is_empty(&list));
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_TRACE("abc");
  end_loop(loop);
}

/* ---- stop, break, nesting ---------------------------------------------------------------------------------------- */

static void test_stop(void) {
  al_loop *loop = new_loop();
  step a, b, c;
  trace_clear();
  step_init(&c, 'c', then_stop, NULL);
  queue(loop, step_init(&a, 'a', then_stop, NULL));
  queue(loop, step_init(&b, 'b', then_queue, &c));
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("ab"); /* the batch ends; what it queued is kept */
  CHECK(!al_loop_is_running(loop));
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("abc");
  end_loop(loop);
}

static void test_stop_before_run(void) {
  al_loop *loop = new_loop();
  step a, b;
  alarm_step t;
  trace_clear();
  step_init(&b, 'b', then_stop, NULL);
  al_loop_stop(loop);
  al_loop_stop(loop);
  CHECK_EQ(al_loop_run_forever(loop), 0); /* nothing queued: does not wait */
  al_loop_stop(loop);
  queue(loop, step_init(&a, 'a', then_queue, &b));
  set(loop, alarm_init(&t, 't', NULL, NULL), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("at");
  CHECK_EQ(al_loop_run_forever(loop), 0); /* the flag is spent: this one needs its own stop */
  CHECK_TRACE("atb");
  end_loop(loop);
}

static void test_break(void) {
  al_loop *loop = new_loop();
  step a, b, c, d;
  alarm_step t;
  trace_clear();
  step_init(&d, 'd', then_stop, NULL);
  queue(loop, step_init(&a, 'a', then_queue, &d));
  queue(loop, step_init(&b, 'b', then_break, NULL));
  queue(loop, step_init(&c, 'c', NULL, NULL));
  set(loop, alarm_init(&t, 't', NULL, NULL), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("ab");
  CHECK(al_timer_is_set(&t.timer));
  CHECK_EQ(al_loop_timeout_ns(loop), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("abcdt"); /* the rest comes first, then what was queued meanwhile */
  end_loop(loop);
}

static void alarm_break(al_loop *loop, alarm_step *self) {
  (void)self;
  al_loop_break(loop);
}

static void test_break_in_timer(void) {
  al_loop *loop = new_loop();
  alarm_step t, u, v;
  trace_clear();
  set(loop, alarm_init(&t, 't', alarm_break, NULL), 1);
  set(loop, alarm_init(&u, 'u', NULL, NULL), 2);
  set(loop, alarm_init(&v, 'v', alarm_stop, NULL), 3);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("t");
  CHECK(al_timer_cancel(&u.timer)); /* due, and still cancellable */
  CHECK(!al_timer_is_set(&u.timer) && al_timer_is_set(&v.timer));
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("tv");
  end_loop(loop);
}

static void then_run_others(al_loop *loop, step *self) {
  al_loop *other = self->arg;
  CHECK_EQ(al_loop_run_forever(loop), AL_ERUNNING);
  CHECK_EQ(al_loop_run_once(loop, 0), AL_ERUNNING);
  CHECK_EQ(al_loop_close(loop), AL_ERUNNING);
  CHECK_EQ(al_loop_run_forever(other), AL_ENESTED);
  CHECK_EQ(al_loop_run_once(other, 0), AL_ENESTED);
  CHECK(al_loop_running() == loop && al_loop_is_running(loop) && !al_loop_is_running(other));
  CHECK(al_loop_in_thread(loop) && !al_loop_is_closed(loop));
  al_loop_stop(loop);
}

static void test_nested(void) {
  al_loop *loop = new_loop(), *other = new_loop();
  step a;
  trace_clear();
  CHECK(!al_loop_running());
  queue(loop, step_init(&a, 'a', then_run_others, other));
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK(!al_loop_running());
  queue(other, step_init(&a, 'a', then_stop, NULL));
  CHECK_EQ(al_loop_run_forever(other), 0);
  CHECK_TRACE("aa");
  end_loop(loop);
  end_loop(other);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

static void test_timer_order(void) {
  al_loop *loop = new_loop();
  alarm_step t[6];
  int64_t now_ns = al_time_ns();
  trace_clear();
  set(loop, alarm_init(&t[0], 'd', NULL, NULL), now_ns + 2 * MS);
  set(loop, alarm_init(&t[1], 'c', NULL, NULL), now_ns + MS);
  set(loop, alarm_init(&t[2], 'e', NULL, NULL), now_ns + 2 * MS);
  set(loop, alarm_init(&t[3], 'f', alarm_stop, NULL), now_ns + 3 * MS);
  set(loop, alarm_init(&t[4], 'b', NULL, NULL), 0);
  set(loop, alarm_init(&t[5], 'a', NULL, NULL), -5);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("abcdef");
  CHECK(al_time_ns() >= now_ns + 3 * MS);
  end_loop(loop);
}

static void test_timer_cancel(void) {
  al_loop *loop = new_loop();
  alarm_step t, u, v, w;
  trace_clear();
  CHECK(!al_timer_cancel(&alarm_init(&t, 't', NULL, NULL)->timer));
  set(loop, alarm_init(&t, 't', alarm_cancel, &v), 1); /* u and v are due in the same turn */
  set(loop, alarm_init(&u, 'u', NULL, NULL), 2);
  set(loop, alarm_init(&v, 'v', NULL, NULL), 3);
  set(loop, alarm_init(&w, 'w', NULL, NULL), al_time_ns() + 1000 * MS);
  CHECK_EQ(al_loop_run_once(loop, -1), 0);
  CHECK_TRACE("tu");
  CHECK(!al_timer_is_set(&v.timer) && al_timer_is_set(&w.timer));
  CHECK(al_timer_cancel(&w.timer) && !al_timer_cancel(&w.timer));
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_TRACE("tu");
  end_loop(loop);
}

static void alarm_again(al_loop *loop, alarm_step *self) { set(loop, self, 0); }

static void alarm_move(al_loop *loop, alarm_step *self) {
  set(loop, self->arg, al_time_ns() + 1 * MS);
  CHECK(al_timer_is_set(&((alarm_step *)self->arg)->timer));
}

static void test_timer_move(void) {
  al_loop *loop = new_loop();
  alarm_step t, u, v;
  int64_t far_ns = al_time_ns() + 3600 * 1000 * MS;
  trace_clear();
  set(loop, alarm_init(&t, 't', alarm_move, &u), 0);
  set(loop, alarm_init(&u, 'u', alarm_stop, NULL), 1); /* moved by t while it is due */
  set(loop, alarm_init(&v, 'v', NULL, NULL), far_ns);
  set(loop, &v, far_ns + MS);
  set(loop, &v, 5); /* earlier than the others' next times */
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("tvu");
  set(loop, alarm_init(&t, 'a', alarm_again, NULL), 0); /* set again by itself: once a turn */
  for (int i = 0; i < 3; i++) CHECK_EQ(al_loop_run_once(loop, -1), 0);
  CHECK_TRACE("tvuaaa");
  CHECK(al_timer_cancel(&t.timer));
  set(loop, alarm_init(&v, 'v', NULL, NULL), INT64_MAX);
  CHECK(al_loop_timeout_ns(loop) > 0 && al_loop_timeout_ns(loop) <= 24 * 3600 * 1000 * MS);
  set(loop, &v, INT64_MIN);
  CHECK_EQ(al_loop_timeout_ns(loop), 0);
  CHECK(al_timer_cancel(&v.timer));
  end_loop(loop);
}

/* The idle timeout: put off again and again. The loop must neither fire it early nor wake for its old times. */
static void test_timer_put_off(void) {
  enum { COUNT = 100 };
  al_loop *loop = new_loop();
  alarm_step idle[COUNT], end;
  al_loop_stats stats;
  int64_t now_ns = al_time_ns();
  trace_clear();
  for (int i = 0; i < COUNT; i++) set(loop, alarm_init(&idle[i], 'i', NULL, NULL), now_ns + 1 * MS);
  for (int round = 0; round < 100; round++)
    for (int i = 0; i < COUNT; i++) set(loop, &idle[i], now_ns + (1000 + round) * MS);
  CHECK(al_loop_timeout_ns(loop) > 500 * MS);
  set(loop, alarm_init(&end, 'e', alarm_stop, NULL), now_ns + 5 * MS);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("e");
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.timers, COUNT);
  CHECK(stats.turns <= 10);
  turns(loop, 70); /* past the walk over the heap in debug builds */
  for (int i = 0; i < COUNT; i++) CHECK(al_timer_cancel(&idle[i].timer));
  end_loop(loop);
}

/* ---- foreign loops ----------------------------------------------------------------------------------------------- */

static void test_run_once(void) {
  al_loop *loop = new_loop();
  alarm_step t;
  int64_t began_ns = al_time_ns();
  trace_clear();
  CHECK_EQ(al_loop_timeout_ns(loop), -1);
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_EQ(al_loop_run_once(loop, 2 * MS), 0);
  CHECK(al_time_ns() - began_ns >= 2 * MS);
  set(loop, alarm_init(&t, 't', NULL, NULL), al_time_ns() + 2 * MS);
  int64_t timeout_ns = al_loop_timeout_ns(loop);
  CHECK(timeout_ns >= 0 && timeout_ns <= 2 * MS);
  while (!trace[0]) CHECK_EQ(al_loop_run_once(loop, -1), 0);
  CHECK_TRACE("t");
  al_loop_stop(loop);
  CHECK_EQ(al_loop_timeout_ns(loop), 0);
  CHECK_EQ(al_loop_run_once(loop, -1), 0); /* does not wait, and spends the stop */
  CHECK_EQ(al_loop_timeout_ns(loop), -1);
  end_loop(loop);
}

static void test_poll_fd(void) {
  al_loop *loop = new_loop();
  step reader;
  int fds[2], poll_fd = al_loop_poll_fd(loop);
  trace_clear();
  if (!strcmp(machine, "poll") || !strcmp(machine, "select")) {
    CHECK_EQ(poll_fd, -ENOSYS);
    end_loop(loop);
    return;
  }
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  step_init(&reader, 'r', then_read, &fds[0]);
  CHECK_EQ(al_add_reader(loop, fds[0], &reader.handle, NULL), 0);
  CHECK_EQ(al_loop_timeout_ns(loop), -1); /* hands the watch to the kernel */
  struct pollfd host = {.fd = poll_fd, .events = POLLIN};
  CHECK_EQ(poll(&host, 1, 0), 0);
  CHECK_EQ(write(fds[1], "x", 1), 1);
  CHECK_EQ(poll(&host, 1, 5000), 1);
  CHECK_EQ(al_loop_run_once(loop, 0), 0);
  CHECK_TRACE("r");
  CHECK_EQ(al_loop_timeout_ns(loop), -1);
  CHECK_EQ(poll(&host, 1, 0), 0);
  CHECK(al_remove_reader(loop, fds[0]) == &reader.handle);
  close(fds[0]), close(fds[1]);
  end_loop(loop);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

static int discarded;

static void count_discarded(al_loop *loop, al_handle *handle) {
  CHECK(al_loop_is_closed(loop) && !al_handle_is_queued(handle));
  discarded++;
}

static void test_close(void) {
  int before = open_descriptors();
  al_loop *loop;
  CHECK_EQ(al_loop_new(&(al_loop_options){.machine = machine, .discard = count_discarded}, &loop, NULL), 0);
  step a, r;
  alarm_step t, u;
  int fds[2];
  trace_clear();
  make_pair(fds);
  put_byte(fds[1]);
  set(loop, alarm_init(&t, 't', alarm_break, NULL), 0);
  set(loop, alarm_init(&u, 'u', NULL, NULL), 1);
  CHECK_EQ(al_loop_run_forever(loop), 0); /* leaves u due */
  set(loop, &t, al_time_ns() + 1000 * MS);
  queue(loop, step_init(&a, 'a', NULL, NULL));
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'r', NULL, NULL)->handle, NULL), 0);
  discarded = 0;
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_TRACE("t"); /* nothing that was pending has run */
  CHECK_EQ(discarded, 4);
  CHECK(!al_timer_is_set(&t.timer) && !al_timer_is_set(&u.timer) && !al_handle_is_queued(&a.handle));
  CHECK(!al_timer_cancel(&t.timer) && !al_handle_cancel(&a.handle));
  CHECK(al_loop_is_closed(loop) && !al_loop_is_running(loop));
  CHECK_EQ(al_loop_run_forever(loop), AL_ECLOSED);
  CHECK_EQ(al_loop_run_once(loop, 0), AL_ECLOSED);
  CHECK_EQ(al_timer_set(loop, &t.timer, 0), AL_ECLOSED);
  CHECK_EQ(al_add_reader(loop, fds[0], &r.handle, NULL), AL_ECLOSED);
  CHECK(!al_remove_reader(loop, fds[0]) && al_loop_timeout_ns(loop) == -1 && al_loop_poll_fd(loop) < 0);
  al_loop_stop(loop);
  CHECK(!strcmp(al_loop_machine(loop), machine));
  al_loop_release(loop);
  close(fds[0]), close(fds[1]);
  CHECK_EQ(open_descriptors(), before);
}

static void test_release_closes(void) {
  int before = open_descriptors();
  size_t live, live_after;
  al_mem_stats(&live, NULL);
  al_loop *loop = new_loop();
  al_loop_hold(loop);
  al_loop_release(loop);
  CHECK(!al_loop_is_closed(loop));
  al_loop_release(loop); /* never run, never closed */
  al_mem_stats(&live_after, NULL);
  CHECK_EQ(live_after, live);
  CHECK_EQ(open_descriptors(), before);
}

static void then_release(al_loop *loop, step *self) {
  (void)self;
  al_loop_release(loop);
  CHECK(al_loop_is_running(loop));
  al_loop_stop(loop);
}

static void test_release_inside(void) {
  step a, b;
  al_loop *loop = new_loop();
  trace_clear();
  queue(loop, step_init(&a, 'a', then_release, NULL));
  queue(loop, step_init(&b, 'b', NULL, NULL));
  CHECK_EQ(al_loop_run_forever(loop), 0); /* then it is gone */
  CHECK_TRACE("ab");
}

/* Every allocation on the way to a loop with a watch and a timer may fail; nothing is left behind then. */
static int try_all(al_loop **loop, int fd, step *r, alarm_step *t) {
  int err = al_loop_new(&(al_loop_options){.machine = machine}, loop, NULL);
  if (err) return err;
  err = al_add_reader(*loop, fd, &r->handle, NULL);
  if (!err) err = al_timer_set(*loop, &t->timer, al_time_ns() + 1000 * MS);
  if (!err) err = al_loop_run_once(*loop, 0);
  al_remove_reader(*loop, fd);
  al_timer_cancel(&t->timer);
  al_loop_release(*loop);
  return err;
}

static void test_without_memory(void) {
  size_t live, live_after;
  al_loop *loop = NULL;
  step r;
  alarm_step t;
  int fds[2], before = open_descriptors(), err = -ENOMEM;
  make_pair(fds);
  step_init(&r, 'r', NULL, NULL), alarm_init(&t, 't', NULL, NULL);
  al_mem_stats(&live, NULL);
  for (long n = 0; err; n++) {
    if (!al_mem_fail_after(n)) break; /* a release build */
    CHECK(n < 1000);
    err = try_all(&loop, fds[0], &r, &t);
    CHECK(err == 0 || err == -ENOMEM);
    CHECK(!al_timer_is_set(&t.timer));
    al_mem_stats(&live_after, NULL);
    CHECK_EQ(live_after, live);
  }
  al_mem_fail_after(-1);
  close(fds[0]), close(fds[1]);
  CHECK_EQ(open_descriptors(), before);
}

/* ---- debug ------------------------------------------------------------------------------------------------------- */

static al_handle *slow_handle;
static int slow_count;

static void on_slow(al_loop *loop, al_handle *handle, int64_t took_ns) {
  CHECK(al_loop_debug(loop) && took_ns >= 2 * MS);
  slow_handle = handle;
  slow_count++;
}

static void then_dawdle(al_loop *loop, step *self) {
  (void)loop, (void)self;
  usleep(2500);
}

static void test_slow(void) {
  al_loop *loop = new_loop();
  step a, b, r;
  int fds[2];
  slow_count = 0;
  make_pair(fds);
  put_byte(fds[1]);
  al_loop_set_slow(loop, 2 * MS, on_slow);
  queue(loop, step_init(&a, 'a', then_dawdle, NULL));
  turns(loop, 1);
  CHECK_EQ(slow_count, 0);
  al_loop_set_debug(loop, true);
  queue(loop, &a);
  queue(loop, step_init(&b, 'b', NULL, NULL));
  turns(loop, 1);
  CHECK(slow_count == 1 && slow_handle == &a.handle);
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'r', then_dawdle, NULL)->handle, NULL), 0);
  while (slow_count < 2) turns(loop, 1);
  CHECK(!slow_handle); /* I/O */
  al_remove_reader(loop, fds[0]);
  close(fds[0]), close(fds[1]);
  end_loop(loop);
}

static void test_dump(void) {
  al_loop *loop = new_loop();
  step a, r;
  alarm_step t;
  int fds[2], out[2];
  char text[2000], reader[64];
  make_pair(fds);
  CHECK_EQ(pipe(out), 0);
  queue(loop, step_init(&a, 'a', NULL, NULL));
  set(loop, alarm_init(&t, 't', NULL, NULL), al_time_ns() + 1000 * MS);
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'r', NULL, NULL)->handle, NULL), 0);
  al_loop_dump(loop, out[1]);
  ssize_t n = read(out[0], text, sizeof(text) - 1);
  CHECK(n > 0);
  text[n] = '\0';
  snprintf(reader, sizeof(reader), "reader of descriptor %d\n", fds[0]);
  CHECK(strstr(text, machine) && strstr(text, "handle ") && strstr(text, "timer ") && strstr(text, reader));
  CHECK(al_handle_cancel(&a.handle) && al_timer_cancel(&t.timer) && al_remove_reader(loop, fds[0]));
  close(fds[0]), close(fds[1]), close(out[0]), close(out[1]);
  end_loop(loop);
}

static void test_options(void) {
  al_loop *loop = NULL;
  int data;
  CHECK_EQ(al_loop_new(&(al_loop_options){.machine = "kqueue"}, &loop, NULL), -EINVAL);
  CHECK(!loop);
  CHECK_EQ(al_loop_new(&(al_loop_options){.machine = machine, .debug = true, .data = &data}, &loop, NULL), 0);
  CHECK(al_loop_debug(loop) && al_loop_data(loop) == &data);
  al_loop_set_data(loop, NULL);
  al_loop_set_debug(loop, false);
  CHECK(!al_loop_debug(loop) && !al_loop_data(loop));
  end_loop(loop);
  CHECK_EQ(al_loop_new(NULL, &loop, NULL), 0);
  CHECK(!strcmp(al_loop_machine(loop), "epoll"));
  end_loop(loop);
}

static void run_tests(void) {
  RUN(test_options);
  RUN(test_call_soon);
  RUN(test_call_soon_list);
  RUN(test_stop);
  RUN(test_stop_before_run);
  RUN(test_break);
  RUN(test_break_in_timer);
  RUN(test_nested);
  RUN(test_timer_order);
  RUN(test_timer_cancel);
  RUN(test_timer_move);
  RUN(test_timer_put_off);
  RUN(test_run_once);
  RUN(test_poll_fd);
  RUN(test_close);
  RUN(test_release_closes);
  RUN(test_release_inside);
  RUN(test_without_memory);
  RUN(test_slow);
  RUN(test_dump);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
