/* lprocess.c - SubprocessTransport: what becomes of a child and of its pipes, told to a SubprocessProtocol in asyncio's
 * order: connection_made, then pipe_data_received, pipe_connection_lost and process_exited as they come,
 * connection_lost when the child has ended and all pipes are lost. lchildpipe.c is between a pipe and this; lspawn.c
 * makes children.
 *
 * SPDX-License-Identifier: MIT */
#include "lprocess.h"

#include "lcontext.h"
#include "lpause.h"
#include "lrepr.h"
#include "lsignal.h"
#include "ltransport.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* ---- calls of the protocol --------------------------------------------------------------------------------------- */

enum { ANCHORS = 1, TRACEBACK, BOX, FORMER_CONTEXT }; /* stack of a call, and BOX of an event's */
enum { NOT_SWAPPED = -1 };

static const char *const method_names[] = {
#define X(name) #name,
    AL_PROCESS_METHODS(X)
#undef X
};

static int call_body(lua_State *L) { /* event, box */
  const l_event *e = lua_touserdata(L, 1);
  if (lua_getiuservalue(L, 2, AL_PROCESS_UV_METHODS + e->method) == LUA_TNIL) return 0;
  lua_getiuservalue(L, 2, AL_PROCESS_UV_PROTOCOL);
  int method = lua_gettop(L) - 1;
  if (e->method == AL_PM_connection_made) lua_pushvalue(L, 2);
  if (e->method == AL_PM_pipe_data_received || e->method == AL_PM_pipe_connection_lost) lua_pushinteger(L, e->fd);
  if (e->method == AL_PM_pipe_data_received) lua_pushlstring(L, e->data, e->len);
  if (e->error) al_pushoserror(L, e->process->ctx, e->error, NULL, NULL);
  lua_call(L, lua_gettop(L) - method, 0);
  return 0;
}

/* Reports the error on top (popped). */
static void report(lua_State *L, const l_event *e) {
  char message[80];
  snprintf(message, sizeof message, "Exception in callback protocol.%s()", method_names[e->method]);
  lua_getiuservalue(L, BOX, AL_PROCESS_UV_PROTOCOL);
  lua_insert(L, -2);
  const al_key keys[] = {{"transport", BOX}, {"protocol", lua_gettop(L) - 1}, {NULL, 0}};
  al_report(e->process->ctx, L, e->process->loop, message, keys);
}

static int enter_context(lua_State *L, const l_process *p) {
  if (p->context_kind == AL_CONTEXT_EMPTY && p->ctx->context_kind == AL_CONTEXT_EMPTY) return NOT_SWAPPED;
  lua_getiuservalue(L, BOX, AL_PROCESS_UV_CONTEXT);
  return al_context_swap(L, p->ctx, p->context_kind);
}

/* What a callback sets is seen by no other, as each has its own copy in asyncio. */
static void leave_context(lua_State *L, const l_process *p, int former) {
  if (former == NOT_SWAPPED && p->ctx->context_kind == AL_CONTEXT_EMPTY) return;
  if (former == NOT_SWAPPED)
    lua_pushnil(L);
  else
    lua_pushvalue(L, FORMER_CONTEXT);
  al_context_swap(L, p->ctx, former == NOT_SWAPPED ? AL_CONTEXT_EMPTY : former);
}

void al_process_call(const l_event *e) {
  l_process *p = e->process;
  lua_State *L = p->streams ? NULL : al_enter(p->ctx);
  if (!L) return;
  if (lua_rawgeti(L, ANCHORS, p->slot) == LUA_TUSERDATA) {
    int former = enter_context(L, p);
    lua_pushcfunction(L, call_body);
    lua_pushlightuserdata(L, (void *)e);
    lua_pushvalue(L, BOX);
    if (al_pcall(L, 2, 0) != LUA_OK) report(L, e);
    leave_context(L, p, former);
  }
  al_leave(p->ctx, L);
}

static void tell(l_process *p, al_process_method method) {
  l_event e = {.process = p, .method = method};
  al_process_call(&e);
}

/* ---- its life ---------------------------------------------------------------------------------------------------- */

