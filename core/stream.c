/* stream.c - stream transports over a connected socket: TCP and Unix. One armed RECV while it reads, one SEND while
 * something is unsent. See transport.h for what it shares with other kinds. Knows no machine: where an operation is
 * performed by readiness, bytes are read straight into a buffered protocol's memory (stream_lend); a ring lends its
 * own buffers.
 *
 * SPDX-License-Identifier: MIT */
#include "stream.h"

#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <string.h>

#define SEND_SIZE (1024 * 1024) /* the most bytes a SEND: what a turn spends on copying for one peer is bounded */
#define KEEP_SIZE \
  (8 * 1024)              /* the rest of a write is kept rather than copied from here on: keeping costs some 100 ns */
#define LARGE (12 * 1024) /* a plain protocol is asked for its room from here on: copying costs more than to ask */

static inline al_protocol *protocol_of(const al_stream *stream) { return stream->base.protocol; }
static inline bool is_buffered(const al_protocol *protocol) {
  return protocol->ops->get_buffer && protocol->ops->buffer_updated;
}

bool al__stream_is_idle(const al_transport *transport) {
  const al_stream *stream = AL_CONTAINER(transport, al_stream, base);
  return al_op_is_idle(&stream->recv) && (!stream->out || al_op_is_idle(&stream->out->op));
}

/* ---- reading: what is kept --------------------------------------------------------------------------------------- */

static int pieces_append(al_stream *stream, const char *data, size_t len) {
  al__stream_piece *piece = al__malloc(sizeof(*piece) + len);
  if (!piece) return -ENOMEM;
  *piece = (al__stream_piece){.len = len};
  memcpy(piece->bytes, data, len);
  al__stream_piece **end = &stream->pieces;
  while (*end) end = &(*end)->next; /* of a few: what came before reading was paused */
  *end = piece;
  return 0;
}

static al__stream_piece *pieces_pop(al_stream *stream) {
  al__stream_piece *piece = stream->pieces;
  stream->pieces = piece->next;
  return piece;
}

static void pieces_push(al_stream *stream, al__stream_piece *piece) { /* back to the front */
  piece->next = stream->pieces;
  stream->pieces = piece;
}

static void pieces_free(al_stream *stream) {
  while (stream->pieces) al__free(pieces_pop(stream));
}

/* ---- reading: to the protocol ------------------------------------------------------------------------------------ */

/* Gives the protocol a part of the bytes that fits its buffer; returns how many: 0 if it closed, paused, failed or
 * became a plain one. If it was exchanged for another buffered one, that is told, as in asyncio. */
static size_t feed_buffer(al_stream *stream, const char *data, size_t len) {
  char *base = NULL;
  size_t room = 0;
  int err = protocol_of(stream)->ops->get_buffer(protocol_of(stream), (ssize_t)len, &base, &room);
  if (!err && room == 0) err = AL_ENOBUFFER;
  if (err) {
    al__transport_fatal(&stream->base, err, "Fatal error: protocol.get_buffer() call failed.");
    return 0;
  }
  al_protocol *protocol = protocol_of(stream);
  if (!is_buffered(protocol) || !al__transport_is_open_for_reading(&stream->base)) return 0;
  size_t n = AL_MIN(len, room);
  memcpy(base, data, n);
  protocol->ops->buffer_updated(protocol, n);
  return n;
}

/* Delivers bytes in as many calls as the protocol's buffers ask for. Stops when it pauses or closes, and when the
 * loop was broken; returns how many it has taken. The protocol may be exchanged in between. */
static size_t stream_feed(al_stream *stream, const char *data, size_t len) {
  size_t done = 0;
  do {
    al_protocol *protocol = protocol_of(stream);
    if (!is_buffered(protocol)) {
      if (protocol->ops->data_received) protocol->ops->data_received(protocol, data + done, len - done);
      return len;
    }
    done += feed_buffer(stream, data + done, len - done);
  } while (done < len && al__transport_is_open_for_reading(&stream->base) && !al__loop_broken(stream->base.loop));
  return done;
}

static void stream_keep(al_stream *stream, const char *data, size_t len) {
  if (stream->base.closing) return;
  if (pieces_append(stream, data, len)) {
    al__transport_fatal(&stream->base, -ENOMEM, "Fatal read error on socket transport");
    return;
  }
  if (!stream->base.paused && !al_handle_is_queued(&stream->base.turn))
    al_call_soon(stream->base.loop, &stream->base.turn);
}

