/* lnet.c - loop:create_connection, create_unix_connection and connect_accepted_socket: from a name, a path or a socket
 * to a connected transport. Each goes through the steps look up, connect, make the transport, wait for connection_made;
 * what an error or a cancellation interrupts is undone by the state's dispose and abandon.
 *
 * SPDX-License-Identifier: MIT */
#include "lnet.h"

#include "laddr.h"
#include "lendpoint.h"
#include "ltls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ----------------------------------------------------------------------------------------------------- */

bool al_sock_option(lua_State *L, int arg, const char *f) {
  if (al_option(L, arg, "sock") == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  if (!al_may_be_socket(L, lua_gettop(L))) al_option_error(L, f, "sock", "socket", -1);
  return true;
}

/* ---- the state of one that connects ------------------------------------------------------------------------------ */

/* Stack of create_connection. What TLS needs stands behind the options of all three. */
enum { LOOP = 1, FACTORY, HOST, PORT, OPTIONS, OP = OPTIONS + AL_TLS_VALUES + 1, ADDRS, LOCAL_ADDRS };
enum { PATH = 3, UNIX_OPTIONS };     /* ... of create_unix_connection */
enum { SOCK = 3, ACCEPTED_OPTIONS }; /* ... of connect_accepted_socket */

typedef struct connecting {
  l_endpoint base;
  l_question question;
  al_connect *request;
  al_connect_error *errors; /* of the attempts that failed, if all did */
  size_t n_errors;
  al_addr peer;
  l_tls tls;
  int interleave;
  bool all_errors, happy_eyeballs;
  int64_t delay_ns; /* between attempts, for happy eyeballs */
  const char *path; /* of a Unix socket */
} connecting;

static connecting *of_op(l_op *op) { return (connecting *)(void *)op; }
static connecting *of_wait(l_wait *wait) {
  return (connecting *)(void *)((char *)wait - offsetof(connecting, base.wait));
}

static void dispose(l_op *op) {
  connecting *c = of_op(op);
  al_question_dispose(&c->question);
  if (c->request) al_connect_cancel(c->request);
  c->request = NULL;
  al_endpoint_dispose(&c->base);
  free(c->errors);
  c->errors = NULL;
}

/* Pushes a new state. */
static connecting *push_state(lua_State *L, al_ctx *ctx, l_loop *loop, const l_tls *tls) {
  connecting *c = al_endpoint_new(L, ctx, loop, sizeof(connecting), dispose);
  c->tls = *tls;
  return c;
}

/* Over c->base.fd or over the socket given: waits until it is connected. */
static int make_transport(lua_State *L, al_ctx *ctx, connecting *c, const l_given *given) {
  return al_tls_endpoint_make(L, ctx, &c->base, FACTORY, given ? NULL : &c->peer, &c->tls, given);
}

/* ---- step: connecting -------------------------------------------------------------------------------------------- */

/* Pushes the error of attempt i. */
static void push_error(lua_State *L, al_ctx *ctx, const connecting *c, size_t i) {
  if (c->path)
    al_pushoserror(L, ctx, c->errors[i].error, NULL, c->path);
  else
    al_pushoserror(L, ctx, c->errors[i].error, c->errors[i].message, NULL);
}

static int raise_group(lua_State *L, al_ctx *ctx, const connecting *c) {
  al_pushclass(L, ctx, AL_C_ExceptionGroup);
  lua_pushliteral(L, "create_connection failed");
  lua_createtable(L, (int)c->n_errors, 0);
  for (size_t i = 0; i < c->n_errors; i++) {
    push_error(L, ctx, c, i);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_call(L, 2, 1);
  return lua_error(L);
}

static bool all_alike(const connecting *c) {
  for (size_t i = 1; i < c->n_errors; i++)
    if (strcmp(c->errors[i].message, c->errors[0].message) != 0) return false;
  return true;
}

static int raise_errors(lua_State *L, al_ctx *ctx, const connecting *c) {
  if (c->n_errors == 0) return al_raise_os(L, ctx, -ENOMEM, NULL, NULL);
  if (c->all_errors) return raise_group(L, ctx, c);
  if (all_alike(c)) {
    push_error(L, ctx, c, 0);
    return lua_error(L);
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "Multiple exceptions: ");
  for (size_t i = 0; i < c->n_errors; i++) {
    if (i > 0) luaL_addstring(&b, ", ");
    luaL_addstring(&b, c->errors[i].message);
  }
  luaL_pushresult(&b);
  return al_raise(L, ctx, AL_C_OSError, "%s", lua_tostring(L, -1));
}

static void on_connected(void *data, int fd, const al_addr *peer, const al_connect_error *errors, size_t n) {
  connecting *c = data;
  c->request = NULL;
  c->base.fd = fd;
  if (fd >= 0) {
    c->peer = *peer;
  } else if ((c->errors = malloc(n * sizeof *errors))) {
    memcpy(c->errors, errors, n * sizeof *errors);
    c->n_errors = n;
  }
  al_wake(&c->base.wait);
}

static void connect_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  dispose(&of_wait(wait)->base.base);
}

static int connect_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  connecting *c = of_wait(wait);
  if (c->base.fd < 0) return raise_errors(L, ctx, c);
  return make_transport(L, ctx, c, NULL);
}

