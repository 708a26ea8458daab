/* coro.c - what a coroutine costs without any loop: a pair of lua_resume and lua_yield from C, and coroutine.resume
 * with coroutine.yield in Lua. The yardstick of the task switch.
 *
 *   coro resume | pair       prints ns=NANOSECONDS, CPU a pair
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS 5000000

static const char body[] = "local yield = ... while true do yield() end";

static const char pair[] = "local n = ... local resume, yield = coroutine.resume, coroutine.yield\n"
                           "local co = coroutine.create(function() while true do yield() end end)\n"
                           "for _ = 1, n do resume(co) end";

static int yield(lua_State *L) { return lua_yield(L, 0); }

static void check(lua_State *L, int status) {
  if (status == LUA_OK || status == LUA_YIELD) return;
  fprintf(stderr, "coro: %s\n", lua_tostring(L, -1));
  lua_close(L);
  exit(1);
}

static int64_t run_resume(lua_State *L) {
  lua_State *co = lua_newthread(L);
  int n;
  check(L, luaL_loadstring(co, body));
  lua_pushcfunction(co, yield);
  check(co, lua_resume(co, L, 1, &n));
  int64_t start = bench_self_cpu_ns();
  for (int i = 0; i < PAIRS; i++) check(co, lua_resume(co, L, 0, &n));
  return bench_self_cpu_ns() - start;
}

static int64_t run_pair(lua_State *L) {
  check(L, luaL_loadstring(L, pair));
  lua_pushinteger(L, PAIRS);
  int64_t start = bench_self_cpu_ns();
  check(L, lua_pcall(L, 1, 0, 0));
  return bench_self_cpu_ns() - start;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L) bench_die("luaL_newstate");
  luaL_openlibs(L);
  int64_t ns = argc > 1 && strcmp(argv[1], "resume") == 0 ? run_resume(L) : run_pair(L);
  printf("ns=%.2f\n", (double)ns / PAIRS);
  lua_close(L);
  return 0;
}
