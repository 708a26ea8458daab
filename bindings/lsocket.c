/* lsocket.c - aloop.socket, Python's module of that name as far as a loop's programs need it. Each method is one system
 * call on a non-blocking socket; nothing here knows how to wait.
 *
 * SPDX-License-Identifier: MIT */
#include "lsocket.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lfd.h"
#include "lsockops.h"
#include "ltransport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A system call, again as long as a signal comes in between. */
#define RETRY(result, call) \
  do {                      \
    (result) = (call);      \
  } while ((result) < 0 && errno == EINTR)

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

int al_socket_fd(const l_socket *s) {
  if (s->transport) return al_transport_fd(s->transport);
  if (s->server) return al_server_is_closed(s->server) ? -1 : s->fd;
  return s->fd;
}

static int get_int(int fd, int option) {
  int value = 0;
  socklen_t len = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -errno : value;
}

static void learn(l_socket *s, int fd) {
  s->family = get_int(fd, SO_DOMAIN);
  s->type = get_int(fd, SO_TYPE);
  s->proto = get_int(fd, SO_PROTOCOL);
}

static l_socket *new_socket(lua_State *L, al_ctx *ctx, al_class class) {
  l_socket *s = al_new(L, ctx, class, sizeof *s, 0);
  s->fd = -1;
  return s;
}

void al_push_transport_socket(lua_State *L, al_ctx *ctx, al_transport *transport) {
  l_socket *s = new_socket(L, ctx, AL_C_TransportSocket);
  al_transport_hold(transport);
  s->transport = transport;
  learn(s, al_transport_fd(transport));
}

void al_push_server_socket(lua_State *L, al_ctx *ctx, al_server *server, int fd) {
  l_socket *s = new_socket(L, ctx, AL_C_TransportSocket);
  al_server_hold(server);
  s->server = server;
  s->fd = fd;
  learn(s, fd);
}

static void close_own(l_socket *s) {
  if (s->fd >= 0 && !s->transport && !s->server) {
    al_sockops_closing(s);
    close(s->fd);
  }
  if (!s->server) s->fd = -1;
}

/* A Socket or TransportSocket, or NULL. */
static l_socket *test_any(lua_State *L, int idx) {
  al_ctx *ctx = al_ctx_of(L);
  l_socket *s = al_test(L, ctx, idx, AL_C_TransportSocket);
  return s ? s : al_test(L, ctx, idx, AL_C_Socket);
}

static int socket_gc(lua_State *L) {
  l_socket *s = test_any(L, 1);
  if (!s) return 0;
  close_own(s);
  if (s->transport) al_transport_release(s->transport);
  if (s->server) al_server_release(s->server);
  s->transport = NULL;
  s->server = NULL;
  s->fd = -1;
  return 0;
}

/* ---- sockets given to others ------------------------------------------------------------------------------------- */

static bool has_method(lua_State *L, int idx, const char *name) {
  bool has = al_push_method(L, idx, name);
  if (has) lua_pop(L, 1);
  return has;
}

bool al_may_be_socket(lua_State *L, int idx) {
  return test_any(L, idx) || has_method(L, idx, "fileno") || has_method(L, idx, "getfd");
}

void al_check_given(lua_State *L, al_ctx *ctx, al_loop *loop, int idx, l_given *given) {
  *given = (l_given){.idx = idx, .socket = al_test(L, ctx, idx, AL_C_Socket)};
  given->fd = given->socket ? al_socket_fd(given->socket) : al_check_fd(L, ctx, idx);
  given->type = get_int(given->fd, SO_TYPE);
  given->family = get_int(given->fd, SO_DOMAIN);
  if (given->type == -ENOTSOCK)
    al_raise(L, ctx, AL_C_ValueError, "A socket was expected, got %s", luaL_tolstring(L, idx, NULL));
  if (given->type < 0) al_raise_os(L, ctx, given->type, NULL, NULL);
  al_check_fd_free(L, ctx, loop, given->fd);
  if (al_test(L, ctx, idx, AL_C_TransportSocket) || (given->socket && given->socket->server))
    al_raise(L, ctx, AL_C_RuntimeError, "%s is used by a server", luaL_tolstring(L, idx, NULL));
  given->lends = !given->socket && has_method(L, idx, "close") && !has_method(L, idx, "setfd");
}