static l_process *of_begin(al_handle *handle) {
  return (l_process *)(void *)((char *)handle - offsetof(l_process, begin));
}
static l_process *of_lost(al_handle *handle) {
  return (l_process *)(void *)((char *)handle - offsetof(l_process, lost));
}

static void wake_all(l_process *p) {
  while (!al_list_is_empty(&p->waiting)) {
    l_pause *pause = al_pause_of_link(p->waiting.next);
    al_handle_cancel(&pause->timer.handle);
    al_wake(&pause->wait);
  }
}

/* Nothing comes any more, and nothing is waited for. */
static void end(l_process *p) {
  if (p->process) al_process_release(p->process);
  for (int i = 0; i < 3; i++) {
    if (p->pipes[i]) al_transport_release(p->pipes[i]);
    p->pipes[i] = NULL;
  }
  p->process = NULL;
  p->loop = NULL;
  al_unanchor(p->ctx, p->slot);
  p->slot = 0;
}

static void on_lost(al_loop *loop, al_handle *handle) {
  (void)loop;
  tell(of_lost(handle), AL_PM_connection_lost);
  end(of_lost(handle));
}

static void on_begin(al_loop *loop, al_handle *handle) {
  (void)loop;
  l_process *p = of_begin(handle);
  tell(p, AL_PM_connection_made);
  if (p->starting.task) al_wake(&p->starting);
}

static void end_if_over(l_process *p) {
  if (!p->exited || p->n_open > 0 || p->ending || !p->loop) return;
  p->ending = true;
  al_call_soon(p->loop->loop, &p->lost);
}

static void kill_if_running(l_process *p) {
  if (p->exited || !p->process) return;
  if (al_loop_debug(p->loop->loop)) al_warn(p->ctx, NULL, "Close running child process: kill %d", (int)p->pid);
  al_process_kill(p->process, SIGKILL);
}

static void close_process(l_process *p) {
  if (p->closing) return;
  p->closing = true;
  for (int i = 0; i < 3; i++)
    if (p->pipes[i]) al_transport_close(p->pipes[i]);
  kill_if_running(p);
}

/* A Process's transport is closed when there is nothing more to come, for its user doesn't know it. */
static void close_if_drained(l_process *p) {
  bool drained =
      (!p->pipes[1] || al_transport_is_closing(p->pipes[1])) && (!p->pipes[2] || al_transport_is_closing(p->pipes[2]));
  if (p->streams && p->exited && drained) close_process(p);
}

void al_process_pipe_lost(l_process *p, int fd, int error) {
  p->n_open--;
  l_event e = {.process = p, .method = AL_PM_pipe_connection_lost, .fd = fd, .error = error};
  al_process_call(&e);
  close_if_drained(p);
  end_if_over(p);
}

static void on_exited(al_process *process, void *data, int returncode) {
  (void)process;
  l_process *p = data;
  p->exited = true;
  p->returncode = returncode;
  if (al_loop_debug(p->loop->loop))
    al_log(AL_LOG_INFO, NULL, "process %d exited with return code %d", (int)p->pid, returncode);
  tell(p, AL_PM_process_exited);
  wake_all(p);
  close_if_drained(p);
  end_if_over(p);
}

typedef struct text {
  char bytes[128];
} text;

static const char *describe(const l_process *p, text *t);

static void warn_unclosed(lua_State *L, const l_process *p, int box) {
  text t = {""};
  al_warn_unclosed(L, p->ctx, box, "transport", describe(p, &t));
}

/* The loop closes. */
static void on_closed(al_process *process, void *data, bool running) {
  (void)process;
  l_process *p = data;
  al_handle_cancel(&p->begin);
  al_handle_cancel(&p->lost);
  lua_State *L = p->closing || p->ending ? NULL : al_enter(p->ctx);
  if (L && lua_rawgeti(L, ANCHORS, p->slot) == LUA_TUSERDATA) warn_unclosed(L, p, BOX);
  if (L) al_leave(p->ctx, L);
  p->closing = true;
  if (running) {
    p->exited = true;
    p->returncode = -SIGKILL;
  }
  end(p);
}

