/* embed_threads.c - what scripts see of threads, which they can't make themselves: the running loop is a
 * thread's own, debug mode refuses calls from the wrong thread, signal handlers belong to the main thread, a
 * log handler goes with its state.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "lua_states.h"

#include <pthread.h>

/* ---- running Lua in another thread ------------------------------------------------------------------------------- */

typedef struct thread_work {
  lua_State *L;     /* a thread of the caller's state, or NULL: a state is made for it */
  const char *code; /* for a state of its own */
  int status;
} thread_work;

static lua_State *threads_state(void);

static void run_in_own_state(thread_work *work) {
  lua_State *L = threads_state();
  work->status = luaL_loadstring(L, work->code) || lua_pcall(L, 0, 0, 0);
  if (work->status) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  lua_close(L);
}

static void *work_main(void *arg) {
  thread_work *work = arg;
  if (work->L)
    work->status = lua_pcall(work->L, 0, LUA_MULTRET, 0);
  else
    run_in_own_state(work);
  return NULL;
}

static void work_run(thread_work *work) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, work_main, work), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* in_thread(f) → what f returns: f is called in another thread, with this state, while this thread waits. */
static int in_thread(lua_State *L) {
  thread_work work = {.L = lua_newthread(L)};
  lua_pushvalue(L, 1);
  lua_xmove(L, work.L, 1);
  work_run(&work);
  int n = lua_gettop(work.L);
  lua_xmove(work.L, L, n);
  return work.status ? lua_error(L) : n;
}

/* in_other_state(code): runs it in another thread with a state of its own. */
static int in_other_state(lua_State *L) {
  thread_work work = {.code = luaL_checkstring(L, 1)};
  work_run(&work);
  if (work.status) return luaL_error(L, "the code failed in the other state");
  return 0;
}

static lua_State *threads_state(void) {
  lua_State *L = new_state();
  lua_register(L, "in_thread", in_thread);
  lua_register(L, "in_other_state", in_other_state);
  return L;
}

