/* io_uring.c - the machine that has the kernel complete operations: io_uring. Behind io.h; used by loop.c through
 * al__io_uring. The ring itself is made in uring_setup.c, its receive buffers stand in uring_bufs.c.
 *
 * What the loop asks for during a turn is put on a list and handed over in one system call, the one that waits. RECV
 * and ACCEPT are multishot: armed once, they complete again and again, until the kernel ends them, which may be the
 * end of the op or only of the kernel's patience (no buffer, no room); then they are armed anew. POLL is one-shot
 * and armed anew after each completion, which makes it level-triggered. What the ring can't do on a descriptor
 * (receiving from a pipe), or not as well (bulk data), is done by polling and a plain system call.
 *
 * The kernel knows an op by its ticket, a number with a generation, so that nothing it says late reaches a wrong op.
 * It posts one completion without IORING_CQE_F_MORE for each thing armed; until that is seen the op is not ended.
 *
 * Fairness is the kernel's: within one wait a multishot receive goes on while there are data and buffers (32
 * pieces), so that one descriptor may deliver more than AL_READ_SIZE in a turn, and ACCEPT more than its limit.
 *
 * SPDX-License-Identifier: MIT */
#include "addr.h"
#include "machine.h"
#include "mem.h"
#include "sock.h"
#include "uring.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>

/* op->state. QUEUED: to be armed. The kernel has it: ARMED; SWITCHING: to be stopped and armed otherwise; ENDING:
 * cancelled. RETRYING: see al__retries. FINISHED: op->tag is its result. */
enum { OP_QUEUED = AL_OP_IDLE + 1, OP_ARMED, OP_SWITCHING, OP_ENDING, OP_RETRYING, OP_FINISHED };

/* op->flags, besides AL_OP_NOT_SOCKET */
#define OP_LISTED 2u  /* on the list todo */
#define OP_BY_POLL 4u /* RECV: of bulk data. CONNECT: begun already (Unix ones are done at once or not at all) */
#define OP_POLLING 8u /* armed as a poll */

/* Bulk data is better polled for and then read into the one buffer that the cache holds, than received into many of
 * which it holds none (64 KiB echo: 1.01 instead of 1.06 of the bare epoll server; equal at 16 KiB). So a RECV is
 * switched over by a piece as large as the one, and back by a piece as small as the other. */
#define BULK_BEGINS (32 * 1024)
#define BULK_ENDS (8 * 1024)

#define CANCEL_TICKET UINT64_MAX /* of the requests that cancel others: of no op */

#define CLOSE_ROUNDS 50 /* how often close waits for the ops to end ... */
#define CLOSE_WAIT_NS (100 * INT64_C(1000000))

typedef struct ticket {
  al_op *op; /* NULL: free */
  uint32_t generation;
  uint32_t next_free; /* its index + 1, 0: none */
} ticket;

typedef struct machine {
  struct io_uring ring;
  bool enabled, closing;
  pthread_t thread; /* that enabled the ring: no other may use it */
  bool receives;    /* the buffers are registered */
  bool starved;     /* a receive found no buffer */

  ticket *tickets;
  size_t n_tickets;
  uint32_t free_ticket; /* index + 1 */

  al__ops todo;     /* OP_QUEUED: to be armed; OP_ENDING: to be cancelled */
  al__ops finished; /* have their result; wait moves them to ending */
  al__ops ending;   /* to be dispatched */
  al__retries retries;
  unsigned collected; /* completions to be dispatched */
  unsigned in_kernel; /* ops that are ARMED or ENDING */
  al__shared shared;  /* see al__op_read */
  al__datagrams *datagrams;
  al_addr peer; /* lent to done of ACCEPT */
  al__bufs bufs;
  struct msghdr msgs[AL_URING_SQ]; /* one for each submission, which needs it until it is submitted */
} machine;

/* ---- tickets ----------------------------------------------------------------------------------------------------- */

