/* server.c - listening sockets and the transports that came out of them. Hands accepted descriptors to its owner,
 * which makes a transport of them and attaches it. Knows no protocol, no machine and no names of hosts (net.c binds).
 *
 * A server that was given a socket holds a reference to itself until it is closed, its accept operations have ended,
 * its clients are gone and the owner was told. One that never had a socket goes with its last reference, in silence.
 *
 * SPDX-License-Identifier: MIT */
#include "server.h"

#include "debug.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"
#include "transport.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPT_RETRY_NS AL_NS_PER_SEC /* asyncio's; long enough not to spin, short enough for clients in the backlog */

typedef struct al_listener { /* belongs to its server; closed with it, freed when its operation has ended */
  al_op op;
  al_timer retry; /* accepts again after a lack of descriptors or memory */
  al_server *server;
  struct al_listener *next;
  char *path; /* to unlink if it is still this file */
  dev_t device;
  ino_t inode;
  int backlog;
} al_listener;

struct al_server {
  al_loop *loop; /* NULL once closed for good */
  const al_server_ops *ops;
  void *data;
  al_listener *listeners; /* after close: those whose operation has not ended */
  al__group clients;
  al_link in_room;
  al_handle told; /* ops->closed */
  int refs;
  bool serving, closed;
  bool own; /* holds itself */
};

/* ---- the room ---------------------------------------------------------------------------------------------------- */

static void server_die(al_server *server);

static void room_close(al_loop *loop, void *state) {
  al_link *all = state;
  (void)loop;
  while (!al__link_is_empty(all)) server_die(AL_CONTAINER(all->next, al_server, in_room));
  al__free(all);
}

static void room_dump(const al_loop *loop, void *state, int fd) {
  const al_link *all = state;
  (void)loop;
  for (const al_link *link = all->next; link != all; link = link->next) {
    const al_server *s = AL_CONTAINER(link, al_server, in_room);
    al__dump_line(fd, "server fd=%d clients=%zu%s%s\n", s->listeners ? s->listeners->op.fd : -1, s->clients.count,
                  s->serving ? " serving" : "", s->closed ? " closing" : "");
  }
}

static al_link *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_SERVER];
  if (slot->state) return slot->state;
  al_link *all = al__malloc(sizeof(*all));
  if (!all) return NULL;
  al__link_init(all);
  *slot = (al__room){.state = all, .close = room_close, .dump = room_dump};
  return all;
}

static void room_leave(al_server *server) {
  al__link_remove(&server->in_room);
  server->loop->stats.servers--;
}

/* ---- references -------------------------------------------------------------------------------------------------- */

void al_server_hold(al_server *server) { server->refs++; }

void al_server_release(al_server *server) {
  al_assert(server->refs > 0);
  if (--server->refs > 0) return;
  if (server->loop) room_leave(server);
  al__group_scatter(&server->clients);
  al_assert(!server->listeners);
  al__free(server);
}

static void server_own(al_server *server) {
  if (server->own) return;
  server->own = true;
  server->refs++;
}

