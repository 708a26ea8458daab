/* lsockops.c - loop:sock_recv and its kin: asyncio's functions that wait for a socket. Each tries its system call at
 * once; if that would block, the task waits until the core says that the descriptor is ready, and tries again. Knows
 * no machine, and of transports only that their descriptors are refused.
 *
 * Waiting allocates nothing: what stands in the core's watch meanwhile is one of a few records that are used again
 * and again, and what is received comes into one buffer of the state, of which a string of the right size is made.
 *
 * A descriptor has one waiter a direction: as in asyncio a later one, or add_reader, takes the place of the former,
 * which then waits until it is cancelled; here at least a warning tells. A Socket that is closed wakes its waiters.
 *
 * SPDX-License-Identifier: MIT */
#include "lsockops.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lfd.h"
#include "lresolve.h"
#include "ltransport.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A system call, again as long as a signal comes in between. */
#define RETRY(result, call) \
  do {                      \
    (result) = (call);      \
  } while ((result) < 0 && errno == EINTR)

enum { SOCK = 2, DATA, WHERE, POSITION, STATE = POSITION }; /* stack of every function; the loop is at 1 */
enum { READ, WRITE };                                       /* directions */
enum { WOULD_BLOCK = -1 };                                  /* the result of a try */

#define BUFFER_SIZE (256 * 1024) /* asyncio's read size: what is received at once without a buffer of its own */

typedef struct sock_call sock_call;
typedef int sock_try(lua_State *L, al_ctx *ctx, sock_call *call);

/* What is known of a function beforehand. */
typedef struct sock_function {
  l_wait_kind wait;  /* first: what its waits lead back by; it has the function's name */
  sock_try *attempt; /* pushes the results and returns their number, WOULD_BLOCK, or raises */
  uint8_t direction;
} sock_function;

/* What a call of it wants. */
struct sock_call {
  const sock_function *f;
  l_loop *loop;
  l_socket *socket; /* the Socket at SOCK; NULL: it is another kind of value */
  size_t n;         /* how much may be received; sock_sendall: was sent */
  int fd;
};

/* The call of a task that waits. Small, for there may be one for each of many sockets. */
struct l_sock_wait {
  al_handle handle; /* in the core's watch; unused: its link leads to the next one */
  l_wait wait;      /* its kind is the function's; the task knows the loop */
  l_socket *socket;
  size_t n;
  int fd;
  bool watching; /* its handle is in the watch */
  bool closed;   /* its socket was closed meanwhile */
};

struct l_sockops { /* one in a state */
  al_ctx *ctx;
  l_sock_wait *unused;
  void *block;  /* of the buffer; NULL until something is received */
  char *buffer; /* BUFFER_SIZE bytes */
};

/* ---- records ----------------------------------------------------------------------------------------------------- */

static l_sock_wait *of_handle(al_handle *h) {
  return (l_sock_wait *)(void *)((char *)h - offsetof(l_sock_wait, handle));
}
static l_sock_wait *of_wait(l_wait *w) { return (l_sock_wait *)(void *)((char *)w - offsetof(l_sock_wait, wait)); }

static const sock_function *function_of(const l_sock_wait *w) {
  return (const sock_function *)(const void *)w->wait.kind;
}

static l_sock_wait *next_of(const l_sock_wait *w) { return (l_sock_wait *)(void *)w->handle.link.next; }

static l_sock_wait *take(l_sockops *ops) {
  l_sock_wait *w = ops->unused;
  if (w)
    ops->unused = next_of(w);
  else
    w = al_allocate(ops->ctx, NULL, 0, sizeof *w);
  return w;
}

/* It is in no watch any more. */
static void give_back(l_sockops *ops, l_sock_wait *w) {
  l_sock_wait **waits = w->socket ? &w->socket->waits[function_of(w)->direction] : NULL;
  if (waits && *waits == w) *waits = NULL;
  w->handle.link.next = (al_link *)(void *)ops->unused;
  ops->unused = w;
}

