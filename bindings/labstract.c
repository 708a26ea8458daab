/* labstract.c - the methods of AbstractEventLoop and AbstractServer, which say no more than that classes of this kind
 * have them: each raises NotImplementedError. Those that can do it bring their own; module.c opens this before them.
 *
 * SPDX-License-Identifier: MIT */
#include "labstract.h"

static const char *const loop_methods[] = {
    "run_until_complete",
    "run_forever",
    "stop",
    "is_running",
    "is_closed",
    "close",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "time",
    "call_soon",
    "call_soon_threadsafe",
    "call_later",
    "call_at",
    "create_future",
    "create_task",
    "set_task_factory",
    "get_task_factory",
    "create_connection",
    "create_unix_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_server",
    "connect_accepted_socket",
    "sendfile",
    "start_tls",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
    "getaddrinfo",
    "getnameinfo",
    "connect_read_pipe",
    "connect_write_pipe",
    "add_signal_handler",
    "remove_signal_handler",
    "run_in_executor",
    "set_default_executor",
    "set_exception_handler",
    "get_exception_handler",
    "default_exception_handler",
    "call_exception_handler",
    "set_debug",
    "get_debug",
    "subprocess_exec",
    "subprocess_shell",
    NULL,
};

static const char *const server_methods[] = {
    "close",         "wait_closed", "close_clients", "abort_clients", "get_loop", "is_serving", "start_serving",
    "serve_forever", NULL,
};

/* Upvalues: ctx, "Class:method". */
static int refuse(lua_State *L) {
  const char *name = lua_tostring(L, lua_upvalueindex(2));
  return al_raise(L, al_ctx_of(L), AL_C_NotImplementedError, "%s is not implemented here", name);
}

static void add(lua_State *L, al_ctx *ctx, al_class class, const char *class_name, const char *const *names) {
  al_pushclass(L, ctx, class);
  for (; *names; names++) {
    lua_pushlightuserdata(L, ctx);
    lua_pushfstring(L, "%s:%s()", class_name, *names);
    lua_pushcclosure(L, refuse, 2);
    lua_setfield(L, -2, *names);
  }
  lua_pop(L, 1);
}

void al_abstract_openlib(lua_State *L, al_ctx *ctx) {
  add(L, ctx, AL_C_AbstractEventLoop, "AbstractEventLoop", loop_methods);
  add(L, ctx, AL_C_AbstractServer, "AbstractServer", server_methods);
}
