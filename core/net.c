/* net.c - endpoints by name: connecting to a host, and listening at addresses. Built of resolve.c, server.c and CONNECT
 * operations; used by bindings. Knows no transports: what connects is handed over as a descriptor.
 *
 * SPDX-License-Identifier: MIT */
#include "addr.h"
#include "debug.h"
#include "handle.h"
#include "loop.h"
#include "mem.h"
#include "server.h"
#include "sock.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <string.h>

#define DEFAULT_BACKLOG 100

/* ---- connecting -------------------------------------------------------------------------------------------------- */

typedef struct attempt { /* at one address; lives until its operation has ended, maybe longer than its al_connect */
  al_op op;
  al_loop *loop;
  al_connect *connect; /* NULL: nobody waits any more */
  struct attempt *next;
  int number, fd;
  al_addr addr;
} attempt;

struct al_connect {
  al_loop *loop;
  al_link in_room;
  void *data;
  al_connected_fn *connected;
  al_handle begin;       /* the first attempt, if nothing is to be resolved */
  al_resolve *resolving; /* the host, then the local host; NULL: neither now */
  al_timer stagger;      /* the next attempt, if none fails before */
  attempt *attempts;     /* that go on, the latest first */
  int n_attempts;        /* how many were begun */
  bool happy_eyeballs;
  int64_t delay_ns;
  al_addr addr;                         /* where to go if it was given */
  struct addrinfo *found, *found_local; /* what was looked up; NULL if addresses were given */
  const struct addrinfo *next;          /* what to try */
  const struct addrinfo *local;         /* what to bind to */
  char *local_host, *local_service;
  struct addrinfo hints;
  al_connect_error *errors;
  size_t n_errors, size_errors;
};

static void attempt_close(attempt *a) {
  if (a->fd < 0) return;
  if (a->loop->closed)
    al__fd_close(a->fd);
  else
    a->loop->io->close_fd(a->loop, a->fd);
  a->fd = -1;
}

/* Takes the attempt, whose operation has ended, out of its list, and frees it. */
static void attempt_free(attempt *a) {
  if (a->connect) {
    attempt **place = &a->connect->attempts;
    while (*place != a) place = &(*place)->next;
    *place = a->next;
  }
  attempt_close(a);
  al__free(a);
}

/* Those that go on are closed as soon as their operations have ended. */
static void forget_attempts(al_connect *c) {
  while (c->attempts) {
    attempt *a = c->attempts;
    c->attempts = a->next;
    a->connect = NULL;
    a->loop->io->cancel(a->loop, &a->op);
  }
}

static void connect_free(al_connect *c) {
  forget_attempts(c);
  al_timer_cancel(&c->stagger);
  if (c->in_room.next) al__link_remove(&c->in_room);
  if (c->found) freeaddrinfo(c->found);
  if (c->found_local) freeaddrinfo(c->found_local);
  al__free(c->local_host);
  al__free(c->local_service);
  al__free(c->errors);
  al__free(c);
}

/* Makes room for an error of an attempt, behind those of the same one and of earlier ones; NULL without memory. */
static al_connect_error *insert_error(al_connect *c, int number) {
  void *errors = c->errors;
  int err = al__array_grow(&errors, &c->size_errors, sizeof(*c->errors), c->n_errors + 1);
  c->errors = errors;
  if (err) return NULL;
  size_t i = c->n_errors++;
  for (; i > 0 && c->errors[i - 1].attempt > number; i--) c->errors[i] = c->errors[i - 1];
  return &c->errors[i];
}

/* Remembers why an attempt failed. */
__attribute__((format(printf, 4, 5))) static void add_error(al_connect *c, int number, int error, const char *format,
                                                            ...) {
  al_connect_error *entry = insert_error(c, number);
  va_list args;
  if (!entry) return;
  va_start(args, format);
  vsnprintf(entry->message, sizeof(entry->message), format, args);
  va_end(args);
  entry->error = error;
  entry->attempt = number;
}

static void connect_succeed(al_connect *c, attempt *a) {
  al_connected_fn *connected = c->connected;
  void *data = c->data;
  int fd = a->fd;
  al_addr peer;
  if (al__sock_peer(fd, &peer)) peer = a->addr; /* asked, for 0.0.0.0 is not where a connection to it leads */
  a->fd = -1;
  attempt_free(a);
  connect_free(c);
  connected(data, fd, &peer, NULL, 0);
}

