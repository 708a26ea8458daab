/* selector.c - readiness for programs without a loop: the public face of selector.h. Bindings make aloop.selectors of
 * it; the machines don't use it. Knows no loop.
 *
 * SPDX-License-Identifier: MIT */
#include "selector.h"

#include "base.h"
#include "io.h"
#include "mem.h"

#include <errno.h>
#include <string.h>

_Static_assert(AL_SELECT_READ == AL_POLL_IN && AL_SELECT_WRITE == AL_POLL_OUT, "events are handed through");

struct al_selector {
  const al__selector *kind;
  void *state;
  uint8_t *watched; /* by descriptor: its mask */
  size_t size;
};

static const al__selector *find_kind(const char *name) {
  static const struct {
    const char *name;
    const al__selector *kind;
  } kinds[] = {{"epoll", &al__sel_epoll}, {"poll", &al__sel_poll}, {"select", &al__sel_select}};
  for (size_t i = 0; i < AL_COUNT(kinds); i++)
    if (strcmp(kinds[i].name, name) == 0) return kinds[i].kind;
  return NULL;
}

int al_selector_new(const char *kind, al_selector **selector) {
  const al__selector *found = find_kind(kind);
  if (!found) return -EINVAL;
  al_selector *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  made->kind = found;
  int err = found->open(&made->state);
  if (err) {
    al__free(made);
    return err;
  }
  *selector = made;
  return 0;
}

void al_selector_close(al_selector *selector) {
  selector->kind->close(selector->state);
  al__free(selector->watched);
  al__free(selector);
}

static int grow(al_selector *s, int fd) {
  void *array = s->watched;
  size_t old = s->size;
  int err = al__array_grow(&array, &s->size, sizeof(*s->watched), (size_t)fd + 1);
  s->watched = array;
  if (s->size > old) memset(s->watched + old, 0, s->size - old);
  return err;
}

int al_selector_set(al_selector *selector, int fd, unsigned events) {
  if (fd < 0) return -EBADF;
  if (fd > selector->kind->max_fd) return AL_EFDRANGE;
  int err = grow(selector, fd);
  if (err) return err;
  err = selector->kind->set(selector->state, fd, (uint64_t)fd, selector->watched[fd], events);
  selector->watched[fd] = err ? 0 : (uint8_t)events;
  return err;
}

int al_selector_wait(al_selector *selector, al_selected *ready, int max, int64_t timeout_ns) {
  al__event events[64];
  int n = selector->kind->wait(selector->state, events, AL_MIN(max, (int)AL_COUNT(events)), timeout_ns);
  for (int i = 0; i < n; i++) {
    int fd = (int)events[i].key;
    unsigned seen = events[i].events & AL_SEL_BAD ? AL_SELECT_READ | AL_SELECT_WRITE : events[i].events;
    ready[i] = (al_selected){.fd = fd, .events = seen & selector->watched[fd]};
  }
  return n;
}
