/* lsendfile.c - what loop:sendfile and sock_sendfile are made of, for lua/aloop/sendfile.lua, which puts it together:
 * the kernel's sendfile over a socket or a transport; and for what that can't send, reading a file in a thread, and the
 * hold on a transport. All functions here get the loop first, for they wait.
 *
 * A file is read at offsets, through a duplicate of its descriptor, so that a script may close it meanwhile. Its
 * position is set afterwards, also after an error or a cancellation.
 *
 * SPDX-License-Identifier: MIT */
#include "lsendfile.h"

#include "lfd.h"
#include "lresolve.h"
#include "lsockops.h"
#include "ltransport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOP = 1, TARGET, FILE_ARG, OFFSET, COUNT, STATE };

/* ---- positions --------------------------------------------------------------------------------------------------- */

/* The open Lua file at idx, or NULL. */
static luaL_Stream *lua_file(lua_State *L, int idx) {
  luaL_Stream *stream = luaL_testudata(L, idx, LUA_FILEHANDLE);
  return stream && stream->closef ? stream : NULL;
}

/* seek_file(file, position) → was it possible? A Lua file's buffer goes with it. */
static int seek_file(lua_State *L) {
  const luaL_Stream *stream = lua_file(L, 1);
  off_t position = (off_t)al_checkinteger(L, 2);
  int result = stream ? fseeko(stream->f, position, SEEK_SET)
                      : -(lseek(al_check_fd(L, al_ctx_of(L), 1), position, SEEK_SET) < 0);
  lua_pushboolean(L, result == 0);
  return 1;
}

/* ---- sendfile(2) ------------------------------------------------------------------------------------------------- */

typedef struct sending {
  l_op base;
  l_wait wait;
  al_sendfile *request;
  al_sendfile_what what;
  luaL_Stream *stream; /* the Lua file at FILE_ARG, or NULL: a descriptor, which stays the script's */
  int64_t sent;
  int error;
} sending;

static sending *of_wait(l_wait *wait) { return (sending *)(void *)((char *)wait - offsetof(sending, wait)); }

static void sending_dispose(l_op *op) {
  sending *s = (sending *)(void *)op;
  if (s->request) al_sendfile_cancel(s->request);
  s->request = NULL;
  if (s->what.file >= 0) close(s->what.file);
  s->what.file = -1;
}

/* It is over: the file's position tells how far it came. */
static void set_position(sending *s) {
  off_t position = (off_t)(s->what.offset + s->sent);
  if (s->sent > 0 && s->stream && s->stream->closef) fseeko(s->stream->f, position, SEEK_SET);
  if (s->sent > 0 && !s->stream) lseek(s->what.file, position, SEEK_SET);
  sending_dispose(&s->base);
}

static void sending_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  sending *s = of_wait(wait);
  if (s->request) s->sent = al_sendfile_cancel(s->request);
  s->request = NULL;
  set_position(s);
}

static void on_done(void *data, int error, int64_t sent) {
  sending *s = data;
  s->request = NULL;
  s->error = error;
  s->sent = sent;
  al_wake(&s->wait);
}

static int raise_failure(lua_State *L, al_ctx *ctx, int err) {
  if (err == -EBUSY) return al_raise(L, ctx, AL_C_RuntimeError, "unable to sendfile; sendfile is in progress");
  if (err == -EALREADY)
    return al_raise(L, ctx, AL_C_RuntimeError, "unable to sendfile after start_tls(); use the transport that it made");
  if (err == -ESHUTDOWN) return al_raise(L, ctx, AL_C_ConnectionError, "Connection is closed by peer");
  return al_raise_os(L, ctx, err, NULL, NULL);
}

/* Pushes how many bytes were sent, or nil: the kernel can't do it. */
static int push_sent(lua_State *L, al_ctx *ctx, sending *s) {
  set_position(s);
  if (s->error && s->error != -ENOTSUP) return raise_failure(L, ctx, s->error);
  if (s->error)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)s->sent);
  return 1;
}

static int sending_finish(lua_State *L, al_ctx *ctx, l_wait *wait) { return push_sent(L, ctx, of_wait(wait)); }

static const l_wait_kind sending_kind = {sending_finish, sending_abandon, "sendfile"};

static void take_file(lua_State *L, al_ctx *ctx, sending *s) {
  s->stream = lua_file(L, FILE_ARG);
  int fd = al_check_fd(L, ctx, FILE_ARG);
  if (s->stream) fflush(s->stream->f); /* what was written to it is part of it */
  s->what.file = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (s->what.file < 0) al_raise_os(L, ctx, -errno, NULL, NULL);
}

static al_transport *target_transport(lua_State *L) {
  const void *t = lua_touserdata(L, TARGET);
  return t && al_test(L, al_ctx_of(L), TARGET, AL_C_BaseTransport) ? al_check_transport(L, TARGET)->t : NULL;
}

