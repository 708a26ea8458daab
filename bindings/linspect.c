/* linspect.c - looking into tasks: get_stack, print_stack, and the facts from which aloop.graph tells what each task
 * waits for. It only looks: no script's code is called, so that it may be asked at any time, from a hook in the midst
 * of a script too.
 *
 * What a suspended function works on stands on its stack: the innermost C function of a waiting task is the operation,
 * and a socket, transport or address among its values is what it waits for.
 *
 * SPDX-License-Identifier: MIT */
#include "linspect.h"

#include "lloop.h"
#include "lpause.h"
#include "lreader.h"
#include "lrepr.h"
#include "lserver.h"
#include "lsocket.h"
#include "ltask.h"
#include "ltransport.h"
#include "lwaitlist.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_CHAIN = 200, /* coroutines inside each other: Lua's own limit of nested C calls */ MAX_VALUES = 16 };

static l_task *check_task(lua_State *L, al_ctx *ctx) {
  l_future *f = al_test_future(L, ctx, 1);
  if (!f || !f->is_task) al_typeerror(L, 1, "Task");
  return (l_task *)f;
}

/* ---- coroutines inside each other -------------------------------------------------------------------------------- */

/* Does the coroutine wait, or run, or resume another one? */
static bool is_active(lua_State *co) {
  lua_Debug ar;
  return lua_status(co) == LUA_OK ? lua_getstack(co, 0, &ar) : al_coro_is_waiting(co);
}

/* The active coroutine that is value n of the frame, or NULL. */
static lua_State *thread_among_values(lua_State *co, lua_Debug *ar, int n) {
  if (!lua_checkstack(co, 1) || !lua_getlocal(co, ar, n)) return NULL;
  lua_State *found = lua_tothread(co, -1);
  lua_pop(co, 1);
  return found && found != co && is_active(found) ? found : NULL;
}

static lua_State *thread_among_upvalues(lua_State *L, lua_Debug *ar) {
  lua_State *found = NULL;
  lua_getinfo(L, "f", ar);
  for (int i = 1; !found && lua_getupvalue(L, -1, i); i++) {
    found = lua_tothread(L, -1);
    if (found && !is_active(found)) found = NULL;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return found;
}

/* The coroutine that the C function on top of co resumes: its first argument, or an upvalue of it. NULL: none. */
static lua_State *inner_of(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (co == L || !lua_getstack(co, 0, &ar)) return NULL;
  lua_getinfo(co, "S", &ar);
  if (*ar.what != 'C') return NULL;
  lua_State *inner = thread_among_values(co, &ar, 1);
  return inner ? inner : thread_among_upvalues(L, &ar);
}

/* Fills chain with co and those inside it; their number. */
static int chain_of(lua_State *L, lua_State *co, lua_State **chain) {
  int n = 0;
  for (; co && n < MAX_CHAIN; co = inner_of(L, co)) chain[n++] = co;
  return n;
}

static lua_State *innermost_of(lua_State *L, lua_State *co) {
  lua_State *inner;
  for (int n = 0; n < MAX_CHAIN && (inner = inner_of(L, co)) != NULL; n++) co = inner;
  return co;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static void push_frame(lua_State *L, const lua_Debug *ar) {
  lua_createtable(L, 0, 3);
  set_string(L, "source", ar->short_src);
  set_integer(L, "currentline", ar->currentline);
  if (ar->name) {
    lua_pushstring(L, ar->name);
  } else if (strcmp(ar->what, "main") == 0) {
    lua_pushliteral(L, "main chunk");
  } else {
    lua_pushfstring(L, "function <%s:%d>", ar->short_src, ar->linedefined);
  }
  lua_setfield(L, -2, "name");
}

/* Appends the Lua frames of one coroutine to the array on top, the newest first, up to a length of limit. */
static void append_frames(lua_State *L, lua_State *co, lua_Integer limit) {
  lua_Debug ar;
  lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
  for (int level = 0; (limit < 0 || n < limit) && lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "Sln", &ar);
    if (ar.currentline < 0) continue;
    push_frame(L, &ar);
    lua_rawseti(L, -2, ++n);
  }
}

static void reverse(lua_State *L, int array) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, array);
  for (lua_Integer i = 1, j = n; i < j; i++, j--) {
    lua_rawgeti(L, array, i);
    lua_rawgeti(L, array, j);
    lua_rawseti(L, array, i);
    lua_rawseti(L, array, j);
  }
}

