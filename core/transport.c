/* transport.c - the base of all transports, see transport.h; and the part of aloop.h that is the same for every kind.
 * Used by the kinds of transports and server.c. Knows no machine beyond closing a descriptor, and no kind.
 *
 * SPDX-License-Identifier: MIT */
#include "transport.h"

#include "debug.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <string.h>

typedef struct transport_room { /* of a loop */
  al_link all;
  al_transport **by_fd;
  size_t size;
} transport_room;

static const al_protocol_ops mute_ops;
static al_protocol mute = {.ops = &mute_ops};

/* ---- the room: which transports a loop has ----------------------------------------------------------------------- */

static void transport_die(al_transport *transport);

static void room_close(al_loop *loop, void *state) {
  transport_room *room = state;
  (void)loop;
  while (!al__link_is_empty(&room->all)) transport_die(AL_CONTAINER(room->all.next, al_transport, in_room));
  al__free(room->by_fd);
  al__free(room);
}

static void room_dump(const al_loop *loop, void *state, int fd) {
  const transport_room *room = state;
  (void)loop;
  for (const al_link *link = room->all.next; link != &room->all; link = link->next) {
    const al_transport *t = AL_CONTAINER(link, al_transport, in_room);
    al__dump_line(fd, "%s fd=%d unsent=%zu%s%s%s\n", t->ops->name, al_transport_fd(t), t->ops->buffered(t),
                  t->closing ? " closing" : "", t->paused ? " paused" : "", t->busy ? " busy" : "");
  }
}

static transport_room *room_of(al_loop *loop) {
  al__room *slot = &loop->rooms[AL_ROOM_TRANSPORT];
  if (slot->state) return slot->state;
  transport_room *room = al__calloc(1, sizeof(*room));
  if (!room) return NULL;
  al__link_init(&room->all);
  *slot = (al__room){.state = room, .close = room_close, .dump = room_dump};
  return room;
}

static void room_append(transport_room *room, al_transport *transport) {
  al__link_append(&room->all, &transport->in_room);
  transport->loop->stats.transports++;
}

static int room_enter(al_transport *transport) {
  transport_room *room = room_of(transport->loop);
  if (!room) return -ENOMEM;
  size_t old = room->size;
  int err = al__array_grow((void **)&room->by_fd, &room->size, sizeof(*room->by_fd), (size_t)transport->fd + 1);
  if (err) return err;
  if (room->size > old) memset(room->by_fd + old, 0, (room->size - old) * sizeof(*room->by_fd));
  room->by_fd[transport->fd] = transport;
  room_append(room, transport);
  return 0;
}

static void room_leave(al_transport *transport) {
  transport_room *room = transport->loop->rooms[AL_ROOM_TRANSPORT].state;
  if (room && transport->fd >= 0 && room->by_fd[transport->fd] == transport) room->by_fd[transport->fd] = NULL;
  if (transport->in_room.next) al__link_remove(&transport->in_room);
  transport->loop->stats.transports--;
}

