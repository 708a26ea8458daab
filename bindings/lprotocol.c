/* lprotocol.c - protocols: the core's events become calls of a Lua object's methods. This is the way of every byte that
 * Lua receives, so what can be settled before is: methods are looked up when the protocol is set, an absent one is a
 * NULL in the table of operations, and an upcall takes all that it needs from the user values of the transport.
 *
 * asyncio's rules for errors: one raised in data_received, eof_received, get_buffer or buffer_updated is reported
 * (unless it is an OSError) and ends the connection, of which connection_lost then gets it; one raised in pause_writing
 * or resume_writing is reported; in connection_made and connection_lost it is reported as that of any callback, and so
 * it is in datagram_received and error_received, which end nothing. Over TLS, one of connection_made ends the
 * connection.
 *
 * SPDX-License-Identifier: MIT */
#include "lprotocol.h"

#include "lalloc.h"
#include "lbuffer.h"
#include "lcontext.h"
#include "ldatagram.h"
#include "lhandle.h"
#include "lloop.h"
#include "lrepr.h"
#include "lssl.h"
#include "ltransport.h"

#include <errno.h>
#include <string.h>

/* ---- upcalls ----------------------------------------------------------------------------------------------------- */

/* Stack of an upcall, above anchors and traceback handler. */
enum { TRANSPORT = 3, FORMER_CONTEXT };

typedef struct upcall {
  lua_State *L;
  al_ctx *ctx;
  l_transport *transport;
  int former; /* kind of the context outside, which stands at FORMER_CONTEXT; or NOT_SWAPPED */
  al_method method;
  int64_t began_ns; /* debug mode; else 0 */
} upcall;

enum { NOT_SWAPPED = -1 };

/* Begins an upcall in the context of the caller. False: nobody is there to be called, or it can't be done. */
static inline bool upcall_begin(upcall *u, al_protocol *protocol) {
  l_transport *t = (l_transport *)(void *)protocol; /* its first member */
  lua_State *L = al_enter(t->ctx);
  if (!L) return false;
  if (lua_rawgeti(L, 1, t->slot) != LUA_TUSERDATA) { /* it is being collected */
    al_leave(t->ctx, L);
    return false;
  }
  u->L = L;
  u->ctx = t->ctx;
  u->transport = t;
  u->former = NOT_SWAPPED;
  u->method = AL_M_NONE;
  u->began_ns = t->ctx->times_upcalls ? al_time_ns() : 0;
  return true;
}

/* No variable was ever set, or none is seen here: there are no contexts to be changed. */
static inline bool has_no_context(const upcall *u) {
  return u->transport->context_kind == AL_CONTEXT_EMPTY && u->ctx->context_kind == AL_CONTEXT_EMPTY;
}

static void enter_context(upcall *u) {
  lua_getiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_CONTEXT);
  u->former = al_context_swap(u->L, u->ctx, u->transport->context_kind);
}

/* Begins one in the context of the transport. */
static inline bool upcall_begin_inside(upcall *u, al_protocol *protocol) {
  if (!upcall_begin(u, protocol)) return false;
  if (!has_no_context(u)) enter_context(u);
  return true;
}

/* Back to the context outside. What became of the inner one stays with the transport, if keep. */
static void leave_context(upcall *u, bool keep) {
  int inner = u->ctx->context_kind;
  if (u->former == NOT_SWAPPED) { /* there was none, and now it has set a variable */
    u->former = AL_CONTEXT_EMPTY;
    lua_pushnil(u->L);
  } else {
    lua_pushvalue(u->L, FORMER_CONTEXT);
  }
  al_context_swap(u->L, u->ctx, u->former);
  if (!keep) return;
  u->transport->context_kind = (uint8_t)inner;
  lua_setiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_CONTEXT);
}

static void check_slow(upcall *u);

static inline void upcall_end(upcall *u) {
  if (u->began_ns) check_slow(u);
  al_leave(u->ctx, u->L);
}

static inline void upcall_end_inside(upcall *u) {
  if (u->former != NOT_SWAPPED || u->ctx->context_kind != AL_CONTEXT_EMPTY) leave_context(u, true);
  upcall_end(u);
}

/* Pushes the method and the protocol. */
static void push_method(upcall *u, al_method method) {
  u->method = method;
  lua_getiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_METHODS);
  lua_getiuservalue(u->L, -1, method);
  lua_replace(u->L, -2);
  lua_getiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_PROTOCOL);
}

static l_loop *loop_of(const upcall *u) { return al_loop_data(al_transport_loop(u->transport->t)); }

