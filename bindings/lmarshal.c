/* lmarshal.c - values into a parcel: the writing side of lwire.h. Used by the pools; lunmarshal.c reads. Nothing of a
 * script's runs here, and nothing is changed.
 *
 * Objects that were met stand in a row, in the order of their indices; what they contain is written from there, one
 * after the other. Each knows through which other one it was met, for the message when something can't travel.
 *
 * SPDX-License-Identifier: MIT */
#include "lmarshal.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lcode.h"
#include "lcontext.h"
#include "lnames.h"
#include "lparcel.h"
#include "lpath.h"

#include <stdlib.h>
#include <string.h>

enum {
  NEAR = 16,    /* so many objects stand on the Lua stack, the others in a table */
  SLOTS = 32,   /* of the first map */
  FIRST = 256,  /* bytes of a parcel at first */
  SCRATCH = 20, /* stack slots for work */
};

typedef struct slot {
  const void *key; /* an object or an upvalue; NULL: free */
  uint64_t value;  /* index of the object; or of the function << 8 | number of the upvalue - 1 */
} slot;

typedef struct object {
  uint64_t parent; /* index of the object through which it was met; AL_PATH_ROOT | which: it was given */
  int tag;
} object;

typedef struct encoder {
  lua_State *L;
  al_ctx *ctx;
  unsigned flags;
  al_parcel *parcel;
  int n_values;  /* at 2 ... of the stack; [1] is the encoder */
  int far, near; /* stack places: the table of objects (or nil), the first object */
  uint64_t n, size;
  object *objects;
  slot *map;
  size_t n_slots, n_used;
  int n_bases;   /* of a class, on the way to its first one */
  bool is_fresh; /* the names were asked for in this parcel */
  object first_objects[NEAR];
  slot first_map[SLOTS];
} encoder;

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static int no_memory(lua_State *L) { return luaL_error(L, "not enough memory"); }

/* Room for n bytes, which are then counted. */
static char *extend(encoder *e, size_t n) {
  if (!al_parcel_reserve(&e->parcel, n)) no_memory(e->L);
  char *place = e->parcel->bytes + e->parcel->len;
  e->parcel->len += n;
  return place;
}

static void put_byte(encoder *e, int byte) { *extend(e, 1) = (char)byte; }

static void put_number(encoder *e, uint64_t n) {
  char bytes[10];
  size_t len = 0;
  for (; n > 127; n >>= 7) bytes[len++] = (char)(n | 128);
  bytes[len++] = (char)n;
  memcpy(extend(e, len), bytes, len);
}

static void put_bytes(encoder *e, const char *data, size_t len) {
  put_number(e, len);
  char *place = extend(e, len);
  if (len) memcpy(place, data, len);
}

static void put_string(encoder *e, int idx) {
  size_t len;
  const char *text = lua_tolstring(e->L, idx, &len);
  put_bytes(e, text, len);
}

static void put_integer(encoder *e, lua_Integer i) {
  put_byte(e, AL_W_INTEGER);
  put_number(e, ((uint64_t)i << 1) ^ (uint64_t)(i >> 63));
}

/* ---- objects that were met --------------------------------------------------------------------------------------- */

static slot *find_slot(const encoder *e, const void *key) {
  size_t i = (size_t)(((uintptr_t)key >> 4) * 0x9e3779b97f4a7c15u >> 32) & (e->n_slots - 1);
  while (e->map[i].key && e->map[i].key != key) i = (i + 1) & (e->n_slots - 1);
  return &e->map[i];
}

static void grow_map(encoder *e) {
  size_t former = e->n_slots;
  slot *old = e->map, *map = calloc(2 * former, sizeof *map);
  if (!map) no_memory(e->L);
  e->map = map;
  e->n_slots = 2 * former;
  for (size_t i = 0; i < former; i++)
    if (old[i].key) *find_slot(e, old[i].key) = old[i];
  if (old != e->first_map) free(old);
}

static void map_add(encoder *e, const void *key, uint64_t value) {
  if (2 * ++e->n_used > e->n_slots) grow_map(e);
  *find_slot(e, key) = (slot){key, value};
}

