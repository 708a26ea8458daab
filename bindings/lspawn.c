/* lspawn.c - loop:subprocess_exec and subprocess_shell, create_subprocess_exec and create_subprocess_shell: arguments
 * and options become what the core starts a child with; what then becomes of the child is lprocess.c's. All that the
 * core gets a pointer to stands in userdata on the stack of the function.
 *
 * SPDX-License-Identifier: MIT */
#include "lfd.h"
#include "lprocess.h"
#include "lprotocol.h"
#include "lreader.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* aloop.subprocess's numbers, which are Python's. */
enum { PIPE = -1, STDOUT = -2, DEVNULL = -3 };

static const char *const option_names[] = {
    "stdin", "stdout", "stderr", "cwd", "env", "executable", "close_fds", "pass_fds", "start_new_session",
    "process_group", "umask", "user", "group", "extra_groups", "restore_signals", "limit",
    /* refused, in asyncio's words: */
    "preexec_fn", "universal_newlines", "shell", "bufsize", "text", "encoding", "errors", NULL};

/* A call, as it is understood step by step. */
typedef struct call {
  l_op base;
  al_ctx *ctx;
  const char *f;          /* the function's name */
  bool shell, of_process; /* of_process: create_subprocess_*, else the loop's method */
  int program, options;   /* indices; options: perhaps of nothing */
  al_spawn_options o;
  size_t limit;
  l_process *p;
  int pipes[3];
} call;

/* ---- lists of strings -------------------------------------------------------------------------------------------- */

typedef struct list { /* texts in a growing userdata at idx, each with its NUL */
  int idx;
  char *text;
  size_t len, size, n;
} list;

static void list_begin(lua_State *L, list *l) {
  *l = (list){.size = 240};
  l->text = lua_newuserdatauv(L, l->size, 0);
  l->idx = lua_gettop(L);
}

static void list_add(lua_State *L, list *l, const char *text, size_t len) {
  if (l->size - l->len < len) {
    size_t size = l->size;
    while (size - l->len < len) size *= 2;
    l->text = memcpy(lua_newuserdatauv(L, size, 0), l->text, l->len);
    l->size = size;
    lua_replace(L, l->idx);
  }
  memcpy(l->text + l->len, text, len);
  l->len += len;
}

/* The pointers to the texts, ended by NULL, in a userdata that is pushed; the texts stay where they are. */
static const char *const *list_end(lua_State *L, const list *l) {
  const char **pointers = lua_newuserdatauv(L, (l->n + 1) * sizeof *pointers, 0);
  const char *text = l->text;
  for (size_t i = 0; i < l->n; i++) {
    pointers[i] = text;
    text += strlen(text) + 1;
  }
  pointers[l->n] = NULL;
  return pointers;
}

static void check_no_nul(lua_State *L, al_ctx *ctx, const char *text, size_t len) {
  if (memchr(text, '\0', len)) al_raise(L, ctx, AL_C_ValueError, "embedded null byte");
}

/* Adds the argument on top (popped), which is a string or a number. */
static void add_argument(lua_State *L, const call *c, list *l) {
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  check_no_nul(L, c->ctx, text, len);
  list_add(L, l, text, len + 1);
  l->n++;
  lua_pop(L, 1);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void add_array(lua_State *L, const call *c, list *l) {
  lua_Integer n = luaL_len(L, c->program);
  if (n < 1) al_raise(L, c->ctx, AL_C_ValueError, "the program is an empty array");
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, c->program, i);
    if (!lua_isstring(L, -1))
      al_argerror(L, c->program, lua_pushfstring(L, "string expected as item %I, got %s", i, luaL_typename(L, -1)));
    add_argument(L, c, l);
  }
}

static void add_arguments(lua_State *L, const call *c, list *l, int last) {
  for (int arg = c->program; arg <= last; arg++) {
    if (!lua_isstring(L, arg)) al_typeerror(L, arg, "string");
    lua_pushvalue(L, arg);
    add_argument(L, c, l);
  }
}

/* Where the arguments end and the options stand: last is the last argument of the call. */
static int find_options(lua_State *L, call *c, int last) {
  if (c->shell || lua_istable(L, c->program)) {
    c->options = c->program + 1;
    return c->program;
  }
  bool has = last > c->program && (lua_istable(L, last) || lua_isnil(L, last));
  c->options = has ? last : last + 1;
  return c->options - 1;
}

