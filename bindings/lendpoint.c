/* lendpoint.c - see lendpoint.h. Knows transports by their kind only.
 *
 * SPDX-License-Identifier: MIT */
#include "lendpoint.h"

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

/* Cancelled between the making of the transport and connection_made, or after: as asyncio, it is closed. */
static void abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  l_endpoint *e = of_wait(wait);
  al_transport *made = e->made;
  e->made = NULL;
  al_handle_cancel(&e->started);
  al_transport_close(made);
}

/* state ... protocol, transport */
static int finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  of_wait(wait)->made = NULL;
  lua_pushvalue(L, -1);
  lua_pushnil(L);
  al_transport_keep(L, -2, -1);
  lua_pop(L, 1);
  lua_pushvalue(L, -3);
  return 2;
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
  e->made = t->t; /* nothing raises from here on: on_started wakes the task */
  e->wait = (l_wait){.finish = finish, .abandon = abandon, .what = "connection"};
  return al_wait(L, ctx, &e->wait);
}
