/* io_machines.c - the seam (core/io.h) from below: the same scenarios on each machine, epoll, poll, select and the ring, through
 * the table of functions that the transports use. It includes headers of core that are not public, for the seam is not.
 *
 *   io_machines [machine [scenario]]     prints "ok N tests"
 *
 * Each scenario has a loop of its own; after it no descriptor and no block may be left, and each op must have had exactly
 * one final completion.
 *
 * SPDX-License-Identifier: MIT */
#include "addr.h"
#include "io.h"
#include "loop.h"
#include "sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- tools ---------------------------------------------------------------------------------------------------------------- */

static al_loop *loop;
static const char *machine_name, *scenario_name;

static void check(bool holds, const char *what, int line) {
  if (holds) return;
  fprintf(stderr, "io_machines.c:%d: %s, %s: not true: %s\n", line, machine_name, scenario_name, what);
  exit(1);
}
#define CHECK(cond) check(cond, #cond, __LINE__)

static bool on_machine(const char *name) { return !strcmp(machine_name, name); }

/* An op that counts its completions. */
typedef struct probe probe;
typedef void probe_fn(probe *self);
struct probe {
  al_op op;
  int mores, finals;
  int result; /* of the last completion */
  size_t bytes;
  probe_fn *then; /* called by each completion */
  void *arg;
  struct iovec iov[2];
};

static int order; /* counts completions of all probes */

static void probe_done(al_loop *in, al_op *op, int result, unsigned flags) {
  probe *self = AL_CONTAINER(op, probe, op);
  CHECK(in == loop && self->finals == 0);
  CHECK(al_op_is_idle(op) == !(flags & AL_OP_MORE));
  self->result = result;
  order++;
  if (flags & AL_OP_MORE)
    self->mores++;
  else
    self->finals++;
  if (op->kind == AL_OP_RECV && result > 0) {
    CHECK(flags & AL_OP_MORE && result <= AL_READ_SIZE);
    for (int i = 0; i < result; i++) CHECK(op->u.recv.data[i] == (char)((self->bytes + (size_t)i) % 251));
    self->bytes += (size_t)result;
  }
  if (self->then) self->then(self);
}

static probe make_probe(al_op_kind kind, int fd) {
  probe made = {.op = {.done = probe_done, .kind = (uint8_t)kind, .fd = fd}};
  return made;
}

static probe make_poll(int fd, uint8_t events) {
  probe made = make_probe(AL_OP_POLL, fd);
  made.op.events = events;
  return made;
}

static int submit(probe *self) {
  self->finals = 0;
  return loop->io->submit(loop, &self->op);
}
static void cancel(probe *self) { loop->io->cancel(loop, &self->op); }
static void close_fd(int fd) { loop->io->close_fd(loop, fd); }

static void turn(int64_t timeout_ns) { CHECK(al_loop_run_once(loop, timeout_ns) == 0); }
#define LONG_NS (2 * AL_NS_PER_SEC)
#define UNTIL(cond)                                             \
  do {                                                          \
    for (int n_ = 0; n_ < 5000 && !(cond); n_++) turn(LONG_NS); \
    CHECK(cond);                                                \
  } while (0)
/* Turns that have time to do what they should not. */
#define IDLE() \
  for (int i_ = 0; i_ < 3; i_++) turn(2000000)

static void end_op(probe *self) {
  if (!al_op_is_idle(&self->op)) cancel(self);
  UNTIL(al_op_is_idle(&self->op));
  CHECK(self->finals == 1);
}

static void pair(int fds[2]) { CHECK(al__sock_pair(AF_UNIX, SOCK_STREAM, fds) == 0); }

/* Writes len bytes of the pattern that probes expect, from the place at. */
static size_t put(int fd, size_t at, size_t len) {
  char block[4096];
  size_t done = 0;
  while (done < len) {
    size_t n = AL_MIN(len - done, sizeof(block));
    for (size_t i = 0; i < n; i++) block[i] = (char)((at + done + i) % 251);
    ssize_t sent = write(fd, block, n);
    if (sent <= 0) break;
    done += (size_t)sent;
  }
  return done;
}

