/* core_server.c - tests of servers through aloop.h alone: accepting, closing with and without clients, lack of
 * descriptors, binding, Unix sockets and their files.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

#include <netdb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { MAX_PEERS = 64 };

typedef struct host { /* a server and what it was told */
  al_server *server;
  peer *peers[MAX_PEERS];
  int n, errors, error, closed;
  int64_t error_ns;
  bool close_at_accept;
} host;

static void on_accepted(al_server *server, void *data, int fd, const al_addr *addr) {
  host *h = data;
  CHECK(server == h->server && fd >= 0 && h->n < MAX_PEERS);
  CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
  CHECK(!h->closed && !al_server_is_closed(server));
  peer *p = calloc(1, sizeof(*p));
  p->busy = -1;
  p->echo = true;
  peer_set_buffer(p, h->n % 2 ? 1000 : 0);
  CHECK_EQ(al_stream_new(al_server_loop(server), fd, addr, &p->protocol, NULL, &p->transport), 0);
  al_transport_set_owner(p->transport, &peer_owner, p);
  al_server_attach(server, p->transport);
  h->peers[h->n++] = p;
  if (h->close_at_accept) al_server_close(server);
}

static void on_error(al_server *server, void *data, int fd, int error) {
  host *h = data;
  CHECK(server == h->server && fd >= 0);
  h->errors++;
  h->error = error;
  h->error_ns = al_time_ns();
}

static void on_closed(al_server *server, void *data) {
  host *h = data;
  CHECK(server == h->server && al_server_is_closed(server) && !al_server_is_serving(server));
  CHECK_EQ(al_server_clients(server), 0);
  h->closed++;
}

static const al_server_ops server_ops = {on_accepted, on_error, on_closed};

static host *host_new(al_loop *loop) {
  host *h = calloc(1, sizeof(*h));
  CHECK_EQ(al_server_new(loop, &server_ops, h, &h->server), 0);
  return h;
}

static void host_free(host *h) {
  for (int i = 0; i < h->n; i++) peer_free(h->peers[i]);
  al_server_release(h->server);
  free(h);
}

static int bind_ip(host *h, const char *ip, int port, const al_listen_options *options, al_addr *addr) {
  int fd;
  al_addr failed;
  CHECK_EQ(al_addr_ip(addr, ip, (uint16_t)port, 0, 0), 0);
  struct addrinfo at = {0, addr->ss.ss_family, SOCK_STREAM, 0, addr->len, (struct sockaddr *)&addr->ss, NULL, NULL};
  struct addrinfo twice = at;
  twice.ai_next = &at; /* the same address is bound once */
  size_t before = al_server_sockets(h->server, NULL, 0);
  int err = al_server_bind(h->server, &twice, options, &failed);
  if (err == -EADDRINUSE) CHECK(failed.len == addr->len && !memcmp(&failed.ss, &addr->ss, addr->len));
  CHECK_EQ(al_server_sockets(h->server, &fd, 1), before + !err);
  if (!err) CHECK_EQ(getsockname(fd, (struct sockaddr *)&addr->ss, &addr->len), 0);
  return err;
}

static host *serving(al_loop *loop, al_addr *addr) {
  host *h = host_new(loop);
  CHECK_EQ(bind_ip(h, "127.0.0.1", 0, NULL, addr), 0);
  CHECK(!al_server_is_serving(h->server));
  CHECK_EQ(al_server_start(h->server), 0);
  CHECK_EQ(al_server_start(h->server), 0);
  CHECK(al_server_is_serving(h->server) && al_server_loop(h->server) == loop);
  return h;
}

static bool refuses(const al_addr *addr) {
  int fd = socket(addr->ss.ss_family, SOCK_STREAM, 0);
  bool refused = connect(fd, (const struct sockaddr *)&addr->ss, addr->len) < 0;
  close(fd);
  return refused;
}

static size_t count_lost(const host *h) {
  size_t n = 0;
  for (int i = 0; i < h->n; i++) n += peer_has(h->peers[i], 'C');
  return n;
}

/* ---- accepting and closing --------------------------------------------------------------------------------------- */

