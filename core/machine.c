/* machine.c - see machine.h.
 *
 * SPDX-License-Identifier: MIT */
#include "machine.h"

#include "sock.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>

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

static int make_shared(al__shared *shared) {
  shared->block = al__malloc(AL_READ_SIZE + AL_PLACE_SLACK);
  if (!shared->block) return -ENOMEM;
  shared->base = al_place(shared->block);
  return 0;
}

static ssize_t read_shared(al_op *op, al__shared *shared) {
  int err = shared->base ? 0 : make_shared(shared);
  if (err) return err;
  op->u.recv.data = shared->base;
  return read_some(op, shared->base, AL_READ_SIZE);
}

static ssize_t read_lent(al_op *op, al__shared *shared) {
  char *base;
  size_t len;
  uint8_t state = op->state;
  int err = op->u.recv.lend(op, &base, &len);
  if (op->state != state) return -EAGAIN;
  if (err) return err;
  if (!base) return read_shared(op, shared);
  if (!len) return AL_ENOBUFFER; /* reading nothing would look like the end of data */
  op->u.recv.data = base;
  return read_some(op, base, AL_MIN(len, AL_READ_SIZE));
}

ssize_t al__op_read(al_op *op, al__shared *shared) {
  if (op->kind == AL_OP_RECV_INTO) return read_some(op, op->u.into.base, AL_MIN(op->u.into.len, (size_t)INT_MAX));
  return op->u.recv.lend ? read_lent(op, shared) : read_shared(op, shared);
}

ssize_t al__op_write(al_op *op) {
  if (op->kind == AL_OP_SENDTO)
    return al__sock_sendto(op->fd, op->u.sendto.iov->iov_base, op->u.sendto.iov->iov_len, op->u.sendto.to);
  int n = AL_MIN(op->u.send.n, IOV_MAX);
  if (!(op->flags & AL_OP_NOT_SOCKET)) {
    ssize_t sent = al__sock_send(op->fd, op->u.send.iov, n);
    if (sent != -ENOTSOCK) return sent;
    op->flags |= AL_OP_NOT_SOCKET;
  }
  return al__fd_write(op->fd, op->u.send.iov, n);
}

/* Room for the largest datagram that asyncio takes, of which a small one touches one page. What follows each other
 * doesn't begin at the same sets of the cache. */
#define DATAGRAM_STRIDE (AL_READ_SIZE + 17 * 64)
#define DATAGRAM_BYTES ((size_t)AL_DATAGRAMS * DATAGRAM_STRIDE)

struct al__datagrams {
  char *bytes;
  al_op *op; /* whose they are; NULL: none is left */
  int next, n;
  al_addr from[AL_DATAGRAMS];
  struct iovec iov[AL_DATAGRAMS];
  struct mmsghdr msgs[AL_DATAGRAMS];
};

/* Mapped, so that what is never touched costs nothing, whatever the allocator. */
static int make_datagrams(al__datagrams **datagrams) {
  al__datagrams *made = al__calloc(1, sizeof(*made));
  if (!made) return -ENOMEM;
  void *bytes = mmap(NULL, DATAGRAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bytes == MAP_FAILED) {
    al__free(made);
    return -ENOMEM;
  }
  made->bytes = bytes;
  for (int i = 0; i < AL_DATAGRAMS; i++) {
    made->iov[i] = (struct iovec){.iov_base = made->bytes + (size_t)i * DATAGRAM_STRIDE, .iov_len = AL_READ_SIZE};
    made->msgs[i].msg_hdr = (struct msghdr){.msg_iov = &made->iov[i],
                                            .msg_iovlen = 1,
                                            .msg_name = &made->from[i].ss,
                                            .msg_namelen = sizeof(made->from[i].ss)};
  }
  *datagrams = made;
  return 0;
}

void al__datagrams_free(al__datagrams *datagrams) {
  if (!datagrams) return;
  munmap(datagrams->bytes, DATAGRAM_BYTES);
  al__free(datagrams);
}

bool al__datagrams_are_left(const al__datagrams *datagrams) { return datagrams && datagrams->op; }

void al__datagrams_forget(al__datagrams *datagrams, const al_op *op) {
  if (datagrams && datagrams->op == op) datagrams->op = NULL;
}

static void deliver_next(al_loop *loop, al__datagrams *datagrams) {
  al_op *op = datagrams->op;
  int i = datagrams->next++;
  struct mmsghdr *msg = &datagrams->msgs[i];
  datagrams->from[i].len = AL_MIN(msg->msg_hdr.msg_namelen, (socklen_t)sizeof(datagrams->from[i].ss));
  msg->msg_hdr.msg_namelen = sizeof(datagrams->from[i].ss); /* for the next time */
  op->u.recvfrom.data = datagrams->iov[i].iov_base;
  op->u.recvfrom.from = &datagrams->from[i];
  if (datagrams->next == datagrams->n) datagrams->op = NULL;
  al__op_call(loop, op, (int)msg->msg_len, AL_OP_MORE);
}

void al__datagrams_go_on(al_loop *loop, al__datagrams *datagrams) {
  while (al__datagrams_are_left(datagrams) && !al__loop_broken(loop)) deliver_next(loop, datagrams);
}

/* Does the error mean that receiving makes no sense any more? It would come again and again. */
static bool is_final(int err) {
  return err == -EBADF || err == -ENOTSOCK || err == -ENOTCONN || err == -EINVAL || err == -EOPNOTSUPP;
}

bool al__datagrams_receive(al_loop *loop, al__datagrams **datagrams, al_op *op, int *end) {
  *end = *datagrams ? 0 : make_datagrams(datagrams);
  if (*end) return false;
  al__datagrams *self = *datagrams;
  for (int i = self->next; i < self->n; i++) /* of those that nobody took */
    self->msgs[i].msg_hdr.msg_namelen = sizeof(self->from[i].ss);
  self->next = self->n = 0;
  int n = al__sock_recvmany(op->fd, self->msgs, AL_DATAGRAMS);
  if (n == -EAGAIN) return true;
  if (n < 0) {
    *end = n;
    if (is_final(n)) return false;
    al__op_call(loop, op, n, AL_OP_MORE);
    return true;
  }
  self->n = n;
  self->op = op;
  al__datagrams_go_on(loop, self);
  return true;
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
