/* core_datagram.c - tests of datagram transports, through aloop.h alone.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

#include <sys/stat.h>

#define HEADER 8 /* what a datagram that waits counts besides its bytes */

/* Events: M made, d datagram, e error, P pause, R resume, L lost; equal ones in a row once. */
typedef struct gram {
  al_protocol protocol;
  al_transport *transport;
  char events[64], last[64];
  int count, errors, error;
  al_addr from;
  void (*act)(struct gram *gram, char event);
} gram;

static void gram_note(gram *g, char event) {
  size_t len = strlen(g->events);
  CHECK(!strchr(g->events, 'L'));
  CHECK(event == 'M' || strchr(g->events, 'M'));
  if (!len || g->events[len - 1] != event) {
    CHECK(len + 1 < sizeof(g->events));
    g->events[len] = event;
  }
  if (g->act) g->act(g, event);
}

static void gram_made(al_protocol *protocol, al_transport *transport) {
  CHECK(((gram *)protocol)->transport == transport);
  gram_note((gram *)protocol, 'M');
}

static void gram_received(al_protocol *protocol, const char *data, size_t len, const al_addr *from) {
  gram *g = (gram *)protocol;
  g->count++;
  g->from = *from;
  snprintf(g->last, sizeof(g->last), "%.*s", (int)len, data);
  gram_note(g, 'd');
}

static void gram_error(al_protocol *protocol, int error) {
  gram *g = (gram *)protocol;
  g->errors++;
  g->error = error;
  gram_note(g, 'e');
}

static void gram_pause(al_protocol *protocol) { gram_note((gram *)protocol, 'P'); }
static void gram_resume(al_protocol *protocol) { gram_note((gram *)protocol, 'R'); }

static void gram_lost(al_protocol *protocol, int error) {
  gram *g = (gram *)protocol;
  CHECK(al_transport_fd(g->transport) >= 0);
  gram_note(g, 'L');
  g->error = error;
}

static const al_protocol_ops gram_ops = {.connection_made = gram_made,
                                         .pause_writing = gram_pause,
                                         .resume_writing = gram_resume,
                                         .connection_lost = gram_lost,
                                         .datagram_received = gram_received,
                                         .error_received = gram_error};

static gram *gram_on(al_loop *loop, int fd, const al_addr *remote) {
  gram *g = calloc(1, sizeof(*g));
  g->protocol.ops = &gram_ops;
  CHECK_EQ(al_datagram_new(loop, fd, remote, &g->protocol, NULL, &g->transport), 0);
  return g;
}

/* Bound to the address, or connected to it. */
static gram *gram_new(al_loop *loop, const al_addr *addr, bool connected) {
  al_datagram_options options = {.family = addr->ss.ss_family};
  if (connected)
    options.remote = addr;
  else
    options.local = addr;
  int fd = al_datagram_open(&options, NULL);
  CHECK(fd >= 0);
  return gram_on(loop, fd, options.remote);
}

static al_addr name_of(const gram *g) {
  al_addr addr;
  CHECK_EQ(al_transport_sockname(g->transport, &addr), 0);
  return addr;
}

static int send_text(gram *g, const char *text, const al_addr *addr) {
  return al_datagram_sendto(g->transport, text, strlen(text), addr);
}

static void gram_end(al_loop *loop, gram *g) {
  al_transport_close(g->transport);
  UNTIL(loop, al_transport_fd(g->transport) < 0);
  CHECK(strchr(g->events, 'L'));
  al_transport_release(g->transport);
  free(g);
}

/* ---- there and back ---------------------------------------------------------------------------------------------- */

