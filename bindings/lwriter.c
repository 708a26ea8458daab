/* lwriter.c - StreamWriter. A writer is a table: its transport, its protocol and its reader stand in it, and what a
 * script may want to add. Most methods are the transport's; those that wait ask the protocol (lstream.c).
 *
 * SPDX-License-Identifier: MIT */
#include "lloop.h"
#include "lpause.h"
#include "lrepr.h"
#include "lssl.h"
#include "lstream.h"

/* Pushes what stands at [slot] of the writer at 1; raises if it is no writer. */
static void push_part(lua_State *L, int slot, int type) {
  if (!lua_istable(L, 1) || lua_rawgeti(L, 1, slot) == LUA_TNIL || (type && lua_type(L, -1) != type))
    al_typeerror(L, 1, "StreamWriter");
}

/* The protocol of the writer at 1, which is pushed. */
static l_stream *push_protocol(lua_State *L) {
  push_part(L, AL_WRITER_PROTOCOL, LUA_TUSERDATA);
  l_stream *s = al_test_stream(L, -1);
  if (!s) al_typeerror(L, 1, "StreamWriter");
  return s;
}

/* Pushes the reader of the writer at 1, or nil. */
static l_reader *push_reader(lua_State *L) {
  push_protocol(L);
  if (lua_rawgeti(L, 1, AL_WRITER_READER) == LUA_TNIL) lua_getiuservalue(L, -2, AL_STREAM_UV_READER);
  return al_test_reader(L, -1);
}

/* The transport at idx if it is one of ours, or NULL. */
static l_transport *test_transport(lua_State *L, int idx) {
  l_transport *t = lua_type(L, idx) == LUA_TUSERDATA ? lua_touserdata(L, idx) : NULL;
  return t && lua_rawlen(L, idx) == sizeof *t && t->tag == &al_transport_tag && t->self == t ? t : NULL;
}

/* Pushes the transport of the writer at 1. What is written while start_tls is under way doesn't go past TLS. */
static void push_transport(lua_State *L) {
  push_part(L, AL_WRITER_TRANSPORT, 0);
  const l_transport *t = test_transport(L, -1);
  if (!t || !al_transport_is_upgraded(t->t)) return;
  lua_getiuservalue(L, -1, AL_TRANSPORT_UV_PROTOCOL);
  lua_remove(L, test_transport(L, -1) ? -2 : -1);
}

/* ---- the transport's methods ------------------------------------------------------------------------------------- */

/* [1] writer, arguments... → the results of the method of its transport. */
static int call_transport(lua_State *L, const char *method) {
  int nargs = lua_gettop(L) - 1;
  push_transport(L);
  lua_replace(L, 1);
  lua_getfield(L, 1, method);
  lua_insert(L, 1);
  lua_call(L, nargs + 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* A string goes straight to the transport of ours; what may be refused goes to the method, which is named then. */
static int writer_write(lua_State *L) {
  bool is_string = lua_gettop(L) == 2 && lua_type(L, 2) == LUA_TSTRING;
  if (!is_string) return call_transport(L, "write");
  push_transport(L);
  if (!test_transport(L, -1)) {
    lua_settop(L, 2);
    return call_transport(L, "write");
  }
  lua_replace(L, 1);
  return al_transport_write_data(L);
}

static int writer_writelines(lua_State *L) { return call_transport(L, "writelines"); }
static int writer_close(lua_State *L) { return call_transport(L, "close"); }
static int writer_is_closing(lua_State *L) { return call_transport(L, "is_closing"); }
static int writer_can_write_eof(lua_State *L) { return call_transport(L, "can_write_eof"); }
static int writer_write_eof(lua_State *L) { return call_transport(L, "write_eof"); }
static int writer_get_extra_info(lua_State *L) { return call_transport(L, "get_extra_info"); }

/* ---- waiting for the protocol: tasks stand in a list by a pause -------------------------------------------------- */

static void wait_abandon(al_ctx *ctx, l_wait *wait) {
  l_pause *p = al_pause_of_wait(wait);
  al_handle_cancel(&p->timer.handle);
  al_pause_give(ctx, p);
}

static int wait_in(lua_State *L, al_ctx *ctx, l_stream *s, const l_wait_kind *kind) {
  l_pause *p = al_pause_take(L, ctx);
  al_list_append(&s->waiting, &p->timer.handle);
  return al_wait(L, ctx, &p->wait, kind);
}

/* Raises what the connection of the writer at 1 was lost with, if that was an error. */
static int raise_if_lost(lua_State *L) {
  l_stream *s = push_protocol(L);
  return al_stream_push_error(L, s, -1) ? lua_error(L) : 0;
}

/* The buffer has run low, or the connection is lost. */
static int drain_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_pause_give(ctx, al_pause_of_wait(wait));
  return raise_if_lost(L);
}

const l_wait_kind al_stream_draining = {drain_finish, wait_abandon, "drain of a stream"};

static int wait_drained(lua_State *L, al_ctx *ctx) {
  l_stream *s = push_protocol(L);
  if (s->lost) return al_raise(L, ctx, AL_C_ConnectionResetError, "Connection lost");
  if (!s->paused) return 0;
  return wait_in(L, ctx, s, &al_stream_draining);
}

static int drain_turned(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  al_ctx *ctx = al_ctx_of(L);
  al_task_resumed(L, ctx);
  return wait_drained(L, ctx);
}

/* Is the transport of the writer at 1 closing? */
static bool is_closing(lua_State *L) {
  push_part(L, AL_WRITER_TRANSPORT, 0);
  const l_transport *t = test_transport(L, -1);
  if (t) return al_transport_is_closing(t->t);
  lua_getfield(L, -1, "is_closing");
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  return lua_toboolean(L, -1);
}

static int writer_drain(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = al_check_wait(L, ctx, "drain");
  lua_settop(L, 1);
  if (push_reader(L) && al_reader_push_exception(L, ctx, lua_gettop(L))) return lua_error(L);
  if (!is_closing(L)) return wait_drained(L, ctx);
  /* One turn, in which connection_lost may be called: who writes and drains for ever must see it. */
  al_call_soon(t->f.loop->loop, &t->step);
  return al_suspend(L, 0, drain_turned);
}

static int closed_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_pause_give(ctx, al_pause_of_wait(wait));
  return raise_if_lost(L);
}

