/* ltls.c - TLS transports: from options to one over a socket, or over another transport (loop:start_tls). What they
 * tell of themselves is the SSLObject's matter (lsslobject.c), why they failed lsslerror.c's.
 *
 * SPDX-License-Identifier: MIT */
#include "ltls.h"

#include "lssl.h"
#include "lstream.h"

#include <errno.h>
#include <string.h>

/* ---- options ----------------------------------------------------------------------------------------------------- */

static const char *const only_with_ssl[] = {"ssl_handshake_timeout", "ssl_shutdown_timeout", NULL};
static const char *const only_of_clients[] = {"server_hostname", "session", NULL};

static void refuse_without_ssl(lua_State *L, al_ctx *ctx, int arg, const char *const *names) {
  for (; *names; names++)
    if (al_option_given(L, arg, *names)) al_raise(L, ctx, AL_C_ValueError, "%s is only meaningful with ssl", *names);
}

#define LONGEST_S 1e9 /* is never */

static int64_t timeout_option(lua_State *L, al_ctx *ctx, int arg, const char *f, const char *name) {
  int type = al_option(L, arg, name);
  if (type != LUA_TNIL && type != LUA_TNUMBER) al_option_error(L, f, name, "number", -1);
  lua_Number seconds = lua_tonumber(L, -1);
  if (type == LUA_TNUMBER && !(seconds > 0))
    al_raise(L, ctx, AL_C_ValueError, "%s should be a positive number, got %s", name, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  if (type == LUA_TNIL) return 0;
  int64_t ns = (int64_t)((seconds < LONGEST_S ? seconds : LONGEST_S) * 1e9);
  return ns > 0 ? ns : 1;
}

static void read_timeouts(lua_State *L, al_ctx *ctx, int arg, const char *f, l_tls *tls) {
  tls->handshake_timeout_ns = timeout_option(L, ctx, arg, f, only_with_ssl[0]);
  tls->shutdown_timeout_ns = timeout_option(L, ctx, arg, f, only_with_ssl[1]);
}

/* idx 0: no. */
static bool has_text(lua_State *L, int idx) { return idx && lua_type(L, idx) == LUA_TSTRING && lua_rawlen(L, idx) > 0; }

/* The name at idx goes into the handshake and is compared with certificates: all of it, as it is. */
static void check_name(lua_State *L, al_ctx *ctx, int idx) {
  size_t len;
  const char *name = lua_tolstring(L, idx, &len);
  if (strlen(name) != len) al_raise(L, ctx, AL_C_ValueError, "server_hostname must not contain a zero byte");
  if (*name == '.') al_raise(L, ctx, AL_C_ValueError, "server_hostname cannot start with a leading dot.");
  if (len > TLSEXT_MAXLEN_host_name) al_raise(L, ctx, AL_C_ValueError, "server_hostname is too long");
  for (; *name; name++)
    if ((unsigned char)*name >= 0x80)
      al_raise(L, ctx, AL_C_ValueError, "server_hostname must be in ASCII ('xn--...' for other letters)");
}

/* Pushes server_hostname, or the host, or nil. An empty one, as Python says, has no name checked. */
static void push_hostname(lua_State *L, al_ctx *ctx, int arg, const char *f, int host, l_tls *tls) {
  int type = al_option(L, arg, "server_hostname");
  if (type != LUA_TNIL && type != LUA_TSTRING) al_option_error(L, f, "server_hostname", "string", -1);
  if (type == LUA_TNIL && host) {
    lua_pop(L, 1);
    lua_pushvalue(L, host);
  }
  if (lua_isnil(L, -1)) return;
  tls->hostname = lua_gettop(L);
  check_name(L, ctx, tls->hostname);
}

static void push_session(lua_State *L, al_ctx *ctx, int arg, const char *f, l_tls *tls) {
  int type = al_option(L, arg, "session");
  if (type == LUA_TNIL) return;
  if (!al_test_ssl_session(L, ctx, -1)) al_option_error(L, f, "session", "SSLSession", -1);
  if (tls->server_side) al_raise(L, ctx, AL_C_ValueError, "Cannot set session for server-side SSLSocket.");
  tls->session = lua_gettop(L);
  if (!al_ssl_session_is_of(L, tls->session, tls->context))
    al_raise(L, ctx, AL_C_ValueError, "Session refers to a different SSLContext.");
}

/* Is the context made for this side, and with what it needs? */
static void check_context(lua_State *L, al_ctx *ctx, const l_tls *tls) {
  const l_ssl_context *c = al_test_ssl_context(L, ctx, tls->context);
  al_tls_kind kind = al_tls_ctx_kind(c->tls);
  if (kind != AL_TLS_BOTH && (kind == AL_TLS_SERVER) != tls->server_side)
    al_raise(L, ctx, AL_C_SSLError, "Cannot create a %s socket with a PROTOCOL_TLS_%s context",
             tls->server_side ? "server" : "client", tls->server_side ? "CLIENT" : "SERVER");
  if (!tls->server_side && !tls->hostname && al_tls_ctx_check_hostname(c->tls))
    al_raise(L, ctx, AL_C_ValueError, "check_hostname requires server_hostname");
}

/* Is there to be TLS? Raises if ssl can't mean that. */
static bool is_wanted(lua_State *L, al_ctx *ctx, int arg, const char *f, bool client) {
  int type = al_option(L, arg, "ssl");
  bool wanted = lua_toboolean(L, -1), any = type == LUA_TBOOLEAN && client;
  if (wanted && !any && !al_test_ssl_context(L, ctx, -1)) al_option_error(L, f, "ssl", "SSLContext", -1);
  lua_pop(L, 1);
  return wanted;
}

static void push_context(lua_State *L, al_ctx *ctx, int arg) {
  if (al_option(L, arg, "ssl") != LUA_TBOOLEAN) return;
  lua_pop(L, 1);
  al_push_default_ssl_context(L, ctx, false, 0);
}

static void check_named(lua_State *L, al_ctx *ctx, int arg, int host) {
  if (!al_option_given(L, arg, "server_hostname") && !has_text(L, host))
    al_raise(L, ctx, AL_C_ValueError, "You must set server_hostname when using ssl without a host");
}

void al_tls_check_options(lua_State *L, al_ctx *ctx, int arg, const char *f, int host, l_tls *tls) {
  bool client = host != AL_TLS_SERVER_SIDE;
  int top = lua_gettop(L);
  *tls = (l_tls){.server_side = !client};
  if (!is_wanted(L, ctx, arg, f, client)) {
    if (client) refuse_without_ssl(L, ctx, arg, only_of_clients);
    refuse_without_ssl(L, ctx, arg, only_with_ssl);
    lua_settop(L, top + AL_TLS_VALUES);
    return;
  }
  read_timeouts(L, ctx, arg, f, tls);
  if (client) check_named(L, ctx, arg, host);
  push_context(L, ctx, arg);
  tls->context = lua_gettop(L);
  if (client) {
    push_hostname(L, ctx, arg, f, host, tls);
    push_session(L, ctx, arg, f, tls);
  }
  lua_settop(L, top + AL_TLS_VALUES);
  check_context(L, ctx, tls);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

typedef struct l_tls_how { /* how of tls_kind */
  lua_State *L;
  const l_tls *tls;
  const al_addr *peer;
  int below; /* where the transport below stands; 0: a socket */
  al_tls_options options;
} l_tls_how;

static void set_value(lua_State *L, int box, int slot, int idx) {
  if (!idx) return;
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, box, slot);
}

/* The userdata is on top of the stack. */
static int tls_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                    al_transport **made) {
  const l_tls_how *h = how;
  int box = lua_gettop(h->L);
  (void)started;
  set_value(h->L, box, AL_TLS_UV_CONTEXT, h->tls->context);
  if (has_text(h->L, h->tls->hostname)) set_value(h->L, box, AL_TLS_UV_HOSTNAME, h->tls->hostname);
  set_value(h->L, box, AL_TLS_UV_BELOW, h->below);
  if (!h->below) return al_tls_new(loop, fd, h->peer, &h->options, protocol, made);
  const l_transport *below = lua_touserdata(h->L, h->below);
  return al_tls_start(below->t, &h->options, protocol, made);
}