static int sockops_gc(lua_State *L) {
  l_sockops *ops = lua_touserdata(L, 1);
  for (l_sock_wait *w = ops->unused, *next; w; w = next) {
    next = next_of(w);
    al_allocate(ops->ctx, w, sizeof *w, 0);
  }
  free(ops->block);
  *ops = (l_sockops){.ctx = ops->ctx};
  return 0;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static int go_on(lua_State *L, al_ctx *ctx, sock_call *call);

static void on_ready(al_loop *loop, al_handle *handle) {
  (void)loop;
  l_sock_wait *w = of_handle(handle);
  w->watching = false;
  al_wake(&w->wait);
}

static void unwatch(l_sock_wait *w) {
  if (!w->watching) return;
  w->watching = false;
  (function_of(w)->direction == READ ? al_remove_reader : al_remove_writer)(w->wait.task->f.loop->loop, w->fd);
}

static void sock_abandon(al_ctx *ctx, l_wait *wait) {
  l_sock_wait *w = of_wait(wait);
  unwatch(w);
  give_back(ctx->sockops, w);
}

/* In the task again: the descriptor may be another's by now. */
static int sock_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  l_sock_wait *w = of_wait(wait);
  sock_call call = {function_of(w), wait->task->f.loop, w->socket, w->n, w->fd};
  bool closed = w->closed;
  give_back(ctx->sockops, w);
  if (closed) return al_raise_os(L, ctx, -EBADF, NULL, NULL);
  al_check_fd_free(L, ctx, call.loop->loop, call.fd);
  return go_on(L, ctx, &call);
}

void al_sockops_replaced(al_ctx *ctx, al_handle *handle) {
  if (!handle || handle->run != on_ready) return;
  l_sock_wait *w = of_handle(handle);
  w->watching = false;
  al_warn(ctx, "RuntimeWarning", "%s: another %s took the place of this one on descriptor %d, so it waits for ever",
          w->wait.kind->what, function_of(w)->direction == READ ? "reader" : "writer", w->fd);
}

void al_sockops_closing(l_socket *socket) {
  for (int direction = READ; direction <= WRITE; direction++) {
    l_sock_wait *w = socket->waits[direction];
    socket->waits[direction] = NULL;
    if (!w || !w->watching) continue;
    unwatch(w);
    w->closed = true;
    al_wake(&w->wait);
  }
}

/* What the wait has replaced: a Handle of add_reader or add_writer, or another wait. */
static void let_go_of(lua_State *L, al_ctx *ctx, const sock_call *call, al_handle *old) {
  if (!old) return;
  al_sockops_replaced(ctx, old);
  if (al_handle_is_ours(old))
    al_watch_end(L, ctx, AL_LOOP_UV_WATCHES, (lua_Integer)call->fd * 2 + (call->f->direction == WRITE));
}

static int wait_until_ready(lua_State *L, al_ctx *ctx, const sock_call *call) {
  l_sock_wait *w = take(ctx->sockops);
  if (!w) return al_raise_os(L, ctx, -ENOMEM, NULL, NULL);
  uint8_t direction = call->f->direction;
  *w = (l_sock_wait){.wait.kind = &call->f->wait, .socket = call->socket, .n = call->n, .fd = call->fd};
  al_handle_init(&w->handle, on_ready);
  al_handle *old = NULL;
  int err = (direction == READ ? al_wait_readable : al_wait_writable)(call->loop->loop, call->fd, &w->handle, &old);
  if (err) {
    give_back(ctx->sockops, w);
    return al_raise_os(L, ctx, err, NULL, NULL);
  }
  w->watching = true;
  let_go_of(L, ctx, call, old);
  if (call->socket) call->socket->waits[direction] = w;
  return al_wait(L, ctx, &w->wait, &call->f->wait);
}

static int go_on(lua_State *L, al_ctx *ctx, sock_call *call) {
  int n = call->f->attempt(L, ctx, call);
  return n == WOULD_BLOCK ? wait_until_ready(L, ctx, call) : n;
}