int al_given_fd(lua_State *L, al_ctx *ctx, const l_given *given) {
  int fd = given->lends ? fcntl(given->fd, F_DUPFD_CLOEXEC, 0) : given->fd;
  int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)) return fd;
  int err = -errno;
  if (given->lends && fd >= 0) close(fd);
  return al_raise_os(L, ctx, err, NULL, NULL);
}

void al_given_taken(lua_State *L, const l_given *given, al_transport *transport, al_server *server) {
  l_socket *s = given->socket;
  if (s) {
    if (transport) al_transport_hold(transport);
    if (server) al_server_hold(server);
    s->transport = transport;
    s->server = server;
  } else if (!given->lends && al_push_method(L, given->idx, "setfd")) { /* luasocket's: it shall not close it, too */
    lua_pushvalue(L, given->idx);
    lua_pushinteger(L, -1);
    lua_call(L, 2, 0);
  }
}

/* ---- self -------------------------------------------------------------------------------------------------------- */

static l_socket *check_socket(lua_State *L) { return al_check(L, al_ctx_of(L), 1, AL_C_Socket); }

/* The open descriptor of a Socket. */
static int check_fd(lua_State *L) {
  int fd = al_socket_fd(check_socket(L));
  if (fd < 0) al_raise_os(L, al_ctx_of(L), -EBADF, NULL, NULL);
  return fd;
}

static l_socket *check_any(lua_State *L) {
  l_socket *s = test_any(L, 1);
  return s ? s : check_socket(L);
}

/* The open descriptor of a Socket or TransportSocket. */
static int check_any_fd(lua_State *L) {
  int fd = al_socket_fd(check_any(L));
  if (fd < 0) al_raise_os(L, al_ctx_of(L), -EBADF, NULL, NULL);
  return fd;
}

static int raise_errno(lua_State *L) { return al_raise_os(L, al_ctx_of(L), -errno, NULL, NULL); }

static int check_int(lua_State *L, int arg) {
  lua_Integer n = al_checkinteger(L, arg);
  luaL_argcheck(L, n >= INT_MIN && n <= INT_MAX, arg, "number out of range");
  return (int)n;
}

static int opt_int(lua_State *L, int arg, int otherwise) {
  return lua_isnoneornil(L, arg) ? otherwise : check_int(L, arg);
}

/* ---- methods of both kinds --------------------------------------------------------------------------------------- */

static int socket_fileno(lua_State *L) {
  lua_pushinteger(L, al_socket_fd(check_any(L)));
  return 1;
}

static int socket_dup(lua_State *L) {
  const l_socket *from = check_any(L);
  l_socket *s = new_socket(L, al_ctx_of(L), AL_C_Socket);
  s->fd = fcntl(check_any_fd(L), F_DUPFD_CLOEXEC, 0);
  if (s->fd < 0) return raise_errno(L);
  learn(s, s->fd);
  s->blocking = from->blocking;
  return 1;
}

static int push_name(lua_State *L, int (*get)(int fd, struct sockaddr *sa, socklen_t *len)) {
  al_addr addr = {.len = sizeof addr.ss};
  if (get(check_any_fd(L), (struct sockaddr *)&addr.ss, &addr.len) < 0) return raise_errno(L);
  al_pushaddr(L, &addr);
  return 1;
}

static int socket_getsockname(lua_State *L) { return push_name(L, getsockname); }
static int socket_getpeername(lua_State *L) { return push_name(L, getpeername); }

/* getsockopt(level, option, [size]) → an integer, or with size a string of at most that many bytes */
static int socket_getsockopt(lua_State *L) {
  int fd = check_any_fd(L), level = check_int(L, 2), option = check_int(L, 3), size = opt_int(L, 4, 0);
  char bytes[1024];
  if (size < 0 || size > (int)sizeof bytes)
    return al_raise(L, al_ctx_of(L), AL_C_ValueError, "getsockopt size out of range");
  if (size == 0) {
    int value = 0;
    socklen_t len = sizeof value;
    if (getsockopt(fd, level, option, &value, &len) < 0) return raise_errno(L);
    lua_pushinteger(L, value);
    return 1;
  }
  socklen_t len = (socklen_t)size;
  if (getsockopt(fd, level, option, bytes, &len) < 0) return raise_errno(L);
  lua_pushlstring(L, bytes, len);
  return 1;
}