static size_t take_all(int fd) {
  static char block[65536];
  size_t taken = 0;
  for (ssize_t n; (n = read(fd, block, sizeof(block))) > 0;) taken += (size_t)n;
  return taken;
}

static int listen_on(const al_addr *addr, int backlog, al_addr *bound) {
  int fd = al__sock_open(addr->ss.ss_family, SOCK_STREAM, 0);
  CHECK(fd >= 0 && al__sock_bind(fd, addr) == 0 && al__sock_listen(fd, backlog) == 0);
  CHECK(al__sock_name(fd, bound) == 0);
  return fd;
}

static int listen_tcp(int backlog, al_addr *bound) {
  al_addr addr;
  CHECK(al_addr_ip(&addr, "127.0.0.1", 0, 0, 0) == 0);
  return listen_on(&addr, backlog, bound);
}

/* An abstract name that the kernel chooses. */
static int listen_unix(int backlog, al_addr *bound) {
  al_addr addr = {.len = sizeof(sa_family_t)};
  addr.ss.ss_family = AF_UNIX;
  return listen_on(&addr, backlog, bound);
}

static int dial(const al_addr *addr) {
  int fd = al__sock_open(addr->ss.ss_family, SOCK_STREAM, 0);
  int err = al__sock_connect(fd, addr);
  CHECK(fd >= 0 && (err == 0 || err == -EINPROGRESS));
  return fd;
}

static void tcp_pair(int fds[2]) {
  al_addr bound;
  int listener = listen_tcp(1, &bound);
  fds[0] = dial(&bound);
  CHECK(poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 2000) == 1);
  fds[1] = al__sock_accept(listener, NULL);
  CHECK(fds[1] >= 0);
  close(listener);
}

static void shut(const int fds[2]) {
  close_fd(fds[0]);
  close_fd(fds[1]);
}

/* ---- receiving -------------------------------------------------------------------------------------------------------------- */

static void recv_until_end(void) {
  int fds[2];
  pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&reader) == 0);
  IDLE();
  CHECK(reader.mores == 0);
  put(fds[1], 0, 5);
  UNTIL(reader.bytes == 5);
  put(fds[1], 5, 7);
  close(fds[1]);
  UNTIL(reader.finals);
  CHECK(reader.bytes == 12 && reader.result == 0);
  close_fd(fds[0]);
}

static void recv_data_before_arming(void) {
  int fds[2];
  tcp_pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  put(fds[1], 0, 100000);
  close(fds[1]);
  CHECK(submit(&reader) == 0);
  UNTIL(reader.finals);
  CHECK(reader.bytes == 100000 && reader.result == 0);
  close_fd(fds[0]);
}

static void recv_reset(void) {
  int fds[2];
  tcp_pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  struct linger hard = {.l_onoff = 1, .l_linger = 0};
  CHECK(submit(&reader) == 0);
  IDLE();
  setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  close(fds[1]);
  UNTIL(reader.finals);
  CHECK(reader.result == -ECONNRESET);
  close_fd(fds[0]);
}

static void recv_into(void) {
  int fds[2];
  char memory[10] = "";
  pair(fds);
  probe reader = make_probe(AL_OP_RECV_INTO, fds[0]);
  reader.op.u.into.base = memory;
  reader.op.u.into.len = 3;
  CHECK(submit(&reader) == 0);
  IDLE();
  CHECK(write(fds[1], "abcd", 4) == 4);
  UNTIL(reader.finals);
  CHECK(reader.result == 3 && !strcmp(memory, "abc"));
  CHECK(submit(&reader) == 0);
  UNTIL(reader.finals);
  CHECK(reader.result == 1 && memory[0] == 'd');
  close(fds[1]);
  CHECK(submit(&reader) == 0);
  UNTIL(reader.finals);
  CHECK(reader.result == 0);
  close_fd(fds[0]);
}

static char lent[8];
static int lend(al_op *op, char **base, size_t *len) {
  probe *self = AL_CONTAINER(op, probe, op);
  if (self->arg) {
    cancel(self);
    return 0;
  }
  *base = lent;
  *len = sizeof(lent);
  return 0;
}