static void test_echo(void) {
  al_loop *loop = new_loop();
  al_addr any = loopback(0);
  gram *server = gram_new(loop, &any, false);
  al_addr at = name_of(server);
  gram *client = gram_new(loop, &at, true);
  CHECK_EQ(send_text(client, "ping", NULL), 0);
  UNTIL(loop, server->count == 1);
  CHECK(!strcmp(server->last, "ping"));
  CHECK_EQ(send_text(server, "pong", &server->from), 0);
  UNTIL(loop, client->count == 1);
  CHECK(!strcmp(client->last, "pong") && client->from.len == at.len && !memcmp(&client->from.ss, &at.ss, at.len));
  CHECK_EQ(send_text(client, "", &at), 0);
  UNTIL(loop, server->count == 2);
  CHECK(!server->last[0]);
  for (int i = 0; i < 100; i++) CHECK_EQ(send_text(client, i == 99 ? "last" : "x", NULL), 0);
  UNTIL(loop, server->count == 102);
  CHECK(!strcmp(server->last, "last") && !strcmp(server->events, "Md"));
  gram_end(loop, client);
  gram_end(loop, server);
  end_loop(loop);
}

static void test_results(void) {
  al_loop *loop = new_loop();
  al_addr any = loopback(0), other = loopback(9), remote;
  gram *server = gram_new(loop, &any, false);
  al_addr at = name_of(server);
  gram *client = gram_new(loop, &at, true);
  CHECK_EQ(send_text(server, "x", NULL), -EDESTADDRREQ);
  CHECK_EQ(send_text(client, "x", &other), -EISCONN);
  CHECK_EQ(al_datagram_remote(server->transport, &remote), -ENOTCONN);
  CHECK_EQ(al_datagram_remote(client->transport, &remote), 0);
  CHECK(remote.len == at.len && !memcmp(&remote.ss, &at.ss, at.len));
  CHECK_EQ(al_transport_pause_reading(client->transport), -ENOTSUP);
  CHECK_EQ(al_transport_write_eof(client->transport), -ENOTSUP);
  CHECK(!al_transport_can_write_eof(client->transport));
  CHECK_EQ(al_transport_write(client->transport, "y", 1, NULL, NULL), 0);
  UNTIL(loop, server->count == 1);
  CHECK_EQ(al_transport_write(server->transport, "y", 1, NULL, NULL), -EDESTADDRREQ);
  al_transport_set_protocol(client->transport, NULL);
  al_transport_set_protocol(client->transport, &client->protocol);
  gram_end(loop, client);
  gram_end(loop, server);
  end_loop(loop);
}

static void test_errors(void) {
  al_loop *loop = new_loop();
  static char large[70000];
  al_addr any = loopback(0);
  gram *gone = gram_new(loop, &any, false);
  al_addr at = name_of(gone);
  gram_end(loop, gone);
  gram *client = gram_new(loop, &at, true);
  CHECK_EQ(send_text(client, "x", NULL), 0);
  UNTIL(loop, client->errors == 1);
  CHECK_EQ(client->error, -ECONNREFUSED);
  CHECK_EQ(al_datagram_sendto(client->transport, large, sizeof(large), NULL), 0);
  CHECK(client->errors == 2 && client->error == -EMSGSIZE);
  CHECK(!al_transport_is_closing(client->transport));
  gram_end(loop, client);
  end_loop(loop);
}

static void test_open(void) {
  const al_addr *failed;
  al_addr addr, path;
  CHECK_EQ(al_datagram_open(&(al_datagram_options){.family = 12345}, &failed), -EAFNOSUPPORT);
  CHECK(!failed);
  CHECK_EQ(al_addr_ip(&addr, "203.0.113.9", 0, 0, 0), 0);
  CHECK_EQ(al_datagram_open(&(al_datagram_options){.family = AF_INET, .local = &addr}, &failed), -EADDRNOTAVAIL);
  CHECK(failed == &addr);
  CHECK_EQ(al_addr_unix(&path, "/no/such/path", 13), 0);
  CHECK_EQ(al_datagram_open(&(al_datagram_options){.family = AF_UNIX, .remote = &path}, &failed), -ENOENT);
  CHECK(failed == &path);
}

/* ---- what waits -------------------------------------------------------------------------------------------------- */

/* A transport over one end of a pair whose other end doesn't read: so many of these texts that one waits. */
static gram *gram_full(al_loop *loop, int *other, const char *text, int *sent) {
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  gram *g = gram_on(loop, fds[0], NULL);
  UNTIL(loop, g->events[0]);
  *other = fds[1];
  for (*sent = 0; al_transport_write_buffer_size(g->transport) == 0; ++*sent) CHECK_EQ(send_text(g, text, NULL), 0);
  CHECK_EQ(al_transport_write_buffer_size(g->transport), strlen(text) + HEADER);
  return g;
}