static const l_wait_kind connecting_kind = {connect_finish, connect_abandon, "connection"};

static int begin_connecting(lua_State *L, al_ctx *ctx, connecting *c, const al_connect_options *options) {
  int err = al_connect_start(c->base.loop->loop, options, c, on_connected, &c->request);
  if (err) return al_raise_os(L, ctx, err, NULL, NULL);
  return al_wait(L, ctx, &c->base.wait, &connecting_kind);
}

/* ---- step: looking up -------------------------------------------------------------------------------------------- */

/* The first one from ai on that is of the family, or that is not; or NULL. */
static const struct addrinfo *find_family(const struct addrinfo *ai, int family, bool same) {
  while (ai && (ai->ai_family == family) != same) ai = ai->ai_next;
  return ai;
}

/* Replaces the list at ADDRS by one in which the families alternate, beginning with `first` of the first one's. */
static void interleave(lua_State *L, int first) {
  const l_addrs *list = lua_touserdata(L, ADDRS);
  struct addrinfo *order = lua_newuserdatauv(L, list->n * sizeof *order, 0);
  int family = list->item[0].ai.ai_family;
  const struct addrinfo *a = al_addrs_first(list), *b = find_family(a, family, false);
  bool a_next = true;
  for (size_t i = 0; a || b; i++) {
    bool take_a = a && (a_next || !b);
    order[i] = take_a ? *a : *b;
    order[i].ai_next = i + 1 < list->n ? &order[i + 1] : NULL;
    if (take_a)
      a = find_family(a->ai_next, family, true);
    else
      b = find_family(b->ai_next, family, false);
    a_next = take_a ? --first > 0 : true;
  }
  al_addrs_join(L, order, NULL);
  lua_replace(L, ADDRS);
  lua_pop(L, 1);
}

static void check_not_empty(lua_State *L, al_ctx *ctx, int idx) {
  const l_addrs *list = lua_touserdata(L, idx);
  if (list->n == 0) al_raise(L, ctx, AL_C_OSError, "getaddrinfo() returned empty list");
}

static int connect_to_list(lua_State *L, al_ctx *ctx, connecting *c) {
  if (c->interleave > 0) interleave(L, c->interleave);
  al_connect_options options = {.list = al_addrs_first(lua_touserdata(L, ADDRS)),
                                .local_list = al_addrs_first(lua_touserdata(L, LOCAL_ADDRS)),
                                .happy_eyeballs = c->happy_eyeballs,
                                .delay_ns = c->delay_ns};
  return begin_connecting(L, ctx, c, &options);
}

static int on_local_found(lua_State *L, al_ctx *ctx, l_op *op) {
  check_not_empty(L, ctx, lua_gettop(L));
  lua_replace(L, LOCAL_ADDRS);
  lua_settop(L, LOCAL_ADDRS);
  return connect_to_list(L, ctx, of_op(op));
}

/* The addresses are at ADDRS; perhaps those to bind to are looked up, too. */
static int on_found(lua_State *L, al_ctx *ctx, l_op *op) {
  connecting *c = of_op(op);
  check_not_empty(L, ctx, ADDRS);
  if (al_option(L, OPTIONS, "local_addr") == LUA_TNIL) return connect_to_list(L, ctx, c);
  lua_geti(L, LOCAL_ADDRS, 1);
  lua_geti(L, LOCAL_ADDRS, 2);
  return al_question_ask(L, ctx, c->base.loop, op, &c->question, LOCAL_ADDRS + 1, on_local_found);
}

