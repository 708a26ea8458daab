/* lquery.c - questions to a running interpreter. The signal handler does what a handler may: it notes the
 * question, asks Lua for a hook, and wakes the loop through an eventfd. So a question is answered at once while
 * Lua code runs, be it stuck in a loop, and from the loop's turn while the loop waits; who comes first answers.
 * Nothing is made for it before somebody asks but the two handlers and the eventfd.
 *
 * The answer to another process goes into a memory file whose descriptor is sent: one message that never blocks,
 * however long the answer is and whatever the asker does.
 *
 * What it knows stands in variables of the process, as signals are the process's.
 *
 * SPDX-License-Identifier: MIT */
#include "lquery.h"

#include "lloop.h"
#include "ltask.h"
#include "lwatchdog.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ASKED_HERE = 1, ASKED_THERE = 2, ASKED_BY_WATCHDOG = 4 };
enum { MAX_ASKERS = 4, MAX_THREADS = AL_MAX_DEPTH + 5, MAX_INLINE = 32 * 1024 };

static atomic_uint asked; /* what is not answered yet */

/* Processes that wait for an answer. pid 0: the place is free; -1: it is being filled. */
static struct asker {
  atomic_int pid;
  atomic_ullong number;
} askers[MAX_ASKERS];

static _Atomic(al_ctx *) host; /* whom to ask; NULL: nobody (yet, or any more) */
static lua_State *host_L;      /* what follows is set before host is */
static pthread_t thread;

static l_loop *attached; /* watches wake_fd */
static al_handle reader;
static atomic_int wake_fd = -1;

/* The hooks that ours took the place of. */
static struct former {
  lua_State *L;
  lua_Hook hook;
  int mask, count;
} formers[MAX_THREADS];
static int n_formers;

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

static void interrupted(lua_State *L, lua_Debug *ar);

/* The threads of the state that may be running now; their number. */
static int running_threads(const al_ctx *ctx, lua_State **threads) {
  int n = 0;
  threads[n++] = ctx->main;
  threads[n++] = host_L;
  for (int i = 0; i <= ctx->depth && i < AL_MAX_DEPTH; i++) threads[n++] = ctx->threads[i];
  if (ctx->current && ctx->current->co) threads[n++] = ctx->current->co;
  if (ctx->co_top) threads[n++] = ctx->co_top;
  if (ctx->innermost) threads[n++] = ctx->innermost;
  return n;
}

/* In the signal handler, or with our signals blocked. lua_sethook may be called from signal handlers. */
static void set_hooks(const al_ctx *ctx) {
  lua_State *threads[MAX_THREADS];
  for (int i = running_threads(ctx, threads) - 1; i >= 0; i--) {
    lua_State *L = threads[i];
    if (!L || lua_gethook(L) == interrupted) continue;
    if (n_formers < MAX_THREADS && lua_gethook(L))
      formers[n_formers++] = (struct former){L, lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
    lua_sethook(L, interrupted, LUA_MASKCOUNT, 1);
  }
}

static void restore_hook(lua_State *L) {
  if (!L || lua_gethook(L) != interrupted) return;
  for (int i = 0; i < n_formers; i++) {
    const struct former *f = &formers[i];
    if (f->L != L) continue;
    lua_sethook(L, f->hook, f->mask, f->count);
    return;
  }
  lua_sethook(L, NULL, 0, 0);
}

/* A thread that is no longer among those that may run keeps the hook, which takes itself away when it runs again. */
static void restore_hooks(const al_ctx *ctx, lua_State *L) {
  lua_State *threads[MAX_THREADS];
  restore_hook(L);
  for (int i = running_threads(ctx, threads) - 1; i >= 0; i--) restore_hook(threads[i]);
  n_formers = 0;
}

static void block_signals(sigset_t *old) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGQUIT);
  sigaddset(&set, AL_QUERY_SIGNAL);
  sigaddset(&set, SIGINT); /* whose handler sets hooks too */
  pthread_sigmask(SIG_BLOCK, &set, old);
}

/* ---- in the signal handler --------------------------------------------------------------------------------------- */

/* A process asks again until it is answered: its question is noted once. */
static bool note_asker(int pid, unsigned long long number) {
  for (int i = 0; i < MAX_ASKERS; i++)
    if (atomic_load(&askers[i].pid) == pid && atomic_load(&askers[i].number) == number) return true;
  for (int i = 0; i < MAX_ASKERS; i++) {
    int free_place = 0;
    if (!atomic_compare_exchange_strong(&askers[i].pid, &free_place, -1)) continue;
    atomic_store(&askers[i].number, number);
    atomic_store(&askers[i].pid, pid);
    return true;
  }
  return false;
}

