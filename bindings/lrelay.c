/* lrelay.c - how the end of a concurrent future reaches a Lua state: a Future of a loop, a callback, or a thread that
 * sleeps until then.
 *
 * A relay has two sides, and is freed when both have let go. One watches the concurrent future, in whatever thread ends
 * it; it brings the relay to the loop's inbox, or where there is no loop to the state's mailbox, which is looked into
 * whenever the state asks for a concurrent future. The other side is the state's: what is anchored in the relay's slot.
 *
 * SPDX-License-Identifier: MIT */
#include "lcfuture.h"
#include "lexecutor.h"
#include "lloop.h"
#include "ltask.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef enum target {
  TO_FUTURE,  /* the slot is a Future, which ends as the concurrent one does */
  TO_LATCH,   /* the same, but it ends without values or error, and its cancellation stays its own */
  TO_CALLBACK /* the slot is a table of a callback and the ConcurrentFuture that it is called with */
} target;

struct al_relay {
  al_cwatch watch;
  al_remote remote;
  target kind;
  int sides;           /* atomic: those that have not let go */
  al_cfuture *source;  /* one reference */
  al_loop *loop;       /* one reference; NULL: there is none, it goes to the mailbox */
  al_mailbox *mailbox; /* one reference; callbacks only */
  al_ctx *ctx;         /* the state's side only from here on */
  l_loop *owner;
  int slot;             /* 0: this side has let go */
  al_relay *next, **at; /* the owner's list, or the mailbox's */
};

/* The state's: the same for all its threads that sleep, and what came to it while no loop would take it. */
struct al_mailbox {
  int refs; /* atomic */
  int fd;   /* eventfd: something has come, or a sleeper's future is done */
  pthread_mutex_t mutex;
  al_remote *first, **end; /* relays */
  bool closed;
  al_relay *callbacks; /* those that wait; the state's thread only */
};

static al_relay *of_watch(al_cwatch *watch) { return (al_relay *)(void *)watch; }
static al_relay *of_remote(al_remote *r) { return (al_relay *)(void *)((char *)r - offsetof(al_relay, remote)); }

/* ---- the mailbox ------------------------------------------------------------------------------------------------- */

