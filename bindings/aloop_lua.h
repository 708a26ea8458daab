/* aloop_lua.h - aloop in a Lua state of your own: the module, and scripts run as main chunks. Link libaloop_lua.a and
 * libaloop.a, and Lua 5.4.
 *
 * The state, its allocator and its libraries stay yours; open the standard libraries that the scripts are to have,
 * `package` among them, first. Nothing of the process is changed: no signal, no environment, no locale (a script may
 * do so, by loop:add_signal_handler). One state is used from one thread at a time, as Lua has it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ALOOP_LUA_H
#define ALOOP_LUA_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Lets `require "aloop"` find the module in this state. The module itself is loaded by the first require. Raises a
 * Lua error when memory runs out; idempotent. In this state `require` and `coroutine` are replaced by versions that
 * behave the same but let aloop's waiting pass. */
void al_lua_open(lua_State *L);

/* The main chunk: the function below its nargs arguments on the stack runs as a task and may call async functions at
 * once; the current event loop starts when it first waits, and runs until it is done. Then what remains is cancelled
 * and awaited, and the loop is closed. Returns LUA_OK with all results in place of function and arguments, or an
 * error status with the error value. Raises nothing. Not from within a running loop. */
int al_lua_run(lua_State *L, int nargs);

/* The same with the chunk in a file (NULL: stdin) or in a string (name: for messages, as luaL_loadbuffer's), and its
 * nargs arguments on the stack. What can't be loaded is an error as well (LUA_ERRFILE, LUA_ERRSYNTAX). */
int al_lua_run_file(lua_State *L, const char *path, int nargs);
int al_lua_run_string(lua_State *L, const char *code, const char *name, int nargs);

/* Pushes all that is to be said of the error value at idx, as the interpreter prints it: message, traceback, causes;
 * returns the text. Raises nothing; what an error's own __tostring raises instead becomes the text. */
const char *al_lua_pusherror(lua_State *L, int idx);

/* How other threads reach a loop of the state: its remote, which outlives it. Made in the state's thread, of the loop
 * at idx; NULL if that is none, or for want of memory. Counted: made with one reference; release: any thread. */
typedef struct al_lua_remote al_lua_remote;
al_lua_remote *al_lua_remote_new(lua_State *L, int idx);
void al_lua_remote_release(al_lua_remote *remote);
/* Has the loop call f, as call_soon would, in its own thread and state, with arg as light userdata: what it raises goes
 * to the loop's exception handler. Any thread. 0, or an error of aloop.h: AL_ECLOSED (the loop is closed; if it closes
 * later, f isn't called), -ENOMEM. */
int al_lua_call_soon_threadsafe(al_lua_remote *remote, lua_CFunction f, void *arg);

/* For luaL_requiref, and what `require "aloop"` calls in aloop.so when a stock Lua loads it. Unlike al_lua_open it lets
 * aloop.run handle SIGINT while it runs (asyncio.run does). */
int luaopen_aloop(lua_State *L);
int luaopen_aloop_core(lua_State *L);

#ifdef __cplusplus
}
#endif
#endif
