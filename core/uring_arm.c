/* uring_arm.c - from us to the kernel: what is listed becomes submissions. See uring_ops.h. Called by io_uring.c before
 * each wait. It doesn't enter the kernel, save when the submissions are full, and calls nobody back.
 *
 * SPDX-License-Identifier: MIT */
#include "uring_ops.h"

#include "addr.h"

#include <limits.h>
#include <poll.h>

#define CANCEL_TICKET UINT64_MAX /* of the requests that cancel others: of no op */

/* ---- how an op is put to the kernel ------------------------------------------------------------------------------ */

static bool goes_by_poll(const al_op *op) {
  return op->kind == AL_OP_POLL || al__uring_is_datagram(op) || (op->flags & (AL_OP_NOT_SOCKET | AL_URING_BY_POLL));
}

static unsigned poll_mask(const al_op *op) {
  if (op->kind == AL_OP_POLL) return op->events & AL_POLL_OUT ? POLLOUT : POLLIN;
  return op->kind == AL_OP_SEND || op->kind == AL_OP_SENDTO || op->kind == AL_OP_CONNECT ? POLLOUT : POLLIN;
}

static void prepare_recv(struct io_uring_sqe *sqe, const al_op *op) {
  io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = AL_URING_GROUP;
}

static void prepare_send(al__uring *self, struct io_uring_sqe *sqe, const al_op *op) {
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

static void prepare(al__uring *self, struct io_uring_sqe *sqe, al_op *op) {
  op->flags &= (uint8_t)~AL_URING_POLLING;
  if (goes_by_poll(op)) {
    op->flags |= AL_URING_POLLING;
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

/* ---- what is listed ---------------------------------------------------------------------------------------------- */

/* A free submission, or NULL if the kernel takes none at the moment. */
static struct io_uring_sqe *next_sqe(al__uring *self) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
  if (sqe) return sqe;
  io_uring_submit(&self->ring);
  return io_uring_get_sqe(&self->ring);
}

static void hand_over(al__uring *self, struct io_uring_sqe *sqe, al_op *op) {
  if (op->state != AL_URING_QUEUED) {
    io_uring_prep_cancel64(sqe, al__uring_ticket_of(self, op), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, CANCEL_TICKET);
    return;
  }
  prepare(self, sqe, op);
  io_uring_sqe_set_data64(sqe, al__uring_ticket_of(self, op));
  op->state = AL_URING_ARMED;
  self->in_kernel++;
}

/* Sees to it that the kernel has buffers for an op that needs one. */
static int provide(al__uring *self, const al_op *op) {
  if (op->kind != AL_OP_RECV || self->receives) return 0;
  int err = al__bufs_register(&self->bufs, &self->ring);
  self->receives = !err;
  return err;
}

void al__uring_arm(al__uring *self) {
  if (self->starved) al__bufs_grow(&self->bufs);
  self->starved = false;
  al__ops retries = al__retries_take(&self->retries);
  for (al_op *op; (op = al__ops_take(&retries));) al__uring_queue(self, op);
  for (al_op *op; (op = self->todo.first);) {
    int err = provide(self, op);
    if (err) {
      al__uring_finish(self, op, err);
      continue;
    }
    struct io_uring_sqe *sqe = next_sqe(self);
    if (!sqe) return; /* the rest stays listed for the next turn */
    al__uring_unlist(self, op);
    hand_over(self, sqe, op);
  }
}
