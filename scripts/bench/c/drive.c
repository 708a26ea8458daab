/* drive.c - runs one server under one load: starts the server on its core, reads its address from its first line, runs
 * the load on the other core, ends the server. Called by the runner for each single measurement.
 *
 *   drive [-S core] [-L core] [-T seconds] [-r repeats] -- SERVER [ARG...] -- LOAD [ARG...]
 *
 * In the load's arguments @ADDR@ stands for the server's address and @PID@ for its process, in the server's @PATH@ for
 * a path that doesn't exist yet, in a directory that is removed afterwards. The load runs `repeats` times
 * (the earlier ones warm the server). After the output of the load a line follows: drive_cpu_ns=N drive_status=N, the
 * server's CPU during the last one and the load's exit status. Nothing that was started outlives it, and nothing runs
 * longer than the time limit.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDRESS_SIZE 256
#define PRIORITY -20   /* whoever else uses the machine shall disturb as little as can be */
#define START_MS 10000 /* a server says its address within this time */

static pid_t server_pid;
static volatile pid_t load_pid; /* for on_alarm; 0: none */
static char directory[] = "/tmp/aloop-bench-XXXXXX";

/* The load that dies of it ends all else. A server that doesn't start has a limit of its own. */
static void on_alarm(int sig) {
  (void)sig;
  static const char message[] = "drive: time limit\n";
  if (write(STDERR_FILENO, message, sizeof message - 1) < 0) return;
  if (load_pid) kill(load_pid, SIGKILL);
}

static int remove_one(const char *file, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)type, (void)ftw;
  return remove(file);
}

static void stop_server(void) {
  kill(server_pid, SIGKILL);
  waitpid(server_pid, NULL, 0);
  nftw(directory, remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

static pid_t start(char **argv, int core, int out) {
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) bench_die("fork");
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpriority(PRIO_PROCESS, 0, PRIORITY); /* only root may */
  if (getppid() != parent) _exit(127);
  if (core >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  if (out >= 0) dup2(out, STDOUT_FILENO);
  execvp(argv[0], argv);
  fprintf(stderr, "drive: %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

/* The address in the server's first line: what follows the last blank and "http://". */
static void read_address(int fd, char *address) {
  char line[ADDRESS_SIZE] = "";
  size_t len = 0;
  int64_t end = bench_now_ns() + (int64_t)START_MS * 1000000;
  while (len == 0 || !memchr(line, '\n', len)) {
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    int64_t left = (end - bench_now_ns()) / 1000000;
    ssize_t n = left > 0 && poll(&pfd, 1, (int)left) == 1 ? read(fd, line + len, ADDRESS_SIZE - 1 - len) : 0;
    if (n <= 0) {
      fprintf(stderr, "drive: the server did not say its address\n");
      stop_server();
      exit(3);
    }
    len += (size_t)n;
  }
  *(char *)memchr(line, '\n', len) = '\0';
  const char *blank = strrchr(line, ' '), *from = blank ? blank + 1 : line;
  strcpy(address, strncmp(from, "http://", 7) == 0 ? from + 7 : from);
}

/* A copy of arg with the first occurrence of a name replaced. */
static char *substitute(char *arg, const char *name, const char *value) {
  char *at = strstr(arg, name), *copy;
  if (!at) return arg;
  if (asprintf(&copy, "%.*s%s%s", (int)(at - arg), arg, value, at + strlen(name)) < 0) bench_die("asprintf");
  return copy;
}

static int run_load(char **argv, int core) {
  int status;
  load_pid = start(argv, core, -1);
  while (waitpid(load_pid, &status, 0) < 0 && errno == EINTR) continue;
  load_pid = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
  int server_core = 0, load_core = 1, limit = 60, repeats = 1;
  for (int opt; (opt = getopt(argc, argv, "+S:L:T:r:")) != -1;) {
    if (opt == 'S')
      server_core = atoi(optarg);
    else if (opt == 'L')
      load_core = atoi(optarg);
    else if (opt == 'T')
      limit = atoi(optarg);
    else if (opt == 'r')
      repeats = atoi(optarg);
    else
      return 2;
  }
  char **server = argv + optind, **load = server;
  while (*load && strcmp(*load, "--") != 0) load++;
  if (!*server || load == server || !*load || !load[1]) {
    fprintf(stderr, "usage: drive [-S core] [-L core] [-T seconds] [-r repeats] -- SERVER... -- LOAD...\n");
    return 2;
  }
  *load++ = NULL;
  signal(SIGALRM, on_alarm);
  alarm((unsigned)limit);

  int out[2];
  char address[ADDRESS_SIZE], pid[16], path[sizeof directory + 2];
  if (pipe2(out, O_CLOEXEC) < 0) bench_die("pipe2");
  if (!mkdtemp(directory)) bench_die("mkdtemp");
  snprintf(path, sizeof path, "%s/s", directory);
  for (char **arg = server; *arg; arg++) *arg = substitute(*arg, "@PATH@", path);
  server_pid = start(server, server_core, out[1]);
  close(out[1]);
  read_address(out[0], address);
  snprintf(pid, sizeof pid, "%d", (int)server_pid);
  for (char **arg = load; *arg; arg++) *arg = substitute(substitute(*arg, "@ADDR@", address), "@PID@", pid);

  int status = 0;
  int64_t cpu = 0;
  for (int i = 0; i < repeats && status == 0; i++) {
    cpu = bench_cpu_ns(server_pid);
    status = run_load(load, load_core);
    cpu = bench_cpu_ns(server_pid) - cpu;
  }
  printf("drive_cpu_ns=%" PRId64 " drive_status=%d\n", cpu, status);
  stop_server();
  return status;
}
