/* lserver.c - the Server object: a box around the core's server. It calls the protocol factory for each connection,
 * gives what comes of it to a transport, and lets tasks wait for its end. llisten.c makes servers.
 *
 * SPDX-License-Identifier: MIT */
#include "lserver.h"

#include "lcontext.h"
#include "lloop.h"
#include "lrepr.h"
#include "lresolve.h"
#include "lssl.h"
#include "ltransport.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- connections come in ----------------------------------------------------------------------------------------- */

typedef struct acceptance {
  l_server *s;
  int fd; /* -1 once a transport owns it */
  const al_addr *peer;
} acceptance;

enum { SERVER = 2, FACTORY, PROTOCOL, LAST_METHODS, SSL_CONTEXT, TRANSPORT }; /* stack of accept_body */

/* Debug mode. */
static void log_acceptance(lua_State *L, const acceptance *a) {
  char peer[AL_ADDR_STRLEN];
  const char *protocol = luaL_tolstring(L, PROTOCOL, NULL), *server = luaL_tolstring(L, SERVER, NULL);
  al_debug_line(a->s->ctx, "%s got a new connection from %s: protocol %s", server,
                al_addr_format(a->peer, peer, sizeof peer), protocol);
}

/* transport of the connection, its error */
static int handshake_error_body(lua_State *L) {
  const l_transport *t = lua_touserdata(L, 1);
  al_push_transport_error(L, t->ctx, t->t, (int)lua_tointeger(L, 2));
  return 1;
}

/* A failed one ends this connection, and nothing else: of what strangers send nothing is told outside of debug mode. An
 * error of connection_made was told. */
static void on_handshake(al_transport *transport, void *data, int error) {
  const l_server *s = data;
  if (error == AL_EPROTOCOL) return;
  const l_transport *box = al_transport_data(transport);
  lua_State *L = error && box && box->slot && al_loop_debug(s->loop->loop) ? al_enter(s->ctx) : NULL;
  if (!L) return;
  if (lua_rawgeti(L, 1, box->slot) == LUA_TUSERDATA) {
    const al_key keys[] = {{"transport", 3}, {"protocol", 4}, {NULL, 0}};
    lua_getiuservalue(L, 3, AL_TRANSPORT_UV_PROTOCOL);
    lua_pushcfunction(L, handshake_error_body);
    lua_pushvalue(L, 3);
    lua_pushinteger(L, error);
    al_pcall(L, 2, 1); /* else the error of memory, which is as good */
    al_report(s->ctx, L, s->loop, "Error on transport creation for incoming connection", keys);
  }
  al_leave(s->ctx, L);
}

static l_transport *make_transport(lua_State *L, l_server *s, acceptance *a) {
  if (!s->tls.context) return al_transport_make(L, s->ctx, s->loop, &a->fd, a->peer, PROTOCOL, LAST_METHODS, NULL, 0);
  l_tls tls = s->tls;
  tls.context = SSL_CONTEXT;
  return al_tls_make(L, s->ctx, s->loop, &a->fd, a->peer, PROTOCOL, LAST_METHODS, &tls, on_handshake, s, 0);
}

/* acceptance, server. asyncio's _accept_connection2 */
static int accept_body(lua_State *L) {
  acceptance *a = lua_touserdata(L, 1);
  l_server *s = a->s;
  lua_getiuservalue(L, SERVER, AL_SERVER_UV_FACTORY);
  al_protocol_make(L, FACTORY);
  lua_getiuservalue(L, SERVER, AL_SERVER_UV_METHODS);
  lua_getiuservalue(L, SERVER, AL_SERVER_UV_SSL);
  l_transport *t = make_transport(L, s, a);
  al_server_attach(s->server, t->t);
  lua_getiuservalue(L, TRANSPORT, AL_TRANSPORT_UV_METHODS);
  if (!lua_rawequal(L, -1, LAST_METHODS)) lua_setiuservalue(L, SERVER, AL_SERVER_UV_METHODS);
  if (s->ctx->times_upcalls) log_acceptance(L, a);
  return 0;
}

/* The error on top (popped) of a factory, or about what it returned: the server goes on. It is the script's own, so it
 * is told at all times; asyncio leaves it to the debug mode. */
static void report_acceptance(const l_server *s, lua_State *L) {
  const al_key keys[] = {{NULL, 0}};
  al_report(s->ctx, L, s->loop, "Error on transport creation for incoming connection", keys);
}