/* upcall, seconds, transport */
static int slow_body(lua_State *L) {
  static const char *const names[] = {"a method",
#define X(name) #name "()",
                                      AL_PROTOCOL_METHODS(X)
#undef X
  };
  const upcall *u = lua_touserdata(L, 1);
  luaL_Buffer b;
  lua_getiuservalue(L, 3, AL_TRANSPORT_UV_METHODS);
  if (u->method == AL_M_NONE || lua_getiuservalue(L, -1, u->method) == LUA_TNONE) lua_pushnil(L);
  int f = lua_gettop(L);
  luaL_buffinit(L, &b);
  al_add_repr(L, &b, f);
  luaL_pushresult(&b);
  lua_getiuservalue(L, 3, AL_TRANSPORT_UV_PROTOCOL);
  al_warn(u->ctx, NULL, "Executing %s of protocol %s, %s, took %.3f seconds", names[u->method],
          luaL_tolstring(L, -1, NULL), lua_tostring(L, f + 1), lua_tonumber(L, 2));
  return 0;
}

/* Debug mode: was the method slow? */
static void check_slow(upcall *u) {
  int64_t took_ns = al_time_ns() - u->began_ns;
  l_loop *loop = loop_of(u);
  if (took_ns < loop->slow_ns) return;
  loop->told_slow = true;
  lua_State *L = u->L;
  lua_pushcfunction(L, slow_body);
  lua_pushlightuserdata(L, u);
  lua_pushnumber(L, (lua_Number)took_ns / 1e9);
  lua_pushvalue(L, TRANSPORT);
  if (al_pcall(L, 3, 0) != LUA_OK) lua_pop(L, 1);
}

/* Reports the error on top (popped). */
static void report(upcall *u, const char *message) {
  lua_getiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_PROTOCOL);
  lua_insert(u->L, -2);
  const al_key keys[] = {{"transport", TRANSPORT}, {"protocol", lua_gettop(u->L) - 1}, {NULL, 0}};
  al_report(u->ctx, u->L, loop_of(u), message, keys);
}

/* As asyncio's, pipes outlive an error of what takes in their data. (asyncio gives them no buffers to fill.) */
static bool outlives(const upcall *u) {
  return u->transport->class == AL_C_ReadTransport &&
         (u->method == AL_M_data_received || u->method == AL_M_eof_received);
}

/* The error on top (popped) ends the connection. An interrupt only leaves the loop. */
static void fatal(upcall *u, const char *message) {
  lua_State *L = u->L;
  if (outlives(u)) {
    bool data = u->method == AL_M_data_received;
    report(u,
           data ? "Exception in callback protocol.data_received()" : "Exception in callback protocol.eof_received()");
    return;
  }
  if (al_isinterrupt(L, u->ctx, -1)) {
    report(u, message);
    return;
  }
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, TRANSPORT, AL_TRANSPORT_UV_HELD);
  u->transport->failed = true;
  if (!al_isinstance(L, u->ctx, -1, AL_C_OSError)) {
    report(u, message);
  } else if (al_loop_debug(al_transport_loop(u->transport->t))) {
    al_log(AL_LOG_DEBUG, NULL, "transport fd=%d: %s", u->transport->fd, message);
  }
  al_transport_fail(u->transport->t, AL_EPROTOCOL);
}

/* method, protocol, argument → the Handle that would have made this call, if it were one of call_soon. */
static int handle_body(lua_State *L) {
  const upcall *u = lua_touserdata(L, 1);
  al_handle_make(L, u->ctx, loop_of(u), 2);
  return 1;
}