static void check_shell_command(lua_State *L, const call *c) {
  if (lua_type(L, c->program) != LUA_TSTRING) al_raise(L, c->ctx, AL_C_ValueError, "cmd must be a string");
}

static void read_command(lua_State *L, call *c, int last) {
  list l;
  list_begin(L, &l);
  if (c->shell) {
    const char *shell = c->o.program ? c->o.program : "/bin/sh";
    list_add(L, &l, shell, strlen(shell) + 1);
    list_add(L, &l, "-c", 3);
    l.n = 2;
    add_arguments(L, c, &l, c->program);
  } else if (lua_istable(L, c->program)) {
    add_array(L, c, &l);
  } else {
    add_arguments(L, c, &l, last);
  }
  c->o.argv = list_end(L, &l);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static int option(lua_State *L, const call *c, const char *name) { return al_option(L, c->options, name); }

static int bad_option(lua_State *L, const call *c, const char *name, const char *expected) {
  return al_option_error(L, c->f, name, expected, -1);
}

static bool flag(lua_State *L, const call *c, const char *name, bool otherwise) {
  return al_bool_option(L, c->options, c->f, name, otherwise);
}

/* The value must be absent or false (0), as in asyncio, whose words these are. */
static void check_refused(lua_State *L, const call *c, const char *name, const char *must_be) {
  option(L, c, name);
  bool zero = lua_isnumber(L, -1) && lua_tonumber(L, -1) == 0;
  if (lua_toboolean(L, -1) && !zero) al_raise(L, c->ctx, AL_C_ValueError, "%s must be %s", name, must_be);
  lua_pop(L, 1);
}

static void check_refused_options(lua_State *L, const call *c) {
  check_refused(L, c, "universal_newlines", "false");
  if (!c->shell) check_refused(L, c, "shell", "false");
  if (c->shell && !flag(L, c, "shell", true)) al_raise(L, c->ctx, AL_C_ValueError, "shell must be true");
  check_refused(L, c, "bufsize", "0");
  check_refused(L, c, "text", "false");
  check_refused(L, c, "encoding", "nil");
  check_refused(L, c, "errors", "nil");
  check_refused(L, c, "preexec_fn", "nil: no Lua runs between fork and exec");
}

/* A string option, which stays on the stack; NULL if it isn't given. */
static const char *text_option(lua_State *L, const call *c, const char *name) {
  size_t len;
  int type = option(L, c, name);
  if (type == LUA_TNIL) return NULL;
  if (type != LUA_TSTRING) bad_option(L, c, name, "string");
  const char *text = lua_tolstring(L, -1, &len);
  check_no_nul(L, c->ctx, text, len);
  return text;
}

/* Adds NAME=value of the pair on top of the stack. */
static void add_variable(lua_State *L, const call *c, list *l) {
  size_t name_len, value_len;
  if (lua_type(L, -2) != LUA_TSTRING) al_option_error(L, c->f, "env", "strings as names", -2);
  if (!lua_isstring(L, -1)) {
    const char *expected = lua_pushfstring(L, "string as value of %s", lua_tostring(L, -2));
    al_option_error(L, c->f, "env", expected, -2);
  }
  const char *name = lua_tolstring(L, -2, &name_len), *value = lua_tolstring(L, -1, &value_len);
  check_no_nul(L, c->ctx, name, name_len);
  check_no_nul(L, c->ctx, value, value_len);
  if (name_len == 0 || strchr(name, '='))
    al_raise(L, c->ctx, AL_C_ValueError, "illegal environment variable name: '%s'", name);
  list_add(L, l, name, name_len);
  list_add(L, l, "=", 1);
  list_add(L, l, value, value_len + 1);
  l->n++;
}

static void read_env(lua_State *L, call *c) {
  list l;
  if (option(L, c, "env") == LUA_TNIL) return;
  if (!lua_istable(L, -1)) bad_option(L, c, "env", "table");
  int env = lua_gettop(L);
  list_begin(L, &l);
  for (lua_pushnil(L); lua_next(L, env); lua_pop(L, 1)) add_variable(L, c, &l);
  c->o.env = list_end(L, &l);
}

/* A child expects a descriptor that blocks, as no end of a pipe or socket made by aloop does. (The other end is not
 * touched by this; one that a transport works with stays as it is.) */
static void make_blocking(const l_loop *loop, int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && flags & O_NONBLOCK && !al_fd_transport(loop->loop, fd)) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* The descriptor of the option's value on top. */
static int given_fd(lua_State *L, const call *c, const l_loop *loop) {
  int idx = lua_gettop(L);
  const luaL_Stream *file = luaL_testudata(L, idx, LUA_FILEHANDLE);
  int fd = al_check_fd(L, c->ctx, idx);
  if (file) fflush(file->f); /* what was written before goes before */
  make_blocking(loop, fd);
  return fd;
}

static int stdio_option(lua_State *L, const call *c, const l_loop *loop, int i) {
  static const char *const names[] = {"stdin", "stdout", "stderr"};
  int type = option(L, c, names[i]);
  if (type == LUA_TNIL) return c->of_process ? AL_STDIO_INHERIT : AL_STDIO_PIPE;
  if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) return AL_STDIO_INHERIT;
  if (type == LUA_TBOOLEAN || type == LUA_TSTRING) bad_option(L, c, names[i], "PIPE, DEVNULL, INHERIT or descriptor");
  lua_Integer n = type == LUA_TNUMBER ? lua_tointeger(L, -1) : 0;
  if (n == PIPE) return AL_STDIO_PIPE;
  if (n == DEVNULL) return AL_STDIO_NULL;
  if (n == STDOUT && i == 2) return AL_STDIO_OUTPUT;
  if (n == STDOUT) al_raise(L, c->ctx, AL_C_ValueError, "STDOUT can only be used for stderr");
  return given_fd(L, c, loop);
}

