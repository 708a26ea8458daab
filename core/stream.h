/* stream.h - what a stream of bytes over a descriptor is made of: one armed RECV while it is read, one SEND while
 * something is unsent. stream.c implements it, and the kind of transport over sockets; pipe.c makes those of pipes of
 * it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_STREAM_H
#define AL_STREAM_H

#include "base.h"
#include "buf.h"
#include "io.h"
#include "transport.h"

#define AL_SEND_IOVECS 32

typedef struct al__stream_out { /* what is unsent; made when a write can't be sent at once */
  al_op op;
  struct al_stream *stream;
  al_buf buf;
  bool dropped; /* the operation ends, then this is freed */
  struct iovec iov[AL_SEND_IOVECS];
} al__stream_out;

typedef struct al__stream_piece { /* what arrived while the protocol wanted nothing */
  struct al__stream_piece *next;
  size_t len, taken;
  char bytes[];
} al__stream_piece;

typedef struct al_stream {
  al_transport base;
  al_op recv;
  al__stream_out *out; /* NULL: nothing is unsent */
  al__stream_piece *pieces;
  const char *lent; /* the protocol's memory that the machine reads into, until buffer_updated */
  int end;          /* has_end: 0 or the error that ended reading and is not told yet */
  bool is_pipe : 1; /* written by write(2); its end closes it, whatever eof_received returns */
  bool has_end : 1;
  bool ended : 1;     /* the end was told, or is about to */
  bool cancelled : 1; /* RECV was cancelled and has not ended yet */
} al_stream;

static inline al_stream *al__stream_of(al_transport *transport) { return AL_CONTAINER(transport, al_stream, base); }

/* Fills a zeroed stream, see al__transport_init. */
int al__stream_init(al_stream *stream, const al__transport_ops *ops, al_loop *loop, int fd, const al_addr *peer,
                    al_protocol *protocol);

/* For tables of operations. */
void al__stream_start(al_transport *transport);
void al__stream_turn(al_transport *transport);
void al__stream_stop_reading(al_transport *transport);
int al__stream_pause_reading(al_transport *transport);
int al__stream_resume_reading(al_transport *transport);
int al__stream_write(al_transport *transport, const char *data, size_t len, const al_keeper *keeper, void *ud);
size_t al__stream_buffered(const al_transport *transport);
void al__stream_drop(al_transport *transport);
bool al__stream_is_idle(const al_transport *transport);
void al__stream_protocol_changed(al_transport *transport);

#endif
