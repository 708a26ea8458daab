/* core_pipe.c - tests of pipe transports, of sendfile over sockets and transports, and of waiting for a descriptor
 * once: in a program that leaves SIGPIPE alone, with and without memory, through the end of the loop.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

static void quiet(void *ud, al_log_level level, const char *message, const char *category) {
  (void)ud, (void)level, (void)message, (void)category;
}

typedef int pipe_maker(al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **transport);

static peer *pipe_peer(al_loop *loop, pipe_maker *make, int fd) {
  peer *p = calloc(1, sizeof(*p));
  p->busy = -1;
  peer_set_buffer(p, 0);
  CHECK_EQ(make(loop, fd, &p->protocol, NULL, &p->transport), 0);
  al_transport_set_owner(p->transport, &peer_owner, p);
  return p;
}

static void make_pipe(int fds[2]) { CHECK_EQ(pipe2(fds, O_CLOEXEC), 0); }

/* ---- pipes ------------------------------------------------------------------------------------------------------- */

static void test_through(void) {
  al_loop *loop = new_loop();
  int fds[2];
  size_t written = 0;
  make_pipe(fds);
  peer *r = pipe_peer(loop, al_pipe_reader_new, fds[0]), *w = pipe_peer(loop, al_pipe_writer_new, fds[1]);
  r->keep_open = true; /* a reader closes all the same */
  turns(loop, 2);
  CHECK(fcntl(fds[0], F_GETFL) & O_NONBLOCK && fcntl(fds[1], F_GETFL) & O_NONBLOCK);
  peer_write(w, &written, 1000000);
  CHECK_EQ(al_transport_write(r->transport, "x", 1, NULL, NULL), -ENOTSUP);
  CHECK_EQ(al_transport_write_eof(r->transport), -ENOTSUP);
  CHECK_EQ(al_transport_write_eof(w->transport), 0);
  CHECK(al_transport_is_closing(w->transport));
  CHECK_EQ(al_transport_write(w->transport, "dropped", 7, NULL, NULL), 0);
  UNTIL(loop, peer_has(r, 'C'));
  CHECK_EQ(r->received, written);
  CHECK_EQ(r->error, 0);
  CHECK_EQ(w->error, 0);
  PEER_END(loop, w, "MPRLC");
  PEER_END(loop, r, "MdELC");
  end_loop(loop);
}

/* The reader goes: the program lives, though it does nothing about SIGPIPE. */
static void test_reader_gone(void) {
  for (int unsent = 0; unsent <= 2; unsent++) {
    al_loop *loop = new_loop();
    int fds[2];
    size_t written = 0;
    make_pipe(fds);
    peer *w = pipe_peer(loop, al_pipe_writer_new, fds[1]);
    turns(loop, 2);
    if (unsent == 1) peer_write(w, &written, 200000);
    close(fds[0]);
    if (unsent == 2) peer_write(w, &written, 1);
    UNTIL(loop, peer_has(w, 'L'));
    CHECK_EQ(w->error, unsent ? -EPIPE : 0);
    PEER_END(loop, w, unsent == 1 ? "MPLC" : "MLC");
    end_loop(loop);
  }
}

static void test_refused(void) {
  al_loop *loop = new_loop();
  al_transport *t;
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(al_pipe_reader_new(loop, fd, NULL, NULL, &t), -EINVAL);
  CHECK_EQ(al_pipe_writer_new(loop, fd, NULL, NULL, &t), -EINVAL);
  close(fd);
  CHECK_EQ(al_pipe_reader_new(loop, fd, NULL, NULL, &t), -EBADF);
  end_loop(loop);
}

static void test_loop_close(void) {
  al_loop *loop = new_loop();
  int fds[2];
  size_t written = 0;
  make_pipe(fds);
  peer *r = pipe_peer(loop, al_pipe_reader_new, fds[0]), *w = pipe_peer(loop, al_pipe_writer_new, fds[1]);
  turns(loop, 1);
  peer_write(w, &written, 200000);
  CHECK_EQ(al_loop_close(loop), 0);
  peer_free(r);
  peer_free(w);
  al_loop_release(loop);
}

