/* embed_remote.c - aloop_lua.h for threads of a program's own: calls into a loop of a Lua state, before, while and
 * after it runs, and around its end.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "lua_states.h"

#include <pthread.h>

enum { THREADS = 4, CALLS = 2000 };

static al_lua_remote *remote;

static void run(lua_State *L, const char *code) {
  int status = al_lua_run_string(L, code, "=spec", 0);
  if (status) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  CHECK_EQ(status, LUA_OK);
  lua_settop(L, 0);
}

/* take(loop): its remote is kept */
static int take(lua_State *L) {
  remote = al_lua_remote_new(L, 1);
  CHECK(remote != NULL);
  return 0;
}

/* In the loop's thread. */
static int count(lua_State *L) {
  CHECK(lua_touserdata(L, 1) == (void *)&remote);
  lua_getglobal(L, "n");
  lua_pushinteger(L, lua_tointeger(L, -1) + 1);
  lua_setglobal(L, "n");
  return 0;
}

static int fail(lua_State *L) { return luaL_error(L, "raised by C"); }

static void *call_often(void *arg) {
  (void)arg;
  for (int i = 0; i < CALLS; i++) CHECK_EQ(al_lua_call_soon_threadsafe(remote, count, &remote), 0);
  return NULL;
}

static void *call_until_closed(void *arg) {
  int err = 0;
  (void)arg;
  for (int i = 0; i < CALLS && !err; i++) err = al_lua_call_soon_threadsafe(remote, count, &remote);
  CHECK(err == 0 || err == AL_ECLOSED);
  return NULL;
}

static pthread_t threads[THREADS];

static int start_threads(lua_State *L) {
  void *(*f)(void *) = lua_toboolean(L, 1) ? call_until_closed : call_often;
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, f, NULL), 0);
  return 0;
}

static int join_threads(lua_State *L) {
  (void)L;
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  return 0;
}

static lua_State *prepared_state(void) {
  lua_State *L = new_state();
  lua_register(L, "take", take);
  lua_register(L, "start_threads", start_threads);
  lua_register(L, "join_threads", join_threads);
  lua_pushinteger(L, 0);
  lua_setglobal(L, "n");
  return L;
}

static void each_call_of_each_thread_arrives(void) {
  lua_State *L = prepared_state();
  run(L, "local aloop = require 'aloop' "
         "aloop.run(function() "
         "  take(aloop.get_running_loop()) "
         "  start_threads() "
         "  while n < 8000 do aloop.sleep(0.001) end "
         "  join_threads() "
         "end) "
         "assert(n == 8000)");
  CHECK_EQ(al_lua_call_soon_threadsafe(remote, count, &remote), AL_ECLOSED);
  lua_close(L);
  CHECK_EQ(al_lua_call_soon_threadsafe(remote, count, &remote), AL_ECLOSED); /* the remote outlives the state */
  al_lua_remote_release(remote);
}

static void closing_the_loop_meanwhile_is_safe(void) {
  for (int i = 0; i < 10; i++) {
    lua_State *L = prepared_state();
    run(L, "local aloop = require 'aloop' "
           "local loop = aloop.new_event_loop() "
           "take(loop) "
           "start_threads(true) "
           "for _ = 1, 5 do loop:stop() loop:run_forever() end "
           "loop:close() "
           "join_threads()");
    lua_close(L);
    al_lua_remote_release(remote);
  }
}

static int call_failing(lua_State *L) {
  (void)L;
  CHECK_EQ(al_lua_call_soon_threadsafe(remote, fail, NULL), 0);
  return 0;
}

static void what_is_raised_goes_to_the_exception_handler(void) {
  lua_State *L = prepared_state();
  lua_register(L, "call_failing", call_failing);
  run(L, "local aloop = require 'aloop' "
         "aloop.run(function() "
         "  local loop, text = aloop.get_running_loop(), nil "
         "  loop:set_exception_handler(function(_, context) text = context.exception end) "
         "  take(loop) "
         "  call_failing() "
         "  while not text do aloop.sleep(0) end "
         "  assert(text == 'raised by C', text) "
         "end)");
  al_lua_remote_release(remote);
  lua_close(L);
}

static void only_a_loop_has_a_remote(void) {
  lua_State *L = new_state();
  lua_pushinteger(L, 5);
  CHECK(al_lua_remote_new(L, -1) == NULL);
  lua_newuserdatauv(L, 8, 0);
  CHECK(al_lua_remote_new(L, -1) == NULL);
  al_lua_remote_release(NULL);
  lua_close(L);
}

int main(void) {
  RUN(each_call_of_each_thread_arrives);
  RUN(closing_the_loop_meanwhile_is_safe);
  RUN(what_is_raised_goes_to_the_exception_handler);
  RUN(only_a_loop_has_a_remote);
  return check_done();
}
