/* llisten.c - loop:create_server and create_unix_server: from options to a Server that listens. Names are looked up one
 * after the other, then all addresses are bound at once, or none is.
 *
 * SPDX-License-Identifier: MIT */
#include "laddr.h"
#include "lnet.h"
#include "lserver.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* The stack of create_server: arguments, then what it makes. */
enum { LOOP = 1, FACTORY, HOST, PORT, OPTIONS, HOSTS = OPTIONS + AL_TLS_VALUES + 1, OP, ADDRS };
/* ... of create_unix_server. */
enum { PATH = 3, UNIX_OPTIONS };

typedef struct listening {
  l_op base;
  l_loop *loop;
  l_question question;
  al_listen_options options;
  l_tls tls;
  lua_Integer next_host; /* in the table at HOSTS */
  bool start_serving;
} listening;

static listening *listening_of(l_op *op) { return (listening *)(void *)op; }
static void listening_dispose(l_op *op) { al_question_dispose(&listening_of(op)->question); }

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* asyncio's words: the reason in small letters. */
static int raise_bind_error(lua_State *L, al_ctx *ctx, int err, const al_addr *addr) {
  char address[AL_ADDR_STRLEN], reason[64];
  snprintf(reason, sizeof reason, "%s", al_strerror(err));
  for (char *p = reason; *p; p++) *p = (char)tolower((unsigned char)*p);
  lua_pushfstring(L, "error while attempting to bind on address %s: %s", al_addr_format(addr, address, sizeof address),
                  reason);
  return al_raise_os(L, ctx, err, lua_tostring(L, -1), NULL);
}

static int raise_no_address(lua_State *L, al_ctx *ctx, const struct addrinfo *ai) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "could not bind on any address out of [");
  for (const char *separator = ""; ai; ai = ai->ai_next, separator = ", ") {
    al_addr addr = {.len = ai->ai_addrlen};
    char text[AL_ADDR_STRLEN];
    memcpy(&addr.ss, ai->ai_addr, ai->ai_addrlen);
    luaL_addstring(&b, separator);
    luaL_addstring(&b, al_addr_format(&addr, text, sizeof text));
  }
  luaL_addstring(&b, "]");
  luaL_pushresult(&b);
  return al_raise_os(L, ctx, -EADDRNOTAVAIL, lua_tostring(L, -1), NULL);
}

/* ---- create_server(factory, host, port, {options}) --------------------------------------------------------------- */

static const char *const server_options[] = {"family",
                                             "flags",
                                             "sock",
                                             "backlog",
                                             "ssl",
                                             "reuse_address",
                                             "reuse_port",
                                             "keep_alive",
                                             "ssl_handshake_timeout",
                                             "start_serving",
                                             "ssl_shutdown_timeout",
                                             NULL};

/* The Server on top is ready to go. */
static int finish_server(lua_State *L, al_ctx *ctx, bool start_serving) {
  if (start_serving) al_server_begin(L, ctx, lua_touserdata(L, -1), -1);
  return 1;
}

static int bind_addresses(lua_State *L, al_ctx *ctx, listening *op) {
  const struct addrinfo *list = al_addrs_first(lua_touserdata(L, ADDRS));
  l_server *s = al_server_make(L, ctx, op->loop, &op->tls);
  al_addr failed;
  int err = al_server_bind(s->server, list, &op->options, &failed);
  if (err) al_server_drop(s);
  if (err && failed.len == 0) return raise_no_address(L, ctx, list);
  if (err) return raise_bind_error(L, ctx, err, &failed);
  return finish_server(L, ctx, op->start_serving);
}

static int look_up_next(lua_State *L, al_ctx *ctx, listening *op);

/* The addresses of one host are on top. */
static int on_answer(lua_State *L, al_ctx *ctx, l_op *base) {
  const l_addrs *found = lua_touserdata(L, -1), *before = lua_touserdata(L, ADDRS);
  al_addrs_join(L, al_addrs_first(before), al_addrs_first(found));
  lua_replace(L, ADDRS);
  lua_settop(L, ADDRS);
  return look_up_next(L, ctx, listening_of(base));
}

