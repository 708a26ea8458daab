/* main.c - the interpreter: `lua` with a main chunk that is a task. Options are those of lua 5.4 and -X; all that
 * they ask to run (LUA_INIT, -e, -l, the script, the prompt) runs in one main task, in order, so that any of it may
 * wait.
 *
 * What is the process's to decide is decided here and nowhere else: SIGPIPE, SIGINT, SIGQUIT, the exit status.
 *
 * SPDX-License-Identifier: MIT */
#include "aloop_lua.h"
#include "lalloc.h"
#include "lprocpool.h"
#include "lps.h"
#include "lquery.h"
#include "lsigint.h"
#include "ltask.h"
#include "lwatchdog.h"
#include "module.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* By how many percent the memory in use has grown when young objects are collected, where Lua has 20. Each time all
 * threads, and so all tasks, are visited: with hundreds of thousands of tasks that saves about a twentieth. */
enum { MINOR_GROWTH = 30 };

/* ---- the command line -------------------------------------------------------------------------------------------- */

typedef struct run {
  int argc;
  char **argv;
  int script;                                         /* index of the script's name; argc: none */
  bool runs, interactive, version, help, no_env, dev; /* runs: there is a -e */
  bool leaves;                                        /* nothing is run: only asked for --help or --version */
  char problem[128];                                  /* what is wrong with the options */
  const char *machine;                                /* -X selector, -X proactor */
  bool debug;
  double watchdog_s; /* 0: none */

  /* where the main task is */
  enum { AT_INIT, AT_OPTIONS, AT_SCRIPT, AT_PROMPT, AT_END } at;
  int option;          /* AT_OPTIONS: the next of argv */
  const char *library; /* the global for what `require` returns, or NULL */
  bool unloaded;       /* a chunk could not be loaded: its message needs no traceback */
  int status;          /* the exit status */
} run;

static const char usage[] = "usage: aloop [options] [script [args]]\n"
                            "       aloop ps PID | aloop pstree PID\n"
                            "Available options are:\n"
                            "  -e stat   execute string 'stat'\n"
                            "  -i        enter interactive mode after executing 'script'\n"
                            "  -l mod    require library 'mod' into global 'mod'\n"
                            "  -l g=mod  require library 'mod' into global 'g'\n"
                            "  -v        show version information\n"
                            "  -E        ignore environment variables\n"
                            "  -W        turn warnings on\n"
                            "  -X debug  run loops in debug mode (dev: with warnings on)\n"
                            "  -X selector=epoll|poll|select\n"
                            "            choose how the loop waits\n"
                            "  -X proactor\n"
                            "            use the completion-based loop (io_uring)\n"
                            "  -X watchdog=SECONDS\n"
                            "            tell on stderr where Lua is when it keeps the loop waiting so long\n"
                            "  --        stop handling options\n"
                            "  -         stop handling options and execute stdin\n"
                            "  --help    show this and exit\n"
                            "  --version show version information and exit\n"
                            "  ps PID    list the tasks of a running aloop, and what each waits for\n"
                            "  pstree PID\n"
                            "            show who waits for whom; SIGQUIT has a process write that to stderr\n";

/* What --help tells besides; wrong options get the usage alone. */
static const char more_help[] = "Environment variables:\n"
                                "  LUA_INIT, LUA_PATH, LUA_CPATH (and those with _5_4)\n"
                                "            as for lua; -E ignores them, and the next three\n"
                                "  ALOOPDEBUG      not empty: -X debug\n"
                                "  ALOOP_LUADIR    take aloop's Lua files from below this directory\n"
                                "  SSLKEYLOGFILE   append the secrets of TLS connections, for wireshark\n"
                                "  ALOOP_HISTORY   history of the prompt (~/.aloop_history; empty: none)\n"
                                "  ALOOP_EDIT      library that edits the prompt's lines (empty: none)\n"
                                "  ALOOP_PS_TIMEOUT\n"
                                "            seconds for which ps and pstree wait for the answer\n"
                                "The exit status is 1 after an error and 130 after an interrupt.\n";

static bool __attribute__((format(printf, 2, 3))) bad(run *r, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(r->problem, sizeof r->problem, format, args);
  va_end(args);
  return false;
}

static bool parse_watchdog(run *r, const char *text) {
  char *end;
  double seconds = strtod(text, &end);
  if (*text == '\0' || *end != '\0' || !isfinite(seconds) || seconds < 0.001 || seconds > 1e6)
    return bad(r, "bad time for the watchdog: '%s'", text);
  r->watchdog_s = seconds;
  return true;
}

