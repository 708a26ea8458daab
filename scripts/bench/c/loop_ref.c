/* loop_ref.c - the loop's own work in the plainest C: a list of callbacks and a binary heap of timers over one epoll.
 * The baseline of the in-process benchmarks; each mode does what its namesake does in the other languages.
 *
 *   loop_ref chain | soon | timers | cancel | reset       prints ns=NANOSECONDS, CPU an operation
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define CHAIN 2000000
#define MILLION 1000000
#define TIMEOUTS 100000
#define RESETS 2000000
#define MS INT64_C(1000000)

struct handle {
  struct handle *next;
  void (*run)(struct handle *handle);
};

struct timer {
  struct handle handle;
  int64_t when;
  size_t index;
};

static int epfd;
static struct handle *ready, **ready_end = &ready;
static struct slot {
  int64_t when;
  struct timer *timer;
} * heap;
static size_t heap_size;
static long count;

static void call_soon(struct handle *handle) {
  handle->next = NULL;
  *ready_end = handle;
  ready_end = &handle->next;
}

static void heap_put(size_t i, struct slot slot) {
  heap[i] = slot;
  slot.timer->index = i;
}

static void heap_up(size_t i, struct slot slot) {
  for (; i > 0 && slot.when < heap[(i - 1) / 2].when; i = (i - 1) / 2) heap_put(i, heap[(i - 1) / 2]);
  heap_put(i, slot);
}

static void heap_down(size_t i, struct slot slot) {
  for (size_t child; (child = 2 * i + 1) < heap_size; i = child) {
    if (child + 1 < heap_size && heap[child + 1].when < heap[child].when) child++;
    if (slot.when <= heap[child].when) break;
    heap_put(i, heap[child]);
  }
  heap_put(i, slot);
}

static void timer_set(struct timer *timer, int64_t when) {
  timer->when = when;
  heap_up(heap_size++, (struct slot){when, timer});
}

static void timer_move(struct timer *timer, int64_t when) {
  bool later = when >= timer->when;
  timer->when = when;
  (later ? heap_down : heap_up)(timer->index, (struct slot){when, timer});
}

static void timer_cancel(struct timer *timer) {
  struct slot last = heap[--heap_size];
  if (last.timer == timer) return;
  if (last.when < timer->when)
    heap_up(timer->index, last);
  else
    heap_down(timer->index, last);
}

/* Turns until nothing is queued and no timer is set. */
static void run(void) {
  struct epoll_event event;
  while (ready || heap_size) {
    int64_t left = heap_size ? heap[0].when - bench_now_ns() : 0;
    epoll_wait(epfd, &event, 1, ready || left <= 0 ? 0 : (int)((left + MS - 1) / MS));
    struct handle *batch = ready;
    ready = NULL;
    ready_end = &ready;
    for (struct handle *next; batch; batch = next) {
      next = batch->next;
      batch->run(batch);
    }
    int64_t now = heap_size ? bench_now_ns() : 0;
    while (heap_size && heap[0].when <= now) {
      struct timer *timer = heap[0].timer;
      timer_cancel(timer);
      timer->handle.run(&timer->handle);
    }
  }
}

static void on_chain(struct handle *handle) {
  if (--count > 0) call_soon(handle);
}

static void on_once(struct handle *handle) {
  count--;
  free(handle);
}

static int64_t chain(void) {
  struct handle handle = {.run = on_chain};
  count = CHAIN;
  call_soon(&handle);
  run();
  return CHAIN;
}

static int64_t soon(void) {
  count = MILLION;
  for (int i = 0; i < MILLION; i++) {
    struct handle *handle = bench_alloc(sizeof *handle);
    handle->run = on_once;
    call_soon(handle);
  }
  run();
  return MILLION;
}

static struct timer *new_timer(int64_t when) {
  struct timer *timer = bench_alloc(sizeof *timer);
  timer->handle.run = on_once;
  timer_set(timer, when);
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
  for (int i = 0; i < MILLION; i++) new_timer(bench_now_ns() + next_delay());
  run();
  return MILLION;
}

static int64_t cancel(void) {
  struct timer **set = bench_alloc(MILLION * sizeof *set);
  for (int i = 0; i < MILLION; i++) set[i] = new_timer(bench_now_ns() + 60000 * MS + next_delay());
  for (int i = 0; i < MILLION; i++) {
    timer_cancel(set[i]);
    free(set[i]);
  }
  free(set);
  return MILLION;
}

static int64_t reset(void) {
  struct timer **set = bench_alloc(TIMEOUTS * sizeof *set);
  for (int i = 0; i < TIMEOUTS; i++) set[i] = new_timer(bench_now_ns() + 30000 * MS);
  int64_t start = bench_self_cpu_ns();
  for (int i = 0; i < RESETS; i++) timer_move(set[i % TIMEOUTS], bench_now_ns() + 30000 * MS);
  start = bench_self_cpu_ns() - start;
  for (int i = 0; i < TIMEOUTS; i++) free(set[i]);
  free(set);
  printf("ns=%.2f\n", (double)start / RESETS);
  return 0;
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int64_t (*run)(void); /* how many operations; 0: it has printed its figure */
  } modes[] = {{"chain", chain}, {"soon", soon}, {"timers", timers}, {"cancel", cancel}, {"reset", reset}};
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) bench_die("epoll_create1");
  heap = bench_alloc((MILLION + 1) * sizeof *heap);
  for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(argv[1], modes[i].name) != 0) continue;
    int64_t start = bench_self_cpu_ns(), n = modes[i].run();
    if (n) printf("ns=%.2f\n", (double)(bench_self_cpu_ns() - start) / (double)n);
    free(heap);
    return 0;
  }
  fprintf(stderr, "usage: loop_ref chain|soon|timers|cancel|reset\n");
  return 2;
}
