/* lerror.c - error objects: tables whose metatable is their class. All bindings raise through it, scripts make their
 * own; how an uncaught one is written out is told here too. Who takes an error, and its traceback, are call.c's
 * matter.
 *
 * Fields: message, traceback, cause; of OSError errno, code, filename. The constructors are the classes' init
 * methods.
 *
 * SPDX-License-Identifier: MIT */
#include "ctx.h"
#include "lloop.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

/* ---- which class an errno has, as in Python ---------------------------------------------------------------------- */

static const struct {
  int number;
  al_class class;
} errno_classes[] = {
    {EAGAIN, AL_C_BlockingIOError},
    {EALREADY, AL_C_BlockingIOError},
    {EINPROGRESS, AL_C_BlockingIOError},
    {ECHILD, AL_C_ChildProcessError},
    {EPIPE, AL_C_BrokenPipeError},
    {ESHUTDOWN, AL_C_BrokenPipeError},
    {ECONNABORTED, AL_C_ConnectionAbortedError},
    {ECONNREFUSED, AL_C_ConnectionRefusedError},
    {ECONNRESET, AL_C_ConnectionResetError},
    {EEXIST, AL_C_FileExistsError},
    {ENOENT, AL_C_FileNotFoundError},
    {EINTR, AL_C_InterruptedError},
    {EISDIR, AL_C_IsADirectoryError},
    {ENOTDIR, AL_C_NotADirectoryError},
    {EACCES, AL_C_PermissionError},
    {EPERM, AL_C_PermissionError},
    {ESRCH, AL_C_ProcessLookupError},
    {ETIMEDOUT, AL_C_TimeoutError},
};

static al_class class_of_errno(int number) {
  for (size_t i = 0; i < sizeof errno_classes / sizeof *errno_classes; i++)
    if (errno_classes[i].number == number) return errno_classes[i].class;
  return AL_C_OSError;
}

/* What the loop itself refuses. */
static al_class class_of_own(int err) {
  switch (err) {
  case AL_ENORING: return AL_C_NotImplementedError;
  case AL_EFDRANGE: return AL_C_ValueError;
  case AL_ETLS: return AL_C_SSLError;
  case AL_ETLSVERIFY: return AL_C_SSLCertVerificationError;
  case AL_ETLSEOF: return AL_C_SSLEOFError;
  case AL_ETLSZERO: return AL_C_SSLZeroReturnError;
  case AL_ETLSSLOW: return AL_C_ConnectionAbortedError;
  case AL_ETLSSTUCK: return AL_C_TimeoutError;
  default: return AL_C_RuntimeError;
  }
}

/* ---- errors made by C -------------------------------------------------------------------------------------------- */

/* Pushes an error object with the message on top (popped). */
static void push_with_message(lua_State *L, al_ctx *ctx, al_class class) {
  lua_createtable(L, 0, 4);
  lua_insert(L, -2);
  lua_setfield(L, -2, "message");
  al_pushclass(L, ctx, class);
  lua_setmetatable(L, -2);
}

static void push_formatted(lua_State *L, al_ctx *ctx, al_class class, const char *format, va_list args) {
  if (format)
    lua_pushvfstring(L, format, args);
  else
    lua_pushnil(L);
  push_with_message(L, ctx, class);
}

void al_pusherror(lua_State *L, al_ctx *ctx, al_class class, const char *format, ...) {
  va_list args;
  va_start(args, format);
  push_formatted(L, ctx, class, format, args);
  va_end(args);
}

int al_raise(lua_State *L, al_ctx *ctx, al_class class, const char *format, ...) {
  va_list args;
  va_start(args, format);
  push_formatted(L, ctx, class, format, args);
  va_end(args);
  return lua_error(L);
}

static bool is_os_error(int err) { return (err < 0 && err >= -4095) || AL_IS_EAI(err); }

/* Sets errno, code (if it is known), filename of the OSError at idx. err: as the core has it. */
static void set_os_fields(lua_State *L, int idx, int err, const char *filename) {
  lua_pushinteger(L, AL_IS_EAI(err) ? err - AL_EEAI : -err);
  lua_setfield(L, idx, "errno");
  if (is_os_error(err) && *al_err_name(err) == 'E' && al_err_name(err)[1] != '?') {
    lua_pushstring(L, al_err_name(err));
    lua_setfield(L, idx, "code");
  }
  if (!filename) return;
  lua_pushstring(L, filename);
  lua_setfield(L, idx, "filename");
}

/* "No such file or directory: '/tmp/x'" */
static void push_os_message(lua_State *L, int err, const char *message, const char *filename) {
  if (!message) message = al_strerror(err);
  if (filename) {
    lua_pushfstring(L, "%s: '%s'", message, filename);
  } else {
    lua_pushstring(L, message);
  }
}

