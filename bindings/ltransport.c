/* ltransport.c - transports as scripts see them. A userdata is a box around the core's transport and stays a valid
 * object after that is closed.
 *
 * While an operation is in flight the box is anchored, so that it needs no other owner; while nothing is (reading is
 * paused, nothing is unsent) only the script keeps it, and a forgotten one is collected, told of and closed. The
 * anchor's slot is its own all the time, and a weak table knows the idle ones, so that becoming busy takes no memory.
 *
 * SPDX-License-Identifier: MIT */
#include "ltransport.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lcontext.h"
#include "lloop.h"
#include "lrepr.h"
#include "lsocket.h"
#include "ltls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- what keeps a box alive -------------------------------------------------------------------------------------- */

static const char idle_key; /* weak table in the registry: light userdata of a box → the box */

typedef struct idleness {
  l_transport *t;
} idleness;

/* idleness, box */
static int note_idle_body(lua_State *L) {
  const idleness *i = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &idle_key);
  lua_pushvalue(L, 2);
  lua_rawsetp(L, -2, i->t);
  return 0;
}

/* Nothing is in flight: it is let go of, unless there is no memory to find it again by. */
static void become_idle(l_transport *t) {
  lua_State *L = al_enter(t->ctx);
  if (!L) return;
  idleness i = {t};
  lua_pushcfunction(L, note_idle_body);
  lua_pushlightuserdata(L, &i);
  lua_rawgeti(L, 1, t->slot);
  if (al_pcall(L, 2, 0) == LUA_OK) {
    lua_pushboolean(L, false);
    lua_rawseti(L, 1, t->slot);
  }
  al_leave(t->ctx, L);
}

/* The slot exists, so nothing here can fail. */
static void become_busy(l_transport *t) {
  lua_State *L = t->ctx->threads[t->ctx->depth]; /* idle, at base level */
  if (lua_rawgeti(L, 1, t->slot) != LUA_TUSERDATA) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &idle_key);
    if (lua_rawgetp(L, -1, t) == LUA_TUSERDATA) { /* else it is being collected */
      lua_pushvalue(L, -1);
      lua_rawseti(L, 1, t->slot);
    }
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
}

static void on_activity(al_transport *transport, void *data, bool busy) {
  (void)transport;
  if (busy)
    become_busy(data);
  else
    become_idle(data);
}

/* Calls the close method of an object that stood for the descriptor in the script's eyes. */
static int close_adopted_body(lua_State *L) { /* extra information */
  if (lua_getfield(L, 1, "adopted") == LUA_TNIL) return 0;
  lua_getfield(L, -1, "close");
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  return 0;
}

/* Lets go of what a closed transport needs no more; the box is at 3. */
static void forget_protocol(lua_State *L, l_transport *t) {
  lua_pushcfunction(L, close_adopted_body);
  if (lua_getiuservalue(L, 3, AL_TRANSPORT_UV_EXTRA) == LUA_TTABLE && al_pcall(L, 1, 0) != LUA_OK) lua_pop(L, 1);
  lua_pushnil(L);
  lua_setiuservalue(L, 3, AL_TRANSPORT_UV_PROTOCOL);
  if (!t->failed) {
    lua_pushnil(L);
    lua_setiuservalue(L, 3, AL_TRANSPORT_UV_HELD);
  }
  if (t->context_kind == AL_CONTEXT_EMPTY) return;
  t->context_kind = AL_CONTEXT_EMPTY;
  lua_pushnil(L);
  lua_setiuservalue(L, 3, AL_TRANSPORT_UV_CONTEXT);
}

static void on_closed(al_transport *transport, void *data) {
  l_transport *t = data;
  al_ctx *ctx = t->ctx;
  (void)transport;
  t->closed = true;
  lua_State *L = al_enter(ctx);
  if (L && lua_rawgeti(L, 1, t->slot) == LUA_TUSERDATA) forget_protocol(L, t);
  if (L) al_leave(ctx, L);
  al_unanchor(ctx, t->slot);
  t->slot = 0;
}

static const al_transport_owner owner = {.activity = on_activity, .closed = on_closed};

