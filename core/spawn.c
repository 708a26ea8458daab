/* spawn.c - making a child process, up to the moment when its program runs.
 *
 * The child shares our memory, on a stack of its own, while the calling thread stands still (CLONE_VM, CLONE_VFORK):
 * no page table is copied, and what failed is simply written where we read it. The price is that nothing in the child
 * may touch what other threads, or this one later, rely on. So everything is prepared before, and what runs there
 *   - calls the kernel only, never libc (locks, and the sanitizers' interceptors, which keep books of our descriptors);
 *   - is not instrumented (IN_CHILD);
 *   - runs with all signals blocked until it has no handler left: one of ours must not run there.
 * (Under an emulator that makes a plain fork of this, what failed is lost: such a child ends with 127.)
 * A child that changes its user gets a copy of our memory instead, for who may signal or trace that user must not come
 * near it. It reports through a shared page.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "child.h"
#include "clone.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define IN_CHILD __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

#define STACK_SIZE (16 * 1024) /* the child's, of which it uses a tenth */
#define DEFAULT_PATH "/bin:/usr/bin"
#define CLOSE_AT_MOST 65536 /* descriptors, one by one, on kernels without close_range */

/* The kernel's own struct, for libc's sigaction is not to be called in the child. */
typedef struct kernel_sigaction {
  void *handler;
  unsigned long flags;
  void *restorer;
  uint64_t mask;
} kernel_sigaction;

typedef struct report { /* written by the child if it fails */
  int error;
  al_spawn_failure where;
} report;

typedef struct plan { /* all that the child needs */
  const al_spawn_options *options;
  int from[3];       /* the descriptor that becomes 0, 1, 2; or AL_STDIO_* other than PIPE */
  const char *paths; /* the files to try, each with its NUL */
  const char *const *env;
  size_t n_paths;
  bool clean; /* the child has no handlers of signals */
  report *report;
} plan;

/* ---- in the child ------------------------------------------------------------------------------------------------ */

#define SYSCALL(...) (syscall(__VA_ARGS__) < 0 ? -errno : 0)

/* Returns error, noted with its place. */
IN_CHILD static int failed(const plan *p, int error, al_spawn_step step, int fd) {
  p->report->where.step = step;
  p->report->where.fd = fd;
  p->report->error = error;
  return error;
}

/* Sets what the signal does in the child, and returns what it did before. */
IN_CHILD static void *set_signal(int signum, void *handler) {
  kernel_sigaction former = {.handler = (void *)SIG_DFL}, action = {.handler = handler};
  syscall(SYS_rt_sigaction, signum, &action, &former, sizeof(action.mask));
  return former.handler;
}

/* What we handle is default in the child, what we ignore stays so. */
IN_CHILD static void clear_handlers(void) {
  for (int signum = 1; signum < NSIG; signum++)
    if (set_signal(signum, (void *)SIG_DFL) == (void *)SIG_IGN) set_signal(signum, (void *)SIG_IGN);
}

IN_CHILD static void reset_signals(const plan *p) {
  if (!p->clean) clear_handlers();
  if (p->options->keep_signals) return;
  set_signal(SIGPIPE, (void *)SIG_DFL);
  set_signal(SIGXFSZ, (void *)SIG_DFL);
  set_signal(SIGCHLD, (void *)SIG_DFL);
}

IN_CHILD static int open_null(plan *p) {
  long fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
  for (int i = 0; i < 3; i++)
    if (p->from[i] == AL_STDIO_NULL) p->from[i] = (int)fd;
  return fd < 0 ? -errno : 0;
}

/* Sources below 3 that are to stand elsewhere are moved out of the way first. */
IN_CHILD static int lift_source(plan *p, int i) {
  int from = p->from[i];
  if (from == AL_STDIO_NULL) {
    int err = open_null(p);
    if (err) return err;
    from = p->from[i];
  }
  if (from < 0 || from > 2 || from == i) return 0;
  long lifted = syscall(SYS_fcntl, from, F_DUPFD_CLOEXEC, 3);
  if (lifted < 0) return -errno;
  for (int k = 0; k < 3; k++)
    if (p->from[k] == from && k != from) p->from[k] = (int)lifted;
  return 0;
}

IN_CHILD static int place_source(const plan *p, int i) {
  int from = p->from[i] == AL_STDIO_OUTPUT ? 1 : p->from[i];
  if (from == AL_STDIO_INHERIT) return 0;
  return from == i ? SYSCALL(SYS_fcntl, i, F_SETFD, 0) : SYSCALL(SYS_dup3, from, i, 0);
}