/* The error on top (popped) of a method that asyncio calls by call_soon; its argument is at arg. */
static void report_as_callback(upcall *u, al_method method, int arg) {
  lua_State *L = u->L;
  char message[256] = "Exception in callback";
  int error = lua_gettop(L);
  lua_pushcfunction(L, handle_body);
  lua_pushlightuserdata(L, u);
  push_method(u, method);
  lua_pushvalue(L, arg);
  if (al_pcall(L, 4, 1) == LUA_OK) {
    al_handle_describe(L, lua_touserdata(L, -1), lua_gettop(L), message, sizeof message);
  } else {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  lua_getiuservalue(L, TRANSPORT, AL_TRANSPORT_UV_PROTOCOL);
  lua_pushvalue(L, error);
  const al_key keys[] = {{"handle", error + 1}, {"transport", TRANSPORT}, {"protocol", error + 2}, {NULL, 0}};
  al_report(u->ctx, L, loop_of(u), message, keys);
}

/* No upcall could be made, so the protocol missed something: it must not go on as if nothing was. */
static void miss(al_protocol *protocol) { al_transport_fail(((l_transport *)(void *)protocol)->t, -ENOMEM); }

/* ---- the operations ---------------------------------------------------------------------------------------------- */

static int log_connection_body(lua_State *L) {
  const upcall *u = lua_touserdata(L, 1);
  lua_getiuservalue(L, 2, AL_TRANSPORT_UV_PROTOCOL);
  const char *protocol = luaL_tolstring(L, -1, NULL);
  al_debug_line(u->ctx, "%s is connected to protocol %s", luaL_tolstring(L, 2, NULL), protocol);
  return 0;
}

static void log_connection(upcall *u) {
  lua_pushcfunction(u->L, log_connection_body);
  lua_pushlightuserdata(u->L, u);
  lua_pushvalue(u->L, TRANSPORT);
  if (al_pcall(u->L, 2, 0) != LUA_OK) lua_pop(u->L, 1);
}

static void on_connection_made(al_protocol *protocol, al_transport *transport) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) return;
  if (u.began_ns) log_connection(&u);
  push_method(&u, AL_M_connection_made);
  lua_pushvalue(u.L, TRANSPORT);
  if (al_pcall(u.L, 2, 0) != LUA_OK) {
    if (al_transport_is_tls(transport)) /* asyncio calls it from inside the handshake, which so fails */
      fatal(&u, "Fatal error: protocol.connection_made() call failed.");
    else
      report_as_callback(&u, AL_M_connection_made, TRANSPORT);
  }
  /* What it sets is seen by no other callback, as each has its own copy in asyncio. */
  if (u.former != NOT_SWAPPED || u.ctx->context_kind != AL_CONTEXT_EMPTY) leave_context(&u, false);
  upcall_end(&u);
}

typedef struct piece {
  al_alloc *alloc;
  const char *data;
  size_t len;
} piece;

/* piece, method, protocol: making a string may fail, so it is done inside of the protected call */
static int data_received_body(lua_State *L) {
  const piece *p = lua_touserdata(L, 1);
  al_alloc_pushlstring(L, p->alloc, p->data, p->len);
  lua_call(L, 2, 0);
  return 0;
}

/* Where the string of data_received will be made. */
static char *on_room(al_protocol *protocol, size_t n) {
  const l_transport *t = (l_transport *)(void *)protocol; /* its first member */
  return t->ctx->alloc ? al_alloc_room(t->ctx->alloc, n) : NULL;
}

static void on_data_received(al_protocol *protocol, const char *data, size_t len) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) {
    miss(protocol);
    return;
  }
  piece p = {u.ctx->alloc, data, len};
  lua_pushcfunction(u.L, data_received_body);
  lua_pushlightuserdata(u.L, &p);
  u.method = AL_M_data_received;
  lua_getiuservalue(u.L, TRANSPORT, AL_TRANSPORT_UV_DATA);
  lua_getiuservalue(u.L, TRANSPORT, AL_TRANSPORT_UV_PROTOCOL);
  if (al_pcall(u.L, 3, 0) != LUA_OK) fatal(&u, "Fatal error: protocol.data_received() call failed.");
  upcall_end_inside(&u);
}

/* upcall, buffer, position → the free part's position; or raises. */
static int check_buffer_body(lua_State *L) {
  const upcall *u = lua_touserdata(L, 1);
  l_buffer *b = al_test_buffer(L, u->ctx, 2);
  if (!b) return luaL_error(L, "get_buffer() must return an aloop.buffer, got %s", luaL_typename(L, 2));
  int isint = 1;
  lua_Integer pos = lua_isnil(L, 3) ? 1 : lua_tointegerx(L, 3, &isint);
  if (!isint || pos < 1) return luaL_error(L, "get_buffer() returned a position that is no integer from 1 on");
  if ((size_t)(pos - 1) >= b->size)
    return al_raise(L, u->ctx, AL_C_RuntimeError, "get_buffer() returned an empty buffer");
  lua_pushinteger(L, pos);
  return 1;
}

