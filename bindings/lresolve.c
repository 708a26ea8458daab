/* lresolve.c - looking up names: for scripts (loop:getaddrinfo, getnameinfo), and for lnet.c, llisten.c and
 * ldatagram.c as one step of what they wait for. Knows no sockets.
 *
 * SPDX-License-Identifier: MIT */
#include "lresolve.h"

#include "laddr.h"
#include "lreport.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- states of waiting functions --------------------------------------------------------------------------------- */

static const char op_key; /* their metatable in the registry */

static int op_dispose(lua_State *L) {
  l_op *op = lua_touserdata(L, 1);
  if (op && op->dispose) op->dispose(op);
  return 0;
}

void *al_op_new(lua_State *L, al_ctx *ctx, size_t size, void (*dispose)(l_op *op)) {
  (void)ctx;
  l_op *op = lua_newuserdatauv(L, size, 0);
  memset(op, 0, size);
  op->dispose = dispose;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &op_key);
  lua_setmetatable(L, -2);
  return op;
}

l_loop *al_check_waiting_loop(lua_State *L, al_ctx *ctx, const char *f) {
  l_loop *loop = al_check_open(L, ctx, 1);
  l_task *task = al_check_wait(L, ctx, f);
  if (task->f.loop != loop) al_raise(L, ctx, AL_C_RuntimeError, "'%s' was called in a task of another loop", f);
  return loop;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static l_addrs *push_list(lua_State *L, size_t n) {
  l_addrs *list = lua_newuserdatauv(L, sizeof *list + n * sizeof list->item[0], 0);
  list->n = 0;
  return list;
}

static void add(l_addrs *list, int family, int type, int proto, const struct sockaddr *sa, socklen_t len) {
  size_t i = list->n++;
  struct addrinfo *ai = &list->item[i].ai;
  memcpy(&list->item[i].ss, sa, len);
  *ai = (struct addrinfo){.ai_family = family,
                          .ai_socktype = type,
                          .ai_protocol = proto,
                          .ai_addr = (struct sockaddr *)&list->item[i].ss,
                          .ai_addrlen = len};
  if (i > 0) list->item[i - 1].ai.ai_next = ai;
}

static size_t count(const struct addrinfo *ai) {
  size_t n = 0;
  for (; ai; ai = ai->ai_next) n++;
  return n;
}

static void add_all(l_addrs *list, const struct addrinfo *ai) {
  for (; ai; ai = ai->ai_next) add(list, ai->ai_family, ai->ai_socktype, ai->ai_protocol, ai->ai_addr, ai->ai_addrlen);
}

l_addrs *al_addrs_join(lua_State *L, const struct addrinfo *a, const struct addrinfo *b) {
  l_addrs *list = push_list(L, count(a) + count(b));
  add_all(list, a);
  add_all(list, b);
  return list;
}

static lua_Integer int_field(lua_State *L, const char *name) {
  lua_Integer n = 0;
  if (lua_getfield(L, -1, name) != LUA_TNIL) n = al_checkinteger(L, -1);
  lua_pop(L, 1);
  return n;
}

/* Replaces the table on top, as of getaddrinfo, by a list. */
static void list_of_table(lua_State *L, al_ctx *ctx) {
  int table = lua_gettop(L);
  if (!lua_istable(L, table)) luaL_error(L, "getaddrinfo() must return a table, got %s", luaL_typename(L, table));
  lua_Integer n = luaL_len(L, table);
  l_addrs *list = push_list(L, (size_t)n);
  for (lua_Integer i = 1; i <= n; i++) {
    al_addr addr;
    if (lua_geti(L, table, i) != LUA_TTABLE)
      luaL_error(L, "getaddrinfo() must return a list of tables, got a %s in it", luaL_typename(L, -1));
    int family = (int)int_field(L, "family"), type = (int)int_field(L, "type"), proto = (int)int_field(L, "proto");
    lua_getfield(L, -1, "sockaddr");
    al_check_addr(L, ctx, lua_gettop(L), family, &addr);
    add(list, addr.ss.ss_family, type ? type : SOCK_STREAM, proto, (struct sockaddr *)&addr.ss, addr.len);
    lua_pop(L, 2);
  }
  lua_replace(L, table);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

void al_question_dispose(l_question *q) {
  if (q->request) al_resolve_cancel(q->request);
  q->request = NULL;
  if (q->found) freeaddrinfo(q->found);
  q->found = NULL;
}

static void on_resolved(void *data, int error, struct addrinfo *res) {
  l_question *q = data;
  q->request = NULL;
  q->error = error;
  q->found = res;
  if (q->asked_ns) q->answered_ns = al_time_ns();
  al_wake(&q->wait);
}

static void question_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  al_question_dispose((l_question *)(void *)wait);
}

/* Debug mode: how long it took; slow ones are of interest to everybody. */
static void log_question(lua_State *L, al_ctx *ctx, const l_question *q) {
  char text[256];
  if (!q->answered_ns) return;
  int64_t took_ns = q->answered_ns - q->asked_ns;
  const char *host = lua_tostring(L, q->host), *service = al_check_service(L, ctx, q->host + 1);
  snprintf(text, sizeof text, "Getting address info %s:%s took %.3fms: %s", host ? host : "*", service ? service : "",
           (double)took_ns / 1e6, q->error ? al_strerror(q->error) : "found");
  al_log_line(ctx, took_ns >= ctx->current->f.loop->slow_ns ? AL_LOG_INFO : AL_LOG_DEBUG, NULL, text);
  lua_pop(L, 1);
}

static int question_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  l_question *q = (l_question *)(void *)wait;
  log_question(L, ctx, q);
  if (q->error) return al_raise_os(L, ctx, q->error, NULL, NULL);
  al_addrs_join(L, q->found, NULL);
  al_question_dispose(q);
  return q->answered(L, ctx, q->op);
}