static int compare_ints(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  return (x > y) - (x < y);
}

/* The array of an option: pushes a userdata for its items of this size; NULL if it isn't given. */
static void *push_items(lua_State *L, const call *c, const char *name, size_t size, size_t *n) {
  int type = option(L, c, name);
  if (type == LUA_TNIL) return NULL;
  if (type != LUA_TTABLE) bad_option(L, c, name, "table");
  *n = lua_rawlen(L, -1);
  return lua_newuserdatauv(L, (*n + 1) * size, 0);
}

static void read_pass_fds(lua_State *L, call *c) {
  size_t n = 0;
  int *fds = push_items(L, c, "pass_fds", sizeof *fds, &n);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, -2, (lua_Integer)i + 1);
    fds[i] = al_check_fd(L, c->ctx, lua_gettop(L));
    lua_pop(L, 1);
  }
  if (fds) qsort(fds, n, sizeof *fds, compare_ints);
  c->o.pass_fds = fds;
  c->o.n_pass_fds = n;
}

/* ---- users and groups -------------------------------------------------------------------------------------------- */

/* The number on top, of an option of this name. */
static unsigned id_number(lua_State *L, const call *c, const char *name, const char *what) {
  int isint;
  lua_Integer n = lua_tointegerx(L, -1, &isint);
  if (!isint) bad_option(L, c, name, "integer or string");
  if (n < 0) al_raise(L, c->ctx, AL_C_ValueError, "%s ID cannot be negative, got %I", what, n);
  if (n >= UINT_MAX) al_raise(L, c->ctx, AL_C_ValueError, "%s ID is too large: %I", what, n);
  return (unsigned)n;
}

static int raise_unknown(lua_State *L, const call *c, const char *what, const char *name, int err) {
  if (err) return al_raise_os(L, c->ctx, -err, NULL, name);
  return al_raise(L, c->ctx, AL_C_LookupError, "%s '%s' not found", what, name);
}

enum { ENTRY_SIZE = 16 * 1024 }; /* of a line of /etc/passwd or /etc/group, members and all */

/* The user on top. */
static uid_t check_user(lua_State *L, const call *c) {
  if (lua_type(L, -1) != LUA_TSTRING) return id_number(L, c, "user", "User");
  const char *name = lua_tostring(L, -1);
  char text[ENTRY_SIZE];
  struct passwd entry, *found;
  int err = getpwnam_r(name, &entry, text, sizeof text, &found);
  if (!found) raise_unknown(L, c, "user", name, err);
  return entry.pw_uid;
}

/* The group on top, of an option of this name. */
static gid_t check_group(lua_State *L, const call *c, const char *option_name) {
  if (lua_type(L, -1) != LUA_TSTRING) return id_number(L, c, option_name, "Group");
  const char *name = lua_tostring(L, -1);
  char text[ENTRY_SIZE];
  struct group entry, *found;
  int err = getgrnam_r(name, &entry, text, sizeof text, &found);
  if (!found) raise_unknown(L, c, "group", name, err);
  return entry.gr_gid;
}