/* Pushes an array of the Lua frames of a coroutine and of those that it resumes, the oldest first; at most the limit
 * newest ones (< 0: all). */
static void push_frames(lua_State *L, lua_State *co, lua_Integer limit) {
  lua_State *chain[MAX_CHAIN];
  luaL_checkstack(L, 8, NULL);
  int n = chain_of(L, co, chain);
  lua_newtable(L);
  while (n > 0) append_frames(L, chain[--n], limit);
  reverse(L, lua_gettop(L));
}

/* ---- the frames of an error, from its traceback ------------------------------------------------------------------ */

/* "function 'f'" -> f; else all of it. */
static void push_quoted(lua_State *L, const char *text, const char *end) {
  const char *open = memchr(text, '\'', (size_t)(end - text));
  const char *close = open ? memchr(open + 1, '\'', (size_t)(end - open - 1)) : NULL;
  if (close) {
    lua_pushlstring(L, open + 1, (size_t)(close - open - 1));
  } else {
    lua_pushlstring(L, text, (size_t)(end - text));
  }
}

/* The last ": in " of the line. */
static const char *find_in(const char *line, const char *end) {
  for (const char *at = end - 5; at > line; at--)
    if (strncmp(at, ": in ", 5) == 0) return at;
  return NULL;
}

/* Pushes the frame of a line "\tx.lua:3: in function 'f'"; false, and nothing, if it is none. */
static bool push_traced_frame(lua_State *L, const char *line, const char *end) {
  if (*line != '\t' || strncmp(line, "\t[C]", 4) == 0) return false;
  const char *in = find_in(line, end), *digits = in;
  lua_Integer number = 0, scale = 1;
  if (!in) return false;
  for (; digits - 1 > line && digits[-1] >= '0' && digits[-1] <= '9'; digits--, scale *= 10)
    number += scale * (digits[-1] - '0');
  if (digits == in || digits[-1] != ':') return false;
  lua_createtable(L, 0, 3);
  lua_pushlstring(L, line + 1, (size_t)(digits - 1 - (line + 1)));
  lua_setfield(L, -2, "source");
  set_integer(L, "currentline", number);
  push_quoted(L, in + 5, end);
  lua_setfield(L, -2, "name");
  return true;
}

/* Pushes the frames that the traceback on top (popped) tells of, the oldest first. */
static void push_traced_frames(lua_State *L) {
  lua_Integer n = 0;
  const char *text = lua_tostring(L, -1);
  lua_newtable(L);
  for (const char *line = text; line && *line;) {
    const char *end = line + strcspn(line, "\n");
    if (push_traced_frame(L, line, end)) lua_rawseti(L, -2, ++n);
    line = *end ? end + 1 : end;
  }
  reverse(L, lua_gettop(L));
  lua_remove(L, -2);
}

/* Pushes the traceback of the failed task at 1 as a string, or nil. */
static void push_task_traceback(lua_State *L, al_ctx *ctx, l_task *t) {
  lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE);
  if (lua_istable(L, -1) && al_isinstance(L, ctx, -1, AL_C_BaseError)) {
    al_pushtraceback(L, ctx, -1);
  } else {
    al_pushanchored(L, ctx, AL_SLOT_TRACES);
    lua_rawgetp(L, -1, t);
    lua_remove(L, -2);
  }
  lua_remove(L, -2);
}

static bool has_failed(const l_task *t) { return t->f.state == AL_FUTURE_FINISHED && t->f.failed; }

/* Leaves only the first limit frames of the array on top. */
static void cut(lua_State *L, lua_Integer limit) {
  if (limit < 0) return;
  for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i > limit; i--) {
    lua_pushnil(L);
    lua_rawseti(L, -2, i);
  }
}

/* The limit of frames: < 0 if there is none. It stands in the options at 2, as does the file, which is left at 3; both
 * may stand at their own places, too. */
static lua_Integer take_arguments(lua_State *L, const char *f, const char *const *names) {
  bool given = true;
  if (lua_istable(L, 2)) {
    al_options(L, 2, f, names);
    lua_settop(L, 2);
    al_option(L, 2, "file");
    given = al_option_given(L, 2, "limit");
    int limit = al_int_option(L, 2, f, "limit", 0);
    lua_pushinteger(L, limit);
    lua_replace(L, 2);
  }
  lua_settop(L, 3);
  if (!given || lua_isnil(L, 2)) return -1;
  lua_Integer limit = al_checkinteger(L, 2);
  return limit < 0 ? 0 : limit;
}

