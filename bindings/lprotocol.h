/* lprotocol.h - protocols: what a transport tells goes to the methods of a Lua object, or straight to a protocol in C.
 *
 * A Lua protocol's methods are looked up once, when it is set. What was found is a method set, one userdata that all
 * transports share whose protocols have the same methods.
 *
 * A protocol in C is a userdata with a metatable field __al_protocol: a C function that is called with the userdata and
 * returns its `al_protocol *` as a light userdata. The userdata keeps that memory; the transport keeps the userdata
 * until after connection_lost, or until set_protocol puts another in its place. No Lua runs on behalf of such a
 * protocol.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPROTOCOL_H
#define AL_LPROTOCOL_H

#include "ctx.h"

#define AL_PROTOCOL_METHODS(X) \
  X(connection_made)           \
  X(data_received)             \
  X(get_buffer)                \
  X(buffer_updated)            \
  X(eof_received)              \
  X(pause_writing)             \
  X(resume_writing)            \
  X(connection_lost)           \
  X(datagram_received)         \
  X(error_received)

/* The user values of a method set: its methods. */
typedef enum al_method {
  AL_M_NONE,
#define X(name) AL_M_##name,
  AL_PROTOCOL_METHODS(X)
#undef X
      AL_M_END
} al_method;

typedef struct l_methods {
  al_protocol_ops ops;          /* NULL where there is no method */
  const void *method[AL_M_END]; /* lua_topointer of each */
} l_methods;

/* Classifies the value at idx. A Lua object: pushes its method set and returns NULL. A protocol in C: pushes nil and
 * returns it. Raises for anything else, and whatever the lookup of a method raises. last: index of the method set that
 * it is likely to have (or of nil), to save a search; 0: none. */
al_protocol *al_protocol_classify(lua_State *L, al_ctx *ctx, int idx, int last);

/* Calls the factory at idx and pushes what it returned: a Lua object or a protocol in C, else raises. */
void al_protocol_make(lua_State *L, int idx);

void al_protocol_openlib(lua_State *L, al_ctx *ctx);

#endif
