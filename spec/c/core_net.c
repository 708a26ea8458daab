/* core_net.c - tests of names and of connecting by name, through aloop.h alone.
 *
 * SPDX-License-Identifier: MIT */
#include "stream_peers.h"

#include <netdb.h>

/* ---- names ------------------------------------------------------------------------------------------------------- */

typedef struct answer {
  int calls, error;
  struct addrinfo *list;
  char host[100], service[40];
} answer;

static void on_resolved(void *data, int error, struct addrinfo *res) {
  answer *a = data;
  a->calls++;
  a->error = error;
  a->list = res;
  CHECK((error == 0) == (res != NULL));
}

static void on_named(void *data, int error, const char *host, const char *service) {
  answer *a = data;
  a->calls++;
  a->error = error;
  CHECK((error == 0) == (host && service));
  snprintf(a->host, sizeof(a->host), "%s", host ? host : "");
  snprintf(a->service, sizeof(a->service), "%s", service ? service : "");
}

static answer resolve(al_loop *loop, const char *host, const char *service, int flags) {
  answer a = {0};
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
  al_resolve *request;
  CHECK_EQ(al_getaddrinfo(loop, host, service, &hints, &a, on_resolved, &request), 0);
  CHECK_EQ(a.calls, 0); /* from a later turn */
  UNTIL(loop, a.calls);
  CHECK_EQ(a.calls, 1);
  return a;
}

static int threads_now(void) {
  DIR *dir = opendir("/proc/self/task");
  int count = 0;
  CHECK(dir);
  while (readdir(dir)) count++;
  closedir(dir);
  return count;
}

/* Numbers need neither a name server nor a thread. */
static void test_numeric(void) {
  al_loop *loop = new_loop();
  char text[AL_ADDR_STRLEN];
  int threads = threads_now();
  answer a = resolve(loop, "127.0.0.1", "80", 0);
  CHECK(a.error == 0 && a.list->ai_family == AF_INET && !a.list->ai_next);
  al_addr addr = {.len = a.list->ai_addrlen};
  memcpy(&addr.ss, a.list->ai_addr, addr.len);
  CHECK(!strcmp(al_addr_format(&addr, text, sizeof(text)), "127.0.0.1:80"));
  freeaddrinfo(a.list);
  a = resolve(loop, "::1", NULL, 0);
  CHECK(a.error == 0 && a.list->ai_family == AF_INET6);
  freeaddrinfo(a.list);
  a = resolve(loop, NULL, "0", AI_PASSIVE);
  CHECK_EQ(a.error, 0);
  freeaddrinfo(a.list);
  a = resolve(loop, NULL, NULL, 0);
  CHECK_EQ(a.error, AL_EAI(EAI_NONAME));
  CHECK_EQ(threads_now(), threads);
  end_loop(loop);
}

static void test_names(void) {
  al_loop *loop = new_loop();
  int threads = threads_now();
  answer a = resolve(loop, "localhost", "80", 0);
  CHECK_EQ(a.error, 0);
  freeaddrinfo(a.list);
  CHECK(threads_now() > threads);
  threads = threads_now(); /* with the first of the pool */
  a = resolve(loop, "not.numeric", "80", AI_NUMERICHOST);
  CHECK_EQ(a.error, AL_EAI(EAI_NONAME));
  a = resolve(loop, "127.0.0.1", "no-such-service", 0);
  CHECK(AL_IS_EAI(a.error));
  answer many[20] = {0};
  for (int i = 0; i < 20; i++) CHECK_EQ(al_getaddrinfo(loop, "localhost", "1", NULL, &many[i], on_resolved, NULL), 0);
  for (int i = 0; i < 20; i++) {
    UNTIL(loop, many[i].calls == 1);
    CHECK_EQ(many[i].error, 0);
    freeaddrinfo(many[i].list);
  }
  CHECK(threads_now() <= threads + 3);
  end_loop(loop);
}

