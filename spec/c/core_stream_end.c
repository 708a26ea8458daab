/* core_stream_end.c - tests of how stream transports end: close, abort and errors in every mix and from inside every
 * callback, resets, peers that never read, loops that close or break in the middle, lack of memory.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

static int family; /* of the pair under test */

static peer *new_peer(al_loop *loop, int fds[2], size_t buffer_size) {
  any_pair(family, fds);
  return peer_new_on(loop, fds[0], buffer_size);
}

/* Writes until the other end, which doesn't read, takes no more. */
static void fill(al_loop *loop, peer *p, size_t *written) {
  turns(loop, 1);
  while (al_transport_write_buffer_size(p->transport) < 100000) {
    peer_write(p, written, 100000);
    turns(loop, 3);
  }
}

/* ---- logs -------------------------------------------------------------------------------------------------------- */

static int warnings, debug_lines;

static void count_log(void *ud, al_log_level level, const char *message, const char *category) {
  (void)ud;
  (void)category;
  if (level == AL_LOG_DEBUG) debug_lines++;
  if (level == AL_LOG_WARNING) {
    CHECK(!strcmp(message, "socket.send() raised exception."));
    warnings++;
  }
}

/* ---- close and abort --------------------------------------------------------------------------------------------- */

/* close() stops reading at once, flushes, and comes from a later turn. */
static void test_close_flushes(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0, sent = 0;
  fill(loop, p, &written);
  if (family == AF_UNIX) raw_send(fds[1], &sent, 100); /* TCP would answer with a reset, which overtakes data */
  al_transport_close(p->transport);
  al_transport_close(p->transport);
  CHECK(al_transport_is_closing(p->transport) && !al_transport_is_reading(p->transport));
  CHECK_EQ(al_transport_resume_reading(p->transport), 0);
  turns(loop, 5);
  CHECK(!strcmp(p->events, "MP")); /* neither data nor loss while something is unsent */
  peer_write(p, &written, 1000);   /* as asyncio: it still counts */
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  raw_drain(loop, fds[1], &received, written);
  close(fds[1]);
  CHECK_EQ(p->error, 0);
  PEER_END(loop, p, "MPRLC");
  end_loop(loop);
}

static void test_close_is_later(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  turns(loop, 2);
  al_transport_close(p->transport);
  al_transport_abort(p->transport);
  al_transport_fail(p->transport, -EIO);
  CHECK(!peer_has(p, 'L'));
  CHECK_EQ(p->error, 0);
  PEER_END(loop, p, "MLC");
  close(fds[1]);
  end_loop(loop);
}

/* The first thing that happens: connection_made still comes first. */
static void test_abort_before_made(void) {
  al_loop *loop = new_loop();
  int fds[2];
  size_t sent = 0;
  peer *p = new_peer(loop, fds, 0);
  raw_send(fds[1], &sent, 100);
  al_transport_abort(p->transport);
  PEER_END(loop, p, "MLC");
  close(fds[1]);
  end_loop(loop);
}

static void test_abort_drops(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0, received = 0;
  fill(loop, p, &written);
  al_transport_abort(p->transport);
  CHECK_EQ(al_transport_write_buffer_size(p->transport), 0);
  PEER_END(loop, p, "MPLC");
  while (raw_receive(fds[1], &received, 1)) continue;
  CHECK(received < written);
  close(fds[1]);
  end_loop(loop);
}

/* A peer that never reads: close() waits for it, abort() doesn't. */
static void test_close_then_abort(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0;
  fill(loop, p, &written);
  al_transport_close(p->transport);
  turns(loop, 5);
  CHECK(!peer_has(p, 'L'));
  al_transport_abort(p->transport);
  PEER_END(loop, p, "MPLC");
  close(fds[1]);
  end_loop(loop);
}

