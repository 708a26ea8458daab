/* loop_core.c - the loop's own work on aloop.h, without Lua: what loop_ref.c does, with the same numbers.
 *
 *   loop_core epoll|poll|select|uring chain|soon|timers|cancel|reset       prints ns=NANOSECONDS, CPU an operation
 *
 * SPDX-License-Identifier: MIT */
#include "aloop.h"
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN 2000000
#define MILLION 1000000
#define TIMEOUTS 100000
#define RESETS 2000000
#define MS INT64_C(1000000)

static al_loop *loop;
static long count;

static void check(int error) {
  if (error >= 0) return;
  fprintf(stderr, "loop_core: %s\n", al_strerror(error));
  exit(1);
}

static void on_chain(al_loop *in, al_handle *handle) {
  if (--count > 0)
    al_call_soon(in, handle);
  else
    al_loop_stop(in);
}

static void on_once(al_loop *in, al_handle *handle) {
  free(handle); /* the first member of a timer, too */
  if (--count == 0) al_loop_stop(in);
}

static int64_t chain(void) {
  al_handle handle;
  al_handle_init(&handle, on_chain);
  count = CHAIN;
  al_call_soon(loop, &handle);
  check(al_loop_run_forever(loop));
  return CHAIN;
}

static int64_t soon(void) {
  count = MILLION;
  for (int i = 0; i < MILLION; i++) {
    al_handle *handle = bench_alloc(sizeof *handle);
    al_handle_init(handle, on_once);
    al_call_soon(loop, handle);
  }
  check(al_loop_run_forever(loop));
  return MILLION;
}

static al_timer *new_timer(int64_t when) {
  al_timer *timer = bench_alloc(sizeof *timer);
  al_timer_init(timer, on_once);
  check(al_timer_set(loop, timer, when));
  return timer;
}

/* 1 to 1000 ms in no order, the same sequence in each language. */
static int64_t next_delay(void) {
  static uint32_t x = 1;
  x = (x * 1103515245 + 12345) & 0x7fffffff;
  return (1 + (x >> 8) % 1000) * MS;
}

static int64_t timers(void) {
  count = MILLION;
  for (int i = 0; i < MILLION; i++) new_timer(al_time_ns() + next_delay());
  check(al_loop_run_forever(loop));
  return MILLION;
}

static int64_t cancel(void) {
  al_timer **set = bench_alloc(MILLION * sizeof *set);
  for (int i = 0; i < MILLION; i++) set[i] = new_timer(al_time_ns() + 60000 * MS + next_delay());
  for (int i = 0; i < MILLION; i++) {
    al_timer_cancel(set[i]);
    free(set[i]);
  }
  free(set);
  return MILLION;
}

static int64_t reset(void) {
  al_timer **set = bench_alloc(TIMEOUTS * sizeof *set);
  for (int i = 0; i < TIMEOUTS; i++) set[i] = new_timer(al_time_ns() + 30000 * MS);
  int64_t start = bench_self_cpu_ns();
  for (int i = 0; i < RESETS; i++) check(al_timer_set(loop, set[i % TIMEOUTS], al_time_ns() + 30000 * MS));
  printf("ns=%.2f\n", (double)(bench_self_cpu_ns() - start) / RESETS);
  for (int i = 0; i < TIMEOUTS; i++) {
    al_timer_cancel(set[i]);
    free(set[i]);
  }
  free(set);
  return 0;
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int64_t (*run)(void); /* how many operations; 0: it has printed its figure */
  } modes[] = {{"chain", chain}, {"soon", soon}, {"timers", timers}, {"cancel", cancel}, {"reset", reset}};
  if (argc != 3) {
    fprintf(stderr, "usage: loop_core epoll|poll|select|uring chain|soon|timers|cancel|reset\n");
    return 2;
  }
  al_loop_options options = {.machine = argv[1]};
  check(al_loop_new(&options, &loop, NULL));
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(argv[2], modes[i].name) != 0) continue;
    int64_t start = bench_self_cpu_ns(), n = modes[i].run();
    if (n) printf("ns=%.2f\n", (double)(bench_self_cpu_ns() - start) / (double)n);
  }
  al_loop_release(loop);
  return 0;
}
