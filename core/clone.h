/* clone.h - the system call that makes a child, on a stack of its own. Used by spawn.c alone;
 * knows nothing of what the child is to do.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_CLONE_H
#define AL_CLONE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct al__clone_options {
  int (*begin)(void *arg); /* what the child runs; it must not return */
  void *arg;
  bool *clean; /* where begin finds it: the child has lost all handlers of signals, only ignored ones are left */
  void *stack; /* the child's, aligned to 16 */
  size_t stack_size;
  bool own_memory; /* it gets a copy of ours, rather than share it */
  bool old_kernel; /* for tests: do as on one without pidfds */
} al__clone_options;

/* Returns when the child has executed a program, or ended: its pid, or -errno. *pidfd is its pidfd, close-on-exec, or
 * -1. SIGCHLD tells of its end. */
pid_t al__clone(const al__clone_options *options, int *pidfd);

#endif