const al_process_owner al_process_callbacks = {.exited = on_exited, .closed = on_closed};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void set_methods(lua_State *L, int box, int protocol) {
  for (int m = 0; m < AL_PM_COUNT; m++) {
    lua_getfield(L, protocol, method_names[m]);
    if (!lua_toboolean(L, -1)) {
      lua_pop(L, 1);
      lua_pushnil(L);
    }
    lua_setiuservalue(L, box, AL_PROCESS_UV_METHODS + m);
  }
  lua_pushvalue(L, protocol);
  lua_setiuservalue(L, box, AL_PROCESS_UV_PROTOCOL);
}

l_process *al_process_new(lua_State *L, al_ctx *ctx, l_loop *loop, int protocol) {
  l_process *p = al_new(L, ctx, AL_C_SubprocessTransport, sizeof *p, AL_PROCESS_UV_COUNT);
  int box = lua_gettop(L);
  p->self = p;
  p->ctx = ctx;
  p->loop = loop;
  p->streams = protocol == 0;
  al_list_init(&p->waiting);
  al_handle_init(&p->begin, on_begin);
  al_handle_init(&p->lost, on_lost);
  if (protocol) {
    set_methods(L, box, protocol);
    p->context_kind = (uint8_t)al_context_capture(L, ctx);
    lua_setiuservalue(L, box, AL_PROCESS_UV_CONTEXT);
  }
  if (al_loop_debug(loop->loop)) al_remember_place(L, ctx, box);
  p->slot = al_anchor(L, ctx, box);
  return p;
}

/* Makes the Process whose streams stand at stream + 0, 1, 2. */
static void push_process(lua_State *L, const l_process *p, int box, int stream) {
  static const char *const names[] = {"stdin", "stdout", "stderr"};
  lua_createtable(L, 1, 4);
  lua_pushvalue(L, box);
  lua_rawseti(L, -2, 1);
  for (int i = 0; i < 3; i++) {
    lua_pushvalue(L, stream + i);
    lua_setfield(L, -2, names[i]);
  }
  lua_pushinteger(L, p->pid);
  lua_setfield(L, -2, "pid");
  al_pushclass(L, p->ctx, AL_C_Process);
  lua_setmetatable(L, -2);
}

void al_process_begin(lua_State *L, l_process *p, int box, int pipes[3], size_t limit) {
  int stream = lua_gettop(L) + 1;
  lua_settop(L, stream + 2);
  p->pid = al_process_pid(p->process);
  for (int i = 0; i < 3; i++) {
    if (pipes[i] < 0) continue;
    p->pipes[i] = al_childpipe_open(L, p, box, i, &pipes[i], stream + i, limit);
    al_transport_hold(p->pipes[i]);
    lua_setiuservalue(L, box, AL_PROCESS_UV_PIPES + i);
    p->n_open++;
  }
  if (p->streams) {
    push_process(L, p, box, stream);
    lua_setiuservalue(L, box, AL_PROCESS_UV_PROTOCOL);
  }
  lua_settop(L, stream - 1);
}

void al_process_give_up(l_process *p) {
  if (!p->loop) return;
  p->streams = p->closing = true; /* which tells nobody of anything */
  if (p->process) al_process_kill(p->process, SIGKILL);
  for (int i = 0; i < 3; i++)
    if (p->pipes[i]) al_transport_set_protocol(p->pipes[i], NULL);
  for (int i = 0; i < 3; i++)
    if (p->pipes[i]) al_transport_abort(p->pipes[i]);
  end(p);
}

static l_process *of_starting(l_wait *wait) {
  return (l_process *)(void *)((char *)wait - offsetof(l_process, starting));
}

/* ... box */
static int begun(lua_State *L, al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  const l_process *p = of_starting(wait);
  lua_getiuservalue(L, -1, AL_PROCESS_UV_PROTOCOL);
  return p->streams ? 1 : 2;
}

/* Cancelled: the protocol is told all the same what becomes of the child. */
static void abandon_start(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  wait->task = NULL; /* not to be woken */
  close_process(of_starting(wait));
}

