/* child.c - the end of child processes: signals to them, their status, and those that nobody looks after any more.
 * They are named by their pidfd, so that nobody who got a dead child's number meanwhile is hit; without one, on an
 * old kernel, by the number, which is theirs as long as only we reap them.
 *
 * SPDX-License-Identifier: MIT */
#include "child.h"

#include "base.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

#define PIDFD 3         /* P_PIDFD of waitid, which older headers don't have */
#define BURY_MS 1000    /* a killed child that takes longer hangs in the kernel */
#define BURY_STEP_MS 10 /* without a pidfd */

/* ---- signals and status ------------------------------------------------------------------------------------------ */

int al__child_kill(const al__child *child, int signum) {
  long result = -1;
  errno = ENOSYS;
  if (child->pidfd >= 0) result = syscall(SYS_pidfd_send_signal, child->pidfd, signum, NULL, 0);
  if (result < 0 && errno == ENOSYS) result = kill(child->pid, signum);
  return result < 0 ? -errno : 0;
}

static int wait_for(const al__child *child, siginfo_t *info) {
  int result = -1;
  errno = EINVAL;
  if (child->pidfd >= 0) result = waitid((idtype_t)PIDFD, (id_t)child->pidfd, info, WEXITED | WNOHANG);
  if (result < 0 && errno == EINVAL) result = waitid(P_PID, (id_t)child->pid, info, WEXITED | WNOHANG);
  return result;
}

bool al__child_reap(const al__child *child, int *returncode) {
  siginfo_t info = {.si_pid = 0};
  if (wait_for(child, &info) < 0) {
    *returncode = AL_LOST_CHILD;
    return true;
  }
  if (info.si_pid == 0) return false;
  *returncode = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
  return true;
}

/* ---- those left -------------------------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct { /* under mutex; count is read without it, too */
  void *children;
  size_t count, capacity;
} left;

/* Without memory it stays a zombie, until this process ends. */
void al__child_leave(al__child *child) {
  int returncode;
  if (al__child_reap(child, &returncode)) return;
  pthread_mutex_lock(&mutex);
  if (al__array_grow(&left.children, &left.capacity, sizeof(*child), left.count + 1) == 0) {
    ((al__child *)left.children)[left.count] = *child;
    __atomic_store_n(&left.count, left.count + 1, __ATOMIC_RELAXED);
    child->pidfd = -1;
  }
  pthread_mutex_unlock(&mutex);
}

void al__child_close(al__child *child) {
  al__fd_close(child->pidfd);
  child->pidfd = -1;
}

void al__child_reap_left(void) {
  int returncode;
  if (__atomic_load_n(&left.count, __ATOMIC_RELAXED) == 0) return;
  pthread_mutex_lock(&mutex);
  al__child *children = left.children;
  size_t kept = 0;
  for (size_t i = 0; i < left.count; i++) {
    if (al__child_reap(&children[i], &returncode))
      al__child_close(&children[i]);
    else
      children[kept++] = children[i];
  }
  __atomic_store_n(&left.count, kept, __ATOMIC_RELAXED);
  if (kept == 0) {
    al__free(left.children);
    left.children = NULL;
    left.capacity = 0;
  }
  pthread_mutex_unlock(&mutex);
}

static void wait_a_while(const al__child *child, int64_t until_ns) {
  struct pollfd ended = {.fd = child->pidfd, .events = POLLIN};
  int64_t rest_ms = AL_MAX((until_ns - al_time_ns()) / 1000000 + 1, 1);
  poll(&ended, 1, (int)(child->pidfd < 0 ? AL_MIN(rest_ms, BURY_STEP_MS) : rest_ms));
}

void al__child_bury(al__child *child) {
  int64_t until_ns = al_time_ns() + BURY_MS * INT64_C(1000000);
  int returncode;
  while (!al__child_reap(child, &returncode)) {
    if (al_time_ns() >= until_ns) {
      al__child_leave(child);
      return;
    }
    wait_a_while(child, until_ns);
  }
}
