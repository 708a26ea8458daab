/* lclass.c - classes. All bindings make their objects through it; scripts extend them. It knows no class in
 * particular, but for which of them scripts may make instances.
 *
 * A class is a table and the metatable of its instances, be they userdata or tables. Methods of the base are found
 * through the class's own metatable; metamethods are copied from the base, for Lua looks for them in the metatable
 * alone.
 *   __base  the base class
 *   __also  a second class whose instances these are (Transport is a WriteTransport as well)
 *   __new   how a call of the class makes an instance, inherited like a method: a function called with the class and
 *           the arguments (al_new_instance makes a userdata of the class, so subclasses come for free); false: not by
 *           scripts; nil: setmetatable({}, class), then init(self, ...) if there is one
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"

#include <string.h>

static const struct {
  const char *name;
  al_class base;
} specs[AL_C_COUNT] = {
#define X(id, name, base) {name, AL_C_##base},
    AL_CLASSES(X)
#undef X
};

/* Their instances come from C alone, unless a binding gives them a __new. */
static const al_class made_by_c[] = {
    AL_C_BaseEventLoop, AL_C_Handle,          AL_C_Future,    AL_C_ContextVar, AL_C_Context,
    AL_C_Token,         AL_C_Timeout,         AL_C_Server,    AL_C_Buffer,     AL_C_Socket,
    AL_C_PipeEnd,       AL_C_TransportSocket, AL_C_SSLObject, AL_C_SSLSession, AL_C_SubprocessTransport,
    AL_C_Process,       AL_C_RemoteLoop,
};

static const al_class no_class = AL_C_COUNT;

static al_class also(al_class class) { return class == AL_C_Transport ? AL_C_WriteTransport : no_class; }

/* ---- making classes ---------------------------------------------------------------------------------------------- */

static bool is_metamethod(lua_State *L, int key) {
  if (lua_type(L, key) != LUA_TSTRING) return false;
  const char *name = lua_tostring(L, key);
  static const char *const own[] = {"__index", "__name", "__base", "__also", "__new", NULL};
  if (strncmp(name, "__", 2) != 0) return false;
  for (const char *const *o = own; *o; o++)
    if (strcmp(name, *o) == 0) return false;
  return true;
}

/* A class finds its own fields; if the base looks them up by a function, so does the subclass. */
static void copy_index(lua_State *L, int base, int class) {
  lua_pushliteral(L, "__index");
  lua_rawget(L, base);
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    lua_pushvalue(L, class);
  }
  lua_setfield(L, class, "__index");
}

static void copy_metamethods(lua_State *L, int base, int class) {
  for (lua_pushnil(L); lua_next(L, base); lua_pop(L, 1)) {
    if (!is_metamethod(L, -2)) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, class);
  }
}

/* Pushes a new class named by the string on top (popped), without a metatable of its own. base 0: none. */
static void make_class(lua_State *L, int base) {
  int class = lua_gettop(L);
  lua_createtable(L, 0, 4);
  lua_insert(L, class);
  lua_setfield(L, class, "__name");
  if (base == 0) {
    lua_pushvalue(L, class);
    lua_setfield(L, class, "__index");
    return;
  }
  lua_pushvalue(L, base);
  lua_setfield(L, class, "__base");
  copy_index(L, base, class);
  copy_metamethods(L, base, class);
}

static int class_call(lua_State *L);
static int class_tostring(lua_State *L);

/* Pushes the metatable for subclasses of base (0: for Object). */
static void push_class_metatable(lua_State *L, al_ctx *ctx, int base) {
  static const luaL_Reg functions[] = {{"__call", class_call}, {"__tostring", class_tostring}, {NULL, NULL}};
  lua_createtable(L, 0, 4);
  al_ctx_setfuncs(L, ctx, functions);
  lua_pushliteral(L, "class");
  lua_setfield(L, -2, "__name");
  if (base == 0) return;
  lua_pushvalue(L, base);
  lua_setfield(L, -2, "__index");
}

static bool is_class(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  lua_pushliteral(L, "__call");
  lua_rawget(L, -2);
  bool is = lua_tocfunction(L, -1) == class_call;
  lua_pop(L, 2);
  return is;
}

static void check_class(lua_State *L, int arg) {
  if (!is_class(L, arg)) al_typeerror(L, arg, "class");
}

/* Is the class on top (popped) the wanted one or a subclass of it? No string is made here: the keys live in the
 * classes. */