static void accept_connection(l_server *s, lua_State *L, acceptance *a) {
  al_ctx *ctx = s->ctx;
  lua_rawgeti(L, 1, s->slot);
  bool swap = s->context_kind != AL_CONTEXT_EMPTY || ctx->context_kind != AL_CONTEXT_EMPTY;
  int former = AL_CONTEXT_EMPTY;
  lua_getiuservalue(L, 3, AL_SERVER_UV_CONTEXT);
  if (swap) former = al_context_swap(L, ctx, s->context_kind);
  lua_pushcfunction(L, accept_body);
  lua_pushlightuserdata(L, a);
  lua_pushvalue(L, 3);
  if (al_pcall(L, 2, 0) != LUA_OK) report_acceptance(s, L);
  if (!swap && ctx->context_kind == AL_CONTEXT_EMPTY) return;
  lua_settop(L, 4); /* what the factory made of its copy of the context is forgotten */
  al_context_swap(L, ctx, former);
}

static void on_accepted(al_server *server, void *data, int fd, const al_addr *peer) {
  (void)server;
  l_server *s = data;
  lua_State *L = s ? al_enter(s->ctx) : NULL;
  acceptance a = {s, fd, peer};
  if (L) {
    accept_connection(s, L, &a);
    al_leave(s->ctx, L);
  }
  if (a.fd >= 0) close(a.fd);
}

typedef struct failure {
  l_server *s;
  int fd, error;
} failure;

/* failure → TransportSocket, error */
static int failure_body(lua_State *L) {
  const failure *f = lua_touserdata(L, 1);
  al_push_server_socket(L, f->s->ctx, f->s->server, f->fd);
  al_pushoserror(L, f->s->ctx, f->error, NULL, NULL);
  return 2;
}

static bool is_lack(int error) { return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM; }

static void on_error(al_server *server, void *data, int fd, int error) {
  (void)server;
  l_server *s = data;
  lua_State *L = s ? al_enter(s->ctx) : NULL;
  if (!L) return;
  failure f = {s, fd, error};
  if (al_pcall_c(L, failure_body, &f, 2) != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
  }
  const al_key keys[] = {{"socket", lua_gettop(L) - 1}, {NULL, 0}};
  al_report(s->ctx, L, s->loop, is_lack(error) ? "socket.accept() out of system resource" : "socket.accept() failed",
            keys);
  al_leave(s->ctx, L);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

struct l_closed_wait { /* in a userdata on the stack of wait_closed */
  l_op base;
  l_wait wait;
  l_server *s; /* NULL: not in its list */
  l_closed_wait *next;
};

static void leave_waiters(l_op *op) {
  l_closed_wait *w = (l_closed_wait *)(void *)op;
  if (!w->s) return;
  l_closed_wait **at = &w->s->waiters;
  while (*at != w) at = &(*at)->next;
  *at = w->next;
  w->s = NULL;
}

static l_closed_wait *of_wait(l_wait *wait) {
  return (l_closed_wait *)(void *)((char *)wait - offsetof(l_closed_wait, wait));
}

static void closed_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  leave_waiters(&of_wait(wait)->base);
}

static int closed_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)L, (void)ctx, (void)wait;
  return 0;
}

static const l_wait_kind closing = {closed_finish, closed_abandon, "server's end"};

/* Waits for the end of the server, which stays on the stack of the waiting function. */
static int wait_for_end(lua_State *L, al_ctx *ctx, l_server *s, const l_wait_kind *kind) {
  l_closed_wait *w = al_op_new(L, ctx, sizeof *w, leave_waiters);
  w->s = s;
  w->next = s->waiters;
  s->waiters = w;
  return al_wait(L, ctx, &w->wait, kind);
}

static void forget_anchor(l_server *s) {
  al_unanchor(s->ctx, s->slot);
  s->slot = 0;
}

static void on_closed(al_server *server, void *data) {
  (void)server;
  l_server *s = data;
  if (!s) return;
  s->done = true;
  while (s->waiters) {
    l_closed_wait *w = s->waiters;
    leave_waiters(&w->base);
    al_wake(&w->wait);
  }
  forget_anchor(s);
}

static const al_server_ops server_ops = {on_accepted, on_error, on_closed};

/* The object that lent its socket keeps it open as long as it is open itself. */
static void close_lender(lua_State *L, int idx) {
  if (lua_getiuservalue(L, idx, AL_SERVER_UV_LENT) == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  lua_pushnil(L);
  lua_setiuservalue(L, idx, AL_SERVER_UV_LENT);
  lua_getfield(L, -1, "close");
  lua_insert(L, -2);
  lua_call(L, 1, 0);
}

static void close_server(lua_State *L, l_server *s, int idx) {
  if (al_server_is_closed(s->server)) return;
  al_server_close(s->server);
  if (s->forever) al_wake(s->forever);
  s->forever = NULL;
  close_lender(L, idx);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

l_server *al_server_make(lua_State *L, al_ctx *ctx, l_loop *loop, const l_tls *tls) {
  l_server *s = al_new(L, ctx, AL_C_Server, sizeof *s, AL_SERVER_UV_COUNT);
  s->ctx = ctx;
  s->loop = loop;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, AL_SERVER_UV_LOOP);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, AL_SERVER_UV_FACTORY);
  if (tls->context) {
    lua_pushvalue(L, tls->context);
    lua_setiuservalue(L, -2, AL_SERVER_UV_SSL);
  }
  s->tls = *tls;
  if (al_loop_debug(loop->loop)) al_remember_place(L, ctx, -1);
  int err = al_server_new(loop->loop, &server_ops, s, &s->server);
  if (err) al_raise_os(L, ctx, err, NULL, NULL);
  return s;
}

