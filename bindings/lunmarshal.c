/* lunmarshal.c - a parcel into values: the reading side of lwire.h. Used by the pools; lmarshal.c writes.
 *
 * What a parcel says is checked against its length and against what is there, so that bytes which were cut off, or
 * are no parcel, raise an error. They are not safe from who means harm: functions are loaded as they come.
 *
 * SPDX-License-Identifier: MIT */
#include "lmarshal.h"

#include "laddr.h"
#include "lbuffer.h"
#include "lcode.h"
#include "lcontext.h"
#include "lnames.h"
#include "lparcel.h"

#include <string.h>

enum {
  NEAR = 16,   /* so many objects stand on the Lua stack, the others in a table */
  SCRATCH = 20 /* stack slots for work */
};

typedef struct decoder {
  lua_State *L;
  al_ctx *ctx;
  const al_parcel *parcel;
  const char *p, *end;
  uint64_t n; /* objects so far */
  int far, made,
      near; /* stack places: the table of objects, that of classes and variables made here, the first object */
  int n_bases;
} decoder;

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static int damaged(decoder *d) { return al_raise(d->L, d->ctx, AL_C_RuntimeError, "a parcel is damaged"); }

static const char *take(decoder *d, size_t n) {
  if (n > (size_t)(d->end - d->p)) damaged(d);
  const char *at = d->p;
  d->p += n;
  return at;
}

static int take_byte(decoder *d) { return *(const unsigned char *)take(d, 1); }

/* Takes END, if it is next. */
static bool take_end(decoder *d) {
  if (d->p == d->end) damaged(d);
  if (*d->p != AL_W_END) return false;
  d->p++;
  return true;
}

static uint64_t take_number(decoder *d) {
  uint64_t n = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    int byte = take_byte(d);
    n |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return n;
  }
  return (uint64_t)damaged(d);
}

static const char *take_bytes(decoder *d, size_t *len) {
  *len = take_number(d);
  return take(d, *len);
}

static void push_string(decoder *d) {
  size_t len;
  const char *text = take_bytes(d, &len);
  lua_pushlstring(d->L, text, len);
}

static lua_Integer take_integer(decoder *d) {
  uint64_t n = take_number(d);
  return (lua_Integer)((n >> 1) ^ (0 - (n & 1)));
}

static void push_float(decoder *d) {
  lua_Number n;
  memcpy(&n, take(d, sizeof n), sizeof n);
  lua_pushnumber(d->L, n);
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

/* The value on top (kept) becomes the object with the index. */
static void set_object(decoder *d, uint64_t index) {
  if (index < NEAR) {
    lua_copy(d->L, -1, d->near + (int)index);
    return;
  }
  if (!lua_istable(d->L, d->far)) {
    lua_newtable(d->L);
    lua_replace(d->L, d->far);
  }
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->far, (lua_Integer)index);
}

static void push_object(decoder *d, uint64_t index) {
  if (index >= d->n) damaged(d);
  if (index < NEAR)
    lua_pushvalue(d->L, d->near + (int)index);
  else
    lua_rawgeti(d->L, d->far, (lua_Integer)index);
  if (lua_isnil(d->L, -1)) damaged(d); /* a base of a class that names the class */
}

static void push_value(decoder *d);

static void push_table(decoder *d) {
  uint64_t n = take_number(d), most = (uint64_t)(d->end - d->p); /* an item has a byte at least */
  if (n > most) n = most;
  lua_createtable(d->L, n > INT_MAX ? INT_MAX : (int)n, 0);
}

static void push_named(decoder *d) {
  size_t len;
  const char *path = take_bytes(d, &len);
  al_name_resolve(d->L, d->ctx, path, len);
}

static void push_class(decoder *d) {
  uint64_t number = take_number(d);
  if (number >= AL_C_COUNT) damaged(d);
  al_pushclass(d->L, d->ctx, (al_class)number);
}

static void push_buffer(decoder *d) {
  size_t len;
  const char *data = take_bytes(d, &len);
  l_buffer *b = al_buffer_new(d->L, d->ctx, len);
  if (len) memcpy(b->data, data, len);
}

static void push_remote(decoder *d) {
  uint64_t i = take_number(d);
  if (i >= d->parcel->n_remotes) damaged(d);
  al_parcel_remotes()->push(d->L, d->ctx, d->parcel->remotes[i]);
}

static void push_function(decoder *d, bool pure) {
  uint64_t hash, len;
  memcpy(&hash, take(d, sizeof hash), sizeof hash);
  memcpy(&len, take(d, sizeof len), sizeof len);
  const char *dump = take(d, len);
  if (pure)
    al_code_load_pure(d->L, hash, dump, len);
  else
    al_code_load(d->L, hash, dump, len);
}

/* Contents are for what was made here alone: what was known before stays as it is. */
static void set_made(decoder *d, uint64_t index) {
  if (!lua_istable(d->L, d->made)) {
    lua_newtable(d->L);
    lua_replace(d->L, d->made);
  }
  lua_pushboolean(d->L, true);
  lua_rawseti(d->L, d->made, (lua_Integer)index);
}

