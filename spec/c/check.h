/* check.h - what the C programs of the specs share: a check that ends the program with its place, and a count of tests.
 * A program runs its tests with RUN(test) and ends with return check_done().
 *
 * SPDX-License-Identifier: MIT */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int check_count;

#define CHECK(cond) \
  ((cond) ? (void)0 : (fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #cond), exit(1)))

/* Compares integers and shows both. */
#define CHECK_EQ(a, b)                                                                                        \
  do {                                                                                                        \
    long long check_a = (long long)(a), check_b = (long long)(b);                                             \
    if (check_a == check_b) break;                                                                            \
    fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #a, check_a, check_b); \
    exit(1);                                                                                                  \
  } while (0)

#define RUN(test)                                                \
  do {                                                           \
    if (getenv("CHECK_VERBOSE")) fprintf(stderr, "%s\n", #test); \
    test();                                                      \
    check_count++;                                               \
  } while (0)

static inline int check_done(void) {
  printf("ok %d tests\n", check_count);
  return 0;
}

/* A random number, the same sequence in each run (xorshift). */
static inline unsigned check_random(void) {
  static unsigned state = 2463534242u;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

#endif
