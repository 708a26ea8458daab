/* resolve.c - getaddrinfo and getnameinfo without waiting: in threads of the loop's own, so that neither a slow name
 * server nor a full default executor stands in the way of the other. What needs no name server is answered without a
 * thread, though from a later turn. Used by net.c and bindings. Knows no sockets.
 *
 * A request belongs to the loop's thread; while its job is in the pool, only work() touches it. At loop close a
 * request whose job runs is left to the executor, which frees it by way of done() when the system's resolver returns.
 *
 * SPDX-License-Identifier: MIT */
#include "debug.h"
#include "handle.h"
#include "loop.h"
#include "mem.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

#define MAX_THREADS 4
#define SERVICE_SIZE 64

typedef struct resolve_room {
  al_link all; /* of al_resolve.in_room */
  al_executor *executor;
} resolve_room;

struct al_resolve {
  al_loop *loop; /* NULL: it closed */
  al_link in_room;
  al_job job;       /* in a thread, or ... */
  al_handle answer; /* ... queued, if there was no need for one */
  bool cancelled;
  int error;
  void *data;
  /* getaddrinfo */
  al_resolved_fn *resolved; /* NULL: this is getnameinfo */
  char *host, *service;
  struct addrinfo hints, *found;
  /* getnameinfo */
  al_nameinfo_fn *named;
  al_addr addr;
  int flags;
  char host_name[NI_MAXHOST], service_name[SERVICE_SIZE];
};

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void resolve_free(al_resolve *request) {
  if (request->found) freeaddrinfo(request->found);
  al__free(request->host);
  al__free(request->service);
  al__free(request);
}

static void resolve_leave(al_resolve *request) {
  al__link_remove(&request->in_room);
  request->loop = NULL;
}

/* Answers; the request is gone. */
static void resolve_finish(al_resolve *request) {
  resolve_leave(request);
  if (!request->cancelled && request->resolved) {
    struct addrinfo *found = request->found;
    request->found = NULL;
    request->resolved(request->data, request->error, found);
  } else if (!request->cancelled) {
    bool ok = !request->error;
    request->named(request->data, request->error, ok ? request->host_name : NULL, ok ? request->service_name : NULL);
  }
  resolve_free(request);
}

static int gai_result(int code) {
  if (!code) return 0;
  return code == EAI_SYSTEM ? -errno : AL_EAI(code);
}

/* In any thread. */
static void resolve_ask(al_resolve *request) {
  if (request->resolved)
    request->error = gai_result(getaddrinfo(request->host, request->service, &request->hints, &request->found));
  else
    request->error = gai_result(getnameinfo((const struct sockaddr *)&request->addr.ss, request->addr.len,
                                            request->host_name, sizeof(request->host_name), request->service_name,
                                            sizeof(request->service_name), request->flags));
}

static void resolve_work(al_job *job) { resolve_ask(AL_CONTAINER(job, al_resolve, job)); }

static void resolve_on_done(al_job *job, int error) {
  al_resolve *request = AL_CONTAINER(job, al_resolve, job);
  if (!request->loop) {
    resolve_free(request);
    return;
  }
  if (error) request->error = error;
  resolve_finish(request);
}

static void resolve_on_answer(al_loop *loop, al_handle *handle) {
  al_resolve *request = AL_CONTAINER(handle, al_resolve, answer);
  (void)loop;
  resolve_finish(request);
}

void al_resolve_cancel(al_resolve *request) {
  resolve_room *room = request->loop->rooms[AL_ROOM_RESOLVE].state;
  request->cancelled = true;
  if (al_handle_cancel(&request->answer))
    resolve_finish(request);
  else
    al_executor_cancel(room->executor, &request->job); /* if it has begun: done() comes when it ends */
}

/* ---- the room ---------------------------------------------------------------------------------------------------- */

