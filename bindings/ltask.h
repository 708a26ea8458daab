/* ltask.h - tasks, and how a C function waits in one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LTASK_H
#define AL_LTASK_H

#include "lfuture.h"

/* Something that a task waits for. It is embedded in the state of the operation, which is usually a userdata that
 * stays on the stack of the waiting C function, so that it needs no other owner. */
typedef struct l_wait l_wait;

/* What the waits of one kind of operation have in common. */
typedef struct l_wait_kind {
  /* In the task again, after al_wake: pushes the results and returns their number, or raises. L's stack is as the
   * waiting C function left it. */
  int (*finish)(lua_State *L, al_ctx *ctx, l_wait *wait);
  /* The task was cancelled (before or after al_wake, but before finish): ends the operation and disposes of its result.
   * finish won't be called. Must not throw. */
  void (*abandon)(al_ctx *ctx, l_wait *wait);
  const char *what; /* "connection", "timer": for reports */
} l_wait_kind;

struct l_wait { /* al_wait fills it */
  const l_wait_kind *kind;
  l_task *task;
};

/* The current task if a C function called from L may wait here; else raises RuntimeError that says why and what to do
 * (no task; inside a C function that can't be suspended; a coroutine resumed by a foreign resume). f: its name. Call it
 * before anything is begun. */
l_task *al_check_wait(lua_State *L, al_ctx *ctx, const char *f);
/* For what waits only where it can, as a __close: would al_check_wait return? Doesn't throw. */
bool al_may_wait(lua_State *L, al_ctx *ctx);

/* Suspends the current task until al_wake(wait) or cancellation: `return al_wait(L, ctx, wait, kind);`. */
int al_wait(lua_State *L, al_ctx *ctx, l_wait *wait, const l_wait_kind *kind);

/* The operation has ended: the task goes on in the next turn, with its kind's finish. Never throws. */
void al_wake(l_wait *wait);

/* lwaitfuture.c: the same in a loop whose class makes its own futures, by one of which the wait is shown. */
int al_wait_on_future(lua_State *L, al_ctx *ctx, l_wait *wait);
void al_wake_future(l_wait *wait);
l_wait *al_take_shown_wait(lua_State *L, l_task *task); /* it is shown no more */

/* User values of a task, behind those of a future, the second of which has its creator, too. */
enum {
  AL_TASK_UV_THREAD = AL_FUTURE_UV_COUNT + 1, /* its Lua thread */
  AL_TASK_UV_CONTEXT,
  AL_TASK_UV_AWAITED, /* the future it waits for; or the lock, queue, ... (lwaitlist.h) */
  AL_TASK_UV_CORO,    /* what create_task was given */
  AL_TASK_UV_COUNT = AL_TASK_UV_CORO
};

typedef struct l_scope l_scope; /* lscope.h */

/* There may be a million of them, so what excludes each other shares its place, and what few tasks have stands
 * elsewhere: names and messages in AL_SLOT_TEXTS, the wait of one that is shown in the registry. Slots at the bottom of
 * the thread's stack are dear, too: there are 40, and a C function called with 20 in use doubles them. */
struct l_task {
  l_future f;
  al_handle step; /* queued: it goes on in the next turn; or it stands in the list of the awaited future */
  al_link all;    /* the loop's list of unfinished tasks */
  lua_State *co;  /* NULL once done */
  union {
    l_wait *wait;       /* an operation, a list, ...; or NULL */
    l_future *future;   /* awaits */
  } waits_for;          /* see al_task_wait */
  l_scope *scopes;      /* its open scopes, the innermost first */
  int slot;             /* anchored until done */
  int cancelling;       /* cancel() requests not taken back */
  uint64_t number : 47; /* Task-N */
  unsigned context_kind : 2;
  bool awaits : 1;      /* it waits for a future */
  bool shown : 1;       /* the future that it awaits was made for an operation: lwaitfuture.c */
  bool has_texts : 1;   /* anchors[AL_SLOT_TEXTS] has an entry for it */
  bool reraised : 1;    /* an error of a task that it awaited was raised in it */
  bool must_cancel : 1; /* to be told at the next step */
  bool told : 1;        /* a CancelledError was raised in it, and is not known to be lost */
  bool throwing : 1;    /* a CancelledError is to be raised where it waits */
  bool misyielded : 1;  /* it yielded a value that was not aloop's: a RuntimeError is to be raised there */
  bool started : 1;
  bool is_main : 1, settled : 1; /* the main chunk; its loop is known */
  bool woken : 1;                /* from a wait list, or by the end of what lwaitfuture.c shows */
  bool begins : 1;  /* its body is in C, and begins even if it was cancelled before: it has something to end */
  bool exposed : 1; /* its thread was given to a script: it isn't used again */
  bool traced : 1;  /* call.c remembers a traceback of an error that it met */
};

/* A task waits for a future, or in another way, or (NULL both) for nothing but its turn. */
static inline l_future *al_task_awaited(const l_task *task) { return task->awaits ? task->waits_for.future : NULL; }
static inline l_wait *al_task_wait(const l_task *task) { return task->awaits ? NULL : task->waits_for.wait; }
static inline void al_task_set_awaited(l_task *task, l_future *future) {
  task->waits_for.future = future;
  task->awaits = true;
}
static inline void al_task_set_wait(l_task *task, l_wait *wait) {
  task->waits_for.wait = wait;
  task->awaits = false;
}
/* Ends its wait without a result, if it is no future. */
static inline void al_task_abandon(al_ctx *ctx, l_task *task) {
  l_wait *wait = al_task_wait(task);
  if (!wait) return;
  task->waits_for.wait = NULL;
  wait->kind->abandon(ctx, wait);
}