static void recv_lent(void) {
  int fds[2];
  pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  reader.op.u.recv.lend = lend;
  CHECK(submit(&reader) == 0);
  put(fds[1], 0, 20);
  UNTIL(reader.bytes == 20);
  CHECK(on_machine("uring") || (reader.mores == 3 && reader.op.u.recv.data == lent));
  if (!on_machine("uring")) { /* which never asks on a socket */
    reader.arg = &reader;     /* lend cancels */
    put(fds[1], 20, 1);
    UNTIL(reader.finals);
    CHECK(reader.result == -ECANCELED && reader.bytes == 20);
  }
  end_op(&reader);
  shut(fds);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------ */

static char zeros[1 << 20];

static size_t fill(int fd) {
  size_t filled = 0;
  for (ssize_t n; (n = send(fd, zeros, sizeof(zeros), MSG_NOSIGNAL)) > 0;) filled += (size_t)n;
  return filled;
}

static void send_when_full(void) {
  int fds[2];
  pair(fds);
  size_t filled = fill(fds[0]);
  probe writer = make_probe(AL_OP_SEND, fds[0]);
  writer.iov[0] = (struct iovec){zeros, 10};
  writer.iov[1] = (struct iovec){zeros, 20};
  writer.op.u.send.iov = writer.iov;
  writer.op.u.send.n = 2;
  CHECK(submit(&writer) == 0);
  IDLE();
  CHECK(!writer.finals);
  CHECK(take_all(fds[1]) == filled);
  UNTIL(writer.finals);
  CHECK(writer.result == 30 && take_all(fds[1]) == 30);
  shut(fds);
}

static void send_to_gone_peer(void) {
  int fds[2];
  pair(fds);
  fill(fds[0]);
  probe writer = make_probe(AL_OP_SEND, fds[0]);
  writer.iov[0] = (struct iovec){zeros, 10};
  writer.op.u.send.iov = writer.iov;
  writer.op.u.send.n = 1;
  CHECK(submit(&writer) == 0);
  IDLE();
  close(fds[1]);
  UNTIL(writer.finals);
  CHECK(writer.result == -EPIPE || writer.result == -ECONNRESET);
  close_fd(fds[0]);
}

#define BIG (1 << 20)
static char pattern[BIG];

static void send_rest(probe *self) {
  CHECK(self->result > 0);
  self->bytes += (size_t)self->result;
  self->iov[0] = (struct iovec){pattern + self->bytes, BIG - self->bytes};
  if (self->bytes < BIG) CHECK(submit(self) == 0);
}

static void big_transfer_both_ways(void) {
  int fds[2];
  tcp_pair(fds);
  probe readers[2], writers[2];
  for (size_t i = 0; i < BIG; i++) pattern[i] = (char)(i % 251);
  for (int i = 0; i < 2; i++) {
    readers[i] = make_probe(AL_OP_RECV, fds[i]);
    writers[i] = make_probe(AL_OP_SEND, fds[i]);
    writers[i].iov[0] = (struct iovec){pattern, BIG};
    writers[i].op.u.send.iov = writers[i].iov;
    writers[i].op.u.send.n = 1;
    writers[i].then = send_rest;
    CHECK(submit(&readers[i]) == 0 && submit(&writers[i]) == 0);
  }
  UNTIL(readers[0].bytes == BIG && readers[1].bytes == BIG);
  end_op(&readers[0]);
  end_op(&readers[1]);
  CHECK(writers[0].bytes == BIG && writers[1].bytes == BIG);
  shut(fds);
}

/* ---- accepting and connecting ---------------------------------------------------------------------------------------------------- */

static void keep_accepted(probe *self) {
  if (self->result < 0) return;
  int *fds = self->arg;
  fds[self->bytes++] = self->result;
  CHECK(fcntl(self->result, F_GETFL) & O_NONBLOCK);
  CHECK(fcntl(self->result, F_GETFD) & FD_CLOEXEC);
  al_addr peer;
  CHECK(al__sock_peer(self->result, &peer) == 0 && al__addr_equal(&peer, self->op.u.accept.peer));
}

#define CONNS 20
static void accept_many(void) {
  int dialed[CONNS], accepted[CONNS];
  al_addr bound;
  int listener = listen_tcp(CONNS, &bound);
  probe server = make_probe(AL_OP_ACCEPT, listener);
  server.op.u.accept.limit = 8;
  server.then = keep_accepted;
  server.arg = accepted;
  CHECK(submit(&server) == 0);
  for (int i = 0; i < CONNS; i++) dialed[i] = dial(&bound);
  turn(LONG_NS);
  CHECK(server.bytes <= 8 || on_machine("uring")); /* where the kernel has accepted them already */
  UNTIL(server.bytes == CONNS);
  end_op(&server);
  CHECK(server.result == -ECANCELED);
  for (int i = 0; i < CONNS; i++) {
    close_fd(dialed[i]);
    close_fd(accepted[i]);
  }
  close_fd(listener);
}

static void accept_without_descriptors(void) {
  al_addr bound;
  int listener = listen_tcp(4, &bound), conn = dial(&bound);
  probe server = make_probe(AL_OP_ACCEPT, listener);
  struct rlimit limit, low;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  low = limit;
  low.rlim_cur = 3;
  CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
  CHECK(submit(&server) == 0);
  UNTIL(server.finals);
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK(server.result == -EMFILE);
  close_fd(conn);
  close_fd(listener);
}

static int try_connect(const al_addr *addr) {
  probe client = make_probe(AL_OP_CONNECT, al__sock_open(addr->ss.ss_family, SOCK_STREAM, 0));
  client.op.u.connect.addr = addr;
  CHECK(submit(&client) == 0 && !client.finals);
  UNTIL(client.finals);
  if (!client.result) CHECK(al__sock_peer(client.op.fd, &(al_addr){.len = 0}) == 0);
  close_fd(client.op.fd);
  return client.result;
}

static void connect_tcp(void) {
  al_addr bound;
  int listener = listen_tcp(4, &bound);
  CHECK(try_connect(&bound) == 0);
  close(listener);
  CHECK(try_connect(&bound) == -ECONNREFUSED);
}

static void connect_unix(void) {
  al_addr bound;
  int listener = listen_unix(4, &bound);
  CHECK(try_connect(&bound) == 0);
  close(listener);
  CHECK(try_connect(&bound) == -ECONNREFUSED);
  CHECK(al_addr_unix(&bound, "/nonexistent/socket", 19) == 0);
  CHECK(try_connect(&bound) == -ENOENT);
}

/* Waits, as a blocking connect does, until the listener takes one. */
static void connect_unix_full_backlog(void) {
  al_addr bound;
  int listener = listen_unix(0, &bound), first = dial(&bound);
  probe client = make_probe(AL_OP_CONNECT, al__sock_open(AF_UNIX, SOCK_STREAM, 0));
  probe other = make_probe(AL_OP_CONNECT, al__sock_open(AF_UNIX, SOCK_STREAM, 0));
  client.op.u.connect.addr = other.op.u.connect.addr = &bound;
  CHECK(submit(&client) == 0 && submit(&other) == 0);
  IDLE();
  CHECK(!client.finals && !other.finals);
  end_op(&other);
  CHECK(other.result == -ECANCELED);
  int accepted = al__sock_accept(listener, NULL);
  CHECK(accepted >= 0);
  UNTIL(client.finals);
  CHECK(client.result == 0);
  close_fd(client.op.fd);
  close_fd(other.op.fd);
  close_fd(accepted);
  close_fd(first);
  close_fd(listener);
}

/* ---- polling -------------------------------------------------------------------------------------------------------------------- */

static void poll_is_level_triggered(void) {
  int fds[2];
  char byte;
  CHECK(al__fd_pipe(fds) == 0);
  probe watcher = make_poll(fds[0], AL_POLL_IN);
  CHECK(submit(&watcher) == 0);
  IDLE();
  CHECK(watcher.mores == 0);
  CHECK(write(fds[1], "x", 1) == 1);
  for (int i = 1; i <= 3; i++) {
    turn(LONG_NS);
    CHECK(watcher.mores == i && watcher.result == AL_POLL_IN);
  }
  CHECK(read(fds[0], &byte, 1) == 1);
  turn(0); /* the ring has been asked already */
  int before = watcher.mores;
  IDLE();
  CHECK(watcher.mores == before);
  close(fds[1]);
  UNTIL(watcher.mores > before); /* a hang-up is readable */
  end_op(&watcher);
  CHECK(watcher.result == -ECANCELED);
  close_fd(fds[0]);
}

static void note_order(probe *self) {
  if (self->mores == 1) *(int *)self->arg = order;
}

static void poll_reader_before_writer(void) {
  int fds[2], read_at = 0, write_at = 0;
  pair(fds);
  probe out = make_poll(fds[0], AL_POLL_OUT), in = make_poll(fds[0], AL_POLL_IN);
  in.then = out.then = note_order;
  in.arg = &read_at;
  out.arg = &write_at;
  put(fds[1], 0, 1);
  CHECK(submit(&in) == 0 && submit(&out) == 0);
  UNTIL(read_at && write_at);
  CHECK(read_at < write_at);
  end_op(&in);
  end_op(&out);
  shut(fds);
}

static void poll_what_can_not_be(void) {
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  probe watcher = make_poll(file, AL_POLL_IN);
  CHECK(file >= 0);
  if (on_machine("epoll") || on_machine("uring")) CHECK(submit(&watcher) == -EPERM);
  close(file);
  CHECK(submit(&watcher) == -EBADF);
  watcher.op.fd = -1;
  CHECK(submit(&watcher) == -EBADF);
  watcher.op.fd = 1 << 29;
  CHECK(submit(&watcher) == (on_machine("select") ? -EINVAL : -EBADF));
  CHECK(al_op_is_idle(&watcher.op) && !watcher.mores);
}

/* remove_reader, close, and another file under the same number, all between two waits. */
static void poll_number_changes_hands(void) {
  int old[2], new[2];
  CHECK(al__fd_pipe(old) == 0 && al__fd_pipe(new) == 0);
  probe before = make_poll(old[0], AL_POLL_IN), after = make_poll(old[0], AL_POLL_IN);
  CHECK(submit(&before) == 0);
  IDLE();
  cancel(&before);
  CHECK(dup2(new[0], old[0]) == old[0]);
  CHECK(submit(&after) == 0);
  UNTIL(before.finals);
  CHECK(write(old[1], "x", 1) < 0 && errno == EPIPE);
  CHECK(write(new[1], "x", 1) == 1);
  UNTIL(after.mores);
  CHECK(before.mores == 0);
  end_op(&after);
  shut(old);
  shut(new);
}

/* The same, and a stream moves in. */
static void poll_number_goes_to_recv(void) {
  int old[2], new[2];
  CHECK(al__fd_pipe(old) == 0);
  pair(new);
  probe watcher = make_poll(old[0], AL_POLL_IN), reader = make_probe(AL_OP_RECV, old[0]);
  CHECK(submit(&watcher) == 0);
  IDLE();
  cancel(&watcher);
  CHECK(dup2(new[0], old[0]) == old[0]);
  CHECK(submit(&reader) == 0);
  put(new[1], 0, 10);
  UNTIL(reader.bytes == 10 && watcher.finals);
  end_op(&reader);
  shut(old);
  shut(new);
}

static void poll_closed_behind_our_back(void) {
  int fds[2];
  if (!on_machine("poll") && !on_machine("select")) return; /* the others can't see it */
  CHECK(al__fd_pipe(fds) == 0);
  probe watcher = make_poll(fds[0], AL_POLL_IN);
  CHECK(submit(&watcher) == 0);
  IDLE();
  close(fds[0]);
  UNTIL(watcher.finals);
  CHECK(watcher.result == -EBADF);
  close(fds[1]);
}

static void one_op_a_side(void) {
  int fds[2];
  if (on_machine("uring")) return; /* need not notice */
  pair(fds);
  probe watcher = make_poll(fds[0], AL_POLL_IN), reader = make_probe(AL_OP_RECV, fds[0]);
  probe other = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&watcher) == 0 && submit(&reader) == 0 && submit(&other) == -EBUSY);
  UNTIL(watcher.finals);
  CHECK(watcher.result == -ECANCELED);
  end_op(&reader);
  shut(fds);
}