IN_CHILD static int set_stdio(plan *p) {
  int err = 0;
  for (int i = 0; i < 3; i++)
    if ((err = lift_source(p, i)) != 0) return failed(p, err, AL_SPAWN_STDIO, i);
  for (int i = 0; i < 3; i++)
    if ((err = place_source(p, i)) != 0) return failed(p, err, AL_SPAWN_STDIO, i);
  return 0;
}

IN_CHILD static int set_pass_fds(const plan *p) {
  const al_spawn_options *o = p->options;
  for (size_t i = 0; i < o->n_pass_fds; i++) {
    int err = SYSCALL(SYS_fcntl, o->pass_fds[i], F_SETFD, 0);
    if (err) return failed(p, err, AL_SPAWN_PASS_FDS, o->pass_fds[i]);
  }
  return 0;
}

/* The raw calls change the child alone, libc's would change all threads that it knows: ours. */
IN_CHILD static int set_identity(const plan *p) {
  const al_spawn_options *o = p->options;
  int err = 0;
  if (o->cwd && (err = SYSCALL(SYS_chdir, o->cwd)) != 0) return failed(p, err, AL_SPAWN_CWD, -1);
  if (o->set_umask) syscall(SYS_umask, o->umask);
  if (o->new_session && (err = SYSCALL(SYS_setsid)) != 0) return failed(p, err, AL_SPAWN_SESSION, -1);
  if (o->set_pgid && (err = SYSCALL(SYS_setpgid, 0, o->pgid)) != 0) return failed(p, err, AL_SPAWN_PGID, -1);
  if (o->set_groups && (err = SYSCALL(SYS_setgroups, o->n_groups, o->groups)) != 0)
    return failed(p, err, AL_SPAWN_GROUPS, -1);
  if (o->set_gid && (err = SYSCALL(SYS_setresgid, o->gid, o->gid, o->gid)) != 0)
    return failed(p, err, AL_SPAWN_GID, -1);
  if (o->set_uid && (err = SYSCALL(SYS_setresuid, o->uid, o->uid, o->uid)) != 0)
    return failed(p, err, AL_SPAWN_UID, -1);
  return 0;
}

IN_CHILD static void close_between(unsigned first, unsigned last) {
  if (first > last || syscall(SYS_close_range, first, last, 0) == 0) return;
  for (unsigned fd = first; fd <= last && fd < CLOSE_AT_MOST; fd++) syscall(SYS_close, fd);
}

IN_CHILD static void close_others(const plan *p) {
  unsigned first = 3;
  for (size_t i = 0; i < p->options->n_pass_fds; i++) {
    unsigned fd = (unsigned)p->options->pass_fds[i];
    if (fd < first) continue;
    close_between(first, fd - 1);
    first = fd + 1;
  }
  close_between(first, UINT_MAX);
}

/* As execvp: what is missing in one directory may be in the next; that something was there and would not run is told
 * only if nothing else does. */
IN_CHILD static int run_program(const plan *p) {
  int error = 0, last = -ENOENT;
  const char *path = p->paths;
  for (size_t i = 0; i < p->n_paths; i++) {
    syscall(SYS_execve, path, p->options->argv, p->env);
    last = -errno;
    if (last != -ENOENT && last != -ENOTDIR && !error) error = last;
    while (*path++) continue;
  }
  return failed(p, error ? error : last, AL_SPAWN_EXEC, -1);
}

IN_CHILD static int child_main(void *arg) {
  plan *p = arg;
  static const uint64_t no_signals = 0;
  reset_signals(p);
  if (set_stdio(p) == 0 && set_pass_fds(p) == 0 && set_identity(p) == 0) {
    if (!p->options->keep_fds) close_others(p);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, sizeof(no_signals));
    run_program(p);
  }
  for (;;) syscall(SYS_exit_group, 127);
  return 0; /* not reached */
}

/* ---- which files to try ------------------------------------------------------------------------------------------ */

static const char *find_variable(const char *const *env, const char *name) {
  size_t len = strlen(name);
  for (; *env; env++)
    if (!strncmp(*env, name, len) && (*env)[len] == '=') return *env + len + 1;
  return NULL;
}

/* Writes directory/program, or the program alone for the empty directory. */
static char *join_path(char *to, const char *directory, size_t len, const char *program, size_t program_len) {
  memcpy(to, directory, len);
  to += len;
  if (len) *to++ = '/';
  memcpy(to, program, program_len + 1);
  return to + program_len + 1;
}