/* Pushes the stack of the task at 1. */
static void push_stack(lua_State *L, al_ctx *ctx, l_task *t, lua_Integer limit) {
  if (t->co && t->f.state == AL_FUTURE_PENDING) {
    push_frames(L, t->co, limit);
  } else if (has_failed(t)) {
    push_task_traceback(L, ctx, t);
    push_traced_frames(L);
    cut(L, limit);
  } else {
    lua_newtable(L);
  }
}

/* task:get_stack([{limit}]): the frames of its coroutine and of those inside it, the oldest first, at most the limit
 * newest ones; of a task that failed, those of the traceback, the limit oldest ones; else none. */
static int task_get_stack(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"limit", NULL};
  l_task *t = check_task(L, ctx);
  push_stack(L, ctx, t, take_arguments(L, "get_stack", names));
  return 1;
}

/* Appends "  x.lua:3: in f" of the frame on top (popped) to the text below it. */
static void append_frame_line(lua_State *L) {
  int frame = lua_gettop(L);
  lua_getfield(L, frame, "source");
  lua_getfield(L, frame, "currentline");
  lua_getfield(L, frame, "name");
  lua_pushfstring(L, "  %s:%d: in %s\n", lua_tostring(L, frame + 1), (int)lua_tointeger(L, frame + 2),
                  lua_tostring(L, frame + 3));
  lua_replace(L, frame);
  lua_settop(L, frame);
}

/* Pushes what print_stack writes of the task at 1 with the frames on top. */
static void push_stack_text(lua_State *L, al_ctx *ctx, l_task *t) {
  int frames = lua_gettop(L), n = (int)lua_rawlen(L, frames);
  bool failed = has_failed(t);
  luaL_checkstack(L, n + LUA_MINSTACK, "too many frames");
  al_future_repr(L, ctx, &t->f, 1);
  lua_pushfstring(L, n == 0 && !failed ? "No stack for %s\n" : "%s for %s (most recent call last):\n",
                  n == 0 && !failed ? lua_tostring(L, -1) : (failed ? "Traceback" : "Stack"), lua_tostring(L, -1));
  lua_replace(L, -2);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, frames, i);
    append_frame_line(L);
  }
  if (failed) {
    lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE);
    al_push_text(L, -1);
    lua_pushfstring(L, "%s\n", lua_tostring(L, -1));
    lua_replace(L, -3);
    lua_pop(L, 1);
  }
  lua_concat(L, lua_gettop(L) - frames);
}

/* Has the object a method write? */
static bool has_write(lua_State *L, int idx) {
  if (!lua_istable(L, idx) && luaL_getmetafield(L, idx, "__index") == LUA_TNIL) return false;
  lua_getfield(L, idx, "write");
  bool has = al_iscallable(L, -1);
  lua_settop(L, idx);
  return has;
}

/* task:print_stack([{limit, file}]): writes the same as text, to stderr or to an object with a method write. */
static int task_print_stack(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  static const char *const names[] = {"limit", "file", NULL};
  l_task *t = check_task(L, ctx);
  bool options = lua_istable(L, 2);
  lua_Integer limit = take_arguments(L, "print_stack", names);
  if (!lua_isnil(L, 3) && !has_write(L, 3))
    return options ? al_option_error(L, "print_stack", "file", "file", 3) : al_typeerror(L, 3, "file");
  push_stack(L, ctx, t, limit);
  push_stack_text(L, ctx, t);
  if (lua_isnil(L, 3)) {
    fputs(lua_tostring(L, -1), stderr);
    return 0;
  }
  lua_getfield(L, 3, "write");
  lua_pushvalue(L, 3);
  lua_pushvalue(L, -3);
  lua_call(L, 2, 0);
  return 0;
}

/* ---- what a task waits for --------------------------------------------------------------------------------------- */

/* Sets field key of the table on top to the address, if there is one. */
static void set_address(lua_State *L, const char *key, const al_addr *addr) {
  char text[AL_ADDR_STRLEN];
  if (addr->len > (socklen_t)sizeof(sa_family_t)) set_string(L, key, al_addr_format(addr, text, sizeof text));
}

