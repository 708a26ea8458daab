/* lnames.c - names that hold in every state: paths through package.loaded, found backwards by an index of all that the
 * modules offer, and ids. The index is made when it is first asked for, and again when the loaded modules have changed.
 *
 * SPDX-License-Identifier: MIT */
#include "lnames.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static const char names_key; /* its address is the registry key of the state below */

enum { UV_PATHS = 1, UV_OBJECTS, UV_IDS, N_UV };

typedef struct names {
  uint64_t print; /* of package.loaded when the index was made; 0: never */
} names;

/* Pushes the state's userdata; made at the first call. */
static names *push_names(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key) == LUA_TUSERDATA) return lua_touserdata(L, -1);
  lua_pop(L, 1);
  names *n = lua_newuserdatauv(L, sizeof *n, N_UV);
  *n = (names){0};
  al_pushweak(L, "k");
  lua_setiuservalue(L, -2, UV_PATHS);
  al_pushweak(L, "v");
  lua_setiuservalue(L, -2, UV_OBJECTS);
  al_pushweak(L, "k");
  lua_setiuservalue(L, -2, UV_IDS);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &names_key);
  return n;
}

/* Pushes one of its tables alone. */
static names *push_table(lua_State *L, int uv) {
  names *n = push_names(L);
  lua_getiuservalue(L, -1, uv);
  lua_remove(L, -2);
  return n;
}

bool al_is_class(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE || !lua_getmetatable(L, idx)) return false;
  lua_pushliteral(L, "__call");
  lua_rawget(L, -2);
  lua_CFunction f = lua_tocfunction(L, -1);
  lua_pop(L, 2);
  return f && al_class_is_call(f);
}

/* ---- the index --------------------------------------------------------------------------------------------------- */

/* Of what is loaded: changes when a module comes, goes or is replaced. Never 0. */
static uint64_t loaded_print(lua_State *L) {
  uint64_t sum = 1;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
    sum += ((uint64_t)(uintptr_t)lua_topointer(L, -1) >> 4) * 0x9e3779b97f4a7c15u + 1;
  lua_pop(L, 1);
  return sum ? sum : 1;
}

/* Places in the stack while the index is made. */
enum { PATHS = 1, LOADED, MODULE };

/* The value on top has the path, unless it has one already. */
static void give(lua_State *L, const char *path, size_t len) {
  lua_pushvalue(L, -1);
  if (lua_rawget(L, PATHS) == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_pushlstring(L, path, len);
    lua_rawset(L, PATHS);
  }
  lua_pop(L, 1);
}

typedef struct trail {
  char text[256];
  size_t len;
} trail;

/* Appends the string key at idx; false: it is none, or too long a one to be a name. */
static bool path_add(lua_State *L, trail *p, int idx) {
  if (lua_type(L, idx) != LUA_TSTRING) return false;
  size_t len;
  const char *key = lua_tolstring(L, idx, &len);
  size_t separator = p->len > 0;
  if (len >= sizeof p->text - p->len - separator || memchr(key, 0, len)) return false;
  if (separator) p->text[p->len++] = '\0';
  memcpy(p->text + p->len, key, len);
  p->len += len;
  return true;
}

static bool is_own(const trail *p) {
  return strncmp(p->text, "aloop", 5) == 0 && (p->text[5] == '\0' || p->text[5] == '.');
}

/* May the value on top be called by its place in this module? */
static bool has_name(lua_State *L, bool own) {
  if (lua_iscfunction(L, -1)) return true;
  if (lua_type(L, -1) == LUA_TTABLE) return own || al_is_class(L, -1);
  return own && lua_isfunction(L, -1);
}