static const l_wait_kind closing = {closed_finish, wait_abandon, "end of a stream"};

static int writer_wait_closed(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_stream *s = push_protocol(L);
  al_check_wait(L, ctx, "wait_closed");
  lua_settop(L, 1);
  if (s->lost) return raise_if_lost(L);
  return wait_in(L, ctx, s, &closing);
}

/* ---- start_tls: drain, then loop:start_tls, whose transport takes the place of the present one ------------------- */

enum { WRITER = 1, SSL_CONTEXT, OPTIONS }; /* stack of start_tls */

static int tls_started(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  const l_transport *t = test_transport(L, -1);
  if (!t) return 0;
  lua_pushvalue(L, -1);
  lua_rawseti(L, WRITER, AL_WRITER_TRANSPORT);
  lua_setfield(L, WRITER, "transport");
  al_stream_replace_transport(push_protocol(L), t->t);
  return 0;
}

static const char *const tls_options[] = {"server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout", "session",
                                          NULL};

static int tls_drained(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  lua_settop(L, OPTIONS);
  al_pushloop(L, al_ctx_of(L)->current->f.loop);
  lua_getfield(L, -1, "start_tls");
  lua_insert(L, -2);
  lua_rawgeti(L, WRITER, AL_WRITER_TRANSPORT);
  lua_rawgeti(L, WRITER, AL_WRITER_PROTOCOL);
  lua_pushvalue(L, SSL_CONTEXT);
  lua_createtable(L, 0, 5);
  for (const char *const *name = tls_options; *name; name++) {
    al_option(L, OPTIONS, *name);
    lua_setfield(L, -2, *name);
  }
  lua_getiuservalue(L, -3, AL_STREAM_UV_CALLBACK);
  lua_pushboolean(L, !lua_isnil(L, -1)); /* whose connections are a server's */
  lua_setfield(L, -3, "server_side");
  lua_pop(L, 1);
  lua_callk(L, 5, 1, 0, tls_started);
  return tls_started(L, LUA_OK, 0);
}

/* start_tls(sslcontext, [{server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout, session}]) */
static int writer_start_tls(lua_State *L) {
  lua_settop(L, OPTIONS);
  push_protocol(L);
  al_check_wait(L, al_ctx_of(L), "start_tls");
  if (!al_test_ssl_context(L, al_ctx_of(L), SSL_CONTEXT)) return al_typeerror(L, SSL_CONTEXT, "SSLContext");
  al_options(L, OPTIONS, "start_tls", tls_options);
  lua_settop(L, OPTIONS);
  lua_getfield(L, WRITER, "drain");
  lua_pushvalue(L, WRITER);
  lua_callk(L, 1, 0, 0, tls_drained);
  return tls_drained(L, LUA_OK, 0);
}

/* ---- the end of a scope, and of the writer ----------------------------------------------------------------------- */