static bool note(int signum, const siginfo_t *info) {
  if (signum == SIGQUIT) {
    atomic_fetch_or(&asked, ASKED_HERE);
  } else if (info->si_code == SI_QUEUE && info->si_pid > 0) {
    if (note_asker(info->si_pid, (uintptr_t)info->si_value.sival_ptr)) atomic_fetch_or(&asked, ASKED_THERE);
  }
  return atomic_load(&asked) != 0;
}

static void on_signal(int signum, siginfo_t *info, void *extra) {
  (void)extra;
  int saved = errno;
  bool any = note(signum, info);
  const al_ctx *ctx = atomic_load(&host);
  if (any && ctx && !pthread_equal(pthread_self(), thread)) {
    pthread_kill(thread, AL_QUERY_SIGNAL);
  } else if (any && ctx) {
    static const uint64_t one = 1;
    int fd = atomic_load(&wake_fd);
    set_hooks(ctx);
    if (fd >= 0 && write(fd, &one, sizeof one) < 0) errno = saved; /* full: the loop is awake */
  }
  errno = saved;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

void al_query_write(int fd, const char *text, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, text, len);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (n >= 0) {
      text += n;
      len -= (size_t)n;
    } else if (errno != EINTR && (errno != EAGAIN || poll(&ready, 1, 1000) <= 0)) {
      return;
    }
  }
}

/* [1] kind (a C string), [2] interrupted → text. Doesn't go by the global require, which is the script's to replace. */
static int answer_body(lua_State *L) {
  static const char name[] = "aloop.tools";
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, 3, name) == LUA_TNIL) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_getfield(L, -1, name);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 3, name);
  }
  lua_getfield(L, -1, "answer");
  lua_pushstring(L, lua_touserdata(L, 1));
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  luaL_checkstring(L, -1);
  return 1;
}

const char *al_query_push_answer(lua_State *L, const char *kind, bool was_interrupted, size_t *len) {
  static const char none[] = ": the answer can't be made, perhaps for want of memory\n";
  lua_pushcfunction(L, answer_body);
  lua_pushlightuserdata(L, (void *)kind); /* for it allocates nothing here */
  lua_pushboolean(L, was_interrupted);
  if (lua_pcall(L, 2, 1, 0) == LUA_OK) return lua_tolstring(L, -1, len);
  lua_pop(L, 1);
  lua_pushnil(L);
  *len = sizeof none - 1;
  return none;
}

static void connect_name(struct sockaddr_un *addr, socklen_t *len, int pid, unsigned long long number) {
  *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
  int n = snprintf(addr->sun_path + 1, sizeof addr->sun_path - 1, AL_QUERY_NAME, pid, number);
  *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* A connection to the asker, if it is the one who asked and of our user; else -1. */
static int connect_to(int pid, unsigned long long number) {
  struct sockaddr_un addr;
  struct ucred peer;
  socklen_t len, peer_len = sizeof peer;
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  connect_name(&addr, &len, pid, number);
  if (connect(fd, (struct sockaddr *)&addr, len) == 0 &&
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) == 0 && peer.uid == geteuid() && peer.pid == pid)
    return fd;
  close(fd);
  return -1;
}

/* A memory file with the text, or -1. */
static int file_of(const char *text, size_t len) {
  int fd = memfd_create("aloop answer", MFD_CLOEXEC);
  if (fd >= 0) al_query_write(fd, text, len);
  return fd;
}

static void send_answer(int fd, const char *text, size_t len) {
  int file = file_of(text, len);
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {.bytes = {0}};
  struct iovec iov = {(void *)(file >= 0 ? "\n" : text), file >= 0 ? 1 : len > MAX_INLINE ? MAX_INLINE : len};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (file >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &file, sizeof file);
  }
  if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) errno = 0; /* who doesn't listen gets no answer */
  if (file >= 0) close(file);
}

static void answer_here(lua_State *L, bool was_interrupted) {
  char head[80];
  size_t len;
  int top = lua_gettop(L);
  const char *text = al_query_push_answer(L, "pstree", was_interrupted, &len);
  fflush(stderr);
  al_query_write(STDERR_FILENO, head,
                 (size_t)snprintf(head, sizeof head, "aloop: tasks of process %d: ", (int)getpid()));
  al_query_write(STDERR_FILENO, text, len);
  lua_settop(L, top);
}

