/* io_endings.c - the seam (core/io.h) from below: how ops end. Cancelled, in the midst of a batch, with their
 * descriptor, in another thread, with the loop; the same on each machine.
 *
 *   io_endings [machine [scenario]]     prints "ok N tests"
 *
 * SPDX-License-Identifier: MIT */
#include "io_probe.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

static void cancel_unsubmitted_and_parked(void) {
  int fds[2];
  pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&reader) == 0);
  cancel(&reader);
  cancel(&reader);
  CHECK(!reader.finals); /* never from inside cancel */
  UNTIL(reader.finals);
  CHECK(reader.result == -ECANCELED);
  CHECK(submit(&reader) == 0);
  IDLE();
  cancel(&reader);
  cancel(&reader);
  CHECK(!reader.finals);
  UNTIL(reader.finals);
  CHECK(reader.result == -ECANCELED);
  put(fds[1], 0, 1);
  IDLE();
  CHECK(reader.mores == 0);
  shut(fds);
}

static void cancel_arg(probe *self) {
  probe *other = self->arg;
  if (!al_op_is_idle(&other->op)) cancel(other);
}

static void cancel_collected(void) {
  int a[2], b[2];
  pair(a);
  pair(b);
  probe first = make_probe(AL_OP_RECV, a[0]), second = make_probe(AL_OP_RECV, b[0]);
  first.then = second.then = cancel_arg;
  first.arg = &second;
  second.arg = &first;
  CHECK(submit(&first) == 0 && submit(&second) == 0);
  IDLE();
  put(a[1], 0, 1);
  put(b[1], 0, 1);
  UNTIL(first.finals || second.finals);
  end_op(&first);
  end_op(&second);
  CHECK(first.bytes + second.bytes >= 1); /* what the ring had received already comes nevertheless */
  shut(a);
  shut(b);
}

static void cancel_from_inside(void) {
  int fds[2];
  pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  reader.then = cancel_arg;
  reader.arg = &reader;
  put(fds[1], 0, 10);
  CHECK(submit(&reader) == 0);
  UNTIL(reader.finals);
  CHECK(reader.bytes == 10 && reader.result == -ECANCELED && reader.mores == 1);
  shut(fds);
}

/* When the ring has just begun to receive it in another way. */
static void cancel_bulk(void) {
  int fds[2];
  tcp_pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  size_t sent = 0;
  CHECK(submit(&reader) == 0);
  while (sent < 200000) {
    sent += put(fds[1], sent, 200000 - sent);
    turn(LONG_NS);
  }
  UNTIL(reader.bytes == sent);
  end_op(&reader);
  CHECK(reader.result == -ECANCELED);
  reader.then = cancel_arg;
  reader.arg = &reader;
  CHECK(submit(&reader) == 0);
  sent += put(fds[1], sent, 100000);
  UNTIL(reader.finals);
  CHECK(reader.result == -ECANCELED);
  reader.then = NULL;
  CHECK(submit(&reader) == 0);
  UNTIL(reader.bytes == sent);
  end_op(&reader);
  shut(fds);
}

static void resubmit(probe *self) {
  if (al_op_is_idle(&self->op) && self->result > 0) CHECK(submit(self) == 0);
}

static void cancel_and_resubmit_from_inside(void) {
  int fds[2];
  char byte;
  pair(fds);
  probe reader = make_probe(AL_OP_RECV_INTO, fds[0]);
  reader.op.u.into.base = &byte;
  reader.op.u.into.len = 1;
  reader.then = resubmit;
  put(fds[1], 0, 5);
  close(fds[1]);
  order = 0;
  CHECK(submit(&reader) == 0);
  UNTIL(al_op_is_idle(&reader.op));
  CHECK(order == 6 && reader.result == 0);
  close_fd(fds[0]);
}

/* ---- descriptors that close -------------------------------------------------------------------------------------- */

static int reused[2];
static probe newcomer;

static void close_and_reopen(probe *self) {
  int fd = self->op.fd;
  close_fd(fd);
  pair(reused);
  if (reused[0] != fd) { /* the number must be the same one */
    CHECK(dup2(reused[0], fd) == fd);
    close(reused[0]);
    reused[0] = fd;
  }
  newcomer = make_poll(fd, AL_POLL_OUT);
  CHECK(fill(fd) > 0 && submit(&newcomer) == 0); /* not writable: an event now was for its predecessor */
}

