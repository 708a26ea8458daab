/* lpause.c - the pauses of a state: taken by sleep(), by the lists that tasks wait in (lwaitlist.c) and by streams
 * (lwriter.c).
 *
 * SPDX-License-Identifier: MIT */
#include "lpause.h"

/* The next unused one stands where the handle of a timer that is not set would. */
static l_pause *next_of(const l_pause *pause) { return (l_pause *)(void *)pause->timer.handle.link.next; }

l_pause *al_pause_take(lua_State *L, al_ctx *ctx) {
  l_pause *p = ctx->pauses;
  if (p)
    ctx->pauses = next_of(p);
  else
    p = al_allocate(ctx, NULL, 0, sizeof *p);
  if (!p) luaL_error(L, "not enough memory");
  al_timer_init(&p->timer, NULL);
  return p;
}

void al_pause_give(al_ctx *ctx, l_pause *pause) {
  if (ctx->ended) { /* a loop is collected after the context */
    al_allocate(ctx, pause, sizeof *pause, 0);
    return;
  }
  pause->timer.handle.link.next = (al_link *)(void *)ctx->pauses;
  ctx->pauses = pause;
}

l_pause *al_pause_of_wait(l_wait *wait) { return (l_pause *)(void *)((char *)wait - offsetof(l_pause, wait)); }
l_pause *al_pause_of_handle(al_handle *handle) { return (l_pause *)(void *)handle; }
l_pause *al_pause_of_link(al_link *link) { return (l_pause *)(void *)link; }

void al_pause_end(al_ctx *ctx) {
  for (l_pause *p = ctx->pauses, *next; p; p = next) {
    next = next_of(p);
    al_allocate(ctx, p, sizeof *p, 0);
  }
  ctx->pauses = NULL;
}
