/* lquery.h - questions to a running interpreter: what its tasks do, and where Lua is. They come by SIGQUIT, from
 * `aloop ps` and `aloop pstree` in another process (lps.c), and from the watchdog.
 *
 * Only the interpreter takes questions (al_query_early, al_query_begin); elsewhere the rest does nothing.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LQUERY_H
#define AL_LQUERY_H

#include "ctx.h"

/* The asking process queues AL_QUERY_SIGNAL with a number for the asked one, which connects to the asker's
 * abstract Unix socket of type SOCK_SEQPACKET and sends one message: a byte, and a descriptor that holds the
 * answer (or without memory for one: the beginning of the answer itself). The socket's name is made of the asker's
 * pid and the number; the number's lowest bit says what is asked for. Each looks whether the other is a process of
 * its own user and the one it has to do with. The signal is one that is ignored where nobody waits for it. */
#define AL_QUERY_SIGNAL SIGURG
#define AL_QUERY_NAME "aloop-%d-%llx" /* pid, number; behind a NUL */
enum { AL_QUERY_TREE = 0, AL_QUERY_LIST = 1, AL_QUERY_KIND = 1 };

/* Takes SIGQUIT and AL_QUERY_SIGNAL from now on. What comes before al_query_begin is answered then. */
void al_query_early(void);
void al_query_begin(lua_State *L, al_ctx *ctx); /* in the thread that runs Lua; may raise */
void al_query_end(void);                        /* no Lua from now on */

/* The loop begins to run: questions wake it. It stays attached until another loop is. detach: before it is
 * closed. */
void al_query_attach(al_ctx *ctx, l_loop *loop);
void al_query_detach(al_ctx *ctx, l_loop *loop);
bool al_query_is_attached(const l_loop *loop);

/* lsigint.c has taken the hooks away: sets them again if a question waits. */
void al_query_again(void);

/* For the watchdog's thread: has al_watchdog_answer called in the thread that runs Lua, at the next instruction. */
void al_query_ask_watchdog(void);

/* Writes all of the text to a descriptor; gives up after a second in which nothing could be written. */
void al_query_write(int fd, const char *text, size_t len);

/* Pushes what tools.answer(kind, interrupted) gives, or nil, and returns it, or else a text that says that there is
 * none. Never throws; there are 10 free stack slots. */
const char *al_query_push_answer(lua_State *L, const char *kind, bool interrupted, size_t *len);

#endif