static const char *describe(const char *class, al_transport *transport, int fd, char *buf, size_t size) {
  if (al_transport_fd(transport) < 0) {
    snprintf(buf, size, "<%s closed fd=%d>", class, fd);
    return buf;
  }
  size_t unsent = al_transport_write_buffer_size(transport);
  snprintf(buf, size, "<%s%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", class,
           al_transport_is_tls(transport) ? " TLS" : "", al_transport_is_closing(transport) ? " closing" : "", fd,
           al_transport_is_reading(transport) ? "polling" : "idle", unsent ? "polling" : "idle", unsent);
  return buf;
}

const char *al_transport_describe(al_transport *transport, int fd, char *buf, size_t size) {
  return describe("Transport", transport, fd, buf, size);
}

static const char *describe_box(const l_transport *t, char *buf, size_t size) {
  const char *class = t->class == AL_C_DatagramTransport ? "DatagramTransport" : "Transport";
  return describe(class, t->t, t->fd, buf, size);
}

static int transport_gc(lua_State *L) {
  l_transport *t = al_test(L, al_ctx_of(L), 1, AL_C_BaseTransport);
  char text[AL_TRANSPORT_STRLEN];
  if (!t || !t->t) return 0;
  if (!t->closed) {
    if (!al_transport_is_closing(t->t)) al_warn_unclosed(L, t->ctx, 1, "transport", describe_box(t, text, sizeof text));
    if (al_transport_is_tls(t->t)) al_tls_forget(t->t);
    al_transport_set_owner(t->t, NULL, NULL);
    al_transport_set_protocol(t->t, NULL);
    al_transport_abort(t->t);
    al_unanchor(t->ctx, t->slot);
    t->slot = 0;
    t->closed = true;
  }
  al_transport_release(t->t);
  t->t = NULL;
  t->self = NULL;
  return 0;
}

const char al_transport_tag = 0;

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Makes the protocol at idx that of the box at box; returns what the core is to call. */
static al_protocol *take_protocol(lua_State *L, l_transport *t, int box, int idx, int last) {
  al_protocol *protocol = al_protocol_classify(L, t->ctx, idx, last);
  const l_methods *methods = lua_touserdata(L, -1);
  if (!protocol) {
    lua_getiuservalue(L, -1, AL_M_data_received);
    lua_setiuservalue(L, box, AL_TRANSPORT_UV_DATA);
  }
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_METHODS);
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_PROTOCOL);
  if (protocol) return protocol;
  t->protocol.ops = &methods->ops;
  return &t->protocol;
}

static void take_context(lua_State *L, l_transport *t, int box) {
  if (t->ctx->context_kind == AL_CONTEXT_EMPTY) return;
  t->context_kind = (uint8_t)al_context_capture(L, t->ctx);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_CONTEXT);
}

static int stream_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                       al_transport **made) {
  return al_stream_new(loop, fd, how, protocol, started, made);
}

const l_transport_kind al_stream_kind = {.class = AL_C_Transport, .open = stream_open};

l_transport *al_transport_try_kind(lua_State *L, al_ctx *ctx, const l_transport_kind *kind, const void *how,
                                   l_loop *loop, int *fd, int protocol, int last, al_handle *started, int keep,
                                   int *err) {
  protocol = lua_absindex(L, protocol);
  l_transport *t = al_new(L, ctx, kind->class, sizeof *t, AL_TRANSPORT_UV_COUNT + kind->own_values);
  int box = lua_gettop(L);
  t->ctx = ctx;
  t->tag = &al_transport_tag;
  t->self = t;
  t->fd = *fd;
  t->class = (uint8_t)kind->class;
  if (kind->fill) kind->fill(L, box, *fd);
  al_protocol *p = take_protocol(L, t, box, protocol, last);
  take_context(L, t, box);
  if (al_loop_debug(loop->loop)) al_remember_place(L, ctx, box);
  if (keep) al_transport_keep(L, box, keep);
  t->slot = al_anchor(L, ctx, box);
  *err = kind->open(how, loop->loop, *fd, p, started, &t->t);
  if (*err) {
    al_unanchor(ctx, t->slot);
    t->slot = 0;
    return t;
  }
  *fd = -1;
  al_transport_set_owner(t->t, &owner, t);
  return t;
}

