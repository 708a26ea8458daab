/* uring_setup.c - makes a ring, or finds out why there is none. See uring.h.
 *
 * What the machine needs is tried once in the process instead of derived from a version: the youngest feature of all is
 * multishot receive into a buffer ring, so a kernel that does it does the rest.
 *
 * SPDX-License-Identifier: MIT */
#include "base.h"
#include "mem.h"
#include "sock.h"
#include "uring.h"

#include <errno.h>
#include <string.h>

#define WANTED_FEATURES (IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP)

/* Completions are worked on in our own system calls only, not by interrupting whatever we do. The flag that says that
 * some are to be had saves the call when there are none. */
static const unsigned flag_sets[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
};

static const char too_old[] = "io_uring of this kernel lacks multishot receive into buffer rings (Linux 6.0 has it)";

static int refuse(int err, const char **reason) {
  switch (-err) {
  case ENOSYS: *reason = "this kernel has no io_uring"; return AL_ENORING;
  case EPERM:
  case EACCES:
    *reason = "io_uring is not permitted here (sysctl kernel.io_uring_disabled, a seccomp filter or a security module)";
    return AL_ENORING;
  case EINVAL:
  case ENOTSUP: *reason = too_old; return AL_ENORING;
  default: return err; /* of the moment: no memory, no descriptor */
  }
}

static int make_ring(struct io_uring *ring, unsigned more_flags) {
  int err = -EINVAL;
  for (size_t i = 0; i < AL_COUNT(flag_sets) && err == -EINVAL; i++) {
    struct io_uring_params params = {.cq_entries = AL_URING_CQ};
    params.flags = flag_sets[i] | more_flags | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    err = io_uring_queue_init_params(AL_URING_SQ, ring, &params);
    if (err) continue;
    if ((params.features & WANTED_FEATURES) == WANTED_FEATURES) return 0;
    io_uring_queue_exit(ring);
    err = -EINVAL;
  }
  return err;
}

/* Receives a byte the way the machine does. 0, -ENOTSUP, or what went wrong before it could be known. */
static int receive_byte(struct io_uring *ring, const int fds[2]) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
  struct io_uring_cqe *cqe;
  struct __kernel_timespec second = {.tv_sec = 1};
  if (al__sock_send(fds[1], &(struct iovec){"", 1}, 1) != 1) return -EIO;
  io_uring_prep_recv_multishot(sqe, fds[0], NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = AL_URING_GROUP;
  int err = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &second, NULL);
  if (err < 0) return err == -EINTR ? err : -ENOTSUP;
  bool works = cqe->res == 1 && (cqe->flags & IORING_CQE_F_BUFFER) && (cqe->flags & IORING_CQE_F_MORE);
  return works ? 0 : -ENOTSUP;
}

static int try_receiving(void) {
  struct io_uring ring;
  int fds[2];
  int err = al__sock_pair(AF_UNIX, SOCK_STREAM, fds);
  if (err) return err;
  al__bufs *bufs = al__calloc(1, sizeof(*bufs));
  if (!bufs) {
    err = -ENOMEM;
    goto fail_bufs;
  }
  err = make_ring(&ring, 0);
  if (err) goto fail_ring;
  err = al__bufs_register(bufs, &ring);
  if (!err) err = receive_byte(&ring, fds);
  io_uring_queue_exit(&ring);
fail_ring:
  al__bufs_free(bufs);
  al__free(bufs);
fail_bufs:
  al__fd_close(fds[0]);
  al__fd_close(fds[1]);
  return err;
}

/* Tries once; only a sure answer is kept. */
static int check_kernel(void) {
  static int known; /* atomic. 1: it works, < 0: it doesn't, and why */
  int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (answer) return AL_MIN(answer, 0);
  int err = try_receiving();
  if (!err || err == -ENOTSUP || err == -EINVAL || err == -ENOSYS)
    __atomic_store_n(&known, err ? err : 1, __ATOMIC_RELAXED);
  return err;
}

int al__uring_setup(struct io_uring *ring, const char **reason) {
  int err = check_kernel();
  if (!err) err = make_ring(ring, IORING_SETUP_R_DISABLED);
  return err ? refuse(err, reason) : 0;
}
