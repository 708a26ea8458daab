/* datagram.c - datagram transports over a socket of any family: UDP, Unix. One armed RECVFROM as long as it is open,
 * one SENDTO while something is unsent. See transport.h for what it shares with other kinds. Knows no machine: whether
 * datagrams are received one by one or many at a time is the machine's affair.
 *
 * asyncio's rules: an error of the socket is told to the protocol and ends nothing; flow control counts 8 bytes more
 * for each datagram that waits; close() sends what waits, abort() doesn't.
 *
 * SPDX-License-Identifier: MIT */
#include "transport.h"

#include "addr.h"
#include "base.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <string.h>

#define HEADER 8      /* what asyncio counts for a datagram besides its bytes */
#define SEND_BURST 64 /* the most datagrams sent in one turn: one peer's backlog must not stop the others */

typedef struct unsent {
  struct unsent *next;
  struct iovec iov;
  bool has_addr;
  al_addr addr;
  char bytes[];
} unsent;

typedef struct al_datagram {
  al_transport base;
  al_op recv, send;
  unsent *first, **end; /* what waits, the one being sent aside */
  unsent *sending;      /* SENDTO has it; NULL: none */
  size_t size;          /* of all these, with headers; without the one being sent once that was dropped */
  bool dropped;         /* the one being sent is of no interest any more */
  bool bursting;        /* what is sent meanwhile comes behind what waits */
  bool connected;
  al_addr remote; /* where datagrams go that have no address; len 0: nowhere */
} al_datagram;

static inline al_datagram *datagram_of(al_transport *transport) { return AL_CONTAINER(transport, al_datagram, base); }

static bool datagram_is_idle(const al_transport *transport) {
  const al_datagram *d = AL_CONTAINER(transport, al_datagram, base);
  return al_op_is_idle(&d->recv) && al_op_is_idle(&d->send);
}