static void test_fail(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  turns(loop, 2);
  al_transport_fail(p->transport, AL_EPROTOCOL);
  al_transport_fail(p->transport, -EIO);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK_EQ(p->error, AL_EPROTOCOL);
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

/* Writes after the loss are dropped, and from the fifth on there is a warning each. */
static void test_lost_writes(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  warnings = 0;
  turns(loop, 2);
  al_transport_close(p->transport);
  for (int i = 1; i <= 7; i++) {
    CHECK_EQ(al_transport_write(p->transport, "x", 1, NULL, NULL), 0);
    CHECK_EQ(warnings, i < 5 ? 0 : i - 4);
  }
  UNTIL(loop, peer_has(p, 'C'));
  CHECK_EQ(al_transport_write(p->transport, "x", 1, NULL, NULL), 0); /* the transport is still an object */
  CHECK_EQ(warnings, 4);
  al_transport_close(p->transport);
  al_transport_abort(p->transport);
  CHECK_EQ(al_transport_pause_reading(p->transport), 0);
  CHECK_EQ(al_transport_write_eof(p->transport), 0);
  CHECK_EQ(al_transport_set_limits(p->transport, 1, 1), 0);
  al_transport_set_protocol(p->transport, &p->protocol);
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

/* ---- what the other end does ------------------------------------------------------------------------------------- */

static void test_reset_while_reading(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  turns(loop, 2);
  raw_reset(fds[1]);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK_EQ(p->error, family == AF_INET ? -ECONNRESET : 0);
  CHECK(!strcmp(p->events, family == AF_INET ? "MLC" : "MELC"));
  peer_free(p);
  end_loop(loop);
}

/* In the middle of a write, with and without reading at the same time. */
static void reset_while_writing(bool paused) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t written = 0;
  if (paused) al_transport_pause_reading(p->transport);
  if (paused) turns(loop, 1), al_transport_resume_reading(p->transport), al_transport_pause_reading(p->transport);
  if (paused) p->keep_open = true;
  fill(loop, p, &written);
  al_loop_set_debug(loop, true);
  debug_lines = 0;
  raw_reset(fds[1]);
  UNTIL(loop, peer_has(p, 'C'));
  CHECK(p->error == -ECONNRESET || p->error == -EPIPE);
  CHECK(debug_lines > 0);
  peer_free(p);
  end_loop(loop);
}

static void test_reset_while_writing(void) { reset_while_writing(false); }
static void test_reset_while_writing_paused(void) { reset_while_writing(true); }

/* The error shows in the write itself; write doesn't fail, connection_lost tells. */
static void test_write_to_closed(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  al_transport_pause_reading(p->transport);
  turns(loop, 2);
  raw_reset(fds[1]);
  CHECK_EQ(al_transport_write(p->transport, "x", 1, NULL, NULL), 0);
  CHECK(al_transport_is_closing(p->transport) && !peer_has(p, 'L'));
  UNTIL(loop, peer_has(p, 'C'));
  CHECK(p->error == -ECONNRESET || p->error == -EPIPE);
  peer_free(p);
  end_loop(loop);
}

/* ---- every mix --------------------------------------------------------------------------------------------------- */

enum { ACTIONS = 12 };

/* Returns the error that connection_lost must tell if nothing else ended the connection before. */
static int do_action(peer *p, int action) {
  al_transport *t = p->transport;
  switch (action) {
  case 0: return al_transport_close(t), 0;
  case 1: return al_transport_abort(t), 0;
  case 2: return al_transport_fail(t, -EIO), -EIO;
  case 3: return al_transport_close(t), al_transport_abort(t), 0;
  case 4: return al_transport_abort(t), al_transport_close(t), 0;
  case 5: return al_transport_fail(t, -EIO), al_transport_fail(t, -ENOENT), al_transport_abort(t), -EIO;
  case 6: return al_transport_pause_reading(t), al_transport_close(t), 0;
  case 7: return al_transport_close(t), al_transport_resume_reading(t), al_transport_write(t, "x", 1, NULL, NULL), 0;
  case 8: return al_transport_write_eof(t), al_transport_close(t), 0;
  case 9: return al_transport_write_eof(t), al_transport_abort(t), 0;
  case 10: return al_transport_pause_reading(t), al_transport_resume_reading(t), al_transport_abort(t), 0;
  default: return al_transport_set_limits(t, 0, 0), al_transport_close(t), 0;
  }
}

typedef struct mix {
  char event; /* at its first occurrence ... */
  int action; /* ... this is done */
  bool done;
} mix;

static void act_mix(peer *p, char event) {
  mix *m = p->arg;
  if (event != m->event || m->done) return;
  m->done = true;
  do_action(p, m->action);
}

/* Receives what there is, whatever it is; false at the end. */
static bool discard(int fd, size_t *received) {
  static char bytes[200000];
  ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
  if (n > 0) *received += (size_t)n;
  return n > 0 || (n < 0 && errno == EAGAIN);
}

/* All events come about if nothing ends it before; the other end reads late, then everything, then ends. */
static void run_mix(char event, int action, size_t buffer_size) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, buffer_size);
  mix m = {event, action, false};
  size_t sent = 0, received = 0, written = 0;
  p->act = act_mix;
  p->arg = &m;
  p->keep_open = action % 2;
  raw_send(fds[1], &sent, 50000);
  turns(loop, 3);
  for (int i = 0; i < 30 && !al_transport_is_closing(p->transport) && !p->paused; i++) {
    al_transport_write(p->transport, pattern_at(written), PATTERN_SIZE, NULL, NULL);
    written += PATTERN_SIZE;
  }
  turns(loop, 3);
  int64_t limit_ns = al_time_ns() + 5000 * MS;
  while (received < written && discard(fds[1], &received) && al_time_ns() < limit_ns) turns(loop, 1);
  shutdown(fds[1], SHUT_WR);
  for (int i = 0; i < 60 && !peer_has(p, 'E') && !peer_has(p, 'C'); i++) turns(loop, 1);
  if (event != 'L' && (event != 'g' || buffer_size)) CHECK(m.done);
  al_transport_abort(p->transport);
  UNTIL(loop, peer_has(p, 'C')); /* peer_note has seen to the rest */
  peer_free(p);
  close(fds[1]);
  end_loop(loop);
}