static int look_up_next(lua_State *L, al_ctx *ctx, listening *op) {
  if (lua_rawgeti(L, HOSTS, op->next_host++) == LUA_TNIL) {
    lua_settop(L, ADDRS);
    return bind_addresses(L, ctx, op);
  }
  if (!lua_toboolean(L, -1)) { /* false stands for nil, which is all interfaces */
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  lua_pushvalue(L, PORT);
  return al_question_ask(L, ctx, op->loop, &op->base, &op->question, ADDRS + 1, on_answer);
}

static int raise_bad_host(lua_State *L) { return al_typeerror(L, HOST, "string or list of strings"); }

/* Pushes the table of hosts: what host is, or lists; false for all interfaces. */
static void push_hosts(lua_State *L) {
  lua_newtable(L);
  int type = lua_type(L, HOST);
  if (type == LUA_TNIL || type == LUA_TSTRING) {
    if (type == LUA_TSTRING && lua_rawlen(L, HOST) > 0)
      lua_pushvalue(L, HOST);
    else
      lua_pushboolean(L, false);
    lua_rawseti(L, -2, 1);
    return;
  }
  if (type != LUA_TTABLE) raise_bad_host(L);
  lua_Integer n = luaL_len(L, HOST);
  if (n == 0) raise_bad_host(L);
  for (lua_Integer i = 1; i <= n; i++) {
    if (lua_geti(L, HOST, i) != LUA_TSTRING) raise_bad_host(L);
    lua_rawseti(L, -2, i);
  }
}

/* The socket on top. */
static int serve_given(lua_State *L, al_ctx *ctx, listening *op) {
  l_given given;
  int idx = lua_gettop(L);
  al_check_given(L, ctx, op->loop->loop, idx, &given);
  if (given.type != SOCK_STREAM)
    return al_raise(L, ctx, AL_C_ValueError, "A Stream Socket was expected, got %s", luaL_tolstring(L, idx, NULL));
  l_server *s = al_server_make(L, ctx, op->loop, &op->tls);
  al_server_take(L, ctx, s, lua_gettop(L), &given, op->options.backlog, NULL);
  return finish_server(L, ctx, op->start_serving);
}

static int check_backlog(lua_State *L, al_ctx *ctx, int arg, const char *f) {
  int backlog = al_int_option(L, arg, f, "backlog", 100);
  if (backlog < 0) al_raise(L, ctx, AL_C_ValueError, "backlog must not be negative");
  return backlog ? backlog : 1;
}

static void read_options(lua_State *L, al_ctx *ctx, listening *op) {
  static const char *const f = "create_server";
  op->question.hints = (struct addrinfo){.ai_family = al_int_option(L, OPTIONS, f, "family", AF_UNSPEC),
                                         .ai_flags = al_int_option(L, OPTIONS, f, "flags", AI_PASSIVE),
                                         .ai_socktype = SOCK_STREAM};
  op->options = (al_listen_options){.backlog = check_backlog(L, ctx, OPTIONS, f),
                                    .no_reuse_address = !al_bool_option(L, OPTIONS, f, "reuse_address", true),
                                    .reuse_port = al_bool_option(L, OPTIONS, f, "reuse_port", false),
                                    .keep_alive = al_bool_option(L, OPTIONS, f, "keep_alive", false)};
  op->start_serving = al_bool_option(L, OPTIONS, f, "start_serving", true);
  op->next_host = 1;
}

static int loop_create_server(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "create_server");
  al_check_callable(L, FACTORY);
  al_options(L, OPTIONS, "create_server", server_options);
  lua_settop(L, OPTIONS);
  l_tls tls;
  al_tls_check_options(L, ctx, OPTIONS, "create_server", AL_TLS_SERVER_SIDE, &tls);
  al_check_service(L, ctx, PORT);
  lua_pop(L, 1);
  push_hosts(L);
  listening *op = al_op_new(L, ctx, sizeof *op, listening_dispose);
  op->loop = loop;
  op->tls = tls;
  read_options(L, ctx, op);
  bool named = !lua_isnil(L, HOST) || !lua_isnil(L, PORT);
  if (al_sock_option(L, OPTIONS, "create_server")) {
    if (named) return al_raise(L, ctx, AL_C_ValueError, "host/port and sock can not be specified at the same time");
    return serve_given(L, ctx, op);
  }
  if (!named) return al_raise(L, ctx, AL_C_ValueError, "Neither host/port nor sock were specified");
  if (lua_isnil(L, PORT)) { /* any */
    lua_pushinteger(L, 0);
    lua_replace(L, PORT);
  }
  lua_pushnil(L); /* ADDRS */
  return look_up_next(L, ctx, op);
}

