/* lreader.c - StreamReader: read, readline, readexactly and readuntil over a buffer that a protocol (lstream.c) or a
 * script fills. A message costs one string: bytes are looked through where they lie, and the task that waits for them
 * is resumed when all that it asked for is there.
 *
 * asyncio's reader wakes its task for every piece and lets it look again. Here the look is taken when the piece comes,
 * so what the task would have done on waking in vain, resuming a paused transport, is done by not pausing it.
 *
 * SPDX-License-Identifier: MIT */
#include "lreader.h"

#include "lalloc.h"
#include "lbuffer.h"
#include "ltransport.h"

#include <errno.h>
#include <string.h>

enum { UV_EXCEPTION = 1, UV_COUNT = UV_EXCEPTION };

enum { SMALLEST_BUFFER = 512, MAX_SEPARATORS = 10000 };

typedef struct separator {
  const char *text;
  size_t len;
} separator;

typedef struct separators { /* more than one, in a userdata that the waiting function keeps */
  size_t shortest, longest;
  separator list[]; /* their texts follow */
} separators;

typedef struct piece { /* the bytes that are there */
  size_t start, end, size;
  char bytes[];
} piece;

enum { SOME, ALL, EXACTLY, UNTIL, LINE };
static const char *const method_names[] = {"read", "read", "readexactly", "readuntil", "readline"};

/* What a task asks for. Small, for a connection that waits has it in its reader. */
typedef struct request {
  union {
    size_t n;     /* SOME: at most; EXACTLY */
    size_t clear; /* UNTIL, LINE: no separator begins in so many bytes from the first one */
  } u;
  union {
    const char *one; /* of one_len bytes */
    const separators *many;
  } separators;
  size_t match_end; /* so many bytes with the separator that was found; 0: none was */
  uint32_t one_len;
  unsigned n_separators : 14; /* at most MAX_SEPARATORS */
  unsigned matched : 14;      /* which one was found */
  unsigned kind : 3;
} request;

struct l_reader {
  const void *self; /* its own address: see al_test_reader */
  piece *held;      /* NULL, or empty, while nothing is there */
  size_t limit;
  al_transport *transport; /* one reference, or NULL */
  l_wait wait;
  request asked; /* while somebody waits */
  int error;     /* failed: the core's error, if no exception was made of it yet */
  bool waiting : 1, woken : 1;
  bool thrown : 1; /* woken by an exception */
  bool eof : 1, failed : 1, paused : 1;
};

l_reader *al_test_reader(lua_State *L, int idx) {
  l_reader *r = lua_type(L, idx) == LUA_TUSERDATA ? lua_touserdata(L, idx) : NULL;
  return r && lua_rawlen(L, idx) == sizeof *r && r->self == r ? r : NULL;
}

static l_reader *check_self(lua_State *L) {
  l_reader *r = al_test_reader(L, 1);
  if (!r) al_typeerror(L, 1, "StreamReader");
  return r;
}

/* ---- the buffer -------------------------------------------------------------------------------------------------- */

static inline size_t held(const l_reader *r) { return r->held ? r->held->end - r->held->start : 0; }
static inline const char *first_byte(const l_reader *r) { return r->held ? r->held->bytes + r->held->start : ""; }

static void drop_piece(al_ctx *ctx, l_reader *r) {
  if (r->held) al_allocate(ctx, r->held, sizeof *r->held + r->held->size, 0);
  r->held = NULL;
}

/* Puts what is there into a piece of this size. */
static int grow(al_ctx *ctx, l_reader *r, size_t size) {
  piece *p = r->held;
  size_t n = held(r);
  if (p && p->start == 0) { /* it may well grow without being copied */
    p = al_allocate(ctx, p, sizeof *p + p->size, sizeof *p + size);
    if (!p) return -ENOMEM;
  } else {
    p = al_allocate(ctx, NULL, 0, sizeof *p + size);
    if (!p) return -ENOMEM;
    memcpy(p->bytes, first_byte(r), n);
    drop_piece(ctx, r);
  }
  *p = (piece){.end = n, .size = size};
  r->held = p;
  return 0;
}