static bool is_plain_table(lua_State *L) {
  if (lua_type(L, -1) != LUA_TTABLE) return false;
  if (!lua_getmetatable(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

/* Names what is in the table on top, and in the plain tables that are in it. */
static void index_fields(lua_State *L, trail prefix, bool own, int depth) {
  luaL_checkstack(L, 10, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    trail p = prefix;
    if (!path_add(L, &p, -2)) continue;
    if (has_name(L, own)) give(L, p.text, p.len);
    if (depth > 0 && is_plain_table(L)) index_fields(L, p, own, depth - 1);
  }
}

/* The module's name is on top (popped): what it is, and what is in it. */
static void index_module(lua_State *L) {
  trail p = {.len = 0};
  if (!path_add(L, &p, -1)) {
    lua_pop(L, 1);
    return;
  }
  lua_rawget(L, LOADED);
  p.text[p.len] = '\0';
  if (lua_type(L, -1) == LUA_TTABLE) {
    give(L, p.text, p.len);
    index_fields(L, p, is_own(&p), 1);
  } else if (lua_iscfunction(L, -1)) {
    give(L, p.text, p.len);
  }
  lua_pop(L, 1);
}

/* Those whose names are best come first, for the first name is kept. */
static const char *const first_modules[] = {LUA_STRLIBNAME,  LUA_TABLIBNAME, LUA_MATHLIBNAME, LUA_IOLIBNAME,
                                            LUA_OSLIBNAME,   LUA_COLIBNAME,  LUA_UTF8LIBNAME, LUA_DBLIBNAME,
                                            LUA_LOADLIBNAME, "aloop"};
/* Of the globals only these are there in each state. */
static const char *const base_functions[] = {
    "assert", "collectgarbage", "dofile",  "error",    "getmetatable", "ipairs", "load",   "loadfile",
    "next",   "pairs",          "pcall",   "print",    "rawequal",     "rawget", "rawlen", "rawset",
    "select", "setmetatable",   "require", "tonumber", "tostring",     "type",   "warn",   "xpcall"};

static void index_globals(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  trail prefix = {.text = LUA_GNAME, .len = sizeof LUA_GNAME - 1};
  for (size_t i = 0; i < sizeof base_functions / sizeof *base_functions; i++) {
    trail p = prefix;
    lua_pushstring(L, base_functions[i]);
    path_add(L, &p, -1);
    lua_rawget(L, -2);
    if (lua_iscfunction(L, -1)) give(L, p.text, p.len);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* paths, package.loaded → */
static int make_index(lua_State *L) {
  for (lua_pushnil(L); lua_next(L, PATHS);) { /* names that hold no more */
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    lua_rawset(L, PATHS);
  }
  for (size_t i = 0; i < sizeof first_modules / sizeof *first_modules; i++) {
    lua_pushstring(L, first_modules[i]);
    index_module(L);
  }
  index_globals(L);
  for (lua_pushnil(L); lua_next(L, LOADED);) {
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), LUA_GNAME) != 0) {
      lua_pushvalue(L, -1);
      index_module(L);
    }
  }
  return 0;
}

static void refresh(lua_State *L, names *n, uint64_t print) {
  lua_pushcfunction(L, make_index);
  lua_pushvalue(L, -2);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_call(L, 2, 0);
  n->print = print;
}

bool al_name_push(lua_State *L, int idx, al_name_care care) {
  idx = lua_absindex(L, idx);
  names *n = push_table(L, UV_PATHS);
  uint64_t print = care > AL_NAME_KNOWN || !n->print ? loaded_print(L) : n->print;
  if (print != n->print || care == AL_NAME_AGAIN) refresh(L, n, print);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (!lua_isnil(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

/* Pushes the part of a path that begins at *part, which goes to the next one. */
static const char *push_part(lua_State *L, const char **part, const char *end) {
  size_t n = strnlen(*part, (size_t)(end - *part));
  const char *text = lua_pushlstring(L, *part, n);
  *part += n + 1;
  return text;
}

/* The name of a module on top becomes the module. */
static void load_module(lua_State *L, const char *name) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, name) == LUA_TNIL) {
    lua_getglobal(L, "require");
    lua_pushvalue(L, -4);
    lua_call(L, 1, 1);
    lua_replace(L, -2);
  }
  lua_replace(L, -3);
  lua_pop(L, 1);
}

void al_name_resolve(lua_State *L, al_ctx *ctx, const char *path, size_t len) {
  const char *end = path + len, *part = path;
  const char *module = push_part(L, &part, end);
  lua_pushvalue(L, -1);
  load_module(L, module);
  while (part <= end) {
    const char *key = push_part(L, &part, end);
    if (lua_istable(L, -2)) {
      lua_pushvalue(L, -1);
      lua_gettable(L, -3);
    } else {
      lua_pushnil(L);
    }
    if (lua_isnil(L, -1)) al_raise(L, ctx, AL_C_RuntimeError, "the module '%s' has no '%s' here", module, key);
    lua_replace(L, -3);
    lua_pop(L, 1);
  }
  lua_remove(L, -2);
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

/* 8 random bytes of this process, or what comes near to it. */
static uint64_t process_id(void) {
  static uint64_t id;
  uint64_t known = __atomic_load_n(&id, __ATOMIC_RELAXED);
  if (known) return known;
  uint64_t random = 0;
  if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    random = ((uint64_t)getpid() << 40) ^ ((uint64_t)now.tv_sec << 20) ^ (uint64_t)now.tv_nsec;
  }
  random |= 1;
  __atomic_compare_exchange_n(&id, &known, random, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return __atomic_load_n(&id, __ATOMIC_RELAXED);
}

bool al_id_has(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  push_table(L, UV_IDS);
  lua_pushvalue(L, idx);
  bool has = lua_rawget(L, -2) != LUA_TNIL;
  lua_pop(L, 2);
  return has;
}

/* The object at idx has the id on top, and the other way round. */
static void set_id(lua_State *L, int idx) {
  push_table(L, UV_IDS);
  lua_pushvalue(L, idx);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  push_table(L, UV_OBJECTS);
  lua_pushvalue(L, -2);
  lua_pushvalue(L, idx);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

void al_id_push(lua_State *L, al_ctx *ctx, int idx) {
  static uint64_t last;
  (void)ctx;
  idx = lua_absindex(L, idx);
  push_table(L, UV_IDS);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (!lua_isnil(L, -1)) return;
  lua_pop(L, 1);
  uint64_t id[2] = {process_id(), __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED)};
  _Static_assert(sizeof id == AL_ID_SIZE, "the size of an id");
  lua_pushlstring(L, (const char *)id, sizeof id);
  set_id(L, idx);
}

bool al_id_resolve(lua_State *L, const char *id) {
  push_table(L, UV_OBJECTS);
  lua_pushlstring(L, id, AL_ID_SIZE);
  bool known = lua_rawget(L, -2) != LUA_TNIL;
  lua_remove(L, -2);
  if (!known) lua_pop(L, 1);
  return known;
}

void al_id_set(lua_State *L, const char *id) {
  int idx = lua_gettop(L);
  lua_pushlstring(L, id, AL_ID_SIZE);
  set_id(L, idx);
  lua_pop(L, 1);
}
