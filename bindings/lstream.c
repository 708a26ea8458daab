/* lstream.c - StreamReaderProtocol: what a transport tells, told to a StreamReader and to the tasks in drain() and
 * wait_closed(). The transport calls it as a protocol in C; its methods are for transports that are written in Lua.
 *
 * SPDX-License-Identifier: MIT */
#include "lstream.h"

#include "lbuffer.h"
#include "lloop.h"
#include "lpause.h"
#include "lssl.h"

#include <errno.h>

static l_stream *of_protocol(al_protocol *protocol) { return (l_stream *)(void *)protocol; }

static const al_protocol_ops stream_ops, ended_ops;

l_stream *al_test_stream(lua_State *L, int idx) {
  l_stream *s = lua_type(L, idx) == LUA_TUSERDATA ? lua_touserdata(L, idx) : NULL;
  return s && lua_rawlen(L, idx) == sizeof *s && s->protocol.ops == &stream_ops ? s : NULL;
}

static void set_transport(l_stream *s, al_transport *transport) {
  if (transport) al_transport_hold(transport);
  if (s->transport) al_transport_release(s->transport);
  s->transport = transport;
  if (s->reader) al_reader_connect(s->reader, transport);
}

void al_stream_replace_transport(l_stream *s, al_transport *transport) {
  if (s->reader) al_reader_connect(s->reader, NULL); /* what it paused was the former one */
  if (!s->lost) set_transport(s, transport);
}

/* ---- waking ------------------------------------------------------------------------------------------------------ */

/* Wakes those in drain(), or all who wait. */
static void wake(l_stream *s, bool all) {
  for (al_link *link = s->waiting.next, *next; link != &s->waiting; link = next) {
    l_pause *p = al_pause_of_link(link);
    next = link->next;
    if (!all && p->wait.kind != &al_stream_draining) continue;
    al_handle_cancel(&p->timer.handle);
    al_wake(&p->wait);
  }
}

/* ---- what the transport tells ------------------------------------------------------------------------------------ */

static void on_connection_made(al_protocol *protocol, al_transport *transport) {
  l_stream *s = of_protocol(protocol);
  if (s->connected) { /* a factory gave it twice: its bytes would mingle */
    al_warn(s->ctx, "RuntimeWarning", "a StreamReaderProtocol serves one connection only; the second one is closed");
    al_transport_set_protocol(transport, NULL);
    al_transport_abort(transport);
    return;
  }
  s->connected = true;
  set_transport(s, transport);
  al_stream_serve(s, transport);
}

static void on_data_received(al_protocol *protocol, const char *data, size_t len) {
  l_stream *s = of_protocol(protocol);
  if (!s->reader || !al_reader_feed(s->ctx, s->reader, data, len)) return;
  al_reader_fail(s->reader, -ENOMEM);
  if (s->transport) al_transport_fail(s->transport, -ENOMEM);
}

static char *on_room(al_protocol *protocol, size_t n) {
  l_stream *s = of_protocol(protocol);
  return s->reader ? al_reader_room(s->ctx, s->reader, n) : NULL;
}

/* Over TLS no half can be closed alone, and a transport warns of a protocol that wants to. */
static bool is_over_tls(const l_stream *s) { return s->transport && al_transport_is_tls(s->transport); }

static bool on_eof_received(al_protocol *protocol) {
  const l_stream *s = of_protocol(protocol);
  if (s->reader) al_reader_feed_eof(s->reader);
  return !is_over_tls(s);
}

static void log_writing(const l_stream *s, const char *what) {
  if (s->transport && al_loop_debug(al_transport_loop(s->transport)))
    al_log(AL_LOG_DEBUG, NULL, "stream fd=%d %s writing", al_transport_fd(s->transport), what);
}

static void on_pause_writing(al_protocol *protocol) {
  l_stream *s = of_protocol(protocol);
  s->paused = true;
  log_writing(s, "pauses");
}

static void on_resume_writing(al_protocol *protocol) {
  l_stream *s = of_protocol(protocol);
  s->paused = false;
  log_writing(s, "resumes");
  wake(s, false);
}

/* Of the protocol at idx: what it was lost with is the value at error. */
static void set_error(lua_State *L, l_stream *s, int idx, int error) {
  lua_pushvalue(L, error);
  lua_setiuservalue(L, idx, AL_STREAM_UV_CALLBACK);
  s->has_error = true;
}

