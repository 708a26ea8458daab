/* lsigint.c - SIGINT for whoever runs a main task (the interpreter, aloop.run). The handler does what a handler may:
 * it counts, wakes the loop through an eventfd, and asks Lua for a hook, as the stock interpreter does. So a signal
 * is answered at once if Lua code runs, and from the loop's turn if the loop waits; who comes first takes it.
 *
 * What it knows stands in variables of the process, for SIGINT is the process's. Scripts that want it for themselves
 * use add_signal_handler, which hides our handler and gives it back.
 *
 * SPDX-License-Identifier: MIT */
#include "lsigint.h"

#include "lloop.h"
#include "lquery.h"
#include "ltask.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A userdata; its user value is the function to call. Guards nest: the innermost one answers. */
typedef struct l_sigint {
  al_ctx *ctx; /* NULL once released */
  struct l_sigint *outer;
  lua_State *L;   /* where it was taken: hooked too */
  l_loop *loop;   /* attached to, or NULL */
  al_handle read; /* watches fd there */
  int fd;         /* -1: none */
  int slot;       /* its anchor */
  int count;      /* signals that it answered */
} l_sigint;

static l_sigint *top;           /* the innermost guard of the process */
static pthread_t thread;        /* which takes the signals */
static struct sigaction former; /* before the outermost guard */
static volatile sig_atomic_t arrived, wake_fd = -1;
static sig_atomic_t taken; /* of those that arrived; both wrap round together */

/* ---- in the signal handler --------------------------------------------------------------------------------------- */

static void interrupted(lua_State *L, lua_Debug *ar);

/* lua_sethook may be called from signal handlers. Every thread of the state that may be running now. The hook comes
 * before the next instruction of a Lua function, not in calls of C functions, for ours do their bookkeeping in such. */
static void set_hooks(lua_Hook hook) {
  int mask = hook ? LUA_MASKCOUNT : 0, count = hook ? 1 : 0;
  al_ctx *ctx = top->ctx;
  lua_sethook(ctx->main, hook, mask, count);
  lua_sethook(top->L, hook, mask, count);
  for (int i = 0; i <= ctx->depth; i++) lua_sethook(ctx->threads[i], hook, mask, count);
  if (ctx->current && ctx->current->co) lua_sethook(ctx->current->co, hook, mask, count);
  if (ctx->co_top) lua_sethook(ctx->co_top, hook, mask, count);
}

static void on_sigint(int signum) {
  int saved = errno;
  if (!pthread_equal(pthread_self(), thread)) {
    pthread_kill(thread, signum);
  } else if (top) {
    static const uint64_t one = 1;
    arrived = (arrived + 1) & 0xffff;
    if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) < 0) errno = saved; /* full: it is awake */
    set_hooks(interrupted);
  } else { /* all guards are gone, but what hid our handler gave it back only then */
    signal(signum, SIG_DFL);
    raise(signum);
  }
  errno = saved;
}

/* ---- answering --------------------------------------------------------------------------------------------------- */

static bool take_one(void) {
  if (!top || taken == arrived) return false;
  taken = (taken + 1) & 0xffff;
  return true;
}

/* Calls the guard's function; an error object is on top if the signal is to interrupt (true). */
static bool answer(lua_State *L, l_sigint *guard) {
  al_ctx *ctx = guard->ctx;
  luaL_checkstack(L, 10, NULL);
  al_pushanchored(L, ctx, guard->slot);
  lua_getiuservalue(L, -1, 1);
  lua_remove(L, -2);
  lua_pushinteger(L, ++guard->count);
  lua_call(L, 1, 1);
  bool answered = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (!answered) al_pusherror(L, ctx, AL_C_KeyboardInterrupt, "interrupted!");
  return !answered;
}

/* The hook: Lua code runs. */
static void interrupted(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (!top) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  set_hooks(NULL);
  al_query_again();
  while (take_one())
    if (answer(L, top)) lua_error(L);
}

static int answer_protected(lua_State *L) {
  if (answer(L, lua_touserdata(L, 1))) return lua_error(L);
  return 0;
}

/* The eventfd is readable: the loop turns. */
static void sigint_on_wake(al_loop *loop, al_handle *handle) {
  (void)loop;
  l_sigint *guard = (l_sigint *)(void *)((char *)handle - offsetof(l_sigint, read));
  uint64_t n;
  if (read(guard->fd, &n, sizeof n) < 0) n = 0;
  lua_State *L = al_enter(guard->ctx);
  if (!L) return;
  while (top == guard && take_one()) {
    if (al_pcall_c(L, answer_protected, guard, 0) == LUA_OK) continue;
    if (al_isinterrupt(L, guard->ctx, -1)) { /* its traceback is that of who runs the loop */
      lua_pushnil(L);
      lua_setfield(L, -2, "traceback");
    }
    al_report(guard->ctx, L, guard->loop, "SIGINT", NULL);
  }
  al_leave(guard->ctx, L);
}