static bool is_made(decoder *d, uint64_t index) {
  if (!lua_istable(d->L, d->made)) return false;
  lua_rawgeti(d->L, d->made, (lua_Integer)index);
  bool is = lua_toboolean(d->L, -1);
  lua_pop(d->L, 1);
  return is;
}

/* base, name → base:extend(name) */
static void extend_class(decoder *d) {
  lua_State *L = d->L;
  al_pushclass(L, d->ctx, AL_C_Object);
  lua_pushliteral(L, "extend");
  lua_rawget(L, -2);
  lua_insert(L, -4);
  lua_pop(L, 1);
  lua_call(L, 2, 1);
}

static void push_subclass(decoder *d, uint64_t index) {
  lua_State *L = d->L;
  const char *id = take(d, AL_ID_SIZE);
  if (++d->n_bases > AL_W_MAX_BASES) damaged(d);
  luaL_checkstack(L, SCRATCH, NULL);
  push_string(d);
  push_value(d);
  d->n_bases--;
  if (al_id_resolve(L, id)) {
    lua_replace(L, -3);
    lua_pop(L, 1);
    return;
  }
  if (!al_is_class(L, -1)) damaged(d);
  lua_insert(L, -2);
  extend_class(d);
  al_id_set(L, id);
  set_made(d, index);
}

static void push_var(decoder *d, uint64_t index) {
  lua_State *L = d->L;
  const char *id = take(d, AL_ID_SIZE);
  push_string(d);
  if (al_id_resolve(L, id)) {
    lua_remove(L, -2);
    return;
  }
  al_var_new(L, d->ctx);
  al_id_set(L, id);
  set_made(d, index);
}

static void push_new_object(decoder *d, int tag) {
  uint64_t index = d->n++;
  switch (tag) {
  case AL_W_LONG_STRING: push_string(d); break;
  case AL_W_NAMED: push_named(d); break;
  case AL_W_CLASS: push_class(d); break;
  case AL_W_BUFFER: push_buffer(d); break;
  case AL_W_REMOTE: push_remote(d); break;
  case AL_W_PURE: push_function(d, true); break;
  case AL_W_TABLE: push_table(d); break;
  case AL_W_INSTANCE: lua_createtable(d->L, 0, 4); break;
  case AL_W_ADDRESS: lua_createtable(d->L, 2, 0); break;
  case AL_W_FUNCTION: push_function(d, false); break;
  case AL_W_SUBCLASS: push_subclass(d, index); break;
  case AL_W_VAR: push_var(d, index); break;
  default: damaged(d);
  }
  set_object(d, index);
}

static void push_value(decoder *d) {
  lua_State *L = d->L;
  int tag = take_byte(d);
  switch (tag) {
  case AL_W_NIL: lua_pushnil(L); break;
  case AL_W_FALSE: lua_pushboolean(L, false); break;
  case AL_W_TRUE: lua_pushboolean(L, true); break;
  case AL_W_INTEGER: lua_pushinteger(L, take_integer(d)); break;
  case AL_W_FLOAT: push_float(d); break;
  case AL_W_NULL: lua_pushlightuserdata(L, NULL); break;
  case AL_W_STRING: push_string(d); break;
  case AL_W_GLOBALS: lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); break;
  case AL_W_REF: push_object(d, take_number(d)); break;
  default: push_new_object(d, tag);
  }
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

/* The pairs up to END, into the table on top; store false: they are read alone. */
static void read_pairs(decoder *d, bool store) {
  while (!take_end(d)) {
    push_value(d);
    push_value(d);
    if (store)
      lua_rawset(d->L, -3);
    else
      lua_pop(d->L, 2);
  }
}

static void check_table(decoder *d) {
  if (!lua_istable(d->L, -1)) damaged(d);
}

static void fill_table(decoder *d) {
  check_table(d);
  for (lua_Integer i = 1; !take_end(d); i++) {
    push_value(d);
    lua_rawseti(d->L, -2, i);
  }
  read_pairs(d, true);
}

static void fill_instance(decoder *d) {
  check_table(d);
  push_value(d);
  if (!al_is_class(d->L, -1)) damaged(d);
  lua_pushvalue(d->L, -2);
  read_pairs(d, true);
  lua_pop(d->L, 1);
  lua_setmetatable(d->L, -2);
}

static void fill_address(decoder *d) {
  check_table(d);
  read_pairs(d, true);
  al_addr_adopt(d->L);
}

/* Makes upvalue i of the function at idx that of another one. */
static void join_upvalue(decoder *d, int function, int i) {
  push_object(d, take_number(d));
  uint64_t other = take_number(d);
  if (other < 1 || other > 255 || lua_type(d->L, -1) != LUA_TFUNCTION || lua_iscfunction(d->L, -1)) damaged(d);
  if (!lua_upvalueid(d->L, -1, (int)other)) damaged(d);
  lua_upvaluejoin(d->L, function, i, -1, (int)other);
  lua_pop(d->L, 1);
}

