/* ldatagram.c - loop:create_datagram_endpoint and DatagramTransport. Addresses are looked up, then each pair of a local
 * and a remote one is tried in order until a socket can be made for it.
 *
 * SPDX-License-Identifier: MIT */
#include "ldatagram.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lendpoint.h"
#include "lnet.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* ---- senders ----------------------------------------------------------------------------------------------------- */

/* Who wrote lately, so that an answer needs neither a new array nor a look at the text of an address. */

#define SENDERS 64 /* a power of two; a place for each, by port */

typedef struct sender {
  const void *host; /* lua_topointer of the string at [1] of its array; NULL: nobody */
  socklen_t len;
  struct sockaddr_in6 sa; /* or the smaller sockaddr_in */
} sender;

/* User values: the arrays, then the strings, which keep `host` a pointer to nothing else. */
typedef struct senders {
  int family; /* of the socket */
  sender at[SENDERS];
} senders;

/* The port stands at the same place in both kinds of addresses. */
static unsigned place_of(unsigned port) { return (port ^ port >> 6) % SENDERS; }

static bool has_integer(lua_State *L, int array, int i, lua_Integer n) {
  lua_rawgeti(L, array, i);
  bool has = lua_isinteger(L, -1) && lua_tointeger(L, -1) == n;
  lua_pop(L, 1);
  return has;
}

/* Is the array at idx the sender's address? A script may have changed the one that it was given. */
static bool is_array_of(lua_State *L, int idx, const sender *s) {
  lua_rawgeti(L, idx, 1);
  bool same = s->host && lua_topointer(L, -1) == s->host;
  lua_pop(L, 1);
  if (!same || !has_integer(L, idx, 2, ntohs(s->sa.sin6_port))) return false;
  if (s->sa.sin6_family == AF_INET) return true;
  return has_integer(L, idx, 3, ntohl(s->sa.sin6_flowinfo)) && has_integer(L, idx, 4, s->sa.sin6_scope_id);
}

static void remember(lua_State *L, int idx, sender *s, int place, const al_addr *addr) { /* the array is on top */
  lua_rawgeti(L, -1, 1);
  s->host = lua_topointer(L, -1);
  lua_setiuservalue(L, idx, SENDERS + place + 1);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, idx, place + 1);
  s->len = addr->len;
  memcpy(&s->sa, &addr->ss, addr->len);
}

void al_senders_push(lua_State *L, int idx, const al_addr *addr) {
  senders *all = lua_touserdata(L, idx);
  bool ip = addr->len >= sizeof(sa_family_t) && (addr->ss.ss_family == AF_INET || addr->ss.ss_family == AF_INET6);
  if (!ip) {
    if (addr->len)
      al_pushaddr(L, addr);
    else
      lua_pushnil(L); /* a Unix socket without a name */
    return;
  }
  unsigned place = place_of(ntohs(((const struct sockaddr_in *)&addr->ss)->sin_port));
  sender *s = &all->at[place];
  if (s->len == addr->len && memcmp(&s->sa, &addr->ss, addr->len) == 0) {
    lua_getiuservalue(L, idx, (int)place + 1);
    if (is_array_of(L, lua_gettop(L), s)) return;
    lua_pop(L, 1);
  }
  al_pushaddr(L, addr);
  remember(L, idx, s, (int)place, addr);
}

/* The address at arg; 0, or the error of looking it up. */
static int find_addr(lua_State *L, al_ctx *ctx, const senders *all, int arg, al_addr *addr) {
  if (lua_istable(L, arg)) {
    lua_rawgeti(L, arg, 2);
    const sender *s = &all->at[place_of((unsigned)lua_tointeger(L, -1))];
    lua_pop(L, 1);
    if (is_array_of(L, arg, s)) {
      addr->len = s->len;
      memcpy(&addr->ss, &s->sa, s->len);
      return 0;
    }
  }
  return al_find_addr(L, ctx, arg, all->family, addr);
}

/* ---- DatagramTransport ------------------------------------------------------------------------------------------- */

static int datagram_open(const void *how, al_loop *loop, int fd, al_protocol *protocol, al_handle *started,
                         al_transport **made) {
  const al_addr *remote = how;
  return al_datagram_new(loop, fd, remote && remote->len ? remote : NULL, protocol, started, made);
}

static void datagram_fill(lua_State *L, int box, int fd) {
  senders *all = lua_newuserdatauv(L, sizeof *all, 2 * SENDERS);
  socklen_t len = sizeof all->family;
  memset(all, 0, sizeof *all);
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &all->family, &len);
  lua_setiuservalue(L, box, AL_TRANSPORT_UV_OWN);
}