/* held, protocol, its error: what came from a method of another protocol before this one was set */
static int keep_error_body(lua_State *L) {
  l_stream *s = lua_touserdata(L, 1);
  set_error(L, s, 1, 2);
  if (!s->reader) return 0;
  lua_getiuservalue(L, 1, AL_STREAM_UV_READER);
  lua_pushvalue(L, 2);
  al_reader_set_exception(L, 3);
  return 0;
}

typedef struct loss {
  al_ctx *ctx;
  al_transport *transport;
  int error;
} loss;

static int tls_error_body(lua_State *L) {
  const loss *l = lua_touserdata(L, 1);
  al_push_transport_error(L, l->ctx, l->transport, l->error);
  return 1;
}

/* Pushes the error as an object: one that the transport holds, or what it knows of TLS. False: it is no such error. */
static bool push_object(lua_State *L, l_stream *s, int error) {
  loss l = {s->ctx, s->transport, error};
  if (error != AL_EPROTOCOL) return al_pcall_c(L, tls_error_body, &l, 1) == LUA_OK;
  lua_getiuservalue(L, 3, AL_TRANSPORT_UV_HELD);
  return !lua_isnil(L, -1);
}

/* Is there more to tell than the number of the error? */
static bool has_object(const l_stream *s, int error) {
  return error == AL_EPROTOCOL || (is_over_tls(s) && al_tls_failure(s->transport));
}

/* The transport has the error as an object. False: it has not, or can't tell. */
static bool take_error_object(l_stream *s, int error) {
  const l_transport *box = s->transport && has_object(s, error) ? al_transport_data(s->transport) : NULL;
  lua_State *L = box && box->slot ? al_enter(s->ctx) : NULL;
  if (!L) return false;
  bool taken = false;
  if (lua_rawgeti(L, 1, box->slot) == LUA_TUSERDATA) {
    lua_pushcfunction(L, keep_error_body);
    lua_getiuservalue(L, 3, AL_TRANSPORT_UV_PROTOCOL);
    taken = lua_touserdata(L, 5) == (void *)s && push_object(L, s, error) && al_pcall(L, 2, 0) == LUA_OK;
  }
  al_leave(s->ctx, L);
  return taken;
}

/* The reader knows; those who wait for the end of the connection go on. */
static void end(l_stream *s) {
  s->lost = true;
  set_transport(s, NULL);
  wake(s, true);
}

static void on_connection_lost(al_protocol *protocol, int error) {
  l_stream *s = of_protocol(protocol);
  s->error = error;
  if (error == 0) {
    if (s->reader) al_reader_feed_eof(s->reader);
  } else if (!take_error_object(s, error)) {
    if (s->reader) al_reader_fail(s->reader, error);
  }
  end(s);
}

static const al_protocol_ops stream_ops = {.connection_made = on_connection_made,
                                           .data_received = on_data_received,
                                           .room = on_room,
                                           .eof_received = on_eof_received,
                                           .pause_writing = on_pause_writing,
                                           .resume_writing = on_resume_writing,
                                           .connection_lost = on_connection_lost};

bool al_stream_push_error(lua_State *L, l_stream *s, int idx) {
  if (!s->lost || s->error == 0) return false;
  idx = lua_absindex(L, idx);
  if (s->has_error) {
    lua_getiuservalue(L, idx, AL_STREAM_UV_CALLBACK);
  } else {
    al_pushoserror(L, s->ctx, s->error, NULL, NULL);
    set_error(L, s, idx, lua_gettop(L));
  }
  return true;
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

static l_stream *check_self(lua_State *L) {
  l_stream *s = al_test_stream(L, 1);
  if (!s) al_typeerror(L, 1, "StreamReaderProtocol");
  return s;
}

static int stream_protocol(lua_State *L) {
  lua_pushlightuserdata(L, &check_self(L)->protocol);
  return 1;
}

static int stream_connection_made(lua_State *L) {
  l_stream *s = check_self(L);
  on_connection_made(&s->protocol, al_check_transport(L, 2)->t);
  return 0;
}

static int stream_data_received(lua_State *L) {
  l_stream *s = check_self(L);
  size_t len;
  const char *data = al_check_bytes(L, s->ctx, 2, &len);
  on_data_received(&s->protocol, data, len);
  return 0;
}

static int stream_eof_received(lua_State *L) {
  lua_pushboolean(L, on_eof_received(&check_self(L)->protocol));
  return 1;
}

static int stream_pause_writing(lua_State *L) {
  on_pause_writing(&check_self(L)->protocol);
  return 0;
}

static int stream_resume_writing(lua_State *L) {
  on_resume_writing(&check_self(L)->protocol);
  return 0;
}

/* connection_lost([error]) */
static int stream_connection_lost(lua_State *L) {
  l_stream *s = check_self(L);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    on_connection_lost(&s->protocol, 0);
    return 0;
  }
  s->error = AL_EPROTOCOL;
  lua_pushcfunction(L, keep_error_body);
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  end(s);
  return 0;
}

