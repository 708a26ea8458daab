/* module.c - the modules `aloop` and `aloop.core`: opens all bindings in a Lua state and lets `require` find the Lua
 * files that are embedded in the binary. ALOOP_LUADIR names a directory whose files go before those, for work on
 * them.
 *
 * The interpreter and embedders come by al_module_open, a stock Lua by luaopen_aloop in aloop.so.
 *
 * SPDX-License-Identifier: MIT */
#include "module.h"

#include "aloop_lua.h"
#include "embed.h"
#include "labstract.h"
#include "laddr.h"
#include "lbuffer.h"
#include "lcfuture.h"
#include "lcontext.h"
#include "ldatagram.h"
#include "ledit.h"
#include "lexecutor.h"
#include "lfd.h"
#include "lfuture.h"
#include "lgenerator.h"
#include "lhandle.h"
#include "linspect.h"
#include "lloop.h"
#include "lmarshal.h"
#include "lnet.h"
#include "lpipe.h"
#include "lprocess.h"
#include "lprotocol.h"
#include "lremote.h"
#include "lreport.h"
#include "lrepr.h"
#include "lrequire.h"
#include "lresolve.h"
#include "lscope.h"
#include "lselector.h"
#include "lsendfile.h"
#include "lserver.h"
#include "lsigint.h"
#include "lsignal.h"
#include "lsocket.h"
#include "lsockops.h"
#include "lssl.h"
#include "lstream.h"
#include "ltask.h"
#include "ltesting.h"
#include "ltls.h"
#include "ltransport.h"
#include "lwaitlist.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void openlib(lua_State *L, al_ctx *ctx);

/* Each adds its functions to the table on top, and its methods to classes; bases before subclasses.
 * One a line, for all rooms add to it. */
/* clang-format off */
static openlib *const openlibs[] = {
    al_class_openlib,
    al_error_openlib,
    al_abstract_openlib,
    al_context_openlib,
    al_handle_openlib,
    al_repr_openlib,
    al_loop_openlib,
    al_loop_current_openlib,
    al_loop_run_openlib,
    al_schedule_openlib,
    al_report_openlib,
    al_future_openlib,
    al_task_openlib,
    al_create_openlib,
    al_sleep_openlib,
    al_coro_openlib,
    al_sigint_openlib,
    al_main_openlib,
    al_scope_openlib,
    al_timeout_openlib,
    al_group_openlib,
    al_selector_openlib,
    al_buffer_openlib,
    al_addr_openlib,
    al_fd_openlib,
    al_signal_openlib,
    al_socket_openlib,
    al_sockops_openlib,
    al_sendfile_openlib,
    al_pipe_openlib,
    al_resolve_openlib,
    al_protocol_openlib,
    al_transport_openlib,
    al_server_openlib,
    al_ssl_openlib,
    al_ssl_default_openlib,
    al_ssl_object_openlib,
    al_ssl_session_openlib,
    al_tls_openlib,
    al_net_openlib,
    al_listen_openlib,
    al_datagram_openlib,
    al_waitlist_openlib,
    al_testing_openlib,
    al_edit_openlib,
    al_reader_openlib,
    al_serve_openlib,
    al_stream_openlib,
    al_writer_openlib,
    al_process_openlib,
    al_childpipe_openlib,
    al_spawn_openlib,
    al_cfuture_openlib,
    al_relay_openlib,
    al_executor_openlib,
    al_remote_openlib,
    al_future_openlib_late,
    al_inspect_openlib,
    al_generator_openlib,
    al_marshal_openlib,
};
/* clang-format on */

/* As getenv, but for the interpreter's -E. */
static const char *environment(lua_State *L, const char *name) {
  lua_getfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  bool ignored = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return ignored ? NULL : getenv(name);
}

static const char core_key; /* its address is the registry key of the core table */

void al_module_pushcore(lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key); }

/* environ() → a new table name → value */
static int module_environ(lua_State *L) {
  lua_newtable(L);
  for (char **entry = environ; entry && *entry; entry++) {
    const char *equals = strchr(*entry, '=');
    if (!equals) continue;
    lua_pushlstring(L, *entry, (size_t)(equals - *entry));
    lua_pushstring(L, equals + 1);
    lua_rawset(L, -3);
  }
  return 1;
}