static bool parse_x(run *r, const char *value) {
  static const char *const machines[] = {"epoll", "poll", "select", NULL};
  if (strcmp(value, "debug") == 0) return r->debug = true;
  if (strcmp(value, "dev") == 0) return r->debug = r->dev = true;
  if (strcmp(value, "proactor") == 0) return (r->machine = "uring") != NULL;
  if (strncmp(value, "watchdog=", 9) == 0) return parse_watchdog(r, value + 9);
  if (strncmp(value, "selector=", 9) != 0) return bad(r, "unrecognized option '-X %s'", value);
  for (const char *const *name = machines; *name; name++)
    if (strcmp(value + 9, *name) == 0) return (r->machine = *name) != NULL;
  return bad(r, "unknown selector '%s'", value + 9);
}

/* The value of an option that may stand in the same argument or in the next. */
static const char *value_of(run *r, int *i) {
  if (r->argv[*i][2] != '\0') return r->argv[*i] + 2;
  const char *next = r->argv[*i + 1];
  if (!next || next[0] == '-') return NULL;
  ++*i;
  return next;
}

/* One option; false if it is wrong. */
static bool parse_option(run *r, int *i) {
  const char *option = r->argv[*i], *value;
  bool alone = option[2] == '\0';
  switch (option[1]) {
  case 'E': r->no_env = true; break;
  case 'i': r->interactive = true; break;
  case 'v': r->version = true; break;
  case 'W': break;
  case 'e':
  case 'l':
    if (!value_of(r, i)) return bad(r, "'%s' needs argument", option);
    r->runs = r->runs || option[1] == 'e';
    return true;
  case 'X': value = value_of(r, i); return value ? parse_x(r, value) : bad(r, "'%s' needs argument", option);
  default: alone = false;
  }
  return alone || bad(r, "unrecognized option '%s'", option);
}

/* Finds what is to be done, and the script; false if an option is wrong. */
static bool parse(run *r) {
  int i = 1;
  for (; i < r->argc && r->argv[i][0] == '-' && r->argv[i][1] != '\0'; i++) {
    const char *option = r->argv[i];
    if (strcmp(option, "--") == 0) {
      i++;
      break;
    }
    if (strcmp(option, "--help") == 0) return r->help = r->leaves = true;
    if (strcmp(option, "--version") == 0) return r->version = r->leaves = true;
    if (!parse_option(r, &i)) return false;
  }
  r->script = i;
  return true;
}

