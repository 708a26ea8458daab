/* embed_api.c - aloop_lua.h as an embedder uses it: main chunks, their results and errors, several states and threads,
 * and that nothing of the process is touched.
 *
 * SPDX-License-Identifier: MIT */
#include "lua_states.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Runs code, which must end well, with nresults results; they stand on the stack. */
static void run_ok(lua_State *L, const char *code, int nresults) {
  lua_settop(L, 0);
  int status = al_lua_run_string(L, code, "=test", 0);
  if (status != LUA_OK) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  CHECK_EQ(status, LUA_OK);
  CHECK_EQ(lua_gettop(L), nresults);
}

/* Runs code, which must fail with this status; the text of the error is returned, and stands on the stack alone. */
static const char *run_bad(lua_State *L, const char *code, int expected) {
  lua_settop(L, 0);
  CHECK_EQ(al_lua_run_string(L, code, "=test", 0), expected);
  CHECK_EQ(lua_gettop(L), 1);
  const char *text = al_lua_pusherror(L, 1);
  CHECK_EQ(lua_gettop(L), 2);
  lua_remove(L, 1);
  return text;
}

#define HAS(text, part) CHECK(strstr((text), (part)) != NULL)

/* ---- main chunks ------------------------------------------------------------------------------------------------- */

static void gives_results(void) {
  lua_State *L = new_state();
  run_ok(L, "", 0);
  run_ok(L, "return 1, nil, 'three'", 3);
  CHECK(lua_tointeger(L, 1) == 1 && lua_isnil(L, 2) && strcmp(lua_tostring(L, 3), "three") == 0);
  run_ok(L, "return require('aloop').sleep(0.001, 'a', 'b')", 2);
  run_ok(L, "local t = {} for i = 1, 5000 do t[i] = i end require 'aloop'.sleep(0) return table.unpack(t)", 5000);
  lua_close(L);
}

static void takes_arguments_and_keeps_what_is_below(void) {
  lua_State *L = new_state();
  lua_pushliteral(L, "below");
  lua_pushliteral(L, "a");
  lua_pushinteger(L, 2);
  CHECK_EQ(al_lua_run_string(L, "require 'aloop'.sleep(0) return select('#', ...), ...", "=test", 2), LUA_OK);
  CHECK_EQ(lua_gettop(L), 4);
  CHECK(strcmp(lua_tostring(L, 1), "below") == 0 && lua_tointeger(L, 2) == 2 && lua_tointeger(L, 4) == 2);
  CHECK_EQ(al_lua_run_string(L, "error(...)", "=test", 1), LUA_ERRRUN);
  CHECK_EQ(lua_gettop(L), 4);
  CHECK_EQ(lua_tointeger(L, 4), 2);
  lua_close(L);
}

static int add(lua_State *L) {
  lua_pushinteger(L, luaL_checkinteger(L, 1) + luaL_checkinteger(L, 2));
  return 1;
}

static void runs_functions_and_files(void) {
  lua_State *L = new_state();
  lua_pushcfunction(L, add);
  lua_pushinteger(L, 1);
  lua_pushinteger(L, 2);
  CHECK_EQ(al_lua_run(L, 2), LUA_OK);
  CHECK(lua_gettop(L) == 1 && lua_tointeger(L, 1) == 3);

  char path[] = "/tmp/embed_api_XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0 && dprintf(fd, "require 'aloop'.sleep(0) return ...") > 0 && close(fd) == 0);
  lua_settop(L, 0);
  lua_pushliteral(L, "argument");
  CHECK_EQ(al_lua_run_file(L, path, 1), LUA_OK);
  CHECK(lua_gettop(L) == 1 && strcmp(lua_tostring(L, 1), "argument") == 0);
  unlink(path);
  CHECK_EQ(al_lua_run_file(L, path, 1), LUA_ERRFILE);
  CHECK_EQ(lua_gettop(L), 1);
  lua_close(L);
}

static void runs_again_and_again(void) {
  lua_State *L = new_state();
  for (int i = 0; i < 20; i++) {
    run_ok(L, "local aloop = require 'aloop' aloop.sleep(0) return aloop.get_running_loop()", 1);
    run_bad(L, "local aloop = require 'aloop' aloop.sleep(0) error('again')", LUA_ERRRUN);
  }
  lua_close(L);
}

static void ends_what_is_left(void) {
  lua_State *L = new_state();
  run_ok(L,
         "local aloop = require 'aloop'\n"
         "aloop.create_task(function()\n"
         "  local _ <close> = aloop.defer(function() aloop.sleep(0.001) ended = 'cleaned' end)\n"
         "  aloop.sleep(1000)\n"
         "end)\n"
         "aloop.sleep(0)\n"
         "loop = aloop.get_running_loop()",
         0);
  run_ok(L, "return ended, loop:is_closed()", 2);
  CHECK(strcmp(lua_tostring(L, 1), "cleaned") == 0 && lua_toboolean(L, 2));
  lua_close(L);
}