int al_process_wait_begun(lua_State *L, l_process *p) {
  static const l_wait_kind starting = {begun, abandon_start, "start of a process"};
  al_call_soon(p->loop->loop, &p->begin);
  return al_wait(L, p->ctx, &p->starting, &starting);
}

/* ---- methods of a SubprocessTransport ---------------------------------------------------------------------------- */

static l_process *test_self(lua_State *L, int idx) {
  l_process *p = lua_type(L, idx) == LUA_TUSERDATA ? lua_touserdata(L, idx) : NULL;
  return p && lua_rawlen(L, idx) == sizeof *p && p->self == p ? p : NULL;
}

static l_process *check_self(lua_State *L) {
  l_process *p = test_self(L, 1);
  if (!p) al_typeerror(L, 1, "SubprocessTransport");
  return p;
}

static int transport_close(lua_State *L) {
  close_process(check_self(L));
  return 0;
}

static int transport_is_closing(lua_State *L) {
  lua_pushboolean(L, check_self(L)->closing);
  return 1;
}

static int transport_get_protocol(lua_State *L) {
  check_self(L);
  lua_getiuservalue(L, 1, AL_PROCESS_UV_PROTOCOL);
  return 1;
}

static int transport_set_protocol(lua_State *L) {
  l_process *p = check_self(L);
  lua_settop(L, 2);
  if (!lua_istable(L, 2) && lua_type(L, 2) != LUA_TUSERDATA) return al_typeerror(L, 2, "protocol");
  if (p->streams) return al_raise(L, p->ctx, AL_C_RuntimeError, "the transport belongs to a Process");
  set_methods(L, 1, 2);
  return 0;
}

static int transport_get_pid(lua_State *L) {
  lua_pushinteger(L, check_self(L)->pid);
  return 1;
}

static int push_returncode(lua_State *L, const l_process *p) {
  if (p->exited)
    lua_pushinteger(L, p->returncode);
  else
    lua_pushnil(L);
  return 1;
}

static int transport_get_returncode(lua_State *L) { return push_returncode(L, check_self(L)); }

static int transport_get_pipe_transport(lua_State *L) {
  check_self(L);
  lua_Integer fd = al_checkinteger(L, 2);
  if (fd < 0 || fd > 2)
    lua_pushnil(L);
  else
    lua_getiuservalue(L, 1, AL_PROCESS_UV_PIPES + (int)fd);
  return 1;
}

/* get_extra_info("subprocess"): what there is to know of the child, in a table that stays the same one. */
static int transport_get_extra_info(lua_State *L) {
  const l_process *p = check_self(L);
  if (lua_type(L, 2) != LUA_TSTRING) return al_typeerror(L, 2, "string");
  lua_settop(L, 3);
  if (strcmp(lua_tostring(L, 2), "subprocess") != 0) return 1;
  if (lua_getiuservalue(L, 1, AL_PROCESS_UV_INFO) == LUA_TNIL) {
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, AL_PROCESS_UV_INFO);
    lua_pushinteger(L, p->pid);
    lua_setfield(L, -2, "pid");
  }
  push_returncode(L, p);
  lua_setfield(L, -2, "returncode");
  return 1;
}

/* A child whose end nobody has looked at yet takes signals like a running one. */
static int send_signal(lua_State *L, const l_process *p, int signum) {
  int err = p->exited || !p->process ? -ESRCH : al_process_kill(p->process, signum);
  if (err == -ESRCH && !p->exited && p->process) return 0; /* somebody else has reaped it, as we shall learn */
  if (err == -EINVAL) return al_raise(L, p->ctx, AL_C_ValueError, "invalid signal number %d", signum);
  return err ? al_raise_os(L, p->ctx, err, NULL, NULL) : 0;
}

static int transport_send_signal(lua_State *L) {
  const l_process *p = check_self(L);
  return send_signal(L, p, al_check_signal(L, p->ctx, 2));
}

static int transport_terminate(lua_State *L) { return send_signal(L, check_self(L), SIGTERM); }
static int transport_kill(lua_State *L) { return send_signal(L, check_self(L), SIGKILL); }