static int module_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

static const luaL_Reg functions[] = {{"environ", module_environ}, {"isatty", module_isatty}, {NULL, NULL}};

static void open_core(lua_State *L, al_ctx *ctx) {
  lua_createtable(L, 0, 160);
  al_class_open(L, ctx);
  for (size_t i = 0; i < sizeof openlibs / sizeof *openlibs; i++) openlibs[i](L, ctx);
  luaL_setfuncs(L, functions, 0);
  lua_pushliteral(L, AL_VERSION);
  lua_setfield(L, -2, "_VERSION");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &core_key);
}

/* What scripts get as aloop.core is an empty table that finds everything in the core: Lua names functions in
 * tracebacks by what it sees in package.loaded, and shall see `aloop.sleep` there, not `aloop.core.sleep`. */
int luaopen_aloop_core(lua_State *L) {
  al_module_open(L);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  al_module_pushcore(L);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  return 1;
}

/* ---- Lua files --------------------------------------------------------------------------------------------------- */

/* Pushes the chunk of the file, and its name; or raises. */
static void load_file(lua_State *L, const al_embedded *file) {
  const char *dir = environment(L, "ALOOP_LUADIR");
  if (dir) {
    const char *path = lua_pushfstring(L, "%s/%s", dir, file->path);
    if (access(path, R_OK) == 0) {
      if (luaL_loadfile(L, path) != LUA_OK) lua_error(L);
      lua_insert(L, -2);
      return;
    }
    lua_pop(L, 1);
  }
  const char *name = lua_pushfstring(L, "@%s", file->path);
  if (luaL_loadbufferx(L, (const char *)file->text, file->len, name, "t") != LUA_OK) lua_error(L);
  lua_insert(L, -2);
}

/* The loader of an embedded file (upvalue 1): name → what the file returns. */
static int run_file(lua_State *L) {
  lua_settop(L, 1);
  load_file(L, lua_touserdata(L, lua_upvalueindex(1)));
  lua_rotate(L, 1, -1); /* chunk, path, name */
  lua_insert(L, 2);
  lua_call(L, 2, 1);
  return 1;
}

static const al_embedded *find_embedded(const char *name) {
  const al_embedded *file = al_embedded_files;
  while (file->name && strcmp(file->name, name) != 0) file++;
  return file->name ? file : NULL;
}

/* New files of ALOOP_LUADIR, which the binary knows nothing of. */
static void add_dir_to_path(lua_State *L) {
  const char *dir = environment(L, "ALOOP_LUADIR");
  if (!dir) return;
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", dir, dir, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pop(L, 2);
}

/* Fills package.preload: the core, and loaders of the embedded files. */
static void add_preloads(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const al_embedded *file = al_embedded_files; file->name; file++) {
    lua_pushlightuserdata(L, (void *)file);
    lua_pushcclosure(L, run_file, 1);
    lua_setfield(L, -2, file->name);
  }
  lua_pushcfunction(L, luaopen_aloop_core);
  lua_setfield(L, -2, "aloop.core");
  lua_pop(L, 1);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

al_ctx *al_module_open(lua_State *L) {
  luaL_checkversion(L);
  al_ctx *ctx = al_ctx_open(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key);
  bool open = lua_istable(L, -1);
  lua_pop(L, 1);
  if (open) return ctx;
  const char *debug = environment(L, "ALOOPDEBUG");
  ctx->debug = debug && *debug;
  open_core(L, ctx);
  add_preloads(L);
  if (lua_getglobal(L, "package") == LUA_TTABLE) add_dir_to_path(L);
  lua_pop(L, 1);
  al_require_install(L, ctx);
  return ctx;
}

/* What a stock Lua calls. SIGINT is then aloop.run's to handle while it runs, as it is asyncio.run's. */
int luaopen_aloop(lua_State *L) {
  al_sigint_allow(al_module_open(L));
  lua_settop(L, 1);
  lua_pushlightuserdata(L, (void *)find_embedded("aloop"));
  lua_pushcclosure(L, run_file, 1);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}
