/* lendpoint.c - see lendpoint.h. Knows transports by their kind only.
 *
 * SPDX-License-Identifier: MIT */
#include "lendpoint.h"

#include "lssl.h"

#include <unistd.h>

static l_endpoint *of_wait(l_wait *wait) { return (l_endpoint *)(void *)((char *)wait - offsetof(l_endpoint, wait)); }

void *al_endpoint_new(lua_State *L, al_ctx *ctx, l_loop *loop, size_t size, void (*dispose)(l_op *op)) {
  l_endpoint *e = al_op_new(L, ctx, size, dispose);
  e->fd = -1;
  e->loop = loop;
  e->idx = lua_gettop(L);
  return e;
}

void al_endpoint_dispose(l_endpoint *e) {
  al_handle_cancel(&e->started);
  if (e->fd >= 0) close(e->fd);
  e->fd = -1;
}

static void on_started(al_loop *loop, al_handle *handle) {
  (void)loop;
  l_endpoint *e = (l_endpoint *)(void *)((char *)handle - offsetof(l_endpoint, started));
  if (e->made) al_wake(&e->wait);
}

void al_endpoint_done(al_transport *transport, void *data, int error) {
  l_endpoint *e = data;
  (void)transport;
  e->error = error;
  if (e->made) al_wake(&e->wait);
}

/* Cancelled between the making of the transport and connection_made, or after: as asyncio, it is closed. */
void al_endpoint_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  l_endpoint *e = of_wait(wait);
  al_transport *made = e->made;
  e->made = NULL;
  al_handle_cancel(&e->started);
  if (al_transport_is_tls(made)) al_tls_forget(made);
  al_transport_close(made);
}

void al_endpoint_finish(lua_State *L, al_ctx *ctx, l_wait *wait, int idx) {
  l_endpoint *e = of_wait(wait);
  al_transport *made = e->made;
  e->made = NULL;
  lua_pushnil(L);
  al_transport_keep(L, idx, -1);
  lua_pop(L, 1);
  if (!e->error) return;
  if (e->error == AL_EPROTOCOL)
    lua_getiuservalue(L, idx, AL_TRANSPORT_UV_HELD); /* connection_made's */
  else
    al_push_transport_error(L, ctx, made, e->error);
  lua_error(L);
}

/* state ... protocol, transport */
static int finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_endpoint_finish(L, ctx, wait, lua_gettop(L));
  lua_pushvalue(L, -2);
  return 2;
}

static const l_wait_kind connecting = {finish, al_endpoint_abandon, "connection"};
static const l_wait_kind shaking_hands = {finish, al_endpoint_abandon, "TLS handshake"};

int al_endpoint_wait(lua_State *L, al_ctx *ctx, l_endpoint *e, al_transport *made, const l_wait_kind *kind) {
  e->made = made; /* nothing raises from here on: on_started, or done, wakes the task */
  return al_wait(L, ctx, &e->wait, kind);
}

int al_endpoint_make(lua_State *L, al_ctx *ctx, l_endpoint *e, int factory, const l_transport_kind *kind,
                     const void *how, const l_given *given) {
  bool ours = !given || given->lends; /* to close, should this fail */
  if (ours) lua_toclose(L, e->idx);
  al_protocol_make(L, factory);
  int fd = given ? al_given_fd(L, ctx, given) : e->fd;
  if (ours) e->fd = fd;
  al_handle_init(&e->started, on_started);
  l_transport *t = al_transport_make_kind(L, ctx, kind, how, e->loop, ours ? &e->fd : &fd, -1, 0, &e->started, e->idx);
  int transport = lua_gettop(L);
  if (given && given->lends) al_transport_adopt(L, transport, given->idx);
  if (given) al_given_taken(L, given, t->t, NULL);
  return al_endpoint_wait(L, ctx, e, t->t, al_transport_is_tls(t->t) ? &shaking_hands : &connecting);
}