static void read_ids(lua_State *L, call *c) {
  c->o.set_uid = option(L, c, "user") != LUA_TNIL;
  if (c->o.set_uid) c->o.uid = check_user(L, c);
  c->o.set_gid = option(L, c, "group") != LUA_TNIL;
  if (c->o.set_gid) c->o.gid = check_group(L, c, "group");
  lua_pop(L, 2);
  gid_t *groups = push_items(L, c, "extra_groups", sizeof *groups, &c->o.n_groups);
  for (size_t i = 0; i < c->o.n_groups; i++) {
    lua_rawgeti(L, -2, (lua_Integer)i + 1);
    groups[i] = check_group(L, c, "extra_groups");
    lua_pop(L, 1);
  }
  c->o.set_groups = groups != NULL;
  c->o.groups = groups;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static void read_numbers(lua_State *L, call *c) {
  c->o.set_umask = al_option_given(L, c->options, "umask");
  c->o.umask = (mode_t)al_int_option(L, c->options, c->f, "umask", 0);
  c->o.set_pgid = al_option_given(L, c->options, "process_group");
  c->o.pgid = al_int_option(L, c->options, c->f, "process_group", 0);
  int limit = al_int_option(L, c->options, c->f, "limit", AL_STREAM_LIMIT);
  al_reader_check_limit(L, c->ctx, limit);
  c->limit = (size_t)limit;
}

/* Everything that asyncio hands to Popen. What the core is to get stays on the stack. */
static void read_options(lua_State *L, call *c, const l_loop *loop) {
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  al_options(L, c->options, c->f, option_names);
  if (!c->of_process && al_option_given(L, c->options, "limit")) al_unknown_option(L, c->f, "limit");
  if (c->shell) check_shell_command(L, c);
  check_refused_options(L, c);
  c->o = AL_SPAWN_DEFAULTS;
  read_numbers(L, c);
  c->o.keep_signals = !flag(L, c, "restore_signals", true);
  c->o.new_session = flag(L, c, "start_new_session", false);
  c->o.program = text_option(L, c, "executable");
  c->o.cwd = text_option(L, c, "cwd");
  read_env(L, c);
  read_ids(L, c);
  read_pass_fds(L, c);
  c->o.keep_fds = !flag(L, c, "close_fds", true) && c->o.n_pass_fds == 0;
  for (int i = 0; i < 3; i++) {
    c->o.stdio[i] = stdio_option(L, c, loop, i);
    lua_pop(L, 1);
  }
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

/* Pushes the interpreter that a script names in its first line, if it is that one which is missing. */
static bool push_missing_interpreter(lua_State *L, const char *path) {
  char line[256];
  FILE *file = strchr(path, '/') ? fopen(path, "re") : NULL;
  if (!file) return false;
  bool is = fgets(line, sizeof line, file) && line[0] == '#' && line[1] == '!';
  fclose(file);
  const char *name = line + 2;
  if (is) name += strspn(name, " \t");
  if (!is || strcspn(name, " \t\n") == 0) return false;
  lua_pushlstring(L, name, strcspn(name, " \t\n"));
  return access(lua_tostring(L, -1), F_OK) != 0;
}

static int raise_exec(lua_State *L, const call *c, int err) {
  const char *program = c->o.program ? c->o.program : c->o.argv[0], *text = NULL;
  if (err == -ENOENT && push_missing_interpreter(L, program))
    text = lua_pushfstring(L, "%s: interpreter '%s' of", al_strerror(err), lua_tostring(L, -1));
  return al_raise_os(L, c->ctx, err, text, program);
}

static int raise_failure(lua_State *L, const call *c, int err, const al_spawn_failure *failure) {
  static const char *const steps[] = {
      [AL_SPAWN_SESSION] = "start_new_session",
      [AL_SPAWN_PGID] = "process_group",
      [AL_SPAWN_GROUPS] = "extra_groups",
      [AL_SPAWN_GID] = "group",
      [AL_SPAWN_UID] = "user",
  };
  static const char *const stdio[] = {"stdin", "stdout", "stderr"};
  const char *why = al_strerror(err), *text;
  switch (failure->step) {
  case AL_SPAWN_FORK: return al_raise_os(L, c->ctx, err, NULL, NULL);
  case AL_SPAWN_EXEC: return raise_exec(L, c, err);
  case AL_SPAWN_CWD: return al_raise_os(L, c->ctx, err, NULL, c->o.cwd);
  case AL_SPAWN_STDIO: text = lua_pushfstring(L, "%s: %s", why, stdio[failure->fd]); break;
  case AL_SPAWN_PASS_FDS: text = lua_pushfstring(L, "%s: pass_fds %d", why, failure->fd); break;
  default: text = lua_pushfstring(L, "%s: %s", why, steps[failure->step]); break;
  }
  return al_raise_os(L, c->ctx, err, text, NULL);
}

/* What an error on the way leaves. */
static void dispose(l_op *op) {
  call *c = (call *)(void *)op;
  for (int i = 0; i < 3; i++) {
    if (c->pipes[i] >= 0) close(c->pipes[i]);
    c->pipes[i] = -1;
  }
  if (c->p) al_process_give_up(c->p);
  c->p = NULL;
}

/* The call stands at idx. Makes the transport, the child, and the transports of its pipes; then waits. */
static int start(lua_State *L, call *c, int idx, l_loop *loop, int factory) {
  al_spawn_failure failure;
  lua_toclose(L, idx);
  if (factory) al_protocol_make(L, factory);
  c->p = al_process_new(L, c->ctx, loop, factory ? lua_gettop(L) : 0);
  int box = lua_gettop(L);
  int err = al_process_spawn(loop->loop, &c->o, &al_process_callbacks, c->p, &c->p->process, c->pipes, &failure);
  if (err) return raise_failure(L, c, err, &failure);
  al_process_begin(L, c->p, box, c->pipes, c->limit);
  l_process *p = c->p;
  c->p = NULL; /* on its own from now on */
  return al_process_wait_begun(L, p);
}

static call *push_call(lua_State *L, al_ctx *ctx, const call *model) {
  call *c = al_op_new(L, ctx, sizeof *c, dispose);
  l_op base = c->base;
  *c = *model;
  c->base = base;
  c->ctx = ctx;
  for (int i = 0; i < 3; i++) c->pipes[i] = -1;
  return c;
}

static int spawn(lua_State *L, l_loop *loop, int factory, call *model) {
  luaL_checkstack(L, 3 * LUA_MINSTACK, NULL);
  if (lua_isnone(L, model->program)) al_typeerror(L, model->program, "string");
  int last = find_options(L, model, lua_gettop(L));
  if (model->options > lua_gettop(L)) lua_settop(L, model->options); /* nil */
  call *c = push_call(L, al_ctx_of(L), model);
  int idx = lua_gettop(L);
  read_options(L, c, loop);
  read_command(L, c, last);
  return start(L, c, idx, loop, factory);
}

/* (loop, factory, program, ...) */
static int spawn_for_factory(lua_State *L, call *model) {
  l_loop *loop = al_check_waiting_loop(L, al_ctx_of(L), model->f);
  al_check_callable(L, 2);
  return spawn(L, loop, 2, model);
}

/* (program, ...) */
static int spawn_process(lua_State *L, call *model) {
  l_loop *loop = al_check_wait(L, al_ctx_of(L), model->f)->f.loop;
  return spawn(L, loop, 0, model);
}

static int loop_subprocess_exec(lua_State *L) {
  return spawn_for_factory(L, &(call){.f = "subprocess_exec", .program = 3});
}

static int loop_subprocess_shell(lua_State *L) {
  return spawn_for_factory(L, &(call){.f = "subprocess_shell", .program = 3, .shell = true});
}

static int create_subprocess_exec(lua_State *L) {
  return spawn_process(L, &(call){.f = "create_subprocess_exec", .program = 1, .of_process = true});
}

static int create_subprocess_shell(lua_State *L) {
  return spawn_process(L, &(call){.f = "create_subprocess_shell", .program = 1, .shell = true, .of_process = true});
}

static const luaL_Reg loop_methods[] = {
    {"subprocess_exec", loop_subprocess_exec}, {"subprocess_shell", loop_subprocess_shell}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"create_subprocess_exec", create_subprocess_exec},
                                     {"create_subprocess_shell", create_subprocess_shell},
                                     {NULL, NULL}};

void al_spawn_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_BaseEventLoop, loop_methods);
  al_ctx_setfuncs(L, ctx, functions);
}