static const l_wait_kind asking = {question_finish, question_abandon, "name lookup"};

/* The port at arg if it is a number, be it as a string; nil and "" are 0; else -1. */
static long numeric_port(lua_State *L, al_ctx *ctx, int arg) {
  const char *service = al_check_service(L, ctx, arg);
  long port = !service ? 0 : service[strspn(service, "0123456789")] ? -1 : strtol(service, NULL, 10);
  lua_pop(L, 1);
  return port;
}

/* The numeric address at host with the port behind it, a number too; false if there are names to look up. */
static bool read_numeric(lua_State *L, al_ctx *ctx, int host, al_addr *addr) {
  long port = numeric_port(L, ctx, host + 1);
  if (port < 0 || lua_type(L, host) != LUA_TSTRING) return false;
  const char *text = lua_tostring(L, host);
  if (strchr(text, '%') || strlen(text) != lua_rawlen(L, host)) return false;
  return al_addr_ip(addr, text, (uint16_t)port, 0, 0) == 0;
}

/* Pushes the list if the host at host is numeric and the port behind it a number. */
static bool answer_at_once(lua_State *L, al_ctx *ctx, const l_question *q, int host) {
  const struct addrinfo *h = &q->hints;
  al_addr addr;
  int type = h->ai_socktype, proto = type == SOCK_DGRAM ? IPPROTO_UDP : IPPROTO_TCP;
  if (!read_numeric(L, ctx, host, &addr)) return false;
  if (h->ai_protocol && h->ai_protocol != IPPROTO_TCP && h->ai_protocol != IPPROTO_UDP) return false;
  if (h->ai_family != AF_UNSPEC && h->ai_family != addr.ss.ss_family) return false;
  add(push_list(L, 1), addr.ss.ss_family, type, proto, (struct sockaddr *)&addr.ss, addr.len);
  return true;
}

static int loop_getaddrinfo(lua_State *L);