static void test_reverse(void) {
  al_loop *loop = new_loop();
  al_addr addr = loopback(80);
  answer a = {0}, b = {0};
  al_resolve *request;
  CHECK_EQ(al_getnameinfo(loop, &addr, NI_NUMERICHOST | NI_NUMERICSERV, &a, on_named, &request), 0);
  CHECK_EQ(al_getnameinfo(loop, &addr, NI_NUMERICSERV, &b, on_named, &request), 0);
  CHECK(a.calls == 0 && b.calls == 0);
  UNTIL(loop, a.calls && b.calls);
  CHECK(a.error == 0 && !strcmp(a.host, "127.0.0.1") && !strcmp(a.service, "80"));
  CHECK(b.error == 0 && b.host[0]);
  end_loop(loop);
}

static void test_resolve_cancel(void) {
  al_loop *loop = new_loop();
  answer a = {0};
  al_resolve *request;
  CHECK_EQ(al_getaddrinfo(loop, "127.0.0.1", "1", NULL, &a, on_resolved, &request), 0);
  al_resolve_cancel(request);
  for (int i = 0; i < 30; i++) {
    CHECK_EQ(al_getaddrinfo(loop, "localhost", "1", NULL, &a, on_resolved, &request), 0);
    if (i % 3 == 1) usleep(100);
    if (i % 3 == 2) turns(loop, 1);
    if (!a.calls) al_resolve_cancel(request);
    if (a.calls) freeaddrinfo(a.list);
    a.calls = 0;
  }
  turns(loop, 3);
  CHECK_EQ(a.calls, 0);
  end_loop(loop);
}