/* The machine is about to read for a plain protocol: where it wants a large piece, if there is one. */
static int stream_lend_room(al_op *op, char **base, size_t *len) {
  al_protocol *protocol = protocol_of(AL_CONTAINER(op, al_stream, recv));
  size_t n = (size_t)al__fd_readable(op->fd);
  *len = AL_MIN(n, AL_READ_SIZE);
  *base = n < LARGE || !protocol->ops->room ? NULL : protocol->ops->room(protocol, *len); /* ops may be others now */
  return 0;
}

/* Who received a large piece is likely to receive another. */
static void stream_expect_large(al_stream *stream, bool large) {
  const al_protocol_ops *ops = protocol_of(stream)->ops;
  if (!is_buffered(protocol_of(stream))) stream->recv.u.recv.lend = large && ops->room ? stream_lend_room : NULL;
}

static void stream_deliver(al_stream *stream, const char *data, size_t len) {
  stream_expect_large(stream, len >= LARGE);
  if (data == stream->lent) {
    stream->lent = NULL;
    protocol_of(stream)->ops->buffer_updated(protocol_of(stream), len);
    return;
  }
  size_t done = stream_feed(stream, data, len);
  if (done < len) stream_keep(stream, data + done, len - done);
}

/* Reading has ended: 0 at the end of data, or an error. */
static void stream_tell_end(al_stream *stream, int result) {
  al_transport *t = &stream->base;
  al_protocol *protocol = t->protocol;
  stream->ended = true;
  if (result < 0) {
    al__transport_fatal(t, result, "Fatal read error on socket transport");
    return;
  }
  if (t->loop->debug) al_log(AL_LOG_DEBUG, NULL, "%s fd=%d received EOF", t->ops->name, t->fd);
  bool keep_open = protocol->ops->eof_received && protocol->ops->eof_received(protocol);
  if (!keep_open || stream->is_pipe) al_transport_close(t);
}

static void stream_read(al_stream *stream);

/* Delivers what was kept, then goes on reading. */
static void stream_catch_up(al_stream *stream) {
  al_transport *t = &stream->base;
  bool broken = false;
  while (stream->pieces && al__transport_is_open_for_reading(t) && !broken) {
    al__stream_piece *piece = pieces_pop(stream);
    piece->taken += stream_feed(stream, piece->bytes + piece->taken, piece->len - piece->taken);
    if (piece->taken < piece->len && !t->closing)
      pieces_push(stream, piece);
    else
      al__free(piece);
    broken = al__loop_broken(t->loop);
  }
  if (!al__transport_is_open_for_reading(t)) return;
  if (stream->pieces || (broken && stream->has_end)) {
    if (!al_handle_is_queued(&t->turn)) al_call_soon(t->loop, &t->turn);
  } else if (stream->has_end) {
    stream->has_end = false;
    stream_tell_end(stream, stream->end);
  } else {
    stream_read(stream);
  }
}

/* ---- reading: the operation -------------------------------------------------------------------------------------- */

/* Starts reading if it is wanted and not going on. */
static void stream_read(al_stream *stream) {
  al_transport *t = &stream->base;
  if (!t->made || !al__transport_is_open_for_reading(t) || stream->ended) return;
  if (stream->pieces || stream->has_end || !al_op_is_idle(&stream->recv)) return;
  stream->cancelled = false;
  int err = t->loop->io->submit(t->loop, &stream->recv);
  if (err) al__transport_fatal(t, err, "Fatal read error on socket transport");
}

static void stream_cancel_read(al_stream *stream) {
  al_transport *t = &stream->base;
  if (t->made) al_handle_cancel(&t->turn);
  if (al_op_is_idle(&stream->recv) || stream->cancelled) return;
  stream->cancelled = true;
  t->loop->io->cancel(t->loop, &stream->recv);
}

/* The final completion of RECV. */
static void stream_on_recv_end(al_stream *stream, int result) {
  al_transport *t = &stream->base;
  bool cancelled = stream->cancelled;
  stream->cancelled = false;
  if (t->closing || stream->ended) return;
  if (result == -ECANCELED && cancelled) {
    stream_read(stream); /* resumed meanwhile? */
  } else if (t->paused || stream->pieces) {
    stream->has_end = true;
    stream->end = result;
  } else {
    stream_tell_end(stream, result);
  }
}

