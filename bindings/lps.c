/* lps.c - the asking side of `aloop ps` and `aloop pstree`: it waits at a socket of its own for the answer of a
 * process that it has sent a signal to (lquery.h says how). The socket is an abstract one with a name that can't
 * be guessed, so nothing stays on disk, and both sides look at who the other is. The process is held by a pidfd
 * meanwhile: another one that gets its number can't be taken for it.
 *
 * SPDX-License-Identifier: MIT */
#include "lps.h"

#include "lquery.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_S = 5, AGAIN_MS = 200, ANSWER_S = 30 /* from its first sign of life on */, MAX_INLINE = 64 * 1024 };

typedef struct question {
  const char *command;
  int pid, pidfd, listener;
  double patience_s;
  unsigned long long number;
} question;

static int __attribute__((format(printf, 2, 3))) fail(const question *q, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "aloop %s: ", q->command);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  return -1;
}

bool al_ps_is_command(int argc, char **argv) {
  return argc >= 2 && (strcmp(argv[1], "ps") == 0 || strcmp(argv[1], "pstree") == 0);
}

/* ---- who is it? -------------------------------------------------------------------------------------------------- */

/* Reads what /proc tells of the process; how many bytes, or -1. */
static ssize_t read_status(const question *q, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", q->pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = read(fd, text, size - 1);
  close(fd);
  text[n < 0 ? 0 : n] = '\0';
  return n;
}

/* The value of a line of /proc/PID/status, as text, or "". */
static const char *find_status(const char *status, const char *key) {
  const char *line = strstr(status, key);
  return line ? line + strlen(key) + strspn(line + strlen(key), " \t") : "";
}

static int no_such_process(const question *q) { return fail(q, "there is no process %d", q->pid); }

static int check_owner(const question *q) {
  char path[32];
  struct stat st;
  snprintf(path, sizeof path, "/proc/%d", q->pid);
  if (stat(path, &st) < 0) return no_such_process(q);
  if (st.st_uid == geteuid()) return 0;
  return fail(q, "process %d belongs to another user, who alone may ask it", q->pid);
}

/* Does it catch the signal? To one that doesn't, nothing is sent. */
static int check_catches(const question *q) {
  char status[4096];
  if (read_status(q, status, sizeof status) <= 0) return no_such_process(q);
  if (*find_status(status, "State:") == 'Z') return fail(q, "process %d has ended", q->pid);
  unsigned long long caught = strtoull(find_status(status, "SigCgt:"), NULL, 16);
  if (caught >> (AL_QUERY_SIGNAL - 1) & 1) return 0;
  return fail(q, "process %d is no aloop interpreter", q->pid);
}

static int hold_process(question *q) {
  q->pidfd = (int)syscall(SYS_pidfd_open, q->pid, 0);
  if (q->pidfd < 0 && (errno == ESRCH || errno == EINVAL)) return no_such_process(q);
  if (q->pidfd < 0) return fail(q, "process %d: %s", q->pid, strerror(errno));
  if (check_owner(q) < 0) return -1;
  return check_catches(q);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static int listen_for(question *q, unsigned kind) {
  struct sockaddr_un addr = {.sun_family = AF_UNIX};
  if (getrandom(&q->number, sizeof q->number, 0) != sizeof q->number) return fail(q, "getrandom: %s", strerror(errno));
  if (sizeof(void *) < sizeof q->number) q->number &= UINTPTR_MAX; /* what a signal carries */
  q->number = (q->number & ~(unsigned long long)AL_QUERY_KIND) | kind;
  int n = snprintf(addr.sun_path + 1, sizeof addr.sun_path - 1, AL_QUERY_NAME, (int)getpid(), q->number);
  socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
  q->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (q->listener >= 0 && bind(q->listener, (struct sockaddr *)&addr, len) == 0 && listen(q->listener, 4) == 0)
    return 0;
  return fail(q, "socket: %s", strerror(errno));
}

static int send_question(const question *q) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  info.si_signo = AL_QUERY_SIGNAL;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = (void *)(uintptr_t)q->number;
  if (syscall(SYS_pidfd_send_signal, q->pidfd, AL_QUERY_SIGNAL, &info, 0) == 0) return 0;
  return errno == ESRCH ? fail(q, "process %d has ended", q->pid) : fail(q, "process %d: %s", q->pid, strerror(errno));
}

