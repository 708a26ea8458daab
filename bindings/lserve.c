/* lserve.c - what start_server does with a connection: its callback runs as a task, whose error is reported and ends
 * the connection. All is kept on the stack of the task, so an idle connection has nothing more.
 *
 * SPDX-License-Identifier: MIT */
#include "lcontext.h"
#include "lloop.h"
#include "lstream.h"

#include <errno.h>

static const char serve_key; /* of serve_main in the registry: one function for all connections */

static const char *const report_message = "Unhandled exception in client_connected_cb";

static void close_connection(lua_State *L, int idx) {
  const l_transport *t = lua_touserdata(L, idx);
  if (t->t) al_transport_close(t->t);
}

/* ---- the task ---------------------------------------------------------------------------------------------------- */

enum {
  UNDER_TASK_MAIN,
  AT_BOTTOM
}; /* where in its coroutine the body stands: at the bottom it does as task_main does */

/* [1] traceback handler, [2] transport, then the error if there is one → at the bottom: ok, the error */
static int serve_done(lua_State *L, int status, lua_KContext where) {
  al_ctx *ctx = al_ctx_of(L);
  bool ok = status == LUA_OK || status == LUA_YIELD;
  if (!ok) {
    ok = !al_isinstance(L, ctx, -1, AL_C_BaseError) || al_isinstance(L, ctx, -1, AL_C_Error) ||
         al_isinstance(L, ctx, -1, AL_C_GeneratorExit);
    if (ok) { /* told, it is nobody's any more; what isn't told is the end of the task */
      const al_key keys[] = {{"transport", 2}, {NULL, 0}};
      lua_pushvalue(L, -1);
      al_report(ctx, L, ctx->current->f.loop, report_message, keys);
    }
    close_connection(L, 2);
  }
  if (where == AT_BOTTOM) {
    lua_pushboolean(L, ok);
    if (ok) return 1;
    lua_insert(L, -2);
    return 2;
  }
  if (ok) return 0;
  ctx->passing = true;
  return lua_error(L);
}

/* callback, reader, writer: the body of the task. The second upvalue is the message handler. */
static int serve(lua_State *L, lua_KContext where) {
  lua_rawgeti(L, 3, AL_WRITER_TRANSPORT);
  lua_insert(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  return serve_done(L, lua_pcallk(L, 2, 0, 1, where, serve_done), where);
}

/* The function at the bottom of the coroutine; in place of task_main, for an idle connection has nothing to spare. */
static int serve_main(lua_State *L) {
  if (!al_task_take_cancellation(L, al_ctx_of(L))) return serve(L, AT_BOTTOM);
  lua_rawgeti(L, 3, AL_WRITER_TRANSPORT); /* cancelled before it began */
  close_connection(L, -1);
  lua_pushboolean(L, false);
  lua_replace(L, -2);
  lua_insert(L, -2);
  return 2;
}

/* The same for a task that a script makes. Upvalues: ctx, message handler, callback, reader, writer. */
static int serve_closure(lua_State *L) {
  lua_settop(L, 0);
  for (int i = 3; i <= 5; i++) lua_pushvalue(L, lua_upvalueindex(i));
  return serve(L, UNDER_TASK_MAIN);
}

/* ---- making it --------------------------------------------------------------------------------------------------- */

enum { CTX = 1, TRANSPORT, PROTOCOL, CALLBACK, READER, WRITER }; /* stack of serve_body */

static bool has_factory(lua_State *L, l_loop *loop) {
  al_pushloop(L, loop);
  bool has = lua_getiuservalue(L, -1, AL_LOOP_UV_FACTORY) != LUA_TNIL;
  lua_pop(L, 2);
  return has;
}

static void create_by_script(lua_State *L, al_ctx *ctx, l_loop *loop) {
  al_pushloop(L, loop);
  lua_getfield(L, -1, "create_task");
  lua_insert(L, -2);
  lua_pushlightuserdata(L, ctx);
  al_ctx_pushfunction(L, ctx, al_traceback);
  for (int i = CALLBACK; i <= WRITER; i++) lua_pushvalue(L, i);
  lua_pushcclosure(L, serve_closure, 5);
  lua_call(L, 2, 0);
}

static void create(lua_State *L, al_ctx *ctx, l_loop *loop) {
  int kind = al_context_capture(L, ctx);
  l_task *t = al_task_new(L, ctx, loop, CALLBACK, kind, 0); /* nothing raises from here on */
  t->begins = true;
  lua_settop(t->co, 0);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &serve_key);
  for (int i = CALLBACK; i <= WRITER; i++) lua_pushvalue(L, i);
  lua_xmove(L, t->co, 4);
  al_call_soon(loop->loop, &t->step);
}

/* ctx, transport, protocol, callback */
static int serve_body(lua_State *L) {
  al_ctx *ctx = lua_touserdata(L, CTX);
  l_loop *loop = al_loop_data(al_transport_loop(((l_transport *)lua_touserdata(L, TRANSPORT))->t));
  lua_getiuservalue(L, PROTOCOL, AL_STREAM_UV_READER);
  al_writer_new(L, ctx, TRANSPORT, PROTOCOL, READER);
  if (loop->custom_task || has_factory(L, loop)) {
    create_by_script(L, ctx, loop);
  } else {
    create(L, ctx, loop);
  }
  return 0;
}

/* The box is at 3, the protocol at 4, its callback at 5; the context is the transport's. */
static void start(al_ctx *ctx, lua_State *L, al_transport *transport) {
  lua_pushcfunction(L, serve_body);
  lua_pushlightuserdata(L, ctx);
  for (int i = 3; i <= 5; i++) lua_pushvalue(L, i);
  if (al_pcall(L, 4, 0) == LUA_OK) return;
  const al_key keys[] = {{"transport", 3}, {"protocol", 4}, {NULL, 0}};
  al_report(ctx, L, al_loop_data(al_transport_loop(transport)), report_message, keys);
  al_transport_close(transport);
}

static void start_in_context(al_ctx *ctx, lua_State *L, al_transport *transport, int kind) {
  if (kind == AL_CONTEXT_EMPTY && ctx->context_kind == AL_CONTEXT_EMPTY) {
    start(ctx, L, transport);
    return;
  }
  lua_getiuservalue(L, 3, AL_TRANSPORT_UV_CONTEXT);
  int former = al_context_swap(L, ctx, kind), saved = lua_gettop(L);
  start(ctx, L, transport);
  lua_settop(L, saved);
  al_context_swap(L, ctx, former);
}

void al_stream_serve(l_stream *s, al_transport *transport) {
  const l_transport *box = al_transport_data(transport);
  lua_State *L = box && box->slot ? al_enter(s->ctx) : NULL;
  if (!L) {
    al_transport_fail(transport, -ENOMEM);
    return;
  }
  if (lua_rawgeti(L, 1, box->slot) == LUA_TUSERDATA) {
    lua_getiuservalue(L, 3, AL_TRANSPORT_UV_PROTOCOL);
    if (lua_touserdata(L, 4) == (void *)s && lua_getiuservalue(L, 4, AL_STREAM_UV_CALLBACK) != LUA_TNIL)
      start_in_context(s->ctx, L, transport, box->context_kind);
  }
  al_leave(s->ctx, L);
}

void al_serve_openlib(lua_State *L, al_ctx *ctx) {
  lua_pushlightuserdata(L, ctx);
  al_ctx_pushfunction(L, ctx, al_traceback);
  lua_pushcclosure(L, serve_main, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &serve_key);
}