static const char *describe(const l_process *p, text *t) {
  char state[32];
  snprintf(state, sizeof state, p->exited ? "returncode=%d" : "running", p->returncode);
  snprintf(t->bytes, sizeof t->bytes, "<SubprocessTransport%s pid=%d %s>", p->closing ? " closed" : "", (int)p->pid,
           p->pid ? state : "not started");
  return t->bytes;
}

static int transport_tostring(lua_State *L) {
  text t = {""};
  lua_pushstring(L, describe(check_self(L), &t));
  return 1;
}

/* It was anchored, so this is the end of the Lua state. */
static int transport_gc(lua_State *L) {
  l_process *p = test_self(L, 1);
  if (!p) return 0;
  if (p->process && !p->closing && !p->ending) warn_unclosed(L, p, 1);
  al_handle_cancel(&p->begin);
  al_handle_cancel(&p->lost);
  al_process_give_up(p);
  p->self = NULL;
  return 0;
}

/* ---- methods of a Process ---------------------------------------------------------------------------------------- */

/* The transport of the Process at 1, which is pushed. */
static l_process *push_transport(lua_State *L) {
  l_process *p = NULL;
  if (lua_istable(L, 1)) {
    lua_rawgeti(L, 1, 1);
    p = test_self(L, -1);
  }
  if (!p) al_typeerror(L, 1, "Process");
  return p;
}

static int process_send_signal(lua_State *L) {
  const l_process *p = push_transport(L);
  return send_signal(L, p, al_check_signal(L, p->ctx, 2));
}

static int process_terminate(lua_State *L) { return send_signal(L, push_transport(L), SIGTERM); }
static int process_kill(lua_State *L) { return send_signal(L, push_transport(L), SIGKILL); }

static void wait_abandon(al_ctx *ctx, l_wait *wait) {
  l_pause *pause = al_pause_of_wait(wait);
  al_handle_cancel(&pause->timer.handle);
  al_pause_give(ctx, pause);
}

static int wait_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  al_pause_give(ctx, al_pause_of_wait(wait));
  return push_returncode(L, push_transport(L));
}

/* [1] Process, [2] its transport, [3] its pid: for who asks what the task waits for */
static int process_wait(lua_State *L) {
  static const l_wait_kind exiting = {wait_finish, wait_abandon, "exit of a process"};
  al_ctx *ctx = al_ctx_of(L);
  al_check_wait(L, ctx, "wait");
  lua_settop(L, 1);
  l_process *p = push_transport(L);
  if (p->exited) return push_returncode(L, p);
  lua_pushinteger(L, p->pid);
  l_pause *pause = al_pause_take(L, ctx);
  al_list_append(&p->waiting, &pause->timer.handle);
  return al_wait(L, ctx, &pause->wait, &exiting);
}

static int process_index(lua_State *L) { /* process, key */
  if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "returncode") == 0)
    return push_returncode(L, push_transport(L));
  lua_getmetatable(L, 1);
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  return 1;
}

static int process_tostring(lua_State *L) {
  lua_pushfstring(L, "<Process %d>", (int)push_transport(L)->pid);
  return 1;
}

static const luaL_Reg transport_methods[] = {{"close", transport_close},
                                             {"is_closing", transport_is_closing},
                                             {"get_protocol", transport_get_protocol},
                                             {"set_protocol", transport_set_protocol},
                                             {"get_extra_info", transport_get_extra_info},
                                             {"get_pid", transport_get_pid},
                                             {"get_returncode", transport_get_returncode},
                                             {"get_pipe_transport", transport_get_pipe_transport},
                                             {"send_signal", transport_send_signal},
                                             {"terminate", transport_terminate},
                                             {"kill", transport_kill},
                                             {"__close", transport_close},
                                             {"__gc", transport_gc},
                                             {"__tostring", transport_tostring},
                                             {NULL, NULL}};
static const luaL_Reg process_methods[] = {{"wait", process_wait},
                                           {"send_signal", process_send_signal},
                                           {"terminate", process_terminate},
                                           {"kill", process_kill},
                                           {"__index", process_index},
                                           {"__tostring", process_tostring},
                                           {NULL, NULL}};

void al_process_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_SubprocessTransport, transport_methods);
  al_class_methods(L, ctx, AL_C_Process, process_methods);
}
