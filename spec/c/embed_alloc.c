/* embed_alloc.c - tests of the interpreter's allocator (bindings/lalloc.c) by itself, with a malloc that fails now and
 * then: blocks keep what stands in them, shrinking never fails, and strings may be filled before they are made.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

static void *weak_malloc(size_t size);
static void *weak_aligned_alloc(size_t alignment, size_t size);
static void *weak_realloc(void *old, size_t size);

#define malloc weak_malloc
#define aligned_alloc weak_aligned_alloc
#define realloc weak_realloc
#include "../../bindings/lalloc.c"
#undef malloc
#undef aligned_alloc
#undef realloc

#include "check.h"

#define LEN(array) (sizeof(array) / sizeof *(array))

static unsigned one_in; /* allocations fails; 0: none does */

static bool fails(void) { return one_in && check_random() % one_in == 0; }
static void *weak_malloc(size_t size) { return fails() ? NULL : malloc(size); }
static void *weak_aligned_alloc(size_t alignment, size_t size) {
  return fails() ? NULL : aligned_alloc(alignment, size);
}
static void *weak_realloc(void *old, size_t size) { return fails() ? NULL : realloc(old, size); }

/* About the borders of what is treated alike more often than elsewhere. */
static size_t random_size(void) {
  static const size_t borders[] = {0, SMALL, 1024, 32 * 1024, 128 * 1024, LARGE};
  unsigned r = check_random();
  if (r % 2) return 1 + check_random() % (r % 4 == 1 ? 2000 : 600 * 1000);
  return 1 + borders[r / 2 % LEN(borders)] + check_random() % 64 - (r / 2 % LEN(borders) ? 32 : 0);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

typedef struct held {
  unsigned char *at, byte;
  size_t size;
} held;

static void fill(held *h) {
  h->byte = (unsigned char)check_random();
  memset(h->at, h->byte, h->size);
}

static void check_bytes(const held *h, size_t n) {
  for (size_t i = 0; i < n; i++) CHECK_EQ(h->at[i], h->byte);
}

static void resize_held(al_alloc *alloc, held *h, size_t size) {
  unsigned char *at = allocate(alloc, h->at, h->size, size);
  if (!at) {
    CHECK(one_in && size > h->size);
    return;
  }
  h->at = at;
  check_bytes(h, size < h->size ? size : h->size);
  h->size = size;
  fill(h);
}

static void drop(al_alloc *alloc, held *h) {
  check_bytes(h, h->size);
  allocate(alloc, h->at, h->size, 0);
  *h = (held){NULL, 0, 0};
}

static void change(al_alloc *alloc, held *h) {
  size_t size = random_size();
  if (!h->at) {
    h->at = allocate(alloc, NULL, LUA_TSTRING, size);
    h->size = size;
    if (h->at) fill(h);
  } else if (check_random() % 2) {
    drop(alloc, h);
  } else {
    resize_held(alloc, h, size);
  }
}

static void test_blocks(void) {
  static held blocks[100];
  al_alloc *alloc = calloc(1, sizeof *alloc);
  CHECK(alloc);
  alloc->has_head = true;
  for (int i = 0; i < 5000; i++) {
    change(alloc, &blocks[check_random() % LEN(blocks)]);
    size_t n = random_size();
    char *room = al_alloc_room(alloc, n);
    if (room) memset(room, 0xee, n);
  }
  for (size_t i = 0; i < LEN(blocks); i++)
    if (blocks[i].at) drop(alloc, &blocks[i]);
  al_alloc_end(alloc);
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

static int in_room, in_block;

static char byte_of(size_t seed, size_t i) { return (char)(seed + i * 7 + (i >> 8)); }

static int keep(lua_State *L, size_t seed) {
  lua_pushinteger(L, (lua_Integer)seed);
  int i = (int)(check_random() % 20) * 2 + 1;
  lua_rawseti(L, 2, i + 1);
  lua_rawseti(L, 2, i);
  return 0;
}

/* alloc, strings: makes one, of bytes that stand in the room if there is one, and has something else take memory
 * meanwhile. */
static int make_string(lua_State *L) {
  static char elsewhere[700 * 1000];
  al_alloc *alloc = lua_touserdata(L, 1);
  size_t n = random_size(), len = check_random() % 4 ? n : 1 + check_random() % n, seed = check_random() % 256;
  char *room = al_alloc_room(alloc, n), *data = room ? room : elsewhere;
  for (size_t i = 0; i < len; i++) data[i] = byte_of(seed, i);
  if (check_random() % 4 == 0) lua_newuserdatauv(L, random_size(), 1);
  if (check_random() % 8 == 0) return luaL_error(L, "it is never made");
  al_alloc_pushlstring(L, alloc, data, len);
  in_room += room && lua_tostring(L, -1) == room;
  return keep(L, seed);
}

/* alloc, strings: makes one of the block that its bytes stand in, behind a head as large as Lua's, or elsewhere. */
static int make_of_block(lua_State *L) {
  al_alloc *alloc = lua_touserdata(L, 1);
  size_t n = random_size(), size = HEAD + n + check_random() % 3, seed = check_random() % 256;
  char *memory = allocate(alloc, NULL, 0, size);
  if (!memory) return luaL_error(L, "no memory");
  for (size_t i = 0; i < n; i++) memory[HEAD + i] = byte_of(seed, i);
  if (al_alloc_pushblock(L, alloc, memory, size, memory + HEAD, n)) {
    in_block++;
    CHECK(lua_tostring(L, -1) == memory + HEAD);
    return keep(L, seed);
  }
  allocate(alloc, memory, size, 0);
  return 0;
}

/* strings */
static int check_strings(lua_State *L) {
  for (int at = 1; at < 40; at += 2) {
    size_t len;
    lua_rawgeti(L, 1, at);
    lua_rawgeti(L, 1, at + 1);
    const char *data = lua_tolstring(L, -2, &len);
    size_t seed = (size_t)lua_tointeger(L, -1);
    for (size_t i = 0; data && i < len; i++) CHECK_EQ(data[i], byte_of(seed, i));
    CHECK(!data || data[len] == '\0');
    lua_pop(L, 2);
  }
  return 0;
}

static void call(lua_State *L, lua_CFunction f, al_alloc *alloc, unsigned fails_one_in) {
  lua_settop(L, 1);
  lua_pushcfunction(L, f);
  if (alloc) lua_pushlightuserdata(L, alloc);
  lua_pushvalue(L, 1);
  one_in = fails_one_in;
  lua_pcall(L, alloc ? 2 : 1, 0, 0);
  one_in = 0;
}

static void make_strings(unsigned fails_one_in) {
  al_alloc *alloc = calloc(1, sizeof *alloc);
  lua_State *L = alloc ? lua_newstate(allocate, alloc) : NULL;
  CHECK(L);
  lua_createtable(L, 40, 0);
  for (int i = 0; i < 1500; i++) {
    call(L, i % 3 ? make_string : make_of_block, alloc, fails_one_in);
    if (i % 20 == 0) call(L, check_strings, NULL, 0);
  }
  lua_close(L);
  al_alloc_end(alloc);
}

static void test_strings(void) { make_strings(0); }
static void test_strings_of_little_memory(void) { make_strings(4); }

int main(void) {
  RUN(test_blocks);
  RUN(test_strings);
  CHECK(in_room > 100 && in_block > 50);
  RUN(test_strings_of_little_memory);
  for (one_in = 64; one_in > 1; one_in /= 4) RUN(test_blocks);
  one_in = 0;
  return check_done();
}