static void stream_on_recv(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_stream *stream = AL_CONTAINER(op, al_stream, recv);
  (void)loop;
  if (result > 0 && !stream->base.closing) {
    if (stream->base.paused || stream->pieces)
      stream_keep(stream, op->u.recv.data, (size_t)result);
    else
      stream_deliver(stream, op->u.recv.data, (size_t)result);
  }
  if (flags & AL_OP_MORE) return;
  stream_on_recv_end(stream, result);
  al__transport_settle(&stream->base);
}

/* The machine is about to read: a buffered protocol's own memory. */
static int stream_lend(al_op *op, char **base, size_t *len) {
  al_stream *stream = AL_CONTAINER(op, al_stream, recv);
  al_protocol *protocol = protocol_of(stream);
  if (stream->cancelled) return -ECANCELED;
  *base = NULL;
  *len = 0;
  int err = protocol->ops->get_buffer(protocol, -1, base, len);
  if (stream->cancelled) return -ECANCELED; /* it closed or paused */
  if (!err && *len == 0) err = AL_ENOBUFFER;
  if (err) return err;
  /* If it became a plain one, what will stand there is given to it like any bytes lent. */
  stream->lent = is_buffered(protocol_of(stream)) ? *base : NULL;
  return 0;
}

void al__stream_protocol_changed(al_transport *transport) {
  al_stream *stream = al__stream_of(transport);
  stream->recv.u.recv.lend = is_buffered(transport->protocol) ? stream_lend : NULL;
  stream->lent = NULL;
}

void al__stream_stop_reading(al_transport *transport) {
  stream_cancel_read(al__stream_of(transport));
  pieces_free(al__stream_of(transport));
}

int al__stream_pause_reading(al_transport *transport) {
  stream_cancel_read(al__stream_of(transport));
  return 0;
}

int al__stream_resume_reading(al_transport *transport) {
  al_stream *stream = al__stream_of(transport);
  if (!transport->made) return 0;
  if (stream->pieces || stream->has_end)
    al_call_soon(transport->loop, &transport->turn);
  else
    stream_read(stream);
  return 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void out_free(al__stream_out *out) {
  out->stream->out = NULL;
  al__buf_clear(&out->buf);
  al__free(out);
}

size_t al__stream_buffered(const al_transport *transport) {
  const al_stream *stream = AL_CONTAINER(transport, al_stream, base);
  return stream->out && !stream->out->dropped ? stream->out->buf.size : 0;
}

void al__stream_drop(al_transport *transport) {
  al__stream_out *out = al__stream_of(transport)->out;
  if (!out) return;
  if (al_op_is_idle(&out->op)) {
    out_free(out);
  } else {
    out->dropped = true;
    transport->loop->io->cancel(transport->loop, &out->op);
  }
}

static void stream_send(al_stream *stream) {
  al__stream_out *out = stream->out;
  al_transport *t = &stream->base;
  if (!al_op_is_idle(&out->op)) return;
  out->op.u.send.iov = out->iov;
  out->op.u.send.n = al__buf_iov(&out->buf, out->iov, AL_SEND_IOVECS, SEND_SIZE);
  int err = t->loop->io->submit(t->loop, &out->op);
  if (err) al__transport_fatal(t, err, "Fatal write error on socket transport");
}

/* All is sent. */
static void stream_flushed(al_stream *stream) {
  al_transport *t = &stream->base;
  out_free(stream->out);
  if (t->conn_lost) return;
  if (t->closing)
    al__transport_lose(t, 0);
  else if (t->eof_written)
    al__sock_end_writing(t->fd); /* -ENOTCONN: reading tells why */
  else if (t->feeder)
    t->feeder->flushed(t->feeder);
}

static void stream_on_sent(al_loop *loop, al_op *op, int result, unsigned flags) {
  al__stream_out *out = AL_CONTAINER(op, al__stream_out, op);
  al_stream *stream = out->stream;
  (void)loop;
  (void)flags;
  if (out->dropped) {
    out_free(out);
  } else if (result < 0) {
    al__transport_fatal(&stream->base, result, "Fatal write error on socket transport");
  } else {
    al__buf_consume(&out->buf, (size_t)result);
    al__transport_shrunk(&stream->base); /* may write, close, abort */
    if (stream->out && stream->out->buf.size)
      stream_send(stream);
    else if (stream->out)
      stream_flushed(stream);
  }
  al__transport_settle(&stream->base);
}

static al__stream_out *stream_need_out(al_stream *stream) {
  if (stream->out) return stream->out;
  al__stream_out *out = al__malloc(sizeof(*out));
  if (!out) return NULL;
  memset(out, 0, offsetof(al__stream_out, iov));
  out->stream = stream;
  out->op.done = stream_on_sent;
  out->op.kind = AL_OP_SEND;
  out->op.events = stream->recv.events;
  out->op.fd = stream->base.fd;
  stream->out = out;
  return out;
}

static int out_lend(al__stream_out *out, const char *data, size_t len, const al_keeper *keeper, void *token) {
  int err = al__buf_lend(&out->buf, data, len, keeper->unhold, token);
  if (err) keeper->unhold(token);
  return err;
}

/* Keeps data from n on. */
static int stream_keep_rest(al_stream *stream, const char *data, size_t len, size_t n, const al_keeper *keeper,
                            void *ud) {
  al__stream_out *out = stream_need_out(stream);
  if (!out) return -ENOMEM;
  void *token = keeper && len - n >= KEEP_SIZE ? keeper->hold(ud, data, len) : NULL;
  if (token) return out_lend(out, data + n, len - n, keeper, token);
  return al__buf_append(&out->buf, data + n, len - n);
}

static ssize_t send_now(const al_stream *stream, const char *data, size_t len) {
  struct iovec iov = {.iov_base = (char *)data, .iov_len = len};
  return stream->is_pipe ? al__fd_write(stream->base.fd, &iov, 1) : al__sock_send(stream->base.fd, &iov, 1);
}

int al__stream_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  al_stream *stream = al__stream_of(transport);
  ssize_t sent = 0;
  if (al__stream_buffered(transport) == 0) {
    sent = send_now(stream, data, len);
    if (sent == (ssize_t)len) return 0;
    if (sent < 0 && sent != -EAGAIN) {
      al__transport_fatal(transport, (int)sent, "Fatal write error on socket transport");
      return 0;
    }
    sent = AL_MAX(sent, 0);
  }
  if (stream_keep_rest(stream, data, len, (size_t)sent, keeper, ud)) {
    al__transport_fatal(transport, -ENOMEM, "Fatal write error on socket transport");
    return -ENOMEM;
  }
  stream_send(stream);
  al__transport_settle(transport);
  al__transport_grown(transport);
  return 0;
}

