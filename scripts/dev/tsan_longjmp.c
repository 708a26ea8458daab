/* tsan_longjmp.c - for the thread sanitizer's build alone: Lua's errors leave C functions by longjmp, which in
 * a fortified liblua is __longjmp_chk. The sanitizer doesn't know that one, so it would count the functions
 * that were left as still being called, and keep ever longer call stacks until memory is gone. The Makefile
 * links with --wrap=__longjmp_chk.
 *
 * SPDX-License-Identifier: MIT */
#include <setjmp.h>

void __wrap___longjmp_chk(jmp_buf env, int value) __attribute__((noreturn));

void __wrap___longjmp_chk(jmp_buf env, int value) { longjmp(env, value); }