/* ---- cancelling ------------------------------------------------------------------------------------------------------------------ */

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

/* ---- descriptors that close -------------------------------------------------------------------------------------------------------- */

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

/* ---- the turn ------------------------------------------------------------------------------------------------------------------------ */

static void break_at_third(probe *self) {
  int *calls = self->arg;
  if (++*calls == 3) al_loop_break(loop);
}

#define READY 10
static void break_in_the_middle(void) {
  int fds[READY][2], calls = 0;
  probe readers[READY];
  for (int i = 0; i < READY; i++) {
    pair(fds[i]);
    readers[i] = make_probe(AL_OP_RECV, fds[i][0]);
    readers[i].then = break_at_third;
    readers[i].arg = &calls;
    CHECK(submit(&readers[i]) == 0);
    put(fds[i][1], 0, 1);
  }
  while (calls < 3) turn(LONG_NS);
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

/* ---- other kinds of descriptors -------------------------------------------------------------------------------------------------------- */

static void pipes(void) {
  int fds[2];
  CHECK(al__fd_pipe(fds) == 0);
  probe reader = make_probe(AL_OP_RECV, fds[0]), writer = make_probe(AL_OP_SEND, fds[1]);
  writer.iov[0] = (struct iovec){(char[]){0, 1, 2}, 3};
  writer.iov[1] = (struct iovec){(char[]){3, 4}, 2};
  writer.op.u.send.iov = writer.iov;
  writer.op.u.send.n = 2;
  CHECK(submit(&reader) == 0 && submit(&writer) == 0);
  UNTIL(writer.finals && reader.bytes == 5);
  CHECK(writer.result == 5);
  cancel(&reader);
  UNTIL(reader.finals);
  CHECK(submit(&reader) == 0);
  put(fds[1], 5, 5);
  UNTIL(reader.bytes == 10);
  close(fds[1]);
  UNTIL(reader.finals);
  CHECK(reader.result == 0);
  close_fd(fds[0]);
}

static void pipe_into(void) {
  int fds[2];
  char byte = 0;
  CHECK(al__fd_pipe(fds) == 0);
  probe reader = make_probe(AL_OP_RECV_INTO, fds[0]);
  reader.op.u.into.base = &byte;
  reader.op.u.into.len = 1;
  CHECK(submit(&reader) == 0);
  IDLE();
  CHECK(write(fds[1], "xy", 2) == 2);
  UNTIL(reader.finals);
  CHECK(reader.result == 1 && byte == 'x');
  shut(fds);
}

static void bad_descriptors(void) {
  al_op_kind kinds[] = {AL_OP_RECV, AL_OP_ACCEPT};
  int fds[2];
  pair(fds);
  for (size_t i = 0; i < AL_COUNT(kinds); i++) {
    probe op = make_probe(kinds[i], fds[0]);
    int copy = dup(fds[0]); /* the number must not be beyond all others */
    op.op.fd = copy;
    close(copy);
    int err = submit(&op);
    CHECK(err == 0 || err == -EBADF);
    if (err) continue;
    UNTIL(op.finals);
    CHECK(op.result == -EBADF);
  }
  probe accepter = make_probe(AL_OP_ACCEPT, fds[0]);
  CHECK(submit(&accepter) == 0);
  put(fds[1], 0, 1);
  UNTIL(accepter.finals);
  CHECK(accepter.result == -EINVAL || accepter.result == -EOPNOTSUPP);
  shut(fds);
}

/* ---- threads ------------------------------------------------------------------------------------------------------------------------------ */

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

/* ---- the end --------------------------------------------------------------------------------------------------------------------------------- */

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
  CHECK(al__fd_pipe(c) == 0);
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
  for (int i = 0; i < READY; i++) {
    pair(fds[i]);
    readers[i] = make_probe(AL_OP_RECV, fds[i][0]);
    readers[i].then = break_at_third;
    readers[i].arg = &calls;
    CHECK(submit(&readers[i]) == 0);
    put(fds[i][1], 0, 1);
  }
  while (calls < 3) turn(LONG_NS);
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

/* ---- a kernel that refuses ---------------------------------------------------------------------------------------------------------------------- */

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

/* ---- the table ------------------------------------------------------------------------------------------------------------------------------------ */

#define SCENARIO(name) \
  { #name, name }
static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
    SCENARIO(recv_until_end),
    SCENARIO(recv_data_before_arming),
    SCENARIO(recv_reset),
    SCENARIO(recv_into),
    SCENARIO(recv_lent),
    SCENARIO(send_when_full),
    SCENARIO(send_to_gone_peer),
    SCENARIO(big_transfer_both_ways),
    SCENARIO(accept_many),
    SCENARIO(accept_without_descriptors),
    SCENARIO(connect_tcp),
    SCENARIO(connect_unix),
    SCENARIO(connect_unix_full_backlog),
    SCENARIO(poll_is_level_triggered),
    SCENARIO(poll_reader_before_writer),
    SCENARIO(poll_what_can_not_be),
    SCENARIO(poll_number_changes_hands),
    SCENARIO(poll_number_goes_to_recv),
    SCENARIO(poll_closed_behind_our_back),
    SCENARIO(one_op_a_side),
    SCENARIO(cancel_unsubmitted_and_parked),
    SCENARIO(cancel_collected),
    SCENARIO(cancel_from_inside),
    SCENARIO(cancel_and_resubmit_from_inside),
    SCENARIO(number_reused_within_a_batch),
    SCENARIO(closed_but_duplicated),
    SCENARIO(break_in_the_middle),
    SCENARIO(many_ready_at_once),
    SCENARIO(waits_never_end_early),
    SCENARIO(poll_descriptor),
    SCENARIO(pipes),
    SCENARIO(pipe_into),
    SCENARIO(bad_descriptors),
    SCENARIO(threads_in_turn),
    SCENARIO(close_unturned),
    SCENARIO(close_in_flight),
    SCENARIO(close_after_another_thread),
    SCENARIO(close_with_completions_left),
    SCENARIO(memory_runs_out),
    SCENARIO(refusal_has_a_reason),
};

static int count_fds(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static void run(size_t i) {
  size_t live, live_after;
  al_loop_stats stats;
  scenario_name = scenarios[i].name;
  al_mem_stats(&live, NULL);
  int fds = count_fds();
  CHECK(al_loop_new(&(al_loop_options){.machine = machine_name, .debug = true}, &loop, NULL) == 0);
  alarm(60);
  scenarios[i].run();
  al_loop_get_stats(loop, &stats);
  CHECK(stats.ops == 0);
  al_loop_release(loop);
  al_mem_stats(&live_after, NULL);
  CHECK(live == live_after);
  CHECK(fds == count_fds());
}

static int run_machine(const char *name, const char *only) {
  int n = 0;
  al_loop *probing;
  const char *reason = NULL;
  machine_name = name;
  int err = al_loop_new(&(al_loop_options){.machine = name}, &probing, &reason);
  if (err == AL_ENORING) {
    printf("no %s: %s\n", name, reason);
    return 0;
  }
  scenario_name = "al_loop_new";
  CHECK(err == 0);
  al_loop_release(probing);
  for (size_t i = 0; i < AL_COUNT(scenarios); i++) {
    if (only && strcmp(only, scenarios[i].name) != 0) continue;
    run(i);
    n++;
  }
  return n;
}

int main(int argc, char **argv) {
  static const char *const names[] = {"epoll", "poll", "select", "uring"};
  struct rlimit limit;
  int n = 0;
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = AL_MIN(limit.rlim_max, 4096);
  setrlimit(RLIMIT_NOFILE, &limit);
  for (size_t i = 0; i < AL_COUNT(names); i++)
    if (argc < 2 || !strcmp(argv[1], names[i])) n += run_machine(names[i], argc > 2 ? argv[2] : NULL);
  printf("ok %d tests\n", n);
  return 0;
}