void al_pushoserror(lua_State *L, al_ctx *ctx, int err, const char *message, const char *filename) {
  push_os_message(L, err, message, filename);
  if (!is_os_error(err)) {
    push_with_message(L, ctx, class_of_own(err));
    return;
  }
  push_with_message(L, ctx, AL_IS_EAI(err) ? AL_C_gaierror : class_of_errno(-err));
  set_os_fields(L, lua_gettop(L), err, filename);
}

int al_raise_os(lua_State *L, al_ctx *ctx, int err, const char *message, const char *filename) {
  al_pushoserror(L, ctx, err, message, filename);
  return lua_error(L);
}

bool al_isinterrupt(lua_State *L, al_ctx *ctx, int idx) {
  return lua_istable(L, idx) &&
         (al_isinstance(L, ctx, idx, AL_C_KeyboardInterrupt) || al_isinstance(L, ctx, idx, AL_C_SystemExit));
}

/* ---- errors made by scripts: init(self, ...) --------------------------------------------------------------------- */

/* As luaL_typeerror, but an init is called by its class, of whose name and caller Lua knows nothing. */
static void bad_argument(lua_State *L, int arg, const char *expected) {
  al_where(L);
  luaL_getmetafield(L, 1, "__name");
  lua_pushfstring(L, "%sbad argument #%d to '%s' (%s expected, got %s)", lua_tostring(L, -2), arg - 1,
                  lua_tostring(L, -1), expected, lua_isnone(L, arg) ? "no value" : luaL_typename(L, arg));
  lua_error(L);
}

static void check_self(lua_State *L) {
  if (!lua_istable(L, 1) || !al_isinstance(L, al_ctx_of(L), 1, AL_C_BaseError)) al_typeerror(L, 1, "BaseError");
}

/* {cause = e} at arg, and what all constructors do last. */
static int init_end(lua_State *L, int arg) {
  if (!lua_isnoneornil(L, arg)) {
    static const char *const names[] = {"cause", NULL};
    if (!lua_istable(L, arg)) bad_argument(L, arg, "table");
    luaL_getmetafield(L, 1, "__name");
    al_options(L, arg, lua_tostring(L, -1), names);
    al_option(L, arg, "cause");
    lua_setfield(L, 1, "cause");
  }
  al_ctx *ctx = al_ctx_of(L);
  if (ctx->running && al_loop_debug(ctx->running->loop)) {
    luaL_traceback(L, L, NULL, 2);
    lua_setfield(L, 1, "traceback");
  }
  return 0;
}

/* Class([message], [{cause}]) */
static int base_init(lua_State *L) {
  check_self(L);
  lua_settop(L, 3);
  lua_pushvalue(L, 2);
  lua_setfield(L, 1, "message");
  return init_end(L, 3);
}

/* OSError(errno, [message], [filename], [{cause}]) picks its subclass by errno; or as other errors. gaierror's errno
 * is an EAI_ number. */
static int os_init(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return base_init(L);
  check_self(L);
  lua_settop(L, 5);
  al_ctx *ctx = al_ctx_of(L);
  int isint;
  lua_Integer given = lua_tointegerx(L, 2, &isint);
  bool is_gai = al_isinstance(L, ctx, 1, AL_C_gaierror);
  int limit = is_gai ? 999 : INT_MAX, number = (int)given; /* as far as AL_EAI goes */
  if (!isint) bad_argument(L, 2, "integer");
  if (given < -limit || given > limit) al_raise(L, ctx, AL_C_ValueError, "errno %I is out of range", given);
  if (!lua_isnil(L, 3) && !lua_isstring(L, 3)) bad_argument(L, 3, "string");
  if (!lua_isnil(L, 4) && !lua_isstring(L, 4)) bad_argument(L, 4, "string");
  int err = is_gai ? AL_EAI(number) : -number;
  const char *filename = lua_tostring(L, 4);
  push_os_message(L, err, lua_tostring(L, 3), filename);
  lua_setfield(L, 1, "message");
  set_os_fields(L, 1, err, filename);
  if (lua_getmetatable(L, 1) && lua_topointer(L, -1) == ctx->class_ptr[AL_C_OSError]) {
    al_pushclass(L, ctx, class_of_errno(number));
    lua_setmetatable(L, 1);
  }
  return init_end(L, 5);
}

