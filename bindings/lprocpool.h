/* lprocpool.h - worker processes: which program they run (lprocpool.c), and what they do (lprocworker.c). What a pool
 * asks of them is al_process_workers, in lpool.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPROCPOOL_H
#define AL_LPROCPOOL_H

#include "ctx.h"

/* Pushes the program that worker processes run: executable (a path, or NULL), or the interpreter that this is. Raises
 * NotImplementedError if this is none: a program that embeds aloop. An interpreter that is called lua, with
 * or without a number, is to load this shared library; any other one is taken for aloop. */
const char *al_procpool_push_program(lua_State *L, al_ctx *ctx, const char *executable);

/* This program is the interpreter: its workers may run it, too. */
void al_procpool_allow_self(void);

/* Is the command line that of a worker? Then run it: serves the pool until that is gone. Returns the exit status. */
bool al_procworker_is_command(int argc, char **argv);
int al_procworker_run(void);

/* For package.loadlib, by a plain Lua that is to be a worker: serves, and ends the process. */
int luaopen_aloop_worker(lua_State *L);

#endif