static const l_transport_kind datagram_kind = {
    .class = AL_C_DatagramTransport, .own_values = 1, .open = datagram_open, .fill = datagram_fill};

static int raise_sendto(lua_State *L, al_ctx *ctx, l_transport *t, int err) {
  al_addr remote;
  char text[AL_ADDR_STRLEN];
  if (err == -EDESTADDRREQ)
    return al_raise(L, ctx, AL_C_ValueError, "sendto needs an address: the endpoint has no remote address");
  if (err != -EISCONN || al_datagram_remote(t->t, &remote)) return al_raise_os(L, ctx, err, NULL, NULL);
  return al_raise(L, ctx, AL_C_ValueError, "Invalid address: must be nil or %s",
                  al_addr_format(&remote, text, sizeof text));
}

/* sendto(data, [addr]) */
static int datagram_sendto(lua_State *L) {
  l_transport *t = al_check_transport(L, 1);
  if (t->class != AL_C_DatagramTransport) return al_typeerror(L, 1, "DatagramTransport");
  size_t len;
  bool is_string = lua_type(L, 2) == LUA_TSTRING, has_addr = !lua_isnoneornil(L, 3);
  const char *data = is_string ? lua_tolstring(L, 2, &len) : al_check_bytes(L, t->ctx, 2, &len);
  al_addr addr;
  int err = 0;
  if (has_addr) {
    lua_getiuservalue(L, 1, AL_TRANSPORT_UV_OWN);
    err = find_addr(L, t->ctx, lua_touserdata(L, -1), 3, &addr);
    lua_pop(L, 1);
  }
  err = err ? al_datagram_sendto_failed(t->t, err) : al_datagram_sendto(t->t, data, len, has_addr ? &addr : NULL);
  return err ? raise_sendto(L, t->ctx, t, err) : 0;
}

/* ---- create_datagram_endpoint(factory, local_addr, remote_addr, {options}) --------------------------------------- */

enum { LOOP = 1, FACTORY, LOCAL, REMOTE, OPTIONS, STATE, LOCAL_ADDRS, REMOTE_ADDRS };

static const char *const f = "create_datagram_endpoint";
static const char *const option_names[] = {"family",          "proto", "flags",         "reuse_port",
                                           "allow_broadcast", "sock",  "reuse_address", NULL};

typedef struct making {
  l_endpoint base;
  l_question question;
  al_datagram_options options;
  al_addr local, remote; /* the pair that is tried; remote then is the transport's */
} making;

static making *making_of(l_op *op) { return (making *)(void *)op; }

static void making_dispose(l_op *op) {
  al_question_dispose(&making_of(op)->question);
  al_endpoint_dispose(&making_of(op)->base);
}

typedef struct attempt { /* the first that failed */
  int error;
  al_addr addr; /* that would not do; len 0: none */
} attempt;

static void set_addr(al_addr *addr, const struct addrinfo *ai) {
  addr->len = ai ? ai->ai_addrlen : 0;
  if (ai) memcpy(&addr->ss, ai->ai_addr, ai->ai_addrlen);
}

/* Makes the socket for m->local and m->remote. */
static bool try_pair(making *m, attempt *first) {
  const al_addr *bad;
  m->options.local = m->local.len ? &m->local : NULL;
  m->options.remote = m->remote.len ? &m->remote : NULL;
  int fd = al_datagram_open(&m->options, &bad);
  if (fd >= 0) {
    m->base.fd = fd;
    return true;
  }
  if (!first->error) {
    first->error = fd;
    if (bad) first->addr = *bad;
  }
  return false;
}

/* One of them may be NULL. */
static bool try_with(making *m, const struct addrinfo *local, const struct addrinfo *remote, attempt *first) {
  const struct addrinfo *ai = local ? local : remote;
  if (local && remote && (local->ai_family != remote->ai_family || local->ai_protocol != remote->ai_protocol))
    return false;
  m->options.family = ai->ai_family;
  m->options.proto = ai->ai_protocol;
  set_addr(&m->local, local);
  set_addr(&m->remote, remote);
  return try_pair(m, first);
}

/* Tries all pairs of addresses of one family and protocol, in order. False: first->error, or 0 if there was no pair. */
static bool try_all(making *m, const struct addrinfo *locals, const struct addrinfo *remotes, attempt *first) {
  const struct addrinfo *l = locals;
  do {
    const struct addrinfo *r = remotes;
    do {
      if (try_with(m, l, r, first)) return true;
      r = r ? r->ai_next : NULL;
    } while (r);
    l = l ? l->ai_next : NULL;
  } while (l);
  return false;
}