static void test_mixes(void) {
  for (const char *event = "MdgEPRL"; *event; event++) {
    for (int action = 0; action < ACTIONS; action++) {
      run_mix(*event, action, 0);
      run_mix(*event, action, 3000);
    }
  }
}

/* Anything at any time. */
static void random_act(peer *p, char event) {
  (void)event;
  if (check_random() % 8 == 0) do_action(p, (int)(check_random() % ACTIONS));
  if (check_random() % 4 == 0) al_transport_pause_reading(p->transport);
  if (check_random() % 3 == 0) al_transport_resume_reading(p->transport);
}

static void random_step(al_loop *loop, peer *p, int fd, size_t *sent, size_t *received) {
  switch (check_random() % 9) {
  case 0: raw_send(fd, sent, *sent + check_random() % 50000); break;
  case 1: raw_receive(fd, received, check_random() % 100000); break;
  case 2: al_transport_pause_reading(p->transport); break;
  case 3: al_transport_resume_reading(p->transport); break;
  case 4: al_transport_set_limits(p->transport, check_random() % 100000, SIZE_MAX); break;
  case 5: random_act(p, 0); break;
  default: turns(loop, 1);
  }
}

static void test_random(void) {
  for (int round = 0; round < 150; round++) {
    al_loop *loop = new_loop();
    int fds[2];
    peer *p = new_peer(loop, fds, round % 2 ? 1 + check_random() % 10000 : 0);
    size_t sent = 0, received = 0;
    p->echo = true;
    p->keep_open = check_random() % 2;
    p->act = random_act;
    p->events[0] = '\0';
    for (int i = 0; i < 60 && !peer_has(p, 'C'); i++) {
      random_step(loop, p, fds[1], &sent, &received);
      if (strlen(p->events) > 50) p->events[1] = '\0'; /* it would not fit */
    }
    p->act = NULL;
    p->echo = false;
    bool closes_loop = check_random() % 3 == 0;
    if (!closes_loop) {
      al_transport_abort(p->transport);
      UNTIL(loop, peer_has(p, 'C'));
    }
    close(fds[1]);
    CHECK_EQ(al_loop_close(loop), 0);
    CHECK(peer_has(p, 'C'));
    al_loop_release(loop);
    peer_free(p);
  }
}