/* sendfile(loop, transport or socket, file, offset, count or nil) → bytes sent, or nil */
static int send_file(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "sendfile");
  lua_settop(L, COUNT);
  al_transport *transport = target_transport(L);
  int fd = transport ? -1 : al_check_sock(L, ctx, loop, TARGET);
  sending *s = al_op_new(L, ctx, sizeof *s, sending_dispose);
  s->what = (al_sendfile_what){-1, luaL_checkinteger(L, OFFSET), luaL_optinteger(L, COUNT, -1)};
  take_file(L, ctx, s);
  s->error = transport ? al_transport_sendfile(transport, &s->what, s, on_done, &s->request, &s->sent)
                       : al_sendfile_start(loop->loop, fd, &s->what, s, on_done, &s->request, &s->sent);
  return s->request ? al_wait(L, ctx, &s->wait, &sending_kind) : push_sent(L, ctx, s);
}

/* ---- reading in a thread ----------------------------------------------------------------------------------------- */

#define READERS 4   /* threads: reads of local files are short, and those of pipes are rare */
#define LOOK_MS 100 /* how often a thread that waits for a pipe looks whether anybody still wants it */

typedef struct reading reading;
struct reading { /* the executor's from submit to done, then the waiting task's; who lets go last frees it */
  al_job job;
  al_loop *loop;
  al_ctx *ctx;
  l_wait *wait; /* NULL: nobody waits any more */
  FILE *stream;
  int fd, slot;  /* slot: the file, anchored */
  bool unwanted; /* atomic */
  size_t size;
  ssize_t got;
  char data[];
};

typedef struct read_wait { /* the state of read_file */
  l_op base;
  l_wait wait;
  reading *job;
} read_wait;

static bool is_unwanted(reading *r) { return __atomic_load_n(&r->unwanted, __ATOMIC_RELAXED); }

static bool wait_readable(reading *r, int fd) {
  struct pollfd watched = {.fd = fd, .events = POLLIN};
  while (!is_unwanted(r)) {
    int n = poll(&watched, 1, LOOK_MS);
    if (n > 0 || (n < 0 && errno != EINTR)) return true;
  }
  return false;
}

static ssize_t read_stream(reading *r) {
  for (;;) {
    size_t n = fread(r->data, 1, r->size, r->stream);
    if (n > 0 || feof(r->stream)) return (ssize_t)n;
    int err = errno;
    clearerr(r->stream);
    if (err != EAGAIN && err != EINTR) return -err;
    if (!wait_readable(r, fileno(r->stream))) return -ECANCELED;
  }
}

static ssize_t read_descriptor(reading *r) {
  for (;;) {
    if (!wait_readable(r, r->fd)) return -ECANCELED;
    ssize_t n = read(r->fd, r->data, r->size);
    if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return n < 0 ? -errno : n;
  }
}

static void read_work(al_job *job) {
  reading *r = (reading *)(void *)job;
  r->got = r->stream ? read_stream(r) : read_descriptor(r);
}

static void read_free(reading *r) {
  if (r->fd >= 0) close(r->fd);
  free(r);
}

/* In the loop's thread, unless the loop is closed: nobody waits then, and Lua isn't ours. */
static void read_done(al_job *job, int error) {
  reading *r = (reading *)(void *)job;
  if (error) r->got = error;
  if (!al_loop_is_closed(r->loop)) al_unanchor(r->ctx, r->slot);
  r->slot = 0;
  if (r->wait)
    al_wake(r->wait);
  else
    read_free(r);
}

static void read_let_go(read_wait *w) {
  reading *r = w->job;
  w->job = NULL;
  if (!r) return;
  if (!r->slot) {
    read_free(r);
    return;
  }
  r->wait = NULL;
  __atomic_store_n(&r->unwanted, true, __ATOMIC_RELAXED);
}

static void read_dispose(l_op *op) { read_let_go((read_wait *)(void *)op); }

static read_wait *of_read_wait(l_wait *wait) { return (read_wait *)(void *)((char *)wait - offsetof(read_wait, wait)); }

static void read_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  read_let_go(of_read_wait(wait));
}

static int read_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  read_wait *w = of_read_wait(wait);
  ssize_t got = w->job->got;
  if (got < 0) return al_raise_os(L, ctx, (int)got, NULL, NULL);
  if (got > 0)
    lua_pushlstring(L, w->job->data, (size_t)got);
  else
    lua_pushnil(L);
  read_let_go(w);
  return 1;
}

static const l_wait_kind read_kind = {read_finish, read_abandon, "reading a file"};

static const char pool_key; /* in the registry: a userdata with the executor of the state */

static int pool_gc(lua_State *L) {
  al_executor **pool = lua_touserdata(L, 1);
  if (*pool) al_executor_shutdown(*pool, false);
  *pool = NULL;
  return 0;
}

static al_executor *get_pool(lua_State *L, al_ctx *ctx) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
  al_executor **pool = lua_touserdata(L, -1);
  int err = *pool ? 0 : al_executor_new(READERS, "aloop-read", pool);
  if (err) al_raise_os(L, ctx, err, NULL, NULL);
  lua_pop(L, 1);
  return *pool;
}