static void number_reused_within_a_batch(void) {
  int fds[2];
  char byte;
  pair(fds);
  probe out = make_poll(fds[0], AL_POLL_OUT), in = make_probe(AL_OP_RECV_INTO, fds[0]);
  in.op.u.into.base = &byte;
  in.op.u.into.len = 1;
  in.then = close_and_reopen;
  CHECK(submit(&out) == 0);
  IDLE();
  end_op(&out);
  put(fds[1], 0, 1);
  CHECK(submit(&in) == 0);
  UNTIL(in.finals);
  IDLE();
  CHECK(newcomer.mores == 0);
  take_all(reused[1]);
  UNTIL(newcomer.mores);
  end_op(&newcomer);
  shut(reused);
  close_fd(fds[1]);
}

static void closed_but_duplicated(void) {
  int fds[2];
  pair(fds);
  int copy = dup(fds[0]);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&reader) == 0);
  IDLE();
  cancel(&reader);
  UNTIL(reader.finals);
  CHECK(submit(&reader) == 0);
  IDLE();
  end_op(&reader);
  close_fd(fds[0]);
  put(fds[1], 0, 1);
  CHECK(loop->io->wait(loop, 1000000) == 0); /* nobody is told */
  close_fd(copy);
  close_fd(fds[1]);
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

static void break_at_third(probe *self) {
  int *calls = self->arg;
  if (++*calls == 3) al_loop_break(loop);
}

#define READY 10

/* Lets all readers have a byte each; the turn is broken at the third. */
static void read_until_broken(int (*fds)[2], probe *readers, int *calls) {
  for (int i = 0; i < READY; i++) {
    pair(fds[i]);
    readers[i] = make_probe(AL_OP_RECV, fds[i][0]);
    readers[i].then = break_at_third;
    readers[i].arg = calls;
    CHECK(submit(&readers[i]) == 0);
    put(fds[i][1], 0, 1);
  }
  while (*calls < 3) turn(LONG_NS);
}

static void break_in_the_middle(void) {
  int fds[READY][2], calls = 0;
  probe readers[READY];
  read_until_broken(fds, readers, &calls);
  CHECK(calls == 3);
  turn(LONG_NS);
  CHECK(calls == READY);
  IDLE();
  for (int i = 0; i < READY; i++) {
    CHECK(readers[i].bytes == 1);
    end_op(&readers[i]);
    shut(fds[i]);
  }
}

static void many_ready_at_once(void) {
  enum { MANY = 500 };
  static int fds[MANY][2];
  static probe readers[MANY];
  int many = on_machine("select") ? 200 : MANY;
  for (int i = 0; i < many; i++) {
    pair(fds[i]);
    readers[i] = make_probe(AL_OP_RECV, fds[i][0]);
    CHECK(submit(&readers[i]) == 0);
  }
  IDLE();
  for (size_t round = 0; round < 3; round++) {
    for (int i = 0; i < many; i++) CHECK(put(fds[i][1], round * 1000, 1000) == 1000);
    for (int i = 0; i < many; i++) UNTIL(readers[i].bytes == (round + 1) * 1000);
  }
  for (int i = 0; i < many; i++) {
    end_op(&readers[i]);
    shut(fds[i]);
  }
}

/* More completions at once than the ring has room for, and more requests. */
static void more_than_the_ring_holds(void) {
  enum { OPS = 6000 };
  static probe ops[OPS];
  if (!on_machine("uring")) return; /* one op a side */
  int fd = al__fd_eventfd();
  CHECK(fd >= 0 && write(fd, &(uint64_t){1}, sizeof(uint64_t)) == sizeof(uint64_t));
  for (int i = 0; i < OPS; i++) {
    ops[i] = make_poll(fd, AL_POLL_IN);
    CHECK(submit(&ops[i]) == 0);
  }
  for (int i = 0; i < OPS; i++) UNTIL(ops[i].mores);
  for (int i = 0; i < OPS; i++) cancel(&ops[i]);
  for (int i = 0; i < OPS; i++) UNTIL(ops[i].finals);
  close_fd(fd);
}