/* Makes room for len bytes behind the end. */
static int make_room(al_ctx *ctx, l_reader *r, size_t len) {
  piece *p = r->held;
  size_t n = held(r), size = p ? p->size : SMALLEST_BUFFER - sizeof *p;
  if (!p || n + len > p->size || p->start < n) {
    if (p && size < n + len) size *= 2;
    return grow(ctx, r, size < n + len ? n + len : size);
  }
  memcpy(p->bytes, first_byte(r), n); /* moving is no more work than taking out was */
  p->start = 0;
  p->end = n;
  return 0;
}

static void resume_transport(l_reader *r) {
  r->paused = false;
  if (r->transport) al_transport_resume_reading(r->transport);
}

/* The first n bytes are gone. */
static void consume(al_ctx *ctx, l_reader *r, size_t n) {
  if (n) r->held->start += n;
  if (r->waiting && r->asked.kind >= UNTIL) r->asked.u.clear = r->asked.match_end = 0;
  if (held(r) == 0) drop_piece(ctx, r);
  if (r->paused && held(r) <= r->limit) resume_transport(r);
}

const char *al_reader_peek(const l_reader *r, size_t *len) {
  *len = held(r);
  return first_byte(r);
}

void al_reader_drop(al_ctx *ctx, l_reader *r, size_t len) { consume(ctx, r, len); }

/* Pushes all that is there, if the piece itself can become the string. */
static bool take_piece(lua_State *L, al_ctx *ctx, l_reader *r) {
  piece *p = r->held;
  r->held = NULL; /* before finalizers come */
  if (al_alloc_pushblock(L, ctx->alloc, p, sizeof *p + p->size, p->bytes + p->start, p->end - p->start)) return true;
  r->held = p;
  return false;
}

/* Pushes the first n bytes and takes them out. */
static int take(lua_State *L, al_ctx *ctx, l_reader *r, size_t n) {
  if (n > 0 && n == held(r) && take_piece(L, ctx, r)) {
    n = 0;
  } else {
    al_alloc_pushlstring(L, ctx->alloc, first_byte(r), n);
  }
  consume(ctx, r, n);
  return 1;
}

/* ---- is it all there? -------------------------------------------------------------------------------------------- */

static const char *find(const char *data, size_t len, const separator *s) {
  return s->len == 1 ? memchr(data, *s->text, len) : memmem(data, len, s->text, s->len);
}

static size_t shortest(const request *q) { return q->n_separators > 1 ? q->separators.many->shortest : q->one_len; }
static size_t longest(const request *q) { return q->n_separators > 1 ? q->separators.many->longest : q->one_len; }

/* Looks for the separator that ends first; of two that end together, the shorter one counts. */
static void look(const l_reader *r, request *q) {
  size_t len = held(r), clear = q->u.clear;
  if (q->match_end || len - clear < shortest(q)) return;
  const separator one = {q->separators.one, q->one_len};
  const separator *list = q->n_separators > 1 ? q->separators.many->list : &one;
  const char *first = first_byte(r);
  for (unsigned i = 0; i < q->n_separators; i++) {
    const char *at = find(first + clear, len - clear, &list[i]);
    size_t end = at ? (size_t)(at - first) + list[i].len : 0;
    if (!at || (q->match_end && end > q->match_end)) continue;
    if (end == q->match_end && list[i].len >= list[q->matched].len) continue;
    q->match_end = end;
    q->matched = i & 0x3fff;
  }
  if (!q->match_end) q->u.clear = len + 1 > longest(q) ? len + 1 - longest(q) : 0;
}

static size_t length_before(const request *q) {
  return q->match_end - (q->n_separators > 1 ? q->separators.many->list[q->matched].len : q->one_len);
}

/* Need the task that asks wait no longer? */
static bool is_ready(const l_reader *r, request *q) {
  switch (q->kind) {
  case SOME: return held(r) > 0 || r->eof;
  case ALL: return r->eof;
  case EXACTLY: return held(r) >= q->u.n || r->eof;
  default: look(r, q); return q->match_end || q->u.clear > r->limit || r->eof;
  }
}

/* ---- what comes in ----------------------------------------------------------------------------------------------- */

static void wake(l_reader *r) {
  if (!r->waiting || r->woken) return;
  r->woken = true;
  al_wake(&r->wait);
}

