/* io_probe.h - the tools of io_machines.c and io_endings.c: ops that count their completions, turns that wait for
 * something, pairs of sockets, and the runner of their tables. Includes headers of core that are not public, for the
 * seam is not.
 *
 * Each scenario has a loop of its own; after it no descriptor and no block may be left, and each op must have had
 * exactly one final completion.
 *
 * SPDX-License-Identifier: MIT */
#ifndef IO_PROBE_H
#define IO_PROBE_H

#include "addr.h"
#include "io.h"
#include "loop.h"
#include "sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- tools ------------------------------------------------------------------------------------------------------- */

static al_loop *loop;
static const char *machine_name, *scenario_name;

static inline void check(bool holds, const char *what, int line) {
  if (holds) return;
  fprintf(stderr, "io_machines.c:%d: %s, %s: not true: %s\n", line, machine_name, scenario_name, what);
  exit(1);
}
#define CHECK(cond) check(cond, #cond, __LINE__)

static inline bool on_machine(const char *name) { return !strcmp(machine_name, name); }

/* An op that counts its completions. */
typedef struct probe probe;
typedef void probe_fn(probe *self);
struct probe {
  al_op op;
  int mores, finals;
  int result; /* of the last completion */
  size_t bytes;
  probe_fn *then; /* called by each completion */
  void *arg;
  struct iovec iov[2];
};

static int order; /* counts completions of all probes */

static inline void probe_done(al_loop *in, al_op *op, int result, unsigned flags) {
  probe *self = AL_CONTAINER(op, probe, op);
  CHECK(in == loop && self->finals == 0);
  CHECK(al_op_is_idle(op) == !(flags & AL_OP_MORE));
  self->result = result;
  order++;
  if (flags & AL_OP_MORE)
    self->mores++;
  else
    self->finals++;
  if (op->kind == AL_OP_RECV && result > 0) {
    CHECK(flags & AL_OP_MORE && result <= AL_READ_SIZE);
    for (int i = 0; i < result; i++) CHECK(op->u.recv.data[i] == (char)((self->bytes + (size_t)i) % 251));
    self->bytes += (size_t)result;
  }
  if (self->then) self->then(self);
}

static inline probe make_probe(al_op_kind kind, int fd) {
  probe made = {.op = {.done = probe_done, .kind = (uint8_t)kind, .fd = fd}};
  return made;
}

static inline probe make_poll(int fd, uint8_t events) {
  probe made = make_probe(AL_OP_POLL, fd);
  made.op.events = events;
  return made;
}

static inline int submit(probe *self) {
  self->finals = 0;
  return loop->io->submit(loop, &self->op);
}
static inline void cancel(probe *self) { loop->io->cancel(loop, &self->op); }
static inline void close_fd(int fd) { loop->io->close_fd(loop, fd); }

static inline void turn(int64_t timeout_ns) { CHECK(al_loop_run_once(loop, timeout_ns) == 0); }
#define LONG_NS (2 * AL_NS_PER_SEC)
#define UNTIL(cond)                                             \
  do {                                                          \
    for (int n_ = 0; n_ < 5000 && !(cond); n_++) turn(LONG_NS); \
    CHECK(cond);                                                \
  } while (0)
/* Turns that have time to do what they should not. */
#define IDLE() \
  for (int i_ = 0; i_ < 3; i_++) turn(2000000)

static inline void end_op(probe *self) {
  if (!al_op_is_idle(&self->op)) cancel(self);
  UNTIL(al_op_is_idle(&self->op));
  CHECK(self->finals == 1);
}

static inline void pair(int fds[2]) { CHECK(al__sock_pair(AF_UNIX, SOCK_STREAM, fds) == 0); }

/* Writes len bytes of the pattern that probes expect, from the place at. */
static inline size_t put(int fd, size_t at, size_t len) {
  char block[4096];
  size_t done = 0;
  while (done < len) {
    size_t n = AL_MIN(len - done, sizeof(block));
    for (size_t i = 0; i < n; i++) block[i] = (char)((at + done + i) % 251);
    ssize_t sent = write(fd, block, n);
    if (sent <= 0) break;
    done += (size_t)sent;
  }
  return done;
}

static inline size_t take_all(int fd) {
  static char block[65536];
  size_t taken = 0;
  for (ssize_t n; (n = read(fd, block, sizeof(block))) > 0;) taken += (size_t)n;
  return taken;
}