static void test_accept_many(void) {
  enum { N = 50 };
  al_loop *loop = new_loop();
  al_addr addr, name;
  host *h = serving(loop, &addr);
  int fds[N];
  for (int i = 0; i < N; i++) fds[i] = raw_connect(&addr);
  turns(loop, 3);
  CHECK_EQ(h->n, N); /* all within a few turns */
  CHECK_EQ(al_server_clients(h->server), N);
  for (int i = 0; i < N; i++) {
    size_t sent = 0, received = 0;
    raw_send(fds[i], &sent, 5000);
    UNTIL(loop, raw_receive(fds[i], &received, SIZE_MAX) && received == 5000);
  }
  al_addr own = {.len = sizeof(own.ss)};
  CHECK_EQ(getsockname(fds[0], (struct sockaddr *)&own.ss, &own.len), 0);
  CHECK_EQ(al_transport_peername(h->peers[0]->transport, &name), 0);
  CHECK(name.len == own.len && !memcmp(&name.ss, &own.ss, own.len));
  al_server_close(h->server);
  al_server_close(h->server);
  CHECK(al_server_sockets(h->server, NULL, 0) == 0 && refuses(&addr));
  turns(loop, 3);
  CHECK_EQ(h->closed, 0);
  for (int i = 0; i < N; i++) close(fds[i]);
  UNTIL(loop, h->closed);
  CHECK_EQ(count_lost(h), N);
  turns(loop, 3);
  CHECK_EQ(h->closed, 1);
  host_free(h);
  end_loop(loop);
}

static void test_close_without_clients(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  al_loop_stats stats;
  host *h = serving(loop, &addr);
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.servers, 1);
  turns(loop, 2);
  al_server_close(h->server);
  CHECK_EQ(h->closed, 0); /* from a later turn */
  CHECK(refuses(&addr));  /* at once */
  UNTIL(loop, h->closed);
  CHECK_EQ(al_server_start(h->server), AL_ECLOSED);
  CHECK_EQ(al_server_add(h->server, 0, 1, NULL), AL_ECLOSED);
  al_loop_get_stats(loop, &stats);
  CHECK_EQ(stats.servers, 0);
  host_free(h);
  end_loop(loop);
}

/* Closed before it has begun to serve, without sockets, and never closed at all. */
static void test_never_served(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  host *h = host_new(loop);
  CHECK_EQ(bind_ip(h, "127.0.0.1", 0, NULL, &addr), 0);
  al_server_close(h->server);
  UNTIL(loop, h->closed);
  host_free(h);
  h = host_new(loop);
  al_server_close(h->server);
  UNTIL(loop, h->closed);
  host_free(h);
  h = host_new(loop);
  host_free(h);
  turns(loop, 2);
  end_loop(loop);
}

/* The owner's references go first: the server lives until it is closed. */
static void test_released_while_serving(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  host *h = serving(loop, &addr);
  al_server_release(h->server);
  int fd = raw_connect(&addr);
  UNTIL(loop, h->n == 1);
  al_server_close(h->server);
  close(fd);
  UNTIL(loop, h->closed);
  peer_free(h->peers[0]);
  free(h);
  end_loop(loop);
}

/* Connections that wait when the server closes inside `accepted` are not accepted any more, and don't stay open. */
static void test_close_inside_accepted(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  host *h = serving(loop, &addr);
  int fds[5];
  h->close_at_accept = true;
  for (int i = 0; i < 5; i++) fds[i] = raw_connect(&addr);
  UNTIL(loop, h->n == 1);
  turns(loop, 3);
  CHECK_EQ(h->n, 1);
  for (int i = 0; i < 5; i++) close(fds[i]);
  UNTIL(loop, h->closed);
  host_free(h);
  end_loop(loop);
}