static void grow_objects(encoder *e) {
  object *old = e->objects == e->first_objects ? NULL : e->objects;
  object *grown = realloc(old, 2 * e->size * sizeof *grown);
  if (!grown) no_memory(e->L);
  if (!old) memcpy(grown, e->first_objects, sizeof e->first_objects);
  e->objects = grown;
  e->size *= 2;
}

static void push_object(void *from, uint64_t index) {
  encoder *e = from;
  if (index < NEAR)
    lua_pushvalue(e->L, e->near + (int)index);
  else
    lua_rawgeti(e->L, e->far, (lua_Integer)index);
}

/* The object at idx gets the next index. It is kept, and its tag written. */
static uint64_t add_object(encoder *e, int idx, int tag, uint64_t parent) {
  if (e->n == e->size) grow_objects(e);
  uint64_t index = e->n;
  if (index < NEAR) {
    lua_copy(e->L, idx, e->near + (int)index);
  } else {
    if (index == NEAR) {
      lua_newtable(e->L);
      lua_replace(e->L, e->far);
    }
    lua_pushvalue(e->L, idx);
    lua_rawseti(e->L, e->far, (lua_Integer)index);
  }
  map_add(e, lua_topointer(e->L, idx), index);
  e->objects[e->n++] = (object){parent, tag};
  put_byte(e, tag);
  return index;
}

/* ---- what can't travel ------------------------------------------------------------------------------------------- */

static uint64_t parent_of(void *from, uint64_t index) { return ((encoder *)from)->objects[index].parent; }