/* With requests queued, in threads, done and answered at once. */
static void test_resolve_loop_close(void) {
  al_loop *loop = new_loop();
  answer a = {0};
  al_resolve *request;
  CHECK_EQ(al_getaddrinfo(loop, "127.0.0.1", "1", NULL, &a, on_resolved, &request), 0);
  for (int i = 0; i < 20; i++) CHECK_EQ(al_getaddrinfo(loop, "localhost", "1", NULL, &a, on_resolved, &request), 0);
  usleep(500);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(al_getaddrinfo(loop, "127.0.0.1", "1", NULL, &a, on_resolved, &request), AL_ECLOSED);
  al_loop_release(loop);
  CHECK_EQ(a.calls, 0);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

typedef struct outcome {
  int calls, fd, error;
  size_t n;
  al_addr peer;
  char message[AL_ADDR_STRLEN + 96];
} outcome;

static void on_connected(void *data, int fd, const al_addr *addr, const al_connect_error *errors, size_t n) {
  outcome *o = data;
  o->calls++;
  o->fd = fd;
  o->n = n;
  CHECK((fd >= 0) == (n == 0) && (fd >= 0) == (addr != NULL));
  if (addr) o->peer = *addr;
  if (n) o->error = errors[n - 1].error;
  if (n) snprintf(o->message, sizeof(o->message), "%s", errors[0].message);
}

static outcome connect_to(al_loop *loop, const al_connect_options *options) {
  outcome o = {.fd = -2};
  CHECK_EQ(al_connect_start(loop, options, &o, on_connected, NULL), 0);
  CHECK_EQ(o.calls, 0);
  UNTIL(loop, o.calls);
  CHECK_EQ(o.calls, 1);
  return o;
}

static int port_of(const al_addr *addr) { return ntohs(((const struct sockaddr_in *)&addr->ss)->sin_port); }

static void test_connect(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  char port[16];
  int listener = raw_listen(&addr, 10);
  snprintf(port, sizeof(port), "%d", port_of(&addr));
  outcome o = connect_to(loop, &(al_connect_options){.host = "127.0.0.1", .service = port});
  CHECK(o.fd >= 0 && o.peer.len == addr.len && !memcmp(&o.peer.ss, &addr.ss, addr.len));
  CHECK(fcntl(o.fd, F_GETFL) & O_NONBLOCK && fcntl(o.fd, F_GETFD) & FD_CLOEXEC);
  close(o.fd);
  o = connect_to(loop,
                 &(al_connect_options){.host = "localhost", .service = port}); /* ::1 may come first, and refuse */
  CHECK(o.fd >= 0 && port_of(&o.peer) == port_of(&addr));
  peer *p = peer_new_on(loop, o.fd, 0); /* the descriptor is as good as any for a transport */
  int other = accept(listener, NULL, NULL);
  close(other);
  other = accept(listener, NULL, NULL);
  CHECK_EQ(write(other, pattern_at(0), 100), 100);
  UNTIL(loop, p->received == 100);
  close(other);
  PEER_END(loop, p, "MdELC");
  close(listener);
  end_loop(loop);
}

static void test_refused(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  char expected[100], service[16];
  close(raw_listen(&addr, 1)); /* nobody listens there any more */
  snprintf(service, sizeof(service), "%d", port_of(&addr));
  snprintf(expected, sizeof(expected), "Connect call failed 127.0.0.1:%d: Connection refused", port_of(&addr));
  outcome o = connect_to(loop, &(al_connect_options){.host = "127.0.0.1", .service = service});
  CHECK(o.error == -ECONNREFUSED && o.n == 1 && !strcmp(o.message, expected));
  o = connect_to(loop, &(al_connect_options){.addr = &addr});
  CHECK(o.error == -ECONNREFUSED && o.n == 1);
  CHECK_EQ(al_addr_unix(&addr, "/no/such/socket", 15), 0);
  o = connect_to(loop, &(al_connect_options){.addr = &addr});
  CHECK(o.error == -ENOENT && o.n == 1 && strstr(o.message, "/no/such/socket"));
  o = connect_to(loop, &(al_connect_options){.host = "not.numeric", .service = "1", .flags = AI_NUMERICHOST});
  CHECK(o.error == AL_EAI(EAI_NONAME) && o.n == 1 && !strcmp(o.message, al_strerror(o.error)));
  end_loop(loop);
}

/* The first address refuses, the second connects; with none that does, each has its error. */
static void test_several(void) {
  al_loop *loop = new_loop();
  al_addr refusing, addr;
  close(raw_listen(&refusing, 1));
  int listener = raw_listen(&addr, 10);
  struct addrinfo second = {0, AF_INET, SOCK_STREAM, 0, addr.len, (struct sockaddr *)&addr.ss, NULL, NULL};
  struct addrinfo first = {0, AF_INET, SOCK_STREAM, 0, refusing.len, (struct sockaddr *)&refusing.ss, NULL, &second};
  outcome o = connect_to(loop, &(al_connect_options){.list = &first});
  CHECK(o.fd >= 0 && port_of(&o.peer) == port_of(&addr));
  close(o.fd);
  close(listener);
  o = connect_to(loop, &(al_connect_options){.list = &first});
  CHECK(o.fd < 0 && o.n == 2 && o.error == -ECONNREFUSED);
  end_loop(loop);
}

static void test_local_address(void) {
  al_loop *loop = new_loop();
  al_addr addr, own = {.len = sizeof(own.ss)}, used;
  char port[16], used_port[16];
  int listener = raw_listen(&addr, 10), occupied = raw_listen(&used, 1);
  snprintf(port, sizeof(port), "%d", port_of(&addr));
  snprintf(used_port, sizeof(used_port), "%d", port_of(&used));
  al_connect_options options = {.host = "127.0.0.1", .service = port, .local_host = "127.0.0.2", .local_service = "0"};
  outcome o = connect_to(loop, &options);
  CHECK(o.fd >= 0);
  CHECK_EQ(getsockname(o.fd, (struct sockaddr *)&own.ss, &own.len), 0);
  CHECK_EQ(ntohl(((struct sockaddr_in *)&own.ss)->sin_addr.s_addr), 0x7f000002);
  close(o.fd);
  options.local_host = "127.0.0.1";
  options.local_service = used_port;
  o = connect_to(loop, &options);
  CHECK(o.fd < 0 && o.n >= 1 && strstr(o.message, "error while attempting to bind on address 127.0.0.1:"));
  CHECK(strstr(o.message, ": address already in use"));
  options.local_host = "::1";
  options.local_service = "0";
  o = connect_to(loop, &options);
  CHECK(o.fd < 0 && o.n == 1 && !strcmp(o.message, "no matching local address with family=AF_INET found"));
  close(listener);
  close(occupied);
  end_loop(loop);
}

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

/* Fills the backlog of a listener, so that the next connect has to wait. */
static int full_listener(al_addr *addr, int fds[4]) {
  int listener = raw_listen(addr, 0);
  for (int i = 0; i < 4; i++) {
    fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fds[i], (struct sockaddr *)&addr->ss, addr->len);
  }
  return listener;
}

