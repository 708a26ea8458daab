/* core_stream.c - tests of stream transports through aloop.h alone: echo, pausing, buffered protocols, ends of data,
 * water marks, names, keepers. How they end is core_stream_end.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

#include <sys/un.h>

static int family; /* of the pair under test */

static peer *new_peer(al_loop *loop, int fds[2], size_t buffer_size) {
  any_pair(family, fds);
  return peer_new_on(loop, fds[0], buffer_size);
}

/* ---- echo -------------------------------------------------------------------------------------------------------- */

static void echo(size_t size, size_t buffer_size) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, buffer_size);
  size_t sent = 0, received = 0;
  p->echo = true;
  int64_t limit_ns = al_time_ns() + 30000 * MS;
  for (int n = 0; received < size; n++) {
    CHECK(n < 100 * MIN_TURNS || al_time_ns() < limit_ns);
    raw_send(fds[1], &sent, size);
    raw_receive(fds[1], &received, SIZE_MAX);
    CHECK_EQ(al_loop_run_once(loop, received < size ? MS : 0), 0);
  }
  CHECK_EQ(p->received, size);
  CHECK(p->largest <= 256 * 1024);
  UNTIL(loop, al_transport_write_buffer_size(p->transport) == 0);
  shutdown(fds[1], SHUT_WR);
  raw_drain(loop, fds[1], &received, size);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK_EQ(p->error, 0);
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

static void test_echo(void) {
  static const size_t sizes[] = {1, 2, 1000, 4096, 65536, 65537, 1048577, 10485760};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) echo(sizes[i], 0);
}

static void test_echo_buffered(void) {
  static const size_t sizes[] = {1, 1000, 65537, 10485760};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    echo(sizes[i], 65536);
    echo(sizes[i], 1000003);
  }
}

static void test_one_byte_reads(void) { echo(3000, 1); }

/* What is written in one turn by many small writes arrives whole. */
static void test_many_writes(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  turns(loop, 1);
  while (written < 3000000) peer_write(p, &written, check_random() % 2000);
  CHECK(al_transport_write_buffer_size(p->transport) > 0);
  al_transport_close(p->transport);
  raw_drain(loop, fds[1], &received, written);
  close(fds[1]);
  PEER_END(loop, p, "MPRLC");
  end_loop(loop);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void test_made_then_data_then_lost(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  raw_send(fds[1], &sent, 5);
  CHECK(!peer_has(p, 'M')); /* not from inside al_stream_new */
  CHECK(al_transport_is_reading(p->transport));
  turns(loop, 1);
  CHECK(!strcmp(p->events, "M"));
  UNTIL(loop, p->received == 5);
  close(fds[1]);
  PEER_END(loop, p, "MdELC");
  end_loop(loop);
}

static void pause_at_made(peer *p, char event) {
  if (event == 'M') CHECK_EQ(al_transport_pause_reading(p->transport), 0);
}

static void test_pause_in_made(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  p->act = pause_at_made;
  raw_send(fds[1], &sent, 100);
  turns(loop, 5);
  CHECK(!strcmp(p->events, "M") && !al_transport_is_reading(p->transport));
  CHECK_EQ(p->busy, 0); /* waits for nothing */
  al_transport_resume_reading(p->transport);
  CHECK_EQ(p->busy, 1);
  CHECK(!strcmp(p->events, "M")); /* not from inside resume */
  UNTIL(loop, p->received == 100);
  al_transport_abort(p->transport);
  PEER_END(loop, p, "MdLC");
  close(fds[1]);
  end_loop(loop);
}

static void pause_at_data(peer *p, char event) {
  if (event != 'd') return;
  CHECK_EQ(al_transport_pause_reading(p->transport), 0);
  CHECK_EQ(al_transport_pause_reading(p->transport), 0);
  CHECK(!al_transport_is_reading(p->transport));
}

/* Pauses inside each data_received, with more in flight: nothing comes while paused, nothing is lost. */
static void pause_resume(size_t buffer_size) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, buffer_size);
  size_t sent = 0, size = 700000;
  p->act = pause_at_data;
  while (p->received < size) {
    size_t before = p->received;
    raw_send(fds[1], &sent, size);
    UNTIL(loop, p->received > before);
    before = p->received;
    raw_send(fds[1], &sent, size);
    turns(loop, (int)(check_random() % 3));
    CHECK_EQ(p->received, before);
    if (check_random() % 3 == 0) { /* back and forth within a turn */
      al_transport_resume_reading(p->transport);
      al_transport_pause_reading(p->transport);
      turns(loop, 2);
      CHECK_EQ(p->received, before);
    }
    al_transport_resume_reading(p->transport);
    al_transport_resume_reading(p->transport);
    CHECK(al_transport_is_reading(p->transport));
    CHECK_EQ(p->received, before);
  }
  close(fds[1]);
  PEER_END(loop, p, "MdELC");
  end_loop(loop);
}