/* ---- guards ------------------------------------------------------------------------------------------------------ */

void al_sigint_allow(al_ctx *ctx) { ctx->takes_sigint = true; }

static void attach(l_sigint *guard, l_loop *loop) {
  guard->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (guard->fd < 0) return; /* a signal is then answered when Lua code runs next */
  al_handle_init(&guard->read, sigint_on_wake);
  al_handle *none;
  if (al_add_reader(loop->loop, guard->fd, &guard->read, &none) < 0) {
    close(guard->fd);
    guard->fd = -1;
    return;
  }
  guard->loop = loop;
  wake_fd = guard->fd;
  /* One that came before waits for Lua code to run, which may be long from now. */
  if (taken != arrived) eventfd_write(guard->fd, 1);
}

static void detach(l_sigint *guard) {
  if (!guard->loop) return;
  if (guard == top) wake_fd = guard->outer ? guard->outer->fd : -1;
  if (guard->loop->loop && !al_loop_is_closed(guard->loop->loop)) al_remove_reader(guard->loop->loop, guard->fd);
  close(guard->fd);
  guard->fd = -1;
  guard->loop = NULL;
}

void al_sigint_attach(al_ctx *ctx, l_loop *loop) {
  if (!top || top->ctx != ctx || top->loop == loop) return;
  detach(top);
  attach(top, loop);
}

void al_sigint_detach(al_ctx *ctx, l_loop *loop) {
  for (l_sigint *guard = top; guard; guard = guard->outer)
    if (guard->ctx == ctx && guard->loop == loop) detach(guard);
}

bool al_sigint_is_attached(const l_loop *loop) {
  const l_sigint *guard = top;
  while (guard && guard->loop != loop) guard = guard->outer;
  return guard != NULL;
}

/* Whether SIGINT may be ours now: nobody else's handler stands before ours, and it isn't ignored. */
static bool may_take(al_ctx *ctx) {
  struct sigaction now;
  if (!ctx->takes_sigint || sigaction(SIGINT, NULL, &now) < 0) return false;
  if (top) return now.sa_handler == on_sigint && pthread_equal(pthread_self(), thread);
  former = now;
  return now.sa_handler != SIG_IGN;
}

static void install(void) {
  thread = pthread_self();
  taken = arrived = 0;
  struct sigaction action = {.sa_handler = on_sigint, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
}

static void release(l_sigint *guard) {
  if (!guard->ctx) return;
  detach(guard);
  l_sigint **at = &top;
  while (*at != guard) at = &(*at)->outer;
  *at = guard->outer;
  struct sigaction now;
  if (!top && sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == on_sigint) sigaction(SIGINT, &former, NULL);
  al_unanchor(guard->ctx, guard->slot);
  guard->ctx = NULL;
}

static int guard_close(lua_State *L) {
  release(lua_touserdata(L, 1));
  return 0;
}

static void push_metatable(lua_State *L) {
  static const luaL_Reg metamethods[] = {{"__close", guard_close}, {"__gc", guard_close}, {NULL, NULL}};
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, metamethods) == LUA_TTABLE) return;
  lua_pop(L, 1);
  luaL_newlib(L, metamethods);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, metamethods);
}

void al_sigint_take(lua_State *L, al_ctx *ctx) {
  l_sigint *guard = lua_newuserdatauv(L, sizeof *guard, 1);
  memset(guard, 0, sizeof *guard);
  guard->fd = -1;
  push_metatable(L);
  lua_setmetatable(L, -2);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, 1);
  if (!may_take(ctx)) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return;
  }
  guard->slot = al_anchor(L, ctx, -1);
  guard->ctx = ctx;
  guard->L = L;
  guard->outer = top;
  if (!top) install();
  top = guard;
}

void al_sigint_release(lua_State *L, int guard) {
  if (lua_isuserdata(L, guard)) release(lua_touserdata(L, guard));
}

int al_sigint_count(lua_State *L, int guard) {
  l_sigint *g = lua_touserdata(L, guard);
  return g ? g->count : 0;
}

/* ---- for aloop.run ----------------------------------------------------------------------------------------------- */

/* take_sigint(loop, f) → a guard for <close>, or nil; also if the loop has a signal handler of its own */
static int take_sigint(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_check_loop(L, ctx, 1);
  al_check_callable(L, 2);
  lua_settop(L, 2);
  bool watched = lua_getiuservalue(L, 1, AL_LOOP_UV_SIGNALS) == LUA_TTABLE && lua_rawgeti(L, -1, SIGINT) != LUA_TNIL;
  lua_settop(L, 2);
  if (watched) return 0;
  al_sigint_take(L, ctx);
  return 1;
}

static int sigint_count(lua_State *L) {
  lua_pushinteger(L, al_sigint_count(L, 1));
  return 1;
}

static const luaL_Reg functions[] = {{"take_sigint", take_sigint}, {"sigint_count", sigint_count}, {NULL, NULL}};

void al_sigint_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
