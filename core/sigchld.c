/* sigchld.c - see sigchld.h. The handler writes to an eventfd of each loop that asked, which the loop polls like any
 * descriptor, and calls the handler that it found. Who sets one for SIGCHLD later takes ours away without knowing; so
 * there is a timer, too.
 *
 * SPDX-License-Identifier: MIT */
#include "sigchld.h"

#include "base.h"
#include "io.h"
#include "loop.h"
#include "mem.h"
#include "sock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define LOOPS 64 /* with such children at one time, in the whole process */
#define LOOK_NS (250 * INT64_C(1000000))

struct al__sigchld {
  al_loop *loop; /* NULL: closed, the op is ending */
  void (*look)(al_loop *loop);
  al_op op; /* POLL of the eventfd */
  al_timer timer;
  int place;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards places and the handler */
static int places[LOOPS];                                 /* eventfd + 1, 0: free. Atomic: read by the handler */
static int n_places, handling;                            /* handling: how many handlers are at work; atomic */
static struct sigaction former;

static void write_fd(int fd) {
  static const uint64_t one = 1;
  if (write(fd, &one, sizeof(one)) < 0) return; /* full: the loop is awake */
}

/* In a signal handler. */
static void on_sigchld(int signum, siginfo_t *info, void *context) {
  int saved = errno;
  __atomic_fetch_add(&handling, 1, __ATOMIC_SEQ_CST);
  for (int i = 0; i < LOOPS; i++) {
    int fd = __atomic_load_n(&places[i], __ATOMIC_SEQ_CST) - 1;
    if (fd >= 0) write_fd(fd);
  }
  __atomic_fetch_sub(&handling, 1, __ATOMIC_SEQ_CST);
  errno = saved;
  if (former.sa_flags & SA_SIGINFO)
    former.sa_sigaction(signum, info, context);
  else if (former.sa_handler != SIG_DFL && former.sa_handler != SIG_IGN)
    former.sa_handler(signum);
}

static int install(void) {
  struct sigaction action = {.sa_sigaction = on_sigchld, .sa_flags = SA_RESTART | SA_SIGINFO | SA_NOCLDSTOP};
  sigemptyset(&action.sa_mask);
  return sigaction(SIGCHLD, &action, &former) ? -errno : 0;
}

/* Unless somebody else's handler stands there by now. */
static void uninstall(void) {
  struct sigaction current;
  if (sigaction(SIGCHLD, NULL, &current)) return;
  if (current.sa_flags & SA_SIGINFO && current.sa_sigaction == on_sigchld) sigaction(SIGCHLD, &former, NULL);
}

static int enter(int fd) {
  int place = 0;
  pthread_mutex_lock(&mutex);
  while (place < LOOPS && places[place]) place++;
  int err = place == LOOPS ? -EMFILE : n_places == 0 ? install() : 0;
  if (!err) {
    n_places++;
    __atomic_store_n(&places[place], fd + 1, __ATOMIC_SEQ_CST);
  }
  pthread_mutex_unlock(&mutex);
  return err ? err : place;
}

/* The descriptor is closed next, so handlers that are at work in other threads are waited for. */
static void leave(int place) {
  pthread_mutex_lock(&mutex);
  __atomic_store_n(&places[place], 0, __ATOMIC_SEQ_CST);
  if (--n_places == 0) uninstall();
  while (__atomic_load_n(&handling, __ATOMIC_SEQ_CST)) sched_yield();
  pthread_mutex_unlock(&mutex);
}

static void end(al__sigchld *watch) {
  al__fd_close(watch->op.fd);
  al__free(watch);
}

static void on_poll(al_loop *loop, al_op *op, int result, unsigned flags) {
  al__sigchld *watch = AL_CONTAINER(op, al__sigchld, op);
  uint64_t count;
  (void)result;
  if (!(flags & AL_OP_MORE)) {
    if (!watch->loop) end(watch);
  } else if (watch->loop) {
    al__fd_read(op->fd, &count, sizeof(count));
    watch->look(loop);
  }
}

static void on_timer(al_loop *loop, al_handle *handle) {
  al__sigchld *watch = AL_CONTAINER(handle, al__sigchld, timer.handle);
  al_timer_set(loop, &watch->timer, al_loop_time_ns(loop) + LOOK_NS); /* without memory SIGCHLD has to do */
  watch->look(loop);
}

int al__sigchld_open(al_loop *loop, void (*look)(al_loop *loop), al__sigchld **watch) {
  al__sigchld *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  int err = al__fd_eventfd();
  if (err < 0) goto fail_fd;
  *made = (al__sigchld){.loop = loop, .look = look};
  made->op = (al_op){.kind = AL_OP_POLL, .events = AL_POLL_IN, .fd = err, .done = on_poll};
  al_timer_init(&made->timer, on_timer);
  err = made->place = enter(made->op.fd);
  if (err < 0) goto fail_enter;
  err = loop->io->submit(loop, &made->op);
  if (err) goto fail_submit;
  al_timer_set(loop, &made->timer, al_loop_time_ns(loop) + LOOK_NS);
  al__sigchld_kick(made);
  *watch = made;
  return 0;
fail_submit:
  leave(made->place);
fail_enter:
  al__fd_close(made->op.fd);
fail_fd:
  al__free(made);
  return err;
}

void al__sigchld_kick(al__sigchld *watch) { write_fd(watch->op.fd); }

void al__sigchld_close(al__sigchld *watch) {
  al_loop *loop = watch->loop;
  watch->loop = NULL;
  leave(watch->place);
  al_timer_cancel(&watch->timer);
  if (al_op_is_idle(&watch->op))
    end(watch);
  else
    loop->io->cancel(loop, &watch->op);
}
