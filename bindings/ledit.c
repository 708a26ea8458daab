/* ledit.c - line editing and history for the prompt (lua/aloop/repl.lua), by libedit or what has its functions. It is
 * looked for when the prompt starts: nothing of it is needed to build, and without it the prompt does with the terminal
 * as it is. The library is used by its callback interface, a character at a time, so that the loop goes on.
 *
 * All that it knows stands in variables of the process, for so does all of the library; and there is one terminal.
 * Whatever way the process exits, the terminal gets its modes back and the history is written.
 *
 * SPDX-License-Identifier: MIT */
#include "ledit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define HISTORY_MAX 1000

typedef void on_line(char *line);
typedef char *generator(const char *text, int state);
typedef char **completer(const char *text, int start, int end);

/* What is used of the library. */
static struct library {
  void *handle;
  void (*install)(const char *prompt, on_line *f);
  void (*read_char)(void);
  void (*remove)(void);
  int (*add_history)(const char *line);
  int (*read_history)(const char *path);
  int (*write_history)(const char *path);
  void (*stifle_history)(int max);
  void (*using_history)(void);
  void (*resize)(void);
  char **(*matches)(const char *text, generator *next);
} library;

static const struct {
  const char *name;
  size_t offset;
} symbols[] = {
    {"rl_callback_handler_install", offsetof(struct library, install)},
    {"rl_callback_read_char", offsetof(struct library, read_char)},
    {"rl_callback_handler_remove", offsetof(struct library, remove)},
    {"add_history", offsetof(struct library, add_history)},
    {"read_history", offsetof(struct library, read_history)},
    {"write_history", offsetof(struct library, write_history)},
    {"stifle_history", offsetof(struct library, stifle_history)},
    {"using_history", offsetof(struct library, using_history)},
    {"rl_resize_terminal", offsetof(struct library, resize)},
    {"rl_completion_matches", offsetof(struct library, matches)},
};

static locale_t locale;    /* the user's, for the library alone: Lua's own stays that of C */
static char *line;         /* what was entered; malloced */
static bool has_line;      /* line is it; NULL: the end */
static bool installed;     /* the terminal is the library's */
static char *history_path; /* NULL: no history is kept */
static bool has_history;   /* there is something new to write */
static lua_State *caller;  /* while the library runs */
static pid_t owner;        /* who uses it; children that exit have nothing to restore */

static struct {
  bool saved;
  int flags;
  struct termios modes;
} terminal;

/* ---- the terminal ------------------------------------------------------------------------------------------------ */

static void save_terminal(void) {
  terminal.flags = fcntl(STDIN_FILENO, F_GETFL);
  terminal.saved = terminal.flags >= 0 && tcgetattr(STDIN_FILENO, &terminal.modes) == 0;
}

/* In the background nothing is touched: to try would stop the process. */
static void restore_terminal(void) {
  if (!terminal.saved || tcgetpgrp(STDIN_FILENO) != getpgrp()) return;
  tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.modes);
  int flags = fcntl(STDIN_FILENO, F_GETFL);
  if (flags >= 0 && (flags ^ terminal.flags) & O_NONBLOCK)
    fcntl(STDIN_FILENO, F_SETFL, (flags & ~O_NONBLOCK) | (terminal.flags & O_NONBLOCK));
}

/* ---- the library ------------------------------------------------------------------------------------------------- */

static locale_t enter(lua_State *L) {
  caller = L;
  return locale ? uselocale(locale) : (locale_t)0;
}

static void leave(locale_t former) {
  if (former) uselocale(former);
  caller = NULL;
}

static void on_entered(char *entered) {
  line = entered;
  has_line = true;
  library.remove(); /* the terminal is as it was while the line is run */
  installed = false;
}

static void write_history(void) {
  if (!history_path || !has_history) return;
  int fd = open(history_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* not the library's mode */
  if (fd < 0) return;
  close(fd);
  library.write_history(history_path);
}

static void at_exit(void) {
  if (getpid() != owner) return;
  if (installed) library.remove();
  restore_terminal();
  write_history();
}

/* The user's locale; one without characters beyond ASCII is taken for UTF-8. */
static locale_t make_locale(void) {
  locale_t made = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
  if (made && strcmp(nl_langinfo_l(CODESET, made), "ANSI_X3.4-1968") != 0) return made;
  if (made) freelocale(made);
  return newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

static bool find_symbols(struct library *found) {
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    void *symbol = dlsym(found->handle, symbols[i].name);
    if (!symbol) return false;
    memcpy((char *)found + symbols[i].offset, &symbol, sizeof symbol);
  }
  return true;
}

static void set_int(const char *name, int value) {
  int *variable = dlsym(library.handle, name);
  if (variable) *variable = value;
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

static const char complete_key; /* its address is the registry key of the function that completes */

/* state 0 begins. The candidates are on top of the caller's stack. */
static char *next_match(const char *text, int state) {
  (void)text;
  static lua_Integer index;
  if (state == 0) index = 0;
  lua_rawgeti(caller, -1, ++index);
  const char *match = lua_type(caller, -1) == LUA_TSTRING ? lua_tostring(caller, -1) : NULL;
  char *copy = match ? strdup(match) : NULL;
  lua_pop(caller, 1);
  return copy;
}

/* Called by the library out of read_char. Raises nothing through it. */
static char **complete(const char *text, int start, int end) {
  (void)start, (void)end;
  char **matches = NULL;
  lua_State *L = caller;
  set_int("rl_attempted_completion_over", 1); /* and no names of files */
  set_int("rl_completion_append_character", 0);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &complete_key);
  lua_pushstring(L, text);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1)) matches = library.matches(text, next_match);
  lua_pop(L, 1);
  return matches;
}