void al_server_drop(l_server *s) {
  al_server_release(s->server);
  s->server = NULL;
}

void al_server_take(lua_State *L, al_ctx *ctx, l_server *s, int idx, const l_given *given, int backlog,
                    const char *unlink) {
  int fd = al_given_fd(L, ctx, given);
  int err = al_server_add(s->server, fd, backlog, unlink);
  if (err) {
    if (given->lends) close(fd);
    al_server_drop(s);
    al_raise_os(L, ctx, err, NULL, NULL);
  }
  if (given->lends) {
    lua_pushvalue(L, given->idx);
    lua_setiuservalue(L, idx, AL_SERVER_UV_LENT);
  }
  al_given_taken(L, given, NULL, s->server);
}

void al_server_begin(lua_State *L, al_ctx *ctx, l_server *s, int idx) {
  idx = lua_absindex(L, idx);
  if (al_server_is_serving(s->server)) return;
  s->context_kind = (uint8_t)al_context_capture(L, ctx);
  lua_setiuservalue(L, idx, AL_SERVER_UV_CONTEXT);
  if (!s->slot) s->slot = al_anchor(L, ctx, idx);
  int err = al_server_start(s->server);
  if (!err) return;
  close_server(L, s, idx);
  al_raise_os(L, ctx, err, NULL, NULL);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

static l_server *check_self(lua_State *L) {
  l_server *s = al_check(L, al_ctx_of(L), 1, AL_C_Server);
  if (!s->server) al_typeerror(L, 1, "Server");
  return s;
}

static int server_close(lua_State *L) {
  close_server(L, check_self(L), 1);
  return 0;
}

static int server_wait_closed(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_server *s = check_self(L);
  al_check_wait(L, ctx, "wait_closed");
  lua_settop(L, 1);
  if (s->done) return 0;
  return wait_for_end(L, ctx, s, &closing);
}

/* Closes, and waits where that is possible. */
static int server_scope_end(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_server *s = check_self(L);
  lua_settop(L, 1);
  close_server(L, s, 1);
  if (s->done || !al_may_wait(L, ctx)) return 0;
  return wait_for_end(L, ctx, s, &closing);
}

static int server_close_clients(lua_State *L) {
  al_server_close_clients(check_self(L)->server);
  return 0;
}

static int server_abort_clients(lua_State *L) {
  al_server_abort_clients(check_self(L)->server);
  return 0;
}

static int server_get_loop(lua_State *L) {
  check_self(L);
  lua_getiuservalue(L, 1, AL_SERVER_UV_LOOP);
  return 1;
}

static int server_is_serving(lua_State *L) {
  lua_pushboolean(L, al_server_is_serving(check_self(L)->server));
  return 1;
}

static void check_not_closed(lua_State *L, l_server *s) {
  if (al_server_is_closed(s->server))
    al_raise(L, s->ctx, AL_C_RuntimeError, "server %s is closed", luaL_tolstring(L, 1, NULL));
}

static int server_start_serving(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_server *s = check_self(L);
  al_check_wait(L, ctx, "start_serving");
  check_not_closed(L, s);
  al_server_begin(L, ctx, s, 1);
  return 0;
}

/* ---- serve_forever ----------------------------------------------------------------------------------------------- */

/* forever_body waits until it is cancelled or the server is closed, both of which raise; then forever_ended closes the
 * server, waits for its end and raises the same error again. */

typedef struct forever {
  l_op base;
  l_wait wait;
  l_server *s;
} forever;

static void forever_dispose(l_op *op) {
  forever *f = (forever *)(void *)op;
  if (f->s && f->s->forever == &f->wait) f->s->forever = NULL;
  f->s = NULL;
}

static void forever_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  forever_dispose((l_op *)(void *)((char *)wait - offsetof(forever, wait)));
}

static int forever_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)wait;
  return al_raise(L, ctx, AL_C_CancelledError, NULL);
}

static const l_wait_kind serving = {forever_finish, forever_abandon, "serve_forever"};

static int forever_body(lua_State *L) { /* server */
  al_ctx *ctx = al_ctx_of(L);
  forever *f = al_op_new(L, ctx, sizeof *f, forever_dispose);
  f->s = lua_touserdata(L, 1);
  f->s->forever = &f->wait;
  return al_wait(L, ctx, &f->wait, &serving);
}

