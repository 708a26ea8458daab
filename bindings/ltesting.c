/* ltesting.c - what aloop.testing (lua/aloop/testing.lua) needs of C: virtual time for loops, the descriptors of the
 * process, and the loop's own list of what is open.
 *
 * Virtual time stands still while there is something to do and jumps to the next timer when there is not. A loop with
 * I/O in flight is first given a moment of real time (patience) for it to arrive; while a thread works
 * for it, time passes no faster than the real one. A loop that nothing can wake any more is stopped, and
 * so is one whose real time is up.
 *
 * SPDX-License-Identifier: MIT */
#include "ltesting.h"

#include "lhandle.h"
#include "lloop.h"
#include "lquery.h"
#include "lsigint.h"
#include "ltask.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NEVER_NS (INT64_C(200000000) * 1000000000) /* six years: what is set for later will not come */
#define LIMIT_TURNS 1024                           /* how often a loop that is never idle looks at the limit */
#define RUNNING_REFS 2                             /* of a loop that runs, and that no thread works for */

typedef struct l_clock {
  al_clock clock;
  int64_t now_ns;
  int64_t patience_ns;
  int64_t limit_ns; /* in real time: when to give up */
  int64_t since_ns; /* in real time: when it became idle */
  size_t base_ops;  /* operations that are always in flight, besides those of SIGINT and questions */
  unsigned turns;
  bool shuffles;
  uint64_t random;
  const char *stuck; /* why it stopped the loop: "deadlock", "limit"; or NULL */
  al_handle **hand;  /* room to shuffle in */
  size_t size_hand;
} l_clock;

static const char clock_key; /* its address is the registry key of the metatable */

static l_clock *of_clock(al_clock *clock) { return (l_clock *)(void *)clock; }

/* ---- time -------------------------------------------------------------------------------------------------------- */

static int64_t virtual_now(al_clock *clock) { return of_clock(clock)->now_ns; }

static int64_t give_up(l_clock *c, al_loop *loop, const char *why) {
  c->stuck = why;
  al_loop_stop(loop);
  return 0;
}

/* How long to wait for what comes from outside before time moves on to when_ns; 0 if nothing can come. */
static int64_t patience(const l_clock *c, const al_loop *loop, int64_t when_ns) {
  al_loop_stats stats;
  al_loop_get_stats(loop, &stats);
  const l_loop *ours = al_loop_data(loop);
  size_t own = (size_t)al_sigint_is_attached(ours) + al_query_is_attached(ours);
  bool threads = stats.refs > RUNNING_REFS;
  if (!threads && stats.ops <= (own > c->base_ops ? own : c->base_ops)) return 0;
  if (when_ns > NEVER_NS) return INT64_MAX;
  int64_t real_ns = when_ns - c->now_ns;
  return threads || real_ns < c->patience_ns ? real_ns : c->patience_ns;
}