/* The global `arg`: the script at 0, its arguments from 1 on, what stands before it below 0. */
static void make_arg(lua_State *L, const run *r) {
  int script = r->script < r->argc ? r->script : 0;
  lua_createtable(L, r->argc - script, script + 1);
  for (int i = 0; i < r->argc; i++) {
    lua_pushstring(L, r->argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* ---- what the main task runs ------------------------------------------------------------------------------------- */

/* After loading: the chunk on top, or an error raised. */
static int loaded(lua_State *L, run *r, int status) {
  if (status == LUA_OK) return 0;
  r->unloaded = true;
  return lua_error(L);
}

/* LUA_INIT_5_4 or LUA_INIT: code, or @file. */
static int push_init(lua_State *L, run *r) {
  if (r->no_env) return -1;
  const char *name = "LUA_INIT_" LUA_VERSION_MAJOR "_" LUA_VERSION_MINOR, *init = getenv(name);
  if (!init) init = getenv(name = "LUA_INIT");
  if (!init) return -1;
  if (init[0] == '@') return loaded(L, r, luaL_loadfile(L, init + 1));
  lua_pushfstring(L, "=%s", name);
  int status = luaL_loadbuffer(L, init, strlen(init), lua_tostring(L, -1));
  lua_remove(L, -2);
  return loaded(L, r, status);
}

/* `mod` or `global=mod`; a version behind a hyphen in mod is not part of the global's name. */
static int push_library(lua_State *L, run *r, const char *text) {
  const char *equals = strchr(text, '='), *mod = equals ? equals + 1 : text;
  size_t len = equals ? (size_t)(equals - text) : strcspn(text, "-");
  lua_pushlstring(L, text, len);
  r->library = lua_tostring(L, -1); /* stays on the stack until require has returned */
  lua_getglobal(L, "require");
  lua_pushstring(L, mod);
  return 1;
}

static int push_option(lua_State *L, run *r) {
  while (r->option < r->script) {
    const char *option = r->argv[r->option];
    if (option[0] == '-' && strchr("elX", option[1]) && option[1] != '\0') {
      const char *value = value_of(r, &r->option);
      r->option++;
      if (option[1] == 'l') return push_library(L, r, value);
      if (option[1] == 'e') return loaded(L, r, luaL_loadbuffer(L, value, strlen(value), "=(command line)"));
      continue;
    }
    if (strcmp(option, "-W") == 0) lua_warning(L, "@on", 0);
    r->option++;
  }
  return -1;
}

/* The script with its arguments as `arg` has them now. */
static int push_script(lua_State *L, run *r) {
  const char *path = NULL;
  if (r->script < r->argc) {
    path = r->argv[r->script];
    if (strcmp(path, "-") == 0 && strcmp(r->argv[r->script - 1], "--") != 0) path = NULL;
  } else if (r->runs || r->version || r->interactive || isatty(STDIN_FILENO)) {
    return -1;
  }
  loaded(L, r, luaL_loadfile(L, path));
  if (r->script >= r->argc) return 0;
  if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
  int arg = lua_gettop(L);
  lua_Integer n = luaL_len(L, arg);
  luaL_checkstack(L, (int)n + 3, "too many arguments to script");
  for (lua_Integer i = 1; i <= n; i++) lua_rawgeti(L, arg, i);
  lua_remove(L, arg);
  return (int)n;
}

static void print_version(void) {
  puts("aloop " AL_VERSION ", " LUA_COPYRIGHT);
  fflush(stdout);
}

static int push_prompt(lua_State *L, run *r) {
  bool idle = r->script >= r->argc && !r->runs && !r->version && isatty(STDIN_FILENO);
  if (!r->interactive && !idle) return -1;
  if (!r->interactive) print_version();
  lua_getglobal(L, "aloop"); /* at hand, as asyncio is at its prompt */
  if (lua_isnil(L, -1)) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "aloop");
    lua_call(L, 1, 1);
    lua_setglobal(L, "aloop");
  }
  lua_settop(L, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "aloop.repl");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "run");
  lua_remove(L, -2);
  return 0;
}

/* Pushes the next function and its arguments; their number, or -1 if there is nothing left. */
static int push_next(lua_State *L, run *r) {
  static int (*const pushers[])(lua_State *, run *) = {push_init, push_option, push_script, push_prompt};
  while (r->at != AT_END) {
    int nargs = pushers[r->at](L, r);
    if (r->at != AT_OPTIONS || nargs < 0) r->at++;
    if (nargs >= 0) return nargs;
  }
  return -1;
}

/* The main task's function; it is its own continuation. */
static int run_all(lua_State *L, int status, lua_KContext kctx) {
  (void)status;
  run *r = (run *)kctx;
  for (;;) {
    if (r->library) lua_setglobal(L, r->library);
    r->library = NULL;
    lua_settop(L, 0);
    int nargs = push_next(L, r);
    if (nargs < 0) return 0;
    lua_callk(L, nargs, r->library ? 1 : 0, kctx, run_all);
  }
}

static int main_chunk(lua_State *L) { return run_all(L, LUA_OK, (lua_KContext)lua_touserdata(L, lua_upvalueindex(1))); }

/* ---- SIGINT, SIGPIPE, loops -------------------------------------------------------------------------------------- */

/* The first SIGINT while the main task's loop runs cancels it (true); any other interrupts what runs. */
static int on_sigint(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *task = al_main_task(ctx);
  bool turning = task && ctx->running && ctx->running == task->f.loop && task->f.state == AL_FUTURE_PENDING;
  if (lua_tointeger(L, 1) != 1 || !turning) return 0;
  al_task_pushself(L, ctx, task);
  lua_pushnil(L);
  lua_pushboolean(L, al_task_cancel(L, ctx, -2));
  return 1;
}

static void set_up_loops(lua_State *L, al_ctx *ctx, const run *r) {
  if (r->debug) ctx->debug = true;
  al_module_pushcore(L);
  lua_pushstring(L, r->machine);
  lua_setfield(L, -2, "default_machine");
  lua_pop(L, 1);
}

