/* lframe.c - frames over a socket that blocks. Knows no Lua state, and nothing of what is in a parcel.
 *
 * SPDX-License-Identifier: MIT */
#include "lframe.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef struct head {
  uint64_t len;
  uint32_t kind, magic;
} head;

static const uint32_t magic = 0x616c6f70; /* something else that writes to the socket is found out */

static int send_all(int fd, struct iovec *iov, size_t n) {
  while (n > 0) {
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == ECONNRESET ? -EPIPE : -errno;
    size_t left = (size_t)sent;
    for (; n > 0 && left >= iov->iov_len; iov++, n--) left -= iov->iov_len;
    if (n == 0) break;
    iov->iov_base = (char *)iov->iov_base + left;
    iov->iov_len -= left;
  }
  return 0;
}

int al_frame_send(int fd, al_frame_kind kind, const al_parcel *parcel) {
  size_t len = 0;
  const char *bytes = parcel ? al_parcel_bytes(parcel, &len) : NULL;
  head h = {len, (uint32_t)kind, magic};
  struct iovec iov[2] = {{&h, sizeof h}, {(void *)bytes, len}};
  return send_all(fd, iov, len ? 2 : 1);
}

static int receive_all(int fd, char *to, size_t len) {
  while (len > 0) {
    ssize_t n = recv(fd, to, len, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -EPIPE;
    to += n;
    len -= (size_t)n;
  }
  return 0;
}

static int skip(int fd, uint64_t len) {
  char scrap[4096];
  int err = 0;
  while (!err && len > 0) {
    size_t n = len < sizeof scrap ? (size_t)len : sizeof scrap;
    err = receive_all(fd, scrap, n);
    len -= n;
  }
  return err ? err : -ENOMEM;
}

int al_frame_receive(int fd, al_frame_kind *kind, al_parcel **parcel) {
  head h;
  int err = receive_all(fd, (char *)&h, sizeof h);
  if (err) return err;
  if (h.magic != magic) return -EPIPE;
  *kind = (al_frame_kind)h.kind;
  al_parcel *made = h.len > PTRDIFF_MAX ? NULL : al_parcel_from_bytes(NULL, h.len);
  if (!made) return skip(fd, h.len);
  err = receive_all(fd, al_parcel_room(made), h.len);
  if (err) {
    al_parcel_free(made);
    return err;
  }
  *parcel = made;
  return 0;
}