/* Fills w->job for the file at 2. */
static void make_reading(lua_State *L, al_ctx *ctx, read_wait *w, l_loop *loop, size_t size) {
  int fd = al_check_fd(L, ctx, 2);
  const luaL_Stream *stream = lua_file(L, 2);
  reading *r = calloc(1, sizeof *r + size);
  w->job = r;
  if (!r) al_raise_os(L, ctx, -ENOMEM, NULL, NULL);
  *r = (reading){.loop = loop->loop, .ctx = ctx, .size = size, .fd = -1, .wait = &w->wait};
  r->job.work = read_work;
  r->job.done = read_done;
  r->stream = stream ? stream->f : NULL;
  r->fd = stream ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (!stream && r->fd < 0) al_raise_os(L, ctx, -errno, NULL, NULL);
}

/* read_file(loop, file, n) → up to n bytes, or nil at the end */
static int read_file(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "sendfile");
  lua_Integer size = luaL_checkinteger(L, 3);
  luaL_argcheck(L, size > 0, 3, "nothing to read");
  lua_settop(L, 3);
  al_executor *pool = get_pool(L, ctx);
  read_wait *w = al_op_new(L, ctx, sizeof *w, read_dispose);
  make_reading(L, ctx, w, loop, (size_t)size);
  w->job->slot = al_anchor(L, ctx, 2);
  int err = al_executor_submit(pool, loop->loop, &w->job->job);
  if (err) {
    al_unanchor(ctx, w->job->slot);
    w->job->slot = 0;
    return al_raise_os(L, ctx, err, NULL, NULL);
  }
  return al_wait(L, ctx, &w->wait, &read_kind);
}

/* ---- the hold on a transport ------------------------------------------------------------------------------------- */

typedef struct feeding {
  l_op base; /* closed, it ends the hold */
  l_wait wait;
  al_sendfile *feed;
  int error;
} feeding;

static void feeding_dispose(l_op *op) {
  feeding *f = (feeding *)(void *)op;
  if (f->feed) al_feed_free(f->feed);
  f->feed = NULL;
}

/* hold_transport(transport) → a hold, to be closed */
static int hold_transport(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_transport *t = al_check_transport(L, 1)->t;
  feeding *f = al_op_new(L, ctx, sizeof *f, feeding_dispose);
  int err = al_feed_new(t, &f->feed);
  return err ? raise_failure(L, ctx, err) : 1;
}

static feeding *of_feed_wait(l_wait *wait) { return (feeding *)(void *)((char *)wait - offsetof(feeding, wait)); }

static void on_flushed(void *data, int error, int64_t sent) {
  feeding *f = data;
  (void)sent;
  f->error = error;
  al_wake(&f->wait);
}

/* The hold is closed in the course of the unwinding. */
static void feed_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  feeding_dispose(&of_feed_wait(wait)->base);
}

static int feed_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  int err = of_feed_wait(wait)->error;
  return err ? raise_failure(L, ctx, err) : 0;
}

static const l_wait_kind feed_kind = {feed_finish, feed_abandon, "sendfile"};

/* send_held(loop, hold, data): waits until it is sent */
static int send_held(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  size_t len;
  al_check_waiting_loop(L, ctx, "sendfile");
  l_op *op = lua_touserdata(L, 2);
  luaL_argexpected(L, op && lua_rawlen(L, 2) == sizeof(feeding) && op->dispose == feeding_dispose, 2, "hold");
  const char *data = luaL_checklstring(L, 3, &len);
  feeding *f = (feeding *)(void *)op;
  int result = f->feed ? al_feed_write(f->feed, data, len) : -ESHUTDOWN;
  if (!result) result = al_feed_wait(f->feed, f, on_flushed);
  if (result < 0) return raise_failure(L, ctx, result);
  if (result > 0) return 0;
  return al_wait(L, ctx, &f->wait, &feed_kind);
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

/* sock_type(loop, sock) → SOCK_STREAM, ...; raises for a socket that can't be waited for */
static int sock_type(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  int type = 0;
  socklen_t len = sizeof type;
  int fd = al_check_sock(L, ctx, al_check_open(L, ctx, 1), 2);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) return al_raise_os(L, ctx, -errno, NULL, NULL);
  lua_pushinteger(L, type);
  return 1;
}

static const luaL_Reg functions[] = {{"sendfile", send_file},
                                     {"seek_file", seek_file},
                                     {"read_file", read_file},
                                     {"hold_transport", hold_transport},
                                     {"send_held", send_held},
                                     {"sock_type", sock_type},
                                     {NULL, NULL}};

void al_sendfile_openlib(lua_State *L, al_ctx *ctx) {
  al_ctx_setfuncs(L, ctx, functions);
  al_executor **pool = lua_newuserdatauv(L, sizeof *pool, 0);
  *pool = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, pool_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
}