static void receive_all(al_loop *loop, int fd, int n, char *last, size_t size) {
  for (int i = 0; i < n; i++) {
    ssize_t len = -1;
    UNTIL(loop, len >= 0 || (len = recv(fd, last, size - 1, 0)) >= 0);
    last[len] = '\0';
  }
}

static void test_flow(void) {
  al_loop *loop = new_loop();
  char text[100];
  int other, sent;
  gram *g = gram_full(loop, &other, "12345", &sent);
  CHECK_EQ(al_transport_set_limits(g->transport, 100, 13), 0);
  for (int i = 2; i * 13 <= 100; i++, sent++) CHECK_EQ(send_text(g, "12345", NULL), 0);
  CHECK(al_transport_write_buffer_size(g->transport) == 91 && !strcmp(g->events, "M"));
  CHECK_EQ(send_text(g, "6", NULL), 0); /* 100: not above the mark */
  CHECK(!strcmp(g->events, "M"));
  CHECK_EQ(send_text(g, "", NULL), 0);
  CHECK(al_transport_write_buffer_size(g->transport) == 108 && !strcmp(g->events, "MP"));
  receive_all(loop, other, sent, text, sizeof(text));
  receive_all(loop, other, 1, text, sizeof(text));
  CHECK(!strcmp(text, "6"));
  receive_all(loop, other, 1, text, sizeof(text));
  CHECK(!text[0]);
  UNTIL(loop, !strcmp(g->events, "MPR"));
  CHECK_EQ(al_transport_write_buffer_size(g->transport), 0);
  gram_end(loop, g);
  close(other);
  end_loop(loop);
}

static void test_close_flushes(void) {
  al_loop *loop = new_loop();
  char text[100];
  int other, sent;
  gram *g = gram_full(loop, &other, "x", &sent);
  CHECK_EQ(send_text(g, "last", NULL), 0);
  al_transport_close(g->transport);
  CHECK_EQ(send_text(g, "after", NULL), 0); /* as asyncio: as long as something waits */
  turns(loop, 3);
  CHECK(!strcmp(g->events, "M"));
  receive_all(loop, other, sent + 2, text, sizeof(text));
  CHECK(!strcmp(text, "after"));
  gram_end(loop, g);
  close(other);
  g = gram_full(loop, &other, "x", &sent);
  al_transport_abort(g->transport);
  CHECK_EQ(al_transport_write_buffer_size(g->transport), 0);
  CHECK_EQ(send_text(g, "dropped", NULL), 0);
  gram_end(loop, g);
  close(other);
  end_loop(loop);
}

static void send_on_error(gram *g, char event) {
  if (event == 'e') CHECK_EQ(send_text(g, "behind", NULL), 0);
}