/* ---- sendfile ---------------------------------------------------------------------------------------------------- */

#define FILE_SIZE ((size_t)PATTERN_PERIOD * 100)

static int new_file(void) {
  char path[] = "/tmp/core_pipe.XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  unlink(path);
  for (size_t at = 0; at < FILE_SIZE; at += PATTERN_PERIOD)
    CHECK_EQ(write(fd, pattern_at(0), PATTERN_PERIOD), PATTERN_PERIOD);
  return fd;
}

typedef struct outcome {
  int calls, error;
  int64_t sent;
} outcome;

static void note_outcome(void *data, int error, int64_t sent) {
  outcome *o = data;
  o->calls++;
  o->error = error;
  o->sent = sent;
}

static void test_sendfile(void) {
  al_loop *loop = new_loop();
  int fds[2], file = new_file();
  size_t received = 0;
  al_sendfile *request;
  outcome o = {0, 0, 0};
  make_pair(fds);
  CHECK_EQ(al_sendfile_start(loop, fds[0], &(al_sendfile_what){file, 0, -1}, &o, note_outcome, &request, &o.sent), 0);
  CHECK(request && !o.calls);
  while (!o.calls) {
    raw_receive(fds[1], &received, 100000);
    CHECK_EQ(al_loop_run_once(loop, 0), 0);
  }
  CHECK(o.calls == 1 && o.error == 0 && o.sent == (int64_t)FILE_SIZE);
  close(fds[0]);
  raw_receive(fds[1], &received, SIZE_MAX);
  CHECK_EQ(received, FILE_SIZE);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), (off_t)FILE_SIZE); /* where writing it had left it */
  close(fds[1]), close(file);
  end_loop(loop);
}

static void test_sendfile_fails(void) {
  al_loop *loop = new_loop();
  int fds[2], ends[2], file = new_file();
  al_sendfile *request;
  outcome o = {0, 0, 0};
  make_pair(fds), make_pipe(ends);
  al_sendfile_what no_file = {ends[0], 0, -1}, what = {file, 0, -1};
  CHECK_EQ(al_sendfile_start(loop, fds[0], &no_file, &o, note_outcome, &request, &o.sent), -ENOTSUP);
  CHECK(!request);
  CHECK_EQ(al_sendfile_start(loop, fds[0], &what, &o, note_outcome, &request, &o.sent), 0);
  close(fds[1]);
  UNTIL(loop, o.calls);
  CHECK(o.calls == 1 && o.error == -EPIPE && o.sent > 0);
  CHECK_EQ(al_sendfile_start(loop, fds[0], &what, &o, note_outcome, &request, &o.sent), -EPIPE);
  CHECK(!request && o.sent == 0);
  close(fds[0]), close(ends[0]), close(ends[1]), close(file);
  end_loop(loop);
}

/* How a sendfile over a transport may end before it is done. */
enum { BY_CANCEL, BY_CLOSE, BY_ABORT, BY_LOOP, WAYS };

static void end_by(int way, al_loop *loop, peer *p, al_sendfile *request) {
  switch (way) {
  case BY_CANCEL: CHECK(al_sendfile_cancel(request) >= 0); break;
  case BY_CLOSE: al_transport_close(p->transport); break;
  case BY_ABORT: al_transport_abort(p->transport); break;
  default: CHECK_EQ(al_loop_close(loop), 0);
  }
}