/* There is more than before: enough for who waits, or so much that the transport had better pause? */
static void grown(l_reader *r) {
  if (r->waiting && !r->woken) {
    if (!is_ready(r, &r->asked)) return;
    wake(r);
  }
  if (!r->transport || r->paused || held(r) / 2 < r->limit || held(r) <= 2 * r->limit) return;
  r->paused = true;
  if (al_transport_pause_reading(r->transport) < 0) al_reader_connect(r, NULL); /* it can't be paused */
}

char *al_reader_room(al_ctx *ctx, l_reader *r, size_t len) {
  if ((!r->held || r->held->size - r->held->end < len) && make_room(ctx, r, len)) return NULL;
  return r->held->bytes + r->held->end;
}

int al_reader_feed(al_ctx *ctx, l_reader *r, const char *data, size_t len) {
  if (len == 0) return 0;
  char *room = al_reader_room(ctx, r, len);
  if (!room) return -ENOMEM;
  if (data != room) memcpy(room, data, len);
  r->held->end += len;
  grown(r);
  return 0;
}

void al_reader_feed_eof(l_reader *r) {
  r->eof = true;
  wake(r);
}

static void note_failure(l_reader *r) {
  r->failed = true;
  if (r->waiting && !r->woken) r->thrown = true;
  wake(r);
}

void al_reader_fail(l_reader *r, int error) {
  r->error = error;
  note_failure(r);
}

void al_reader_set_exception(lua_State *L, int idx) {
  l_reader *r = lua_touserdata(L, idx);
  lua_setiuservalue(L, idx, UV_EXCEPTION);
  r->error = 0;
  note_failure(r);
}

bool al_reader_push_exception(lua_State *L, al_ctx *ctx, int idx) {
  l_reader *r = lua_touserdata(L, idx);
  idx = lua_absindex(L, idx);
  if (!r->failed) return false;
  if (r->error) {
    al_pushoserror(L, ctx, r->error, NULL, NULL);
    lua_setiuservalue(L, idx, UV_EXCEPTION);
    r->error = 0;
  }
  lua_getiuservalue(L, idx, UV_EXCEPTION);
  return true;
}

void al_reader_connect(l_reader *r, al_transport *transport) {
  if (transport) al_transport_hold(transport);
  if (r->transport) al_transport_release(r->transport);
  r->transport = transport;
  if (!transport) r->paused = false;
}

al_transport *al_reader_transport(const l_reader *r) { return r->transport; }

/* ---- what goes out ----------------------------------------------------------------------------------------------- */

static int raise_failure(lua_State *L, al_ctx *ctx) {
  al_reader_push_exception(L, ctx, 1);
  return lua_error(L);
}

/* The end came before it was all there. */
static int raise_incomplete(lua_State *L, al_ctx *ctx, l_reader *r, const request *q) {
  al_pushclass(L, ctx, AL_C_IncompleteReadError);
  take(L, ctx, r, held(r));
  if (q->kind == EXACTLY)
    lua_pushinteger(L, (lua_Integer)q->u.n);
  else
    lua_pushnil(L);
  lua_call(L, 2, 1);
  return lua_error(L);
}

/* The line is too long. readuntil leaves it where it is, readline throws it away. */
static int raise_overrun(lua_State *L, al_ctx *ctx, l_reader *r, const request *q) {
  const char *message = q->match_end ? "Separator is found, but chunk is longer than limit"
                                     : "Separator is not found, and chunk exceed the limit";
  if (q->kind == LINE) {
    consume(ctx, r, q->match_end ? q->match_end : held(r));
    return al_raise(L, ctx, AL_C_ValueError, "%s", message);
  }
  al_pushclass(L, ctx, AL_C_LimitOverrunError);
  lua_pushstring(L, message);
  lua_pushinteger(L, (lua_Integer)(q->match_end ? length_before(q) : q->u.clear));
  lua_call(L, 2, 1);
  return lua_error(L);
}

static int deliver_until(lua_State *L, al_ctx *ctx, l_reader *r, const request *q) {
  if (q->match_end && length_before(q) <= r->limit) return take(L, ctx, r, q->match_end);
  if (q->match_end || q->u.clear > r->limit) return raise_overrun(L, ctx, r, q);
  if (q->kind == UNTIL) return raise_incomplete(L, ctx, r, q);
  if (held(r) > 0) return take(L, ctx, r, held(r));
  lua_pushnil(L);
  return 1;
}

