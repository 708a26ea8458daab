/* machine.c - see machine.h.
 *
 * SPDX-License-Identifier: MIT */
#include "machine.h"

#include "sock.h"

#include <limits.h>

void al__ops_move(al__ops *to, al__ops *from) {
  if (!from->first) return;
  from->first->prev = to->last;
  *(to->last ? &to->last->next : &to->first) = from->first;
  to->last = from->last;
  *from = (al__ops){NULL, NULL};
}

#define RETRY_NS (2 * INT64_C(1000000))

al__ops al__retries_take(al__retries *retries) {
  al__ops taken = {NULL, NULL};
  if (al__ops_is_empty(&retries->ops)) return taken;
  int64_t now_ns = al_time_ns();
  if (now_ns < retries->at_ns) return taken;
  retries->at_ns = now_ns + RETRY_NS;
  al__ops_move(&taken, &retries->ops);
  return taken;
}

int64_t al__retries_limit(const al__retries *retries, int64_t timeout_ns) {
  if (al__ops_is_empty(&retries->ops)) return timeout_ns;
  return timeout_ns < 0 ? RETRY_NS : AL_MIN(timeout_ns, RETRY_NS);
}

static ssize_t read_some(al_op *op, void *base, size_t len) {
  if (!(op->flags & AL_OP_NOT_SOCKET)) {
    ssize_t n = al__sock_recv(op->fd, base, len);
    if (n != -ENOTSOCK) return n;
    op->flags |= AL_OP_NOT_SOCKET;
  }
  return al__fd_read(op->fd, base, len);
}

static ssize_t read_lent(al_op *op) {
  char *base;
  size_t len;
  uint8_t state = op->state;
  int err = op->u.recv.lend(op, &base, &len);
  if (op->state != state) return -EAGAIN;
  if (err) return err;
  if (!len) return AL_ENOBUFFER; /* reading nothing would look like the end of data */
  op->u.recv.data = base;
  return read_some(op, base, AL_MIN(len, AL_READ_SIZE));
}

#define PAGE 4096

static int make_shared(al__shared *shared) {
  char *block = al__malloc(AL_READ_SIZE + PAGE);
  if (!block) return -ENOMEM;
  shared->block = block;
  shared->base = block + (PAGE - (uintptr_t)block % PAGE);
  return 0;
}

static ssize_t read_shared(al_op *op, al__shared *shared) {
  int err = shared->base ? 0 : make_shared(shared);
  if (err) return err;
  op->u.recv.data = shared->base;
  return read_some(op, shared->base, AL_READ_SIZE);
}

ssize_t al__op_read(al_op *op, al__shared *shared) {
  if (op->kind == AL_OP_RECV_INTO) return read_some(op, op->u.into.base, AL_MIN(op->u.into.len, (size_t)INT_MAX));
  return op->u.recv.lend ? read_lent(op) : read_shared(op, shared);
}

ssize_t al__op_write(al_op *op) {
  int n = AL_MIN(op->u.send.n, IOV_MAX);
  if (!(op->flags & AL_OP_NOT_SOCKET)) {
    ssize_t sent = al__sock_send(op->fd, op->u.send.iov, n);
    if (sent != -ENOTSOCK) return sent;
    op->flags |= AL_OP_NOT_SOCKET;
  }
  return al__fd_write(op->fd, op->u.send.iov, n);
}

int al__op_check_poll(const al_op *op) {
  if (op->events & AL_POLL_ONCE) return 0; /* of a socket; what is wrong with it shows when it is polled */
  int kind = al__fd_kind(op->fd);
  return kind < 0 ? kind : kind == AL_FD_FILE ? -EPERM : 0;
}

bool al__accept_can_go_on(int err) {
  switch (-err) {
  case ECONNABORTED:
  case ENETDOWN:
  case EPROTO:
  case ENOPROTOOPT:
  case EHOSTDOWN:
  case ENONET:
  case EHOSTUNREACH:
  case ENETUNREACH:
  case EPERM: return true;
  default: return false;
  }
}