/* ---- what a function begins with --------------------------------------------------------------------------------- */

static bool is_blocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && !(flags & O_NONBLOCK);
}

static int sock_fd(lua_State *L, al_ctx *ctx, int idx, l_socket **socket) {
  *socket = al_test(L, ctx, idx, AL_C_Socket);
  if (!*socket && lua_type(L, idx) != LUA_TNUMBER && !al_may_be_socket(L, idx)) al_typeerror(L, idx, "socket");
  int fd = *socket ? al_socket_fd(*socket) : al_check_fd(L, ctx, idx);
  if (fd < 0) al_raise_os(L, ctx, -EBADF, NULL, NULL);
  if (*socket ? (*socket)->blocking : is_blocking(fd))
    al_raise(L, ctx, AL_C_ValueError, "the socket must be non-blocking");
  return fd;
}

int al_check_sock(lua_State *L, al_ctx *ctx, l_loop *loop, int idx) {
  l_socket *socket;
  int fd = sock_fd(L, ctx, idx, &socket);
  al_check_fd_free(L, ctx, loop->loop, fd);
  return fd;
}

/* How the waits of all functions go; only their names differ. */
#define WAITS_AS(name) \
  { sock_finish, sock_abandon, (name) }

/* A call of f, with the loop at 1 and the socket at SOCK. */
static sock_call begin(lua_State *L, al_ctx *ctx, const sock_function *f) {
  sock_call call = {.f = f, .loop = al_check_waiting_loop(L, ctx, f->wait.what)};
  call.fd = sock_fd(L, ctx, SOCK, &call.socket);
  al_check_fd_free(L, ctx, call.loop->loop, call.fd);
  return call;
}

/* The result of a system call that did not do it. */
static int not_done(lua_State *L, al_ctx *ctx) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) return WOULD_BLOCK;
  return al_raise_os(L, ctx, -errno, NULL, NULL);
}

static int get_option(int fd, int option) {
  int value = 0;
  socklen_t len = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? 0 : value;
}

static bool is_stream(const sock_call *call) {
  return (call->socket ? call->socket->type : get_option(call->fd, SO_TYPE)) == SOCK_STREAM;
}