/* The value at idx, met through parent, can't travel. note (NULL: none) says more. */
static int refuse(encoder *e, int idx, uint64_t parent, const char *note) {
  al_path path = {.from = e, .push_object = push_object, .parent_of = parent_of};
  path.results = e->flags & AL_MARSHAL_RESULTS;
  path.call = e->flags & AL_MARSHAL_CALL;
  idx = lua_absindex(e->L, idx);
  al_path_push(e->L, &path, idx, parent);
  al_path_push_kind(e->L, idx);
  const char *where = e->flags & AL_MARSHAL_LOCAL ? "thread" : "process";
  return al_raise(e->L, e->ctx, AL_C_ValueError, "%s: %s cannot be sent to another %s%s", lua_tostring(e->L, -2),
                  lua_tostring(e->L, -1), where, note ? note : "");
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void put_value(encoder *e, int idx, uint64_t parent);

static bool push_name(encoder *e, int idx) {
  al_name_care care = e->is_fresh ? AL_NAME_KNOWN : AL_NAME_LOADED;
  e->is_fresh = true;
  return al_name_push(e->L, idx, care);
}

/* Has the object at idx a name that holds everywhere? Then it is written. */
static bool put_named(encoder *e, int idx, uint64_t parent) {
  bool named = push_name(e, idx);
  if (!named && (lua_iscfunction(e->L, idx) || al_is_class(e->L, idx))) /* a module may have got it later */
    named = al_name_push(e->L, idx, AL_NAME_AGAIN);
  if (!named) return false;
  add_object(e, idx, AL_W_NAMED, parent);
  put_string(e, -1);
  lua_pop(e->L, 1);
  return true;
}

static int class_number(const encoder *e, const void *class) {
  for (int i = 0; i < AL_C_COUNT; i++)
    if (e->ctx->class_ptr[i] == class) return i;
  return -1;
}

static void put_subclass(encoder *e, int idx, uint64_t parent) {
  lua_State *L = e->L;
  if (e->n_bases == AL_W_MAX_BASES) refuse(e, idx, parent, " (it has too many base classes)");
  e->n_bases++;
  luaL_checkstack(L, SCRATCH, NULL);
  uint64_t self = add_object(e, idx, AL_W_SUBCLASS, parent);
  al_id_push(L, e->ctx, idx);
  memcpy(extend(e, AL_ID_SIZE), lua_tostring(L, -1), AL_ID_SIZE);
  lua_pushliteral(L, "__name");
  lua_rawget(L, idx);
  if (lua_type(L, -1) != LUA_TSTRING) refuse(e, idx, parent, " (its __name is no string)");
  put_string(e, -1);
  lua_pushliteral(L, "__base");
  lua_rawget(L, idx);
  put_value(e, lua_gettop(L), self);
  lua_pop(L, 3);
  e->n_bases--;
}

static void put_class(encoder *e, int idx, uint64_t parent) {
  int number = class_number(e, lua_topointer(e->L, idx));
  if (number >= 0) {
    add_object(e, idx, AL_W_CLASS, parent);
    put_number(e, (uint64_t)number);
  } else if (al_id_has(e->L, idx) || !put_named(e, idx, parent)) {
    put_subclass(e, idx, parent);
  }
}

/* Is the table at idx one whose class lets it travel? */
static bool is_instance(const encoder *e, int idx) {
  lua_State *L = e->L;
  if (al_isinstance(L, e->ctx, idx, AL_C_BaseError)) return true;
  lua_getmetatable(L, idx);
  lua_pushliteral(L, "__by_value");
  lua_rawget(L, -2);
  bool is = lua_toboolean(L, -1) && al_is_class(L, -2);
  lua_pop(L, 2);
  return is;
}

static bool put_remote(encoder *e, int idx, uint64_t parent) {
  const al_marshal_remotes *remotes = al_parcel_remotes();
  if (!(e->flags & AL_MARSHAL_LOCAL) || !remotes) return false;
  void *remote = remotes->take(e->L, e->ctx, idx);
  if (!remote) return false;
  if (!al_parcel_add_remote(e->parcel, remote)) {
    remotes->drop(remote);
    no_memory(e->L);
  }
  add_object(e, idx, AL_W_REMOTE, parent);
  put_number(e, e->parcel->n_remotes - 1);
  return true;
}

static void put_table(encoder *e, int idx, uint64_t parent) {
  lua_State *L = e->L;
  if (!lua_getmetatable(L, idx)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    bool globals = lua_rawequal(L, -1, idx);
    lua_pop(L, 1);
    if (globals) {
      put_byte(e, AL_W_GLOBALS);
    } else if (!put_named(e, idx, parent)) {
      add_object(e, idx, AL_W_TABLE, parent);
      put_number(e, lua_rawlen(L, idx));
    }
    return;
  }
  lua_pop(L, 1);
  if (al_is_class(L, idx)) {
    put_class(e, idx, parent);
  } else if (is_instance(e, idx)) {
    add_object(e, idx, AL_W_INSTANCE, parent);
  } else if (al_is_addr(L, idx)) {
    add_object(e, idx, AL_W_ADDRESS, parent);
  } else if (!put_named(e, idx, parent) && !put_remote(e, idx, parent)) {
    refuse(e, idx, parent, NULL);
  }
}

/* Does the upvalue that was just pushed become the globals of who runs the function? */
static bool is_env(lua_State *L, const char *name) {
  if (strcmp(name, "_ENV") == 0) return true;
  if (lua_type(L, -1) != LUA_TTABLE) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  bool is = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  return is;
}

/* Has the function at idx no upvalue but _ENV, and that as the first one? */
static bool is_pure(lua_State *L, int idx) {
  const char *name = lua_getupvalue(L, idx, 1);
  if (!name) return true;
  bool env = is_env(L, name);
  lua_pop(L, 1);
  if (!env || !lua_getupvalue(L, idx, 2)) return env;
  lua_pop(L, 1);
  return false;
}

static int dump_writer(lua_State *L, const void *data, size_t len, void *ud) {
  encoder *e = ud;
  (void)L;
  if (!al_parcel_reserve(&e->parcel, len)) return 1;
  memcpy(e->parcel->bytes + e->parcel->len, data, len);
  e->parcel->len += len;
  return 0;
}

static void put_word(encoder *e, uint64_t word) { memcpy(extend(e, sizeof word), &word, sizeof word); }

/* Hash, length and dump of the function at idx; known: as it is remembered, or NULL. */
static void put_code(encoder *e, int idx, const l_code *known) {
  if (known) {
    put_word(e, known->hash);
    put_word(e, known->len);
    memcpy(extend(e, known->len), known->dump, known->len);
    return;
  }
  size_t head = e->parcel->len, start = head + 2 * sizeof(uint64_t);
  extend(e, 2 * sizeof(uint64_t));
  lua_pushvalue(e->L, idx);
  if (lua_dump(e->L, dump_writer, e, 0)) no_memory(e->L);
  lua_pop(e->L, 1);
  const char *dump = e->parcel->bytes + start;
  uint64_t len = e->parcel->len - start, hash = al_code_hash(dump, len);
  memcpy(e->parcel->bytes + head, &hash, sizeof hash);
  memcpy(e->parcel->bytes + head + sizeof hash, &len, sizeof len);
  al_code_remember(e->L, idx, hash, dump, len);
}

/* Functions of aloop's own modules are the same everywhere, and have state that there is once. */
static bool is_own_function(lua_State *L, int idx) {
  lua_Debug ar;
  lua_pushvalue(L, idx);
  lua_getinfo(L, ">S", &ar);
  return strncmp(ar.source, "@aloop/", 7) == 0;
}

static void put_function(encoder *e, int idx, uint64_t parent) {
  if (lua_iscfunction(e->L, idx)) {
    if (!put_named(e, idx, parent)) refuse(e, idx, parent, " (it is in no module)");
    return;
  }
  const l_code *known = al_code_find(e->L, idx);
  if (!known && is_own_function(e->L, idx) && put_named(e, idx, parent)) return;
  add_object(e, idx, is_pure(e->L, idx) ? AL_W_PURE : AL_W_FUNCTION, parent);
  put_code(e, idx, known);
}

static void put_userdata(encoder *e, int idx, uint64_t parent) {
  lua_State *L = e->L;
  const l_buffer *buffer = al_test_buffer(L, e->ctx, idx);
  if (buffer) {
    add_object(e, idx, AL_W_BUFFER, parent);
    put_bytes(e, buffer->data, buffer->size);
  } else if (al_test(L, e->ctx, idx, AL_C_ContextVar)) {
    add_object(e, idx, AL_W_VAR, parent);
    al_id_push(L, e->ctx, idx);
    memcpy(extend(e, AL_ID_SIZE), lua_tostring(L, -1), AL_ID_SIZE);
    al_var_push_name(L, idx);
    put_string(e, -1);
    lua_pop(L, 2);
  } else if (!put_remote(e, idx, parent)) {
    refuse(e, idx, parent, NULL);
  }
}

static void put_object(encoder *e, int idx, uint64_t parent) {
  const slot *known = find_slot(e, lua_topointer(e->L, idx));
  if (known->key) {
    put_byte(e, AL_W_REF);
    put_number(e, known->value);
    return;
  }
  switch (lua_type(e->L, idx)) {
  case LUA_TTABLE: put_table(e, idx, parent); break;
  case LUA_TFUNCTION: put_function(e, idx, parent); break;
  case LUA_TUSERDATA: put_userdata(e, idx, parent); break;
  case LUA_TSTRING:
    add_object(e, idx, AL_W_LONG_STRING, parent);
    put_string(e, idx);
    break;
  default: refuse(e, idx, parent, NULL);
  }
}

/* The value at idx, an absolute place. */
static void put_value(encoder *e, int idx, uint64_t parent) {
  lua_State *L = e->L;
  switch (lua_type(L, idx)) {
  case LUA_TNIL: put_byte(e, AL_W_NIL); break;
  case LUA_TBOOLEAN: put_byte(e, lua_toboolean(L, idx) ? AL_W_TRUE : AL_W_FALSE); break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx)) {
      put_integer(e, lua_tointeger(L, idx));
    } else {
      lua_Number n = lua_tonumber(L, idx);
      put_byte(e, AL_W_FLOAT);
      memcpy(extend(e, sizeof n), &n, sizeof n);
    }
    break;
  case LUA_TSTRING:
    if (lua_rawlen(L, idx) > AL_W_SHORT) {
      put_object(e, idx, parent);
    } else {
      put_byte(e, AL_W_STRING);
      put_string(e, idx);
    }
    break;
  case LUA_TLIGHTUSERDATA:
    if (lua_touserdata(L, idx)) refuse(e, idx, parent, NULL);
    put_byte(e, AL_W_NULL);
    break;
  default: put_object(e, idx, parent);
  }
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