static void resolve_die(al_resolve *request, al_executor *executor) {
  resolve_leave(request);
  if (al_handle_cancel(&request->answer))
    resolve_free(request);
  else
    al_executor_cancel(executor, &request->job);
}

static void room_close(al_loop *loop, void *state) {
  resolve_room *room = state;
  (void)loop;
  while (!al__link_is_empty(&room->all)) resolve_die(AL_CONTAINER(room->all.next, al_resolve, in_room), room->executor);
  if (room->executor) al_executor_shutdown(room->executor, false);
  al__free(room);
}

static void room_dump(const al_loop *loop, void *state, int fd) {
  const resolve_room *room = state;
  (void)loop;
  for (const al_link *link = room->all.next; link != &room->all; link = link->next) {
    const al_resolve *request = AL_CONTAINER(link, al_resolve, in_room);
    al__dump_line(fd, "resolving %s\n", request->resolved && request->host ? request->host : "an address");
  }
}

static resolve_room *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_RESOLVE];
  if (!slot->state) {
    resolve_room *room = al__calloc(1, sizeof(*room));
    if (!room) return NULL;
    al__link_init(&room->all);
    *slot = (al__room){.state = room, .close = room_close, .dump = room_dump};
  }
  return slot->state;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static int submit(resolve_room *room, al_resolve *request) {
  int err = room->executor ? 0 : al_executor_new(MAX_THREADS, "aloop-dns", &room->executor);
  if (err) return err;
  request->job.work = resolve_work;
  request->job.done = resolve_on_done;
  return al_executor_submit(room->executor, request->loop, &request->job);
}

/* Has the request answered: now, for a later turn, if at_once; else by a thread. On failure it is freed. */
static int resolve_start(al_loop *loop, al_resolve *made, bool at_once, al_resolve **request) {
  resolve_room *room = room_of(loop);
  int err = -ENOMEM;
  if (!room) goto fail;
  made->loop = loop;
  al_handle_init(&made->answer, resolve_on_answer);
  err = at_once ? 0 : submit(room, made);
  if (err) goto fail;
  al__link_append(&room->all, &made->in_room);
  if (at_once) {
    resolve_ask(made);
    al_call_soon(loop, &made->answer);
  }
  if (request) *request = made;
  return 0;
fail:
  resolve_free(made);
  return err;
}

/* Can getaddrinfo answer this by itself? */
static bool is_numeric(const char *host, const char *service) {
  al_addr addr;
  if (service && service[strspn(service, "0123456789")]) return false;
  return !host || al_addr_ip(&addr, host, 0, 0, 0) == 0;
}

static int copy_text(char **copy, const char *text) {
  *copy = text ? al__strndup(text, strlen(text)) : NULL;
  return text && !*copy ? -ENOMEM : 0;
}

int al_getaddrinfo(al_loop *loop, const char *host, const char *service, const struct addrinfo *hints, void *data,
                   al_resolved_fn *resolved, al_resolve **request) {
  if (loop->closed) return AL_ECLOSED;
  al_resolve *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  made->data = data;
  made->resolved = resolved;
  if (copy_text(&made->host, host) || copy_text(&made->service, service)) {
    resolve_free(made);
    return -ENOMEM;
  }
  bool numeric = is_numeric(host, service);
  if (hints)
    made->hints = (struct addrinfo){.ai_flags = hints->ai_flags,
                                    .ai_family = hints->ai_family,
                                    .ai_socktype = hints->ai_socktype,
                                    .ai_protocol = hints->ai_protocol};
  if (numeric) made->hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  return resolve_start(loop, made, numeric, request);
}

int al_getnameinfo(al_loop *loop, const al_addr *addr, int flags, void *data, al_nameinfo_fn *resolved,
                   al_resolve **request) {
  const int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
  if (loop->closed) return AL_ECLOSED;
  al_resolve *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  made->data = data;
  made->named = resolved;
  made->addr = *addr;
  made->flags = flags;
  return resolve_start(loop, made, (flags & numeric) == numeric, request);
}
