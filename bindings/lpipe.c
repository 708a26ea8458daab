/* lpipe.c - aloop.pipe(): the two ends of a pipe as objects, both non-blocking. Knows no loop.
 *
 * SPDX-License-Identifier: MIT */
#include "lpipe.h"

#include "lbuffer.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

typedef struct pipe_end {
  int fd; /* -1: closed */
  bool writes;
} pipe_end;

static pipe_end *check_self(lua_State *L) { return al_check(L, al_ctx_of(L), 1, AL_C_PipeEnd); }

static int check_open(lua_State *L) {
  pipe_end *p = check_self(L);
  if (p->fd < 0) al_raise(L, al_ctx_of(L), AL_C_ValueError, "I/O operation on closed pipe");
  return p->fd;
}

static int raise_errno(lua_State *L) { return al_raise_os(L, al_ctx_of(L), -errno, NULL, NULL); }

static int pipe_fileno(lua_State *L) {
  lua_pushinteger(L, check_self(L)->fd);
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
  if (p) close_end(p);
  return 0;
}

static int pipe_tostring(lua_State *L) {
  pipe_end *p = check_self(L);
  lua_pushfstring(L, "<PipeEnd %s fd=%d>", p->fd < 0 ? "closed" : p->writes ? "write" : "read", p->fd);
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

static const luaL_Reg methods[] = {
    {"fileno", pipe_fileno}, {"read", pipe_read}, {"write", pipe_write},         {"close", pipe_close},
    {"__close", pipe_close}, {"__gc", pipe_gc},   {"__tostring", pipe_tostring}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"pipe", make_pipe}, {NULL, NULL}};

void al_pipe_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_PipeEnd, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
