/* embed_memory.c - a state that runs out of memory at any one of its allocations, for good or for once: the main chunk
 * fails with an error, or copes; nothing crashes or hangs, and lua_close finds everything in order (the sanitizers'
 * build looks for what it leaves). CHECK_THOROUGH=1 tries each allocation, else a part of them.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "aloop_lua.h"
#include "check.h"

#include <errno.h>
#include <limits.h>

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long left;  /* allocations until one fails; -1: none does */
static long burst; /* how many fail then. Lua tries each one twice, with a collection between */
static long count;

static _Thread_local bool limited; /* the main thread is */

static bool must_fail(void) {
  if (!limited) return false;
  count++;
  if (left == 0 && burst-- > 0) return true;
  if (left > 0) left--;
  return false;
}

static void *limited_alloc(void *ud, void *ptr, size_t old, size_t size) {
  (void)ud;
  bool grows = !ptr || size > old; /* Lua assumes that shrinking works */
  if (size > 0) return grows && must_fail() ? NULL : realloc(ptr, size);
  free(ptr);
  return NULL;
}

/* The same for what the core takes. */
static void *limited_core_alloc(void *ud, void *ptr, size_t size) { return limited_alloc(ud, ptr, 0, size); }

static const char tasks[] = "local aloop = require 'aloop'\n"
                            "local loop = aloop.get_event_loop()\n"
                            "local var = aloop.ContextVar('v')\n"
                            "var:set(1)\n"
                            "local task = aloop.create_task(function()\n"
                            "  aloop.sleep(0)\n"
                            "  return loop:create_future()\n"
                            "end, { name = 'a name' })\n"
                            "loop:call_soon(function() n = (n or 0) + 1 end)\n"
                            "loop:call_later(0, print):cancel()\n"
                            "local future = task:await()\n"
                            "loop:call_soon(future.set_result, future, 'result')\n"
                            "local result = future:await()\n"
                            "local ok, e = pcall(function() error(aloop.ValueError('v')) end)\n"
                            "assert(not ok and aloop.isinstance(e, aloop.ValueError))\n"
                            "aloop.create_task(function() aloop.sleep(100) end)\n"
                            "aloop.sleep(0.0001)\n"
                            "return result\n";

/* An echo over each way to a connection. A callback that fails for want of memory may leave the
 * rest waiting: a timer stops it. */
static const char connections[] =
    "local aloop = require 'aloop'\n"
    "local loop = aloop.get_event_loop()\n"
    "loop:call_later(patience, loop.stop, loop)\n"
    "local function echo()\n"
    "  return { connection_made = function(self, t) self.transport = t end,\n"
    "           data_received = function(self, data) self.transport:write(data) end }\n"
    "end\n"
    "local function client(lost)\n"
    "  local client = aloop.Protocol:extend('Client')()\n"
    "  function client:connection_made(t) t:write(('x'):rep(100000)) self.n, self.t = 0, t end\n"
    "  function client:data_received(data)\n"
    "    self.n = self.n + #data\n"
    "    if self.n >= 100000 then self.t:close() end\n"
    "  end\n"
    "  function client:connection_lost(e)\n"
    "    if not lost:done() then lost:set_result(e) end\n"
    "  end\n"
    "  return client\n"
    "end\n"
    "local a, b = aloop.socket.socketpair()\n"
    "local lost = loop:create_future()\n"
    "loop:connect_accepted_socket(echo, a)\n"
    "loop:create_unix_connection(function() return client(lost) end, nil, { sock = b })\n"
    "lost:await()\n"
    "local server = loop:create_server(echo, '127.0.0.1', 0)\n"
    "local host, port = table.unpack(server.sockets[1]:getsockname())\n"
    "lost = loop:create_future()\n"
    "local t = loop:create_connection(function() return client(lost) end, host, port)\n"
    "t:get_extra_info('socket')\n"
    "lost:await()\n"
    "local r, w = aloop.socket.socketpair()\n"
    "local readable = loop:create_future()\n"
    "loop:add_reader(r, function() loop:remove_reader(r) readable:set_result() end)\n"
    "loop:add_writer(w, function() loop:remove_writer(w) w:send('x') end)\n"
    "readable:await()\n"
    "assert(r:recv(1) == 'x')\n"
    "local lock, reader = aloop.Lock(), aloop.StreamReader {}\n"
    "aloop.create_task(function() loop:sock_sendall(w, 'y') reader:feed_data('a line\\n') end)\n"
    "assert(loop:sock_recv(r, 1) == 'y' and reader:readline() == 'a line\\n')\n"
    "local guard = lock:acquire()\n"
    "aloop.create_task(function() guard:release() end)\n"
    "lock:acquire():release()\n"
    "server:close()\n"
    "return 'result'\n";

