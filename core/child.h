/* child.h - child processes as the kernel has them: made by spawn.c, reaped by child.c. process.c gives them to a loop.
 * Neither knows loops; any thread may call them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_CHILD_H
#define AL_CHILD_H

#include "aloop.h"

typedef struct al__child {
  pid_t pid;
  int pidfd;    /* close-on-exec; -1 where the kernel has none */
  int pipes[3]; /* our ends, close-on-exec; or -1 */
} al__child;

/* For tests: make children as on a kernel without pidfds. */
extern bool al__child_no_pidfd;

/* See al_process_spawn. */
int al__spawn(const al_spawn_options *options, al__child *child, al_spawn_failure *failure);

/* True if it has ended: it is reaped now, and *returncode is its exit code, minus its signal, or AL_LOST_CHILD if
 * somebody else has reaped it. */
bool al__child_reap(const al__child *child, int *returncode);
#define AL_LOST_CHILD 1000
/* 0, -ESRCH, -EPERM, -EINVAL. The child must not be reaped yet. */
int al__child_kill(const al__child *child, int signum);
/* Sees a killed child to its end, but does not wait for ever: one that takes longer is left. */
void al__child_bury(al__child *child);
void al__child_leave(al__child *child); /* one that runs on is reaped later. Takes over the pidfd, if it can */
void al__child_reap_left(void);
void al__child_close(al__child *child); /* the pidfd */

#endif