static bool descends(lua_State *L, const void *wanted) {
  while (lua_istable(L, -1)) {
    if (lua_topointer(L, -1) == wanted) break;
    lua_pushliteral(L, "__also");
    lua_rawget(L, -2);
    bool is = lua_istable(L, -1) && lua_topointer(L, -1) == wanted;
    lua_pop(L, 1);
    if (is) break;
    lua_pushliteral(L, "__base");
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  bool found = lua_istable(L, -1);
  lua_pop(L, 1);
  return found;
}

/* ---- methods of classes ------------------------------------------------------------------------------------------ */

static int call_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  return lua_gettop(L) - 1;
}

/* [1] class, [2] instance, [3]... what init returned. */
static int init_done(lua_State *L, int status, lua_KContext extra) {
  (void)status, (void)extra;
  lua_settop(L, 2);
  return 1;
}

static int class_call(lua_State *L) {
  int nargs = lua_gettop(L) - 1;
  int type = lua_getfield(L, 1, "__new");
  if (type == LUA_TFUNCTION) {
    lua_pushvalue(L, 1);
    lua_rotate(L, 2, 2);
    lua_callk(L, nargs + 1, LUA_MULTRET, 0, call_done);
    return call_done(L, LUA_OK, 0);
  }
  if (type == LUA_TBOOLEAN) {
    lua_getfield(L, 1, "__name");
    return al_raise(L, al_ctx_of(L), AL_C_RuntimeError, "a %s can't be made by calling its class", lua_tostring(L, -1));
  }
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  lua_insert(L, 2);
  if (lua_getfield(L, 1, "init") == LUA_TNIL) return init_done(L, LUA_OK, 0);
  lua_insert(L, 3);
  lua_pushvalue(L, 2);
  lua_insert(L, 4);
  lua_callk(L, nargs + 1, 0, 0, init_done);
  return init_done(L, LUA_OK, 0);
}

int al_class_lookup(lua_State *L) {
  if (!lua_getmetatable(L, 1)) return 0;
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  return 1;
}

bool al_class_is_call(lua_CFunction f) { return f == class_call; }

static int class_tostring(lua_State *L) {
  lua_pushliteral(L, "__name");
  lua_rawget(L, 1);
  const char *name = lua_tostring(L, -1);
  lua_pushfstring(L, "class '%s'", name ? name : "?");
  return 1;
}

/* Class:extend([name]) makes a subclass; without a name it has its base's. */
static int class_extend(lua_State *L) {
  check_class(L, 1);
  if (lua_isnoneornil(L, 2))
    lua_getfield(L, 1, "__name");
  else
    lua_pushstring(L, luaL_checkstring(L, 2));
  make_class(L, 1);
  push_class_metatable(L, al_ctx_of(L), 1);
  lua_setmetatable(L, -2);
  return 1;
}

static int class_isinstance(lua_State *L) {
  al_checkany(L, 1);
  check_class(L, 2);
  lua_pushboolean(L, lua_getmetatable(L, 1) && descends(L, lua_topointer(L, 2)));
  return 1;
}

/* ---- the classes that C knows ------------------------------------------------------------------------------------ */

void al_class_open(lua_State *L, al_ctx *ctx) {
  luaL_checkstack(L, AL_C_COUNT + 10, NULL);
  int first = lua_gettop(L) + 1; /* class i stands at first + i */
  for (int i = 0; i < AL_C_COUNT; i++) {
    lua_pushstring(L, specs[i].name);
    make_class(L, i == AL_C_Object ? 0 : first + (int)specs[i].base);
    if (also((al_class)i) != no_class) {
      lua_pushvalue(L, first + (int)also((al_class)i));
      lua_setfield(L, -2, "__also");
    }
    lua_pushvalue(L, -1);
    ctx->class_ptr[i] = lua_topointer(L, -1);
    ctx->class_ref[i] = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  for (size_t i = 0; i < sizeof made_by_c / sizeof *made_by_c; i++) {
    lua_pushboolean(L, false);
    lua_setfield(L, first + (int)made_by_c[i], "__new");
  }
  /* Siblings share a metatable, which is the metatable of one that comes behind its base. */
  push_class_metatable(L, ctx, 0);
  lua_setmetatable(L, first);
  for (int base = 0; base < AL_C_COUNT; base++) {
    int metatable = 0;
    for (int i = base + 1; i < AL_C_COUNT; i++) {
      if ((int)specs[i].base != base) continue;
      if (metatable == 0) {
        push_class_metatable(L, ctx, first + base);
        metatable = lua_gettop(L);
      }
      lua_pushvalue(L, metatable);
      lua_setmetatable(L, first + i);
    }
    lua_settop(L, first + AL_C_COUNT - 1);
  }
  lua_settop(L, first - 1);
  static const luaL_Reg methods[] = {{"extend", class_extend}, {NULL, NULL}};
  al_class_methods(L, ctx, AL_C_Object, methods);
}

void al_pushclass(lua_State *L, al_ctx *ctx, al_class class) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, ctx->class_ref[class]);
}