/* ---- create_connection(factory, host, port, {options}) ----------------------------------------------------------- */

static const char *const connection_options[] = {"ssl",
                                                 "family",
                                                 "proto",
                                                 "flags",
                                                 "sock",
                                                 "local_addr",
                                                 "server_hostname",
                                                 "ssl_handshake_timeout",
                                                 "ssl_shutdown_timeout",
                                                 "happy_eyeballs_delay",
                                                 "interleave",
                                                 "all_errors",
                                                 "session",
                                                 NULL};

static void check_local_addr(lua_State *L, const char *f) {
  bool ok = true;
  int type = al_option(L, OPTIONS, "local_addr");
  if (type == LUA_TTABLE) {
    ok = lua_geti(L, -1, 1) == LUA_TSTRING;
    ok = lua_geti(L, -2, 2) != LUA_TNIL && ok && al_is_service(L, -1);
    lua_pop(L, 2);
  }
  if (!ok || (type != LUA_TNIL && type != LUA_TTABLE)) al_option_error(L, f, "local_addr", "address {host, port}", -1);
  lua_pop(L, 1);
}

#define MAX_DELAY_S 1e9 /* longer is never */

static void check_delay(lua_State *L, al_ctx *ctx, connecting *c, const char *f) {
  int type = al_option(L, OPTIONS, "happy_eyeballs_delay");
  lua_Number delay = lua_tonumber(L, -1);
  if (type != LUA_TNIL && type != LUA_TNUMBER) al_option_error(L, f, "happy_eyeballs_delay", "number", -1);
  if (!(delay >= 0)) al_raise(L, ctx, AL_C_ValueError, "happy_eyeballs_delay must not be negative");
  c->happy_eyeballs = type == LUA_TNUMBER;
  c->delay_ns = (int64_t)((delay < MAX_DELAY_S ? delay : MAX_DELAY_S) * 1e9);
  lua_pop(L, 1);
}

/* A delay makes the families alternate unless it is said otherwise, as in asyncio. */
static void check_interleave(lua_State *L, al_ctx *ctx, connecting *c, const char *f) {
  c->interleave = al_int_option(L, OPTIONS, f, "interleave", c->happy_eyeballs ? 1 : 0);
  if (c->interleave < 0) al_raise(L, ctx, AL_C_ValueError, "interleave must not be negative");
}

static void read_options(lua_State *L, al_ctx *ctx, connecting *c) {
  static const char *const f = "create_connection";
  c->question.hints = (struct addrinfo){.ai_family = al_int_option(L, OPTIONS, f, "family", AF_UNSPEC),
                                        .ai_protocol = al_int_option(L, OPTIONS, f, "proto", 0),
                                        .ai_flags = al_int_option(L, OPTIONS, f, "flags", 0),
                                        .ai_socktype = SOCK_STREAM};
  check_delay(L, ctx, c, f);
  check_interleave(L, ctx, c, f);
  c->all_errors = al_bool_option(L, OPTIONS, f, "all_errors", false);
  check_local_addr(L, f);
}

/* What chooses among addresses has no meaning for a socket that is connected. */
static void check_no_target_options(lua_State *L, al_ctx *ctx) {
  static const char *const names[] = {"family",     "proto", "flags", "local_addr", "happy_eyeballs_delay",
                                      "interleave", NULL};
  for (const char *const *name = names; *name; name++)
    if (al_option_given(L, OPTIONS, *name))
      al_raise(L, ctx, AL_C_ValueError, "%s and sock can not be specified at the same time", *name);
}

/* The socket at idx instead of a name. */
static int connect_given(lua_State *L, al_ctx *ctx, connecting *c, int idx) {
  l_given given;
  al_check_given(L, ctx, c->base.loop->loop, idx, &given);
  if (given.type != SOCK_STREAM)
    return al_raise(L, ctx, AL_C_ValueError, "A Stream Socket was expected, got %s", luaL_tolstring(L, idx, NULL));
  return make_transport(L, ctx, c, &given);
}