/* The current task, if it is what runs: not a callback which it made C call at once, as write() calls pause_writing. */
static inline l_task *al_task_here(const al_ctx *ctx) { return ctx->depth > ctx->step_depth ? NULL : ctx->current; }

/* task:cancel(message on top (popped)) for the one at idx; false if it was done. */
bool al_task_cancel(lua_State *L, al_ctx *ctx, int idx);
/* task:uncancel(): how many requests are left. */
int al_task_uncancel(l_task *task);
void al_task_pushname(lua_State *L, l_task *task); /* for tracebacks: the main chunk is "main" */
void al_task_pushname_of(lua_State *L, int idx);   /* of any, which stands at idx */
/* Pushes the message of the last cancel() of the task at idx; sets it to the value on top (popped). */
void al_task_get_message(lua_State *L, int idx);
void al_task_set_message(lua_State *L, int idx);
void al_task_drop_message(lua_State *L, int idx); /* doesn't throw */
/* Pushes "\n<name> was created at file:line", or "". */
void al_task_push_creation(lua_State *L, l_task *task);
void al_task_pushself(lua_State *L, al_ctx *ctx, l_task *task); /* an unfinished one */

/* At loop close: pending tasks are let go of, to be reported when they are collected. */
void al_task_forget_all(lua_State *L, al_ctx *ctx, l_loop *loop);
void al_task_report_destroyed(lua_State *L, al_ctx *ctx, int idx);

/* Waits for the future at idx of a waiting C function's stack: `return al_await(L, ctx, idx);`. */
int al_await(lua_State *L, al_ctx *ctx, int idx);

/* Pushes a future for the awaitable at idx: itself, or a task on the loop; raises bad argument #idx otherwise. */
l_future *al_ensure_future(lua_State *L, al_ctx *ctx, l_loop *loop, int idx);

/* Runs the function and its nargs arguments on top as the main chunk: a task that is stepped at once, outside of any
 * loop; when it first waits, its loop (al_default_loop) runs until it is done. LUA_OK with the results, or an error
 * status with the error, on top instead. */
int al_main_run(lua_State *L, al_ctx *ctx, int nargs);
l_task *al_main_task(al_ctx *ctx); /* while al_main_run runs, else NULL */
/* Settles the loop of the main task if it isn't yet. */
void al_main_settle(lua_State *L, al_ctx *ctx);

/* Coroutines: the tag that aloop's own yields carry. */
extern const char al_wait_tag;
/* Suspends the calling C function of the current task with k as continuation; what wakes it up is settled already. */
int al_suspend(lua_State *L, lua_KContext kctx, lua_KFunction k);
/* Pushes a function that runs the coroutine at idx as the body of a task. */
void al_coro_pushdriver(lua_State *L, al_ctx *ctx, int idx);
/* coroutine.yield() in L goes on: its results. */
int al_task_yielded(lua_State *L, al_ctx *ctx);
bool al_task_is_step(const al_handle *core);
bool al_coro_is_passing(lua_CFunction f); /* one of lcoro.c's that let waits through */
bool al_coro_is_waiting(lua_State *co);   /* suspended by aloop, not by a script */
void al_coro_openlib(lua_State *L, al_ctx *ctx);

/* Its open scopes are closed without a word; the place of the innermost one, as text. */
void al_scope_forget_all(al_ctx *ctx, l_task *task);
void al_scope_push_place(lua_State *L, al_ctx *ctx, const l_task *task);

/* For the files of tasks. Pushes a new task of the loop for the coroutine (function or thread) at idx, not queued
 * yet; its context is the value on top (popped), of this kind. name: where its name stands, or nil; 0: it has none. */
l_task *al_task_new(lua_State *L, al_ctx *ctx, l_loop *loop, int idx, int context_kind, int name);
bool al_is_coroutine(lua_State *L, int idx); /* a function, an object that can be called, a suspended coroutine */
void al_task_set_name(lua_State *L, int self, int name);
l_task *al_task_of_link(al_link *all);
void al_task_prepare(lua_State *L, al_ctx *ctx); /* what the anchors hold for tasks */
/* Pushes a coroutine that is ready to be given a body and its arguments. */
lua_State *al_task_push_coroutine(lua_State *L, al_ctx *ctx);
/* One step of the task whose userdata is at self of L, a thread of al_enter. */
void al_task_run_step(al_ctx *ctx, lua_State *L, l_task *task, int self);
/* In the task again after al_suspend: raises the cancellation that is to be raised there. */
l_task *al_task_resumed(lua_State *L, al_ctx *ctx);
/* The same for who raises it later: pushes the CancelledError; false if there is none to raise. */
bool al_task_take_cancellation(lua_State *L, al_ctx *ctx);
void al_task_step(al_loop *loop, al_handle *step); /* the callback of l_task.step */

void al_task_openlib(lua_State *L, al_ctx *ctx);   /* ltaskobj.c */
void al_create_openlib(lua_State *L, al_ctx *ctx); /* lcreate.c */
void al_sleep_openlib(lua_State *L, al_ctx *ctx);  /* lsleep.c */

#endif