/* [1] writer, [2] the error that leaves the scope, which is not to be hidden by that of the connection. */
static int scope_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  if (wait) al_pause_give(ctx, al_pause_of_wait(wait));
  return lua_isnil(L, 2) ? raise_if_lost(L) : 0;
}

static const l_wait_kind scope_closing = {scope_finish, wait_abandon, "end of a stream"};

static int writer_scope_end(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, 2);
  push_part(L, AL_WRITER_TRANSPORT, 0);
  lua_getfield(L, -1, "close");
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  l_stream *s = push_protocol(L);
  lua_settop(L, 2);
  if (s->lost) return scope_finish(L, ctx, NULL);
  if (!al_may_wait(L, ctx)) return 0;
  return wait_in(L, ctx, s, &scope_closing);
}

/* A writer that nobody has any more: the connection goes with it. */
static int writer_gc(lua_State *L) {
  if (!lua_istable(L, 1)) return 0;
  lua_rawgeti(L, 1, AL_WRITER_TRANSPORT);
  const l_transport *t = test_transport(L, -1);
  if (!t || !t->t || t->closed || al_transport_is_closing(t->t)) return 0;
  if (al_loop_debug(al_transport_loop(t->t))) {
    char text[AL_TRANSPORT_STRLEN];
    al_warn_unclosed(L, t->ctx, 1, "stream over", al_transport_describe(t->t, t->fd, text, sizeof text));
  }
  al_transport_close(t->t);
  return 0;
}

static int writer_tostring(lua_State *L) {
  push_part(L, AL_WRITER_TRANSPORT, 0);
  const char *transport = luaL_tolstring(L, -1, NULL);
  if (push_reader(L)) {
    lua_pushfstring(L, "<StreamWriter transport=%s reader=%s>", transport, luaL_tolstring(L, -1, NULL));
  } else {
    lua_pushfstring(L, "<StreamWriter transport=%s>", transport);
  }
  return 1;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Puts its parts into the table on top and makes it a writer of the class at class. */
static void init(lua_State *L, al_ctx *ctx, int class, int transport, int protocol, int reader) {
  int writer = lua_gettop(L);
  lua_pushvalue(L, transport);
  lua_rawseti(L, writer, AL_WRITER_TRANSPORT);
  lua_pushvalue(L, protocol);
  lua_rawseti(L, writer, AL_WRITER_PROTOCOL);
  lua_getiuservalue(L, protocol, AL_STREAM_UV_READER);
  if (!lua_rawequal(L, -1, reader)) {
    lua_isnil(L, reader) ? lua_pushboolean(L, false) : lua_pushvalue(L, reader);
    lua_rawseti(L, writer, AL_WRITER_READER);
  }
  lua_settop(L, writer);
  lua_pushvalue(L, transport);
  lua_setfield(L, writer, "transport");
  lua_pushvalue(L, class);
  lua_setmetatable(L, writer);
  if (ctx->running && al_loop_debug(ctx->running->loop)) al_remember_place(L, ctx, writer);
}

void al_writer_new(lua_State *L, al_ctx *ctx, int transport, int protocol, int reader) {
  al_pushclass(L, ctx, AL_C_StreamWriter);
  lua_createtable(L, 2, 1);
  init(L, ctx, lua_gettop(L) - 1, transport, protocol, reader);
  lua_replace(L, -2);
}

/* class, transport, protocol, [reader] */
static int writer_new(lua_State *L) {
  lua_settop(L, 4);
  if (!lua_istable(L, 2) && lua_type(L, 2) != LUA_TUSERDATA) return al_typeerror(L, 2, "transport");
  if (!al_test_stream(L, 3)) return al_typeerror(L, 3, "StreamReaderProtocol");
  if (!lua_isnil(L, 4) && !al_test_reader(L, 4)) return al_typeerror(L, 4, "StreamReader");
  lua_createtable(L, 2, 1);
  init(L, al_ctx_of(L), 1, 2, 3, 4);
  return 1;
}

static const luaL_Reg methods[] = {{"__new", writer_new},
                                   {"write", writer_write},
                                   {"writelines", writer_writelines},
                                   {"drain", writer_drain},
                                   {"close", writer_close},
                                   {"wait_closed", writer_wait_closed},
                                   {"is_closing", writer_is_closing},
                                   {"can_write_eof", writer_can_write_eof},
                                   {"write_eof", writer_write_eof},
                                   {"get_extra_info", writer_get_extra_info},
                                   {"start_tls", writer_start_tls},
                                   {"__close", writer_scope_end},
                                   {"__gc", writer_gc},
                                   {"__tostring", writer_tostring},
                                   {NULL, NULL}};

void al_writer_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_StreamWriter, methods); }