static int family_of(const sock_call *call) {
  return call->socket ? call->socket->family : get_option(call->fd, SO_DOMAIN);
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static size_t check_size(lua_State *L, al_ctx *ctx, int arg, const char *name) {
  lua_Integer n = al_checkinteger(L, arg);
  if (n < 0) al_raise(L, ctx, AL_C_ValueError, "negative buffersize in %s", name);
  return (size_t)n;
}

/* Memory for size bytes; that of more than the buffer holds is pushed. */
static char *receive_buffer(lua_State *L, al_ctx *ctx, size_t size) {
  l_sockops *ops = ctx->sockops;
  if (size > BUFFER_SIZE) return lua_newuserdatauv(L, size, 0);
  if (!ops->block) {
    ops->block = malloc(BUFFER_SIZE + AL_PLACE_SLACK);
    if (!ops->block) al_raise_os(L, ctx, -ENOMEM, NULL, NULL);
    ops->buffer = al_place(ops->block);
  }
  return ops->buffer;
}

static int try_recv(lua_State *L, al_ctx *ctx, sock_call *call) {
  if (call->n == 0) { /* as in Python, that asks for nothing */
    lua_pushliteral(L, "");
    return 1;
  }
  char *buffer = receive_buffer(L, ctx, call->n);
  ssize_t n;
  RETRY(n, recv(call->fd, buffer, call->n, MSG_DONTWAIT));
  if (n < 0) {
    lua_settop(L, DATA);
    return not_done(L, ctx);
  }
  if (n == 0 && is_stream(call))
    lua_pushnil(L);
  else
    lua_pushlstring(L, buffer, (size_t)n);
  return 1;
}

/* sock_recv(sock, n) */
static int loop_sock_recv(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_recv"), try_recv, READ};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, DATA);
  sock_call call = begin(L, ctx, &f);
  call.n = check_size(L, ctx, DATA, "recv");
  return go_on(L, ctx, &call);
}

static void push_sender(lua_State *L, const al_addr *addr) {
  if (addr->len)
    al_pushaddr(L, addr);
  else
    lua_pushnil(L);
}

static int try_recvfrom(lua_State *L, al_ctx *ctx, sock_call *call) {
  char *buffer = receive_buffer(L, ctx, call->n);
  al_addr addr = {.len = sizeof addr.ss};
  ssize_t n;
  RETRY(n, recvfrom(call->fd, buffer, call->n, MSG_DONTWAIT, (struct sockaddr *)&addr.ss, &addr.len));
  if (n < 0) {
    lua_settop(L, DATA);
    return not_done(L, ctx);
  }
  if (n == 0 && call->n > 0 && is_stream(call))
    lua_pushnil(L);
  else
    lua_pushlstring(L, buffer, (size_t)n);
  push_sender(L, &addr);
  return 2;
}

/* sock_recvfrom(sock, n) */
static int loop_sock_recvfrom(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_recvfrom"), try_recvfrom, READ};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, DATA);
  sock_call call = begin(L, ctx, &f);
  call.n = check_size(L, ctx, DATA, "recvfrom");
  return go_on(L, ctx, &call);
}

/* The part of the buffer at DATA from the position at arg (nil: 1) on, and its size. */
static char *check_into(lua_State *L, al_ctx *ctx, int arg, size_t *room) {
  l_buffer *b = al_test_buffer(L, ctx, DATA);
  if (!b) al_typeerror(L, DATA, "buffer");
  lua_Integer pos = al_optinteger(L, arg, 1), size = (lua_Integer)b->size;
  if (pos < 0) pos += size + 1;
  if (pos < 1 || pos > size + 1) al_raise(L, ctx, AL_C_ValueError, "position %I is outside of the buffer", pos);
  *room = (size_t)(size - (pos - 1));
  return b->data + (pos - 1);
}

static int try_recv_into(lua_State *L, al_ctx *ctx, sock_call *call) {
  size_t room;
  char *into = check_into(L, ctx, WHERE, &room);
  ssize_t n = 0;
  if (room > 0) RETRY(n, recv(call->fd, into, room, MSG_DONTWAIT));
  if (n < 0) return not_done(L, ctx);
  lua_pushinteger(L, n);
  return 1;
}

/* sock_recv_into(sock, buf, [pos]) → n */
static int loop_sock_recv_into(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_recv_into"), try_recv_into, READ};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, WHERE);
  sock_call call = begin(L, ctx, &f);
  check_into(L, ctx, WHERE, &call.n);
  return go_on(L, ctx, &call);
}

static int try_recvfrom_into(lua_State *L, al_ctx *ctx, sock_call *call) {
  al_addr addr = {.len = sizeof addr.ss};
  size_t room;
  char *into = check_into(L, ctx, POSITION, &room);
  ssize_t n;
  RETRY(n, recvfrom(call->fd, into, call->n, MSG_DONTWAIT, (struct sockaddr *)&addr.ss, &addr.len));
  if (n < 0) return not_done(L, ctx);
  lua_pushinteger(L, n);
  push_sender(L, &addr);
  return 2;
}

/* sock_recvfrom_into(sock, buf, [n], [pos]) → n, addr; n 0: as much as there is room for */
static int loop_sock_recvfrom_into(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_recvfrom_into"), try_recvfrom_into, READ};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, POSITION);
  sock_call call = begin(L, ctx, &f);
  check_into(L, ctx, POSITION, &call.n);
  size_t n = lua_isnil(L, WHERE) ? 0 : check_size(L, ctx, WHERE, "recvfrom_into");
  if (n > call.n) return al_raise(L, ctx, AL_C_ValueError, "nbytes is greater than the length of the buffer");
  if (n > 0) call.n = n;
  return go_on(L, ctx, &call);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static int try_sendall(lua_State *L, al_ctx *ctx, sock_call *call) {
  size_t len;
  const char *data = al_check_bytes(L, ctx, DATA, &len);
  while (call->n < len) {
    ssize_t n;
    RETRY(n, send(call->fd, data + call->n, len - call->n, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (n < 0) return not_done(L, ctx);
    call->n += (size_t)n;
  }
  return 0;
}

/* sock_sendall(sock, data) */
static int loop_sock_sendall(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_sendall"), try_sendall, WRITE};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, DATA);
  sock_call call = begin(L, ctx, &f);
  return go_on(L, ctx, &call);
}

static int try_sendto(lua_State *L, al_ctx *ctx, sock_call *call) {
  al_addr addr;
  size_t len;
  const char *data = al_check_bytes(L, ctx, DATA, &len);
  al_check_addr(L, ctx, WHERE, family_of(call), &addr);
  ssize_t n;
  RETRY(n, sendto(call->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&addr.ss, addr.len));
  if (n < 0) return not_done(L, ctx);
  lua_pushinteger(L, n);
  return 1;
}

/* sock_sendto(sock, data, addr) → n */
static int loop_sock_sendto(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_sendto"), try_sendto, WRITE};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, WHERE);
  sock_call call = begin(L, ctx, &f);
  return go_on(L, ctx, &call);
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static int try_accept(lua_State *L, al_ctx *ctx, sock_call *call) {
  int err = al_socket_accept(L, ctx, call->fd);
  if (!err) return 2;
  if (err == -ECONNABORTED) return WOULD_BLOCK; /* that one is gone; perhaps the next one is there */
  errno = -err;
  return not_done(L, ctx);
}

/* sock_accept(sock) → conn, addr */
static int loop_sock_accept(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_accept"), try_accept, READ};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, SOCK);
  sock_call call = begin(L, ctx, &f);
  return go_on(L, ctx, &call);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

#define RETRY_NS (2 * INT64_C(1000000)) /* until a Unix listener whose backlog is full is tried again */

/* At STATE. */
typedef struct connecting {
  l_op base;
  sock_call call;
  l_question question;
  l_wait wait;    /* of the timer */
  al_timer timer; /* until the next try */
  al_addr addr;
} connecting;

static connecting *of_op(l_op *op) { return (connecting *)(void *)op; }

static void connecting_dispose(l_op *op) {
  connecting *c = of_op(op);
  al_question_dispose(&c->question);
  al_timer_cancel(&c->timer);
}

static int raise_refused(lua_State *L, al_ctx *ctx, const connecting *c, int err) {
  char text[AL_ADDR_STRLEN];
  al_addr_format(&c->addr, text, sizeof text);
  return al_raise_os(L, ctx, err, lua_pushfstring(L, "Connect call failed %s", text), NULL);
}

/* What became of a connect that was going on. */
static int try_connected(lua_State *L, al_ctx *ctx, sock_call *call) {
  int err = get_option(call->fd, SO_ERROR);
  return err ? raise_refused(L, ctx, lua_touserdata(L, STATE), -err) : 0;
}

static int start_connecting(lua_State *L, al_ctx *ctx, connecting *c);

static connecting *of_timer_wait(l_wait *wait) {
  return (connecting *)(void *)((char *)wait - offsetof(connecting, wait));
}

static void on_retry_time(al_loop *loop, al_handle *handle) {
  (void)loop;
  al_timer *timer = (al_timer *)(void *)((char *)handle - offsetof(al_timer, handle));
  al_wake(&((connecting *)(void *)((char *)timer - offsetof(connecting, timer)))->wait);
}

static int retry_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  return start_connecting(L, ctx, of_timer_wait(wait));
}

static void retry_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  connecting_dispose(&of_timer_wait(wait)->base);
}

static const l_wait_kind retrying = {retry_finish, retry_abandon, "sock_connect"};

static int retry_later(lua_State *L, al_ctx *ctx, connecting *c) {
  al_loop *loop = c->call.loop->loop;
  int err = al_timer_set(loop, &c->timer, al_loop_time_ns(loop) + RETRY_NS);
  if (err) return al_raise_os(L, ctx, err, NULL, NULL);
  return al_wait(L, ctx, &c->wait, &retrying);
}

static int start_connecting(lua_State *L, al_ctx *ctx, connecting *c) {
  if (connect(c->call.fd, (struct sockaddr *)&c->addr.ss, c->addr.len) == 0) return 0;
  if (errno == EINPROGRESS || errno == EINTR) return wait_until_ready(L, ctx, &c->call);
  if (errno == EAGAIN && c->addr.ss.ss_family == AF_UNIX) return retry_later(L, ctx, c);
  return raise_refused(L, ctx, c, -errno);
}

static int on_found(lua_State *L, al_ctx *ctx, l_op *op) {
  connecting *c = of_op(op);
  const struct addrinfo *ai = al_addrs_first(lua_touserdata(L, -1));
  if (!ai) return al_raise(L, ctx, AL_C_OSError, "getaddrinfo() returned empty list");
  c->addr.len = ai->ai_addrlen;
  memcpy(&c->addr.ss, ai->ai_addr, ai->ai_addrlen);
  lua_settop(L, STATE);
  return start_connecting(L, ctx, c);
}

/* Is the address at DATA one that needs no looking up? */
static bool is_resolved(lua_State *L, int family) {
  al_addr addr;
  if (family != AF_INET && family != AF_INET6) return true;
  if (!lua_istable(L, DATA)) return true; /* it is refused elsewhere */
  bool numeric = lua_geti(L, DATA, 1) != LUA_TSTRING || !*lua_tostring(L, -1) ||
                 (al_addr_ip(&addr, lua_tostring(L, -1), 0, 0, 0) == 0 && addr.ss.ss_family == family);
  lua_pop(L, 1);
  return numeric;
}

/* sock_connect(sock, addr) */
static int loop_sock_connect(lua_State *L) {
  static const sock_function f = {WAITS_AS("sock_connect"), try_connected, WRITE};
  al_ctx *ctx = al_ctx_of(L);
  lua_settop(L, DATA);
  sock_call call = begin(L, ctx, &f);
  lua_settop(L, STATE - 1);
  connecting *c = al_op_new(L, ctx, sizeof *c, connecting_dispose);
  al_timer_init(&c->timer, on_retry_time);
  c->call = call;
  int family = family_of(&call);
  if (is_resolved(L, family)) {
    al_check_addr(L, ctx, DATA, family, &c->addr);
    return start_connecting(L, ctx, c);
  }
  c->question.hints = (struct addrinfo){.ai_family = family,
                                        .ai_socktype = get_option(call.fd, SO_TYPE),
                                        .ai_protocol = get_option(call.fd, SO_PROTOCOL)};
  lua_geti(L, DATA, 1);
  lua_geti(L, DATA, 2);
  return al_question_ask(L, ctx, call.loop, &c->base, &c->question, STATE + 1, on_found);
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

static const luaL_Reg loop_methods[] = {{"sock_recv", loop_sock_recv},
                                        {"sock_recv_into", loop_sock_recv_into},
                                        {"sock_recvfrom", loop_sock_recvfrom},
                                        {"sock_recvfrom_into", loop_sock_recvfrom_into},
                                        {"sock_sendall", loop_sock_sendall},
                                        {"sock_sendto", loop_sock_sendto},
                                        {"sock_accept", loop_sock_accept},
                                        {"sock_connect", loop_sock_connect},
                                        {NULL, NULL}};

static const char sockops_key; /* keeps the state's l_sockops in the registry */

void al_sockops_openlib(lua_State *L, al_ctx *ctx) {
  l_sockops *ops = lua_newuserdatauv(L, sizeof *ops, 0);
  *ops = (l_sockops){.ctx = ctx};
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, sockops_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sockops_key);
  ctx->sockops = ops;
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
}