/* ---- what the prompt calls --------------------------------------------------------------------------------------- */

/* edit_open(name, complete) → true, or nil and the reason. complete(word) → array of words. */
static int edit_open(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &complete_key);
  if (!library.handle) {
    struct library found = {.handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)};
    if (!found.handle || !find_symbols(&found)) {
      lua_pushnil(L);
      lua_pushstring(L, found.handle ? "it has not all functions that are needed" : dlerror());
      if (found.handle) dlclose(found.handle);
      return 2;
    }
    library = found;
    set_int("rl_catch_signals", 0); /* they are the loop's */
    set_int("rl_catch_sigwinch", 0);
    completer **attempt = dlsym(library.handle, "rl_attempted_completion_function");
    if (attempt) *attempt = complete;
    locale = make_locale();
  }
  lua_pushboolean(L, true);
  return 1;
}

/* edit_history(path) → whether it was read. It is written at the end; one that can't be read is left alone. */
static int edit_history(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  locale_t former = enter(L);
  library.using_history();
  library.stifle_history(HISTORY_MAX);
  bool fresh = access(path, F_OK) < 0 && errno == ENOENT, good = fresh || library.read_history(path) == 0;
  leave(former);
  free(history_path);
  history_path = good ? strdup(path) : NULL;
  lua_pushboolean(L, good);
  return 1;
}

static int edit_remember(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  locale_t former = enter(L);
  library.add_history(text);
  has_history = true;
  leave(former);
  return 0;
}

/* edit_begin(prompt): shows it and takes the terminal */
static int edit_begin(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
  locale_t former = enter(L);
  if (installed) library.remove();
  has_line = false;
  library.install(prompt, on_entered);
  installed = true;
  leave(former);
  return 0;
}

static bool is_hung_up(void) {
  struct pollfd stdin_poll = {.fd = STDIN_FILENO, .events = POLLIN};
  return poll(&stdin_poll, 1, 0) > 0 && !(stdin_poll.revents & POLLIN) && stdin_poll.revents & (POLLHUP | POLLERR);
}

/* edit_read() → the line once it is whole, false at the end, else nil. Call it when the terminal is readable. */
static int edit_read(lua_State *L) {
  if (!installed) return 0;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  locale_t former = enter(L);
  if (is_hung_up())
    on_entered(NULL);
  else
    library.read_char();
  leave(former);
  if (!has_line) return 0;
  char *entered = line;
  line = NULL;
  has_line = false;
  if (entered)
    lua_pushstring(L, entered); /* short of memory it is lost */
  else
    lua_pushboolean(L, false);
  free(entered);
  return 1;
}

/* edit_end(): gives the terminal back; what was typed is dropped */
static int edit_end(lua_State *L) {
  if (!installed) return 0;
  locale_t former = enter(L);
  library.remove();
  installed = false;
  leave(former);
  return 0;
}

static int edit_resize(lua_State *L) {
  if (!installed) return 0;
  locale_t former = enter(L);
  library.resize();
  leave(former);
  return 0;
}

/* save_terminal(): it gets its modes back at restore_terminal() and when the process exits */
static int l_save_terminal(lua_State *L) {
  (void)L;
  if (owner != getpid() && atexit(at_exit) == 0) owner = getpid();
  save_terminal();
  return 0;
}

static int l_restore_terminal(lua_State *L) {
  edit_end(L);
  restore_terminal();
  write_history();
  has_history = false;
  return 0;
}

static const luaL_Reg functions[] = {{"edit_open", edit_open},
                                     {"edit_history", edit_history},
                                     {"edit_remember", edit_remember},
                                     {"edit_begin", edit_begin},
                                     {"edit_read", edit_read},
                                     {"edit_end", edit_end},
                                     {"edit_resize", edit_resize},
                                     {"save_terminal", l_save_terminal},
                                     {"restore_terminal", l_restore_terminal},
                                     {NULL, NULL}};

void al_edit_openlib(lua_State *L, al_ctx *ctx) { al_ctx_setfuncs(L, ctx, functions); }