/* Sets fd, peer (or local, if there is none) of the table on top. */
static void set_descriptor(lua_State *L, int fd) {
  if (fd < 0) return;
  set_integer(L, "fd", fd);
  al_addr addr = {.len = sizeof addr.ss};
  if (getpeername(fd, (struct sockaddr *)&addr.ss, &addr.len) == 0) {
    set_address(L, "peer", &addr);
    return;
  }
  addr.len = sizeof addr.ss;
  if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) == 0) set_address(L, "name", &addr);
}

static int descriptor_of_transport(const al_transport *t) { return t ? al_transport_fd(t) : -1; }

static int descriptor_of_server(const al_server *server) {
  int fd;
  return server && al_server_sockets(server, &fd, 1) > 0 ? fd : -1;
}

/* The descriptor of the socket, server, reader or transport at idx; of anything else -1. */
static int descriptor_of(lua_State *L, al_ctx *ctx, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA) return -1;
  const l_socket *s = al_test(L, ctx, idx, AL_C_Socket);
  if (!s) s = al_test(L, ctx, idx, AL_C_TransportSocket);
  if (s) return al_socket_fd(s);
  const l_server *server = al_test(L, ctx, idx, AL_C_Server);
  if (server) return descriptor_of_server(server->server);
  const l_reader *reader = al_test_reader(L, idx);
  if (reader) return descriptor_of_transport(al_reader_transport(reader));
  const l_transport *t = lua_touserdata(L, idx);
  return lua_rawlen(L, idx) == sizeof *t && t->tag == &al_transport_tag ? descriptor_of_transport(t->t) : -1;
}

/* Sets the field `address` of the table at facts to the address {host, port} on top, if it is one. */
static void set_lua_address(lua_State *L, int facts) {
  int address = lua_gettop(L);
  if (lua_rawgeti(L, address, 1) == LUA_TSTRING && lua_rawgeti(L, address, 2) == LUA_TNUMBER) {
    const char *host = lua_tostring(L, -2);
    lua_pushfstring(L, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, (int)lua_tointeger(L, -1));
    lua_setfield(L, facts, "address");
  }
  lua_settop(L, address);
}

/* Looks at a value of the waiting function, on top (popped), for what the table below it should tell. */
static void look_at_value(lua_State *L, al_ctx *ctx) {
  int facts = lua_gettop(L) - 1;
  int fd = descriptor_of(L, ctx, facts + 1);
  if (lua_type(L, facts + 1) == LUA_TTABLE) set_lua_address(L, facts);
  lua_settop(L, facts);
  set_descriptor(L, fd);
}

/* Keeps a string or number among the arguments: a host, a port, a path. Pops the value on top. */
static void keep_argument(lua_State *L) {
  lua_getfield(L, -2, "args");
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  lua_pop(L, 2);
}

/* Adds to the table on top what the values of the C function on top of co tell. */
static void look_at_values(lua_State *L, al_ctx *ctx, lua_State *co, lua_Debug *ar) {
  lua_newtable(L);
  lua_setfield(L, -2, "args");
  for (int n = 1; n <= MAX_VALUES && lua_checkstack(co, 1) && lua_getlocal(co, ar, n); n++) {
    if (co != L) lua_xmove(co, L, 1);
    bool plain = lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER;
    if (plain && n <= 4) {
      keep_argument(L);
    } else if (plain) {
      lua_pop(L, 1);
    } else {
      look_at_value(L, ctx);
    }
  }
}

/* Pushes {what, func, fd, peer, name, address, args}, as far as known, of the operation that the task waits for. */
static void push_operation(lua_State *L, al_ctx *ctx, l_task *t) {
  lua_State *co = innermost_of(L, t->co);
  lua_Debug ar;
  lua_createtable(L, 0, 6);
  set_string(L, "what", al_task_wait(t) ? al_task_wait(t)->kind->what : NULL);
  if (!lua_getstack(co, 0, &ar)) return;
  lua_getinfo(co, "Sn", &ar);
  if (*ar.what != 'C') return;
  set_string(L, "func", ar.name);
  look_at_values(L, ctx, co, &ar);
}

