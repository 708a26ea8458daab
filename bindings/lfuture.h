/* lfuture.h - futures. What waits for one are handles that stand in its own list; when it is done, the list moves to
 * the ready queue as a whole.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LFUTURE_H
#define AL_LFUTURE_H

#include "ctx.h"

enum { AL_FUTURE_PENDING, AL_FUTURE_FINISHED, AL_FUTURE_CANCELLED };

/* User values of a future. */
enum {
  AL_FUTURE_UV_LOOP = 1,
  AL_FUTURE_UV_VALUE, /* pending: table of the callbacks' handles, or nil (of tasks: see below); finished: the value,
                         the error, or the table of values; cancelled: the message, or the CancelledError that ended a
                         task */
  AL_FUTURE_UV_COUNT = AL_FUTURE_UV_VALUE,
  AL_FUTURE_UV_OWNER /* of one with has_owner or chained, and of none else */
};

/* Where a pending task has its creator, the Lua function that made it: in the table of the callbacks; or the creator
 * stands in place of that table. */
enum { AL_CALLBACKS_CREATOR = 0 };

struct l_future {
  l_loop *loop;
  al_list waiters; /* al_handle: steps of tasks and callbacks, in order */
  union {
    int nvalues;      /* finished: how many values; other than 1: they stand in a table */
    int created_line; /* a pending task: where in its creator, if it has one */
  };
  uint8_t state;
  bool failed : 1; /* finished with an error */
  bool unread : 1; /* its error was not looked at yet */
  bool is_task : 1;
  bool delegates : 1; /* made by core.gathering: cancel() is its owner's __cancel */
  bool chained : 1;   /* a concurrent future's, which is at AL_FUTURE_UV_OWNER (lrelay.c): cancel() goes on to that */
  bool has_owner : 1; /* made by core.waiter: it knows the lock, queue, ... that whoever waits for it waits for */
};

/* Makes a pending future of the loop (whose userdata is at loop_idx) and pushes it. */
l_future *al_future_new(lua_State *L, al_ctx *ctx, l_loop *loop);
l_future *al_test_future(lua_State *L, al_ctx *ctx, int idx);
/* Pushes what the future at idx was made for: the owner given to core.waiter, or nil. */
void al_future_owner(lua_State *L, const l_future *future, int idx);

/* Ends the future at idx with the nvalues on top (popped) / the error on top (popped) / cancelled with the message
 * on top (popped). It must be pending. */
void al_future_finish(lua_State *L, al_ctx *ctx, int idx, int nvalues);
void al_future_fail(lua_State *L, al_ctx *ctx, int idx);
/* As al_future_fail, where there is no memory for that: takes none, raises nothing. Nobody is reminded of the error,
 * and callbacks beyond the free slots of anchors are dropped (the caller may give one back before); but no task waits
 * for ever. */
void al_future_fail_poorly(lua_State *L, al_ctx *ctx, l_future *f, int idx);
void al_future_set_cancelled(lua_State *L, al_ctx *ctx, int idx);

/* Pushes the values of the done future at idx and returns their number, or raises its error. */
int al_future_result(lua_State *L, al_ctx *ctx, int idx);

/* For ltask.c: the fields of a new future whose userdata is at idx. */
void al_future_init(lua_State *L, al_ctx *ctx, l_future *future, l_loop *loop, int idx);

/* future:cancel(message on top (popped)) for the one at idx; false if it was done. */
bool al_future_cancel(lua_State *L, al_ctx *ctx, int idx);

/* Its error is taken: no report. */
void al_future_mark_read(al_ctx *ctx, l_future *future);

/* Reports the error of the future at idx to its loop's handler if nobody looked at it; all such of a loop. */
void al_future_report_unread(lua_State *L, al_ctx *ctx, int idx);
void al_future_report_all(lua_State *L, al_ctx *ctx, l_loop *loop);

/* openlib_late: when the methods of Future and Task are complete. */
void al_future_openlib_late(lua_State *L, al_ctx *ctx);
void al_future_openlib(lua_State *L, al_ctx *ctx);

#endif