/* setsockopt(level, option, value): an integer, a boolean, or a packed string */
static int socket_setsockopt(lua_State *L) {
  int fd = check_any_fd(L), level = check_int(L, 2), option = check_int(L, 3), value = 0;
  const void *data = &value;
  size_t len = sizeof value;
  switch (lua_type(L, 4)) {
  case LUA_TBOOLEAN: value = lua_toboolean(L, 4); break;
  case LUA_TSTRING: data = lua_tolstring(L, 4, &len); break;
  case LUA_TNUMBER: value = check_int(L, 4); break;
  default: return al_typeerror(L, 4, "integer, boolean or string");
  }
  return setsockopt(fd, level, option, data, (socklen_t)len) < 0 ? raise_errno(L) : 0;
}

static int socket_shutdown(lua_State *L) {
  int fd = check_any_fd(L), how = check_int(L, 2);
  return shutdown(fd, how) < 0 ? raise_errno(L) : 0;
}

static const char *family_name(int family) {
  return family == AF_INET ? "AF_INET" : family == AF_INET6 ? "AF_INET6" : family == AF_UNIX ? "AF_UNIX" : NULL;
}

static const char *type_name(int type) {
  return type == SOCK_STREAM ? "SOCK_STREAM" : type == SOCK_DGRAM ? "SOCK_DGRAM" : NULL;
}

/* Adds ", key=NAME" or ", key=7". */
static void add_constant(lua_State *L, luaL_Buffer *b, const char *key, const char *name, int value) {
  if (name)
    lua_pushfstring(L, ", %s=%s", key, name);
  else
    lua_pushfstring(L, ", %s=%d", key, value);
  luaL_addvalue(b);
}

static void add_name(lua_State *L, luaL_Buffer *b, const char *key, int fd,
                     int (*get)(int fd, struct sockaddr *sa, socklen_t *len)) {
  al_addr addr = {.len = sizeof addr.ss};
  char text[AL_ADDR_STRLEN];
  if (fd < 0 || get(fd, (struct sockaddr *)&addr.ss, &addr.len) < 0) return;
  al_addr_format(&addr, text, sizeof text);
  if (!*text) return;
  lua_pushfstring(L, ", %s=%s", key, text);
  luaL_addvalue(b);
}

/* Adds <Socket fd=5, family=AF_INET, type=SOCK_STREAM, proto=6, laddr=127.0.0.1:80>. */
static void add_text(lua_State *L, luaL_Buffer *b, const l_socket *s, const char *class) {
  int fd = al_socket_fd(s);
  lua_pushfstring(L, "<%s%s fd=%d", class, fd < 0 ? " [closed]" : "", fd);
  luaL_addvalue(b);
  add_constant(L, b, "family", family_name(s->family), s->family);
  add_constant(L, b, "type", type_name(s->type), s->type);
  add_constant(L, b, "proto", NULL, s->proto);
  add_name(L, b, "laddr", fd, getsockname);
  add_name(L, b, "raddr", fd, getpeername);
  luaL_addchar(b, '>');
}

void al_socket_addtext(lua_State *L, luaL_Buffer *b, int fd) {
  l_socket view = {.fd = fd};
  learn(&view, fd);
  add_text(L, b, &view, "TransportSocket");
}