static int64_t virtual_idle(al_clock *clock, al_loop *loop, int64_t when_ns, unsigned round) {
  l_clock *c = of_clock(clock);
  int64_t real_ns = al_time_ns();
  if (round == 0) c->since_ns = real_ns;
  if (real_ns >= c->limit_ns) return give_up(c, loop, "limit");
  int64_t waits_ns = patience(c, loop, when_ns), waited_ns = real_ns - c->since_ns;
  if (waited_ns < waits_ns) {
    int64_t limit_ns = c->limit_ns - real_ns;
    return limit_ns < waits_ns - waited_ns ? limit_ns : waits_ns - waited_ns;
  }
  if (when_ns > NEVER_NS) return give_up(c, loop, "deadlock");
  if (when_ns > c->now_ns) c->now_ns = when_ns;
  return 0;
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

static uint64_t next_random(l_clock *c) { /* splitmix64 */
  uint64_t z = c->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static void shuffle(l_clock *c, al_handle **hand, size_t n) {
  for (; n > 1; n--) {
    size_t i = (size_t)(next_random(c) % n);
    al_handle *last = hand[n - 1];
    hand[n - 1] = hand[i];
    hand[i] = last;
  }
}

/* Takes the list in hand: how many it has; 0 without memory, which only spoils the shuffling. */
static size_t take(l_clock *c, const al_list *list) {
  size_t n = 0;
  for (const al_link *link = list->next; link != list; link = link->next) n++;
  if (2 * n > c->size_hand) { /* twice, for pick_steps */
    al_handle **hand = realloc(c->hand, 2 * n * sizeof *hand);
    if (!hand) return 0;
    c->hand = hand;
    c->size_hand = 2 * n;
  }
  size_t i = 0;
  for (al_link *link = list->next; link != list; link = link->next) c->hand[i++] = (al_handle *)(void *)link;
  return n;
}

static void put_back(l_clock *c, al_list *list, size_t n) {
  al_list_init(list);
  for (size_t i = 0; i < n; i++) {
    al_handle_init(c->hand[i], c->hand[i]->run);
    al_list_append(list, c->hand[i]);
  }
}

/* Tasks that go on in the same turn; call_soon keeps its order. */
static void shuffle_steps(l_clock *c, al_list *batch) {
  size_t n = take(c, batch), n_steps = 0, next = 0;
  al_handle **steps = c->hand + n;
  for (size_t i = 0; i < n; i++)
    if (al_task_is_step(c->hand[i])) steps[n_steps++] = c->hand[i];
  if (n_steps < 2) return;
  shuffle(c, steps, n_steps);
  for (size_t i = 0; i < n; i++)
    if (al_task_is_step(c->hand[i])) c->hand[i] = steps[next++];
  put_back(c, batch, n);
}

static int64_t when_of(const al_handle *handle) { return ((const al_timer *)(const void *)handle)->when_ns; }

/* Timers of the same time. */
static void shuffle_timers(l_clock *c, al_list *due) {
  size_t n = take(c, due);
  for (size_t from = 0, to; from < n; from = to) {
    for (to = from + 1; to < n && when_of(c->hand[to]) == when_of(c->hand[from]);) to++;
    shuffle(c, c->hand + from, to - from);
  }
  if (n > 1) put_back(c, due, n);
}

static void virtual_turn(al_clock *clock, al_loop *loop, al_list *batch, al_list *due) {
  l_clock *c = of_clock(clock);
  if (++c->turns % LIMIT_TURNS == 0 && al_time_ns() >= c->limit_ns) give_up(c, loop, "limit");
  if (!c->shuffles) return;
  shuffle_steps(c, batch);
  shuffle_timers(c, due);
}

/* ---- the clock as a value ---------------------------------------------------------------------------------------- */

static l_clock *test_clock(lua_State *L, int arg) {
  l_clock *c = lua_touserdata(L, arg);
  if (!c || !lua_getmetatable(L, arg)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &clock_key);
  bool is_clock = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return is_clock ? c : NULL;
}

static l_clock *check_clock(lua_State *L, int arg) {
  l_clock *c = test_clock(L, arg);
  if (!c) al_typeerror(L, arg, "clock");
  return c;
}

al_clock *al_opt_clock(lua_State *L, int arg) {
  l_clock *c = test_clock(L, arg);
  return c ? &c->clock : NULL;
}

/* virtual_clock(patience, [seed]) → a clock for one loop; seconds */
static int virtual_clock(lua_State *L) {
  double patience_s = luaL_checknumber(L, 1);
  lua_settop(L, 2);
  l_clock *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (l_clock){.clock = {virtual_now, virtual_idle, virtual_turn}, .limit_ns = INT64_MAX};
  c->patience_ns = al_seconds_to_ns(patience_s);
  c->shuffles = !lua_isnoneornil(L, 2);
  if (c->shuffles) c->random = (uint64_t)luaL_checkinteger(L, 2);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &clock_key);
  lua_setmetatable(L, -2);
  return 1;
}

/* clock:limit(seconds | nil): how much real time there is from now on */
static int clock_limit(lua_State *L) {
  l_clock *c = check_clock(L, 1);
  c->limit_ns = lua_isnoneornil(L, 2) ? INT64_MAX : al_time_ns() + al_seconds_to_ns(luaL_checknumber(L, 2));
  c->stuck = NULL;
  return 0;
}

/* clock:stuck() → "deadlock", "limit" or nil, once */
static int clock_stuck(lua_State *L) {
  l_clock *c = check_clock(L, 1);
  lua_pushstring(L, c->stuck);
  c->stuck = NULL;
  return 1;
}

/* clock:mark(loop): what is in flight there now always is */
static int clock_mark(lua_State *L) {
  l_clock *c = check_clock(L, 1);
  al_loop_stats stats;
  al_loop_get_stats(al_check_loop(L, al_ctx_of(L), 2)->loop, &stats);
  c->base_ops = stats.ops;
  return 0;
}

static int clock_gc(lua_State *L) {
  l_clock *c = lua_touserdata(L, 1);
  free(c->hand);
  c->hand = NULL;
  c->size_hand = 0;
  return 0;
}

/* ---- what is open ------------------------------------------------------------------------------------------------ */

#define DESCRIPTORS "/proc/self/fd"

/* Lists at most max descriptors, its own not among them; how many. */
static int list_descriptors(int *fds, int max) {
  DIR *dir = opendir(DESCRIPTORS);
  if (!dir) return 0;
  int n = 0;
  for (const struct dirent *entry; n < max && (entry = readdir(dir)) != NULL;)
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir)) fds[n++] = atoi(entry->d_name);
  closedir(dir);
  return n;
}

