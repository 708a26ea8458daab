/* embed.c - aloop in a program with a Lua state of its own: the program offers a function to scripts, runs one as a
 * main chunk (a file named on the command line, or the one below), and shows its results or its error.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop_lua.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

static const char script[] =
    "local aloop = require 'aloop'\n"
    "local name = ...\n"
    "local Echo = aloop.Protocol:extend('Echo')\n"
    "function Echo:connection_made(transport) self.transport = transport end\n"
    "function Echo:data_received(data) self.transport:write(data:upper()) end\n"
    "\n"
    "local Client = aloop.Protocol:extend('Client')\n"
    "function Client:init(answer) self.answer = answer end\n"
    "function Client:data_received(data) self.answer:set_result(data) end\n"
    "\n"
    "local loop = aloop.get_event_loop()\n"
    "local server <close> = loop:create_server(Echo, '127.0.0.1', 0)\n"
    "local answer = loop:create_future()\n"
    "local port = server.sockets[1]:getsockname().port\n"
    "local transport = loop:create_connection(function() return Client(answer) end, '127.0.0.1', port)\n"
    "transport:write('hello, ' .. app.greet(name))\n"
    "local text = answer:await()\n"
    "transport:close()\n"
    "return text, #text\n";

/* app.greet(name): what the program offers. */
static int app_greet(lua_State *L) {
  lua_pushfstring(L, "%s of C", luaL_checkstring(L, 1));
  return 1;
}

/* What may raise a Lua error while the state is being set up. */
static int set_up(lua_State *L) {
  static const luaL_Reg app[] = {{"greet", app_greet}, {NULL, NULL}};
  luaL_openlibs(L);
  al_lua_open(L);
  luaL_newlib(L, app);
  lua_setglobal(L, "app");
  return 0;
}

static int run(lua_State *L, const char *path) {
  lua_pushcfunction(L, set_up);
  int status = lua_pcall(L, 0, 0, 0);
  if (status == LUA_OK) {
    lua_pushliteral(L, "world");
    status = path ? al_lua_run_file(L, path, 1) : al_lua_run_string(L, script, "=script", 1);
  }
  if (status != LUA_OK) {
    fprintf(stderr, "embed: %s\n", al_lua_pusherror(L, -1));
    return EXIT_FAILURE;
  }
  for (int i = 1; i <= lua_gettop(L); i++) {
    printf("result %d: %s\n", i, luaL_tolstring(L, i, NULL));
    lua_pop(L, 1);
  }
  return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L) return EXIT_FAILURE;
  int status = run(L, argc > 1 ? argv[1] : NULL);
  lua_close(L);
  return status;
}