static int socket_tostring(lua_State *L) {
  const l_socket *s = check_any(L);
  luaL_getmetafield(L, 1, "__name");
  const char *class = lua_tostring(L, -1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  add_text(L, &b, s, class);
  luaL_pushresult(&b);
  return 1;
}

/* The fields family, type, proto; all else stands in the class. */
static int socket_index(lua_State *L) {
  l_socket *s = test_any(L, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  const int *field = !s                           ? NULL
                     : strcmp(key, "family") == 0 ? &s->family
                     : strcmp(key, "type") == 0   ? &s->type
                     : strcmp(key, "proto") == 0  ? &s->proto
                                                  : NULL;
  if (field) {
    lua_pushinteger(L, *field);
    return 1;
  }
  return al_class_lookup(L);
}

/* ---- methods of Socket ------------------------------------------------------------------------------------------- */

/* bind(2) or connect(2) of the Socket at 1 with the address at 2. */
static int call_with_address(lua_State *L, int (*f)(int fd, const struct sockaddr *addr, socklen_t len)) {
  l_socket *s = check_socket(L);
  int fd = check_fd(L);
  al_addr addr;
  al_check_addr(L, al_ctx_of(L), 2, s->family, &addr);
  if (f(fd, (const struct sockaddr *)&addr.ss, addr.len) == 0) return 0;
  return al_raise_os(L, al_ctx_of(L), -errno, NULL, s->family == AF_UNIX ? lua_tostring(L, 2) : NULL);
}

static int socket_bind(lua_State *L) { return call_with_address(L, bind); }
static int socket_connect(lua_State *L) { return call_with_address(L, connect); }

static int socket_listen(lua_State *L) {
  int fd = check_fd(L);
  return listen(fd, opt_int(L, 2, 128)) < 0 ? raise_errno(L) : 0;
}

int al_socket_accept(lua_State *L, al_ctx *ctx, int fd) {
  al_addr peer = {.len = sizeof peer.ss};
  l_socket *s = new_socket(L, ctx, AL_C_Socket);
  RETRY(s->fd, accept4(fd, (struct sockaddr *)&peer.ss, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (s->fd < 0) {
    lua_pop(L, 1);
    return -errno;
  }
  learn(s, s->fd);
  al_pushaddr(L, &peer);
  return 0;
}

static int socket_accept(lua_State *L) {
  int err = al_socket_accept(L, al_ctx_of(L), check_fd(L));
  return err ? al_raise_os(L, al_ctx_of(L), err, NULL, NULL) : 2;
}

/* send(data, [flags]) → bytes sent */
static int socket_send(lua_State *L) {
  int fd = check_fd(L), flags = opt_int(L, 3, 0);
  size_t len;
  const char *data = al_check_bytes(L, al_ctx_of(L), 2, &len);
  ssize_t n;
  RETRY(n, send(fd, data, len, flags | MSG_NOSIGNAL));
  if (n < 0) return raise_errno(L);
  lua_pushinteger(L, n);
  return 1;
}

/* sendto(data, addr) or sendto(data, flags, addr) → bytes sent */
static int socket_sendto(lua_State *L) {
  l_socket *s = check_socket(L);
  int fd = check_fd(L);
  bool has_flags = lua_type(L, 3) == LUA_TNUMBER;
  int flags = has_flags ? check_int(L, 3) : 0;
  size_t len;
  const char *data = al_check_bytes(L, al_ctx_of(L), 2, &len);
  al_addr addr;
  al_check_addr(L, al_ctx_of(L), has_flags ? 4 : 3, s->family, &addr);
  ssize_t n;
  RETRY(n, sendto(fd, data, len, flags | MSG_NOSIGNAL, (struct sockaddr *)&addr.ss, addr.len));
  if (n < 0) return raise_errno(L);
  lua_pushinteger(L, n);
  return 1;
}

static size_t check_size(lua_State *L, int arg) {
  lua_Integer n = al_checkinteger(L, arg);
  if (n < 0) al_raise(L, al_ctx_of(L), AL_C_ValueError, "negative buffersize in recv");
  return (size_t)n;
}

/* Receives up to the size at 2 and pushes it: nil at the end of a stream. addr may be NULL. */
static int receive(lua_State *L, al_addr *addr) {
  l_socket *s = check_socket(L);
  int fd = check_fd(L), flags = opt_int(L, 3, 0);
  size_t size = check_size(L, 2);
  luaL_Buffer b;
  char *data = luaL_buffinitsize(L, &b, size);
  ssize_t n;
  struct sockaddr *sa = addr ? (struct sockaddr *)&addr->ss : NULL;
  RETRY(n, recvfrom(fd, data, size, flags, sa, addr ? &addr->len : NULL));
  if (n < 0) return raise_errno(L);
  luaL_pushresultsize(&b, (size_t)n);
  if (n == 0 && size > 0 && s->type == SOCK_STREAM) lua_pushnil(L);
  return 1;
}

static int socket_recv(lua_State *L) { return receive(L, NULL); }

static void push_sender(lua_State *L, const al_addr *addr) {
  if (addr->len)
    al_pushaddr(L, addr);
  else
    lua_pushnil(L);
}

static int socket_recvfrom(lua_State *L) {
  al_addr addr = {.len = sizeof addr.ss};
  receive(L, &addr);
  push_sender(L, &addr);
  return 2;
}

/* Receives into the buffer at 2, at most the size at 3 (nil or 0: all of it), and pushes how much. */
static int receive_into(lua_State *L, al_addr *addr) {
  int fd = check_fd(L), flags = opt_int(L, 4, 0);
  l_buffer *buffer = al_test_buffer(L, al_ctx_of(L), 2);
  if (!buffer) return al_typeerror(L, 2, "buffer");
  size_t size = lua_isnoneornil(L, 3) ? 0 : check_size(L, 3);
  if (size > buffer->size) return al_raise(L, al_ctx_of(L), AL_C_ValueError, "buffer too small for requested bytes");
  if (size == 0) size = buffer->size;
  ssize_t n;
  struct sockaddr *sa = addr ? (struct sockaddr *)&addr->ss : NULL;
  RETRY(n, recvfrom(fd, buffer->data, size, flags, sa, addr ? &addr->len : NULL));
  if (n < 0) return raise_errno(L);
  lua_pushinteger(L, n);
  return 1;
}

static int socket_recv_into(lua_State *L) { return receive_into(L, NULL); }

static int socket_recvfrom_into(lua_State *L) {
  al_addr addr = {.len = sizeof addr.ss};
  receive_into(L, &addr);
  push_sender(L, &addr);
  return 2;
}

static int socket_setblocking(lua_State *L) {
  int fd = check_fd(L), flags = fcntl(fd, F_GETFL);
  al_checkany(L, 2);
  bool blocking = lua_toboolean(L, 2);
  int wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  if (flags < 0 || fcntl(fd, F_SETFL, wanted) < 0) return raise_errno(L);
  check_socket(L)->blocking = blocking;
  return 0;
}

static int socket_getblocking(lua_State *L) {
  int flags = fcntl(check_fd(L), F_GETFL);
  if (flags < 0) return raise_errno(L);
  lua_pushboolean(L, !(flags & O_NONBLOCK));
  return 1;
}

/* A socket that was taken over is closed by its owner alone. */
static int socket_close(lua_State *L) {
  close_own(check_socket(L));
  return 0;
}

static int socket_detach(lua_State *L) {
  l_socket *s = check_socket(L);
  if (s->transport || s->server)
    return al_raise(L, al_ctx_of(L), AL_C_RuntimeError, "%s has another owner", luaL_tolstring(L, 1, NULL));
  lua_pushinteger(L, s->fd);
  s->fd = -1;
  return 1;
}

/* ---- methods of TransportSocket ---------------------------------------------------------------------------------- */

static int view_setblocking(lua_State *L) {
  al_checkany(L, 2);
  if (!lua_toboolean(L, 2)) return 0;
  return al_raise(L, al_ctx_of(L), AL_C_ValueError, "setblocking(): transport sockets cannot be blocking");
}

static int view_getblocking(lua_State *L) {
  lua_pushboolean(L, false);
  return 1;
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static const int creation_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;

/* socket([family, type, proto]) */
static int make_socket(lua_State *L) {
  int family = opt_int(L, 1, AF_INET), type = opt_int(L, 2, SOCK_STREAM), proto = opt_int(L, 3, 0);
  l_socket *s = new_socket(L, al_ctx_of(L), AL_C_Socket);
  s->fd = socket(family, type | creation_flags, proto);
  if (s->fd < 0) return raise_errno(L);
  learn(s, s->fd);
  return 1;
}

/* socketpair([family, type, proto]) → two sockets */
static int make_pair(lua_State *L) {
  int family = opt_int(L, 1, AF_UNIX), type = opt_int(L, 2, SOCK_STREAM), proto = opt_int(L, 3, 0), fds[2];
  l_socket *a = new_socket(L, al_ctx_of(L), AL_C_Socket), *b = new_socket(L, al_ctx_of(L), AL_C_Socket);
  if (socketpair(family, type | creation_flags, proto, fds) < 0) return raise_errno(L);
  a->fd = fds[0];
  b->fd = fds[1];
  learn(a, a->fd);
  learn(b, b->fd);
  return 2;
}

/* inet_pton(family, host) → packed string */
static int to_packed(lua_State *L) {
  int family = check_int(L, 1);
  unsigned char bytes[sizeof(struct in6_addr)];
  int ok = inet_pton(family, luaL_checkstring(L, 2), bytes);
  if (ok < 0) return raise_errno(L);
  if (ok == 0) return al_raise_os(L, al_ctx_of(L), -EINVAL, "illegal IP address string passed to inet_pton", NULL);
  lua_pushlstring(L, (char *)bytes, family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr));
  return 1;
}

/* inet_ntop(family, packed) → host */
static int to_text(lua_State *L) {
  int family = check_int(L, 1);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  char text[INET6_ADDRSTRLEN];
  if (family != AF_INET && family != AF_INET6) return al_raise_os(L, al_ctx_of(L), -EAFNOSUPPORT, NULL, NULL);
  if (len != (family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr)))
    return al_raise(L, al_ctx_of(L), AL_C_ValueError, "invalid length of packed IP address string");
  lua_pushstring(L, inet_ntop(family, bytes, text, sizeof text));
  return 1;
}

static const luaL_Reg socket_methods[] = {{"fileno", socket_fileno},
                                          {"dup", socket_dup},
                                          {"getsockname", socket_getsockname},
                                          {"getpeername", socket_getpeername},
                                          {"getsockopt", socket_getsockopt},
                                          {"setsockopt", socket_setsockopt},
                                          {"shutdown", socket_shutdown},
                                          {"bind", socket_bind},
                                          {"listen", socket_listen},
                                          {"accept", socket_accept},
                                          {"connect", socket_connect},
                                          {"send", socket_send},
                                          {"sendto", socket_sendto},
                                          {"recv", socket_recv},
                                          {"recvfrom", socket_recvfrom},
                                          {"recv_into", socket_recv_into},
                                          {"recvfrom_into", socket_recvfrom_into},
                                          {"setblocking", socket_setblocking},
                                          {"getblocking", socket_getblocking},
                                          {"close", socket_close},
                                          {"detach", socket_detach},
                                          {"__close", socket_close},
                                          {"__gc", socket_gc},
                                          {"__index", socket_index},
                                          {"__tostring", socket_tostring},
                                          {NULL, NULL}};
static const luaL_Reg view_methods[] = {{"fileno", socket_fileno},
                                        {"dup", socket_dup},
                                        {"getsockname", socket_getsockname},
                                        {"getpeername", socket_getpeername},
                                        {"getsockopt", socket_getsockopt},
                                        {"setsockopt", socket_setsockopt},
                                        {"shutdown", socket_shutdown},
                                        {"setblocking", view_setblocking},
                                        {"getblocking", view_getblocking},
                                        {"__gc", socket_gc},
                                        {"__index", socket_index},
                                        {"__tostring", socket_tostring},
                                        {NULL, NULL}};
static const luaL_Reg module_functions[] = {
    {"socket", make_socket}, {"socketpair", make_pair}, {"inet_pton", to_packed}, {"inet_ntop", to_text}, {NULL, NULL}};

/* socket_module() → a new table of them and of the constants, for lua/aloop/socket.lua */
static int socket_module(lua_State *L) {
  lua_createtable(L, 0, 512);
  al_ctx_setfuncs(L, al_ctx_of(L), module_functions);
  al_socket_constants(L);
  return 1;
}

void al_socket_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Socket, socket_methods);
  al_class_methods(L, ctx, AL_C_TransportSocket, view_methods);
  static const luaL_Reg functions[] = {{"socket_module", socket_module}, {NULL, NULL}};
  al_ctx_setfuncs(L, ctx, functions);
}