static void ring(const al_mailbox *box) {
  static const uint64_t one = 1;
  while (write(box->fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

static void mailbox_release(al_mailbox *box) {
  if (__atomic_sub_fetch(&box->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  close(box->fd);
  pthread_mutex_destroy(&box->mutex);
  free(box);
}

static al_mailbox *mailbox_of(lua_State *L, al_ctx *ctx) {
  if (ctx->mailbox) return ctx->mailbox;
  al_mailbox *box = calloc(1, sizeof *box);
  if (!box) luaL_error(L, "not enough memory");
  box->refs = 1;
  box->end = &box->first;
  box->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  int error = box->fd < 0 ? -errno : -pthread_mutex_init(&box->mutex, NULL);
  if (error < 0) {
    if (box->fd >= 0) close(box->fd);
    free(box);
    al_raise_os(L, ctx, error, NULL, NULL);
  }
  return ctx->mailbox = box;
}

/* False: the state is gone. */
static bool mailbox_put(al_mailbox *box, al_remote *letter) {
  letter->next = NULL;
  pthread_mutex_lock(&box->mutex);
  bool open = !box->closed;
  if (open) {
    *box->end = letter;
    box->end = &letter->next;
    ring(box);
  }
  pthread_mutex_unlock(&box->mutex);
  return open;
}

static al_remote *mailbox_take(al_mailbox *box) {
  pthread_mutex_lock(&box->mutex);
  al_remote *first = box->first;
  box->first = NULL;
  box->end = &box->first;
  pthread_mutex_unlock(&box->mutex);
  return first;
}

/* ---- relays ------------------------------------------------------------------------------------------------------ */

static void let_go(al_relay *relay) {
  if (__atomic_sub_fetch(&relay->sides, 1, __ATOMIC_ACQ_REL) > 0) return;
  al_cfuture_release(relay->source);
  if (relay->loop) al_loop_release(relay->loop);
  if (relay->mailbox) mailbox_release(relay->mailbox);
  free(relay);
}

static void enlist(al_relay *relay, al_relay **list) {
  relay->next = *list;
  relay->at = list;
  if (relay->next) relay->next->at = &relay->next;
  *list = relay;
}

/* The state's side lets go. */
static void forget(al_relay *relay) {
  if (relay->slot == 0) return;
  al_unanchor(relay->ctx, relay->slot);
  relay->slot = 0;
  *relay->at = relay->next;
  if (relay->next) relay->next->at = relay->at;
  let_go(relay);
}

/* The same when nothing is to come any more: the other side, too, unless it is on its way. */
static void give_up(al_relay *relay) {
  bool unwatched = al_cfuture_unwatch(relay->source, &relay->watch);
  forget(relay);
  if (unwatched) let_go(relay);
}

static void post(al_relay *relay) {
  if (relay->loop && al_call_soon_threadsafe(relay->loop, &relay->remote) == 0) return;
  if (!relay->mailbox || !mailbox_put(relay->mailbox, &relay->remote)) let_go(relay);
}

static void relay_fire(al_cwatch *watch) { post(of_watch(watch)); }

/* The loop was closed with the relay in its inbox. A callback still comes, when the state looks for it. */
static void relay_drop(al_remote *remote) {
  al_relay *relay = of_remote(remote);
  if (!relay->mailbox || !mailbox_put(relay->mailbox, remote)) let_go(relay);
}

/* ---- arriving ---------------------------------------------------------------------------------------------------- */

/* Future → it is done, as the concurrent one is */
static void copy_outcome(lua_State *L, al_ctx *ctx, al_cfuture *source, int idx) {
  if (al_cfuture_state(source) == AL_CF_CANCELLED) {
    lua_pushnil(L);
    al_future_set_cancelled(L, ctx, idx);
  } else if (source->failed) {
    al_cfuture_pusherror(L, ctx, source);
    al_future_fail(L, ctx, idx);
  } else {
    int n = source->outcome ? al_unmarshal(L, ctx, source->outcome) : 0;
    const l_future *f = lua_touserdata(L, idx); /* the values may have run code: modules are required */
    if (f->state == AL_FUTURE_PENDING) al_future_finish(L, ctx, idx, n);
  }
}

/* relay → */
static int future_body(lua_State *L) {
  al_relay *relay = lua_touserdata(L, 1);
  al_ctx *ctx = relay->ctx;
  al_pushanchored(L, ctx, relay->slot);
  const l_future *f = lua_touserdata(L, 2);
  if (f->state != AL_FUTURE_PENDING) return 0;
  if (relay->kind == TO_LATCH) {
    al_future_finish(L, ctx, 2, 0);
  } else {
    copy_outcome(L, ctx, relay->source, 2);
  }
  return 0;
}

/* relay, error → the Future, if it is still pending, has this error */
static int fail_body(lua_State *L) {
  al_relay *relay = lua_touserdata(L, 1);
  al_pushanchored(L, relay->ctx, relay->slot);
  lua_insert(L, 2);
  const l_future *f = lua_touserdata(L, 2);
  if (f->state == AL_FUTURE_PENDING) al_future_fail(L, relay->ctx, 2);
  return 0;
}

/* The error on top (popped) kept its Future from ending: it fails with that, even if there is little memory. */
static void fail(lua_State *L, al_relay *relay) {
  al_ctx *ctx = relay->ctx;
  lua_pushcfunction(L, fail_body);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, relay);
  lua_insert(L, -2);
  if (al_pcall(L, 2, 0) == LUA_OK) return;
  lua_pushvalue(L, -1);
  al_report(ctx, L, relay->owner, "a result from elsewhere was lost", NULL);
  al_pushanchored(L, ctx, relay->slot);
  lua_insert(L, -2);
  l_future *f = lua_touserdata(L, -2);
  if (f->state == AL_FUTURE_PENDING)
    al_future_fail_poorly(L, ctx, f, lua_gettop(L) - 1);
  else
    lua_pop(L, 1);
  lua_pop(L, 1);
}

/* relay → its callback is called with the ConcurrentFuture */
static int callback_body(lua_State *L) {
  al_relay *relay = lua_touserdata(L, 1);
  al_pushanchored(L, relay->ctx, relay->slot);
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  lua_call(L, 1, 0);
  return 0;
}

static int warn_body(lua_State *L) {
  const al_relay *relay = lua_touserdata(L, 1);
  al_pusherrortext(L, relay->ctx, 2);
  al_warn(relay->ctx, NULL, "exception calling callback of a ConcurrentFuture: %s", lua_tostring(L, -1));
  return 0;
}

/* The error on top (popped), raised by the callback. */
static void report(lua_State *L, al_relay *relay) {
  al_ctx *ctx = relay->ctx;
  if (ctx->running) {
    al_report(ctx, L, ctx->running, "exception calling callback of a ConcurrentFuture", NULL);
    return;
  }
  lua_pushcfunction(L, warn_body);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, relay);
  lua_insert(L, -2);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1);
}

/* In the state's thread, outside of any protected call: the concurrent future is done. */
static void arrive(al_relay *relay) {
  al_ctx *ctx = relay->ctx;
  lua_State *L = al_enter(ctx);
  if (L) {
    lua_CFunction body = relay->kind == TO_CALLBACK ? callback_body : future_body;
    if (al_pcall_c(L, body, relay, 0) != LUA_OK) {
      if (relay->kind == TO_CALLBACK) {
        report(L, relay);
      } else {
        fail(L, relay);
      }
    }
    al_leave(ctx, L);
  }
  forget(relay);
}

static void relay_run(al_loop *loop, al_remote *remote) {
  (void)loop;
  al_relay *relay = of_remote(remote);
  if (relay->slot) arrive(relay);
  let_go(relay);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* A relay for the value on top (kept), which is anchored: all of it that may raise. */
static al_relay *relay_new(lua_State *L, al_ctx *ctx, target kind, al_loop *loop) {
  int slot = al_anchor(L, ctx, -1);
  al_relay *relay = malloc(sizeof *relay);
  if (!relay) {
    al_unanchor(ctx, slot);
    luaL_error(L, "not enough memory");
    return NULL;
  }
  *relay = (al_relay){.watch.fire = relay_fire,
                      .remote = {.run = relay_run, .drop = relay_drop},
                      .kind = kind,
                      .sides = 2,
                      .loop = loop,
                      .ctx = ctx,
                      .slot = slot};
  return relay;
}

/* It waits for the source from now on; the caller's reference is the relay's. */
static void start(al_relay *relay, al_cfuture *source) {
  relay->source = source;
  if (relay->loop) al_loop_hold(relay->loop);
  if (!al_cfuture_watch(source, &relay->watch)) post(relay);
}

/* Between what may raise and what may not, the relay to come stands ready with its slot. */
static void prepare(lua_State *L, al_ctx *ctx, l_loop *loop) {
  if (loop->spare_relay) return;
  lua_pushboolean(L, true);
  loop->spare_relay = relay_new(L, ctx, TO_FUTURE, loop->loop);
  lua_pop(L, 1);
}

static void free_spare(al_ctx *ctx, l_loop *loop) {
  if (!loop->spare_relay) return;
  al_unanchor(ctx, loop->spare_relay->slot);
  free(loop->spare_relay);
  loop->spare_relay = NULL;
}

/* Takes the one that is prepared, for the Future on top. */
static al_relay *take_spare(lua_State *L, al_ctx *ctx, l_loop *owner, target kind) {
  al_relay *relay = owner->spare_relay;
  owner->spare_relay = NULL;
  relay->kind = kind;
  relay->owner = owner;
  enlist(relay, &owner->relays);
  al_ctx_anchors(L, ctx);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, relay->slot); /* the slot is there: this takes no memory */
  lua_pop(L, 1);
  return relay;
}

/* Future, for a loop whose class makes its own: Future and ConcurrentFuture are upvalues 2 and 3 of its callback */
static int cancel_source(lua_State *L) {
  const l_future *f = lua_touserdata(L, lua_upvalueindex(2));
  if (f->state == AL_FUTURE_CANCELLED) al_cfuture_cancel(al_test_cfuture(L, al_ctx_of(L), lua_upvalueindex(3)));
  return 0;
}

/* Pushes what loop:create_future() gives, which cancels the source when it is cancelled. */
static void push_custom_future(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *source) {
  al_pushloop(L, loop);
  lua_getfield(L, -1, "create_future");
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  const l_future *f = al_test_future(L, ctx, -1);
  if (!f || f->state != AL_FUTURE_PENDING) al_raise(L, ctx, AL_C_RuntimeError, "create_future gave no pending Future");
  lua_getfield(L, -1, "add_done_callback");
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, ctx);
  lua_pushvalue(L, -2);
  al_cfuture **handle = al_new_cfuture(L, ctx);
  al_cfuture_hold(source);
  *handle = source;
  lua_pushcclosure(L, cancel_source, 3);
  lua_call(L, 2, 0);
}

/* The Future on top lets go of its relay when it is cancelled. */
static void chain(lua_State *L, l_future *f, al_relay *relay) {
  lua_pushlightuserdata(L, relay);
  lua_setiuservalue(L, -2, AL_FUTURE_UV_OWNER);
  f->chained = true;
}

void al_wrap_prepare(lua_State *L, al_ctx *ctx, l_loop *loop) {
  prepare(L, ctx, loop);
  l_future *f = al_new(L, ctx, AL_C_Future, sizeof *f, AL_FUTURE_UV_OWNER);
  al_future_init(L, ctx, f, loop, lua_gettop(L));
}

static void begin(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *source, target kind) {
  al_relay *relay = take_spare(L, ctx, loop, kind);
  chain(L, lua_touserdata(L, -1), relay);
  start(relay, source);
}

void al_wrap_begin(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *source) {
  begin(L, ctx, loop, source, TO_FUTURE);
}

void al_wrap_cfuture(lua_State *L, al_ctx *ctx, l_loop *loop, al_cfuture *source) {
  al_check_alive(L, loop);
  if (loop->custom_future) {
    push_custom_future(L, ctx, loop, source);
    prepare(L, ctx, loop);
    al_cfuture_hold(source);
    start(take_spare(L, ctx, loop, TO_FUTURE), source);
  } else {
    al_wrap_prepare(L, ctx, loop);
    al_cfuture_hold(source);
    al_wrap_begin(L, ctx, loop, source);
  }
}

void al_wrapped_cancelled(lua_State *L, al_ctx *ctx, int idx) {
  (void)ctx;
  l_future *f = lua_touserdata(L, idx);
  f->chained = false;
  lua_getiuservalue(L, idx, AL_FUTURE_UV_OWNER);
  al_relay *relay = lua_touserdata(L, -1);
  lua_pop(L, 1);
  al_cfuture *source = relay->source;
  bool cancels = relay->kind == TO_FUTURE;
  al_cfuture_hold(source);
  give_up(relay);
  if (cancels) al_cfuture_cancel(source);
  al_cfuture_release(source);
}

void al_relays_forget(al_ctx *ctx, l_loop *loop) {
  free_spare(ctx, loop);
  while (loop->relays) {
    al_relay *relay = loop->relays;
    lua_State *L = al_try_enter(ctx);
    if (L) {
      al_pushanchored(L, ctx, relay->slot);
      ((l_future *)lua_touserdata(L, -1))->chained = false; /* nothing is behind it any more */
      al_leave(ctx, L);
    }
    give_up(relay);
  }
}

/* ---- callbacks --------------------------------------------------------------------------------------------------- */

/* The loop that callbacks come from: the one that runs, or will in the main chunk; NULL: none does. */
static l_loop *loop_for_callbacks(lua_State *L, al_ctx *ctx) {
  if (ctx->running) return ctx->running;
  return ctx->current && ctx->current->is_main ? al_default_loop(L, ctx) : NULL;
}

/* (ConcurrentFuture, f): f(ConcurrentFuture) is called in this state's thread, once it is done */
static int cfuture_add_done_callback(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_cfuture *source = al_check_cfuture(L, ctx, 1);
  al_check_callable(L, 2);
  lua_settop(L, 2);
  l_loop *loop = loop_for_callbacks(L, ctx);
  al_mailbox *box = mailbox_of(L, ctx);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, 1);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, 2);
  al_relay *relay = relay_new(L, ctx, TO_CALLBACK, loop ? loop->loop : NULL);
  __atomic_fetch_add(&box->refs, 1, __ATOMIC_RELAXED);
  relay->mailbox = box;
  enlist(relay, &box->callbacks);
  al_cfuture_hold(source);
  start(relay, source);
  al_mailbox_drain(ctx);
  return 0;
}