static void connect_fail(al_connect *c) {
  static const al_connect_error no_memory = {.error = -ENOMEM, .message = "Cannot allocate memory"};
  if (c->n_errors)
    c->connected(c->data, -1, NULL, c->errors, c->n_errors);
  else
    c->connected(c->data, -1, NULL, &no_memory, 1);
  connect_free(c);
}

/* asyncio's wording, so that messages can be compared. */
static void add_bind_error(const attempt *a, int error, const al_addr *addr) {
  char address[AL_ADDR_STRLEN], reason[64];
  snprintf(reason, sizeof(reason), "%s", al_strerror(error));
  for (char *p = reason; *p; p++) *p = (char)tolower((unsigned char)*p);
  al_addr_format(addr, address, sizeof(address));
  add_error(a->connect, a->number, error, "error while attempting to bind on address %s: %s", address, reason);
}

static void add_connect_error(const attempt *a, int error) {
  char address[AL_ADDR_STRLEN];
  al_addr_format(&a->addr, address, sizeof(address));
  add_error(a->connect, a->number, error, "Connect call failed %s: %s", address, al_strerror(error));
}

/* Binds the socket to the first local address of its family that will do. */
static int bind_local(const attempt *a) {
  al_connect *c = a->connect;
  int family = al__addr_family(&a->addr);
  size_t errors = c->n_errors;
  if (!c->local) return 0;
  for (const struct addrinfo *ai = c->local; ai; ai = ai->ai_next) {
    al_addr addr;
    if (ai->ai_family != family) continue;
    al__addr_set(&addr, ai->ai_addr, ai->ai_addrlen);
    int err = al__sock_bind(a->fd, &addr);
    if (!err) return 0;
    add_bind_error(a, err, &addr);
  }
  if (c->n_errors == errors)
    add_error(c, a->number, -EADDRNOTAVAIL, "no matching local address with family=%s found",
              family == AF_INET    ? "AF_INET"
              : family == AF_INET6 ? "AF_INET6"
                                   : "other");
  return -EADDRNOTAVAIL;
}

static void connect_on_done(al_loop *loop, al_op *op, int result, unsigned flags);

static attempt *attempt_new(al_connect *c, const al_addr *addr) {
  attempt *a = al__calloc(1, sizeof(*a));
  if (!a) return NULL;
  a->loop = c->loop;
  a->connect = c;
  a->fd = -1;
  a->number = c->n_attempts++;
  a->addr = *addr;
  a->next = c->attempts;
  c->attempts = a;
  return a;
}

/* Begins an attempt. An error was remembered, and nothing is left open. */
static int attempt_begin(al_connect *c, const al_addr *addr, int type, int protocol) {
  attempt *a = attempt_new(c, addr);
  if (!a) return -ENOMEM;
  int err = a->fd = al__sock_open(al__addr_family(addr), type, protocol);
  if (err < 0) {
    add_connect_error(a, err);
    goto fail;
  }
  err = bind_local(a);
  if (err) goto fail;
  a->op = (al_op){.done = connect_on_done, .kind = AL_OP_CONNECT, .fd = a->fd, .u.connect.addr = &a->addr};
  err = c->loop->io->submit(c->loop, &a->op);
  if (!err) return 0;
  add_connect_error(a, err);
fail:
  attempt_free(a);
  return err;
}

/* Begins the next attempt; ends if there is none, and none goes on. */
static void connect_next(al_connect *c) {
  al_timer_cancel(&c->stagger);
  while (c->next) {
    const struct addrinfo *ai = c->next;
    al_addr addr;
    c->next = ai->ai_next;
    al__addr_set(&addr, ai->ai_addr, ai->ai_addrlen);
    if (attempt_begin(c, &addr, ai->ai_socktype, ai->ai_protocol)) continue;
    if (c->next && c->happy_eyeballs) /* without memory for the timer: when this one fails */
      al_timer_set(c->loop, &c->stagger, al_loop_time_ns(c->loop) + c->delay_ns);
    return;
  }
  if (!c->attempts) connect_fail(c);
}

static void connect_on_stagger(al_loop *loop, al_handle *handle) {
  (void)loop;
  connect_next(AL_CONTAINER(handle, al_connect, stagger.handle));
}

