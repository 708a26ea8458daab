/* lchildpipe.c - the pipes of a child: a protocol in C for each, between its transport and whom its bytes are for.
 * Those of a Process go to a StreamReader or come from a StreamWriter (lstream.c), and no Lua runs on their way; all
 * others are told to the SubprocessProtocol (lprocess.c).
 *
 * SPDX-License-Identifier: MIT */
#include "lprocess.h"
#include "lstream.h"

enum { UV_PROCESS = 1, UV_STREAM, UV_COUNT = UV_STREAM };

typedef struct childpipe {
  al_protocol protocol;
  l_process *process;  /* kept by a user value */
  al_protocol *stream; /* of a Process: the same; else NULL */
  int fd;              /* the child's number */
} childpipe;

static const char metatable_key; /* of the registry */

static childpipe *of_protocol(al_protocol *protocol) { return (childpipe *)(void *)protocol; }

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static void stream_connection_made(al_protocol *protocol, al_transport *transport) {
  al_protocol *stream = of_protocol(protocol)->stream;
  stream->ops->connection_made(stream, transport);
}

static void stream_data_received(al_protocol *protocol, const char *data, size_t len) {
  al_protocol *stream = of_protocol(protocol)->stream;
  stream->ops->data_received(stream, data, len);
}

static void stream_pause_writing(al_protocol *protocol) {
  al_protocol *stream = of_protocol(protocol)->stream;
  stream->ops->pause_writing(stream);
}

static void stream_resume_writing(al_protocol *protocol) {
  al_protocol *stream = of_protocol(protocol)->stream;
  stream->ops->resume_writing(stream);
}

static void stream_connection_lost(al_protocol *protocol, int error) {
  childpipe *c = of_protocol(protocol);
  c->stream->ops->connection_lost(c->stream, error);
  al_process_pipe_lost(c->process, c->fd, error);
}

static const al_protocol_ops stream_ops = {.connection_made = stream_connection_made,
                                           .data_received = stream_data_received,
                                           .pause_writing = stream_pause_writing,
                                           .resume_writing = stream_resume_writing,
                                           .connection_lost = stream_connection_lost};

/* ---- a SubprocessProtocol ---------------------------------------------------------------------------------------- */

static void on_data_received(al_protocol *protocol, const char *data, size_t len) {
  const childpipe *c = of_protocol(protocol);
  l_event e = {.process = c->process, .method = AL_PM_pipe_data_received, .fd = c->fd, .data = data, .len = len};
  al_process_call(&e);
}

static void on_flow_control(al_protocol *protocol, al_process_method method) {
  l_event e = {.process = of_protocol(protocol)->process, .method = method};
  al_process_call(&e);
}

static void on_pause_writing(al_protocol *protocol) { on_flow_control(protocol, AL_PM_pause_writing); }
static void on_resume_writing(al_protocol *protocol) { on_flow_control(protocol, AL_PM_resume_writing); }

static void on_connection_lost(al_protocol *protocol, int error) {
  const childpipe *c = of_protocol(protocol);
  al_process_pipe_lost(c->process, c->fd, error);
}

static const al_protocol_ops event_ops = {.data_received = on_data_received,
                                          .pause_writing = on_pause_writing,
                                          .resume_writing = on_resume_writing,
                                          .connection_lost = on_connection_lost};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int reader_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                       al_transport **made) {
  (void)how;
  return al_pipe_reader_new(loop, fd, protocol, started, made);
}

static int writer_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                       al_transport **made) {
  (void)how;
  return al_pipe_writer_new(loop, fd, protocol, started, made);
}

/* What get_extra_info("pipe") gives: the descriptor. */
static void pipe_fill(lua_State *L, int box, int fd) {
  lua_pushinteger(L, fd);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_OWN);
}

static const l_transport_kind reader_kind = {
    .class = AL_C_ReadTransport, .own_values = 1, .open = reader_open, .fill = pipe_fill};
static const l_transport_kind writer_kind = {
    .class = AL_C_WriteTransport, .own_values = 1, .open = writer_open, .fill = pipe_fill};

static childpipe *push_protocol(lua_State *L, l_process *p, int box, int i) {
  childpipe *c = lua_newuserdatauv(L, sizeof *c, UV_COUNT);
  *c = (childpipe){.protocol.ops = p->streams ? &stream_ops : &event_ops, .process = p, .fd = i};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, box);
  lua_setiuservalue(L, -2, UV_PROCESS);
  return c;
}

/* Makes the stream of the protocol at idx; a reader is put at index stream. */
static void make_stream(lua_State *L, al_ctx *ctx, childpipe *c, int idx, int stream, size_t limit) {
  if (c->fd > 0) {
    al_reader_new(L, ctx, limit);
    lua_replace(L, stream);
  }
  c->stream = &al_stream_make(L, ctx, stream)->protocol;
  lua_setiuservalue(L, idx, UV_STREAM);
}

al_transport *al_childpipe_open(lua_State *L, l_process *p, int box, int i, int *fd, int stream, size_t limit) {
  childpipe *c = push_protocol(L, p, box, i);
  int protocol = lua_gettop(L);
  if (p->streams) make_stream(L, p->ctx, c, protocol, stream, limit);
  const l_transport_kind *kind = i == 0 ? &writer_kind : &reader_kind;
  l_transport *t = al_transport_make_kind(L, p->ctx, kind, NULL, p->loop, fd, protocol, 0, NULL, 0);
  if (p->streams && i == 0) {
    lua_getiuservalue(L, protocol, UV_STREAM);
    al_writer_new(L, p->ctx, protocol + 1, protocol + 2, stream);
    lua_replace(L, stream);
    lua_pop(L, 1);
  }
  lua_remove(L, protocol);
  return t->t;
}

/* __al_protocol, see lprotocol.h */
static int childpipe_protocol(lua_State *L) {
  lua_pushlightuserdata(L, &((childpipe *)lua_touserdata(L, 1))->protocol);
  return 1;
}

/* reader_disconnect(reader): it does not pause its transport any more, until set_transport. */
static int reader_disconnect(lua_State *L) {
  l_reader *reader = al_test_reader(L, 1);
  if (!reader) return al_typeerror(L, 1, "StreamReader");
  al_transport *transport = al_reader_transport(reader);
  if (!transport) return 0;
  al_transport_hold(transport);
  al_reader_connect(reader, NULL);
  al_transport_resume_reading(transport);
  al_transport_release(transport);
  return 0;
}

static const luaL_Reg functions[] = {{"reader_disconnect", reader_disconnect}, {NULL, NULL}};

void al_childpipe_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg methods[] = {{"__al_protocol", childpipe_protocol}, {NULL, NULL}};
  lua_newtable(L);
  lua_pushliteral(L, "SubprocessPipeProtocol");
  lua_setfield(L, -2, "__name");
  luaL_setfuncs(L, methods, 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
  al_ctx_setfuncs(L, ctx, functions);
}