static void test_cancel(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  outcome o = {0};
  int fds[4], listener = full_listener(&addr, fds);
  al_connect *request;
  const al_connect_options options[] = {
      {.host = "localhost", .service = "1"}, {.host = "127.0.0.1", .service = "1"}, {.addr = &addr}};
  for (int i = 0; i < 3; i++) {
    for (int n = 0; n < 4; n++) { /* after so many turns */
      CHECK_EQ(al_connect_start(loop, &options[i], &o, on_connected, &request), 0);
      if (n && i < 2) turns(loop, 0);
      if (i == 2) turns(loop, n);
      if (!o.calls) al_connect_cancel(request);
      turns(loop, n % 2);
    }
  }
  turns(loop, 3);
  CHECK_EQ(o.calls, 0);
  for (int n = 0; n < 3; n++) { /* the loop closes in the middle */
    CHECK_EQ(al_connect_start(loop, &options[n], &o, on_connected, &request), 0);
    if (n == 2) turns(loop, 2);
  }
  CHECK_EQ(al_connect_start(loop, &options[2], &o, on_connected, &request), 0);
  turns(loop, 1);
  al_connect_cancel(request);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(al_connect_start(loop, &options[2], &o, on_connected, &request), AL_ECLOSED);
  al_loop_release(loop);
  for (int i = 0; i < 4; i++) close(fds[i]);
  close(listener);
}

static struct addrinfo info_of(al_addr *addr, struct addrinfo *next) {
  return (struct addrinfo){0, AF_INET, SOCK_STREAM, 0, addr->len, (struct sockaddr *)&addr->ss, NULL, next};
}

/* Two addresses that don't answer, one that does, one that refuses. */
static void test_happy_eyeballs(void) {
  al_loop *loop = new_loop();
  al_addr hole, addr, refusing;
  int fds[4], full = full_listener(&hole, fds), listener = raw_listen(&addr, 10);
  close(raw_listen(&refusing, 1));
  struct addrinfo last = info_of(&refusing, NULL), third = info_of(&addr, &last), second = info_of(&hole, &third),
                  first = info_of(&hole, &second);
  al_connect_options options = {.list = &first, .happy_eyeballs = true, .delay_ns = 5 * MS};
  int64_t began_ns = al_time_ns();
  outcome o = connect_to(loop, &options);
  CHECK(o.fd >= 0 && port_of(&o.peer) == port_of(&addr));
  CHECK(al_time_ns() - began_ns >= 10 * MS);
  close(o.fd);
  options.list = &last; /* with none that goes on */
  o = connect_to(loop, &options);
  CHECK(o.fd < 0 && o.n == 1 && o.error == -ECONNREFUSED);
  last.ai_next = &third; /* a failure starts the next at once */
  third.ai_next = NULL;
  options.delay_ns = 100000 * MS;
  o = connect_to(loop, &options);
  CHECK(o.fd >= 0);
  close(o.fd);
  turns(loop, 2);
  close(full);
  close(listener);
  for (int i = 0; i < 4; i++) close(fds[i]);
  end_loop(loop);
}

