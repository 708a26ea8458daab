/* io_machines.c - the seam (core/io.h) from below: what each kind of op does, the same on each machine: epoll, poll,
 * select and the ring.
 *
 *   io_machines [machine [scenario]]     prints "ok N tests"
 *
 * SPDX-License-Identifier: MIT */
#include "io_probe.h"

/* ---- receiving --------------------------------------------------------------------------------------------------- */

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

/* The ring receives small pieces and bulk data in different ways; it must not show. */
static void recv_bulk_and_small(void) {
  static const size_t sizes[] = {10, 100000, 10, 10, 300000, 40000, 5000, 70000, 1};
  int fds[2];
  size_t sent = 0;
  tcp_pair(fds);
  probe reader = make_probe(AL_OP_RECV, fds[0]);
  CHECK(submit(&reader) == 0);
  for (size_t i = 0; i < 3 * AL_COUNT(sizes); i++) {
    size_t end = sent + sizes[i % AL_COUNT(sizes)];
    while (sent < end) {
      sent += put(fds[1], sent, end - sent);
      UNTIL(reader.bytes == sent);
    }
    if (i % 4 == 3) { /* pause and resume */
      cancel(&reader);
      UNTIL(reader.finals);
      CHECK(submit(&reader) == 0);
    }
  }
  close(fds[1]);
  UNTIL(reader.finals);
  CHECK(reader.result == 0 && reader.bytes == sent);
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

/* ---- sending ----------------------------------------------------------------------------------------------------- */

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

/* ---- accepting and connecting ------------------------------------------------------------------------------------ */

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

/* ---- polling ----------------------------------------------------------------------------------------------------- */

static void poll_is_level_triggered(void) {
  int fds[2];
  char byte;
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
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
  CHECK(submit(&watcher) == (on_machine("select") ? AL_EFDRANGE : -EBADF));
  CHECK(al_op_is_idle(&watcher.op) && !watcher.mores);
}

/* remove_reader, close, and another file under the same number, all between two waits. */
static void poll_number_changes_hands(void) {
  int old[2], new[2];
  CHECK(pipe2(old, O_NONBLOCK | O_CLOEXEC) == 0 && pipe2(new, O_NONBLOCK | O_CLOEXEC) == 0);
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
  CHECK(pipe2(old, O_NONBLOCK | O_CLOEXEC) == 0);
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
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
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

/* ---- other kinds of descriptors ---------------------------------------------------------------------------------- */

static void pipes(void) {
  int fds[2];
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
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
  CHECK(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
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

/* ---- the table --------------------------------------------------------------------------------------------------- */

const scenario scenarios[] = {
    SCENARIO(recv_until_end),
    SCENARIO(recv_data_before_arming),
    SCENARIO(recv_reset),
    SCENARIO(recv_into),
    SCENARIO(recv_bulk_and_small),
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
    SCENARIO(pipes),
    SCENARIO(pipe_into),
    SCENARIO(bad_descriptors),
};
const size_t n_scenarios = AL_COUNT(scenarios);

int main(int argc, char **argv) { return run_scenarios(argc, argv); }
