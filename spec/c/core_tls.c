/* core_tls.c - tests of TLS transports through aloop.h alone: both roles, data both ways, pausing, water marks, buffered
 * protocols, TLS in TLS, upgrades, key updates. How they end is core_tls_end.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "tls_peers.h"

static int family; /* of the pair under test */

/* ---- echo -------------------------------------------------------------------------------------------------------- */

static void echo(size_t size, size_t buffer_size) {
  tls_pair pair = tls_pair_new(family, buffer_size);
  size_t written = 0;
  pair.server->peer.echo = true;
  while (written < size) {
    size_t n = size - written < 300000 ? size - written : 300000;
    peer_write(&pair.client->peer, &written, n);
    UNTIL(pair.loop, !pair.client->peer.paused);
  }
  UNTIL(pair.loop, pair.client->peer.received == size);
  CHECK_EQ(pair.server->peer.received, size);
  al_transport_close(pair.client->peer.transport);
  UNTIL(pair.loop, peer_has(&pair.server->peer, 'C') && peer_has(&pair.client->peer, 'C'));
  CHECK_EQ(pair.server->peer.error, 0);
  CHECK_EQ(pair.client->peer.error, 0);
  tls_peer_free(pair.server);
  tls_peer_free(pair.client);
  end_loop(pair.loop);
}

static void test_echo(void) {
  static const size_t sizes[] = {1, 1000, 16384, 16385, 65536, 1048577, 10485760};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) echo(sizes[i], 0);
}

static void test_echo_buffered(void) {
  echo(1000, 1000);
  echo(100000, 777);
  echo(3000000, 65536);
}

static void run_tests(void) {
  static const int families[] = {AF_UNIX, AF_INET};
  for (int i = 0; i < 2; i++) {
    family = families[i];
    RUN_CLEAN(test_echo);
    RUN_CLEAN(test_echo_buffered);
  }
}

int main(int argc, char **argv) {
  make_contexts();
  int result = run_on_machines(argc, argv, run_tests);
  free_contexts();
  return result;
}