static void waits_never_end_early(void) {
  int64_t began = al_time_ns();
  turn(1500001);
  CHECK(al_time_ns() - began >= 1500001);
}

static void poll_descriptor(void) {
  int fds[2], fd = al_loop_poll_fd(loop);
  if (on_machine("poll") || on_machine("select")) {
    CHECK(fd == -ENOSYS);
    return;
  }
  pair(fds);
  struct pollfd pfd = {.fd = fd, .events = POLLIN};
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&reader) == 0);
  CHECK(al_loop_timeout_ns(loop) == -1);
  CHECK(poll(&pfd, 1, 0) == 0);
  put(fds[1], 0, 3);
  if (al_loop_timeout_ns(loop) != 0) CHECK(poll(&pfd, 1, 2000) == 1);
  turn(0);
  CHECK(reader.bytes == 3);
  while (al_loop_timeout_ns(loop) == 0) turn(0);
  CHECK(poll(&pfd, 1, 0) == 0);
  cancel(&reader);
  for (int i = 0; i < 10 && !reader.finals; i++) {
    if (al_loop_timeout_ns(loop) != 0) CHECK(poll(&pfd, 1, 2000) == 1);
    turn(0);
  }
  CHECK(reader.finals);
  shut(fds);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void *turn_elsewhere(void *arg) {
  (void)arg;
  turn(5000000);
  turn(5000000);
  return NULL;
}

static void run_in_thread(void *(*body)(void *)) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