/* ---- the loop ends or breaks ------------------------------------------------------------------------------------- */

/* One in each state; the loop closes: no connection_lost, all is closed and told. */
static void test_loop_close(void) {
  enum { N = 7 };
  al_loop *loop = new_loop();
  al_loop_stats stats;
  peer *p[N];
  int fds[N][2];
  size_t written = 0, sent = 0;
  for (int i = 1; i < N; i++) p[i] = new_peer(loop, fds[i], i % 2 ? 100 : 0);
  turns(loop, 2);
  al_transport_pause_reading(p[1]->transport); /* with something to be read */
  raw_send(fds[1][1], &sent, 100);
  fill(loop, p[2], &written); /* with something unsent */
  written = 0;
  fill(loop, p[3], &written); /* so, and closing */
  al_transport_close(p[3]->transport);
  written = 0;
  fill(loop, p[4], &written);
  al_transport_abort(p[4]->transport); /* connection_lost is queued */
  sent = 0;
  raw_send(fds[5][1], &sent, 100);  /* data has arrived */
  p[0] = new_peer(loop, fds[0], 0); /* just made; p[6] waits for data */
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.transports, N);
  CHECK_EQ(al_loop_close(loop), 0);
  al_loop_get_stats(loop, &stats);
  CHECK(stats.transports == 0 && stats.ops == 0);
  for (int i = 0; i < N; i++) {
    CHECK(peer_has(p[i], 'C') && !peer_has(p[i], 'L') && peer_has(p[i], 'M') == (i > 0));
    al_transport_close(p[i]->transport);
    CHECK_EQ(al_transport_write(p[i]->transport, "x", 1, NULL, NULL), 0);
    peer_free(p[i]);
    close(fds[i][1]);
  }
  al_transport *none;
  int pair[2];
  peer q = {.protocol.ops = &stream_ops};
  make_pair(pair);
  CHECK_EQ(al_stream_new(loop, pair[0], NULL, &q.protocol, NULL, &none), AL_ECLOSED);
  close(pair[0]); /* stayed ours */
  close(pair[1]);
  al_loop_release(loop);
}

/* Nobody holds the transport: it stays open all the same, and goes by itself. */
static void test_without_references(void) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  al_transport_release(p->transport);
  raw_send(fds[1], &sent, 10);
  UNTIL(loop, p->received == 10);
  al_transport_hold(p->transport);
  al_transport_release(p->transport);
  al_transport_set_owner(p->transport, NULL, NULL);
  close(fds[1]);
  UNTIL(loop, peer_has(p, 'L'));
  turns(loop, 3);
  free(p);
  end_loop(loop);
}

static void break_at_data(peer *p, char event) {
  if (event == 'd') al_loop_break(al_transport_loop(p->transport));
}

/* A break between two pieces loses none of them. */
static void break_loop(size_t buffer_size) {
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, buffer_size);
  size_t sent = 0;
  p->act = break_at_data;
  raw_send(fds[1], &sent, 20000);
  shutdown(fds[1], SHUT_WR);
  UNTIL(loop, p->received == 20000);
  p->act = NULL;
  close(fds[1]);
  PEER_END(loop, p, "MdELC");
  end_loop(loop);
}