static int stream_write_eof(al_transport *transport) {
  return al__stream_buffered(transport) == 0 ? al__sock_end_writing(transport->fd) : 0;
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

void al__stream_start(al_transport *transport) { stream_read(al__stream_of(transport)); }
void al__stream_turn(al_transport *transport) { stream_catch_up(al__stream_of(transport)); }

static const al__transport_ops stream_ops = {
    .name = "stream",
    .is_two_way = true,
    .sends_files = true,
    .drops = "socket.send() raised exception.",
    .start = al__stream_start,
    .turn = al__stream_turn,
    .stop_reading = al__stream_stop_reading,
    .pause_reading = al__stream_pause_reading,
    .resume_reading = al__stream_resume_reading,
    .write = al__stream_write,
    .write_eof = stream_write_eof,
    .buffered = al__stream_buffered,
    .drop = al__stream_drop,
    .is_idle = al__stream_is_idle,
    .protocol_changed = al__stream_protocol_changed,
};

int al__stream_init(al_stream *stream, const al__transport_ops *ops, al_loop *loop, int fd, const al_addr *peer,
                    al_protocol *protocol) {
  int err = al__transport_init(&stream->base, ops, loop, fd, peer, protocol);
  if (err) return err;
  stream->recv.done = stream_on_recv;
  stream->recv.kind = AL_OP_RECV;
  stream->recv.fd = fd;
  al__stream_protocol_changed(&stream->base);
  return 0;
}

int al_stream_new(al_loop *loop, int fd, const al_addr *peer, al_protocol *protocol, al_handle *started,
                  al_transport **transport) {
  al_stream *stream = al__calloc(1, sizeof(*stream));
  if (!stream) return -ENOMEM;
  int err = al__stream_init(stream, &stream_ops, loop, fd, peer, protocol);
  if (err) {
    al__free(stream);
    return err;
  }
  int family = al__transport_family(&stream->base);
  if (family == AF_INET || family == AF_INET6) al__sock_set_nodelay(fd);
  al__transport_begin(&stream->base, started);
  *transport = &stream->base;
  return 0;
}