static int loop_create_connection(lua_State *L) {
  static const char *const f = "create_connection";
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, f);
  al_check_callable(L, FACTORY);
  if (!lua_isnoneornil(L, HOST) && lua_type(L, HOST) != LUA_TSTRING) return al_typeerror(L, HOST, "string");
  al_options(L, OPTIONS, f, connection_options);
  lua_settop(L, OPTIONS);
  al_check_service(L, ctx, PORT);
  lua_pop(L, 1);
  l_tls tls;
  al_tls_check_options(L, ctx, OPTIONS, f, HOST, &tls);
  connecting *c = push_state(L, ctx, loop, &tls);
  read_options(L, ctx, c);
  bool named = !lua_isnil(L, HOST) || !lua_isnil(L, PORT);
  if (al_sock_option(L, OPTIONS, f)) {
    if (named) return al_raise(L, ctx, AL_C_ValueError, "host/port and sock can not be specified at the same time");
    check_no_target_options(L, ctx);
    return connect_given(L, ctx, c, lua_gettop(L));
  }
  if (!named) return al_raise(L, ctx, AL_C_ValueError, "host and port was not specified and no sock specified");
  return al_question_ask(L, ctx, loop, &c->base.base, &c->question, HOST, on_found);
}

/* ---- create_unix_connection(factory, path, {options}) ------------------------------------------------------------ */

static const char *const unix_connection_options[] = {
    "ssl", "sock", "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout", "session", NULL};

static int connect_to_path(lua_State *L, al_ctx *ctx, connecting *c) {
  al_addr addr;
  al_check_unix_path(L, ctx, PATH, &addr);
  char text[AL_ADDR_STRLEN];
  lua_pushstring(L, al_addr_format(&addr, text, sizeof text)); /* for errors: an abstract name would end at once */
  lua_replace(L, PATH);
  c->path = lua_tostring(L, PATH);
  return begin_connecting(L, ctx, c, &(al_connect_options){.addr = &addr});
}

static int connect_given_unix(lua_State *L, al_ctx *ctx, connecting *c) {
  l_given given;
  int idx = lua_gettop(L);
  al_check_given(L, ctx, c->base.loop->loop, idx, &given);
  if (given.family != AF_UNIX || given.type != SOCK_STREAM)
    return al_raise(L, ctx, AL_C_ValueError, "A UNIX Domain Stream Socket was expected, got %s",
                    luaL_tolstring(L, idx, NULL));
  return make_transport(L, ctx, c, &given);
}

static int loop_create_unix_connection(lua_State *L) {
  static const char *const f = "create_unix_connection";
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, f);
  al_check_callable(L, FACTORY);
  if (!lua_isnoneornil(L, PATH) && lua_type(L, PATH) != LUA_TSTRING) return al_typeerror(L, PATH, "string");
  al_options(L, UNIX_OPTIONS, f, unix_connection_options);
  lua_settop(L, UNIX_OPTIONS);
  l_tls tls;
  al_tls_check_options(L, ctx, UNIX_OPTIONS, f, AL_TLS_NO_HOST, &tls);
  connecting *c = push_state(L, ctx, loop, &tls);
  if (al_sock_option(L, UNIX_OPTIONS, f)) {
    if (!lua_isnil(L, PATH))
      return al_raise(L, ctx, AL_C_ValueError, "path and sock can not be specified at the same time");
    return connect_given_unix(L, ctx, c);
  }
  if (lua_isnil(L, PATH)) return al_raise(L, ctx, AL_C_ValueError, "no path and sock were specified");
  return connect_to_path(L, ctx, c);
}

/* ---- connect_accepted_socket(factory, sock, {options}) ----------------------------------------------------------- */

static int loop_connect_accepted_socket(lua_State *L) {
  static const char *const f = "connect_accepted_socket";
  static const char *const names[] = {"ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout", NULL};
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, f);
  al_check_callable(L, FACTORY);
  if (!al_may_be_socket(L, SOCK)) return al_typeerror(L, SOCK, "socket");
  al_options(L, ACCEPTED_OPTIONS, f, names);
  lua_settop(L, ACCEPTED_OPTIONS);
  l_tls tls;
  al_tls_check_options(L, ctx, ACCEPTED_OPTIONS, f, AL_TLS_SERVER_SIDE, &tls);
  return connect_given(L, ctx, push_state(L, ctx, loop, &tls), SOCK);
}

static const luaL_Reg loop_methods[] = {{"create_connection", loop_create_connection},
                                        {"create_unix_connection", loop_create_unix_connection},
                                        {"connect_accepted_socket", loop_connect_accepted_socket},
                                        {NULL, NULL}};

void al_net_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods); }
