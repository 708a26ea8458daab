/* lsignal.c - aloop.signal (constants and kill), loop:add_signal_handler and remove_signal_handler.
 *
 * SPDX-License-Identifier: MIT */
#include "lsignal.h"

#include "lfd.h"
#include "lhandle.h"
#include "lloop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define S(name) \
  { #name, name }

static const struct {
  const char *name;
  int number;
} signals[] = {
    S(SIGABRT), S(SIGALRM), S(SIGBUS),    S(SIGCHLD),   S(SIGCLD),   S(SIGCONT), S(SIGFPE),  S(SIGHUP),  S(SIGILL),
    S(SIGINT),  S(SIGIO),   S(SIGIOT),    S(SIGKILL),   S(SIGPIPE),  S(SIGPOLL), S(SIGPROF), S(SIGPWR),  S(SIGQUIT),
    S(SIGSEGV), S(SIGSTOP), S(SIGSYS),    S(SIGTERM),   S(SIGTRAP),  S(SIGTSTP), S(SIGTTIN), S(SIGTTOU), S(SIGURG),
    S(SIGUSR1), S(SIGUSR2), S(SIGSTKFLT), S(SIGVTALRM), S(SIGWINCH), S(SIGXCPU), S(SIGXFSZ),
};

enum { N_SIGNALS = sizeof signals / sizeof *signals };

int al_check_signal(lua_State *L, al_ctx *ctx, int arg) {
  int isint;
  lua_Integer n = lua_tointegerx(L, arg, &isint);
  if (lua_type(L, arg) == LUA_TNUMBER && isint) return n < INT_MIN || n > INT_MAX ? -1 : (int)n;
  if (lua_type(L, arg) != LUA_TSTRING) al_typeerror(L, arg, "signal number or name");
  const char *name = lua_tostring(L, arg);
  for (int i = 0; i < N_SIGNALS; i++)
    if (strcmp(signals[i].name, name) == 0) return signals[i].number;
  if (strcmp(name, "SIGRTMIN") == 0) return SIGRTMIN;
  if (strcmp(name, "SIGRTMAX") == 0) return SIGRTMAX;
  return al_raise(L, ctx, AL_C_ValueError, "unknown signal '%s'", name);
}

/* kill(pid, sig) */
static int signal_kill(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_Integer pid = al_checkinteger(L, 1);
  int signum = al_check_signal(L, ctx, 2);
  luaL_argcheck(L, pid >= INT_MIN && pid <= INT_MAX, 1, "number out of range");
  return kill((pid_t)pid, signum) < 0 ? al_raise_os(L, ctx, -errno, NULL, NULL) : 0;
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

static int raise_refusal(lua_State *L, al_ctx *ctx, int signum, int err) {
  switch (err) {
  case -EINVAL:
    if (signum == SIGKILL || signum == SIGSTOP)
      return al_raise(L, ctx, AL_C_ValueError, "sig %d cannot be caught", signum);
    return al_raise(L, ctx, AL_C_ValueError, "invalid signal number %d", signum);
  case -EBUSY: return al_raise(L, ctx, AL_C_RuntimeError, "signal %d is handled by another loop", signum);
  default: return al_raise(L, ctx, AL_C_RuntimeError, "%s", al_strerror(err));
  }
}

enum { LAST_STANDARD = 31 }; /* the numbers from there to SIGRTMIN are the C library's own */

static bool may_be_handled(int signum) {
  bool is_signal = (signum >= 1 && signum <= LAST_STANDARD) || (signum >= SIGRTMIN && signum <= SIGRTMAX);
  return is_signal && signum != SIGKILL && signum != SIGSTOP;
}

/* Signals go to any thread of the process, handlers of scripts run in one: as in Python, the first. */
static void check_main_thread(lua_State *L, al_ctx *ctx) {
  if (syscall(SYS_gettid) != getpid())
    al_raise(L, ctx, AL_C_RuntimeError, "signal only works in main thread of the main interpreter");
}

/* (loop, sig, f, ...) */
static int loop_add_signal_handler(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  int signum = al_check_signal(L, ctx, 2);
  al_check_callable(L, 3);
  if (!may_be_handled(signum)) return raise_refusal(L, ctx, signum, -EINVAL);
  l_loop *loop = al_check_open(L, ctx, 1);
  check_main_thread(L, ctx);
  l_handle *h = al_handle_make(L, ctx, loop, 3);
  al_watch_begin(L, ctx, AL_LOOP_UV_SIGNALS, signum, 3);
  int err = al_add_signal(loop->loop, signum, &h->t.handle, NULL);
  if (err) {
    al_watch_undo(L, ctx, AL_LOOP_UV_SIGNALS, signum, 3);
    return raise_refusal(L, ctx, signum, err);
  }
  al_watch_commit(L, ctx);
  return 0;
}

/* (loop, sig) → was it handled? */
static int loop_remove_signal_handler(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_loop *loop = al_check_loop(L, ctx, 1);
  int signum = al_check_signal(L, ctx, 2);
  if (!may_be_handled(signum)) return raise_refusal(L, ctx, signum, -EINVAL);
  bool handled = !al_loop_is_closed(loop->loop) && al_remove_signal(loop->loop, signum) != NULL;
  if (handled) al_watch_end(L, ctx, AL_LOOP_UV_SIGNALS, signum);
  lua_pushboolean(L, handled);
  return 1;
}

static const luaL_Reg loop_methods[] = {{"add_signal_handler", loop_add_signal_handler},
                                        {"remove_signal_handler", loop_remove_signal_handler},
                                        {NULL, NULL}};
static const luaL_Reg functions[] = {{"kill", signal_kill}, {NULL, NULL}};

void al_signal_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  lua_createtable(L, 0, N_SIGNALS + 4);
  al_ctx_setfuncs(L, ctx, functions);
  for (int i = 0; i < N_SIGNALS; i++) {
    lua_pushinteger(L, signals[i].number);
    lua_setfield(L, -2, signals[i].name);
  }
  lua_pushinteger(L, SIGRTMIN); /* not a constant: the threads' library takes the first ones */
  lua_setfield(L, -2, "SIGRTMIN");
  lua_pushinteger(L, SIGRTMAX);
  lua_setfield(L, -2, "SIGRTMAX");
  lua_setfield(L, -2, "signal");
}