static void test_pause_resume(void) { pause_resume(0); }
static void test_pause_resume_buffered(void) {
  pause_resume(1 << 20);
  pause_resume(4999);
}

/* The end of data, and a reset, wait for resume. */
static void end_while_paused(bool reset) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  p->act = pause_at_data;
  raw_send(fds[1], &sent, 1000);
  UNTIL(loop, p->received > 0);
  if (reset)
    raw_reset(fds[1]);
  else
    close(fds[1]);
  turns(loop, 5);
  CHECK(!strcmp(p->events, "Md"));
  p->act = NULL;
  al_transport_resume_reading(p->transport);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK(!strcmp(p->events, reset ? "MdLC" : "MdELC"));
  CHECK_EQ(p->error, reset && family == AF_INET ? -ECONNRESET : p->error);
  peer_free(p);
  end_loop(loop);
}

static void test_eof_while_paused(void) { end_while_paused(false); }
static void test_reset_while_paused(void) {
  if (family == AF_INET) end_while_paused(true);
}

/* ---- protocols exchanged in the middle --------------------------------------------------------------------------- */

/* Changes kind and buffer size at each event that may; inside get_buffer the buffer that was just asked for must
 * stay. */
static void change_kind(peer *p, char event) {
  static const size_t sizes[] = {0, 777, 0, 100000, 1, 5000};
  static size_t next;
  if (event == 'd')
    peer_set_buffer(p, sizes[next++ % 6]);
  else if (event == 'g' && p->asked % 3 == 0)
    p->protocol.ops = &stream_ops;
  else if (event != 'g' || p->asked % 3 == 1)
    return;
  al_transport_set_protocol(p->transport, &p->protocol);
}

static void test_set_protocol(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  CHECK(al_transport_protocol(p->transport) == &p->protocol);
  p->act = change_kind;
  while (sent < 300000) {
    raw_send(fds[1], &sent, sent + 1 + check_random() % 20000);
    UNTIL(loop, p->received == sent);
  }
  p->act = NULL;
  close(fds[1]);
  PEER_END(loop, p, "MdELC");
  end_loop(loop);
}

/* A second protocol gets what comes after; it gets no connection_made. */
static void test_second_protocol(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  peer second = {.protocol.ops = &stream_ops, .transport = p->transport, .events = "M", .received = 10};
  size_t sent = 0;
  raw_send(fds[1], &sent, 10);
  UNTIL(loop, p->received == 10);
  al_transport_set_protocol(p->transport, &second.protocol);
  raw_send(fds[1], &sent, 20);
  UNTIL(loop, second.received == 20);
  al_transport_set_protocol(p->transport, NULL); /* nobody listens */
  raw_send(fds[1], &sent, 30);
  turns(loop, 3);
  al_transport_set_protocol(p->transport, &second.protocol);
  close(fds[1]);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK(!strcmp(p->events, "MdC") && !strcmp(second.events, "MdEL"));
  CHECK(!al_transport_protocol(p->transport) && !al_transport_loop(p->transport));
  peer_free(p);
  end_loop(loop);
}

/* ---- ends of data ------------------------------------------------------------------------------------------------ */

/* We end first; what the other end says then is still received. */
static void test_write_eof(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0, sent = 0;
  CHECK(al_transport_can_write_eof(p->transport));
  turns(loop, 1);
  peer_write(p, &written, 5000000);
  CHECK(al_transport_write_buffer_size(p->transport) > 0);
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  CHECK_EQ(al_transport_write(p->transport, "x", 1, NULL, NULL), -EPIPE);
  CHECK(!al_transport_is_closing(p->transport));
  raw_drain(loop, fds[1], &received, written); /* to the end of data */
  raw_send(fds[1], &sent, 1000);
  UNTIL(loop, p->received == 1000);
  close(fds[1]);
  PEER_END(loop, p, "MPRdELC");
  end_loop(loop);
}