/* The key and value on top. */
static void put_pair(encoder *e, uint64_t self) {
  int value = lua_gettop(e->L);
  put_value(e, value - 1, self);
  put_value(e, value, self);
}

/* The table on top: 1, 2, ... as long as they come in this order, then the other pairs. */
static void put_items(encoder *e, uint64_t self) {
  lua_State *L = e->L;
  bool in_order = true;
  lua_Integer next = 1;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (in_order && lua_isinteger(L, -2) && lua_tointeger(L, -2) == next) {
      put_value(e, lua_gettop(L), self);
      next++;
      continue;
    }
    if (in_order) put_byte(e, AL_W_END);
    in_order = false;
    put_pair(e, self);
  }
  if (in_order) put_byte(e, AL_W_END);
  put_byte(e, AL_W_END);
}

static void put_pairs(encoder *e, uint64_t self) {
  lua_State *L = e->L;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) put_pair(e, self);
  put_byte(e, AL_W_END);
}

static void put_instance(encoder *e, uint64_t self) {
  lua_getmetatable(e->L, -1);
  put_value(e, lua_gettop(e->L), self);
  lua_pop(e->L, 1);
  put_pairs(e, self);
}

/* Does extend() give the class at idx the field on top (key below) anyway? */
static bool is_inherited(lua_State *L, int class) {
  if (lua_type(L, -2) != LUA_TSTRING) return false;
  const char *key = lua_tostring(L, -2);
  if (strncmp(key, "__", 2) != 0) return false;
  if (strcmp(key, "__name") == 0 || strcmp(key, "__base") == 0 || lua_rawequal(L, -1, class)) return true;
  lua_pushliteral(L, "__base");
  lua_rawget(L, class);
  lua_pushvalue(L, -3);
  bool same = lua_istable(L, -2) && lua_rawget(L, -2) != LUA_TNIL && lua_rawequal(L, -1, -3);
  lua_pop(L, 2);
  return same;
}

