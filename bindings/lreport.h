/* lreport.h - the log of a Lua state.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LREPORT_H
#define AL_LREPORT_H

#include "ctx.h"

/* A line for aloop.set_log_handler's function, or for stderr. Never throws. */
void al_log_line(al_ctx *ctx, al_log_level level, const char *category, const char *text);
void al_log_forget(al_ctx *ctx); /* the state goes */
/* The state's loop begins to run in this thread: what the core logs here is its own. */
void al_log_enter_thread(al_ctx *ctx);

void al_report_openlib(lua_State *L, al_ctx *ctx);

#endif
