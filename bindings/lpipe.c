/* lpipe.c - aloop.pipe(): the two ends of a pipe as objects, both non-blocking; and loop:connect_read_pipe and
 * connect_write_pipe, which make transports of pipe ends of every sort.
 *
 * Who owns what: a descriptor, a Socket and a PipeEnd are the transport's from then on. A Lua file, and an object of
 * another module that has a close method, would close the descriptor themselves, so the transport works on a
 * duplicate, and closes the object when it is done. What is open after that (io.stdin can't be closed) is set back to
 * blocking, if it was.
 *
 * SPDX-License-Identifier: MIT */
#include "lpipe.h"

#include "lbuffer.h"
#include "lendpoint.h"
#include "lfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct pipe_end {
  int fd; /* -1: closed, or the transport's */
  bool writes;
  al_transport *transport; /* whose it is: one reference */
} pipe_end;

static pipe_end *check_self(lua_State *L) { return al_check(L, al_ctx_of(L), 1, AL_C_PipeEnd); }

static int end_fd(const pipe_end *p) { return p->transport ? al_transport_fd(p->transport) : p->fd; }

static int check_open(lua_State *L) {
  pipe_end *p = check_self(L);
  if (p->transport) al_raise(L, al_ctx_of(L), AL_C_RuntimeError, "the pipe belongs to a transport");
  if (p->fd < 0) al_raise(L, al_ctx_of(L), AL_C_ValueError, "I/O operation on closed pipe");
  return p->fd;
}

static int raise_errno(lua_State *L) { return al_raise_os(L, al_ctx_of(L), -errno, NULL, NULL); }

static int pipe_fileno(lua_State *L) {
  lua_pushinteger(L, end_fd(check_self(L)));
  return 1;
}

/* read(n) → up to n bytes, nil at the end */
static int pipe_read(lua_State *L) {
  int fd = check_open(L);
  lua_Integer size = al_checkinteger(L, 2);
  if (size < 0) return al_raise(L, al_ctx_of(L), AL_C_ValueError, "negative size in read");
  luaL_Buffer b;
  char *data = luaL_buffinitsize(L, &b, (size_t)size);
  ssize_t n;
  do {
    n = read(fd, data, (size_t)size);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return raise_errno(L);
  luaL_pushresultsize(&b, (size_t)n);
  if (n == 0 && size > 0) lua_pushnil(L);
  return 1;
}

/* write(data) → bytes written */
static int pipe_write(lua_State *L) {
  int fd = check_open(L);
  size_t len;
  const char *data = al_check_bytes(L, al_ctx_of(L), 2, &len);
  ssize_t n;
  do {
    n = write(fd, data, len);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return raise_errno(L);
  lua_pushinteger(L, n);
  return 1;
}

static void close_end(pipe_end *p) {
  if (p->fd >= 0) close(p->fd);
  p->fd = -1;
}

static int pipe_close(lua_State *L) {
  close_end(check_self(L));
  return 0;
}

static int pipe_gc(lua_State *L) {
  pipe_end *p = al_test(L, al_ctx_of(L), 1, AL_C_PipeEnd);
  if (!p) return 0;
  close_end(p);
  if (p->transport) al_transport_release(p->transport);
  p->transport = NULL;
  return 0;
}

static int pipe_tostring(lua_State *L) {
  pipe_end *p = check_self(L);
  int fd = end_fd(p);
  lua_pushfstring(L, "<PipeEnd %s fd=%d>", fd < 0 ? "closed" : p->writes ? "write" : "read", fd);
  return 1;
}

/* pipe() → read end, write end */
static int make_pipe(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  int fds[2];
  pipe_end *reader = al_new(L, ctx, AL_C_PipeEnd, sizeof *reader, 0);
  reader->fd = -1;
  pipe_end *writer = al_new(L, ctx, AL_C_PipeEnd, sizeof *writer, 0);
  writer->fd = -1;
  writer->writes = true;
  if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return raise_errno(L);
  reader->fd = fds[0];
  writer->fd = fds[1];
  return 2;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

enum { LOOP = 1, FACTORY, PIPE, STATE, CLOSER };

/* Stands for a Lua file whose descriptor a transport has a duplicate of; its user value is the file. */
typedef struct closer {
  int fd; /* of the file, if it was blocking and is to be so again; else -1 */
} closer;

static const char closer_key; /* its metatable in the registry */

static bool is_open(lua_State *L, int idx) {
  const luaL_Stream *stream = luaL_testudata(L, idx, LUA_FILEHANDLE);
  return stream && stream->closef;
}

static void set_back(lua_State *L, closer *c) {
  lua_getiuservalue(L, 1, 1);
  int flags = c->fd >= 0 && is_open(L, -1) ? fcntl(c->fd, F_GETFL) : -1;
  if (flags >= 0) fcntl(c->fd, F_SETFL, flags & ~O_NONBLOCK);
  c->fd = -1;
  lua_pop(L, 1);
}

/* file:close(); the standard files stay open */
static int closer_close(lua_State *L) {
  closer *c = lua_touserdata(L, 1);
  lua_getiuservalue(L, 1, 1);
  if (is_open(L, -1)) {
    lua_getfield(L, -1, "close");
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
  }
  set_back(L, c);
  return 0;
}

static int closer_gc(lua_State *L) {
  set_back(L, lua_touserdata(L, 1));
  return 0;
}

static bool blocks(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && !(flags & O_NONBLOCK);
}

/* Pushes one for the file at PIPE. */
static void push_closer(lua_State *L, int fd) {
  closer *c = lua_newuserdatauv(L, sizeof *c, 1);
  c->fd = -1;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &closer_key);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, PIPE);
  lua_setiuservalue(L, -2, 1);
  if (blocks(fd)) c->fd = fd;
}

/* ---- loop:connect_read_pipe(factory, pipe), connect_write_pipe(factory, pipe) ------------------------------------ */

typedef struct pipe_how {
  bool writes;
  pipe_end *end; /* the PipeEnd that was given, or NULL */
} pipe_how;

static int pipe_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                     al_transport **made) {
  const pipe_how *h = how;
  int err = (h->writes ? al_pipe_writer_new : al_pipe_reader_new)(loop, fd, protocol, started, made);
  if (err || !h->end) return err;
  h->end->fd = -1;
  h->end->transport = *made;
  al_transport_hold(*made);
  return 0;
}