static void put_class_fields(encoder *e, uint64_t self) {
  lua_State *L = e->L;
  int class = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, class); lua_pop(L, 1))
    if (!is_inherited(L, class)) put_pair(e, self);
  put_byte(e, AL_W_END);
}

/* One upvalue, which is on top; its box may be that of another function's, too. */
static void put_upvalue(encoder *e, uint64_t self, const char *name, int function, int i) {
  lua_State *L = e->L;
  if (is_env(L, name)) {
    put_byte(e, AL_W_GLOBALS);
    return;
  }
  const void *box = lua_upvalueid(L, function, i);
  const slot *known = find_slot(e, box);
  if (known->key) {
    put_byte(e, AL_W_JOIN);
    put_number(e, known->value >> 8);
    put_number(e, (known->value & 255) + 1);
    return;
  }
  map_add(e, box, self << 8 | (uint64_t)(i - 1));
  put_value(e, lua_gettop(L), self);
}

static void put_upvalues(encoder *e, uint64_t self) {
  int function = lua_gettop(e->L);
  const char *name;
  for (int i = 1; (name = lua_getupvalue(e->L, function, i)) != NULL; i++) {
    put_upvalue(e, self, name, function, i);
    lua_pop(e->L, 1);
  }
  put_byte(e, AL_W_END);
}

static void put_optional(encoder *e, bool has, uint64_t self) {
  if (!has) {
    put_byte(e, AL_W_END);
    return;
  }
  put_value(e, lua_gettop(e->L), self);
  lua_pop(e->L, 1);
}

static void put_var_values(encoder *e, uint64_t self) {
  lua_State *L = e->L;
  int var = lua_gettop(L);
  put_optional(e, al_var_push_default(L, var), self);
  put_optional(e, (e->flags & AL_MARSHAL_CONTEXT) && al_var_push_value(L, e->ctx, var), self);
}

static void put_contents(encoder *e, uint64_t self) {
  static void (*const putters[])(encoder *, uint64_t) = {
      [AL_W_TABLE] = put_items,       [AL_W_INSTANCE] = put_instance,     [AL_W_ADDRESS] = put_pairs,
      [AL_W_FUNCTION] = put_upvalues, [AL_W_SUBCLASS] = put_class_fields, [AL_W_VAR] = put_var_values};
  int tag = e->objects[self].tag;
  if (tag < AL_W_TABLE) return;
  put_byte(e, AL_W_FILL);
  put_byte(e, tag);
  put_number(e, self);
  push_object(e, self);
  putters[tag](e, self);
  lua_pop(e->L, 1);
}

