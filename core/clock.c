/* clock.c - loops on a clock of their own: whoever made the loop says what time it is and what becomes of the time that
 * the loop has nothing to do. For tests on virtual time; a loop without such a clock pays a branch a turn.
 * Called by loop.c; knows no machine.
 *
 * SPDX-License-Identifier: MIT */
#include "clock.h"

#include "loop.h"

int64_t al_loop_time_ns(const al_loop *loop) { return loop->clock ? loop->clock->now_ns(loop->clock) : al_time_ns(); }

/* When the loop has something to do next, as far as it knows. */
static int64_t next_ns(al_loop *loop, int64_t until_ns) {
  const al_timer *first = al__heap_top(&loop->timers);
  return first ? AL_MIN(first->when_ns, until_ns) : until_ns;
}

int al__clock_wait(al_loop *loop, int64_t limit_ns) {
  int64_t until_ns = limit_ns < 0 ? INT64_MAX : al_loop_time_ns(loop) + limit_ns;
  int found = loop->io->wait(loop, 0);
  for (unsigned round = 0; !found && !loop->stopping; round++) {
    int64_t more_ns = loop->clock->idle(loop->clock, loop, next_ns(loop, until_ns), round);
    if (!more_ns) break;
    found = loop->io->wait(loop, more_ns);
  }
  return found;
}

void al__clock_turn(al_loop *loop) {
  if (loop->clock->turn) loop->clock->turn(loop->clock, loop, &loop->batch, &loop->due);
}
