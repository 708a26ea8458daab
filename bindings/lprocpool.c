/* lprocpool.c - the processes behind a ProcessPoolExecutor. Each is served by one thread of the pool, which starts
 * it, sends it a call, waits for the outcome, and buries it: so nothing here runs in a loop, and none is needed.
 * Knows no Lua state.
 *
 * A worker's end is seen as the end of its socket. Its process is a child of the thread that serves it, and is killed
 * if that goes, which is no sooner than the process of the pool does.
 *
 * SPDX-License-Identifier: MIT */
#include "lprocpool.h"

#include "lframe.h"
#include "lpool.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the program ------------------------------------------------------------------------------------------------- */

static const char self[] = "/proc/self/exe";
static bool self_is_interpreter;

void al_procpool_allow_self(void) { __atomic_store_n(&self_is_interpreter, true, __ATOMIC_RELAXED); }

/* lua, lua5.4, lua-5.4 */
static bool is_plain_lua(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  return strncmp(name, "lua", 3) == 0 && name[3 + strspn(name + 3, "-.0123456789")] == '\0';
}

/* The shared library that this code is in; NULL: it is in the program. */
static const char *own_library(void) {
  Dl_info info;
  if (!dladdr(self, &info) || !info.dli_fname) return NULL;
  size_t len = strlen(info.dli_fname);
  return len > 3 && strcmp(info.dli_fname + len - 3, ".so") == 0 ? info.dli_fname : NULL;
}