static void server_release_own(al_server *server) {
  if (!server->own) return;
  server->own = false;
  al_server_release(server);
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

static void unlink_path(const al_listener *listener) {
  struct stat st;
  if (!listener->path || stat(listener->path, &st)) return;
  if (st.st_dev != listener->device || st.st_ino != listener->inode) return; /* somebody else's by now */
  if (unlink(listener->path) && errno != ENOENT)
    al_log(AL_LOG_ERROR, NULL, "Unable to clean up listening UNIX socket '%s': %s", listener->path,
           al_strerror(-errno));
}

static int listener_accept(al_listener *listener) {
  al_loop *loop = listener->server->loop;
  return loop->io->submit(loop, &listener->op);
}

/* Told once, then silence for a second: without the pause a lack of descriptors would keep the loop spinning. */
static void listener_failed(al_listener *listener, int error) {
  al_server *server = listener->server;
  if (server->ops->error) server->ops->error(server, server->data, listener->op.fd, error);
  if (server->closed) return; /* the listener is gone */
  al_timer_set(server->loop, &listener->retry, al_loop_time_ns(server->loop) + ACCEPT_RETRY_NS);
}

static void listener_on_retry(al_loop *loop, al_handle *handle) {
  al_listener *listener = AL_CONTAINER(handle, al_listener, retry.handle);
  (void)loop;
  int err = listener_accept(listener);
  if (err) listener_failed(listener, err);
}

/* Closed, and its operation has ended. */
static void listener_free(al_listener *listener) {
  al_listener **place = &listener->server->listeners;
  while (*place != listener) place = &(*place)->next;
  *place = listener->next;
  al__free(listener->path);
  al__free(listener);
}

/* Errors of the connection that was about to be accepted, see accept(2): the next one may be fine. */
static bool is_passing(int error) {
  static const int passing[] = {ECONNABORTED, ECONNRESET,   EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH,
                                EHOSTDOWN,    EHOSTUNREACH, ENONET, ETIMEDOUT,   EAGAIN,   EINTR};
  for (size_t i = 0; i < AL_COUNT(passing); i++)
    if (error == -passing[i]) return true;
  return false;
}

static void server_let_go(al_server *server);

static void listener_on_end(al_listener *listener, int error) {
  al_server *server = listener->server;
  if (server->closed) {
    listener_free(listener);
    server_let_go(server);
    return;
  }
  if (is_passing(error)) error = listener_accept(listener);
  if (error) listener_failed(listener, error);
}

static void listener_on_accept(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_listener *listener = AL_CONTAINER(op, al_listener, op);
  al_server *server = listener->server;
  (void)loop;
  if (!(flags & AL_OP_MORE))
    listener_on_end(listener, result);
  else if (server->closed)
    al__fd_close(result);
  else
    server->ops->accepted(server, server->data, result, op->u.accept.peer);
}

/* It listens no more as soon as this returns; what has been accepted meanwhile comes still, and is closed. */
static void listener_close(al_listener *listener) {
  al_loop *loop = listener->server->loop;
  unlink_path(listener);
  if (loop->closed)
    al__fd_close(listener->op.fd); /* the machine closes too */
  else
    loop->io->close_fd(loop, listener->op.fd);
  if (al_op_is_idle(&listener->op)) listener_free(listener);
}

static void listener_cancel(al_listener *listener) {
  al_loop *loop = listener->server->loop;
  al_timer_cancel(&listener->retry);
  if (!al_op_is_idle(&listener->op)) loop->io->cancel(loop, &listener->op);
}

static int remember_path(al_listener *listener, const char *path) {
  struct stat st;
  if (!path || !*path || stat(path, &st)) return 0; /* abstract, or gone already: nothing to remove */
  listener->path = al__strndup(path, strlen(path));
  listener->device = st.st_dev;
  listener->inode = st.st_ino;
  return listener->path ? 0 : -ENOMEM;
}

static al_listener *listener_new(al_server *server, int fd, int backlog, const char *path) {
  al_listener *listener = al__calloc(1, sizeof(*listener));
  if (!listener) return NULL;
  if (remember_path(listener, path)) {
    al__free(listener);
    return NULL;
  }
  listener->server = server;
  listener->backlog = AL_MAX(backlog, 1);
  listener->op = (al_op){.done = listener_on_accept, .fd = fd, .kind = AL_OP_ACCEPT};
  listener->op.u.accept.limit = listener->backlog;
  al_timer_init(&listener->retry, listener_on_retry);
  return listener;
}

static void append_listeners(al_server *server, al_listener *first) {
  al_listener **end = &server->listeners;
  while (*end) end = &(*end)->next;
  *end = first;
  server_own(server);
}

int al_server_add(al_server *server, int fd, int backlog, const char *unlink) {
  if (server->closed) return AL_ECLOSED;
  int err = al__fd_set_nonblocking(fd);
  if (err) return err;
  al_listener *listener = listener_new(server, fd, backlog, unlink);
  if (!listener) return -ENOMEM;
  append_listeners(server, listener);
  return 0;
}

int al__server_add_all(al_server *server, const int *fds, size_t n, int backlog) {
  al_listener *first = NULL;
  if (server->closed) return AL_ECLOSED;
  while (n-- > 0) {
    al_listener *listener = listener_new(server, fds[n], backlog, NULL);
    if (!listener) goto fail;
    listener->next = first;
    first = listener;
  }
  if (first) append_listeners(server, first);
  return 0;
fail:
  while (first) {
    al_listener *next = first->next;
    al__free(first);
    first = next;
  }
  return -ENOMEM;
}

/* ---- life of a server -------------------------------------------------------------------------------------------- */

/* Its own reference goes when the owner was told and no operation is in flight. */
static void server_let_go(al_server *server) {
  if (!server->loop && !server->listeners) server_release_own(server);
}

static void server_end(al_server *server) {
  room_leave(server);
  server->loop = NULL;
  if (server->ops->closed) server->ops->closed(server, server->data);
  server_let_go(server);
}

static void server_on_told(al_loop *loop, al_handle *handle) {
  al_server *server = AL_CONTAINER(handle, al_server, told);
  (void)loop;
  if (server->clients.count == 0) server_end(server); /* else one came in late */
}

/* From the loop's turn, right after the client's connection_lost: who waits for the end of the server goes on in the
 * next turn, as in asyncio. */
static void server_on_left(al__group *clients) {
  al_server *server = AL_CONTAINER(clients, al_server, clients);
  if (server->closed && server->loop && clients->count == 0 && !al_handle_is_queued(&server->told)) server_end(server);
}

int al_server_new(al_loop *loop, const al_server_ops *ops, void *data, al_server **server) {
  if (loop->closed) return AL_ECLOSED;
  al_link *all = room_of(loop);
  al_server *made = all ? al__calloc(1, sizeof(*made)) : NULL;
  if (!made) return -ENOMEM;
  made->loop = loop;
  made->ops = ops;
  made->data = data;
  made->refs = 1;
  al__group_init(&made->clients, server_on_left);
  al_handle_init(&made->told, server_on_told);
  al__link_append(all, &made->in_room);
  loop->stats.servers++;
  *server = made;
  return 0;
}

void al_server_set_data(al_server *server, void *data) { server->data = data; }

int al_server_start(al_server *server) {
  if (server->closed) return AL_ECLOSED;
  if (server->serving) return 0;
  for (al_listener *l = server->listeners; l; l = l->next) {
    int err = al__sock_listen(l->op.fd, l->backlog);
    if (err) return err;
  }
  server->serving = true;
  int err = 0;
  for (al_listener *l = server->listeners; l && !err; l = l->next) err = listener_accept(l);
  return err;
}

static void close_listeners(al_server *server) {
  for (al_listener *l = server->listeners; l; l = l->next) listener_cancel(l);
  for (al_listener *l = server->listeners, *next; l; l = next) {
    next = l->next;
    listener_close(l);
  }
}

void al_server_close(al_server *server) {
  if (server->closed) return;
  server->closed = true;
  server->serving = false;
  close_listeners(server);
  server_own(server); /* if it never had a socket */
  if (server->clients.count == 0) al_call_soon(server->loop, &server->told);
}

static void server_die(al_server *server) {
  al_server_hold(server);
  al_handle_cancel(&server->told);
  server->closed = true;
  server->serving = false;
  al__group_scatter(&server->clients);
  close_listeners(server);
  server_end(server);
  al_server_release(server);
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

void al_server_attach(al_server *server, al_transport *transport) { al__group_add(&server->clients, transport); }
size_t al_server_clients(const al_server *server) { return server->clients.count; }

/* Neither close nor abort takes a transport out of the ring before the loop's next turn. */
static void each_client(al_server *server, void (*visit)(al_transport *transport)) {
  al_link *ring = &server->clients.ring;
  for (al_link *link = ring->next, *next; link != ring; link = next) {
    next = link->next;
    visit(AL_CONTAINER(link, al_transport, in_group));
  }
}

void al_server_close_clients(al_server *server) { each_client(server, al_transport_close); }
void al_server_abort_clients(al_server *server) { each_client(server, al_transport_abort); }

/* ---- what it is -------------------------------------------------------------------------------------------------- */

bool al_server_is_serving(const al_server *server) { return server->serving; }
bool al_server_is_closed(const al_server *server) { return server->closed; }
al_loop *al_server_loop(const al_server *server) { return server->loop; }

static bool owns_fd(const al_server *server, int fd) {
  const al_listener *l = server->closed ? NULL : server->listeners;
  while (l && l->op.fd != fd) l = l->next;
  return l != NULL;
}

bool al_fd_has_server(const al_loop *loop, int fd) {
  const al_link *all = loop->rooms[AL_ROOM_SERVER].state, *link = all ? all->next : NULL;
  while (link != all && !owns_fd(AL_CONTAINER(link, al_server, in_room), fd)) link = link->next;
  return link != all;
}

size_t al_server_sockets(const al_server *server, int *fds, size_t max) {
  size_t n = 0;
  if (server->closed) return 0;
  for (const al_listener *l = server->listeners; l; l = l->next, n++)
    if (n < max) fds[n] = l->op.fd;
  return n;
}