/* get_buffer(hint) and the check of its results; leaves the buffer and the position on the stack. */
static bool call_get_buffer(upcall *u, ssize_t hint) {
  lua_State *L = u->L;
  push_method(u, AL_M_get_buffer);
  lua_pushinteger(L, hint);
  if (al_pcall(L, 2, 2) != LUA_OK) return false;
  int buffer = lua_gettop(L) - 1;
  lua_pushcfunction(L, check_buffer_body);
  lua_pushlightuserdata(L, u);
  lua_pushvalue(L, buffer);
  lua_pushvalue(L, buffer + 1);
  if (al_pcall(L, 3, 1) != LUA_OK) return false;
  lua_replace(L, buffer + 1);
  return true;
}

static int on_get_buffer(al_protocol *protocol, ssize_t hint, char **base, size_t *len) {
  upcall u;
  int err = 0;
  if (!upcall_begin_inside(&u, protocol)) return -ENOMEM;
  if (call_get_buffer(&u, hint)) {
    l_buffer *b = lua_touserdata(u.L, -2);
    size_t taken = (size_t)lua_tointeger(u.L, -1) - 1;
    *base = b->data + taken;
    *len = b->size - taken;
    lua_pop(u.L, 1);
    lua_setiuservalue(u.L, TRANSPORT, AL_TRANSPORT_UV_HELD);
  } else {
    fatal(&u, "Fatal error: protocol.get_buffer() call failed.");
    err = AL_EPROTOCOL;
  }
  upcall_end_inside(&u);
  return err;
}

static void on_buffer_updated(al_protocol *protocol, size_t n) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) {
    miss(protocol);
    return;
  }
  push_method(&u, AL_M_buffer_updated);
  lua_pushinteger(u.L, (lua_Integer)n);
  if (al_pcall(u.L, 2, 0) != LUA_OK) fatal(&u, "Fatal error: protocol.buffer_updated() call failed.");
  upcall_end_inside(&u);
}

static bool on_eof_received(al_protocol *protocol) {
  upcall u;
  bool keep_open = false;
  if (!upcall_begin_inside(&u, protocol)) return false;
  push_method(&u, AL_M_eof_received);
  if (al_pcall(u.L, 1, 1) == LUA_OK) {
    keep_open = lua_toboolean(u.L, -1);
  } else {
    fatal(&u, "Fatal error: protocol.eof_received() call failed.");
  }
  upcall_end_inside(&u);
  return keep_open;
}

static void call_flow_control(al_protocol *protocol, al_method method, const char *message) {
  upcall u;
  if (!upcall_begin(&u, protocol)) return;
  push_method(&u, method);
  if (al_pcall(u.L, 1, 0) != LUA_OK) report(&u, message);
  upcall_end(&u);
}

static void on_pause_writing(al_protocol *protocol) {
  call_flow_control(protocol, AL_M_pause_writing, "protocol.pause_writing() failed");
}

static void on_resume_writing(al_protocol *protocol) {
  call_flow_control(protocol, AL_M_resume_writing, "protocol.resume_writing() failed");
}

typedef struct loss {
  al_ctx *ctx;
  al_transport *transport;
  int error;
} loss;

static int os_error_body(lua_State *L) {
  const loss *l = lua_touserdata(L, 1);
  al_push_transport_error(L, l->ctx, l->transport, l->error);
  return 1;
}

/* Pushes what connection_lost is to be told. */
static void push_loss(upcall *u, int error) {
  if (error == 0) {
    lua_pushnil(u->L);
  } else if (error == AL_EPROTOCOL) {
    lua_getiuservalue(u->L, TRANSPORT, AL_TRANSPORT_UV_HELD);
  } else {
    loss l = {u->ctx, u->transport->t, error};
    al_pcall_c(u->L, os_error_body, &l, 1); /* else the error of memory, which is as good */
  }
}

static void on_connection_lost(al_protocol *protocol, int error) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) return;
  push_loss(&u, error);
  int arg = lua_gettop(u.L);
  push_method(&u, AL_M_connection_lost);
  lua_pushvalue(u.L, arg);
  if (al_pcall(u.L, 2, 0) != LUA_OK) report_as_callback(&u, AL_M_connection_lost, arg);
  upcall_end_inside(&u);
}

typedef struct datagram {
  const char *data;
  size_t len;
  const al_addr *from;
} datagram;

enum { METHOD = 1, PROTOCOL, SENDERS, DATAGRAM }; /* stack of datagram_received_body */

static int datagram_received_body(lua_State *L) {
  const datagram *d = lua_touserdata(L, DATAGRAM);
  al_senders_push(L, SENDERS, d->from);
  lua_replace(L, DATAGRAM);
  lua_pushlstring(L, d->data, d->len);
  lua_replace(L, SENDERS);
  lua_call(L, 3, 0);
  return 0;
}

