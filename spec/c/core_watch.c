/* core_watch.c - tests of watched descriptors: al_add_reader, al_add_writer.
 *
 * SPDX-License-Identifier: MIT */
#include "loop_steps.h"

#include <fcntl.h>

/* ---- watched descriptors ----------------------------------------------------------------------------------------- */

static void test_watch(void) {
  al_loop *loop = new_loop();
  al_handle *old = NULL;
  al_loop_stats stats;
  step r, w, r2;
  int fds[2];
  trace_clear();
  make_pair(fds);
  step_init(&r, 'r', NULL, NULL), step_init(&w, 'w', NULL, NULL), step_init(&r2, 'R', NULL, NULL);
  CHECK_EQ(al_add_reader(loop, fds[0], &r.handle, &old), 0);
  CHECK(!old && !al_remove_writer(loop, fds[0]));
  turns(loop, 3);
  CHECK_TRACE("");
  put_byte(fds[1]);
  turns_until(loop, "r");
  turns_until(loop, "rr"); /* level-triggered: as long as there is something to read */
  CHECK_EQ(al_add_writer(loop, fds[0], &w.handle, &old), 0);
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.watchers, 2);
  turns(loop, 2);
  CHECK(strchr(trace, 'w'));
  CHECK(al_remove_writer(loop, fds[0]) == &w.handle);
  turns(loop, 2);
  trace_clear();
  CHECK_EQ(al_add_reader(loop, fds[0], &r2.handle, &old), 0);
  CHECK(old == &r.handle);
  turns_until(loop, "R");
  CHECK(al_remove_reader(loop, fds[0]) == &r2.handle && !al_remove_reader(loop, fds[0]));
  turns(loop, 3);
  CHECK_TRACE("R");
  close(fds[0]), close(fds[1]);
  end_loop(loop);
}

static void test_watch_order(void) {
  al_loop *loop = new_loop();
  step soon, r;
  alarm_step t;
  int fds[2];
  trace_clear();
  make_pair(fds);
  put_byte(fds[1]);
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'i', then_read, &fds[0])->handle, NULL), 0);
  set(loop, alarm_init(&t, 't', NULL, NULL), 0);
  queue(loop, step_init(&soon, 's', NULL, NULL));
  CHECK_EQ(al_loop_run_once(loop, -1), 0);
  CHECK_TRACE("sit");
  al_remove_reader(loop, fds[0]);
  close(fds[0]), close(fds[1]);
  end_loop(loop);
}

/* Closing the peer is readable, and writable or not; the reader sees the end. */
static void test_watch_hangup(void) {
  al_loop *loop = new_loop();
  step r;
  int fds[2];
  trace_clear();
  make_pair(fds);
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'r', NULL, NULL)->handle, NULL), 0);
  turns(loop, 1);
  close(fds[1]);
  turns_until(loop, "r");
  al_remove_reader(loop, fds[0]);
  close(fds[0]);
  end_loop(loop);
}

static int numbers[2]; /* the descriptor under test and its peer */

static void then_remove(al_loop *loop, step *self) { CHECK(al_remove_reader(loop, numbers[0]) == &self->handle); }

/* Removes itself, closes the descriptor and watches another file of the same number. */
static void then_replace_file(al_loop *loop, step *self) {
  int old = numbers[0], fds[2];
  CHECK(al_remove_reader(loop, old) == &self->handle);
  close(numbers[0]), close(numbers[1]);
  make_pair(fds);
  CHECK(fds[0] == old || fds[1] == old);
  numbers[0] = old;
  numbers[1] = fds[0] == old ? fds[1] : fds[0];
  step *next = self->arg;
  CHECK_EQ(al_add_reader(loop, old, &next->handle, NULL), 0);
}

static void test_watch_remove_inside(void) {
  al_loop *loop = new_loop();
  step r, next;
  trace_clear();
  make_pair(numbers);
  put_byte(numbers[1]);
  CHECK_EQ(al_add_reader(loop, numbers[0], &step_init(&r, 'r', then_remove, NULL)->handle, NULL), 0);
  turns_until(loop, "r");
  turns(loop, 3);
  CHECK_TRACE("r");
  step_init(&next, 'n', NULL, NULL);
  CHECK_EQ(al_add_reader(loop, numbers[0], &step_init(&r, 's', then_replace_file, &next)->handle, NULL), 0);
  turns_until(loop, "rs");
  turns(loop, 5);
  CHECK_TRACE("rs"); /* the new file has nothing to read */
  put_byte(numbers[1]);
  turns_until(loop, "rsn");
  CHECK(al_remove_reader(loop, numbers[0]) == &next.handle);
  close(numbers[0]), close(numbers[1]);
  end_loop(loop);
}