/* Pushes what the task at 1, which waits, waits for: a kind and what there is to know of it. */
static int push_wait(lua_State *L, al_ctx *ctx, l_task *t) {
  const al_timer *timer = al_sleep_timer(t);
  if (timer) {
    lua_pushliteral(L, "timer");
    lua_pushnumber(L, (lua_Number)(timer->when_ns - al_loop_time_ns(t->f.loop->loop)) * 1e-9);
  } else if (t->awaits) {
    lua_pushliteral(L, "future");
    lua_getiuservalue(L, 1, AL_TASK_UV_AWAITED);
  } else if (al_task_push_owner(L, ctx, t)) {
    lua_pushliteral(L, "object");
    lua_insert(L, -2);
  } else {
    lua_pushliteral(L, "operation");
    push_operation(L, ctx, t);
  }
  return 2;
}

static const char *state_of(al_ctx *ctx, const l_task *t) {
  if (t->f.state != AL_FUTURE_PENDING || !t->co) return "done";
  if (t == ctx->current) return "running";
  if (!t->started) return "created";
  if (lua_status(t->co) == LUA_OK) return "running"; /* it made another one run */
  const l_future *awaited = al_task_awaited(t);
  bool waits = awaited ? awaited->state == AL_FUTURE_PENDING : al_task_wait(t) && !al_handle_is_queued(&t->step);
  return waits ? "waiting" : "ready";
}

/* task_state(task) → "created", "running", "ready", "done"; or "waiting", kind, what */
static int task_state(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_task *t = check_task(L, ctx);
  luaL_checkstack(L, 2 * LUA_MINSTACK, NULL);
  const char *state = state_of(ctx, t);
  lua_pushstring(L, state);
  return strcmp(state, "waiting") == 0 ? 1 + push_wait(L, ctx, t) : 1;
}

/* ---- all there is ------------------------------------------------------------------------------------------------ */

/* future_owner(future) → what core.waiter made it for, or nil */
static int future_owner(lua_State *L) {
  l_future *f = al_test_future(L, al_ctx_of(L), 1);
  if (!f) return al_typeerror(L, 1, "Future");
  al_future_owner(L, f, 1);
  return 1;
}

/* future_callbacks(future) → array of the functions that are called when it is done, or nil */
static int future_callbacks(lua_State *L) {
  l_future *f = al_test_future(L, al_ctx_of(L), 1);
  if (!f) return al_typeerror(L, 1, "Future");
  if (f->state != AL_FUTURE_PENDING || lua_getiuservalue(L, 1, AL_FUTURE_UV_VALUE) != LUA_TTABLE) return 0;
  int handles = lua_gettop(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, handles);
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, handles, i);
    lua_getiuservalue(L, -1, 1);
    lua_rawseti(L, handles + 1, i);
    lua_pop(L, 1);
  }
  return 1;
}

/* living_tasks() → array of all unfinished tasks of this state, whatever their loop; the main chunk's first,
 * unless it has not come to need a loop yet */
static int living_tasks(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_newtable(L);
  lua_Integer n = 0;
  l_task *main = ctx->main_task;
  if (main && main->f.state == AL_FUTURE_PENDING && main->slot && main->settled) {
    al_task_pushself(L, ctx, main);
    lua_rawseti(L, -2, ++n);
  }
  for (l_loop *loop = ctx->loops; loop; loop = loop->next) {
    for (al_link *link = loop->tasks.next; link != &loop->tasks; link = link->next) {
      l_task *t = al_task_of_link(link);
      if (t == main || t->f.state != AL_FUTURE_PENDING) continue;
      al_task_pushself(L, ctx, t);
      lua_rawseti(L, -2, ++n);
    }
  }
  return 1;
}

/* running_frames([limit]) → the frames of what runs now: of the coroutine that asks, and of those of its task
 * outside it */
static int running_frames(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  lua_Integer limit = luaL_optinteger(L, 1, -1);
  lua_State *chain[MAX_CHAIN], *co = ctx->current ? ctx->current->co : NULL;
  int n = chain_of(L, co, chain);
  push_frames(L, n > 0 && chain[n - 1] == L ? co : L, limit);
  return 1;
}

static const luaL_Reg methods[] = {{"get_stack", task_get_stack}, {"print_stack", task_print_stack}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"task_state", task_state},         {"future_owner", future_owner},
                                     {"living_tasks", living_tasks},     {"future_callbacks", future_callbacks},
                                     {"running_frames", running_frames}, {NULL, NULL}};

void al_inspect_openlib(lua_State *L, al_ctx *ctx) {
  al_class_methods(L, ctx, AL_C_Task, methods);
  al_ctx_setfuncs(L, ctx, functions);
}
