/* clone.c - see clone.h. clone3 can do what else takes a system call for each signal: take away its handler. libc has
 * no function for it, and one written in C could not return to the caller in a child that has another stack; so there
 * are a few lines for each processor, and clone for the others, and for older kernels.
 *
 * SPDX-License-Identifier: MIT */
#include "clone.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

#define CLEAR_SIGHAND UINT64_C(0x100000000) /* CLONE_CLEAR_SIGHAND, which older headers don't have */
#define CLONE3 435                          /* SYS_clone3: the same number everywhere */

/* clone itself is replaced by the thread sanitizer, whose version takes the child for a fork. */
#ifdef __GLIBC__
int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
#define CLONE __clone
#else
#define CLONE clone
#endif

typedef struct clone3_args { /* the kernel's struct clone_args, first version */
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
} clone3_args;

/* In the child the registers are ours, but for the result and the stack. */
#if defined(__x86_64__) && defined(__LP64__)
static long call_clone3(const clone3_args *args, int (*begin)(void *), void *arg) {
  register int (*fn)(void *) __asm__("r12") = begin;
  register void *data __asm__("r13") = arg;
  long result;
  __asm__ volatile("syscall\n\t"
                   "test %%rax, %%rax\n\t"
                   "jnz 1f\n\t"
                   "xor %%ebp, %%ebp\n\t"
                   "mov %%r13, %%rdi\n\t"
                   "call *%%r12\n\t"
                   "hlt\n"
                   "1:"
                   : "=a"(result)
                   : "0"((long)CLONE3), "D"(args), "S"(sizeof(*args)), "r"(fn), "r"(data)
                   : "rcx", "r11", "memory", "cc");
  return result;
}
#elif defined(__aarch64__)
static long call_clone3(const clone3_args *args, int (*begin)(void *), void *arg) {
  register int (*fn)(void *) __asm__("x10") = begin;
  register void *data __asm__("x11") = arg;
  register long number __asm__("x8") = CLONE3;
  register long first __asm__("x0") = (long)args;
  register long second __asm__("x1") = (long)sizeof(*args);
  __asm__ volatile("svc #0\n\t"
                   "cbnz x0, 1f\n\t"
                   "mov x29, xzr\n\t"
                   "mov x0, x11\n\t"
                   "blr x10\n\t"
                   "brk #0\n"
                   "1:"
                   : "+r"(first)
                   : "r"(second), "r"(number), "r"(fn), "r"(data)
                   : "memory", "cc");
  return first;
}
#else
static long call_clone3(const clone3_args *args, int (*begin)(void *), void *arg) {
  (void)args, (void)begin, (void)arg;
  return -ENOSYS;
}
#endif

static int memory_flags(const al__clone_options *options) { return CLONE_VFORK | (options->own_memory ? 0 : CLONE_VM); }

static pid_t by_clone3(const al__clone_options *options, int *pidfd) {
  clone3_args args = {.flags = (uint64_t)memory_flags(options) | CLONE_PIDFD | CLEAR_SIGHAND,
                      .pidfd = (uintptr_t)pidfd,
                      .exit_signal = SIGCHLD,
                      .stack = (uintptr_t)options->stack,
                      .stack_size = options->stack_size};
  *options->clean = true;
  return (pid_t)call_clone3(&args, options->begin, options->arg);
}

static pid_t by_clone(const al__clone_options *options, int more_flags, int *pidfd) {
  int flags = memory_flags(options) | SIGCHLD | more_flags;
  *options->clean = false;
  pid_t pid = CLONE(options->begin, (char *)options->stack + options->stack_size, flags, options->arg, pidfd);
  return pid < 0 ? -errno : pid;
}

/* A kernel that doesn't know clone3, or its flag, says so; one that is told not to do it for us says EPERM. */
static bool is_refused(pid_t result) { return result == -ENOSYS || result == -EINVAL || result == -EPERM; }

pid_t al__clone(const al__clone_options *options, int *pidfd) {
  *pidfd = -1;
  pid_t pid = options->old_kernel ? -ENOSYS : by_clone3(options, pidfd);
  if (is_refused(pid) && !options->old_kernel) pid = by_clone(options, CLONE_PIDFD, pidfd);
  return is_refused(pid) ? by_clone(options, 0, pidfd) : pid;
}