/* A function of base goes to class too: metamethods to those that inherit, all to those that are also a base. */
static bool hands_down(al_class class, al_class base, bool is_metamethod) {
  return also(class) == base || (is_metamethod && specs[class].base == base && class != base);
}

/* Gives the function on top (kept) to the subclasses of class that have none of this name or the one it replaces (at
 * old). */
static void hand_down(lua_State *L, al_ctx *ctx, al_class class, const char *name, int old) {
  int f = lua_gettop(L);
  bool is_metamethod = strncmp(name, "__", 2) == 0;
  if (!is_metamethod && class != also(AL_C_Transport)) return; /* as most: it is found by __index */
  for (int i = class + 1; i < AL_C_COUNT; i++) {
    if (!hands_down((al_class)i, class, is_metamethod)) continue;
    al_pushclass(L, ctx, (al_class)i);
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    bool inherits = lua_isnil(L, -1) || lua_rawequal(L, -1, old);
    /* __index is inherited only as a function. */
    if (strcmp(name, "__index") == 0) inherits = !lua_isfunction(L, -1) || lua_rawequal(L, -1, old);
    lua_pop(L, 1);
    if (inherits) {
      lua_pushvalue(L, f);
      lua_setfield(L, -2, name);
      lua_pushvalue(L, f);
      hand_down(L, ctx, (al_class)i, name, old);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
}

void al_class_methods(lua_State *L, al_ctx *ctx, al_class class, const luaL_Reg *functions) {
  luaL_checkstack(L, 40, NULL);
  al_pushclass(L, ctx, class);
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushstring(L, f->name);
    lua_rawget(L, -2);
    al_ctx_pushfunction(L, ctx, f->func);
    hand_down(L, ctx, class, f->name, lua_gettop(L) - 1);
    lua_setfield(L, -3, f->name);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* All classes by name, and isinstance, into the table on top. */
void al_class_openlib(lua_State *L, al_ctx *ctx) {
  static const luaL_Reg functions[] = {{"isinstance", class_isinstance}, {NULL, NULL}};
  al_ctx_setfuncs(L, ctx, functions);
  for (int i = 0; i < AL_C_COUNT; i++) {
    al_pushclass(L, ctx, (al_class)i);
    lua_setfield(L, -2, specs[i].name);
  }
}

/* ---- instances --------------------------------------------------------------------------------------------------- */

bool al_isinstance(lua_State *L, al_ctx *ctx, int idx, al_class class) {
  if (!lua_getmetatable(L, idx)) return false;
  return descends(L, ctx->class_ptr[class]);
}

void *al_test(lua_State *L, al_ctx *ctx, int arg, al_class class) {
  if (lua_type(L, arg) != LUA_TUSERDATA || !al_isinstance(L, ctx, arg, class)) return NULL;
  return lua_touserdata(L, arg);
}

void *al_check(lua_State *L, al_ctx *ctx, int arg, al_class class) {
  void *object = al_test(L, ctx, arg, class);
  if (!object) al_typeerror(L, arg, specs[class].name);
  return object;
}

void *al_new_instance(lua_State *L, int class, al_class of, size_t size, int nuv) {
  class = lua_absindex(L, class);
  lua_pushvalue(L, class);
  if (!descends(L, al_ctx_of(L)->class_ptr[of]))
    al_argerror(L, class, lua_pushfstring(L, "class %s or a subclass of it expected", specs[of].name));
  void *object = lua_newuserdatauv(L, size, nuv);
  memset(object, 0, size);
  lua_pushvalue(L, class);
  lua_setmetatable(L, -2);
  return object;
}

void *al_new(lua_State *L, al_ctx *ctx, al_class class, size_t size, int nuv) {
  void *object = lua_newuserdatauv(L, size, nuv);
  memset(object, 0, size);
  al_pushclass(L, ctx, class);
  lua_setmetatable(L, -2);
  return object;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

bool al_iscallable(lua_State *L, int idx) {
  if (lua_isfunction(L, idx)) return true;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

void al_check_callable(lua_State *L, int arg) {
  if (!al_iscallable(L, arg)) al_typeerror(L, arg, "function");
}
