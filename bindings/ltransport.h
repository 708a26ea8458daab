/* ltransport.h - the userdata of a transport: a box around the core's, which is also the core's protocol as long as the
 * protocol is a Lua object.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTRANSPORT_H
#define AL_LTRANSPORT_H

#include "lprotocol.h"

/* User values of a transport. */
enum {
  AL_TRANSPORT_UV_PROTOCOL = 1,
  AL_TRANSPORT_UV_METHODS, /* its method set; nil for a protocol in C */
  AL_TRANSPORT_UV_DATA,    /* its data_received, of the method set: one step less for each piece of data */
  AL_TRANSPORT_UV_HELD,    /* the buffer that is being read into, or the error that connection_lost will get */
  AL_TRANSPORT_UV_CONTEXT, /* lcontext.h, of context_kind */
  AL_TRANSPORT_UV_EXTRA,   /* table behind get_extra_info, made at need */
  AL_TRANSPORT_UV_COUNT = AL_TRANSPORT_UV_EXTRA,
  AL_TRANSPORT_UV_OWN /* the first of those that a kind may have besides */
};

typedef struct l_transport {
  al_protocol protocol; /* what the core calls while the protocol is a Lua object */
  const void *tag;      /* &al_transport_tag: see al_check_transport */
  al_transport *t;      /* one reference; NULL in a half-made object only */
  al_ctx *ctx;
  const void *self;            /* its own address; NULL once it is finalized */
  int slot;                    /* its anchor, until it is closed; empty while nothing is in flight */
  int fd;                      /* as it was, for reports */
  uint8_t context_kind, class; /* al_class */
  bool closed;
  bool failed; /* HELD is the error of a method of its protocol, and stays there */
} l_transport;

extern const char al_transport_tag;

/* Raises what al_check_transport does for the value at arg, which is none. */
void al_transport_refuse(lua_State *L, int arg);

/* The transport at arg, or a type error. On the way of every write, so it doesn't ask for the class first: no other
 * userdata of this size has both the tag and its own address in it. */
static inline l_transport *al_check_transport(lua_State *L, int arg) {
  l_transport *t = lua_type(L, arg) == LUA_TUSERDATA ? lua_touserdata(L, arg) : NULL;
  if (!t || lua_rawlen(L, arg) != sizeof *t || t->tag != &al_transport_tag || t->self != t) al_transport_refuse(L, arg);
  return t;
}

/* What differs between the kinds of transports. */
typedef struct l_transport_kind {
  al_class class;
  int own_values; /* user values from AL_TRANSPORT_UV_OWN on */
  /* Makes the core's transport, as al_stream_new does. how: what the caller of al_transport_make_kind handed in. */
  int (*open)(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started, al_transport **made);
  void (*fill)(lua_State *L, int box, int fd); /* sets the own values of the userdata at box; may be NULL */
} l_transport_kind;

/* Over a connected stream socket; how is the peer's address (al_addr), or NULL. */
extern const l_transport_kind al_stream_kind;

/* Makes a transport over the non-blocking descriptor *fd and pushes it. protocol: index of the protocol; last:
 * see al_protocol_classify. started is queued after connection_made; the value at index keep, in which it stands, is
 * kept alive by the transport (0: there is none). *fd becomes -1 once the transport owns it; when this raises before,
 * it is still the caller's. */
l_transport *al_transport_make_kind(lua_State *L, al_ctx *ctx, const l_transport_kind *kind, const void *how,
                                    l_loop *loop, int *fd, int protocol, int last, al_handle *started, int keep);
/* The same, but when the core can't make it *err tells, and the userdata is on the stack all
 * the same, with nothing in it. */
l_transport *al_transport_try_kind(lua_State *L, al_ctx *ctx, const l_transport_kind *kind, const void *how,
                                   l_loop *loop, int *fd, int protocol, int last, al_handle *started, int keep,
                                   int *err);
l_transport *al_transport_make(lua_State *L, al_ctx *ctx, l_loop *loop, int *fd, const al_addr *peer, int protocol,
                               int last, al_handle *started, int keep); /* of al_stream_kind */

/* The object (with a method close) at idx is closed when the transport at transport has closed its descriptor. */
void al_transport_adopt(lua_State *L, int transport, int idx);

/* Keeps the value at idx (nil: no more) alive as long as the transport: what the core has a pointer to until it is
 * connected. */
void al_transport_keep(lua_State *L, int transport, int idx);

/* Its method write(data, [i, j]): the transport is at 1, a part of it behind. */
int al_transport_write_data(lua_State *L);

/* Writes <Transport fd=7 read=polling write=<idle, bufsize=0>>; returns buf. */
const char *al_transport_describe(al_transport *transport, int fd, char *buf, size_t size);
#define AL_TRANSPORT_STRLEN 128

/* The ResourceWarning "unclosed what text" of the object at idx, with the place that made it if that is known. For
 * finalizers: doesn't throw. */
void al_warn_unclosed(lua_State *L, al_ctx *ctx, int idx, const char *what, const char *text);

/* Raises RuntimeError if a live transport or server of the loop owns fd. */
void al_check_fd_free(lua_State *L, al_ctx *ctx, al_loop *loop, int fd);

/* Adds the methods about the write buffer, and abort, to a class of transports that isn't a WriteTransport. */
void al_transport_write_side(lua_State *L, al_ctx *ctx, al_class class);

void al_transport_openlib(lua_State *L, al_ctx *ctx);

#endif