static void on_datagram_received(al_protocol *protocol, const char *data, size_t len, const al_addr *from) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) return; /* datagrams do get lost */
  datagram d = {data, len, from};
  lua_pushcfunction(u.L, datagram_received_body);
  push_method(&u, AL_M_datagram_received);
  lua_getiuservalue(u.L, TRANSPORT, AL_TRANSPORT_UV_OWN);
  lua_pushlightuserdata(u.L, &d);
  if (al_pcall(u.L, 4, 0) != LUA_OK) report(&u, "Exception in callback protocol.datagram_received()");
  upcall_end_inside(&u);
}

static void on_error_received(al_protocol *protocol, int error) {
  upcall u;
  if (!upcall_begin_inside(&u, protocol)) return;
  push_loss(&u, error);
  int arg = lua_gettop(u.L);
  push_method(&u, AL_M_error_received);
  lua_pushvalue(u.L, arg);
  if (al_pcall(u.L, 2, 0) != LUA_OK) report(&u, "Exception in callback protocol.error_received()");
  upcall_end_inside(&u);
}

/* ---- classification ---------------------------------------------------------------------------------------------- */

/* The base classes' methods: they do nothing, and so are the same as none. */
static int no_op(lua_State *L) {
  (void)L;
  return 0;
}

/* That of BufferedProtocol, which makes a protocol a buffered one, and fails for want of a buffer. */
static int no_buffer(lua_State *L) {
  (void)L;
  return 0;
}

/* The core takes a protocol for a buffered one if it has both methods, API and Python if it has the first. */
static void on_buffer_updated_unwanted(al_protocol *protocol, size_t n) { (void)protocol, (void)n; }

/* A method set's values are at its user values; a value that has no address (nil, false) is no method. */
static bool has_method(lua_State *L, const l_methods *set, int idx, al_method method) {
  if (!set->method[method]) return false;
  lua_getiuservalue(L, idx, method);
  bool is = lua_tocfunction(L, -1) != no_op;
  lua_pop(L, 1);
  return is;
}

/* Fills in the operations of the set at idx. */
static void set_ops(lua_State *L, l_methods *set, int idx) {
  al_protocol_ops *ops = &set->ops;
#define X(name) \
  if (has_method(L, set, idx, AL_M_##name)) ops->name = on_##name;
  AL_PROTOCOL_METHODS(X)
#undef X
  if (ops->data_received && al_alloc_of(L)) ops->room = on_room;
  if (ops->get_buffer && !ops->buffer_updated) ops->buffer_updated = on_buffer_updated_unwanted;
}

/* In the registry: a Lua function that gets all methods of a protocol, in the order of al_method, which takes half the
 * time of as many calls of lua_getfield; and a weak table of method sets, by a hash of the methods. */
static const char getter_key, sets_key;

static const char getter_text[] =
    "local p = ... "
    "local get_buffer = p.get_buffer or nil "
    "return p.connection_made, not get_buffer and p.data_received or nil, get_buffer, "
    "get_buffer and p.buffer_updated, p.eof_received, p.pause_writing, p.resume_writing, p.connection_lost, "
    "p.datagram_received, p.error_received";

static void *hash_methods(const void *const *method) {
  uintptr_t hash = 0;
  for (int m = AL_M_NONE + 1; m < AL_M_END; m++) hash = hash * 31 + ((uintptr_t)method[m] >> 4);
  return (void *)hash;
}

static bool is_same(const l_methods *set, const void *const *method) {
  return set && memcmp(set->method, method, sizeof set->method) == 0;
}

/* Pushes the methods of the object at idx, AL_M_END - 1 values, and notes their addresses. */
static void look_up(lua_State *L, int idx, const void **method) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &getter_key);
  lua_pushvalue(L, idx);
  lua_call(L, 1, AL_M_END - 1);
  method[AL_M_NONE] = NULL;
  for (int m = AL_M_NONE + 1; m < AL_M_END; m++) method[m] = lua_topointer(L, m - AL_M_END);
}

/* Pushes a set of the methods that stand at first and behind. */
static void new_set(lua_State *L, int first, const void *const *method) {
  l_methods *set = lua_newuserdatauv(L, sizeof *set, AL_M_END - 1);
  memset(set, 0, sizeof *set);
  memcpy(set->method, method, sizeof set->method);
  for (int m = AL_M_NONE + 1; m < AL_M_END; m++) {
    lua_pushvalue(L, first + m - 1);
    lua_setiuservalue(L, -2, m);
  }
  set_ops(L, set, lua_gettop(L));
  lua_rawgetp(L, LUA_REGISTRYINDEX, &sets_key);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, hash_methods(method));
  lua_pop(L, 1);
}

