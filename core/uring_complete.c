/* uring_complete.c - from the kernel to us: what a completion means for its op, and the upcall. See uring_ops.h. Called
 * by io_uring.c, from dispatch and at close. It enters no ring: what an op needs next is listed for uring_arm.c.
 *
 * The kernel posts one completion without IORING_CQE_F_MORE for each thing armed; until that is seen the op is not
 * ended. done may cancel the op and submit others; nothing of before holds after it (see al__op_call).
 *
 * SPDX-License-Identifier: MIT */
#include "uring_ops.h"

#include "sock.h"

/* Bulk data is better polled for and then read into the one buffer that the cache holds, than received into many of
 * which it holds none (64 KiB echo: 1.01 instead of 1.06 of the bare epoll server; equal at 16 KiB). So a RECV is
 * switched over by a piece as large as the one, and back by a piece as small as the other. */
#define BULK_BEGINS (32 * 1024)
#define BULK_ENDS (8 * 1024)

/* One completion, out of the ring. */
typedef struct completion {
  int result;
  bool more;  /* the kernel goes on */
  int buffer; /* -1: none */
} completion;

static void switch_to_bulk(al__uring *self, al_op *op, bool more) {
  op->flags |= AL_URING_BY_POLL;
  if (!more || op->state != AL_URING_ARMED) return;
  op->state = AL_URING_SWITCHING;
  al__uring_list(self, op);
}

static bool recv_goes_on(const al_op *op, int result) {
  return result > 0 || result == -ENOBUFS || result == -EINTR ||
         (result == -ECANCELED && op->state == AL_URING_SWITCHING);
}

static void on_recv(al_loop *loop, al_op *op, const completion *got) {
  al__uring *self = loop->machine;
  bool goes_on = recv_goes_on(op, got->result);
  if (got->result == -ENOBUFS) self->starved = true;
  if (got->result >= BULK_BEGINS) switch_to_bulk(self, op, got->more);
  if (!got->more && goes_on) al__uring_again(self, op); /* before done, which may cancel it */
  if (got->result > 0) {
    op->u.recv.data = self->bufs.at[got->buffer];
    al__op_call(loop, op, got->result, AL_OP_MORE);
  }
  if (got->buffer >= 0) al__bufs_give(&self->bufs, (unsigned)got->buffer);
  if (!got->more && !goes_on) al__uring_end(loop, op, got->result);
}

static void on_accept(al_loop *loop, al_op *op, const completion *got) {
  al__uring *self = loop->machine;
  bool goes_on = got->result >= 0 || al__accept_can_go_on(got->result);
  if (!got->more && goes_on) al__uring_again(self, op);
  if (got->result >= 0) {
    if (al__sock_peer(got->result, &self->peer)) self->peer.len = 0; /* it is gone already */
    op->u.accept.peer = &self->peer;
    al__op_call(loop, op, got->result, AL_OP_MORE);
  } else if (!goes_on) {
    al__uring_end(loop, op, got->result);
  }
}

/* ---- polls ------------------------------------------------------------------------------------------------------- */

static void retry_later(al__uring *self, al_op *op) {
  al__uring_unlist(self, op);
  op->state = AL_URING_RETRYING;
  al__ops_append(&self->retries.ops, op);
}

/* The op, which is queued, may send or receive datagrams. */
static void on_datagram(al_loop *loop, al_op *op) {
  al__uring *self = loop->machine;
  int result;
  if (op->kind == AL_OP_RECVFROM) {
    if (!al__datagrams_receive(loop, &self->datagrams, op, &result)) al__uring_end(loop, op, result);
    return;
  }
  result = (int)al__op_write(op);
  if (al__must_retry(op, result)) {
    retry_later(self, op);
  } else if (result != -EAGAIN) {
    al__uring_end(loop, op, result);
  }
}

static bool polls_once(const al_op *op) { return op->kind == AL_OP_POLL && op->events & AL_POLL_ONCE; }

/* A poll has come true: for the op itself, or for the system call that it waits for. */
static void on_poll(al_loop *loop, al_op *op, int result) {
  al__uring *self = loop->machine;
  if (result < 0 || op->state == AL_URING_ENDING) {
    al__uring_end(loop, op, op->state == AL_URING_ENDING ? -ECANCELED : result);
    return;
  }
  if (op->kind == AL_OP_CONNECT) {
    al__uring_end(loop, op, al__sock_error(op->fd));
    return;
  }
  if (polls_once(op)) {
    al__uring_end(loop, op, op->events & ~AL_POLL_ONCE);
    return;
  }
  al__uring_queue(self, op); /* first: done and lend may cancel it */
  if (op->kind == AL_OP_POLL) {
    al__op_call(loop, op, op->events, AL_OP_MORE);
    return;
  }
  if (al__uring_is_datagram(op)) {
    on_datagram(loop, op);
    return;
  }
  ssize_t n = op->kind == AL_OP_SEND ? al__op_write(op) : al__op_read(op, &self->shared);
  if (n == -EAGAIN) return;
  if (n < BULK_ENDS) op->flags &= (uint8_t)~AL_URING_BY_POLL;
  if (n > 0 && op->kind == AL_OP_RECV)
    al__op_call(loop, op, (int)n, AL_OP_MORE);
  else
    al__uring_end(loop, op, (int)n);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static bool moves_bytes(const al_op *op) {
  return op->kind == AL_OP_RECV || op->kind == AL_OP_RECV_INTO || op->kind == AL_OP_SEND;
}

static void complete_op(al_loop *loop, al_op *op, const completion *got) {
  al__uring *self = loop->machine;
  if (!got->more) {
    self->in_kernel--;
    al__uring_unlist(self, op); /* too late to cancel it */
  }
  if (op->flags & AL_URING_POLLING) {
    on_poll(loop, op, got->result);
  } else if (got->result == -ENOTSOCK && moves_bytes(op)) {
    op->flags |= AL_OP_NOT_SOCKET;
    al__uring_again(self, op);
  } else if (op->kind == AL_OP_RECV) {
    on_recv(loop, op, got);
  } else if (op->kind == AL_OP_ACCEPT) {
    on_accept(loop, op, got);
  } else if (al__must_retry(op, got->result) && op->state != AL_URING_ENDING) {
    retry_later(self, op);
  } else if (al__must_retry(op, got->result)) {
    al__uring_end(loop, op, -ECANCELED);
  } else {
    al__uring_end(loop, op, got->result);
  }
}

/* Takes the first completion out of the ring; its op, or NULL. */
static al_op *take_completion(al__uring *self, completion *got) {
  unsigned head = *self->ring.cq.khead;
  const struct io_uring_cqe *cqe = &self->ring.cq.cqes[head & self->ring.cq.ring_mask];
  al_op *op = al__uring_op_of(self, cqe->user_data);
  got->result = cqe->res;
  got->more = cqe->flags & IORING_CQE_F_MORE;
  got->buffer = cqe->flags & IORING_CQE_F_BUFFER ? (int)(cqe->flags >> IORING_CQE_BUFFER_SHIFT) : -1;
  io_uring_cq_advance(&self->ring, 1);
  return op;
}

void al__uring_dispatch(al_loop *loop) {
  al__uring *self = loop->machine;
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

void al__uring_discard(al__uring *self) {
  completion got;
  while (io_uring_cq_ready(&self->ring)) {
    al_op *op = take_completion(self, &got);
    if (!op) continue;
    if (op->kind == AL_OP_ACCEPT) al__fd_close(got.result);
    if (!got.more) self->in_kernel--;
  }
}
