/* sock.h - system calls on descriptors, with what all callers want: what they make is non-blocking and
 * close-on-exec from the start, EINTR is handled, no SIGPIPE from sockets, errors come back as -errno.
 * Knows no loop and keeps no state.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_SOCK_H
#define AL_SOCK_H

#include "aloop.h"

#include <sys/uio.h>

/* -- sockets. Those that make a descriptor return it. */
int al__sock_open(int family, int type, int protocol);
int al__sock_pair(int family, int type, int fds[2]);
int al__sock_accept(int fd, al_addr *peer); /* peer may be NULL. -EAGAIN: none waits. -ECONNABORTED is retried */
int al__sock_bind(int fd, const al_addr *addr);
int al__sock_listen(int fd, int backlog);
int al__sock_connect(int fd, const al_addr *addr);     /* 0; -EINPROGRESS: writable when done, then al__sock_error;
                                                      -EAGAIN: the backlog of a Unix listener is full */
ssize_t al__sock_recv(int fd, void *base, size_t len); /* 0 at the end of data */
ssize_t al__sock_send(int fd, const struct iovec *iov, int n);                /* bytes sent */
int al__sock_sendto(int fd, const void *data, size_t len, const al_addr *to); /* 0; to NULL: it is connected */
struct mmsghdr;
int al__sock_recvmany(int fd, struct mmsghdr *msgs, unsigned n);         /* how many datagrams; never waits */
ssize_t al__sock_sendfile(int fd, int file, int64_t offset, size_t len); /* bytes sent; 0 at the end of the file */
int al__sock_end_writing(int fd);
int al__sock_error(int fd); /* takes SO_ERROR: 0 or -errno */
int al__sock_name(int fd, al_addr *addr);
int al__sock_peer(int fd, al_addr *addr); /* -ENOTCONN */

int al__sock_set_nodelay(int fd);
int al__sock_set_keepalive(int fd);
int al__sock_set_reuse_address(int fd);
int al__sock_set_reuse_port(int fd);
int al__sock_set_v6only(int fd);
int al__sock_set_broadcast(int fd);

/* Removes the socket file that an earlier owner of the address left behind. What is no socket stays, and bind tells. */
void al__sock_remove_stale(const al_addr *addr);

/* -- descriptors of any kind */
typedef enum al_fd_kind { AL_FD_SOCKET, AL_FD_PIPE, AL_FD_CHAR, AL_FD_FILE, AL_FD_OTHER } al_fd_kind;

int al__fd_kind(int fd); /* an al_fd_kind, or -EBADF */
int al__fd_eventfd(void);
ssize_t al__fd_read(int fd, void *base, size_t len);
int al__fd_readable(int fd); /* how many bytes are there to be read, as far as the kernel tells; else 0 */
ssize_t al__fd_write(int fd, const struct iovec *iov, int n); /* no SIGPIPE from it, either */
int al__fd_set_nonblocking(int fd);
bool al__fd_is_open(int fd);
void al__fd_close(int fd); /* < 0: nothing. Never retried: the descriptor is gone after EINTR too */

#endif