static int take_ticket(machine *self, al_op *op) {
  if (!self->free_ticket) {
    size_t old = self->n_tickets;
    void *tickets = self->tickets;
    int err = al__array_grow(&tickets, &self->n_tickets, sizeof(ticket), old + 1);
    if (err) return err;
    self->tickets = tickets;
    for (size_t i = self->n_tickets; i-- > old; self->free_ticket = (uint32_t)i + 1)
      self->tickets[i] = (ticket){.next_free = self->free_ticket};
  }
  op->tag = self->free_ticket - 1;
  self->free_ticket = self->tickets[op->tag].next_free;
  self->tickets[op->tag].op = op;
  return 0;
}

static void give_ticket(machine *self, uint32_t index) {
  ticket *at = &self->tickets[index];
  at->op = NULL;
  at->generation++;
  at->next_free = self->free_ticket;
  self->free_ticket = index + 1;
}

static uint64_t ticket_of(const machine *self, const al_op *op) {
  return (uint64_t)self->tickets[op->tag].generation << 32 | op->tag;
}

static al_op *op_of(const machine *self, uint64_t number) {
  uint32_t index = (uint32_t)number;
  if (index >= self->n_tickets || self->tickets[index].generation != (uint32_t)(number >> 32)) return NULL;
  return self->tickets[index].op;
}

/* ---- the states of an op ----------------------------------------------------------------------------------------- */

static void list(machine *self, al_op *op) {
  op->flags |= OP_LISTED;
  al__ops_append(&self->todo, op);
}

static void unlist(machine *self, al_op *op) {
  if (op->flags & OP_LISTED) al__ops_remove(&self->todo, op);
  if (op->state == OP_RETRYING) al__ops_remove(&self->retries.ops, op);
  op->flags &= (uint8_t)~OP_LISTED;
}

static void queue(machine *self, al_op *op) {
  op->state = OP_QUEUED;
  list(self, op);
}

/* Gives the op, which the kernel has not, its result; it comes with the next dispatch. */
static void finish(machine *self, al_op *op, int result) {
  unlist(self, op);
  give_ticket(self, op->tag);
  op->state = OP_FINISHED;
  op->tag = (uint32_t)result;
  al__ops_append(&self->finished, op);
}

/* The same from inside dispatch, at once. */
static void end(al_loop *loop, al_op *op, int result) {
  unlist(loop->machine, op);
  give_ticket(loop->machine, op->tag);
  al__op_end(loop, op, result);
}

/* The kernel has ended what it did for the op, which isn't at its end: it is armed anew, unless it was cancelled. */
static void again(machine *self, al_op *op) {
  if (op->state == OP_ENDING)
    finish(self, op, -ECANCELED);
  else
    queue(self, op);
}

static int uring_submit(al_loop *loop, al_op *op) {
  machine *self = loop->machine;
  al_assert(op->state == AL_OP_IDLE && op->done);
  if (self->closing) return AL_ECLOSED;
  int err = op->fd < 0 ? -EBADF : op->kind == AL_OP_POLL ? al__op_check_poll(op) : 0;
  if (!err) err = take_ticket(self, op);
  if (err) return err;
  op->flags = al__op_first_flags(op);
  queue(self, op);
  loop->stats.ops++;
  al__loop_io_changed(loop);
  return 0;
}

static void uring_cancel(al_loop *loop, al_op *op) {
  machine *self = loop->machine;
  al_assert(op->state != AL_OP_IDLE);
  al__datagrams_forget(self->datagrams, op);
  al__loop_io_changed(loop);
  if (op->state == OP_QUEUED || op->state == OP_RETRYING) {
    finish(self, op, -ECANCELED);
  } else if (op->state == OP_ARMED || op->state == OP_SWITCHING) {
    if (op->state == OP_ARMED) list(self, op);
    op->state = OP_ENDING;
  }
}

/* ---- handing over ------------------------------------------------------------------------------------------------ */

/* Datagrams are polled for, and then received many at a time. */
static bool is_datagram(const al_op *op) { return op->kind == AL_OP_RECVFROM || op->kind == AL_OP_SENDTO; }