static const l_transport_kind tls_kind = {.class = AL_C_Transport, .own_values = AL_TLS_UV_COUNT, .open = tls_open};

static l_tls_how make_how(lua_State *L, al_ctx *ctx, const l_tls *tls, al_tls_done_fn *done, void *data) {
  const l_ssl_context *c = al_test_ssl_context(L, ctx, tls->context);
  return (l_tls_how){.L = L,
                     .tls = tls,
                     .options = {.ctx = c->tls,
                                 .server_side = tls->server_side,
                                 .host = tls->hostname ? lua_tostring(L, tls->hostname) : NULL,
                                 .session = tls->session ? al_test_ssl_session(L, ctx, tls->session) : NULL,
                                 .handshake_timeout_ns = tls->handshake_timeout_ns,
                                 .shutdown_timeout_ns = tls->shutdown_timeout_ns,
                                 .data = data,
                                 .done = done}};
}

l_transport *al_tls_make(lua_State *L, al_ctx *ctx, l_loop *loop, int *fd, const al_addr *peer, int protocol, int last,
                         const l_tls *tls, al_tls_done_fn *done, void *data, int keep) {
  l_tls_how how = make_how(L, ctx, tls, done, data);
  how.peer = peer;
  return al_transport_make_kind(L, ctx, &tls_kind, &how, loop, fd, protocol, last, NULL, keep);
}