void al_mailbox_drain(al_ctx *ctx) {
  if (!ctx->mailbox) return;
  al_remote *letter = mailbox_take(ctx->mailbox);
  while (letter) {
    al_remote *next = letter->next;
    relay_run(NULL, letter);
    letter = next;
  }
}

void al_mailbox_close(al_ctx *ctx) {
  al_mailbox *box = ctx->mailbox;
  if (!box) return;
  ctx->mailbox = NULL;
  pthread_mutex_lock(&box->mutex);
  box->closed = true;
  pthread_mutex_unlock(&box->mutex);
  al_remote *letter = mailbox_take(box);
  while (letter) {
    al_remote *next = letter->next;
    let_go(of_remote(letter));
    letter = next;
  }
  while (box->callbacks) give_up(box->callbacks);
  mailbox_release(box);
}

/* ---- waiting in a task: a Future that ends when it is done ------------------------------------------------------- */

/* latch(ConcurrentFuture) → Future of the running loop */
static int latch(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  al_cfuture *source = al_check_cfuture(L, ctx, 1);
  l_loop *loop = al_default_loop(L, ctx);
  al_wrap_prepare(L, ctx, loop);
  al_cfuture_hold(source);
  begin(L, ctx, loop, source, TO_LATCH);
  return 1;
}