/* ---- create_unix_server(factory, path, {options}) ---------------------------------------------------------------- */

static const char *const unix_server_options[] = {
    "sock", "backlog", "ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout", "start_serving", "cleanup_socket", NULL};

static void bind_path(lua_State *L, al_ctx *ctx, l_loop *loop, const al_listen_options *options, const l_tls *tls) {
  al_addr addr;
  al_check_unix_path(L, ctx, PATH, &addr);
  l_server *s = al_server_make(L, ctx, loop, tls);
  int err = al_server_bind_unix(s->server, &addr, options);
  if (!err) return;
  al_server_drop(s);
  if (err != -EADDRINUSE) al_raise_os(L, ctx, err, NULL, lua_tostring(L, PATH));
  char text[AL_ADDR_STRLEN];
  lua_pushfstring(L, "Address '%s' is already in use", al_addr_format(&addr, text, sizeof text));
  al_raise_os(L, ctx, err, lua_tostring(L, -1), NULL);
}

/* The path that a bound Unix socket has; NULL if it has none in the file system. */
static const char *path_of_socket(int fd, struct sockaddr_un *sun) {
  socklen_t len = sizeof *sun - 1;
  memset(sun, 0, sizeof *sun);
  if (getsockname(fd, (struct sockaddr *)sun, &len) < 0 || len <= offsetof(struct sockaddr_un, sun_path)) return NULL;
  return sun->sun_path[0] ? sun->sun_path : NULL;
}

/* The socket on top. */
static void take_unix_socket(lua_State *L, al_ctx *ctx, l_loop *loop, const al_listen_options *options,
                             const l_tls *tls) {
  int idx = lua_gettop(L);
  l_given given;
  struct sockaddr_un sun;
  al_check_given(L, ctx, loop->loop, idx, &given);
  if (given.family != AF_UNIX || given.type != SOCK_STREAM)
    al_raise(L, ctx, AL_C_ValueError, "A UNIX Domain Stream Socket was expected, got %s", luaL_tolstring(L, -1, NULL));
  const char *path = path_of_socket(given.fd, &sun);
  l_server *s = al_server_make(L, ctx, loop, tls);
  al_server_take(L, ctx, s, idx + 1, &given, options->backlog, options->keep_file ? NULL : path);
}

static int loop_create_unix_server(lua_State *L) {
  static const char *const f = "create_unix_server";
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, f);
  al_check_callable(L, FACTORY);
  if (!lua_isnoneornil(L, PATH) && lua_type(L, PATH) != LUA_TSTRING) return al_typeerror(L, PATH, "string");
  al_options(L, UNIX_OPTIONS, f, unix_server_options);
  lua_settop(L, UNIX_OPTIONS);
  l_tls tls;
  al_tls_check_options(L, ctx, UNIX_OPTIONS, f, AL_TLS_SERVER_SIDE, &tls);
  al_listen_options options = {.backlog = check_backlog(L, ctx, UNIX_OPTIONS, f),
                               .keep_file = !al_bool_option(L, UNIX_OPTIONS, f, "cleanup_socket", true)};
  bool start_serving = al_bool_option(L, UNIX_OPTIONS, f, "start_serving", true);
  if (al_sock_option(L, UNIX_OPTIONS, f)) {
    if (!lua_isnil(L, PATH))
      return al_raise(L, ctx, AL_C_ValueError, "path and sock can not be specified at the same time");
    take_unix_socket(L, ctx, loop, &options, &tls);
  } else {
    if (lua_isnil(L, PATH)) return al_raise(L, ctx, AL_C_ValueError, "path was not specified, and no sock specified");
    bind_path(L, ctx, loop, &options, &tls);
  }
  return finish_server(L, ctx, start_serving);
}

static const luaL_Reg loop_methods[] = {
    {"create_server", loop_create_server}, {"create_unix_server", loop_create_unix_server}, {NULL, NULL}};

void al_listen_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods); }