static bool goes_by_poll(const al_op *op) {
  return op->kind == AL_OP_POLL || is_datagram(op) || (op->flags & (AL_OP_NOT_SOCKET | OP_BY_POLL));
}

static bool polls_once(const al_op *op) { return op->kind == AL_OP_POLL && op->events & AL_POLL_ONCE; }

static unsigned poll_mask(const al_op *op) {
  if (op->kind == AL_OP_POLL) return op->events & AL_POLL_OUT ? POLLOUT : POLLIN;
  return op->kind == AL_OP_SEND || op->kind == AL_OP_SENDTO || op->kind == AL_OP_CONNECT ? POLLOUT : POLLIN;
}

static void prepare_recv(struct io_uring_sqe *sqe, const al_op *op) {
  io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = AL_URING_GROUP;
}

static void prepare_send(machine *self, struct io_uring_sqe *sqe, const al_op *op) {
  const struct iovec *iov = op->u.send.iov;
  if (op->u.send.n == 1) {
    io_uring_prep_send(sqe, op->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
  } else {
    struct msghdr *msg = &self->msgs[sqe - self->ring.sq.sqes];
    *msg = (struct msghdr){.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)AL_MIN(op->u.send.n, IOV_MAX)};
    io_uring_prep_sendmsg(sqe, op->fd, msg, MSG_NOSIGNAL);
  }
  sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* the owner has tried already */
}

static void prepare(machine *self, struct io_uring_sqe *sqe, al_op *op) {
  op->flags &= (uint8_t)~OP_POLLING;
  if (goes_by_poll(op)) {
    op->flags |= OP_POLLING;
    io_uring_prep_poll_add(sqe, op->fd, poll_mask(op));
    return;
  }
  switch ((al_op_kind)op->kind) {
  case AL_OP_RECV: prepare_recv(sqe, op); break;
  case AL_OP_RECV_INTO:
    io_uring_prep_recv(sqe, op->fd, op->u.into.base, AL_MIN(op->u.into.len, (size_t)INT_MAX), 0);
    break;
  case AL_OP_SEND: prepare_send(self, sqe, op); break;
  case AL_OP_ACCEPT: /* the peer's address would be overwritten by the next one's: it is asked for later */
    io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    break;
  case AL_OP_CONNECT:
    io_uring_prep_connect(sqe, op->fd, al__addr_sa(op->u.connect.addr), op->u.connect.addr->len);
    break;
  case AL_OP_RECVFROM:
  case AL_OP_SENDTO:
  case AL_OP_POLL: break; /* gone by poll */
  }
}

/* A free submission, or NULL if the kernel takes none at the moment. */
static struct io_uring_sqe *next_sqe(machine *self) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
  if (sqe) return sqe;
  io_uring_submit(&self->ring);
  return io_uring_get_sqe(&self->ring);
}

static void hand_over(machine *self, struct io_uring_sqe *sqe, al_op *op) {
  if (op->state != OP_QUEUED) {
    io_uring_prep_cancel64(sqe, ticket_of(self, op), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, CANCEL_TICKET);
    return;
  }
  prepare(self, sqe, op);
  io_uring_sqe_set_data64(sqe, ticket_of(self, op));
  op->state = OP_ARMED;
  self->in_kernel++;
}

/* Sees to it that the kernel has buffers for an op that needs one. */
static int provide(machine *self, const al_op *op) {
  if (op->kind != AL_OP_RECV || self->receives) return 0;
  int err = al__bufs_register(&self->bufs, &self->ring);
  self->receives = !err;
  return err;
}

static void hand_over_all(machine *self) {
  if (self->starved) al__bufs_grow(&self->bufs);
  self->starved = false;
  al__ops retries = al__retries_take(&self->retries);
  for (al_op *op; (op = al__ops_take(&retries));) queue(self, op);
  for (al_op *op; (op = self->todo.first);) {
    int err = provide(self, op);
    if (err) {
      finish(self, op, err);
      continue;
    }
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) return; /* the rest stays listed for the next turn */
    unlist(self, op);
    hand_over(self, sqe, op);
  }
}