static void test_break(void) { break_loop(0); }
static void test_break_buffered(void) { break_loop(1000); }

/* ---- get_buffer fails -------------------------------------------------------------------------------------------- */

static int buffer_error;

static int failing_get_buffer(al_protocol *protocol, ssize_t hint, char **base, size_t *len) {
  (void)hint;
  *base = ((peer *)protocol)->events;
  *len = 0;
  return buffer_error;
}

static void get_buffer_fails(int error, int told) {
  al_protocol_ops ops = buffered_ops;
  al_loop *loop = new_loop();
  int fds[2];
  peer *p = new_peer(loop, fds, 0);
  size_t sent = 0;
  ops.get_buffer = failing_get_buffer;
  buffer_error = error;
  p->protocol.ops = &ops;
  al_transport_set_protocol(p->transport, &p->protocol);
  turns(loop, 2);
  raw_send(fds[1], &sent, 10);
  UNTIL(loop, peer_has(p, 'L'));
  CHECK_EQ(p->error, told);
  PEER_END(loop, p, "MLC");
  close(fds[1]);
  end_loop(loop);
}

static void test_get_buffer_fails(void) {
  get_buffer_fails(AL_EPROTOCOL, AL_EPROTOCOL);
  get_buffer_fails(0, AL_ENOBUFFER);
}

/* ---- lack of memory ---------------------------------------------------------------------------------------------- */

/* The allocation after the next n fails, and all that follow for a while. Nothing leaks, nothing is told twice. */
static bool without_memory(long n) {
  al_loop *loop = new_loop();
  int fds[2];
  any_pair(family, fds);
  peer *p = calloc(1, sizeof(*p));
  size_t sent = 0;
  p->busy = -1;
  peer_set_buffer(p, n % 2 ? 100 : 0);
  bool failing = al_mem_fail_after(n);
  int err = al_stream_new(loop, fds[0], NULL, &p->protocol, NULL, &p->transport);
  if (err) {
    CHECK_EQ(err, -ENOMEM);
    close(fds[0]);
  } else {
    al_transport_set_owner(p->transport, &peer_owner, p);
    raw_send(fds[1], &sent, 1000);
    turns(loop, 2);
    for (int i = 0; i < 20; i++) {
      err = al_transport_write(p->transport, pattern_at(0), PATTERN_SIZE, NULL, NULL);
      CHECK(err == 0 || err == -ENOMEM);
    }
    turns(loop, 2);
  }
  al_mem_fail_after(-1);
  if (p->transport) {
    al_transport_abort(p->transport);
    UNTIL(loop, peer_has(p, 'C'));
    peer_free(p);
  } else {
    free(p->buffer);
    free(p);
  }
  close(fds[1]);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  for (long n = 0; n < 25 && without_memory(n); n++) continue;
}

static void run_family(void) {
  RUN_CLEAN(test_close_flushes);
  RUN_CLEAN(test_close_is_later);
  RUN_CLEAN(test_abort_before_made);
  RUN_CLEAN(test_abort_drops);
  RUN_CLEAN(test_close_then_abort);
  RUN_CLEAN(test_fail);
  RUN_CLEAN(test_lost_writes);
  RUN_CLEAN(test_reset_while_reading);
  RUN_CLEAN(test_reset_while_writing);
  RUN_CLEAN(test_reset_while_writing_paused);
  RUN_CLEAN(test_write_to_closed);
  RUN_CLEAN(test_mixes);
  RUN_CLEAN(test_random);
  RUN_CLEAN(test_loop_close);
  RUN_CLEAN(test_without_references);
  RUN_CLEAN(test_break);
  RUN_CLEAN(test_break_buffered);
  RUN_CLEAN(test_get_buffer_fails);
  RUN_CLEAN(test_without_memory);
}

static void run_tests(void) {
  al_set_log(count_log, NULL);
  family = AF_UNIX;
  run_family();
  family = AF_INET;
  run_family();
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