static int raise_attempt(lua_State *L, al_ctx *ctx, const attempt *failed) {
  char text[AL_ADDR_STRLEN];
  if (!failed->addr.len) return al_raise_os(L, ctx, failed->error, NULL, NULL);
  al_addr_format(&failed->addr, text, sizeof text);
  if (failed->addr.ss.ss_family == AF_UNIX) return al_raise_os(L, ctx, failed->error, NULL, text);
  lua_pushfstring(L, "%s: %s", al_strerror(failed->error), text);
  return al_raise_os(L, ctx, failed->error, lua_tostring(L, -1), NULL);
}

/* The socket is made. */
static int make_transport(lua_State *L, al_ctx *ctx, making *m) {
  return al_endpoint_make(L, ctx, &m->base, FACTORY, &datagram_kind, &m->remote, NULL);
}

static int try_found(lua_State *L, al_ctx *ctx, making *m) {
  attempt first = {.error = 0};
  if (try_all(m, al_addrs_first(lua_touserdata(L, LOCAL_ADDRS)), al_addrs_first(lua_touserdata(L, REMOTE_ADDRS)),
              &first))
    return make_transport(L, ctx, m);
  if (!first.error) return al_raise(L, ctx, AL_C_ValueError, "can not get address information");
  return raise_attempt(L, ctx, &first);
}

/* ---- looking up -------------------------------------------------------------------------------------------------- */

static int look_up_remote(lua_State *L, al_ctx *ctx, making *m);

static void check_not_empty(lua_State *L, al_ctx *ctx) {
  const l_addrs *list = lua_touserdata(L, -1);
  if (list->n == 0) al_raise(L, ctx, AL_C_OSError, "getaddrinfo() returned empty list");
}

/* Looks up the address at arg. */
static int look_up(lua_State *L, al_ctx *ctx, making *m, int arg, l_answered_fn *answered) {
  int host = lua_gettop(L) + 1;
  lua_geti(L, arg, 1);
  lua_geti(L, arg, 2);
  lua_geti(L, arg, 4);
  if (lua_toboolean(L, -1) && lua_tointeger(L, -1) && !strchr(lua_tostring(L, host), '%')) { /* a scope */
    lua_pushfstring(L, "%s%%%I", lua_tostring(L, host), (LUAI_UACINT)lua_tointeger(L, -1));
    lua_replace(L, host);
  }
  lua_settop(L, host + 1);
  return al_question_ask(L, ctx, m->base.loop, &m->base.base, &m->question, host, answered);
}

static int on_remote(lua_State *L, al_ctx *ctx, l_op *op) {
  check_not_empty(L, ctx);
  lua_replace(L, REMOTE_ADDRS);
  lua_settop(L, REMOTE_ADDRS);
  return try_found(L, ctx, making_of(op));
}

static int look_up_remote(lua_State *L, al_ctx *ctx, making *m) {
  if (lua_isnil(L, REMOTE)) return try_found(L, ctx, m);
  return look_up(L, ctx, m, REMOTE, on_remote);
}

static int on_local(lua_State *L, al_ctx *ctx, l_op *op) {
  check_not_empty(L, ctx);
  lua_replace(L, LOCAL_ADDRS);
  lua_settop(L, REMOTE_ADDRS);
  return look_up_remote(L, ctx, making_of(op));
}

/* ---- ways to a socket -------------------------------------------------------------------------------------------- */

static int make_unix(lua_State *L, al_ctx *ctx, making *m) {
  attempt first = {.error = 0};
  for (int arg = LOCAL; arg <= REMOTE; arg++) {
    if (!lua_isnil(L, arg) && lua_type(L, arg) != LUA_TSTRING) return al_typeerror(L, arg, "string");
  }
  if (!lua_isnil(L, LOCAL) && lua_rawlen(L, LOCAL)) al_check_unix_path(L, ctx, LOCAL, &m->local);
  if (!lua_isnil(L, REMOTE) && lua_rawlen(L, REMOTE)) al_check_unix_path(L, ctx, REMOTE, &m->remote);
  return try_pair(m, &first) ? make_transport(L, ctx, m) : raise_attempt(L, ctx, &first);
}