static void push_option(lua_State *L, const char *name, int value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static int script_answered(lua_State *L, int status, lua_KContext question) {
  (void)status;
  l_question *q = (l_question *)question;
  al_ctx *ctx = al_ctx_of(L);
  list_of_table(L, ctx);
  return q->answered(L, ctx, q->op);
}

/* The function on top is the loop's getaddrinfo of a script. */
static int ask_script(lua_State *L, l_question *q, int host) {
  lua_pushvalue(L, 1);
  lua_pushvalue(L, host);
  lua_pushvalue(L, host + 1);
  lua_createtable(L, 0, 4);
  push_option(L, "family", q->hints.ai_family);
  push_option(L, "type", q->hints.ai_socktype);
  push_option(L, "proto", q->hints.ai_protocol);
  push_option(L, "flags", q->hints.ai_flags);
  lua_callk(L, 4, 1, (lua_KContext)q, script_answered);
  return script_answered(L, LUA_OK, (lua_KContext)q);
}

/* Begins to look up; the task waits for q->wait. */
static void begin(lua_State *L, al_ctx *ctx, l_loop *loop, l_question *q, int host) {
  const char *name = al_check_host(L, ctx, host), *service = al_check_service(L, ctx, host + 1);
  q->host = host;
  q->asked_ns = al_loop_debug(loop->loop) ? al_time_ns() : 0;
  q->answered_ns = 0;
  int err = al_getaddrinfo(loop->loop, name, service, &q->hints, q, on_resolved, &q->request);
  lua_pop(L, 1);
  if (err) al_raise_os(L, ctx, err, NULL, NULL);
}

int al_question_ask(lua_State *L, al_ctx *ctx, l_loop *loop, l_op *op, l_question *q, int host,
                    l_answered_fn *answered) {
  q->op = op;
  q->answered = answered;
  if (answer_at_once(L, ctx, q, host)) return answered(L, ctx, op);
  if (lua_getfield(L, 1, "getaddrinfo") == LUA_TFUNCTION && lua_tocfunction(L, -1) != loop_getaddrinfo)
    return ask_script(L, q, host);
  lua_pop(L, 1);
  begin(L, ctx, loop, q, host);
  return al_wait(L, ctx, &q->wait, &asking);
}

/* ---- loop:getaddrinfo(host, port, {family, type, proto, flags}) -------------------------------------------------- */

typedef struct getaddrinfo_op {
  l_op base;
  l_question q;
} getaddrinfo_op;

static void getaddrinfo_dispose(l_op *op) { al_question_dispose(&((getaddrinfo_op *)(void *)op)->q); }

static void push_info(lua_State *L, const struct addrinfo *ai) {
  al_addr addr = {.len = ai->ai_addrlen};
  memcpy(&addr.ss, ai->ai_addr, ai->ai_addrlen);
  lua_createtable(L, 0, 5);
  push_option(L, "family", ai->ai_family);
  push_option(L, "type", ai->ai_socktype);
  push_option(L, "proto", ai->ai_protocol);
  lua_pushstring(L, ai->ai_canonname ? ai->ai_canonname : "");
  lua_setfield(L, -2, "canonname");
  al_pushaddr(L, &addr);
  lua_setfield(L, -2, "sockaddr");
}

/* Pushes the array of what was found, or raises the error. */
static int push_found(lua_State *L, al_ctx *ctx, l_question *q) {
  if (q->error) return al_raise_os(L, ctx, q->error, NULL, NULL);
  lua_newtable(L);
  lua_Integer n = 0;
  for (const struct addrinfo *ai = q->found; ai; ai = ai->ai_next) {
    push_info(L, ai);
    lua_rawseti(L, -2, ++n);
  }
  al_question_dispose(q);
  return 1;
}

static int getaddrinfo_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  l_question *q = (l_question *)(void *)wait;
  log_question(L, ctx, q);
  return push_found(L, ctx, q);
}

static const l_wait_kind listing = {getaddrinfo_finish, question_abandon, "name lookup"};

/* An integer option of the table at 4; 0 if it isn't given. */
static int int_option(lua_State *L, const char *name) {
  int isint = 1;
  lua_Integer n = 0;
  if (al_option(L, 4, name) != LUA_TNIL) n = lua_tointegerx(L, -1, &isint);
  if (!isint || n != (int)n) al_option_error(L, "getaddrinfo", name, "integer", -1);
  lua_pop(L, 1);
  return (int)n;
}

/* Numbers alone need no name server and no thread. */
static int list_numeric(lua_State *L, al_ctx *ctx, l_question *q) {
  const char *service = al_check_service(L, ctx, 3);
  q->hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  int code = getaddrinfo(lua_tostring(L, 2), service, &q->hints, &q->found);
  if (code) q->error = code == EAI_SYSTEM ? -errno : AL_EAI(code);
  return push_found(L, ctx, q);
}