static void works_from_a_coroutine(void) {
  lua_State *L = new_state();
  lua_State *co = lua_newthread(L);
  CHECK_EQ(al_lua_run_string(co, "return require('aloop').sleep(0.001, 7)", "=test", 0), LUA_OK);
  CHECK_EQ(lua_tointeger(co, -1), 7);
  lua_close(L);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void tells_errors(void) {
  lua_State *L = new_state();
  const char *text = run_bad(L, "local function deep() error('the message') end deep()", LUA_ERRRUN);
  HAS(text, "test:1: the message\nstack traceback:\n");
  HAS(text, "deep");
  text = run_bad(L, "local aloop = require 'aloop' aloop.sleep(0) error(aloop.ValueError('typed'))", LUA_ERRRUN);
  HAS(text, "ValueError: typed\nstack traceback:\n");
  text = run_bad(L, "error(setmetatable({}, {__tostring = function() error('twice') end}))", LUA_ERRRUN);
  HAS(text, "twice");
  HAS(run_bad(L, "error()", LUA_ERRRUN), "nil");
  HAS(run_bad(L, "x = (", LUA_ERRSYNTAX), "test:1:");
  HAS(run_bad(L, "error(require('aloop').SystemExit(3))", LUA_ERRRUN), "SystemExit: 3");
  HAS(run_bad(L, "require('aloop').sleep(0) error(require('aloop').KeyboardInterrupt())", LUA_ERRRUN),
      "KeyboardInterrupt");
  HAS(run_bad(L, "local a = require 'aloop' a.sleep(0) a.get_running_loop():stop() a.sleep(9)", LUA_ERRRUN), "stopped");
  lua_close(L);
}

/* A state without the package library gets an error, not a crash. */
static void wants_the_package_library(void) {
  lua_State *L = luaL_newstate();
  luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
  lua_settop(L, 0);
  al_lua_open(L);
  run_ok(L, "return 1 + 1", 1);
  HAS(run_bad(L, "return require('aloop')", LUA_ERRRUN), "require");
  lua_close(L);
}

/* ---- several states ---------------------------------------------------------------------------------------------- */

/* Runs the string in a state of its own; returns its status. */
static int run_inner(lua_State *outer) {
  lua_State *L = new_state();
  lua_pushinteger(outer, al_lua_run_string(L, luaL_checkstring(outer, 1), "=inner", 0));
  lua_close(L);
  return 1;
}

static void states_nest(void) {
  lua_State *L = new_state();
  lua_register(L, "run_inner", run_inner);
  run_ok(L, "return run_inner('require(\"aloop\").sleep(0.001)')", 1);
  CHECK_EQ(lua_tointeger(L, 1), LUA_OK);
  /* One loop a thread runs at a time. */
  run_ok(L, "require('aloop').sleep(0) return run_inner('return 1'), run_inner('require(\"aloop\").sleep(0.001)')", 2);
  CHECK(lua_tointeger(L, 1) == LUA_OK && lua_tointeger(L, 2) == LUA_ERRRUN);
  run_ok(L, "return require('aloop').sleep(0.001, 5)", 1);
  lua_close(L);
}

static void *thread_main(void *arg) {
  lua_State *L = new_state();
  for (int i = 0; i < 20; i++)
    run_ok(L,
           "local aloop = require 'aloop'\n"
           "local n = 0\n"
           "local tasks = {}\n"
           "for i = 1, 20 do tasks[i] = aloop.create_task(function() aloop.sleep(i / 10000) n = n + i end) end\n"
           "for _, task in ipairs(tasks) do task:await() end\n"
           "return n",
           1);
  CHECK_EQ(lua_tointeger(L, 1), 210);
  lua_close(L);
  return arg;
}

static void states_run_in_threads(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, thread_main, NULL), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- the process ------------------------------------------------------------------------------------------------- */

static void on_signal(int signum) { (void)signum; }

static int signals_are_ours(lua_State *L) {
  struct sigaction now;
  lua_pushboolean(L, sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == on_signal &&
                         sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
  return 1;
}

static void leaves_signals_alone(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  CHECK_EQ(sigaction(SIGINT, &action, NULL), 0);
  lua_State *L = new_state();
  lua_register(L, "signals_are_ours", signals_are_ours);
  run_ok(L,
         "local aloop = require 'aloop'\n"
         "local inside = aloop.run(function() aloop.sleep(0) return signals_are_ours() end)\n"
         "aloop.sleep(0)\n"
         "return signals_are_ours() and inside",
         1);
  CHECK(lua_toboolean(L, 1));
  lua_close(L);
  lua_settop(L = new_state(), 0);
  lua_register(L, "signals_are_ours", signals_are_ours);
  run_ok(L, "return signals_are_ours()", 1);
  CHECK(lua_toboolean(L, 1));
  lua_close(L);
}

int main(void) {
  RUN(gives_results);
  RUN(takes_arguments_and_keeps_what_is_below);
  RUN(runs_functions_and_files);
  RUN(runs_again_and_again);
  RUN(ends_what_is_left);
  RUN(works_from_a_coroutine);
  RUN(tells_errors);
  RUN(wants_the_package_library);
  RUN(states_nest);
  RUN(states_run_in_threads);
  RUN(leaves_signals_alone);
  return check_done();
}
