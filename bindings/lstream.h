/* lstream.h - StreamReaderProtocol and StreamWriter: streams over transports.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSTREAM_H
#define AL_LSTREAM_H

#include "lreader.h"
#include "ltransport.h"

/* The protocol between a transport and a reader, in C (lprotocol.h), so that no Lua runs on the way of the bytes. */
typedef struct l_stream {
  al_protocol protocol; /* its table of operations is what al_test_stream knows it by */
  al_ctx *ctx;
  l_reader *reader;        /* kept by a user value; may be NULL */
  al_transport *transport; /* one reference; NULL before connection_made and after connection_lost */
  al_list waiting;         /* l_pause of the tasks in drain() and wait_closed() */
  int error;               /* lost: why */
  bool connected, paused, lost;
  bool has_error; /* lost, and the error's object was made */
} l_stream;

/* User values of a protocol. */
enum {
  AL_STREAM_UV_READER = 1,
  AL_STREAM_UV_CALLBACK, /* of start_server, or nil; or the error that the connection was lost with (has_error) */
  AL_STREAM_UV_COUNT = AL_STREAM_UV_CALLBACK
};

/* The protocol at idx, or NULL. */
l_stream *al_test_stream(lua_State *L, int idx);

/* Makes a protocol for the reader (or nil) at index reader, which is no negative one, and pushes it. */
l_stream *al_stream_make(lua_State *L, al_ctx *ctx, int reader);

/* Pushes what the connection of the protocol at idx was lost with; false, and nothing, if that was no error. */
bool al_stream_push_error(lua_State *L, l_stream *stream, int idx);

/* What stands in a StreamWriter, which is a table; its field `transport` too. */
enum { AL_WRITER_TRANSPORT = 1, AL_WRITER_PROTOCOL, AL_WRITER_READER /* nil: the protocol's; false: none */ };

/* Pushes a writer for the transport, the protocol and the reader (or nil) at these indices. */
void al_writer_new(lua_State *L, al_ctx *ctx, int transport, int protocol, int reader);

/* How a task waits that is in drain(). */
extern const l_wait_kind al_stream_draining;

/* The transport takes the place of the present one. */
void al_stream_replace_transport(l_stream *stream, al_transport *transport);

/* lserve.c. A connection for a start_server's callback was made: calls it as a task. Doesn't throw. */
void al_stream_serve(l_stream *stream, al_transport *transport);

void al_serve_openlib(lua_State *L, al_ctx *ctx);
void al_stream_openlib(lua_State *L, al_ctx *ctx);
void al_writer_openlib(lua_State *L, al_ctx *ctx);

#endif