static void connect_on_done(al_loop *loop, al_op *op, int result, unsigned flags) {
  attempt *a = AL_CONTAINER(op, attempt, op);
  al_connect *c = a->connect;
  (void)loop;
  (void)flags;
  if (!c) {
    attempt_free(a); /* it may even have succeeded: too late */
    return;
  }
  if (result >= 0) {
    connect_succeed(c, a);
    return;
  }
  bool latest = a == c->attempts;
  add_connect_error(a, result);
  attempt_free(a);
  if (latest || !c->attempts) connect_next(c);
}

static void connect_on_begin(al_loop *loop, al_handle *handle) {
  al_connect *c = AL_CONTAINER(handle, al_connect, begin);
  (void)loop;
  if (c->next)
    connect_next(c);
  else if (attempt_begin(c, &c->addr, SOCK_STREAM, 0))
    connect_fail(c);
}

/* ---- connecting: names ------------------------------------------------------------------------------------------- */

static void add_resolve_error(al_connect *c, int error) { add_error(c, 0, error, "%s", al_strerror(error)); }

static void connect_on_local(void *data, int error, struct addrinfo *res) {
  al_connect *c = data;
  c->resolving = NULL;
  c->local = c->found_local = res;
  if (!error) {
    connect_next(c);
    return;
  }
  add_resolve_error(c, error);
  connect_fail(c);
}

static void connect_on_found(void *data, int error, struct addrinfo *res) {
  al_connect *c = data;
  c->resolving = NULL;
  c->next = c->found = res;
  if (!error && (c->local_host || c->local_service)) {
    error = al_getaddrinfo(c->loop, c->local_host, c->local_service, &c->hints, c, connect_on_local, &c->resolving);
    if (!error) return;
  }
  if (!error) {
    connect_next(c);
    return;
  }
  add_resolve_error(c, error);
  connect_fail(c);
}

/* ---- connecting: life -------------------------------------------------------------------------------------------- */

void al_connect_cancel(al_connect *request) {
  if (request->resolving) al_resolve_cancel(request->resolving);
  al_handle_cancel(&request->begin);
  connect_free(request);
}

static void room_close(al_loop *loop, void *state) {
  al_link *all = state;
  (void)loop;
  while (!al__link_is_empty(all)) al_connect_cancel(AL_CONTAINER(all->next, al_connect, in_room));
  al__free(all);
}

static void room_dump(const al_loop *loop, void *state, int fd) {
  const al_link *all = state;
  char address[AL_ADDR_STRLEN];
  (void)loop;
  for (const al_link *link = all->next; link != all; link = link->next) {
    const al_connect *c = AL_CONTAINER(link, al_connect, in_room);
    for (const attempt *a = c->attempts; a; a = a->next)
      al__dump_line(fd, "connecting fd=%d to %s\n", a->fd, al_addr_format(&a->addr, address, sizeof(address)));
  }
}

static al_link *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_NET];
  if (slot->state) return slot->state;
  al_link *all = al__malloc(sizeof(*all));
  if (!all) return NULL;
  al__link_init(all);
  *slot = (al__room){.state = all, .close = room_close, .dump = room_dump};
  return all;
}

static int copy_text(char **copy, const char *text) {
  *copy = text ? al__strndup(text, strlen(text)) : NULL;
  return text && !*copy ? -ENOMEM : 0;
}

/* Queues the first step. */
static int connect_begin(al_connect *c, const al_connect_options *options) {
  if (options->addr || options->list) {
    if (options->addr) c->addr = *options->addr;
    c->next = options->list;
    c->local = options->local_list;
    al_call_soon(c->loop, &c->begin);
    return 0;
  }
  c->hints = (struct addrinfo){.ai_flags = options->flags,
                               .ai_family = options->family,
                               .ai_socktype = SOCK_STREAM,
                               .ai_protocol = options->proto};
  if (copy_text(&c->local_host, options->local_host)) return -ENOMEM;
  if (copy_text(&c->local_service, options->local_service)) return -ENOMEM;
  return al_getaddrinfo(c->loop, options->host, options->service, &c->hints, c, connect_on_found, &c->resolving);
}