static void push_set(lua_State *L, int idx, int last) {
  const void *method[AL_M_END];
  luaL_checkstack(L, AL_M_END + LUA_MINSTACK, NULL);
  int first = lua_gettop(L) + 1;
  look_up(L, idx, method);
  if (last && is_same(lua_touserdata(L, last), method)) {
    lua_pushvalue(L, last);
  } else {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &sets_key);
    lua_rawgetp(L, -1, hash_methods(method));
    if (!is_same(lua_touserdata(L, -1), method)) new_set(L, first, method);
  }
  lua_replace(L, first);
  lua_settop(L, first);
}

/* Calls the __al_protocol on top (replaced by its result). */
static al_protocol *ask_c_protocol(lua_State *L, int idx) {
  lua_pushvalue(L, idx);
  lua_call(L, 1, 1);
  al_protocol *protocol = lua_touserdata(L, -1);
  if (!lua_islightuserdata(L, -1) || !protocol) luaL_error(L, "bad protocol (its __al_protocol returned none)");
  return protocol;
}

static bool may_be_protocol(lua_State *L, int idx) { return lua_istable(L, idx) || lua_type(L, idx) == LUA_TUSERDATA; }

al_protocol *al_protocol_classify(lua_State *L, al_ctx *ctx, int idx, int last) {
  (void)ctx;
  idx = lua_absindex(L, idx);
  if (!may_be_protocol(L, idx)) luaL_error(L, "bad protocol (table expected, got %s)", luaL_typename(L, idx));
  if (lua_type(L, idx) == LUA_TUSERDATA && luaL_getmetafield(L, idx, "__al_protocol") != LUA_TNIL) {
    al_protocol *protocol = ask_c_protocol(L, idx);
    lua_pop(L, 1);
    lua_pushnil(L);
    return protocol;
  }
  push_set(L, idx, last);
  return NULL;
}

void al_protocol_make(lua_State *L, int idx) {
  lua_pushvalue(L, idx);
  lua_call(L, 0, 1);
  if (!may_be_protocol(L, -1))
    luaL_error(L, "bad result of protocol_factory (protocol expected, got %s)", luaL_typename(L, -1));
}

/* ---- the base classes -------------------------------------------------------------------------------------------- */

static const luaL_Reg base_methods[] = {{"connection_made", no_op},
                                        {"connection_lost", no_op},
                                        {"pause_writing", no_op},
                                        {"resume_writing", no_op},
                                        {NULL, NULL}};
static const luaL_Reg stream_methods[] = {{"data_received", no_op}, {"eof_received", no_op}, {NULL, NULL}};
static const luaL_Reg buffered_methods[] = {
    {"get_buffer", no_buffer}, {"buffer_updated", no_op}, {"eof_received", no_op}, {NULL, NULL}};
static const luaL_Reg datagram_methods[] = {{"datagram_received", no_op}, {"error_received", no_op}, {NULL, NULL}};
static const luaL_Reg subprocess_methods[] = {
    {"pipe_data_received", no_op}, {"pipe_connection_lost", no_op}, {"process_exited", no_op}, {NULL, NULL}};

/* The class of most protocols has an answer for each method, so that no lookup goes further. */
static void answer_all(lua_State *L, al_ctx *ctx) {
  static const char *const others[] = {"get_buffer", "buffer_updated", "datagram_received", "error_received", NULL};
  al_class_methods(L, ctx, AL_C_Protocol, base_methods);
  al_pushclass(L, ctx, AL_C_Protocol);
  for (const char *const *name = others; *name; name++) {
    lua_pushboolean(L, false);
    lua_setfield(L, -2, *name);
  }
  lua_pop(L, 1);
}

void al_protocol_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseProtocol, base_methods);
  al_class_methods(L, ctx, AL_C_Protocol, stream_methods);
  al_class_methods(L, ctx, AL_C_BufferedProtocol, buffered_methods);
  al_class_methods(L, ctx, AL_C_DatagramProtocol, datagram_methods);
  al_class_methods(L, ctx, AL_C_SubprocessProtocol, subprocess_methods);
  answer_all(L, ctx);
  if (luaL_loadbuffer(L, getter_text, sizeof getter_text - 1, "=protocol") != LUA_OK) lua_error(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &getter_key);
  al_pushweak(L, "v");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sets_key);
}