/* What get_extra_info("pipe") gives. */
static void pipe_fill(lua_State *L, int box, int fd) {
  (void)fd;
  lua_pushvalue(L, PIPE);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_OWN);
}

static const l_transport_kind reader_kind = {
    .class = AL_C_ReadTransport, .own_values = 1, .open = pipe_open, .fill = pipe_fill};
static const l_transport_kind writer_kind = {
    .class = AL_C_WriteTransport, .own_values = 1, .open = pipe_open, .fill = pipe_fill};

static void check_kind(lua_State *L, al_ctx *ctx, int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0) al_raise_os(L, ctx, -errno, NULL, NULL);
  mode_t kind = st.st_mode & S_IFMT;
  if (kind == S_IFIFO || kind == S_IFSOCK || kind == S_IFCHR) return;
  al_raise(L, ctx, AL_C_ValueError, "Pipe transport is only for pipes, sockets and character devices, got %s",
           luaL_tolstring(L, PIPE, NULL));
}

/* Finds out whose the descriptor of the value at PIPE will be. */
static void look_at(lua_State *L, al_ctx *ctx, l_loop *loop, l_given *given, pipe_how *how) {
  how->end = al_test(L, ctx, PIPE, AL_C_PipeEnd);
  *given = (l_given){.idx = PIPE, .socket = al_test(L, ctx, PIPE, AL_C_Socket)};
  given->fd = given->socket ? al_socket_fd(given->socket) : how->end ? end_fd(how->end) : al_check_fd(L, ctx, PIPE);
  if (given->fd < 0) al_raise_os(L, ctx, -EBADF, NULL, NULL);
  check_kind(L, ctx, given->fd);
  al_check_fd_free(L, ctx, loop->loop, given->fd);
  if (how->end && how->end->transport)
    al_raise(L, ctx, AL_C_RuntimeError, "%s is used by a transport", luaL_tolstring(L, PIPE, NULL));
  if (given->socket || how->end) return;
  const luaL_Stream *file = luaL_testudata(L, PIPE, LUA_FILEHANDLE);
  given->lends = file || (al_push_method(L, PIPE, "close") && !al_push_method(L, PIPE, "setfd"));
  lua_settop(L, STATE);
  if (!file) return;
  if (how->writes) fflush(file->f); /* what was written before goes before */
  push_closer(L, given->fd);
  given->idx = CLOSER;
}

static void pipe_dispose(l_op *op) { al_endpoint_dispose((l_endpoint *)(void *)op); }

static int connect_pipe(lua_State *L, const char *name, const l_transport_kind *kind) {
  al_ctx *ctx = al_ctx_of(L);
  pipe_how how = {.writes = kind == &writer_kind};
  l_given given;
  l_loop *loop = al_check_waiting_loop(L, ctx, name);
  al_check_callable(L, FACTORY);
  if (lua_type(L, PIPE) != LUA_TNUMBER && !al_may_be_socket(L, PIPE) && !luaL_testudata(L, PIPE, LUA_FILEHANDLE))
    return al_typeerror(L, PIPE, "pipe");
  lua_settop(L, PIPE);
  l_endpoint *e = al_endpoint_new(L, ctx, loop, sizeof *e, pipe_dispose);
  look_at(L, ctx, loop, &given, &how);
  return al_endpoint_make(L, ctx, e, FACTORY, kind, &how, &given);
}

static int loop_connect_read_pipe(lua_State *L) { return connect_pipe(L, "connect_read_pipe", &reader_kind); }
static int loop_connect_write_pipe(lua_State *L) { return connect_pipe(L, "connect_write_pipe", &writer_kind); }

static const luaL_Reg methods[] = {
    {"fileno", pipe_fileno}, {"read", pipe_read}, {"write", pipe_write},         {"close", pipe_close},
    {"__close", pipe_close}, {"__gc", pipe_gc},   {"__tostring", pipe_tostring}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"pipe", make_pipe}, {NULL, NULL}};
static const luaL_Reg closer_methods[] = {{"close", closer_close}, {"__gc", closer_gc}, {NULL, NULL}};
static const luaL_Reg loop_methods[] = {
    {"connect_read_pipe", loop_connect_read_pipe}, {"connect_write_pipe", loop_connect_write_pipe}, {NULL, NULL}};

void al_pipe_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_PipeEnd, methods);
  al_ctx_setfuncs(L, ctx, functions);
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  lua_newtable(L);
  luaL_setfuncs(L, closer_methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &closer_key);
}