static void test_watch_remove_add(void) {
  al_loop *loop = new_loop();
  step r, s;
  int fds[2];
  trace_clear();
  make_pair(fds);
  step_init(&r, 'r', NULL, NULL), step_init(&s, 's', NULL, NULL);
  CHECK_EQ(al_add_reader(loop, fds[0], &r.handle, NULL), 0);
  turns(loop, 2);
  for (int i = 0; i < 10; i++) {
    CHECK(al_remove_reader(loop, fds[0]) == (i % 2 ? &s.handle : &r.handle));
    CHECK_EQ(al_add_reader(loop, fds[0], i % 2 ? &r.handle : &s.handle, NULL), 0);
  }
  put_byte(fds[1]);
  turns_until(loop, "r");
  al_remove_reader(loop, fds[0]);
  close(fds[0]);
  CHECK_EQ(al_add_reader(loop, fds[0], &r.handle, NULL), -EBADF);
  turns(loop, 3);
  CHECK_TRACE("r");
  close(fds[1]);
  end_loop(loop);
}

static void test_watch_bad(void) {
  al_loop *loop = new_loop();
  step r;
  step_init(&r, 'r', NULL, NULL);
  CHECK_EQ(al_add_reader(loop, -1, &r.handle, NULL), -EBADF);
  CHECK_EQ(al_add_reader(loop, 1 << 30, &r.handle, NULL), -EBADF);
  CHECK_EQ(al_add_writer(loop, 987, &r.handle, NULL), -EBADF);
  CHECK(!al_remove_reader(loop, -1) && !al_remove_reader(loop, 0) && !al_remove_writer(loop, 1 << 30));
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(file >= 0);
  int err = al_add_reader(loop, file, &r.handle, NULL); /* epoll refuses files; poll and select call them readable */
  CHECK(err == 0 || err == -EPERM);
  CHECK(al_remove_reader(loop, file) == (err ? NULL : &r.handle));
  turns(loop, 2);
  close(file);
  end_loop(loop);
}

/* Breaking inside an I/O callback keeps the events of this turn for the next. */
static void test_watch_break(void) {
  enum { PAIRS = 5 };
  al_loop *loop = new_loop();
  step r[PAIRS];
  int fds[PAIRS][2];
  trace_clear();
  for (int i = 0; i < PAIRS; i++) {
    make_pair(fds[i]);
    put_byte(fds[i][1]);
    step_init(&r[i], 'r', then_break, NULL);
    CHECK_EQ(al_add_reader(loop, fds[i][0], &r[i].handle, NULL), 0);
  }
  for (int i = 1; i <= PAIRS; i++) {
    CHECK_EQ(al_loop_run_forever(loop), 0);
    CHECK_EQ(strlen(trace), i);
  }
  for (int i = 0; i < PAIRS; i++) {
    CHECK(al_remove_reader(loop, fds[i][0]) == &r[i].handle);
    close(fds[i][0]), close(fds[i][1]);
  }
  turns(loop, 3);
  CHECK_EQ(strlen(trace), PAIRS);
  end_loop(loop);
}

/* A chain of callbacks that queue each other keeps I/O out for a few turns at most. */
typedef struct chain {
  al_handle handle;
  long links, put_at; /* at which link the byte is put */
  int fd;
} chain;

static void chain_run(al_loop *loop, al_handle *handle) {
  chain *self = OWNER(handle, chain, handle);
  if (++self->links == self->put_at) put_byte(self->fd);
  al_call_soon(loop, handle);
}

static void test_no_starvation(void) {
  al_loop *loop = new_loop();
  step r;
  int fds[2];
  trace_clear();
  make_pair(fds);
  chain endless = {.put_at = 1000, .fd = fds[1]};
  al_handle_init(&endless.handle, chain_run);
  al_call_soon(loop, &endless.handle);
  CHECK_EQ(al_add_reader(loop, fds[0], &step_init(&r, 'r', then_stop, NULL)->handle, NULL), 0);
  CHECK_EQ(al_loop_run_forever(loop), 0);
  CHECK_TRACE("r");
  CHECK(endless.links <= endless.put_at + 100000); /* generous: a starved watch would never come */
  al_handle_cancel(&endless.handle);
  al_remove_reader(loop, fds[0]);
  close(fds[0]), close(fds[1]);
  end_loop(loop);
}

static void run_tests(void) {
  RUN(test_watch);
  RUN(test_watch_order);
  RUN(test_watch_hangup);
  RUN(test_watch_remove_inside);
  RUN(test_watch_remove_add);
  RUN(test_watch_bad);
  RUN(test_watch_break);
  RUN(test_no_starvation);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