static void test_write_eof_at_once(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t received = 0;
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  CHECK(!raw_receive(fds[1], &received, 1));
  al_transport_close(p->transport);
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  close(fds[1]);
  PEER_END(loop, p, "MLC");
  end_loop(loop);
}

/* The other end ends first; we go on writing. */
static void test_keep_open(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  p->keep_open = true;
  shutdown(fds[1], SHUT_WR);
  UNTIL(loop, peer_has(p, 'E'));
  CHECK(!al_transport_is_closing(p->transport) && al_transport_is_reading(p->transport));
  CHECK_EQ(p->busy, 0);
  al_transport_pause_reading(p->transport); /* and back: eof_received comes once */
  al_transport_resume_reading(p->transport);
  turns(loop, 3);
  CHECK(!peer_has(p, 'L'));
  peer_write(p, &written, 3000000);
  CHECK_EQ(p->busy, 1);
  al_transport_close(p->transport);
  raw_drain(loop, fds[1], &received, written);
  close(fds[1]);
  PEER_END(loop, p, "MEPRLC");
  end_loop(loop);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void test_write_immediate(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  peer_write(p, &written, 100); /* before connection_made, and before any turn */
  CHECK_EQ(al_transport_write_buffer_size(p->transport), 0);
  CHECK_EQ(al_transport_write(p->transport, "", 0, NULL, NULL), 0);
  raw_receive(fds[1], &received, SIZE_MAX);
  CHECK_EQ(received, 100);
  al_transport_close(p->transport);
  PEER_END(loop, p, "MLC");
  close(fds[1]);
  end_loop(loop);
}

static void check_limits(peer *p, size_t high, size_t low, int err, size_t is_low, size_t is_high) {
  CHECK_EQ(al_transport_set_limits(p->transport, high, low), err);
  size_t l, h;
  al_transport_get_limits(p->transport, &l, &h);
  CHECK_EQ(l, is_low);
  CHECK_EQ(h, is_high);
}

static void check_resume(peer *p, char event) {
  size_t low, high;
  al_transport_get_limits(p->transport, &low, &high);
  if (event == 'R') CHECK(al_transport_write_buffer_size(p->transport) <= low);
  if (event == 'P') CHECK(al_transport_write_buffer_size(p->transport) > high);
}

/* Drains the other end until the transport says that it may go on. */
static void drain_until_resumed(al_loop *loop, peer *p, int fd, size_t *received) {
  size_t low, high;
  al_transport_get_limits(p->transport, &low, &high);
  p->act = check_resume;
  while (p->paused) {
    CHECK(al_transport_write_buffer_size(p->transport) > low); /* resumed as soon as it is */
    raw_receive(fd, received, 10000);
    turns(loop, 1);
  }
}

static void test_water_marks(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  turns(loop, 1);
  check_limits(p, SIZE_MAX, SIZE_MAX, 0, 16384, 65536);
  check_limits(p, 10, SIZE_MAX, 0, 2, 10);
  check_limits(p, SIZE_MAX, 10, 0, 10, 40);
  check_limits(p, 0, SIZE_MAX, 0, 0, 0);
  check_limits(p, 1, 2, -EINVAL, 0, 0);
  check_limits(p, (size_t)1 << 40, SIZE_MAX, 0, (size_t)1 << 38, (size_t)1 << 40);
  while (al_transport_write_buffer_size(p->transport) < 50000) { /* until the kernel has all that it takes */
    peer_write(p, &written, 100000);
    turns(loop, 3);
  }
  size_t size = al_transport_write_buffer_size(p->transport);
  check_limits(p, size + 10, 5000, 0, 5000, size + 10);
  peer_write(p, &written, 10);
  CHECK_EQ(al_transport_write_buffer_size(p->transport), size + 10);
  CHECK(!p->paused);
  peer_write(p, &written, 1);
  CHECK(p->paused); /* from inside write, above the mark */
  peer_write(p, &written, 1000);
  check_limits(p, (size_t)1 << 30, 6000, 0, 6000, (size_t)1 << 30); /* doesn't resume */
  CHECK(p->paused);
  drain_until_resumed(loop, p, fds[1], &received);
  peer_write(p, &written, 1000000);
  CHECK(!p->paused && al_transport_write_buffer_size(p->transport) > 100);
  check_limits(p, 100, 0, 0, 0, 100); /* pauses at once */
  CHECK(p->paused);
  drain_until_resumed(loop, p, fds[1], &received);
  CHECK_EQ(al_transport_write_buffer_size(p->transport), 0);
  al_transport_close(p->transport);
  raw_drain(loop, fds[1], &received, written);
  close(fds[1]);
  PEER_END(loop, p, "MPRPRLC");
  end_loop(loop);
}

static void write_when_resumed(peer *p, char event) {
  if (event == 'R' && *(size_t *)p->arg < 2000000) peer_write(p, p->arg, 100000);
}

/* resume_writing may write, so much that writing is paused again. */
static void test_write_in_resume(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  CHECK_EQ(al_transport_set_limits(p->transport, 20000, 0), 0);
  p->act = write_when_resumed;
  p->arg = &written;
  turns(loop, 1);
  peer_write(p, &written, 400000);
  while (received < 2000000) {
    raw_receive(fds[1], &received, SIZE_MAX);
    turns(loop, 1);
    if (!p->paused && written < 2000000) peer_write(p, &written, 100000);
    p->events[1] = '\0'; /* they would not fit */
  }
  al_transport_close(p->transport);
  raw_drain(loop, fds[1], &received, written);
  close(fds[1]);
  UNTIL(loop, peer_has(p, 'C'));
  peer_free(p);
  end_loop(loop);
}

/* ---- keepers ----------------------------------------------------------------------------------------------------- */

static int kept, unkept;
static bool refuse;

static void *keep(void *ud, const char *data, size_t len) {
  (void)len;
  CHECK(ud == &kept && data);
  if (refuse) return NULL;
  kept++;
  return (void *)data;
}

static void unkeep(void *token) {
  CHECK(token);
  unkept++;
}

static const al_keeper keeper = {keep, unkeep};

static void test_keeper(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t received = 0, written = 0;
  kept = unkept = 0;
  turns(loop, 1);
  for (int i = 0; i < 40; i++, written += PATTERN_SIZE) {
    refuse = i % 4 == 0;
    CHECK_EQ(al_transport_write(p->transport, pattern_at(written), PATTERN_SIZE, &keeper, &kept), 0);
  }
  CHECK(kept > 0 && unkept == 0);
  for (int i = 0; i < 10; i++, written++) /* small ones are copied */
    CHECK_EQ(al_transport_write(p->transport, pattern_at(written), 1, &keeper, &kept), 0);
  CHECK(kept < 40);
  while (unkept == 0) {
    raw_receive(fds[1], &received, 50000);
    turns(loop, 1);
  }
  CHECK(unkept < kept);
  al_transport_close(p->transport);
  raw_drain(loop, fds[1], &received, written);
  CHECK_EQ(unkept, kept);
  close(fds[1]);
  PEER_END(loop, p, "MPRLC");
  end_loop(loop);
}

static void test_keeper_aborted(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  kept = unkept = 0;
  refuse = false;
  turns(loop, 1);
  for (int i = 0; i < 40; i++)
    CHECK_EQ(al_transport_write(p->transport, pattern_at(0), PATTERN_SIZE, &keeper, &kept), 0);
  turns(loop, 1);
  al_transport_abort(p->transport);
  CHECK_EQ(al_transport_write_buffer_size(p->transport), 0);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK_EQ(unkept, kept);
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

/* ---- names and descriptors --------------------------------------------------------------------------------------- */

static void test_names(void) {
  al_loop *loop = new_loop();
  al_addr addr, peer_addr = {0}, local_addr = {0};
  int fds[2], value;
  tcp_pair(fds);
  int fd = fds[0];
  addr.len = sizeof(addr.ss);
  CHECK_EQ(getsockname(fds[1], (struct sockaddr *)&addr.ss, &addr.len), 0);
  peer *p = peer_new_on(loop, fd, 0);
  CHECK_EQ(al_transport_fd(p->transport), fd);
  CHECK(al_fd_transport(loop, fd) == p->transport && !al_fd_transport(loop, fds[1]) && !al_fd_transport(loop, -1));
  CHECK(!al_fd_transport(loop, 100000));
  socklen_t len = sizeof(value);
  CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
  CHECK(value != 0);
  CHECK_EQ(al_transport_peername(p->transport, &peer_addr), 0);
  CHECK(peer_addr.len == addr.len && !memcmp(&peer_addr.ss, &addr.ss, addr.len));
  turns(loop, 1);
  al_transport_close(p->transport);
  CHECK(!al_fd_transport(loop, fd)); /* no longer live */
  UNTIL(loop, peer_has(p, 'C'));
  CHECK(fcntl(fd, F_GETFD) < 0);
  memset(&peer_addr, 0, sizeof(peer_addr));
  CHECK_EQ(al_transport_peername(p->transport, &peer_addr), 0); /* still */
  CHECK(peer_addr.len == addr.len && !memcmp(&peer_addr.ss, &addr.ss, addr.len));
  addr.len = sizeof(addr.ss);
  CHECK_EQ(getpeername(fds[1], (struct sockaddr *)&addr.ss, &addr.len), 0);
  CHECK_EQ(al_transport_sockname(p->transport, &local_addr), 0); /* asked for the first time */
  CHECK(local_addr.len == addr.len && !memcmp(&local_addr.ss, &addr.ss, addr.len));
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

static void test_long_name(void) {
  al_loop *loop = new_loop();
  al_addr addr, found;
  char path[100];
  int fds[2];
  memset(path, 'x', sizeof(path));
  CHECK_EQ(al_addr_unix(&addr, path, sizeof(path)), 0);
  make_pair(fds);
  peer *p = calloc(1, sizeof(*p));
  peer_set_buffer(p, 0);
  CHECK_EQ(al_stream_new(loop, fds[0], &addr, &p->protocol, NULL, &p->transport), 0);
  al_transport_abort(p->transport);
  while (al_transport_fd(p->transport) >= 0) turns(loop, 1);
  CHECK_EQ(al_transport_peername(p->transport, &found), 0);
  CHECK(found.len == addr.len && !memcmp(&found.ss, &addr.ss, addr.len));
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

static void test_started(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = calloc(1, sizeof(*p));
  step started;
  trace_clear();
  step_init(&started, 's', NULL, NULL);
  make_pair(fds);
  peer_set_buffer(p, 0);
  CHECK_EQ(al_stream_new(loop, fds[0], NULL, &p->protocol, &started.handle, &p->transport), 0);
  CHECK_EQ(send(fds[1], "x", 1, 0), 1);
  turns(loop, 1);
  CHECK(!strcmp(p->events, "M"));
  CHECK_TRACE("s");
  al_transport_abort(p->transport);
  while (al_transport_fd(p->transport) >= 0) turns(loop, 1);
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

static void run_family(void) {
  RUN_CLEAN(test_echo);
  RUN_CLEAN(test_echo_buffered);
  RUN_CLEAN(test_one_byte_reads);
  RUN_CLEAN(test_many_writes);
  RUN_CLEAN(test_made_then_data_then_lost);
  RUN_CLEAN(test_pause_in_made);
  RUN_CLEAN(test_pause_resume);
  RUN_CLEAN(test_pause_resume_buffered);
  RUN_CLEAN(test_eof_while_paused);
  RUN_CLEAN(test_reset_while_paused);
  RUN_CLEAN(test_set_protocol);
  RUN_CLEAN(test_second_protocol);
  RUN_CLEAN(test_write_eof);
  RUN_CLEAN(test_write_eof_at_once);
  RUN_CLEAN(test_keep_open);
  RUN_CLEAN(test_write_immediate);
  RUN_CLEAN(test_water_marks);
  RUN_CLEAN(test_write_in_resume);
  RUN_CLEAN(test_keeper);
  RUN_CLEAN(test_keeper_aborted);
}

static void run_tests(void) {
  family = AF_UNIX;
  run_family();
  family = AF_INET;
  run_family();
  RUN_CLEAN(test_names);
  RUN_CLEAN(test_long_name);
  RUN_CLEAN(test_started);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