static void start_watchdog(al_ctx *ctx, const run *r) {
  int err = r->watchdog_s > 0 ? al_watchdog_start(ctx, r->watchdog_s) : 0;
  if (err) fprintf(stderr, "aloop: there is no watchdog: %s\n", al_strerror(err));
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void print_error(lua_State *L, const run *r) {
  const char *text = r->unloaded ? lua_tostring(L, -1) : al_lua_pusherror(L, -1);
  fflush(stdout);
  fprintf(stderr, "aloop: %s\n", text ? text : "(no message)");
}

/* The exit status of the SystemExit on top: its code as an integer, a boolean as for os.exit, nil for 0; anything else
 * is a message. */
static int exit_status(lua_State *L) {
  int isint, type = lua_getfield(L, -1, "code");
  lua_Integer code = lua_tointegerx(L, -1, &isint);
  if (type == LUA_TNIL) return EXIT_SUCCESS;
  if (type == LUA_TBOOLEAN) return lua_toboolean(L, -1) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (type == LUA_TNUMBER && isint) return (int)code;
  fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  return EXIT_FAILURE;
}

/* A main task that died of the cancellation that SIGINT asked for was interrupted: its error on top becomes one that
 * says so. */
static void tell_interrupt(lua_State *L, al_ctx *ctx) {
  al_pusherror(L, ctx, AL_C_KeyboardInterrupt, "interrupted!");
  lua_getfield(L, -2, "traceback");
  lua_setfield(L, -2, "traceback");
}

static int end_badly(lua_State *L, al_ctx *ctx, const run *r, bool interrupted) {
  if (lua_istable(L, -1)) {
    if (al_isinstance(L, ctx, -1, AL_C_SystemExit)) return exit_status(L);
    if (interrupted && al_isinstance(L, ctx, -1, AL_C_CancelledError)) tell_interrupt(L, ctx);
  }
  bool interrupt = lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_KeyboardInterrupt);
  print_error(L, r);
  return interrupt ? 128 + SIGINT : EXIT_FAILURE;
}

/* Under lua_pcall: everything. */
static int run_interpreter(lua_State *L) {
  run *r = lua_touserdata(L, 1);
  if (r->no_env) {
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  al_ctx *ctx = al_module_open(L);
  ctx->came_first = true;
  al_sigint_allow(ctx);
  make_arg(L, r);
  if (r->dev) lua_warning(L, "@on", 0);
  set_up_loops(L, ctx, r);
  al_ignore_sigpipe();
  al_query_begin(L, ctx);
  start_watchdog(ctx, r);
  lua_gc(L, LUA_GCRESTART);
  lua_gc(L, LUA_GCGEN, MINOR_GROWTH, 0);
  al_ctx_pushfunction(L, ctx, on_sigint);
  al_sigint_take(L, ctx);
  int guard = lua_gettop(L);
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, main_chunk, 1);
  int status = al_lua_run(L, 0);
  bool interrupted = al_sigint_count(L, guard) > 0;
  al_sigint_release(L, guard);
  if (status != LUA_OK) r->status = end_badly(L, ctx, r, interrupted);
  return 0;
}

int main(int argc, char **argv) {
  if (al_ps_is_command(argc, argv)) return al_ps_run(argc, argv);
  al_procpool_allow_self();
  if (al_procworker_is_command(argc, argv)) return al_procworker_run();
  al_query_early();
  run r = {.argc = argc, .argv = argv, .option = 1, .status = EXIT_SUCCESS};
  if (!parse(&r)) {
    fprintf(stderr, "aloop: %s\n%s", r.problem, usage);
    return EXIT_FAILURE;
  }
  if (r.help) return printf("%s%s", usage, more_help) < 0;
  if (r.version || r.interactive) print_version();
  if (r.leaves) return EXIT_SUCCESS;
  al_alloc *alloc;
  lua_State *L = al_alloc_newstate(&alloc);
  if (!L) {
    fputs("aloop: cannot create state: not enough memory\n", stderr);
    al_alloc_end(alloc);
    return EXIT_FAILURE;
  }
  lua_gc(L, LUA_GCSTOP);
  lua_pushcfunction(L, run_interpreter);
  lua_pushlightuserdata(L, &r);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    fprintf(stderr, "aloop: %s\n", lua_tostring(L, -1));
    r.status = EXIT_FAILURE;
  }
  al_watchdog_end();
  al_query_end();
  lua_close(L);
  al_alloc_end(alloc);
  return r.status;
}