/* SystemExit([code]): a number, or a boolean as os.exit has it, or a message for stderr. */
static int exit_init(lua_State *L) {
  check_self(L);
  lua_settop(L, 3);
  lua_pushvalue(L, 2);
  lua_setfield(L, 1, "code");
  if (!lua_isnil(L, 2)) {
    luaL_tolstring(L, 2, NULL);
    lua_setfield(L, 1, "message");
  }
  return init_end(L, 3);
}

/* IncompleteReadError(partial, expected) */
static int incomplete_init(lua_State *L) {
  check_self(L);
  lua_settop(L, 4);
  if (lua_type(L, 2) != LUA_TSTRING) bad_argument(L, 2, "string");
  lua_Integer got = (lua_Integer)lua_rawlen(L, 2), expected;
  if (lua_isnil(L, 3)) {
    lua_pushfstring(L, "%I bytes read on a total of undefined expected bytes", got);
  } else {
    if (!al_isinteger(L, 3, &expected)) bad_argument(L, 3, "integer");
    lua_pushinteger(L, expected);
    lua_setfield(L, 1, "expected");
    lua_pushfstring(L, "%I bytes read on a total of %I expected bytes", got, expected);
  }
  lua_pushvalue(L, 2);
  lua_setfield(L, 1, "partial");
  lua_setfield(L, 1, "message");
  return init_end(L, 4);
}

/* LimitOverrunError(message, consumed) */
static int overrun_init(lua_State *L) {
  check_self(L);
  lua_settop(L, 4);
  lua_Integer consumed;
  if (!al_isinteger(L, 3, &consumed)) bad_argument(L, 3, "integer");
  lua_pushvalue(L, 2);
  lua_setfield(L, 1, "message");
  lua_pushinteger(L, consumed);
  lua_setfield(L, 1, "consumed");
  return init_end(L, 4);
}

/* ExceptionGroup(message, exceptions) */
static int group_init(lua_State *L) {
  check_self(L);
  lua_settop(L, 4);
  if (!lua_isstring(L, 2)) bad_argument(L, 2, "string");
  if (!lua_istable(L, 3)) bad_argument(L, 3, "table");
  lua_Integer n = luaL_len(L, 3);
  if (n == 0) al_raise(L, al_ctx_of(L), AL_C_ValueError, "an ExceptionGroup needs at least one exception");
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, 3, i);
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, 1, "exceptions");
  lua_pushvalue(L, 2);
  lua_setfield(L, 1, "message");
  return init_end(L, 4);
}

/* ---- as text ----------------------------------------------------------------------------------------------------- */

/* Class: message, or the class alone. */
static int base_tostring(lua_State *L) {
  check_self(L);
  lua_settop(L, 1);
  luaL_getmetafield(L, 1, "__name");
  lua_getfield(L, 1, "message");
  if (lua_isnil(L, 3) || (lua_type(L, 3) == LUA_TSTRING && lua_rawlen(L, 3) == 0)) {
    lua_settop(L, 2);
    return 1;
  }
  lua_pushfstring(L, "%s: %s", lua_tostring(L, 2), luaL_tolstring(L, 3, NULL));
  return 1;
}

/* Appends the text on top (popped) to the one below it, each line after its first behind two blanks. */
static void append_indented(lua_State *L) {
  luaL_gsub(L, lua_tostring(L, -1), "\n", "\n  ");
  lua_remove(L, -2);
  lua_concat(L, 2);
}

/* Appends a list item's head, "\n  [1] ", to the text on top. */
static void append_item(lua_State *L, lua_Integer i) {
  lua_pushfstring(L, "\n  [%I] ", i);
  lua_concat(L, 2);
}

/* The class and message, and below it a line for each member: "  [1] ValueError: x". */
static int group_tostring(lua_State *L) {
  base_tostring(L);
  lua_getfield(L, 1, "exceptions");
  lua_insert(L, 2);
  lua_Integer n = lua_istable(L, 2) ? luaL_len(L, 2) : 0;
  for (lua_Integer i = 1; i <= n; i++) {
    append_item(L, i);
    lua_geti(L, 2, i);
    luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
    append_indented(L);
  }
  return 1;
}

/* Calls the function on top (popped) to make a text of the value at idx, and pushes that. */
static void call_for_text(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  lua_pushvalue(L, idx);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  if (luaL_getmetafield(L, idx, "__name") == LUA_TNIL) lua_pushnil(L);
  const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, idx);
  const char *why = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
  lua_pushfstring(L, "<%s whose __tostring failed%s%s>", name, why ? ": " : "", why ? why : "");
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static int text_body(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

void al_push_text(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  lua_pushcfunction(L, text_body);
  call_for_text(L, idx);
}

enum { MAX_CHAIN = 16 }; /* causes of causes, groups in groups: more is a circle */

/* Pushes what the value at idx says of itself, without members. */
static void push_head(lua_State *L, al_ctx *ctx, int idx, bool is_group) {
  int top = lua_gettop(L);
  if (is_group) {
    al_ctx_pushfunction(L, ctx, base_tostring);
    call_for_text(L, idx);
  } else if (lua_isstring(L, idx) || luaL_getmetafield(L, idx, "__tostring") != LUA_TNIL) {
    al_push_text(L, idx);
  } else {
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, idx));
  }
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