/* ---- parcels ----------------------------------------------------------------------------------------------------- */

/* encoder, values... → */
static int encode(lua_State *L) {
  encoder *e = lua_touserdata(L, 1);
  luaL_checkstack(L, NEAR + SCRATCH, NULL);
  e->far = e->n_values + 2;
  e->near = e->far + 1;
  lua_settop(L, e->far + NEAR);
  put_byte(e, AL_WIRE_VERSION);
  put_number(e, (uint64_t)e->n_values);
  for (int i = 0; i < e->n_values; i++) put_value(e, i + 2, AL_PATH_ROOT | (uint64_t)i);
  for (uint64_t i = 0; i < e->n; i++) put_contents(e, i);
  put_byte(e, AL_W_END);
  return 0;
}

/* LUA_OK and a parcel in e->parcel; else the error is on top. */
static int start(lua_State *L, al_ctx *ctx, encoder *e, int first, int n, unsigned flags) {
  *e = (encoder){.L = L, .ctx = ctx, .flags = flags, .n_values = n, .size = NEAR, .n_slots = SLOTS};
  e->objects = e->first_objects;
  e->map = e->first_map;
  luaL_checkstack(L, n + 2, NULL);
  e->parcel = al_parcel_new(FIRST);
  if (!e->parcel) {
    lua_pushliteral(L, "not enough memory");
    return LUA_ERRMEM;
  }
  lua_pushcfunction(L, encode);
  lua_pushlightuserdata(L, e);
  for (int i = 0; i < n; i++) lua_pushvalue(L, first + i);
  int status = lua_pcall(L, n + 1, 0, 0);
  if (e->objects != e->first_objects) free(e->objects);
  if (e->map != e->first_map) free(e->map);
  if (status != LUA_OK) al_parcel_free(e->parcel);
  return status;
}

al_parcel *al_marshal(lua_State *L, al_ctx *ctx, int first, int n, unsigned flags) {
  encoder e;
  luaL_checkstack(L, SCRATCH, NULL);
  if (start(L, ctx, &e, n ? lua_absindex(L, first) : 0, n, flags) != LUA_OK) lua_error(L);
  return e.parcel;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Replaces the error on top, which can't travel for the reason below it, by one that can: its text. */
static void replace_error(lua_State *L, al_ctx *ctx) {
  const char *text = lua_tostring(L, -1), *why = al_isinstance(L, ctx, -2, AL_C_BaseError) ? NULL : lua_tostring(L, -2);
  if (!why) {
    lua_getfield(L, -2, "message");
    why = lua_tostring(L, -1);
  }
  al_pusherror(L, ctx, AL_C_RuntimeError, "%s (the error itself stays behind: %s)", text, why ? why : "?");
}

/* value → its text */
static int error_text(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

static void push_error_text(lua_State *L, int idx) {
  lua_pushcfunction(L, error_text);
  lua_pushvalue(L, idx);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  lua_pop(L, 1);
  lua_pushfstring(L, "an error (a %s)", luaL_typename(L, idx));
}

al_parcel *al_marshal_error(lua_State *L, al_ctx *ctx, int idx, unsigned flags) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, SCRATCH, NULL);
  int top = lua_gettop(L);
  lua_pushvalue(L, idx);
  al_pushtraceback(L, ctx, idx);
  if (!lua_isstring(L, -1)) lua_pushnil(L), lua_replace(L, -2);
  encoder e;
  int status = start(L, ctx, &e, top + 1, 2, flags | AL_MARSHAL_RESULTS);
  if (status != LUA_OK && status != LUA_ERRMEM) {
    push_error_text(L, idx);
    replace_error(L, ctx);
    lua_replace(L, top + 1);
    lua_settop(L, top + 2);
    status = start(L, ctx, &e, top + 1, 2, flags);
  }
  if (status != LUA_OK) lua_error(L);
  lua_settop(L, top);
  return e.parcel;
}