static void answer_askers(lua_State *L, bool was_interrupted) {
  int top = lua_gettop(L);
  for (int i = 0; i < MAX_ASKERS; i++) {
    int pid = atomic_load(&askers[i].pid);
    if (pid <= 0) continue;
    unsigned long long number = atomic_load(&askers[i].number);
    atomic_store(&askers[i].pid, 0);
    int fd = connect_to(pid, number);
    if (fd < 0) continue;
    size_t len;
    const char *kind = (number & AL_QUERY_KIND) == AL_QUERY_LIST ? "ps" : "pstree";
    const char *text = al_query_push_answer(L, kind, was_interrupted, &len);
    send_answer(fd, text, len);
    close(fd);
    lua_settop(L, top);
  }
}

/* Answers all that is asked. was_interrupted: out of Lua code that runs in L. Never throws. */
static void answer_all(lua_State *L, bool was_interrupted) {
  unsigned what = atomic_exchange(&asked, 0);
  if (!what || !lua_checkstack(L, LUA_MINSTACK)) return;
  if (what & ASKED_BY_WATCHDOG) al_watchdog_answer(L, was_interrupted);
  if (what & ASKED_HERE) answer_here(L, was_interrupted);
  if (what & ASKED_THERE) answer_askers(L, was_interrupted);
}

/* The hook: Lua code runs. */
static void interrupted(lua_State *L, lua_Debug *ar) {
  (void)ar;
  sigset_t old;
  const al_ctx *ctx = atomic_load(&host);
  if (!ctx) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  block_signals(&old);
  restore_hooks(ctx, L);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  answer_all(L, true);
}

/* The eventfd is readable: the loop turns. */
static void query_on_wake(al_loop *loop, al_handle *handle) {
  (void)loop, (void)handle;
  uint64_t n;
  al_ctx *ctx = atomic_load(&host);
  if (read(atomic_load(&wake_fd), &n, sizeof n) < 0 || !ctx) return;
  lua_State *L = al_enter(ctx);
  if (!L) return;
  answer_all(L, false);
  al_leave(ctx, L);
}

/* ---- for others -------------------------------------------------------------------------------------------------- */

void al_query_again(void) {
  sigset_t old;
  const al_ctx *ctx = atomic_load(&host);
  if (!ctx || !atomic_load(&asked)) return;
  block_signals(&old);
  set_hooks(ctx);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void al_query_ask_watchdog(void) {
  atomic_fetch_or(&asked, ASKED_BY_WATCHDOG);
  if (atomic_load(&host)) pthread_kill(thread, AL_QUERY_SIGNAL);
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

static void drop_wake_fd(void) {
  int fd = atomic_exchange(&wake_fd, -1);
  if (fd < 0) return;
  if (attached && attached->loop && !al_loop_is_closed(attached->loop)) al_remove_reader(attached->loop, fd);
  close(fd);
  attached = NULL;
}

void al_query_attach(al_ctx *ctx, l_loop *loop) {
  if (ctx != atomic_load(&host) || attached == loop) return;
  drop_wake_fd();
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return; /* a question is then answered when Lua code runs next */
  al_handle *none;
  al_handle_init(&reader, query_on_wake);
  if (al_add_reader(loop->loop, fd, &reader, &none) < 0) {
    close(fd);
    return;
  }
  attached = loop;
  atomic_store(&wake_fd, fd);
  if (atomic_load(&asked)) eventfd_write(fd, 1);
}

void al_query_detach(al_ctx *ctx, l_loop *loop) {
  if (ctx == atomic_load(&host) && attached == loop) drop_wake_fd();
}

bool al_query_is_attached(const l_loop *loop) { return attached == loop; }

/* ---- life -------------------------------------------------------------------------------------------------------- */

/* SIGQUIT is taken even if it was ignored, as a shell has it for what it starts in the background. */
void al_query_early(void) {
  static const int signals[] = {SIGQUIT, AL_QUERY_SIGNAL};
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
  sigfillset(&action.sa_mask);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}

void al_query_end(void) {
  drop_wake_fd();
  atomic_store(&host, NULL);
}

static int on_close(lua_State *L) {
  (void)L;
  al_query_end();
  return 0;
}

/* Its finalizer ends it all before a state that is closed by os.exit goes. */
void al_query_begin(lua_State *L, al_ctx *ctx) {
  lua_newuserdatauv(L, 1, 0);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, on_close);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &host);
  host_L = L;
  thread = pthread_self();
  atomic_store(&host, ctx);
  al_query_again();
}
