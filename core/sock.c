/* sock.c - see sock.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sock.h"

#include "addr.h"
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* Makes the call until it is not interrupted; result is then >= 0, or -errno. */
#define CALL(result, call)                  \
  do {                                      \
    do (result) = (call);                   \
    while ((result) < 0 && errno == EINTR); \
    if ((result) < 0) (result) = -errno;    \
  } while (0)

/* Of a call that can't be interrupted. */
static inline int check(int result) { return result < 0 ? -errno : result; }

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

int al__sock_open(int family, int type, int protocol) {
  return check(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

int al__sock_pair(int family, int type, int fds[2]) {
  return check(socketpair(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
}

int al__sock_accept(int fd, al_addr *peer) {
  for (;;) {
    socklen_t len = sizeof(peer->ss);
    int conn =
        accept4(fd, peer ? (struct sockaddr *)&peer->ss : NULL, peer ? &len : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (conn >= 0) {
      if (peer) peer->len = AL_MIN(len, (socklen_t)sizeof(peer->ss));
      return conn;
    }
    /* ECONNABORTED, EPROTO: this peer is gone already; the next one may wait behind it. */
    if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO) return -errno;
  }
}

int al__sock_bind(int fd, const al_addr *addr) { return check(bind(fd, al__addr_sa(addr), addr->len)); }

int al__sock_listen(int fd, int backlog) { return check(listen(fd, backlog)); }

int al__sock_connect(int fd, const al_addr *addr) {
  if (!connect(fd, al__addr_sa(addr), addr->len)) return 0;
  return errno == EINTR ? -EINPROGRESS : -errno; /* an interrupted connect goes on in the background */
}

ssize_t al__sock_recv(int fd, void *base, size_t len) {
  ssize_t n;
  CALL(n, recv(fd, base, len, 0));
  return n;
}

ssize_t al__sock_send(int fd, const struct iovec *iov, int n) {
  struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
  ssize_t sent;
  if (n == 1) /* the common case; send has less to copy in than sendmsg */
    CALL(sent, send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL));
  else
    CALL(sent, sendmsg(fd, &msg, MSG_NOSIGNAL));
  return sent;
}

int al__sock_sendto(int fd, const void *data, size_t len, const al_addr *to) {
  ssize_t sent;
  CALL(sent, sendto(fd, data, len, MSG_NOSIGNAL, to ? al__addr_sa(to) : NULL, to ? to->len : 0));
  return (int)AL_MIN(sent, 0);
}

int al__sock_recvmany(int fd, struct mmsghdr *msgs, unsigned n) {
  int got;
  CALL(got, recvmmsg(fd, msgs, n, MSG_DONTWAIT, NULL));
  return got;
}

int al__sock_end_writing(int fd) { return check(shutdown(fd, SHUT_WR)); }

int al__sock_error(int fd) {
  int error;
  socklen_t len = sizeof(error);
  int err = check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
  return err ? err : -error;
}

static int get_addr(int fd, al_addr *addr, int (*get)(int, struct sockaddr *, socklen_t *)) {
  al_addr found = {.len = sizeof(found.ss)};
  if (get(fd, (struct sockaddr *)&found.ss, &found.len) < 0) return -errno;
  found.len = AL_MIN(found.len, (socklen_t)sizeof(found.ss));
  *addr = found;
  return 0;
}

int al__sock_name(int fd, al_addr *addr) { return get_addr(fd, addr, getsockname); }
int al__sock_peer(int fd, al_addr *addr) { return get_addr(fd, addr, getpeername); }

/* ---- options ----------------------------------------------------------------------------------------------------- */

static int set_on(int fd, int level, int option) {
  return check(setsockopt(fd, level, option, &(int){1}, sizeof(int)));
}

int al__sock_set_nodelay(int fd) { return set_on(fd, IPPROTO_TCP, TCP_NODELAY); }
int al__sock_set_keepalive(int fd) { return set_on(fd, SOL_SOCKET, SO_KEEPALIVE); }
int al__sock_set_reuse_address(int fd) { return set_on(fd, SOL_SOCKET, SO_REUSEADDR); }
int al__sock_set_reuse_port(int fd) { return set_on(fd, SOL_SOCKET, SO_REUSEPORT); }
int al__sock_set_v6only(int fd) { return set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY); }

int al__sock_set_broadcast(int fd) { return set_on(fd, SOL_SOCKET, SO_BROADCAST); }

void al__sock_remove_stale(const al_addr *addr) {
  const char *path = al__addr_path(addr);
  struct stat st;
  if (!path) return;
  int err = stat(path, &st);
  if (!err && !S_ISSOCK(st.st_mode)) return;
  if (!err) err = unlink(path);
  if (err && errno != ENOENT)
    al_log(AL_LOG_ERROR, NULL, "Unable to check or remove stale UNIX socket '%s': %s", path, al_strerror(-errno));
}

/* ---- descriptors of any kind ------------------------------------------------------------------------------------- */

int al__fd_kind(int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0) return -errno;
  switch (st.st_mode & S_IFMT) {
  case S_IFSOCK: return AL_FD_SOCKET;
  case S_IFIFO: return AL_FD_PIPE;
  case S_IFCHR: return AL_FD_CHAR;
  case S_IFREG:
  case S_IFDIR:
  case S_IFBLK: return AL_FD_FILE;
  default: return AL_FD_OTHER; /* eventfd, epoll and their kin have no type */
  }
}

int al__fd_eventfd(void) { return check(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

ssize_t al__fd_read(int fd, void *base, size_t len) {
  ssize_t n;
  CALL(n, read(fd, base, len));
  return n;
}

int al__fd_readable(int fd) {
  int n;
  return ioctl(fd, FIONREAD, &n) ? 0 : n;
}

/* Keeps SIGPIPE from this thread while it makes a system call that may raise it, without touching what the program does
 * with it. */
typedef struct pipe_guard {
  bool on;
  sigset_t former;
} pipe_guard;

static void ignore(int signum) { (void)signum; }

void al_ignore_sigpipe(void) {
  struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGPIPE, &action, NULL);
}

static bool sigpipe_is_ignored(void) {
  struct sigaction action;
  return sigaction(SIGPIPE, NULL, &action) == 0 && (action.sa_handler == SIG_IGN || action.sa_handler == ignore);
}

static sigset_t only_sigpipe(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  return set;
}

static void guard_begin(pipe_guard *guard) {
  sigset_t mine = only_sigpipe(), pending;
  guard->on = !sigpipe_is_ignored() && sigpending(&pending) == 0 && !sigismember(&pending, SIGPIPE) &&
              pthread_sigmask(SIG_BLOCK, &mine, &guard->former) == 0;
}

static void guard_end(const pipe_guard *guard, ssize_t result) {
  static const struct timespec at_once = {0, 0};
  sigset_t mine = only_sigpipe();
  if (!guard->on) return;
  if (result == -EPIPE) sigtimedwait(&mine, NULL, &at_once);
  pthread_sigmask(SIG_SETMASK, &guard->former, NULL);
}

ssize_t al__fd_write(int fd, const struct iovec *iov, int n) {
  pipe_guard guard;
  ssize_t sent;
  guard_begin(&guard);
  CALL(sent, n == 1 ? write(fd, iov->iov_base, iov->iov_len) : writev(fd, iov, n));
  guard_end(&guard, sent);
  return sent;
}

ssize_t al__sock_sendfile(int fd, int file, int64_t offset, size_t len) {
  pipe_guard guard;
  off_t at = (off_t)offset;
  ssize_t sent;
  guard_begin(&guard);
  CALL(sent, sendfile(fd, file, &at, len));
  guard_end(&guard, sent);
  return sent;
}

int al__fd_set_nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  return flags & O_NONBLOCK ? 0 : check(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

bool al__fd_is_open(int fd) { return fd >= 0 && fcntl(fd, F_GETFD) >= 0; }

void al__fd_close(int fd) {
  if (fd >= 0) close(fd);
}
