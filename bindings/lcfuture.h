/* lcfuture.h - ConcurrentFuture: a concurrent future (lconcurrent.h) as one Lua state has it; and what hands its
 * outcome on to a Future of a loop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LCFUTURE_H
#define AL_LCFUTURE_H

#include "lconcurrent.h"

typedef struct al_relay al_relay;     /* what l_loop.relays points to */
typedef struct al_mailbox al_mailbox; /* what al_ctx.mailbox points to */

/* Pushes a ConcurrentFuture without a record; who sets *slot gives it its own reference. Until then nothing else may be
 * done with it. So a reference is taken where nothing raises any more. */
al_cfuture **al_new_cfuture(lua_State *L, al_ctx *ctx);
al_cfuture *al_test_cfuture(lua_State *L, al_ctx *ctx, int idx); /* NULL: it is none */
al_cfuture *al_check_cfuture(lua_State *L, al_ctx *ctx, int arg);

/* Pushes a Future of the loop that ends as the concurrent one does, whose cancellation cancels that. The caller's
 * reference stays its own. */
void al_wrap_cfuture(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *future);
/* The same in two steps, for what is begun in between: the first pushes the Future and may raise, the second doesn't,
 * and the caller's reference is the Future's. Not in a loop whose class makes its own futures. */
void al_wrap_prepare(lua_State *L, al_ctx *ctx, l_loop *loop);
void al_wrap_begin(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *future);
/* The Future at idx, one of al_wrap_cfuture's, was cancelled. */
void al_wrapped_cancelled(lua_State *L, al_ctx *ctx, int idx);
/* The loop is being closed: nothing is handed on any more, what other threads wait for from it is cancelled. Never
 * throws. */
void al_relays_forget(al_ctx *ctx, l_loop *loop);

/* Waits until it is done, or the time (al_time_ns; INT64_MAX: none) has come (false). The thread sleeps meanwhile,
 * callbacks of concurrent futures aside; raises an interrupt. Raises RuntimeError if it would wait for itself. */
bool al_cfuture_block(lua_State *L, al_ctx *ctx, al_cfuture *future, int64_t deadline_ns);

/* Pushes the error of a failed one, whose traceback is known to al_pushtraceback. */
void al_cfuture_pusherror(lua_State *L, al_ctx *ctx, const al_cfuture *future);

void al_mailbox_drain(al_ctx *ctx); /* calls the callbacks that came while no loop would take them. Never throws */
void al_mailbox_close(al_ctx *ctx); /* the state goes */

void al_cfuture_openlib(lua_State *L, al_ctx *ctx);
void al_relay_openlib(lua_State *L, al_ctx *ctx); /* lrelay.c */

#endif
