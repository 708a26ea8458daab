/* children.c - the baseline of subprocesses: vfork and exec, waitid, poll, without any event loop.
 *
 *   children true       2,000 runs of /bin/true, 8 in flight
 *   children cat        100 runs of cat, one after another, each with a MiB in and out at once
 *
 * Prints wall_ns=N cpu_ns=N a run; the CPU is that of this process alone.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNS 2000
#define IN_FLIGHT 8
#define CATS 100
#define SIZE (1024 * 1024)

static char data[SIZE], back[SIZE + 1]; /* a byte too many would be seen */

/* Starts a program with these as stdin and stdout, -1: those of this process. */
static pid_t start(char **argv, int in, int out) {
  pid_t pid = vfork();
  if (pid < 0) bench_die("vfork");
  if (pid == 0) {
    if (in >= 0) dup2(in, STDIN_FILENO);
    if (out >= 0) dup2(out, STDOUT_FILENO);
    execv(argv[0], argv);
    _exit(127);
  }
  return pid;
}

static void reap(idtype_t type, pid_t pid) {
  siginfo_t info;
  while (waitid(type, (id_t)pid, &info, WEXITED) < 0)
    if (errno != EINTR) bench_die("waitid");
  if (info.si_code == CLD_EXITED && info.si_status == 0) return;
  fprintf(stderr, "children: a child failed\n");
  exit(1);
}

static int run_true(void) {
  char *argv[] = {"/bin/true", NULL};
  for (int i = 0; i < RUNS; i++) {
    if (i >= IN_FLIGHT) reap(P_ALL, 0);
    start(argv, -1, -1);
  }
  for (int i = 0; i < IN_FLIGHT; i++) reap(P_ALL, 0);
  return RUNS;
}

/* The pipe's end of this process is non-blocking; the child's isn't, and both are closed on exec. */
static void make_pipe(int fds[2], int own) {
  if (pipe2(fds, O_CLOEXEC) < 0 || fcntl(fds[own], F_SETFL, O_NONBLOCK) < 0) bench_die("pipe2");
}

static size_t moved(ssize_t n) {
  if (n < 0 && errno != EAGAIN) bench_die("pipe");
  return n < 0 ? 0 : (size_t)n;
}

/* Writes all data and closes, reads to the end, whichever can go on. */
static void pump(int in, int out) {
  size_t sent = 0, got = 0;
  for (bool ended = false; !ended;) {
    struct pollfd fds[] = {{.fd = out, .events = POLLIN}, {.fd = sent < SIZE ? in : -1, .events = POLLOUT}};
    if (poll(fds, 2, -1) < 0) bench_die("poll");
    if (fds[1].revents) {
      sent += moved(write(in, data + sent, SIZE - sent));
      if (sent == SIZE) close(in);
    }
    if (fds[0].revents) {
      ssize_t n = read(out, back + got, sizeof back - got);
      got += moved(n);
      ended = n == 0;
    }
  }
  if (got == SIZE && memcmp(data, back, SIZE) == 0) return;
  fprintf(stderr, "children: other bytes came back\n");
  exit(1);
}

static int run_cat(void) {
  char *argv[] = {"/bin/cat", NULL};
  for (size_t i = 0; i < SIZE; i++) data[i] = (char)(i * 31 >> 3);
  for (int i = 0; i < CATS; i++) {
    int in[2], out[2];
    make_pipe(in, 1);
    make_pipe(out, 0);
    pid_t pid = start(argv, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    pump(in[1], out[0]);
    close(out[0]);
    reap(P_PID, pid);
  }
  return CATS;
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "";
  if (strcmp(kind, "true") != 0 && strcmp(kind, "cat") != 0) {
    fprintf(stderr, "usage: children true|cat\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  int64_t start_ns = bench_now_ns(), cpu = bench_self_cpu_ns();
  int n = strcmp(kind, "true") == 0 ? run_true() : run_cat();
  int64_t wall = bench_now_ns() - start_ns;
  cpu = bench_self_cpu_ns() - cpu;
  printf("wall_ns=%" PRId64 " cpu_ns=%" PRId64 "\n", wall / n, cpu / n);
  return 0;
}