/* Children by protocol and with streams, and one that can't be started. */
static const char children[] =
    "local aloop = require 'aloop'\n"
    "local SP = aloop.subprocess\n"
    "local loop = aloop.get_event_loop()\n"
    "loop:call_later(patience, loop.stop, loop)\n"
    "local pipes = { stdin = SP.PIPE, stdout = SP.PIPE, stderr = SP.PIPE, env = { A = 'b' }, pass_fds = { 0 } }\n"
    "local p = aloop.create_subprocess_exec({ '/bin/cat', '-' }, pipes)\n"
    "assert(p:communicate('x') == 'x' and p:wait() == 0)\n"
    "assert(not pcall(aloop.create_subprocess_exec, '/nosuch', pipes))\n"
    "local lost = loop:create_future()\n"
    "local transport = loop:subprocess_shell(function()\n"
    "  return { pipe_data_received = function(_, fd, data) end,\n"
    "           connection_lost = function() if not lost:done() then lost:set_result() end end }\n"
    "end, 'echo x')\n"
    "lost:await()\n"
    "transport:close()\n"
    "aloop.create_subprocess_exec('/bin/sleep', '30', { stdin = SP.PIPE })\n"
    "return 'result'\n";

/* Jobs in threads and their results, calls from there. Finalizers wait for the end of the state, for one that Lua calls
 * without memory does nothing. */
static const char threads[] =
    "collectgarbage('stop')\n"
    "local aloop = require 'aloop'\n"
    "local loop = aloop.get_event_loop()\n"
    "loop:call_later(patience, loop.stop, loop)\n"
    "local pool = aloop.ThreadPoolExecutor { max_workers = 2, initializer = function(a) G = a end, initargs = { 5 } }\n"
    "local var, up = aloop.ContextVar('v'), { {}, x = { 1, 2, 3 }, s = ('s'):rep(1000) }\n"
    "var:set(7)\n"
    "local function job(a, ...) up.n = a return G, up, ... end\n"
    "local futures = {}\n"
    "for i = 1, 5 do futures[i] = loop:run_in_executor(pool, job, i, aloop.buffer(3), var) end\n"
    "futures[5]:cancel()\n"
    "for i = 1, 4 do assert(futures[i]:await() == 5) end\n"
    "local future = pool:submit(job, 1)\n"
    "future:add_done_callback(function() n = (n or 0) + 1 end)\n"
    "future:result()\n"
    "assert(not pcall(future.result, pool:submit(function() error(aloop.ValueError('x')) end)))\n"
    "assert(not pcall(pool.submit, pool, function() return pool end))\n"
    "assert(aloop.to_thread(function() return var:get() end) == 7)\n"
    "local answer = pool:submit(function()\n"
    "  loop:call_soon_threadsafe(function(x) n = x end, { 1 })\n"
    "  return loop:run_coroutine_threadsafe(function() return ('y'):rep(300) end):result(1)\n"
    "end)\n"
    "aloop.wait({ aloop.wrap_future(answer) }, { timeout = patience })\n"
    "aloop.run_coroutine_threadsafe(function() return 1 end, loop):cancel()\n"
    "for v in pool:map(function(a) return a + 1 end, { 1, 2 }) do assert(v > 1) end\n"
    "pool:shutdown()\n"
    "return 'result'\n";

/* Not even the first callback of a state takes memory, if it is in C. */
static const char stop[] = "local loop = require('aloop').get_event_loop()\n"
                           "local future = loop:create_future()\n"
                           "loop:call_later(0.001, loop.stop, loop)\n"
                           "end_memory()\n"
                           "future:await()\n";

/* What is taken in vain is not taken, and who waits is not forgotten: each allocation of a lock, ... fails once. */
static const char locks[] =
    "local aloop = require 'aloop'\n"
    "local TaskGroup = aloop.TaskGroup\n"
    "aloop.sleep(0)\n"
    "local function each(body)\n"
    "  for n = 0, 60 do body(function(...) fail_at(n) local ok = pcall(...) fail_at(-1) return ok end) end\n"
    "end\n"
    "each(function(try)\n"
    "  local lock = aloop.Lock()\n"
    "  assert(try(lock.acquire, lock) == lock:locked())\n"
    "end)\n"
    "each(function(try)\n"
    "  local semaphore = aloop.Semaphore(1)\n"
    "  assert(try(semaphore.acquire, semaphore) == semaphore:locked())\n"
    "end)\n"
    "each(function(try)\n"
    "  local lock = aloop.Lock()\n"
    "  local guard = lock:acquire()\n"
    "  local function wait() lock:acquire():release() end\n"
    "  local first, second = aloop.create_task(wait), aloop.create_task(wait)\n"
    "  aloop.sleep(0)\n"
    "  guard:release()\n"
    "  first:cancel()\n"
    "  try(function() while not first:done() do aloop.sleep(0) end end)\n"
    "  aloop.wait({ first, second })\n"
    "  for _, task in ipairs { first, second } do pcall(task.await, task) end\n"
    "  assert(not lock:locked())\n"
    "end)\n"
    "each(function(try)\n"
    "  try(function()\n"
    "    local group <close> = TaskGroup()\n"
    "    group:create_task(function() aloop.sleep(0) end)\n"
    "  end)\n"
    "end)\n"
    "local loop, timeout = aloop.get_running_loop(), aloop.timeout\n"
    "local function limit() local t <close> = timeout(100) end\n"
    "for i = 1, 40 do\n"
    "  for n = 0, 4 do fail_at(n) pcall(limit) fail_at(-1) end\n"
    "  loop:call_later(100, print)\n"
    "end\n"
    "return 'result'\n";

