/* core_stream_room.c - tests of the place that a plain protocol offers for large pieces.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

static int family; /* of the pair under test */

typedef struct roomy {
  peer peer;
  char place[256 * 1024];
  size_t offered;
  int in_room, refused;
} roomy;

static char *roomy_room(al_protocol *protocol, size_t n) {
  roomy *r = (roomy *)protocol;
  CHECK(n >= 12 * 1024 && n <= sizeof(r->place));
  r->offered = n;
  if (check_random() % 4 == 0) return r->refused++, NULL;
  return r->place;
}

static void roomy_data(al_protocol *protocol, const char *data, size_t len) {
  roomy *r = (roomy *)protocol;
  if (data == r->place) {
    CHECK(len <= r->offered);
    r->in_room++;
  }
  peer_data(protocol, data, len);
  memset(r->place, 0xee, sizeof(r->place)); /* nothing of before is needed any more */
}

static void send_all(al_loop *loop, const peer *p, int fd, size_t *sent, size_t end) {
  while (*sent < end) {
    raw_send(fd, sent, end);
    CHECK_EQ(al_loop_run_once(loop, 0), 0);
  }
  UNTIL(loop, p->received == end);
}

/* Large pieces come to stand where the protocol wants them; small ones, and what it refuses, elsewhere. */
static void test_room(void) {
  static const al_protocol_ops ops = {.connection_made = peer_made,
                                      .data_received = roomy_data,
                                      .room = roomy_room,
                                      .eof_received = peer_eof,
                                      .connection_lost = peer_lost};
  al_loop *loop = new_loop();
  roomy *r = calloc(1, sizeof(*r));
  peer *p = &r->peer;
  int fds[2];
  size_t sent = 0, end = 0;
  any_pair(family, fds);
  p->busy = -1;
  p->protocol.ops = &ops;
  CHECK_EQ(al_stream_new(loop, fds[0], NULL, &p->protocol, NULL, &p->transport), 0);
  al_transport_set_owner(p->transport, &peer_owner, p);
  for (int n = 0; n < 200 || r->in_room < 20 || !r->refused; n++) {
    CHECK(n < 5000);
    end += n % 10 == 9 ? 100 : 1 + check_random() % 300000;
    send_all(loop, p, fds[1], &sent, end);
  }
  for (int n = 0; n < 40; n++) { /* another table, which offers none, may be there before the next piece */
    p->protocol.ops = n % 2 ? &stream_ops : &ops;
    end += 200000;
    send_all(loop, p, fds[1], &sent, end);
  }
  close(fds[1]);
  PEER_END(loop, p, "MdELC");
  end_loop(loop);
}

static void run_tests(void) {
  family = AF_UNIX;
  RUN_CLEAN(test_room);
  family = AF_INET;
  RUN_CLEAN(test_room);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