static int stream_tostring(lua_State *L) {
  const l_stream *s = check_self(L);
  lua_pushfstring(L, "<StreamReaderProtocol %s%s>",
                  s->lost        ? "lost"
                  : s->connected ? "connected"
                                 : "unconnected",
                  s->paused ? " writing paused" : "");
  return 1;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Of the protocol on top: the reader (or nil) and the callback (or nil) at these indices are its. */
static void init(lua_State *L, al_ctx *ctx, l_stream *s, int reader, int callback) {
  s->protocol.ops = &stream_ops;
  s->ctx = ctx;
  al_list_init(&s->waiting);
  s->reader = al_test_reader(L, reader);
  lua_pushvalue(L, reader);
  lua_setiuservalue(L, -2, AL_STREAM_UV_READER);
  lua_pushvalue(L, callback);
  lua_setiuservalue(L, -2, AL_STREAM_UV_CALLBACK);
}

/* class, reader, [callback] */
static int stream_new(lua_State *L) {
  lua_settop(L, 3);
  if (!lua_isnil(L, 2) && !al_test_reader(L, 2)) return al_typeerror(L, 2, "StreamReader");
  if (!lua_isnil(L, 3)) al_check_callable(L, 3);
  init(L, al_ctx_of(L), al_new_instance(L, 1, AL_C_StreamReaderProtocol, sizeof(l_stream), AL_STREAM_UV_COUNT), 2, 3);
  return 1;
}

/* Upvalues: ctx, callback, limit. A server's protocol factory. */
static int make_served(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, 0);
  al_reader_new(L, ctx, (size_t)lua_tointeger(L, lua_upvalueindex(3)));
  lua_pushvalue(L, lua_upvalueindex(2));
  init(L, ctx, al_new(L, ctx, AL_C_StreamReaderProtocol, sizeof(l_stream), AL_STREAM_UV_COUNT), 1, 2);
  return 1;
}

l_stream *al_stream_make(lua_State *L, al_ctx *ctx, int reader) {
  l_stream *s = al_new(L, ctx, AL_C_StreamReaderProtocol, sizeof *s, AL_STREAM_UV_COUNT);
  lua_pushnil(L);
  lua_insert(L, -2);
  init(L, ctx, s, reader, lua_gettop(L) - 1);
  lua_remove(L, -2);
  return s;
}

/* stream_factory(callback, limit) → protocol factory */
static int stream_factory(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_reader_check_limit(L, ctx, luaL_checkinteger(L, 2));
  lua_settop(L, 2);
  lua_pushlightuserdata(L, ctx);
  lua_insert(L, 1);
  lua_pushcclosure(L, make_served, 3);
  return 1;
}

static int stream_gc(lua_State *L) {
  l_stream *s = al_test_stream(L, 1);
  if (!s) return 0;
  s->reader = NULL; /* which may be gone already */
  set_transport(s, NULL);
  s->protocol.ops = &ended_ops; /* of a state that is closed, a transport may still stand */
  return 0;
}

static const luaL_Reg methods[] = {{"__new", stream_new},
                                   {"__al_protocol", stream_protocol},
                                   {"connection_made", stream_connection_made},
                                   {"data_received", stream_data_received},
                                   {"eof_received", stream_eof_received},
                                   {"pause_writing", stream_pause_writing},
                                   {"resume_writing", stream_resume_writing},
                                   {"connection_lost", stream_connection_lost},
                                   {"__gc", stream_gc},
                                   {"__tostring", stream_tostring},
                                   {NULL, NULL}};
static const luaL_Reg functions[] = {{"stream_factory", stream_factory}, {NULL, NULL}};

void al_stream_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_StreamReaderProtocol, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