/* A task whose outcome can't be kept, or not even told of, still calls who waits for its end. */
static const char groups[] = "local aloop = require 'aloop'\n"
                             "local loop = aloop.get_event_loop()\n"
                             "loop:call_later(5, loop.stop, loop)\n"
                             "for n = 1, 4 do\n"
                             "  local called = false\n"
                             "  local function body() aloop.sleep(0) fail_at(0, n) return 1, 2 end\n"
                             "  pcall(function()\n"
                             "    local group <close> = aloop.TaskGroup()\n"
                             "    group:create_task(body)\n"
                             "  end)\n"
                             "  aloop.create_task(body):add_done_callback(function() called = true end)\n"
                             "  while not called do aloop.sleep(0) end\n"
                             "  fail_at(-1)\n"
                             "end\n"
                             "return 'result'\n";

static const char *script; /* one of these */

/* fail_at(n, [burst]): the n-th allocation from now on fails, and the next one with it, or the next burst; -1: none. */
static int fail_at(lua_State *L) {
  left = (long)lua_tointeger(L, 1);
  burst = (long)luaL_optinteger(L, 2, 2);
  return 0;
}

static int end_memory(lua_State *L) {
  (void)L;
  left = 0;
  burst = LONG_MAX;
  return 0;
}

static int set_up(lua_State *L) {
  luaL_openlibs(L);
  lua_register(L, "end_memory", end_memory);
  lua_register(L, "fail_at", fail_at);
  lua_pushnumber(L, left < 0 ? 30 : 0.05); /* nothing waits in vain where nothing fails */
  lua_setglobal(L, "patience");
  al_lua_open(L);
  return 0;
}

static int run(lua_State *L) {
  lua_pushcfunction(L, set_up);
  int status = lua_pcall(L, 0, 0, 0);
  return status != LUA_OK ? status : al_lua_run_string(L, script, "=script", 0);
}

/* Nor is a child left, be it a zombie. */
static void no_child_is_left(void) {
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  CHECK_EQ(errno, ECHILD);
}

/* The n-th allocation and those after it fail, fails in all. Returns whether the script came through. One that hangs
 * ends this program by SIGALRM. */
static bool runs_with(long n, long fails) {
  if (getenv("CHECK_VERBOSE")) fprintf(stderr, "%ld\n", n);
  alarm(60);
  left = n;
  burst = fails;
  lua_State *L = lua_newstate(limited_alloc, NULL);
  if (!L) return false;
  int status = run(L);
  left = -1;
  if (status != LUA_OK && getenv("CHECK_VERBOSE")) fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  if (status == LUA_OK) CHECK(strcmp(lua_tostring(L, -1), "result") == 0);
  lua_close(L);
  CHECK(al_loop_running() == NULL); /* no error has jumped over the loop */
  no_child_is_left();
  return status == LUA_OK;
}

static void sweep(const char *code, long fails) {
  count = 0;
  script = code;
  CHECK(runs_with(-1, 0));
  long total = count, step = getenv("CHECK_THOROUGH") ? 1 : 1 + total / 700;
  CHECK(total > 1000);
  for (long n = 0; n < total; n += step) runs_with(n, fails);
}

static void tasks_survive_the_end_of_memory(void) { sweep(tasks, LONG_MAX); }
static void tasks_survive_a_failure(void) { sweep(tasks, 2); }
static void connections_survive_the_end_of_memory(void) { sweep(connections, LONG_MAX); }
static void connections_survive_a_failure(void) { sweep(connections, 2); }

static void children_survive_the_end_of_memory(void) { sweep(children, LONG_MAX); }
static void children_survive_a_failure(void) { sweep(children, 2); }

static void the_loop_is_stopped_without_memory(void) {
  script = stop;
  CHECK(!runs_with(-1, 0));
}

static void locks_survive_a_failure(void) {
  script = locks;
  CHECK(runs_with(-1, 0));
}

static void groups_survive_a_failure(void) {
  script = groups;
  CHECK(runs_with(-1, 0));
}

static void threads_survive_the_end_of_memory(void) { sweep(threads, LONG_MAX); }
static void threads_survive_a_failure(void) { sweep(threads, 2); }

static void no_log(void *ud, al_log_level level, const char *message, const char *category) {
  (void)ud, (void)level, (void)message, (void)category;
}

int main(void) {
  limited = true;
  al_set_allocator(limited_core_alloc, NULL);
  al_set_log(no_log, NULL);
  RUN(tasks_survive_the_end_of_memory);
  RUN(tasks_survive_a_failure);
  RUN(connections_survive_the_end_of_memory);
  RUN(connections_survive_a_failure);
  RUN(children_survive_the_end_of_memory);
  RUN(children_survive_a_failure);
  RUN(the_loop_is_stopped_without_memory);
  RUN(locks_survive_a_failure);
  RUN(groups_survive_a_failure);
  RUN(threads_survive_the_end_of_memory);
  RUN(threads_survive_a_failure);
  return check_done();
}