static inline int listen_on(const al_addr *addr, int backlog, al_addr *bound) {
  int fd = al__sock_open(addr->ss.ss_family, SOCK_STREAM, 0);
  CHECK(fd >= 0 && al__sock_bind(fd, addr) == 0 && al__sock_listen(fd, backlog) == 0);
  CHECK(al__sock_name(fd, bound) == 0);
  return fd;
}

static inline int listen_tcp(int backlog, al_addr *bound) {
  al_addr addr;
  CHECK(al_addr_ip(&addr, "127.0.0.1", 0, 0, 0) == 0);
  return listen_on(&addr, backlog, bound);
}

/* An abstract name that the kernel chooses. */
static inline int listen_unix(int backlog, al_addr *bound) {
  al_addr addr = {.len = sizeof(sa_family_t)};
  addr.ss.ss_family = AF_UNIX;
  return listen_on(&addr, backlog, bound);
}

static inline int dial(const al_addr *addr) {
  int fd = al__sock_open(addr->ss.ss_family, SOCK_STREAM, 0);
  int err = al__sock_connect(fd, addr);
  CHECK(fd >= 0 && (err == 0 || err == -EINPROGRESS));
  return fd;
}

static inline void tcp_pair(int fds[2]) {
  al_addr bound;
  int listener = listen_tcp(1, &bound);
  fds[0] = dial(&bound);
  CHECK(poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 2000) == 1);
  fds[1] = al__sock_accept(listener, NULL);
  CHECK(fds[1] >= 0);
  close(listener);
}

static inline void shut(const int fds[2]) {
  close_fd(fds[0]);
  close_fd(fds[1]);
}

static char zeros[1 << 20];

static inline size_t fill(int fd) {
  size_t filled = 0;
  for (ssize_t n; (n = send(fd, zeros, sizeof(zeros), MSG_NOSIGNAL)) > 0;) filled += (size_t)n;
  return filled;
}

static inline void keep_accepted(probe *self) {
  if (self->result < 0) return;
  int *fds = self->arg;
  fds[self->bytes++] = self->result;
  CHECK(fcntl(self->result, F_GETFL) & O_NONBLOCK);
  CHECK(fcntl(self->result, F_GETFD) & FD_CLOEXEC);
  al_addr peer;
  CHECK(al__sock_peer(self->result, &peer) == 0 && al__addr_equal(&peer, self->op.u.accept.peer));
}

typedef struct scenario {
  const char *name;
  void (*run)(void);
} scenario;
#define SCENARIO(name) \
  { #name, name }
extern const scenario scenarios[];
extern const size_t n_scenarios;

static inline int count_fds(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static inline void run(size_t i) {
  size_t live, live_after;
  al_loop_stats stats;
  scenario_name = scenarios[i].name;
  al_mem_stats(&live, NULL);
  int fds = count_fds();
  CHECK(al_loop_new(&(al_loop_options){.machine = machine_name, .debug = true}, &loop, NULL) == 0);
  alarm(60);
  scenarios[i].run();
  al_loop_get_stats(loop, &stats);
  CHECK(stats.ops == 0);
  al_loop_release(loop);
  al_mem_stats(&live_after, NULL);
  CHECK(live == live_after);
  CHECK(fds == count_fds());
}

static inline int run_machine(const char *name, const char *only) {
  int n = 0;
  al_loop *probing;
  const char *reason = NULL;
  machine_name = name;
  int err = al_loop_new(&(al_loop_options){.machine = name}, &probing, &reason);
  if (err == AL_ENORING) {
    printf("no %s: %s\n", name, reason);
    return 0;
  }
  scenario_name = "al_loop_new";
  CHECK(err == 0);
  al_loop_release(probing);
  for (size_t i = 0; i < n_scenarios; i++) {
    if (only && strcmp(only, scenarios[i].name) != 0) continue;
    run(i);
    n++;
  }
  return n;
}

static inline int run_scenarios(int argc, char **argv) {
  static const char *const names[] = {"epoll", "poll", "select", "uring"};
  struct rlimit limit;
  int n = 0;
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = AL_MIN(limit.rlim_max, 4096);
  setrlimit(RLIMIT_NOFILE, &limit);
  for (size_t i = 0; i < AL_COUNT(names); i++)
    if (argc < 2 || !strcmp(argv[1], names[i])) n += run_machine(names[i], argc > 2 ? argv[2] : NULL);
  printf("ok %d tests\n", n);
  return 0;
}

#endif