al_transport *al_fd_transport(al_loop *loop, int fd) {
  const transport_room *room = loop->rooms[AL_ROOM_TRANSPORT].state;
  if (!room || fd < 0 || (size_t)fd >= room->size) return NULL;
  al_transport *transport = room->by_fd[fd];
  return transport && !transport->closing ? transport : NULL;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* What can't be kept for lack of memory is not known. */
static void name_set(al__name *name, const al_addr *addr) {
  if (addr->len <= sizeof(name->bytes)) {
    memcpy(name->bytes, &addr->ss, addr->len);
  } else {
    char *copy = al__malloc(addr->len);
    if (!copy) return;
    memcpy(copy, &addr->ss, addr->len);
    memcpy(name->bytes, &copy, sizeof(copy));
  }
  name->len = addr->len;
}

static const void *name_sockaddr(const al__name *name) {
  if (name->len <= sizeof(name->bytes)) return name->bytes;
  void *copy;
  memcpy(&copy, name->bytes, sizeof(copy));
  return copy;
}

static int name_get(const al__name *name, al_addr *addr) {
  if (!name->len) return -ENOTCONN;
  addr->len = name->len;
  memcpy(&addr->ss, name_sockaddr(name), name->len);
  return 0;
}

static void name_free(al__name *name) {
  if (name->len > sizeof(name->bytes)) al__free((void *)name_sockaddr(name));
  name->len = 0;
}

static void learn_peer(al_transport *transport, const al_addr *peer) {
  al_addr asked;
  if (peer && peer->len)
    name_set(&transport->peer, peer);
  else if (!al__sock_peer(transport->fd, &asked))
    name_set(&transport->peer, &asked);
}

static void learn_local(al_transport *transport) {
  al_addr addr;
  if (transport->local || transport->fd < 0 || al__sock_name(transport->fd, &addr)) return;
  transport->local = al__calloc(1, sizeof(*transport->local));
  if (transport->local) name_set(transport->local, &addr);
}

int al__transport_family(const al_transport *transport) {
  sa_family_t family = AF_UNSPEC;
  if (transport->peer.len < sizeof(family)) return AF_UNSPEC;
  memcpy(&family, name_sockaddr(&transport->peer), sizeof(family));
  return family;
}

static al_transport *lowest(al_transport *transport) {
  while (transport->below) transport = transport->below;
  return transport;
}

int al_transport_peername(al_transport *transport, al_addr *addr) { return name_get(&lowest(transport)->peer, addr); }

int al_transport_sockname(al_transport *transport, al_addr *addr) {
  transport = lowest(transport);
  learn_local(transport);
  return transport->local ? name_get(transport->local, addr) : -ENOTCONN;
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

/* Two of asyncio's three successive callbacks: connection_made and the start of reading. */
static void transport_start(al_transport *transport) {
  al_protocol *protocol = transport->protocol;
  transport->made = true;
  if (protocol->ops->connection_made) protocol->ops->connection_made(protocol, transport);
  transport->ops->start(transport);
}

static void transport_on_turn(al_loop *loop, al_handle *handle) {
  al_transport *transport = AL_CONTAINER(handle, al_transport, turn);
  (void)loop;
  if (transport->made)
    transport->ops->turn(transport);
  else
    transport_start(transport);
  al__transport_settle(transport);
}

static void leave_group(al_transport *transport) {
  al__group *group = transport->group;
  if (!group) return;
  al__link_remove(&transport->in_group);
  transport->group = NULL;
  group->count--;
  group->left(group);
}

static void tell_lost(al_transport *transport) {
  al_protocol *protocol = transport->protocol;
  transport->lost_done = true;
  if (transport->made && protocol->ops->connection_lost) protocol->ops->connection_lost(protocol, transport->error);
  transport->protocol = &mute;
  leave_group(transport);
}

static void transport_on_lost(al_loop *loop, al_handle *handle) {
  al_transport *transport = AL_CONTAINER(handle, al_transport, lost);
  (void)loop;
  tell_lost(transport);
  al__transport_settle(transport);
}

static size_t default_high(const al_transport *transport) {
  return transport->ops->high_water ? transport->ops->high_water : AL_HIGH_WATER;
}

static void init(al_transport *transport, const al__transport_ops *ops, al_loop *loop, int fd, al_protocol *protocol) {
  transport->ops = ops;
  transport->loop = loop;
  transport->fd = fd;
  transport->protocol = protocol ? protocol : &mute;
  transport->refs = 2; /* the caller's, and the transport's own */
  transport->high = default_high(transport);
  transport->low = transport->high / 4;
  al_handle_init(&transport->turn, transport_on_turn);
  al_handle_init(&transport->lost, transport_on_lost);
}

int al__transport_init(al_transport *transport, const al__transport_ops *ops, al_loop *loop, int fd,
                       const al_addr *peer, al_protocol *protocol) {
  if (loop->closed) return AL_ECLOSED;
  init(transport, ops, loop, fd, protocol);
  int err = room_enter(transport);
  if (err) return err;
  learn_peer(transport, peer);
  return 0;
}

void al__transport_begin(al_transport *transport, al_handle *started) {
  transport->busy = true;
  al_call_soon(transport->loop, &transport->turn);
  if (started) al_call_soon(transport->loop, started); /* in the same turn: before anything is read */
}

static void turn_over(al_loop *loop, al_handle *handle) {
  al_transport *transport = AL_CONTAINER(handle, al_transport, turn);
  (void)loop;
  transport->ops->turn(transport);
  al__transport_settle(transport);
}

void al__transport_init_over(al_transport *transport, const al__transport_ops *ops, al_transport *below,
                             al_protocol *protocol) {
  init(transport, ops, below->loop, -1, protocol);
  transport->turn.run = turn_over;
  transport->below = below;
  below->above = transport;
  room_append(below->loop->rooms[AL_ROOM_TRANSPORT].state, transport);
  al__transport_begin(transport, NULL);
}

static void close_fd(al_transport *transport) {
  if (transport->below) return;
  if (transport->dying)
    al__fd_close(transport->fd); /* the machine is closing too */
  else
    transport->loop->io->close_fd(transport->loop, transport->fd);
  transport->fd = -1;
}

/* The one that stands on this one goes with it. It was told already, as this one's protocol, unless another took its
 * place; when the loop closes it may still have to die. */
static void tell_above(al_transport *transport) {
  if (transport->above && !transport->dying) al__transport_end(transport->above, transport->error);
}

static void finish_above(al_transport *transport) {
  al_transport *above = transport->above;
  transport->above = NULL;
  if (above && above->lost_done) al__transport_settle(above);
}

static void transport_finish(al_transport *transport) {
  const al_transport_owner *owner = transport->owner;
  tell_above(transport);
  if (transport->refs > 1) learn_local(transport); /* somebody may still ask */
  room_leave(transport);
  close_fd(transport);
  transport->loop = NULL;
  transport->owner = NULL;
  if (transport->ops->finished) transport->ops->finished(transport);
  if (owner && owner->closed) owner->closed(transport, transport->data);
  leave_group(transport);
  finish_above(transport);
  al_transport_release(transport);
}

static void begin_closing(al_transport *transport) {
  if (transport->closing) return;
  transport->closing = true;
  transport->ops->stop_reading(transport);
  al__feeder *feeder = transport->feeder;
  if (feeder) feeder->lost(feeder);
}

/* No operation is in flight on the descriptor. */
static bool is_idle(const al_transport *transport) {
  if (transport->below) return !transport->below->loop;
  return transport->foreign_ops == 0 && transport->ops->is_idle(transport);
}

/* The loop closes. Operations in flight end when the machine closes, right after. */
static void transport_die(al_transport *transport) {
  al__link_remove(&transport->in_room);
  transport->dying = transport->lost_done = true;
  transport->protocol = &mute;
  if (!transport->conn_lost) transport->conn_lost = 1;
  al_handle_cancel(&transport->turn);
  al_handle_cancel(&transport->lost);
  transport->ops->drop(transport);
  begin_closing(transport);
  al__transport_settle(transport);
}

static bool transport_is_busy(const al_transport *transport) {
  if (al_handle_is_queued(&transport->turn) || al_handle_is_queued(&transport->lost)) return true;
  return transport->below ? transport->below->busy || !transport->ops->is_idle(transport) : !is_idle(transport);
}

void al__transport_settle(al_transport *transport) {
  if (transport->lost_done && is_idle(transport)) {
    transport_finish(transport);
    return;
  }
  bool busy = transport_is_busy(transport);
  if (busy == transport->busy) return;
  transport->busy = busy;
  if (transport->owner && transport->owner->activity) transport->owner->activity(transport, transport->data, busy);
  if (transport->above) al__transport_settle(transport->above);
}

void al_transport_hold(al_transport *transport) { transport->refs++; }

void al_transport_release(al_transport *transport) {
  al_assert(transport->refs > 0);
  if (--transport->refs > 0) return;
  al_assert(transport->fd < 0);
  al_transport *below = transport->below;
  name_free(&transport->peer);
  if (transport->local) name_free(transport->local);
  al__free(transport->local);
  if (transport->ops->free) transport->ops->free(transport);
  al__free(transport);
  if (below) al_transport_release(below);
}

void al_transport_set_owner(al_transport *transport, const al_transport_owner *owner, void *data) {
  transport->owner = transport->loop ? owner : NULL;
  transport->data = data;
  if (transport->owner && owner->activity && transport->busy) owner->activity(transport, data, true);
}

void *al_transport_data(const al_transport *transport) { return transport->data; }

/* ---- closing ----------------------------------------------------------------------------------------------------- */

void al__transport_lose(al_transport *transport, int error) {
  al_assert(transport->closing && !transport->conn_lost);
  transport->conn_lost = 1;
  transport->error = error;
  al_call_soon(transport->loop, &transport->lost);
}

void al__transport_end(al_transport *transport, int error) {
  if (transport->lost_done) return;
  begin_closing(transport);
  if (!transport->conn_lost) transport->conn_lost = 1;
  transport->error = error;
  tell_lost(transport);
}

void al_transport_close(al_transport *transport) {
  if (transport->closing) return;
  begin_closing(transport);
  if (transport->ops->close) {
    transport->conn_lost = 1;
    transport->ops->close(transport);
  } else if (transport->ops->buffered(transport) == 0) {
    al__transport_lose(transport, 0);
  }
  al__transport_settle(transport);
}

static void fail_below(al_transport *transport, int error) {
  if (transport->lost_done) return;
  transport->ops->drop(transport);
  begin_closing(transport);
  if (!transport->conn_lost) transport->conn_lost = 1;
  if (!transport->error) transport->error = error;
  al_transport_fail(transport->below, error);
  al__transport_settle(transport);
}

void al_transport_fail(al_transport *transport, int error) {
  if (transport->below) {
    fail_below(transport, error);
    return;
  }
  if (transport->conn_lost) return;
  transport->ops->drop(transport);
  begin_closing(transport);
  al__transport_lose(transport, error);
  al__transport_settle(transport);
}

void al_transport_abort(al_transport *transport) { al_transport_fail(transport, 0); }

bool al_transport_is_closing(const al_transport *transport) { return transport->closing; }

void al__transport_fatal(al_transport *transport, int error, const char *message) {
  if (transport->loop->debug && error > AL_ECLOSED)
    al_log(AL_LOG_DEBUG, NULL, "%s fd=%d: %s: %s", transport->ops->name, al_transport_fd(transport), message,
           al_strerror(error));
  al_transport_fail(transport, error);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void log_reading(const al_transport *transport, const char *what) {
  if (transport->loop->debug)
    al_log(AL_LOG_DEBUG, NULL, "%s fd=%d %s reading", transport->ops->name, al_transport_fd(transport), what);
}

bool al_transport_is_reading(const al_transport *transport) { return al__transport_is_open_for_reading(transport); }

int al_transport_pause_reading(al_transport *transport) {
  if (!transport->ops->pause_reading) return -ENOTSUP;
  if (!al__transport_is_open_for_reading(transport)) return 0;
  transport->paused = true;
  log_reading(transport, "pauses");
  int err = transport->ops->pause_reading(transport);
  al__transport_settle(transport);
  return err;
}

int al_transport_resume_reading(al_transport *transport) {
  if (transport->closing || !transport->paused) return 0;
  transport->paused = false;
  log_reading(transport, "resumes");
  int err = transport->ops->resume_reading(transport);
  al__transport_settle(transport);
  return err;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

void al__transport_drop_write(al_transport *transport) {
  if (transport->conn_lost >= AL_LOST_WRITES_WARNED)
    al_log(AL_LOG_WARNING, NULL, "%s", transport->ops->drops);
  else
    transport->conn_lost++;
}

int al__transport_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  if (transport->eof_written) return -EPIPE;
  if (transport->feeder) return -EBUSY;
  if (len == 0) return 0;
  if (transport->conn_lost) {
    al__transport_drop_write(transport);
    return 0;
  }
  return transport->ops->write(transport, data, len, keeper, ud);
}

int al_transport_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  return transport->above ? -EALREADY : al__transport_write(transport, data, len, keeper, ud);
}

int al_transport_write_eof(al_transport *transport) {
  if (!transport->ops->write_eof) return -ENOTSUP;
  if (transport->above) return -EALREADY;
  if (transport->closing || transport->eof_written) return 0;
  if (transport->feeder) return -EBUSY;
  transport->eof_written = true;
  return transport->ops->write_eof(transport);
}

bool al_transport_can_write_eof(const al_transport *transport) { return transport->ops->write_eof != NULL; }

size_t al_transport_write_buffer_size(const al_transport *transport) {
  return transport->loop ? transport->ops->buffered(transport) : 0;
}

void al_transport_get_limits(const al_transport *transport, size_t *low, size_t *high) {
  *low = transport->low;
  *high = transport->high;
}

int al_transport_set_limits(al_transport *transport, size_t high, size_t low) {
  const size_t derive = SIZE_MAX;
  if (high == derive) high = low == derive ? default_high(transport) : low > PTRDIFF_MAX / 4 ? PTRDIFF_MAX : 4 * low;
  if (low == derive) low = high / 4;
  if (high < low) return -EINVAL;
  transport->high = high;
  transport->low = low;
  if (transport->loop) al__transport_grown(transport);
  return 0;
}

static bool is_too_much(const al_transport *transport) {
  size_t size = transport->ops->buffered(transport);
  return size > transport->high || (size == transport->high && size > 0 && transport->ops->pauses_at_high);
}

void al__transport_grown(al_transport *transport) {
  al_protocol *protocol = transport->protocol;
  if (transport->writing_paused || !is_too_much(transport)) return;
  transport->writing_paused = true;
  if (!protocol->ops->pause_writing) return;
  al_transport_hold(transport);
  protocol->ops->pause_writing(protocol);
  al_transport_release(transport);
}

void al__transport_shrunk(al_transport *transport) {
  al_protocol *protocol = transport->protocol;
  if (!transport->writing_paused || transport->ops->buffered(transport) > transport->low) return;
  transport->writing_paused = false;
  if (protocol->ops->resume_writing) protocol->ops->resume_writing(protocol);
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

void al_transport_set_protocol(al_transport *transport, al_protocol *protocol) {
  if (transport->lost_done) return; /* no callback will come */
  transport->protocol = protocol ? protocol : &mute;
  if (transport->ops->protocol_changed) transport->ops->protocol_changed(transport);
}

al_protocol *al_transport_protocol(const al_transport *transport) {
  return transport->protocol == &mute ? NULL : transport->protocol;
}

bool al_transport_is_upgraded(const al_transport *transport) { return transport->above; }
al_loop *al_transport_loop(const al_transport *transport) { return transport->loop; }
int al_transport_fd(const al_transport *transport) {
  while (transport->below) transport = transport->below;
  return transport->fd;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

void al__group_init(al__group *group, void (*left)(al__group *group)) {
  al__link_init(&group->ring);
  group->count = 0;
  group->left = left;
}

void al__group_add(al__group *group, al_transport *transport) {
  al_assert(!transport->group);
  if (!transport->loop) return; /* closed already */
  transport->group = group;
  group->count++;
  al__link_append(&group->ring, &transport->in_group);
}

void al__group_scatter(al__group *group) {
  while (!al__link_is_empty(&group->ring)) {
    al_transport *transport = AL_CONTAINER(group->ring.next, al_transport, in_group);
    al__link_remove(&transport->in_group);
    transport->group = NULL;
  }
  group->count = 0;
}
