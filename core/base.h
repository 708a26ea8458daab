/* base.h - what every file of core may use: assertions, container_of, small helpers. Knows nothing of loops.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_BASE_H
#define AL_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The struct that embeds member at ptr. */
#define AL_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define AL_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define AL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define AL_MAX(a, b) ((a) > (b) ? (a) : (b))

#define AL_NS_PER_SEC INT64_C(1000000000)

/* Misuse by our own code or by a C caller: stops the program in debug builds. Failures of the world are returned. */
#ifdef AL_DEBUG
#define al_assert(cond) \
  ((cond)               \
       ? (void)0        \
       : (fprintf(stderr, "aloop: %s:%d: %s: assertion '%s' failed\n", __FILE__, __LINE__, __func__, #cond), abort()))
#else
#define al_assert(cond) ((void)sizeof(cond))
#endif

#endif