l_transport *al_transport_make_kind(lua_State *L, al_ctx *ctx, const l_transport_kind *kind, const void *how,
                                    l_loop *loop, int *fd, int protocol, int last, al_handle *started, int keep) {
  int err;
  l_transport *t = al_transport_try_kind(L, ctx, kind, how, loop, fd, protocol, last, started, keep, &err);
  if (err) al_raise_os(L, ctx, err, NULL, NULL);
  return t;
}

l_transport *al_transport_make(lua_State *L, al_ctx *ctx, l_loop *loop, int *fd, const al_addr *peer, int protocol,
                               int last, al_handle *started, int keep) {
  return al_transport_make_kind(L, ctx, &al_stream_kind, peer, loop, fd, protocol, last, started, keep);
}

/* Pushes the table of extra information, made at need. */
static void push_extra(lua_State *L, int box) {
  box = lua_absindex(L, box);
  if (lua_getiuservalue(L, box, AL_TRANSPORT_UV_EXTRA) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_EXTRA);
}

static void set_extra(lua_State *L, int transport, const char *name, int idx) {
  idx = lua_absindex(L, idx);
  push_extra(L, transport);
  lua_pushvalue(L, idx);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

void al_transport_adopt(lua_State *L, int transport, int idx) { set_extra(L, transport, "adopted", idx); }
void al_transport_keep(lua_State *L, int transport, int idx) { set_extra(L, transport, "kept", idx); }

/* ---- as text ----------------------------------------------------------------------------------------------------- */

typedef struct place {
  al_ctx *ctx;
  char text[128];
} place;

static int place_body(lua_State *L) { /* place, box */
  place *p = lua_touserdata(L, 1);
  al_push_place(L, p->ctx, 2);
  const char *text = lua_tostring(L, -1);
  if (text && *text) snprintf(p->text, sizeof p->text, ", created at %.*s", (int)strcspn(text, "\n"), text);
  return 0;
}

void al_warn_unclosed(lua_State *L, al_ctx *ctx, int idx, const char *what, const char *text) {
  place p = {ctx, ""};
  lua_pushvalue(L, idx);
  lua_pushcfunction(L, place_body);
  lua_pushlightuserdata(L, &p);
  lua_rotate(L, -3, -1);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1);
  al_warn(ctx, "ResourceWarning", "unclosed %s %s%s", what, text, p.text);
}

void al_check_fd_free(lua_State *L, al_ctx *ctx, al_loop *loop, int fd) {
  al_transport *transport = al_fd_transport(loop, fd);
  char text[AL_TRANSPORT_STRLEN];
  if (al_fd_has_server(loop, fd)) al_raise(L, ctx, AL_C_RuntimeError, "File descriptor %d is used by a server", fd);
  if (!transport) return;
  al_raise(L, ctx, AL_C_RuntimeError, "File descriptor %d is used by transport %s", fd,
           al_transport_describe(transport, fd, text, sizeof text));
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

/* A transport that a script made of one of the classes has only the methods that it brings. */
void al_transport_refuse(lua_State *L, int arg) {
  al_ctx *ctx = al_ctx_of(L);
  if (arg != 1 || !lua_istable(L, 1) || !al_isinstance(L, ctx, 1, AL_C_BaseTransport))
    al_typeerror(L, arg, "Transport");
  luaL_getmetafield(L, 1, "__name");
  al_raise(L, ctx, AL_C_NotImplementedError, "%s has no such method of its own", lua_tostring(L, -1));
}

static al_transport *self(lua_State *L) { return al_check_transport(L, 1)->t; }

static int transport_close(lua_State *L) {
  al_transport_close(self(L));
  return 0;
}

static int left(lua_State *L, int status, lua_KContext extra) {
  (void)L, (void)status, (void)extra;
  return 0;
}

/* __close: a script's own transport has a close of its own. */
static int transport_leave(lua_State *L) {
  if (!lua_istable(L, 1)) return transport_close(L);
  lua_getfield(L, 1, "close");
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 0, 0, left);
  return left(L, LUA_OK, 0);
}

static int transport_abort(lua_State *L) {
  al_transport_abort(self(L));
  return 0;
}

