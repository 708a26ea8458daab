/* lsigint.h - SIGINT for whoever runs a main task: the interpreter, aloop.run.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LSIGINT_H
#define AL_LSIGINT_H

#include "ctx.h"

/* Permits this state to install a handler; without it (an embedder's state) the rest does nothing. */
void al_sigint_allow(al_ctx *ctx);

/* Pushes a guard and takes SIGINT until it is closed (al_sigint_release, or <close>), or pushes nil if SIGINT isn't
 * ours to take: ignored, or a loop's add_signal_handler has it. What arrives while Lua code runs calls the function
 * on top (popped) with 1, 2, ... out of that code; unless it returns true, KeyboardInterrupt is raised there. */
void al_sigint_take(lua_State *L, al_ctx *ctx);
void al_sigint_release(lua_State *L, int guard);

/* The loop begins to run: for the innermost guard of the state, if there is one, SIGINT wakes it while it waits and is
 * answered from its turn; KeyboardInterrupt then leaves run_forever. It stays attached until another loop is. detach:
 * before a loop is closed. */
void al_sigint_attach(al_ctx *ctx, l_loop *loop);
void al_sigint_detach(al_ctx *ctx, l_loop *loop);

/* Does SIGINT watch a descriptor of this loop? */
bool al_sigint_is_attached(const l_loop *loop);

/* How many have arrived for the guard at idx (0: none, or nil). */
int al_sigint_count(lua_State *L, int guard);

void al_sigint_openlib(lua_State *L, al_ctx *ctx);

#endif