static int raise_top(lua_State *L, al_ctx *ctx, l_wait *wait) { /* server, error, the wait's state */
  (void)ctx, (void)wait;
  lua_settop(L, 2);
  return lua_error(L);
}

static const l_wait_kind closing_forever = {raise_top, closed_abandon, "server's end"};

static int forever_ended(lua_State *L, int status, lua_KContext unused) { /* server, error */
  al_ctx *ctx = al_ctx_of(L);
  l_server *s = lua_touserdata(L, 1);
  (void)unused;
  if (status == LUA_OK || status == LUA_YIELD) return 0; /* a script gave the future of this wait a result */
  close_server(L, s, 1);
  if (s->done || !al_may_wait(L, ctx)) return raise_top(L, ctx, NULL);
  return wait_for_end(L, ctx, s, &closing_forever);
}

static int server_serve_forever(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_server *s = check_self(L);
  al_check_wait(L, ctx, "serve_forever");
  if (s->forever)
    return al_raise(L, ctx, AL_C_RuntimeError, "server %s is already being awaited on serve_forever()",
                    luaL_tolstring(L, 1, NULL));
  check_not_closed(L, s);
  lua_settop(L, 1);
  al_server_begin(L, ctx, s, 1);
  al_ctx_pushfunction(L, ctx, forever_body);
  lua_pushvalue(L, 1);
  return forever_ended(L, lua_pcallk(L, 1, 0, 0, 0, forever_ended), 0);
}

/* ---- fields and finalizer ---------------------------------------------------------------------------------------- */

enum { MAX_SOCKETS = 64 }; /* of those that are shown; one for each address of a machine is many */

/* Pushes an array of TransportSockets, nil once closed. */
static void push_sockets(lua_State *L, l_server *s) {
  int fds[MAX_SOCKETS];
  if (al_server_is_closed(s->server)) {
    lua_pushnil(L);
    return;
  }
  size_t n = al_server_sockets(s->server, fds, MAX_SOCKETS);
  if (n > MAX_SOCKETS) n = MAX_SOCKETS;
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    al_push_server_socket(L, s->ctx, s->server, fds[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static int server_index(lua_State *L) {
  l_server *s = al_test(L, al_ctx_of(L), 1, AL_C_Server);
  if (s && s->server && lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "sockets") == 0) {
    push_sockets(L, s);
    return 1;
  }
  return al_class_lookup(L);
}

/* Pushes <Server sockets={<TransportSocket fd=5, ...>}>, of a closed one <Server sockets=nil>. Makes no objects but
 * strings: it is used by the finalizer, too, and at the end of a state new objects are finalized no more. */
static void push_text(lua_State *L, const l_server *s) {
  int fds[MAX_SOCKETS];
  if (al_server_is_closed(s->server)) {
    lua_pushliteral(L, "<Server sockets=nil>");
    return;
  }
  size_t n = al_server_sockets(s->server, fds, MAX_SOCKETS);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "<Server sockets={");
  for (size_t i = 0; i < n && i < MAX_SOCKETS; i++) {
    if (i > 0) luaL_addstring(&b, ", ");
    al_socket_addtext(L, &b, fds[i]);
  }
  luaL_addstring(&b, "}>");
  luaL_pushresult(&b);
}

static int server_tostring(lua_State *L) {
  push_text(L, check_self(L));
  return 1;
}

/* It serves no longer, or never began, and nobody wants it any more. */
static int server_gc(lua_State *L) {
  l_server *s = al_test(L, al_ctx_of(L), 1, AL_C_Server);
  if (!s || !s->server) return 0;
  bool lost = !al_server_is_closed(s->server) && al_server_sockets(s->server, NULL, 0) > 0;
  if (lost) {
    push_text(L, s);
    al_warn_unclosed(L, s->ctx, 1, "server", lua_tostring(L, -1));
  }
  al_server_set_data(s->server, NULL);
  al_server_close(s->server);
  al_server_release(s->server);
  s->server = NULL;
  forget_anchor(s);
  return 0;
}

static const luaL_Reg methods[] = {{"close", server_close},
                                   {"wait_closed", server_wait_closed},
                                   {"close_clients", server_close_clients},
                                   {"abort_clients", server_abort_clients},
                                   {"get_loop", server_get_loop},
                                   {"start_serving", server_start_serving},
                                   {"serve_forever", server_serve_forever},
                                   {"is_serving", server_is_serving},
                                   {"__close", server_scope_end},
                                   {"__gc", server_gc},
                                   {"__index", server_index},
                                   {"__tostring", server_tostring},
                                   {NULL, NULL}};

void al_server_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_Server, methods); }