/* The list of files for plan.paths; its memory is the caller's. */
static char *list_paths(plan *p, const char *program) {
  const char *path = strchr(program, '/') ? "" : find_variable(p->env, "PATH");
  if (!path) path = DEFAULT_PATH;
  size_t len = strlen(program), n = 1;
  for (const char *c = path; *c; c++) n += *c == ':';
  char *list = al__malloc(strlen(path) + n * (len + 2)), *end = list;
  if (!list) return NULL;
  p->n_paths = n;
  p->paths = list;
  for (; n > 0; n--) {
    size_t directory_len = strcspn(path, ":");
    end = join_path(end, path, directory_len, program, len);
    path += directory_len + 1;
  }
  return list;
}

/* ---- pipes ------------------------------------------------------------------------------------------------------- */

/* A descriptor that took the number of a standard one, because ours is closed, is moved: others write there. */
static int lift(int fd) {
  if (fd > 2) return fd;
  int lifted = fcntl(fd, F_DUPFD_CLOEXEC, 3), err = -errno;
  close(fd);
  return lifted < 0 ? err : lifted;
}

static int make_pipe(int fds[2]) {
  if (pipe2(fds, O_CLOEXEC) < 0) return -errno;
  fds[0] = lift(fds[0]);
  fds[1] = lift(fds[1]);
  int err = fds[0] < 0 ? fds[0] : fds[1] < 0 ? fds[1] : 0;
  if (!err) return 0;
  al__fd_close(fds[0]);
  al__fd_close(fds[1]);
  return err;
}

static void close_all(int fds[3]) {
  for (int i = 0; i < 3; i++) {
    al__fd_close(fds[i]);
    fds[i] = -1;
  }
}

/* Fills plan.from; ends[i] is the child's end of pipe i, to be closed here later; or -1. */
static int make_pipes(plan *p, int ours[3], int ends[3]) {
  for (int i = 0; i < 3; i++) {
    int fds[2], writes = i == 0;
    p->from[i] = p->options->stdio[i];
    if (p->from[i] != AL_STDIO_PIPE) continue;
    int err = make_pipe(fds);
    if (err) return err;
    ours[i] = fds[writes];
    p->from[i] = ends[i] = fds[!writes];
  }
  return 0;
}

/* ---- cloning ----------------------------------------------------------------------------------------------------- */

bool al__child_no_pidfd;

static bool changes_user(const al_spawn_options *o) { return o->set_uid || o->set_gid || o->set_groups; }

/* Blocks all signals, those of the threads' library too. */
static void block_signals(uint64_t *former) {
  static const uint64_t all = UINT64_MAX;
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, former, sizeof(all));
}

static void restore_signals(const uint64_t *former) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, former, NULL, sizeof(*former));
}

/* The child has ended, or runs its program, when this returns. A pidfd that can't be kept is as none. */
static int clone_child(plan *p, al__child *child) {
  char stack[STACK_SIZE] __attribute__((aligned(16)));
  uint64_t former;
  const al__clone_options options = {.begin = child_main,
                                     .arg = p,
                                     .clean = &p->clean,
                                     .stack = stack,
                                     .stack_size = sizeof(stack),
                                     .own_memory = changes_user(p->options),
                                     .old_kernel = al__child_no_pidfd};
  block_signals(&former);
  child->pid = al__clone(&options, &child->pidfd);
  restore_signals(&former);
  if (child->pid < 0) return child->pid;
  if (child->pidfd >= 0) child->pidfd = lift(child->pidfd);
  return 0;
}

static report *open_report(const plan *p, report *own) {
  if (!changes_user(p->options)) return own;
  void *page = mmap(NULL, sizeof(report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return page == MAP_FAILED ? NULL : page;
}

static int start_child(plan *p, al__child *child, al_spawn_failure *failure) {
  report own = {0}, *written = p->report = open_report(p, &own);
  if (!written) return -errno;
  int err = clone_child(p, child);
  if (!err && written->error) {
    err = written->error;
    *failure = written->where;
    al__child_bury(child);
    al__child_close(child);
  }
  if (written != &own) munmap(written, sizeof(*written));
  return err;
}

int al__spawn(const al_spawn_options *options, al__child *child, al_spawn_failure *failure) {
  plan p = {.options = options, .env = options->env ? options->env : (const char *const *)environ};
  int ends[3] = {-1, -1, -1};
  *child = (al__child){.pidfd = -1, .pipes = {-1, -1, -1}};
  *failure = (al_spawn_failure){AL_SPAWN_FORK, -1};
  char *paths = list_paths(&p, options->program ? options->program : options->argv[0]);
  int err = paths ? make_pipes(&p, child->pipes, ends) : -ENOMEM;
  if (!err) err = start_child(&p, child, failure);
  close_all(ends);
  al__free(paths);
  if (err) close_all(child->pipes);
  return err;
}