static void all_clients(bool abort) {
  al_loop *loop = new_loop();
  al_addr addr;
  host *h = serving(loop, &addr);
  int fds[10];
  for (int i = 0; i < 10; i++) fds[i] = raw_connect(&addr);
  UNTIL(loop, h->n == 10);
  turns(loop, 2);
  for (int i = 0; i < 10; i++) /* nobody reads this */
    for (int k = 0; k < 100; k++) al_transport_write(h->peers[i]->transport, pattern_at(0), PATTERN_SIZE, NULL, NULL);
  al_server_close(h->server);
  if (abort)
    al_server_abort_clients(h->server);
  else
    al_server_close_clients(h->server);
  turns(loop, 5);
  CHECK_EQ(h->closed, abort);
  CHECK_EQ(count_lost(h), abort ? 10 : 0);
  al_server_abort_clients(h->server);
  UNTIL(loop, h->closed);
  for (int i = 0; i < 10; i++) close(fds[i]);
  CHECK_EQ(h->closed, 1);
  host_free(h);
  end_loop(loop);
}

static void test_close_clients(void) { all_clients(false); }
static void test_abort_clients(void) { all_clients(true); }

static void test_loop_close(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  host *open = serving(loop, &addr), *closing;
  int fds[2];
  fds[0] = raw_connect(&addr);
  UNTIL(loop, open->n == 1);
  closing = serving(loop, &addr);
  fds[1] = raw_connect(&addr);
  UNTIL(loop, closing->n == 1);
  al_server_close(closing->server);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK(open->closed == 1 && closing->closed == 1);
  CHECK(!al_server_loop(open->server) && al_server_is_closed(open->server));
  al_server_close(open->server);
  CHECK(refuses(&addr));
  host_free(open);
  host_free(closing);
  close(fds[0]);
  close(fds[1]);
  host *late = calloc(1, sizeof(*late));
  CHECK_EQ(al_server_new(loop, &server_ops, late, &late->server), AL_ECLOSED);
  free(late);
  al_loop_release(loop);
}

/* ---- lack of descriptors ----------------------------------------------------------------------------------------- */

static void limit_descriptors(int max) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = (rlim_t)max;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* In a child, for the limit is the whole process's. */
static void out_of_descriptors(bool close_meanwhile) {
  al_loop *loop = new_loop();
  al_addr addr;
  al_loop_stats before, after;
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  host *h = serving(loop, &addr);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int highest = dup(fd);
  close(highest);
  limit_descriptors(highest); /* now: a ring accepts by the limit of the time of its arming */
  CHECK_EQ(connect(fd, (struct sockaddr *)&addr.ss, addr.len), 0);
  UNTIL(loop, h->errors > 0);
  CHECK_EQ(h->error, -EMFILE);
  al_loop_get_stats(loop, &before);
  int64_t quiet_ns = al_time_ns() + 300 * MS;
  while (al_time_ns() < quiet_ns) CHECK_EQ(al_loop_run_once(loop, 100 * MS), 0);
  al_loop_get_stats(loop, &after);
  CHECK(h->errors == 1 && h->n == 0);
  CHECK(after.turns - before.turns < 20); /* it doesn't spin */
  limit_descriptors((int)limit.rlim_cur);
  if (close_meanwhile) {
    al_server_close(h->server);
    UNTIL(loop, h->closed);
    al_loop_get_stats(loop, &after);
    CHECK_EQ(after.timers, 0);
  } else {
    UNTIL(loop, h->n == 1);
    CHECK(al_time_ns() - h->error_ns >= 1000 * MS);
    CHECK_EQ(h->errors, 1);
    al_server_close(h->server);
    close(fd);
    UNTIL(loop, h->closed);
  }
  host_free(h);
  end_loop(loop);
  _exit(0);
}

