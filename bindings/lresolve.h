/* lresolve.h - names to addresses: loop:getaddrinfo and getnameinfo, and looking up as one step of a function that
 * waits.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LRESOLVE_H
#define AL_LRESOLVE_H

#include "lloop.h"
#include "ltask.h"

#include <netdb.h>

/* The state of a function that waits: a userdata on its stack. dispose ends what goes on and closes what it owns; it is
 * called when the userdata is collected, or closed (lua_toclose), and may be called again. */
typedef struct l_op l_op;
struct l_op {
  void (*dispose)(l_op *op);
};

/* Makes one of size bytes (zeroed) and pushes it. */
void *al_op_new(lua_State *L, al_ctx *ctx, size_t size, void (*dispose)(l_op *op));

/* The loop at stack index 1, open, in whose task function f may wait; else raises. */
l_loop *al_check_waiting_loop(lua_State *L, al_ctx *ctx, const char *f);

/* Addresses, as getaddrinfo lists them, in a userdata. */
typedef struct l_addrs {
  size_t n;
  struct {
    struct addrinfo ai; /* linked in order */
    struct sockaddr_storage ss;
  } item[];
} l_addrs;

static inline const struct addrinfo *al_addrs_first(const l_addrs *list) {
  return list && list->n ? &list->item[0].ai : NULL;
}

/* Pushes a list of those in a, in order, then those in b (may be NULL). */
l_addrs *al_addrs_join(lua_State *L, const struct addrinfo *a, const struct addrinfo *b);

/* A question of a waiting function, embedded in its state. */
typedef struct l_question l_question;
typedef int l_answered_fn(lua_State *L, al_ctx *ctx, l_op *op);
struct l_question {
  l_wait wait;
  l_op *op;
  l_answered_fn *answered;
  struct addrinfo hints;
  al_resolve *request;
  struct addrinfo *found;
  int error;
  int host;                      /* stack index of what is asked for */
  int64_t asked_ns, answered_ns; /* debug mode */
};

/* Looks up the host at index host (nil: any) and the port behind it (nil, a number or a name), then goes on with
 * answered(L, ctx, op), with the list pushed on the stack as it was left: `return al_question_ask(...)`. Raises
 * gaierror. A numeric address is answered at once; else the getaddrinfo method of the loop at 1 is asked if a script
 * replaced it. */
int al_question_ask(lua_State *L, al_ctx *ctx, l_loop *loop, l_op *op, l_question *q, int host,
                    l_answered_fn *answered);
void al_question_dispose(l_question *q);

void al_resolve_openlib(lua_State *L, al_ctx *ctx);

#endif