static void sendfile_ends(int way, size_t before) {
  al_loop *loop = new_loop();
  int fds[2], file = new_file();
  size_t written = 0, received = 0;
  al_sendfile *request;
  outcome o = {0, 0, 0};
  al_sendfile_what what = {file, 0, -1};
  make_pair(fds);
  peer *p = peer_new_on(loop, fds[0], 0);
  CHECK_EQ(al_transport_sendfile(p->transport, &what, &o, note_outcome, &request, &o.sent), -ENOTCONN);
  turns(loop, 2);
  peer_write(p, &written, before);
  CHECK_EQ(al_transport_sendfile(p->transport, &what, &o, note_outcome, &request, &o.sent), 0);
  CHECK(request && !al_transport_is_reading(p->transport));
  CHECK_EQ(al_transport_write(p->transport, "x", 1, NULL, NULL), -EBUSY);
  CHECK_EQ(al_transport_sendfile(p->transport, &what, &o, note_outcome, &(al_sendfile *){NULL}, &o.sent), -EBUSY);
  turns(loop, 3);
  end_by(way, loop, p, request);
  if (way == BY_CANCEL) {
    CHECK(al_transport_is_reading(p->transport));
    turns(loop, 3);
    al_transport_abort(p->transport);
  }
  if (way != BY_LOOP) {
    UNTIL(loop, way == BY_CANCEL || o.calls);
    if (way == BY_CLOSE) raw_receive(fds[1], &received, before); /* what was written before still goes */
    UNTIL(loop, peer_has(p, 'C') || (way == BY_CLOSE && (raw_receive(fds[1], &received, SIZE_MAX), false)));
  }
  CHECK_EQ(o.calls, way == BY_CANCEL || way == BY_LOOP ? 0 : 1);
  if (o.calls) CHECK_EQ(o.error, -ESHUTDOWN);
  peer_free(p);
  close(fds[1]), close(file);
  if (way == BY_LOOP)
    al_loop_release(loop);
  else
    end_loop(loop);
}

static void test_sendfile_ends(void) {
  for (int way = 0; way < WAYS; way++) {
    sendfile_ends(way, 0);
    sendfile_ends(way, way == BY_CLOSE ? 0 : 1000000);
  }
}

static void test_feed(void) {
  al_loop *loop = new_loop();
  int fds[2];
  size_t received = 0;
  al_sendfile *feed;
  outcome o = {0, 0, 0};
  make_pair(fds);
  peer *p = peer_new_on(loop, fds[0], 0);
  turns(loop, 2);
  CHECK_EQ(al_feed_new(p->transport, &feed), 0);
  CHECK_EQ(al_feed_new(p->transport, &(al_sendfile *){NULL}), -EBUSY);
  CHECK_EQ(al_feed_wait(feed, &o, note_outcome), 1);
  for (int i = 0; i < 10; i++) CHECK_EQ(al_feed_write(feed, pattern_at(0), PATTERN_PERIOD), 0);
  CHECK_EQ(al_feed_wait(feed, &o, note_outcome), 0);
  UNTIL(loop, (raw_receive(fds[1], &received, SIZE_MAX), o.calls));
  CHECK(o.error == 0 && received <= PATTERN_PERIOD * 10);
  al_transport_close(p->transport);
  CHECK_EQ(al_feed_write(feed, "x", 1), -ESHUTDOWN);
  CHECK_EQ(al_feed_wait(feed, &o, note_outcome), -ESHUTDOWN);
  al_feed_free(feed);
  PEER_END(loop, p, "MPRLC");
  close(fds[1]);
  end_loop(loop);
}

/* ---- without memory ---------------------------------------------------------------------------------------------- */