static void test_out_of_descriptors(void) {
  fflush(stdout);
  for (int close_meanwhile = 0; close_meanwhile <= 1; close_meanwhile++)
    if (fork() == 0) out_of_descriptors(close_meanwhile);
  for (int ended = 0; ended < 2; ended++) {
    int status;
    CHECK(wait(&status) > 0);
    CHECK_EQ(status, 0);
  }
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

static int get_option(host *h, int level, int option) {
  int fd, value;
  socklen_t len = sizeof(value);
  CHECK(al_server_sockets(h->server, &fd, 1) > 0);
  CHECK_EQ(getsockopt(fd, level, option, &value, &len), 0);
  return value;
}

static void close_host(al_loop *loop, host *h) {
  al_server_close(h->server);
  UNTIL(loop, h->closed);
  host_free(h);
}

static void test_bind(void) {
  al_loop *loop = new_loop();
  al_addr addr, six;
  host *a = serving(loop, &addr), *b = host_new(loop);
  int port = ntohs(((struct sockaddr_in *)&addr.ss)->sin_port);
  CHECK(get_option(a, SOL_SOCKET, SO_REUSEADDR) && !get_option(a, SOL_SOCKET, SO_KEEPALIVE));
  al_addr same;
  CHECK_EQ(bind_ip(b, "127.0.0.1", port, NULL, &same), -EADDRINUSE);
  int err =
      bind_ip(b, "::", 0, &(al_listen_options){.keep_alive = true, .reuse_port = true, .no_reuse_address = true}, &six);
  if (!err) { /* where there is IPv6 */
    CHECK(get_option(b, IPPROTO_IPV6, IPV6_V6ONLY) && get_option(b, SOL_SOCKET, SO_KEEPALIVE));
    CHECK(get_option(b, SOL_SOCKET, SO_REUSEPORT) && !get_option(b, SOL_SOCKET, SO_REUSEADDR));
  }
  close_host(loop, a);
  close_host(loop, b);
  end_loop(loop);
}

/* An address that this host has not is skipped if another one binds; one in use takes all down. */
static void test_bind_several(void) {
  al_loop *loop = new_loop();
  al_addr used, none, free_one, failed;
  host *a = serving(loop, &used), *b = host_new(loop);
  CHECK_EQ(al_addr_ip(&none, "192.0.2.1", 0, 0, 0), 0); /* TEST-NET: nobody's */
  free_one = loopback(0);
  struct addrinfo last = {0, AF_INET, SOCK_STREAM, 0, free_one.len, (struct sockaddr *)&free_one.ss, NULL, NULL};
  struct addrinfo first = {0, AF_INET, SOCK_STREAM, 0, none.len, (struct sockaddr *)&none.ss, NULL, NULL};
  CHECK_EQ(al_server_bind(b->server, &first, NULL, &failed), -EADDRNOTAVAIL);
  CHECK_EQ(failed.len, 0);
  first.ai_next = &last;
  CHECK_EQ(al_server_bind(b->server, &first, NULL, &failed), 0);
  CHECK_EQ(al_server_sockets(b->server, NULL, 0), 1);
  struct addrinfo taken = {0, AF_INET, SOCK_STREAM, 0, used.len, (struct sockaddr *)&used.ss, NULL, NULL};
  last.ai_next = &taken;
  CHECK_EQ(al_server_bind(b->server, &last, NULL, &failed), -EADDRINUSE);
  CHECK(failed.len == used.len && !memcmp(&failed.ss, &used.ss, used.len));
  CHECK_EQ(al_server_sockets(b->server, NULL, 0), 1);
  close_host(loop, a);
  close_host(loop, b);
  end_loop(loop);
}

/* ---- Unix sockets ------------------------------------------------------------------------------------------------ */

static char directory[64], path[96];

static void make_directory(void) {
  strcpy(directory, "/tmp/aloop-spec-XXXXXX");
  CHECK(mkdtemp(directory));
  snprintf(path, sizeof(path), "%s/socket", directory);
}

static void put_file(const char *name) {
  int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
  CHECK(fd >= 0);
  close(fd);
}

static host *serving_unix(al_loop *loop, const char *name, size_t len, const al_listen_options *options,
                          al_addr *addr) {
  host *h = host_new(loop);
  CHECK_EQ(al_addr_unix(addr, name, len), 0);
  CHECK_EQ(al_server_bind_unix(h->server, addr, options), 0);
  CHECK_EQ(al_server_start(h->server), 0);
  return h;
}

static void test_unix(void) {
  al_loop *loop = new_loop();
  al_addr addr, name;
  size_t sent = 0, received = 0;
  make_directory();
  host *h = serving_unix(loop, path, strlen(path), NULL, &addr);
  int fd = raw_connect(&addr);
  raw_send(fd, &sent, 100000);
  UNTIL(loop,
        raw_receive(fd, &received, SIZE_MAX) && received == sent && (raw_send(fd, &sent, 100000), sent == 100000));
  CHECK_EQ(al_transport_peername(h->peers[0]->transport, &name), 0); /* unnamed */
  CHECK_EQ(name.ss.ss_family, AF_UNIX);
  CHECK_EQ(al_transport_sockname(h->peers[0]->transport, &name), 0);
  CHECK(!strcmp(((struct sockaddr_un *)&name.ss)->sun_path, path));
  al_server_close(h->server);
  CHECK(access(path, F_OK) < 0); /* removed */
  close(fd);
  UNTIL(loop, h->closed);
  host_free(h);
  CHECK_EQ(rmdir(directory), 0);
  end_loop(loop);
}

static void test_unix_files(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  make_directory();
  host *h = serving_unix(loop, path, strlen(path), &(al_listen_options){.keep_file = true}, &addr);
  close_host(loop, h);
  CHECK_EQ(access(path, F_OK), 0); /* kept, and stale now: the next one takes its place */
  h = serving_unix(loop, path, strlen(path), NULL, &addr);
  CHECK_EQ(unlink(path), 0);
  put_file(path);
  close_host(loop, h);
  CHECK_EQ(access(path, F_OK), 0); /* somebody else's file */
  h = host_new(loop);
  CHECK_EQ(al_server_bind_unix(h->server, &addr, NULL), -EADDRINUSE); /* and no socket: it stays */
  CHECK_EQ(al_server_sockets(h->server, NULL, 0), 0);
  host_free(h);
  CHECK_EQ(unlink(path), 0);
  h = serving_unix(loop, path, strlen(path), NULL, &addr);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK(access(path, F_OK) < 0);
  host_free(h);
  al_loop_release(loop);
  CHECK_EQ(rmdir(directory), 0);
}

static void test_unix_abstract(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  char name[64] = "";
  int len = snprintf(name + 1, sizeof(name) - 1, "aloop-spec-%d", (int)getpid()) + 1;
  host *h = serving_unix(loop, name, (size_t)len, NULL, &addr);
  int fd = raw_connect(&addr);
  UNTIL(loop, h->n == 1);
  al_server_close(h->server);
  close(fd);
  UNTIL(loop, h->closed);
  CHECK(refuses(&addr));
  host_free(h);
  end_loop(loop);
}

/* ---- lack of memory ---------------------------------------------------------------------------------------------- */

static bool without_memory(long n) {
  al_loop *loop = new_loop();
  al_addr addr, failed;
  host *h = calloc(1, sizeof(*h));
  al_server *server = NULL;
  al_addr_ip(&addr, "127.0.0.1", 0, 0, 0);
  struct addrinfo at = {0, AF_INET, SOCK_STREAM, 0, addr.len, (struct sockaddr *)&addr.ss, NULL, NULL};
  bool failing = al_mem_fail_after(n);
  int err = al_server_new(loop, &server_ops, h, &server);
  h->server = server;
  if (!err) err = al_server_bind(server, &at, NULL, &failed);
  if (!err) err = al_server_start(server);
  al_mem_fail_after(-1);
  CHECK(err == 0 || err == -ENOMEM);
  if (server) {
    al_server_close(server);
    UNTIL(loop, h->closed);
    al_server_release(server);
  }
  free(h);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  for (long n = 0; n < 8 && without_memory(n); n++) continue;
}

static void run_tests(void) {
  RUN_CLEAN(test_accept_many);
  RUN_CLEAN(test_close_without_clients);
  RUN_CLEAN(test_never_served);
  RUN_CLEAN(test_released_while_serving);
  RUN_CLEAN(test_close_inside_accepted);
  RUN_CLEAN(test_close_clients);
  RUN_CLEAN(test_abort_clients);
  RUN_CLEAN(test_loop_close);
  RUN_CLEAN(test_out_of_descriptors);
  RUN_CLEAN(test_bind);
  RUN_CLEAN(test_bind_several);
  RUN_CLEAN(test_unix);
  RUN_CLEAN(test_unix_files);
  RUN_CLEAN(test_unix_abstract);
  RUN_CLEAN(test_without_memory);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
