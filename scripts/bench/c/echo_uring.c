/* echo_uring.c - the other baseline: an echo server on the bare ring. Multishot accept, multishot receive into provided
 * buffers, which are sent back as they are and returned when sent; one enter a turn.
 *
 *   echo_uring tcp | unix:PATH       prints its address
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFERS 1024 /* a power of two */
#define BUFFER_SIZE (32 * 1024)
#define GROUP 1
#define NONE UINT32_MAX

struct piece { /* what a buffer holds; the pieces of a connection are chained in order */
  uint32_t next, sent, len;
};

struct conn {
  int fd;
  uint32_t first, last; /* pieces not yet sent; the first is being sent */
  bool receiving, ended;
  struct conn *starved_next;
};

/* The kind of an operation stands in the low bits of the pointer that comes back with its completion. */
enum { OP_ACCEPT, OP_RECV, OP_SEND, OP_MASK = 3 };

static struct io_uring ring;
static struct io_uring_buf_ring *free_buffers;
static char *memory;
static struct piece pieces[BUFFERS];
static struct conn *starved; /* found no buffer; armed again at the end of the turn */

static char *buffer_at(uint32_t id) { return memory + (size_t)id * BUFFER_SIZE; }

static struct io_uring_sqe *get_sqe(void) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  if (sqe) return sqe;
  io_uring_submit(&ring);
  sqe = io_uring_get_sqe(&ring);
  if (!sqe) bench_die("io_uring_get_sqe");
  return sqe;
}

static void buffer_return(uint32_t id) {
  io_uring_buf_ring_add(free_buffers, buffer_at(id), BUFFER_SIZE, (unsigned short)id, BUFFERS - 1, 0);
  io_uring_buf_ring_advance(free_buffers, 1);
}

static void conn_receive(struct conn *conn) {
  struct io_uring_sqe *sqe = get_sqe();
  io_uring_prep_recv_multishot(sqe, conn->fd, NULL, 0, 0);
  io_uring_sqe_set_data64(sqe, (uintptr_t)conn | OP_RECV);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = GROUP;
  conn->receiving = true;
}

static void conn_send_first(struct conn *conn) {
  struct piece *piece = &pieces[conn->first];
  struct io_uring_sqe *sqe = get_sqe();
  io_uring_prep_send(sqe, conn->fd, buffer_at(conn->first) + piece->sent, piece->len - piece->sent, MSG_NOSIGNAL);
  io_uring_sqe_set_data64(sqe, (uintptr_t)conn | OP_SEND);
}

static void conn_release(struct conn *conn) {
  if (conn->receiving || conn->first != NONE) return;
  close(conn->fd);
  free(conn);
}

static void on_accept(int fd) {
  if (fd < 0) return;
  bench_no_delay(fd);
  struct conn *conn = bench_alloc(sizeof *conn);
  *conn = (struct conn){.fd = fd, .first = NONE};
  conn_receive(conn);
}

static void conn_append(struct conn *conn, uint32_t id, uint32_t len) {
  pieces[id] = (struct piece){.next = NONE, .len = len};
  if (conn->first == NONE) {
    conn->first = conn->last = id;
    conn_send_first(conn);
  } else {
    pieces[conn->last].next = id;
    conn->last = id;
  }
}

static void on_recv(struct conn *conn, int res, uint32_t flags) {
  if (!(flags & IORING_CQE_F_MORE)) conn->receiving = false;
  if (flags & IORING_CQE_F_BUFFER) {
    uint32_t id = flags >> IORING_CQE_BUFFER_SHIFT;
    if (res > 0 && !conn->ended)
      conn_append(conn, id, (uint32_t)res);
    else
      buffer_return(id);
  }
  if (res == 0 || (res < 0 && res != -ENOBUFS)) conn->ended = true;
  if (conn->receiving) return;
  if (conn->ended) {
    conn_release(conn);
  } else {
    conn->starved_next = starved;
    starved = conn;
  }
}

static void on_send(struct conn *conn, int res) {
  uint32_t id = conn->first;
  if (res >= 0 && (pieces[id].sent += (uint32_t)res) < pieces[id].len) {
    conn_send_first(conn);
    return;
  }
  if (res < 0) conn->ended = true;
  do { /* after an error what is left goes too */
    id = conn->first;
    conn->first = pieces[id].next;
    buffer_return(id);
  } while (res < 0 && conn->first != NONE);
  if (conn->first != NONE)
    conn_send_first(conn);
  else if (conn->ended && conn->receiving)
    shutdown(conn->fd, SHUT_RDWR);
  else if (conn->ended)
    conn_release(conn);
}

static void open_ring(void) {
  struct io_uring_params params = {
      .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE, .cq_entries = 8192};
  int error = io_uring_queue_init_params(1024, &ring, &params);
  if (error < 0) errno = -error, bench_die("io_uring_queue_init_params");
  size_t size = BUFFERS * sizeof(struct io_uring_buf);
  free_buffers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  memory = mmap(NULL, (size_t)BUFFERS * BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
  if (free_buffers == MAP_FAILED || memory == MAP_FAILED) bench_die("mmap");
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)free_buffers, .ring_entries = BUFFERS, .bgid = GROUP};
  error = io_uring_register_buf_ring(&ring, &reg, 0);
  if (error < 0) errno = -error, bench_die("io_uring_register_buf_ring");
  io_uring_buf_ring_init(free_buffers);
  for (uint32_t id = 0; id < BUFFERS; id++) buffer_return(id);
}

static void accept_arm(int listener) {
  struct io_uring_sqe *sqe = get_sqe();
  io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
  io_uring_sqe_set_data64(sqe, OP_ACCEPT);
}

static void complete(const struct io_uring_cqe *cqe, int listener) {
  struct conn *conn = (struct conn *)(uintptr_t)(cqe->user_data & ~(uint64_t)OP_MASK);
  switch (cqe->user_data & OP_MASK) {
  case OP_ACCEPT:
    on_accept(cqe->res);
    if (!(cqe->flags & IORING_CQE_F_MORE)) accept_arm(listener);
    break;
  case OP_RECV: on_recv(conn, cqe->res, cqe->flags); break;
  case OP_SEND: on_send(conn, cqe->res); break;
  }
}

int main(int argc, char **argv) {
  open_ring();
  int listener = bench_listen(argc > 1 ? argv[1] : "tcp");
  accept_arm(listener);
  for (;;) {
    int error = io_uring_submit_and_wait(&ring, 1);
    if (error < 0 && error != -EINTR) errno = -error, bench_die("io_uring_submit_and_wait");
    unsigned head, n = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&ring, head, cqe) {
      complete(cqe, listener);
      n++;
    }
    io_uring_cq_advance(&ring, n);
    while (starved) {
      struct conn *conn = starved;
      starved = conn->starved_next;
      conn_receive(conn);
    }
  }
}
