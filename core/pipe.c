/* pipe.c - one-way transports: over the ends of pipes and FIFOs, over terminals and other character devices, and over
 * sockets used as such. They are streams (stream.h) of which one direction is left out. Knows no machine.
 *
 * That nobody reads any more shows at our own end: a pipe without readers, and a socket that was closed at the other
 * side, polls as readable there. (A socket does so too when something arrives; as in asyncio it then is closed.)
 *
 * SPDX-License-Identifier: MIT */
#include "stream.h"

#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>

typedef struct al_pipe {
  al_stream stream;
  al_op death; /* a writer's POLL for reading; of no kind (fd -1) where it would tell nothing */
} al_pipe;

static al_pipe *pipe_of(al_transport *transport) { return AL_CONTAINER(transport, al_pipe, stream.base); }

/* ---- writers ----------------------------------------------------------------------------------------------------- */

static void writer_on_death(al_loop *loop, al_op *op, int result, unsigned flags) {
  al_transport *t = &AL_CONTAINER(op, al_pipe, death)->stream.base;
  (void)loop;
  if (!t->closing && result != -ECANCELED) {
    if (t->ops->buffered(t) > 0)
      al__transport_fatal(t, -EPIPE, "the reader is gone");
    else
      al_transport_close(t);
  }
  if (!(flags & AL_OP_MORE)) al__transport_settle(t);
}

static void writer_start(al_transport *transport) {
  al_pipe *pipe = pipe_of(transport);
  if (pipe->death.fd < 0 || transport->closing) return;
  int err = transport->loop->io->submit(transport->loop, &pipe->death);
  if (err) al__transport_fatal(transport, err, "a pipe can't be watched");
}

static void writer_turn(al_transport *transport) { (void)transport; }

static void writer_stop_reading(al_transport *transport) {
  al_pipe *pipe = pipe_of(transport);
  if (!al_op_is_idle(&pipe->death)) transport->loop->io->cancel(transport->loop, &pipe->death);
}

/* Once it is closing nothing more is taken, not even while it still flushes. */
static int writer_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  return transport->closing ? 0 : al__stream_write(transport, data, len, keeper, ud);
}

/* The end of what is written is the end of the pipe. */
static int writer_write_eof(al_transport *transport) {
  transport->eof_written = false; /* a write after it is one to a closed transport: dropped */
  al_transport_close(transport);
  return 0;
}

static bool writer_is_idle(const al_transport *transport) {
  return al_op_is_idle(&AL_CONTAINER(transport, al_pipe, stream.base)->death) && al__stream_is_idle(transport);
}

static const al__transport_ops writer_ops = {
    .name = "write pipe",
    .drops = "pipe closed by peer or os.write(pipe, data) raised exception.",
    .start = writer_start,
    .turn = writer_turn,
    .stop_reading = writer_stop_reading,
    .write = writer_write,
    .write_eof = writer_write_eof,
    .buffered = al__stream_buffered,
    .drop = al__stream_drop,
    .is_idle = writer_is_idle,
};

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static int reader_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud) {
  (void)transport, (void)data, (void)len, (void)keeper, (void)ud;
  return -ENOTSUP;
}

static const al__transport_ops reader_ops = {
    .name = "read pipe",
    .drops = "reading raised exception.",
    .start = al__stream_start,
    .turn = al__stream_turn,
    .stop_reading = al__stream_stop_reading,
    .pause_reading = al__stream_pause_reading,
    .resume_reading = al__stream_resume_reading,
    .write = reader_write,
    .buffered = al__stream_buffered,
    .drop = al__stream_drop,
    .is_idle = al__stream_is_idle,
    .protocol_changed = al__stream_protocol_changed,
};

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static int check_kind(int fd) {
  int kind = al__fd_kind(fd);
  if (kind < 0) return kind;
  return kind == AL_FD_PIPE || kind == AL_FD_SOCKET || kind == AL_FD_CHAR ? kind : -EINVAL;
}

static int pipe_new(al_loop *loop, const al__transport_ops *ops, int fd, al_protocol *protocol, al_handle *started,
                    al_transport **transport) {
  int kind = check_kind(fd);
  if (kind < 0) return kind;
  al_pipe *pipe = al__calloc(1, sizeof(*pipe));
  if (!pipe) return -ENOMEM;
  int err = al__fd_set_nonblocking(fd);
  if (!err) err = al__stream_init(&pipe->stream, ops, loop, fd, NULL, protocol);
  if (err) {
    al__free(pipe);
    return err;
  }
  pipe->stream.is_pipe = true;
  pipe->stream.recv.events = kind == AL_FD_SOCKET ? 0 : AL_OP_PLAIN;
  pipe->death = (al_op){.kind = AL_OP_POLL, .events = AL_POLL_IN, .done = writer_on_death};
  pipe->death.fd = kind == AL_FD_CHAR ? -1 : fd;
  al__transport_begin(&pipe->stream.base, started);
  *transport = &pipe->stream.base;
  return 0;
}

int al_pipe_reader_new(al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **transport) {
  return pipe_new(loop, &reader_ops, fd, protocol, started, transport);
}

int al_pipe_writer_new(al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **transport) {
  return pipe_new(loop, &writer_ops, fd, protocol, started, transport);
}