static void check_address(lua_State *L, int arg) {
  if (lua_isnil(L, arg)) return;
  bool ok = lua_istable(L, arg);
  if (ok) {
    int host = lua_geti(L, arg, 1), port = lua_geti(L, arg, 2);
    ok = (host == LUA_TSTRING || host == LUA_TNIL) && port != LUA_TNIL && al_is_service(L, -1);
    lua_pop(L, 2);
  }
  if (!ok) al_typeerror(L, arg, "address {host, port}");
}

static int make_named(lua_State *L, al_ctx *ctx, making *m) {
  check_address(L, LOCAL);
  check_address(L, REMOTE);
  if (lua_isnil(L, LOCAL)) return look_up_remote(L, ctx, m);
  return look_up(L, ctx, m, LOCAL, on_local);
}

/* What would change a socket has no meaning for one that is given. */
static void check_no_modifiers(lua_State *L, al_ctx *ctx) {
  static const char *const names[] = {"family", "proto", "flags", "reuse_port", "allow_broadcast", NULL};
  const char *problem = !lua_isnil(L, LOCAL) ? "local_addr" : !lua_isnil(L, REMOTE) ? "remote_addr" : NULL;
  for (const char *const *name = names; *name && !problem; name++) {
    int type = al_option(L, OPTIONS, *name);
    if (lua_toboolean(L, -1) && !(type == LUA_TNUMBER && lua_tointeger(L, -1) == 0)) problem = *name;
    lua_pop(L, 1);
  }
  if (problem)
    al_raise(L, ctx, AL_C_ValueError, "socket modifier keyword arguments can not be used when sock is specified. (%s)",
             problem);
}

/* The socket on top. */
static int make_given(lua_State *L, al_ctx *ctx, making *m) {
  l_given given;
  int idx = lua_gettop(L);
  check_no_modifiers(L, ctx);
  al_check_given(L, ctx, m->base.loop->loop, idx, &given);
  if (given.type == SOCK_STREAM)
    return al_raise(L, ctx, AL_C_ValueError, "A datagram socket was expected, got %s", luaL_tolstring(L, idx, NULL));
  return al_endpoint_make(L, ctx, &m->base, FACTORY, &datagram_kind, NULL, &given);
}

static void read_options(lua_State *L, al_ctx *ctx, making *m) {
  if (al_option_given(L, OPTIONS, "reuse_address"))
    al_raise(L, ctx, AL_C_ValueError, "reuse_address is not supported: it is unsafe for UDP (reuse_port may do)");
  m->options = (al_datagram_options){.family = al_int_option(L, OPTIONS, f, "family", AF_UNSPEC),
                                     .proto = al_int_option(L, OPTIONS, f, "proto", 0),
                                     .reuse_port = al_bool_option(L, OPTIONS, f, "reuse_port", false),
                                     .allow_broadcast = al_bool_option(L, OPTIONS, f, "allow_broadcast", false)};
  m->question.hints = (struct addrinfo){.ai_family = m->options.family,
                                        .ai_protocol = m->options.proto,
                                        .ai_flags = al_int_option(L, OPTIONS, f, "flags", 0),
                                        .ai_socktype = SOCK_DGRAM};
}

/* Without addresses: a socket of the family, for whatever sendto is told. */
static int make_bare(lua_State *L, al_ctx *ctx, making *m) {
  attempt first = {.error = 0};
  if (m->options.family == AF_UNSPEC) return al_raise(L, ctx, AL_C_ValueError, "unexpected address family");
  return try_pair(m, &first) ? make_transport(L, ctx, m) : raise_attempt(L, ctx, &first);
}

static int loop_create_datagram_endpoint(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_waiting_loop(L, ctx, f);
  al_check_callable(L, FACTORY);
  al_options(L, OPTIONS, f, option_names);
  lua_settop(L, OPTIONS);
  making *m = al_endpoint_new(L, ctx, loop, sizeof *m, making_dispose);
  read_options(L, ctx, m);
  lua_settop(L, REMOTE_ADDRS);
  if (al_sock_option(L, OPTIONS, f)) return make_given(L, ctx, m);
  if (lua_isnil(L, LOCAL) && lua_isnil(L, REMOTE)) return make_bare(L, ctx, m);
  return m->options.family == AF_UNIX ? make_unix(L, ctx, m) : make_named(L, ctx, m);
}

static const luaL_Reg loop_methods[] = {{"create_datagram_endpoint", loop_create_datagram_endpoint}, {NULL, NULL}};
static const luaL_Reg transport_methods[] = {{"sendto", datagram_sendto}, {NULL, NULL}};

void al_datagram_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_class_methods(L, ctx, AL_C_DatagramTransport, transport_methods);
  al_transport_write_side(L, ctx, AL_C_DatagramTransport);
}