int al_tls_endpoint_make(lua_State *L, al_ctx *ctx, l_endpoint *e, int factory, const al_addr *peer, const l_tls *tls,
                         const l_given *given) {
  if (!tls->context) return al_endpoint_make(L, ctx, e, factory, &al_stream_kind, peer, given);
  l_tls_how how = make_how(L, ctx, tls, al_endpoint_done, e);
  how.peer = peer;
  return al_endpoint_make(L, ctx, e, factory, &tls_kind, &how, given);
}

/* ---- start_tls(transport, protocol, sslcontext, {options}) ------------------------------------------------------- */

enum { LOOP = 1, BELOW, PROTOCOL, SSL_CONTEXT, OPTIONS, HOSTNAME, SESSION, STATE, TRANSPORT };

static void state_dispose(l_op *op) { al_endpoint_dispose((l_endpoint *)(void *)op); }

static int upgrade_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_endpoint_finish(L, ctx, wait, TRANSPORT);
  lua_settop(L, TRANSPORT);
  return 1;
}

static const l_wait_kind upgrading = {upgrade_finish, al_endpoint_abandon, "TLS handshake"};

/* What a stream has read ahead is the beginning of the handshake; what it reads from now on comes from above. */
static void take_stream(lua_State *L, al_transport *transport) {
  l_stream *s = al_test_stream(L, PROTOCOL);
  size_t len = 0;
  if (s) al_stream_replace_transport(s, transport);
  const char *data = s && s->reader ? al_reader_peek(s->reader, &len) : NULL;
  if (len == 0) return;
  int err = al_tls_feed(transport, data, len);
  if (err) al_transport_fail(transport, err);
  al_reader_drop(s->ctx, s->reader, len);
}

static int refuse_transport(lua_State *L) {
  return al_argerror(
      L, BELOW, lua_pushfstring(L, "transport %s is not supported by start_tls()", luaL_tolstring(L, BELOW, NULL)));
}

/* The transport that may be upgraded, at BELOW. */
static l_transport *check_below(lua_State *L) {
  l_transport *t = al_check_transport(L, BELOW);
  if (t->class != AL_C_Transport) refuse_transport(L);
  return t;
}