static int transport_is_closing(lua_State *L) {
  lua_pushboolean(L, al_transport_is_closing(self(L)));
  return 1;
}

static int transport_get_protocol(lua_State *L) {
  self(L);
  lua_getiuservalue(L, 1, AL_TRANSPORT_UV_PROTOCOL);
  return 1;
}

static int transport_set_protocol(lua_State *L) {
  l_transport *t = al_check_transport(L, 1);
  lua_settop(L, 2);
  if (!lua_istable(L, 2) && lua_type(L, 2) != LUA_TUSERDATA) return al_typeerror(L, 2, "protocol");
  lua_getiuservalue(L, 1, AL_TRANSPORT_UV_METHODS);
  al_protocol *protocol = take_protocol(L, t, 1, 2, 3);
  al_transport_set_protocol(t->t, protocol);
  return 0;
}

static int transport_is_reading(lua_State *L) {
  lua_pushboolean(L, al_transport_is_reading(self(L)));
  return 1;
}

static int check_result(lua_State *L, int err) { return err ? al_raise_os(L, al_ctx_of(L), err, NULL, NULL) : 0; }

static int transport_pause_reading(lua_State *L) { return check_result(L, al_transport_pause_reading(self(L))); }
static int transport_resume_reading(lua_State *L) { return check_result(L, al_transport_resume_reading(self(L))); }

/* What the core can't send at once of a large string it keeps by reference: the string is anchored until it is sent. */
typedef struct hold {
  al_ctx *ctx;
  int slot;
} hold;

static int hold_body(lua_State *L) { /* ctx, string → hold */
  al_ctx *ctx = lua_touserdata(L, 1);
  hold *h = lua_newuserdatauv(L, sizeof *h, 1);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1);
  h->ctx = ctx;
  h->slot = al_anchor(L, ctx, -1);
  return 1;
}

typedef struct written {
  lua_State *L;
  al_ctx *ctx;
  int idx;
} written;

static void *keep_string(void *ud, const char *data, size_t len) {
  const written *w = ud;
  (void)data, (void)len;
  lua_State *L = al_enter(w->ctx);
  if (!L) return NULL;
  lua_pushcfunction(L, hold_body);
  lua_pushlightuserdata(L, w->ctx);
  lua_pushvalue(w->L, w->idx);
  lua_xmove(w->L, L, 1);
  hold *h = al_pcall(L, 2, 1) == LUA_OK ? lua_touserdata(L, -1) : NULL;
  al_leave(w->ctx, L);
  return h;
}

static void let_go(void *token) {
  hold *h = token;
  al_unanchor(h->ctx, h->slot);
}

static const al_keeper string_keeper = {keep_string, let_go};

static int raise_write_error(lua_State *L, int err, const char *f) {
  al_ctx *ctx = al_ctx_of(L);
  if (err == -EPIPE) return al_raise(L, ctx, AL_C_RuntimeError, "Cannot call %s() after write_eof()", f);
  if (err == -EBUSY) return al_raise(L, ctx, AL_C_RuntimeError, "unable to %s; sendfile is in progress", f);
  if (err == -EALREADY)
    return al_raise(L, ctx, AL_C_RuntimeError, "Cannot call %s() after start_tls(); use the transport that it made", f);
  if (err == -ENOTSUP) return al_raise(L, ctx, AL_C_NotImplementedError, "this transport has no %s()", f);
  return al_raise_os(L, ctx, err, NULL, NULL);
}

int al_transport_write_data(lua_State *L) {
  l_transport *t = al_check_transport(L, 1);
  size_t len;
  bool is_string = lua_type(L, 2) == LUA_TSTRING;
  const char *data = is_string ? lua_tolstring(L, 2, &len) : al_check_bytes(L, t->ctx, 2, &len);
  if (lua_gettop(L) > 2) al_opt_range(L, 3, &data, &len);
  written w = {L, t->ctx, 2};
  int err = al_transport_write(t->t, data, len, is_string ? &string_keeper : NULL, &w);
  return err ? raise_write_error(L, err, "write") : 0;
}

static void refuse_item(lua_State *L, lua_Integer i) {
  const char *got = luaL_typename(L, -1);
  al_where(L);
  lua_pushfstring(L, "%sbad item #%I in the list for 'writelines' (string or buffer expected, got %s)",
                  lua_tostring(L, -1), i, got);
  lua_error(L);
}