/* ---- waiting without a task -------------------------------------------------------------------------------------- */

typedef struct sleeper {
  al_cwatch watch; /* first */
  al_mailbox *box;
  bool woken; /* under the box's mutex */
} sleeper;

static void sleeper_fire(al_cwatch *watch) {
  sleeper *s = (sleeper *)(void *)watch;
  al_mailbox *box = s->box;
  pthread_mutex_lock(&box->mutex);
  s->woken = true;
  ring(box);
  pthread_mutex_unlock(&box->mutex);
}

static bool is_woken(sleeper *s) {
  pthread_mutex_lock(&s->box->mutex);
  bool woken = s->woken;
  pthread_mutex_unlock(&s->box->mutex);
  return woken;
}

/* Milliseconds until then, rounded up. */
static int timeout_ms(int64_t deadline_ns) {
  if (deadline_ns == INT64_MAX) return -1;
  int64_t left_ms = (deadline_ns - al_time_ns() + 999999) / 1000000;
  return left_ms < 0 ? 0 : left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

/* A signal came: its handler may have asked for a hook, which Lua code alone calls. False: the error is on top. */
static bool answer_signal(lua_State *L) {
  return luaL_loadstring(L, "return") == LUA_OK && lua_pcall(L, 0, 0, 0) == LUA_OK;
}

/* Until it is woken (true) or the time has come, or an error is on top. */
static bool sleep_until(lua_State *L, al_ctx *ctx, sleeper *s, int64_t deadline_ns, bool *failed) {
  while (!is_woken(s)) {
    int ms = timeout_ms(deadline_ns);
    if (ms == 0) return false;
    int n = poll(&(struct pollfd){.fd = s->box->fd, .events = POLLIN}, 1, ms);
    if (n < 0 && errno == EINTR && !answer_signal(L)) {
      *failed = true;
      return false;
    }
    uint64_t count;
    if (n > 0 && read(s->box->fd, &count, sizeof count) > 0) {
      al_mailbox_drain(ctx);
      al_executor_look(ctx); /* a callback may have submitted a job */
    }
  }
  return true;
}

static bool is_own_loop(const al_ctx *ctx, const void *home) {
  const l_loop *loop = ctx->loops;
  while (loop && loop->loop != home) loop = loop->next;
  return loop != NULL;
}

bool al_cfuture_block(lua_State *L, al_ctx *ctx, al_cfuture *f, int64_t deadline_ns) {
  al_mailbox_drain(ctx);
  if (al_cfuture_is_done(f)) return true;
  if (f->home && is_own_loop(ctx, f->home))
    al_raise(L, ctx, AL_C_RuntimeError,
             "this would block the thread of the loop that the result comes from; await it in a task");
  sleeper s = {.watch.fire = sleeper_fire, .box = mailbox_of(L, ctx)};
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  al_executor_look(ctx);
  if (!al_cfuture_watch(f, &s.watch)) return true;
  bool failed = false, woken = sleep_until(L, ctx, &s, deadline_ns, &failed);
  if (!woken && !al_cfuture_unwatch(f, &s.watch)) { /* it is being woken right now */
    while (!is_woken(&s)) poll(&(struct pollfd){.fd = s.box->fd, .events = POLLIN}, 1, 1);
    woken = true;
  }
  if (failed) lua_error(L);
  return woken;
}

/* wrap_future(ConcurrentFuture or Future, [{loop}]) → Future */
static int wrap_future(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"loop", NULL};
  l_loop *loop = NULL;
  if (al_options(L, 2, "wrap_future", names) && al_option(L, 2, "loop") != LUA_TNIL) {
    loop = al_test_loop(L, ctx, lua_gettop(L));
    if (!loop) return al_option_error(L, "wrap_future", "loop", "AbstractEventLoop", -1);
  }
  lua_settop(L, 1);
  if (al_test_future(L, ctx, 1)) return 1;
  al_cfuture *source = al_test_cfuture(L, ctx, 1);
  if (!source) return al_typeerror(L, 1, "ConcurrentFuture");
  al_wrap_cfuture(L, ctx, loop ? loop : al_push_implied_loop(L, ctx), source);
  return 1;
}

void al_relay_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg methods[] = {{"add_done_callback", cfuture_add_done_callback}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"latch", latch}, {"wrap_future", wrap_future}, {NULL, NULL}};
  al_class_methods(L, ctx, AL_C_ConcurrentFuture, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