const char *al_procpool_push_program(lua_State *L, al_ctx *ctx, const char *executable) {
  char path[4096];
  ssize_t len;
  if (executable) {
    if (!is_plain_lua(executable) || own_library()) return lua_pushstring(L, executable);
    al_raise(L, ctx, AL_C_ValueError, "the executable must be an aloop interpreter, not '%s'", executable);
  }
  if (__atomic_load_n(&self_is_interpreter, __ATOMIC_RELAXED)) return lua_pushstring(L, self);
  len = readlink(self, path, sizeof path - 1);
  if (len > 0) {
    path[len] = '\0';
    if (is_plain_lua(path) && own_library()) return lua_pushstring(L, path);
  }
  al_raise(L, ctx, AL_C_NotImplementedError,
           "this program is no interpreter that worker processes could run; name one by the option 'executable'");
  return NULL;
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

typedef struct process {
  pid_t pid;
  int fd;           /* our end of the socket */
  int pidfd;        /* or -1 */
  bool interrupted; /* by us: there is no reason to look for */
} process;

extern char **environ;

/* SIGINT, which a terminal sends to the whole group, is blocked until the worker has a handler. */
static int set_attributes(posix_spawnattr_t *attributes) {
  sigset_t all, interrupt;
  sigfillset(&all);
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  int err = posix_spawnattr_setsigdefault(attributes, &all);
  if (!err) err = posix_spawnattr_setsigmask(attributes, &interrupt);
  if (!err) err = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  return err;
}

static int spawn_with(char *const argv[], const posix_spawnattr_t *attributes, int fd, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  int err = posix_spawn_file_actions_init(&actions);
  if (err) return err;
  err = posix_spawn_file_actions_adddup2(&actions, fd, AL_FRAME_FD);
  if (!err) err = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (!err) err = posix_spawnp(pid, argv[0], &actions, attributes, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  return err;
}

static int spawn(char *const argv[], int fd, pid_t *pid) {
  posix_spawnattr_t attributes;
  int err = posix_spawnattr_init(&attributes);
  if (err) return err;
  err = set_attributes(&attributes);
  if (!err) err = spawn_with(argv, &attributes, fd, pid);
  posix_spawnattr_destroy(&attributes);
  return err;
}

/* Starts the program as a worker, with this descriptor as its end. 0 or an errno. */
static int start(const char *program, int fd, pid_t *pid) {
  if (!is_plain_lua(program)) return spawn((char *[]){(char *)program, "--worker", NULL}, fd, pid);
  char *code = NULL;
  if (asprintf(&code, "package.loadlib([==[%s]==], 'luaopen_aloop_worker')()", own_library()) < 0) return ENOMEM;
  int err = spawn((char *[]){(char *)program, "-E", "-e", code, NULL}, fd, pid);
  free(code);
  return err;
}

static size_t size_of(const char *text) { return text ? strlen(text) + 2 : 1; }

static char *put_text(char *to, const char *text) {
  *to++ = text != NULL;
  return text ? stpcpy(to, text) + 1 : to;
}

/* What lprocworker.c takes apart: a string, two flags, three strings. */
static al_parcel *pack(const al_worker_setup *setup) {
  char banner[64];
  al_frame_banner(banner, sizeof banner);
  size_t len = size_of(banner) + 2 + size_of(setup->path) + size_of(setup->cpath) + size_of(setup->machine);
  al_parcel *parcel = al_parcel_from_bytes(NULL, len);
  if (!parcel) return NULL;
  char *to = put_text(al_parcel_room(parcel), banner);
  *to++ = setup->no_environment;
  *to++ = setup->debug;
  put_text(put_text(put_text(to, setup->path), setup->cpath), setup->machine);
  return parcel;
}

/* 0, or an errno; *to is its socket and its number. */
static int make(const al_worker_setup *setup, const char *program, process *to) {
  int ends[2];
  al_parcel *packed = pack(setup);
  if (!packed) return ENOMEM;
  int err = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ? errno : 0;
  if (err) goto done;
  err = start(program, ends[1], &to->pid);
  close(ends[1]);
  to->fd = ends[0];
  if (err) {
    close(ends[0]);
  } else {
    to->pidfd = (int)syscall(SYS_pidfd_open, to->pid, 0); /* close-on-exec; it fails in old kernels */
    al_frame_send(to->fd, AL_FRAME_SETUP, packed);        /* if it fails, so does what is sent next */
  }
done:
  al_parcel_free(packed);
  return err;
}

static void *open_process(al_worker_setup *setup, const char *program, char *why) {
  process *p = calloc(1, sizeof *p);
  int err = p ? make(setup, program, p) : ENOMEM;
  al_worker_setup_free(setup);
  if (!err) return p;
  snprintf(why, AL_WHY, "a worker process can't be started: %s", al_strerror(-err));
  free(p);
  return NULL;
}

/* ---- the end of one ---------------------------------------------------------------------------------------------- */

static void tell(const process *p, const siginfo_t *info, char *why) {
  if (info->si_code == CLD_EXITED) {
    snprintf(why, AL_WHY, "worker process %d ended with exit code %d", (int)p->pid, info->si_status);
  } else {
    const char *name = sigabbrev_np(info->si_status);
    snprintf(why, AL_WHY, "worker process %d was killed by SIG%s", (int)p->pid, name ? name : "?");
  }
}

/* Its socket has ended: so has it, or will soon. Waits for that at most so long; reaps nothing. */
static void find_why(const process *p, int patience_ms, char *why) {
  for (;; patience_ms--) {
    siginfo_t info = {0};
    int err = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOWAIT | WNOHANG);
    if (err == 0 && info.si_pid == p->pid) {
      tell(p, &info, why);
      return;
    }
    if (err < 0 || patience_ms <= 0) break;
    poll(NULL, 0, 1);
  }
  snprintf(why, AL_WHY, "worker process %d has gone away", (int)p->pid);
}

enum { PATIENCE_MS = 500 };

static bool is_lost(void *worker, char *why) {
  const process *p = worker;
  char byte;
  ssize_t n = recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  find_why(p, 0, why);
  return true;
}

static void interrupt(void *worker) {
  process *p = worker;
  __atomic_store_n(&p->interrupted, true, __ATOMIC_RELAXED);
  shutdown(p->fd, SHUT_RDWR);
}

/* Where SIGCHLD is ignored, nobody reaps it, and its number may be another's by now: hence the descriptor. */
static void kill_process(const process *p) {
  if (p->pidfd >= 0) {
    syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
  } else {
    kill(p->pid, SIGKILL);
  }
}

static void close_process(void *worker, bool broken) {
  process *p = worker;
  if (broken) kill_process(p);
  close(p->fd);
  if (p->pidfd >= 0) close(p->pidfd);
  while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) continue;
  free(p);
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

/* Sends a frame and waits for its answer. 0, -ENOMEM: there is no memory for the answer; or -EPIPE: the worker is
 * lost. */
static int ask(const process *p, al_frame_kind kind, const al_parcel *parcel, al_frame_kind *answer,
               al_parcel **outcome, char *why) {
  int err = al_frame_send(p->fd, kind, parcel);
  if (!err) err = al_frame_receive(p->fd, answer, outcome);
  if (!err && *answer != AL_FRAME_DONE && *answer != AL_FRAME_FAILED) {
    al_parcel_free(*outcome);
    err = -EPIPE;
  }
  if (!err || err == -ENOMEM) return err;
  if (!__atomic_load_n(&p->interrupted, __ATOMIC_RELAXED)) find_why(p, PATIENCE_MS, why);
  return -EPIPE;
}

static bool initialize(void *worker, const al_parcel *call, char *why) {
  const process *p = worker;
  al_frame_kind answer;
  al_parcel *outcome = NULL;
  int err = ask(p, AL_FRAME_INITIALIZE, call, &answer, &outcome, why);
  al_parcel_free(outcome);
  if (err == -EPIPE) return false;
  if (err == 0 && answer == AL_FRAME_DONE) return true;
  snprintf(why, AL_WHY, "the initializer has failed in worker process %d", (int)p->pid);
  return false;
}

/* An empty parcel stands for none. */
static al_parcel *non_empty(al_parcel *parcel) {
  size_t len;
  al_parcel_bytes(parcel, &len);
  if (len > 0) return parcel;
  al_parcel_free(parcel);
  return NULL;
}

static bool run(void *worker, al_pool_job *job, char *why) {
  const process *p = worker;
  al_frame_kind answer;
  al_parcel *outcome = NULL;
  int err = ask(p, AL_FRAME_CALL, job->call, &answer, &outcome, why);
  if (err == -EPIPE) return false;
  al_parcel_free(job->call);
  job->call = NULL;
  job->f.pid = (int)p->pid;
  if (err) {
    al_cfuture_fail(&job->f, NULL);
  } else if (answer == AL_FRAME_FAILED) {
    al_cfuture_fail(&job->f, non_empty(outcome));
  } else {
    al_cfuture_finish(&job->f, non_empty(outcome));
  }
  return true;
}

const al_worker_ops al_process_workers = {
    .local = false,
    .broken = AL_C_BrokenProcessPool,
    .message = "A process in the process pool was terminated abruptly, the pool is not usable anymore: %s",
    .open = open_process,
    .initialize = initialize,
    .run = run,
    .close = close_process,
    .is_lost = is_lost,
    .interrupt = interrupt};