/* Pushes all of the list at 2 as one string; small lists of small strings are what this is used for, and one send(2) is
 * worth more than the copy. */
static void join_list(lua_State *L, al_ctx *ctx, lua_Integer n) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; i <= n; i++) {
    size_t len;
    lua_geti(L, 2, i);
    const char *data = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    l_buffer *buffer = data ? NULL : al_test_buffer(L, ctx, -1);
    if (buffer) {
      data = buffer->data;
      len = buffer->size;
    }
    if (!data) refuse_item(L, i);
    lua_pushlstring(L, data, len);
    lua_remove(L, -2);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
}

static int transport_writelines(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_transport *t = al_check_transport(L, 1);
  if (!lua_istable(L, 2)) al_typeerror(L, 2, "table");
  lua_settop(L, 2);
  join_list(L, ctx, luaL_len(L, 2));
  size_t len;
  const char *data = lua_tolstring(L, 3, &len);
  written w = {L, ctx, 3};
  int err = al_transport_write(t->t, data, len, &string_keeper, &w);
  return err ? raise_write_error(L, err, "writelines") : 0;
}

static int transport_can_write_eof(lua_State *L) {
  lua_pushboolean(L, al_transport_can_write_eof(self(L)));
  return 1;
}

static int transport_write_eof(lua_State *L) {
  int err = al_transport_write_eof(self(L));
  return err ? raise_write_error(L, err, "write_eof") : 0;
}

static int transport_get_write_buffer_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)al_transport_write_buffer_size(self(L)));
  return 1;
}

static int transport_get_write_buffer_limits(lua_State *L) {
  size_t low, high;
  al_transport_get_limits(self(L), &low, &high);
  lua_pushinteger(L, (lua_Integer)low);
  lua_pushinteger(L, (lua_Integer)high);
  return 2;
}

/* A mark of the options at 2: SIZE_MAX if it isn't given. */
static size_t mark(lua_State *L, const char *name) {
  static const char *const f = "set_write_buffer_limits";
  size_t value = SIZE_MAX;
  if (al_option(L, 2, name) != LUA_TNIL) {
    lua_Integer n;
    if (!al_isinteger(L, -1, &n)) al_option_error(L, f, name, "integer", -1);
    if (n < 0) al_raise(L, al_ctx_of(L), AL_C_ValueError, "%s (%I) must not be negative", name, n);
    value = (size_t)n;
  }
  lua_pop(L, 1);
  return value;
}

static int transport_set_write_buffer_limits(lua_State *L) {
  static const char *const names[] = {"high", "low", NULL};
  al_transport *t = self(L);
  al_options(L, 2, "set_write_buffer_limits", names);
  size_t high = mark(L, "high"), low = mark(L, "low");
  if (al_transport_set_limits(t, high, low) < 0)
    return al_raise(L, al_ctx_of(L), AL_C_ValueError, "high (%I) must be >= low (%I) must be >= 0", (lua_Integer)high,
                    (lua_Integer)low);
  return 0;
}

/* Pushes the name of one end; nothing if it is not known. */
static bool push_name(lua_State *L, al_transport *t, int (*get)(al_transport *transport, al_addr *addr)) {
  al_addr addr;
  if (get(t, &addr) < 0) return false;
  al_pushaddr(L, &addr);
  return true;
}

/* The TransportSocket is made once, so that it is always the same. */
static void push_socket(lua_State *L, al_ctx *ctx, l_transport *t) {
  push_extra(L, 1);
  if (lua_getfield(L, -1, "socket") != LUA_TNIL) return;
  lua_pop(L, 1);
  al_push_transport_socket(L, ctx, t->t);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "socket");
}

static bool push_info(lua_State *L, al_ctx *ctx, l_transport *t, const char *name) {
  if (t->class == AL_C_ReadTransport || t->class == AL_C_WriteTransport) { /* of a pipe */
    if (strcmp(name, "pipe") != 0) return false;
    lua_getiuservalue(L, 1, AL_TRANSPORT_UV_OWN);
    return true;
  }
  if (strcmp(name, "peername") == 0) return push_name(L, t->t, al_transport_peername);
  if (strcmp(name, "sockname") == 0) return push_name(L, t->t, al_transport_sockname);
  if (strcmp(name, "socket") == 0) {
    push_socket(L, ctx, t);
    return true;
  }
  return al_transport_is_tls(t->t) && al_tls_push_info(L, ctx, name);
}