static void fill_function(decoder *d) {
  lua_State *L = d->L;
  int function = lua_gettop(L);
  if (!lua_isfunction(L, -1) || lua_iscfunction(L, -1)) damaged(d);
  for (int i = 1; !take_end(d); i++) {
    if (!lua_upvalueid(L, function, i)) damaged(d);
    if (*d->p == AL_W_JOIN) {
      d->p++;
      join_upvalue(d, function, i);
    } else {
      push_value(d);
      lua_setupvalue(L, function, i);
    }
  }
}

static void fill_var(decoder *d, bool made) {
  if (!al_test(d->L, d->ctx, -1, AL_C_ContextVar)) damaged(d);
  int var = lua_gettop(d->L);
  if (!take_end(d)) {
    push_value(d);
    if (made)
      al_var_set_default(d->L, var);
    else
      lua_pop(d->L, 1);
  }
  if (take_end(d)) return;
  push_value(d);
  al_var_set(d->L, d->ctx, var);
}

static void fill_class(decoder *d, bool made) {
  check_table(d);
  read_pairs(d, made);
}

static void read_contents(decoder *d) {
  int tag = take_byte(d);
  uint64_t index = take_number(d);
  push_object(d, index);
  switch (tag) {
  case AL_W_TABLE: fill_table(d); break;
  case AL_W_INSTANCE: fill_instance(d); break;
  case AL_W_ADDRESS: fill_address(d); break;
  case AL_W_FUNCTION: fill_function(d); break;
  case AL_W_SUBCLASS: fill_class(d, is_made(d, index)); break;
  case AL_W_VAR: fill_var(d, is_made(d, index)); break;
  default: damaged(d);
  }
  lua_pop(d->L, 1);
}

/* ---- parcels ----------------------------------------------------------------------------------------------------- */

int al_unmarshal(lua_State *L, al_ctx *ctx, const al_parcel *parcel) {
  decoder d = {.L = L, .ctx = ctx, .parcel = parcel, .p = parcel->bytes, .end = parcel->bytes + parcel->len};
  if (take_byte(&d) != AL_WIRE_VERSION) damaged(&d);
  uint64_t n = take_number(&d);
  if (n > parcel->len || n > LUAI_MAXSTACK) damaged(&d);
  luaL_checkstack(L, (int)n + NEAR + SCRATCH, "too many values in a parcel");
  int base = lua_gettop(L);
  d.far = base + (int)n + 1;
  d.made = d.far + 1;
  d.near = d.made + 1;
  lua_settop(L, d.made + NEAR);
  for (int i = 1; i <= (int)n; i++) {
    push_value(&d);
    lua_replace(L, base + i);
  }
  while (!take_end(&d)) {
    if (take_byte(&d) != AL_W_FILL) damaged(&d);
    read_contents(&d);
  }
  lua_settop(L, base + (int)n);
  return (int)n;
}

void al_unmarshal_error(lua_State *L, al_ctx *ctx, const al_parcel *parcel, const char *where) {
  luaL_checkstack(L, SCRATCH, NULL);
  int error = lua_gettop(L) + 1;
  if (al_unmarshal(L, ctx, parcel) != 2) al_raise(L, ctx, AL_C_RuntimeError, "a parcel is damaged");
  if (lua_type(L, -1) == LUA_TSTRING) {
    if (where) {
      lua_pushfstring(L, "%s:\n", where);
      lua_insert(L, -2);
      lua_concat(L, 2);
    }
    al_settraceback(L, ctx, error);
  }
  lua_settop(L, error);
}

/* ---- as strings, for what is written in Lua ---------------------------------------------------------------------- */

static int box_gc(lua_State *L) {
  al_parcel **box = lua_touserdata(L, 1);
  al_parcel_free(*box);
  *box = NULL;
  return 0;
}

/* Pushes what frees the parcel that is put in it. */
static al_parcel **push_box(lua_State *L) {
  al_parcel **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, box_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return box;
}

/* marshal(...) → the values as a string, as they would go to another process */
static int marshal(lua_State *L) {
  int n = lua_gettop(L);
  al_parcel **box = push_box(L);
  *box = al_marshal(L, al_ctx_of(L), 1, n, 0);
  size_t len;
  const char *bytes = al_parcel_bytes(*box, &len);
  lua_pushlstring(L, bytes, len);
  return 1;
}

/* unmarshal(string) → the values */
static int unmarshal(lua_State *L) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  al_parcel **box = push_box(L);
  *box = al_parcel_from_bytes(bytes, len);
  if (!*box) return luaL_error(L, "not enough memory");
  return al_unmarshal(L, al_ctx_of(L), *box);
}

static const luaL_Reg functions[] = {{"marshal", marshal}, {"unmarshal", unmarshal}, {NULL, NULL}};

void al_marshal_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
