/* wakeup.c - see wakeup.h.
 *
 * The order of things makes no wake-up get lost: a thread puts its remote into the inbox and writes the eventfd if the
 * inbox was empty, both under the mutex; the loop first reads the eventfd and then takes the inbox. A write between the
 * two finds the inbox empty or already written for: at worst the loop wakes once for nothing.
 * The write happens under the mutex so that close can't take the descriptor away, and give its number to a stranger,
 * in the midst of it.
 *
 * SPDX-License-Identifier: MIT */
#include "wakeup.h"

#include "loop.h"
#include "sock.h"

#include <errno.h>
#include <unistd.h>

static void signal_fd(int fd) {
  static const uint64_t one = 1;
  while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR) continue; /* EAGAIN: it is full, thus awake */
}

/* Takes what is in the inbox, behind what al_loop_break left of the last batch. */
static void take_inbox(al__wakeup *wakeup) {
  al_remote **end = &wakeup->batch;
  while (*end) end = &(*end)->next;
  pthread_mutex_lock(&wakeup->mutex);
  *end = wakeup->inbox;
  wakeup->inbox = NULL;
  wakeup->inbox_end = &wakeup->inbox;
  pthread_mutex_unlock(&wakeup->mutex);
}

static al_remote *pop_batch(al__wakeup *wakeup) {
  al_remote *remote = wakeup->batch;
  wakeup->batch = remote->next;
  return remote;
}

static void wakeup_on_poll(al_loop *loop, al_op *op, int result, unsigned flags) {
  al__wakeup *wakeup = &loop->wakeup;
  uint64_t count;
  if (!(flags & AL_OP_MORE)) {
    if (!loop->closed) al_log(AL_LOG_ERROR, NULL, "the loop can't be woken any more: %s", al_strerror(result));
    return;
  }
  al__fd_read(op->fd, &count, sizeof(count)); /* EAGAIN: nothing lost */
  if (wakeup->hook) wakeup->hook(loop);
  take_inbox(wakeup);
  while (wakeup->batch && !loop->broken) {
    al_remote *remote = pop_batch(wakeup);
    remote->run(loop, remote);
  }
  if (wakeup->batch) signal_fd(op->fd); /* the rest in the next turn */
}

int al__wakeup_open(al_loop *loop) {
  al__wakeup *wakeup = &loop->wakeup;
  int fd = al__fd_eventfd();
  if (fd < 0) return fd;
  wakeup->op = (al_op){.kind = AL_OP_POLL, .events = AL_POLL_IN, .fd = fd, .done = wakeup_on_poll};
  int err = loop->io->submit(loop, &wakeup->op);
  if (err) goto fail;
  err = -pthread_mutex_init(&wakeup->mutex, NULL);
  if (err) goto fail;
  wakeup->inbox_end = &wakeup->inbox;
  wakeup->fd = fd;
  return 0;
fail: /* the op ends with the machine, which al_loop_new closes next */
  al__fd_close(fd);
  return err;
}

static void drop_batch(al__wakeup *wakeup) {
  while (wakeup->batch) {
    al_remote *remote = pop_batch(wakeup);
    if (remote->drop) remote->drop(remote);
  }
}

void al__wakeup_close(al_loop *loop) {
  al__wakeup *wakeup = &loop->wakeup;
  pthread_mutex_lock(&wakeup->mutex);
  wakeup->closed = true;
  int fd = __atomic_exchange_n(&wakeup->fd, -1, __ATOMIC_ACQ_REL);
  pthread_mutex_unlock(&wakeup->mutex);
  al__fd_close(fd);
  take_inbox(wakeup);
  drop_batch(wakeup);
}

void al__wakeup_free(al_loop *loop) { pthread_mutex_destroy(&loop->wakeup.mutex); }

bool al__wakeup_is_closed(al_loop *loop) {
  pthread_mutex_lock(&loop->wakeup.mutex);
  bool closed = loop->wakeup.closed;
  pthread_mutex_unlock(&loop->wakeup.mutex);
  return closed;
}

void al__wakeup_signal(al_loop *loop) {
  int saved = errno;
  int fd = __atomic_load_n(&loop->wakeup.fd, __ATOMIC_ACQUIRE);
  if (fd >= 0) signal_fd(fd);
  errno = saved;
}

void al__wakeup_set_hook(al_loop *loop, al_wakeup_hook_fn *hook) { loop->wakeup.hook = hook; }

int al_call_soon_threadsafe(al_loop *loop, al_remote *remote) {
  al__wakeup *wakeup = &loop->wakeup;
  remote->next = NULL;
  pthread_mutex_lock(&wakeup->mutex);
  bool closed = wakeup->closed;
  if (!closed) {
    if (!wakeup->inbox) signal_fd(wakeup->fd);
    *wakeup->inbox_end = remote;
    wakeup->inbox_end = &remote->next;
  }
  pthread_mutex_unlock(&wakeup->mutex);
  return closed ? AL_ECLOSED : 0;
}
