/* io_uring.c - the machine that has the kernel complete operations: io_uring. Behind io.h; used by loop.c through
 * al__io_uring. Here are its life, what owners ask for, and the turn. uring_ops.h has its state; uring_arm.c hands ops
 * over, uring_complete.c takes what comes back. The ring itself is made in uring_setup.c, its receive buffers stand in
 * uring_bufs.c. Nothing here looks at what kind an op is, the listening of ACCEPT and the moving of CONNECT aside.
 *
 * What the loop asks for during a turn is put on a list and handed over in one system call, the one that waits. RECV
 * and ACCEPT are multishot: armed once, they complete again and again, until the kernel ends them, which may be the
 * end of the op or only of the kernel's patience (no buffer, no room); then they are armed anew. POLL is one-shot
 * and armed anew after each completion, which makes it level-triggered. What the ring can't do on a descriptor
 * (receiving from a pipe), or not as well (bulk data), is done by polling and a plain system call.
 *
 * Fairness is the kernel's: within one wait a multishot receive goes on while there are data and buffers (32
 * pieces), so that one descriptor may deliver more than AL_READ_SIZE in a turn, and ACCEPT more than its limit.
 *
 * SPDX-License-Identifier: MIT */
#include "uring_ops.h"

#include "mem.h"
#include "sock.h"

#define CLOSE_ROUNDS 50 /* how often close waits for the ops to end ... */
#define CLOSE_WAIT_NS (100 * INT64_C(1000000))

/* ---- whose ring it is -------------------------------------------------------------------------------------------- */

static bool is_own(const al__uring *self) { return self->enabled && pthread_equal(self->thread, pthread_self()); }