static void tell_error(al_datagram *d, int error) {
  al_protocol *protocol = d->base.protocol;
  if (protocol->ops->error_received) protocol->ops->error_received(protocol, error);
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static void on_received(al_datagram *d, const al_op *op, int result) {
  al_protocol *protocol = d->base.protocol;
  if (d->base.closing) return;
  if (result < 0)
    tell_error(d, result);
  else if (protocol->ops->datagram_received)
    protocol->ops->datagram_received(protocol, op->u.recvfrom.data, (size_t)result, op->u.recvfrom.from);
}

static void datagram_on_recv(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_datagram *d = AL_CONTAINER(op, al_datagram, recv);
  (void)loop;
  if (flags & AL_OP_MORE) {
    on_received(d, op, result);
    return;
  }
  if (!d->base.closing) al__transport_fatal(&d->base, result, "Fatal read error on datagram transport");
  al__transport_settle(&d->base);
}

static void datagram_start(al_transport *transport) {
  if (transport->closing) return;
  int err = transport->loop->io->submit(transport->loop, &datagram_of(transport)->recv);
  if (err) al__transport_fatal(transport, err, "Fatal read error on datagram transport");
}

static void datagram_stop_reading(al_transport *transport) {
  al_op *recv = &datagram_of(transport)->recv;
  if (!al_op_is_idle(recv)) transport->loop->io->cancel(transport->loop, recv);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static int send_now(const al_datagram *d, const void *data, size_t len, const al_addr *addr) {
  if (d->connected) addr = NULL;
  return al__sock_sendto(d->base.fd, data, len, addr);
}

/* Not now, but later: the socket's buffer is full, or the network's queues are. */
static bool is_passing(int err) { return err == -EAGAIN || err == -ENOBUFS; }

static const al_addr *addr_of(const unsent *u) { return u->has_addr ? &u->addr : NULL; }

static size_t datagram_buffered(const al_transport *transport) {
  return AL_CONTAINER(transport, const al_datagram, base)->size;
}

static unsent *pop(al_datagram *d) {
  unsent *u = d->first;
  d->first = u->next;
  if (!d->first) d->end = &d->first;
  return u;
}

static int append(al_datagram *d, const char *data, size_t len, const al_addr *addr) {
  unsent *u = al__malloc(sizeof(*u) + len);
  if (!u) return -ENOMEM;
  u->next = NULL;
  u->iov = (struct iovec){.iov_base = u->bytes, .iov_len = len};
  u->has_addr = addr != NULL;
  if (addr) u->addr = *addr;
  if (len) memcpy(u->bytes, data, len);
  *d->end = u;
  d->end = &u->next;
  d->size += len + HEADER;
  return 0;
}

static void datagram_drop(al_transport *transport) {
  al_datagram *d = datagram_of(transport);
  while (d->first) al__free(pop(d));
  d->size = 0;
  if (!d->sending || d->dropped) return;
  d->dropped = true;
  transport->loop->io->cancel(transport->loop, &d->send);
}

/* Has the machine send the first one that waits. */
static void send_later(al_datagram *d) {
  al_transport *t = &d->base;
  if (!d->first || d->sending || d->bursting) return;
  d->sending = pop(d);
  d->dropped = false;
  d->send.u.sendto.iov = &d->sending->iov;
  d->send.u.sendto.to = d->connected ? NULL : addr_of(d->sending);
  int err = t->loop->io->submit(t->loop, &d->send);
  if (!err) return;
  al__free(d->sending);
  d->sending = NULL;
  al__transport_fatal(t, err, "Fatal write error on datagram transport");
}

/* Sends what waits as long as the kernel takes it, after the error (or 0) of the one before was told. */
static void send_burst(al_datagram *d, int before) {
  d->bursting = true;
  if (before) tell_error(d, before); /* may close, abort, send */
  for (int n = 0; d->first && n < SEND_BURST; n++) {
    int err = send_now(d, d->first->bytes, d->first->iov.iov_len, addr_of(d->first));
    if (is_passing(err)) break;
    d->size -= d->first->iov.iov_len + HEADER;
    al__free(pop(d));
    if (err) tell_error(d, err);
  }
  d->bursting = false;
}

/* The one being sent is through with, by success or by an error. */
static void on_sent(al_datagram *d, int result) {
  al_transport *t = &d->base;
  d->size -= d->sending->iov.iov_len + HEADER;
  al__free(d->sending);
  d->sending = NULL;
  send_burst(d, AL_MIN(result, 0));
  if (!t->conn_lost) al__transport_shrunk(t); /* may do the same */
  if (t->conn_lost) return;
  send_later(d);
  if (t->closing && !d->size && !t->conn_lost) al__transport_lose(t, 0);
}

static void datagram_on_sent(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_datagram *d = AL_CONTAINER(op, al_datagram, send);
  (void)loop;
  (void)flags;
  if (d->dropped) {
    al__free(d->sending);
    d->sending = NULL;
  } else {
    on_sent(d, result);
  }
  al__transport_settle(&d->base);
}

static int keep(al_datagram *d, const char *data, size_t len, const al_addr *addr) {
  if (append(d, data, len, addr)) return -ENOMEM;
  send_later(d);
  al__transport_settle(&d->base);
  al__transport_grown(&d->base);
  return 0;
}

/* A datagram is not sent: the protocol is told why, unless the transport is closed. */
static int drop_one(al_transport *transport, int err) {
  if (transport->conn_lost) {
    al__transport_drop_write(transport);
    return 0;
  }
  al_transport_hold(transport); /* this may be called from outside of turns */
  tell_error(datagram_of(transport), err);
  al_transport_release(transport);
  return 0;
}

int al_datagram_sendto_failed(al_transport *transport, int error) {
  return datagram_of(transport)->remote.len ? -EISCONN : drop_one(transport, error);
}

int al_datagram_sendto(al_transport *transport, const char *data, size_t len, const al_addr *addr) {
  al_datagram *d = datagram_of(transport);
  if (d->remote.len && addr && !al__addr_equal(addr, &d->remote)) return -EISCONN;
  if (d->remote.len) addr = &d->remote;
  if (!addr && !d->connected) return -EDESTADDRREQ;
  int err = transport->conn_lost ? -ENOTCONN : d->size ? -EAGAIN : send_now(d, data, len, addr);
  if (!err) return 0;
  return is_passing(err) ? keep(d, data, len, addr) : drop_one(transport, err);
}

int al_datagram_remote(const al_transport *transport, al_addr *addr) {
  const al_datagram *d = AL_CONTAINER(transport, const al_datagram, base);
  if (!d->remote.len) return -ENOTCONN;
  *addr = d->remote;
  return 0;
}

static int datagram_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  (void)keeper;
  (void)ud;
  return al_datagram_sendto(transport, data, len, NULL);
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static void datagram_turn(al_transport *transport) { (void)transport; }

static const al__transport_ops datagram_ops = {
    .name = "datagram",
    .drops = "socket.send() raised exception.",
    .start = datagram_start,
    .turn = datagram_turn,
    .stop_reading = datagram_stop_reading,
    .write = datagram_write,
    .buffered = datagram_buffered,
    .drop = datagram_drop,
    .is_idle = datagram_is_idle,
};

int al_datagram_new(al_loop *loop, int fd, const al_addr *remote, al_protocol *protocol, al_handle *started,
                    al_transport **transport) {
  al_datagram *d = al__calloc(1, sizeof(*d));
  if (!d) return -ENOMEM;
  int err = al__transport_init(&d->base, &datagram_ops, loop, fd, NULL, protocol);
  if (err) {
    al__free(d);
    return err;
  }
  d->end = &d->first;
  d->recv = (al_op){.done = datagram_on_recv, .kind = AL_OP_RECVFROM, .fd = fd};
  d->send = (al_op){.done = datagram_on_sent, .kind = AL_OP_SENDTO, .fd = fd};
  d->connected = al_transport_peername(&d->base, &d->remote) == 0;
  if (!d->connected && remote) d->remote = *remote;
  al__transport_begin(&d->base, started);
  *transport = &d->base;
  return 0;
}

static int set_options(int fd, const al_datagram_options *options) {
  int err = options->reuse_port ? al__sock_set_reuse_port(fd) : 0;
  if (!err && options->allow_broadcast) err = al__sock_set_broadcast(fd);
  return err;
}

static int bind_and_connect(int fd, const al_datagram_options *options, const al_addr **failed) {
  int err = 0;
  if (options->local) {
    *failed = options->local;
    al__sock_remove_stale(options->local);
    err = al__sock_bind(fd, options->local);
  }
  if (!err && options->remote && !options->allow_broadcast) {
    *failed = options->remote;
    err = al__sock_connect(fd, options->remote); /* of a datagram socket: done at once */
  }
  return err;
}

int al_datagram_open(const al_datagram_options *options, const al_addr **failed) {
  const al_addr *unused;
  if (!failed) failed = &unused;
  *failed = NULL;
  int fd = al__sock_open(options->family, SOCK_DGRAM, options->proto);
  if (fd < 0) return fd;
  int err = set_options(fd, options);
  if (!err) err = bind_and_connect(fd, options, failed);
  if (!err) return fd;
  al__fd_close(fd);
  return err;
}