/* The allocation after the next n fails. False: none did. */
static bool without_memory(long n) {
  al_loop *loop = new_loop();
  int fds[2], ends[2], file = new_file();
  peer *p = calloc(1, sizeof(*p));
  outcome o = {0, 0, 0};
  step r;
  al_sendfile *request = NULL;
  make_pair(fds), make_pipe(ends);
  p->busy = -1;
  peer_set_buffer(p, 0);
  bool failing = al_mem_fail_after(n);
  int waits = al_wait_readable(loop, fds[1], &step_init(&r, 'r', NULL, NULL)->handle, NULL);
  int made = al_pipe_writer_new(loop, ends[1], &p->protocol, NULL, &p->transport);
  al_sendfile_what what = {file, 0, -1};
  int sends = al_sendfile_start(loop, fds[0], &what, &o, note_outcome, &request, &o.sent);
  CHECK((waits == 0 || waits == -ENOMEM) && (made == 0 || made == -ENOMEM) && (sends == 0 || sends == -ENOMEM));
  if (made) close(ends[1]);
  if (!made) turns(loop, 2);
  al_mem_fail_after(-1);
  if (request) al_sendfile_cancel(request);
  al_remove_reader(loop, fds[1]);
  if (!made) al_transport_abort(p->transport);
  turns(loop, 3);
  if (!made) al_transport_release(p->transport);
  close(fds[0]), close(fds[1]), close(ends[0]), close(file);
  free(p->buffer);
  free(p);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  for (long n = 0; n < 12 && without_memory(n); n++) continue;
}

/* ---- waiting once ------------------------------------------------------------------------------------------------ */

static void test_wait_once(void) {
  al_loop *loop = new_loop();
  al_handle *old;
  step a, b;
  int fds[2];
  make_pair(fds);
  step_init(&a, 'a', NULL, NULL), step_init(&b, 'b', NULL, NULL);
  for (int i = 0; i < 3; i++) {
    trace_clear();
    CHECK_EQ(al_wait_readable(loop, fds[0], &a.handle, &old), 0);
    CHECK(!old);
    turns(loop, 2);
    CHECK_TRACE("");
    put_byte(fds[1]);
    turns_until(loop, "a");
    turns(loop, 3);
    CHECK_TRACE("a"); /* once, though there still is something to read */
    CHECK(!al_remove_reader(loop, fds[0]));
    char byte;
    CHECK_EQ(read(fds[0], &byte, 1), 1);
  }
  /* One takes the other's place; readers and writers know nothing of each other. */
  CHECK_EQ(al_wait_readable(loop, fds[0], &a.handle, &old), 0);
  CHECK_EQ(al_wait_writable(loop, fds[0], &b.handle, &old), 0);
  turns_until(loop, "ab");
  CHECK_EQ(al_wait_readable(loop, fds[0], &b.handle, &old), 0);
  CHECK(old == &a.handle);
  CHECK_EQ(al_add_reader(loop, fds[0], &a.handle, &old), 0);
  CHECK(old == &b.handle);
  CHECK_EQ(al_wait_readable(loop, fds[0], &b.handle, &old), 0);
  CHECK(old == &a.handle && al_remove_reader(loop, fds[0]) == &b.handle);
  /* The number comes back as another file while somebody waits for the former one. */
  CHECK_EQ(al_wait_readable(loop, fds[0], &a.handle, &old), 0);
  turns(loop, 1);
  int number = fds[0];
  close(fds[0]), close(fds[1]);
  make_pair(fds);
  CHECK(fds[0] == number);
  CHECK_EQ(al_wait_readable(loop, fds[0], &b.handle, &old), 0);
  CHECK(old == &a.handle);
  trace_clear();
  put_byte(fds[1]);
  turns_until(loop, "b");
  close(fds[0]), close(fds[1]);
  CHECK_EQ(al_wait_readable(loop, number, &a.handle, NULL), strcmp(machine, "uring") ? -EBADF : 0);
  turns(loop, 3); /* the ring says so later */
  CHECK_TRACE(strcmp(machine, "uring") ? "b" : "ba");
  end_loop(loop);
}

static void run_tests(void) {
  al_set_log(quiet, NULL);
  RUN_CLEAN(test_through);
  RUN_CLEAN(test_reader_gone);
  RUN_CLEAN(test_refused);
  RUN_CLEAN(test_loop_close);
  RUN_CLEAN(test_sendfile);
  RUN_CLEAN(test_sendfile_fails);
  RUN_CLEAN(test_sendfile_ends);
  RUN_CLEAN(test_feed);
  RUN_CLEAN(test_without_memory);
  RUN_CLEAN(test_wait_once);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
