/* fork.c - a Lua module for specs: fork(2), as C modules for Lua have it. Compiled by the specs that use it
 * (fork_spec.lua).
 *
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <lauxlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* in_child(f) → the status with which a child ends that calls f() and leaves with the integer that it returns */
static int in_child(lua_State *L) {
  int status = 0;
  pid_t pid = fork();
  if (pid < 0) return luaL_error(L, "no child");
  if (pid == 0) {
    lua_settop(L, 1);
    _exit(lua_pcall(L, 0, 1, 0) == LUA_OK ? (int)lua_tointeger(L, -1) : 99);
  }
  while (waitpid(pid, &status, 0) < 0) continue;
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status));
  return 1;
}

int luaopen_fork(lua_State *L);
int luaopen_fork(lua_State *L) {
  lua_pushcfunction(L, in_child);
  return 1;
}