/* The request is ready: its result, or error. */
static int deliver(lua_State *L, al_ctx *ctx, l_reader *r, const request *q) {
  size_t n = held(r);
  switch (q->kind) {
  case SOME:
    if (n > 0) return take(L, ctx, r, n < q->u.n ? n : q->u.n);
    lua_pushnil(L);
    return 1;
  case ALL: return take(L, ctx, r, n);
  case EXACTLY: return n >= q->u.n ? take(L, ctx, r, q->u.n) : raise_incomplete(L, ctx, r, q);
  default: return deliver_until(L, ctx, r, q);
  }
}

static l_reader *of_wait(l_wait *wait) { return (l_reader *)(void *)((char *)wait - offsetof(l_reader, wait)); }

static void wait_abandon(al_ctx *ctx, l_wait *wait) {
  (void)ctx;
  l_reader *r = of_wait(wait);
  r->waiting = r->woken = r->thrown = false;
}

static int wait_for_more(lua_State *L, al_ctx *ctx, l_reader *r, const request *q);

static int wait_finish(lua_State *L, al_ctx *ctx, l_wait *wait) {
  l_reader *r = of_wait(wait);
  bool thrown = r->thrown;
  wait_abandon(ctx, wait);
  if (thrown) return raise_failure(L, ctx);
  request q = r->asked;
  if (is_ready(r, &q)) return deliver(L, ctx, r, &q);
  if (r->failed) return raise_failure(L, ctx);
  return wait_for_more(L, ctx, r, &q); /* another task took it meanwhile */
}

static const l_wait_kind reading = {wait_finish, wait_abandon, "data of a stream"};

static int wait_for_more(lua_State *L, al_ctx *ctx, l_reader *r, const request *q) {
  if (r->waiting)
    return al_raise(L, ctx, AL_C_RuntimeError,
                    "%s() called while another coroutine is already waiting for incoming data", method_names[q->kind]);
  if (r->paused) resume_transport(r);
  r->asked = *q;
  r->waiting = true;
  return al_wait(L, ctx, &r->wait, &reading);
}

/* Answers the request now, or as soon as it can be. The reader is at 1. */
static int ask(lua_State *L, al_ctx *ctx, l_reader *r, request *q) {
  if (is_ready(r, q)) return deliver(L, ctx, r, q);
  return wait_for_more(L, ctx, r, q);
}

/* ---- methods that wait ------------------------------------------------------------------------------------------- */

/* The reader at 1, which has not failed, in a task that may wait. */
static l_reader *begin(lua_State *L, al_ctx *ctx, const char *name) {
  l_reader *r = check_self(L);
  al_check_wait(L, ctx, name);
  return r;
}