/* ---- whose ring it is -------------------------------------------------------------------------------------------- */

static bool is_own(const machine *self) { return self->enabled && pthread_equal(self->thread, pthread_self()); }

static int enable(machine *self) {
  /* Not io_uring_enable_rings: liburing 2.3 forgot to export it. */
  int err = io_uring_register((unsigned)self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  if (err) return err;
  self->enabled = true;
  self->thread = pthread_self();
  return 0;
}

static void requeue_all(machine *self) {
  for (size_t i = 0; i < self->n_tickets; i++) {
    al_op *op = self->tickets[i].op;
    if (!op || op->state == OP_QUEUED || op->state == OP_RETRYING) continue;
    self->tickets[i].generation++;
    if (op->kind == AL_OP_CONNECT && op->u.connect.addr->ss.ss_family != AF_UNIX) op->flags |= OP_BY_POLL;
    again(self, op);
  }
  self->in_kernel = 0;
}

/* The loop was run by another thread before, whose ring we can't use. Nothing waits in it to be dispatched, and it
 * can complete nothing any more by itself: what was armed in it is armed in a new one. */
static int move_here(machine *self) {
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
static int own(machine *self) {
  if (is_own(self)) return 0;
  return self->enabled ? move_here(self) : enable(self);
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

/* One completion, out of the ring. */
typedef struct completion {
  int result;
  bool more;  /* the kernel goes on */
  int buffer; /* -1: none */
} completion;

static void switch_to_bulk(machine *self, al_op *op, bool more) {
  op->flags |= OP_BY_POLL;
  if (!more || op->state != OP_ARMED) return;
  op->state = OP_SWITCHING;
  list(self, op);
}

static bool recv_goes_on(const al_op *op, int result) {
  return result > 0 || result == -ENOBUFS || result == -EINTR || (result == -ECANCELED && op->state == OP_SWITCHING);
}

static void on_recv(al_loop *loop, al_op *op, const completion *got) {
  machine *self = loop->machine;
  bool goes_on = recv_goes_on(op, got->result);
  if (got->result == -ENOBUFS) self->starved = true;
  if (got->result >= BULK_BEGINS) switch_to_bulk(self, op, got->more);
  if (!got->more && goes_on) again(self, op); /* before done, which may cancel it */
  if (got->result > 0) {
    op->u.recv.data = self->bufs.at[got->buffer];
    al__op_call(loop, op, got->result, AL_OP_MORE);
  }
  if (got->buffer >= 0) al__bufs_give(&self->bufs, (unsigned)got->buffer);
  if (!got->more && !goes_on) end(loop, op, got->result);
}

static void on_accept(al_loop *loop, al_op *op, const completion *got) {
  machine *self = loop->machine;
  bool goes_on = got->result >= 0 || al__accept_can_go_on(got->result);
  if (!got->more && goes_on) again(self, op);
  if (got->result >= 0) {
    if (al__sock_peer(got->result, &self->peer)) self->peer.len = 0; /* it is gone already */
    op->u.accept.peer = &self->peer;
    al__op_call(loop, op, got->result, AL_OP_MORE);
  } else if (!goes_on) {
    end(loop, op, got->result);
  }
}

/* The op, which is queued, may send or receive datagrams. */
static void on_datagram(al_loop *loop, al_op *op) {
  machine *self = loop->machine;
  int result;
  if (op->kind == AL_OP_RECVFROM) {
    if (!al__datagrams_receive(loop, &self->datagrams, op, &result)) end(loop, op, result);
    return;
  }
  result = (int)al__op_write(op);
  if (al__must_retry(op, result)) {
    unlist(self, op);
    op->state = OP_RETRYING;
    al__ops_append(&self->retries.ops, op);
  } else if (result != -EAGAIN) {
    end(loop, op, result);
  }
}

/* A poll has come true: for the op itself, or for the system call that it waits for. */
static void on_poll(al_loop *loop, al_op *op, int result) {
  machine *self = loop->machine;
  if (result < 0 || op->state == OP_ENDING) {
    end(loop, op, op->state == OP_ENDING ? -ECANCELED : result);
    return;
  }
  if (op->kind == AL_OP_CONNECT) {
    end(loop, op, al__sock_error(op->fd));
    return;
  }
  if (polls_once(op)) {
    end(loop, op, op->events & ~AL_POLL_ONCE);
    return;
  }
  queue(self, op); /* first: done and lend may cancel it */
  if (op->kind == AL_OP_POLL) {
    al__op_call(loop, op, op->events, AL_OP_MORE);
    return;
  }
  if (is_datagram(op)) {
    on_datagram(loop, op);
    return;
  }
  ssize_t n = op->kind == AL_OP_SEND ? al__op_write(op) : al__op_read(op, &self->shared);
  if (n == -EAGAIN) return;
  if (n < BULK_ENDS) op->flags &= (uint8_t)~OP_BY_POLL;
  if (n > 0 && op->kind == AL_OP_RECV)
    al__op_call(loop, op, (int)n, AL_OP_MORE);
  else
    end(loop, op, (int)n);
}

static void retry_later(al_loop *loop, al_op *op) {
  machine *self = loop->machine;
  if (op->state == OP_ENDING) {
    end(loop, op, -ECANCELED);
    return;
  }
  op->state = OP_RETRYING;
  al__ops_append(&self->retries.ops, op);
}

static bool moves_bytes(const al_op *op) {
  return op->kind == AL_OP_RECV || op->kind == AL_OP_RECV_INTO || op->kind == AL_OP_SEND;
}

static void complete_op(al_loop *loop, al_op *op, const completion *got) {
  machine *self = loop->machine;
  if (!got->more) {
    self->in_kernel--;
    unlist(self, op); /* too late to cancel it */
  }
  if (op->flags & OP_POLLING) {
    on_poll(loop, op, got->result);
  } else if (got->result == -ENOTSOCK && moves_bytes(op)) {
    op->flags |= AL_OP_NOT_SOCKET;
    again(self, op);
  } else if (op->kind == AL_OP_RECV) {
    on_recv(loop, op, got);
  } else if (op->kind == AL_OP_ACCEPT) {
    on_accept(loop, op, got);
  } else if (al__must_retry(op, got->result)) {
    retry_later(loop, op);
  } else {
    end(loop, op, got->result);
  }
}

/* Takes the first completion out of the ring; its op, or NULL. */
static al_op *take_completion(machine *self, completion *got) {
  unsigned head = *self->ring.cq.khead;
  const struct io_uring_cqe *cqe = &self->ring.cq.cqes[head & self->ring.cq.ring_mask];
  al_op *op = op_of(self, cqe->user_data);
  got->result = cqe->res;
  got->more = cqe->flags & IORING_CQE_F_MORE;
  got->buffer = cqe->flags & IORING_CQE_F_BUFFER ? (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT) : -1;
  io_uring_cq_advance(&self->ring, 1);
  return op;
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* Nothing to hand over, and the kernel says that it has nothing for us that is not in the ring yet. */
static bool call_is_useless(const machine *self) {
  unsigned flags = IO_URING_READ_ONCE(*self->ring.sq.kflags);
  return !io_uring_sq_ready(&self->ring) && !(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static int enter(machine *self, int64_t timeout_ns) {
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
  case EAGAIN: /* no memory for a request, or */
  case EBUSY: /* too many completions: what was not taken stays in the ring for the next turn */ return 0;
  default: return AL_MIN(n, 0);
  }
}

/* Is there an ACCEPT of this descriptor whose cancelling the kernel has not heard of? */
static bool accepts_still(const machine *self, int fd) {
  const al_op *op = self->todo.first;
  while (op && !(op->fd == fd && op->kind == AL_OP_ACCEPT && op->state == OP_ENDING)) op = op->next;
  return op != NULL;
}

/* A socket listens as long as the kernel has it for an ACCEPT, so that the cancelling is handed over at once. */
static void uring_close_fd(al_loop *loop, int fd) {
  machine *self = loop->machine;
  if (accepts_still(self, fd) && is_own(self)) {
    hand_over_all(self);
    enter(self, 0);
  }
  al__fd_close(fd);
}

static bool has_finished(const machine *self) {
  return !al__ops_is_empty(&self->finished) || !al__ops_is_empty(&self->ending);
}

/* Is there something to dispatch from before? */
static bool has_leftovers(const machine *self) {
  return self->collected || !al__ops_is_empty(&self->ending) || al__datagrams_are_left(self->datagrams);
}

static bool uring_flush(al_loop *loop) {
  machine *self = loop->machine;
  if (!self->collected && !io_uring_cq_ready(&self->ring) && !own(self)) {
    hand_over_all(self);
    io_uring_submit(&self->ring); /* what it doesn't take now it takes with the next wait */
  }
  return has_leftovers(self) || io_uring_cq_ready(&self->ring) || has_finished(self) ||
         !al__ops_is_empty(&self->retries.ops);
}

static int uring_wait(al_loop *loop, int64_t timeout_ns) {
  machine *self = loop->machine;
  int err = 0;
  if (has_leftovers(self)) return 1;
  if (is_own(self) || !io_uring_cq_ready(&self->ring)) {
    err = own(self);
    if (err) return err;
    hand_over_all(self);
    bool at_hand = has_finished(self) || io_uring_cq_ready(&self->ring);
    err = enter(self, at_hand ? 0 : al__retries_limit(&self->retries, timeout_ns));
  }
  self->collected = AL_MIN(io_uring_cq_ready(&self->ring), AL_EVENTS_PER_WAIT);
  al__ops_move(&self->ending, &self->finished);
  return err ? err : self->collected || !al__ops_is_empty(&self->ending);
}

static void uring_dispatch(al_loop *loop) {
  machine *self = loop->machine;
  completion got;
  al_op *op;
  al__datagrams_go_on(loop, self->datagrams);
  while (!al__loop_broken(loop) && (op = al__ops_take(&self->ending))) al__op_end(loop, op, (int)op->tag);
  while (!al__loop_broken(loop) && self->collected) {
    self->collected--;
    op = take_completion(self, &got);
    if (op)
      complete_op(loop, op, &got);
    else if (got.buffer >= 0)
      al__bufs_give(&self->bufs, (unsigned)got.buffer);
  }
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

static int uring_open(al_loop *loop, const char **reason) {
  machine *self = al__calloc(1, sizeof(*self));
  if (!self) return -ENOMEM;
  int err = al__uring_setup(&self->ring, reason);
  if (err) {
    al__free(self);
    return err;
  }
  loop->machine = self;
  return 0;
}

/* Throws away what has come in, of what nobody will hear any more. */
static void discard_completions(machine *self) {
  completion got;
  while (io_uring_cq_ready(&self->ring)) {
    al_op *op = take_completion(self, &got);
    if (!op) continue;
    if (op->kind == AL_OP_ACCEPT) al__fd_close(got.result);
    if (!got.more) self->in_kernel--;
  }
}

/* Takes back from the kernel what it has, for the memory of ops is not ours. */
static void cancel_all(al_loop *loop) {
  machine *self = loop->machine;
  for (size_t i = 0; i < self->n_tickets; i++)
    if (self->tickets[i].op) uring_cancel(loop, self->tickets[i].op);
  for (int round = 0; self->in_kernel && round < CLOSE_ROUNDS; round++) {
    hand_over_all(self);
    if (enter(self, CLOSE_WAIT_NS)) break;
    discard_completions(self);
  }
}

static void uring_close(al_loop *loop) {
  machine *self = loop->machine;
  al_op *op;
  self->closing = true;
  if (is_own(self)) cancel_all(loop); /* another thread's ring cancels all by itself when it goes */
  discard_completions(self);
  io_uring_queue_exit(&self->ring);
  for (size_t i = 0; i < self->n_tickets; i++)
    if (self->tickets[i].op) finish(self, self->tickets[i].op, 0);
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
  machine *self = loop->machine;
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
    .dispatch = uring_dispatch,
    .poll_fd = uring_poll_fd,
};