static bool is_stopped(const question *q) {
  char status[4096];
  return read_status(q, status, sizeof status) > 0 && *find_status(status, "State:") == 'T';
}

static int no_answer(const question *q) {
  return fail(
      q,
      "no answer from process %d within %g seconds: it is no aloop interpreter, or in a C function that does not "
      "return",
      q->pid, q->patience_s);
}

/* A connection by the process itself; of others nothing is taken. -1: none yet. */
static int accept_answer(const question *q) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  int fd = accept4(q->listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return -1;
  struct timeval limit = {.tv_sec = ANSWER_S};
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid == q->pid && peer.uid == geteuid() &&
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0)
    return fd;
  close(fd);
  return -1;
}

/* Waits for the answer's connection, asking again now and then: of signals that come at once only one arrives. */
static int wait_for_answer(const question *q) {
  for (int tries = 0; tries * AGAIN_MS < q->patience_s * 1000; tries++) {
    if (send_question(q) < 0) return -1;
    struct pollfd fds[] = {{.fd = q->listener, .events = POLLIN}, {.fd = q->pidfd, .events = POLLIN}};
    int64_t until_ns = al_time_ns() + AGAIN_MS * INT64_C(1000000), left_ns;
    while ((left_ns = until_ns - al_time_ns()) > 0) {
      poll(fds, 2, (int)(left_ns / 1000000) + 1);
      int fd = fds[0].revents ? accept_answer(q) : -1;
      if (fd >= 0) return fd;
      if (fds[1].revents) return fail(q, "process %d has ended", q->pid);
    }
    if (is_stopped(q)) return fail(q, "no answer: process %d is stopped", q->pid);
  }
  return no_answer(q);
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static int print_file(const question *q, int file) {
  char text[64 * 1024];
  ssize_t n;
  off_t at = 0;
  while ((n = pread(file, text, sizeof text, at)) > 0) {
    if (fwrite(text, 1, (size_t)n, stdout) != (size_t)n) return fail(q, "writing failed");
    at += n;
  }
  return n < 0 ? fail(q, "reading the answer: %s", strerror(errno)) : 0;
}

/* Receives the one message: a descriptor of the answer, or the answer itself. */
static int print_answer(const question *q, int fd) {
  static char text[MAX_INLINE];
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec iov = {text, sizeof text};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  ssize_t n;
  do n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n <= 0) return fail(q, "process %d gave no answer", q->pid);
  const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
    return fwrite(text, 1, (size_t)n, stdout) == (size_t)n ? 0 : fail(q, "writing failed");
  int file;
  memcpy(&file, CMSG_DATA(header), sizeof file);
  int result = print_file(q, file);
  close(file);
  return result;
}

static int ask(question *q) {
  if (hold_process(q) < 0) return -1;
  if (listen_for(q, strcmp(q->command, "ps") == 0 ? AL_QUERY_LIST : AL_QUERY_TREE) < 0) return -1;
  int fd = wait_for_answer(q);
  if (fd < 0) return -1;
  int result = print_answer(q, fd);
  close(fd);
  return result == 0 && fflush(stdout) != 0 ? fail(q, "writing failed: %s", strerror(errno)) : result;
}

int al_ps_run(int argc, char **argv) {
  const char *patience = getenv("ALOOP_PS_TIMEOUT");
  question q = {.command = argv[1], .pidfd = -1, .listener = -1, .patience_s = patience ? atof(patience) : PATIENCE_S};
  char *end = NULL;
  long pid = argc == 3 ? strtol(argv[2], &end, 10) : 0;
  if (argc != 3 || *argv[2] == '\0' || *end != '\0' || pid <= 0 || pid > INT_MAX) {
    fprintf(stderr, "usage: aloop %s PID\n", q.command);
    return EXIT_FAILURE;
  }
  q.pid = (int)pid;
  int result = ask(&q);
  if (q.listener >= 0) close(q.listener);
  if (q.pidfd >= 0) close(q.pidfd);
  return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