static int enable(al__uring *self) {
  /* Not io_uring_enable_rings: liburing 2.3 forgot to export it. */
  int err = io_uring_register((unsigned)self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  if (err) return err;
  self->enabled = true;
  self->thread = pthread_self();
  return 0;
}

static void requeue_all(al__uring *self) {
  for (size_t i = 0; i < self->n_tickets; i++) {
    al_op *op = self->tickets[i].op;
    if (!op || op->state == AL_URING_QUEUED || op->state == AL_URING_RETRYING) continue;
    self->tickets[i].generation++;
    if (op->kind == AL_OP_CONNECT && op->u.connect.addr->ss.ss_family != AF_UNIX) op->flags |= AL_URING_BY_POLL;
    al__uring_again(self, op);
  }
  self->in_kernel = 0;
}

/* The loop was run by another thread before, whose ring we can't use. Nothing waits in it to be dispatched, and it
 * can complete nothing any more by itself: what was armed in it is armed in a new one. */
static int move_here(al__uring *self) {
  struct io_uring ring;
  const char *reason;
  int err = al__uring_setup(&ring, &reason);
  if (err) return err;
  io_uring_queue_exit(&self->ring);
  self->ring = ring;
  self->enabled = self->receives = false;
  requeue_all(self);
  return enable(self);
}

/* Makes the ring usable in this thread. */
static int own(al__uring *self) {
  if (is_own(self)) return 0;
  return self->enabled ? move_here(self) : enable(self);
}

/* ---- what owners ask for ----------------------------------------------------------------------------------------- */

static int uring_submit(al_loop *loop, al_op *op) {
  al__uring *self = loop->machine;
  al_assert(op->state == AL_OP_IDLE && op->done);
  if (self->closing) return AL_ECLOSED;
  int err = op->fd < 0 ? -EBADF : op->kind == AL_OP_POLL ? al__op_check_poll(op) : 0;
  if (!err) err = al__uring_take_ticket(self, op);
  if (err) return err;
  op->flags = al__op_first_flags(op);
  al__uring_queue(self, op);
  loop->stats.ops++;
  al__loop_io_changed(loop);
  return 0;
}

static void uring_cancel(al_loop *loop, al_op *op) {
  al__uring *self = loop->machine;
  al_assert(op->state != AL_OP_IDLE);
  al__datagrams_forget(self->datagrams, op);
  al__loop_io_changed(loop);
  if (op->state == AL_URING_QUEUED || op->state == AL_URING_RETRYING) {
    al__uring_finish(self, op, -ECANCELED);
  } else if (op->state == AL_URING_ARMED || op->state == AL_URING_SWITCHING) {
    if (op->state == AL_URING_ARMED) al__uring_list(self, op);
    op->state = AL_URING_ENDING;
  }
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* Nothing to hand over, and the kernel says that it has nothing for us that is not in the ring yet. */
static bool call_is_useless(const al__uring *self) {
  unsigned flags = IO_URING_READ_ONCE(*self->ring.sq.kflags);
  return !io_uring_sq_ready(&self->ring) && !(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static int enter(al__uring *self, int64_t timeout_ns) {
  struct __kernel_timespec ts = {.tv_sec = timeout_ns / AL_NS_PER_SEC, .tv_nsec = timeout_ns % AL_NS_PER_SEC};
  struct io_uring_cqe *cqe;
  int n = 0;
  if (timeout_ns != 0)
    n = io_uring_submit_and_wait_timeout(&self->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
  else if (!call_is_useless(self))
    n = io_uring_submit_and_get_events(&self->ring);
  switch (-n) {
  case ETIME:
  case EINTR:
  case EAGAIN: /* no memory for a request */
  case EBUSY: /* too many completions: what was not taken stays in the ring for the next turn */ return 0;
  default: return AL_MIN(n, 0);
  }
}

/* Is there an ACCEPT of this descriptor whose cancelling the kernel has not heard of? */
static bool accepts_still(const al__uring *self, int fd) {
  const al_op *op = self->todo.first;
  while (op && !(op->fd == fd && op->kind == AL_OP_ACCEPT && op->state == AL_URING_ENDING)) op = op->next;
  return op != NULL;
}

/* A socket listens as long as the kernel has it for an ACCEPT, so that the cancelling is handed over at once. */
static void uring_close_fd(al_loop *loop, int fd) {
  al__uring *self = loop->machine;
  if (accepts_still(self, fd) && is_own(self)) {
    al__uring_arm(self);
    enter(self, 0);
  }
  al__fd_close(fd);
}

static bool has_finished(const al__uring *self) {
  return !al__ops_is_empty(&self->finished) || !al__ops_is_empty(&self->ending);
}

/* Is there something to dispatch from before? */
static bool has_leftovers(const al__uring *self) {
  return self->collected || !al__ops_is_empty(&self->ending) || al__datagrams_are_left(self->datagrams);
}

static bool uring_flush(al_loop *loop) {
  al__uring *self = loop->machine;
  if (!self->collected && !io_uring_cq_ready(&self->ring) && !own(self)) {
    al__uring_arm(self);
    io_uring_submit(&self->ring); /* what it doesn't take now it takes with the next wait */
  }
  return has_leftovers(self) || io_uring_cq_ready(&self->ring) || has_finished(self) ||
         !al__ops_is_empty(&self->retries.ops);
}

static int uring_wait(al_loop *loop, int64_t timeout_ns) {
  al__uring *self = loop->machine;
  int err = 0;
  if (has_leftovers(self)) return 1;
  if (is_own(self) || !io_uring_cq_ready(&self->ring)) {
    err = own(self);
    if (err) return err;
    al__uring_arm(self);
    bool at_hand = has_finished(self) || io_uring_cq_ready(&self->ring);
    err = enter(self, at_hand ? 0 : al__retries_limit(&self->retries, timeout_ns));
  }
  self->collected = AL_MIN(io_uring_cq_ready(&self->ring), AL_EVENTS_PER_WAIT);
  al__ops_move(&self->ending, &self->finished);
  return err ? err : self->collected || !al__ops_is_empty(&self->ending);
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

static int uring_open(al_loop *loop, const char **reason) {
  al__uring *self = al__calloc(1, sizeof(*self));
  if (!self) return -ENOMEM;
  int err = al__uring_setup(&self->ring, reason);
  if (err) {
    al__free(self);
    return err;
  }
  loop->machine = self;
  return 0;
}

/* Takes back from the kernel what it has, for the memory of ops is not ours. */
static void cancel_all(al_loop *loop) {
  al__uring *self = loop->machine;
  for (size_t i = 0; i < self->n_tickets; i++)
    if (self->tickets[i].op) uring_cancel(loop, self->tickets[i].op);
  for (int round = 0; self->in_kernel && round < CLOSE_ROUNDS; round++) {
    al__uring_arm(self);
    if (enter(self, CLOSE_WAIT_NS)) break;
    al__uring_discard(self);
  }
}

static void uring_close(al_loop *loop) {
  al__uring *self = loop->machine;
  al_op *op;
  self->closing = true;
  if (is_own(self)) cancel_all(loop); /* another thread's ring cancels all by itself when it goes */
  al__uring_discard(self);
  io_uring_queue_exit(&self->ring);
  for (size_t i = 0; i < self->n_tickets; i++)
    if (self->tickets[i].op) al__uring_finish(self, self->tickets[i].op, 0);
  al__ops_move(&self->ending, &self->finished);
  while ((op = al__ops_take(&self->ending))) al__op_end(loop, op, -ECANCELED);
  al__bufs_free(&self->bufs);
  al__free(self->tickets);
  al__shared_free(&self->shared);
  al__datagrams_free(self->datagrams);
  al__free(self);
  loop->machine = NULL;
}

static int uring_poll_fd(al_loop *loop) {
  al__uring *self = loop->machine;
  return self->ring.ring_fd;
}

const al_io_ops al__io_uring = {
    .name = "uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .close_fd = uring_close_fd,
    .flush = uring_flush,
    .wait = uring_wait,
    .dispatch = al__uring_dispatch,
    .poll_fd = uring_poll_fd,
};