/* With several attempts going on: cancelled after so many turns, and ended by the loop. */
static void test_happy_eyeballs_end(void) {
  al_loop *loop = new_loop();
  al_addr hole;
  int fds[4], full = full_listener(&hole, fds);
  struct addrinfo third = info_of(&hole, NULL), second = info_of(&hole, &third), first = info_of(&hole, &second);
  al_connect_options options = {.list = &first, .happy_eyeballs = true};
  outcome o = {0};
  al_connect *request;
  for (int n = 0; n < 8; n++) {
    CHECK_EQ(al_connect_start(loop, &options, &o, on_connected, &request), 0);
    turns(loop, n);
    al_connect_cancel(request);
    turns(loop, n % 3);
  }
  CHECK_EQ(al_connect_start(loop, &options, &o, on_connected, &request), 0);
  turns(loop, 4);
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  al_loop_dump(loop, null);
  close(null);
  CHECK_EQ(al_loop_close(loop), 0);
  CHECK_EQ(o.calls, 0);
  al_loop_release(loop);
  close(full);
  for (int i = 0; i < 4; i++) close(fds[i]);
}

/* A Unix listener with a full backlog: the connection waits, and comes when there is room. */
static void test_full_unix(void) {
  al_loop *loop = new_loop();
  al_addr addr;
  char name[64] = "";
  int len = snprintf(name + 1, sizeof(name) - 1, "aloop-spec-full-%d", (int)getpid()) + 1;
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(al_addr_unix(&addr, name, (size_t)len), 0);
  CHECK_EQ(bind(listener, (struct sockaddr *)&addr.ss, addr.len), 0);
  CHECK_EQ(listen(listener, 0), 0);
  int first = raw_connect(&addr);
  outcome o = {0}, cancelled = {0};
  al_loop_stats before, now;
  al_connect *request;
  CHECK_EQ(al_connect_start(loop, &(al_connect_options){.addr = &addr}, &o, on_connected, NULL), 0);
  CHECK_EQ(al_connect_start(loop, &(al_connect_options){.addr = &addr}, &cancelled, on_connected, &request), 0);
  for (int i = 0; i < 5; i++) al_loop_run_once(loop, 5 * MS);
  CHECK_EQ(o.calls, 0);
  al_loop_get_stats(loop, &before);
  al_connect_cancel(request);
  UNTIL(loop,
        (al_loop_get_stats(loop, &now), now.ops < before.ops)); /* else it might take the place that is now free */
  close(accept(listener, NULL, NULL));
  UNTIL(loop, o.calls);
  CHECK(o.fd >= 0 && cancelled.calls == 0);
  close(o.fd);
  close(first);
  close(listener);
  end_loop(loop);
}

static bool without_memory(long n) {
  al_loop *loop = new_loop();
  al_addr addr;
  outcome o = {.fd = -1};
  int listener = raw_listen(&addr, 10);
  char port[16];
  snprintf(port, sizeof(port), "%d", port_of(&addr));
  al_connect_options options = {
      .host = "127.0.0.1", .service = port, .local_host = "127.0.0.1", .local_service = "0", .happy_eyeballs = n % 2};
  bool failing = al_mem_fail_after(n);
  int err = al_connect_start(loop, &options, &o, on_connected, NULL);
  CHECK(err == 0 || err == -ENOMEM);
  for (int i = 0; i < 10 && !o.calls && !err; i++) CHECK_EQ(al_loop_run_once(loop, 20 * MS), 0);
  al_mem_fail_after(-1);
  if (!err) UNTIL(loop, o.calls);
  if (o.fd >= 0) close(o.fd);
  close(listener);
  end_loop(loop);
  return failing;
}

static void test_without_memory(void) {
  for (long n = 0; n < 12 && without_memory(n); n++) continue;
}

static void run_tests(void) {
  RUN_CLEAN(test_numeric);
  RUN_CLEAN(test_names);
  RUN_CLEAN(test_reverse);
  RUN_CLEAN(test_resolve_cancel);
  RUN_CLEAN(test_resolve_loop_close);
  RUN_CLEAN(test_connect);
  RUN_CLEAN(test_refused);
  RUN_CLEAN(test_several);
  RUN_CLEAN(test_local_address);
  RUN_CLEAN(test_cancel);
  RUN_CLEAN(test_happy_eyeballs);
  RUN_CLEAN(test_happy_eyeballs_end);
  RUN_CLEAN(test_full_unix);
  RUN_CLEAN(test_without_memory);
}

int main(int argc, char **argv) { return run_on_machines(argc, argv, run_tests); }
