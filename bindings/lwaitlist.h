/* lwaitlist.h - the tasks that wait in a lock, a queue, ... of the Lua part.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LWAITLIST_H
#define AL_LWAITLIST_H

#include "ltask.h"

/* Pushes the object of Lua that the task waits for: the lock, queue, ... in whose list it stands, or the owner of the
 * future that core.waiter made. false, and nothing pushed, if it waits for neither. */
bool al_task_push_owner(lua_State *L, al_ctx *ctx, l_task *task);

void al_waitlist_openlib(lua_State *L, al_ctx *ctx);

#endif