static void push_text(lua_State *L, al_ctx *ctx, int idx, int depth);

/* Appends the members of the group at idx, each whole, to the text on top. */
static void append_members(lua_State *L, al_ctx *ctx, int idx, int depth) {
  lua_getfield(L, idx, "exceptions");
  lua_insert(L, -2);
  int members = lua_gettop(L) - 1;
  lua_Integer n = lua_istable(L, members) ? luaL_len(L, members) : 0;
  for (lua_Integer i = 1; i <= n; i++) {
    append_item(L, i);
    lua_geti(L, members, i);
    push_text(L, ctx, -1, depth + 1);
    lua_remove(L, -2);
    append_indented(L);
  }
  lua_remove(L, members);
}

static void append_cause(lua_State *L, al_ctx *ctx, int idx, int depth) {
  if (lua_getfield(L, idx, "cause") == LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  lua_pushliteral(L, "\ncaused by: ");
  lua_insert(L, -2);
  push_text(L, ctx, -1, depth + 1);
  lua_remove(L, -2);
  lua_concat(L, 3);
}

static void push_text(lua_State *L, al_ctx *ctx, int idx, int depth) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 10, NULL);
  if (depth > MAX_CHAIN) {
    lua_pushliteral(L, "...");
    return;
  }
  bool is_error = lua_istable(L, idx) && al_isinstance(L, ctx, idx, AL_C_BaseError);
  bool is_group = is_error && al_isinstance(L, ctx, idx, AL_C_ExceptionGroup);
  push_head(L, ctx, idx, is_group);
  lua_pushliteral(L, "\n");
  al_pushtraceback(L, ctx, idx);
  if (lua_isstring(L, -1)) {
    lua_concat(L, 3);
  } else {
    lua_pop(L, 2);
  }
  if (is_group) append_members(L, ctx, idx, depth);
  if (is_error) append_cause(L, ctx, idx, depth);
}

void al_pusherrortext(lua_State *L, al_ctx *ctx, int idx) { push_text(L, ctx, idx, 0); }

/* errortext(e) */
static int error_text(lua_State *L) {
  luaL_checkany(L, 1);
  push_text(L, al_ctx_of(L), 1, 0);
  return 1;
}

static int traceback_of(lua_State *L) {
  luaL_checkany(L, 1);
  al_pushtraceback(L, al_ctx_of(L), 1);
  return 1;
}

/* last_traceback() → the value that was raised last, and its traceback; nothing, if that was an aloop error */
static int last_traceback(lua_State *L) { return al_pushlasttraceback(L, al_ctx_of(L)) ? 2 : 0; }

/* set_traceback(value, traceback) */
static int set_traceback(lua_State *L) {
  lua_settop(L, 2);
  al_settraceback(L, al_ctx_of(L), 1);
  return 0;
}

/* ---- the classes' methods ---------------------------------------------------------------------------------------- */

static const luaL_Reg base_methods[] = {{"init", base_init}, {"__tostring", base_tostring}, {NULL, NULL}};
static const luaL_Reg exit_methods[] = {{"init", exit_init}, {NULL, NULL}};
static const luaL_Reg os_methods[] = {{"init", os_init}, {NULL, NULL}};
static const luaL_Reg incomplete_methods[] = {{"init", incomplete_init}, {NULL, NULL}};
static const luaL_Reg overrun_methods[] = {{"init", overrun_init}, {NULL, NULL}};
static const luaL_Reg group_methods[] = {{"init", group_init}, {"__tostring", group_tostring}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"errortext", error_text},        {"add_traceback", al_traceback},
                                     {"traceback_of", traceback_of},   {"last_traceback", last_traceback},
                                     {"set_traceback", set_traceback}, {NULL, NULL}};

void al_error_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseError, base_methods);
  al_class_methods(L, ctx, AL_C_SystemExit, exit_methods);
  al_class_methods(L, ctx, AL_C_OSError, os_methods);
  al_class_methods(L, ctx, AL_C_IncompleteReadError, incomplete_methods);
  al_class_methods(L, ctx, AL_C_LimitOverrunError, overrun_methods);
  al_class_methods(L, ctx, AL_C_ExceptionGroup, group_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
