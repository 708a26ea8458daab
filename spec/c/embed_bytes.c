/* embed_bytes.c - what each of many pending tasks takes, in Lua's heap and outside of it: all that is asked of the
 * allocators of the state and of the loops.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "aloop_lua.h"
#include "check.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stddef.h>

enum { TASKS = 400, MOST = 1536 }; /* bytes a task */

static size_t in_use;

static void *lua_counted(void *ud, void *ptr, size_t old, size_t size) {
  (void)ud;
  void *made = size ? realloc(ptr, size) : NULL;
  if (size && !made) return NULL;
  if (!size) free(ptr);
  in_use += size - (ptr ? old : 0);
  return made;
}

/* The loops don't tell the former size: it stands before the block. */
typedef union header {
  size_t size;
  max_align_t align;
} header;

static void *core_counted(void *ud, void *ptr, size_t size) {
  (void)ud;
  header *block = ptr ? (header *)ptr - 1 : NULL;
  size_t old = block ? block->size : 0;
  header *made = size ? realloc(block, sizeof *made + size) : NULL;
  if (size && !made) return NULL;
  if (!size) free(block);
  in_use += size - old;
  if (made) made->size = size;
  return made ? made + 1 : NULL;
}

static int push_in_use(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)in_use);
  return 1;
}

/* The functions of the script are not the tasks', nor are the loop's tables, which grow with the descriptors that it
 * knows. A task that ends leaves its memory for the next one: the first one's is given away. */
static const char script[] = "local n, in_use = ...\n"
                             "local aloop = require 'aloop'\n"
                             "local loop, socket = aloop.get_event_loop(), aloop.socket\n"
                             "local bodies = {}\n"
                             "for i = 1, n do\n"
                             "  local s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                             "  bodies[i] = function() loop:sock_recv(s, 100) end\n"
                             "end\n"
                             "local last = aloop.create_task(bodies[n])\n"
                             "aloop.sleep(0)\n"
                             "last:cancel()\n"
                             "aloop.sleep(0)\n"
                             "local kept = aloop.create_task(bodies[n])\n"
                             "aloop.sleep(0)\n"
                             "local function clean() collectgarbage() collectgarbage() return in_use() end\n"
                             "local before = clean()\n"
                             "for i = 1, n - 1 do aloop.create_task(bodies[i]) end\n"
                             "aloop.sleep(0)\n"
                             "return (clean() - before) // (n - 1)\n";

static void a_task_that_waits_for_a_socket_is_small(void) {
  lua_State *L = lua_newstate(lua_counted, NULL);
  CHECK(L != NULL);
  luaL_openlibs(L);
  al_lua_open(L);
  lua_pushinteger(L, TASKS);
  lua_pushcfunction(L, push_in_use);
  int status = al_lua_run_string(L, script, "=script", 2);
  if (status != LUA_OK) fprintf(stderr, "%s\n", al_lua_pusherror(L, -1));
  CHECK_EQ(status, LUA_OK);
  long bytes = (long)lua_tointeger(L, -1);
  if (getenv("CHECK_VERBOSE")) fprintf(stderr, "%ld bytes\n", bytes);
  CHECK(bytes > 1000); /* it was measured */
  CHECK(bytes <= MOST);
  lua_close(L);
}

int main(void) {
  al_set_allocator(core_counted, NULL);
  RUN(a_task_that_waits_for_a_socket_is_small);
  return check_done();
}