/* False, and nothing is pushed: it was closed meanwhile, by another thread. */
static bool push_target(lua_State *L, int fd) {
  char path[sizeof DESCRIPTORS + 16], target[PATH_MAX];
  snprintf(path, sizeof path, DESCRIPTORS "/%d", fd);
  ssize_t len = readlink(path, target, sizeof target);
  if (len < 0) return false;
  lua_pushlstring(L, target, (size_t)len);
  return true;
}

/* descriptors() → table: number → what it is, of all that this process has open. Empty where there is no /proc. */
static int descriptors(lua_State *L) {
  lua_settop(L, 1);
  int n = 0, max = 64;
  const int *fds = NULL;
  do {
    max *= 4;
    int *room = lua_newuserdatauv(L, (size_t)max * sizeof *room, 0);
    n = list_descriptors(room, max);
    fds = room;
    lua_replace(L, 1);
  } while (n == max);
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    if (push_target(L, fds[i])) lua_rawseti(L, -2, fds[i]);
  }
  return 1;
}

/* dump(loop) → a line for each thing that is open in it */
static int dump(lua_State *L) {
  const l_loop *loop = al_check_loop(L, al_ctx_of(L), 1);
  int fd = memfd_create("aloop-dump", MFD_CLOEXEC);
  char text[4096];
  ssize_t n = 0;
  if (fd >= 0) {
    al_loop_dump(loop->loop, fd);
    n = pread(fd, text, sizeof text, 0);
    close(fd);
  }
  lua_pushlstring(L, text, n > 0 ? (size_t)n : 0);
  return 1;
}

static const luaL_Reg clock_methods[] = {
    {"limit", clock_limit}, {"stuck", clock_stuck}, {"mark", clock_mark}, {"__gc", clock_gc}, {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"virtual_clock", virtual_clock}, {"descriptors", descriptors}, {"dump", dump}, {NULL, NULL}};

void al_testing_openlib(lua_State *L, al_ctx *ctx) {
  lua_newtable(L);
  al_ctx_setfuncs(L, ctx, clock_methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &clock_key);
  al_ctx_setfuncs(L, ctx, functions);
}