static void check_upgrade(lua_State *L, al_ctx *ctx, l_tls *tls) {
  static const char *const f = "start_tls";
  static const char *const names[] = {"server_side",          "server_hostname", "ssl_handshake_timeout",
                                      "ssl_shutdown_timeout", "session",         NULL};
  if (!lua_istable(L, PROTOCOL) && lua_type(L, PROTOCOL) != LUA_TUSERDATA) al_typeerror(L, PROTOCOL, "protocol");
  if (!al_test_ssl_context(L, ctx, SSL_CONTEXT)) al_typeerror(L, SSL_CONTEXT, "SSLContext");
  al_options(L, OPTIONS, f, names);
  lua_settop(L, OPTIONS);
  int type = al_option(L, OPTIONS, "server_side");
  if (type != LUA_TNIL && type != LUA_TBOOLEAN) al_option_error(L, f, "server_side", "boolean", -1);
  *tls = (l_tls){.context = SSL_CONTEXT, .server_side = lua_toboolean(L, -1)};
  lua_pop(L, 1);
  read_timeouts(L, ctx, OPTIONS, f, tls);
  push_hostname(L, ctx, OPTIONS, f, 0, tls);
  if (tls->server_side) tls->hostname = 0;
  push_session(L, ctx, OPTIONS, f, tls);
  check_context(L, ctx, tls);
}

/* Makes it and pushes it; NULL: it can't be. */
static al_transport *upgrade(lua_State *L, al_ctx *ctx, l_endpoint *e, const l_tls *tls, int *err) {
  l_tls_how how = make_how(L, ctx, tls, al_endpoint_done, e);
  how.below = BELOW;
  how.options.upgrade = true;
  const l_transport *below = lua_touserdata(L, BELOW);
  int fd = below->fd;
  l_transport *t = al_transport_try_kind(L, ctx, &tls_kind, &how, e->loop, &fd, PROTOCOL, 0, NULL, STATE, err);
  return t->t;
}

static int loop_start_tls(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "start_tls");
  l_tls tls;
  int err = 0;
  check_below(L);
  check_upgrade(L, ctx, &tls);
  l_endpoint *e = al_endpoint_new(L, ctx, loop, sizeof *e, state_dispose);
  al_transport *made = upgrade(L, ctx, e, &tls, &err);
  if (err == -ESHUTDOWN) return 0;
  if (err == -ENOTSUP) return refuse_transport(L);
  if (err == -EBUSY) return al_raise(L, ctx, AL_C_RuntimeError, "unable to start_tls; sendfile is in progress");
  if (err == -EALREADY) return al_raise(L, ctx, AL_C_RuntimeError, "unable to start_tls; it was called already");
  if (err) return al_raise_os(L, ctx, err, NULL, NULL);
  take_stream(L, made);
  set_value(L, BELOW, AL_TRANSPORT_UV_PROTOCOL, TRANSPORT);
  return al_endpoint_wait(L, ctx, e, made, &upgrading);
}

/* ---- extra information ------------------------------------------------------------------------------------------- */

/* Pushes what the method of the SSLObject gives, more than one value as an array; nil if there is no object any
 * more. */
static void push_of_object(lua_State *L, al_ctx *ctx, const char *method) {
  int top = lua_gettop(L) + 1;
  al_push_ssl_object(L, ctx, 1);
  if (lua_isnil(L, top)) return;
  lua_getfield(L, top, method);
  lua_insert(L, top);
  lua_call(L, 1, LUA_MULTRET);
  int n = lua_gettop(L) - top + 1;
  if (n == 0) lua_pushnil(L);
  if (n <= 1) return;
  lua_createtable(L, n, 0);
  lua_insert(L, top);
  for (; n > 0; n--) lua_rawseti(L, top, n);
}

bool al_tls_push_info(lua_State *L, al_ctx *ctx, const char *name) {
  if (strcmp(name, "sslcontext") == 0)
    lua_getiuservalue(L, 1, AL_TLS_UV_CONTEXT);
  else if (strcmp(name, "ssl_object") == 0)
    al_push_ssl_object(L, ctx, 1);
  else if (strcmp(name, "peercert") == 0)
    push_of_object(L, ctx, "getpeercert");
  else if (strcmp(name, "cipher") == 0)
    push_of_object(L, ctx, "cipher");
  else if (strcmp(name, "compression") == 0)
    push_of_object(L, ctx, "compression");
  else
    return false;
  if (!lua_isnil(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

static const luaL_Reg loop_methods[] = {{"start_tls", loop_start_tls}, {NULL, NULL}};

void al_tls_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods); }