/* read([n]): at most n bytes as soon as there are some, nil at the end; without n (or below 0) all up to the end. */
static int reader_read(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_reader *r = begin(L, ctx, "read");
  lua_Integer n = al_optinteger(L, 2, -1);
  if (r->failed) return raise_failure(L, ctx);
  if (n == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  request q = {.kind = n < 0 ? ALL : SOME, .u.n = (size_t)n};
  return ask(L, ctx, r, &q);
}

static int reader_readexactly(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_reader *r = begin(L, ctx, "readexactly");
  lua_Integer n = al_checkinteger(L, 2);
  if (n < 0) return al_raise(L, ctx, AL_C_ValueError, "readexactly size can not be less than zero");
  if (r->failed) return raise_failure(L, ctx);
  request q = {.kind = EXACTLY, .u.n = (size_t)n};
  return ask(L, ctx, r, &q);
}

/* readline(): also the iterator of lines(), so what else it is called with is not looked at. */
static int reader_readline(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_reader *r = begin(L, ctx, "readline");
  if (r->failed) return raise_failure(L, ctx);
  request q = {.kind = LINE, .separators.one = "\n", .one_len = 1, .n_separators = 1};
  return ask(L, ctx, r, &q);
}

static size_t check_separator(lua_State *L, al_ctx *ctx, size_t len) {
  if (len == 0) al_raise(L, ctx, AL_C_ValueError, "Separator should be at least one-byte string");
  if (len > UINT32_MAX) al_argerror(L, 2, "too long a separator");
  return len;
}

static void take_one(lua_State *L, al_ctx *ctx, request *q, int idx) {
  size_t len;
  q->separators.one = lua_tolstring(L, idx, &len);
  q->one_len = (uint32_t)check_separator(L, ctx, len);
  q->n_separators = 1;
}

/* Pushes a copy of the list at 2: the script may change its own while this one is in use. */
static void take_list(lua_State *L, al_ctx *ctx, request *q) {
  lua_Integer n = luaL_len(L, 2);
  size_t total = 0, shortest = SIZE_MAX, longest = 0;
  if (n < 1) al_raise(L, ctx, AL_C_ValueError, "Separator should contain at least one element");
  luaL_argcheck(L, n <= MAX_SEPARATORS, 2, "too many separators");
  for (lua_Integer i = 1; i <= n; i++, lua_pop(L, 1)) {
    if (lua_geti(L, 2, i) != LUA_TSTRING)
      al_argerror(L, 2, lua_pushfstring(L, "string expected as separator %d, got %s", (int)i, luaL_typename(L, -1)));
    size_t len = check_separator(L, ctx, lua_rawlen(L, -1));
    if (len < shortest) shortest = len;
    if (len > longest) longest = len;
    total += len;
  }
  separators *many = lua_newuserdatauv(L, sizeof *many + (size_t)n * sizeof *many->list + total, 0);
  many->shortest = shortest;
  many->longest = longest;
  char *text = (char *)(many->list + n);
  for (lua_Integer i = 0; i < n; i++, lua_pop(L, 1)) {
    lua_geti(L, 2, i + 1);
    size_t len = lua_type(L, -1) == LUA_TSTRING ? lua_rawlen(L, -1) : 0;
    if (len == 0 || len > total) luaL_error(L, "the list of separators changes while it is read");
    total -= len;
    many->list[i] = (separator){memcpy(text, lua_tostring(L, -1), len), len};
    text += len;
  }
  q->separators.many = many;
  q->n_separators = (unsigned)n & 0x3fff;
}

/* readuntil([separator = "\n" or list of separators]) */
static int reader_readuntil(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_reader *r = begin(L, ctx, "readuntil");
  request q = {.kind = UNTIL, .separators.one = "\n", .one_len = 1, .n_separators = 1};
  lua_settop(L, 2);
  int type = lua_type(L, 2);
  if (type == LUA_TTABLE && luaL_len(L, 2) == 1 && lua_geti(L, 2, 1) == LUA_TSTRING) {
    take_one(L, ctx, &q, 3); /* which stays on the stack */
  } else if (type == LUA_TTABLE) {
    lua_settop(L, 2);
    take_list(L, ctx, &q);
  } else if (type == LUA_TSTRING) {
    take_one(L, ctx, &q, 2);
  } else if (type != LUA_TNIL) {
    return al_typeerror(L, 2, "string or list of strings");
  }
  if (r->failed) return raise_failure(L, ctx);
  return ask(L, ctx, r, &q);
}

/* for line in reader:lines() do */
static int reader_lines(lua_State *L) {
  check_self(L);
  lua_getfield(L, 1, "readline");
  lua_pushvalue(L, 1);
  return 2;
}

/* ---- methods that don't ------------------------------------------------------------------------------------------ */

static int reader_at_eof(lua_State *L) {
  const l_reader *r = check_self(L);
  lua_pushboolean(L, r->eof && held(r) == 0);
  return 1;
}

static int reader_feed_data(lua_State *L) {
  al_ctx *ctx = al_ctx_of(L);
  l_reader *r = check_self(L);
  size_t len;
  const char *data = al_check_bytes(L, ctx, 2, &len);
  if (r->eof) return al_raise(L, ctx, AL_C_RuntimeError, "feed_data after feed_eof");
  if (al_reader_feed(ctx, r, data, len) < 0) return luaL_error(L, "not enough memory");
  return 0;
}

static int reader_feed_eof(lua_State *L) {
  al_reader_feed_eof(check_self(L));
  return 0;
}

static int reader_exception(lua_State *L) {
  check_self(L);
  if (!al_reader_push_exception(L, al_ctx_of(L), 1)) lua_pushnil(L);
  return 1;
}

static int reader_set_exception(lua_State *L) {
  check_self(L);
  if (lua_isnoneornil(L, 2)) return al_typeerror(L, 2, "error");
  lua_settop(L, 2);
  al_reader_set_exception(L, 1);
  return 0;
}

/* Here, as in asyncio, for who puts a reader to use without StreamReaderProtocol. */
static int reader_set_transport(lua_State *L) {
  l_reader *r = check_self(L);
  l_transport *t = al_check_transport(L, 2);
  if (r->transport) return al_raise(L, t->ctx, AL_C_RuntimeError, "Transport already set");
  al_reader_connect(r, t->t);
  return 0;
}

static void add_transport(luaL_Buffer *b, const l_reader *r) {
  char text[AL_TRANSPORT_STRLEN];
  if (!r->transport) return;
  luaL_addstring(b, " transport=");
  luaL_addstring(b, al_transport_describe(r->transport, al_transport_fd(r->transport), text, sizeof text));
}

static void add_exception(lua_State *L, luaL_Buffer *b, int exception) {
  if (lua_isnil(L, exception)) return;
  luaL_addstring(b, " exception=");
  luaL_tolstring(L, exception, NULL);
  luaL_addvalue(b);
}

static int reader_tostring(lua_State *L) {
  const l_reader *r = check_self(L);
  lua_settop(L, 1);
  if (!al_reader_push_exception(L, al_ctx_of(L), 1)) lua_pushnil(L);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "<StreamReader");
  if (held(r) > 0) {
    lua_pushfstring(L, " %I bytes", (LUAI_UACINT)held(r));
    luaL_addvalue(&b);
  }
  if (r->eof) luaL_addstring(&b, " eof");
  if (r->limit != AL_STREAM_LIMIT) {
    lua_pushfstring(L, " limit=%I", (LUAI_UACINT)r->limit);
    luaL_addvalue(&b);
  }
  if (r->waiting) luaL_addstring(&b, " waiting");
  add_exception(L, &b, 2);
  add_transport(&b, r);
  if (r->paused) luaL_addstring(&b, " paused");
  luaL_addstring(&b, ">");
  luaL_pushresult(&b);
  return 1;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

void al_reader_check_limit(lua_State *L, al_ctx *ctx, lua_Integer n) {
  if (n <= 0) al_raise(L, ctx, AL_C_ValueError, "Limit cannot be <= 0");
}

static l_reader *init(l_reader *r, size_t limit) {
  r->self = r;
  r->limit = limit;
  return r;
}

l_reader *al_reader_new(lua_State *L, al_ctx *ctx, size_t limit) {
  return init(al_new(L, ctx, AL_C_StreamReader, sizeof(l_reader), UV_COUNT), limit);
}

/* class, [{limit}] */
static int reader_new(lua_State *L) {
  static const char *const names[] = {"limit", NULL};
  al_ctx *ctx = al_ctx_of(L);
  lua_Integer limit = AL_STREAM_LIMIT;
  al_options(L, 2, "StreamReader", names);
  if (al_option(L, 2, "limit") != LUA_TNIL) {
    if (!al_isinteger(L, -1, &limit)) return al_option_error(L, "StreamReader", "limit", "integer", -1);
    al_reader_check_limit(L, ctx, limit);
  }
  init(al_new_instance(L, 1, AL_C_StreamReader, sizeof(l_reader), UV_COUNT), (size_t)limit);
  return 1;
}

static int reader_gc(lua_State *L) {
  l_reader *r = al_test_reader(L, 1);
  if (!r) return 0;
  drop_piece(al_ctx_of(L), r);
  al_reader_connect(r, NULL);
  r->self = NULL;
  return 0;
}

static const luaL_Reg methods[] = {{"__new", reader_new},
                                   {"read", reader_read},
                                   {"readline", reader_readline},
                                   {"readexactly", reader_readexactly},
                                   {"readuntil", reader_readuntil},
                                   {"lines", reader_lines},
                                   {"at_eof", reader_at_eof},
                                   {"feed_data", reader_feed_data},
                                   {"feed_eof", reader_feed_eof},
                                   {"exception", reader_exception},
                                   {"set_exception", reader_set_exception},
                                   {"set_transport", reader_set_transport},
                                   {"__gc", reader_gc},
                                   {"__tostring", reader_tostring},
                                   {NULL, NULL}};

void al_reader_openlib(lua_State *L, al_ctx *ctx) { al_class_methods(L, ctx, AL_C_StreamReader, methods); }