int al_connect_start(al_loop *loop, const al_connect_options *options, void *data, al_connected_fn *connected,
                     al_connect **request) {
  if (loop->closed) return AL_ECLOSED;
  al_link *all = room_of(loop);
  al_connect *c = all ? al__calloc(1, sizeof(*c)) : NULL;
  if (!c) return -ENOMEM;
  c->loop = loop;
  c->data = data;
  c->connected = connected;
  c->happy_eyeballs = options->happy_eyeballs;
  c->delay_ns = AL_MAX(options->delay_ns, 0);
  al_handle_init(&c->begin, connect_on_begin);
  al_timer_init(&c->stagger, connect_on_stagger);
  int err = connect_begin(c, options);
  if (err) {
    connect_free(c);
    return err;
  }
  al__link_append(all, &c->in_room);
  if (request) *request = c;
  return 0;
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static int backlog_of(const al_listen_options *options) {
  return options && options->backlog > 0 ? options->backlog : DEFAULT_BACKLOG;
}

static bool is_repeated(const struct addrinfo *list, const struct addrinfo *ai) {
  al_addr addr, other;
  al__addr_set(&addr, ai->ai_addr, ai->ai_addrlen);
  for (; list != ai; list = list->ai_next) {
    al__addr_set(&other, list->ai_addr, list->ai_addrlen);
    if (list->ai_socktype == ai->ai_socktype && list->ai_protocol == ai->ai_protocol && al__addr_equal(&addr, &other))
      return true;
  }
  return false;
}

static int set_options(int fd, const struct addrinfo *ai, const al_listen_options *options) {
  int err = 0;
  if (!options || !options->no_reuse_address) err = al__sock_set_reuse_address(fd);
  if (!err && options && options->reuse_port) err = al__sock_set_reuse_port(fd);
  if (!err && options && options->keep_alive) err = al__sock_set_keepalive(fd);
  if (!err && ai->ai_family == AF_INET6) err = al__sock_set_v6only(fd);
  return err;
}

/* Makes the socket of one address; returns it. -ENOTSUP: this system has no such sockets. */
static int listen_open(const struct addrinfo *ai, const al_listen_options *options) {
  al_addr addr;
  int fd = al__sock_open(ai->ai_family, ai->ai_socktype, ai->ai_protocol);
  if (fd == -EAFNOSUPPORT || fd == -EPROTONOSUPPORT || fd == -ESOCKTNOSUPPORT) return -ENOTSUP;
  if (fd < 0) return fd;
  al__addr_set(&addr, ai->ai_addr, ai->ai_addrlen);
  int err = set_options(fd, ai, options);
  if (!err) err = al__sock_bind(fd, &addr);
  if (!err) return fd;
  al__fd_close(fd);
  return err;
}

static void close_all(const int *fds, size_t n) {
  for (size_t i = 0; i < n; i++) al__fd_close(fds[i]);
}

/* Opens a socket for each address of the list that this system has. */
static int listen_open_all(const struct addrinfo *list, const al_listen_options *options, int *fds, size_t *n,
                           al_addr *failed) {
  int err = -EADDRNOTAVAIL;
  failed->len = 0;
  *n = 0;
  for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
    if (is_repeated(list, ai)) continue;
    int fd = listen_open(ai, options);
    if (fd >= 0) {
      fds[(*n)++] = fd;
      continue;
    }
    if (fd == -EADDRNOTAVAIL || fd == -ENOTSUP) continue; /* the family is not enabled: asyncio's guess */
    al__addr_set(failed, ai->ai_addr, ai->ai_addrlen);
    err = fd;
    goto fail;
  }
  if (*n) return 0;
fail:
  close_all(fds, *n);
  return err;
}

int al_server_bind(al_server *server, const struct addrinfo *list, const al_listen_options *options, al_addr *failed) {
  size_t n = 0;
  al_addr unused;
  for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) n++;
  int *fds = al__calloc(AL_MAX(n, (size_t)1), sizeof(*fds));
  if (!fds) return -ENOMEM;
  int err = listen_open_all(list, options, fds, &n, failed ? failed : &unused);
  if (!err) {
    err = al__server_add_all(server, fds, n, backlog_of(options));
    if (err) close_all(fds, n);
  }
  al__free(fds);
  return err;
}

int al_server_bind_unix(al_server *server, const al_addr *addr, const al_listen_options *options) {
  if (al__addr_family(addr) != AF_UNIX) return -EINVAL;
  const char *path = al__addr_path(addr);
  int fd = al__sock_open(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  al__sock_remove_stale(addr);
  int err = al__sock_bind(fd, addr);
  if (!err) err = al_server_add(server, fd, backlog_of(options), options && options->keep_file ? NULL : path);
  if (err) al__fd_close(fd);
  return err;
}
