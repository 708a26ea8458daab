/* fds.c - a Lua module for specs: descriptors that Lua has no way to make or to ask about. Compiled by the specs that
 * use it (pipe_transport_spec.lua).
 *
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <fcntl.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/* pty() → descriptors of a terminal: master, slave; both blocking, nothing translated */
static int new_pty(lua_State *L) {
  struct termios raw;
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) || unlockpt(master)) return luaL_error(L, "no terminal");
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0 || tcgetattr(slave, &raw)) return luaL_error(L, "no slave");
  cfmakeraw(&raw);
  tcsetattr(slave, TCSANOW, &raw);
  lua_pushinteger(L, master);
  lua_pushinteger(L, slave);
  return 2;
}

/* blocks(fd) → boolean, or nil if it is closed */
static int fd_blocks(lua_State *L) {
  int flags = fcntl((int)luaL_checkinteger(L, 1), F_GETFL);
  if (flags < 0) return 0;
  lua_pushboolean(L, !(flags & O_NONBLOCK));
  return 1;
}

static int fd_close(lua_State *L) {
  close((int)luaL_checkinteger(L, 1));
  return 0;
}

/* pipe() → descriptors: read end, write end; both blocking */
static int new_pipe(lua_State *L) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC)) return luaL_error(L, "no pipe");
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

int luaopen_fds(lua_State *L);
int luaopen_fds(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pty", new_pty}, {"blocks", fd_blocks}, {"close", fd_close}, {"pipe", new_pipe}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