/* A loop may be run by one thread after another; what is armed goes with it. */
static void threads_in_turn(void) {
  int fds[2], full[2];
  al_addr bound;
  int listener = listen_tcp(4, &bound);
  pair(fds);
  pair(full);
  probe reader = make_probe(AL_OP_RECV, fds[0]), watcher = make_poll(fds[1], AL_POLL_IN);
  probe server = make_probe(AL_OP_ACCEPT, listener), writer = make_probe(AL_OP_SEND, full[0]);
  int accepted[1];
  server.then = keep_accepted;
  server.arg = accepted;
  size_t filled = fill(full[0]);
  writer.iov[0] = (struct iovec){zeros, 7};
  writer.op.u.send.iov = writer.iov;
  writer.op.u.send.n = 1;
  CHECK(submit(&reader) == 0 && submit(&watcher) == 0 && submit(&server) == 0 && submit(&writer) == 0);
  run_in_thread(turn_elsewhere);
  put(fds[1], 0, 3);
  UNTIL(reader.bytes == 3);
  run_in_thread(turn_elsewhere);
  put(fds[0], 0, 1);
  int conn = dial(&bound);
  CHECK(take_all(full[1]) == filled);
  UNTIL(watcher.mores && server.bytes == 1 && writer.finals);
  CHECK(writer.result == 7 && take_all(full[1]) == 7);
  end_op(&reader);
  end_op(&watcher);
  end_op(&server);
  shut(fds);
  shut(full);
  close_fd(conn);
  close_fd(accepted[0]);
  close_fd(listener);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void resubmit_at_close(probe *self) {
  if (self->finals) CHECK(submit(self) == AL_ECLOSED);
  self->finals = 1;
}

static void close_with_all(bool turns, bool elsewhere) {
  enum { OPS = 7 };
  int a[2], b[2], c[2];
  char byte;
  al_addr bound, busy;
  int listener = listen_tcp(4, &bound), full = listen_unix(0, &busy), conn = dial(&busy);
  pair(a);
  pair(b);
  CHECK(pipe2(c, O_NONBLOCK | O_CLOEXEC) == 0);
  fill(b[1]);
  probe ops[OPS] = {
      make_probe(AL_OP_RECV, a[0]), make_probe(AL_OP_RECV_INTO, b[0]),
      make_probe(AL_OP_SEND, b[1]), make_probe(AL_OP_ACCEPT, listener),
      make_poll(c[0], AL_POLL_IN),  make_probe(AL_OP_CONNECT, al__sock_open(AF_UNIX, SOCK_STREAM, 0)),
      make_probe(AL_OP_RECV, a[1]),
  };
  take_all(b[0]);
  fill(b[1]);
  take_all(b[0]);
  fill(b[1]);
  ops[1].op.fd = a[0];
  ops[0].op.fd = c[0];
  ops[4].op.fd = a[1];
  ops[6].op.fd = b[0];
  ops[6].op.kind = AL_OP_POLL;
  ops[6].op.events = AL_POLL_OUT;
  ops[1].op.u.into.base = &byte;
  ops[1].op.u.into.len = 1;
  ops[2].iov[0] = (struct iovec){zeros, 7};
  ops[2].op.u.send.iov = ops[2].iov;
  ops[2].op.u.send.n = 1;
  ops[5].op.u.connect.addr = &busy;
  for (int i = 0; i < OPS; i++) CHECK(submit(&ops[i]) == 0);
  if (turns) IDLE();
  if (elsewhere) run_in_thread(turn_elsewhere);
  for (int i = 0; i < OPS; i++) ops[i].then = resubmit_at_close;
  int dialed = dial(&bound); /* accepted or not, it must not leak */
  CHECK(al_loop_close(loop) == 0);
  for (int i = 0; i < OPS; i++) CHECK(ops[i].finals == 1 && ops[i].result == -ECANCELED);
  int fds[] = {a[0], a[1], b[0], b[1], c[0], c[1], listener, full, conn, dialed, ops[5].op.fd};
  for (size_t i = 0; i < AL_COUNT(fds); i++) close(fds[i]);
}

static void close_unturned(void) { close_with_all(false, false); }
static void close_in_flight(void) { close_with_all(true, false); }
static void close_after_another_thread(void) { close_with_all(true, true); }

static void close_with_completions_left(void) {
  int fds[READY][2], calls = 0;
  probe readers[READY];
  read_until_broken(fds, readers, &calls);
  cancel(&readers[0]);
  CHECK(al_loop_close(loop) == 0);
  for (int i = 0; i < READY; i++) {
    CHECK(readers[i].finals == 1 && readers[i].result == -ECANCELED);
    close(fds[i][0]);
    close(fds[i][1]);
  }
}

static void memory_runs_out(void) {
  if (!al_mem_fail_after(-1)) return; /* a release build */
  for (long n = 0;; n++) {
    al_loop *other;
    const char *reason;
    al_mem_fail_after(n);
    int err = al_loop_new(&(al_loop_options){.machine = machine_name}, &other, &reason);
    al_mem_fail_after(-1);
    if (!err) {
      al_loop_release(other);
      return;
    }
    CHECK(err == -ENOMEM);
  }
}

/* ---- a kernel that refuses --------------------------------------------------------------------------------------- */

static void refuse_io_uring(int error) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = AL_COUNT(code), .filter = code};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void refusal_has_a_reason(void) {
  if (!on_machine("uring")) return;
  int errors[] = {ENOSYS, EPERM, EINVAL};
  for (size_t i = 0; i < AL_COUNT(errors); i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
      al_loop *none;
      const char *reason = NULL;
      refuse_io_uring(errors[i]);
      int err = al_loop_new(&(al_loop_options){.machine = "uring"}, &none, &reason);
      _exit(err == AL_ENORING && reason && strstr(reason, "io_uring") ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

const scenario scenarios[] = {
    SCENARIO(cancel_unsubmitted_and_parked),
    SCENARIO(cancel_collected),
    SCENARIO(cancel_from_inside),
    SCENARIO(cancel_bulk),
    SCENARIO(cancel_and_resubmit_from_inside),
    SCENARIO(number_reused_within_a_batch),
    SCENARIO(closed_but_duplicated),
    SCENARIO(break_in_the_middle),
    SCENARIO(many_ready_at_once),
    SCENARIO(more_than_the_ring_holds),
    SCENARIO(waits_never_end_early),
    SCENARIO(poll_descriptor),
    SCENARIO(threads_in_turn),
    SCENARIO(close_unturned),
    SCENARIO(close_in_flight),
    SCENARIO(close_after_another_thread),
    SCENARIO(close_with_completions_left),
    SCENARIO(memory_runs_out),
    SCENARIO(refusal_has_a_reason),
};
const size_t n_scenarios = AL_COUNT(scenarios);

int main(int argc, char **argv) { return run_scenarios(argc, argv); }