/* What a callback sends while others wait comes behind them. */
static void test_order(void) {
  al_loop *loop = new_loop();
  static char large[300000];
  char text[100];
  int other, sent;
  gram *g = gram_full(loop, &other, "x", &sent);
  g->act = send_on_error;
  CHECK_EQ(al_datagram_sendto(g->transport, large, sizeof(large), NULL), 0); /* more than the kernel ever takes */
  CHECK_EQ(send_text(g, "before", NULL), 0);
  receive_all(loop, other, sent + 1, text, sizeof(text));
  CHECK(!strcmp(text, "before"));
  receive_all(loop, other, 1, text, sizeof(text));
  CHECK(!strcmp(text, "behind") && g->errors == 1 && g->error == -EMSGSIZE);
  gram_end(loop, g);
  close(other);
  end_loop(loop);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void close_on_datagram(gram *g, char event) {
  if (event == 'd') al_transport_close(g->transport);
}

static void abort_on_anything(gram *g, char event) {
  if (event != 'L') al_transport_abort(g->transport);
}

static void test_close_inside(void) {
  al_loop *loop = new_loop();
  static char large[300000];
  al_addr any = loopback(0);
  gram *server = gram_new(loop, &any, false);
  al_addr at = name_of(server);
  gram *client = gram_new(loop, &at, true);
  server->act = close_on_datagram;
  for (int i = 0; i < 10; i++) CHECK_EQ(send_text(client, "x", NULL), 0);
  UNTIL(loop, al_transport_fd(server->transport) < 0);
  CHECK(server->count == 1 && !strcmp(server->events, "MdL") && server->error == 0);
  gram_end(loop, server);
  client->act = abort_on_anything;
  CHECK_EQ(al_datagram_sendto(client->transport, large, sizeof(large), NULL), 0);
  UNTIL(loop, al_transport_fd(client->transport) < 0);
  gram_end(loop, client);
  int other, sent;
  gram *g = gram_full(loop, &other, "x", &sent);
  CHECK_EQ(al_datagram_sendto(g->transport, large, sizeof(large), NULL), 0);
  CHECK_EQ(send_text(g, "never", NULL), 0);
  g->act = abort_on_anything;
  receive_all(loop, other, sent, (char[100]){0}, 100);
  UNTIL(loop, al_transport_fd(g->transport) < 0);
  CHECK(!strcmp(g->events, "MPeL"));
  gram_end(loop, g);
  close(other);
  end_loop(loop);
}

static void test_loop_close(void) {
  al_loop *loop = new_loop();
  al_addr any = loopback(0);
  int other, sent;
  gram *grams[3] = {gram_new(loop, &any, false), gram_full(loop, &other, "x", &sent), NULL};
  CHECK_EQ(send_text(grams[1], "y", NULL), 0);
  grams[2] = gram_new(loop, &any, false); /* not even made */
  CHECK_EQ(al_loop_close(loop), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(al_transport_fd(grams[i]->transport), -1);
    CHECK(!strchr(grams[i]->events, 'L'));
    CHECK_EQ(send_text(grams[i], "x", i == 1 ? NULL : &any), 0);
    al_transport_release(grams[i]->transport);
    free(grams[i]);
  }
  int fd = al_datagram_open(&(al_datagram_options){.family = AF_INET}, NULL);
  al_transport *transport;
  CHECK_EQ(al_datagram_new(loop, fd, NULL, NULL, NULL, &transport), AL_ECLOSED);
  al_loop_release(loop);
  close(fd);
  close(other);
}

static bool without_memory(long n) {
  al_loop *loop = new_loop();
  al_addr any = loopback(0);
  int fd = al_datagram_open(&(al_datagram_options){.family = AF_INET, .local = &any}, NULL), other, sent;
  gram *full = gram_full(loop, &other, "x", &sent);
  gram g = {.protocol.ops = &gram_ops};
  bool failing = al_mem_fail_after(n);
  int err = al_datagram_new(loop, fd, NULL, &g.protocol, NULL, &g.transport);
  CHECK(err == 0 || err == -ENOMEM);
  CHECK(send_text(full, "y", NULL) <= 0);
  al_addr at = any;
  if (!err && al_transport_sockname(g.transport, &at) == 0) send_text(full, "z", NULL);
  int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sendto(sender, "x", 1, 0, (struct sockaddr *)&at.ss, at.len);
  turns(loop, 5);
  al_mem_fail_after(-1);
  turns(loop, 2);
  if (!err) {
    al_transport_abort(g.transport);
    UNTIL(loop, al_transport_fd(g.transport) < 0);
    al_transport_release(g.transport);
  } else {
    close(fd);
  }
  al_transport_abort(full->transport);
  gram_end(loop, full);
  close(other);
  close(sender);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  for (long n = 0; n < 12 && without_memory(n); n++) continue;
}

static void run_tests(void) {
  RUN_CLEAN(test_echo);
  RUN_CLEAN(test_results);
  RUN_CLEAN(test_errors);
  RUN_CLEAN(test_open);
  RUN_CLEAN(test_flow);
  RUN_CLEAN(test_close_flushes);
  RUN_CLEAN(test_order);
  RUN_CLEAN(test_close_inside);
  RUN_CLEAN(test_loop_close);
  RUN_CLEAN(test_without_memory);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