static void run(const char *code) {
  lua_State *L = threads_state();
  int status = luaL_loadstring(L, code) || lua_pcall(L, 0, 0, 0);
  if (status) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  CHECK_EQ(status, LUA_OK);
  lua_close(L);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void debug_mode_refuses_scheduling_from_another_thread(void) {
  run("local aloop = require 'aloop' "
      "local loop <close> = aloop.new_event_loop() "
      "loop:set_debug(true) "
      "local checked = 0 "
      "loop:call_soon(function() "
      "  in_thread(function() "
      "    for name, when in pairs { call_soon = false, call_later = 1, call_at = 1 } do "
      "      local ok, e "
      "      if when then ok, e = pcall(loop[name], loop, when, print) else ok, e = pcall(loop[name], loop, print) end "
      "      assert(not ok and aloop.isinstance(e, aloop.RuntimeError), tostring(e)) "
      "      assert(e.message:find('Non-thread-safe operation', 1, true), e.message) "
      "      checked = checked + 1 "
      "    end "
      "  end) "
      "  loop:stop() "
      "end) "
      "loop:run_forever() "
      "assert(checked == 3)");
}

static void call_soon_threadsafe_may_come_from_another_thread(void) {
  run("local aloop = require 'aloop' "
      "local loop <close> = aloop.new_event_loop() "
      "for _, debug in ipairs { true, false } do "
      "  loop:set_debug(debug) "
      "  local order = {} "
      "  loop:call_soon(function() "
      "    in_thread(function() "
      "      for i = 1, 100 do loop:call_soon_threadsafe(function() order[#order + 1] = i end) end "
      "      loop:call_soon_threadsafe(loop.stop, loop) "
      "    end) "
      "  end) "
      "  loop:run_forever() "
      "  assert(#order == 100) "
      "  for i = 1, 100 do assert(order[i] == i) end "
      "end");
}

static void each_thread_has_its_own_current_loop(void) {
  run("local aloop = require 'aloop' "
      "local loop <close> = aloop.new_event_loop() "
      "aloop.set_event_loop(loop) "
      "in_other_state [[ "
      "  local aloop = require 'aloop' "
      "  assert(not pcall(aloop.get_event_loop)) "
      "  local loop <close> = aloop.new_event_loop() "
      "  aloop.set_event_loop(loop) "
      "  assert(aloop.get_event_loop() == loop) "
      "]] "
      "assert(aloop.get_event_loop() == loop) "
      "aloop.set_event_loop(nil)");
}

static void the_running_loop_is_the_threads_own(void) {
  run("local aloop = require 'aloop' "
      "aloop.run(function() "
      "  assert(aloop.get_running_loop():is_running()) "
      "  in_other_state [[ "
      "    local aloop = require 'aloop' "
      "    local ok, e = pcall(aloop.get_running_loop) "
      "    assert(not ok and aloop.isinstance(e, aloop.RuntimeError)) "
      "    assert(not pcall(aloop.get_event_loop)) "
      "    local loop = aloop.new_event_loop() "
      "    aloop.set_event_loop(loop) "
      "    assert(loop:run_until_complete(function() return aloop.sleep(0.001, 'ran') end) == 'ran') "
      "    loop:close() "
      "  ]] "
      "  aloop.sleep(0) "
      "  assert(aloop.get_running_loop():is_running()) "
      "end)");
}

static void signal_handlers_are_refused_outside_the_main_thread(void) {
  run("local aloop = require 'aloop' "
      "in_other_state [[ "
      "  local aloop = require 'aloop' "
      "  local loop <close> = aloop.new_event_loop() "
      "  local ok, e = pcall(loop.add_signal_handler, loop, 'SIGUSR1', print) "
      "  assert(not ok and aloop.isinstance(e, aloop.RuntimeError), tostring(e)) "
      "]] "
      "local loop <close> = aloop.new_event_loop() "
      "loop:add_signal_handler('SIGUSR1', print) "
      "assert(loop:remove_signal_handler('SIGUSR1'))");
}

static void waiting_in_another_thread_is_refused(void) {
  run("local aloop = require 'aloop' "
      "aloop.run(function() "
      "  local ok, e = in_thread(function() return pcall(aloop.sleep, 0) end) "
      "  assert(not ok and aloop.isinstance(e, aloop.RuntimeError), tostring(e)) "
      "  aloop.sleep(0) "
      "end)");
}

/* ---- log handlers, of states that change their thread ------------------------------------------------------------ */

static void run_in(lua_State *L, const char *code) {
  int status = luaL_loadstring(L, code) || lua_pcall(L, 0, 0, 0);
  if (status) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  CHECK_EQ(status, LUA_OK);
}

static void *close_state(void *arg) {
  lua_close(arg);
  return NULL;
}

static void *run_loop_and_log(void *arg) {
  run_in(arg, "require('aloop').run(function() lines.core = 'mine' end)");
  al_log(AL_LOG_WARNING, NULL, "from the other thread");
  return NULL;
}

static void in_a_thread(void *(*f)(void *), lua_State *L) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, f, L), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void a_log_handler_ends_with_its_state_wherever_that_is(void) {
  lua_State *L = threads_state();
  run_in(L, "require('aloop').set_log_handler(function() error('the state is gone') end)");
  in_a_thread(close_state, L);
  al_log(AL_LOG_DEBUG, NULL, "nobody's, so on stderr");
}

static void a_log_handler_goes_where_its_state_runs_a_loop(void) {
  lua_State *L = threads_state(), *other = threads_state();
  run_in(L, "lines = {} require('aloop').set_log_handler(function(_, text) lines[#lines + 1] = text end)");
  al_log(AL_LOG_WARNING, NULL, "from here");
  in_a_thread(run_loop_and_log, L);
  al_log(AL_LOG_DEBUG, NULL, "nobody's, so on stderr");
  run_in(other, "lines = 0 require('aloop').set_log_handler(function() lines = lines + 1 end)");
  al_log(AL_LOG_WARNING, NULL, "the other state's");
  run_in(other, "assert(lines == 1)");
  run_in(L, "assert(#lines == 2 and lines[1] == 'from here' and lines[2] == 'from the other thread')");
  run_in(L, "require('aloop').run(function() end)");
  al_log(AL_LOG_WARNING, NULL, "back here");
  run_in(L, "assert(#lines == 3)");
  lua_close(L);
  al_log(AL_LOG_WARNING, NULL, "the other state's");
  run_in(other, "assert(lines == 2)");
  lua_close(other);
}

int main(void) {
  RUN(debug_mode_refuses_scheduling_from_another_thread);
  RUN(call_soon_threadsafe_may_come_from_another_thread);
  RUN(each_thread_has_its_own_current_loop);
  RUN(the_running_loop_is_the_threads_own);
  RUN(signal_handlers_are_refused_outside_the_main_thread);
  RUN(waiting_in_another_thread_is_refused);
  RUN(a_log_handler_ends_with_its_state_wherever_that_is);
  RUN(a_log_handler_goes_where_its_state_runs_a_loop);
  return check_done();
}