/* get_extra_info(name, [default]) */
static int transport_get_extra_info(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_transport *t = al_check_transport(L, 1);
  if (lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
  const char *name = lua_tostring(L, 2);
  lua_settop(L, 3);
  if (!push_info(L, ctx, t, name)) lua_settop(L, 3);
  return 1;
}

/* <ReadTransport fd=5 polling>, <WriteTransport fd=6 idle, bufsize=0> */
static void push_pipe_text(lua_State *L, const l_transport *t) {
  bool reads = t->class == AL_C_ReadTransport;
  const char *class = reads ? "ReadTransport" : "WriteTransport";
  if (al_transport_fd(t->t) < 0) {
    lua_pushfstring(L, "<%s closed fd=%d>", class, t->fd);
    return;
  }
  lua_Integer unsent = (lua_Integer)al_transport_write_buffer_size(t->t);
  const char *closing = al_transport_is_closing(t->t) ? " closing" : "";
  const char *state = (reads ? al_transport_is_reading(t->t) : unsent > 0) ? "polling" : "idle";
  if (reads)
    lua_pushfstring(L, "<%s%s fd=%d %s>", class, closing, t->fd, state);
  else
    lua_pushfstring(L, "<%s%s fd=%d %s, bufsize=%I>", class, closing, t->fd, state, (LUAI_UACINT)unsent);
}

static int transport_tostring(lua_State *L) {
  if (lua_istable(L, 1) && luaL_getmetafield(L, 1, "__name") == LUA_TSTRING) { /* a script's */
    lua_pushfstring(L, "%s: %p", lua_tostring(L, -1), lua_topointer(L, 1));
    return 1;
  }
  l_transport *t = al_check_transport(L, 1);
  char text[AL_TRANSPORT_STRLEN];
  if (t->class == AL_C_ReadTransport || t->class == AL_C_WriteTransport) {
    push_pipe_text(L, t);
    return 1;
  }
  lua_pushstring(L, describe_box(t, text, sizeof text));
  return 1;
}

/* Each class of transports has the methods that Python's has; Transport has them all. */
static const luaL_Reg base_methods[] = {{"close", transport_close},
                                        {"is_closing", transport_is_closing},
                                        {"get_extra_info", transport_get_extra_info},
                                        {"set_protocol", transport_set_protocol},
                                        {"get_protocol", transport_get_protocol},
                                        {"__close", transport_leave},
                                        {"__gc", transport_gc},
                                        {"__tostring", transport_tostring},
                                        {NULL, NULL}};
static const luaL_Reg read_methods[] = {{"is_reading", transport_is_reading},
                                        {"pause_reading", transport_pause_reading},
                                        {"resume_reading", transport_resume_reading},
                                        {NULL, NULL}};
static const luaL_Reg write_methods[] = {{"write", al_transport_write_data},
                                         {"writelines", transport_writelines},
                                         {"can_write_eof", transport_can_write_eof},
                                         {"write_eof", transport_write_eof},
                                         {NULL, NULL}};
static const luaL_Reg flow_methods[] = {{"abort", transport_abort},
                                        {"get_write_buffer_size", transport_get_write_buffer_size},
                                        {"get_write_buffer_limits", transport_get_write_buffer_limits},
                                        {"set_write_buffer_limits", transport_set_write_buffer_limits},
                                        {NULL, NULL}};

void al_transport_write_side(lua_State *L, al_ctx *ctx, al_class class) {
  al_class_methods(L, ctx, class, flow_methods);
}

void al_transport_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseTransport, base_methods);
  al_class_methods(L, ctx, AL_C_ReadTransport, read_methods);
  al_class_methods(L, ctx, AL_C_WriteTransport, write_methods);
  al_transport_write_side(L, ctx, AL_C_WriteTransport);
  al_pushweak(L, "v");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &idle_key);
}