static int loop_getaddrinfo(lua_State *L) {
  static const char *const names[] = {"family", "type", "proto", "flags", NULL};
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "getaddrinfo");
  if (!lua_isnoneornil(L, 2) && lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
  al_options(L, 4, "getaddrinfo", names);
  lua_settop(L, 4);
  getaddrinfo_op *op = al_op_new(L, ctx, sizeof *op, getaddrinfo_dispose);
  op->q.hints = (struct addrinfo){.ai_family = int_option(L, "family"),
                                  .ai_socktype = int_option(L, "type"),
                                  .ai_protocol = int_option(L, "proto"),
                                  .ai_flags = int_option(L, "flags")};
  al_addr addr;
  if (read_numeric(L, ctx, 2, &addr)) return list_numeric(L, ctx, &op->q);
  begin(L, ctx, loop, &op->q, 2);
  return al_wait(L, ctx, &op->q.wait, &listing);
}

/* ---- loop:getnameinfo(sockaddr, [flags]) ------------------------------------------------------------------------- */

typedef struct getnameinfo_op {
  l_op base;
  l_wait wait;
  al_resolve *request;
  int error;
  char host[NI_MAXHOST], service[NI_MAXSERV];
} getnameinfo_op;

static void getnameinfo_dispose(l_op *base) {
  getnameinfo_op *op = (getnameinfo_op *)(void *)base;
  if (op->request) al_resolve_cancel(op->request);
  op->request = NULL;
}

static getnameinfo_op *getnameinfo_of(l_wait *wait) {
  return (getnameinfo_op *)(void *)((char *)wait - offsetof(getnameinfo_op, wait));
}

static void getnameinfo_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  getnameinfo_dispose(&getnameinfo_of(wait)->base);
}

static void on_named(void *data, int error, const char *host, const char *service) {
  getnameinfo_op *op = data;
  op->request = NULL;
  op->error = error;
  if (!error) {
    snprintf(op->host, sizeof op->host, "%s", host);
    snprintf(op->service, sizeof op->service, "%s", service);
  }
  al_wake(&op->wait);
}

static int getnameinfo_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  const getnameinfo_op *op = getnameinfo_of(wait);
  if (op->error) return al_raise_os(L, ctx, op->error, NULL, NULL);
  lua_pushstring(L, op->host);
  lua_pushstring(L, op->service);
  return 2;
}

/* As numbers, which need no thread either. */
static int name_numeric(lua_State *L, al_ctx *ctx, const al_addr *addr, int flags) {
  char host[NI_MAXHOST], service[NI_MAXSERV];
  int code =
      getnameinfo((const struct sockaddr *)&addr->ss, addr->len, host, sizeof host, service, sizeof service, flags);
  if (code) return al_raise_os(L, ctx, code == EAI_SYSTEM ? -errno : AL_EAI(code), NULL, NULL);
  lua_pushstring(L, host);
  lua_pushstring(L, service);
  return 2;
}

static const l_wait_kind naming = {getnameinfo_finish, getnameinfo_abandon, "name lookup"};

static int loop_getnameinfo(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, "getnameinfo");
  if (!lua_istable(L, 2)) return al_typeerror(L, 2, "address {host, port}");
  int flags = (int)al_optinteger(L, 3, 0);
  al_addr addr;
  al_check_numeric_addr(L, ctx, 2, &addr);
  static const int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
  if ((flags & numeric) == numeric) return name_numeric(L, ctx, &addr, flags);
  getnameinfo_op *op = al_op_new(L, ctx, sizeof *op, getnameinfo_dispose);
  int err = al_getnameinfo(loop->loop, &addr, flags, op, on_named, &op->request);
  if (err) return al_raise_os(L, ctx, err, NULL, NULL);
  return al_wait(L, ctx, &op->wait, &naming);
}

static const luaL_Reg loop_methods[] = {
    {"getaddrinfo", loop_getaddrinfo}, {"getnameinfo", loop_getnameinfo}, {NULL, NULL}};
static const luaL_Reg op_metamethods[] = {{"__gc", op_dispose}, {"__close", op_dispose}, {NULL, NULL}};

void al_resolve_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  lua_newtable(L);
  luaL_setfuncs(L, op_metamethods, 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &op_key);
}
